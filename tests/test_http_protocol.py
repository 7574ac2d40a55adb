"""HTTP/1.1 without I/O: accepted and refused requests, with the status, and limits.

A table of the rules of RFC 9110 and 9112; the same cases go over a real connection in test_pywsgi.py.
"""

import gc
import re
import sys

import pytest
from httptools import HttpParserUpgrade, HttpRequestParser
from hypothesis import given, settings
from hypothesis import strategies as st

from weald.http.limits import Limits
from weald.http.protocol import CHUNKED, HeadParser, ProtocolError, RequestStream, cgi_name, tokens

HOST = b"Host: example.org\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
CHUNKS = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


def stream(data=b"", **limits):
    made = RequestStream(HeadParser(Limits(**limits)))
    if data:
        made.feed(data)
    return made


def read(made):
    """The body, which must be complete."""
    pieces = []
    while (piece := made.body()) is not None:
        assert piece, "the body is not complete"
        pieces.append(piece)
    return b"".join(pieces)


def everything(data, step=0, **limits):
    """The (target, body) of all requests in `data`, fed `step` bytes at a time (0: at once)."""
    made = stream(**limits)
    step = step or len(data) or 1
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    found = []
    while True:
        while (request := made.next_request()) is None:
            if not parts:
                return found
            made.feed(parts.pop(0))
        body = b""
        while (piece := made.body()) is not None:
            body += piece
            if not piece:
                if not parts:
                    return found
                made.feed(parts.pop(0))
        found.append((request.target, body))


# ---------------------------------------------------------------- what is refused

BAD_HEADS = [
    # RFC 9112 section 3: the request line
    (400, "no version", b"GET /\r\n\r\n"),
    (400, "two spaces", b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a space at the end", b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n"),
    (400, "a space in front", b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a tab between", b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a space in the target", b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a control byte in the target", b"GET /a\x01 HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "NUL in the target", b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "bytes above ASCII in the target", "GET /ä HTTP/1.1\r\n".encode() + HOST + b"\r\n"),
    (400, "a fragment in the target", b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a fragment in an absolute target", b"GET http://a/b#c HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a target of no form", b"GET a HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "an asterisk for GET", b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "a foreign scheme", b"GET ftp://a/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "user information in the target", b"GET http://a@b/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, "CONNECT", b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, "an unknown method", b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (501, "a method in lower case", b"get / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "an invalid method", b"G(T / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (505, "HTTP/2.0", b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    (505, "HTTP/1.2", b"GET / HTTP/1.2\r\n" + HOST + b"\r\n"),
    (505, "HTTP/0.9", b"GET / HTTP/0.9\r\n" + HOST + b"\r\n"),
    (400, "HTTP/1.10", b"GET / HTTP/1.10\r\n" + HOST + b"\r\n"),
    (400, "another protocol", b"GET / RTSP/1.0\r\n" + HOST + b"\r\n"),
    (400, "lower case http", b"GET / http/1.1\r\n" + HOST + b"\r\n"),
    # RFC 9112 section 2.2: line ends
    (400, "bare LF after the request line", b"GET / HTTP/1.1\n" + HOST + b"\r\n"),
    (400, "bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\n\r\n"),
    (400, "bare LF everywhere", b"GET / HTTP/1.1\nHost: a\n\n"),
    (400, "bare CR in a value", GET + b"X: a\rb\r\n\r\n"),
    (400, "bare CR as line end", GET + b"X: a\r\rY: b\r\n\r\n"),
    (400, "bare LF in front", b"\nGET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "two empty lines in front", b"\r\n\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n"),
    # RFC 9112 section 5: fields
    (400, "a space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    (400, "a tab before the colon", GET + b"X\t: a\r\n\r\n"),
    (400, "obs-fold", GET + b"X: a\r\n b\r\n\r\n"),
    (400, "obs-fold with a tab", GET + b"X: a\r\n\tb\r\n\r\n"),
    (400, "white space before the first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    (400, "no colon", GET + b"X\r\n\r\n"),
    (400, "an empty name", GET + b": a\r\n\r\n"),
    (400, "NUL in a value", GET + b"X: a\x00b\r\n\r\n"),
    (400, "a control byte in a value", GET + b"X: a\x01b\r\n\r\n"),
    (400, "DEL in a value", GET + b"X: a\x7fb\r\n\r\n"),
    (400, "NUL in a name", GET + b"X\x00: a\r\n\r\n"),
    (400, "bytes above ASCII in a name", GET + b"X\xe4: a\r\n\r\n"),
    (400, "a separator in a name", GET + b"X(: a\r\n\r\n"),
    # RFC 9112 section 3.2: Host
    (400, "no Host", b"GET / HTTP/1.1\r\n\r\n"),
    (400, "Host twice", GET + HOST + b"\r\n"),
    (400, "Host twice in HTTP/1.0", b"GET / HTTP/1.0\r\n" + HOST + HOST + b"\r\n"),
    (400, "Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "Host with user information", b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    (400, "Host with a space", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, "Host with two ports", b"GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"),
    (400, "two hosts in Host", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".replace(b", ", b",\t")),
    *(
        (400, f"Host {host!r}", b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        for host in (
            b"a:65536",
            b"a:99999",
            b"a:" + b"9" * 5000,
            b"[::1]:65536",
            b"a:-1",
            b"a:+1",
            b"a:1e1",
            b":80",
            b":",
        )
    ),
    (400, "a port over 65535 in an absolute target", b"GET http://a:65536/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, "no host in an absolute target", b"GET http://:80/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    # RFC 9112 section 6.1 and 6.2: framing
    *(
        (400, f"Content-Length {value!r}", GET + b"Content-Length: " + value + b"\r\n\r\n")
        for value in (
            *(b"+5", b"-5", b"0_5", b"5,6", b"5, 5", b"0x5", b"5 5", b"5;", b"", b"five", b"5.0", b'"5"'),
            *(b"\xb2", b"9" * 19, b"9" * 400),
        )
    ),
    (400, "Content-Length twice, different", GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n"),
    (400, "Content-Length twice, equal", GET + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    (400, "Transfer-Encoding and Content-Length", GET + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"),
    (400, "Content-Length and Transfer-Encoding", GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, "Transfer-Encoding twice", GET + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, "chunked twice", GET + b"Transfer-Encoding: chunked, chunked\r\n\r\n"),
    (400, "chunked not last", GET + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    (400, "identity", GET + b"Transfer-Encoding: identity\r\n\r\n"),
    (400, "an unknown last coding", GET + b"Transfer-Encoding: xchunked\r\n\r\n"),
    (400, "chunked with a parameter", GET + b"Transfer-Encoding: chunked;a=b\r\n\r\n"),
    (400, "an empty coding", GET + b"Transfer-Encoding:\r\n\r\n"),
    (400, "a vertical tab before chunked", GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n"),
    (400, "Transfer-Encoding in HTTP/1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (501, "an unknown coding before chunked", GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    (413, "a body beyond the limit", GET + b"Content-Length: 99999999999999\r\n\r\n"),
    (417, "an unknown expectation", GET + b"Expect: the unexpected\r\n\r\n"),
    (400, "Expect twice", GET + b"Expect: 100-continue\r\nExpect: 100-continue\r\n\r\n"),
    # Limits
    (414, "a long request line", b"GET /" + b"a" * 8200 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
    (431, "too many fields", GET + b"X: a\r\n" * 100 + b"\r\n"),
    # Names that would be one name in the environment
    (400, "Content_Length", GET + b"Content_Length: 5\r\n\r\n"),
    (400, "Transfer_Encoding", GET + b"Transfer_Encoding: chunked\r\n\r\n"),
    (400, "a collision", GET + b"X-Real-IP: 1.2.3.4\r\nX_Real_IP: 127.0.0.1\r\n\r\n"),
    (400, "a collision, the other way round", GET + b"X_Real-IP: 127.0.0.1\r\nx-real-ip: 1.2.3.4\r\n\r\n"),
]


@pytest.mark.parametrize(("status", "data"), [pytest.param(s, d, id=i) for s, i, d in BAD_HEADS])
def test_a_bad_head_is_refused(status, data):
    with pytest.raises(ProtocolError) as caught:
        stream(data).next_request()
    assert caught.value.status == status


@pytest.mark.parametrize("data", [pytest.param(d, id=i) for _, i, d in BAD_HEADS])
def test_a_bad_head_is_refused_whatever_the_parser_served_before(data):
    parser = HeadParser(Limits())
    for before in (GET + b"\r\n", GET + b"Connection: close\r\n\r\n", GET + b"Proxy-Connection: close\r\n\r\n"):
        parser.parse(before)
        served = RequestStream(parser)
        served.feed(data)
        with pytest.raises(ProtocolError):
            served.next_request()
        assert parser.parse(GET + b"\r\n").method == "GET"


@pytest.mark.parametrize("data", [pytest.param(d, id=i) for s, i, d in BAD_HEADS])
def test_a_bad_head_is_refused_byte_by_byte(data):
    with pytest.raises(ProtocolError):
        everything(data, 1)


BAD_CHUNKS = [
    (400, "no size", b"\r\nhello\r\n0\r\n\r\n"),
    (400, "a size with 0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    (400, "a size with a sign", b"+5\r\nhello\r\n0\r\n\r\n"),
    (400, "a negative size", b"-5\r\nhello\r\n0\r\n\r\n"),
    (400, "a size with an underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    (400, "a space in front of the size", b" 5\r\nhello\r\n0\r\n\r\n"),
    (400, "a space behind the size", b"5 \r\nhello\r\n0\r\n\r\n"),
    (400, "a size of 17 digits", b"0" * 16 + b"5\r\nhello\r\n0\r\n\r\n"),
    (400, "no hexadecimal size", b"g\r\nhello\r\n0\r\n\r\n"),
    (400, "bare LF after the size", b"5\nhello\r\n0\r\n\r\n"),
    (400, "bare CR after the size", b"5\rhello\r\n0\r\n\r\n"),
    (400, "bare LF in an extension", b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    (400, "bare CR in an extension", b"5;a\rb\r\nhello\r\n0\r\n\r\n"),
    (400, "NUL in an extension", b"5;a\x00\r\nhello\r\n0\r\n\r\n"),
    (400, "an empty extension", b"5;\r\nhello\r\n0\r\n\r\n"),
    (400, "an extension with an empty value", b"5;a=\r\nhello\r\n0\r\n\r\n"),
    (400, "an open quote in an extension", b'5;a="b\r\nhello\r\n0\r\n\r\n'),
    (400, "a chunk longer than its size", b"5\r\nhello!\r\n0\r\n\r\n"),
    (400, "a chunk shorter than its size", b"6\r\nhello\r\n0\r\n\r\n"),
    (400, "bare LF after a chunk", b"5\r\nhello\n0\r\n\r\n"),
    (400, "bare LF after the last chunk", b"5\r\nhello\r\n0\n\r\n"),
    (400, "bare LF at the end", b"5\r\nhello\r\n0\r\n\n"),
    (400, "an extension beyond the limit", b"5;" + b"a" * 5000 + b"\r\nhello\r\n0\r\n\r\n"),
    (413, "a size beyond the limit", b"fffffffff\r\nhello\r\n0\r\n\r\n"),
    (400, "a trailer with a space before the colon", b"0\r\nX : a\r\n\r\n"),
    (400, "a folded trailer", b"0\r\nX: a\r\n b\r\n\r\n"),
    (400, "a trailer without colon", b"0\r\nX\r\n\r\n"),
    (400, "NUL in a trailer", b"0\r\nX: \x00\r\n\r\n"),
    (400, "a request as trailers", b"0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "bare LF in trailers", b"0\r\nX: a\nY: b\r\n\r\n"),
    (400, "Content-Length in trailers", b"0\r\nContent-Length: 5\r\n\r\n"),
    (400, "Transfer-Encoding in trailers", b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (400, "Transfer_Encoding in trailers", b"0\r\nTransfer_Encoding: chunked\r\n\r\n"),
    (400, "Host in trailers", b"0\r\nhost: a\r\n\r\n"),
    (400, "Authorization in trailers", b"0\r\nAuthorization: a\r\n\r\n"),
    (431, "trailers beyond the limit", b"0\r\n" + b"X: " + b"a" * 9000 + b"\r\n\r\n"),
    (431, "too many trailers", b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n"),
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize(("status", "data"), [pytest.param(s, d, id=i) for s, i, d in BAD_CHUNKS])
def test_a_bad_chunked_body_is_refused(status, data, step):
    found = []
    with pytest.raises(ProtocolError) as caught:
        found.extend(everything(CHUNKS + data + GET + b"\r\n", step))
    assert caught.value.status == status
    assert found == []


# ---------------------------------------------------------------- what is accepted

GOOD_HEADS = [
    ("an empty line in front", b"\r\n" + GET + b"\r\n"),
    ("an empty Host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    ("Host with a port", b"GET / HTTP/1.1\r\nHost: a:80\r\n\r\n"),
    ("an IPv6 Host", b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"),
    ("the largest port", b"GET / HTTP/1.1\r\nHost: a:65535\r\n\r\n"),
    ("a port with zeros in front", b"GET / HTTP/1.1\r\nHost: a:" + b"0" * 500 + b"80\r\n\r\n"),
    ("an empty port", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n"),
    ("no Host in HTTP/1.0", b"GET / HTTP/1.0\r\n\r\n"),
    ("an empty value", GET + b"X:\r\n\r\n"),
    ("tabs in a value", GET + b"X:\ta\tb\t\r\n\r\n"),
    ("bytes above ASCII in a value", GET + b"X: \xe4\r\n\r\n"),
    ("every byte of a token in a name", GET + b"!#$%&'*+-.^`|~09azAZ: a\r\n\r\n"),
    ("an underscore that stands for nothing", GET + b"my_name: a\r\n\r\n"),
    ("a hundred fields", GET + b"X: a\r\n" * 99 + b"\r\n"),
    ("Content-Length: 0", GET + b"Content-Length: 0\r\n\r\n"),
    ("Content-Length with zeros in front", GET + b"Content-Length: 000\r\n\r\n"),
    ("100-continue without a body", GET + b"Expect: 100-Continue\r\n\r\n"),
    ("any expectation in HTTP/1.0", b"GET / HTTP/1.0\r\nExpect: x\r\n\r\n"),
]


@pytest.mark.parametrize("step", [0, 1])
@pytest.mark.parametrize("data", [pytest.param(d, id=i) for i, d in GOOD_HEADS])
def test_a_good_head_is_accepted(data, step):
    assert everything(data, step) == [("/", b"")]


def test_the_parts_of_a_request():
    request = stream(
        b"POST /a?b HTTP/1.1\r\nhost: \t example.org \t\r\nX-A: 1\r\nx-a:2\r\nCookie: a=1\r\nCookie: b=2\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 7\r\nProxy: evil\r\nunder_score: x\r\n\r\n"
    ).next_request()
    assert request is not None
    assert (request.method, request.target, request.version) == ("POST", "/a?b", "HTTP/1.1")
    assert request.line == "POST /a?b HTTP/1.1"
    assert request.fields == {
        "HTTP_HOST": "example.org",
        "HTTP_X_A": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
        "CONTENT_TYPE": "text/plain",
        "CONTENT_LENGTH": "7",
    }
    assert (request.length, request.keep_alive, request.expect_continue) == (7, True, False)
    assert (b"x-a", b"2") in request.raw


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Keep-Alive, CLOSE", False),
        ("1.1", "keep-alive", True),
        ("1.0", None, False),
        ("1.0", "keep-alive", True),
        ("1.0", "Upgrade, Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
    ],
)
def test_keep_alive(version, connection, keeps):
    field = f"Connection: {connection}\r\n" if connection else ""
    made = stream(f"GET / HTTP/{version}\r\nHost: a\r\n{field}\r\n".encode())
    request = made.next_request()
    assert request is not None
    assert request.keep_alive is keeps


def test_a_target_in_absolute_form_decides_the_host():
    request = stream(b"GET http://a:1/b?c HTTP/1.1\r\n" + HOST + b"\r\n").next_request()
    assert request is not None
    assert (request.target, request.fields["HTTP_HOST"]) == ("/b?c", "a:1")
    bare = stream(b"GET http://a HTTP/1.1\r\n" + HOST + b"\r\n").next_request()
    assert bare is not None
    assert bare.target == "/"
    star = stream(b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n").next_request()
    assert star is not None
    assert star.target == "*"


GOOD_CHUNKS = [
    ("plain", b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("zeros in front", b"0005\r\nhello\r\n000\r\n\r\n", b"hello"),
    ("capital digits", b"A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 2),
    ("extensions", b'5;a;b=c;d="e \\" ;f"\r\nhello\r\n0;last\r\n\r\n', b"hello"),
    ("white space around extensions", b"5 ; a = b\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("CRLF in the data", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n\r\n"),
    ("trailers", b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nX-End:\r\n\r\n", b"hello"),
    ("nothing", b"0\r\n\r\n", b""),
]


@pytest.mark.parametrize("step", [0, 1, 3])
@pytest.mark.parametrize(("data", "body"), [pytest.param(d, b, id=i) for i, d, b in GOOD_CHUNKS])
def test_a_chunked_body(data, body, step):
    assert everything(CHUNKS + data + GET + b"\r\n", step) == [("/", body), ("/", b"")]


def test_trailers():
    made = stream(CHUNKS + b"0\r\nX-Sum:  1 \r\nX-End:\r\n\r\n")
    request = made.next_request()
    assert request is not None
    assert request.length == CHUNKED
    assert read(made) == b""
    assert made.trailers == [(b"X-Sum", b"1"), (b"X-End", b"")]


def test_pipelined_requests_keep_their_order():
    post = b"POST /2 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    data = GET + b"\r\n" + post + CHUNKS + b"2\r\nhi\r\n0\r\n\r\n" + GET + b"\r\n"
    wanted = [("/", b""), ("/2", b"hello"), ("/", b"hi"), ("/", b"")]
    for step in (0, 1, 7, 50):
        assert everything(data, step) == wanted


def test_what_nobody_has_read_can_be_taken():
    made = stream(GET + b"Connection: upgrade\r\nUpgrade: other\r\n\r\nbytes of the other protocol")
    request = made.next_request()
    assert request is not None
    assert request.special
    assert made.rest() == b"bytes of the other protocol"
    assert made.pending == 0


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize("complete", [True, False])
def test_limits_of_a_head(complete):
    end = b"\r\n" if complete else b""

    def status(data, **limits):
        with pytest.raises(ProtocolError) as caught:
            stream(data + end, **limits).next_request()
        return caught.value.status

    long_line = b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n" + HOST
    assert status(long_line, request_line=200) == 414
    assert status(b"GET /" + b"a" * 300, request_line=200) == (414 if not complete else 414)
    assert status(GET + b"X: " + b"a" * 300 + b"\r\n", head=200) == 431
    assert status(b"GET /" + b"a" * 300, head=200, request_line=150) == 414


def test_too_many_fields():
    with pytest.raises(ProtocolError) as caught:
        stream(GET + b"X: a\r\n" * 100 + b"\r\n").next_request()
    assert caught.value.status == 431


def test_chunk_extensions_without_end_are_refused():
    made = stream(CHUNKS + (b"1;" + b"a" * 1000 + b"\r\nx\r\n") * 40)
    made.next_request()
    with pytest.raises(ProtocolError) as caught:
        read(made)
    assert caught.value.status == 400


def test_a_chunked_body_beyond_the_limit():
    made = stream(CHUNKS + b"8\r\n01234567\r\n" * 3, body=20)
    made.next_request()
    assert made.body() == b"01234567" * 2
    with pytest.raises(ProtocolError) as caught:
        made.body()
    assert caught.value.status == 413


def test_an_incomplete_head_is_looked_at_once_a_byte():
    """The cost of bytes that come one by one must not be quadratic."""
    made = stream()
    for byte in GET + b"X: " + b"a" * 3000:
        made.feed(bytes([byte]))
        assert made.next_request() is None
        assert made.scanned == made.pending
    made.feed(b"\r\n\r\n")
    assert made.next_request() is not None


# ---------------------------------------------------------------- small things


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"X-Real-IP", "HTTP_X_REAL_IP"),
        (b"content-type", "CONTENT_TYPE"),
        (b"Content-Length", "CONTENT_LENGTH"),
        (b"a_b", None),
        (b"Proxy", None),
    ],
)
def test_cgi_name(name, key):
    assert cgi_name(name) == key


def test_tokens():
    assert tokens(" A,b ,,\tc") == ["a", "b", "c"]


# ---------------------------------------------------------------- anything at all

PIECES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"Host: a\r\n", b"Content-Length: 5\r\n", b"hello", b"\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"\n", b"\r", b" ", b"\x00", b"X: y\r\n"),
        *(
            b"0\r\n",
            b"Connection: close\r\n",
            b"Upgrade: a\r\n",
            b"Expect: 100-continue\r\n",
            b":",
            b";a=b",
            b"HTTP/1.0",
        ),
    ]
)


def outcome(data, step):
    try:
        return everything(data, step)
    except ProtocolError:
        return "refused"


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES | st.binary(max_size=4), max_size=14).map(b"".join), st.integers(1, 9))
def test_how_bytes_are_cut_changes_nothing(data, step):
    """Only ProtocolError is raised, and pieces give the same result as the whole."""
    assert outcome(data, step) == outcome(data, 0)


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
HEAD = re.compile(rb"%b [!\"$-~]+ HTTP/1\.[01]\r\n(?:%b:%b\r\n)*\r\n" % (TOKEN, TOKEN, TEXT))
LINE = re.compile(rb"%b [!\"$-~]+ HTTP/1\.[01]\r\n" % TOKEN)
HOPELESS = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class Fields(list[tuple[bytes, bytes]]):
    """What httptools finds."""

    def on_header(self, name, value):
        self.append((name, value.strip(b" \t")))


@st.composite
def nearly_heads(draw):
    """A head with a few bytes changed, put in, or left out."""
    names = st.from_regex(TOKEN, fullmatch=True) | st.sampled_from([b"Content-Length", b"connection", b"Host", b"a_b"])
    fields = draw(st.lists(st.tuples(names, st.from_regex(TEXT, fullmatch=True) | st.just(b"5")), max_size=4))
    lines = [b"GET /a?b HTTP/1.1", b"Host: a", *(name + b":" + value for name, value in fields)]
    head = bytearray(b"\r\n".join(lines) + b"\r\n\r\n")
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(head) - 1))
        head[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=1) | st.sampled_from([b"\r", b"\n", b"\r\n"]))
    return bytes(head)


@settings(max_examples=300, deadline=None)
@given(nearly_heads())
def test_a_head_is_what_the_grammar_and_llhttp_both_take(head):
    """Compared with the grammar as a regular expression, and with the fields that llhttp finds in the head."""
    try:
        request = HeadParser(Limits()).parse(head)
    except ProtocolError:
        return
    assert HEAD.fullmatch(head)
    assert request.line.encode() == head.partition(b"\r\n")[0]
    assert [request.method, request.target, request.version] == request.line.split(" ")
    found = Fields()
    parser = HttpRequestParser(found)
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        pass
    assert request.raw == found
    assert request.fields == cgi_fields(found)


def cgi_fields(fields):
    made = {}
    for name, value in fields:
        key = cgi_name(name)
        if key is not None:
            text = value.decode("latin-1")
            made[key] = made[key] + ("; " if key.startswith("HTTP_COOKIE") else ", ") + text if key in made else text
    return made


@settings(max_examples=200, deadline=None)
@given(nearly_heads(), st.data())
def test_an_incomplete_head_is_refused_once_nothing_can_mend_it(head, data):
    part = head[: data.draw(st.integers(0, len(head)))]
    part = part.partition(b"\r\n\r\n")[0]
    step = data.draw(st.sampled_from([1, 3, 1000]))
    made = stream()
    line, end, _ = part.removeprefix(b"\r\n").partition(b"\r\n")
    hopeless = HOPELESS.search(part) or (end and not LINE.fullmatch(line + end)) or part.startswith(b"\r\n\r\n")
    refused = False
    for start in range(0, len(part), step):
        made.feed(part[start : start + step])
        try:
            assert made.next_request() is None
        except ProtocolError:
            refused = True
            break
    assert refused == bool(hopeless)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.binary(max_size=60), st.lists(st.integers(1, 20), max_size=5), st.booleans()),
        max_size=5,
    ),
    st.integers(0, 40),
)
def test_what_was_framed_comes_out(messages, step):
    data = b""
    for body, cuts, chunked in messages:
        if chunked:
            chunks = []
            rest = body
            for cut in cuts:
                chunks.append(rest[:cut])
                rest = rest[cut:]
            chunks.append(rest)
            data += CHUNKS + b"".join(b"%x\r\n%b\r\n" % (len(c), c) for c in chunks if c) + b"0\r\n\r\n"
        else:
            data += b"PUT / HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    if data:
        assert everything(data, step) == [("/", body) for body, _, _ in messages]


@pytest.mark.parametrize(
    ("status", "line"),
    [(400, b"GET / HTTP %"), (400, b"hello"), (505, b"GET / HTTP/3.0"), (400, b"\r\nGET  / HTTP/1.1")],
)
@pytest.mark.parametrize("step", [1, 100])
def test_a_bad_request_line_is_refused_without_its_fields(status, line, step):
    """The client may be waiting for the answer."""
    stream = RequestStream(HeadParser(Limits()))
    data = line + b"\r\n"
    with pytest.raises(ProtocolError) as caught:
        for start in range(0, len(data), step):
            stream.feed(data[start : start + step])
            assert stream.next_request() is None
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("status", "line", "host", "more"),
    [
        (501, "CONNECT /p", "a", ""),
        (501, "CONNECT a:1", "a", ""),
        (501, "CONNECT *", "a", ""),
        (400, "GET /a\\b", "a", ""),
        (400, "GET \\", "a", ""),
        (400, "GET http://a\\b/", "a", ""),
        (400, "GET /", "a%zz", ""),
        (400, "GET /", "a%4", ""),
        (400, "GET /", "[:::]", ""),
        (400, "GET /", "[1.2.3.4]", ""),
        (400, "GET http://a%zz/", "a", ""),
        (400, "POST /", "a", "Transfer-Encoding: chunked,\r\n"),
        (400, "POST /", "a", "Transfer-Encoding: , chunked\r\n"),
        (400, "POST /", "a", "Transfer-Encoding: ,chunked\r\n"),
        (400, "POST /", "a", "Transfer-Encoding: chunked, ,\r\n"),
        (400, "POST /", "a", "Transfer-Encoding: gzip,, chunked\r\n"),
        (400, "POST /", "a", "Transfer-Encoding:\r\n"),
    ],
)
def test_what_others_would_read_in_another_way(status, line, host, more):
    made = stream(f"{line} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n".encode())
    with pytest.raises(ProtocolError) as caught:
        made.next_request()
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("/?q=a\\b", "a"),
        ("/?\\", "a"),
        ("/p?a\\b\\c", "a"),
        ("/", "a%7e:80"),
        ("/", "[::1]"),
        ("/", "[::ffff:1.2.3.4]:1"),
    ],
)
def test_what_is_unusual_and_well_formed(target, host):
    request = stream(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()).next_request()
    assert request is not None
    assert (request.target, request.fields["HTTP_HOST"]) == (target, host)


@pytest.mark.parametrize("size", [5, 5000])  # small chunks are joined with those behind them
def test_a_bad_chunk_behind_a_good_one_leaves_nothing_behind(size):
    parser = HeadParser(Limits())

    def serve():
        served = RequestStream(parser)
        served.feed(CHUNKS + b"%x\r\n%b\r\nnone\r\n\r\n" % (size, b"x" * size))
        assert served.next_request() is not None
        assert served.body() == b"x" * size
        with pytest.raises(ProtocolError):
            served.body()

    before = sys.getrefcount(parser)
    serve()
    gc.collect()
    assert sys.getrefcount(parser) == before
