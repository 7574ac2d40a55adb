"""gevent's Waiter: one greenlet waits in `get` until `switch` or `throw` is called.

Called by: hub.py; users, as gevent._waiter; _names.py, for names of several modules of gevent's.

For code written for gevent.  weald's own primitives are events, AsyncResults and queues.
"""

import sys
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from weald._base.names import more_names
from weald._core import get_hub
from weald.exceptions import ConcurrentObjectUseError

__all__ = ["Waiter"]

_NONE = object()


class Waiter:
    """`switch(value)` and `throw(...)`, called in the hub, end the wait of the greenlet in `get`.

    If they are called before a greenlet waits, they are remembered for the next `get`.
    """

    __slots__ = ["_exception", "greenlet", "hub", "value"]

    def __init__(self, hub: Any = None) -> None:
        self.hub: Any = get_hub() if hub is None else hub
        self.clear()

    def clear(self) -> None:
        """Forget the value or the exception, so that it can be waited for again."""
        self.greenlet: greenlet | None = None
        self.value: Any = None
        self._exception: Any = _NONE  # None: there is a value; a tuple: what `throw` was called with

    def __str__(self) -> str:
        if self._exception is _NONE:
            return f"<{type(self).__name__} greenlet={self.greenlet}>"
        if self._exception is None:
            return f"<{type(self).__name__} greenlet={self.greenlet} value={self.value!r}>"
        return f"<{type(self).__name__} greenlet={self.greenlet} exc_info={self.exc_info!r}>"

    def ready(self) -> bool:
        """Whether it holds a value or an exception."""
        return self._exception is not _NONE

    def successful(self) -> bool:
        """Whether it holds a value."""
        return self._exception is None

    @property
    def exc_info(self) -> Any:
        """The arguments of `throw`, or None."""
        return None if self._exception is _NONE else self._exception

    def switch(self, value: Any) -> None:
        """Go to the waiting greenlet with `value`, or keep it.  AssertionError outside the hub, if one waits."""
        if self.greenlet is None:
            self.value = value
            self._exception = None
        else:
            self._resume(self.greenlet.switch, value)

    def switch_args(self, *args: Any) -> None:
        """`switch` to the tuple of the arguments."""
        self.switch(args)

    def throw(self, *throw_args: Any) -> None:
        """Raise in the waiting greenlet, or keep the exception for the next `get`."""
        if self.greenlet is None:
            self._exception = throw_args
        else:
            self._resume(self.greenlet.throw, *throw_args)

    def _resume(self, how: Any, *args: Any) -> None:
        handle_error = self.hub.handle_error
        if getcurrent() is not self.hub:
            raise AssertionError("Can only use Waiter.switch method from the Hub greenlet")
        try:
            how(*args)
        except BaseException:
            handle_error(how, *sys.exc_info())

    def get(self) -> Any:
        """Wait for the value or the exception, if there is none yet."""
        if self._exception is None:
            return self.value
        if self._exception is not _NONE:
            return getcurrent().throw(*self._exception)
        if self.greenlet is not None:
            raise ConcurrentObjectUseError(f"This Waiter is already used by {self.greenlet!r}")
        self.greenlet = getcurrent()
        try:
            return self.hub.switch()
        finally:
            self.greenlet = None

    def __call__(self, source: Any) -> None:
        if source.exception is None:
            self.switch(source.value)
        else:
            self.throw(source.exception)


class MultipleWaiter(Waiter):
    """Keeps every value it is switched to with until `get` fetches it."""

    __slots__ = ["_values"]

    def __init__(self, hub: Any = None) -> None:
        super().__init__(hub)
        self._values: list[Any] = []

    def switch(self, value: Any) -> None:
        """Add a value, and wake the greenlet that waits."""
        self._values.append(value)
        super().switch(True)

    def get(self) -> Any:
        """Return the first of the values, waiting for one if there is none."""
        if not self._values:
            super().get()
            self.clear()
        return self._values.pop(0)


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._waiter")
