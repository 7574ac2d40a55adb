"""gevent.hub: the Hub with all of gevent's attributes, and the other names of that module.

Called by: users (gevent.hub, weald.hub); _door.py, when a program reads an attribute of gevent's hubs; _drop_in.py,
_hub_local.py, _hub_primitives.py.

Once this is imported, new and existing hubs are of this class, unless `set_default_hub_class` chooses another.
"""

import sys
import time
import traceback
from collections.abc import Callable
from itertools import count
from threading import main_thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from weald import _core
from weald._base.config import config
from weald._base.names import more_names
from weald._core import Greenlet, get_hub, get_hub_if_exists, idle, iwait, report, set_hub, sleep, spawn_raw, wait
from weald.compat import (
    _plain,
    core,  # gives loops gevent's names
)
from weald.compat._ident import IdentRegistry
from weald.compat._top_level import kill
from weald.compat._util import readproperty
from weald.compat._waiter import Waiter
from weald.exceptions import BlockingSwitchOutError, InvalidSwitchError, LoopExit

__all__ = [
    "GreenletExit",
    "Hub",
    "Waiter",
    "get_hub",
    "getcurrent",
    "kill",
    "reinit",
    "signal",
    "sleep",
    "spawn_raw",
]

MAIN_THREAD_IDENT = main_thread().ident
GEVENT_CONFIG = config
_get_hub = get_hub_if_exists
_get_hub_noargs = get_hub
_counter = count(1)
_UNSET = object()


class HubDestroyed(GreenletExit):
    """gevent throws it into a hub that is being destroyed; weald does not."""

    def __init__(self, destroy_loop: bool = True) -> None:
        super().__init__(destroy_loop)
        self.destroy_loop = destroy_loop


class Hub(_core.Hub):
    """The greenlet that runs a thread's event loop."""

    NOT_ERROR = (GreenletExit, SystemExit)
    threadpool_size: Any = readproperty(lambda self: config.threadpool_size)  # a subclass or an instance may say
    format_context: Any = readproperty(lambda self: config.format_context)
    periodic_monitoring_thread: Any = None
    ident_registry: Any = None

    def __init__(self, loop: Any = None, default: Any = None) -> None:
        super().__init__(loop if isinstance(loop, str) else None)  # type: ignore[arg-type]
        self._adopted()

    def _adopted(self) -> None:
        self.minimal_ident = next(_counter)
        self.ident_registry = IdentRegistry()

    # ---------------------------------------------------------------- what it uses

    @property
    def loop(self) -> Any:
        """The event loop as users see it, None once it is destroyed, or the object that was assigned.

        The hub itself uses its own loop.
        """
        assigned = self.__dict__.get("_loop")
        if assigned is not None:
            return assigned
        found = _core.Hub.loop.__get__(self)
        return None if found.destroyed else found

    @loop.setter
    def loop(self, value: Any) -> None:
        self.__dict__["_loop"] = None if value is _core.Hub.loop.__get__(self) else value

    @property
    def loop_class(self) -> Any:
        """The class of loops."""
        return config.loop

    @property
    def backend(self) -> Any:
        """The setting `config.libev_backend`; without effect here."""
        return config.libev_backend

    @property
    def main_hub(self) -> bool:
        """Is it the main thread's?"""
        return self.thread_ident == MAIN_THREAD_IDENT

    @property
    def resolver_class(self) -> Any:
        """The class of resolvers, `config.resolver`."""
        return config.resolver

    @property
    def threadpool_class(self) -> Any:
        """The class of thread pools, `config.threadpool`."""
        return config.threadpool

    @property
    def _resolver(self) -> Any:
        return _core.Hub.resolver.__get__(self)

    @_resolver.setter
    def _resolver(self, value: Any) -> None:
        _core.Hub.resolver.__set__(self, value)

    @property
    def resolver(self) -> Any:
        """The resolver of this hub, made at its first use."""
        if self._resolver is None:
            self._resolver = self.resolver_class(hub=self)
        return self._resolver

    @resolver.setter
    def resolver(self, value: Any) -> None:
        self._resolver = value

    @resolver.deleter
    def resolver(self) -> None:
        self._resolver = None

    @property
    def _threadpool(self) -> Any:
        return _core.Hub.threadpool.__get__(self)

    @_threadpool.setter
    def _threadpool(self, value: Any) -> None:
        _core.Hub.threadpool.__set__(self, value)

    @property
    def threadpool(self) -> Any:
        """This hub's pool of native threads, made at its first use."""
        if self._threadpool is None:
            self._threadpool = self.threadpool_class(
                self.threadpool_size, hub=self, idle_task_timeout=config.threadpool_idle_task_timeout
            )
        return self._threadpool

    @threadpool.setter
    def threadpool(self, value: Any) -> None:
        self._threadpool = value

    @threadpool.deleter
    def threadpool(self) -> None:
        self._threadpool = None

    # ---------------------------------------------------------------- waiting

    def switch_out(self) -> None:
        """Raise BlockingSwitchOutError: the hub itself must not wait.  weald raises that without calling this."""
        raise BlockingSwitchOutError("Impossible to call blocking function in the event loop callback")

    def wait(self, watcher: Any) -> None:
        """Wait until `watcher`, which must not have been started, is ready."""
        waiter = Waiter(self)
        watcher.start(waiter.switch, waiter)
        try:
            result = waiter.get()
            if result is not waiter:
                raise InvalidSwitchError(f"Invalid switch into {getcurrent()!r}: got {result!r} (expected {waiter!r})")
        finally:
            watcher.stop()

    def cancel_wait(self, watcher: Any, error: Any, close_watcher: bool = False) -> None:
        """Have `error` raised soon in the greenlet that waits for `watcher`.  Does nothing if `watcher` is None."""
        if watcher is None:
            return
        if watcher.callback is not None or close_watcher:
            self.loop.run_callback(self._cancel_wait, watcher, error, close_watcher)

    def cancel_waits_close_and_then(
        self, watchers: Any, exc_kind: Any, then: Callable[..., object], *then_args: Any
    ) -> None:
        """Soon, raise `exc_kind` in those that wait for `watchers`, close these, and call `then(*then_args)`."""
        deferred = [watcher for watcher in watchers if watcher is not None]
        self.loop.run_callback(self._cancel_waits, deferred, exc_kind, then, then_args)

    def _cancel_waits(self, watchers: Any, error: Any, then: Callable[..., object], args: tuple[Any, ...]) -> None:
        for watcher in watchers:
            self._cancel_wait(watcher, error, True)
        then(*args)

    def _cancel_wait(self, watcher: Any, error: Any, close_watcher: bool) -> None:
        # The watcher's callback is `switch` of the greenlet or the Waiter that waits.
        waiting = getattr(watcher.callback, "__self__", None)
        if close_watcher:
            watcher.close()
        if waiting is not None and hasattr(waiting, "throw"):
            waiting.throw(error)

    # ---------------------------------------------------------------- errors

    @property
    def exception_stream(self) -> Any:
        """Where uncaught exceptions are written to: sys.stderr until assigned to; None: nowhere."""
        stream = self.__dict__.get("_exception_stream", _UNSET)
        return sys.stderr if stream is _UNSET else stream

    @exception_stream.setter
    def exception_stream(self, stream: Any) -> None:
        self.__dict__["_exception_stream"] = stream

    @exception_stream.deleter
    def exception_stream(self) -> None:
        if "_exception_stream" not in self.__dict__:
            raise AttributeError("exception_stream")
        del self.__dict__["_exception_stream"]

    def _normalize_exception(self, t: Any, v: Any, tb: Any) -> tuple[Any, Any, Any]:
        if t is None and v is None and tb is None:
            return sys.exc_info()
        if isinstance(v, str):
            v = t(v)
        return t, v, tb

    def handle_error(self, context: object, type: Any, value: Any, tb: Any) -> None:
        """Called with an exception that was not caught: NOT_ERROR goes nowhere, SYSTEM_ERROR to the main greenlet.

        An exception without a `context` goes there, too.  All others are printed, and so is SYSTEM_ERROR except
        KeyboardInterrupt and SystemExit, which the main greenlet reports if it does not catch them.  Three times None
        stands for the exception that is being handled.
        """
        type, value, tb = self._normalize_exception(type, value, tb)
        told_by_main = issubclass(type, self.SYSTEM_ERROR) and issubclass(type, (KeyboardInterrupt, SystemExit))
        if not told_by_main and not issubclass(type, self.NOT_ERROR):
            self.print_exception(context, type, value, tb)
        if context is None or issubclass(type, self.SYSTEM_ERROR):
            self.handle_system_error(type, value, tb)

    def print_exception(self, context: object, t: Any, v: Any, tb: TracebackType | None) -> None:
        """Write the traceback, the time and `context` to `exception_stream`."""
        stream = self.exception_stream
        if not stream:
            return
        t, v, tb = self._normalize_exception(t, v, tb)
        report(self._told(context, t, v, tb), stream)

    def _told(self, context: object, t: Any, v: Any, tb: TracebackType | None) -> str:
        """The text that `print_exception` writes."""
        said = [f"{t.__name__}\n"] if v is None else traceback.format_exception(t, v, tb)
        said.append(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        if context is None:
            return "".join((*said, "\n"))
        if not isinstance(context, str):
            try:
                context = str(self.format_context(context))
            except Exception:
                said.append(traceback.format_exc())
                context = object.__repr__(context)
        return "".join((*said, f" {context} failed with {getattr(t, '__name__', 'exception')}\n\n"))

    # ---------------------------------------------------------------- monitoring

    def start_periodic_monitoring_thread(self) -> Any:
        """Start the native thread that watches this hub, if `config.monitor_thread` says so."""
        if self.periodic_monitoring_thread is None and config.monitor_thread:
            from weald.compat._monitor import start

            start(self)
        return self.periodic_monitoring_thread

    def run(self) -> None:
        """Run the event loop; the hub's greenlet does so."""
        self.start_periodic_monitoring_thread()
        super().run()

    def destroy(self, destroy_loop: bool | None = None) -> None:
        """End the hub and its loop."""
        if self.periodic_monitoring_thread is not None:
            self.periodic_monitoring_thread.kill()
            self.periodic_monitoring_thread = None
        super().destroy(True)
        if not self and not self.dead and getcurrent() is self.parent:
            self.throw()  # it has never run: now it is dead


class signal:
    """Call `handler(*args, **kwargs)` in a new greenlet whenever signal `signalnum` arrives; `cancel()` ends that."""

    greenlet_class: Callable[..., greenlet] = Greenlet

    def __init__(self, signalnum: int, handler: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        if not callable(handler):
            raise TypeError("signal handler must be callable.")
        self.hub: Any = get_hub()
        self.watcher: Any = self.hub.loop.signal(signalnum, ref=False)
        self.handler: Any = handler
        self.args: Any = args
        self.kwargs: Any = kwargs
        self.watcher.start(self._start)

    @property
    def ref(self) -> bool:
        """Whether the program waits for the signal rather than end."""
        return bool(self.watcher.ref)

    @ref.setter
    def ref(self, value: bool) -> None:
        self.watcher.ref = value

    def cancel(self) -> None:
        """Leave the signal alone from now on."""
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher.close()
        self.watcher = self.handler = self.args = self.kwargs = self.hub = None

    def _start(self) -> None:
        self.greenlet_class(self.handle).switch()

    def handle(self) -> None:
        """Call the handler; what it raises ends the program."""
        hub = self.hub
        try:
            self.handler(*self.args, **self.kwargs)
        except BaseException:
            hub.handle_error(None, *sys.exc_info())


def reinit(hub: Any = None) -> None:
    """Does nothing: in a fork's child the hub has started afresh by itself."""


_hub_class: type[_core.Hub] = Hub  # of hubs made from now on
for _hub in _plain.become(Hub, core.loop):
    _hub._adopted()


def set_default_hub_class(hubtype: type[_core.Hub]) -> None:
    """Make hubs of class `hubtype`, a subclass of Hub, from now on."""
    global _hub_class
    _core.set_hub_class(hubtype)
    _hub_class = hubtype


def get_hub_class() -> type[_core.Hub]:
    """The class of this thread's hub, or of the next one."""
    hub = get_hub_if_exists()
    return _hub_class if hub is None else type(hub)


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.hub")
