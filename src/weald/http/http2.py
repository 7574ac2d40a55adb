"""HTTP/2 (RFC 9113): a connection, whose requests each run in a greenlet of their own.

Called by: server.py, when a client has chosen h2 by ALPN or begins with HTTP/2's preface.

h2 implements the protocol.  This module reads, passes data on to the streams (http2_stream.py), and limits the cost of
a client.  The server's handler serves a stream as it serves a request of HTTP/1.1.  A malformed request ends
only its own stream (RFC 9113 section 8.1.1): behind a proxy, the other streams belong to other clients.

Invariants:
- One greenlet reads.
- No more than `limits.http2_streams` applications run for a connection, those of streams that the client has reset
  included.
- Frames that cost the client nothing (resets, pings, settings, empty frames) have a budget.  A client that exceeds it
  is sent ENHANCE_YOUR_CALM (RFC 9113 section 10.5) and disconnected.  A client that reads a response tells so by frames
  that open its windows: they are free, in proportion to the data it was sent.
- Every wait for the client has a limit.
"""

from typing import Any

from weald._core import monotonic, spawn
from weald.http.extras import required
from weald.http.http2_head import request_of, trailers_of
from weald.http.http2_stream import FrameWriter, Stream, new_h2
from weald.http.limits import Limits
from weald.http.protocol import ProtocolError, Request
from weald.http.steps import log_refused_stream, serve_stream
from weald.http.wire import end_connection, receive

with required("HTTP/2", "h2", "hyperframe", "hpack"):
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
    from hyperframe.frame import GoAwayFrame, PingFrame, SettingsFrame

__all__ = ["Http2Connection"]

_UPDATE = 13  # bytes of a WINDOW_UPDATE frame
_UNIT = 64  # bytes that bring neither requests nor bodies: so many count as one such frame
_RESET_COST = 3  # a reset counts as so many frames: it costs the server more work than others
_LEAVING = b"leaving."  # in the ping that goes with the first GOAWAY
_ENDED = b"answered"  # in the ping that answers the end of a request that was refused meanwhile
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_STREAM_ID = 2**31 - 1


def _worth(event: Any) -> float:
    """Return how many units of bytes, of `_UNIT` each, `event` is a good reason for."""
    if isinstance(event, DataReceived):
        return float(event.flow_controlled_length) / _UNIT + 1
    return 1024.0 if isinstance(event, RequestReceived | TrailersReceived) else 0.0


class Http2Connection:
    """Http2Connection(server, sock, address): one connection of a WSGIServer, from its preface to its end.

    `streams` are those whose application has not ended, by their numbers.
    """

    go_away = None

    def __init__(self, server: Any, sock: Any, address: Any) -> None:
        self.server = server
        self.socket: Any = sock  # None once the connection has ended
        self.address = address
        self.limits: Limits = server.limits
        self.streams: dict[int, Stream] = {}
        self._sock = sock
        self._h2 = new_h2(server.limits)
        self._writer = FrameWriter(self._h2, sock, server.limits)
        self._begun: bytes | None = b""  # the preface and the first frame's head, while they are not complete
        self._budget = float(server.limits.http2_control)
        self._earned = 0  # WINDOW_UPDATE frames that are not handled yet, for which the client has got data
        self._owed = 0.0  # units of bytes for which no event has been reported yet
        self._counted = self._quiet = monotonic()  # `_quiet`: since when no application runs
        self._requests = 0
        self._last = 0  # the newest stream that was served
        self._last_call = 0  # after the first GOAWAY: how many requests are still served altogether; 0: not sent yet
        self._leaving = False  # whether the GOAWAY has been sent that names the last stream

    def run(self, first: bytes = b"") -> None:
        """Serve until the connection ends; `first` has been read from it already."""
        try:
            self._h2.initiate_connection()
            self._h2.increment_flow_control_window(4 * self.limits.http2_window)
            self._writer.flush()
            while self._step(first):
                first = b""
        except (H2Error, OSError, ProtocolError):
            pass
        finally:
            self.socket = None
            self._writer.closed = True
            for stream in self.streams.values():
                stream.fail("the connection has ended")
            try:
                self._writer.flush()  # the GOAWAY that gives the reason
                end_connection(self._sock, self.server.ssl_enabled, self.limits.linger_timeout)
            except (OSError, ValueError):
                pass

    @property
    def idle(self) -> bool:
        """Whether no application is at work."""
        return not self.streams

    def _receive(self) -> bytes:
        """Return the next bytes; b"" at the end, or if there was no request for `keep_alive_timeout` seconds."""
        patience = self.limits.keep_alive_timeout
        while True:
            # While applications run, their own waits are limited.
            left = patience if self.streams else self._quiet + patience - monotonic()
            if left <= 0:
                return b""
            try:
                return receive(self._sock, left)
            except TimeoutError:
                continue

    def _step(self, data: bytes) -> bool:
        """Handle `data`, or if that is empty the next bytes.  Return False at the end."""
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
        # Bytes count until h2 reports an event for them; those for which it reports none count for ever.
        forgiven = min(self._writer.forgiven, self._h2.late)
        self._h2.late = 0
        self._writer.forgiven -= forgiven
        self._earned = min(sum(isinstance(event, WindowUpdated) for event in events), self._writer.updates)
        self._writer.updates -= self._earned
        worth = sum(map(_worth, events)) + self._earned * _UPDATE / _UNIT
        self._owed = max(self._owed + (len(data) - forgiven) / _UNIT - worth, 0.0)
        self._charge(0)
        for event in events:
            self._handle(event)
        if self._last_call:
            if self._requests >= self._last_call:
                self._leave()
        elif self.server.http_state.draining or self._requests >= self.limits.requests:
            self._announce()
        self._writer.flush()
        return not (self._leaving and not self.streams)

    # ---------------------------------------------------------------- beginning and leaving

    def _check_preface(self, data: bytes) -> None:
        """Section 3.4: SETTINGS come first, which h2 does not check.  Raises ProtocolError."""
        self._begun = begun = (self._begun or b"") + data[:64]
        head = begun[len(_PREFACE) : len(_PREFACE) + 5]
        if len(head) == 5:
            self._begun = None
            if head[3] != SettingsFrame.type or head[4] & 1:
                self._h2.close_connection(ErrorCodes.PROTOCOL_ERROR)
                raise ProtocolError(400, "no SETTINGS in front")

    def _announce(self) -> None:
        """Tell the client to begin no further stream.  Those that it begins before it has read that are served.

        That is the graceful end of section 6.8.  First a GOAWAY with the largest possible stream number, which refuses
        none, and a ping.  The answer to the ping shows that the client has read both, and `_leave` sends the second
        GOAWAY.  The ping goes first, because h2, in a client, accepts only streams after a GOAWAY.
        """
        self._last_call = self._requests + self.limits.http2_streams
        ping = PingFrame(0, opaque_data=_LEAVING).serialize()
        self._writer.flush(ping + GoAwayFrame(0, last_stream_id=_LARGEST_STREAM_ID, error_code=0).serialize())

    def _leave(self) -> None:
        """Tell the client which stream was the last that is served."""
        if not self._leaving:
            self._leaving = True
            self._writer.flush(GoAwayFrame(0, last_stream_id=self._last, error_code=0).serialize())

    # ---------------------------------------------------------------- what comes

    def _handle(self, event: Any) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event)
        elif isinstance(event, DataReceived):
            self._take(event)
        elif isinstance(event, StreamEnded):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.ended = True
                stream.news.set()
        elif isinstance(event, TrailersReceived):
            self._end_with(event)
        elif isinstance(event, StreamReset):
            stream = self.streams.get(event.stream_id)
            if stream is not None:
                stream.fail("the client has reset the stream")
            self._charge(_RESET_COST)
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            number = event.stream_id if isinstance(event, WindowUpdated) else 0
            for stream in list(self.streams.values()) if not number else [self.streams.get(number)]:
                if stream is not None:
                    stream.news.set()
            if isinstance(event, WindowUpdated) and self._earned:
                self._earned -= 1
            else:
                self._charge(1 if isinstance(event, RemoteSettingsChanged) else 0.1)
        elif isinstance(event, PingReceived | PriorityUpdated | SettingsAcknowledged | UnknownFrameReceived):
            self._charge(1)
        elif isinstance(event, PingAckReceived):
            if event.ping_data == _LEAVING:
                self._leave()
        elif isinstance(event, ConnectionTerminated):
            self._leaving = True

    def _charge(self, cost: float) -> None:
        """Charge the client for `cost` frames.  Raises ProtocolError if its budget is exceeded."""
        now = monotonic()
        earned = (now - self._counted) * self.limits.http2_control_rate
        self._counted = now
        self._budget = min(self._budget + earned, self.limits.http2_control) - cost
        self._owed = max(self._owed - earned, 0.0)
        if self._budget < self._owed:
            self._h2.close_connection(ErrorCodes.ENHANCE_YOUR_CALM, last_stream_id=self._last)
            raise ProtocolError(400, "too many frames that bring nothing")

    def _begin(self, event: RequestReceived) -> None:
        """A request has come: serve it, in a greenlet of its own."""
        stream_id = event.stream_id
        if self._leaving or event.headers is None or len(self.streams) >= self.limits.http2_streams:
            self._writer.reject(stream_id, ErrorCodes.REFUSED_STREAM)
            self._charge(1)
            return
        self._last = max(self._last, stream_id)
        self._requests += 1
        stream = Stream(stream_id, self._writer, self.server.http_state)
        try:
            request = request_of(self.server.http_state.parser, event.headers, event.stream_ended is not None)
        except ProtocolError as error:
            try:
                self._h2.send_headers(stream_id, [(b":status", b"%d" % error.status)], end_stream=True)
            except H2Error:
                pass  # the client has reset it already
            if event.stream_ended is None:
                self._writer.end_request(stream_id)
            log_refused_stream(self._handler(), stream, error)
            self._charge(1)
            return
        stream.ended = event.stream_ended is not None
        stream.length = request.length
        self.streams[stream_id] = stream
        spawn(self._serve, stream_id, request, stream)

    def _handler(self) -> Any:
        return self.server.handler_class(self._sock, self.address, self.server)

    def _serve(self, stream_id: int, request: Request, stream: Stream) -> None:
        """The greenlet of a stream."""
        try:
            if stream.lost is None:  # the client may have reset it meanwhile
                try:
                    stream.handler = self._handler()
                    serve_stream(stream.handler, stream, request)
                finally:
                    stream.close()
        finally:
            del self.streams[stream_id]
            self._quiet = monotonic()
            # Unread bytes are given back to the connection's window.
            self._writer.give_back(stream.counted)
            stream.counted = 0
            stream.body.clear()
            try:
                self._writer.flush()
            except OSError:
                pass  # the next read raises
            if not self.streams and self._leaving and self.socket is not None:
                try:
                    self._sock.shutdown(0)  # the greenlet that reads finds the end
                except OSError:
                    pass

    def _take(self, event: DataReceived) -> None:
        """A piece of a request's body has come."""
        stream = self.streams.get(event.stream_id)
        counted = event.flow_controlled_length
        if stream is None or stream.lost is not None:
            self._writer.give_back(counted)
            if event.stream_ended is not None:
                # curl 7.88 has read the answer to what it now ends, and yet waits for any further frame.
                self._h2.ping(_ENDED)
            return
        stream.received += len(event.data)
        if stream.received > self.limits.body:
            self._give_up(event.stream_id, stream, ProtocolError(413, "the body is too long"))
            self._writer.give_back(counted)
        elif not stream.end_is_right(event.stream_ended is not None):
            self._give_up(event.stream_id, stream, ProtocolError(400, "the body is not as long as content-length says"))
            self._writer.give_back(counted)
        elif not event.data:
            self._charge(1)
            self._writer.acknowledge(event.stream_id, counted)
        else:
            stream.body += event.data
            stream.counted += counted
        stream.news.set()

    def _end_with(self, event: TrailersReceived) -> None:
        """A request's trailers have come."""
        stream = self.streams.get(event.stream_id)
        if stream is None or stream.lost is not None:
            return
        try:
            stream.trailers = trailers_of(event.headers, self.limits)
            if not stream.end_is_right(True):
                raise ProtocolError(400, "the body is shorter than content-length says")
        except ProtocolError as error:
            self._give_up(event.stream_id, stream, error)
        stream.news.set()

    def _give_up(self, stream_id: int, stream: Stream, error: ProtocolError) -> None:
        """The request of `stream` turns out to be malformed, or too large."""
        stream.fail(str(error))
        self._writer.reject(stream_id, ErrorCodes.PROTOCOL_ERROR if error.status == 400 else ErrorCodes.CANCEL)
