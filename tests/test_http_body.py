"""`wsgi.input`: the cost of reading, and that nothing is lost; the rest is in test_pywsgi and test_http_http2."""

import tracemalloc

import pytest

from weald.http.body import Input
from weald.http.limits import Limits
from weald.http.protocol import CHUNKED, HeadParser, ProtocolError, RequestStream


def pieces(size, count, last=b""):
    """The function that `Input` calls for more: `count` pieces of `size` bytes, then `last`."""
    left = iter([*([b"x" * size] * count), last, b""])
    return lambda size: bytes(bytearray(next(left, b"")))  # a new object each time


def test_lines_reads_and_limits_agree():
    data = b"one\n\ntwo\nthree" * 3 + b"\n"
    for size in range(1, len(data) + 1):
        parts = [data[i : i + size] for i in range(0, len(data), size)]
        for read in (
            lambda body: b"".join(body),
            lambda body: b"".join(body.readlines(4) + body.readlines()),
            lambda body: b"".join(iter(lambda: body.readline(2), b"")),
            lambda body: b"".join(iter(lambda: body.read(3), b"")),
            lambda body: body.read(0) + body.readline(0) + body.read(1) + body.readline() + body.read(),
        ):
            left = iter([*parts, b""])
            assert read(Input(lambda size, left=left: next(left))) == data  # type: ignore[misc]
        left = iter([*parts, b""])
        assert list(Input(lambda size, left=left: next(left))) == data.splitlines(keepends=True)  # type: ignore[misc]


def test_what_has_come_outlives_an_error():
    def more(size):
        if steps:
            return steps.pop(0)
        raise TimeoutError

    for read in (Input.read, Input.readline, lambda body: body.read(100)):
        steps = [b"one", b"two"]
        body = Input(more)
        with pytest.raises(TimeoutError):
            read(body)
        steps = [b"three\n", b""]
        assert body.readline() == b"onetwothree\n"


@pytest.mark.parametrize(
    "read",
    [Input.read, lambda body: body.read(2**24), lambda body: body.read(2**24 + 1), Input.readline],
    ids=["read()", "size", "more", "line"],
)
def test_a_body_is_in_memory_once(read):
    body = Input(pieces(65536, 256))
    tracemalloc.start()
    try:
        assert len(read(body)) == 2**24
        assert tracemalloc.get_traced_memory()[1] < 1.5 * 2**24
    finally:
        tracemalloc.stop()


def test_parts_lie_across_pieces():
    body = Input(pieces(1000, 100))
    parts = list(iter(lambda: body.read(999), b""))
    assert [len(part) for part in parts] == [999] * 100 + [100]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_tiny_chunks_come_joined(size):
    stream = RequestStream(HeadParser(Limits()))
    stream.expect(CHUNKED)
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    stream.feed(chunk * 1000 + b"5;a=b\r\nhello\r\n0\r\n\r\nGET")
    assert stream.body() == b"x" * size * 1000 + b"hello"
    assert stream.body() is None
    assert stream.rest() == b"GET"


def test_good_chunks_in_front_of_a_bad_one_are_not_lost():
    stream = RequestStream(HeadParser(Limits()))
    stream.expect(CHUNKED)
    stream.feed(b"1\r\na\r\n1\r\nb\r\nzz\r\n")
    assert stream.body() == b"ab"
    for _ in range(2):
        with pytest.raises(ProtocolError):
            stream.body()


@pytest.mark.parametrize("line", [b"00000001", b"000000000001", b"1 ", b"A", b"a;x", b"F"])
def test_sizes_of_chunks(line):
    size = int(line.split(b";")[0], 16)
    stream = RequestStream(HeadParser(Limits()))
    stream.expect(CHUNKED)
    stream.feed(line + b"\r\n" + b"x" * size + b"\r\n0\r\n\r\n")
    if line.endswith(b" "):
        with pytest.raises(ProtocolError):
            stream.body()
    else:
        assert stream.body() == b"x" * size and stream.body() is None


def test_a_sealed_body_gives_what_has_come_and_no_more():
    body = Input(pieces(10, 3))
    assert body.read(15) == b"x" * 15
    body.seal()
    assert body.read(5) == b"x" * 5
    with pytest.raises(ValueError, match="the request has ended"):
        body.read(1)
    read = Input(pieces(10, 3))
    read.read()
    read.seal()
    assert read.read() == b""
