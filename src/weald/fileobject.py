"""File objects on greenlets: pipes, sockets and terminals through the loop, regular files through the thread pool.

Called by: users, weald.subprocess.

For programs that own a descriptor and may make it non-blocking.  The raw files of pipes are in _base/pipes.pyx,
together with those for descriptors that must stay blocking.

Invariants:
- The layers are io's own, in which greenlets take turns (_base/buffered.pyx), over a FileIO that parks instead of
  blocking.  A call that the buffer can answer uses neither the loop nor a thread.
- A file object that the program passes in is used under a lock, each call in a pool thread.
- If a greenlet that waits for a file is killed, no data that is read meanwhile is lost, and none is written twice.
"""

import io
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Self

from weald import threadpool
from weald._base.buffered import (
    OPERATIONS,
    BufferedRandom,
    BufferedReader,
    BufferedWriter,
    TextIOWrapper,
    Turns,
    layers,
)
from weald._base.config import config
from weald._base.names import more_names
from weald._base.pipes import LoopIO
from weald._base.waiting import read_file_at_once
from weald._core import (
    AsyncResult,
    CancelScope,
    DummySemaphore,
    Semaphore,
    current_effective_deadline,
    get_hub,
    get_hub_if_exists,
)
from weald.threadpool import ThreadPool

__all__ = ["FileObject", "FileObjectBlock", "FileObjectPosix", "FileObjectThread"]


# Bytes of a regular file's buffer.  Writing it, and filling it with data that is not in the page cache, takes a round
# trip to a thread.  Reads of 64 KiB, which are usual, should bypass it.
_READ_BUFFER, _WRITE_BUFFER = 32768, 65536


def _outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    try:
        return function(*args), None
    except BaseException as error:
        return None, error


_WAITING = ("read", "readall", "write")  # of a pipe, they may wait for what another greenlet does


class _PoolIO(io.FileIO):
    """FileIO that reads and writes in a thread pool, and reads data from the page cache at once.

    If a caller is killed or times out, its call goes on in the thread, and the next call waits for its end.  The next
    call returns the data that the first has read.  Data that the first has written is offered again by the buffer
    above (of `buffered` bytes), and is not written twice.
    """

    def __init__(self, file: Any, mode: str, closefd: bool, pool: ThreadPool | None, buffered: int) -> None:
        self._pool, self._buffered = pool, buffered
        self._turns = self._write_turns = Turns()
        self._pending: AsyncResult[Any] | None = None  # the call that is in the thread
        self._read = b""  # read by a call whose caller was gone
        self._data, self._written = b"", 0  # the last call's data, and how much of it was written after its caller left
        self._at_once = True
        self._dropped = False  # whether the file is being freed, so that greenlets cannot wait any more
        self._in_pool(super().__init__, file, mode, closefd)
        self._turns.fd = self.fileno()

    def _in_pool(self, function: Callable[..., Any], *args: Any) -> Any:
        self._settle()
        pool = self._pool if self._pool is not None else threadpool.default()
        if self._dropped or self._finalizing or get_hub_if_exists() is not pool.hub:  # type: ignore[attr-defined]
            return function(*args)
        try:
            self._pending = self._turns.call(pool.spawn, _outcome, function, args)
        except RuntimeError:  # no thread can be started: call it here, which blocks the loop, but not for ever
            if function.__name__ in _WAITING and not stat.S_ISREG(os.fstat(self._turns.fd).st_mode):
                raise
            return function(*args)
        return self._result()

    def _result(self) -> Any:
        assert self._pending is not None
        value, error = self._turns.call(self._pending.get)
        self._pending = None
        if error is not None:
            raise error
        return value

    def _settle(self) -> None:
        """Wait for the end of a call whose caller has left."""
        if self._pending is not None and not self._dropped:
            value = self._result()
            if isinstance(value, bytes):
                self._read += value
            elif self._data:
                self._written = value

    def _rewind(self) -> None:
        """Set the file's position to where the caller expects it."""
        self._settle()
        if self._read:
            super().seek(-len(self._read), os.SEEK_CUR)
            self._read = b""

    def readinto(self, buffer: Any) -> int:
        self._settle()
        data = self._read
        if not data and self._at_once:
            try:
                at_once = read_file_at_once(self._turns.fd, buffer)
            except OSError:  # the file system cannot tell, or the read fails: then the read in the thread raises
                self._at_once = False
            else:
                if at_once is not None:
                    return at_once
        with memoryview(buffer) as view, view.cast("B") as rest:
            if not data:
                data = self._in_pool(super().read, len(rest))
            count = min(len(data), len(rest))
            rest[:count] = data[:count]
            self._read = data[count:]
            return count

    def read(self, size: int | None = -1) -> bytes:
        if not self.readable():
            return super().read(size)  # which raises
        return io.RawIOBase.read(self, -1 if size is None else size)

    def readall(self) -> bytes:
        self._settle()
        rest: bytes = self._in_pool(super().readall)
        data, self._read = self._read + rest, b""
        return data

    def write(self, data: Any) -> int:
        self._rewind()
        written, self._written = self._written, 0
        if written and len(self._data) <= self._buffered and bytes(data[:written]) == self._data[:written]:
            return written
        self._data = bytes(data)
        count: int = self._in_pool(super().write, self._data)
        self._data = b""
        return count

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        self._rewind()
        return super().seek(position, whence)

    def tell(self) -> int:
        self._rewind()
        return super().tell()

    def truncate(self, size: int | None = None) -> int:
        self._rewind()
        self._data = b""
        return self._in_pool(super().truncate, size)  # type: ignore[no-any-return]

    def _dealloc_warn(self, source: Any) -> None:
        """Called by the buffer above when it is dropped, before it writes its rest."""
        self._dropped = True
        super()._dealloc_warn(source)  # type: ignore[misc]

    def close(self) -> None:
        if not self.closed:
            self._turns.fd = -1
            self._in_pool(super().close)


class _Forwarded:
    """A descriptor for attribute `name` of a file object's `_io`; one of OPERATIONS is kept as the object's own.

    A class with `__getattr__` would need no list of names, but takes three times as long for every attribute, also
    for those that it has.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, file: Any, cls: type) -> Any:
        if file is None:
            return self
        value = getattr(file._io, self._name)
        if self._name in OPERATIONS:
            value = file._operation(value)
            if getattr(cls, self._name) is self:  # not when a derived class calls super()'s
                file.__dict__[self._name] = value
        return value


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
            if not args and "fobj" not in kwargs:
                raise TypeError("FileObject() missing 1 required positional argument: 'fobj'")
            cls = _fitting(args[0] if args else kwargs["fobj"])
        return type.__call__(cls, *args, **kwargs)


class FileObject(metaclass=_Kind):
    """A file object, for a path, a descriptor or an object with `fileno`; arguments are those of `open`.

    It is a FileObjectPosix for pipes, sockets and terminals, and a FileObjectThread for all other files.
    """

    # All kinds have an io object, whose methods they take over.  Its class may be one of _base/buffered.pyx.
    _io: Any
    _takes_turns = True
    _for_given: type["FileObject"]  # see `_of_given`

    def __init__(self, file: Any) -> None:
        self._io = file

    def _operation(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function to call in place of `method` of `_io`, one of OPERATIONS."""
        return method

    if TYPE_CHECKING:
        readline: Any

        def __getattr__(self, name: str) -> Any: ...

    def __iter__(self) -> Iterator[Any]:
        mine = type(self)
        own = mine.__next__ is not _Base.__next__ or not isinstance(mine.readline, _Forwarded)  # of a derived class
        return self if own or not self._takes_turns else iter(self._io)

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


_IO = io.FileIO, BufferedReader, BufferedWriter, BufferedRandom, TextIOWrapper
for _name in {name for kind in _IO for name in dir(kind) if not name.startswith("__")} - set(vars(FileObject)):
    setattr(FileObject, _name, _Forwarded(_name))
_Base = FileObject  # FileObject may be another in the end: `config.fileobject`


class FileObjectPosix(FileObject):
    """A file object for a pipe, socket or terminal; arguments are those of `open`.

    `fobj` is a descriptor, a path, or an object with `fileno`; `close` closes that object instead of the descriptor.
    The descriptor is non-blocking for as long as this file is open.
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
        _check_mode(mode, buffering, encoding, errors, newline)  # before there is anything to close
        # Make the hub now.  Made later, it could get the number of a descriptor that is closed here, and a program that
        # closes that number twice would close the hub's descriptor.
        get_hub()
        self._source = fobj if hasattr(fobj, "fileno") else None
        self._closefd = closefd
        fd = fobj if self._source is None else fobj.fileno()
        self.fileio = LoopIO(fd, mode.replace("t", "").replace("b", ""), closefd and self._source is None)
        try:
            super().__init__(layers(self.fileio, mode, buffering, encoding, errors, newline))
        except BaseException:
            self.fileio.close()
            raise

    @property
    def name(self) -> Any:
        """The name of the file or of the object given; the descriptor if only that was given."""
        # AttributeError if the object has none: the descriptor's number is no substitute.
        return self._io.name if self._source is None else self._source.name

    def share(self) -> None:
        """Make the descriptor blocking, for a child process that gets it; this file still parks instead of blocking.

        subprocess.Popen calls it for the files that become a child's standard streams.
        """
        self.fileio.share()

    def close(self) -> None:
        """Write what is buffered and close.  Greenlets that wait to read get OSError(EBADF)."""
        if self.fileio.closed:
            return
        try:
            if self.fileio.writable():
                self._io.close()
        finally:
            self.fileio.close()
            if self._source is not None and self._closefd:
                self._source.close()


def _of_given(kind: type[FileObject]) -> Any:
    """Return `kind` for an object of any class that it is given: further attributes are those of the object."""
    found: type[FileObject] | None = vars(kind).get("_for_given")
    if found is None:
        names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
        found = _Kind(kind.__name__, (kind,), {**names, "__getattr__": lambda self, name: getattr(self._io, name)})
        kind._for_given = found
    return found


class FileObjectThread(FileObject):
    """A file object that reads and writes in a thread pool; arguments are those of `open`.

    `fobj` is a path, a descriptor, or a file object to wrap; then `mode` to `newline` are not used, and the object's
    methods are called in threads, one at a time.  With a false `lock` calls may overlap: it must be thread-safe.
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
        self._lock = Semaphore() if lock else DummySemaphore()
        self._takes_turns = lock and not hasattr(fobj, "fileno")
        self._closefd = closefd or not hasattr(fobj, "fileno")
        if not isinstance(fobj, int) and not hasattr(fobj, "fileno"):
            fobj, closefd = os.fspath(fobj), True
        if hasattr(fobj, "fileno"):
            self.__class__ = _of_given(type(self))
            super().__init__(fobj)
        elif not self._takes_turns:
            super().__init__(self._call(open, fobj, mode, buffering, encoding, errors, newline, closefd))
        else:
            _check_mode(mode, buffering, encoding, errors, newline)
            default = _READ_BUFFER if "r" in mode else _WRITE_BUFFER
            size = buffering if buffering > 1 else default if buffering else 0
            raw = _PoolIO(fobj, mode.replace("t", "").replace("b", ""), closefd, threadpool, size)
            try:
                super().__init__(layers(raw, mode, buffering, encoding, errors, newline, size))
            except BaseException:
                raw.close()
                raise

    def _operation(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return method if self._takes_turns else partial(self._locked, method)

    def _locked(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._call(function, *args, **kwargs)

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        pool = self._pool if self._pool is not None else threadpool.default()
        return pool.apply(function, args, kwargs)

    def close(self) -> None:
        """Write what is buffered and close, even if a scope around it has been cancelled: no peer is waited for."""
        close = self._operation(self._io.close if self._closefd else self._io.flush)
        if get_hub_if_exists() is not None and current_effective_deadline() == -inf:
            with CancelScope(shield=True):
                close()
        else:
            close()


class FileObjectBlock(FileObject):
    """A file object whose operations block the loop; arguments are those of `FileObjectThread`.

    For files that are known to be quick, where a thread's round trip would cost more than the operation.
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
        self._takes_turns = False
        self._closefd = closefd
        if hasattr(fobj, "fileno"):
            self.__class__ = _of_given(type(self))
        else:
            fobj = open(fobj, mode, buffering, encoding, errors, newline, closefd or not isinstance(fobj, int))
            self._closefd = True
        super().__init__(fobj)

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
    for name, option in (("encoding", encoding), ("errors", errors), ("newline", newline)):
        if option is not None and "b" in mode:
            article = "a" if name == "newline" else "an"
            raise ValueError(f"binary mode doesn't take {article} {name} argument")


if not TYPE_CHECKING:
    FileObject = config.fileobject or FileObject
    __getattr__ = more_names(__name__)
