"""What a WSGI application reads a request's body from, and hands a file to the server in.

Called by: handler.py, which puts `Input` into `wsgi.input`; weald.pywsgi puts `FileWrapper` into `wsgi.file_wrapper`.
"""

import io
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["FileWrapper", "Input", "InvalidClientInput", "Raw"]


class InvalidClientInput(OSError):
    """What reading `wsgi.input` raises when the body is no body; `status` answers it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Input:
    """`wsgi.input`: a request's body.  Reading raises OSError if the client goes away, stalls or breaks the protocol.

    It ends where the body ends, also a chunked one (`wsgi.input_terminated`).
    """

    __slots__ = ("_buffer", "_more", "trailers")

    def __init__(self, more: Callable[[], bytes] | None, data: bytes = b"") -> None:
        """`data` is what has come of the body; `more` gives the next piece, b"" at its end; None: there is no more."""
        self._more = more
        self._buffer = data
        self.trailers: list[tuple[bytes, bytes]] = []  # those of a chunked body, once it has been read to its end

    def _fetch(self) -> bytes:
        """The next piece; b"" at the end, from then on."""
        if self._more is None:
            return b""
        piece = self._more()
        if not piece:
            self._more = None
        return piece

    def read(self, size: int | None = -1, /) -> bytes:
        """`size` bytes, less only at the body's end; all there is if `size` is negative or None."""
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
        """A line with its newline, at most `size` bytes of it."""
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
        """The lines that remain; no more once they come to `hint` bytes."""
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


class Raw(io.RawIOBase):
    """The bytes of a connection that changes its protocol: those read already, then the socket's.

    There are none before the response says that it does: a request that asks for another protocol has no body, and
    whoever looks for one must not wait.  Once somebody has read from it, the connection serves no further request.
    """

    def __init__(self, handler: Any, sock: Any) -> None:
        self._handler = handler
        self._sock = sock
        self._dry = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        handler = self._handler
        # Without a request it is a subclass that reads the request line by itself.
        if self._dry or (handler._request is not None and not handler.connection_upgraded):
            return 0
        handler.close_connection = True
        if handler._stream.pending:
            data = handler._stream.rest(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        handler._descriptor.timeout = None
        count: int = self._sock.recv_into(buffer)
        return count

    def taken(self, reader: io.BufferedReader) -> bytes:
        """What `reader`, which reads from here, has taken and not given to anybody yet."""
        self._dry = True
        try:
            return reader.read1(reader_size)
        finally:
            self._dry = False


reader_size = io.DEFAULT_BUFFER_SIZE


class FileWrapper:
    """`wsgi.file_wrapper` (PEP 3333): returned by an application, a file goes out through sendfile(2) if it can."""

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
        close = getattr(self.filelike, "close", None)
        if close is not None:
            close()
