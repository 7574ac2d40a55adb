"""HTTP/2 (RFC 9113) for WSGI: a connection whose requests each run in a greenlet of their own.

Called by: weald.pywsgi, when a client has chosen h2 by ALPN or begins with HTTP/2's preface.  h2 knows the protocol;
this module reads, writes, waits, limits, and lends the server's handler class another way of sending.

Invariants:
- One greenlet reads.  Whoever has made h2 produce bytes flushes them; a lock keeps their order.
- No more than `MAX_STREAMS` applications run for a connection, streams that the client has reset included.
- What costs the client nothing (resets, pings, settings, empty frames) is on a budget; who exceeds it is told to
  calm down (RFC 9113 section 10.5) and disconnected.
- Every wait on the client is bounded by the server's limits.

Long because the budgets and the ways in which a connection ends belong to one state.
"""

import errno
import re
from collections import deque
from select import POLLHUP, POLLIN
from socket import SHUT_WR
from time import time
from typing import Any

from weald._core import Event, Greenlet, Lock, monotonic, spawn
from weald.http.body import InvalidClientInput
from weald.http.disconnected import Disconnected
from weald.http.fields import field_name, field_value
from weald.http.limits import Limits
from weald.http.protocol import CHUNKED, ProtocolError, Request, cgi_name

try:
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.errors import ErrorCodes
    from h2.events import (
        ConnectionTerminated,
        DataReceived,
        PingAckReceived,
        PingReceived,
        PriorityUpdated,
        RemoteSettingsChanged,
        RequestReceived,
        SettingsAcknowledged,
        StreamEnded,
        StreamReset,
        TrailersReceived,
        UnknownFrameReceived,
        WindowUpdated,
    )
    from h2.exceptions import H2Error
    from h2.exceptions import ProtocolError as H2ProtocolError
    from h2.settings import SettingCodes, Settings
    from hpack import Decoder, HPACKError, OversizedHeaderListError
    from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("h2", "hyperframe", "hpack"):
        raise
    raise ModuleNotFoundError("weald's HTTP/2 needs h2: pip install 'weald[http]'", name="h2") from None

__all__ = ["Http2Connection", "handler_class"]

MAX_STREAMS = 100
_WINDOW = 1 << 18  # bytes of a request's body that may wait for the application
_CONTROL_BUDGET = 1000  # frames that cost the client nothing, at once
_CONTROL_RATE = 100  # a second, beyond that
_UNIT = 64  # bytes that bring neither requests nor bodies: so many count for one
_RESET_COST = 3  # a reset counts for so many of them: our work is larger
_LEAVING = b"leaving."  # in the ping that goes with the first GOAWAY
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))

_good_path = re.compile(rb'/[!"$-~]*').fullmatch
_good_authority = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?").fullmatch
_good_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch


class _CompressionError(H2ProtocolError):
    error_code = ErrorCodes.COMPRESSION_ERROR


class _Decoder(Decoder):
    """HPACK's, which tells h2 the error that RFC 9113 section 4.3 asks for."""

    def decode(self, data: Any, raw: bool = False) -> Any:
        try:
            return super().decode(data, raw)
        except OversizedHeaderListError:
            raise  # h2 tells the client to calm down
        except (HPACKError, IndexError, TypeError, UnicodeDecodeError) as error:
            raise _CompressionError(str(error)) from None


class _H2(H2Connection):
    """h2's connection, which otherwise drops all responses under way when the client says that it will leave."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(H2Configuration(client_side=False, header_encoding=None))
        # Settings that are set later count only once the client has acknowledged them.
        self.local_settings = Settings(
            client=False,
            initial_values={
                SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                SettingCodes.MAX_HEADER_LIST_SIZE: limits.head,
            },
        )
        self.decoder = _Decoder()
        self.decoder.max_header_list_size = limits.head
        self.decoder.max_allowed_table_size = self.local_settings.header_table_size

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        """Section 6.8: no stream is begun any more, those that run go on."""
        return [], [ConnectionTerminated()]


class _Stream:
    """A request's body on its way in, and the news of its window and its end.  Stands in for RequestStream."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.pieces: deque[tuple[bytes, int]] = deque()  # with the bytes that count for flow control
        self.trailers: list[tuple[bytes, bytes]] = []
        self.received = 0
        self.ended = False  # has all of it come?
        self.broken: OSError | None = None  # why nothing can be read or sent any more
        self.news = Event()

    @property
    def in_body(self) -> bool:
        return bool(self.pieces) or not self.ended

    pending = 0

    def rest(self, limit: int | None = None) -> bytes:
        return b""


class _StreamDisconnected(Disconnected):
    """The client has left when it has reset the stream, or the connection has ended."""

    __slots__ = ("_stream",)

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    def _state(self) -> int:
        stream = self._stream
        return POLLHUP if stream.broken is not None else POLLIN if stream.news.is_set() else 0

    def _park(self, timeout: float | None) -> None:
        if not self._stream.news.wait(timeout):
            raise TimeoutError


class _Http2Handler:
    """What a WSGIHandler does differently for a stream.  Mixed into the server's handler class."""

    socket: Any
    server: Any

    def __init__(self, connection: "Http2Connection", stream_id: int, request: Request | None, stream: _Stream) -> None:
        super().__init__(connection.sock, connection.address, connection.server)  # type: ignore[call-arg]
        self._connection = connection
        self._stream_id = stream_id
        self._request = request
        self._stream: Any = stream
        self._disconnected = _StreamDisconnected(stream)
        self._linger = False
        self._over = False  # has the stream's end been sent?

    def serve(self: Any) -> None:
        """Run the application for the stream's request."""
        try:
            self.time_start = monotonic()
            self.requestline = self._request.line
            if not self.read_request(self.requestline):
                raise ValueError("a bad request")
            self.environ = self.get_environ()
            self.application = self.server.application
            self.handle_one_response()
        except ValueError as error:
            self._handle_client_error(error)
            self._send_error_response_if_possible(400)
        finally:
            if not self._over:
                self._connection.reset(self._stream_id, ErrorCodes.INTERNAL_ERROR)
            elif self._stream.in_body:
                self._connection.forsake(self._stream_id)
            self.environ = self.wsgi_input = None

    def log_refusal(self: Any, error: ProtocolError) -> None:
        """For a request that was none."""
        self.status = self._handle_client_error(error)[0]
        self.code = int(self.status[:3])
        self.time_start = self.time_finish = time()
        self._finish()

    def _body_piece(self: Any) -> bytes:
        stream, limits = self._stream, self._stream.limits
        while not stream.pieces:
            if stream.broken is not None:
                raise stream.broken
            if stream.ended:
                self.wsgi_input.trailers = stream.trailers
                return b""
            if self._continue:
                self._continue = False
                if not self.headers_sent:
                    self._connection.send_headers(self._stream_id, [(b":status", b"100")], False)
            allowed = limits.body_grace + self._received / limits.body_rate - self._waited
            start = monotonic()
            stream.news.clear()
            if not stream.news.wait(max(min(limits.body_timeout, allowed), 0.001)):
                raise InvalidClientInput(408, "the body comes too slowly")
            self._waited += monotonic() - start
        piece, counted = stream.pieces.popleft()
        self._received += len(piece)
        self._connection.acknowledge(self._stream_id, counted)
        found: bytes = piece or self._body_piece()
        return found

    def _discard_body(self) -> None:
        pass  # `serve` resets the stream

    def finalize_headers(self: Any) -> None:
        super().finalize_headers()  # type: ignore[misc]
        self.response_use_chunked = False

    def _write_with_headers(self: Any, data: bytes) -> None:
        self.finalize_headers()
        self.headers_sent = True
        fields = [(b":status", b"%d" % self.code)]
        fields += [(low, value) for name, value in self.response_headers if (low := name.lower()) not in _HOP_BY_HOP]
        empty = self.command == "HEAD" or self.code in (204, 304) or (self._left == 0 and not self._trailers)
        last = (empty and not data) or self.command == "HEAD"
        self._connection.send_headers(self._stream_id, fields, last, more=bool(data) and not last)
        self._over = last
        self.response_length += sum(len(name) + len(value) for name, value in fields)
        if data:
            self._write(data)

    def _write(self: Any, data: bytes) -> None:
        for part in self._framed(data) if data else ():
            last = self._left == 0 and self._trailers is None
            self._connection.send_data(self._stream_id, self._stream, part, last)
            self._over = last
            self.response_length += len(part)

    def _send_file(self, wrapper: object) -> bool:
        return False

    def process_result(self: Any) -> None:
        super().process_result()  # type: ignore[misc]
        if self._over or (self._left and self.command != "HEAD"):
            return  # what is missing makes `serve` reset the stream
        if self._trailers:
            fields = [(field_name(n)[0].lower(), field_value(n, v)) for n, v in self._trailers]
            self._connection.send_headers(self._stream_id, fields, True)
        else:
            self._connection.send_data(self._stream_id, self._stream, b"", True)
        self._over = True

    def _send(self, data: bytes, flags: int = 0) -> None:
        raise AssertionError("a stream has no socket of its own")

    def _give_away(self, go_away: object = None) -> Any:
        raise AssertionError("HTTP/2 has no upgrade")


def _worth(event: Any) -> float:
    """For how many units of bytes an event is a reason."""
    if isinstance(event, DataReceived):
        return float(event.flow_controlled_length) / _UNIT + 1
    return 1024.0 if isinstance(event, RequestReceived | TrailersReceived) else 0.0


def handler_class(base: type) -> Any:
    """`base`, a WSGIHandler, for streams."""
    return type(f"Http2{base.__name__}", (_Http2Handler, base), {})


class Http2Connection:
    """One connection, from its preface to its end."""

    _idle = True
    _go_away = None

    def __init__(self, server: Any, sock: Any, address: Any) -> None:
        self.server = server
        self.sock = sock
        self.socket: Any = sock  # None once it is over
        self.address = address
        self.limits: Limits = server.limits
        self.streams: dict[int, _Stream] = {}  # those whose application has not ended
        self._handler_class = server._http2_handler_class
        self._h2 = _H2(server.limits)
        self._sending = Lock()
        self._begun: bytes | None = b""  # the preface and the first frame's head, while they are not complete
        self._budget = float(_CONTROL_BUDGET)
        self._owed = 0.0  # for bytes of which nothing has come yet
        self._counted = self._quiet = monotonic()  # `_quiet`: since when no application runs
        self._forgiven = 0  # bytes that may yet come for streams that we have reset
        self._requests = 0
        self._last = 0  # the newest stream that was served
        self._last_call = 0  # how many requests there may be once the client has been told to ask no more
        self._leaving = False  # has the GOAWAY been sent that says which stream was the last?

    def run(self, first: bytes = b"") -> None:
        """Serve until the connection ends; `first` has been read already."""
        try:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(4 * _WINDOW)
            self.flush()
            while self._step(first):
                first = b""
        except (H2Error, OSError, ProtocolError):
            pass
        finally:
            self.socket = None
            gone = ConnectionResetError(errno.ECONNRESET, "the connection has ended")
            for stream in self.streams.values():
                stream.broken = gone
                stream.news.set()
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Send the GOAWAY that says why, and read on, else the client's system may throw it away."""
        try:
            self.flush()
            if self.server.ssl_enabled:
                self.sock._descriptor.timeout = 0.0
                try:
                    self.sock.unwrap()  # sends TLS's own end, without waiting for the client's
                except (OSError, ValueError):
                    pass
            self.sock.shutdown(SHUT_WR)
            end = monotonic() + self.limits.linger_timeout
            while (left := end - monotonic()) > 0:
                self.sock._descriptor.timeout = left
                if not self.sock.recv(65536):
                    break
        except (OSError, ValueError):
            pass

    def _receive(self) -> bytes:
        """What comes next; b"" at the end, or once nothing has been asked for `keep_alive_timeout` seconds."""
        patience = self.limits.keep_alive_timeout
        while True:
            self._idle = not self.streams
            # While applications run, their own waits are bounded.
            left = patience if self.streams else self._quiet + patience - monotonic()
            if left <= 0:
                return b""
            self.sock._descriptor.timeout = left
            try:
                data: bytes = self.sock.recv(65536)
            except TimeoutError:
                continue
            return data

    def _step(self, data: bytes) -> bool:
        """Read and handle what comes next.  False at the end."""
        data = data or self._receive()
        if not data:
            self._leave()
            return False
        if self._begun is not None:
            self._check_preface(data)
        try:
            events = self._h2.receive_data(data)
        except H2ProtocolError:
            return False  # h2 has made the GOAWAY
        # Bytes are charged for until what they bring is complete, and for good if h2 has nothing to say of them.
        forgiven = min(self._forgiven, len(data))
        self._forgiven -= forgiven
        self._owed = max(self._owed + (len(data) - forgiven) / _UNIT - sum(map(_worth, events)), 0.0)
        self._charge(0)
        for event in events:
            self._handle(event)
        if self._last_call:
            if self._requests >= self._last_call:
                self._leave()
        elif self.server._common.draining or self._requests >= self.limits.requests:
            self._announce()
        self.flush()
        return not (self._leaving and not self.streams)

    def _announce(self) -> None:
        """Section 6.8: what the client has sent by the time it hears of our leaving is served, too.

        The answer to the ping tells when it has heard; the greatest of numbers, that streams under way are welcome.
        The ping goes in front, as h2, in a client, takes nothing but streams after a GOAWAY.
        """
        self._last_call = self._requests + MAX_STREAMS
        ping = PingFrame(0, opaque_data=_LEAVING).serialize()
        self.flush(ping + GoAwayFrame(0, last_stream_id=2**31 - 1, error_code=0).serialize())

    def _leave(self) -> None:
        """Tell the client that no further stream will be served."""
        if not self._leaving:
            self._leaving = True
            self.flush(GoAwayFrame(0, last_stream_id=self._last, error_code=0).serialize())

    def _check_preface(self, data: bytes) -> None:
        """Section 3.4: SETTINGS come first, which h2 does not mind.  Raises ProtocolError."""
        self._begun = begun = (self._begun or b"") + data[:64]
        head = begun[len(_PREFACE) : len(_PREFACE) + 5]
        if len(head) == 5:
            self._begun = None
            if head[3] != SettingsFrame.type or head[4] & 1:
                self._h2.close_connection(ErrorCodes.PROTOCOL_ERROR)
                raise ProtocolError(400, "no SETTINGS in front")

    def flush(self, more: bytes = b"") -> None:
        """Send what h2 has produced.  Raises OSError, and ends the connection, if the client does not take it."""
        with self._sending:
            data = self._h2.data_to_send() + more
            if not data:
                return
            self.sock._descriptor.timeout = self.limits.write_timeout
            try:
                self.sock.sendall(data)
            except OSError:
                self.sock.close()
                raise

    # ---------------------------------------------------------------- for streams

    def send_headers(self, stream_id: int, fields: list[tuple[bytes, bytes]], end: bool, more: bool = False) -> None:
        """`more`: what follows will flush them."""
        stream = self.streams.get(stream_id)
        if stream is not None and stream.broken is not None:
            raise stream.broken
        try:
            self._h2.send_headers(stream_id, fields, end_stream=end)
        except (H2Error, KeyError):
            raise ConnectionResetError(errno.ECONNRESET, "the stream has ended") from None
        if not more:
            self.flush()

    def send_data(self, stream_id: int, stream: _Stream, data: bytes, end: bool) -> None:
        """Send `data` as the client's windows allow; TimeoutError if they stay closed."""
        view = memoryview(data)
        while True:
            if stream.broken is not None:
                raise stream.broken
            try:
                room = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
                if len(view) and room <= 0:
                    stream.news.clear()
                    if not stream.news.wait(self.limits.write_timeout):
                        raise TimeoutError("the client's window stays closed")
                    continue
                part, view = view[:room], view[room:]
                self._h2.send_data(stream_id, bytes(part), end_stream=end and not len(view))
            except (H2Error, KeyError):
                raise ConnectionResetError(errno.ECONNRESET, "the stream has ended") from None
            self.flush()
            if not len(view):
                return

    def acknowledge(self, stream_id: int, counted: int) -> None:
        """The application has taken `counted` bytes: the client may send as many more."""
        if not counted or self.socket is None:
            return
        try:
            self._h2.acknowledge_received_data(counted, stream_id)
        except (H2Error, KeyError):
            return
        self.flush()

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream, whose bytes under way to us are nobody's fault."""
        self._reject(stream_id, code)
        try:
            self.flush()
        except OSError:
            pass  # the reader will find out

    def forsake(self, stream_id: int) -> None:
        """Section 8.1: the response is complete, the rest of the request is of no use.

        Some clients take the reset for a failure, and drop a response that they have not read by then.
        """
        Greenlet.spawn_later(self.limits.linger_timeout, self.reset, stream_id, ErrorCodes.NO_ERROR)

    def _reject(self, stream_id: int, code: int) -> None:
        try:
            self._forgiven = min(self._forgiven + self._h2.remote_flow_control_window(stream_id), 16 * _WINDOW)
            self._h2.reset_stream(stream_id, code)
        except (H2Error, KeyError):
            pass  # it has ended already

    # ---------------------------------------------------------------- what comes

    def _handle(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event)
        elif isinstance(event, DataReceived):
            self._take(event)
        elif isinstance(event, StreamEnded | TrailersReceived):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                if isinstance(event, TrailersReceived):
                    stream.trailers = [(name, value) for name, value in event.headers]
                else:
                    stream.ended = True
                stream.news.set()
        elif isinstance(event, StreamReset):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.broken = ConnectionResetError(errno.ECONNRESET, "the client has reset the stream")
                stream.news.set()
            self._charge(_RESET_COST)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            number = event.stream_id if isinstance(event, WindowUpdated) else 0
            for stream in list(self.streams.values()) if not number else [self.streams.get(number)]:
                if stream is not None:
                    stream.news.set()
            self._charge(1 if isinstance(event, RemoteSettingsChanged) else 0.1)
        elif isinstance(event, PingReceived | PriorityUpdated | SettingsAcknowledged | UnknownFrameReceived):
            self._charge(1)
        elif isinstance(event, PingAckReceived):
            if event.ping_data == _LEAVING:
                self._leave()
        elif isinstance(event, ConnectionTerminated):
            self._leaving = True

    def _charge(self, cost: float) -> None:
        """Raises ProtocolError when the client has had us work for nothing too often."""
        now = monotonic()
        earned = (now - self._counted) * _CONTROL_RATE
        self._counted = now
        self._budget = min(self._budget + earned, _CONTROL_BUDGET) - cost
        self._owed = max(self._owed - earned, 0.0)
        if self._budget < self._owed:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=self._last)
            raise ProtocolError(400, "too many frames that mean nothing")

    def _begin(self, event: Any) -> None:
        stream_id = event.stream_id
        if self._leaving or len(self.streams) >= MAX_STREAMS:
            self._reject(stream_id, ErrorCodes.REFUSED_STREAM)
            self._charge(1)
            return
        self._last = max(self._last, stream_id)
        self._requests += 1
        try:
            request = self._request(event)
        except ProtocolError as error:
            try:
                self._h2.send_headers(stream_id, [(b":status", b"%d" % error.status)], end_stream=True)
            except H2Error:
                pass  # the client has reset it already
            if event.stream_ended is None:
                self.forsake(stream_id)
            self._handler_class(self, stream_id, None, _Stream(self.limits)).log_refusal(error)
            self._charge(1)
            return
        stream = _Stream(self.limits)
        stream.ended = event.stream_ended is not None
        self.streams[stream_id] = stream
        spawn(self._serve, stream_id, request, stream)

    def _serve(self, stream_id: int, request: Request, stream: _Stream) -> None:
        """The greenlet of a stream."""
        try:
            if stream.broken is None:  # the client may have changed its mind by now
                self._handler_class(self, stream_id, request, stream).serve()
        finally:
            del self.streams[stream_id]
            counted = sum(count for _, count in stream.pieces)
            stream.pieces.clear()
            if counted and self.socket is not None:
                # What nobody has read still has to be given back to the connection's window.
                self._h2.increment_flow_control_window(counted)
            if not self.streams and self._leaving and self.socket is not None:
                try:
                    self.sock.shutdown(0)  # the reader finds the end
                except OSError:
                    pass
            self._idle = not self.streams
            self._quiet = monotonic()

    def _take(self, event: Any) -> None:
        stream = self.streams.get(event.stream_id)
        counted = event.flow_controlled_length
        if stream is None or stream.broken is not None:
            if counted:
                self._h2.increment_flow_control_window(counted)
            return
        stream.received += len(event.data)
        if stream.received > self.limits.body:
            stream.broken = ConnectionResetError(errno.ECONNRESET, "the body is too long")
            self._reject(event.stream_id, ErrorCodes.CANCEL)
            self._h2.increment_flow_control_window(counted)
        elif not event.data:
            self._charge(1)
            self.acknowledge(event.stream_id, counted)
        else:
            stream.pieces.append((event.data, counted))
        stream.news.set()

    def _request(self, event: Any) -> Request:
        """RFC 9113 section 8.3: the request in a HEADERS frame, which h2 has checked.  Raises ProtocolError."""
        request = Request()
        request.version = "HTTP/2"
        request.special = True
        request.raw = []
        fields: dict[str, str] = {}
        pseudo: dict[bytes, bytes] = {}
        for name, value in event.headers:
            name, value = bytes(name), bytes(value)
            if not _good_value(value):
                raise ProtocolError(400, "control characters in a field")
            if name.startswith(b":"):
                pseudo[name] = value
                continue
            request.raw.append((name, value))
            key = cgi_name(name)
            if key is None:
                continue
            text = value.decode("latin-1")
            if key in fields:
                if key in ("HTTP_HOST", "CONTENT_LENGTH"):
                    raise ProtocolError(400, f"{name.decode()} came twice")
                text = fields[key] + ("; " if key == "HTTP_COOKIE" else ", ") + text
            fields[key] = text
        if len(request.raw) > self.limits.fields:
            raise ProtocolError(431, f"more than {self.limits.fields} fields")
        method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
        if method == b"CONNECT":
            raise ProtocolError(501, "this is no proxy")
        if not re.fullmatch(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", method):
            raise ProtocolError(400, "malformed method")
        if not _good_path(path) and not (path == b"*" and method == b"OPTIONS"):
            raise ProtocolError(400, "malformed path")
        if len(path) > self.limits.request_line:
            raise ProtocolError(414, "the path is too long")
        authority = pseudo.get(b":authority")
        if authority is not None:
            if fields.get("HTTP_HOST", authority.decode("latin-1")) != authority.decode("latin-1"):
                raise ProtocolError(400, "two hosts")
            fields["HTTP_HOST"] = authority.decode("latin-1")
        if not _good_authority(fields.get("HTTP_HOST", "").encode("latin-1")):
            raise ProtocolError(400, "malformed authority")
        request.method, request.target = method.decode(), path.decode()
        request.line = f"{request.method} {request.target} HTTP/2"
        request.fields = fields
        length = fields.get("CONTENT_LENGTH")
        if length is not None and not (length.isascii() and length.isdigit() and len(length) <= 18):
            raise ProtocolError(400, "malformed content-length")
        request.length = int(length) if length is not None else 0 if event.stream_ended is not None else CHUNKED
        if request.length > 0 and event.stream_ended is not None:
            raise ProtocolError(400, "a content-length without a body")
        if request.length > self.limits.body:
            raise ProtocolError(413, "a body that is too long")
        request.expect_continue = fields.get("HTTP_EXPECT", "").lower() == "100-continue" and request.has_body
        return request
