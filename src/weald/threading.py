"""`threading` on greenlets: the names that `weald.monkey.patch_thread` puts into the module `threading`.

Called by: weald.monkey; users.

Patching changes the parts that `threading.Thread`, Condition, Semaphore, Barrier and Timer are built on, not these
classes themselves.  So these names here are the standard library's classes; unpatched, they start native threads.

Invariant: in a greenlet that is not a thread `current_thread` returns a `_DummyThread`, filed under the greenlet's
ident until the greenlet ends.
"""

import sys
import threading
import warnings
import weakref
from threading import Barrier, BoundedSemaphore, BrokenBarrierError, Condition, Semaphore, Thread, Timer
from typing import TYPE_CHECKING, Any

from weald import _core
from weald._base.names import more_names
from weald._base.workers import is_worker
from weald._core import Greenlet, Lock, RLock, local
from weald.thread import acting, allocate_lock, get_ident, start_new_thread

__implements__ = ["Event", "Lock", "RLock", "_CRLock", "_DummyThread", "_allocate_lock", "get_ident", "local"]
if sys.version_info >= (3, 13):
    from weald.thread import _awaited_at_exit, _make_thread_handle, _NativeHandle, _ThreadHandle
    from weald.thread import _shutdown as _thread_shutdown
    from weald.thread import start_joinable_thread as _start_joinable_thread

    _get_main_thread_ident = get_ident  # called for a greenlet that has forked, which is the child's main thread
    __implements__ += ["_ThreadHandle", "_make_thread_handle", "_start_joinable_thread", "_thread_shutdown"]
    __implements__ += ["_get_main_thread_ident"]
else:
    from weald.thread import _EndLock, _NativeEndLock, _set_sentinel

    _start_new_thread = start_new_thread
    __implements__ += ["_set_sentinel", "_start_new_thread"]

if hasattr(threading, "_set_name"):  # from 3.14 on; None where the system's threads have no names
    from weald.thread import set_name

    _set_name = set_name if threading._set_name is not None else None
    __implements__ += ["_set_name"]

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "BrokenBarrierError",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
    "Thread",
    "Timer",
    "allocate_lock",
    "get_ident",
    "local",
]

_allocate_lock = Lock
_CRLock = RLock

# Where a Thread (from 3.13) keeps its handle: the name has changed with a patch release.
_HANDLE = "_os_thread_handle" if hasattr(threading.main_thread(), "_os_thread_handle") else "_handle"

_started = threading.Event()
_started.set()


def adopt_threads() -> None:
    """Give the existing threads, the main thread included, ends that greenlets can wait for."""
    for thread in list(threading._dangling):  # type: ignore[attr-defined]
        if sys.version_info >= (3, 13):
            _adopt_handle(thread)
        elif (lock := thread._tstate_lock) is not None:  # it has been started and has not ended
            ours: Any = _NativeEndLock(lock)
            if thread is threading.main_thread():
                ours = _EndLock()  # `threading` itself releases it, at exit
                ours.acquire()
            thread._tstate_lock = ours
            locks = threading._shutdown_locks  # type: ignore[attr-defined]
            if lock in locks:
                locks.discard(lock)
                locks.add(ours)


if sys.version_info >= (3, 13):

    def _adopt_handle(thread: Any) -> None:
        handle = getattr(thread, _HANDLE)
        if thread is threading.main_thread():
            setattr(thread, _HANDLE, _make_thread_handle(thread.ident))
        elif not thread._started.is_set():
            setattr(thread, _HANDLE, _ThreadHandle())
        elif not handle.is_done():
            ours = _NativeHandle(handle)
            setattr(thread, _HANDLE, ours)
            if not thread.daemon:
                _awaited_at_exit.add(ours)


class Event(_core.Event):
    """threading.Event."""

    def isSet(self) -> bool:
        """The deprecated name of `is_set`."""
        warnings.warn("isSet() is deprecated, use is_set() instead", DeprecationWarning, stacklevel=2)
        return self.is_set()

    def __repr__(self) -> str:
        return f"<threading.Event at {id(self):#x}: {'set' if self.is_set() else 'unset'}>"

    def _at_fork_reinit(self) -> None:
        """`threading` calls this in a fork's child for its threads' events, which have no waiters there."""


class _DummyThread(threading._DummyThread):
    """The thread object of a greenlet that `threading` did not start.

    Much cheaper to make than its base, whose `__init__` allocates locks; every greenlet that logs gets one.
    """

    def __init__(self) -> None:
        current = acting()
        ident = get_ident()
        self.__dict__.update(
            _args=(),
            _context=None,
            # Threads started in it inherit this: those of to_thread keep the interpreter running, as in the stdlib.
            _daemonic=not (current.parent is None and is_worker()),
            _ident=ident,
            _initialized=True,
            _is_stopped=False,
            _kwargs=None,
            _name=threading._newname("Dummy-%d"),  # type: ignore[attr-defined]
            _native_id=threading.get_native_id(),
            _started=_started,
            _stderr=None,
            _target=None,
            _tstate_lock=None,
        )
        if sys.version_info >= (3, 13):
            setattr(self, _HANDLE, _make_thread_handle(ident))
        # Filed until the greenlet ends, at the latest until its memory (its ident) is free for another.
        self._greenlet = weakref.ref(current, self._forget)
        if isinstance(current, Greenlet):
            current.rawlink(self._forget)
        threading._active[ident] = self  # type: ignore[attr-defined]

    def _become_main(self) -> None:
        """Called in a child that this thread has forked."""
        self.__class__ = threading._MainThread  # type: ignore[attr-defined]
        self.__dict__.update(_name="MainThread", _daemonic=False)

    if sys.version_info >= (3, 13):

        def _after_fork(self, new_ident: int | None = None) -> None:
            if new_ident is not None:
                self._become_main()
            Thread._after_fork(self, new_ident)  # type: ignore[attr-defined]

    else:

        def _reset_internal_locks(self, is_alive: bool) -> None:
            if is_alive:
                self._become_main()
                self.__dict__["_tstate_lock"] = _EndLock()
            Thread._reset_internal_locks(self, is_alive)  # type: ignore[attr-defined]

    def _forget(self, source: Any) -> None:
        active = threading._active  # type: ignore[attr-defined]
        ident = self.__dict__["_ident"]
        if active.get(ident) is self:
            del active[ident]


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
