"""Names of gevent.pywsgi for programs that subclass its handler or read bodies themselves."""

import io

import pytest
from helpers import wait_until
from test_pywsgi import GET, LAST, Response, closing, connect, hello, one, serving, talk

from weald import pywsgi
from weald.pywsgi import WSGIHandler, WSGIServer

pytestmark = pytest.mark.usefixtures("io_loop")


class ReadsTheLine(WSGIHandler):
    """As in programs that answer Flash's policy requests on an HTTP port."""

    def read_requestline(self):
        start = self.rfile.read(7)
        if start == b"<policy":
            self.socket.sendall(b"policy")
            return None
        return start + self.rfile.readline()


def test_a_subclass_reads_the_request_line_itself():
    bodies = []

    def app(environ, start_response):
        bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", [("X-Agent", environ.get("HTTP_USER_AGENT", ""))])
        return [environ["PATH_INFO"].encode()]

    post = b"POST /post HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\nContent-Length: 4\r\n\r\nbody"
    with serving(app, handler_class=ReadsTheLine) as server:
        assert talk(server, b"<policy-file-request/>\0") == b"policy"
        file = io.BytesIO(talk(server, post + GET + LAST))
        found = [Response(file) for _ in range(3)]
    assert [response.body for response in found] == [b"/post", b"/", b"/last"]
    assert found[0].fields["x-agent"] == "me"
    assert bodies == [b"body", b"", b""]


def test_what_such_a_subclass_lets_through_is_judged_as_ever():
    with serving(hello, handler_class=ReadsTheLine) as server:
        assert one(server, b"GET / HTTP/1.1\r\n\r\n").status == 400
        assert one(server, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n").status == 400


@pytest.mark.parametrize("field", ["Connection: upgrade", "Upgrade: websocket"])
def test_half_an_upgrade_gives_the_connection_as_input(field):
    """As with gevent; `weald.upgrade` requires both fields, as RFC 9110 section 7.8 does."""
    seen = []

    def app(environ, start_response):
        seen.append(environ)
        return hello(environ, start_response)

    with serving(app) as server:
        request = f"GET / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n".encode()
        file = io.BytesIO(talk(server, request + LAST))
        assert [Response(file).status for _ in range(2)] == [200, 200]
    assert not seen[0]["wsgi.input_terminated"]
    assert "weald.upgrade" not in seen[0]
    assert seen[1]["wsgi.input_terminated"]


def test_a_body_that_comes_before_it_is_asked_for():
    """The client has said `Expect: 100-continue` and not waited; the connection goes on."""

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/no":
            start_response("417 Expectation Failed", [("Content-Length", "2")])
            return [b"no"]
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    head = b"PUT %s HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n"
    with serving(app) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(head % b"/no" + b"testing")
        assert Response(file).body == b"no"
        sock.sendall(head % b"/" + b"testing")
        assert Response(file).status == 100
        assert Response(file).body == b"testing"
        sock.sendall(head % b"/no")
        assert Response(file).body == b"no"
        assert file.read() == b""  # the body may come or not, so the connection is of no use any more


@pytest.mark.parametrize(
    ("status", "headers", "text"),
    [
        ("200 OK\r\n", [], "carriage return or newline in status"),
        ("200 OK\0", [], "control character in status"),
        ("200 OK", [("A\n", "b")], "carriage return or newline in header name"),
        ("200 OK", [("A b", "b")], "not a header name"),
        ("200 OK", [("A", "b\r\nC: d")], "carriage return or newline in header value"),
        ("200 OK", [("A", "b\x7f")], "control character in header value"),
    ],
)
def test_what_splits_a_response_is_refused(status, headers, text):
    """An application that catches it has not answered: the client gets an error, and the error log a line."""
    errors = []
    log = io.StringIO()

    def app(environ, start_response):
        try:
            start_response(status, headers)
        except ValueError as error:
            errors.append(error)
        return []

    with serving(app, error_log=log) as server:
        assert one(server, LAST).status == 500
    assert errors[0].args[0] == text
    assert "did not call start_response" in log.getvalue()


# ---------------------------------------------------------------- Input over a file


def chunks(*pieces):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.parametrize(
    ("data", "length", "chunked", "rest"),
    [
        (b"12", 2, False, b""),
        (b"12more", 2, False, b"more"),
        (chunks(b"1", b"2", b""), None, True, b""),
        (chunks(b"1", b"2") + b"0\r\nA: b\r\n\r\nmore", None, True, b"more"),
    ],
)
def test_input_takes_its_body_and_no_more(data, length, chunked, rest):
    file = io.BytesIO(data)
    body = pywsgi.Input(file, length, chunked_input=chunked)
    assert body.read() == b"12"
    assert body.read() == b""
    assert file.read() == rest


@pytest.mark.parametrize("data", [b"1", chunks(b"1"), b"2\r\n1", b"x\r\n1\r\n"])
@pytest.mark.parametrize("read", [lambda body: body.read(), lambda body: body.read(9), lambda body: body.readline()])
def test_input_whose_file_ends_early(data, read):
    body = pywsgi.Input(io.BytesIO(data), 2 if data == b"1" else None, chunked_input=data != b"1")
    with pytest.raises(OSError):
        read(body)


def test_input_without_a_body_reads_nothing():
    file = io.BytesIO(b"next request")
    assert pywsgi.Input(file, None).read() == b""
    assert file.read() == b"next request"


def test_names():
    assert pywsgi.MAX_REQUEST_LINE == 8192
    assert pywsgi.format_date_time(0) == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert issubclass(pywsgi._InvalidClientInput, OSError)
    assert pywsgi._InvalidClientRequest("100%").formatted_message == "100%"
    server = WSGIServer(("127.0.0.1", 0), hello)
    assert "handle" not in repr(server)
    server.set_handle(server.handle)
    assert repr(server).endswith("handle=<bound method WSGIServer.handle of self>>")


def test_what_read_request_of_a_subclass_raises_is_logged_as_it_is():
    log = io.StringIO()

    class Picky(WSGIHandler):
        def read_request(self, raw_requestline):
            raise pywsgi._InvalidClientRequest("100% wrong")

    with serving(hello, handler_class=Picky, error_log=log) as server:
        assert one(server, GET).status == 400
    assert "100% wrong" in log.getvalue()


# -------------------------------------------------------------------- bodies that an application reads in its own way

CHUNKS = b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
TEXT = b"4%b\r\nthis\r\n4%b\r\n is \r\n7%b\r\nchunked\r\n5%b\r\n\nline\r\n2%b\r\n 2\r\n0%b\r\n\r\n"


def reads(environ, start_response):
    body, how = environ["wsgi.input"], environ["PATH_INFO"]
    ways = {
        "/lines": lambda: list(body),
        "/readlines": body.readlines,
        "/line": lambda: [body.readline(), body.readline(3)],
        "/part": lambda: [body.read(10)],
        "/all": lambda: [body.read(), body.read(), body.read(5), body.readline()],
        "/nothing": lambda: [b"none"],
    }
    found = ways[how]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [repr(found).encode()]


@pytest.mark.parametrize("extension", [b"", b";name=value", b'; a="b c";d'])
@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/lines", [b"this is chunked\n", b"line 2"]),
        ("/readlines", [b"this is chunked\n", b"line 2"]),
        ("/line", [b"this is chunked\n", b"lin"]),
        ("/part", [b"this is ch"]),
        ("/all", [b"this is chunked\nline 2", b"", b"", b""]),
        ("/nothing", [b"none"]),
    ],
)
def test_what_is_left_of_a_chunked_body_is_no_request(path, found, extension):
    """Whatever the application has read of it: the next request on the connection is served."""
    body = TEXT.replace(b"%b", extension)
    with serving(reads) as server:
        last = b"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        file = io.BytesIO(talk(server, CHUNKS % path.encode() + body + last))
        responses = [Response(file) for _ in range(2)]
    assert [response.body for response in responses] == [repr(found).encode(), b"[b'none']"]


@pytest.mark.parametrize("rest", [b"4\r\nthi", b"4\r\nthis\r\n", b"4", b"4\r\nthis\r\n0\r\n"])
def test_a_chunked_body_that_is_cut_short_is_an_error_of_reading(rest):
    errors = []

    def app(environ, start_response):
        try:
            environ["wsgi.input"].read()
        except OSError as error:
            errors.append(error)
            raise
        return hello(environ, start_response)

    with serving(app) as server:
        with closing(connect(server)) as sock:
            sock.sendall(CHUNKS % b"/" + rest)
        wait_until(lambda: errors)
        assert one(server, LAST).status == 200
    assert len(errors) == 1


@pytest.mark.parametrize("value", ["\u1f4a3", b"\xe1\xbd\x8a3", "a\r\nb", "a\nb", "a\0b", 3, None])
def test_a_field_that_is_none_is_an_error_of_start_response(value):
    errors = []

    def app(environ, start_response):
        try:
            start_response("200 OK", [("Content-Type", "text/plain"), ("X-Field", value)])
        except Exception as error:
            errors.append(error)
            raise
        return []

    with serving(app) as server:
        assert one(server, LAST).status == 500
    assert len(errors) == 1
    assert isinstance(errors[0], UnicodeError) or value not in ("\u1f4a3", b"\xe1\xbd\x8a3")
