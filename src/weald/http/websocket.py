"""WebSockets (RFC 6455, with permessage-deflate) inside WSGI and ASGI applications.

Called by: asgi_websocket.pyx and asgi_server.py, for those of ASGI applications; weald.serve.config and
weald.serve.wsgi, whose settings change its Options; users: `accept(environ)` in any WSGI application, Flask's views
included, or `application(handler)` as the whole of one.

wsproto implements the protocol; this module reads, writes, waits and limits.  Most frames are complete and contain a
whole message that is not compressed; these are read and written without wsproto (frames.pyx).

    @websocket.application
    def echo(ws):
        for message in ws:          # str or bytes, until the client closes
            ws.send(message)

    WSGIServer(":8000", echo).serve_forever()

Invariants:
- One greenlet at a time receives; any number may send, frame by frame.
- Received data is parsed in small pieces, up to the next message.  So a connection holds at most one message, the
  decompressed content of one piece, and the data of one `recv`.  While this side closes, messages are dropped.
- Every wait has a limit: a client that does not answer a ping, or takes no bytes, is dropped.
"""

import base64
import binascii
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from socket import SHUT_RD
from typing import Any, Self
from urllib.parse import urlsplit

from weald._core import Lock, monotonic, sleep
from weald.http.extras import required
from weald.http.frames import frame_of, next_frame
from weald.http.protocol import tokens
from weald.http.wire import receive, send

with required("WebSockets", "wsproto", "h11"):
    from wsproto import ConnectionType, WSConnection
    from wsproto.connection import ConnectionState
    from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Message, Ping, TextMessage
    from wsproto.extensions import PerMessageDeflate
    from wsproto.frame_protocol import CloseReason, Opcode, RsvBits
    from wsproto.utilities import LocalProtocolError, RemoteProtocolError

__all__ = ["Closed", "Handshake", "HandshakeError", "Options", "WebSocket", "accept", "application", "check_close"]

_PIECE = 1024  # bytes looked at in one go; deflate makes at most 1,032 of one


@dataclass(frozen=True, slots=True)
class Options:
    """What a server accepts of a client.  Sizes are in bytes, times in seconds."""

    max_message: int = 1 << 20  # larger: closed with 1009
    max_fragments: int = 1024  # frames of one message; more: closed with 1008
    ping_interval: float = 20.0  # a client silent for so long is sent a ping
    ping_timeout: float = 20.0  # and is dropped if it stays silent for so long after that
    close_timeout: float = 5.0  # how long `close` waits for the client's half of the closing handshake
    write_timeout: float = 30.0  # for the client to take a message
    compress: bool = True  # offer permessage-deflate


class Closed(Exception):
    """The connection has ended: with `code` (RFC 6455 section 7.4; 1006 if it broke) and `reason`, a str."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}".rstrip())
        self.code = code
        self.reason = reason


class HandshakeError(ValueError):
    """The request does not open a WebSocket: answer with `status` and `headers`."""

    def __init__(self, status: str, text: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = list(headers)


_parameter = re.compile(
    r"(?:(?P<plain>(?:server|client)_no_context_takeover)"
    r'|(?P<bits>(?:server|client)_max_window_bits)(?:\s*=\s*(?P<quote>"?)(?P<value>[89]|1[0-5])(?P=quote))?)'
).fullmatch


class _Deflate(PerMessageDeflate):
    """wsproto's extension, with three changes.

    A ping between the frames of a compressed message does not make it forget that the message is compressed.  Offers
    that it does not understand are declined.  A message that begins in the middle of another is refused as soon as its
    head has come; otherwise the error would depend on how the bytes were cut.
    """

    _inside = False  # a message, between two of its frames
    _control = False  # is this frame one?

    def accept(self, offer: str) -> bool | str | None:
        names = set()
        for parameter in offer.split(";")[1:]:
            found = _parameter(parameter.strip())
            name = found and (found["plain"] or found["bits"])
            # RFC 7692 section 7.1: unknown, repeated or malformed
            if found is None or name in names or (name == "server_max_window_bits" and found["value"] is None):
                return None
            names.add(name)
        return super().accept(offer)

    def frame_inbound_header(self, proto: Any, opcode: Any, rsv: Any, payload_length: int) -> Any:
        self._control = opcode.iscontrol()
        if self._control:
            self._inbound_is_compressible = False
            return CloseReason.PROTOCOL_ERROR if rsv.rsv1 else RsvBits(False, False, False)
        if (opcode is Opcode.CONTINUATION) is not self._inside:
            return CloseReason.PROTOCOL_ERROR
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_complete(self, proto: Any, fin: bool) -> Any:
        if not self._control:
            self._inside = not fin
        return super().frame_inbound_complete(proto, fin) if self._inbound_is_compressible else None


class WebSocket:
    """A server's end of a connection.  Made by `accept`.  A context manager that closes it."""

    def __init__(
        self,
        sock: Any,
        connection: Any,
        environ: dict[str, Any],
        subprotocol: str | None,
        options: Options,
        compresses: bool = True,
    ):
        self.environ = environ
        self.subprotocol = subprotocol
        self.options = options
        self.closed: Closed | None = None  # how it ended
        self._sock = sock
        self._connection = connection
        self._sending = Lock()
        self._messages: deque[str | bytes] = deque()
        self._compresses = compresses
        self._unread = b""  # received data that has not been parsed yet
        self._short = False  # is that part of a frame's head, and no more?
        self._rest = 0  # bytes of the frame that wsproto has the beginning of
        self._closing = False  # has `close` been called?
        self._text = io.StringIO()  # of the message that is under way, if it is a text
        self._binary = bytearray()  # the same, if it is not
        self._size = 0
        self._fragments = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        # 1011: "an unexpected condition"
        self.close(1000 if kind is None or issubclass(kind, Closed) else 1011)

    def __iter__(self) -> Iterator[str | bytes]:
        """Yield the messages that come until the connection ends; `closed` then says why it did."""
        while True:
            try:
                message = self.receive()
            except Closed:
                return
            yield message

    def receive(self, timeout: float | None = None) -> str | bytes:
        """Return the next message: a str for a text, bytes for a binary one.

        Raises Closed if the connection has ended, TimeoutError if none comes within `timeout` seconds (None: no limit).
        """
        deadline = None if timeout is None else monotonic() + timeout
        pinged = False
        while not self._messages:
            if self.closed is not None:
                raise self.closed
            if self._unread and not self._short:
                self._look_on()
                continue
            patience = self.options.ping_timeout if pinged else self.options.ping_interval
            left = patience if deadline is None else deadline - monotonic()
            if left <= 0:
                raise TimeoutError("no message in time")
            try:
                data = self._read(min(patience, left))
            except TimeoutError:
                if left > patience or deadline is None:
                    if pinged:
                        self._end(Closed(1006, "no answer to a ping"))
                    else:
                        self._send_event(Ping())
                        pinged = True
                continue
            pinged = False
            self._take(data)
        return self._messages.popleft()

    def send(self, message: str | bytes | bytearray | memoryview) -> None:
        """Send `message`, as a text if it is a str, else as binary.  Raises Closed if the connection has ended."""
        data = message if isinstance(message, str | bytes) else _octets(message)
        if not self._compresses and self._connection.state is ConnectionState.OPEN:
            with self._sending:
                self._send_bytes(frame_of(data))
        elif isinstance(data, str):
            self._send_event(TextMessage(data=data))
        else:
            self._send_event(BytesMessage(data=data))

    def ping(self, payload: bytes = b"") -> None:
        """Send a ping with `payload`, of at most 125 bytes.  The pong is handled automatically.

        Raises Closed if the connection has ended.
        """
        self._send_event(Ping(payload=payload))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """End the connection, and wait `close_timeout` seconds at most for the client to agree.

        Messages that still come are dropped.  Closing again does nothing.  Of `reason`, 123 bytes are sent at most.
        Raises ValueError if no close may have `code`.
        """
        check_close(code, reason)
        if self.closed is not None:
            return
        self._closing = True
        self._messages.clear()
        try:
            self._send_event(CloseConnection(code=code, reason=reason or None))
            end = monotonic() + self.options.close_timeout
            while self.closed is None and (left := end - monotonic()) > 0:
                if self._unread and not self._short:
                    self._look_on()
                else:
                    self._take(self._read(left))
        except (Closed, OSError):
            pass
        if self.closed is None or self.closed.code == 1006:
            self.closed = Closed(code, reason)

    # ---------------------------------------------------------------- inside

    def _go_away(self) -> None:
        """Tell the client that the server ends (1001).  The application gets Closed when it agrees, or in time."""
        try:
            self._send_event(CloseConnection(code=1001))
        except Closed:
            return
        sleep(self.options.close_timeout, ref=False)
        if self.closed is None:
            self._end(Closed(1001, "the server has ended"))
            try:
                self._sock.shutdown(SHUT_RD)  # wakes the greenlet that receives
            except OSError:
                pass

    def _read(self, timeout: float) -> bytes:
        """Return the next bytes, b"" at the end.  Raises TimeoutError after `timeout` seconds."""
        try:
            return receive(self._sock, timeout)
        except TimeoutError:
            raise
        except OSError:
            return b""

    def _send_event(self, event: Any) -> None:
        with self._sending:
            if self.closed is not None:
                raise self.closed
            try:
                data = self._connection.send(event)
            except LocalProtocolError:  # the closing handshake is under way
                raise Closed(1006, "the connection is being closed") from None
            self._send_bytes(data)

    def _send_bytes(self, data: bytes) -> None:
        """Send frames; the caller has `_sending`."""
        if self.closed is not None:
            raise self.closed
        try:
            send(self._sock, data, self.options.write_timeout)
        except OSError as error:
            self._end(Closed(1006, str(error)))
            raise self.closed from None  # type: ignore[misc]

    def _end(self, closed: Closed) -> None:
        if self.closed is None:
            self.closed = closed

    def _take(self, data: bytes) -> None:
        """Handle received `data`, up to the first message that it completes."""
        if not data:
            self._end(Closed(1006, "the connection broke"))
            return
        self._unread += data
        self._look_on()

    def _look_on(self) -> None:
        """Handle received data up to the next message: keep that, answer control frames."""
        data, self._unread = self._unread, b""
        self._short = False
        at = 0
        longest = self.options.max_message
        try:
            while at < len(data) and not self._messages and self.closed is None:
                if not self._rest:
                    end, message = next_frame(data, at, not self._fragments, longest)
                    if message is not None:
                        at = end
                        if not self._closing:
                            self._messages.append(message)
                        continue
                    if not end:
                        self._short = True
                        break
                    self._rest = end - at
                piece = data[at : at + min(_PIECE, self._rest)]
                at += len(piece)
                self._rest -= len(piece)
                self._connection.receive_data(piece)
                for event in self._connection.events():
                    self._handle(event)
                    if self.closed is not None:
                        return
            self._unread = data[at:]
        except UnicodeDecodeError:
            self._refuse(1007, "a text that is not UTF-8")
        except RemoteProtocolError as error:
            hint = error.event_hint
            code = hint.code if isinstance(hint, CloseConnection) else 1002
            self._refuse(int(code), str(error))

    def _handle(self, event: Any) -> None:
        if isinstance(event, Message):
            if self._closing:
                return
            text = isinstance(event, TextMessage)
            if text:
                self._text.write(event.data)
            else:
                self._binary += event.data
            self._size += len(event.data) if isinstance(event, BytesMessage) else _utf8_length(event.data)
            self._fragments += event.frame_finished
            if self._size > self.options.max_message:
                self._refuse(1009, "message too big")
            elif self._fragments > self.options.max_fragments:
                self._refuse(1008, "too many fragments")
            elif event.message_finished:
                self._messages.append(self._text.getvalue() if text else bytes(self._binary))
                self._text, self._binary = io.StringIO(), bytearray()
                self._size = self._fragments = 0
        elif isinstance(event, Ping):
            self._answer(event.response())
        elif isinstance(event, CloseConnection):
            self._answer(event.response())
            self._end(Closed(int(event.code), event.reason or ""))

    def _answer(self, event: Any) -> None:
        try:
            self._send_event(event)
        except Closed:
            pass  # after our own close there is nothing to answer

    def _refuse(self, code: int, reason: str) -> None:
        """End the connection with `code` and `reason`: the client broke a rule."""
        self._answer(CloseConnection(code=code, reason=reason[:120]))
        self._end(Closed(code, reason))


def check_close(code: Any, reason: Any) -> None:
    """Raise ValueError or TypeError unless an application may close with these (RFC 6455 section 7.4).

    1005, 1006 and 1015, which are never sent, are allowed, because applications pass on the code that they received.
    """
    known = isinstance(code, int) and (1000 <= code <= 1015 or 3000 <= code <= 4999) and code != 1004
    if not known:
        raise ValueError(f"a close code must be from 1000 to 1015 or 3000 to 4999, not {code!r}")
    if not isinstance(reason, str):
        raise TypeError(f"the reason of a close must be a str, not {type(reason).__name__}")
    reason.encode()


def _octets(message: Any) -> bytes:
    """Return the bytes of an object with a buffer.  Raises TypeError for other objects."""
    try:
        return bytes(memoryview(message))
    except TypeError:
        raise TypeError(f"a message must be str or bytes, not {type(message).__name__}") from None


def _utf8_length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


# RFC 9110 section 15.5.22: a 426 says which protocol it wants.
_UPGRADE = [("Upgrade", "websocket"), ("Connection", "Upgrade")]


def _is_own(origin: str, environ: dict[str, Any]) -> bool:
    """Return whether a page of `origin` is this server's own: of the same scheme, host and port (RFC 6454).

    A page that was loaded by TLS counts as this server's if the server itself has no TLS: then a proxy in front has it.
    """
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme != environ["wsgi.url_scheme"] and parts.scheme != "https":
        return False
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, ":")
    own = environ.get("HTTP_HOST", "").lower().removesuffix(port)
    return bool(own) and origin.lower().removesuffix(port) == f"{parts.scheme}://{own}"


def _check(environ: dict[str, Any], origins: Any) -> None:
    """RFC 6455 section 4.2.1.  Raises HandshakeError."""
    if environ["REQUEST_METHOD"] != "GET" or environ["SERVER_PROTOCOL"] != "HTTP/1.1":
        raise HandshakeError("400 Bad Request", "a WebSocket begins with a GET of HTTP/1.1")
    wanted = ("websocket" in tokens(environ.get("HTTP_UPGRADE", ""))) and (
        "upgrade" in tokens(environ.get("HTTP_CONNECTION", ""))
    )
    if not wanted or "weald.upgrade" not in environ:
        raise HandshakeError("426 Upgrade Required", "this is for WebSockets", _UPGRADE)
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise HandshakeError("426 Upgrade Required", "unknown version", [*_UPGRADE, ("Sec-WebSocket-Version", "13")])
    try:
        key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != 16:
        raise HandshakeError("400 Bad Request", "malformed Sec-WebSocket-Key")
    origin = environ.get("HTTP_ORIGIN")
    if origin is None or origins == "*":
        return
    # Section 10.2: a browser sends our cookies along from any page, and names that page's origin.
    allowed = origin in origins if origins is not None else _is_own(origin, environ)
    if not allowed:
        raise HandshakeError("403 Forbidden", f"not from {origin}")


class Handshake:
    """Handshake(environ, origins): the opening handshake in `environ`, checked and not answered yet.

    `subprotocols` are those that the client offers.  `origins` as for `accept`.  Raises HandshakeError if the request
    is none for a WebSocket, or not allowed.
    """

    def __init__(self, environ: dict[str, Any], origins: Sequence[str] | str | None = None) -> None:
        _check(environ, origins)
        self._environ = environ
        self._connection = WSConnection(ConnectionType.SERVER)
        fields = [
            (key[5:].replace("_", "-").lower().encode(), value.encode("latin-1"))
            for key, value in environ.items()
            if key.startswith("HTTP_SEC_WEBSOCKET_") or key in ("HTTP_HOST", "HTTP_UPGRADE", "HTTP_CONNECTION")
        ]
        try:
            self._connection.initiate_upgrade_connection(fields, environ.get("REQUEST_URI", "/"))
            request: Any = next(self._connection.events())
        except (RemoteProtocolError, ValueError) as error:
            raise HandshakeError("400 Bad Request", str(error)) from None
        self.subprotocols: list[str] = request.subprotocols

    def accept(
        self, subprotocol: str | None, options: Options, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> WebSocket:
        """Answer with `subprotocol` and further fields, and return the connection.

        Raises HandshakeError if this cannot be answered, OSError if the client has left.
        """
        extensions: list[Any] = [_Deflate()] if options.compress else []
        answer = AcceptConnection(subprotocol=subprotocol, extensions=extensions, extra_headers=list(headers))
        try:
            data = self._connection.send(answer)
        except (LocalProtocolError, RemoteProtocolError, ValueError) as error:
            raise HandshakeError("400 Bad Request", str(error)) from None
        websocket: WebSocket
        sock, rest = self._environ["weald.upgrade"](lambda: websocket._go_away())
        compresses = any(extension.enabled() for extension in extensions)
        websocket = WebSocket(sock, self._connection.connection, self._environ, subprotocol, options, compresses)
        send(sock, data, options.write_timeout)
        if rest:
            websocket._take(rest)
        return websocket


def accept(
    environ: dict[str, Any],
    *,
    subprotocols: Sequence[str] = (),
    origins: Sequence[str] | str | None = None,
    options: Options | None = None,
) -> WebSocket:
    """Answer the opening handshake in `environ` and return the connection.

    `subprotocols`: those that this side speaks, best first.  `origins`: the sites whose pages may connect, "*" for
    all; the default is this server's own.  The WSGI application's result is then ignored.
    `options`: the default is the server's setting (`weald serve --limit websocket_…`), else `Options()`.
    Raises HandshakeError if the request is not for a WebSocket, or not allowed.
    """
    handshake = Handshake(environ, origins)
    subprotocol = next((name for name in subprotocols if name in handshake.subprotocols), None)
    return handshake.accept(subprotocol, options or environ.get("weald.websocket_options") or Options())


def application(
    handler: Callable[[WebSocket], Any] | None = None,
    *,
    subprotocols: Sequence[str] = (),
    origins: Sequence[str] | str | None = None,
    options: Options | None = None,
) -> Any:
    """A WSGI application that calls `handler(websocket)` for each connection and closes it afterwards.

    Also a decorator, with or without arguments, which are those of `accept`.
    """
    if handler is None:
        return lambda handler: application(handler, subprotocols=subprotocols, origins=origins, options=options)

    def serve(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        try:
            websocket = accept(environ, subprotocols=subprotocols, origins=origins, options=options)
        except HandshakeError as error:
            start_response(error.status, [("Content-Type", "text/plain"), *error.headers])
            return [str(error).encode()]
        try:
            with websocket:
                handler(websocket)
        except Closed:
            pass  # that a client leaves is no error
        return []

    return serve
