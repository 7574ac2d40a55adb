"""What a WSGI application reads a request's body from, and what it hands a file to the server in.

Called by: wsgi.pyx, which puts `Input` into `wsgi.input`; server.py, which puts `FileWrapper` into
`wsgi.file_wrapper`; channel.pyx, exchange.pyx and http2_stream.py for the exception; weald.compat.
"""

from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["FileWrapper", "Input", "InvalidClientInput"]


class InvalidClientInput(OSError):
    """What reading `wsgi.input` raises if the client breaks the protocol or stalls; it is answered `status`, an int."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Input:
    """Input(more, data=b""): `wsgi.input`, a request's body.

    It ends where the body ends, also a chunked one (`wsgi.input_terminated`).  Reading raises InvalidClientInput if the
    client breaks the protocol or stalls, another OSError if it goes away.
    """

    __slots__ = ("_buffer", "_more", "trailers")

    def __init__(self, more: Callable[[], bytes] | None, data: bytes = b"") -> None:
        """`data` is what has come of the body; `more()` returns the next piece, b"" at its end; None: no more comes."""
        self._more = more
        self._buffer = data
        self.trailers: list[tuple[bytes, bytes]] = []  # of a chunked body, once it was read to its end

    def _fetch(self) -> bytes:
        """Return the next piece, b"" at the end and from then on."""
        if self._more is None:
            return b""
        piece = self._more()
        if not piece:
            self._more = None
        return piece

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the body's end; the whole rest if `size` is negative or None."""
        if size is None or size < 0:
            pieces = [self._buffer]
            self._buffer = b""
            while piece := self._fetch():
                pieces.append(piece)
            return b"".join(pieces)
        if len(self._buffer) < size:
            pieces = [self._buffer]
            have = len(self._buffer)
            while have < size and (piece := self._fetch()):
                pieces.append(piece)
                have += len(piece)
            self._buffer = b"".join(pieces)
        return self._cut(size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Return the next line with its newline, at most `size` bytes of it."""
        limit = -1 if size is None or size < 0 else size
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched)
            if end >= 0:
                end += 1
                return self._cut(end if limit < 0 else min(end, limit))
            searched = len(self._buffer)
            if 0 <= limit <= searched:
                return self._cut(limit)
            piece = self._fetch()
            if not piece:
                return self._cut(searched)
            self._buffer += piece

    def _cut(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

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
