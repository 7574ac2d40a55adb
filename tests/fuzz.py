"""The protocols with bytes from a fuzzer: `scripts/fuzz-http`.

Called by: scripts/fuzz-http, with atheris (libFuzzer, guided by coverage); test_fuzz.py, with bytes from hypothesis.

A target takes bytes and raises AssertionError, or an unexpected exception, if one of these does not hold:
- Only the protocol's own error is raised.
- Reading ends at a refused message: no bytes behind it become a request.
- The way in which the bytes are cut makes no difference.
- Memory is bounded by the limits, whatever the bytes are.
- HTTP/1: another parser (h11) finds the same requests, if it accepts the bytes, too.
"""

import base64
import io
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

if __name__ == "__main__":
    import atheris  # type: ignore[import-not-found, unused-ignore]

    watched = atheris.instrument_imports(include=["weald.http", "h2", "hpack", "hyperframe", "wsproto", "h11"])
else:
    watched = nullcontext()

with watched:
    import h11
    from hyperframe.frame import Frame
    from test_http_http2_conformance import ACCEPTED, BROKEN, OF_A_STREAM, PREFACE, SETTINGS, frame
    from test_http_protocol import BAD_CHUNKS, BAD_HEADS, CHUNKS, GET, GOOD_CHUNKS, GOOD_HEADS
    from wsproto import ConnectionType
    from wsproto.connection import Connection

    import weald
    from weald.http.http2 import Http2Connection
    from weald.http.limits import Limits
    from weald.http.protocol import HeadParser, ProtocolError, RequestStream
    from weald.http.websocket import Closed, Options, WebSocket, _Deflate
    from weald.pywsgi import WSGIServer

SMALL = Limits(head=2000, request_line=500, fields=20, body=3000, trailers=300, chunk_line=100, linger_timeout=0.0)
BEHIND = b"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n"

Message = tuple[bytes, bytes, bytes]  # method, target, body


def cut(data, step):
    for at in range(0, len(data), step):
        yield data[at : at + step]


# ---------------------------------------------------------------- HTTP/1


def read(data, step):
    """The complete requests in `data`, and whether what followed was refused."""
    stream = RequestStream(HeadParser(SMALL))
    pieces = cut(data, step)
    found = []
    try:
        while True:
            while (request := stream.next_request()) is None:
                piece = next(pieces, None)
                if piece is None:
                    return found, False
                assert stream.pending <= SMALL.head
                stream.feed(piece)
            assert len(request.raw) <= SMALL.fields
            assert len(request.line) <= SMALL.request_line
            body = b""
            while (part := stream.body()) is not None:
                body += part
                if not part:
                    piece = next(pieces, None)
                    if piece is None:
                        return found, False
                    assert stream.pending <= SMALL.trailers + 2
                    stream.feed(piece)
            assert len(body) <= SMALL.body
            assert not any(ord(letter) < 32 or letter == "\x7f" for letter in request.target)
            found.append((request.method.encode(), request.target.encode(), body))
    except ProtocolError as error:
        assert 400 <= error.status < 600
        return found, True


def read_by_h11(data):
    """The same by h11, as far as it accepts the bytes."""
    found = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    message = None
    body = b""
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                return found
            if event is h11.PAUSED:
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
            elif isinstance(event, h11.Request):
                message, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append((message.method, message.target, body))
                if connection.their_state is h11.DONE and connection.our_state is h11.SEND_RESPONSE:
                    connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                    connection.start_next_cycle()
            else:
                return found
    except (h11.LocalProtocolError, h11.RemoteProtocolError):
        return found


def same(ours, theirs):
    """A target in absolute form is given to applications without its authority."""
    return ours == theirs or (ours[0], ours[2]) == (theirs[0], theirs[2]) and theirs[1].lower().startswith(b"http")


def http1(data):
    step, data = (data[0] % 50 + 1 if data else 1), data[1:]
    found, refused = read(data, max(len(data), 1))
    assert (found, refused) == read(data, step)
    for ours, theirs in zip(found, read_by_h11(data), strict=False):
        assert same(ours, theirs), (ours, theirs)
    if refused:
        assert read(data + BEHIND, max(len(data) + len(BEHIND), 1)) == (found, True)


# ---------------------------------------------------------------- sockets that are none


class Wire:
    """Gives `data` in pieces, then the end, and keeps what is sent."""

    def __init__(self, data, step):
        self.pieces = cut(data, step)
        self.sent = b""
        self._descriptor = SimpleNamespace(timeout=None)

    def recv(self, size):
        weald.sleep(0)  # lets others run
        return next(self.pieces, b"")

    def sendall(self, data):
        self.sent += data

    def shutdown(self, how):
        pass

    close = getpeername = lambda self: None


# ---------------------------------------------------------------- WebSocket


def websocket(data):
    step, compressed, data = (data[0] // 2 + 1, data[0] % 2, data[1:]) if data else (1, 0, b"")
    outcomes = []
    for size in (step, 4096):
        extension = _Deflate()
        if compressed:
            extension.accept("permessage-deflate")
        wire = Wire(data, size)
        connection = Connection(ConnectionType.SERVER, [extension] if compressed else [])
        options = Options(max_message=2000, max_fragments=20, close_timeout=0.0)
        ws = WebSocket(wire, connection, {}, None, options)
        messages = []
        try:
            while True:
                messages.append(ws.receive())
                assert len(messages[-1]) <= options.max_message
        except Closed as closed:
            code = closed.code
        assert ws.closed is not None
        assert ws._size <= options.max_message + 4096 * 1032
        assert code == 1006 or 1000 <= code < 5000, code
        outcomes.append((messages, code))
    # What came before an error in the same piece may be lost with it.
    (first, code), (second, other) = outcomes
    assert code == other, outcomes
    assert first[: len(second)] == second[: len(first)]


# ---------------------------------------------------------------- HTTP/2


def _application(environ, start_response):
    assert environ["PATH_INFO"][:1] in ("/", "*")
    for key, value in environ.items():
        if isinstance(value, str) and key.isupper():
            assert not any(letter in value for letter in "\r\n\0"), (key, value)
    body = environ["wsgi.input"].read()
    assert len(body) <= SMALL.body
    start_response("200 OK", [])
    return [body]


_server = []


def http2(data):
    if not _server:
        _server.append(WSGIServer(("127.0.0.1", 0), _application, log=None, error_log=io.StringIO(), limits=SMALL))
    step, data = (data[0] + 1 if data else 1), data[1:]
    wire = Wire(PREFACE + frame(SETTINGS) + data, step)
    connection = Http2Connection(_server[0], wire, ("127.0.0.1", 1))
    failures = []
    hub = weald.get_hub()
    hub.handle_error = lambda *args: failures.append(args)
    try:
        connection.run()
        for _ in range(1000):
            if not connection.streams:
                break
            weald.sleep(0)
    finally:
        del hub.handle_error
    assert not connection.streams, "an application waits for what cannot come"
    assert not failures, failures
    view = memoryview(wire.sent)
    while view:  # what was sent is whole frames
        sent, length = Frame.parse_frame_header(view[:9])
        sent.parse_body(view[9 : 9 + length])
        assert len(view) >= 9 + length
        view = view[9 + length :]


# A message in the middle of another, whose compressed bytes are none either: how it was cut said which of both is told.
FOUND = (
    "AYKFAAAQABoA/wCIioqKiv8vAAAAAIGBgYGBgYGBgYGBgYGBgYGBgYGBQYGBgYGBAYKFAAAJABoA/wCKioqKioqKio"
    "qKioqKioqKioqKienp6emKioqKioqKioqKioqKioqKioqKioqKioqKioqKioUHioqKigARB/9sioqKioX//wA="
)

TARGETS = {"http1": http1, "http2": http2, "websocket": websocket}


def seeds(target):
    """The initial corpus: the tables of the tests."""
    if target == "http1":
        heads = [data for *_, data in BAD_HEADS] + [data for _, data in GOOD_HEADS]
        chunks = [CHUNKS + case[-1] for case in BAD_CHUNKS] + [CHUNKS + case[1] for case in GOOD_CHUNKS]
        return [b"\x07" + data + GET + b"\r\n" for data in heads + chunks]
    if target == "http2":
        return [b"\x80" + case[-1] for case in (*BROKEN, *OF_A_STREAM, *ACCEPTED) if isinstance(case[-1], bytes)]
    mask = bytes(4)
    frames = [bytes([first, 0x80 | 5]) + mask + b"hello" for first in (0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A, 0xC1)]
    pairs = [kind + a + b for kind in (b"\x06", b"\x07") for a in frames for b in frames]
    return [*pairs, base64.b64decode(FOUND)]


def main():
    """Run until the time is up or a fault is found: fuzz.py TARGET CORPUS [libFuzzer's options]"""
    name, folder, *options = sys.argv[1:]
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
