"""HTTP/2: curl and httpx over TLS, and frames sent with h2 and hyperframe for what good clients never send."""

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import pytest
from conftest import Certificate
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes
from helpers import recorded_errors, run_patched, wait_until
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from test_pywsgi import LAST, QUICK, App, connect, curl, one, serving, url

import weald
from weald.event import Event
from weald.pywsgi import WSGIHandler

pytestmark = pytest.mark.usefixtures("io_loop")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]


def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    start_response("200 OK", [("X-Protocol", environ["SERVER_PROTOCOL"]), ("Connection", "keep-alive")])
    if path == "/stream":
        return (b"x" * 10_000 for _ in range(100))
    if path == "/large":
        return [b"y" * 3_000_000]
    return [environ["REQUEST_METHOD"].encode(), b" ", path.encode(), b" ", str(len(body)).encode()]


class Client:
    """One HTTP/2 connection by prior knowledge."""

    def __init__(self, server: Any, *, window: int | None = None) -> None:
        self.sock = connect(server)
        self.h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.bodies: dict[int, bytes] = {}
        self.heads: dict[int, dict[bytes, bytes]] = {}
        self.trailers: dict[int, Any] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.goaway: int | None = None
        self.closed = False
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, path: str = "/", body: bytes | None = None, *, fields: Any = (), method: str | None = None) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        method = method or ("GET" if body is None else "POST")
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a"), *fields]
        self.h2.send_headers(stream, head, end_stream=body is None)
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def step(self, acknowledge: bool = True) -> None:
        """Read once."""
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.heads[event.stream_id] = {bytes(name): bytes(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                self.trailers[event.stream_id] = event.headers
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                self.resets[event.stream_id] = event.error_code
            elif isinstance(event, ConnectionTerminated):
                self.goaway = event.error_code
        if self.goaway is None:
            self.flush()

    def until(self, done: Callable[[], Any]) -> None:
        while not done():
            assert not self.closed, "the server has closed the connection"
            self.step()

    def body(self, stream: int) -> bytes:
        self.until(lambda: stream in self.ended)
        return self.bodies.get(stream, b"")

    def until_closed(self) -> None:
        while not self.closed:
            self.step()


@contextmanager
def talking(application: App = app, **options: Any) -> Iterator[Client]:
    window = options.pop("window", None)
    with serving(application, http2=True, **options) as server:
        client = Client(server, window=window)
        with closing(client.sock):
            yield client


# ---------------------------------------------------------------- requests


def test_curl_by_alpn(certificate: Certificate) -> None:
    with serving(app, http2=True, ssl_context=certificate.server_context()) as server:
        to = url(server, "https")
        tls = ("--cacert", certificate.cert)
        assert curl(*tls, "--http2", "-w", "|%{http_version}", to) == "GET / 0|2"
        assert curl(*tls, "--http1.1", "-w", "|%{http_version}", to) == "GET / 0|1.1"
        assert curl(*tls, "--http2", "-T", "-", to + "up", stdin=b"z" * 2_000_000) == "PUT /up 2000000"
        assert curl(*tls, "--http2", to + "large") == "y" * 3_000_000
        assert curl(*tls, "--http2", to + "stream") == "x" * 1_000_000
        head = curl(*tls, "--http2", "-I", to)
        assert head.startswith("HTTP/2 200")
        assert "x-protocol: HTTP/2" in head
        assert "connection" not in head


def test_prior_knowledge_and_http_1_on_one_port() -> None:
    with serving(app, http2=True) as server:
        assert curl("--http2-prior-knowledge", url(server)) == "GET / 0"
        assert one(server, LAST).body == b"GET /last 0"


def test_it_is_off_unless_asked_for() -> None:
    with serving(app) as server:
        assert one(server, PREFACE).status == 505


def test_httpx(certificate: Certificate) -> None:
    pytest.importorskip("httpx")
    run_patched(
        f"""
        import ssl, httpx
        import weald
        from weald.pywsgi import WSGIServer

        def app(environ, start_response):
            body = environ["wsgi.input"].read()
            start_response("200 OK", [])
            return [environ["SERVER_PROTOCOL"].encode(), b" ", body]

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain({certificate.cert!r}, {certificate.key!r})
        server = WSGIServer(("127.0.0.1", 0), app, log=None, http2=True, ssl_context=context)
        server.start()
        trust = ssl.create_default_context(cafile={certificate.cert!r})
        with httpx.Client(http2=True, verify=trust, timeout=20) as client:
            def ask(i):
                return client.post(f"https://127.0.0.1:{{server.server_port}}/", content=str(i)).text
            jobs = [weald.spawn(ask, i) for i in range(30)]
            weald.joinall(jobs, raise_error=True)
            assert [job.value for job in jobs] == [f"HTTP/2 {{i}}" for i in range(30)]
        server.stop()
        """
    )


def test_streams_run_side_by_side() -> None:
    first = Event()

    def waits(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/first":
            assert first.wait(20)
        else:
            first.set()
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with talking(waits) as client:
        a, b = client.ask("/first"), client.ask("/second")
        assert client.body(a) == b"/first"
        assert client.body(b) == b"/second"


def test_many_large_responses_at_once() -> None:
    with talking() as client:
        streams = [client.ask("/large") for _ in range(5)]
        for stream in streams:
            assert len(client.body(stream)) == 3_000_000
            assert client.heads[stream][b"content-length"] == b"3000000"


def test_the_parts_of_a_request() -> None:
    seen: dict[str, Any] = {}

    def look(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.update(environ)
        return list(app(environ, start_response))

    log = io.StringIO()
    with talking(look, log=log) as client:
        fields = [
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-a", "1"),
            ("x-a", "2"),
            ("under_score", "x"),
            ("te", "trailers"),
        ]
        client.body(client.ask("/p%20q?r", fields=fields))
    assert seen["PATH_INFO"] == "/p q"
    assert seen["QUERY_STRING"] == "r"
    assert seen["HTTP_HOST"] == "a"
    assert seen["HTTP_COOKIE"] == "a=1; b=2"
    assert seen["HTTP_X_A"] == "1, 2"
    assert seen["SERVER_PROTOCOL"] == "HTTP/2"
    assert "HTTP_UNDER_SCORE" not in seen
    assert '"GET /p%20q?r HTTP/2" 200' in log.getvalue()


def test_head_no_body_and_trailers() -> None:
    def plain(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("204 No Content" if environ["PATH_INFO"] == "/204" else "200 OK", [])
        if environ["PATH_INFO"] == "/trailers":
            environ["weald.trailers"].append(("X-Sum", "5"))
            return iter([b"hello"])
        return [] if environ["PATH_INFO"] == "/204" else [b"hello"]

    with talking(plain) as client:
        head = client.ask(method="HEAD")
        none = client.ask("/204")
        trailers = client.ask("/trailers", fields=[("te", "trailers")])
        assert client.body(head) == client.body(none) == b""
        assert client.heads[head][b"content-length"] == b"5"
        assert client.body(trailers) == b"hello"
        assert client.trailers[trailers] == [(b"x-sum", b"5")]
    assert not client.resets


@pytest.mark.parametrize("where", ["call", "later", "short"])
def test_an_application_that_fails(where: str) -> None:
    def fails(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        if where == "call":
            raise KeyError(where)
        start_response("200 OK", [("Content-Length", "10")] if where == "short" else [])
        yield b"hello"
        if where == "later":
            raise KeyError(where)

    def called(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return fails(environ, start_response) if where != "call" else list(fails(environ, start_response))

    with recorded_errors() as errors, talking(called) as client:
        stream = client.ask()
        client.until(lambda: stream in client.ended or stream in client.resets)
        if where == "call":
            assert client.heads[stream][b":status"] == b"500"
        else:
            assert client.resets[stream] == ErrorCodes.INTERNAL_ERROR
            assert stream not in client.ended
        assert client.body(client.ask("/again")) if where == "nothing" else True
    assert [error[1] for error in errors] == ([] if where == "short" else [KeyError])


def test_a_body_nobody_reads_does_not_block_others() -> None:
    def ignores(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"no"]

    with talking(ignores) as client:
        for _ in range(30):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [(":method", "POST"), *GET[1:]])
            client.h2.send_data(stream, b"x" * 16384)
            client.h2.send_data(stream, b"x" * 16384)
            client.flush()
            client.until(lambda stream=stream: stream in client.resets)
            assert client.resets[stream] == ErrorCodes.NO_ERROR
            assert client.bodies[stream] == b"no"


def test_handler_hooks_are_those_of_the_servers_class() -> None:
    class Handler(WSGIHandler):
        def get_environ(self) -> Any:
            return super().get_environ() | {"PATH_INFO": "/hooked"}

    with talking(handler_class=Handler) as client:
        assert client.body(client.ask()) == b"GET /hooked 0"


# ---------------------------------------------------------------- flow control


def test_no_more_than_the_window_is_sent() -> None:
    with talking(window=1000) as client:
        stream = client.ask("/stream")
        while len(client.bodies.get(stream, b"")) < 1000:
            client.step(acknowledge=False)
        for _ in range(20):
            weald.sleep(0)
        assert len(client.bodies[stream]) == 1000
        client.h2.increment_flow_control_window(2_000_000, stream)
        client.h2.increment_flow_control_window(2_000_000)
        client.flush()
        assert len(client.body(stream)) == 1_000_000


def test_a_window_that_stays_closed() -> None:
    with talking(window=10, limits=replace(QUICK, write_timeout=0.2)) as client:
        stream = client.ask("/large")
        while stream not in client.resets:
            client.step(acknowledge=False)
        assert client.resets[stream] == ErrorCodes.INTERNAL_ERROR


def test_a_client_may_not_overrun_the_window() -> None:
    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        weald.sleep(60)
        return []

    with talking(slow) as client:
        client.h2.send_headers(1, [(":method", "POST"), *GET[1:]])
        client.flush()
        client.sock.sendall(b"".join(DataFrame(1, b"x" * 16384).serialize() for _ in range(17)))
        client.until(lambda: client.goaway is not None or 1 in client.resets)
        assert ErrorCodes.FLOW_CONTROL_ERROR in (client.goaway, client.resets.get(1))


# ---------------------------------------------------------------- what a client must not send


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (400, [(":path", "/a b")]),
        (400, [(":path", "no-slash")]),
        (400, [(":path", "*")]),
        (400, [(":authority", "a/b")]),
        (400, [(":authority", "u@a")]),
        (501, [(":method", "CONNECT")]),
        (413, [("content-length", "99999999999999")]),
        (414, [(":path", "/" + "a" * 9000)]),
        (431, [("x", "y")] * 101),
        (400, [("host", "b")]),
    ],
)
def test_a_bad_request(status: int, fields: list[tuple[str, str]]) -> None:
    served = []

    def never(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        served.append(environ["PATH_INFO"])
        return list(app(environ, start_response))

    with talking(never) as client:
        changed = dict(fields)
        head = [(name, changed.pop(name, value)) for name, value in GET]
        head += [(name, value) for name, value in fields if not name.startswith(":")]
        client.h2.send_headers(1, head, end_stream="content-length" not in dict(fields))
        client.flush()
        client.until(lambda: 1 in client.heads or 1 in client.resets or client.goaway is not None)
        if 1 in client.heads:
            assert client.heads[1][b":status"] == b"%d" % status
    assert served == []


def header_block(client: Client, fields: list[tuple[str, str]]) -> bytes:
    block: bytes = client.h2.encoder.encode(fields)
    return block


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*GET, ("Upper", "x")], id="upper case"),
        pytest.param([*GET, ("connection", "close")], id="connection"),
        pytest.param([*GET, ("transfer-encoding", "chunked")], id="transfer-encoding"),
        pytest.param([*GET, ("te", "gzip")], id="te"),
        pytest.param([*GET, ("x", "a\r\nb: c")], id="line end in a value"),
        pytest.param([*GET, ("x", "a\x00b")], id="NUL in a value"),
        pytest.param([*GET, ("x y", "a")], id="a space in a name"),
        pytest.param(GET[1:], id="no method"),
        pytest.param([GET[0], *GET[2:]], id="no path"),
        pytest.param([*GET, (":path", "/b")], id="two paths"),
        pytest.param([*GET, (":status", "200")], id="a response's field"),
        pytest.param([*GET[:3], ("x", "y"), GET[3]], id="pseudo field after others"),
        pytest.param([*GET, ("content-length", "+5")], id="content-length"),
        pytest.param([*GET, ("content-length", "5")], id="content-length without body"),
    ],
)
def test_malformed_fields(fields: list[tuple[str, str]]) -> None:
    served = []

    def never(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        served.append(environ)
        return list(app(environ, start_response))

    with talking(never) as client:
        frame = HeadersFrame(1, header_block(client, fields), flags=["END_HEADERS", "END_STREAM"])
        client.sock.sendall(frame.serialize())
        client.h2.streams.clear()
        received = b""
        while b"\x00\x00\x00\x07" not in received and (data := client.sock.recv(65536)):
            received += data
            frames = received
            if any(kind in (3, 7) for kind in frame_kinds(frames)) or b"400" in frames or 1 in frame_kinds(frames):
                break
        assert {1, 3, 7} & set(frame_kinds(received))
    assert served == []


def frame_kinds(data: bytes) -> list[int]:
    kinds = []
    while len(data) >= 9:
        length = int.from_bytes(data[:3], "big")
        kinds.append(data[3])
        data = data[9 + length :]
    return kinds


def raw(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize(
    ("code", "data"),
    [
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(0, 0, 0, b"x"), id="DATA on stream 0"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(1, 5, 0, b"x"), id="HEADERS on stream 0"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(0, 0, 1, b"x"), id="DATA on an idle stream"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(8, 0, 1, (1).to_bytes(4, "big")), id="WINDOW_UPDATE when idle"),
        pytest.param(ErrorCodes.FRAME_SIZE_ERROR, raw(6, 0, 0, b"short"), id="a short PING"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(6, 0, 1, b"12345678"), id="PING on a stream"),
        pytest.param(ErrorCodes.FRAME_SIZE_ERROR, raw(4, 0, 0, b"short"), id="a short SETTINGS"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(4, 0, 1, b""), id="SETTINGS on a stream"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(9, 4, 1, b"x"), id="CONTINUATION of nothing"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(5, 4, 1, b"\0\0\0\2x"), id="PUSH_PROMISE from a client"),
        pytest.param(ErrorCodes.COMPRESSION_ERROR, raw(1, 5, 1, b"\xff\xff\xff\xff\xff"), id="no HPACK"),
        pytest.param(ErrorCodes.FRAME_SIZE_ERROR, raw(0, 0, 1, b"x" * 16385), id="a frame too large"),
        pytest.param(ErrorCodes.PROTOCOL_ERROR, raw(8, 0, 0, bytes(4)), id="a window grown by nothing"),
        pytest.param(ErrorCodes.FLOW_CONTROL_ERROR, raw(8, 0, 0, b"\x7f\xff\xff\xff"), id="a window beyond 2**31"),
    ],
)
def test_a_broken_connection_is_closed_with_goaway(code: int, data: bytes) -> None:
    with talking() as client:
        client.sock.sendall(data)
        client.until_closed()
        # h2 calls some frame errors errors of the protocol; a GOAWAY with an error there must be.
        assert client.goaway in (code, ErrorCodes.PROTOCOL_ERROR)


@pytest.mark.parametrize(
    "kind", ["reset", "ping", "settings", "continuation", "empty data", "window", "priority", "headers"]
)
def test_floods(kind: str) -> None:
    """Who sends much that costs nothing is cut off, soon and whatever it is."""
    running = []

    def slow(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        running.append(1)
        weald.sleep(0.2)
        running.pop()
        return list(app(environ, start_response))

    with talking(slow) as client:
        block = header_block(client, GET)
        sent = 0

        def flood() -> Iterator[bytes]:
            if kind in ("continuation", "headers"):
                yield HeadersFrame(1, block, flags=["END_STREAM"] if kind == "continuation" else []).serialize()
            if kind == "empty data":
                yield HeadersFrame(1, block, flags=["END_HEADERS"]).serialize()
            for i in range(100_000):
                stream = 2 * i + 1
                frame: Frame
                if kind == "reset":
                    yield HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
                    frame = RstStreamFrame(stream, 8)
                elif kind == "ping":
                    frame = PingFrame(0, b"12345678")
                elif kind == "settings":
                    frame = SettingsFrame(0, {1: 4096 + i % 2})
                elif kind == "empty data":
                    frame = DataFrame(1, b"")
                elif kind == "window":
                    frame = WindowUpdateFrame(0, window_increment=1)
                elif kind == "priority":
                    yield raw(2, 0, 1, b"\0\0\0\3\x10")
                    continue
                else:
                    frame = ContinuationFrame(1, b"\x00\x01a\x01b" * 20)
                yield frame.serialize()

        frames = flood()
        try:
            for chunk in frames:
                client.sock.sendall(chunk)
                sent += 1
                if sent % 50 == 0:
                    weald.sleep(0.001)
        except OSError:
            pass
        assert sent < 90_000
        assert len(running) <= 100
        wait_until(lambda: not running)


def test_no_more_streams_than_allowed() -> None:
    go_on = Event()

    def waits(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        assert go_on.wait(20)
        return list(app(environ, start_response))

    with talking(waits) as client:
        block = header_block(client, GET)
        frames = [HeadersFrame(2 * i + 1, block, flags=["END_HEADERS", "END_STREAM"]).serialize() for i in range(101)]
        client.sock.sendall(b"".join(frames))
        received = b""
        while not {3, 7} & set(frame_kinds(received)):
            data = client.sock.recv(65536)
            assert data
            received += data
        go_on.set()


def test_a_body_that_is_too_long() -> None:
    with talking(limits=replace(QUICK, body=1000)) as client:
        stream = client.ask(body=b"x" * 2000)
        client.until(lambda: stream in client.resets)
        assert client.body(client.ask(body=b"x" * 1000)) == b"POST / 1000"


def test_a_body_that_does_not_come() -> None:
    with talking(limits=replace(QUICK, body_timeout=0.2)) as client:
        client.h2.send_headers(1, [(":method", "POST"), *GET[1:]])
        client.flush()
        client.until(lambda: 1 in client.heads)
        assert client.heads[1][b":status"] == b"408"


def test_an_idle_connection_is_closed() -> None:
    with talking(limits=replace(QUICK, keep_alive_timeout=0.1)) as client:
        client.until_closed()


def test_draining() -> None:
    entered, go_on = Event(), Event()

    def waits(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        assert go_on.wait(20)
        return list(app(environ, start_response))

    with serving(waits, http2=True) as server:
        client = Client(server)
        stream = client.ask()
        assert entered.wait(20)
        draining = weald.spawn(server.drain, 20, 0.1)
        wait_until(lambda: server.closed)
        go_on.set()
        assert client.body(stream) == b"GET / 0"
        client.until_closed()
        assert draining.get(timeout=20) is True
        client.sock.close()
