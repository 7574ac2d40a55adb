"""The ASGI server over real connections: scopes and events, HTTP/1.1 and HTTP/2, errors, limits, lifespan, mounts."""

import asyncio
import fcntl
import functools
import gc
import io
import os
import sys
import termios
from contextlib import closing, contextmanager
from dataclasses import replace
from socket import SO_RCVBUF, SOL_SOCKET

import pytest
from helpers import PATIENCE, recorded_errors, run_patched, send_what_fits, settle, wait_until
from test_http_http2 import Client
from test_http_protocol import BAD_CHUNKS, BAD_HEADS
from test_pywsgi import (
    ABSOLUTE,
    BAD_ABSOLUTE,
    CHUNKED,
    GET,
    LAST,
    QUICK,
    Response,
    connect,
    curl,
    one,
    responses,
    serving,
    talk,
    url,
)

import weald.http.asgi
from weald import socket, ssl
from weald.asgi import ASGIServer, StartupError, interface_of
from weald.event import Event

pytestmark = pytest.mark.usefixtures("io_loop")

POST = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\n"


async def answer(send, body=b"hello", status=200, *fields):
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


async def read(receive):
    body = bytearray()
    while True:
        event = await receive()
        assert event["type"] == "http.request", event
        body += event["body"]
        if not event["more_body"]:
            return bytes(body)


async def hello(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send)


async def echo(scope, receive, send):
    await answer(send, await read(receive))


@contextmanager
def asgi(app, **options):
    options.setdefault("lifespan", "off")
    with serving(app, server_class=ASGIServer, **options) as server:
        yield server


def logged(server):
    text = server.error_log.getvalue()
    return text


# ---------------------------------------------------------------- requests


def test_hello():
    with asgi(hello) as server:
        first, last = responses(server, GET + LAST)
    assert first.status == last.status == 200
    assert first.body == last.body == b"hello"
    assert first.fields["content-length"] == "5"
    assert first.fields["date"].endswith(" GMT")
    assert (first.fields.get("connection"), last.fields["connection"]) == (None, "close")


def test_the_scope():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answer(send)

    target = b"/a%20%C3%A4%2F?b=%20&c"
    fields = b"Host: x\r\nX-Two: 1\r\nX-Two:  2 \r\nX_Under: 1\r\nProxy: evil\r\n"
    with asgi(app, root_path="/root") as server:
        one(server, b"GET " + target + b" HTTP/1.1\r\n" + fields + b"Connection: close\r\n\r\n")
        one(server, b"GET /root/x HTTP/1.0\r\n\r\n")
        one(server, b"GET http://other:80/y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    first, second, third = scopes
    client = first.pop("client")
    assert client[0] == "127.0.0.1"
    assert client[1] > 0
    assert first == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "server": ("127.0.0.1", server.server_port or first["server"][1]),
        "scheme": "http",
        "method": "GET",
        "root_path": "/root",
        "path": "/root/a ä/",
        "raw_path": b"/root/a%20%C3%A4%2F",
        "query_string": b"b=%20&c",
        "headers": [(b"host", b"x"), (b"x-two", b"1"), (b"x-two", b"2"), (b"connection", b"close")],
        "extensions": {"http.response.pathsend": {}, "http.response.early_hint": {}},
    }
    assert (second["http_version"], second["path"], second["extensions"]) == (
        "1.0",
        "/root/x",
        {"http.response.pathsend": {}},
    )
    assert (third["path"], third["headers"][0]) == ("/root/y", (b"host", b"other:80"))


@pytest.mark.parametrize(("target", "host", "expected", "path"), ABSOLUTE)
def test_a_target_in_absolute_form_decides(target, host, expected, path):
    async def app(scope, receive, send):
        hosts = [value.decode() for name, value in scope["headers"] if name == b"host"]
        await answer(send, f"{' and '.join(hosts)} {scope['path']}".encode())

    with asgi(app) as server:
        response = one(server, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert (response.status, response.body) == (200, f"{expected} {path}".encode())


@pytest.mark.parametrize("target", BAD_ABSOLUTE)
def test_a_bad_target_in_absolute_form(target):
    with asgi(hello) as server:
        assert one(server, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + LAST).status == 400


def test_bodies():
    """With their heads, in pieces, in chunks, large, none at all; with a further request behind them."""
    large = bytes(range(256)) * 1000
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with asgi(echo) as server:
        found = responses(server, head % 5 + b"12345" + head % len(large) + large + GET + LAST)
        assert [response.body for response in found] == [b"12345", large, b"", b""]
        chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        assert one(server, CHUNKED + chunks).body == b"hello world"
        with closing(connect(server)) as sock:
            for piece in (CHUNKED, chunks[:7], chunks[7:12], chunks[12:]):
                sock.sendall(piece)
                settle()
            assert Response(sock.makefile("rb")).body == b"hello world"


def test_a_body_comes_as_it_is_asked_for():
    """The server does not read ahead: a client that sends much waits until the application reads."""
    asked = asyncio.Event()
    sizes = []

    async def app(scope, receive, send):
        sizes.append(len((await receive())["body"]))
        await asked.wait()
        sizes.append(len(await read(receive)))
        await answer(send)

    size = 50_000_000
    with asgi(app) as server, closing(connect(server)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size)
        body = bytes(size)
        sent = send_what_fits(sock, body)
        assert 0 < sent < size
        server.loop_of_applications.call_soon(asked.set)
        sock.sendall(body[sent:])
        assert Response(sock.makefile("rb")).status == 200
    assert sum(sizes) == size


@pytest.mark.parametrize("end", ["more", "close_notify", "nothing", "no TLS"])
def test_records_that_have_come_are_passed_on_together(certificate, end):
    """What comes behind them is noticed, too: more of the body, an end, an error."""
    go, begun, events = asyncio.Event(), [], []

    async def app(scope, receive, send):
        begun.append(scope)
        await go.wait()
        while not events or events[-1].get("more_body"):
            events.append(await receive())
        if events[-1]["type"] == "http.request":
            await answer(send)

    with asgi(app, ssl_context=certificate.server_context()) as server, closing(connect(server)) as plain:
        sock = ssl.cooperative(certificate.client_context()).wrap_socket(plain, server_hostname="localhost")
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 50000\r\n\r\n")
        wait_until(lambda: begun)
        (connection,) = server._connections
        sock.sendall(bytes(2 * 16384))
        if end == "close_notify":
            sock.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                sock.unwrap()
        elif end == "no TLS":
            socket.socket(fileno=os.dup(sock.fileno())).sendall(b"x" * 100)
        elif end == "nothing":
            sock.shutdown(socket.SHUT_WR)
        wait_until(lambda: unread(connection.socket) > 2 * 16384 + (20 if end == "close_notify" else 0))
        server.loop_of_applications.call_soon(go.set)
        if end == "more":
            wait_until(lambda: events)
            sock.sendall(bytes(50_000 - 2 * 16384))
            assert Response(sock.makefile("rb")).status == 200
            assert sum(len(event["body"]) for event in events) == 50_000
        else:
            wait_until(lambda: len(events) == 2)
            assert events[1] == {"type": "http.disconnect"}
        assert len(events[0]["body"]) == 2 * 16384


def unread(sock):
    """How many bytes have come for a socket and were not read."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("asks", [True, False])
def test_100_continue_is_sent_when_the_body_is_asked_for(asks):
    go = Event()

    async def app(scope, receive, send):
        go.wait()
        await answer(send, await read(receive) if asks else b"no", 200 if asks else 403)

    with asgi(app) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        settle()
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(PATIENCE)
        go.set()
        if asks:
            assert Response(file).status == 100
            sock.sendall(b"hello")
            assert Response(file).body == b"hello"
        else:
            response = Response(file)
            assert (response.status, response.body) == (403, b"no")
            assert file.read() == b""  # it may send the body or not: nothing behind it can be read


def test_awaitables_of_receive_and_send_may_be_tasks():
    async def app(scope, receive, send):
        first = await asyncio.create_task(receive())
        second = asyncio.ensure_future(receive())
        await asyncio.wait([second], timeout=0.01)
        assert not second.done()
        second.cancel()
        await asyncio.create_task(send({"type": "http.response.start", "status": 200}))
        await asyncio.wait_for(send({"type": "http.response.body", "body": first["body"]}), 10)

    with asgi(app) as server:
        assert one(server, POST + b"hello").body == b"hello"


# ---------------------------------------------------------------- responses


@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [
        ([], [0]),
        ([10], [10]),
        ([10, 20], [30]),
        ([10_000], [10_000]),
        ([10_000, 20_000], [10_000, 20_000]),
        ([10_000, 10], [10_000, 10]),
    ],
)
def test_a_chunked_body_that_has_come_is_given_without_waiting(sizes, pieces):
    """An application gets what is there at once, in the greenlet that it began in; the last piece says that it is."""
    seen = []

    async def app(scope, receive, send):
        more = True
        while more:
            asked = receive()
            seen.append(asked.__class__.__name__)
            event = await asked
            seen.append((len(event["body"]), more := event["more_body"]))
        await answer(send)

    chunks = b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)
    with asgi(app) as server:
        assert one(server, CHUNKED + chunks + b"0\r\n\r\n").status == 200
    kinds, events = seen[::2], seen[1::2]
    assert "Waiting" not in kinds
    assert events == [*((size, True) for size in pieces[:-1]), (pieces[-1], False)]


def test_chunks_go_out_one_by_one():
    go = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await go.wait()
        await send({"type": "http.response.body", "body": bytearray(b"two"), "more_body": True})
        await send({"type": "http.response.body"})

    with asgi(app) as server, closing(connect(server)) as sock:
        sock.sendall(LAST)
        file = sock.makefile("rb")
        while file.readline() != b"\r\n":
            pass
        assert file.readline() + file.readline() == b"3\r\none\r\n"
        server.loop_of_applications.call_soon(go.set)
        assert file.read() == b"3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize("length", [b"5", None])
def test_head(length):
    async def app(scope, receive, send):
        await answer(send, b"hello", 200, *([(b"content-length", length)] if length else []))

    with asgi(app) as server:
        head, last = responses(server, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + LAST, True)
    assert (head.fields["content-length"], last.body) == ("5", b"hello")


@pytest.mark.parametrize("status", [204, 304])
def test_no_body(status):
    async def app(scope, receive, send):
        await answer(send, b"", status, *([(b"content-length", b"7")] if status == 304 else []))

    with asgi(app) as server:
        found = responses(server, GET + LAST)
    assert [response.status for response in found] == [status, status]
    assert {response.fields.get("content-length") for response in found} == {"7" if status == 304 else None}


def test_http_1_0_without_a_length_ends_with_the_connection():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"transfer-encoding", b"chunked")]})
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        await send({"type": "http.response.body", "body": b"two"})

    with asgi(app) as server:
        response = one(server, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert response.body == b"onetwo"
    assert "transfer-encoding" not in response.fields


def test_a_client_that_takes_nothing_holds_up_its_application_alone():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/":
            for _ in range(200):
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
                sent.append(100_000)
        await send({"type": "http.response.body", "body": b"end"})

    with asgi(app) as server:
        with closing(socket.socket()) as sock:
            sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.server_port))
            sock.sendall(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            wait_until(lambda: sent)
            settle()
            assert sum(sent) < 20_000_000
            assert one(server, LAST).body == b"end"
            response = Response(sock.makefile("rb"))
        assert len(response.body) == 20_000_003


def test_two_tasks_that_send_take_turns():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def pieces(letter):
            for _ in range(20):
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": letter * 200_000, "more_body": True})

        await asyncio.gather(pieces(b"a"), pieces(b"b"), pieces(b"c"))
        await send({"type": "http.response.body"})

    with asgi(app) as server, closing(socket.socket()) as sock:
        sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.server_port))
        sock.sendall(LAST)
        body = Response(sock.makefile("rb")).body  # whose chunks must be whole
    assert [body.count(letter) for letter in (b"a", b"b", b"c")] == [4_000_000] * 3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("size", [0, 10, 1_000_000])
def test_pathsend(method, tls, size, tmp_path, certificate):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(250)) * (size // 250) + b"x" * (size % 250))

    async def app(scope, receive, send):
        assert "http.response.pathsend" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": str(path)})

    options = {"certfile": certificate.cert, "keyfile": certificate.key} if tls else {}
    with asgi(app, **options) as server:
        if tls:
            more = ["--head"] if method == "HEAD" else ["--output", str(tmp_path / "out")]
            out = curl(*more, "--cacert", certificate.cert, url(server, "https"))
            assert (
                f"content-length: {size}\r\n" in out
                if method == "HEAD"
                else ((tmp_path / "out").read_bytes() == path.read_bytes())
            )
            return
        response, last = responses(server, GET.replace(b"GET", method.encode()) + LAST, method == "HEAD")
        assert response.fields["content-length"] == str(size)
        assert response.body == (b"" if method == "HEAD" else path.read_bytes())
        assert last.body == path.read_bytes()


def test_trailers_and_early_hints():
    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]})
        wanted = "http.response.trailers" in scope["extensions"]
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": wanted})
        await send({"type": "http.response.body", "body": b"hello"})
        if wanted:
            await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True})
            await send({"type": "http.response.trailers", "headers": [(b"x-end", b"2")]})

    hints = "</style.css>; rel=preload"
    with asgi(app, http2=True) as server:
        found = responses(server, GET.replace(b"Host: a", b"Host: a\r\nTE: trailers") + LAST)
        assert [response.status for response in found] == [103, 200, 103, 200]
        assert [response.fields.get("link") for response in found] == [hints, None, hints, None]
        assert found[1].trailers == {"x-sum": "1", "x-end": "2"}
        assert (found[3].body, found[3].trailers) == (b"hello", {})
        client = Client(server)
        with closing(client.sock):
            stream = client.ask(fields=[("te", "trailers")])
            assert client.body(stream) == b"hello"
            assert [(bytes(name), bytes(value)) for name, value in client.trailers[stream]] == [
                (b"x-sum", b"1"),
                (b"x-end", b"2"),
            ]


def test_an_application_goes_on_after_its_response():
    """As Starlette's background tasks do; the connection serves other requests meanwhile."""
    go = asyncio.Event()
    events = []

    async def app(scope, receive, send):
        await answer(send)
        if scope["path"] == "/":
            await go.wait()
            events.append(await receive())

    with asgi(app) as server:
        found = responses(server, GET + LAST)
        assert [response.body for response in found] == [b"hello", b"hello"]
        assert (len(server.detached), events) == (1, [])
        server.loop_of_applications.call_soon(go.set)
        wait_until(lambda: not server.detached)
    assert events == [{"type": "http.disconnect"}]


# ---------------------------------------------------------------- clients that leave


@pytest.mark.parametrize("data", [GET, POST + b"12"])
def test_who_asks_hears_that_the_client_has_left(data):
    events = []

    async def app(scope, receive, send):
        while not events or events[-1]["type"] != "http.disconnect":
            events.append(await receive())
        events.append(await receive())
        with pytest.raises(OSError, match="left"):
            await answer(send)
        events.append("end")

    with recorded_errors() as errors, asgi(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall(data)
            wait_until(lambda: events)
        wait_until(lambda: events[-1] == "end")
    assert [event["type"] for event in events[:-1]] == ["http.request", "http.disconnect", "http.disconnect"]
    assert errors == []


def test_a_client_that_leaves_while_it_is_sent_to():
    ended = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
                await asyncio.sleep(0)
        except OSError as error:
            ended.append(error)
            raise

    with recorded_errors() as errors, asgi(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall(GET)
            sock.recv(1000)
        wait_until(lambda: ended)
        wait_until(lambda: not server._connections)
    assert errors == []


def test_a_client_that_leaves_while_nobody_asks_frees_its_connection(monkeypatch):
    """The server checks now and then; the application notices when it sends."""
    monkeypatch.setattr(weald.http.asgi, "LOOK", 0.01)
    go = asyncio.Event()
    ended = []

    async def app(scope, receive, send):
        await go.wait()
        with pytest.raises(OSError, match="left"):
            await answer(send)
        ended.append(1)

    with asgi(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall(GET)
            wait_until(lambda: server._calls())
        wait_until(lambda: not server._connections)
        assert len(server.detached) == 1
        server.loop_of_applications.call_soon(go.set)
        wait_until(lambda: ended)


def test_a_receive_that_was_cancelled_loses_nothing():
    async def app(scope, receive, send):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receive(), 0.01)
        waits.append(1)
        await answer(send, await read(receive))

    waits = []
    with asgi(app) as server, closing(connect(server)) as sock:
        sock.sendall(POST)
        wait_until(lambda: waits)
        sock.sendall(b"hello")
        assert Response(sock.makefile("rb")).body == b"hello"


def test_who_watches_the_client_does_not_keep_the_connection():
    """The wait for the client, made for the application, ends with the response; bytes of the next request are kept."""

    async def app(scope, receive, send):
        await read(receive)
        watching = asyncio.ensure_future(receive())
        await asyncio.sleep(0.01)
        await answer(send)
        watching.cancel()

    with asgi(app) as server:
        assert [response.status for response in responses(server, GET * 3 + LAST)] == [200] * 4
        with closing(connect(server)) as sock, sock.makefile("rb") as file:
            for _ in range(3):
                sock.sendall(GET)
                assert Response(file).body == b"hello"


# ---------------------------------------------------------------- applications that fail


async def _start(send, **more):
    await send({"type": "http.response.start", "status": 200, **more})


FAULTS = {}


def fault(says):
    def add(function):
        FAULTS[function.__name__] = function, says
        return function

    return add


@fault("KeyError: 'a bug'")
async def raises(send):
    raise KeyError("a bug")


@fault("KeyError: 'a bug'")
async def raises_later(send):
    await asyncio.sleep(0)
    raise KeyError("a bug")


@fault("ConnectionRefusedError: of another server")
async def raises_an_error_of_another_connection(send):
    raise ConnectionRefusedError("of another server")


@fault("ended without a response")
async def returns(send):
    pass


@fault("ended without a response")
async def sends_a_head_only(send):
    await _start(send)


@fault("cancelled")
async def is_cancelled(send):
    await asyncio.sleep(0)
    asyncio.current_task().cancel()  # type: ignore[union-attr]
    await asyncio.sleep(10)


@fault("http.response.body was sent before http.response.start")
async def sends_no_head(send):
    await send({"type": "http.response.body"})


@fault("http.response.start was sent twice")
async def starts_twice(send):
    await _start(send)
    await _start(send)


@fault("may not be sent here: 'http.response.start!'")
async def sends_nonsense(send):
    await send({"type": "http.response.start!"})


@fault("a control character in the field b'a'")
async def splits_its_head(send):
    await _start(send, headers=[(b"a", b"b\r\nc: d")])


@fault("not the name of a field: b'a b'")
async def has_a_bad_name(send):
    await _start(send, headers=[(b"a b", b"c")])


@fault("must be bytes, not 'b'")
async def has_a_str(send):
    await _start(send, headers=[(b"a", "b")])


@fault("a status must be a number, not '200'")
async def has_no_number(send):
    await send({"type": "http.response.start", "status": "200"})


@fault("must be from 200 on: 101")
async def has_an_odd_status(send):
    await send({"type": "http.response.start", "status": 101})


@fault("content-length was given twice")
async def has_two_lengths(send):
    await _start(send, headers=[(b"content-length", b"1"), (b"Content-Length", b"1")])


@fault("must be bytes, not str")
async def sends_a_text(send):
    await _start(send)
    await send({"type": "http.response.body", "body": "text"})


@fault("longer than its Content-Length")
async def sends_too_much(send):
    await _start(send, headers=[(b"content-length", b"1")])
    await send({"type": "http.response.body", "body": b"12"})


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("where", ["alone", "in a task"])
def test_a_fault_is_answered_500_and_logged(name, where, capsys):
    function, says = FAULTS[name]

    async def app(scope, receive, send):
        if scope["path"] == "/last":
            return await answer(send)
        if where == "in a task":
            await asyncio.sleep(0)
        await function(send)  # type: ignore[misc]

    with asgi(app) as server:
        found = responses(server, GET + LAST)
        log = logged(server) + capsys.readouterr().err
    if name == "sends_too_much":  # its head has been sent, so no error can be sent any more
        assert (len(found), found[0].status) == (1, 200)
    else:
        assert [response.status for response in found] == [500, 200]
    assert says in log
    assert "GET / HTTP/1.1" in log


def test_a_response_that_is_cut_short_ends_the_connection():
    async def app(scope, receive, send):
        await _start(send)
        await send({"type": "http.response.body", "body": b"one", "more_body": True})

    with asgi(app) as server:
        assert talk(server, GET + LAST).endswith(b"\r\n\r\n3\r\none\r\n")
        assert "GET / HTTP/1.1: the application ended in the middle of its response" in logged(server)


def test_less_than_content_length_costs_the_connection():
    async def app(scope, receive, send):
        await answer(send, b"one", 200, (b"content-length", b"5"))

    with asgi(app) as server:
        assert talk(server, GET + LAST).count(b"HTTP/1.1 ") == 1
        assert "2 bytes less than its Content-Length" in logged(server)


def test_what_is_sent_after_the_end_is_refused_and_logged():
    async def app(scope, receive, send):
        await answer(send)
        if scope["path"] == "/":
            await asyncio.sleep(0)
            await answer(send, b"twice")

    with recorded_errors() as errors, asgi(app) as server:
        assert [response.body for response in responses(server, GET + LAST)] == [b"hello", b"hello"]
        wait_until(lambda: errors)
    (context, kind, error, _), *more = errors
    assert (context, kind, more) == ("GET / HTTP/1.1", RuntimeError, [])
    assert "'http.response.start' was sent after the response's end" in str(error)


@pytest.mark.parametrize("version", ["1.1", "2"])
def test_an_application_that_never_answers_is_cut_off_with_the_server(version):
    ended = []

    async def app(scope, receive, send):
        try:
            await asyncio.sleep(1e6)
        finally:
            ended.append(1)

    with asgi(app, http2=True) as server, closing(connect(server)) as sock:
        if version == "2":
            client = Client(server)
            client.ask()
        else:
            sock.sendall(GET)
        wait_until(lambda: server._calls())
        assert not server.drain(0.1)
        assert f"GET / HTTP/{version}: the application had not ended when the server did: cancelled" in logged(server)
        wait_until(lambda: ended)


def test_an_application_that_ignores_that_its_client_has_left_is_logged(monkeypatch):
    go = asyncio.Event()

    async def app(scope, receive, send):
        assert [(await receive())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]
        await go.wait()

    with asgi(app) as server:
        server.patience = 0.01
        with closing(connect(server)) as sock:
            sock.sendall(GET)
        wait_until(lambda: logged(server))
        assert "GET / HTTP/1.1: the application goes on, 0.01 seconds after its client has left" in logged(server)
        assert not server._connections
        server.loop_of_applications.call_soon(go.set)


# ---------------------------------------------------------------- the wire


def test_bad_requests_are_answered_and_nothing_behind_them_is_read():
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    paths = []

    async def noted(scope, receive, send):
        paths.append(scope["path"])
        try:
            await read(receive)
        except AssertionError:  # http.disconnect
            return
        await answer(send)

    with asgi(noted) as server:
        for status, name, data in BAD_HEADS:
            response = one(server, data + smuggled)
            assert (response.status, response.body) == (status, b""), name
            assert response.fields["connection"] == "close", name
        assert paths == []
        for status, name, data in BAD_CHUNKS:
            response = one(server, CHUNKED.replace(b"Connection: close\r\n", b"") + data + smuggled)
            assert response.status == status, name
            assert response.fields["connection"] == "close", name
        assert set(paths) == {"/"}


def test_limits():
    limits = replace(QUICK, head_timeout=0.1, body_timeout=0.1, keep_alive_timeout=0.1, body=10, requests=2, head=1000)
    with asgi(echo, limits=limits) as server:
        assert talk(server, b"") == b""
        assert one(server, b"GET / HTTP/1.1\r\nHo").status == 408
        assert one(server, POST + b"12").status == 408
        assert one(server, POST.replace(b": 5", b": 11")).status == 413
        assert one(server, CHUNKED + b"b\r\n12345678901\r\n").status == 413
        assert one(server, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1000).status == 431
        assert [response.fields.get("connection") for response in responses(server, GET * 3)] == [None, "close"]
        assert talk(server, GET).startswith(b"HTTP/1.1 200")


def test_a_flood_of_connections_and_of_slow_clients_holds_nobody_up():
    with asgi(echo, limits=replace(QUICK, connections=50)) as server:
        slow = [connect(server) for _ in range(40)]
        for sock in slow:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n1")
        for _ in range(3):
            assert one(server, POST + b"hello").body == b"hello"
        for sock in slow:
            sock.sendall(b"23")
            assert Response(sock.makefile("rb")).body == b"123"
            sock.close()


@pytest.mark.parametrize("size", [100, 1_000_000])
def test_a_body_that_nobody_reads(size):
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    with asgi(hello) as server, closing(connect(server)) as sock:
        try:
            sock.sendall(head + bytes(size) + LAST)
        except OSError:
            pass
        file = sock.makefile("rb")
        assert Response(file).body == b"hello"
        if size == 100:
            assert Response(file).body == b"hello"


def test_a_connection_that_waits_keeps_nothing_of_its_last_request():
    with asgi(hello) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(GET)
        assert Response(file).body == b"hello"
        (connection,) = server._connections
        wait_until(lambda: connection.idle)
        exchange = connection.exchange
        assert exchange.call is exchange.response_headers is exchange.parsed_request is None
        assert connection.channel.stream.buffer == b""


# ---------------------------------------------------------------- other transports


def test_http2():
    async def app(scope, receive, send):
        body = await read(receive)
        await asyncio.sleep(0)
        text = f"{scope['http_version']} {scope['method']} {scope['path']} {dict(scope['headers'])[b'host']!r}"
        await answer(send, text.encode() + body, 201, (b"connection", b"keep-alive"), (b"x-a", b"b"))

    with asgi(app, http2=True) as server:
        client = Client(server)
        with closing(client.sock):
            streams = [client.ask(f"/{i}?x", b"z" * i * 4_000) for i in range(5)]
            for i, stream in enumerate(streams):
                assert client.body(stream) == f"2 POST /{i} b'a'".encode() + b"z" * i * 4_000
                assert client.heads[stream][b":status"] == b"201"
                assert client.heads[stream][b"x-a"] == b"b"
                assert b"connection" not in client.heads[stream]


def test_http2_a_stream_that_is_reset():
    events = []

    async def app(scope, receive, send):
        while not events or events[-1]["type"] != "http.disconnect":
            events.append(await receive())

    with asgi(app, http2=True) as server:
        client = Client(server)
        with closing(client.sock):
            stream = client.ask()
            wait_until(lambda: events)
            client.h2.reset_stream(stream)
            client.flush()
            wait_until(lambda: len(events) == 2)


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_tls(certificate, version):
    async def app(scope, receive, send):
        await answer(send, f"{scope['scheme']} {scope['http_version']} ".encode() + await read(receive))

    with asgi(app, http2=True, ssl_context=certificate.server_context()) as server:
        out = curl("--cacert", certificate.cert, version, "--data", "x" * 100_000, url(server, "https"))
    assert out == f"https {version[6:]} " + "x" * 100_000


def test_a_unix_socket(tmp_path):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await answer(send)

    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    server = ASGIServer(listener, app, log=None, lifespan="off")
    server.start()
    try:
        assert curl("--unix-socket", path, "http://localhost/") == "hello"
    finally:
        server.stop()
    assert (scopes[0]["server"], scopes[0]["client"]) == ((path, None), None)


# ---------------------------------------------------------------- lifespan


class Living:
    """An application that records its lifespan."""

    def __init__(self, startup=None, shutdown=None):
        self.events = []
        self.startup = startup or {"type": "lifespan.startup.complete"}
        self.shutdown = shutdown or {"type": "lifespan.shutdown.complete"}

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            scope["state"]["mine"] = True
            return await answer(send, repr(scope["state"]).encode())
        for message in (self.startup, self.shutdown):
            self.events.append((await receive())["type"])
            scope["state"]["event"] = len(self.events)
            await asyncio.sleep(0)
            await send(message)


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_lifespan(mode):
    app = Living()
    with asgi(app, lifespan=mode) as server:
        assert app.events == ["lifespan.startup"]
        for _ in range(2):
            assert one(server, LAST).body == b"{'event': 1, 'mine': True}"
        assert server.lifespans.states == {"": {"event": 1}}  # each request has a copy
    assert app.events == ["lifespan.startup", "lifespan.shutdown"]
    assert logged(server) == ""


def test_the_startup_comes_before_the_first_connection_and_the_shutdown_after_the_last():
    order = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            for word in ("startup", "shutdown"):
                await receive()
                await asyncio.sleep(0.01)
                order.append(word)
                await send({"type": f"lifespan.{word}.complete"})
            return
        order.append("begin")
        await go.wait()
        order.append("end")
        await answer(send)

    with asgi(app, lifespan="on") as server, closing(connect(server)) as sock:
        sock.sendall(GET)
        wait_until(lambda: "begin" in order)
        draining = weald.spawn(server.drain, PATIENCE)
        settle()
        server.loop_of_applications.call_soon(go.set)
        assert Response(sock.makefile("rb")).status == 200
        assert draining.get()
    assert order == ["startup", "begin", "end", "shutdown"]


@pytest.mark.parametrize("mode", ["on", "auto", "off"])
@pytest.mark.parametrize("how", ["raises", "returns"])
def test_an_application_without_lifespan(mode, how):
    async def app(scope, receive, send):
        if scope["type"] != "http":
            if how == "raises":
                raise ValueError("only http")
            return
        assert "state" not in scope
        await answer(send)

    if mode == "on":
        with pytest.raises(StartupError, match="takes no lifespan"), asgi(app, lifespan=mode):
            pass
        return
    with asgi(app, lifespan=mode) as server:
        assert one(server, LAST).status == 200
    said = "ValueError: only http" if how == "raises" else "it returned"
    assert logged(server) == (
        f"the application takes no lifespan ({said}); it is served without\n" if mode == "auto" else ""
    )


@pytest.mark.parametrize("mode", ["on", "auto"])
def test_a_startup_that_fails(mode):
    app = Living({"type": "lifespan.startup.failed", "message": "no database"})
    server = ASGIServer(("127.0.0.1", 0), app, log=None, lifespan=mode)
    with pytest.raises(StartupError, match="the application's startup failed: no database"):
        server.start()
    assert server.closed


def test_a_shutdown_that_fails_or_does_not_end():
    with asgi(Living(shutdown={"type": "lifespan.shutdown.failed", "message": "too late"}), lifespan="on") as server:
        pass
    assert logged(server) == "the application's shutdown failed: too late\n"

    async def app(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.sleep(1e6)

    with asgi(app, lifespan="on") as server:
        server.stop_timeout = 0.01
    assert logged(server) == "the application's shutdown was not complete after 0.01 s: cancelled\n"

    async def bad(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise KeyError("a bug")

    with asgi(bad, lifespan="on") as server:
        pass
    assert "the application's lifespan failed:\nTraceback" in logged(server)
    assert "KeyError: 'a bug'" in logged(server)


def test_a_mode_that_does_not_exist():
    with pytest.raises(ValueError, match="one of auto, on, off, not 'yes'"):
        ASGIServer(("127.0.0.1", 0), hello, lifespan="yes")


# ---------------------------------------------------------------- WSGI and ASGI side by side


def wsgi(environ, start_response):
    start_response("200 OK", [])
    body = environ["wsgi.input"].read().decode()
    return [f"wsgi {environ['SCRIPT_NAME']} {environ['PATH_INFO']} {environ['SERVER_PORT']} {body}".encode()]


async def told(scope, receive, send):
    body = await read(receive)
    await answer(send, f"asgi {scope['root_path']} {scope['path']} ".encode() + body)


def test_applications_by_prefix():
    mounts = {"/old": wsgi, "/old/new": told, "/other": told}
    paths = ["/", "/old", "/old/x?y", "/older", "/old/new/z", "/other"]
    with asgi(told, mounts=mounts, http2=True) as server:
        port = server.server_port
        data = b"".join(b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok" % path.encode() for path in paths)
        found = responses(server, data + LAST)
        expected = [
            "asgi  / ok",
            f"wsgi /old  {port} ok",
            f"wsgi /old /x {port} ok",
            "asgi  /older ok",
            "asgi /old/new /old/new/z ok",
            "asgi /other /other ok",
            "asgi  /last ",
        ]
        assert [response.body.decode() for response in found] == expected
        client = Client(server)
        with closing(client.sock):
            streams = [client.ask(path, b"ok") for path in paths]
            assert [client.body(stream).decode() for stream in streams] == expected[:-1]


def test_a_wsgi_application_with_an_asgi_one_below():
    with asgi(wsgi, mounts={"/api": told}) as server:
        found = responses(server, GET + GET.replace(b" / ", b" /api/x ") + LAST)
    assert [response.body.split()[0] for response in found] == [b"wsgi", b"asgi", b"wsgi"]
    with pytest.raises(ValueError, match="begin with a slash and end with none"):
        ASGIServer(("127.0.0.1", 0), hello, mounts={"old/": wsgi})


def test_which_interface_an_application_has():
    async def function(scope, receive, send): ...

    class Method:
        async def method(self, scope, receive, send): ...

        def wsgi(self, environ, start_response): ...

    for app in (function, Living(), Method().method, functools.partial(function), functools.partial(Living())):
        assert interface_of(app) == "asgi"
    for app in (wsgi, Method().wsgi, functools.partial(wsgi)):
        assert interface_of(app) == "wsgi"


# ---------------------------------------------------------------- blocking code


def test_blocking_code_in_coroutines_stalls_only_itself():
    """All of the requests block at the same time, in the first step of their coroutines and in later ones."""
    inside = 0
    gate = Event()

    async def app(scope, receive, send):
        nonlocal inside
        if scope["path"] == "/":
            await asyncio.sleep(0)
        task = asyncio.current_task()
        inside += 1
        if inside == 6:
            gate.set()
        gate.wait()
        assert asyncio.current_task() is task
        await asyncio.sleep(0)
        await answer(send)

    with asgi(app) as server:
        clients = [weald.spawn(talk, server, LAST.replace(b"/last", path)) for path in (b"/", b"/direct") * 3]
        for client in clients:
            assert client.get(timeout=PATIENCE).endswith(b"hello")


def test_a_patched_program_with_requests():
    """Coroutines that call their own server by `requests`: a blocked loop could not answer."""
    out = run_patched(
        """
        import asyncio, requests
        from weald.asgi import ASGIServer

        async def app(scope, receive, send):
            text = "leaf"
            if scope["path"] != "/leaf":
                await asyncio.sleep(0)
                text = requests.get(f"http://127.0.0.1:{server.server_port}/leaf", timeout=100).text
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": text.encode()})

        server = ASGIServer(("127.0.0.1", 0), app, log=None, lifespan="off")
        server.start()
        from weald.pool import Pool
        url = f"http://127.0.0.1:{server.server_port}/"
        print(Pool(10).map(lambda n: requests.get(url, timeout=100).text, range(10)))
        server.stop()
        """
    )
    assert out == f"{['leaf'] * 10}\n"


def test_the_loop_is_that_of_greenlets():
    """`await_` in greenlets, `to_greenlet` in coroutines and tasks of requests share one loop."""
    from weald.aio import await_, to_greenlet

    async def running():
        return asyncio.get_running_loop()

    async def app(scope, receive, send):
        assert await to_greenlet(lambda: await_(running())) is await running() is server.loop_of_applications
        await answer(send)

    with asgi(app) as server:
        assert await_(running()) is server.loop_of_applications
        assert one(server, LAST).status == 200


def test_asynchronous_generators_are_finalized():
    """The loop tracks generators that a coroutine leaves in its first step, which the loop does not run."""
    ended = []

    async def numbers():
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    async def app(scope, receive, send):
        async for _ in numbers():
            break
        await answer(send)

    with asgi(app) as server:
        assert one(server, LAST).status == 200
        wait_until(lambda: ended)


def test_the_access_log():
    log = io.StringIO()
    with asgi(hello, log=log) as server:
        one(server, LAST)
        one(server, b"nonsense\r\n\r\n")
    first, second = log.getvalue().splitlines()
    assert '"GET /last HTTP/1.1" 200 ' in first
    assert '"nonsense" 400 ' in second


def test_requests_leave_nothing_to_the_collector():
    async def app(scope, receive, send):
        if scope["path"] == "/wait":
            await asyncio.sleep(0)
        await answer(send, await read(receive))
        if scope["path"] == "/late":
            await asyncio.sleep(0)

    def ask(count):
        for _ in range(count):
            for path in (b"/", b"/wait", b"/late"):
                assert one(server, POST.replace(b" / ", b" %s " % path) + b"hello").body == b"hello"
        wait_until(lambda: not server._connections and not server.detached)
        settle()

    with asgi(app) as server:
        ask(2)
        gc.collect()
        gc.disable()
        try:
            ask(10)
            assert gc.collect() == 0
        finally:
            gc.enable()
