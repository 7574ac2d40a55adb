"""HTTP/2 clients that would have the server keep, compute or wait for more than is good: what they get, and get not."""

from contextlib import closing
from dataclasses import replace
from itertools import chain

import pytest
from h2.errors import ErrorCodes
from helpers import PATIENCE, recorded_errors, settle, wait_until
from hpack import Encoder
from test_http_http2_conformance import (
    DATA,
    END_HEADERS,
    END_STREAM,
    ENDS,
    GET,
    HEADERS,
    INTERFACES,
    POST,
    PREFACE,
    SETTINGS,
    WAIT,
    Client,
    block,
    frame,
    request,
    setting,
    talking,
    window,
)
from test_pywsgi import QUICK, connect, serving

from weald.asgi import ASGIServer
from weald.event import Event

pytestmark = pytest.mark.usefixtures("io_loop")

LARGEST = (1 << 31) - 1


def of_asgi(answer):
    """An ASGI application that answers with what the WSGI application `answer` does, and options for its server."""

    async def app(scope, receive, send):
        started = []
        environ = {"PATH_INFO": scope["path"], "QUERY_STRING": scope["query_string"].decode()}
        pieces = answer(environ, lambda *args: started.extend(args))
        first = next(pieces := iter(pieces), b"")  # a generator begins only now
        fields = [(name.encode(), value.encode()) for name, value in started[1]]
        await send({"type": "http.response.start", "status": int(started[0][:3]), "headers": fields})
        try:
            for piece in chain([first], pieces):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body"})
        finally:
            getattr(pieces, "close", bool)()

    return app, {"server_class": ASGIServer, "lifespan": "off"}


def running(answer, interface, **options):
    """A server of `answer`, by that interface."""
    app, more = (answer, {}) if interface == "wsgi" else of_asgi(answer)
    return serving(app, http2=True, **more, **options)


def said(client, fields=()):
    """One answer to GET /?…, whose status must be 200; the client's next stream."""
    stream = max(client.statuses, default=-1) + 2
    client.send(request(stream, [GET[0], (":path", "/?" + "q" * stream), *GET[2:], *fields]))
    client.until(lambda: stream in client.ended)
    assert client.statuses[stream] == 200
    return stream


# ---------------------------------------------------------------- tables and settings


@INTERFACES
def test_a_client_does_not_decide_how_many_fields_are_remembered(interface):
    """RFC 7541 section 4.2: the encoder may use less than the client allows, which is 4 GiB here."""

    def echo(environ, start_response):
        start_response("200 OK", [("X-Query", environ["QUERY_STRING"] * 20)])
        return [b"x"]

    with running(echo, interface) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(PREFACE + setting(1, (1 << 32) - 1))
        for _ in range(50):
            said(client)  # whose decoder allows 4,096 bytes
        (connection,) = server._connections
        assert connection._h2.encoder.header_table._current_size <= 4096
        client.file.close()


@pytest.mark.parametrize("sizes", [[100, 100], [0, 4096, 0], [0, 100, 4096, 100], [1 << 20, 50, 50, 50]])
def test_a_table_that_the_client_makes_smaller(sizes):
    """Section 4.2: a field block then begins with the new size; after several, with the smallest and the last."""
    with talking(PREFACE + frame(SETTINGS)) as (client, _):
        client.send(request(1))
        client.until(lambda: 1 in client.ended)
        for size in sizes:
            client.send(setting(1, size))
        client.until(lambda: client.acknowledged == 1 + len(sizes))
        client.decoder.max_allowed_table_size = min(sizes[-1], 4096)
        client.send(request(3))
        client.until(lambda: 3 in client.ended)
        client.send(request(5))
        client.until(lambda: 5 in client.ended)
        assert set(client.statuses.values()) == {200}
        first = next(payload for kind, _, stream, payload in client.frames if (kind, stream) == (HEADERS, 3))
        count = 0
        while first[0] & 0xE0 == 0x20:  # a new size
            first = first[1:] if first[0] & 0x1F < 31 else first[1:].lstrip(bytes(range(128, 256)))[1:]
            count += 1
        assert 1 <= count <= 2


def test_settings_that_alternate_without_end_are_not_all_kept():
    with talking() as (client, _):
        for _ in range(300):
            client.send(setting(1, 0) + setting(1, 4096))
        client.ping()
        (connection,) = client.server._connections
        assert len(connection._h2.encoder.table_size_changes) <= 2


# ---------------------------------------------------------------- frames and windows


@INTERFACES
def test_a_client_that_takes_huge_frames_holds_up_no_other_stream(interface):
    """MAX_FRAME_SIZE of 16 MB: a frame of that size would have to be sent before anything else."""

    def large(environ, start_response):
        start_response("200 OK", [])
        return [b"x" * 8_000_000] if environ["PATH_INFO"] == "/" else [b"small"]

    preface = PREFACE + setting(5, (1 << 24) - 1) + setting(4, LARGEST) + window(LARGEST - 65535)
    with running(large, interface) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(preface + request(1))
        client.until(lambda: 1 in client.bodies)
        client.send(request(3, [GET[0], (":path", "/small"), *GET[2:]]))
        client.until(lambda: {1, 3} <= client.ended)
        assert max(len(payload) for kind, _, _, payload in client.frames if kind == DATA) <= 65536
        assert (len(client.bodies[1]), client.bodies[3]) == (8_000_000, b"small")
        client.file.close()


@INTERFACES
def test_a_client_that_reads_nothing_holds_nothing_up(interface):
    """A hundred large answers that nobody reads: others are served, and the client is cut off."""
    ended = []

    def large(environ, start_response):
        start_response("200 OK", [])
        try:
            for _ in range(1000):
                yield b"x" * 100_000
        finally:
            ended.append(environ["PATH_INFO"])

    limits = replace(QUICK, write_timeout=1.0)
    with running(large, interface, limits=limits) as server, closing(connect(server)) as sock:
        sock.sendall(PREFACE + setting(4, LARGEST) + window(LARGEST - 65535))
        sock.sendall(b"".join(request(stream) for stream in range(1, 201, 2)))
        with closing(connect(server)) as other:
            client = Client(other)
            client.send(PREFACE + setting(4, 10) + request(1))
            client.until(lambda: len(client.bodies.get(1, b"")) == 10)
            client.file.close()
        wait_until(lambda: len(ended) >= 101)


@INTERFACES
def test_a_window_that_opens_byte_by_byte(interface):
    with talking(PREFACE + setting(4, 0), interface) as (client, _):
        client.send(request(1, [GET[0], (":path", "/long"), *GET[2:]]))
        for size in range(1, 101):
            client.send(window(1, 1))
            client.until(lambda size=size: len(client.bodies.get(1, b"")) == size)
        client.until(lambda: 1 in client.ended)


def test_what_is_under_way_to_a_refused_upload_excuses_no_other_frames():
    """Who has provoked resets of uploads may send what was under way, but not as many empty frames instead."""

    def refuses(environ, start_response):
        start_response("403 Forbidden", [])
        return [b"no"]

    limits = replace(QUICK, http2_control_rate=1.0)
    with serving(refuses, http2=True, limits=limits) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(PREFACE + frame(SETTINGS))
        for stream in range(1, 11, 2):
            client.send(request(stream, POST, END_HEADERS))
            client.until(lambda stream=stream: stream in client.resets)
        for _ in range(400):
            client.send(frame(DATA, 0, 1) * 100)
        client.until_closed()
        assert client.goaway in (ErrorCodes.ENHANCE_YOUR_CALM, None)  # what is still sent may have it thrown away
        client.file.close()


# ---------------------------------------------------------------- beginnings


@INTERFACES
def test_a_preface_in_single_bytes(interface):
    data = PREFACE + frame(SETTINGS) + request()
    with talking(b"", interface) as (client, served):
        for byte in data:
            client.send(bytes([byte]))
        client.until(lambda: 1 in client.ended)
        assert client.statuses == {1: 200}
    assert served == ["/"]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", None),
        (b"PRI * HTTP/2.0\r\nHost: a\r\n\r\nSM\r\n\r\n", 505),
        (b"PRI / HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"PRI * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET * HTTP/2.0\r\n\r\n", 505),
        (b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n" + PREFACE, 505),
    ],
)
@INTERFACES
def test_what_looks_like_a_preface(data, status, interface):
    with talking(b"", interface) as (client, served):
        client.send(data + frame(SETTINGS) + request())
        found = client.sock.makefile("rb").read()
        statuses = [int(part[:3]) for part in found.split(b"HTTP/1.1 ")[1:]]
        assert statuses[-1:] == ([] if status is None else [status])
    assert served in ([], ["/first"])


# ---------------------------------------------------------------- fields


@INTERFACES
def test_parts_of_a_cookie_are_one_field_to_the_application(interface):
    """RFC 9113 section 8.2.3: joined before they leave HTTP/2; browsers send each cookie in a part of its own."""
    seen = []

    def app(environ, start_response):
        seen.append(environ["HTTP_COOKIE"])
        start_response("200 OK", [])
        return []

    async def asgi_app(scope, receive, send):
        seen.append("|".join(value.decode() for name, value in scope["headers"] if name == b"cookie"))
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    options = {"server_class": ASGIServer, "lifespan": "off"} if interface == "asgi" else {}
    served = asgi_app if interface == "asgi" else app
    cookies = [("cookie", f"name{i}=value") for i in range(150)]
    with serving(served, http2=True, **options) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(PREFACE + frame(SETTINGS))
        client.send(request(1, [*GET, cookies[0], ("x-between", "y"), *cookies[1:]]))
        client.until(lambda: 1 in client.ended)
        assert client.statuses == {1: 200}
        client.file.close()
    assert seen == ["; ".join(value for _, value in cookies)]


@INTERFACES
def test_a_field_of_a_response_that_http_2_does_not_have(interface):
    """Section 8.2.2: left out, as with HTTP/1.1's others."""
    fields = [("TE", "gzip"), ("Connection", "keep-alive"), ("Keep-Alive", "5"), ("Upgrade", "h2c"), ("X-Own", "1")]

    def app(environ, start_response):
        start_response("200 OK", fields)
        return [b"body"]

    with running(app, interface) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(PREFACE + frame(SETTINGS) + request())
        client.until(lambda: 1 in client.ended or 1 in client.resets)
        assert (client.statuses, client.bodies) == ({1: 200}, {1: b"body"})
        client.file.close()


def test_bytes_of_headers_that_never_end_are_not_kept():
    """CONTINUATION without end, in frames of the largest size: cut off long before a megabyte."""
    with talking() as (client, _):
        data = Encoder().encode([("x", "y" * 15000, True)])
        client.send(frame(HEADERS, END_STREAM, 1, block(GET)))
        for _ in range(100):
            client.send(frame(9, 0, 1, data))
        client.until_closed()
        assert client.goaway in (ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.PROTOCOL_ERROR)


def test_an_application_is_not_held_by_a_stream_that_has_gone():
    """The client resets a stream that waits for room in its window: the application ends at once."""
    ended = Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1000
        finally:
            ended.set()

    with serving(app, http2=True) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(PREFACE + setting(4, 10) + request(1))
        client.until(lambda: len(client.bodies.get(1, b"")) == 10)
        client.send(frame(3, 0, 1, (8).to_bytes(4, "big")))
        assert ended.wait(PATIENCE)
        client.send(frame(HEADERS, ENDS, 3, block(WAIT)) + frame(6, payload=bytes(8)))
        client.until(lambda: client.pongs)
        client.file.close()


@INTERFACES
@pytest.mark.parametrize("how", ["closes", "resets"])
def test_a_client_that_has_left_before_the_answer_is_nobodys_error(interface, how):
    begun, left, answered = Event(), Event(), Event()

    def app(environ, start_response):
        begun.set()
        assert left.wait(PATIENCE)
        answered.set()
        start_response("200 OK", [])
        return [b"x"]

    with recorded_errors() as errors, running(app, interface) as server, closing(connect(server)) as sock:
        client = Client(sock)
        client.send(PREFACE + frame(SETTINGS) + request())
        assert begun.wait(PATIENCE)
        if how == "resets":
            client.send(frame(3, 0, 1, (8).to_bytes(4, "big")))
            client.ping()
        else:
            client.file.close()
            sock.close()
            wait_until(lambda: all(connection.socket is None for connection in server._connections))
        left.set()
        assert answered.wait(PATIENCE)
        settle()
        client.file.close()
    assert errors == []
