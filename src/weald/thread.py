"""`_thread` on greenlets: the names that `weald.monkey.patch_thread` puts into the modules `_thread` and `threading`.

Called by: weald.monkey, signal.py, threading.py, weald.aio.core; users.

To start greenlets, `weald.spawn` is the better way.

Invariants:
- A thread is a Greenlet; its ident is the greenlet's `id`.  Exception: code in a native thread's main greenlet, such as
  a pool's job, starts native threads, because it may block or end, and its hub would not run greenlets then.
- Native threads that `threading` knew before
  patching, the main thread first of all, keep their native ident in their main greenlet, so that
  everything already filed under it stays valid.
- To wait for a thread's end is to wait for an Event or for something built on one, never for an OS lock.
- When `threading` is patched, greenlets can wait for the end of native threads, too, the main one included.
"""

import _thread
import os
import sys
import traceback
import weakref
from collections.abc import Callable
from contextvars import Context
from types import FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from greenlet import GreenletExit, getcurrent, greenlet

from weald._base.builtin import as_builtin, as_builtins
from weald._base.names import more_names
from weald._base.workers import finish_rest
from weald._core import (
    Event,
    Greenlet,
    ImportLock,
    Lock,
    RLock,
    get_hub_if_exists,
    is_on_main_thread,
    local,
    monotonic,
    report,
    sleep,
)

# Names that the stdlib's module has from Python 3.12 on.
_NEW_IN_3_12 = [name for name in ("daemon_threads_allowed",) if hasattr(_thread, name)]

__implements__ = [
    "LockType",
    "RLock",
    "_count",
    "_local",
    "allocate",
    "allocate_lock",
    "exit",
    "exit_thread",
    "get_ident",
    "start_new",
    "start_new_thread",
]
__imports__ = ["TIMEOUT_MAX", *_NEW_IN_3_12, "error", "get_native_id", "interrupt_main", "stack_size"]
__target__ = "_thread"

if sys.version_info >= (3, 13):
    __implements__ += ["_ThreadHandle", "_make_thread_handle", "lock", "start_joinable_thread"]
else:
    __implements__ += ["_set_sentinel"]
if hasattr(_thread, "set_name"):  # from 3.14 on, where the system's threads have names
    __implements__ += ["set_name"]

__all__ = [name for name in __implements__ + __imports__ if not name.startswith("_")]

TIMEOUT_MAX = _thread.TIMEOUT_MAX
error = _thread.error
get_native_id = _thread.get_native_id
globals().update({name: getattr(_thread, name) for name in _NEW_IN_3_12})
interrupt_main = _thread.interrupt_main
# Of native threads: greenlets have none of their own.
stack_size = _thread.stack_size

allocate = allocate_lock = lock = LockType = Lock
_local = local

_native_ident = _thread.get_ident
_native_start = _thread.start_new_thread
_known_native_idents: set[int] = set()  # filled when `threading` is patched


_stand_ins: set[type] = set()
_owners: set[type] = set()


def set_stand_in(cls: type[greenlet], *, owns_locks: bool = False) -> None:
    """Let greenlets of class `cls` act for the greenlet in their attribute `main`, as signal handlers do.

    With `owns_locks` they do so only in the eyes of the program: they and `main` exclude each other from locks.
    """
    _stand_ins.add(cls)
    if owns_locks:
        _owners.add(cls)


def get_ident(gr: greenlet | None = None, *, _native_ident: Callable[[], int] = _native_ident) -> int:
    """A number that is this greenlet's own as long as it lives."""
    if gr is None:
        try:
            gr = getcurrent()
        except (RuntimeError, TypeError):  # late in the interpreter's end; this module's names may be None
            return _native_ident()
        if type(gr) in _stand_ins:
            gr = gr.main  # type: ignore[attr-defined]
        if gr.parent is None and (ident := _native_ident()) in _known_native_idents:
            return ident
    return id(gr)


def acting() -> greenlet:
    """The greenlet whose ident the current one has."""
    gr = getcurrent()
    return gr.main if type(gr) in _stand_ins else gr  # type: ignore[attr-defined]


def get_owner_ident(*, _native_ident: Callable[[], int] = _native_ident) -> int:
    """As `get_ident`, but different in two coroutines of one loop when both are in calls that block.

    For the parts of the standard library that keep by ident what only one of these may have.
    """
    try:
        gr = getcurrent()
    except (RuntimeError, TypeError):
        return _native_ident()
    return id(gr) if type(gr) in _owners else get_ident()


# What the import system uses of the module `_thread`.  It holds the RLock (from 3.12 on) only while nothing parks.
for_imports = SimpleNamespace(RLock=_thread.RLock, allocate_lock=ImportLock, get_ident=get_owner_ident)


class ThreadGreenlet(Greenlet):
    """A greenlet that stands for a thread."""

    blocked_signals: set[int] | None = None  # the mask that the thread has set; None: the native thread's


_alive: weakref.WeakSet[ThreadGreenlet] = weakref.WeakSet()


def _count() -> int:
    """The number of running threads that were started here.  Other native ones, such as weald's own, do not count."""
    return len(_alive) + len(_native_ends)


_native_frames = sys._current_frames


def _current_frames() -> dict[int, FrameType]:
    """sys._current_frames(), with threads that are greenlets: each one's frame by its ident.

    Of greenlets that are not threads only the calling one is included, because all of them are one native thread.
    """
    frames = _native_frames()
    main = getcurrent()
    while main.parent is not None:
        main = main.parent
    native = _native_ident()
    frames.pop(native, None)
    mains_ident = native if native in _known_native_idents else id(main)
    for ident, gr in [(mains_ident, main), *((id(gr), gr) for gr in _alive)]:
        frame = gr.gr_frame
        if frame is not None:  # it is parked
            frames[ident] = frame
    frames[get_ident()] = sys._getframe(1)
    return frames


# From 3.13 on the message names the function, which before came separately.
_NAMED = " %r" if sys.version_info >= (3, 13) else ""


def _run_thread(function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        function(*args, **kwargs)
    except (SystemExit, GreenletExit):
        pass  # the ways to leave a thread
    except BaseException as error:
        if sys.unraisablehook is sys.__unraisablehook__ or _thread.start_new_thread is not start_new_thread:
            raise
        # A patched program with a handler of its own for exceptions of threads.
        report = SimpleNamespace(
            exc_type=type(error),
            exc_value=error,
            exc_traceback=error.__traceback__,
            err_msg=f"Exception ignored in thread started by{_NAMED % (function,) if _NAMED else ''}",
            object=None if _NAMED else function,
        )
        sys.unraisablehook(report)
    finally:
        _alive.discard(getcurrent())  # type: ignore[arg-type]


# Ident of a native thread started here: the functions to call at its end.
_native_ends: dict[int, list[Callable[[], object]]] = {}


def _begins_natively() -> bool:
    """Whether the caller is a native thread's main greenlet (not the main thread's), and so starts native threads."""
    return getcurrent().parent is None and not is_on_main_thread()


def _run_natively(
    function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any], handle: "_ThreadHandle | None"
) -> None:
    """The function of a native thread."""
    ident = _native_ident()
    _known_native_idents.add(ident)
    ends = _native_ends[ident] = []
    if handle is not None:
        handle._ident = ident
        ends.append(handle._set_done)
    try:
        _run_thread(function, args, kwargs)
    except BaseException:
        report(f"{traceback.format_exc()}{function!r} failed in a thread of its own\n\n")
    finally:
        del function, args, kwargs
        _native_ends.pop(ident, None)
        for end in ends:
            end()
    finish_rest()
    _known_native_idents.discard(ident)


def start_new_thread(function: Callable[..., object], args: tuple[Any, ...] = (), kwargs: Any = None, /) -> int:
    """Run `function(*args, **kwargs)` in a new greenlet, or a native thread (see above); its ident.

    An uncaught exception goes to the hub's error handler, SystemExit just ends the greenlet.
    """
    _check_arguments(function, args, kwargs)
    if _begins_natively():
        return _native_start(_run_natively, (function, args, kwargs or {}, None))
    return id(_start(function, args, kwargs))


start_new = start_new_thread


def _check_arguments(function: object, args: object, kwargs: object) -> None:
    if not callable(function):
        raise TypeError("first arg must be callable")
    if not isinstance(args, tuple):
        raise TypeError("2nd arg must be a tuple")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise TypeError("optional 3rd arg must be a dictionary")


def _start(function: Callable[..., object], args: tuple[Any, ...], kwargs: Any) -> Greenlet:
    greenlet = ThreadGreenlet.spawn(_run_thread, function, args, kwargs or {})
    greenlet.gr_context = Context()  # a thread inherits nothing
    _alive.add(greenlet)  # type: ignore[arg-type]
    return greenlet


def exit() -> None:
    """End the current thread by SystemExit; a greenlet that is not a thread by GreenletExit.

    In the latter a SystemExit would end the process.
    """
    current = getcurrent()
    if isinstance(current, Greenlet) and not isinstance(current, ThreadGreenlet):
        raise GreenletExit
    raise SystemExit


exit_thread = exit


_native_set_name: Callable[[str], None] = getattr(_thread, "set_name", lambda name: None)


def set_name(name: str) -> None:
    """Name the native thread, if the caller is its main greenlet.  To the system other greenlets have no names.

    `threading` calls it in each thread that it starts.  Without this check the process would get the last one's name.
    """
    if getcurrent().parent is None:
        _native_set_name(name)
    elif not isinstance(name, str):
        raise TypeError(f"set_name() argument 'name' must be str, not {type(name).__name__}")


class _EndLock:
    """Looks to `threading` (before 3.13) like the lock that a thread's end releases.

    Locked by its first `acquire`, unlocked for good by `release`; every later `acquire` waits for that
    and leaves it unlocked.
    """

    def __init__(self) -> None:
        self._at_fork_reinit()

    def _at_fork_reinit(self) -> None:
        self._ended = Event()
        self._locked = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._locked and not self._ended.is_set():
            self._locked = True
            return True
        if not blocking:
            return self._ended.is_set()
        return self._ended.wait(None if timeout < 0 else timeout)

    def release(self, source: object = None) -> None:
        self._ended.set()
        self._locked = False

    def locked(self) -> bool:
        return self._locked


def _set_sentinel() -> Any:
    """A lock that the end of the current thread releases."""
    current = getcurrent()
    if not isinstance(current, Greenlet):
        ends = _native_ends.get(_native_ident()) if current.parent is None else None
        if ends is None:
            # The main greenlet of a native thread ends with the thread; only the interpreter notices that.
            return _native_set_sentinel()
        ended = _EndLock()
        ends.append(ended.release)
        return ended
    ended = _EndLock()
    current.rawlink(ended.release)
    return ended


_native_set_sentinel: Callable[[], Any] = getattr(_thread, "_set_sentinel", lambda: None)


class _NativeEnd:
    """The end of a native thread that was started before patching, for greenlets to wait for.

    `finished(timeout)`, in seconds or -1 for no limit, waits for the end natively and returns whether it has come.
    """

    def __init__(self, finished: Callable[[float], bool]) -> None:
        self._finished = finished
        self._ended: Event | None = None  # set by the native thread that waits; None until the first wait

    def wait(self, timeout: float = -1) -> bool:
        """Wait up to `timeout` seconds (below 0: without limit).  Return whether the thread has ended."""
        if self._finished(0):
            return True
        if timeout == 0:
            return False
        if get_hub_if_exists() is None:
            return self._finished(timeout)  # a thread without greenlets
        if self._ended is None:
            ended = self._ended = Event()
            try:
                _native_start(self._watch, (ended,))
            except RuntimeError:  # no more threads
                self._ended = None
                return self._ask_now_and_then(timeout)
        return self._ended.wait(None if timeout < 0 else timeout)

    def _watch(self, ended: Event) -> None:
        self._finished(-1)
        ended.set()

    def _ask_now_and_then(self, timeout: float) -> bool:
        deadline = monotonic() + timeout
        while not self._finished(0):
            if 0 <= timeout and deadline <= monotonic():
                return False
            sleep(0.01)
        return True


class _NativeEndLock(_NativeEnd):
    """`_NativeEnd` as a lock, the form in which `threading` (before 3.13) keeps a thread's end."""

    def __init__(self, lock: Any) -> None:
        super().__init__(self._has_ended)
        self._lock = lock
        self._at_fork_reinit = lock._at_fork_reinit  # called by the child's only thread, this one
        self.locked = lock.locked
        self.release = lock.release

    def _has_ended(self, timeout: float) -> bool:
        if not self._lock.acquire(timeout != 0, timeout or -1):
            return False
        self._lock.release()
        return True

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self.wait(timeout if blocking else 0):
            return False
        self._lock.acquire()  # held at most by another check, so this does not wait long
        return True


class _NativeHandle(_NativeEnd):
    """`_NativeEnd` as a handle, the form in which `threading` (from 3.13) keeps a thread."""

    def __init__(self, handle: Any) -> None:
        super().__init__(self._has_ended)
        self._handle = handle
        self.is_done = handle.is_done
        self._set_done = handle._set_done

    @property
    def ident(self) -> int:
        return self._handle.ident  # type: ignore[no-any-return]

    def _has_ended(self, timeout: float) -> bool:
        if timeout != 0:
            self._handle.join(timeout)
        return self._handle.is_done()  # type: ignore[no-any-return]

    def join(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for the thread's end; None and -1: for ever."""
        self.wait(-1 if timeout is None else timeout)

    def __repr__(self) -> str:
        return repr(self._handle)


class _ThreadHandle:
    """A thread's handle, as `threading` (from 3.13) keeps it."""

    def __init__(self, *args: object) -> None:
        self._ident: int | None = None
        self._ended = Event()

    @property
    def ident(self) -> int | None:
        return self._ident

    def is_done(self) -> bool:
        return self._ended.is_set()

    def _set_done(self, source: object = None) -> None:
        if self._ident is None:
            raise RuntimeError("thread not started")
        _running.discard(self)
        _awaited_at_exit.discard(self)
        self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait up to `timeout` seconds for the thread's end; None and -1: for ever."""
        if self._ident is None:
            raise RuntimeError("thread not started")
        if self._ident == get_ident() and not self.is_done():
            raise RuntimeError("Cannot join current thread")
        self._ended.wait(None if timeout is None or timeout < 0 else timeout)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x} ident={self._ident}>"


_running: set[_ThreadHandle] = set()
_awaited_at_exit: set[_ThreadHandle | _NativeHandle] = set()


def _make_thread_handle(ident: int) -> _ThreadHandle:
    """Return a handle for the current thread, which was not started here."""
    handle = _ThreadHandle()
    handle._ident = ident
    return handle


def start_joinable_thread(
    function: Callable[[], object], handle: _ThreadHandle | None = None, daemon: bool = True
) -> _ThreadHandle:
    """Run `function()` in a new greenlet, or a native thread (see above), whose handle is `handle`.

    Unless it is `daemon`, the interpreter's exit waits for it.
    """
    if handle is None:
        handle = _ThreadHandle()
    elif not isinstance(handle, _ThreadHandle):
        raise TypeError(f"handle must be a _ThreadHandle of weald, not {handle!r}")
    elif handle._ident is not None:
        raise RuntimeError("thread already started")
    _check_arguments(function, (), None)
    _running.add(handle)  # first: a native thread may have ended before the function that starts it returns
    if not daemon:
        _awaited_at_exit.add(handle)
    if _begins_natively():
        try:
            handle._ident = _native_start(_run_natively, (function, (), {}, handle))
        except BaseException:  # no more threads
            _running.discard(handle)
            _awaited_at_exit.discard(handle)
            raise
        return handle
    greenlet = _start(function, (), None)
    handle._ident = id(greenlet)
    greenlet.rawlink(handle._set_done)
    return handle


_native_shutdown: Callable[[], None] = getattr(_thread, "_shutdown", lambda: None)


def _shutdown() -> None:
    """At the interpreter's exit (from 3.13): wait for the threads that are not daemons."""
    while _awaited_at_exit:
        handle = next(iter(_awaited_at_exit))
        handle.join()
        _awaited_at_exit.discard(handle)
    _native_shutdown()


def _after_fork_in_child() -> None:
    """In a fork's child: mark all threads but the one that has forked as ended."""
    current = get_ident()
    _alive.intersection_update({getcurrent()})
    for ident in list(_native_ends):
        if ident != _native_ident():
            del _native_ends[ident]
            _known_native_idents.discard(ident)
    _awaited_at_exit.difference_update([handle for handle in _awaited_at_exit if isinstance(handle, _NativeHandle)])
    for handle in list(_running):
        if handle._ident != current:
            handle._ended = Event()  # the old one has the parent's waiters
            handle._set_done()


as_builtins(globals(), _thread)
_current_frames, _shutdown = as_builtin(_current_frames), as_builtin(_shutdown)

os.register_at_fork(after_in_child=_after_fork_in_child)


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
