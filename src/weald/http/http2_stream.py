"""A stream of HTTP/2 (RFC 9113): a request on its way in, and its response on its way out.

Called by: http2.py, whose connection makes them and passes their frames on to them.

`Stream` is the channel of the exchange that answers the request; `FrameWriter` writes the connection's frames.

h2 ends the connection for a malformed request, where RFC 9113 section 8.1.1 requires to end the stream only.  So h2
does not see the fields, and http2_head.py checks them.

Invariants:
- Code that makes h2 produce bytes flushes them; a lock keeps their order.
- Every wait for the client has a limit: for the body as in HTTP/1.1, for room in its windows `Limits.write_timeout`.
"""

import errno
from select import POLLHUP, POLLIN
from typing import Any

from weald._core import Event, Greenlet, Lock, monotonic
from weald.http.body import InvalidClientInput
from weald.http.channel import Channel
from weald.http.disconnected import Disconnected
from weald.http.extras import required
from weald.http.fields import field_name, field_value
from weald.http.http2_head import HOP_BY_HOP
from weald.http.limits import Limits
from weald.http.protocol import CHUNKED
from weald.http.state import ServerState
from weald.http.wire import send

with required("HTTP/2", "h2", "hyperframe", "hpack"):
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.errors import ErrorCodes
    from h2.events import ConnectionTerminated, PriorityUpdated, RequestReceived, TrailersReceived
    from h2.exceptions import H2Error
    from h2.exceptions import ProtocolError as H2ProtocolError
    from h2.settings import SettingCodes, Settings
    from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
    from hyperframe.frame import DataFrame, GoAwayFrame, HeadersFrame, PriorityFrame

__all__ = ["FrameWriter", "Stream", "new_h2"]

_LEAST_ROOM = 1024  # bytes of a window; some clients do not send as little as that
_PIECE = 1 << 16  # bytes of a body that are passed on at once; the most a DATA frame has
_TABLE = 4096  # bytes of the encoder's table, at most
# How many windows of data may come for streams that were reset, without counting against the client.
_MAX_FORGIVEN = 16
# How many WINDOW_UPDATE frames a DATA frame may be answered with.  Most clients that answer each send two: for the
# stream and for the connection.
_UPDATES = 4
_MOST_UPDATES = 4096  # that may be outstanding


# -------------------------------------------------------------------- h2


class _CompressionError(H2ProtocolError):
    error_code = ErrorCodes.COMPRESSION_ERROR


class _Decoder(Decoder):
    """HPACK's decoder, which gives h2 no fields, and for errors the one that RFC 9113 section 4.3 asks for.

    `fields` are those of the last block.
    """

    fields: Any = ()

    def decode(self, data: Any, raw: bool = False) -> Any:
        try:
            self.fields = super().decode(data, raw)
            return []
        except OversizedHeaderListError:
            raise  # h2 tells the client to calm down
        except (HPACKError, IndexError, TypeError, UnicodeDecodeError) as error:
            raise _CompressionError(str(error)) from None


class _Encoder(Encoder):
    """HPACK's encoder, whose table has no more than `_TABLE` bytes, whatever the client allows (RFC 7541 section 4.2).

    If the client has set several sizes since the last field block, the block begins with the smallest and the last one.
    """

    @property
    def header_table_size(self) -> int:
        """The table's size in bytes."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        table, size = self.header_table, min(value, _TABLE)
        if size != table.maxsize:  # hpack forgets a change that it has not sent yet if the same size is set again
            table.maxsize = size
            self.table_size_changes = [min(self.table_size_changes, default=size), size]


class _Settings(Settings):
    """Settings without a limit of streams: h2 would end the connection; http2.py refuses the stream (section 5.1.2)."""

    max_concurrent_streams = 1 << 31


class _H2(H2Connection):
    """h2's connection, changed where it ends the connection or drops responses without need."""

    decoder: _Decoder
    most_streams = 100
    late = 0  # bytes of data that have come for streams that were reset

    def _receive_priority_frame(self, frame: PriorityFrame | HeadersFrame) -> tuple[list[Any], list[Any]]:
        """Report the frame, and do nothing else: RFC 9113 section 5.3.2 deprecates priorities."""
        event = PriorityUpdated()
        event.stream_id = frame.stream_id
        return [], [event]

    def _handle_data_on_closed_stream(self, events: list[Any], exc: Any, frame: DataFrame) -> Any:
        self.late += frame.flow_controlled_length
        return super()._handle_data_on_closed_stream(events, exc, frame)

    def _receive_headers_frame(self, frame: HeadersFrame) -> tuple[list[Any], list[Any]]:
        """The event's `headers` are not checked yet; None: one stream too many, or fields in the middle of a body."""
        frame.flags.discard("PRIORITY")  # section 5.3.2: that means nothing any more
        unending = frame.stream_id in self.streams and "END_STREAM" not in frame.flags
        if unending:
            frame.flags.add("END_STREAM")
        frames, events = super()._receive_headers_frame(frame)
        for event in events:
            if isinstance(event, RequestReceived | TrailersReceived):
                # Counted here, where the frames behind this one have not been looked at.
                crowded = isinstance(event, RequestReceived) and self.open_inbound_streams > self.most_streams
                setattr(event, "headers", None if unending or crowded else self.decoder.fields)  # noqa: B010
        return frames, events

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Any], list[Any]]:
        """Begin no more streams; those that run go on (section 6.8)."""
        return [], [ConnectionTerminated()]


def new_h2(limits: Limits) -> "_H2":
    """Return the protocol's state for a connection."""
    config = H2Configuration(
        client_side=False, header_encoding=None, validate_inbound_headers=False, normalize_inbound_headers=False
    )
    made = _H2(config)
    made.most_streams = limits.http2_streams
    # Settings that are changed later would count only once the client has acknowledged them.
    made.local_settings = _Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: limits.http2_streams,
            SettingCodes.INITIAL_WINDOW_SIZE: limits.http2_window,
            SettingCodes.MAX_HEADER_LIST_SIZE: limits.head,
        },
    )
    made.encoder = _Encoder()
    made.decoder = _Decoder()
    made.decoder.max_header_list_size = limits.head
    made.decoder.max_allowed_table_size = made.local_settings.header_table_size
    return made


class FrameWriter:
    """FrameWriter(h2, sock, limits): writes the frames of one connection.

    `forgiven` counts bytes that may still come for streams that were reset, through no fault of the client's.
    `updates` counts WINDOW_UPDATE frames that the client may send because it has been sent data.
    """

    def __init__(self, h2: H2Connection, sock: Any, limits: Limits) -> None:
        self.limits = limits
        self.sock = sock
        self.closed = False  # has the connection ended?
        self.forgiven = 0
        self.updates = 0
        self._h2 = h2
        self._sending = Lock()
        self._failed = False  # has sending failed?

    def flush(self, more: bytes = b"") -> None:
        """Send what h2 has produced, and `more`.

        Raises OSError, and closes the connection, if the client does not take it in time.
        """
        with self._sending:
            if self._failed:
                raise ConnectionResetError(errno.ECONNRESET, "the connection has ended")
            data = self._h2.data_to_send() + more
            if not data:
                return
            try:
                send(self.sock, data, self.limits.write_timeout)
            except OSError:
                self._failed = True
                self.sock.close()
                raise

    def send_headers(self, stream_id: int, fields: list[tuple[bytes, bytes]], end: bool) -> None:
        """Make a HEADERS frame of `fields`; `end`: it is the stream's last.  The caller must `flush` it.

        Raises ConnectionResetError if the stream has ended.
        """
        try:
            self._h2.send_headers(stream_id, fields, end_stream=end)
        except (H2Error, KeyError):
            raise ConnectionResetError(errno.ECONNRESET, "the stream has ended") from None

    def room(self, stream_id: int) -> int:
        """Return how many bytes of data the stream may send now.  Raises ConnectionResetError if it has ended."""
        try:
            window: int = self._h2.local_flow_control_window(stream_id)
            # Larger frames, which a client may allow, would hold up those of other streams.
            return min(window, self._h2.max_outbound_frame_size, _PIECE)
        except (H2Error, KeyError):
            raise ConnectionResetError(errno.ECONNRESET, "the stream has ended") from None

    def send_data(self, stream_id: int, data: bytes, end: bool) -> None:
        """Send `data`, for which there is room, in a DATA frame; `end`: it is the stream's last.

        Raises ConnectionResetError if the stream has ended.
        """
        try:
            self._h2.send_data(stream_id, data, end_stream=end)
        except (H2Error, KeyError):
            raise ConnectionResetError(errno.ECONNRESET, "the stream has ended") from None
        if data:
            self.updates = min(self.updates + _UPDATES, _MOST_UPDATES)
        self.flush()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Tell the client that the application has taken `size` bytes of the stream: it may send as many more."""
        if not size or self.closed:
            return
        try:
            self._h2.acknowledge_received_data(size, stream_id)
        except (H2Error, KeyError):
            return
        self.flush()

    def give_back(self, size: int) -> None:
        """Give `size` bytes that are not read back to the connection's window.  The caller must `flush` that."""
        if size and not self.closed:
            self._h2.increment_flow_control_window(size)

    def has_no_room(self) -> bool:
        """Return whether unread bodies fill the connection's window, so that the client may send no more of any."""
        window: int = self._h2.inbound_flow_control_window
        return window < _LEAST_ROOM

    def reject(self, stream_id: int, code: int) -> None:
        """Make a RST_STREAM frame with the error `code`.  The caller must `flush` it."""
        try:
            most = _MAX_FORGIVEN * self.limits.http2_window
            self.forgiven = min(self.forgiven + self._h2.remote_flow_control_window(stream_id), most)
            self._h2.reset_stream(stream_id, code)
        except (H2Error, KeyError):
            pass  # it has ended already

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream with the error `code`."""
        self.reject(stream_id, code)
        try:
            self.flush()
        except OSError:
            pass  # the next read raises

    def end_request(self, stream_id: int) -> None:
        """Tell the client that the response is complete and the rest of its request is of no use (section 8.1).

        The reset is sent some seconds later: some clients take it for a failure, and drop a response that is not read.
        """
        Greenlet.spawn_later(self.limits.linger_timeout, self.reset, stream_id, ErrorCodes.NO_ERROR)


# -------------------------------------------------------------------- a stream


class _StreamDisconnected(Disconnected):
    """Is set when the client has reset the stream, or the connection has ended."""

    __slots__ = ("_stream",)

    def __init__(self, stream: "Stream") -> None:
        self._stream = stream

    def _state(self) -> int:
        stream = self._stream
        return POLLHUP if stream.lost is not None else POLLIN if stream.news.is_set() else 0

    def _park(self, timeout: float | None) -> None:
        if not self._stream.news.wait(timeout):
            raise TimeoutError


class Stream(Channel):
    """Stream(stream_id, writer, state): the channel of one request.

    The connection adds to `body` and `counted`, and sets `news` whenever a piece, room in a window, or the end has
    come.
    """

    def __init__(self, stream_id: int, writer: FrameWriter, state: ServerState) -> None:
        super().__init__(state)
        self.socket = writer.sock
        self.framed = True
        self.news = Event()
        self.body = bytearray()  # the part of the request's body that has come and is not read yet
        self.counted = 0  # bytes of flow control that `body` used, with the padding of its frames
        self.trailers: list[tuple[bytes, bytes]] = []
        self.length = CHUNKED  # bytes of body that the head promises, or CHUNKED
        self.received = 0  # bytes
        self.ended = False  # has all of the request come?
        self.lost: OSError | None = None  # why nothing can be read or sent any more
        self.finished = False  # has the end of the response been sent?
        self.handler: Any = None  # the handler that serves it
        self._id = stream_id
        self._writer = writer

    def fail(self, text: str) -> None:
        """Let reading and sending raise from now on; `text` gives the reason."""
        self.lost = ConnectionResetError(errno.ECONNRESET, text)
        self.news.set()

    def end_is_right(self, ended: bool) -> bool:
        """Return whether the body's length so far, or with `ended` altogether, is what the head has promised."""
        return self.length == CHUNKED or (self.received == self.length if ended else self.received <= self.length)

    def close(self) -> None:
        """Called when the exchange has ended: end the stream, with an error if its response is not complete."""
        if not self.finished:
            self._writer.reset(self._id, ErrorCodes.INTERNAL_ERROR)
        elif self.body or not self.ended:
            self._writer.end_request(self._id)
        if self.lost is None:
            self.fail("the request has ended")  # a reader may still wait for its body

    def _wait(self, timeout: float) -> bool:
        """Park until `news` is set.  Return False after `timeout` seconds."""
        self.news.clear()
        return self.news.wait(timeout)

    def watch_client(self) -> Disconnected:
        """Return the `Disconnected` that tells whether the client has reset the stream."""
        return _StreamDisconnected(self)

    # ---------------------------------------------------------------- the request's body

    def read_body(self, invite: bool, size: int) -> bytes:
        """`Channel.read_body`, from the DATA frames of the stream."""
        while True:
            while not self.body:
                if self.lost is not None:
                    raise self.lost
                if self.ended:
                    return b""
                if self.awaits_continue:
                    self.awaits_continue = False
                    if invite:
                        self._writer.send_headers(self._id, [(b":status", b"100")], False)
                        self._writer.flush()
                start, hindered = monotonic(), self._writer.has_no_room()
                came = self._wait(self.body_patience())
                if hindered or self._writer.has_no_room():
                    continue  # the time counts for those that do not read, not for the client
                if not came:
                    raise InvalidClientInput(408, "the body comes too slowly")
                self.body_came(0, monotonic() - start)
            piece = bytes(self.body[:_PIECE])
            del self.body[:_PIECE]
            counted = len(piece) if self.body else self.counted
            self.counted -= counted
            self.body_came(len(piece), 0.0)
            self._writer.acknowledge(self._id, counted)
            return piece

    def body_is_over(self) -> bool:
        """`Channel.body_is_over`."""
        return self.ended and not self.body

    def request_trailers(self) -> list[tuple[bytes, bytes]]:
        """`Channel.request_trailers`."""
        return self.trailers

    # ---------------------------------------------------------------- the response

    def _check_sending(self) -> None:
        """Raise, and note that nothing can be sent, if the client has left."""
        if self.lost is not None:
            self.broken = self.lost
            raise self.lost

    def _send_fields(self, fields: list[tuple[bytes, bytes]], end: bool) -> None:
        self._check_sending()
        self._writer.send_headers(self._id, fields, end)

    def send_interim(self, status: bytes, code: int, fields: list[tuple[bytes, bytes]]) -> None:
        """`Channel.send_interim`, in a HEADERS frame."""
        self._send_fields([(b":status", b"%d" % code), *((name.lower(), value) for name, value in fields)], False)
        self._writer.flush()

    def send_head(
        self, status: bytes, code: int, fields: list[tuple[bytes, bytes]], data: bytes, chunked: bool, last: bool
    ) -> None:
        """`Channel.send_head`, in a HEADERS frame."""
        sent = [(b":status", b"%d" % code)]
        sent += [(low, value) for name, value in fields if (low := name.lower()) not in HOP_BY_HOP]
        end = last and not data
        self._send_fields(sent, end)
        self.finished = end
        self.sent += sum(len(name) + len(value) for name, value in sent)
        if data:
            self.send_data(data, chunked, last)
        else:
            self._writer.flush()

    def send_data(self, data: bytes, chunked: bool, last: bool) -> None:
        """`Channel.send_data`, in DATA frames, as the client's windows open."""
        view = memoryview(data)
        while True:
            self._check_sending()
            room = self._writer.room(self._id)
            if len(view) and room <= 0:
                if not self._wait(self._writer.limits.write_timeout):
                    raise TimeoutError("the client's window stays closed")
                continue
            part, view = view[:room], view[room:]
            self._writer.send_data(self._id, bytes(part), last and not len(view))
            self.sent += len(part)
            if not len(view):
                break
        self.finished = last

    def send_end(self, trailers: list[tuple[str, str]] | None, chunked: bool) -> None:
        """`Channel.send_end`."""
        if self.finished:
            return
        if trailers:
            self._send_fields([(field_name(n)[0].lower(), field_value(n, v)) for n, v in trailers], True)
            self._writer.flush()
            self.finished = True
        else:
            self.send_data(b"", chunked, True)
