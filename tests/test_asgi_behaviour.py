"""Behaviour that applications written for other ASGI servers rely on: the subjects of uvicorn's protocol tests."""

import asyncio
import io
from contextlib import closing

import anyio
import pytest
from helpers import PATIENCE, recorded_errors, wait_until
from test_asgi import answer, asgi, hello, logged
from test_asgi_websocket import ACCEPT, CLOSED
from test_asgi_websocket import talking as patiently_talking
from test_http_websocket import BINARY, CLOSE, HANDSHAKE, TEXT, frame
from test_pywsgi import GET, LAST, Response, connect, responses, talk

from weald.asgi import ASGIServer, StartupError
from weald.event import Event
from weald.socket import create_connection

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"hello"}
HTTP_1_0 = b"GET / HTTP/1.0\r\nHost: a\r\n\r\n"
KEEP_ALIVE = b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"


def talking(app, more=""):
    """A client that does not answer when the server closes: the server does not wait for it."""
    return patiently_talking(app, more, close_timeout=0.05)


def sending(*messages):
    """An application that sends these."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize("value", [b"<c>", b"<\t>", b"< >", "<µ>".encode(), b"<\xff>"])
def test_values_of_fields(value):
    with asgi(sending({**START, "headers": [(b"key", value)]}, BODY)) as server:
        assert b"\r\nkey: " + value + b"\r\n" in talk(server, LAST)


@pytest.mark.parametrize("kind", [iter, tuple, list])
def test_fields_may_be_any_iterable_of_pairs_and_come_again(kind):
    with asgi(sending({**START, "headers": kind([[b"x-a", b"1"], [b"x-a", b"2"]])}, BODY)) as server:
        data = talk(server, LAST)
    assert data.index(b"x-a: 1\r\n") < data.index(b"x-a: 2\r\n")


def test_a_message_may_leave_out_what_has_defaults():
    with asgi(sending({"type": "http.response.start", "status": 201}, {"type": "http.response.body"})) as server:
        (response,) = responses(server, LAST)
    assert (response.status, response.body) == (201, b"")


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_keeps_the_connection(status):
    with asgi(sending({**START, "status": status}, {**BODY, "body": b""})) as server:
        first, last = responses(server, GET + LAST)
    assert (first.status, first.body, last.status) == (status, b"", status)


def test_transfer_encoding_is_the_servers():
    fields = [(b"transfer-encoding", b"chunked")]
    with asgi(sending({**START, "headers": fields}, {**BODY, "more_body": True}, {**BODY, "body": b""})) as server:
        data = talk(server, GET + LAST)
    assert data.lower().count(b"transfer-encoding: chunked") == 2
    assert data.count(b"0\r\n\r\n") == 2


@pytest.mark.parametrize("body", [b"", b"hello"])
def test_head_with_a_transfer_encoding(body):
    fields = [(b"transfer-encoding", b"chunked")]
    with asgi(sending({**START, "headers": fields}, {**BODY, "body": body})) as server:
        data = talk(server, GET.replace(b"GET", b"HEAD") + LAST.replace(b"GET", b"HEAD"))
    assert data.count(b"HTTP/1.1 200 OK") == 2
    assert data.endswith(b"\r\n\r\n")


def test_the_application_may_end_the_connection():
    fields = [(b"connection", b"close")]
    with asgi(sending({**START, "status": 204, "headers": fields}, {**BODY, "body": b""})) as server:
        assert [response.status for response in responses(server, GET + GET)] == [204]


def test_what_is_behind_the_last_request_is_not_served():
    with asgi(hello) as server:
        assert len(responses(server, LAST + GET)) == 1


@pytest.mark.parametrize(("request_", "count"), [(HTTP_1_0, 1), (KEEP_ALIVE + HTTP_1_0, 2)])
def test_http_1_0(request_, count):
    with asgi(hello) as server:
        found = responses(server, request_)
    assert [response.body for response in found] == [b"hello"] * count
    assert found[-1].fields["connection"] == "close"


def test_pipelining_keeps_the_order():
    async def app(scope, receive, send):
        await asyncio.sleep(0.02 if scope["path"] == "/slow" else 0)
        await answer(send, scope["path"].encode())

    with asgi(app) as server:
        slow = GET.replace(b" / ", b" /slow ")
        assert [response.body for response in responses(server, slow + GET + LAST)] == [b"/slow", b"/", b"/last"]


def test_a_response_before_the_body_is_read():
    with asgi(hello) as server:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
        assert [response.body for response in responses(server, post + LAST)] == [b"hello", b"hello"]


# ---------------------------------------------------------------- applications that break the rules


@pytest.mark.parametrize(
    ("messages", "status", "line"),
    [
        ([], 500, "ended without a response"),
        ([START], 500, "ended without a response"),
        ([BODY], 500, "http.response.body was sent before http.response.start"),
        ([START, START], 500, "http.response.start was sent twice"),
        ([START, BODY, BODY], 200, "sent after the response's end"),
        ([START, {**BODY, "more_body": True}], 200, "in the middle of its response"),
        ([START, {**BODY, "more_body": True}, START], 200, "http.response.start was sent twice"),
        ([{**START, "headers": [(b"content-length", b"10")]}, BODY], 200, "5 bytes less than its Content-Length"),
        ([{**START, "headers": [(b"content-length", b"3")]}, BODY], 200, "longer than its Content-Length"),
        ([{**START, "headers": [("x", "y")]}, BODY], 500, "must be bytes"),
        ([{**START, "headers": [(b"x y", b"z")]}, BODY], 500, "not the name of a field"),
        ([{**START, "status": "200"}, BODY], 500, "a status must be a number"),
        ([{**START, "status": 100}, BODY], 500, "a response's status must be from 200 on"),
        ([START, {**BODY, "body": "hello"}], 500, "a response's body must be bytes"),
        ([{"type": "none"}], 500, "may not be sent here"),
        ([{}], 500, "KeyError: 'type'"),
        ([None], 500, "TypeError"),
        ([b"http.response.start"], 500, "TypeError"),
        ([{"type": b"http.response.start", "status": 200}], 500, "may not be sent here: b'http.response.start'"),
        ([{"type": "http.response.start"}], 500, "KeyError: 'status'"),
        *(
            ([{**START, "status": status}, BODY], 500, "from 200 on")
            for status in (-1, 0, 99, 101, 1000, 1 << 70, True)
        ),
        *(([{**START, "status": status}, BODY], 500, "must be a number") for status in (None, b"200", 200.5)),
        ([{**START, "status": [200]}, BODY], 500, "TypeError"),
        ([{**START, "headers": None}, BODY], 500, "TypeError"),
        ([{**START, "headers": 5}, BODY], 500, "TypeError"),
        ([{**START, "headers": [(b"a", b"b", b"c")]}, BODY], 500, "ValueError"),
        ([{**START, "headers": [b"ab"]}, BODY], 500, "must be bytes"),
        ([{**START, "headers": {b"a": b"b"}}, BODY], 500, "ValueError"),
        ([{**START, "headers": [(b"a", None)]}, BODY], 500, "must be bytes"),
        ([{**START, "headers": [(b"a", 5)]}, BODY], 500, "must be bytes"),
        ([{**START, "headers": [(b"", b"x")]}, BODY], 500, "not the name of a field"),
        ([{**START, "headers": [(b":status", b"200")]}, BODY], 500, "not the name of a field"),
        *(
            ([{**START, "headers": [(b"content-length", value)]}, BODY], 500, "content-length must be a number")
            for value in (b"", b"-1", b"+5", b"5,5", b"0x5", b"5 5", b"\xb2", b"9" * 30)
        ),
        ([START, {**BODY, "body": None}], 500, "must be bytes"),
        ([START, {**BODY, "body": 5}], 500, "must be bytes"),
        ([START, {**BODY, "body": [b"hello"]}], 500, "must be bytes"),
        ([START, {**BODY, "more_body": True}, {**BODY, "body": "late"}], 200, "must be bytes"),
        ([{**START, "status": 204}, BODY], 204, "The 204 response must have no body"),
        ([{**START, "status": 304}, BODY], 304, "The 304 response must have no body"),
        ([START, {"type": "http.response.trailers"}], 500, "http.response.trailers must follow the body"),
        ([{**START, "trailers": True}, BODY], 200, "in the middle of its response"),
        ([START, {"type": "http.response.pathsend"}], 500, "KeyError: 'path'"),
        ([START, {"type": "http.response.pathsend", "path": "/no/such/file"}], 500, "No such file"),
        ([START, {"type": "http.response.pathsend", "path": "/"}], 500, "Is a directory"),
        ([START, {"type": "http.response.pathsend", "path": None}], 500, "TypeError"),
        ([{"type": "http.response.early_hint", "links": ["</a>"]}], 500, "must be bytes"),
        ([{"type": "http.response.early_hint", "links": [b"a\r\nb: c"]}], 500, "a control character"),
        ([START, {"type": "http.response.early_hint", "links": []}], 500, "sent after http.response.start"),
    ],
)
def test_the_rules(messages, status, line, capsys):
    with asgi(sending(*messages)) as server:
        data = talk(server, LAST)
        said = logged(server) + capsys.readouterr().err
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert line in said


@pytest.mark.parametrize("bad", [{**START, "status": 99}, {**START, "headers": [("a", "b")]}, {**START, "headers": 5}])
def test_who_catches_that_its_start_is_refused_may_send_another(bad):
    """As a framework's handler of errors does; nothing of the first is left over."""

    async def app(scope, receive, send):
        with pytest.raises((TypeError, ValueError)):
            await send({**bad, "headers": [(b"connection", b"close"), (b"x-first", b"1"), *_pairs(bad["headers"])]})
        await answer(send, b"second")

    with asgi(app) as server:
        first, last = responses(server, GET + LAST)
    assert (first.status, first.body, last.body) == (200, b"second", b"second")
    assert "x-first" not in first.fields


def _pairs(headers):
    return headers if isinstance(headers, list) else [headers]


def test_what_an_application_returns_does_not_matter():
    async def app(scope, receive, send):
        await answer(send)
        return 123

    with asgi(app) as server:
        assert [response.body for response in responses(server, GET + LAST)] == [b"hello"] * 2


def test_an_application_that_is_a_class_with_await():
    class App:
        def __init__(self, scope, receive, send):
            self.send = send

        def __await__(self):
            return answer(self.send).__await__()

    with asgi(lambda *args: App(*args)) as server:
        server.mounts = []  # it cannot be told from a WSGI one
        server.application = App
        assert [response.body for response in responses(server, GET + LAST)] == [b"hello"] * 2


def test_reading_after_the_response_tells_that_it_is_over():
    events = []

    async def app(scope, receive, send):
        await answer(send)
        events.append(await receive())

    with asgi(app) as server:
        responses(server, LAST)
    assert events == [{"type": "http.disconnect"}]


@pytest.mark.parametrize("request_", [LAST, GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"])
@pytest.mark.parametrize("first", [0, 1])
def test_who_reads_while_the_response_ends_is_told_that_it_is_over(request_, first):
    """Litestar's streams wait for that before they end."""
    events = []
    over = Event()

    async def listen(receive):
        while not events or events[-1]["type"] != "http.disconnect":
            events.append(await receive())
        over.set()

    async def app(scope, receive, send):
        if first:  # the response is sent after a turn of the loop
            await asyncio.sleep(0)
        listener = asyncio.ensure_future(listen(receive))
        await asyncio.sleep(0)
        await answer(send)
        await listener

    with asgi(app) as server:
        kept = create_connection(server.address[:2])
        kept.sendall(request_)  # the client stays, so the event is not about its end
        assert over.wait(PATIENCE)
        wait_until(lambda: not server.detached)
        kept.close()
    assert [event["type"] for event in events] == ["http.request", "http.disconnect"]


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("upgrade", [b"h2c", b"foo", b"TLS/1.0"])
def test_an_upgrade_that_nobody_knows_is_an_ordinary_request(upgrade):
    request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: " + upgrade + b"\r\n\r\n"
    with asgi(hello) as server:
        assert [response.body for response in responses(server, request + LAST)] == [b"hello"] * 2


@pytest.mark.parametrize(
    ("without", "status"), [("Sec-WebSocket-Key", 400), ("Sec-WebSocket-Version", 426), ("Connection", 200)]
)
def test_a_handshake_that_lacks_something(without, status):
    lines = HANDSHAKE.split("\r\n")
    request = "\r\n".join(line for line in lines if not line.startswith(without)) + "\r\n"
    with asgi(hello) as server:
        assert responses(server, request.encode() + LAST)[0].status == status


# ---------------------------------------------------------------- WebSockets


def websocket(*messages, wait=False):
    async def app(scope, receive, send):
        if scope["type"] == "http":
            return await answer(send)
        await receive()
        for message in messages:
            await send(message)
        while wait and (await receive())["type"] != "websocket.disconnect":
            pass

    return app


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"text": "both", "bytes": None}, (TEXT, b"both")),
        ({"text": None, "bytes": b"both"}, (BINARY, b"both")),
        ({"text": ""}, (TEXT, b"")),
        ({"bytes": b""}, (BINARY, b"")),
    ],
)
def test_text_or_bytes(message, expected):
    with talking(websocket(ACCEPT, {"type": "websocket.send", **message})) as client:
        assert client.receive() == expected
        assert client.closed() == 1000


@pytest.mark.parametrize(
    ("close", "code", "reason"),
    [
        ({}, 1000, b""),
        ({"code": 3000}, 3000, b""),
        ({"code": 1001, "reason": None}, 1001, b""),
        ({"code": 4000, "reason": "custom ä"}, 4000, "custom ä".encode()),
    ],
)
def test_the_application_closes(close, code, reason):
    with talking(websocket(ACCEPT, {"type": "websocket.close", **close})) as client:
        opcode, data = client.receive()
        assert (opcode, data) == (CLOSE, code.to_bytes(2, "big") + reason)
        client.send(CLOSED)


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (frame(CLOSE, b""), 1005, ""),
        (frame(CLOSE, (1001).to_bytes(2, "big") + b"away"), 1001, "away"),
        (b"", 1006, None),
    ],
    ids=["no code", "a code and a reason", "no close"],
)
def test_how_the_client_has_closed(sent, code, reason):
    events = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        events.append(await receive())
        events.append(await receive())  # and again
        with pytest.raises(OSError):
            await send({"type": "websocket.send", "text": "late"})

    with talking(app) as client:
        if sent:
            client.send(sent)
            client.receive()
        else:
            client.sock.shutdown(2)
    assert [event["code"] for event in events] == [code, code]
    assert reason is None or events[0]["reason"] == reason


@pytest.mark.parametrize(
    "messages", [[], [{"type": "websocket.send", "text": "early"}], [{"type": "websocket.receive"}]]
)
def test_a_handshake_that_the_application_does_not_answer(messages):
    with asgi(websocket(*messages)) as server:
        assert responses(server, (HANDSHAKE + "\r\n").encode() + LAST)[0].status == 500


@pytest.mark.parametrize("message", [ACCEPT, {"type": "none"}, {"type": "websocket.send"}])
def test_what_may_not_be_sent_once_it_is_open(message):
    with talking(websocket(ACCEPT, message)) as client:
        assert client.closed() == 1011
    assert client.server  # type: ignore[attr-defined]


def test_what_is_sent_after_the_close():
    errors = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})
        try:
            await send({"type": "websocket.send", "text": "late"})
        except Exception as error:
            errors.append(type(error))

    with talking(app) as client:
        assert client.closed() == 1000
    assert errors == [RuntimeError]


def test_messages_that_came_before_the_end_are_read_after_it():
    got = []

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        while (event := await receive())["type"] == "websocket.receive":
            got.append(event["text"])

    with talking(app) as client:
        client.send(*(frame(TEXT, b"%d" % number) for number in range(5)), CLOSED)
        assert client.closed() == 1000
    assert got == ["0", "1", "2", "3", "4"]


def test_a_handshake_with_fields_that_are_not_ascii():
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await send({"type": "websocket.accept", "headers": [(b"x-a", b"1"), (b"x-a", b"2")]})

    with talking(app, "X-User: abra\xe3o\r\n") as client:
        assert client.status == 101
    assert any(name == b"x-user" for name, _ in scopes[0]["headers"])
    assert scopes[0]["raw_path"] == b"/chat"


# ---------------------------------------------------------------- tasks


def test_a_task_that_outlives_its_request_cannot_reach_another_one():
    late = []
    tasks = []

    async def sends_late(receive, send):
        while not late:
            await asyncio.sleep(0.001)
        for call in (lambda: send(START), lambda: send(BODY)):
            with pytest.raises(RuntimeError, match="after the response's end"):
                await call()
        late.append((await receive())["type"])

    async def app(scope, receive, send):
        if scope["path"] == "/":
            tasks.append(asyncio.ensure_future(sends_late(receive, send)))
            return await answer(send, b"first")
        await send({**START, "headers": [(b"content-length", b"6")]})
        late.append("begun")
        while len(late) < 2:
            await asyncio.sleep(0.001)
        await send({**BODY, "body": b"second"})

    with asgi(app) as server:
        assert [response.body for response in responses(server, GET + LAST)] == [b"first", b"second"]
        wait_until(tasks[0].done)
        tasks[0].result()
    assert late == ["begun", "http.disconnect"]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_task_group_of_anyio(leaves):
    """How Starlette streams: one task sends, another waits for the client's end and cancels the first."""
    ended = []

    async def app(scope, receive, send):
        async def stream():
            await send(START)
            sent = 0
            while leaves or sent < 3:
                await send({**BODY, "more_body": True})
                sent += 1
                await anyio.sleep(0.001)
            await send({"type": "http.response.body"})

        async def listen():
            while (await receive())["type"] != "http.disconnect":
                pass

        async with anyio.create_task_group() as group:

            async def first(function):
                await function()
                group.cancel_scope.cancel()

            group.start_soon(first, listen)
            await first(stream)
        ended.append(scope["path"])

    with asgi(app) as server:
        if leaves:
            with closing(connect(server)) as sock:
                sock.sendall(GET)
                assert sock.recv(100)
            wait_until(lambda: ended or not server._connections)
            wait_until(lambda: not server.detached)
        else:
            assert [response.body for response in responses(server, GET + LAST)] == [b"hello" * 3] * 2
            assert ended == ["/", "/last"]


def test_a_task_that_is_cancelled_with_its_scope_leaves_the_connection_in_order():
    """`anyio.move_on_after` around `receive`: what comes later is not lost."""

    async def app(scope, receive, send):
        with anyio.move_on_after(0.01):
            await receive()
        cancelled.set()
        body = b""
        while True:
            event = await receive()
            body += event["body"]
            if not event["more_body"]:
                break
        await answer(send, body)

    cancelled = Event()
    with asgi(app) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        for _ in range(2):
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
            assert cancelled.wait(PATIENCE)
            cancelled.clear()
            sock.sendall(b"0123456789")
            assert Response(file).body == b"0123456789"


# ---------------------------------------------------------------- lifespan


COMPLETE = {"type": "lifespan.startup.complete"}


def living(*steps, http=hello):
    """An application whose lifespan is these: messages that it sends, `receive`, or exceptions that it raises."""
    events = []

    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            return await http(scope, receive, send)
        for step in steps:
            if step == "receive":
                events.append((await receive())["type"])
            elif isinstance(step, BaseException):
                raise step
            else:
                await send(step)

    app.events = events  # type: ignore[attr-defined]
    return app


def test_an_application_that_asks_again_after_its_shutdown_ends_with_the_server():
    """A loop of `receive` without an end, which some have: nothing more comes."""
    ended = []

    async def app(scope, receive, send):
        try:
            while True:
                kind = (await receive())["type"]
                ended.append(kind)
                assert len(ended) < 10
                await send({"type": f"{kind}.complete"})
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with asgi(app, lifespan="on") as server:
        pass
    wait_until(lambda: len(ended) > 2)
    assert ended == ["lifespan.startup", "lifespan.shutdown", "cancelled"]
    assert logged(server) == ""


@pytest.mark.parametrize("message", [None, "", "no database", "two\nlines", 5])
@pytest.mark.parametrize("then", [(), (RuntimeError("no database"),)], ids=["returns", "raises"])
def test_how_a_startup_may_fail(message, then):
    failed = {"type": "lifespan.startup.failed"} | ({} if message is None else {"message": message})
    with recorded_errors() as errors:
        server = ASGIServer(("127.0.0.1", 0), living("receive", failed, *then), log=None, error_log=io.StringIO())
        with pytest.raises(StartupError) as caught:
            server.start()
    assert (str(message) if message else "it does not say why") in str(caught.value)
    assert server.closed
    assert logged(server) == ""
    assert errors == []


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        (("receive", COMPLETE), ""),  # it returns, and is not told of the end
        (("receive", COMPLETE, COMPLETE), "may not be sent here: 'lifespan.startup.complete'"),
        (("receive", COMPLETE, KeyError("a bug")), "KeyError: 'a bug'"),
        (("receive", COMPLETE, {"type": "lifespan.shutdown.complete"}), "may not be sent here"),
        (("receive", COMPLETE, {"type": "none"}), "may not be sent here: 'none'"),
        (("receive", COMPLETE, {}), "KeyError: 'type'"),
        (("receive", COMPLETE, "receive"), ""),  # it does not say that it is done
        (("receive", COMPLETE, "receive", {"type": "lifespan.shutdown.failed"}), "the application's shutdown failed"),
        (("receive", COMPLETE, "receive", SystemExit(3)), "SystemExit: 3"),
        ((COMPLETE, "receive", "receive"), ""),  # it does not ask first
    ],
)
def test_lifespans_that_are_odd(steps, says):
    with asgi(living(*steps), lifespan="on") as server:
        wait_until(lambda: says == "" or len(steps) > 3 or says in logged(server))
        assert responses(server, LAST)[0].body == b"hello"
    assert says in logged(server)
    assert says or logged(server) == ""


@pytest.mark.parametrize("error", [KeyError("a bug"), SystemExit(3), asyncio.CancelledError()])
@pytest.mark.parametrize("asks", [True, False])
def test_a_lifespan_that_raises_before_it_is_ready(error, asks):
    """The specification has the server go on, and say so; `on` does not allow it."""
    steps = (*(["receive"] if asks else []), error)
    with asgi(living(*steps), lifespan="auto") as server:
        assert responses(server, LAST)[0].body == b"hello"
    assert "the application takes no lifespan" in logged(server)
    with pytest.raises(StartupError, match="takes no lifespan"), asgi(living(*steps), lifespan="on"):
        pass
