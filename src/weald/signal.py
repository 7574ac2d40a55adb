"""`signal` on greenlets: handlers run in greenlets of their own, so that they may block; waiting for signals parks.

Called by: users, weald.monkey, weald.compat, weald.aio.

A handler starts at once, while the greenlet that the signal has interrupted stands still, as in the stdlib.  If it
parks, that greenlet goes on.  A handler's exception is raised in the main greenlet, whichever greenlet was interrupted,
or in the latest handler that has not ended: in the stdlib it would be above the main thread's other code.

Invariants:
- No deadlock is reported while signal handlers exist: a signal may wake a greenlet.
- The program does not end before the handlers that have begun, and it ends with the exit status of the last that raised
  an exception: in the stdlib the main thread would be in them.
"""

import atexit
import signal as _stdlib
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context
from errno import EINVAL
from functools import partial
from os import close, register_at_fork, strerror
from types import FrameType
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from weald._base.builtin import as_builtins
from weald._base.originals import get_original
from weald._base.waiting import retry
from weald._core import (
    Event,
    asked_in_vain,
    can_park,
    end_with,
    get_hub,
    open_signalfd,
    prepare_hub,
    raise_in_handler,
    run_in_midst,
    set_handler_class,
    signals_may_wake,
    wait_for_handler,
    wait_read,
)
from weald.thread import ThreadGreenlet, set_stand_in

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from signal import *  # noqa: F403

    from weald._base.names import more_names

    __getattr__ = more_names(__name__)

__implements__ = [
    "getsignal",
    "pause",
    "pthread_kill",
    "pthread_sigmask",
    "raise_signal",
    "set_wakeup_fd",
    "signal",
    "sigtimedwait",
    "sigwait",
    "sigwaitinfo",
]
__imports__ = [name for name in vars(_stdlib) if not name.startswith("_") and name not in __implements__]
__all__ = sorted([*__implements__, *__imports__])

Handler = Callable[[int, FrameType | None], Any] | int | None

# Signal: a function that is called with `(hub, handler, exc_info)` when the handler raises.  For other signals the main
# greenlet gets the exception.
reporters: dict[int, Callable[..., object]] = {}

_handled: set[int] = set()  # signals with a user's handler

_signal = _stdlib.signal
_getsignal = _stdlib.getsignal
_raise_signal = _stdlib.raise_signal
_pthread_kill = _stdlib.pthread_kill
_pthread_sigmask = _stdlib.pthread_sigmask
_set_wakeup_fd = _stdlib.set_wakeup_fd  # the core's
_pause = _stdlib.pause
_sigwait, _sigwaitinfo, _sigtimedwait = _stdlib.sigwait, _stdlib.sigwaitinfo, _stdlib.sigtimedwait
_get_ident = get_original("_thread", "get_ident")
_native_frames = get_original("sys", "_current_frames")


class _Handler(greenlet):
    """The greenlet of a handler.  To `threading` it is the main thread, whose greenlet is `main`."""

    main: greenlet


set_handler_class(_Handler)
set_stand_in(_Handler)

_unended: list[_Handler] = []  # handlers that have begun, in that order
register_at_fork(after_in_child=_unended.clear)
_none_left: Event | None = None  # set when the last of them ends; there is one while the program's end waits for it


def _wait_for_handlers() -> None:
    """Wait until all handlers that have begun have ended; at the end of the program."""
    global _none_left
    while _unended and can_park():
        _none_left = Event()
        try:
            _none_left.wait()
        except BaseException as error:
            if _unended:  # it is not from a handler, which would have raised it in the latest of these
                raise_in_handler(get_hub(), _unended[-1], error)
            else:
                end_with(error)


# Once before the main thread waits for the others and `atexit` functions are called, and again after that, for the
# handlers of signals that come meanwhile.
with suppress(RuntimeError):  # imported at the end only
    threading._register_atexit(_wait_for_handlers)  # type: ignore[attr-defined]
atexit.register(_wait_for_handlers)


class _InGreenlet:
    """The handler that the interpreter gets in place of a user's; it calls the user's in a greenlet."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[int, FrameType | None], Any]) -> None:
        self.function = function

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        try:
            hub = get_hub()
        except OSError:  # no loop can be made, so nothing could run while the handler waits
            self.function(signum, frame)
            return
        interrupted = getcurrent()
        runner = _Handler(self._run, interrupted)
        main = runner.main = hub.main
        # Not a copy: variables that the handler sets are set for the main thread.
        if main.gr_context is None:
            main.gr_context = Context()
        runner.gr_context = main.gr_context
        if interrupted is not main:
            frame = main.gr_frame or frame  # as in CPython, where the main thread's is interrupted
        _unended.append(runner)
        run_in_midst(hub, interrupted, runner, hub, interrupted, signum, frame)

    def _run(self, hub: Any, interrupted: greenlet, signum: int, frame: FrameType | None) -> None:
        runner = getcurrent()
        try:
            self.function(signum, frame)
        except BaseException as error:
            if signum in reporters:
                reporters[signum](hub, self.function, sys.exc_info())
                return
            others = [handler for handler in _unended if handler is not runner]
            target = others[-1] if others else hub.main
            if runner.parent is interrupted is target:  # it has never parked
                raise
            if target is hub.main:
                hub.handle_system_error(*sys.exc_info())
            else:
                raise_in_handler(hub, target, error)
        finally:
            if runner in _unended:
                _unended.remove(runner)
            if _none_left is not None and not _unended:
                _none_left.set()


def _check_main_thread(what: str) -> None:
    """Raise ValueError in threads that are greenlets, as the interpreter does in native ones."""
    if isinstance(getcurrent(), ThreadGreenlet) and threading.current_thread() is not threading.main_thread():
        raise ValueError(what)


def set_wakeup_fd(fd: int, /, *, warn_on_full_buffer: bool = True) -> int:
    """signal.set_wakeup_fd(); raises ValueError outside of the main thread."""
    _check_main_thread("set_wakeup_fd only works in main thread of the main interpreter")
    return _set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)


def signal(signalnum: int, handler: Handler, /) -> Handler:
    """signal.signal(): set the handler, return the one before; `handler` may block.

    Raises ValueError outside of the main thread.
    """
    _check_main_thread("signal only works in main thread of the main interpreter")
    asked_in_vain()
    prepare_hub()
    before = _unwrapped(_signal(signalnum, _InGreenlet(handler) if callable(handler) else handler))
    if callable(handler) and handler is not _stdlib.default_int_handler:  # which is always there, and ends waits
        _handled.add(signalnum)
    else:
        _handled.discard(signalnum)
    signals_may_wake(bool(_handled))
    return before


def raise_signal(signalnum: int, /) -> None:
    """signal.raise_signal(); raising again and again lets others run."""
    _raise_signal(signalnum)
    asked_in_vain()


def pthread_kill(thread_id: int, signalnum: int, /) -> None:
    """signal.pthread_kill(); to the native thread of a thread that is a greenlet."""
    if thread_id in threading._active and thread_id not in _native_frames():  # type: ignore[attr-defined]
        thread_id = _get_ident()  # the greenlet's ident is no pthread_t: the C library would crash
    _pthread_kill(thread_id, signalnum)


def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[Any]:
    """signal.pthread_sigmask(); of a thread that is a greenlet it is only remembered, and returned.

    Handlers run as the main thread, whichever signals other threads block.  A thread blocks signals so that the main
    thread gets them; if a greenlet blocked them for its native thread, the main thread would get none.
    """
    thread = getcurrent()
    if not isinstance(thread, ThreadGreenlet):
        return _pthread_sigmask(how, mask)
    mask = set(mask)
    for number in mask:
        if not 0 < number < _stdlib.NSIG:
            raise ValueError(f"signal number {number} out of range [1; {_stdlib.NSIG - 1}]")
    if how not in (_stdlib.SIG_BLOCK, _stdlib.SIG_UNBLOCK, _stdlib.SIG_SETMASK):
        raise OSError(EINVAL, strerror(EINVAL))
    before = thread.blocked_signals
    if before is None:  # it began with its maker's
        before = _pthread_sigmask(_stdlib.SIG_BLOCK, ())
    after = before - mask if how == _stdlib.SIG_UNBLOCK else mask if how == _stdlib.SIG_SETMASK else before | mask
    thread.blocked_signals = {_as_signal(number) for number in after - {_stdlib.SIGKILL, _stdlib.SIGSTOP}}
    return set(before)


def _as_signal(number: int) -> int:
    try:
        return _stdlib.Signals(number)
    except ValueError:  # a real-time signal without a name
        return number


def getsignal(signalnum: int, /) -> Handler:
    """signal.getsignal(): the handler as it was set."""
    return _unwrapped(_getsignal(signalnum))


def _unwrapped(handler: Handler) -> Handler:
    return handler.function if isinstance(handler, _InGreenlet) else handler


def pause() -> None:
    """signal.pause(): wait until a signal's handler has been called; others run."""
    if not wait_for_handler():
        _pause()


def sigwait(sigset: Iterable[int], /) -> _stdlib.Signals:
    """signal.sigwait(): take one of these signals, which should be blocked; until one has arrived others run."""
    return _stdlib.Signals(sigwaitinfo(sigset).si_signo)


def sigwaitinfo(sigset: Iterable[int], /) -> _stdlib.struct_siginfo:
    """As `sigwait`; returns a struct_siginfo."""
    return _sigwaitinfo(sigset) if not can_park() else _take_signal(list(sigset), None)  # type: ignore[return-value]


def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> _stdlib.struct_siginfo | None:
    """As `sigwaitinfo`, for `timeout` seconds at most: None after that."""
    if timeout <= 0 or not can_park():
        return _sigtimedwait(sigset, timeout)
    return _take_signal(list(sigset), timeout)


def _take_signal(signals: list[int], timeout: float | None) -> _stdlib.struct_siginfo | None:
    found = _sigtimedwait(signals, 0)  # raises if the signals are wrong
    if found is not None:
        return found
    fd = open_signalfd(signals)
    try:
        return retry(partial(wait_read, fd), timeout, _sigtimedwait, signals, 0)
    except TimeoutError:
        return None
    finally:
        close(fd)


# The same `__module__` as the stdlib's functions: pydoc uses it to find the functions of a patched module.
for _name in __implements__:
    globals()[_name].__module__ = "signal"


as_builtins(globals(), _stdlib)
