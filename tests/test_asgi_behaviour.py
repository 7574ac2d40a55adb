"""Behaviour that applications written for other ASGI servers rely on: the subjects of uvicorn's protocol tests."""

import asyncio

import pytest
from helpers import PATIENCE, wait_until
from test_asgi import answer, asgi, hello, logged
from test_asgi_websocket import ACCEPT, CLOSED
from test_asgi_websocket import talking as patiently_talking
from test_http_websocket import BINARY, CLOSE, HANDSHAKE, TEXT, frame
from test_pywsgi import GET, LAST, responses, talk

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
    ],
)
def test_the_rules(messages, status, line, capsys):
    with asgi(sending(*messages)) as server:
        data = talk(server, LAST)
        said = logged(server) + capsys.readouterr().err
    assert data.startswith(b"HTTP/1.1 %d " % status)
    assert line in said


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
