"""`wsgi.input`, from which a WSGI application reads a request's body, and `wsgi.file_wrapper`, to return a file in.

Called by: wsgi.pyx, which puts `Input` into `wsgi.input`; server.py, which puts `FileWrapper` into
`wsgi.file_wrapper`; weald.serve; channel.pyx, exchange.pyx and http2_stream.py for the exception; weald.compat.
"""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["FileWrapper", "Input", "InvalidClientInput"]


class InvalidClientInput(OSError):
    """Raised by reading `wsgi.input` if the client breaks the protocol or stalls; it gets the `status`, an int."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _ended() -> bytes:
    raise ValueError("the request has ended: the rest of its body is gone")


class Input:
    """Input(more, data=b""): `wsgi.input`, a request's body.

    It ends where the body ends, even a chunked one (`wsgi.input_terminated`).  Reading raises InvalidClientInput if the
    client breaks the protocol or stalls, another OSError if it leaves, and ValueError once the request has ended.  When
    a read raises, the bytes that have come are kept for the next read.
    """

    __slots__ = ("_at", "_buffer", "_more", "trailers")

    def __init__(self, more: Callable[[], bytes] | None, data: bytes = b"") -> None:
        """`data`: the part that has come; `more()` returns the next piece, b"" at the end; None: nothing more comes."""
        self._more = more
        # The unread part of the buffer begins at `_at`: so reading a line does not copy what follows it, and adding a
        # piece does not copy what was read.
        self._buffer: bytes | bytearray = data
        self._at = 0
        self.trailers: list[tuple[bytes, bytes]] = []  # of a chunked body, once it was read to its end

    def read_through(self, call: Callable[[Callable[[], bytes]], bytes]) -> None:
        """Read what is still to come by `call(more)`, which calls `more()`, in another thread, say."""
        more = self._more
        if more is not None:
            self._more = lambda: call(more)

    def seal(self) -> None:
        """Let reads raise ValueError from now on: the request has ended."""
        if self._more is not None:
            self._more = _ended

    def _grow(self) -> bool:
        """Add the next piece to what has come.  Return False at the end, and from then on."""
        if self._more is None:
            return False
        piece = self._more()
        if not piece:
            self._more = None
            return False
        buffer = self._buffer
        if self._at == len(buffer):
            self._buffer, self._at = piece, 0
        elif isinstance(buffer, bytes):
            self._buffer = bytearray(buffer[self._at :]) + piece
            self._at = 0
        else:
            del buffer[: self._at]
            self._at = 0
            buffer += piece
        return True

    def _take(self, end: int) -> bytes:
        """Return the unread bytes up to `end`, a position in the buffer."""
        buffer, start = self._buffer, self._at
        if end >= len(buffer):
            self._buffer, self._at = b"", 0
            return bytes(buffer[start:] if start else buffer)
        self._at = end
        return bytes(buffer[start:end])

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the body's end; the whole rest if `size` is negative or None."""
        if size is None or size < 0:
            while self._grow():
                pass
            return self._take(len(self._buffer))
        while len(self._buffer) - self._at < size and self._grow():
            pass
        return self._take(self._at + size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its newline, at most `size` bytes of it."""
        searched = 0  # bytes from `_at` on
        while True:
            have = len(self._buffer) - self._at
            most = have if size is None or size < 0 else min(have, size)
            end = self._buffer.find(b"\n", self._at + searched, self._at + most) + 1
            if end:
                return self._take(end)
            if most == size or not self._grow():
                return self._take(self._at + most)
            searched = most

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
