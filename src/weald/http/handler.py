"""WSGIHandler: one connection of a WSGIServer, from its first byte to its last.

Called by: weald.pywsgi.  Interface: gevent.pywsgi's, which subclasses rely on, hence names and the order in which the
methods call each other:

    handle → handle_one_request → read_requestline, read_request, get_environ
           → handle_one_response → run_application → application, process_result → write → _sendall
                                 → log_request

Invariants:
- protocol.py decides what a request is; exchange.pyx is what every request goes through; here is the rest: how a
  connection begins and ends, bodies, upgrades, files, errors, logs.
- Every wait on the client is bounded by the server's `limits`.
- A connection serves no further request after an error of the protocol, a response that was cut short, or while more
  of a request's body is unread than `limits.discard`.
"""

import errno
import io
import os
import re
import traceback
from _socket import socket as _Base
from collections.abc import Callable
from datetime import datetime
from io import BufferedRandom, BufferedReader, FileIO
from socket import MSG_MORE, SHUT_WR
from tempfile import _TemporaryFileWrapper
from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from weald import get_hub
from weald._core import GreenletExit, monotonic, report
from weald.http.body import FileWrapper, Input, InvalidClientInput, Raw
from weald.http.environ import Headers
from weald.http.exchange import Exchange
from weald.http.fields import REASONS, date, field_name, field_value
from weald.http.protocol import ProtocolError, Request, RequestStream, tokens

if TYPE_CHECKING:
    from weald.pywsgi import WSGIServer

__all__ = ["WSGIHandler"]

_PART = 65536  # bytes: more is sent in parts
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_log_unsafe = re.compile(r'["\\\x00-\x1f\x7f-\x9f]')


class WSGIHandler(Exchange):
    """One connection: reads its requests, runs the application, writes the responses.

    `WSGIServer.handle` makes one and calls `handle`.  Subclasses may replace the methods that the module's
    docstring lists, and `start_response`, `finalize_headers`, `format_request`, `log_error`, `handle_error`.
    """

    protocol_version = "HTTP/1.1"
    # A client that has gone is nobody's error.
    ignored_socket_errors: ClassVar[tuple[int, ...]] = (errno.EPIPE, errno.ECONNRESET)
    ApplicationError = AssertionError
    _go_away: Callable[[], None] | None = None  # tells who was given the connection that the server ends; may wait

    def __init__(self, sock: Any, address: Any, server: "WSGIServer", rfile: Any = None) -> None:
        self.socket = sock
        self.client_address = address
        self.server = server
        self._common = server._common
        self._stream = RequestStream(server._common.parser)
        self._descriptor = sock._descriptor
        self._copies_environ = server._copies_environ()
        if rfile is not None:
            self._rfile = rfile
        if isinstance(address, tuple):
            self._remote = (address[0], str(address[1]))

    # ---------------------------------------------------------------- the connection

    def handle(self) -> None:
        """Serve requests until the connection ends."""
        try:
            result = self._handle_requests()
            if result is not None:
                self.status, response = result
                self.code = int(self.status[:3])
                if self._request is None:  # what was read is no request, and the one before was another
                    self.requestline = self.command = self.path = self.request_version = None
                    self.time_start = time()
                self._send(response)
                self.response_length = len(response)
                self.time_finish = time()
                self._finish()
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
            self._rfile = self._raw = self._go_away = None

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
        buffer = self._common.buffer
        count = self.socket.recv_into(buffer)
        with memoryview(buffer) as view:
            return view[:count].tobytes()

    def _send(self, data: Any, flags: int = 0) -> None:
        """Send all of `data`; TimeoutError once the client takes nothing for `write_timeout` seconds."""
        self._descriptor.timeout = self._stream.limits.write_timeout
        if len(data) <= _PART:
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
            self._raw = Raw(self, self.socket)
            self._rfile = io.BufferedReader(self._raw)
        return self._rfile

    @rfile.setter
    def rfile(self, value: Any) -> None:
        self._rfile = value

    # ---------------------------------------------------------------- requests

    def _read_behind(self, line: str) -> Request:
        """The request whose first line a subclass has read by itself, through `rfile`."""
        data = line.encode("latin-1")
        if not data.endswith(b"\n"):
            data += b"\r\n"
        if self._raw is not None:
            data += self._raw.taken(self._rfile)
        self._stream.feed(data + self._stream.rest())
        request = self._next_request()
        if request is None:
            raise ValueError("the client left in the middle of a head")
        self.requestline = request.line
        return request

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
            if "HTTP_UPGRADE" in request.fields and "upgrade" in tokens(request.fields.get("HTTP_CONNECTION", "")):
                env["werkzeug.socket"] = self.socket  # where libraries for WebSockets look for it
                env["weald.upgrade"] = self._give_away
        self._trailers = None
        if "trailers" in tokens(request.fields.get("HTTP_TE", "")):
            env["weald.trailers"] = self._trailers = []

    def _give_away(self, go_away: Callable[[], None] | None = None) -> tuple[Any, bytes]:
        """The socket, and what has been read of it already, for whoever answers the request in another protocol.

        From here on the response is theirs: what the application passes to start_response() and returns is dropped.
        `go_away` is called, in a greenlet of its own, if the server ends before they do.
        """
        self._go_away = go_away
        self._given_away = True
        self.headers_sent = self.close_connection = True
        self.status, self.code = b"101 Switching Protocols", 101
        return self.socket, self._stream.rest()

    def _connection_upgrade_requested(self) -> bool:
        """Is `wsgi.input` to be the connection itself?  gevent says so for either of the two fields."""
        fields = self._request.fields if self._request else {}
        return (
            "upgrade" in tokens(fields.get("HTTP_CONNECTION", ""))
            or fields.get("HTTP_UPGRADE", "").lower() == "websocket"
        )

    def _body_piece(self) -> bytes:
        """The next piece of the request's body, b"" at its end."""
        stream = self._stream
        limits = stream.limits
        try:
            if self._continue:
                self._continue = False
                if not self.headers_sent:
                    self._send(_CONTINUE)
            while (piece := stream.body()) is not None:
                if piece:
                    return piece
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
            raise InvalidClientInput(error.status, str(error)) from None
        self.wsgi_input.trailers = stream.trailers
        return b""

    def _discard_body(self) -> None:
        """After the response: read what the application left of the body, or give the connection up."""
        stream = self._stream
        if not stream.in_body or self.close_connection:
            return
        # A client that was not told to continue may send the body or not: RFC 9110 section 10.1.1.  It does, if some
        # of it has come.
        if (self._continue and not stream.pending) or (
            self._request and self._request.length > stream.limits.discard + self._received
        ):
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
            if isinstance(error, InvalidClientInput):
                self._handle_client_error(error)

    # ---------------------------------------------------------------- rarer responses

    def _last_chunk(self) -> bytes:
        lines = [b"0\r\n"]
        for name, value in self._trailers or ():
            lines += (field_name(name)[0], b": ", field_value(name, value), b"\r\n")
        return b"".join((*lines, b"\r\n"))

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
        file = wrapper.filelike
        if type(file) is _TemporaryFileWrapper:
            file = file.file
        # Others may have a descriptor, and give other bytes than are behind it: GzipFile, say.
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return False
        try:
            fd = file.fileno()
            offset = file.tell()
            size = os.fstat(fd).st_size - offset
        except (AttributeError, OSError, ValueError):
            return False
        if size <= 0 or self.headers_sent or self.server.ssl_enabled or not self.status or self.code in (204, 304):
            return False
        if self.provided_content_length is None:
            self.response_headers.append((b"Content-Length", b"%d" % size))
            self.provided_content_length = str(size)
        count = min(size, int(self.provided_content_length))
        head = self._head()
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
    @staticmethod
    def _print_unexpected_exc() -> None:
        report(traceback.format_exc())

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
        reason = REASONS.get(error_code, "Error")
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
        line = f"{status} {REASONS.get(status, 'Error')}"
        now = date.at(time())[1].decode()
        head = f"HTTP/1.1 {line}\r\nDate: {now}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        return line, head.encode()

    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]:
        """The client sent something invalid: log it; the status and the response that tell it so."""
        if not isinstance(error, ValueError | InvalidClientInput):
            report("".join(traceback.format_exception(error)))
        message = getattr(error, "formatted_message", None)  # of gevent's exception for subclasses
        if message is not None:
            self.log_error("(from %s) %s", self.client_address, message)
        else:
            text = str(error) or type(error).__name__
            self.log_error("Invalid request (from %s): %s", self.client_address, text)
        return self._error_response(getattr(error, "status", 400))
