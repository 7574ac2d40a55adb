"""WebSockets of ASGI applications: an independent client (`websockets`), and frames made by hand."""

import asyncio
import io
from contextlib import closing, contextmanager

import pytest
from helpers import PATIENCE, recorded_errors, run_patched, send_what_fits, settle, wait_until
from test_asgi import answer, asgi, logged
from test_http_websocket import BINARY, BROKEN, CLOSE, HANDSHAKE, PING, PONG, TEXT, Client, frame
from test_pywsgi import LAST, Response, connect, responses

import weald
from weald.http.websocket import Options

pytestmark = pytest.mark.usefixtures("io_loop")

CLOSED = frame(CLOSE, b"\x03\xe8")  # 1000
ACCEPT = {"type": "websocket.accept"}


async def echo(scope, receive, send):
    if scope["type"] == "http":
        return await answer(send)
    assert (await receive()) == {"type": "websocket.connect"}
    await send(ACCEPT)
    while (event := await receive())["type"] != "websocket.disconnect":
        await send({**event, "type": "websocket.send"})


@contextmanager
def talking(app=echo, more="", early=b"", **options):
    with asgi(app, websockets=Options(**options)) as server:
        client = Client(server, more, early)
        with closing(client.sock), closing(client.file):
            client.server = server  # type: ignore[attr-defined]
            yield client


def test_echo():
    with talking(early=frame(TEXT, b"early")) as client:
        assert client.status == 101
        assert client.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.receive() == (TEXT, b"early")
        for opcode, data in ((TEXT, "ä".encode()), (BINARY, b"\0\xff"), (TEXT, b""), (BINARY, bytes(200_000))):
            client.send(frame(opcode, data))
            assert client.receive() == (opcode, data)
        client.send(*(frame(TEXT, b"%d" % i) for i in range(50)))
        assert [client.receive() for _ in range(50)] == [(TEXT, b"%d" % i) for i in range(50)]
        client.send(CLOSED)
        assert client.closed() == 1000


def test_the_scope():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await receive()
        fields = [(b"x-a", b"b")]
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][1], "headers": fields})

    with talking(app, "Sec-WebSocket-Protocol: one, two\r\nOrigin: http://evil\r\n") as client:
        assert (client.status, client.fields["sec-websocket-protocol"], client.fields["x-a"]) == (101, "two", "b")
        assert client.closed(agrees=True) == 1000  # the application has returned
    (scope,) = scopes
    assert "method" not in scope
    assert (scope["type"], scope["scheme"], scope["path"], scope["http_version"]) == ("websocket", "ws", "/chat", "1.1")
    assert (scope["subprotocols"], scope["extensions"]) == (["one", "two"], {"websocket.http.response": {}})
    assert (b"origin", b"http://evil") in scope["headers"]


@pytest.mark.parametrize(("old", "new", "status"), [("Version: 13", "Version: 8", 426), ("GET", "POST", 400)])
def test_a_bad_handshake_does_not_reach_the_application(old, new, status):
    with asgi(echo) as server:
        data = (HANDSHAKE.replace(old, new) + "\r\n").encode()
        first, last = responses(server, data + LAST)
        assert (first.status, last.status, last.body) == (status, 200, b"hello")


def test_denial():
    async def app(scope, receive, send):
        if scope["type"] == "http":
            return await answer(send)
        await receive()
        if scope["path"] == "/chat":
            await send({"type": "websocket.close"})
        else:
            start = {"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"who?")]}
            await send(start)
            await send({"type": "websocket.http.response.body", "body": b"log ", "more_body": True})
            await send({"type": "websocket.http.response.body", "body": b"in"})
        assert (await receive())["type"] == "websocket.disconnect"

    handshake = (HANDSHAKE + "\r\n").encode()
    with asgi(app) as server:
        found = responses(server, handshake + handshake.replace(b"/chat", b"/other") + LAST)
    assert [response.status for response in found] == [403, 401, 200]
    assert (found[1].body, found[1].fields["x-why"]) == (b"log in", "who?")


@pytest.mark.parametrize(("message", "code", "reason"), [({}, 1000, b""), ({"code": 4001, "reason": "ä"}, 4001, "ä")])
def test_the_application_closes(message, code, reason):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await asyncio.sleep(0)
        watching = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await send({"type": "websocket.close", **message})
        events.append(await receive())
        watching.cancel()
        with pytest.raises(RuntimeError, match="after the"):
            await send({"type": "websocket.send", "text": "late"})
        events.append("end")

    with talking(app) as client:
        opcode, payload = client.receive()
        assert (opcode, int.from_bytes(payload[:2], "big")) == (CLOSE, code)
        assert payload[2:] == (reason if isinstance(reason, bytes) else reason.encode())
        client.send(frame(CLOSE, payload))
        assert client.file.read() == b""
        wait_until(lambda: events[-1:] == ["end"])
    assert events[0]["code"] == code


@pytest.mark.parametrize(
    ("payload", "code", "reason"), [(b"\x03\xe9bye", 1001, "bye"), (b"", 1005, ""), (None, 1006, None)]
)
def test_the_client_closes(payload, code, reason):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.append(await receive())
        events.append(await receive())
        with pytest.raises(OSError, match="left|ended"):
            await send({"type": "websocket.send", "text": "late"})
        events.append("end")

    with recorded_errors() as errors:
        with talking(app) as client:
            if payload is None:
                client.sock.close()
                client.file.close()
            else:
                client.send(frame(CLOSE, payload))
                assert client.closed() in (code, 1000)
            wait_until(lambda: events[-1:] == ["end"])
    assert [event["code"] for event in events[:2]] == [code, code]
    assert reason is None or events[0]["reason"] == reason
    assert errors == []


@pytest.mark.parametrize("io_loop", ["libuv"], indirect=True)
@pytest.mark.parametrize(("code", "frames"), BROKEN)
def test_what_a_client_must_not_send(code, frames):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while not events:
            events.append(await receive())

    with recorded_errors() as errors, talking(app, max_message=1000, max_fragments=10) as client:
        client.send(*frames)
        assert client.closed() == code
    assert [(event["type"], event["code"]) for event in events] == [("websocket.disconnect", code)]
    assert errors == []


@pytest.mark.parametrize(
    ("close", "says"),
    [
        ({"code": 999}, "999"),
        ({"code": 1004}, "1004"),
        ({"code": 70000}, "70000"),
        ({"code": -1}, "-1"),
        ({"code": "1000"}, "'1000'"),
        ({"code": 1000, "reason": 5}, "must be a str"),
        ({"code": 1000, "reason": b"bye"}, "must be a str"),
        ({"code": 1000, "reason": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_a_close_that_cannot_be_sent(close, says, capsys):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close", **close})

    with talking(app) as client:
        assert client.closed(agrees=True) == 1011
    said = capsys.readouterr().err
    assert says in said
    assert "GET /chat HTTP/1.1" in said


def test_an_application_that_does_not_ask_hears_of_the_end_and_answers_pings():
    go = asyncio.Event()
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go.wait()
        while not events or events[-1]["type"] != "websocket.disconnect":
            events.append(await receive())

    with talking(app) as client:
        client.send(frame(PING, b"?"))
        assert client.receive() == (PONG, b"?")
        client.send(frame(TEXT, b"one"), frame(TEXT, b"two"), CLOSED)
        settle()
        client.server.loop_of_applications.call_soon(go.set)  # type: ignore[attr-defined]
        assert client.closed() == 1000
    assert [event.get("text") for event in events] == ["one", "two", None]


def test_who_does_not_take_messages_is_held_up_by_the_application():
    """No more than one message is read ahead of it."""
    go = asyncio.Event()
    sizes = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await go.wait()
        while (event := await receive())["type"] != "websocket.disconnect":
            sizes.append(len(event["bytes"]))

    with talking(app) as client:
        data = frame(BINARY, bytes(100_000))
        left = data * 300
        sent = send_what_fits(client.sock, left)
        assert sent < len(left)
        client.server.loop_of_applications.call_soon(go.set)  # type: ignore[attr-defined]
        client.send(left[sent:], CLOSED)
        assert client.closed() == 1000
    assert sizes == [100_000] * 300


def test_permessage_deflate_and_limits():
    with talking(more="Sec-WebSocket-Extensions: permessage-deflate\r\n") as client:
        assert client.fields["sec-websocket-extensions"].startswith("permessage-deflate")
    with talking(more="Sec-WebSocket-Extensions: permessage-deflate\r\n", compress=False) as client:
        assert "sec-websocket-extensions" not in client.fields
    with talking(max_message=10) as client:
        client.send(frame(TEXT, b"x" * 11))
        assert client.closed() == 1009
    with talking() as client:
        client.send(frame(TEXT, b"unmasked", masked=False))
        assert client.closed() == 1002


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"type": "websocket.send", "text": "x"}, "may not be sent here: 'websocket.send'"),
        ({"type": "websocket.accept", "subprotocol": "three"}, "has not offered the subprotocol 'three'"),
        ({"type": "websocket.accept", "headers": [(b"sec-websocket-protocol", b"x")]}, "no header"),
        ({"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]}, "a control character in the field"),
        (None, "the application ended without a response"),
    ],
)
def test_a_fault_before_the_handshake_is_answered_500(message, says, capsys):
    async def app(scope, receive, send):
        if message is not None:
            await send(message)

    with talking(app) as client:
        assert client.status == 500
        assert says in logged(client.server) + capsys.readouterr().err  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (ACCEPT, "may not be sent here: 'websocket.accept'"),
        ({"type": "websocket.send"}, "needs text or bytes"),
        ({"type": "websocket.send", "text": b"x"}, "must be a str, not bytes"),
        ({"type": "websocket.send", "text": 5}, "must be a str, not int"),
        ({"type": "websocket.send", "text": "\ud800"}, "surrogates not allowed"),
        ({"type": "websocket.send", "bytes": 5}, "must be bytes, not int"),
        ({"type": "websocket.send", "bytes": [1, 2]}, "must be bytes, not list"),
        ({"type": "websocket.send", "bytes": "x"}, "must be bytes, not str"),
        ({}, "KeyError: 'type'"),
        (5, "TypeError"),
        (None, "KeyError: 'a bug'"),
    ],
)
def test_a_fault_after_it_closes_with_1011(message, says, capsys):
    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        if message is None:
            raise KeyError("a bug")
        await send(message)

    with talking(app) as client:
        client.send(frame(TEXT, b"go"))
        assert client.closed(agrees=True) == 1011
    assert says in capsys.readouterr().err


START = {"type": "websocket.http.response.start", "status": 404, "headers": [(b"content-length", b"0")]}
BODY = {"type": "websocket.http.response.body"}


@pytest.mark.parametrize(
    ("messages", "status", "says"),
    [
        ([START, BODY], 404, ""),
        ([{**START, "status": 99}], 500, "from 200 on: 99"),
        ([{**START, "status": 1000}], 500, "from 200 on: 1000"),
        ([{**START, "status": "404"}], 500, "must be a number"),
        ([START], 500, "ended without a response"),
        ([START, START], 500, "may not be sent here: 'websocket.http.response.start'"),
        ([START, ACCEPT], 500, "may not be sent here: 'websocket.accept'"),
        ([START, {"type": "websocket.close"}], 500, "may not be sent here: 'websocket.close'"),
        ([START, BODY, BODY], 404, "sent after the response's end"),
        ([{"type": "websocket.close"}, ACCEPT], 403, "sent after the response's end"),
        ([{"type": "websocket.close"}, {"type": "websocket.close"}], 403, "sent after the response's end"),
        ([BODY], 500, "may not be sent here: 'websocket.http.response.body'"),
        ([{**START, "headers": []}, {**BODY, "body": b"x", "more_body": True}], 404, "in the middle of its response"),
    ],
)
def test_denials_that_go_wrong(messages, status, says, capsys):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            return await answer(send)
        assert (await receive()) == {"type": "websocket.connect"}
        for message in messages:
            await send(message)

    with asgi(app) as server, closing(connect(server)) as sock:
        sock.sendall((HANDSHAKE + "\r\n").encode() + LAST)
        file = sock.makefile("rb")
        assert int(file.readline()[9:12]) == status
        file.read()
        assert says in logged(server) + capsys.readouterr().err


def test_a_client_that_leaves_before_it_is_accepted():
    events = []
    go = asyncio.Event()

    async def app(scope, receive, send):
        events.append(await receive())
        events.append(await receive())
        with pytest.raises(OSError):
            await send(ACCEPT)
        go.set()

    with recorded_errors() as errors, asgi(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall((HANDSHAKE + "\r\n").encode())
            wait_until(lambda: events)
        wait_until(go.is_set)
    assert [event["type"] for event in events] == ["websocket.connect", "websocket.disconnect"]
    assert events[1]["code"] == 1006
    assert errors == []


def test_the_state_of_the_lifespan():
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["list"] = [1]
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return await send({"type": "lifespan.shutdown.complete"})
        seen.append((dict(scope["state"]), list(scope["state"]["list"])))
        scope["state"]["own"] = True  # the next has none of it
        scope["state"]["list"].append(2)
        await send({"type": "websocket.close"})

    with asgi(app, lifespan="on") as server:
        for _ in range(2):
            with closing(connect(server)) as sock:
                sock.sendall((HANDSHAKE + "\r\n").encode())
                assert Response(sock.makefile("rb")).status == 403
    assert [list(state) for state, _ in seen] == [["list"], ["list"]]
    assert [values for _, values in seen] == [[1], [1, 2]]


def test_a_server_that_stops_tells_its_clients():
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.append(await receive())

    with talking(app) as client:
        server = client.server  # type: ignore[attr-defined]
        draining = weald.spawn(server.drain, PATIENCE, 0)
        opcode, payload = client.receive()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xe9")
        client.send(frame(CLOSE, payload))
        assert draining.get()
    assert events[0]["type"] == "websocket.disconnect"
    assert events[0]["code"] == 1001


def test_a_wsgi_application_beside_it_has_its_websockets():
    from weald.http import websocket

    @websocket.application
    def wsgi(ws):
        for message in ws:
            ws.send(f"wsgi {message}")

    with asgi(echo, mounts={"/chat": wsgi}) as server:
        client = Client(server)
        with closing(client.sock), closing(client.file):
            client.send(frame(TEXT, b"x"))
            assert client.receive() == (TEXT, b"wsgi x")
            draining = weald.spawn(server.drain, PATIENCE, 0)
            assert client.receive()[1][:2] == b"\x03\xe9"
            client.send(CLOSED)
            draining.get()


def test_an_upgrade_to_something_else_is_a_request():
    with asgi(echo) as server, closing(connect(server)) as sock:
        sock.sendall(HANDSHAKE.replace("websocket\r\n", "other\r\n").encode() + b"\r\n")
        assert Response(sock.makefile("rb")).body == b"hello"


def test_the_websockets_client():
    out = run_patched(
        """
        from websockets.sync.client import connect
        from weald.asgi import ASGIServer

        async def app(scope, receive, send):
            await receive()
            await send({"type": "websocket.accept", "subprotocol": "chat"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({**event, "type": "websocket.send"})
            print(event["code"], event["reason"])

        server = ASGIServer(("127.0.0.1", 0), app, log=None, lifespan="off")
        server.start()
        with connect(f"ws://127.0.0.1:{server.server_port}/", subprotocols=["chat"]) as client:
            print(client.subprotocol, [extension.name for extension in client.protocol.extensions])
            for message in ("hello", b"bytes", "x" * 100_000):
                client.send(message)
                print(client.recv() == message)
            client.send(["in ", "pieces"])
            print(client.recv())
            client.close(4000, "enough")
        server.stop()
        """
    )
    assert out.splitlines() == ["chat ['permessage-deflate']", "True", "True", "True", "in pieces", "4000 enough"]


def test_the_access_log():
    log = io.StringIO()
    with asgi(echo, log=log) as server:
        client = Client(server)
        client.send(CLOSED)
        assert client.closed() == 1000
        client.sock.close()
        wait_until(log.getvalue)
    assert '"GET /chat HTTP/1.1" 101 ' in log.getvalue()
