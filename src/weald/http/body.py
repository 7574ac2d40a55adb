"""`wsgi.input`, from which a WSGI application reads a request's body, and `wsgi.file_wrapper`, to return a file in.

Called by: wsgi.pyx, which puts `Input` into `wsgi.input`; server.py, which puts `FileWrapper` into
`wsgi.file_wrapper`; weald.serve; channel.pyx, exchange.pyx and http2_stream.py for the exception; weald.compat.
"""

from collections.abc import Callable, Iterator
from functools import partial
from sys import maxsize
from typing import Any

from weald._base.gathered import Gathered

__all__ = ["FileWrapper", "Input", "InvalidClientInput"]


class InvalidClientInput(OSError):
    """Raised by reading `wsgi.input` if the client breaks the protocol or stalls; it gets the `status`, an int."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _ended(size: int) -> bytes:
    raise ValueError("the request has ended: the rest of its body is gone")


class Input:
    """Input(more, data=b""): `wsgi.input`, a request's body.

    It ends where the body ends, even a chunked one (`wsgi.input_terminated`).  Reading raises InvalidClientInput if the
    client breaks the protocol or stalls, another OSError if it leaves, and ValueError once the request has ended.  When
    a read raises, the bytes that have come are kept for the next read.
    """

    __slots__ = ("_at", "_buffer", "_more", "trailers")

    def __init__(self, more: Callable[[int], bytes] | None, data: bytes = b"") -> None:
        """`data` is the part that has come.

        `more(size)` returns the next piece, b"" at the end; None: nothing more comes.  `size` is how many bytes are
        wanted: the piece may be shorter or longer.
        """
        self._more = more
        self._buffer = data  # the piece that came last; its unread part begins at `_at`
        self._at = 0
        self.trailers: list[tuple[bytes, bytes]] = []  # of a chunked body, once it was read to its end

    def read_through(self, call: Callable[[Callable[[], bytes]], bytes]) -> None:
        """Read what is still to come by `call(more)`, which calls `more()`, in another thread, say."""
        more = self._more
        if more is not None:
            self._more = lambda size: call(partial(more, size))

    def seal(self) -> None:
        """Let reads raise ValueError from now on: the request has ended."""
        if self._more is not None:
            self._more = _ended

    def _next(self, size: int) -> bool:
        """Get the next piece, of `size` bytes if possible.  Return False at the end, and from then on."""
        self._buffer, self._at = b"", 0
        if self._more is None:
            return False
        self._buffer = self._more(size)
        if not self._buffer:
            self._more = None
            return False
        return True

    def _gather(self, size: int, line: bool) -> bytes:
        """Return `size` bytes (negative: all), fewer at the end or, if `line`, where the line ends."""
        found = Gathered()
        try:
            while True:
                buffer, start = self._buffer, self._at
                stop = len(buffer) if size < 0 else min(len(buffer), start + size - len(found))
                end = buffer.find(b"\n", start, stop) + 1 if line else 0
                self._at = end or stop
                found.append(buffer[start : self._at])
                if end or len(found) == size:
                    return found.getvalue()
                if not self._next(0 if line else maxsize if size < 0 else size - len(found)):
                    return found.getvalue()
        except BaseException:
            self._buffer = found.getvalue()
            raise

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the body's end; the whole rest if `size` is negative or None."""
        if size is None or size < 0:
            size = -1 if self._more is not None else len(self._buffer) - self._at
        buffer, start = self._buffer, self._at
        if size < 0 or start + size > len(buffer):
            return self._gather(size, False)
        self._at = start + size
        return buffer[start : self._at]

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its newline, at most `size` bytes of it."""
        buffer, start = self._buffer, self._at
        end = buffer.find(b"\n", start) + 1
        if not end or (size is not None and 0 <= size < end - start):
            return self._gather(-1 if size is None or size < 0 else size, True)
        self._at = end
        return buffer[start:end]

    def readlines(self, hint: int | None = None, /) -> list[bytes]:
        """Return the lines that remain; if `hint` is given, none after those that come to `hint` bytes."""
        lines = []
        total = 0
        for line in self:
            lines.append(line)
            total += len(line)
            if hint is not None and 0 < hint <= total:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def __next__(self) -> bytes:
        line = self.readline()
        if not line:
            raise StopIteration
        return line


class FileWrapper:
    """FileWrapper(filelike, block_size=65536): `wsgi.file_wrapper` (PEP 3333), for an application to return a file in.

    The server sends it by sendfile(2) where it can; else it reads pieces of `block_size` bytes.
    """

    def __init__(self, filelike: Any, block_size: int = 65536) -> None:
        self.filelike = filelike
        self.block_size = block_size

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size)
        if not data:
            raise StopIteration
        return data

    def close(self) -> None:
        """Close the file, if it can be closed."""
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()
