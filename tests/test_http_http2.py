"""HTTP/2: curl and httpx over TLS, and with h2 and hyperframe frames that good clients never send."""

import io
import itertools
import re
import time
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from conftest import require_program
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
from helpers import PATIENCE, recorded_errors, run_patched, settle, wait_until
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from test_pywsgi import LAST, QUICK, connect, curl, one, serving, url

import weald
from weald import subprocess
from weald.event import Event
from weald.http.http2_stream import Stream
from weald.pywsgi import WSGIHandler
from weald.ssl import cooperative

pytestmark = pytest.mark.usefixtures("io_loop")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GET = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]


def app(environ, start_response):
    path, body = environ["PATH_INFO"], environ["wsgi.input"].read()
    start_response("200 OK", [("X-Protocol", environ["SERVER_PROTOCOL"]), ("Connection", "keep-alive")])
    if path == "/stream":
        return (b"x" * 10_000 for _ in range(100))
    if path == "/large":
        return [b"y" * 3_000_000]
    return [environ["REQUEST_METHOD"].encode(), b" ", path.encode(), b" ", str(len(body)).encode()]


class Client:
    """One HTTP/2 connection by prior knowledge."""

    def __init__(self, server, *, window=None):
        self.sock = connect(server)
        self.h2 = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
        self.h2.initiate_connection()
        if window is not None:
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.bodies = {}
        self.heads = {}
        self.trailers = {}
        self.ended = set()
        self.resets = {}
        self.goaway = None
        self.closed = False
        self.flush()

    def flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def ask(self, path="/", body=None, *, fields=(), method=None):
        stream = self.h2.get_next_available_stream_id()
        method = method or ("GET" if body is None else "POST")
        head = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a"), *fields]
        self.h2.send_headers(stream, head, end_stream=body is None)
        while body and len(body) > 16384:  # the largest frame
            self.h2.send_data(stream, body[:16384])
            body = body[16384:]
        if body is not None:
            self.h2.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    def step(self, acknowledge=True):
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

    def until(self, done):
        while not done():
            assert not self.closed, "the server has closed the connection"
            self.step()

    def body(self, stream):
        self.until(lambda: stream in self.ended)
        return self.bodies.get(stream, b"")

    def until_closed(self):
        while not self.closed:
            self.step()


@contextmanager
def talking(application=app, **options):
    window = options.pop("window", None)
    with serving(application, http2=True, **options) as server:
        client = Client(server, window=window)
        client.server = server
        with closing(client.sock):
            yield client


# ---------------------------------------------------------------- requests


def test_curl_by_alpn(certificate):
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


def test_curl_in_parallel(certificate):
    """By ALPN: curl 7.88 breaks the second transfer of a connection by prior knowledge, whoever serves it."""
    with serving(app, http2=True, ssl_context=certificate.server_context()) as server:
        to = url(server, "https")
        targets = [word for i in range(20) for word in ("-o", "/dev/null", f"{to}{i}")]
        lines = curl(
            "-Z", "--cacert", certificate.cert, "--http2", "-w", "%{url} %{http_code} %{http_version}\n", *targets
        )
        assert sorted(lines.splitlines()) == sorted(f"{to}{i} 200 2" for i in range(20))


@pytest.mark.parametrize("path", ["", "large"])
def test_h2load(path):
    """Connections with many streams at a time, by prior knowledge."""
    count = 1000 if not path else 50
    with serving(app, http2=True) as server:
        command = [require_program("h2load", "nghttp2-client"), "-n", str(count), "-c", "5", "-m", "20"]
        done = subprocess.run([*command, url(server) + path], capture_output=True, timeout=PATIENCE)
    assert f"{count} succeeded, 0 failed, 0 errored, 0 timeout" in done.stdout.decode(), done


def test_prior_knowledge_and_http_1_on_one_port():
    with serving(app, http2=True) as server:
        assert curl("--http2-prior-knowledge", url(server)) == "GET / 0"
        assert one(server, LAST).body == b"GET /last 0"


def test_it_is_off_unless_asked_for():
    with serving(app) as server:
        assert one(server, PREFACE).status == 505


def test_httpx(certificate):
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
        with httpx.Client(http2=True, verify=trust, timeout=100) as client:
            def ask(i):
                return client.post(f"https://127.0.0.1:{{server.server_port}}/", content=str(i)).text
            jobs = [weald.spawn(ask, i) for i in range(30)]
            weald.joinall(jobs, raise_error=True)
            assert [job.value for job in jobs] == [f"HTTP/2 {{i}}" for i in range(30)]
        server.stop()
        """
    )


def test_streams_run_side_by_side():
    first = Event()

    def waits(environ, start_response):
        if environ["PATH_INFO"] == "/first":
            assert first.wait(PATIENCE)
        else:
            first.set()
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    with talking(waits) as client:
        a, b = client.ask("/first"), client.ask("/second")
        assert client.body(a) == b"/first"
        assert client.body(b) == b"/second"


def test_many_large_responses_at_once():
    with talking() as client:
        streams = [client.ask("/large") for _ in range(5)]
        for stream in streams:
            assert len(client.body(stream)) == 3_000_000
            assert client.heads[stream][b"content-length"] == b"3000000"


def test_the_parts_of_a_request():
    seen = {}

    def look(environ, start_response):
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


def test_head_no_body_and_trailers():
    def plain(environ, start_response):
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


def test_head_alone_is_answered():
    """Nothing else makes the connection send."""
    with talking() as client:
        assert client.body(client.ask())  # settings have been exchanged
        assert client.body(client.ask("/large", method="HEAD")) == b""


@pytest.mark.parametrize("where", ["call", "later", "short"])
def test_an_application_that_fails(where):
    def fails(environ, start_response):
        if where == "call":
            raise KeyError(where)
        start_response("200 OK", [("Content-Length", "10")] if where == "short" else [])
        yield b"hello"
        if where == "later":
            raise KeyError(where)

    def called(environ, start_response):
        return fails(environ, start_response) if where != "call" else list(fails(environ, start_response))

    with recorded_errors() as errors, talking(called) as client:
        stream = client.ask()
        client.until(lambda: stream in client.ended or stream in client.resets)
        if where == "call":
            assert client.heads[stream][b":status"] == b"500"
        else:
            assert client.resets[stream] == ErrorCodes.INTERNAL_ERROR
            assert stream not in client.ended
            assert client.bodies[stream] == b"hello"
    assert [error[1] for error in errors] == ([] if where == "short" else [KeyError])


def test_a_body_nobody_reads_does_not_block_others():
    def ignores(environ, start_response):
        start_response("200 OK", [])
        return [b"no"]

    with talking(ignores, limits=replace(QUICK, linger_timeout=0.01)) as client:
        for _ in range(30):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [(":method", "POST"), *GET[1:]])
            client.h2.send_data(stream, b"x" * 16384)
            client.h2.send_data(stream, b"x" * 16384)
            client.flush()
            client.until(lambda stream=stream: stream in client.resets)
            assert client.resets[stream] == ErrorCodes.NO_ERROR
            assert client.bodies[stream] == b"no"


def test_bodies_nobody_reads_leave_the_connections_window_to_others():
    """What an application leaves unread is given back as soon as it has answered, not with the next frame."""

    def ignores(environ, start_response):
        go.wait(PATIENCE)
        start_response("200 OK", [("Content-Length", "0")])
        return [b""]

    go = Event()
    limits = replace(QUICK, linger_timeout=3600.0, keep_alive_timeout=3600.0)
    with talking(ignores, limits=limits) as client:
        client.until(lambda: client.h2.outbound_flow_control_window > 1_000_000)
        whole = client.h2.outbound_flow_control_window
        stream = client.ask(body=b"x" * 65535)
        wait_until(lambda: [len(found.body) for found in streams(client)] == [65535])
        go.set()
        client.until(lambda: stream in client.ended)
        client.until(lambda: client.h2.outbound_flow_control_window == whole)


def streams(client):
    """Those that are served on the client's connection."""
    return [stream for connection in client.server._connections for stream in connection.streams.values()]


def test_a_client_is_not_blamed_for_a_window_that_others_hold():
    """The bodies of requests that nobody reads fill the connection's window: another body cannot come meanwhile."""

    def answer(environ, start_response):
        if environ["PATH_INFO"] == "/held":
            go.wait(PATIENCE)
        size = len(environ["wsgi.input"].read())
        start_response("200 OK", [("X-Size", str(size))])
        return [b"x"]

    go = Event()
    # With less than a frame in the connection's window, the reader waits many times as long as `body_timeout`.
    with talking(answer, limits=replace(QUICK, body_timeout=0.05, http2_window=65535)) as client:
        client.until(lambda: client.h2.outbound_flow_control_window == 5 * 65535)
        held = [client.ask("/held", b"x" * 65535) for _ in range(5)]
        assert client.h2.outbound_flow_control_window == 0
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, [(":method", "POST"), *GET[1:]])
        client.flush()
        wait_until(lambda: len(streams(client)) == 6)
        (reader,) = (found for found in streams(client) if found._id == stream)
        waits = []
        reader._wait = lambda timeout: waits.append(timeout) or Stream._wait(reader, timeout)
        wait_until(lambda: len(waits) >= 3 or reader.lost)
        go.set()
        client.until(lambda: client.h2.outbound_flow_control_window >= 1000)
        client.h2.send_data(stream, b"x" * 1000, end_stream=True)
        client.flush()
        client.until(lambda: client.ended >= {*held, stream})
        assert client.heads[stream][b":status"] == b"200"
        assert client.heads[stream][b"x-size"] == b"1000"


def test_handler_hooks_are_those_of_the_servers_class():
    class Handler(WSGIHandler):
        def get_environ(self):
            return super().get_environ() | {"PATH_INFO": "/hooked"}

    with talking(handler_class=Handler) as client:
        assert client.body(client.ask()) == b"GET /hooked 0"


# ---------------------------------------------------------------- flow control


def test_no_more_than_the_window_is_sent():
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


@pytest.mark.parametrize("each", [1, 2])
def test_who_reads_a_long_response_may_open_the_windows_as_often(each):
    """A client that opens both windows for each DATA frame, as httpx does, takes a file of any size at any speed."""
    with talking(limits=replace(QUICK, http2_control=100, http2_control_rate=1.0)) as client:
        stream = client.ask("/large")
        seen = 0
        while stream not in client.ended:
            client.step(acknowledge=False)
            assert not client.closed
            assert client.goaway is None
            new = len(client.bodies.get(stream, b"")) - seen
            seen += new
            for _ in range(-(-new // (16384 // each))):
                part = min(new, 16384 // each)
                new -= part
                client.h2.increment_flow_control_window(part)
                if stream not in client.ended:
                    client.h2.increment_flow_control_window(part, stream)
            client.flush()
        assert seen == 3_000_000


def test_a_window_that_stays_closed():
    with talking(window=10, limits=replace(QUICK, write_timeout=0.2)) as client:
        stream = client.ask("/large")
        while stream not in client.resets:
            client.step(acknowledge=False)
        assert client.resets[stream] == ErrorCodes.INTERNAL_ERROR


def test_a_client_may_not_overrun_the_window():
    def slow(environ, start_response):
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
        (400, [(":path", "/a#b")]),
        (400, [(":path", "no-slash")]),
        (400, [(":path", "*")]),
        (400, [(":authority", "a/b")]),
        (400, [(":authority", "u@a")]),
        (501, [(":method", "CONNECT")]),  # with a path
        (413, [("content-length", "99999999999999")]),
        (414, [(":path", "/" + "a" * 9000)]),
        (431, [("x", "y")] * 101),
        (400, [("host", "b")]),
    ],
)
def test_a_bad_request(status, fields):
    served = []

    def never(environ, start_response):
        served.append(environ["PATH_INFO"])
        return list(app(environ, start_response))

    with talking(never) as client:
        changed = dict(fields)
        head = [(name, changed.pop(name, value)) for name, value in GET]
        head += [(name, value) for name, value in fields if not name.startswith(":")]
        client.h2.send_headers(1, head, end_stream="content-length" not in dict(fields))
        client.flush()
        client.until(lambda: 1 in client.heads or client.goaway is not None)
        assert client.heads[1][b":status"] == b"%d" % status
        assert client.body(client.ask("/after")) == b"GET /after 0"
    assert served == ["/after"]


def test_a_bad_request_is_logged():
    logged, errors = io.StringIO(), io.StringIO()
    with talking(log=logged, error_log=errors) as client:
        stream = client.ask("/" + "a" * 9000)
        client.until(lambda: stream in client.ended)
        wait_until(logged.getvalue)
    assert re.fullmatch(r"127\.0\.0\.1 - - \[[^]]+\] \"\" 414 - 0\.0+\n", logged.getvalue())
    assert "the request line is too long" in errors.getvalue()


def test_connect_is_for_proxies():
    """RFC 9113 section 8.5."""
    with talking() as client:
        client.h2.send_headers(1, [(":method", "CONNECT"), (":authority", "a:1")])
        client.flush()
        client.until(lambda: 1 in client.heads)
        assert client.heads[1][b":status"] == b"501"


def header_block(client, fields):
    block = client.h2.encoder.encode(fields)
    return block


def flood(client, kind):
    """Frames, without end, that cost a client little."""
    block = header_block(client, GET)
    if kind in ("continuation", "headers", "empty continuation"):
        yield HeadersFrame(1, block, flags=["END_STREAM"]).serialize()
    if kind in ("empty data", "padding", "trailers"):
        yield HeadersFrame(1, block, flags=["END_HEADERS"]).serialize()
    for i in itertools.count():
        stream = 2 * i + 1
        if kind == "reset":
            yield HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize()
            yield RstStreamFrame(stream, 8).serialize()
        elif kind == "provoked reset":  # each makes the server reset a stream
            yield HeadersFrame(stream, block, flags=["END_HEADERS"]).serialize()
            yield WindowUpdateFrame(stream, window_increment=(1 << 31) - 1).serialize()
        elif kind == "bad requests":
            yield HeadersFrame(stream, header_block(client, [*GET, ("x", "y")] * 2), flags=["END_HEADERS"]).serialize()
        elif kind == "ping":
            yield PingFrame(0, b"12345678").serialize()
        elif kind == "settings":
            yield SettingsFrame(0, {1: 4096 + i % 2}).serialize()
        elif kind == "empty settings":
            yield SettingsFrame(0).serialize()
        elif kind == "acknowledgements":
            yield SettingsFrame(0, flags=["ACK"]).serialize()
        elif kind == "empty data":
            yield DataFrame(1, b"").serialize()
        elif kind == "padding":
            yield DataFrame(1, b"", pad_length=255, flags=["PADDED"]).serialize()
        elif kind == "window":
            yield WindowUpdateFrame(0, window_increment=1).serialize()
        elif kind == "priority":
            yield raw(2, 0, 1, b"\0\0\0\3\x10")
        elif kind == "unknown":
            yield raw(0x42, 0, 0, b"")
        elif kind == "empty continuation":
            yield ContinuationFrame(1, b"").serialize()
        else:
            yield ContinuationFrame(1, b"\x00\x01a\x01b" * 20).serialize()


def frames_in(data):
    """Kinds and payloads."""
    while len(data) >= 9:
        end = 9 + int.from_bytes(data[:3], "big")
        yield data[3], data[9:end]
        data = data[end:]


def raw(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


@pytest.mark.parametrize("io_loop", ["libuv"], indirect=True)
@pytest.mark.parametrize(
    "kind",
    [
        *("reset", "provoked reset", "ping", "settings", "empty settings", "acknowledgements", "continuation"),
        *("empty continuation", "headers", "empty data", "padding", "window", "priority", "unknown"),
    ],
)
def test_floods(kind):
    """A client that floods the server with cheap frames of any kind is disconnected; other clients do not notice."""
    running = []
    most = 0

    def slow(environ, start_response):
        nonlocal most
        running.append(1)
        most = max(most, len(running))
        if environ["PATH_INFO"] != "/other":
            weald.sleep(0.2)
        running.pop()
        return list(app(environ, start_response))

    with serving(slow, http2=True) as server:
        attacker, other = Client(server), Client(server)
        answers = []
        reader = weald.spawn(lambda: answers.extend(iter(lambda: attacker.sock.recv(65536), b"")))
        deadline = time.monotonic() + PATIENCE  # for a hang: the server must react, however much is sent until then
        try:
            for sent, frame in enumerate(flood(attacker, kind), 1):
                attacker.sock.sendall(frame)
                if sent % 50 == 0:
                    assert other.body(other.ask("/other")) == b"GET /other 0"
                    if GoAwayFrame.type in [number for number, _ in frames_in(b"".join(answers))]:
                        break
                    assert time.monotonic() < deadline, "nobody minds"
        except (BrokenPipeError, ConnectionResetError):
            pass
        reader.join(PATIENCE)
        assert reader.ready()
        assert most <= 100 + 1
        wait_until(lambda: not running)
        kinds, code = [], -1
        for number, payload in frames_in(b"".join(answers)):
            kinds.append(number)
            code = int.from_bytes(payload[4:8], "big")  # of a GOAWAY
        assert kinds[-1] == GoAwayFrame.type, kinds[-10:]
        wanted = {ErrorCodes.ENHANCE_YOUR_CALM}
        if kind in ("continuation", "empty continuation", "headers"):
            wanted.add(ErrorCodes.PROTOCOL_ERROR)  # h2's own limit of frames
        assert code in wanted
        for client in (attacker, other):
            client.sock.close()


def test_a_tls_client_hears_why_it_was_cut_off(certificate):
    context = cooperative(certificate.client_context())
    context.set_alpn_protocols(["h2"])
    with (
        serving(app, http2=True, ssl_context=certificate.server_context()) as server,
        closing(connect(server)) as plain,
    ):
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            assert sock.selected_alpn_protocol() == "h2"
            sock.sendall(PREFACE + SettingsFrame(0).serialize() + PingFrame(0, b"12345678").serialize() * 3000)
            data = b"".join(iter(lambda: sock.recv(65536), b""))
    kind, payload = list(frames_in(data))[-1]
    assert (kind, payload[4:8]) == (GoAwayFrame.type, int(ErrorCodes.ENHANCE_YOUR_CALM).to_bytes(4, "big"))


@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_leaves_before_the_response_is_nobodys_error(how):
    begun, left, answered = Event(), Event(), Event()

    def waits(environ, start_response):
        begun.set()
        assert environ["weald.disconnected"].wait(PATIENCE)
        assert left.wait(PATIENCE)
        answered.set()
        start_response("200 OK", [])
        return []

    with recorded_errors() as errors, serving(waits, http2=True) as server:
        client = Client(server)
        with closing(client.sock):
            stream = client.ask()
            assert begun.wait(PATIENCE)
            if how == "closes":
                client.sock.close()
                wait_until(lambda: not server._connections)
                settle()
            else:
                client.h2.reset_stream(stream)
                client.flush()
            left.set()
            assert answered.wait(PATIENCE)
            settle()
    assert errors == []


def test_streams_that_the_client_has_reset_count_while_they_run():
    """Rapid reset (CVE-2023-44487): the limit counts running applications, not open streams."""
    go_on = Event()
    running = []

    def waits(environ, start_response):
        running.append(1)
        assert go_on.wait(PATIENCE)
        running.pop()
        return list(app(environ, start_response))

    with talking(waits) as client:
        streams = [client.ask() for _ in range(100)]
        wait_until(lambda: len(running) == 100)
        for stream in streams:
            client.h2.reset_stream(stream)
        refused = client.ask()
        client.until(lambda: refused in client.resets)
        assert client.resets[refused] == ErrorCodes.REFUSED_STREAM
        assert len(running) == 100
        go_on.set()


def test_a_field_section_beyond_the_limit():
    """One field from HPACK's table, repeated: the head is small on the wire."""
    served = []

    def never(environ, start_response):
        served.append(environ["PATH_INFO"])
        return list(app(environ, start_response))

    with talking(never) as client:
        block = header_block(client, [*GET, ("x", "y" * 3000)]) + b"\xbe" * 5000
        client.sock.sendall(HeadersFrame(1, block, flags=["END_HEADERS", "END_STREAM"]).serialize())
        client.until_closed()
        assert client.goaway == ErrorCodes.ENHANCE_YOUR_CALM
    with talking(never, limits=replace(QUICK, head=1000)) as client:
        client.ask(fields=[("x", "y" * 1000)])
        client.until_closed()
        assert client.goaway == ErrorCodes.ENHANCE_YOUR_CALM
    assert served == []


@pytest.mark.parametrize("refused_by", ["server", "application"])
def test_curl_reads_why_its_upload_is_refused(refused_by, tmp_path):
    """It treats a reset that comes at once as a failure."""

    def refuses(environ, start_response):
        start_response("413 Content Too Large", [])
        return []

    (tmp_path / "file").write_bytes(b"x" * 1_000_000)
    limits = replace(QUICK, body=1000) if refused_by == "server" else QUICK
    with serving(refuses, http2=True, limits=limits) as server:
        options = ("--http2-prior-knowledge", "-T", str(tmp_path / "file"), "-w", "%{http_code}")
        for _ in range(5):
            assert curl(*options, url(server)) == "413"


def test_what_is_under_way_to_a_refused_upload_is_no_flood():
    """A client may have sent a whole window before it learns that the body is not read."""

    def refuses(environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            return list(app(environ, start_response))
        start_response("403 Forbidden", [])
        return [b"no"]

    with talking(refuses) as client:
        for _ in range(3):
            stream = client.h2.get_next_available_stream_id()
            client.h2.send_headers(stream, [(":method", "POST"), *GET[1:]])
            client.flush()
            # The window is counted here, as h2 sends nothing on a stream that has been reset.
            client.until(lambda stream=stream: stream in client.resets)
            client.sock.sendall(b"".join(DataFrame(stream, b"x" * 16384).serialize() for _ in range(16)))
        assert client.body(client.ask("/after")) == b"GET /after 0"
        assert client.goaway is None


def test_a_body_that_is_too_long():
    with talking(limits=replace(QUICK, body=1000)) as client:
        stream = client.ask(body=b"x" * 2000)
        client.until(lambda: stream in client.resets)
        assert client.body(client.ask(body=b"x" * 1000)) == b"POST / 1000"


def test_a_body_that_does_not_come():
    with talking(limits=replace(QUICK, body_timeout=0.2)) as client:
        client.h2.send_headers(1, [(":method", "POST"), *GET[1:]])
        client.flush()
        client.until(lambda: 1 in client.heads)
        assert client.heads[1][b":status"] == b"408"


@pytest.mark.parametrize("requests", [0, 1])
def test_an_idle_connection_is_closed(requests):
    with talking(limits=replace(QUICK, keep_alive_timeout=0.1)) as client:
        for _ in range(requests):
            client.body(client.ask())
        client.until_closed()
        assert client.goaway == ErrorCodes.NO_ERROR


def test_what_is_no_request_does_not_keep_a_connection_open():
    """Not pings, nor the bytes of a request that never becomes complete."""
    for data in (PingFrame(0, b"12345678").serialize(), b"\0"):
        with talking(limits=replace(QUICK, keep_alive_timeout=0.2)) as client:
            client.until(lambda client=client: client.h2.max_outbound_frame_size)
            client.sock.sendall(raw(1, 5, 1, bytes(10_000))[:9] if data == b"\0" else b"")
            reader = weald.spawn(client.until_closed)
            with pytest.raises(OSError):
                while True:
                    client.sock.sendall(data)
                    weald.sleep(0.02)
            reader.join(PATIENCE)
            assert reader.ready()


def test_draining_an_idle_connection():
    with serving(app, http2=True) as server:
        client = Client(server)
        client.body(client.ask())
        draining = weald.spawn(server.drain, 20, 0.0)
        client.until_closed()
        assert client.goaway == ErrorCodes.NO_ERROR
        assert draining.get(timeout=PATIENCE) is True
        client.sock.close()


def test_draining():
    entered, go_on = Event(), Event()

    def waits(environ, start_response):
        entered.set()
        assert go_on.wait(PATIENCE)
        return list(app(environ, start_response))

    with serving(waits, http2=True) as server:
        client = Client(server)
        stream = client.ask()
        assert entered.wait(PATIENCE)
        draining = weald.spawn(server.drain, 20, 0.1)
        wait_until(lambda: server.closed)
        go_on.set()
        assert client.body(stream) == b"GET / 0"
        client.until_closed()
        assert draining.get(timeout=PATIENCE) is True
        client.sock.close()


def test_draining_lets_in_what_is_under_way():
    """Section 6.8: a first GOAWAY that refuses nothing, and the final one, once the client has read the first."""
    told = []
    entered, go_on = Event(), Event()

    def waits(environ, start_response):
        entered.set()
        assert go_on.wait(PATIENCE)
        return list(app(environ, start_response))

    def hear(frame):
        told.append(frame.last_stream_id)
        return [], []

    with serving(waits, http2=True) as server:
        client = Client(server)
        client.h2._frame_dispatch_table[GoAwayFrame] = hear
        streams = [client.ask("/1")]
        assert entered.wait(PATIENCE)
        draining = weald.spawn(server.drain, 20, 20)
        wait_until(lambda: server.closed)
        streams += [client.ask("/2")]
        wait_until(lambda: len(next(iter(server._connections)).streams) == 2)
        streams += [client.ask("/3")]  # the client has read nothing yet
        client.until(lambda: len(told) == 2)
        late = client.ask("/4")
        client.until(lambda: late in client.resets)
        go_on.set()
        assert [client.body(stream) for stream in streams] == [b"GET /1 0", b"GET /2 0", b"GET /3 0"]
        client.until_closed()
        assert told == [2**31 - 1, streams[-1]]
        assert client.resets == {late: ErrorCodes.REFUSED_STREAM}
        assert draining.get(timeout=PATIENCE) is True
        client.sock.close()


def test_who_does_not_answer_the_ping_is_served_no_more_either():
    with serving(app, http2=True, limits=replace(QUICK, requests=1)) as server:
        client = Client(server)
        client.h2._frame_dispatch_table[GoAwayFrame] = lambda frame: ([], [])
        client.h2._frame_dispatch_table[PingFrame] = lambda frame: ([], [])
        answered = 0
        for _ in range(400):
            stream = client.ask()
            client.until(lambda stream=stream: stream in client.ended | set(client.resets) or client.closed)
            if stream not in client.ended:
                break
            answered += 1
        assert 1 <= answered <= 110
        client.sock.close()
