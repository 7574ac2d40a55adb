"""How a response is sent: PEP 3333's start_response() and write(), framing, sendfile.

Called by: handler.py, whose WSGIHandler is derived from `Response`; http2.py replaces how a stream sends.

Invariants:
- A response whose head and body are known together leaves in one system call.
- Never more of a body than its Content-Length promised; less of it closes the connection.
- A response without a length is chunked, or ended by the connection's end for HTTP/1.0.
"""

import os
from _socket import socket as _Base
from collections.abc import Callable, Iterable
from socket import MSG_MORE
from typing import Any

from weald.http.body import FileWrapper
from weald.http.fields import date, field_name, field_value, names, status_line, statuses, values
from weald.http.protocol import RequestStream, tokens

__all__ = ["JOIN_BELOW", "Response"]

JOIN_BELOW = 65536  # bytes: copying less than this into one buffer is cheaper than a vector
_LAST_CHUNK = b"0\r\n\r\n"


class Response:
    """The half of a handler that answers."""

    ApplicationError = AssertionError

    # Of the connection and the request; WSGIHandler sets them.
    socket: Any
    server: Any
    command: str | None = None
    request_version: str | None = None
    close_connection = False
    time_start: float = 0
    _descriptor: Any
    _stream: RequestStream
    _given_away = False  # does somebody else speak to the client by now?
    _send: Callable[..., None]
    log_error: Callable[..., None]
    _send_error_response_if_possible: Callable[[int], None]

    status: Any = None  # bytes: b"200 OK"
    code: Any = None
    response_headers: Any = None  # [(b"name", b"value")]
    provided_date: str | None = None
    provided_content_length: str | None = None
    headers_sent = False
    response_use_chunked = False
    response_length = 0  # bytes sent, with the head
    result: Any = None
    _left: int | None = None  # bytes of body that the response's Content-Length still promises
    _trailers: list[tuple[str, str]] | None = None

    def process_result(self) -> None:
        """Send the application's result and what ends the response."""
        result = self.result
        if self._given_away:
            for _ in result:
                pass
            return
        if isinstance(result, list | tuple):
            data = result[0] if len(result) == 1 else b"".join(result)
            if data:
                self.write(data)
        elif isinstance(result, FileWrapper) and self._send_file(result):
            pass
        else:
            for data in result:
                if data:
                    self.write(data)
        if not self.headers_sent:
            if not self.status:
                # Or start_response() has raised, and the application has dealt with that.
                self.log_error("the application did not call start_response()")
                self._send_error_response_if_possible(500)
                return
            self.write(b"")
        if self.response_use_chunked:
            self._sendall(self._last_chunk() if self._trailers else _LAST_CHUNK)
        elif self._left and self.command != "HEAD":
            # The client would take the next response for the rest of this one.
            self.close_connection = True
            self.log_error("the application sent %d bytes less than its Content-Length", self._left)

    def _last_chunk(self) -> bytes:
        lines = [b"0\r\n"]
        for name, value in self._trailers or ():
            lines += (field_name(name)[0], b": ", field_value(name, value), b"\r\n")
        return b"".join((*lines, b"\r\n"))

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333's start_response().  Raises UnicodeError, TypeError or ValueError for a bad status or field."""
        if self._given_away:
            return self.write
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise self.ApplicationError("start_response() was called before; a second call needs exc_info")
        line, code = statuses.get(status) or status_line(status)
        given_date = length = None
        connection = False
        response_headers = []
        for item in headers:
            name, value = item
            known = names.get(name) or field_name(name)
            response_headers.append((known[0], values.get(value) or field_value(name, value)))
            kind = known[1]
            if kind:
                if kind == "content-length":
                    if not (value.isascii() and value.isdigit()):
                        raise ValueError("Content-Length must be a number", value)
                    length = value
                elif kind == "date":
                    given_date = value
                elif kind == "connection":
                    connection = True
                    if "close" in tokens(value):
                        self.close_connection = True
                else:  # Transfer-Encoding, ours to decide: PEP 3333, "Other HTTP Features"
                    response_headers.pop()
        if code in (204, 304) and length not in (None, "0"):
            # Bytes, as gevent has it: some applications send the exception's arguments.
            text = f"Invalid Content-Length for {code} response: {length!r} (must be absent or zero)"
            raise self.ApplicationError(text.encode("latin-1"))
        self.status = line
        self.code = code
        self.response_headers = response_headers
        self.provided_date = given_date
        self.provided_content_length = length
        if self.server._draining:
            self.close_connection = True
        if not connection:
            if self.close_connection:
                response_headers.append((b"Connection", b"close"))
            elif self.request_version == "HTTP/1.0":
                response_headers.append((b"Connection", b"keep-alive"))
        return self.write

    def finalize_headers(self) -> None:
        """Add the fields that the application left to the server, just before the head is sent."""
        headers = self.response_headers
        if self.provided_date is None:
            headers.append(date.at(self.time_start))
        code = self.code
        length = self.provided_content_length
        self._left = None
        if code in (204, 304) or code < 200:
            return
        if length is not None:
            self._left = int(length)
            return
        result = self.result
        if isinstance(result, list | tuple):
            self._left = total = sum(map(len, result))
            headers.append((b"Content-Length", b"%d" % total))
        elif self.request_version == "HTTP/1.0":
            # The connection's end is the body's (RFC 9112 section 6.3).
            self.close_connection = True
            headers[:] = [field for field in headers if field != (b"Connection", b"keep-alive")]
        else:
            self.response_use_chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))

    def write(self, data: bytes) -> None:
        """Send `data` of the body, after the head if that has not gone; start_response() returns it."""
        if self.headers_sent:
            if not self._given_away:
                self._write(data)
        elif not self.status:
            raise self.ApplicationError("The application did not call start_response()")
        else:
            self._write_with_headers(data)

    def _head(self) -> list[bytes]:
        """The parts of the response's head; from here on it counts as sent."""
        self.finalize_headers()
        self.headers_sent = True
        parts = [b"HTTP/1.1 ", self.status]
        for name, value in self.response_headers:
            parts += (b"\r\n", name, b": ", value)
        parts.append(b"\r\n\r\n")
        return parts

    def _write_with_headers(self, data: bytes) -> None:
        parts = self._head()
        size = len(data)
        left = self._left
        if left is not None and size <= left and size <= JOIN_BELOW and self.command != "HEAD":
            # As `_framed` does it, without the call.
            self._left = left - size
            parts.append(data)
        elif data:
            if size > JOIN_BELOW:
                parts = [b"".join(parts)]
            try:
                parts += self._framed(data)
            except Exception:
                self._sendall(b"".join(parts))
                raise
            if size > JOIN_BELOW:
                self._sendmsg(parts)
                return
        self._sendall(b"".join(parts))

    def _write(self, data: bytes) -> None:
        parts = self._framed(data) if data else ()
        if len(parts) == 1:
            self._sendall(parts[0])
        elif len(data) > JOIN_BELOW:
            self._sendmsg(list(parts))
        elif parts:
            self._sendall(b"".join(parts))

    def _framed(self, data: bytes) -> tuple[bytes, ...]:
        """`data` as it goes out: as a chunk, nothing for HEAD.  Never more than Content-Length promised."""
        if self.command == "HEAD":
            return ()
        left = self._left
        if left is not None:
            if len(data) > left:
                self.close_connection = True
                raise self.ApplicationError(f"the body is longer than its Content-Length, by {len(data) - left} bytes")
            self._left = left - len(data)
            return (data,)
        if self.code in (204, 304):
            raise self.ApplicationError(f"The {self.code} response must have no body")
        if self.response_use_chunked:
            return (b"%x\r\n" % len(data), data, b"\r\n")
        return (data,)

    def _sendall(self, data: Any) -> None:
        try:
            if len(data) <= JOIN_BELOW:
                self._descriptor.timeout = self._stream.limits.write_timeout
                self.socket.sendall(data)
            else:
                self._send(data)
        except OSError as error:
            self._failed_to_send(error)
            raise
        self.response_length += len(data)

    def _failed_to_send(self, error: OSError) -> None:
        self.status = f"socket error: {error}"
        self.close_connection = True
        if self.code and self.code > 0:
            self.code = -self.code

    def _sendmsg(self, parts: list[bytes]) -> None:
        """Send `parts` without copying them together, where the socket can."""
        sendmsg = getattr(_Base, "sendmsg", None)
        total = sum(map(len, parts))
        sent = 0
        if sendmsg is not None and not self.server.ssl_enabled:
            try:
                sent = sendmsg(self.socket, parts)
            except BlockingIOError:
                pass
            except OSError as error:
                self._failed_to_send(error)
                raise
        self.response_length += sent
        if sent < total:
            for part in parts:
                if sent >= len(part):
                    sent -= len(part)
                else:
                    self._sendall(memoryview(part)[sent:] if sent else part)
                    sent = 0

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Send a file through sendfile(2).  False: it has to be read."""
        try:
            fd = wrapper.filelike.fileno()
            offset = wrapper.filelike.tell()
            size = os.fstat(fd).st_size - offset
        except (AttributeError, OSError, ValueError):
            return False
        if size <= 0 or self.headers_sent or self.server.ssl_enabled or not self.status or self.code in (204, 304):
            return False
        if self.provided_content_length is None:
            self.response_headers.append((b"Content-Length", b"%d" % size))
            self.provided_content_length = str(size)
        count = min(size, int(self.provided_content_length))
        head = b"".join(self._head())
        if self.command == "HEAD":
            self._sendall(head)
            return True
        try:
            self._send(head, MSG_MORE)  # the kernel puts the file's beginning behind it
            self.response_length += len(head)
            end = offset + count
            while offset < end:
                try:
                    done = os.sendfile(self.socket.fileno(), fd, offset, min(end - offset, 1 << 24))
                except BlockingIOError:
                    self._descriptor.wait_write(self._stream.limits.write_timeout)
                    continue
                if not done:
                    break  # somebody has cut the file
                offset += done
                self.response_length += done
                if self._left is not None:
                    self._left -= done
        except OSError as error:
            self._failed_to_send(error)
            raise
        return True
