"""gevent.pywsgi: the names there that weald's server has no use for itself.

Called by: programs that subclass gevent's handler, or read a request's body from a file of their own.
"""

import sys
from dataclasses import replace
from email.utils import formatdate
from typing import Any

from weald.http import body
from weald.http.limits import Limits
from weald.http.protocol import CHUNKED, HeadParser, ProtocolError, RequestStream

__all__ = ["MAX_REQUEST_LINE", "Input", "InvalidClientRequest", "format_date_time"]

MAX_REQUEST_LINE = 8192
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class InvalidClientRequest(ValueError):
    """An exception that `WSGIHandler.read_request` may raise; its argument is logged unchanged."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.formatted_message = message


class Input(body.Input):
    """A request's body, read from the file `rfile`: `content_length` bytes of it, or chunks.

    Reading raises OSError if the file ends too early or the chunks are malformed.  It first sends 100 Continue to
    `socket`.
    """

    __slots__ = ("_rfile", "_socket", "_stream")

    def __init__(
        self, rfile: Any, content_length: int | None, socket: Any = None, chunked_input: bool = False
    ) -> None:
        length = CHUNKED if chunked_input else content_length or 0
        super().__init__(self._piece if length else None)
        self._rfile = rfile
        self._socket = socket
        self._stream = RequestStream(HeadParser(replace(Limits(), body=sys.maxsize)))
        self._stream.expect(length)

    def _piece(self, size: int) -> bytes:
        if self._socket is not None:
            self._socket.sendall(_CONTINUE)
            self._socket = None
        stream = self._stream
        try:
            while (piece := stream.body()) is not None:
                if piece:
                    return piece
                # Nothing behind the body is taken from the file.
                wanted = min(stream.wanted, 65536)
                data = getattr(self._rfile, "read1", self._rfile.read)(wanted) if wanted else self._rfile.readline(4096)
                if not data:
                    raise OSError("unexpected end of file while reading request")
                stream.feed(data)
        except ProtocolError as error:
            raise body.InvalidClientInput(error.status, str(error)) from None
        return b""


def format_date_time(timestamp: float) -> bytes:
    """The date and time as HTTP writes it (RFC 9110 section 5.6.7)."""
    return formatdate(timestamp, usegmt=True).encode()
