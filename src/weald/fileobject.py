"""File objects on greenlets: pipes, sockets and terminals through the loop, regular files through the thread pool.

Called by: users, subprocess.py.

FileObject and its kin are for whoever owns a descriptor and makes it non-blocking; SharedIO and what is built
on it are for pipes that another process may be given, which must find them as blocking as it expects.

Invariants:
- The layers are io's own: a buffer, perhaps a text wrapper, over a FileIO that parks instead of blocking,
  or over a plain one all of whose calls are made in a pool thread.
- A buffer must not be entered twice at once, which in one thread is an error, not a wait: buffered and
  text files are used under a lock.
"""

import io
import os
import select
import stat
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from weald import threadpool
from weald._config import config
from weald._core import Descriptor, DummySemaphore, RLock, Semaphore, get_hub, wait_read
from weald._missing import gevent_names
from weald.monkey import get_original
from weald.os import is_stream, make_nonblocking
from weald.threadpool import ThreadPool

__all__ = ["FileObject", "FileObjectBlock", "FileObjectPosix", "FileObjectThread"]

# What reads, writes or moves: the rest of a file object's names neither block nor enter its buffer.
_OPERATIONS = frozenset(
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


class _LoopIO(io.FileIO):
    """FileIO on a descriptor that the loop watches.  It is non-blocking until `close` or `share`."""

    def __init__(self, fd: Any, mode: str, closefd: bool) -> None:
        super().__init__(fd, mode, closefd)
        self._was_blocking = make_nonblocking(self.fileno())
        self._descriptor = Descriptor(self.fileno())
        self._shared = False

    def share(self) -> None:
        """Another process gets it, too, and must find it blocking: each call here then first asks if it would block."""
        os.set_blocking(self.fileno(), True)
        self._shared = True

    def _await_shared(self, event: int, wait: Callable[[], None]) -> None:
        while self._shared and not _is_ready(self.fileno(), event):
            wait()

    # FileIO returns None when it would block.

    def readinto(self, buffer: Any) -> int:
        self._await_shared(select.POLLIN, self._descriptor.wait_read)
        while (count := super().readinto(buffer)) is None:
            self._descriptor.wait_read()
        return count

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        self._await_shared(select.POLLIN, self._descriptor.wait_read)
        while (data := super().read(size)) is None:
            self._descriptor.wait_read()
        return data

    def readall(self) -> bytes:
        chunks = []
        while chunk := self.read(io.DEFAULT_BUFFER_SIZE):
            chunks.append(chunk)
        return b"".join(chunks)

    def write(self, data: Any) -> int:
        if self._shared:
            self._await_shared(select.POLLOUT, self._descriptor.wait_write)
            # What a pipe that is ready for writing has room for (POSIX, "poll" and PIPE_BUF).
            data = memoryview(data).cast("B")[: select.PIPE_BUF if is_stream(self.fileno()) else None]
        while (count := super().write(data)) is None:
            self._descriptor.wait_write()
        return count

    def close(self) -> None:
        """Whoever waits gets OSError(EBADF).  A descriptor that stays open is as blocking as it was."""
        if self.closed:
            return
        self._descriptor.close()
        if self._was_blocking:
            os.set_blocking(self.fileno(), True)
        super().close()


class _FileObject:
    """What both kinds share: an io object, `_io`, whose operations go through `_call`."""

    _io: Any

    def __init__(self, layers: Any) -> None:
        self._io = layers
        self._lock: Semaphore | DummySemaphore = DummySemaphore() if isinstance(layers, io.RawIOBase) else Semaphore()

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def _locked(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._call(function, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_io":  # __init__ has failed
            raise AttributeError(name)
        value = getattr(self._io, name)
        return partial(self._locked, value) if name in _OPERATIONS else value

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__dict__.get('_io')!r}>"


class _OldNames(type):
    """Takes gevent's old names of two arguments, too: `bufsize` for `buffering`, `close` for `closefd`."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        for old, new in (("bufsize", "buffering"), ("close", "closefd")):
            if old in kwargs:
                kwargs[new] = kwargs.pop(old)
        return super().__call__(*args, **kwargs)


class FileObjectPosix(_FileObject, metaclass=_OldNames):
    """A file object for a pipe, socket or terminal; arguments are those of `open`.

    `fobj` is a descriptor, a path, or an object with `fileno`, which is closed in its place.  The descriptor is
    made non-blocking for as long as this is open.
    """

    def __init__(
        self,
        fobj: Any,
        mode: str = "r",
        buffering: int = -1,
        closefd: bool = True,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> None:
        _check_mode(mode, buffering, encoding, errors, newline)  # while nothing is to be closed yet
        get_hub()  # now, so that its descriptors do not get the numbers of ours, which users may close twice
        self._source = fobj if hasattr(fobj, "fileno") else None
        self._closefd = closefd
        fd = fobj if self._source is None else fobj.fileno()
        self.fileio = _LoopIO(fd, mode.replace("t", "").replace("b", ""), closefd and self._source is None)
        try:
            super().__init__(_layers(self.fileio, mode, buffering, encoding, errors, newline))
        except BaseException:
            self.fileio.close()
            raise

    def __getattr__(self, name: str) -> Any:
        if name == "name" and self._source is not None:
            return self._source.name  # AttributeError if it has none: no number of a descriptor stands for it
        return super().__getattr__(name)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def share(self) -> None:
        """Make the descriptor blocking, for a process that is given it; this file goes on parking instead of blocking.

        subprocess.Popen does so with the files it is given for a child's standard streams.
        """
        self.fileio.share()

    def close(self) -> None:
        """Write what is buffered and close.  Whoever waits to read gets OSError(EBADF)."""
        if self.fileio.closed:
            return
        try:
            if self.fileio.writable():
                with self._lock:
                    self._io.close()
        finally:
            self.fileio.close()
            if self._source is not None and self._closefd:
                self._source.close()


class FileObjectThread(_FileObject, metaclass=_OldNames):
    """A file object whose operations run in a thread pool; arguments are those of `open`.

    `fobj` is a path, a descriptor, or a file object to wrap, for which `mode` and what follows is not used.
    """

    def __init__(
        self,
        fobj: Any,
        mode: str = "r",
        buffering: int = -1,
        closefd: bool = True,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        threadpool: ThreadPool | None = None,
    ) -> None:
        self._pool = threadpool
        self._closefd = closefd
        if not hasattr(fobj, "fileno"):
            if not isinstance(fobj, int):
                closefd = True
            fobj = self._call(open, fobj, mode, buffering, encoding, errors, newline, closefd)
            self._closefd = True
        super().__init__(fobj)
        self._lock = Semaphore()

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        pool = self._pool if self._pool is not None else threadpool.default()
        return pool.apply(function, args, kwargs)

    def close(self) -> None:
        """Write what is buffered and close."""
        if self._closefd:
            self._locked(self._io.close)
        else:
            self._locked(self._io.flush)


class FileObjectBlock(_FileObject, metaclass=_OldNames):
    """A file object whose operations block the loop; arguments are those of `FileObjectThread`.

    For files that are known to be quick, when a thread's round trip would cost more than they do.
    """

    def __init__(
        self,
        fobj: Any,
        mode: str = "r",
        buffering: int = -1,
        closefd: bool = True,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> None:
        self._closefd = closefd
        if not hasattr(fobj, "fileno"):
            fobj = open(fobj, mode, buffering, encoding, errors, newline, closefd or not isinstance(fobj, int))
            self._closefd = True
        super().__init__(fobj)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    def close(self) -> None:
        """Write what is buffered and close."""
        if self._closefd:
            self._io.close()
        else:
            self._io.flush()


def FileObject(fobj: Any, *args: Any, **kwargs: Any) -> FileObjectPosix | FileObjectThread:
    """The fitting file object for `fobj`, a path, a descriptor or an object with `fileno`."""
    fd = fobj if isinstance(fobj, int) else fobj.fileno() if hasattr(fobj, "fileno") else None
    if fd is not None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode):
            return FileObjectPosix(fobj, *args, **kwargs)
    return FileObjectThread(fobj, *args, **kwargs)


def _check_mode(mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None) -> None:
    """Raises the ValueErrors of `open`."""
    if "b" not in mode:
        if buffering == 0:
            raise ValueError("can't have unbuffered text I/O")
    elif "t" in mode:
        raise ValueError("can't have text and binary mode at once")
    elif any(option is not None for option in (encoding, errors, newline)):
        raise ValueError("binary mode doesn't take an encoding, errors or newline argument")


def _layers(
    raw: io.FileIO, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
) -> Any:
    """What `open` builds over `raw`."""
    binary = "b" in mode
    if buffering == 0:
        return raw
    line_buffering = buffering == 1 or (buffering < 0 and raw.isatty())
    size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
    buffer: Any
    if "+" in mode:
        buffer = io.BufferedRandom(raw, size)
    elif raw.readable():
        buffer = io.BufferedReader(raw, size)
    else:
        buffer = io.BufferedWriter(raw, size)
    if binary:
        return buffer
    text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering)
    text.mode = mode  # type: ignore[misc]  # as `open` does
    return text


# -------------------------------------------------------------------- pipes shared with other processes

_poll = get_original("select", "poll")
_PIPE_SIZE = 65536  # bytes; what Linux lets a pipe hold


def _is_ready(fd: int, event: int) -> bool:
    poller = _poll()
    poller.register(fd, event)
    return bool(poller.poll(0))


def read_shared(fd: int, size: int) -> bytes:
    """os.read(fd, size) of a descriptor that may be blocking; parks until there is something to read."""
    while not _is_ready(fd, select.POLLIN):
        wait_read(fd)
    return os.read(fd, size)


class SharedIO(io.FileIO):
    """FileIO on a pipe's end that stays blocking, or a socket: each call first waits until it would not block."""

    def __init__(self, fd: int, mode: str, closefd: bool = True) -> None:
        super().__init__(fd, mode, closefd)
        self._descriptor = Descriptor(fd)

    def _await(self, event: int, wait: Callable[[], None]) -> None:
        # Asked anew after each wait: another greenlet may have been faster.
        while not _is_ready(self.fileno(), event):
            wait()

    def readinto(self, buffer: Any) -> int:
        if not memoryview(buffer).nbytes:
            return super().readinto(buffer)  # which never waits
        while True:
            self._await(select.POLLIN, self._descriptor.wait_read)
            got = super().readinto(buffer)
            if got is not None:  # else another thread was faster, and the descriptor is non-blocking
                return got

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if not size:
            return super().read(size)
        while True:
            self._await(select.POLLIN, self._descriptor.wait_read)
            data = super().read(size)
            if data is not None:
                return data

    def readall(self) -> bytes:
        chunks = []
        while chunk := self.read(_PIPE_SIZE):
            chunks.append(chunk)
        return b"".join(chunks)

    def write(self, data: Any) -> int:
        """All of it, as a blocking write does; less only if there is an error, which the next call will have."""
        sent = 0
        stream = is_stream(self.fileno())
        with memoryview(data) as view, view.cast("B") as rest:
            if stream and not rest.nbytes:
                return super().write(rest)
            while True:
                try:
                    self._await(select.POLLOUT, self._descriptor.wait_write)
                    # A pipe that is ready for writing has room for this much (POSIX, "poll" and PIPE_BUF).
                    done = super().write(rest[sent : sent + select.PIPE_BUF] if stream else rest)
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
        """Whoever waits gets OSError(EBADF)."""
        if not self.closed:
            self._descriptor.close()
        super().close()


def _in_turn(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            return method(self, *args, **kwargs)

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class _Turns:
    """Mixed into a layer of io: greenlets of one thread use it in turn, as threads do."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turn = RLock()
        super().__init__(*args, **kwargs)

    def __init_subclass__(cls) -> None:
        for name in [*_OPERATIONS, "close"]:
            method = getattr(cls, name, None)
            if method is not None:
                setattr(cls, name, _in_turn(method))


class _SharedReader(_Turns, io.BufferedReader):
    pass


class _SharedWriter(_Turns, io.BufferedWriter):
    pass


class SharedText(_Turns, io.TextIOWrapper):
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


_fdopen = get_original("os", "fdopen")


def _may_block(fd: object) -> bool:
    """Is it a descriptor on which reading or writing may have to wait, in the kernel?"""
    if not isinstance(fd, int) or fd < 0:
        return False
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISSOCK(kind):  # sockets here are non-blocking for the system, whatever their timeout
            return True
        return (stat.S_ISFIFO(kind) or os.isatty(fd)) and os.get_blocking(fd)
    except (OSError, OverflowError):
        return False


if not TYPE_CHECKING:
    FileObject = config.fileobject or FileObject
    __getattr__ = gevent_names(__name__)
