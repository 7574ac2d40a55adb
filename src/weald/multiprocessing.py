"""`multiprocessing` on greenlets: waiting for its semaphores, on which everything in it is built, lets others run.

Called by: weald.monkey: `patch_thread` puts SemLock into the module `_multiprocessing`, `patch_socket` has
`connections_wait` called.

A semaphore that processes share cannot be waited for through a descriptor, so it is polled, at least 100 times a
second.
"""

import _multiprocessing  # type: ignore[import-not-found]
from functools import partial
from typing import Any

from greenlet import getcurrent

from weald import os
from weald._base.waiting import retry
from weald._core import RLock, get_hub_if_exists, monotonic, sleep, wait_read, wait_write

__implements__ = ["SemLock"]

_RECURSIVE = 0  # the kind of multiprocessing's RLock
_LONGEST_PAUSE = 0.01  # seconds between two polls


class SemLock(_multiprocessing.SemLock):  # type: ignore[misc]
    """The semaphore on which multiprocessing's Lock, Semaphore, Condition, Event, Queue and Pool are built."""

    _owner: RLock | None = None  # who holds a recursive one, holds this; to C code the owner is the native thread
    _adopted: Any = None  # the standard library's object that closes the semaphore when it dies

    @classmethod
    def adopt(cls, native: Any) -> "SemLock":
        """Return an object for the same semaphore as `native`, of the standard library."""
        self: SemLock = cls._rebuild(native.handle, native.kind, native.maxvalue, None)
        self._adopted = native
        return self

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire it; other greenlets run meanwhile.  False if it was not free (within `timeout` seconds)."""
        hub = get_hub_if_exists()
        if not block:
            return self._try()
        if hub is None or getcurrent() is hub:
            got: bool = super().acquire(block, timeout)
            if got and self.kind == _RECURSIVE:
                self._rlock().acquire(False)
            return got
        end = None if timeout is None else monotonic() + timeout
        pause = 0.0
        while not self._try():
            left = _LONGEST_PAUSE if end is None else end - monotonic()
            if left <= 0.0:
                return False
            sleep(min(pause, left))
            pause = min(pause * 2 or 0.0005, _LONGEST_PAUSE)
        return True

    def _try(self) -> bool:
        if self.kind != _RECURSIVE:
            return super().acquire(False)  # type: ignore[no-any-return]
        rlock = self._rlock()
        if not rlock.acquire(False):
            return False
        if not super().acquire(False):
            rlock.release()
            return False
        return True

    def _rlock(self) -> RLock:
        if self._owner is None:
            self._owner = RLock()
        return self._owner

    def release(self) -> None:
        """Release it.  Raises AssertionError if another greenlet or thread has this RLock."""
        if self.kind == _RECURSIVE:
            if not self._is_mine():
                raise AssertionError("attempt to release recursive lock not owned by thread")
            self._rlock().release()
        super().release()

    def _is_mine(self) -> bool:
        return super()._is_mine() and (self.kind != _RECURSIVE or self._rlock()._is_owned())

    def _after_fork(self) -> None:
        """In a fork's child: no thread holds it there."""
        self._owner = None
        super()._after_fork()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: Any) -> None:
        self.release()


def _read(fd: int, size: int) -> bytes:
    try:
        return os.read(fd, size)
    except BlockingIOError:
        pass
    return retry(partial(wait_read, fd), None, os.read, fd, size)


def _write(fd: int, data: Any) -> int:
    try:
        return os.write(fd, data)
    except BlockingIOError:
        pass
    return retry(partial(wait_write, fd), None, os.write, fd, data)


def connections_wait(connection: Any) -> None:
    """Make the Connections of the module `multiprocessing.connection` wait on non-blocking descriptors, too.

    A patched socket's descriptor is non-blocking, whatever its timeout, and the fork server (from 3.14 on) puts a
    Connection on the descriptor of a socket.
    """
    connection.Connection._recv.__defaults__ = (_read,)
    connection.Connection._send.__defaults__ = (_write,)
