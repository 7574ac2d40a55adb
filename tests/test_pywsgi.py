"""The WSGI server over real connections: PEP 3333, HTTP/1.1 on the wire, limits, gevent's hooks, real clients."""

import array
import errno
import gc
import gzip
import io
import json
import logging
import os
import re
import socket as stdlib_socket
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from socket import IPPROTO_TCP, SHUT_WR, SO_RCVBUF, SOL_SOCKET, TCP_NODELAY
from typing import Any
from wsgiref.validate import validator

import pytest
from conftest import require_program
from helpers import PATIENCE, recorded_errors, run_patched, settle, wait_until
from test_http_protocol import BAD_CHUNKS, BAD_HEADS

import weald
from weald import pywsgi, socket, ssl, subprocess
from weald.event import Event
from weald.http.limits import Limits
from weald.http.steps import STEPS
from weald.pywsgi import WSGIHandler, WSGIServer

pytestmark = pytest.mark.usefixtures("io_loop")

QUICK = Limits(linger_timeout=0.2)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def echo(environ, start_response):
    """The body that came."""
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@contextmanager
def serving(app, **options):
    options.setdefault("log", None)
    options.setdefault("error_log", io.StringIO())
    options.setdefault("limits", QUICK)
    server = options.pop("server_class", WSGIServer)(("127.0.0.1", 0), app, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        for connection in list(server._connections):
            if connection.socket is not None:
                connection.socket.close()
        wait_until(lambda: not server._connections)


def connect(server):
    sock = socket.create_connection(("127.0.0.1", server.server_port), timeout=PATIENCE)
    return sock


def read_all(sock):
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def talk(server, data):
    """Send `data` and return all bytes until the server closes."""
    with closing(connect(server)) as sock:
        sock.sendall(data)
        return read_all(sock)


class Response:
    """One response taken from a connection."""

    def __init__(self, file, head_only=False):
        line = file.readline()
        self.version, self.status = line[:8].decode(), int(line[9:12])
        self.fields = {}
        self.trailers = {}
        self._read_fields(file, self.fields)
        self.body = b""
        if head_only or self.status in (204, 304) or self.status < 200:
            return
        if self.fields.get("transfer-encoding") == "chunked":
            while size := int(file.readline(), 16):
                self.body += file.read(size)
                assert file.readline() == b"\r\n"
            self._read_fields(file, self.trailers)
        elif "content-length" in self.fields:
            self.body = file.read(int(self.fields["content-length"]))
        else:
            self.body = file.read()

    @staticmethod
    def _read_fields(file, fields):
        while (line := file.readline()) != b"\r\n":
            assert line.endswith(b"\r\n")
            name, _, value = line.decode("latin-1").partition(":")
            assert name.lower() not in fields
            fields[name.lower()] = value.strip()


def responses(server, data, *heads):
    """The responses to `data`, after which the server must close; `heads`: which have no body."""
    file = io.BytesIO(talk(server, data))
    found = []
    while file.tell() < len(file.getvalue()):
        found.append(Response(file, bool(len(found) < len(heads) and heads[len(found)])))
    return found


def one(server, data):
    (response,) = responses(server, data)
    return response


# ---------------------------------------------------------------- requests

# A target in absolute form, Host, and which of them is the request's: RFC 9112 section 3.2.2.
ABSOLUTE = [
    ("http://target.example:81/p?q", "other", "target.example:81", "/p"),
    ("http://target.example", "other", "target.example", "/"),
    ("HTTPS://target.example?q", "", "target.example", "/"),
    ("http://[::1]:8000/a%20b", "other:1", "[::1]:8000", "/a b"),
    ("/p", "other:65535", "other:65535", "/p"),
]
BAD_ABSOLUTE = ["http://a:99999/", "http://u@a/", "http://:80/", "http:///p", "http://a\\b/", "ftp://a/", "//a/p#f"]


@pytest.mark.parametrize(("target", "host", "expected", "path"), ABSOLUTE)
def test_a_target_in_absolute_form_decides(target, host, expected, path):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [f"{environ['HTTP_HOST']} {environ['PATH_INFO']}".encode()]

    with serving(app) as server:
        response = one(server, f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert (response.status, response.body) == (200, f"{expected} {path}".encode())


@pytest.mark.parametrize("target", BAD_ABSOLUTE)
def test_a_bad_target_in_absolute_form(target):
    with serving(hello) as server:
        assert one(server, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode() + LAST).status == 400


def test_who_catches_that_its_start_is_refused_may_send_another():
    def app(environ, start_response):
        with pytest.raises(ValueError):
            start_response("200 OK", [("Connection", "close"), ("X-First", "1"), ("X", "a\r\nb: c")])
        start_response("200 OK", [])
        return [b"second"]

    with serving(app) as server:
        first, last = responses(server, GET + LAST)
    assert (first.body, last.body, "x-first" in first.fields) == (b"second", b"second", False)


def test_trace_is_an_ordinary_method():
    """The application answers it; the server itself reflects nothing."""

    def app(environ, start_response):
        start_response("405 Method Not Allowed", [("Allow", "GET")])
        return [environ["REQUEST_METHOD"].encode()]

    with serving(app) as server:
        request = b"TRACE / HTTP/1.1\r\nHost: a\r\nCookie: secret\r\nMax-Forwards: 0\r\nContent-Length: 2\r\n\r\nhi"
        first, last = responses(server, request + LAST)
    assert (first.status, first.body, last.body) == (405, b"TRACE", b"GET")


def test_hello():
    with serving(hello) as server:
        response = one(server, LAST)
    assert (response.status, response.body) == (200, b"hello")
    assert response.fields["content-type"] == "text/plain"
    assert response.fields["connection"] == "close"
    assert response.fields["date"].endswith(" GMT")


def test_keep_alive_and_pipelining():
    seen = []

    def app(environ, start_response):
        seen.append(environ["PATH_INFO"])
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode(), environ["wsgi.input"].read()]

    post = b"POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"
    with serving(app) as server:
        found = responses(server, GET + post + GET + LAST)
        assert [response.body for response in found] == [b"/", b"/postbody", b"/", b"/last"]
        with closing(connect(server)) as sock, sock.makefile("rb") as file:
            for _ in range(3):
                sock.sendall(GET)
                assert Response(file).body == b"/"
            assert len(server._connections) == 1


def test_a_connection_that_waits_keeps_nothing_of_its_last_request():
    with serving(hello) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        for _ in range(2):
            sock.sendall(GET)
            assert Response(file).body == b"hello"
            (connection,) = server._connections
            wait_until(lambda connection=connection: connection.idle)
            handler = connection.exchange
            assert handler.environ is handler.wsgi_input is handler.response_headers is handler.parsed_request is None
            assert connection.channel.stream.buffer == b""


@pytest.mark.parametrize("connection", [b"", b"Connection: keep-alive\r\n"])
def test_http_1_0(connection):
    with serving(hello) as server:
        data = b"GET / HTTP/1.0\r\n" + connection + b"\r\n"
        found = responses(server, data * 2 + b"GET / HTTP/1.0\r\n\r\n")
    assert [response.fields["connection"] for response in found] == (
        ["keep-alive", "keep-alive", "close"] if connection else ["close"]
    )
    assert found[0].body == b"hello"


def test_http_1_0_without_a_length_ends_with_the_connection():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"one"
        yield b"two"

    with serving(app) as server:
        response = one(server, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert response.body == b"onetwo"
    assert "transfer-encoding" not in response.fields
    assert "keep-alive" not in response.fields.get("connection", "")


def test_head_gives_the_head_of_get():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")] if environ["PATH_INFO"] == "/known" else [])
        return [b"hel", b"lo"]

    data = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nHEAD /known HTTP/1.1\r\nHost: a\r\n\r\n" + LAST
    with serving(app) as server:
        found = responses(server, data, True, True, False)
    assert [response.fields["content-length"] for response in found] == ["5", "5", "5"]
    assert found[2].body == b"hello"


def test_head_of_a_response_in_chunks_ends_with_its_head():
    def app(environ, start_response):
        start_response("200 OK", [])
        environ.get("weald.trailers", []).append(("X", "y"))
        return iter([b"hello"])

    head = b"HEAD / HTTP/1.1\r\nHost: a\r\n"
    with serving(app) as server:
        found = responses(server, head + b"\r\n" + head + b"TE: trailers\r\n\r\n" + LAST, True, True, False)
    assert [response.fields["transfer-encoding"] for response in found] == ["chunked"] * 3
    assert [response.body for response in found] == [b"", b"", b"hello"]


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body(status):
    def app(environ, start_response):
        start_response(status, [])
        return []

    with serving(app) as server:
        found = responses(server, GET + LAST)
    for response in found:
        assert response.status == int(status[:3])
        assert "transfer-encoding" not in response.fields
        assert "content-length" not in response.fields
    assert len(found) == 2


@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize(
    ("status", "length", "sent"),
    [
        ("204 No Content", "0", None),  # RFC 9110 section 8.6
        ("205 Reset Content", None, "0"),  # section 15.3.6
        ("205 Reset Content", "0", "0"),
        ("304 Not Modified", "100", "100"),  # what the response to GET would have
        ("304 Not Modified", "0", "0"),
    ],
)
def test_the_length_where_no_body_may_be(status, length, sent, http2):
    def app(environ, start_response):
        start_response(status, [] if length is None else [("content-Length", length)])
        return []

    with serving(app, http2=http2) as server:
        if http2:
            found = curl("-i", "--http2-prior-knowledge", url(server)).lower()
            assert found.startswith(f"http/2 {status[:3]}")
            assert re.findall("content-length: (.*?)\r\n", found) == [sent] * (sent is not None)
            return
        for response in responses(server, GET + LAST):
            assert response.status == int(status[:3])
            assert response.fields.get("content-length") == sent
            assert "transfer-encoding" not in response.fields


@pytest.mark.parametrize("how", ["list", "iterator", "write"])
@pytest.mark.parametrize("status", ["204 No Content", "205 Reset Content", "304 Not Modified"])
def test_a_body_that_may_not_be_is_not_sent(status, how):
    def app(environ, start_response):
        write = start_response(status, [])
        if how == "write":
            write(b"no body")
        return [b"no body"] if how == "list" else iter([b"no", b" body"])

    with serving(app) as server, recorded_errors() as errors:
        answer = talk(server, GET)
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert answer.endswith(b"\r\n\r\n")
    assert b"no body" not in answer
    assert [error[1] for error in errors] == [AssertionError]


@pytest.mark.parametrize("how", ["list", "two", "iterator", "write"])
def test_a_body_whose_items_are_no_bytes(how):
    numbers = array.array("i", range(13))

    def app(environ, start_response):
        length = [("Content-Length", "104")] if how == "write" else []
        write = start_response("200 OK", length)
        if how == "write":
            write(numbers)
            write(memoryview(numbers))
            return []
        pieces = [memoryview(numbers), numbers]
        return pieces[:1] if how == "list" else pieces if how == "two" else iter(pieces)

    with serving(app) as server:
        found = responses(server, GET + LAST)
    assert [response.body for response in found] == [numbers.tobytes() * (1 if how == "list" else 2)] * 2


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_a_chunked_request():
    trailers = []

    def app(environ, start_response):
        assert environ["wsgi.input_terminated"] is True
        assert "CONTENT_LENGTH" not in environ
        body = echo(environ, start_response)
        trailers.extend(environ["wsgi.input"].trailers)
        return body

    with serving(app) as server:
        response = one(server, CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n")
    assert response.body == b"hello world"
    assert trailers == [(b"X-Sum", b"11")]


def test_a_chunked_response_with_trailers():
    def app(environ, start_response):
        start_response("200 OK", [("Trailer", "X-Sum")])
        yield b"hello"
        yield b""
        yield b" world"
        if "weald.trailers" in environ:
            environ["weald.trailers"].append(("X-Sum", "11"))

    with serving(app) as server:
        plain = one(server, LAST)
        wanted = one(server, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n")
    assert plain.body == wanted.body == b"hello world"
    assert plain.trailers == {}
    assert wanted.trailers == {"x-sum": "11"}


def test_trailers_are_those_of_one_response():
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"hello"
        environ.get("weald.trailers", []).append(("X-Sum", "11"))

    with serving(app) as server, closing(connect(server)) as sock, closing(sock.makefile("rb")) as file:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n\r\n" + GET)
        assert Response(file).trailers == {"x-sum": "11"}
        assert Response(file).trailers == {}


def test_chunks_go_out_one_by_one():
    go_on = Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"first"
        assert go_on.wait(PATIENCE)
        yield b"second"

    with serving(app) as server, closing(connect(server)) as sock:
        sock.sendall(LAST)
        data = b""
        while b"first\r\n" not in data:
            data += sock.recv(1000)
        go_on.set()
        assert read_all(sock).endswith(b"6\r\nsecond\r\n0\r\n\r\n")


@pytest.mark.parametrize("reads", [True, False])
def test_100_continue(reads):
    def app(environ, start_response):
        if reads:
            return echo(environ, start_response)
        start_response("403 Forbidden", [])
        return [b"no"]

    with serving(app) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        first = Response(file)
        if reads:
            assert first.status == 100
            sock.sendall(b"hello" + LAST)
            assert Response(file).body == b"hello"
        else:
            # Whether the body comes is unknown, so nothing that follows can be read as a request.
            assert first.status == 403
            assert file.read() == b""


@pytest.mark.parametrize("size", [10, 60_000, 1_000_000])
def test_a_body_that_nobody_reads(size):
    """A small one is skipped; a large one costs the connection, and the client gets the response all the same."""
    with serving(hello) as server:
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        found = responses(server, post + (LAST if size < 100_000 else b""))
    assert [response.body for response in found] == [b"hello"] * (2 if size < 100_000 else 1)


def test_reading_wsgi_input():
    results = []

    def app(environ, start_response):
        body = environ["wsgi.input"]
        results.append((body.read(0), body.readline(), body.readline(2), body.read(2), body.readlines(1), list(body)))
        assert body.read() == body.readline() == body.read(5) == b""
        return hello(environ, start_response)

    data = b"first\nsecond\nthird\nfourth\nlast"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n"
    with serving(app) as server:
        one(server, b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 30\r\n\r\n" + data)
        one(server, CHUNKED + chunks)
        talk(server, LAST)
    assert results[:2] == [(b"", b"first\n", b"se", b"co", [b"nd\n"], [b"third\n", b"fourth\n", b"last"])] * 2
    assert results[2] == (b"", b"", b"", b"", [], [])


def test_environ():
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        assert type(environ) is dict
        return hello(environ, start_response)

    with serving(app, environ={"my.key": 1}) as server, closing(connect(server)) as sock:
        port = sock.getsockname()[1]
        sock.sendall(
            b"GET /a%20b/%C3%A4%2f?q=%20&r HTTP/1.1\r\nHost: x:1\r\nX-A: 1\r\nx-a: \xe4\r\nContent-Type: t/p\r\n"
            b"Connection: close\r\nunder_score: 1\r\nProxy: 1\r\n\r\n"
        )
        read_all(sock)
        assert seen["SERVER_PORT"] == str(server.server_port)
    wanted = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b/\xc3\xa4/",
        "QUERY_STRING": "q=%20&r",
        "REQUEST_URI": "/a%20b/%C3%A4%2f?q=%20&r",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(port),
        "HTTP_HOST": "x:1",
        "HTTP_X_A": "1, \xe4",
        "CONTENT_TYPE": "t/p",
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.run_once": False,
        "my.key": 1,
    }
    assert {key: seen[key] for key in wanted} == wanted
    assert seen["SERVER_NAME"]
    assert not {"HTTP_UNDER_SCORE", "HTTP_PROXY", "HTTP_CONTENT_TYPE"} & set(seen)


def test_the_validator_is_content():
    def app(environ, start_response):
        body = environ["wsgi.input"].read(100)
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body) + 1))])
        return [body, b"!"]

    errors = io.StringIO()
    post = b"POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody"
    with serving(validator(app), error_log=errors) as server, recorded_errors() as raised:
        found = responses(server, GET + post + LAST)
    assert [response.body for response in found] == [b"!", b"body!", b"!"]
    assert raised == []
    assert errors.getvalue() == ""


# ---------------------------------------------------------------- what is refused


def test_bad_requests_are_answered_and_nothing_behind_them_is_read():
    served = []

    def app(environ, start_response):
        environ["wsgi.input"].read()
        served.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    with serving(app, limits=replace(QUICK, head_timeout=5)) as server:
        for status, name, data in BAD_HEADS:
            response = one(server, data + smuggled)
            assert (response.status, response.body) == (status, b""), name
            assert response.fields["connection"] == "close", name
        for status, name, data in BAD_CHUNKS:
            response = one(server, CHUNKED.replace(b"Connection: close\r\n", b"") + data + smuggled)
            assert response.status == status, name
            assert response.fields["connection"] == "close", name
    assert served == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_body_that_turns_out_bad_when_the_response_is_under_way(when):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"hello"
        if when == "after":
            environ["wsgi.input"].read()
        yield b"never reached" if when == "after" else b" world"

    with serving(app) as server:
        data = CHUNKED.replace(b"Connection: close\r\n", b"") + b"x\r\n" + GET
        answer = talk(server, data)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"never reached" not in answer
    assert answer.endswith(b"0\r\n\r\n") is (when == "before")


# ---------------------------------------------------------------- handlers of others


@pytest.mark.parametrize("name", STEPS)
def test_any_step_can_be_replaced(name):
    """In a subclass, in a class while connections are open, on one object; each time the rest stays as it is."""
    called = []

    def noting(where, original):
        def step(self, *args):
            called.append(where)
            return original(self, *args)

        return step

    class Handler(WSGIHandler):
        def __init__(self, *args):
            super().__init__(*args)
            if on_object:
                setattr(self, name, noting("object", getattr(Handler, name)).__get__(self))

    on_object = False
    original = getattr(WSGIHandler, name)
    with serving(hello, handler_class=Handler, log=io.StringIO()) as server, closing(connect(server)) as sock:
        with closing(sock.makefile("rb")) as file:

            def ask():
                sock.sendall(GET)
                assert Response(file).body == b"hello"

            ask()
            assert not called
            setattr(Handler, name, noting("class", original))
            ask()
            assert set(called) == {"class"}
            delattr(Handler, name)
            called.clear()
            ask()
            assert not called
        on_object = True
        assert talk(server, LAST).endswith(b"hello")
        assert set(called) == {"object"}


def test_the_servers_environment_may_be_changed_and_made_otherwise():
    seen = []

    def app(environ, start_response):
        seen.append((type(environ), environ.get("added"), environ["PATH_INFO"]))
        return hello(environ, start_response)

    class Own(dict[str, Any]):
        pass

    class Server(WSGIServer):
        def get_environ(self):
            return Own(super().get_environ(), added="made")

    with serving(app) as server:
        talk(server, LAST)
        server.environ["added"] = "set"
        talk(server, LAST)
        server.environ_class = Own
        talk(server, LAST)
    with serving(app, server_class=Server) as server:
        talk(server, LAST)
    assert seen == [(dict, None, "/last"), (dict, "set", "/last"), (Own, "set", "/last"), (Own, "made", "/last")]


# ---------------------------------------------------------------- limits


def test_a_head_that_does_not_come_in_time():
    with serving(hello, limits=replace(QUICK, head_timeout=0.2)) as server:
        with closing(connect(server)) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n")
            with closing(sock.makefile("rb")) as file:
                assert Response(file).status == 408
        with closing(connect(server)) as silent:
            assert read_all(silent) == b""


def test_dribbling_does_not_prolong_a_head():
    with serving(hello, limits=replace(QUICK, head_timeout=0.3)) as server, closing(connect(server)) as sock:
        answer = bytearray()
        reader = weald.spawn(lambda: [answer.extend(piece) for piece in iter(lambda: sock.recv(4096), b"")])
        with pytest.raises(OSError) as caught:
            sock.sendall(b"GET / HTTP/1.1\r\nX: ")
            while True:
                sock.sendall(b"a")
                weald.sleep(0.02)
        assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)
        reader.join(PATIENCE)
        assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_connection_leaves_nothing_to_the_collector():
    """With thousands of them, garbage collection of their remains would delay all others."""

    def serve_some():
        for data in (LAST, b"GET / HTTP/1.1\r\nX: ", b"bad\r\n\r\n") * 3:
            assert talk(server, data)
        wait_until(lambda: not server._connections)
        weald.sleep(0)

    with serving(hello, limits=replace(QUICK, head_timeout=0.05)) as server:
        serve_some()
        gc.collect()
        gc.disable()
        try:
            serve_some()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            assert not [left for left in gc.garbage if type(left).__module__.startswith("weald")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()


def test_an_idle_connection_is_closed():
    with serving(hello, limits=replace(QUICK, keep_alive_timeout=0.1)) as server, closing(connect(server)) as sock:
        sock.sendall(GET)
        assert read_all(sock).endswith(b"hello")


@pytest.mark.parametrize("length", [100, 10_000_000])
@pytest.mark.parametrize("limits", [{"body_timeout": 0.2}, {"body_grace": 0.2, "body_rate": 1e6}])
def test_a_body_that_comes_too_slowly(limits, length):
    with serving(echo, limits=replace(QUICK, **limits)) as server, closing(connect(server)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\nxx" % length)
        with closing(sock.makefile("rb")) as file:
            assert Response(file).status == 408
            assert file.read() == b""


@pytest.mark.parametrize("way", ["read", "size", "parts", "more", "lines"])
@pytest.mark.parametrize("length", [65_535, 65_536, 1_000_000, 2**20, 5_000_000])
def test_long_bodies(length, way):
    body = bytes(range(256)) * (length // 256 + 1)
    body = body[:length]

    def app(environ, start_response):
        file = environ["wsgi.input"]
        if way == "read":
            got = [file.read()]
        elif way == "size":
            got = [file.read(length), file.read(1_000_000)]
        elif way == "more":
            got = [file.read(length + 1)]
        elif way == "parts":
            got = [file.readline(), *iter(lambda: file.read(100_001), b"")]
        else:
            got = list(file)
        start_response("200 OK", [])
        return got

    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (length, body)
    with serving(app) as server, closing(connect(server)) as sock:
        weald.spawn(sock.sendall, request * 2 + LAST)
        with closing(sock.makefile("rb")) as file:
            assert [Response(file).body for _ in range(3)] == [body, body, b""]


def test_what_came_of_a_long_body_before_a_timeout_is_kept():
    came, cut = Event(), Event()

    def app(environ, start_response):
        file = environ["wsgi.input"]
        reading = weald.spawn(file.read, 1_000_000)
        came.wait()
        settle()
        reading.kill()
        cut.set()
        start_response("200 OK", [])
        return [file.read(1_000_000)]

    body = bytes(range(250)) * 4000
    with serving(app) as server, closing(connect(server)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + body[:300_000])
        came.set()
        assert cut.wait(PATIENCE)
        sock.sendall(body[300_000:] + LAST)
        with closing(sock.makefile("rb")) as file:
            assert [Response(file).body for _ in range(2)] == [body, b""]


def test_a_client_that_leaves_in_a_long_body():
    errors = []

    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            errors.append(error)
        start_response("200 OK", [])
        return []

    with serving(app) as server, closing(connect(server)) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        sock.shutdown(SHUT_WR)
        read_all(sock)
    assert [type(error) for error in errors] == [ConnectionResetError]


@pytest.mark.parametrize("declared", [10**12, 10**9])
def test_the_memory_of_a_long_body_is_that_of_what_has_come(declared):
    came, done = Event(), Event()

    def app(environ, start_response):
        weald.spawn(came.wait).link(lambda _: tell())
        environ["wsgi.input"].read(declared)

    def tell():
        peaks.append(tracemalloc.get_traced_memory()[1])
        done.set()

    peaks = []
    with serving(app, limits=replace(QUICK, body=2**60)) as server, closing(connect(server)) as sock:
        tracemalloc.start()
        try:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % declared + b"x" * 100_000)
            settle()
            came.set()
            assert done.wait(PATIENCE)
        finally:
            tracemalloc.stop()
    assert peaks[0] < 4_000_000


def test_a_client_that_takes_nothing_is_cut_off():
    ended = Event()

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 100_000
        finally:
            ended.set()

    with serving(app, limits=replace(QUICK, write_timeout=0.2)) as server:
        with closing(socket.socket()) as sock:
            sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.server_port))
            sock.sendall(GET)
            assert ended.wait(PATIENCE)


def test_a_head_beyond_the_limit():
    served = []

    def app(environ, start_response):
        served.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    with serving(app) as server:
        for end in (b"\r\n\r\n", b""):
            response = one(server, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 66_000 + end + GET)
            assert (response.status, response.fields["connection"]) == (431, "close")
    assert served == []


def test_a_body_beyond_the_limit():
    with serving(echo, limits=replace(QUICK, body=10)) as server:
        assert one(server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").status == 413
        assert one(server, CHUNKED + b"b\r\n01234567890\r\n0\r\n\r\n").status == 413
        assert one(server, CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n").body == b"0123456789"


def test_requests_per_connection():
    with serving(hello, limits=replace(QUICK, requests=2)) as server:
        found = responses(server, GET * 5)
    assert [response.fields.get("connection") for response in found] == [None, "close"]


def test_connections_at_once():
    with serving(hello, limits=replace(QUICK, connections=1)) as server, closing(connect(server)) as first:
        first.sendall(GET)
        assert first.recv(1000)
        with closing(connect(server)) as second:
            second.sendall(LAST)
            settle()
            second.settimeout(0)
            with pytest.raises(BlockingIOError):
                second.recv(1000)
            second.settimeout(PATIENCE)
            first.close()
            assert read_all(second).endswith(b"hello")


def test_connections_that_come_at_once_and_those_at_the_tls_handshake_count(certificate):
    options = [{}, {"ssl_context": certificate.server_context()}]
    for option in options:
        with serving(hello, limits=replace(QUICK, connections=2), **option) as server:
            clients = [stdlib_socket.socket() for _ in range(5)]  # they block, so the server gets all of them at once
            for client in clients:
                client.connect(("127.0.0.1", server.server_port))
            wait_until(lambda: server._connections)
            settle()
            assert len(server._connections) == 2
            for client in clients:
                client.close()
            wait_until(lambda: not server._connections)


# ---------------------------------------------------------------- responses


class OneSend(WSGIHandler):
    """Counts what goes to the socket."""

    sends = 0

    def __init__(self, sock, *args):
        assert sock.getsockopt(IPPROTO_TCP, TCP_NODELAY)
        super().__init__(sock, *args)

    def _sendall(self, data):
        OneSend.sends += 1
        super()._sendall(data)


def test_a_response_leaves_in_one_piece():
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"a" * 1000, b"b" * 1000]

    OneSend.sends = 0
    with serving(app, handler_class=OneSend) as server:
        assert one(server, LAST).body == b"a" * 1000 + b"b" * 1000
    assert OneSend.sends == 1


@pytest.mark.parametrize("size", [100_000, 5_000_000])
@pytest.mark.parametrize("kind", ["list", "generator", "write"])
def test_large_responses(size, kind):
    parts = [bytes([65 + i]) * (size // 4) for i in range(4)]

    def app(environ, start_response):
        write = start_response("200 OK", [])
        if kind == "write":
            for part in parts:
                write(part)
            return []
        return parts if kind == "list" else iter(parts)

    with serving(app) as server:
        found = responses(server, GET + LAST)
    assert [response.body == b"".join(parts) for response in found] == [True, True]
    assert ("content-length" in found[0].fields) is (kind == "list")


def test_more_than_content_length_is_not_sent():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "3")])
        return [b"hello"]

    with serving(app) as server, recorded_errors() as errors:
        answer = talk(server, GET + GET)
    assert answer.endswith(b"\r\n\r\n")
    assert [error[1] for error in errors] == [AssertionError]


def test_less_than_content_length_costs_the_connection():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "10")])
        return [b"hello"]

    log = io.StringIO()
    with serving(app, error_log=log) as server:
        assert talk(server, GET + GET).endswith(b"\r\n\r\nhello")
    assert "5 bytes less" in log.getvalue()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("length", [None, "1000", "150000"])
def test_a_file_goes_out_by_sendfile(method, length, monkeypatch):
    data = bytes(range(256)) * 1000
    calls = []
    sendfile = os.sendfile
    monkeypatch.setattr(os, "sendfile", lambda *args: calls.append(args) or sendfile(*args))
    file = tempfile.TemporaryFile()  # noqa: SIM115 (the server closes it)
    file.write(data)

    def app(environ, start_response):
        file.seek(1000)
        start_response("200 OK", [("Content-Length", length)] if length else [])
        wrapped = environ["wsgi.file_wrapper"](file)
        return wrapped

    with serving(app) as server:
        request = f"{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        (response,) = responses(server, request, method == "HEAD")
    wanted = data[1000 : 1000 + int(length)] if length else data[1000:]
    assert response.fields["content-length"] == str(len(wanted))
    assert response.body == (wanted if method == "GET" else b"")
    assert bool(calls) is (method == "GET")
    assert file.closed


class Shouting(io.FileIO):
    def read(self, size=-1, /):
        return (super().read(size) or b"").upper()

    def readinto(self, buffer, /):
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@pytest.mark.parametrize("kind", ["memory", "gzip", "subclass", "buffered subclass"])
def test_what_only_looks_like_a_file_is_read(kind, tmp_path):
    """Also objects whose descriptor gives other bytes."""
    data = b"HELLO" * 1000
    (tmp_path / "plain").write_bytes(data.lower())
    (tmp_path / "packed").write_bytes(gzip.compress(data))

    def app(environ, start_response):
        start_response("200 OK", [])
        if kind == "memory":
            file = io.BytesIO(data)
        elif kind == "gzip":
            file = gzip.open(tmp_path / "packed")
        else:
            file = Shouting(tmp_path / "plain")
            if kind == "buffered subclass":
                file = io.BufferedReader(file)
        wrapped = environ["wsgi.file_wrapper"](file, 100)
        return wrapped

    with serving(app) as server:
        assert one(server, LAST).body == data


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        ("200 OK\r\nX: y", [], ValueError),
        ("OK", [], ValueError),
        (b"200 OK", [], UnicodeError),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")], ValueError),
        ("200 OK", [("X", "a\nb")], ValueError),
        ("200 OK", [("X", "a\x00b")], ValueError),
        ("200 OK", [("X\r\nY", "a")], ValueError),
        ("200 OK", [("X Y", "a")], ValueError),
        ("200 OK", [("", "a")], ValueError),
        ("200 OK", [(b"X", "a")], UnicodeError),
        ("200 OK", [("X", b"a")], UnicodeError),
        ("200 OK", [("X", 1)], UnicodeError),
        ("200 OK", [("X", "\u20ac")], UnicodeError),
        ("200 OK", [("Content-Length", "+5")], ValueError),
        ("200 OK", [("Content-Length", "5"), ("Content-Length", "6")], ValueError),
        ("204 No Content", [("Content-Length", "5")], AssertionError),
        ("205 Reset Content", [("Content-Length", "5")], AssertionError),
        ("000 None", [], ValueError),
        ("099 None", [], ValueError),
        ("100 Continue", [], ValueError),
        ("101 Switching Protocols", [], ValueError),  # which the client has not asked for
        ("103 Early Hints", [("Link", "</a>; rel=preload")], ValueError),
        ("199 Other", [], ValueError),
    ],
)
def test_start_response_refuses(status, headers, error):
    caught = []

    def app(environ, start_response):
        for _ in range(2):  # it must not have been remembered as valid
            try:
                start_response(status, headers)
            except Exception as raised:
                caught.append(raised)
        return hello(environ, start_response)

    with serving(app) as server:
        assert one(server, LAST).body == b"hello"
    assert [isinstance(raised, error) for raised in caught] == [True, True]


def test_start_response_again():
    def app(environ, start_response):
        start_response("200 OK", [("X", "1")])
        try:
            raise KeyError("late")
        except KeyError as error:
            info = (KeyError, error, error.__traceback__)
            start_response("500 Sorry", [("Y", "1")], info)
        if environ["PATH_INFO"] == "/":
            start_response("200 OK", [])  # without exc_info: an error
        yield b"sorry"
        if environ["PATH_INFO"] == "/late":
            start_response("500 Sorry", [], info)
            yield b"not reached"

    with serving(app) as server, recorded_errors() as errors:
        response = one(server, LAST)
        assert (response.status, response.body) == (500, b"sorry")
        assert "x" not in response.fields
        assert errors == []
        assert responses(server, GET + LAST)[0].body == b"Internal Server Error"
        assert [error[1] for error in errors] == [AssertionError]
        late = talk(server, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
        assert late.endswith(b"sorry\r\n")
        assert [error[1] for error in errors] == [AssertionError, KeyError]


@pytest.mark.parametrize("wrong", ["text", 5, ("a", "b")], ids=repr)
def test_a_body_that_is_no_bytes(wrong):
    """The client gets an error, because nothing has been sent yet."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "1")])
        return [wrong]

    with serving(app) as server, recorded_errors() as errors:
        assert one(server, LAST).status == 500
        assert [error[1] for error in errors] == [TypeError]


def test_an_empty_text_sends_the_head():
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "5")])
        write("")
        return [b"hello"]

    with serving(app) as server:
        assert one(server, LAST).body == b"hello"


def test_a_body_where_none_may_be():
    """Bytes or not, it is refused as gevent refuses it."""
    caught = []

    def app(environ, start_response):
        write = start_response("304 Not Modified", [])
        for body in ("text", b"bytes"):
            try:
                write(body)
            except AssertionError as error:
                caught.append(str(error))
        return []

    with serving(app) as server:
        assert one(server, LAST).status == 304
    assert caught == ["The 304 response must have no body"] * 2


@pytest.mark.parametrize("where", ["call", "first", "later", "close", "nothing"])
def test_an_application_that_fails(where):
    class Result:
        def __iter__(self):
            if where == "first":
                raise KeyError(where)
            yield b"hello"
            if where == "later":
                raise KeyError(where)

        def close(self):
            if where == "close":
                raise KeyError(where)

    def app(environ, start_response):
        if where == "call":
            raise KeyError(where)
        if where != "nothing":
            start_response("200 OK", [])
        return Result()

    with serving(app) as server, recorded_errors() as errors:
        answer = talk(server, GET + LAST)
    assert all(error[1] is (AssertionError if where == "nothing" else KeyError) for error in errors)
    assert "SERVER_NAME" not in repr(errors[0][0])
    if where in ("call", "first", "nothing"):
        assert len(errors) == 2
        assert answer.count(b"HTTP/1.1 500 Internal Server Error\r\n") == 2
    else:
        assert len(errors) == 1
        assert answer.count(b"HTTP/1.1 200 OK\r\n") == 1
        # The client must be able to tell that something is missing.
        assert answer.endswith(b"hello\r\n0\r\n\r\n") is (where == "close")


def test_a_client_that_leaves_is_nobodys_error():
    closed = Event()

    class Endless:
        def __iter__(self):
            while True:
                yield b"x" * 10_000
                weald.sleep(0)

        def close(self):
            closed.set()

    def app(environ, start_response):
        if environ["REQUEST_METHOD"] == "POST":
            try:
                environ["wsgi.input"].read()
            except OSError:
                closed.set()
                raise
        start_response("200 OK", [])
        return Endless()

    with serving(app) as server, recorded_errors() as errors:
        for data in (GET, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel"):
            with closing(connect(server)) as sock:
                sock.sendall(data)
                if data is GET:
                    assert sock.recv(100)
            assert closed.wait(PATIENCE)
            closed.clear()
        wait_until(lambda: not server._connections)
    assert errors == []


# ---------------------------------------------------------------- upgrade


@pytest.mark.parametrize("fields", [b"Connection: Upgrade\r\nUpgrade: echo\r\n", b"Connection: upgrade\r\n"])
def test_upgrade(fields):
    def app(environ, start_response):
        assert environ["wsgi.input_terminated"] is False
        write = start_response("101 Switching Protocols", [("Connection", "upgrade"), ("Upgrade", "echo")])
        write(b"")
        for line in environ["wsgi.input"]:
            write(line.upper())
        return []

    head = b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % fields
    with serving(app) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(head + b"hello\n")
        response = Response(file)
        assert response.status == 101
        assert "transfer-encoding" not in response.fields
        assert file.readline() == b"HELLO\n"
        sock.sendall(b"GET / HTTP/1.1\n")
        assert file.readline() == b"GET / HTTP/1.1\n"
        sock.shutdown(1)
        assert file.read() == b""


def test_an_upgrade_that_nobody_takes_is_a_request_without_a_body():
    with serving(echo) as server:
        ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
        assert [response.body for response in responses(server, ask + ask + LAST)] == [b"", b"", b""]


# ---------------------------------------------------------------- stopping


def test_stop_lets_responses_finish_and_says_so():
    entered, go_on = Event(), Event()

    def app(environ, start_response):
        entered.set()
        go_on.wait(PATIENCE)
        return hello(environ, start_response)

    with serving(app, spawn=10) as server, closing(connect(server)) as sock:
        sock.sendall(GET)
        assert entered.wait(PATIENCE)
        stopping = weald.spawn(server.stop, 20)
        wait_until(lambda: server.closed)
        go_on.set()
        with closing(sock.makefile("rb")) as file:
            response = Response(file)
            assert (response.body, response.fields["connection"]) == (b"hello", "close")
            assert file.read() == b""
        stopping.join(PATIENCE)
        assert stopping.ready()


# ---------------------------------------------------------------- gevent's interface


def test_names():
    assert set(pywsgi.__all__) == {
        *("Environ", "LoggingLogAdapter", "SecureEnviron", "WSGIHandler", "WSGIServer", "WSGISecureEnviron")
    }


def test_hooks_are_called_in_order():
    calls = []
    names = [
        *("handle", "handle_one_request", "read_requestline", "read_request", "get_environ", "handle_one_response"),
        *("run_application", "start_response", "process_result", "write", "finalize_headers", "_sendall"),
        *("log_request", "format_request"),
    ]

    def wrap(name):
        def call(self, *args):
            calls.append(name)
            return getattr(super(Handler, self), name)(*args)

        return call

    Handler = type("Handler", (WSGIHandler,), {name: wrap(name) for name in names})
    log = io.StringIO()
    with serving(hello, handler_class=Handler, log=log) as server:
        one(server, LAST)
    assert calls == names
    assert '"GET /last HTTP/1.1" 200 ' in log.getvalue()
    assert log.getvalue().startswith("127.0.0.1 - - [")


def test_an_application_that_answers_on_the_socket_itself():
    """As simple-websocket does on the servers that it knows: nothing is added, and nothing is logged as an error."""
    errors = io.StringIO()

    def app(environ, start_response):
        sock = environ["werkzeug.socket"].dup()
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\nfrom the application")
        sock.close()
        return []

    with serving(app, error_log=errors) as server, closing(connect(server)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_all(sock) == b"HTTP/1.1 101 Switching Protocols\r\n\r\nfrom the application"
    assert errors.getvalue() == ""


def test_an_application_that_has_closed_the_socket_itself():
    """As Flask-Sock does before it returns a response that nobody is to get."""
    errors = io.StringIO()

    def app(environ, start_response):
        sock = environ["werkzeug.socket"]
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\nfrom the application")
        sock.close()
        start_response("200 OK", [("Content-Length", "4")])
        return [b"more"]

    with serving(app, error_log=errors) as server, closing(connect(server)) as sock, recorded_errors() as raised:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_all(sock) == b"HTTP/1.1 101 Switching Protocols\r\n\r\nfrom the application"
        wait_until(lambda: not server._connections)
    assert errors.getvalue() == "" and not raised


@pytest.mark.parametrize(
    "sent, logged",
    [
        (b"GET / HTTP/9.9\r\n\r\n", '"GET / HTTP/9.9" 505 '),
        (b"GARBAGE\r\n", '"GARBAGE" 400 '),
        (b'G"ET / HTTP/1.1\r\nHost: a\r\n\r\n', '"G\\x22ET / HTTP/1.1" 400 '),
        (b"\x16\x03\x01\x02\r\n\r\n", '"\\x16\\x03\\x01\\x02" 400 '),
        (b"\r\nGET /x HTTP/1.1\r\nno field\r\n\r\n", '"GET /x HTTP/1.1" 400 '),
        (b"GET /y HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\nmore", '"GET /y HTTP/1.1" 400 '),
        (b"GET /" + b"z" * 20000, '"GET /' + "z" * 8185 + '" 414 '),
        (b"GET /" + b"z" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", '"GET /' + "z" * 8185 + '" 414 '),
        (b"POST /h HTTP/1.1\r\nA: " + b"a" * 200000, '"POST /h HTTP/1.1" 431 '),
    ],
)
def test_the_access_log_says_what_was_refused(sent, logged):
    """The first line that came, up to the longest that is allowed."""
    log = io.StringIO()
    with serving(hello, log=log) as server, closing(connect(server)) as sock:
        sock.sendall(b"GET /before HTTP/1.1\r\nHost: a\r\n\r\n")
        with suppress(OSError):  # refused before all of it has come
            sock.sendall(sent)
        wait_until(lambda: log.getvalue().count("\n") == 2)
    assert logged in log.getvalue().splitlines()[1]


def test_a_handler_that_changes_requests_and_responses():
    class Handler(WSGIHandler):
        def read_request(self, raw_requestline):
            assert super().read_request(raw_requestline)
            assert self.headers["host"] == self.headers.getheader("HOST") == "a"
            assert self.content_length is None
            if self.path == "/bad":
                raise ValueError("not this")
            self.path = "/changed"
            return True

        def get_environ(self):
            env = super().get_environ()
            env["SCRIPT_NAME"] = "/prefix"
            return env

        def finalize_headers(self):
            self.response_headers.append((b"X-More", b"1"))
            super().finalize_headers()

    def app(environ, start_response):
        start_response("200 OK", [])
        return [(environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode()]

    log = io.StringIO()
    with serving(app, handler_class=Handler, error_log=log) as server:
        response = one(server, LAST)
        assert response.body == b"/prefix/changed"
        assert response.fields["x-more"] == "1"
        assert one(server, b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n" + GET).status == 400
    assert "not this" in log.getvalue()


def test_logs():
    records = []
    logger = logging.Logger("test")
    logger.addHandler(type("Keep", (logging.Handler,), {"emit": lambda self, record: records.append(record)})())
    with serving(hello, log=logger, error_log=logger) as server:
        talk(server, b'GET /"x?\\ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n')
        talk(server, b"nonsense\r\n\r\n")
        server.environ["wsgi.errors"].write("said\n")
        assert server.log.name == "test"
    levels = [(record.levelno, record.getMessage()) for record in records]
    assert levels[0][0] == logging.INFO
    assert '"GET /\\x22x?\\x5c HTTP/1.1" 200' in levels[0][1]
    assert [level for level, _ in levels[1:]] == [logging.ERROR, logging.INFO, logging.ERROR]
    assert "malformed head" in levels[1][1]
    assert levels[3][1] == "said"
    assert WSGIServer(("127.0.0.1", 0), hello, log=None).log.write("") is None


def test_environ_classes():
    env = pywsgi.WSGISecureEnviron(REMOTE_ADDR="::1", HTTP_AUTHORIZATION="secret")
    assert repr(env) == str(env) == "{'REMOTE_ADDR': '::1', (hidden keys: 1)}"
    env.print_masked_keys = True
    assert repr(env) == "{'REMOTE_ADDR': '::1', 'HTTP_AUTHORIZATION': '<MASKED>'}"
    env.secure_repr = False
    assert "secret" in repr(env)
    plain = pywsgi.SecureEnviron(a="secret")
    assert "secret" not in repr(plain)
    assert type(plain.copy()) is pywsgi.SecureEnviron
    with pytest.raises(AttributeError):
        plain.other  # noqa: B018
    seen = []

    class Server(WSGIServer):
        environ_class = pywsgi.WSGISecureEnviron

    def app(environ, start_response):
        seen.append(type(environ))
        return hello(environ, start_response)

    with serving(app, server_class=Server) as server:
        talk(server, LAST)
    assert seen == [pywsgi.WSGISecureEnviron]


# ---------------------------------------------------------------- real clients and frameworks


def url(server, scheme="http"):
    return f"{scheme}://127.0.0.1:{server.server_port}/"


def curl(*arguments, stdin=b""):
    command = [require_program("curl"), "-sS", "--max-time", "100", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    output = done.stdout
    return output.decode()


def test_curl():
    def app(environ, start_response):
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "application/json")])
        keys = ("REQUEST_METHOD", "SERVER_PROTOCOL", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT")
        return [json.dumps({key: environ.get(key) for key in keys} | {"length": len(body)}).encode()]

    with serving(app) as server:
        to = url(server)
        assert json.loads(curl(to))["SERVER_PROTOCOL"] == "HTTP/1.1"
        assert json.loads(curl("--http1.0", to))["SERVER_PROTOCOL"] == "HTTP/1.0"
        assert "HTTP/1.1 200 OK" in curl("-I", to)
        assert json.loads(curl("--data-binary", "@-", to, stdin=b"x" * 100_000))["length"] == 100_000
        chunked = json.loads(
            curl("-T", "-", "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", to, stdin=b"y" * 300_000)
        )
        assert chunked == {
            "REQUEST_METHOD": "PUT",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_TRANSFER_ENCODING": "chunked",
            "HTTP_EXPECT": "100-continue",
            "length": 300_000,
        }
        twice = curl("-w", "%{num_connects}\n", "-o", "/dev/null", to, "-o", "/dev/null", to)
        assert twice.split() == ["1", "0"]


@pytest.mark.parametrize("kind", ["list", "file"])
def test_tls(certificate, kind):
    data = b"x" * 500_000

    def app(environ, start_response):
        assert environ["wsgi.url_scheme"] == "https"
        start_response("200 OK", [])
        return [data] if kind == "list" else environ["wsgi.file_wrapper"](io.BytesIO(data))

    with serving(app, ssl_context=certificate.server_context()) as server:
        assert curl("--cacert", certificate.cert, url(server, "https")) == data.decode()
        # The body's end is the connection's: TLS has to say that it is no accident.
        assert curl("--http1.0", "--cacert", certificate.cert, url(server, "https")) == data.decode()


def test_who_does_not_speak_tls_is_logged_and_dropped(certificate):
    log = io.StringIO()
    limits = replace(QUICK, head_timeout=0.2)
    with (
        serving(hello, ssl_context=certificate.server_context(), error_log=log, limits=limits) as server,
        recorded_errors() as errors,
    ):
        with closing(connect(server)) as silent:
            assert read_all(silent) == b""
        with closing(connect(server)) as sock:
            sock.sendall(GET)
            try:
                assert not read_all(sock).startswith(b"HTTP/1.1 200")
            except ConnectionResetError:
                pass
    assert errors == []
    assert log.getvalue().count("no TLS with ('127.0.0.1', ") == 2


def test_a_unix_socket(tmp_path):
    seen = {}

    def app(environ, start_response):
        seen.update(environ)
        return hello(environ, start_response)

    path = str(tmp_path / "sock")
    listener = stdlib_socket.socket(stdlib_socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    server = WSGIServer(listener, app, log=None)
    server.start()
    try:
        assert curl("--unix-socket", path, "http://a/") == "hello"
    finally:
        server.stop()
    assert "REMOTE_ADDR" not in seen
    # PEP 3333: they "can never be empty strings".
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("localhost", "80")


def test_requests_and_flask_in_a_patched_program():
    pytest.importorskip("flask")
    run_patched(
        """
        import requests
        from flask import Flask, request, Response
        from weald import pywsgi

        app = Flask("app")

        @app.post("/json")
        def double():
            return {"twice": request.json["number"] * 2}

        @app.get("/stream")
        def stream():
            return Response(str(i) for i in range(1000))

        @app.post("/upload")
        def upload():
            return str(len(request.files["file"].read()))

        server = pywsgi.WSGIServer(("127.0.0.1", 0), app, log=None)
        server.start()
        url = f"http://127.0.0.1:{server.server_port}"
        with requests.Session() as session:
            assert session.post(url + "/json", json={"number": 21}, timeout=100).json() == {"twice": 42}
            assert session.get(url + "/stream", timeout=100).text == "".join(map(str, range(1000)))
            chunks = (b"x" * 1000 for _ in range(10))
            assert session.post(url + "/json", data=chunks, timeout=100).status_code == 415
            assert session.post(url + "/upload", files={"file": b"y" * 300_000}, timeout=100).text == "300000"
            assert session.get(url + "/none", timeout=100).status_code == 404
        server.stop()
        """
    )


def test_without_httptools_the_error_says_what_to_install():
    run_patched(
        """
        import sys
        sys.modules["httptools"] = None
        import weald.server
        try:
            import weald.pywsgi
        except ModuleNotFoundError as error:
            assert "pip install httptools" in str(error), error
        else:
            raise SystemExit("it was imported")
        """
    )


def test_draining_serves_who_connects_while_others_begin():
    late = stdlib_socket.socket()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/first":
            late.connect(address)
            late.sendall(GET)
        return hello(environ, start_response)

    with serving(app) as server:
        address = ("127.0.0.1", server.server_port)
        first = stdlib_socket.socket()  # blocks: the server hears nothing of it before it drains
        with closing(first), closing(late):
            first.connect(address)
            first.sendall(GET.replace(b"/ ", b"/first "))
            assert server.drain(PATIENCE)
            for sock in (first, late):
                sock.settimeout(PATIENCE)
                answer = sock.recv(4096)
                assert answer.startswith(b"HTTP/1.1 200 OK") and b"Connection: close" in answer


def test_draining_serves_who_is_at_the_tls_handshake(certificate):
    with serving(hello, ssl_context=certificate.server_context()) as server:
        with closing(connect(server)) as sock:
            wait_until(lambda: server._connections)
            draining = weald.spawn(server.drain, 5)
            wait_until(lambda: server.closed)
            context = ssl.cooperative(certificate.client_context())
            with context.wrap_socket(sock, server_hostname="localhost") as wrapped:
                wrapped.sendall(GET)
                assert b"Connection: close" in read_all(wrapped)
        assert draining.get(timeout=PATIENCE)


def test_draining_does_not_wait_for_who_says_nothing_at_the_tls_handshake(certificate):
    with serving(hello, ssl_context=certificate.server_context()) as server, closing(connect(server)) as sock:
        wait_until(lambda: server._connections)
        assert server.drain(PATIENCE, patience=0.05)
        assert len(read_all(sock)) < 10  # TLS's alert at most


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EMFILE])
def test_draining_while_accepting_fails(number):
    class Failing(WSGIServer):
        failures = 3

        def do_read(self):
            if self.http_state.draining and self.failures:
                self.failures -= 1
                raise OSError(number, "x")
            return super().do_read()

    with serving(hello, server_class=Failing) as server:
        late = stdlib_socket.socket()  # blocks: the server hears nothing of it before it drains
        with closing(late):
            late.connect(("127.0.0.1", server.server_port))
            late.sendall(GET)
            assert server.drain(PATIENCE)
            late.settimeout(PATIENCE)
            assert late.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_draining_serves_or_refuses_who_connects():
    """However many there are: every client that has connected is answered."""
    clients = []

    def connect_another():
        sock = stdlib_socket.socket()
        sock.settimeout(PATIENCE)
        try:
            sock.connect(address)
        except ConnectionRefusedError:
            sock.close()
        else:
            sock.sendall(GET)
            clients.append(sock)

    def app(environ, start_response):
        connect_another()
        return hello(environ, start_response)

    with serving(app) as server:
        address = ("127.0.0.1", server.server_port)
        connect_another()
        assert server.drain(PATIENCE)
        assert len(clients) > 1
        for sock in clients:
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 OK")
            sock.close()


# ---------------------------------------------------------------- what an application leaves behind


def two_requests(app):
    """The responses to a POST whose body comes after the response, and to a second one on the same connection."""
    with serving(app) as server, closing(connect(server)) as sock, closing(sock.makefile("rb")) as file:
        sock.sendall(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        responses = [Response(file)]
        sock.sendall(b"first" + b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nConnection: close\r\n\r\nsecond")
        responses.append(Response(file))
        assert file.read() == b""
    return responses


def test_a_late_reader_gets_nothing_of_the_next_request():
    kept = []
    late = []

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/1":
            kept.append(environ["wsgi.input"])
            return hello(environ, start_response)
        for read in (kept[0].read, kept[0].readline, lambda: list(kept[0])):
            try:
                late.append(read())
            except ValueError as error:
                late.append(str(error))
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    assert [response.body for response in two_requests(app)] == [b"hello", b"second"]
    assert late == ["the request has ended: the rest of its body is gone"] * 3


def test_a_reader_that_waits_while_its_request_ends_gets_nothing_of_the_next():
    readers = []

    def app(environ, start_response):
        readers.append(weald.spawn(environ["wsgi.input"].read))
        weald.sleep(0)
        return hello(environ, start_response)

    with serving(app) as server, closing(connect(server)) as sock, closing(sock.makefile("rb")) as file:
        sock.sendall(b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        assert Response(file).body == b"hello"
        with suppress(OSError):  # the connection ends, because the next bytes are ambiguous
            sock.sendall(GET)
            assert file.read() == b""
        readers[0].join(PATIENCE)
    assert len(readers) == 1
    assert b"GET" not in (readers[0].value or b"")


def test_a_late_answer_does_not_reach_the_next_response():
    kept = []
    refused = []

    def app(environ, start_response):
        environ["wsgi.input"].read()
        write = start_response("200 OK", [("Content-Length", "5")])
        kept.append((start_response, write))
        if len(kept) > 1:
            late_start, late_write = kept[0]
            for call in (lambda: late_write(b"late!"), lambda: late_start("500 Late", [], (None, None, None))):
                with pytest.raises(AssertionError, match="ended") as caught:
                    call()
                refused.append(str(caught.value))
        return [b"right"]

    with serving(app) as server, closing(connect(server)) as sock, closing(sock.makefile("rb")) as file:
        sock.sendall(GET)
        assert Response(file).body == b"right"
        sock.sendall(GET.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        assert Response(file).body == b"right"
        assert file.read() == b""
    assert len(refused) == 2


def test_a_late_upgrade_does_not_take_the_next_request_over():
    kept = []

    def app(environ, start_response):
        kept.append((environ["weald.upgrade"], environ["wsgi.input"]))
        if len(kept) > 1:
            with pytest.raises(AssertionError, match="ended"):
                kept[0][0]()
            assert kept[0][1].read() == b""
        return hello(environ, start_response)

    ask = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    with serving(app) as server, closing(connect(server)) as sock, closing(sock.makefile("rb")) as file:
        for _ in range(2):
            sock.sendall(ask)
            assert Response(file).body == b"hello"
