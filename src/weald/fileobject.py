"""File objects on greenlets: pipes, sockets and terminals through the loop, regular files through the thread pool.

Called by: users, weald.subprocess.

For programs that own a descriptor and may make it non-blocking; _base/pipes.py has files for descriptors that must stay
blocking.

Invariants:
- The layers are io's own: a buffer, perhaps a text wrapper, over a FileIO that parks instead of blocking,
  or over a plain one all of whose calls are made in a pool thread.
- A buffer must not be entered twice at once, which in one thread is an error, not a wait: buffered and
  text files are used under a lock.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from weald import threadpool
from weald._base.config import config
from weald._base.names import more_names
from weald._base.pipes import OPERATIONS, PIPE_BUF, is_stream, make_nonblocking
from weald._base.waiting import POLLIN, POLLOUT, retry, wait_until_ready
from weald._core import Descriptor, DummySemaphore, Semaphore, get_hub
from weald.threadpool import ThreadPool

__all__ = ["FileObject", "FileObjectBlock", "FileObjectPosix", "FileObjectThread"]


class _LoopIO(io.FileIO):
    """FileIO on a descriptor that the loop watches.  It is non-blocking until `close` or `share`."""

    def __init__(self, fd: Any, mode: str, closefd: bool) -> None:
        super().__init__(fd, mode, closefd)
        self._was_blocking = make_nonblocking(self.fileno())
        self._descriptor = Descriptor(self.fileno())
        self._shared = False

    def share(self) -> None:
        """Make the descriptor blocking, as another process that is given it expects.

        Each call here then first asks whether it would block.
        """
        os.set_blocking(self.fileno(), True)
        self._shared = True

    # FileIO's calls return None when they would block.

    def readinto(self, buffer: Any) -> int:
        if self._shared:
            wait_until_ready(self.fileno(), POLLIN, self._descriptor.wait_read)
        count = super().readinto(buffer)
        return retry(self._descriptor.wait_read, None, super().readinto, buffer) if count is None else count

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if self._shared:
            wait_until_ready(self.fileno(), POLLIN, self._descriptor.wait_read)
        data = super().read(size)
        return retry(self._descriptor.wait_read, None, super().read, size) if data is None else data

    def readall(self) -> bytes:
        chunks = []
        while chunk := self.read(io.DEFAULT_BUFFER_SIZE):
            chunks.append(chunk)
        return b"".join(chunks)

    def write(self, data: Any) -> int:
        if self._shared:
            wait_until_ready(self.fileno(), POLLOUT, self._descriptor.wait_write)
            # A pipe that is ready for writing has room for this much (POSIX, "poll" and PIPE_BUF).
            data = memoryview(data).cast("B")[: PIPE_BUF if is_stream(self.fileno()) else None]
        count = super().write(data)
        return retry(self._descriptor.wait_write, None, super().write, data) if count is None else count

    def close(self) -> None:
        """Close; greenlets that wait get OSError(EBADF).  A descriptor that stays open is as blocking as it was."""
        if self.closed:
            return
        self._descriptor.close()
        if self._was_blocking:
            os.set_blocking(self.fileno(), True)
        super().close()


class _Kind(type):
    """Calling FileObject makes one of the kind that fits; a class derived from it derives from FileObjectPosix.

    Two arguments may have their old names: `bufsize` for `buffering`, `close` for `closefd`.
    """

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        if namespace["__module__"] != __name__:
            bases = tuple(FileObjectPosix if base.__base__ is object and type(base) is cls else base for base in bases)
        return super().__new__(cls, name, bases, namespace)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        for old, new in (("bufsize", "buffering"), ("close", "closefd")):
            if old in kwargs:
                if new in kwargs:
                    raise TypeError(f"{old} is the old name of {new}: give one of them")
                kwargs[new] = kwargs.pop(old)
        if cls.__base__ is object:
            cls = _fitting(args[0] if args else kwargs["fobj"])
        return type.__call__(cls, *args, **kwargs)


class FileObject(metaclass=_Kind):
    """A file object, for a path, a descriptor or an object with `fileno`; arguments are those of `open`.

    It is a FileObjectPosix for pipes, sockets and terminals, a FileObjectThread for all else.
    """

    # What all kinds share: an io object, `_io`, whose operations go through `_call`.
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
        return partial(self._locked, value) if name in OPERATIONS else value

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
        """Write what is buffered and close."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return bool(self._io.closed)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.__dict__.get('_io')!r}>"


class FileObjectPosix(FileObject):
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
        # Makes the hub now: made later, its own descriptors could get the number of one that is closed here, and a
        # program that closes that number twice would close the hub's.
        get_hub()
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
        """Write what is buffered and close.  Greenlets that wait to read get OSError(EBADF)."""
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


class FileObjectThread(FileObject):
    """A file object whose operations run in a thread pool; arguments are those of `open`.

    `fobj` is a path, a descriptor, or a file object to wrap, for which `mode` and what follows is not used.  Operations
    run one at a time, unless `lock` is false: the file object then has to bear several threads.
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
        lock: bool = True,
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
        self._lock = Semaphore() if lock else DummySemaphore()

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        pool = self._pool if self._pool is not None else threadpool.default()
        return pool.apply(function, args, kwargs)

    def close(self) -> None:
        """Write what is buffered and close."""
        if self._closefd:
            self._locked(self._io.close)
        else:
            self._locked(self._io.flush)


class FileObjectBlock(FileObject):
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


def _fitting(fobj: Any) -> type[FileObject]:
    """Return the kind for `fobj`, a path, a descriptor or an object with `fileno`."""
    fd = fobj if isinstance(fobj, int) else fobj.fileno() if hasattr(fobj, "fileno") else None
    if fd is not None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode):
            return FileObjectPosix
    return FileObjectThread


def _check_mode(mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None) -> None:
    """Raise the ValueErrors of `open`."""
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
    """Return what `open` builds over `raw`."""
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


if not TYPE_CHECKING:
    FileObject = config.fileobject or FileObject
    __getattr__ = more_names(__name__)
