"""`os` on greenlets: waiting for children, and reading and writing pipes, parks the calling greenlet.

Called by: users, `weald.monkey`, subprocess.py, fileobject.py.

`fork` and `posix_spawn` are the stdlib's: the core gives every fork's child a fresh loop.

Invariants:
- A child is reaped only by the call that asked for it, with WNOHANG.  What tells when to ask again reaps
  nothing: a pidfd in the loop or, where there is none, a native thread in waitid(2) with WNOWAIT.
- Nothing here handles SIGCHLD.
"""

import _socket
import os as _stdlib
import sys
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_GETFL, fcntl
from functools import partial
from operator import index
from os import O_ACCMODE, O_NONBLOCK, O_RDONLY, O_WRONLY
from select import POLLIN, POLLOUT
from select import poll as _poll
from stat import S_ISFIFO, S_ISSOCK
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import getcurrent

from weald import threadpool
from weald._core import Event, asked_in_vain, get_hub, get_hub_if_exists, helper_idle, sleep, wait_read, wait_write
from weald.monkey import get_original

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from os import *  # noqa: F403

    from weald._missing import gevent_names

    __getattr__ = gevent_names(__name__)

__implements__ = [
    "close",
    "closerange",
    "fdopen",
    "popen",
    "read",
    "wait",
    "wait3",
    "wait4",
    "waitid",
    "waitpid",
    "write",
]
if sys.version_info >= (3, 14):
    __implements__ += ["readinto"]
__extensions__ = ["make_nonblocking", "nb_read", "nb_write", "tp_read", "tp_write"]
__imports__ = [name for name in _stdlib.__all__ if name not in __implements__]
__all__ = sorted([*__implements__, *__extensions__, *__imports__])

_T = TypeVar("_T")

_waitpid, _wait4, _waitid = _stdlib.waitpid, _stdlib.wait4, _stdlib.waitid
_read = _stdlib.read
_write = _stdlib.write
_close, _closerange = _stdlib.close, _stdlib.closerange
_start_new_thread = get_original("_thread", "start_new_thread")

# -------------------------------------------------------------------- children


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """os.waitpid(); raises ChildProcessError if there is no such child."""
    while not (found := _waitpid(pid, options | _stdlib.WNOHANG))[0] and not options & _stdlib.WNOHANG:
        _await_change(*_as_waitid(pid, options))
    if not found[0]:
        asked_in_vain()
    return found


def wait() -> tuple[int, int]:
    """os.wait()"""
    return waitpid(-1, 0)


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """os.wait4()"""
    while not (found := _wait4(pid, options | _stdlib.WNOHANG))[0] and not options & _stdlib.WNOHANG:
        _await_change(*_as_waitid(pid, options))
    return found


def wait3(options: int) -> tuple[int, int, Any]:
    """os.wait3()"""
    return wait4(-1, options)


def waitid(idtype: int, id: int, options: int, /) -> "_stdlib.waitid_result | None":
    """os.waitid()"""
    while (found := _waitid(idtype, id, options | _stdlib.WNOHANG)) is None and not options & _stdlib.WNOHANG:
        _await_change(idtype, id, options & ~_stdlib.WNOWAIT)
    return found


def _as_waitid(pid: int, options: int) -> tuple[int, int, int]:
    """What waitid() takes for waitpid(pid, options)."""
    events = _stdlib.WEXITED | options & (_stdlib.WUNTRACED | _stdlib.WCONTINUED)
    if pid > 0:
        return _stdlib.P_PID, pid, events
    if pid == -1:
        return _stdlib.P_ALL, 0, events
    return _stdlib.P_PGID, -pid or _stdlib.getpgrp(), events


def await_end(pid: int, timeout: float | None = None) -> bool:
    """Park until child `pid` has ended, without reaping it; False after `timeout` seconds.

    May come back early: only the caller's own waitpid() with WNOHANG tells.
    """
    return _await_change(_stdlib.P_PID, pid, _stdlib.WEXITED, timeout)


def _await_change(idtype: int, id: int, options: int, timeout: float | None = None) -> bool:
    """Park until waitid(idtype, id, options) may find something; False after `timeout` seconds."""
    if options == _stdlib.WEXITED and idtype == _stdlib.P_PID:
        try:
            fd = _stdlib.pidfd_open(id)
        except (AttributeError, OSError):  # an old kernel or C library, a sandbox, too many open files
            pass
        else:
            try:
                wait_read(fd, timeout)
            except TimeoutError:
                return False
            finally:
                _stdlib.close(fd)
            return True
    return _await_change_in_thread((idtype, id, options), timeout)


_Question = tuple[int, int, int]  # arguments of waitid()
_asked: dict[_Question, Event] = {}  # those a thread waits for an answer to


def _await_change_in_thread(question: _Question, timeout: float | None) -> bool:
    """As `_await_change`; one thread a question, however many ask it, which lives until it is answered."""
    changed = _asked.get(question)
    if changed is None:
        changed = _asked[question] = Event()
        try:
            _start_new_thread(_ask, (question, changed))
        except RuntimeError:  # no more threads
            del _asked[question]
            sleep(0.05 if timeout is None else min(0.05, timeout))
            return True
    hub = get_hub()
    hub.ref()
    try:
        return changed.wait(timeout)
    finally:
        hub.unref()


def _ask(question: _Question, changed: Event) -> None:
    idtype, id, options = question
    helper_idle(1)  # who waits for the answer has counted it: `ref`
    try:
        _waitid(idtype, id, options | _stdlib.WNOWAIT)
    except OSError:
        pass  # there is no such child any more: whoever asked will find that out
    finally:
        helper_idle(-1)
        if _asked.get(question) is changed:
            del _asked[question]
        changed.set()


_stdlib.register_at_fork(after_in_child=_asked.clear)


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


def fdopen(fd: int, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
    """os.fdopen(); a file on a blocking pipe, socket or terminal lets others run while it has to wait."""
    from weald import fileobject

    return fileobject.fdopen(fd, mode, buffering, *args, **kwargs)


# -------------------------------------------------------------------- descriptors


def close(fd: int) -> None:
    """os.close(); of libuv's own descriptors, too: the loop opens others.  (libev does not tell which are its own.)"""
    hub = get_hub_if_exists()
    if hub is not None and type(fd) is int and 0 <= fd < 2**31 and hub.owns(fd):
        hub.close_range(partial(_close, fd), fd, fd + 1)
    else:
        _close(fd)


def closerange(fd_low: int, fd_high: int, /) -> None:
    """os.closerange(), which daemons call; the loop opens its own descriptors anew, those in the range are closed."""
    hub = get_hub_if_exists()
    first, end = (min(max(index(fd), 0), 2**31 - 1) for fd in (fd_low, fd_high))
    if hub is None or hub.loop.name == "virtual" or first >= end:
        _closerange(fd_low, fd_high)
    else:
        hub.close_range(partial(_closerange, fd_low, fd_high), first, end)


# A pipe that is writable at all takes this much (pipe(7)).
_PIPE_BUF = 4096


def read(fd: int, length: int, /) -> bytes:
    """os.read(); while a blocking pipe, terminal or socket has nothing to read, others run."""
    if isinstance(length, int) and 0 < length <= sys.maxsize:  # else the system's call will say what is wrong
        _wait_until_ready(fd, POLLIN, O_WRONLY, wait_read)
    return _read(fd, length)


if sys.version_info >= (3, 14):
    _readinto = _stdlib.readinto

    def readinto(fd: int, buffer: Any, /) -> int:
        """os.readinto(); while a blocking pipe, terminal or socket has nothing to read, others run."""
        with suppress(TypeError), memoryview(buffer) as view:  # the system's call will say what is wrong
            if view.nbytes and not view.readonly:
                _wait_until_ready(fd, POLLIN, O_WRONLY, wait_read)
        return _readinto(fd, buffer)


def write(fd: int, data: Any, /) -> int:
    """os.write(); while a blocking pipe, terminal or socket has no room, others run."""
    try:
        view = memoryview(data)
    except TypeError:
        return _write(fd, data)  # says what is wrong
    with view:
        if not view.nbytes and is_stream(fd):  # which never waits
            return _write(fd, data)
        if not _wait_until_ready(fd, POLLOUT, O_RDONLY, wait_write):
            return _write(fd, data)
        if view.nbytes <= _PIPE_BUF or not is_stream(fd) or not _stdlib.get_blocking(fd):
            return _write(fd, data)
        # All of it at once would block until a reader has taken all but the last bufferful.
        sent = 0
        with view.cast("B") as rest:
            while sent < rest.nbytes:
                try:
                    _wait_until_ready(fd, POLLOUT, O_RDONLY, wait_write)
                    sent += _write(fd, rest[sent : sent + _PIPE_BUF])
                except OSError:
                    if not sent:
                        raise
                    break  # as the system does: the next call will have the error
        return sent


def is_stream(fd: int) -> bool:
    """Is it a pipe, terminal or socket to which it is all one whether bytes are written together or in parts?"""
    mode = _stdlib.fstat(fd).st_mode
    if not S_ISSOCK(mode):
        return S_ISFIFO(mode) or _stdlib.isatty(fd)
    sock = _socket.socket(-1, _socket.SOCK_NONBLOCK, -1, fd)  # which leaves the descriptor's flags alone
    try:
        return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_TYPE) == _socket.SOCK_STREAM
    finally:
        sock.detach()


def _wait_until_ready(fd: int, mask: int, unfit: int, wait: Callable[[int], None]) -> bool:
    """Park until a blocking `fd`, unless its access mode is `unfit`, is ready.

    False where nobody else could run meanwhile, or the call shall fail.
    """
    hub = get_hub_if_exists()
    if hub is None or hub is getcurrent() or not isinstance(fd, int) or not 0 <= fd < 2**31:
        return False
    poller = _poll()
    poller.register(fd, mask)
    # A regular file, and whatever else always is, is ready here already.
    while not poller.poll(0):
        flags = fcntl(fd, F_GETFL)
        if flags & O_NONBLOCK or flags & O_ACCMODE == unfit:
            break
        wait(fd)
    return True


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
