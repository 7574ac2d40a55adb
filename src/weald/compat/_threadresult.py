"""gevent.threadpool.ThreadResult: hands what a native thread has computed to the hub of another.

Called by: _names.py, for names of gevent.threadpool.
"""

import sys
from collections.abc import Callable
from typing import Any

__all__ = ["ThreadResult"]


class ThreadResult:
    """`set(value)` or `handle_error(context, exc_info)`, in any thread, calls `call_when_ready()` and
    `receiver(self)` in `hub`.

    `value` and `exc_info` are there while the receiver is called.
    """

    async_watcher: Any = None  # there is none: the hub is called straight from the other thread
    context: Any = None
    exc_info: Any = ()
    hub: Any = None
    receiver: Any = None
    value: Any = None

    def __init__(self, receiver: Any, hub: Any, call_when_ready: Callable[[], object]) -> None:
        self.receiver = receiver if receiver is not None else _nobody
        self.hub = hub
        self._call_when_ready = call_when_ready

    @property
    def exception(self) -> BaseException | None:
        """The exception of the call, or None."""
        return self.exc_info[1] if self.exc_info else None

    def successful(self) -> bool:
        """Return whether the call raised nothing."""
        return self.exception is None

    def set(self, value: Any) -> None:
        """Hand over the result of the call."""
        self.value = value
        self.hub.loop.run_callback_threadsafe(self._soon)

    def handle_error(self, context: Any, exc_info: Any) -> None:
        """Hand over what the call raised, which is reported as of `context`."""
        self.context = context
        self.exc_info = exc_info
        self.hub.loop.run_callback_threadsafe(self._soon)

    def destroy_in_main_thread(self) -> None:
        """Forget the receiver: what comes from now on is dropped."""
        self.receiver, self._call_when_ready = _nobody, _nothing
        self.context = None

    def _soon(self) -> None:
        # After what is ready already, as what comes through an async watcher.
        self.hub.loop.run_callback(self._on_async)

    def _on_async(self) -> None:
        try:
            if self.exc_info:
                self.hub.handle_error(self.context, *self.exc_info)
            self._call_when_ready()
            self.receiver(self)
        except BaseException:
            self.hub.handle_error(self, *sys.exc_info())
        finally:
            self.value = None
            self.exc_info = ()


def _nobody(result: Any) -> None:
    """The receiver of a result that is not wanted."""


def _nothing() -> None:
    """What to call when that is ready."""
