"""`os` on greenlets: waiting for children, and reading and writing descriptors, parks the calling greenlet.

Called by: users, `weald.monkey`, subprocess.py, fileobject.py.

`fork` is the stdlib's: the core gives every fork's child a fresh loop.

Invariant: a child is reaped only by the call that asked for it (waitpid with WNOHANG); nothing here
handles SIGCHLD.
"""

import os as _stdlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from weald import threadpool
from weald._core import sleep, wait_read, wait_write

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from os import *  # noqa: F403

__implements__ = ["wait", "waitpid"]
__extensions__ = ["make_nonblocking", "nb_read", "nb_write", "tp_read", "tp_write"]
__imports__ = [name for name in _stdlib.__all__ if name not in __implements__]
__all__ = sorted([*__implements__, *__extensions__, *__imports__])

_T = TypeVar("_T")

_waitpid = _stdlib.waitpid
_read = _stdlib.read
_write = _stdlib.write

_LONGEST_PAUSE = 0.05  # seconds between two looks at children that no descriptor stands for


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """os.waitpid(); raises ChildProcessError if there is no such child.

    One child's end is waited for through a pidfd; any other event is looked for every 50 ms at most.
    """
    pause = 0.001
    while True:
        found = _waitpid(pid, options | _stdlib.WNOHANG)
        if found[0] or options & _stdlib.WNOHANG:
            return found
        if pid <= 0 or options or not _wait_for_end(pid):
            sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def _wait_for_end(pid: int) -> bool:
    """Park until process `pid` has ended.  False if this system offers no way to."""
    try:
        fd = _stdlib.pidfd_open(pid)
    except (AttributeError, OSError):  # an old kernel or C library, a sandbox, too many open files
        return False
    try:
        wait_read(fd)
    finally:
        _stdlib.close(fd)
    return True


def wait() -> tuple[int, int]:
    """os.wait()"""
    return waitpid(-1, 0)


# -------------------------------------------------------------------- descriptors


def make_nonblocking(fd: int) -> bool:
    """Make `fd` non-blocking, for all that share its description.  True if it was not before."""
    was_blocking = _stdlib.get_blocking(fd)
    if was_blocking:
        _stdlib.set_blocking(fd, False)
    return was_blocking


def nb_read(fd: int, n: int) -> bytes:
    """os.read(fd, n) of a non-blocking descriptor, parking until there is something to read."""
    return _cooperate(wait_read, fd, _read, n)


def nb_write(fd: int, buf: Any) -> int:
    """os.write(fd, buf) to a non-blocking descriptor, parking until there is room; the bytes written."""
    return _cooperate(wait_write, fd, _write, buf)


def _cooperate(wait: Callable[[int], None], fd: int, call: Callable[..., _T], argument: Any) -> _T:
    while True:
        try:
            return call(fd, argument)
        except BlockingIOError:
            pass
        wait(fd)


def tp_read(fd: int, n: int) -> bytes:
    """os.read(fd, n) in the hub's thread pool, for descriptors that cannot be made non-blocking."""
    return threadpool.default().apply(_read, (fd, n))  # type: ignore[no-any-return]


def tp_write(fd: int, buf: Any) -> int:
    """os.write(fd, buf) in the hub's thread pool."""
    return threadpool.default().apply(_write, (fd, buf))  # type: ignore[no-any-return]
