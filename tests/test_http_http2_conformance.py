"""HTTP/2 frame by frame: the rules of RFC 9113 and RFC 7541, in the order of their sections.

The client here has no states: it sends any frame, valid or not.  RFC 9113 section 5.4.2 allows a server to answer a
stream error with a connection error, so both pass where a stream error is expected.  Not so for a malformed message
(section 8.1.1): behind a proxy the other streams belong to other clients.
"""

from contextlib import closing, contextmanager

import pytest
from h2.errors import ErrorCodes
from helpers import PATIENCE
from hpack import Decoder, Encoder
from test_pywsgi import connect, serving

from weald.asgi import ASGIServer
from weald.event import Event

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS, PADDED, WITH_PRIORITY = 4, 8, 32
ENDS = END_STREAM | END_HEADERS

Fields = list[tuple[str, str]]
GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
POST = [(":method", "POST"), *GET[1:]]
WAIT = [GET[0], (":path", "/wait"), *GET[2:]]


def frame(kind, flags=0, stream=0, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def block(fields):
    """Encode as HPACK, without the dynamic table."""
    encoded = Encoder().encode([(name, value, True) for name, value in fields])
    return encoded


def u32(number):
    return number.to_bytes(4, "big")


def request(stream=1, fields=GET, flags=ENDS):
    return frame(HEADERS, flags, stream, block(fields))


def setting(number, value):
    return frame(SETTINGS, payload=number.to_bytes(2, "big") + u32(value))


def window(increment, stream=0):
    return frame(WINDOW_UPDATE, 0, stream, u32(increment))


class Client:
    """Sends bytes, and keeps the frames that it receives."""

    def __init__(self, sock):
        self.sock = sock
        self.file = sock.makefile("rb")
        self.go_on = bool  # lets the request at "/wait" go on
        self.server = None
        self.decoder = Decoder()
        self.frames = []  # kind, flags, stream, payload
        self.statuses = {}
        self.bodies = {}
        self.ended = set()
        self.resets = {}
        self.goaway = None
        self.pongs = []
        self.acknowledged = 0  # SETTINGS of this client
        self.closed = False

    def send(self, data):
        try:
            self.sock.sendall(data)
        except OSError:
            pass  # what was answered tells

    def step(self):
        """Take one frame."""
        try:
            head = self.file.read(9)
            payload = self.file.read(int.from_bytes(head[:3], "big"))
        except ConnectionResetError:
            head = b""
        if len(head) < 9:
            self.closed = True
            return
        kind, flags, stream = head[3], head[4], int.from_bytes(head[5:], "big")
        self.frames.append((kind, flags, stream, payload))
        if kind == HEADERS:
            assert flags & END_HEADERS
            fields = dict(self.decoder.decode(payload))
            if ":status" in fields:
                self.statuses[stream] = int(fields[":status"])
        elif kind == DATA:
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
        elif kind == RST_STREAM:
            self.resets[stream] = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.goaway = int.from_bytes(payload[4:8], "big")
        elif kind == PING and flags & ACK:
            self.pongs.append(payload)
        elif kind == SETTINGS and flags & ACK:
            self.acknowledged += 1
        elif kind == SETTINGS:
            self.send(frame(SETTINGS, ACK))
        if kind in (HEADERS, DATA) and flags & END_STREAM:
            self.ended.add(stream)

    def until(self, done):
        """Take frames until `done()`, which must come before the connection's end."""
        while not done():
            assert not self.closed, f"the server has closed the connection; it sent {self.frames}"
            self.step()

    def until_closed(self):
        while not self.closed:
            self.step()

    def ping(self):
        """Return when the server has handled everything that was sent before."""
        before = len(self.pongs)
        self.send(frame(PING, payload=b"in order"))
        self.until(lambda: len(self.pongs) > before)


@contextmanager
def talking(preface=PREFACE + frame(SETTINGS), interface="wsgi"):  # noqa: B008
    """A client, and the paths of the requests that got to the application and whose bodies were complete."""
    go_on = Event()
    served = []

    def answer(path, body):
        served.append(path)
        return b"x" * 100 if path == "/long" else b"%d" % len(body)

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/wait":
            assert go_on.wait(PATIENCE)
        data = answer(path, environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [data]

    async def asgi_app(scope, receive, send):
        if scope["path"] == "/wait":
            assert go_on.wait(PATIENCE)
        body = b""
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            body += event["body"]
            if not event["more_body"]:
                break
        data = answer(scope["path"], body)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": data})

    options = {"server_class": ASGIServer, "lifespan": "off"} if interface == "asgi" else {}
    served_app = asgi_app if interface == "asgi" else app
    with serving(served_app, http2=True, **options) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.go_on = go_on.set
        client.server = server
        client.send(preface)
        try:
            yield client, served
        finally:
            go_on.set()
            client.file.close()


INTERFACES = pytest.mark.parametrize("interface", ["wsgi", "asgi"])


def codes(*names):
    return {ErrorCodes[name].value for name in names}


# ---------------------------------------------------------------- what is an error of the connection

BROKEN = [
    # RFC 9113 section 4.1 and 4.2: frames
    ("4.2 SETTINGS over the frame size", "FRAME_SIZE_ERROR", frame(SETTINGS, payload=bytes(6 * 3000))),
    ("4.2 HEADERS over the frame size", "FRAME_SIZE_ERROR", frame(HEADERS, ENDS, 1, bytes(16385))),
    # 4.3: field blocks
    ("4.3 a block that is no HPACK", "COMPRESSION_ERROR", frame(HEADERS, ENDS, 1, b"\xff\xff\xff\xff\xff\xff")),
    (
        "4.3 PRIORITY within a block",
        "PROTOCOL_ERROR",
        request(flags=END_STREAM) + frame(PRIORITY, 0, 1, b"\0\0\0\0\0"),
    ),
    ("4.3 HEADERS of another stream within a block", "PROTOCOL_ERROR", request(flags=END_STREAM) + request(3)),
    # 5.1: states
    ("5.1 DATA on an idle stream", "PROTOCOL_ERROR", frame(DATA, END_STREAM, 1, b"x")),
    ("5.1 RST_STREAM on an idle stream", "PROTOCOL_ERROR", frame(RST_STREAM, 0, 1, u32(8))),
    ("5.1 WINDOW_UPDATE on an idle stream", "PROTOCOL_ERROR", window(1, 1)),
    ("5.1 CONTINUATION on an idle stream", "PROTOCOL_ERROR", frame(CONTINUATION, END_HEADERS, 1, block(GET))),
    ("5.1.1 a stream with an even number", "PROTOCOL_ERROR", request(2)),
    ("5.1.1 a stream with a smaller number", "PROTOCOL_ERROR STREAM_CLOSED", request(5, WAIT) + request(3)),
    ("5.5 an unknown frame within a block", "PROTOCOL_ERROR", request(flags=END_STREAM) + frame(22, 0, 0, b"x")),
    # 6.1: DATA
    ("6.1 DATA on stream 0", "PROTOCOL_ERROR", frame(DATA, 0, 0, b"x")),
    (
        "6.1 DATA with more padding than there is",
        "PROTOCOL_ERROR",
        request(1, POST, END_HEADERS) + frame(DATA, PADDED | END_STREAM, 1, b"\x05hi"),
    ),
    # 6.2: HEADERS
    ("6.2 HEADERS on stream 0", "PROTOCOL_ERROR", request(0)),
    (
        "6.2 HEADERS with more padding than there is",
        "PROTOCOL_ERROR",
        frame(HEADERS, ENDS | PADDED, 1, bytes([len(block(GET)) + 1]) + block(GET)),
    ),
    ("6.2 HEADERS without room for its priority", "PROTOCOL_ERROR FRAME_SIZE_ERROR", frame(HEADERS, ENDS | 32, 1, b"")),
    # 6.3: PRIORITY
    ("6.3 PRIORITY on stream 0", "PROTOCOL_ERROR", frame(PRIORITY, 0, 0, bytes(5))),
    # 6.4: RST_STREAM
    ("6.4 RST_STREAM on stream 0", "PROTOCOL_ERROR", frame(RST_STREAM, 0, 0, u32(8))),
    ("6.4 RST_STREAM of 3 bytes", "FRAME_SIZE_ERROR", request(1, WAIT) + frame(RST_STREAM, 0, 1, bytes(3))),
    # 6.5: SETTINGS
    # hyperframe does not distinguish this from other malformed settings.
    ("6.5 SETTINGS acknowledged with a payload", "FRAME_SIZE_ERROR PROTOCOL_ERROR", frame(SETTINGS, ACK, 0, bytes(6))),
    ("6.5 SETTINGS on a stream", "PROTOCOL_ERROR", frame(SETTINGS, 0, 1, bytes(6))),
    ("6.5 SETTINGS of 3 bytes", "FRAME_SIZE_ERROR", frame(SETTINGS, payload=bytes(3))),
    ("6.5.2 ENABLE_PUSH of 2", "PROTOCOL_ERROR", setting(2, 2)),
    ("6.5.2 INITIAL_WINDOW_SIZE of 2**31", "FLOW_CONTROL_ERROR", setting(4, 1 << 31)),
    ("6.5.2 MAX_FRAME_SIZE of 16383", "PROTOCOL_ERROR", setting(5, 16383)),
    ("6.5.2 MAX_FRAME_SIZE of 2**24", "PROTOCOL_ERROR", setting(5, 1 << 24)),
    # 6.6: PUSH_PROMISE
    ("6.6 PUSH_PROMISE from a client", "PROTOCOL_ERROR", request(1, WAIT) + frame(5, 4, 1, u32(2) + block(GET))),
    # 6.7: PING
    ("6.7 PING on a stream", "PROTOCOL_ERROR", frame(PING, 0, 1, bytes(8))),
    ("6.7 PING of 6 bytes", "FRAME_SIZE_ERROR", frame(PING, 0, 0, bytes(6))),
    # 6.8: GOAWAY
    ("6.8 GOAWAY on a stream", "PROTOCOL_ERROR", frame(GOAWAY, 0, 1, bytes(8))),
    ("6.8 GOAWAY of 4 bytes", "FRAME_SIZE_ERROR PROTOCOL_ERROR", frame(GOAWAY, 0, 0, bytes(4))),
    # 6.9: WINDOW_UPDATE
    ("6.9 WINDOW_UPDATE by 0", "PROTOCOL_ERROR", window(0)),
    ("6.9 WINDOW_UPDATE of 3 bytes", "FRAME_SIZE_ERROR", frame(WINDOW_UPDATE, 0, 0, bytes(3))),
    ("6.9.1 a window over 2**31 - 1", "FLOW_CONTROL_ERROR", window((1 << 31) - 1)),
    (
        "6.9.2 a stream's window over 2**31 - 1, by a setting",
        "FLOW_CONTROL_ERROR",
        request(1, WAIT) + window((1 << 31) - 1 - 65535, 1) + setting(4, 65536),
    ),
    # 6.10: CONTINUATION
    (
        "6.10 DATA instead of CONTINUATION",
        "PROTOCOL_ERROR",
        request(1, POST, 0) + frame(CONTINUATION, 0, 1, b"") + frame(DATA, 1, 1, b"x"),
    ),
    ("6.10 CONTINUATION on stream 0", "PROTOCOL_ERROR", request(1, GET, 1) + frame(CONTINUATION, 4, 0, b"")),
    ("6.10 CONTINUATION on another stream", "PROTOCOL_ERROR", request(1, GET, 1) + frame(CONTINUATION, 4, 3, b"")),
    ("6.10 CONTINUATION of what is complete", "PROTOCOL_ERROR", request(1, WAIT) + frame(CONTINUATION, 4, 1, b"")),
    (
        "6.10 CONTINUATION after the last one",
        "PROTOCOL_ERROR",
        request(1, WAIT, 1) + frame(CONTINUATION, 4, 1, b"") + frame(CONTINUATION, 4, 1, b""),
    ),
    (
        "6.10 CONTINUATION after DATA",
        "PROTOCOL_ERROR",
        request(1, POST, 4) + frame(DATA, 0, 1, b"x") + frame(CONTINUATION, 4, 1, b""),
    ),
    # RFC 7541: HPACK
    ("HPACK 2.3.3 an index beyond both tables", "COMPRESSION_ERROR", frame(HEADERS, ENDS, 1, block(GET) + b"\xc6")),
    (
        "HPACK 2.3.3 a name's index beyond both tables",
        "COMPRESSION_ERROR",
        frame(HEADERS, ENDS, 1, block(GET) + b"\x7f\x07\x01a"),
    ),
    ("HPACK 4.2 a table's new size behind fields", "COMPRESSION_ERROR", frame(HEADERS, ENDS, 1, block(GET) + b"\x20")),
    ("HPACK 5.1 a number without end", "COMPRESSION_ERROR", frame(HEADERS, ENDS, 1, b"\x7f" + b"\xff" * 30)),
    (
        "HPACK 5.2 a string longer than the block",
        "COMPRESSION_ERROR",
        frame(HEADERS, ENDS, 1, block(GET) + b"\x00\x01a\x7fb"),
    ),
    (
        "HPACK 5.2 Huffman padding of 8 bits",
        "COMPRESSION_ERROR",
        frame(HEADERS, ENDS, 1, block(GET) + b"\x00\x01a\x82\x1f\xff"),
    ),
    (
        "HPACK 5.2 Huffman padding of zeros",
        "COMPRESSION_ERROR",
        frame(HEADERS, ENDS, 1, block(GET) + b"\x00\x01a\x81\x18"),
    ),
    (
        "HPACK 5.2 the end of a Huffman string in it",
        "COMPRESSION_ERROR",
        frame(HEADERS, ENDS, 1, block(GET) + b"\x00\x01a\x84\xff\xff\xff\xff"),
    ),
    ("HPACK 6.1 index 0", "COMPRESSION_ERROR", frame(HEADERS, ENDS, 1, block(GET) + b"\x80")),
    (
        "HPACK 6.3 a table larger than allowed",
        "COMPRESSION_ERROR",
        frame(HEADERS, ENDS, 1, b"\x3f\xe2\x1f" + block(GET)),
    ),
]


@pytest.mark.parametrize(("error", "data"), [pytest.param(e, d, id=i) for i, e, d in BROKEN])
@INTERFACES
def test_an_error_of_the_connection(error, data, interface):
    """It is answered with GOAWAY and that error, and nothing behind it is served."""
    with talking(interface=interface) as (client, served):
        client.send(data + request(99, [GET[0], (":path", "/behind"), *GET[2:]]))
        client.until_closed()
        assert client.goaway in codes(*error.split()), client.frames
    assert "/behind" not in served
    assert "/" not in served


@pytest.mark.parametrize(
    "preface",
    [
        pytest.param(PREFACE[:-4] + b"XX\r\n" + frame(SETTINGS), id="3.4 another preface"),
        pytest.param(PREFACE + frame(PING, payload=bytes(8)), id="3.4 PING before SETTINGS"),
        pytest.param(PREFACE + request(), id="3.4 a request before SETTINGS"),
        pytest.param(PREFACE + frame(SETTINGS, ACK), id="3.4 an acknowledgement for SETTINGS"),
    ],
)
def test_a_bad_preface(preface):
    with talking(preface) as (client, served):
        client.until_closed()
        assert client.goaway in (None, ErrorCodes.PROTOCOL_ERROR)  # the section allows to send none
    assert served == []


# ---------------------------------------------------------------- what is an error of a stream


def data_frame(payload=b"x", flags=END_STREAM):
    return frame(DATA, flags, 1, payload)


OF_A_STREAM = [
    ("4.2 DATA over the frame size", "FRAME_SIZE_ERROR", request(1, POST, END_HEADERS) + data_frame(bytes(16385))),
    # 5.1: half-closed, and closed by a reset
    ("5.1 DATA when half closed", "STREAM_CLOSED", request(1, WAIT) + data_frame()),
    ("5.1 HEADERS when half closed", "STREAM_CLOSED", request(1, WAIT) + request()),
    ("5.1 DATA after a reset", "STREAM_CLOSED", request(1, WAIT) + frame(RST_STREAM, 0, 1, u32(8)) + data_frame()),
    ("5.1 HEADERS after a reset", "STREAM_CLOSED", request(1, WAIT) + frame(RST_STREAM, 0, 1, u32(8)) + request()),
    # 6.9: windows
    ("6.9 a stream's WINDOW_UPDATE by 0", "PROTOCOL_ERROR", request(1, WAIT) + window(0, 1)),
    ("6.9.1 a stream's window over 2**31 - 1", "FLOW_CONTROL_ERROR", request(1, WAIT) + window((1 << 31) - 1, 1)),
    (
        "6.9.1 more than the window",
        "FLOW_CONTROL_ERROR",
        request(1, [POST[0], *WAIT[1:]], END_HEADERS) + data_frame(bytes(16384), 0) * 17,
    ),
    # 8.1: malformed messages
    ("8.1 trailers that do not end", "PROTOCOL_ERROR", request(1, POST, END_HEADERS) + request(1, [("x", "y")], 4)),
    ("8.2 upper case", "PROTOCOL_ERROR", request(1, [*GET, ("Upper", "x")])),
    ("8.2.1 a space in a name", "PROTOCOL_ERROR", request(1, [*GET, ("x y", "z")])),
    ("8.2.1 a colon in a name", "PROTOCOL_ERROR", request(1, [*GET, ("x:y", "z")])),
    ("8.2.1 an empty name", "PROTOCOL_ERROR", request(1, [*GET, ("", "z")])),
    ("8.2.1 NUL in a value", "PROTOCOL_ERROR", request(1, [*GET, ("x", "a\x00b")])),
    ("8.2.1 CR LF in a value", "PROTOCOL_ERROR", request(1, [*GET, ("x", "a\r\nb: c")])),
    ("8.2.2 connection", "PROTOCOL_ERROR", request(1, [*GET, ("connection", "close")])),
    ("8.2.2 keep-alive", "PROTOCOL_ERROR", request(1, [*GET, ("keep-alive", "5")])),
    ("8.2.2 proxy-connection", "PROTOCOL_ERROR", request(1, [*GET, ("proxy-connection", "keep-alive")])),
    ("8.2.2 transfer-encoding", "PROTOCOL_ERROR", request(1, [*GET, ("transfer-encoding", "chunked")])),
    ("8.2.2 upgrade", "PROTOCOL_ERROR", request(1, [*GET, ("upgrade", "h2c")])),
    ("8.2.2 te, not trailers", "PROTOCOL_ERROR", request(1, [*GET, ("te", "trailers, deflate")])),
    ("8.3 an unknown pseudo field", "PROTOCOL_ERROR", request(1, [*GET, (":test", "x")])),
    ("8.3 a response's pseudo field", "PROTOCOL_ERROR", request(1, [*GET, (":status", "200")])),
    ("8.3 a pseudo field behind others", "PROTOCOL_ERROR", request(1, [*GET[:3], ("x", "y"), GET[3]])),
    (
        "8.3 a pseudo field in trailers",
        "PROTOCOL_ERROR",
        request(1, POST, END_HEADERS) + data_frame(flags=0) + request(1, [(":method", "POST")]),
    ),
    *(
        (f"8.3.1 no {GET[i][0]}", "PROTOCOL_ERROR", request(1, [field for field in GET if field != GET[i]]))
        for i in range(3)
    ),
    *((f"8.3.1 {GET[i][0]} twice", "PROTOCOL_ERROR", request(1, [GET[i], *GET])) for i in range(4)),
    ("8.3.1 an empty :path", "PROTOCOL_ERROR", request(1, [GET[0], (":path", ""), *GET[2:]])),
    ("8.2.1 white space around a value", "PROTOCOL_ERROR", request(1, [*GET, ("x", " y")])),
    ("8.3.1 no host", "PROTOCOL_ERROR", request(1, GET[:3])),
    ("8.3.1 an empty :authority", "PROTOCOL_ERROR", request(1, [*GET[:3], (":authority", "")])),
    ("8.3.1 two hosts", "PROTOCOL_ERROR", request(1, [*GET, ("host", "b")])),
    ("8.3.1 an absolute :path", "PROTOCOL_ERROR", request(1, [GET[0], (":path", "http://b/"), *GET[2:]])),
    ("8.3.1 another scheme", "PROTOCOL_ERROR", request(1, [*GET[:2], (":scheme", "ftp"), GET[3]])),
    # 8.1.1: content-length
    (
        "8.1.1 less than content-length",
        "PROTOCOL_ERROR",
        request(1, [*POST, ("content-length", "2")], END_HEADERS) + data_frame(),
    ),
    (
        "8.1.1 more than content-length, in two frames",
        "PROTOCOL_ERROR",
        request(1, [*POST, ("content-length", "1")], END_HEADERS) + data_frame(flags=0) + data_frame(),
    ),
    ("8.1.1 a content-length without content", "PROTOCOL_ERROR", request(1, [*POST, ("content-length", "1")])),
    ("8.1.1 content-length, no number", "PROTOCOL_ERROR", request(1, [*POST, ("content-length", "+0")])),
    (
        "8.1.1 content-length twice",
        "PROTOCOL_ERROR",
        request(1, [*POST, ("content-length", "1"), ("content-length", "2")], END_HEADERS) + data_frame(),
    ),
]


@pytest.mark.parametrize(("error", "data", "kind"), [pytest.param(e, d, i[0], id=i) for i, e, d in OF_A_STREAM])
@INTERFACES
def test_an_error_of_a_stream(error, data, kind, interface):
    """A reset with that error, or 400 for a malformed request (section 8.1.1 allows it); other streams go on."""
    with talking(interface=interface) as (client, served):
        client.send(data)
        while not (client.closed or client.goaway is not None or 1 in client.resets or 1 in client.statuses):
            client.step()
        if client.statuses.get(1) == 400:
            assert error == "PROTOCOL_ERROR"
        else:
            found = client.resets.get(1, client.goaway)
            assert found in codes(error), client.frames
        if kind == "8":
            assert client.goaway is None, client.frames
        if client.goaway is None:
            client.send(request(3, [GET[0], (":path", "/after"), *GET[2:]]))
            client.until(lambda: 3 in client.ended)
            assert client.statuses[3] == 200
    assert "/" not in served


@INTERFACES
def test_streams_under_way_outlive_a_malformed_one(interface):
    bad = [*GET, ("Upper", "x")]
    with talking(interface=interface) as (client, served):
        client.send(request(1, POST, END_HEADERS) + request(3, bad) + request(5, bad, END_HEADERS))
        client.send(frame(DATA, 0, 5, b"under way") + frame(DATA, END_STREAM, 1, b"body") + request(7))
        client.until(lambda: {1, 7} <= client.ended)
        assert (client.statuses, client.bodies[1]) == ({1: 200, 3: 400, 5: 400, 7: 200}, b"4")
        client.until(lambda: 5 in client.resets)
        assert client.goaway is None
    assert served == ["/", "/"]


# ---------------------------------------------------------------- what HTTP/1 and HTTP/2 judge alike

ALIKE = [
    (200, "GET", "/", [("x", "y"), ("x", "z")]),
    (200, "OPTIONS", "*", []),
    (200, "GET", "/", [("expect", "100-Continue")]),
    (200, "PROPFIND", "/", []),
    (400, "GET", "*", []),
    (400, "GET", "/", [("host", "a"), ("host", "a")]),
    (400, "GET", "/", [("content-type", "a/b"), ("content-type", "a/c")]),
    (400, "GET", "/", [("content-length", "0"), ("content-length", "0")]),
    (400, "GET", "/", [("content-length", "0,0")]),
    (400, "GET", "/", [("expect", "100-continue"), ("expect", "100-continue")]),
    (400, "GET", "/", [("x-a", "1"), ("x_a", "2")]),
    (400, "GET", "/", [("content_type", "a/b")]),
    (400, "GET", "/", [("transfer_encoding", "chunked")]),
    (413, "POST", "/", [("content-length", "2000000000")]),
    (417, "GET", "/", [("expect", "200-ok")]),
    (431, "GET", "/", [("x", "y")] * 101),
    (501, "BREW", "/", []),
    (501, "get", "/", []),
    (501, "G!T", "/", []),
]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("status", "method", "path", "fields"), ALIKE)
def test_one_judge_for_both_protocols(version, status, method, path, fields):
    if not any(name == "host" for name, _ in fields):
        fields = [("host", "a"), *fields]
    if version == 1:
        with serving(answer, http2=True) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
            lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
            sock.sendall(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())
            found = int(file.readline().split()[1])
    else:
        with talking() as (client, _):
            ends = END_HEADERS if method == "POST" else ENDS
            client.send(request(1, [(":method", method), (":path", path), (":scheme", "http"), *fields], ends))
            client.until(lambda: 1 in client.statuses)
            found = client.statuses[1]
            client.ping()
            assert client.goaway is None
    assert found == status


def answer(environ, start_response):
    start_response("200 OK", [])
    return []


BAD_TRAILERS = [
    [("content-length", "1")],
    [("host", "b")],
    [("authorization", "x")],
    [("transfer_encoding", "x")],
    [("Upper", "x")],
    [("x y", "z")],
    [("x", "a\r\nb: c")],
    [("x", " y")],
    [("te", "trailers")],
    [("connection", "close")],
    [("x", "y")] * 101,
    [("x", "y" * 9000)],
]


@pytest.mark.parametrize("fields", BAD_TRAILERS, ids=lambda fields: str(fields[0])[:30])
@INTERFACES
def test_bad_trailers(fields, interface):
    """Fields that RFC 9110 section 6.5.1 forbids in trailers, and fields that would be refused in a head."""
    with talking(interface=interface) as (client, served):
        client.send(request(1, POST, END_HEADERS) + data_frame(flags=0) + request(1, fields))
        client.until(lambda: client.goaway is not None or 1 in client.resets or 1 in client.statuses)
        assert client.goaway is None
        assert 1 in client.resets
        client.send(request(3, [GET[0], (":path", "/after"), *GET[2:]]))
        client.until(lambda: 3 in client.ended)
    assert served == ["/after"]


# ---------------------------------------------------------------- what is no error

ACCEPTED = [
    ("3.4 a preface with settings", setting(4, 100_000) + request()),
    ("4.1 an unknown frame", frame(0x16, 0, 0, b"12345678") + request()),
    ("4.1 an unknown frame on a stream", frame(0x16, 0, 1, b"12345678") + request()),
    ("4.1 unknown flags", frame(PING, 0xFE, 0, bytes(8)) + request()),
    ("4.1 the reserved bit of a stream's number", frame(PING, 0, 1 << 31, bytes(8)) + request()),
    ("4.2 a frame of 16384 bytes", request(1, POST, END_HEADERS) + data_frame(bytes(16384))),
    (
        "4.1 frames of RFC 7838, 8336 and 9218",
        b"".join(frame(kind, 0, 0, bytes(3) + b"a") for kind in (10, 12, 16)) + request(),
    ),
    ("4.1 ALTSVC on a stream", request(1, POST, END_HEADERS) + frame(10, 0, 1, b'\0\0h2=":1"') + data_frame()),
    ("5.1 PRIORITY on an idle stream", frame(PRIORITY, 0, 3, bytes(4) + b"\x0f") + request()),
    (
        "5.3.2 PRIORITY of a stream on itself",
        request(1, POST, END_HEADERS) + frame(PRIORITY, 0, 1, u32(1) + b"\x0f") + data_frame(),
    ),
    ("5.3.2 HEADERS of a stream on itself", frame(HEADERS, ENDS | WITH_PRIORITY, 1, u32(1) + b"\xff" + block(GET))),
    ("5.1 WINDOW_UPDATE when half closed", request() + window(100, 1)),
    ("5.1 PRIORITY when half closed", request() + frame(PRIORITY, 0, 1, bytes(4) + b"\x0f")),
    ("6.1 DATA in several frames", request(1, POST, END_HEADERS) + data_frame(flags=0) * 3 + data_frame()),
    ("6.1 DATA with padding", request(1, POST, END_HEADERS) + data_frame(b"\x05hello" + bytes(5), PADDED | END_STREAM)),
    ("6.1 DATA that is all padding", request(1, POST, END_HEADERS) + data_frame(b"\x05" + bytes(5), PADDED | 1)),
    ("6.2 HEADERS with padding", frame(HEADERS, ENDS | PADDED, 1, b"\x03" + block(GET) + bytes(3))),
    ("6.2 HEADERS with a priority", frame(HEADERS, ENDS | WITH_PRIORITY, 1, b"\x80\0\0\0\xff" + block(GET))),
    ("6.5 empty SETTINGS", frame(SETTINGS) + request()),
    ("6.5.2 an unknown setting", setting(0xFF, 1) + request()),
    ("6.7 a pong nobody asked for", frame(PING, ACK, 0, b"unwanted") + request()),
    ("6.9 WINDOW_UPDATE of the connection", window(1) + request()),
    ("6.9 WINDOW_UPDATE of a stream", request(1, POST, END_HEADERS) + window(1, 1) + data_frame()),
    ("6.10 CONTINUATION", frame(HEADERS, 1, 1, block(GET)[:3]) + frame(CONTINUATION, 4, 1, block(GET)[3:])),
    (
        "6.10 CONTINUATION byte by byte",
        frame(HEADERS, 1, 1)
        + b"".join(frame(CONTINUATION, 0, 1, bytes([byte])) for byte in block(GET))
        + frame(CONTINUATION, END_HEADERS, 1),
    ),
    ("8.1 trailers", request(1, POST, END_HEADERS) + data_frame(flags=0) + request(1, [("x-sum", "1")])),
    ("8.2.2 te: trailers", request(1, [*GET, ("te", "trailers")])),
    ("8.2.3 cookie in parts", request(1, [*GET, ("cookie", "a=1"), ("cookie", "b=2")])),
    ("8.2.3 cookie in many parts", request(1, [*GET, *[("cookie", "a=1")] * 180])),
    ("8.3.1 OPTIONS *", request(1, [(":method", "OPTIONS"), (":path", "*"), *GET[2:]])),
    ("8.3.1 host for :authority", request(1, [*GET[:3], ("host", "a")])),
    # RFC 7541
    ("HPACK 6.1 indexed", frame(HEADERS, ENDS, 1, b"\x82\x84\x86\x41\x01a")),
    ("HPACK 6.2.1 put into the table, and used", frame(HEADERS, ENDS, 1, b"\x82\x84\x86\x41\x01a\x40\x01x\x01y\xbe")),
    ("HPACK 6.2.2 not put into the table", frame(HEADERS, ENDS, 1, b"\x82\x84\x86\x01\x01a\x00\x01x\x01y")),
    ("HPACK 6.2.3 never to be put into a table", frame(HEADERS, ENDS, 1, b"\x82\x84\x86\x11\x01a\x10\x01x\x01y")),
    ("HPACK 6.3 a smaller table", frame(HEADERS, ENDS, 1, b"\x20" + block(GET))),
    ("HPACK 5.2 Huffman", frame(HEADERS, ENDS, 1, b"\x82\x84\x86\x41\x81\x1f")),
]


@pytest.mark.parametrize("data", [pytest.param(d, id=i) for i, d in ACCEPTED])
@INTERFACES
def test_what_is_accepted(data, interface):
    with talking(interface=interface) as (client, served):
        client.send(data)
        client.until(lambda: 1 in client.ended)
        assert client.statuses[1] == 200
        client.ping()
        assert client.goaway is None
        assert client.resets == {}
    assert len(served) == 1


def test_what_closes_a_stream_is_no_error_when_it_comes_late():
    """Section 5.1: WINDOW_UPDATE, RST_STREAM and PRIORITY may be under way when a stream closes."""
    with talking() as (client, _):
        client.send(request())
        client.until(lambda: 1 in client.ended)
        client.send(window(1, 1) + frame(RST_STREAM, 0, 1, u32(8)) + frame(PRIORITY, 0, 1, bytes(4) + b"\x0f"))
        client.ping()
        client.send(request(3))
        client.until(lambda: 3 in client.ended)
        assert client.goaway is None


@pytest.mark.parametrize("late", [data_frame(), request()], ids=["DATA", "HEADERS"])
def test_what_comes_on_a_stream_that_has_ended(late):
    """Section 5.1: STREAM_CLOSED."""
    with talking() as (client, served):
        client.send(request())
        client.until(lambda: 1 in client.ended)
        client.send(late)
        while client.goaway is None and 1 not in client.resets and not client.closed:
            client.step()
        assert client.resets.get(1, client.goaway) == ErrorCodes.STREAM_CLOSED
    assert served == ["/"]


def test_the_servers_preface():
    """Section 3.4: SETTINGS come first, and the client's are acknowledged."""
    with talking() as (client, _):
        client.until(lambda: client.acknowledged)
        kind, flags, stream, payload = client.frames[0]
        assert (kind, flags, stream) == (SETTINGS, 0, 0)
        settings = {payload[i + 1]: int.from_bytes(payload[i + 2 : i + 6], "big") for i in range(0, len(payload), 6)}
        assert settings[3] == 100  # MAX_CONCURRENT_STREAMS
        assert settings[6]  # MAX_HEADER_LIST_SIZE


def test_ping_and_settings_are_acknowledged_once_each():
    """Sections 6.5.3 and 6.7."""
    with talking() as (client, _):
        client.send(frame(PING, payload=b"abcdefgh") + frame(PING, ACK, 0, b"not this") + frame(SETTINGS) * 2)
        client.ping()
        client.until(lambda: client.acknowledged >= 3 and len(client.pongs) >= 2)
        assert client.pongs == [b"abcdefgh", b"in order"]
        assert client.acknowledged == 3


@INTERFACES
def test_windows(interface):
    """Section 6.9.2: a window may shrink below zero while a response is under way; the last of two settings counts."""
    long = [GET[0], (":path", "/long"), *GET[2:]]
    twice = frame(SETTINGS, payload=b"\0\4" + u32(50) + b"\0\4" + u32(3))
    with talking(PREFACE + twice, interface) as (client, _):
        client.send(request(1, long))
        client.until(lambda: len(client.bodies.get(1, b"")) >= 3)
        client.ping()
        assert client.bodies[1] == b"xxx"
        client.send(setting(4, 0))  # the stream's window is -3 now
        client.send(window(3, 1))
        client.ping()
        assert client.bodies[1] == b"xxx"
        client.send(window(2, 1))
        client.until(lambda: len(client.bodies[1]) > 3)
        client.ping()
        assert client.bodies[1] == b"x" * 5
        client.send(setting(4, 100))
        client.until(lambda: 1 in client.ended)
        assert client.bodies[1] == b"x" * 100


def test_frames_are_no_larger_than_the_client_takes():
    """Section 6.5.2: MAX_FRAME_SIZE."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"x" * 60_000]

    for size in (16384, 20_000):
        with serving(app, http2=True) as server, closing(connect(server)) as sock:
            client = Client(sock)
            client.send(PREFACE + setting(5, size) + request())
            client.until(lambda client=client: 1 in client.ended)
            assert max(len(payload) for kind, _, _, payload in client.frames if kind == DATA) == size
            client.file.close()


def test_unknown_error_codes():
    """Section 7: they mean nothing special."""
    with talking() as (client, _):
        client.send(request(1, WAIT) + frame(RST_STREAM, 0, 1, u32(99)) + request(3))
        client.until(lambda: 3 in client.ended)
        assert client.goaway is None
        client.send(frame(GOAWAY, payload=bytes(4) + u32(99)))
        client.ping()
        assert client.goaway is None


@INTERFACES
def test_streams_go_on_when_the_client_says_that_it_will_leave(interface):
    """Section 6.8."""
    with talking(interface=interface) as (client, served):
        client.send(request(1, POST, END_HEADERS) + frame(GOAWAY, payload=bytes(8)))
        client.ping()
        client.send(data_frame(b"body"))
        client.until(lambda: 1 in client.ended)
        assert (client.statuses[1], client.bodies[1]) == (200, b"4")
        client.until_closed()
    assert served == ["/"]


@pytest.mark.parametrize("known", [False, True], ids=["before the limit is known", "after"])
@INTERFACES
def test_only_the_streams_beyond_the_limit_are_refused(known, interface):
    """Section 5.1.2."""
    with talking(interface=interface) as (client, served):
        if known:
            client.until(lambda: client.acknowledged)
            client.ping()
        client.send(b"".join(request(2 * i + 1, WAIT) for i in range(100)))
        client.send(request(201, POST, END_HEADERS) + frame(DATA, END_STREAM, 201, b"late"))
        client.send(request(203) + request(205) + request(207, POST, END_HEADERS))
        client.until(lambda: len(client.resets) == 4)
        assert client.resets == dict.fromkeys((201, 203, 205, 207), ErrorCodes.REFUSED_STREAM)
        client.go_on()
        client.until(lambda: len(client.ended) == 100)
        assert set(client.statuses.values()) == {200}
        client.send(request(301))
        client.until(lambda: 301 in client.ended)
        assert client.goaway is None
    assert len(served) == 101
