"""`os` on greenlets: waiting for children, commands and locks, and reading and writing pipes, parks the greenlet.

Called by: users, weald.monkey, multiprocessing.py, weald.compat.

`fork` and `posix_spawn` are the stdlib's: the core gives every fork's child a fresh loop.

Invariant: a child is reaped only by the call that waits for it, with WNOHANG; see _base/children.py.
"""

import os as _stdlib
import sys
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_GETFL, fcntl
from functools import partial
from operator import index
from os import O_ACCMODE, O_NONBLOCK, O_RDONLY, O_WRONLY
from stat import S_ISFIFO, S_ISSOCK
from typing import TYPE_CHECKING, Any, TypeVar

from weald import fcntl as _fcntl
from weald import threadpool
from weald._base import pipes
from weald._base.builtin import as_builtins
from weald._base.children import await_change
from weald._base.pipes import PIPE_BUF, is_stream
from weald._base.waiting import POLLIN, POLLOUT, is_ready, retry
from weald._core import (
    asked_in_vain,
    before_io,
    can_park,
    get_hub_if_exists,
    has_looked,
    number_changes,
    number_ends,
    wait_read,
    wait_write,
    waits_in_calls,
)

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from os import *  # noqa: F403

    from weald._base.names import more_names

    __getattr__ = more_names(__name__)

__implements__ = [
    "close",
    "closerange",
    "dup2",
    "eventfd_read",
    "eventfd_write",
    "fdopen",
    "lockf",
    "popen",
    "read",
    "readv",
    "sched_yield",
    "sendfile",
    "splice",
    "system",
    "wait",
    "wait3",
    "wait4",
    "waitid",
    "waitpid",
    "write",
    "writev",
]
if sys.version_info >= (3, 14):
    __implements__ += ["readinto"]
__extensions__ = ["make_nonblocking", "nb_read", "nb_write", "tp_read", "tp_write"]
__imports__ = [name for name in _stdlib.__all__ if name not in __implements__]
__all__ = sorted([*__implements__, *__extensions__, *__imports__])

_T = TypeVar("_T")

_waitpid, _wait4, _waitid = _stdlib.waitpid, _stdlib.wait4, _stdlib.waitid
_read = _stdlib.read
_readv, _writev, _sendfile = _stdlib.readv, _stdlib.writev, _stdlib.sendfile
_lockf, _sched_yield, _system = _stdlib.lockf, _stdlib.sched_yield, _stdlib.system
_write = _stdlib.write
_close, _closerange, _dup2 = _stdlib.close, _stdlib.closerange, _stdlib.dup2

fdopen = pipes.fdopen
make_nonblocking = pipes.make_nonblocking

# -------------------------------------------------------------------- children


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """os.waitpid(); raises ChildProcessError if there is no such child."""
    while not (found := _waitpid(pid, options | _stdlib.WNOHANG))[0] and not options & _stdlib.WNOHANG:
        await_change(*_as_waitid(pid, options))
    if not found[0]:
        asked_in_vain()
    return found


def wait() -> tuple[int, int]:
    """os.wait()"""
    return waitpid(-1, 0)


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """os.wait4()"""
    while not (found := _wait4(pid, options | _stdlib.WNOHANG))[0] and not options & _stdlib.WNOHANG:
        await_change(*_as_waitid(pid, options))
    return found


def wait3(options: int) -> tuple[int, int, Any]:
    """os.wait3()"""
    return wait4(-1, options)


def waitid(idtype: int, id: int, options: int, /) -> "_stdlib.waitid_result | None":
    """os.waitid()"""
    while (found := _waitid(idtype, id, options | _stdlib.WNOHANG)) is None and not options & _stdlib.WNOHANG:
        await_change(idtype, id, options & ~_stdlib.WNOWAIT)
    return found


def _as_waitid(pid: int, options: int) -> tuple[int, int, int]:
    """The arguments of waitid() for waitpid(pid, options)."""
    events = _stdlib.WEXITED | options & (_stdlib.WUNTRACED | _stdlib.WCONTINUED)
    if pid > 0:
        return _stdlib.P_PID, pid, events
    if pid == -1:
        return _stdlib.P_ALL, 0, events
    return _stdlib.P_PGID, -pid or _stdlib.getpgrp(), events


def popen(cmd: str, mode: str = "r", buffering: int = -1) -> Any:
    """os.popen()"""
    from weald.subprocess import PIPE, Popen

    if not isinstance(cmd, str):
        raise TypeError(f"invalid cmd type ({type(cmd)}, expected string)")
    if mode not in ("r", "w"):
        raise ValueError(f"invalid mode {mode!r}")
    if buffering == 0 or buffering is None:
        raise ValueError("popen() does not support unbuffered streams")
    which = "stdout" if mode == "r" else "stdin"
    pipe: dict[str, Any] = {which: PIPE}
    child: Any = Popen(cmd, shell=True, text=True, bufsize=buffering, **pipe)
    return _stdlib._wrap_close(getattr(child, which), child)


def system(command: Any) -> int:
    """os.system(); while the command runs, so do others.

    It is called in a native thread of its own, because it may take any time.  If the greenlet is killed meanwhile, the
    command goes on: os.system has no way to end it.
    """
    if not can_park():
        return _system(command)
    pool = threadpool.ThreadPool(1)
    try:
        return pool.apply(_system, (command,))  # type: ignore[no-any-return]
    except RuntimeError:  # no thread can be started: call it here, which blocks the loop
        return _system(command)
    finally:
        pool.kill()


def sched_yield() -> None:
    """os.sched_yield(); lets other greenlets run, too."""
    _sched_yield()
    if can_park():
        has_looked()


# -------------------------------------------------------------------- descriptors


def close(fd: int) -> None:
    """os.close(); greenlets that wait for `fd` get OSError(EBADF).

    If it is one of libuv's own descriptors, the loop opens another.  (libev's own descriptors are not known.)
    """
    hub = get_hub_if_exists()
    if hub is not None and type(fd) is int and 0 <= fd < 2**31 and hub.owns(fd):
        hub.close_range(partial(_close, fd), fd, fd + 1)
    else:
        if isinstance(fd, int) and 0 <= fd < 2**31:
            number_ends(fd)
        _close(fd)


def dup2(fd: int, fd2: int, inheritable: bool = True) -> int:
    """os.dup2(); greenlets that wait for the old file of `fd2` get OSError(EBADF)."""
    change = partial(_dup2, fd, fd2, inheritable)
    try:
        old, new = index(fd), index(fd2)
        _stdlib.fstat(old)  # if that is not open, `fd2` stays as it is
    except (TypeError, OverflowError, OSError):
        return change()  # raises the right error
    return change() if old == new or not 0 <= new < 2**31 else number_changes(new, change)


def closerange(fd_low: int, fd_high: int, /) -> None:
    """os.closerange(), which daemons call; if it closes the loop's own descriptors, the loop opens them again."""
    hub = get_hub_if_exists()
    first, end = (min(max(index(fd), 0), 2**31 - 1) for fd in (fd_low, fd_high))
    if first >= end:
        return  # if `fd_high` is 0, CPython's close_range(2) would close all descriptors
    if hub is None or hub.loop.name == "virtual":
        _closerange(fd_low, fd_high)
    else:
        hub.close_range(partial(_closerange, fd_low, fd_high), first, end)


def read(fd: int, length: int, /) -> bytes:
    """os.read(); while a blocking pipe, terminal or socket has nothing to read, others run."""
    if isinstance(length, int) and 0 < length <= sys.maxsize:  # otherwise the system's call raises the right error
        _wait_until_ready(fd, POLLIN, O_WRONLY, wait_read)
    return _read(fd, length)


def readv(fd: int, buffers: Any, /) -> int:
    """os.readv(); while a blocking pipe, terminal or socket has nothing to read, others run."""
    buffers = list(buffers) if not isinstance(buffers, list | tuple) else buffers
    if _size(buffers) > 0:
        _wait_until_ready(fd, POLLIN, O_WRONLY, wait_read)
    return _readv(fd, buffers)


def writev(fd: int, buffers: Any, /) -> int:
    """os.writev(); while a blocking pipe, terminal or socket has no room, others run."""
    buffers = list(buffers) if not isinstance(buffers, list | tuple) else buffers
    size = _size(buffers)
    if size < 0 or not is_stream(fd):
        return _writev(fd, buffers)
    if size <= PIPE_BUF:
        if size:
            _wait_until_ready(fd, POLLOUT, O_RDONLY, wait_write)
        return _writev(fd, buffers)
    return write(fd, b"".join(buffers))


def _size(buffers: Any) -> int:
    """The number of bytes in all of `buffers`; -1 if they are invalid: the system's call then raises."""
    size = 0
    try:
        for buffer in buffers:
            with memoryview(buffer) as view:
                size += view.nbytes
    except (TypeError, ValueError):
        return -1
    return size


def sendfile(out_fd: int, in_fd: int, offset: int | None, count: int) -> int:
    """os.sendfile(); while a blocking pipe or socket has no room, others run."""
    if isinstance(count, int) and count > 0:
        _wait_until_ready(out_fd, POLLOUT, O_RDONLY, wait_write)
        # A blocking pipe would wait for its reader until all data is in it.
        if count > PIPE_BUF and S_ISFIFO(_stdlib.fstat(out_fd).st_mode) and _stdlib.get_blocking(out_fd):
            count = PIPE_BUF
    return _sendfile(out_fd, in_fd, offset, count)


if hasattr(_stdlib, "splice"):
    _splice = _stdlib.splice

    def splice(
        src: int,
        dst: int,
        count: int,
        offset_src: int | None = None,
        offset_dst: int | None = None,
        flags: int = 0,
    ) -> int:
        """os.splice(); while a blocking pipe or socket has nothing to read, or no room, others run."""
        if isinstance(count, int) and count > 0 and not (isinstance(flags, int) and flags & _stdlib.SPLICE_F_NONBLOCK):
            _stdlib.fstat(dst)  # before it waits for the other
            _wait_until_ready(src, POLLIN, O_WRONLY, wait_read)
            _wait_until_ready(dst, POLLOUT, O_RDONLY, wait_write)
        return _splice(src, dst, count, offset_src, offset_dst, flags)


if hasattr(_stdlib, "eventfd_read"):
    _eventfd_read, _eventfd_write = _stdlib.eventfd_read, _stdlib.eventfd_write

    def eventfd_read(fd: int) -> int:
        """os.eventfd_read(); while a blocking eventfd's counter is zero, others run."""
        _wait_until_ready(fd, POLLIN, O_WRONLY, wait_read)
        return _eventfd_read(fd)

    def eventfd_write(fd: int, value: int) -> None:
        """os.eventfd_write(); while a blocking eventfd's counter is full, others run."""
        _wait_until_ready(fd, POLLOUT, O_RDONLY, wait_write)
        _eventfd_write(fd, value)


def lockf(fd: int, command: int, length: int, /) -> None:
    """os.lockf(); while another process has a lock there, others run."""
    if command == _stdlib.F_LOCK:
        _fcntl.lock_when_free(lambda: _lockf(fd, command, length), lambda: _lockf(fd, _stdlib.F_TLOCK, length))
    else:
        _lockf(fd, command, length)


if sys.version_info >= (3, 14):
    _readinto = _stdlib.readinto

    def readinto(fd: int, buffer: Any, /) -> int:
        """os.readinto(); while a blocking pipe, terminal or socket has nothing to read, others run."""
        with suppress(TypeError), memoryview(buffer) as view:  # the system's call raises the right error
            if view.nbytes and not view.readonly:
                _wait_until_ready(fd, POLLIN, O_WRONLY, wait_read)
        return _readinto(fd, buffer)


def write(fd: int, data: Any, /) -> int:
    """os.write(); while a blocking pipe, terminal or socket has no room, others run."""
    try:
        view = memoryview(data)
    except TypeError:
        return _write(fd, data)  # raises the right error
    with view:
        if not view.nbytes and is_stream(fd):  # which never waits
            return _write(fd, data)
        if not _wait_until_ready(fd, POLLOUT, O_RDONLY, wait_write):
            return _write(fd, data)
        if view.nbytes <= PIPE_BUF or not is_stream(fd) or not (_stdlib.get_blocking(fd) or waits_in_calls(fd)):
            return _write(fd, data)
        # All of it at once would block until a reader has taken all but the last bufferful.  A pipe that is ready has
        # room for PIPE_BUF bytes (pipe(7)).
        sent = 0
        with view.cast("B") as rest:
            while sent < rest.nbytes:
                try:
                    _wait_until_ready(fd, POLLOUT, O_RDONLY, wait_write)
                    sent += _write(fd, rest[sent : sent + PIPE_BUF])
                except OSError:
                    if not sent:
                        raise
                    break  # as the system does: the next call will have the error
        return sent


def _wait_until_ready(fd: int, event: int, unfit: int, wait: Callable[[int, float | None], None]) -> bool:
    """Park until a blocking `fd` is ready for `event`, unless its access mode is `unfit` for the call.

    Return False if no other greenlet could run meanwhile, or if the call is going to fail.
    """
    if not can_park() or not isinstance(fd, int) or not 0 <= fd < 2**31:
        return False
    before_io()
    if not _returns_at_once(fd, event, unfit):
        retry(partial(wait, fd), None, _returns_at_once, fd, event, unfit)
    return True


def _returns_at_once(fd: int, event: int, unfit: int) -> bool | None:
    """Return True if a call on `fd` would not wait (it never does for a regular file), else None."""
    if is_ready(fd, event):
        return True
    flags = fcntl(fd, F_GETFL)
    return (
        True
        if flags & O_NONBLOCK
        and not (waits_in_calls(fd) and S_ISSOCK(_stdlib.fstat(fd).st_mode))
        or flags & O_ACCMODE == unfit
        else None
    )


def nb_read(fd: int, n: int) -> bytes:
    """os.read(fd, n) of a non-blocking descriptor, parking until there is something to read."""
    return _cooperate(wait_read, _read, fd, n)


def nb_write(fd: int, buf: Any) -> int:
    """os.write(fd, buf) to a non-blocking descriptor, parking until there is room.  Return the bytes written."""
    return _cooperate(wait_write, _write, fd, buf)


def _cooperate(wait: Callable[[int, float | None], None], call: Callable[..., _T], fd: int, argument: Any) -> _T:
    try:
        return call(fd, argument)
    except BlockingIOError:
        pass
    return retry(partial(wait, fd), None, call, fd, argument)


def tp_read(fd: int, n: int) -> bytes:
    """os.read(fd, n) in the hub's thread pool, for descriptors that cannot be made non-blocking."""
    return threadpool.default().apply(_read, (fd, n))  # type: ignore[no-any-return]


def tp_write(fd: int, buf: Any) -> int:
    """os.write(fd, buf) in the hub's thread pool."""
    return threadpool.default().apply(_write, (fd, buf))  # type: ignore[no-any-return]


as_builtins(globals(), _stdlib)
