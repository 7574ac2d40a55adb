"""File objects on descriptors that stay blocking: pipes that another process shares, terminals, sockets.

Called by: weald.os, weald.fileobject, weald.subprocess, buffered.py.

Two processes that share a pipe's end share its flags, too.  A child expects blocking ones, so these are left alone, and
each call asks first whether it would block.

Invariants:
- Nothing here makes a descriptor non-blocking but `make_nonblocking`.
- io's buffers must not be entered by two greenlets at once, which is an error there and not a wait: each file has a
  lock.
"""

import _socket
import io
import os
import stat
import warnings
from collections.abc import Callable
from functools import partial
from select import PIPE_BUF
from typing import Any

from weald._base.originals import get_original
from weald._base.waiting import POLLIN, POLLOUT, is_ready, retry, wait_until_ready
from weald._core import Descriptor, RLock, wait_read

__all__ = [
    "OPERATIONS",
    "PIPE_BUF",
    "SharedIO",
    "SharedText",
    "fdopen",
    "is_stream",
    "make_nonblocking",
    "open_shared",
    "read_shared",
]

_PIPE_SIZE = 65536  # bytes; what Linux lets a pipe hold

_fdopen = get_original("os", "fdopen")

# Methods of io's files that read, write or move: the others neither block nor enter the buffer.
OPERATIONS = frozenset(
    {
        "detach",
        "flush",
        "peek",
        "read",
        "read1",
        "readall",
        "readinto",
        "readinto1",
        "readline",
        "readlines",
        "reconfigure",
        "seek",
        "tell",
        "truncate",
        "write",
        "writelines",
    }
)


def is_stream(fd: int) -> bool:
    """Return whether `fd` is a pipe, a terminal or a stream socket, to which bytes may be written in parts."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISSOCK(mode):
        return stat.S_ISFIFO(mode) or os.isatty(fd)
    sock = _socket.socket(-1, _socket.SOCK_NONBLOCK, -1, fd)  # which leaves the descriptor's flags alone
    try:
        return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_TYPE) == _socket.SOCK_STREAM
    finally:
        sock.detach()


def make_nonblocking(fd: int) -> bool:
    """Make `fd` non-blocking, for all that share its description.  Return True if it was not before."""
    was_blocking = os.get_blocking(fd)
    if was_blocking:
        os.set_blocking(fd, False)
    return was_blocking


def read_shared(fd: int, size: int) -> bytes:
    """os.read(fd, size) of a descriptor that may be blocking; parks until there is something to read."""
    wait_until_ready(fd, POLLIN, partial(wait_read, fd))
    return os.read(fd, size)


class SharedIO(io.FileIO):
    """FileIO on a pipe's end that stays blocking, or a socket: each call first waits until it would not block."""

    def __init__(self, fd: int, mode: str, closefd: bool = True) -> None:
        super().__init__(fd, mode, closefd)
        self._descriptor = Descriptor(fd)
        self._socket = stat.S_ISSOCK(os.fstat(fd).st_mode)  # non-blocking for the system, and waits for all that

    def _is_non_blocking(self) -> bool:
        """Whether the program has made it so: then no call waits."""
        return not self._socket and not os.get_blocking(self.fileno())

    def _readable(self, call: Callable[..., Any], argument: Any) -> Any:
        """Wait, then `call(argument)`; again if another thread was faster and the descriptor is non-blocking."""
        wait = self._descriptor.wait_read
        if not is_ready(self.fileno(), POLLIN):
            if self._is_non_blocking():
                return call(argument)
            wait_until_ready(self.fileno(), POLLIN, wait)
        result = call(argument)
        return retry(wait, None, call, argument) if result is None else result

    def readinto(self, buffer: Any) -> int:
        """Read into `buffer`, parking until there is something.  Return the number of bytes, 0 at the end."""
        if not memoryview(buffer).nbytes:
            return super().readinto(buffer)  # which never waits
        return self._readable(super().readinto, buffer)  # type: ignore[no-any-return]

    def read(self, size: int | None = -1) -> bytes:
        """Read up to `size` bytes, parking until there are some; None or -1: up to the end, where it is b""."""
        if size is None or size < 0:
            return self.readall()
        if not size:
            return super().read(size)
        return self._readable(super().read, size)  # type: ignore[no-any-return]

    def readall(self) -> bytes:
        """Read up to the end."""
        if self._is_non_blocking():
            return super().readall()
        chunks = []
        while chunk := self.read(_PIPE_SIZE):
            chunks.append(chunk)
        return b"".join(chunks)

    def write(self, data: Any) -> int:
        """Write all of it, as a blocking write does.

        Returns the bytes written: fewer only if there was an error, which the next call will raise.
        """
        sent = 0
        stream = is_stream(self.fileno())
        with memoryview(data) as view, view.cast("B") as rest:
            if stream and not rest.nbytes or self._is_non_blocking():
                return super().write(rest)
            while True:
                try:
                    wait_until_ready(self.fileno(), POLLOUT, self._descriptor.wait_write)
                    # A pipe that is ready for writing has room for this much (POSIX, "poll" and PIPE_BUF).
                    done = super().write(rest[sent : sent + PIPE_BUF] if stream else rest)
                except OSError:
                    if not sent:
                        raise
                    return sent
                if not stream and done is not None:
                    return done
                sent += done or 0
                if sent >= rest.nbytes:
                    return sent

    def close(self) -> None:
        """Close; greenlets that wait get OSError(EBADF)."""
        if not self.closed:
            self._descriptor.close()
        super().close()


def _locked(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return method(self, *args, **kwargs)

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class _Locked:
    """Mixed into a layer of io: greenlets of one thread use it one after the other, as threads do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lock = RLock()
        super().__init__(*args, **kwargs)

    def __init_subclass__(cls) -> None:
        for name in [*OPERATIONS, "close"]:
            method = getattr(cls, name, None)
            if method is not None:
                setattr(cls, name, _locked(method))


class _SharedReader(_Locked, io.BufferedReader):
    pass


class _SharedWriter(_Locked, io.BufferedWriter):
    pass


class SharedText(_Locked, io.TextIOWrapper):
    """io.TextIOWrapper for what `open_shared` returns."""


def open_shared(fd: int, mode: str, buffering: int = -1, closefd: bool = True) -> io.IOBase:
    """io.open(fd, "rb" or "wb", buffering, closefd=closefd) for a pipe's end, which stays blocking."""
    if buffering == 1:
        warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
            RuntimeWarning,
            stacklevel=2,
        )
    raw = SharedIO(fd, mode, closefd)
    if buffering == 0:
        return raw
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    return _SharedReader(raw, size) if mode == "rb" else _SharedWriter(raw, size)


def fdopen(
    fd: int,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """os.fdopen(); a file on a blocking pipe, socket or terminal parks while it has to wait."""
    binary = "b" in mode
    plain = partial(_fdopen, fd, mode, buffering, encoding, errors, newline, closefd, opener)
    if mode not in ("r", "rt", "tr", "rb", "br", "w", "wt", "tw", "wb", "bw") or not _may_block(fd):
        return plain()
    letter = "r" if "r" in mode else "w"
    if binary and not encoding and not errors and newline is None:
        return open_shared(fd, letter + "b", buffering, closefd)
    if binary or buffering == 0:
        return plain()  # which says what is wrong
    encoding = io.text_encoding(encoding)
    buffer: Any = open_shared(fd, letter + "b", buffering if buffering > 1 else -1, closefd)
    try:
        text = SharedText(buffer, encoding, errors, newline, buffering == 1 or (buffering < 0 and os.isatty(fd)))
    except BaseException:
        buffer.close()
        raise
    text.mode = mode  # type: ignore[misc]  # as `open` does
    return text


def _may_block(fd: object) -> bool:
    """Return whether `fd` is a descriptor on which the system may let a read or a write wait."""
    if not isinstance(fd, int) or fd < 0:
        return False
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISSOCK(kind):  # sockets here are non-blocking for the system, whatever their timeout
            return True
        return (stat.S_ISFIFO(kind) or os.isatty(fd)) and os.get_blocking(fd)
    except (OSError, OverflowError):
        return False
