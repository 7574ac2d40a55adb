"""WSGIServer: WSGI applications over HTTP/1.1, one greenlet a connection, fit to face the internet.

Called by: users, weald.serve, the gunicorn worker.  Interface: gevent.pywsgi's, which subclasses of
`WSGIHandler` rely on, hence names and the order in which the methods call each other:

    handle → handle_one_request → read_requestline, read_request, get_environ
           → handle_one_response → run_application → application, process_result → write → _sendall
                                 → log_request

Invariants:
- http/protocol.py decides what a request is; this module reads, writes, waits and knows PEP 3333.
- Every wait on the client is bounded by the server's `limits`.
- A response whose head and body are known together leaves in one system call; NODELAY is on.
- A connection serves no further request after an error of the protocol, a response that was cut short, or while more
  of a request's body is unread than `limits.discard`.

It is longer than most, as it is one state machine whose steps are the methods that subclasses replace.
"""

import errno
import io
import os
import re
import sys
import traceback
from _socket import socket as _Base
from collections.abc import Callable, Iterable
from datetime import datetime
from email.utils import formatdate
from functools import cached_property
from http.client import HTTPMessage
from socket import AF_UNIX, IPPROTO_TCP, MSG_MORE, SHUT_RD, SHUT_WR, TCP_NODELAY
from time import monotonic, time
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote_to_bytes

from weald import __version__, get_hub, socket
from weald._core import GreenletExit, sleep
from weald._missing import gevent_names
from weald.http.body import FileWrapper, Input
from weald.http.environ import Environ, LoggingLogAdapter, NoopLog, SecureEnviron, WSGISecureEnviron
from weald.http.limits import Limits
from weald.http.protocol import TOKEN, HeadParser, ProtocolError, Request, RequestStream, tokens
from weald.server import StreamServer

__all__ = ["Environ", "LoggingLogAdapter", "SecureEnviron", "WSGIHandler", "WSGIServer", "WSGISecureEnviron"]

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
_JOIN_BELOW = 65536  # bytes: copying less than this into one buffer is cheaper than a vector

_REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

_is_token = re.compile(TOKEN.decode() + "+").fullmatch
_has_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_log_unsafe = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')

# What applications send over and over: a status's line and code; a field's name, with its lower case if it matters to
# us; short values.  Bounded.
_statuses: dict[str, tuple[bytes, int]] = {}
_names: dict[str, tuple[bytes, str]] = {}
_values: dict[str, bytes] = {}
_CACHED = 1024
_OURS = frozenset(("connection", "content-length", "date", "transfer-encoding"))


class _InvalidClientInput(OSError):
    """What reading `wsgi.input` raises when the body is no body; `status` answers it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _InvalidClientRequest(ValueError):
    """What `read_request` may raise; its argument is logged as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.formatted_message = message


class Headers(HTTPMessage):
    """A request's fields as `WSGIHandler.headers` shows them."""

    status = ""

    def getheader(self, name: str, default: Any = None) -> Any:
        return self.get(name, default)

    @property
    def headers(self) -> list[str]:
        return [f"{name}: {value}\r\n" for name, value in self.items()]

    @property
    def typeheader(self) -> Any:
        return self.get("content-type")


class _Date:
    """The Date field, made once a second."""

    def __init__(self) -> None:
        self.start = self.end = 0.0  # when `field` is right
        self.field = (b"Date", b"")

    def at(self, now: float) -> tuple[bytes, bytes]:
        if not self.start <= now < self.end:
            self.start = int(now)
            self.end = self.start + 1
            self.field = (b"Date", formatdate(self.start, usegmt=True).encode())
        return self.field


_date = _Date()


class _RawConnection(io.RawIOBase):
    """The bytes of a connection that changes its protocol: those read already, then the socket's.

    There are none before the response says that it does: a request that asks for another protocol has no body, and
    whoever looks for one must not wait.  Once somebody has read from it, the connection is no good for further requests.
    """

    def __init__(self, handler: "WSGIHandler", sock: Any) -> None:
        self._handler = handler
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        handler = self._handler
        if not handler.connection_upgraded:
            return 0
        handler.close_connection = True
        if handler._stream.pending:
            data = handler._stream.rest(len(buffer))
            buffer[: len(data)] = data
            return len(data)
        handler._descriptor.timeout = None
        count: int = self._sock.recv_into(buffer)
        return count


class WSGIHandler:
    """One connection: reads its requests, runs the application, writes the responses.

    `WSGIServer.handle` makes one and calls `handle`.  Subclasses may replace the methods that the module's
    docstring lists, and `finalize_headers`, `format_request`, `log_error`, `handle_error`.
    """

    protocol_version = "HTTP/1.1"
    ApplicationError = AssertionError
    # A client that has gone is nobody's error.
    ignored_socket_errors: ClassVar[tuple[int, ...]] = (errno.EPIPE, errno.ECONNRESET)

    # Of the request
    environ: Any = None
    application: Any = None
    requestline: str | None = None
    command: str | None = None
    path: str | None = None
    request_version: str | None = None
    wsgi_input: Any = None
    # Of the response
    status: Any = None  # bytes: b"200 OK"
    code: Any = None
    response_headers: Any = None  # [(b"name", b"value")]
    provided_date: str | None = None
    provided_content_length: str | None = None
    headers_sent = False
    response_use_chunked = False
    response_length = 0  # bytes sent, with the head
    close_connection = False
    result: Any = None
    time_start: float = 0
    time_finish: float = 0

    # No instance has all of these: CPython keeps up to 30 attributes in their most compact and fastest form.
    _request: Request | None = None
    _remote: tuple[str, str] | None = None  # the client's address and port
    _headers: Headers | None = None
    _rfile: Any = None
    _left: int | None = None  # bytes of body that the response's Content-Length still promises
    _continue = False  # does the client wait for 100 Continue?
    _linger = True  # may the client be sending yet when we close?
    _idle = False  # has nothing of the next request come yet?
    _given_away = False  # does somebody else speak to the client by now?
    _served = 0  # requests of this connection
    _trailers: list[tuple[str, str]] | None = None
    _waited = 0.0  # seconds spent waiting for the request's body
    _received = 0  # bytes of it

    def __init__(self, sock: Any, address: Any, server: "WSGIServer", rfile: Any = None) -> None:
        self.socket = sock
        self.client_address = address
        self.server = server
        self._stream = RequestStream(server._parser)
        self._descriptor = sock._descriptor
        if rfile is not None:
            self._rfile = rfile
        if isinstance(address, tuple):
            self._remote = (address[0], str(address[1]))

    # ---------------------------------------------------------------- the connection

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        try:
            while self.socket is not None:
                self.time_start = time()
                self.time_finish = 0
                result = self.handle_one_request()
                if result is True:
                    continue
                if result is not None:
                    self.status, response = result
                    self._send(response)
                    self.response_length = len(response)
                    self.time_finish = time()
                    self.log_request()
                break
        except OSError as error:
            if error.errno not in self.ignored_socket_errors and not isinstance(error, TimeoutError):
                raise
        finally:
            if self.socket is not None:
                try:
                    self._say_goodbye()
                finally:
                    self.socket.close()
            self.socket = self.wsgi_input = self.environ = None
            self.__dict__.pop("_rfile", None)

    def _say_goodbye(self) -> None:
        """End the connection in order.  Where the client may still be sending, read on until it closes as well:
        else its system may throw our last response away (RFC 9112 section 9.6)."""
        try:
            if self.server.ssl_enabled:
                self._descriptor.timeout = 0.0
                try:
                    self.socket.unwrap()  # sends TLS's own end, without waiting for the client's
                except (OSError, ValueError):
                    pass
            if self._linger:
                end = monotonic() + self._stream.limits.linger_timeout
                self.socket.shutdown(SHUT_WR)
                while (left := end - monotonic()) > 0 and self._receive(left):
                    pass
        except (OSError, ValueError):
            pass

    def _receive(self, timeout: float) -> bytes:
        """What comes next, b"" at the end; TimeoutError after `timeout` seconds."""
        self._descriptor.timeout = timeout
        server = self.server
        # One buffer serves all connections: nothing else runs between the system's writing into it and the copy.
        count = self.socket.recv_into(server._buffer)
        return server._view[:count].tobytes()

    def _send(self, data: Any, flags: int = 0) -> None:
        """Send all of `data`; TimeoutError once the client takes nothing for `write_timeout` seconds."""
        self._descriptor.timeout = self._stream.limits.write_timeout
        if len(data) <= _JOIN_BELOW:
            if flags:
                self.socket.sendall(data, flags)
            else:
                self.socket.sendall(data)
            return
        with memoryview(data).cast("B") as view:
            sent = 0
            while sent < len(view):
                # The timeout is for each part, so that a slow client may take long for the whole.
                sent += self.socket.send(view[sent : sent + (1 << 20)])

    @property
    def rfile(self) -> Any:
        """The connection as a file, for whoever speaks another protocol on it from now on."""
        if self._rfile is None and self.socket is not None:
            self._rfile = io.BufferedReader(_RawConnection(self, self.socket))
        return self._rfile

    @rfile.setter
    def rfile(self, value: Any) -> None:
        self._rfile = value

    # ---------------------------------------------------------------- requests

    def _next_request(self) -> Request | None:
        """The next request; None when the client closes or lets the connection idle.  Raises ProtocolError."""
        stream = self._stream
        if stream.pending and (request := stream.next_request()) is not None:
            return request
        limits = stream.limits
        timeout = limits.keep_alive_timeout if self._served and not stream.pending else limits.head_timeout
        deadline = None
        server = self.server
        self._idle = not stream.pending
        while True:
            # As `_receive` does it, without the call.
            self._descriptor.timeout = timeout
            try:
                count = self.socket.recv_into(server._buffer)
            except TimeoutError:
                if stream.pending:
                    raise ProtocolError(408, "no complete head in time") from None
                return None
            if not count:
                # When the server has woken us to end an idle connection, the client's end is yet to come.
                self._linger = server._draining
                return None
            self._idle = False
            stream.feed(server._view[:count].tobytes())
            request = stream.next_request()
            if request is not None:
                return request
            if deadline is None:
                deadline = monotonic() + limits.head_timeout
            timeout = max(deadline - monotonic(), 0.001)

    def read_requestline(self) -> str:
        """Wait for the next request; its first line, "" when there is none.  Raises ValueError for a bad one."""
        self._request = request = self._next_request()
        if request is None:
            return ""
        return request.line

    def read_request(self, raw_requestline: str) -> bool:
        """Set the attributes that describe the request.  Raises ValueError if the request is invalid."""
        request = self._request
        assert request is not None
        self.command = request.method
        self.path = request.target
        self.request_version = request.version
        if self._headers is not None:
            self._headers = None
        self._served = served = self._served + 1
        self.close_connection = (
            not request.keep_alive or self.server._draining or served >= self._stream.limits.requests
        )
        return True

    @property
    def connection_upgraded(self) -> bool:
        """Does the client speak another protocol from here on?"""
        return bool(self.code == 101 and self.headers_sent)

    @property
    def content_length(self) -> int | None:
        """Content-Length of the request."""
        length = self._request.fields.get("CONTENT_LENGTH") if self._request else None
        return None if length is None else int(length)

    @property
    def headers(self) -> Headers:
        """The request's fields."""
        if self._headers is None:
            self._headers = Headers()
            for name, value in self._request.raw if self._request else ():
                self._headers[name.decode("latin-1")] = value.decode("latin-1").strip(" \t")
        return self._headers

    @headers.setter
    def headers(self, value: Any) -> None:
        self._headers = value

    def handle_one_request(self) -> Any:
        """Serve one request.

        True: more may follow.  None: close the connection.  A tuple (status, response): send the response, close.
        """
        try:
            line = self.requestline = self.read_requestline()
        except ProtocolError as error:
            if error.preface and self.server.http2 and not self._served:
                self._speak_http2()
                return None
            return self._handle_client_error(error)
        except OSError:
            self._linger = False
            return None
        if not line:
            return None
        self.response_length = 0
        try:
            if not self.read_request(line):
                return self._error_response(400)
        except Exception as error:
            return self._handle_client_error(error)
        self.environ = self.get_environ()
        self.application = self.server.application
        self.handle_one_response()
        return None if self.close_connection or self.socket is None else True

    def _speak_http2(self) -> None:
        """The client knows that we speak HTTP/2, and has begun to (RFC 9113 section 3.3)."""
        from weald.http.http2 import Http2Connection

        connection = Http2Connection(self.server, self.socket, self.client_address)
        self._linger = False  # it does so itself
        self.server._replace_connection(self, connection)
        try:
            connection.run(b"PRI * HTTP/2.0\r\n\r\n" + self._stream.rest())
        finally:
            self.server._replace_connection(connection, self)

    def get_environ(self) -> Any:
        """The environment of the request: the server's, and what the request adds."""
        request = self._request
        assert request is not None
        env = self.server.get_environ()
        env.update(request.fields)
        env["REQUEST_METHOD"] = self.command
        target = self.path or ""
        path, _, query = target.partition("?")
        env["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        env["QUERY_STRING"] = query
        env["REQUEST_URI"] = target
        env["SERVER_PROTOCOL"] = self.request_version
        if self._remote is not None:
            env["REMOTE_ADDR"], env["REMOTE_PORT"] = self._remote
        if request.special:
            self._special_environ(request, env)
        else:
            self.wsgi_input = env["wsgi.input"] = Input(None)
        return env

    def _special_environ(self, request: Request, env: Any) -> None:
        """What a body, an upgrade or a wish for trailers add to the environment."""
        length = request.length
        self.wsgi_input = env["wsgi.input"] = Input(self._body_piece if length else None)
        self._continue = request.expect_continue
        if length:
            self._waited, self._received = 0.0, 0
        elif self._connection_upgrade_requested():
            env["wsgi.input"] = self.rfile
            env["wsgi.input_terminated"] = False
            env["werkzeug.socket"] = self.socket  # where libraries for WebSockets look for it
            env["weald.upgrade"] = self._give_away
        self._trailers = None
        if "trailers" in tokens(request.fields.get("HTTP_TE", "")):
            env["weald.trailers"] = self._trailers = []

    def _give_away(self) -> tuple[Any, bytes]:
        """The socket, and what has been read of it already, for whoever answers the request in another protocol.

        From here on the response is theirs: what the application passes to start_response() and returns is dropped.
        """
        self._given_away = True
        self.headers_sent = self.close_connection = True
        self.status, self.code = b"101 Switching Protocols", 101
        return self.socket, self._stream.rest()

    def _connection_upgrade_requested(self) -> bool:
        fields = self._request.fields if self._request else {}
        return "HTTP_UPGRADE" in fields and "upgrade" in tokens(fields.get("HTTP_CONNECTION", ""))

    def _body_piece(self) -> bytes:
        """The next piece of the request's body, b"" at its end."""
        stream = self._stream
        limits = stream.limits
        try:
            while (piece := stream.body()) is not None:
                if piece:
                    return piece
                if self._continue:
                    self._continue = False
                    if not self.headers_sent:
                        self._send(_CONTINUE)
                allowed = limits.body_grace + self._received / limits.body_rate - self._waited
                start = monotonic()
                try:
                    data = self._receive(max(min(limits.body_timeout, allowed), 0.001))
                except TimeoutError:
                    raise ProtocolError(408, "the body comes too slowly") from None
                self._waited += monotonic() - start
                self._received += len(data)
                if not data:
                    self._linger = False
                    raise ConnectionResetError(errno.ECONNRESET, "the client left in the middle of the request's body")
                stream.feed(data)
        except ProtocolError as error:
            self.close_connection = True
            raise _InvalidClientInput(error.status, str(error)) from None
        self.wsgi_input.trailers = stream.trailers
        return b""

    def _discard_body(self) -> None:
        """After the response: read what the application left of the body, or give the connection up."""
        stream = self._stream
        if not stream.in_body or self.close_connection:
            return
        # A client that was not told to continue may send the body or not: RFC 9110 section 10.1.1.
        if self._continue or (self._request and self._request.length > stream.limits.discard + self._received):
            self.close_connection = True
            return
        try:
            budget = stream.limits.discard
            while budget >= 0 and (piece := self._body_piece()):
                budget -= len(piece)
            if budget < 0:
                self.close_connection = True
        except OSError as error:
            self.close_connection = True
            if isinstance(error, _InvalidClientInput):
                self._handle_client_error(error)

    # ---------------------------------------------------------------- responses

    def handle_one_response(self) -> None:
        """Run the application for the request, and log it.  No Exception leaves here."""
        self.time_start = time()
        self.status = None
        self.headers_sent = False
        if self.response_use_chunked:
            self.response_use_chunked = False
        try:
            self.run_application()
            request = self._request
            if request is not None and request.special:
                self._discard_body()
                if self.code == 101:
                    self.close_connection = True
        except _InvalidClientInput as error:
            self._handle_client_error(error)
            self.close_connection = True
            self._send_error_response_if_possible(error.status)
        except OSError as error:
            self.close_connection = True
            if isinstance(error, TimeoutError) or error.errno in self.ignored_socket_errors:
                self._linger = False
            else:
                self.handle_error(*sys.exc_info())
        except Exception:
            self.handle_error(*sys.exc_info())
            if self._stream.in_body:
                self._discard_body()
        except BaseException:
            self.handle_error(*sys.exc_info())
            self.close_connection = True
            self._linger = False
            raise
        finally:
            self.time_finish = time()
            self.log_request()

    def run_application(self) -> None:
        """Call the application and send what it returns."""
        result = None
        try:
            self.result = result = self.application(self.environ, self.start_response)
            self.process_result()
        finally:
            self.result = None
            close = getattr(result, "close", None)
            if close is not None:
                close()

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
                raise self.ApplicationError("the application did not call start_response()")
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
            lines += (_field_name(name)[0], b": ", _field_value(name, value), b"\r\n")
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
        line, code = _statuses.get(status) or _status_line(status)
        date = length = None
        connection = False
        response_headers = []
        for item in headers:
            name, value = item
            known = _names.get(name) or _field_name(name)
            response_headers.append((known[0], _values.get(value) or _field_value(name, value)))
            kind = known[1]
            if kind:
                if kind == "content-length":
                    if not (value.isascii() and value.isdigit()):
                        raise ValueError("Content-Length must be a number", value)
                    length = value
                elif kind == "date":
                    date = value
                elif kind == "connection":
                    connection = True
                    if "close" in tokens(value):
                        self.close_connection = True
                else:  # Transfer-Encoding, ours to decide: PEP 3333, "Other HTTP Features"
                    response_headers.pop()
        if code == 204 and length not in (None, "0"):
            raise self.ApplicationError(
                f"Invalid Content-Length for {code} response: {length!r} (must be absent or zero)"
            )
        self.status = line
        self.code = code
        self.response_headers = response_headers
        self.provided_date = date
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
            headers.append(_date.at(self.time_start))
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
        if left is not None and size <= left and size <= _JOIN_BELOW and self.command != "HEAD":
            # As `_framed` does it, without the call.
            self._left = left - size
            parts.append(data)
        elif data:
            if size > _JOIN_BELOW:
                parts = [b"".join(parts)]
            try:
                parts += self._framed(data)
            except Exception:
                self._sendall(b"".join(parts))
                raise
            if size > _JOIN_BELOW:
                self._sendmsg(parts)
                return
        self._sendall(b"".join(parts))

    def _write(self, data: bytes) -> None:
        parts = self._framed(data) if data else ()
        if len(parts) == 1:
            self._sendall(parts[0])
        elif len(data) > _JOIN_BELOW:
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
            if len(data) <= _JOIN_BELOW:
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

    # ---------------------------------------------------------------- errors and logs

    def log_request(self) -> None:
        log = self.server.log
        if type(log) is not NoopLog:
            log.write(self.format_request() + "\n")

    def format_request(self) -> str:
        """The access log's line."""
        address = self.client_address
        address = address[0] if isinstance(address, tuple) else address
        line = _log_unsafe.sub(lambda found: f"\\x{ord(found[0]):02x}", self.requestline or "")
        status = self.status or "000"
        if isinstance(status, bytes):
            status = status.decode("latin-1")
        delta = f"{self.time_finish - self.time_start:.6f}" if self.time_finish else "-"
        now = datetime.now().replace(microsecond=0)
        return f'{address or "-"} - - [{now}] "{line}" {status.split()[0]} {self.response_length or "-"} {delta}'

    # Where what goes wrong while an error is logged goes to.
    _print_unexpected_exc = staticmethod(traceback.print_exc)

    def log_error(self, msg: str, *args: Any) -> None:
        """Write `msg % args` to the server's error log."""
        try:
            message = msg % args if args else msg
        except Exception:
            self._print_unexpected_exc()
            message = f"{msg!r} {args!r}"
        try:
            self.server.error_log.write(f"{self.socket}: {message}\n")
        except Exception:
            self._print_unexpected_exc()

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if not issubclass(t, GreenletExit):
            context = self.environ
            if not isinstance(context, self.server.secure_environ_class):
                context = self.server.secure_environ_class(context or {})
            get_hub().handle_error(context, t, v, tb)

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """The application, or the server, failed."""
        self._log_error(t, v, tb)
        t = v = tb = None
        self._send_error_response_if_possible(500)

    def _send_error_response_if_possible(self, error_code: int) -> None:
        if self.headers_sent:
            self.close_connection = True
            return
        self.result = ()
        reason = _REASONS.get(error_code, "Error")
        self.status = None
        self.response_use_chunked = False
        body = reason.encode()
        if error_code != 500:
            self.close_connection = True
        try:
            self.start_response(
                f"{error_code} {reason}", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
            )
            self.write(body)
        except OSError:
            self.close_connection = True

    def _error_response(self, status: int) -> tuple[str, bytes]:
        line = f"{status} {_REASONS.get(status, 'Error')}"
        date = _date.at(time())[1].decode()
        head = f"HTTP/1.1 {line}\r\nDate: {date}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        return line, head.encode()

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        """The client sent something invalid: log it; the status and the response that tell it so."""
        if not isinstance(error, ValueError | _InvalidClientInput):
            traceback.print_exception(error)
        if isinstance(error, _InvalidClientRequest):
            self.log_error("(from %s) %s", self.client_address, error.formatted_message)
        else:
            text = str(error) or type(error).__name__
            self.log_error("Invalid request (from %s): %s", self.client_address, text)
        return self._error_response(getattr(error, "status", 400))


def _status_line(status: Any) -> tuple[bytes, int]:
    """`status` checked: as bytes, and its code."""
    if not isinstance(status, str):
        raise UnicodeError("The status string must be a native string")
    if _has_control(status):
        raise ValueError("carriage return or newline in status", status)
    if not (status[:3].isascii() and status[:3].isdigit() and status[3:4] in ("", " ")):
        raise ValueError("a status is three digits, a space and a reason", status)
    checked = (status.encode("latin-1"), int(status[:3]))
    if len(_statuses) < _CACHED:
        _statuses[status] = checked
    return checked


def _field_name(name: Any) -> tuple[bytes, str]:
    """A response's field name checked: as bytes, and in lower case if it is one of `_OURS`, else ""."""
    if not isinstance(name, str):
        raise UnicodeError("The header must be a native string", name)
    if not _is_token(name):
        raise ValueError("not a header name (a carriage return or newline in header name?)", name)
    lower = name.lower()
    checked = (name.encode("latin-1"), lower if lower in _OURS else "")
    if len(_names) < _CACHED:
        _names[name] = checked
    return checked


def _field_value(name: str, value: Any) -> bytes:
    """A response's field value checked, as bytes."""
    if not isinstance(value, str):
        raise UnicodeError("The value must be a native string", name, value)
    if _has_control(value):
        raise ValueError("carriage return, newline or control character in header value", name, value)
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError:
        raise UnicodeError("Non-latin1 header", name, value) from None
    if len(value) <= 32 and len(_values) < _CACHED and name.lower() not in ("set-cookie", "www-authenticate"):
        _values[value] = encoded
    return encoded


class WSGIServer(StreamServer):
    """WSGIServer(listener, application): serve a WSGI application over HTTP/1.1, with keyword arguments for TLS.

    `log` is where requests are logged to: an object with `write`, a logging.Logger, None for nowhere
    (default: sys.stderr).  `error_log`, the same for errors, is `wsgi.errors` as well.  `handler_class` replaces
    WSGIHandler; `environ` is added to each request's environment; `limits` says what a client may cost; `http2` serves
    HTTP/2 as well, to who asks for it in TLS (ALPN; give an `ssl_context`) or just begins with it.
    """

    handler_class: Any = WSGIHandler
    log: Any = None
    error_log: Any = None
    environ_class: Any = dict
    secure_environ_class = WSGISecureEnviron
    limits = Limits()
    application: Any
    environ: Any

    base_env: ClassVar[dict[str, Any]] = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": f"weald/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}",
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }

    def __init__(
        self,
        listener: Any,
        application: Any = None,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: Any = None,
        environ: Any = None,
        limits: Limits | None = None,
        http2: bool = False,
        **ssl_args: Any,
    ) -> None:
        if limits is not None:
            self.limits = limits
        self._parser = HeadParser(self.limits)
        self._buffer = bytearray(65536)
        self._view = memoryview(self._buffer)
        self._connections: set[Any] = set()
        self._draining = False
        self.http2 = http2
        if http2 and "ssl_context" in ssl_args:
            ssl_args["ssl_context"].set_alpn_protocols(["h2", "http/1.1"])
        super().__init__(listener, backlog=backlog, spawn=spawn, **ssl_args)
        if application is not None:
            self.application = application
        if handler_class is not None:
            self.handler_class = handler_class
        self.log = _make_log(log, 20)
        self.error_log = _make_log(error_log, 40)
        self.set_environ(environ)
        self.set_max_accept()

    def set_environ(self, environ: Any = None) -> None:
        if environ is not None:
            self.environ = environ
        given = getattr(self, "environ", None)
        self.environ = self.environ_class(self.base_env)
        self.environ["wsgi.url_scheme"] = "https" if self.ssl_enabled else "http"
        if given is not None:
            self.environ.update(given)
        if self.environ.get("wsgi.errors") is None:
            self.environ["wsgi.errors"] = self.error_log

    def set_max_accept(self) -> None:
        if self.environ.get("wsgi.multiprocess"):
            self.max_accept = 1

    def get_environ(self) -> Any:
        """A fresh environment for a request."""
        return self.environ_class(self.environ)

    def init_socket(self) -> None:
        super().init_socket()
        self.update_environ()

    def update_environ(self) -> None:
        """Fill in the server's name and port, known once it is bound."""
        address = self.address
        if isinstance(address, tuple):
            if "SERVER_NAME" not in self.environ:
                try:
                    self.environ["SERVER_NAME"] = socket.getfqdn(address[0])
                except OSError:
                    self.environ["SERVER_NAME"] = str(address[0])
            self.environ.setdefault("SERVER_PORT", str(address[1]))
        else:
            self.environ.setdefault("SERVER_NAME", "")
            self.environ.setdefault("SERVER_PORT", "")

    def full(self) -> bool:
        return len(self._connections) >= self.limits.connections or super().full()

    def start(self) -> None:
        self._draining = False
        super().start()

    def close(self) -> None:
        self._draining = True  # whoever is served now is told to connect anew
        super().close()

    def stop(self, timeout: float | None = None) -> None:
        """As StreamServer's; idle connections are closed at once."""
        self.close()
        self._close_idle()
        super().stop(timeout)

    def drain(self, timeout: float, patience: float = 1.0) -> bool:
        """Stop without failing a request: True if all connections have ended within `timeout` seconds.

        Connections in the listener's backlog are served; those that ask once more are answered, and told to connect
        anew; those still idle after `patience` seconds are closed.  What is left in the end is cut off.
        """
        start = monotonic()
        while self._acceptor is not None and (args := self.do_read()) is not None:
            self.do_handle(*args)
        self.close()
        sleep(0)  # those just accepted begin
        while self._connections and (passed := monotonic() - start) < timeout:
            if passed >= patience:
                self._close_idle()
            sleep(0.02)
        done = not self._connections
        for handler in list(self._connections):
            if handler.socket is not None:
                handler.socket.close()
        return done

    def _replace_connection(self, old: Any, new: Any) -> None:
        self._connections.discard(old)
        self._connections.add(new)

    @cached_property
    def _http2_handler_class(self) -> Any:
        from weald.http.http2 import handler_class

        return handler_class(self.handler_class)

    def _close_idle(self) -> None:
        for handler in list(self._connections):
            if handler._idle and handler.socket is not None:
                try:
                    handler.socket.shutdown(SHUT_RD)  # it finds the end of the stream, unless a request has come
                except OSError:
                    pass

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        client_socket.settimeout(self.limits.head_timeout)
        try:
            wrapped = self.wrap_socket(client_socket, **self.ssl_args)
        except OSError as error:  # the client's trouble: no traceback
            self.error_log.write(f"no TLS with {address}: {error}\n")
            return
        with wrapped:
            self.handle(wrapped, address)

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection until it ends."""
        if self.family != AF_UNIX:
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if self.http2 and self.ssl_enabled and sock.selected_alpn_protocol() == "h2":
            from weald.http.http2 import Http2Connection

            connection = Http2Connection(self, sock, address)
            self._connections.add(connection)
            try:
                connection.run()
            finally:
                self._connections.discard(connection)
            return
        handler = self.handler_class(sock, address, self)
        self._connections.add(handler)
        try:
            handler.handle()
        finally:
            self._connections.discard(handler)


def _make_log(log: Any, level: int) -> Any:
    if isinstance(log, str) and log == "default":
        return sys.stderr
    if log is None:
        return NoopLog()
    if not hasattr(log, "write") and hasattr(log, "log"):
        return LoggingLogAdapter(log, level)
    return log


if not TYPE_CHECKING:
    __getattr__ = gevent_names(__name__)
