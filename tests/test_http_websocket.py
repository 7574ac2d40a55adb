"""WebSockets: an independent client (`websockets`), and hand-made frames that a good client never sends."""

import io
import os
import struct
import zlib
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from helpers import PATIENCE, recorded_errors, run_patched
from test_pywsgi import LAST, Response, connect, serving, talk

import weald
from weald.event import Event
from weald.http import websocket
from weald.http.websocket import Closed, Options, WebSocket, application

pytestmark = pytest.mark.usefixtures("io_loop")

HANDSHAKE = (
    "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def echo(ws):
    for message in ws:
        ws.send(message)


def frame(opcode, payload=b"", *, fin=True, reserved=0, masked=True):
    """A client's frame (RFC 6455 section 5.2)."""
    head = bytes([fin << 7 | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", bit | 127, len(payload))
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


class Client:
    """A bare connection that has done its handshake."""

    def __init__(self, server, more="", early=b""):
        self.sock = connect(server)
        self.sock.sendall((HANDSHAKE + more + "\r\n").encode() + early)
        self.file = self.sock.makefile("rb")
        self.status = int(self.file.readline()[9:12])
        self.fields = {}
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            self.fields[name.lower()] = value.strip()

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

    def receive(self):
        """Opcode and payload of the server's next frame, which must be whole and not masked."""
        first, second = self.file.read(2)
        assert first & 0x80
        assert not second & 0x80
        size = second
        if size == 126:
            (size,) = struct.unpack("!H", self.file.read(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", self.file.read(8))
        return first & 0x7F, self.file.read(size)

    def closed(self, agrees=False):
        """The server's close frame's code; nothing may follow it.

        `agrees`: this side has not sent one, and does so now; the server waits for it.
        """
        opcode, payload = self.receive()
        assert opcode == CLOSE
        if agrees:
            self.send(frame(CLOSE, payload))
        assert self.file.read() == b""
        return int.from_bytes(payload[:2], "big") if payload else 1005


@contextmanager
def talking(handler=echo, more="", **options):
    with serving(application(handler, options=Options(**options))) as server:
        client = Client(server, more)
        assert client.status == 101
        with closing(client.sock), closing(client.file):
            yield client


# ---------------------------------------------------------------- the opening handshake


def test_the_handshake_of_the_rfc():
    with talking() as client:
        assert client.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        assert client.fields["upgrade"].lower() == "websocket"
        assert "sec-websocket-extensions" not in client.fields


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket\r\n", "Upgrade: other\r\n", 426),
        ("keep-alive, Upgrade", "keep-alive", 426),
        ("Version: 13", "Version: 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "?", 400),
        ("GET", "POST", 400),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Host: a\r\n", "Host: a\r\nOrigin: http://evil\r\n", 403),
    ],
)
def test_a_bad_handshake(old, new, status):
    with serving(application(echo)) as server:
        with closing(connect(server)) as sock, sock.makefile("rb") as file:
            sock.sendall((HANDSHAKE.replace(old, new) + "\r\n").encode() + LAST)
            response = Response(file)
            assert response.status == status
            if "1.1" in new or "HTTP" not in old:  # the connection goes on
                assert Response(file).status == 426
        if "ersion" in old:
            assert response.fields["sec-websocket-version"] == "13"


def test_who_may_connect_from_a_page():
    for origins, origin, status in [
        (None, "http://a", 101),
        (["http://b"], "http://b", 101),
        (["http://b"], "http://a", 403),
        ("*", "http://c", 101),
        (None, "http://A:80", 101),
        (None, "https://a", 101),  # somebody in front may take TLS off
        (None, "http://a:81", 403),
        (None, "ftp://a", 403),
        (None, "null", 403),
        (None, "http://[", 403),
        (None, "http://a/page", 403),
    ]:
        with serving(application(echo, origins=origins)) as server:
            client = Client(server, f"Origin: {origin}\r\nConnection: close\r\n")
            client.sock.close()
            assert client.status == status


def test_subprotocols():
    @application(subprotocols=["b", "a"])
    def app(ws):
        assert ws.subprotocol == "b"

    with serving(app) as server:
        client = Client(server, "Sec-WebSocket-Protocol: a, b\r\n")
        assert client.fields["sec-websocket-protocol"] == "b"
        client.send(frame(CLOSE, b"\x03\xe8"))
        assert client.closed() == 1000
        client.sock.close()


def test_frames_sent_with_the_handshake_are_not_lost():
    with serving(application(echo)) as server:
        client = Client(server, early=frame(TEXT, b"early"))
        assert client.receive() == (TEXT, b"early")
        client.sock.close()


# ---------------------------------------------------------------- messages


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 1 << 20])
def test_sizes(size):
    with talking() as client:
        client.send(frame(BINARY, b"x" * size))
        assert client.receive() == (BINARY, b"x" * size)
        client.send(frame(TEXT, b"y" * size))
        assert client.receive() == (TEXT, b"y" * size)


def test_text_and_binary():
    seen = []

    def handler(ws):
        seen.append(ws.receive())
        seen.append(ws.receive())
        ws.send(bytearray(b"array"))
        ws.send(memoryview(b"view"))
        ws.send("ü")

    with talking(handler) as client:
        client.send(frame(TEXT, "ä€𝄞".encode()), frame(BINARY, b"\xff"))
        assert [client.receive() for _ in range(3)] == [(BINARY, b"array"), (BINARY, b"view"), (TEXT, "ü".encode())]
        client.send(frame(CLOSE, b"\x03\xe8"))
    assert seen == ["ä€𝄞", b"\xff"]


def test_fragments_with_control_frames_between():
    euro = "€".encode()
    with talking() as client:
        client.send(frame(TEXT, euro[:1], fin=False), frame(PING, b"now"), frame(0, euro[1:2], fin=False))
        assert client.receive() == (PONG, b"now")
        client.send(frame(0, b"", fin=False), frame(PONG, b"unasked"), frame(0, euro[2:]))
        assert client.receive() == (TEXT, euro)


def test_bytes_one_by_one():
    with talking() as client:
        for byte in frame(TEXT, b"hello") + frame(PING, b"p"):
            client.send(bytes([byte]))
            weald.sleep(0)
        assert {client.receive(), client.receive()} == {(TEXT, b"hello"), (PONG, b"p")}


TEXTS = [
    *(
        "\0",
        "\x7f",
        "\x80",
        "\u07ff",
        "\u0800",
        "\ud7ff",
        "\ue000",
        "\ufeff",
        "\ufffd",
        "\ufffe",
        "\uffff",
        "\U00010000",
    ),
    *("\U0001fffe", "\U0010ffff", "\u03ba\u1f79\u03c3\u03bc\u03b5"),
]


def test_characters_at_the_edges():
    """Whole, and cut at each byte: into fragments of a message, and into segments that the system delivers."""
    with talking() as client:
        for text in TEXTS:
            data = f"-{text}-".encode()
            client.send(frame(TEXT, data))
            assert client.receive() == (TEXT, data)
            parts = [data[i : i + 1] for i in range(len(data))]
            client.send(frame(TEXT, b"", fin=False), *(frame(0, part, fin=False) for part in parts), frame(0))
            assert client.receive() == (TEXT, data)
        for byte in frame(TEXT, "".join(TEXTS).encode()):
            client.send(bytes([byte]))
            weald.sleep(0)
        assert client.receive() == (TEXT, "".join(TEXTS).encode())


def test_pings_are_answered_in_order_with_what_they_bring():
    payloads = [b"", b"a", bytes(range(125)), b"\xff\xfe", *(b"%d" % i for i in range(10))]
    with talking() as client:
        client.send(*(frame(PING, payload) for payload in payloads), frame(PONG, b"unasked"), frame(TEXT, b"end"))
        assert [client.receive() for _ in payloads] == [(PONG, payload) for payload in payloads]
        assert client.receive() == (TEXT, b"end")


def test_nothing_is_answered_after_the_close():
    with talking() as client:
        client.send(frame(CLOSE, b"\x03\xe8" + b"r" * 123), frame(PING, b"late"), frame(TEXT, b"late"), frame(CLOSE))
        assert client.closed() == 1000


# ---------------------------------------------------------------- what a client must not send

NO_UTF8 = [
    ("half a character", b"\xe2\x82"),
    ("a byte that is never right", b"\xff"),
    ("a continuation of nothing", b"\x80"),
    ("too long a form of a slash", b"\xc0\xaf"),
    ("too long a form, of 3 bytes", b"\xe0\x80\xaf"),
    ("too long a form, of 4 bytes", b"\xf0\x80\x80\xaf"),
    ("a form of 5 bytes", b"\xf8\x88\x80\x80\x80"),
    ("a surrogate", b"\xed\xa0\x80"),
    ("two surrogates", b"\xed\xa0\xbd\xed\xb8\x80"),
    ("beyond Unicode", b"\xf4\x90\x80\x80"),
    ("a character cut short", b"\xe2\x82a"),
]


BROKEN = [
    *(pytest.param(1002, [frame(TEXT, b"a", reserved=bits)], id=f"reserved bits {bits:03b}") for bits in range(1, 8)),
    pytest.param(1002, [frame(PING, reserved=2)], id="a reserved bit of a ping"),
    pytest.param(1002, [frame(CLOSE, reserved=1)], id="a reserved bit of a close"),
    *(pytest.param(1002, [frame(code, b"a")], id=f"opcode {code}") for code in (*range(3, 8), *range(11, 16))),
    pytest.param(1002, [frame(TEXT, b"a", masked=False)], id="not masked"),
    pytest.param(1002, [frame(PING, b"a" * 126)], id="a long ping"),
    pytest.param(1002, [frame(PING, b"a", fin=False)], id="a ping in fragments"),
    pytest.param(1002, [frame(PONG, b"a", fin=False), frame(0, b"b")], id="a pong in fragments"),
    pytest.param(1002, [frame(0, b"a", fin=False), frame(0, b"b")], id="fragments of nothing"),
    pytest.param(1002, [frame(PING, b"a")[:1] + bytes([0x80 | 126, 0, 1]) + bytes(5)], id="a ping of a long form"),
    pytest.param(1002, [b"\x82\xff" + b"\x80" + bytes(7) + bytes(4)], id="a length of 64 bits"),
    pytest.param(1002, [frame(CLOSE, b"a" * 126)], id="a long close"),
    pytest.param(1002, [frame(CLOSE, b"\x03")], id="a close with half a code"),
    pytest.param(1002, [frame(0, b"a")], id="a continuation of nothing"),
    pytest.param(1002, [frame(TEXT, b"a", fin=False), frame(TEXT, b"b")], id="a message in another"),
    *(pytest.param(1007, [frame(TEXT, b"a" + bad)], id=f"{what}") for what, bad in NO_UTF8),
    # Closed at once: the rest of these need not come.
    *(pytest.param(1007, [frame(TEXT, bad + b"a" * 90)[:50]], id=f"at once: {what}") for what, bad in NO_UTF8[1:]),
    pytest.param(1007, [frame(TEXT, b"\xf4\x90", fin=False)], id="beyond Unicode, in a first fragment"),
    pytest.param(
        1007,
        [frame(TEXT, b"\xc3", fin=False), frame(PING), frame(0, b"\xc3\xa4", fin=False)][0::2],
        id="two firsts",
    ),
    pytest.param(1007, [frame(TEXT, b"\xe2", fin=False), frame(0, b"a")], id="no UTF-8, in fragments"),
    pytest.param(1007, [frame(CLOSE, b"\x03\xe8\xff")], id="no UTF-8 as the reason"),
    *(
        pytest.param(1002, [frame(CLOSE, code.to_bytes(2, "big"))], id=f"close code {code}")
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535)
    ),
    pytest.param(1009, [frame(BINARY, b"a" * 1001)], id="a large message"),
    pytest.param(1009, [frame(TEXT, "€".encode() * 334)], id="a large message in bytes"),
    pytest.param(1009, [frame(TEXT, b"a" * 600, fin=False), frame(0, b"a" * 600)], id="large together"),
    pytest.param(1008, [frame(TEXT, b"a", fin=False), *[frame(0, fin=False)] * 20], id="many fragments"),
]


@pytest.mark.parametrize("io_loop", ["libuv"], indirect=True)
@pytest.mark.parametrize(("code", "frames"), BROKEN)
def test_the_server_closes(code, frames):
    got = []
    with recorded_errors() as errors, talking(got.extend, max_message=1000, max_fragments=10) as client:
        client.send(*frames)
        assert client.closed() == code
    assert got == []
    assert errors == []


@pytest.mark.parametrize("code", [*range(1000, 1004), *range(1007, 1014), 3000, 3999, 4000, 4999])
def test_the_client_closes(code):
    ended = []

    def handler(ws):
        for _ in ws:
            raise AssertionError
        ended.append(ws.closed)
        with pytest.raises(Closed):
            ws.send("too late")
        ws.close()

    with talking(handler) as client:
        client.send(frame(CLOSE, code.to_bytes(2, "big") + b"why"), frame(TEXT, b"never seen"))
        assert client.closed() == code
    assert [(closed.code, closed.reason) for closed in ended if closed] == [(code, "why")]


def test_a_close_without_code():
    with talking() as client:
        client.send(frame(CLOSE))
        assert client.closed() == 1005


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1016, 2999, 5000, 65536, -1, "1000", 1000.0, None])
def test_a_code_that_no_close_may_have(code):
    raised = []

    def handler(ws):
        try:
            ws.close(code)
        except ValueError as error:
            raised.append(str(error))
            raise

    with recorded_errors() as errors, talking(handler) as client:
        assert client.closed(agrees=True) == 1011
    assert [error[1] for error in errors] == [ValueError]
    assert repr(code) in raised[0]


@pytest.mark.parametrize("reason", ["r" * 200, "€" * 100, "x" + "€" * 100, "\U0001f600" * 100])
def test_a_long_reason_is_cut_between_characters(reason):
    with talking(lambda ws: ws.close(4000, reason)) as client:
        opcode, payload = client.receive()
        assert opcode == CLOSE
        assert 100 < len(payload) <= 125
        assert reason.startswith(payload[2:].decode())
        client.send(frame(CLOSE, payload))
        assert client.file.read() == b""


@pytest.mark.parametrize("message", [5, [1, 2], None, 1.5, object()])
def test_what_is_no_message(message):
    def handler(ws):
        with pytest.raises(TypeError, match="str or bytes"):
            ws.send(message)
        ws.send("end")

    for more in ("", DEFLATE):
        with talking(handler, more) as client:
            assert client.receive()[0] & 15 == TEXT


def test_a_connection_that_breaks():
    ended = []

    def handler(ws):
        with pytest.raises(Closed) as caught:
            ws.receive()
        ended.append(caught.value.code)

    with talking(handler) as client:
        client.sock.close()
        client.file.close()
    assert ended == [1006]


@pytest.mark.parametrize("polite", [True, False])
def test_the_server_says_goodbye(polite):
    def handler(ws):
        ws.close(4000, "enough")
        ws.close()

    with talking(handler, close_timeout=0.2) as client:
        assert client.receive() == (CLOSE, (4000).to_bytes(2, "big") + b"enough")
        if polite:
            client.send(frame(TEXT, b"on its way"), frame(CLOSE, (4000).to_bytes(2, "big")))
        assert client.file.read() == b""


def test_a_handler_that_fails():
    def handler(ws):
        raise KeyError("a bug")

    with recorded_errors() as errors, talking(handler) as client:
        opcode, payload = client.receive()
        assert (opcode, payload[:2]) == (CLOSE, (1011).to_bytes(2, "big"))
        client.send(frame(CLOSE, payload))
        assert client.file.read() == b""
    assert [error[1] for error in errors] == [KeyError]


# ---------------------------------------------------------------- compression

DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


def deflated(data):
    made = zlib.compressobj(wbits=-15)
    return (made.compress(data) + made.flush(zlib.Z_SYNC_FLUSH))[:-4]


def test_compression():
    with talking(more=DEFLATE) as client:
        assert client.fields["sec-websocket-extensions"].startswith("permessage-deflate")
        client.send(frame(TEXT, deflated(b"hello" * 100), reserved=4))
        opcode, payload = client.receive()
        assert opcode == TEXT | 0x40
        assert zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff") == b"hello" * 100
        assert len(payload) < 100


def test_compressed_messages_of_all_kinds():
    """In fragments, empty, uncompressed, and with references to the message before."""
    with talking(more=DEFLATE) as client:
        data = deflated(b"hello" * 100)
        client.send(frame(TEXT, data[:3], fin=False, reserved=4), frame(PING, b"p"), frame(0, data[3:]))
        assert client.receive() == (PONG, b"p")
        wanted = [b"hello" * 100]
        client.send(frame(TEXT, b"plain"), frame(BINARY, deflated(b""), reserved=4), frame(BINARY, b"\0", reserved=4))
        wanted += [b"plain", b"", b""]
        made = zlib.compressobj(wbits=-15)
        for text in (b"again and again", b"again and again"):
            part = made.compress(text) + made.flush(zlib.Z_SYNC_FLUSH)
            client.send(frame(TEXT, part[:-4], reserved=4))
            wanted.append(text)
        inflate = zlib.decompressobj(wbits=-15)
        for message in wanted:
            opcode, payload = client.receive()
            assert opcode & 0x40
            assert inflate.decompress(payload + b"\0\0\xff\xff") == message


@pytest.mark.parametrize(
    ("code", "frames"),
    [
        pytest.param(1002, [frame(PING, b"", reserved=4)], id="a compressed ping"),
        pytest.param(1002, [frame(TEXT, b"", reserved=6)], id="another reserved bit"),
        pytest.param(
            1002, [frame(TEXT, b"", fin=False, reserved=4), frame(0, b"", reserved=4)], id="the bit in a continuation"
        ),
        pytest.param(1007, [frame(TEXT, b"\xff\xff\xff\xff", reserved=4)], id="no deflate"),
        pytest.param(1007, [frame(TEXT, deflated(b"\xff"), reserved=4)], id="no UTF-8 within"),
        pytest.param(1009, [frame(TEXT, deflated(b"a" * 1001), reserved=4)], id="too large within"),
    ],
)
def test_what_must_not_be_compressed(code, frames):
    got = []
    with talking(got.extend, more=DEFLATE, max_message=1000) as client:
        client.send(*frames)
        assert client.closed() == code
    assert got == []


@pytest.mark.parametrize("io_loop", ["libuv"], indirect=True)
@pytest.mark.parametrize(
    ("offer", "agreed"),
    [
        ("permessage-deflate; server_no_context_takeover", {"server_no_context_takeover"}),
        ("permessage-deflate; client_no_context_takeover", {"client_no_context_takeover"}),
        ("permessage-deflate; server_max_window_bits=10", {"server_max_window_bits=10"}),
        ("permessage-foo, permessage-deflate", set()),
        ("permessage-foo", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; what=5", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; what, permessage-deflate; client_max_window_bits", set()),
    ],
)
def test_negotiation(offer, agreed):
    """RFC 7692 section 7.1: an offer that is not understood is declined."""
    with talking(more=f"Sec-WebSocket-Extensions: {offer}\r\n") as client:
        answer = client.fields.get("sec-websocket-extensions")
        if agreed is None:
            assert answer is None
            return
        assert answer is not None
        name, *parameters = answer.split(";")
        assert name == "permessage-deflate"
        assert agreed <= {parameter.strip() for parameter in parameters}
        for _ in range(2):
            client.send(frame(TEXT, deflated(b"hello" * 100), reserved=4))
            _, payload = client.receive()
            if "server_no_context_takeover" in agreed:
                assert zlib.decompressobj(wbits=-15).decompress(payload + b"\0\0\xff\xff") == b"hello" * 100


def test_compression_can_be_off():
    with talking(more=DEFLATE, compress=False) as client:
        assert "sec-websocket-extensions" not in client.fields


def test_a_bomb_is_closed_before_it_goes_off():
    largest = []
    handle = WebSocket._handle

    def watched(self, event):
        handle(self, event)
        largest.append(self._size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WebSocket, "_handle", watched)
        with talking(more=DEFLATE) as client:
            client.send(frame(BINARY, deflated(bytes(200_000_000)), reserved=4))
            assert client.receive()[1][:2] == (1009).to_bytes(2, "big")
    assert 1 << 20 < max(largest) < 8 << 20


# ---------------------------------------------------------------- waiting


def test_pings_find_out_who_is_gone():
    ended = []

    def handler(ws):
        with pytest.raises(Closed) as caught:
            ws.receive()
        ended.append(caught.value)

    for seconds in (0.1, 1, 10):  # again if the machine was so slow that an answer came too late
        with talking(handler, ping_interval=0.1, ping_timeout=seconds) as client:
            pings = 0
            while (data := client.file.read(2)) == bytes((0x80 | PING, 0)):
                pings += 1
                if pings <= 3:
                    with suppress(ConnectionError):
                        client.send(frame(PONG))
            assert data == b""
        if pings == 4:
            break
    assert pings == 4 and ended[-1].code == 1006


def test_a_receive_with_a_timeout():
    def handler(ws):
        with pytest.raises(TimeoutError):
            ws.receive(timeout=0.05)
        over.set()
        ws.send(ws.receive(timeout=PATIENCE))

    over = Event()
    with talking(handler) as client:
        assert over.wait(PATIENCE)
        client.send(frame(TEXT, b"now"))
        assert client.receive() == (TEXT, b"now")


def test_many_greenlets_send():
    """Frames do not get mixed up, although each is larger than the system's buffers."""

    def handler(ws):
        weald.joinall([weald.spawn(ws.send, bytes([65 + i]) * 900_000) for i in range(10)], raise_error=True)

    with talking(handler) as client:
        got = {client.receive()[1] for _ in range(10)}
    assert got == {bytes([65 + i]) * 900_000 for i in range(10)}


# ---------------------------------------------------------------- in applications


def test_from_a_wsgi_application_behind_middleware():
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/chat":
            with websocket.accept(environ) as ws:
                echo(ws)
        start_response("200 OK", [("X", "ignored")])
        yield b"page"

    log = io.StringIO()
    with serving(app, log=log) as server:
        client = Client(server)
        client.send(frame(TEXT, b"hello"))
        assert client.receive() == (TEXT, b"hello")
        client.send(frame(CLOSE, b"\x03\xe8"))
        assert client.closed() == 1000
        client.sock.close()
        assert b"page" in talk(server, LAST)
    assert '"GET /chat HTTP/1.1" 101' in log.getvalue()


def test_an_independent_client():
    run_patched(
        """
        import weald
        from weald.http import websocket
        from weald.pywsgi import WSGIServer
        from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory as Deflate
        from websockets.sync.client import connect

        @websocket.application
        def echo(ws):
            for message in ws:
                ws.send(message)

        server = WSGIServer(("127.0.0.1", 0), echo, log=None)
        server.start()
        url = f"ws://127.0.0.1:{server.server_port}/"
        kinds = [
            {"compression": "deflate"},
            {"compression": None},
            {"extensions": [Deflate(server_no_context_takeover=True, client_no_context_takeover=True)]},
            {"extensions": [Deflate(server_max_window_bits=9, client_max_window_bits=9)]},
        ]
        for options in kinds:
            with connect(url, **options) as client:
                for message in ("hello", b"hello", "x" * 300_000, "ä" * 1000, ["in ", "three ", "parts"]):
                    client.send(message)
                    wanted = "".join(message) if isinstance(message, list) else message
                    assert client.recv(timeout=100) == wanted
                client.ping().wait(100)
            assert client.protocol.close_code == 1000
        server.stop()
        """
    )


# ---------------------------------------------------------------- the server's end


@pytest.mark.parametrize("answers", [True, False])
def test_a_server_that_ends_says_so(answers):
    """1001, RFC 6455 section 7.4.1; a client that does not answer is cut off, long before the server's own timeout."""
    ended = []

    def handler(ws):
        ended.extend(ws)
        assert ws.closed is not None
        ended.append(ws.closed.code)

    with serving(application(handler, options=Options(close_timeout=0.1))) as server:
        client = Client(server)
        client.send(frame(TEXT, b"last words"))
        draining = weald.spawn(server.drain, 20, patience=0)
        assert client.receive() == (CLOSE, b"\x03\xe9")
        if answers:
            client.send(frame(CLOSE, b"\x03\xe9"))
        assert client.file.read() == b""
        assert draining.get(PATIENCE)
        client.sock.close()
    assert ended == ["last words", 1001]


def test_a_server_that_stops_says_so():
    with serving(application(echo)) as server:
        client = Client(server)
        stopping = weald.spawn(server.stop, 20)
        assert client.receive() == (CLOSE, b"\x03\xe9")
        client.send(frame(CLOSE, b"\x03\xe9"))
        stopping.get(PATIENCE)
        client.sock.close()


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "own"),
    [
        ("https", "a", "http://a", False),  # a page that anyone on the network path may have changed
        ("https", "a:443", "https://a", True),
        ("http", "", "null", False),
        ("http", "", "http://", False),
        ("http", "[::1]:8000", "http://[::1]:8000", True),
    ],
)
def test_whose_page_is_our_own(scheme, host, origin, own):
    assert websocket._is_own(origin, {"wsgi.url_scheme": scheme, "HTTP_HOST": host}) is own


def test_a_426_says_that_the_connection_may_change():
    with serving(application(echo)) as server, closing(connect(server)) as sock, sock.makefile("rb") as file:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
        first, last = Response(file), Response(file)
    assert (first.fields["upgrade"], first.fields["connection"]) == ("websocket", "Upgrade")
    assert last.status == 426


def compressed(size, count):
    """`count` messages of `size` zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    frames = []
    for _ in range(count):
        data = packer.compress(b"\0" * size) + packer.flush(zlib.Z_SYNC_FLUSH)
        frames.append(frame(BINARY, data.removesuffix(b"\0\0\xff\xff"), reserved=4))
    return b"".join(frames)


def test_what_one_recv_brings_is_not_unpacked_at_once():
    seen = []

    def handler(ws):
        for message in ws:
            seen.append((len(message), sum(map(len, ws._messages))))
            if len(seen) == 60:
                return

    with talking(handler, "Sec-WebSocket-Extensions: permessage-deflate\r\n") as client:
        client.send(compressed(1 << 20, 60))
        assert client.receive()[0] == CLOSE
        client.send(frame(CLOSE))
    assert [size for size, _ in seen] == [1 << 20] * 60
    # A piece of 1,024 bytes may complete one more.
    assert max(waiting for _, waiting in seen) <= 1 << 21


def test_messages_are_dropped_while_this_side_closes():
    waiting = []

    class Watched(list[Any]):
        def append(self, message):
            waiting.append(len(message))

    def handler(ws):
        ws.receive()
        ws._messages = Watched()  # type: ignore[assignment]
        ws.close()

    with talking(handler, "Sec-WebSocket-Extensions: permessage-deflate\r\n") as client:
        client.send(frame(TEXT, b"go"), frame(TEXT, b"more"))
        assert client.receive()[0] == CLOSE
        client.send(compressed(1 << 20, 20), frame(CLOSE))
        assert client.file.read() == b""
    assert waiting == []


def test_a_message_in_single_bytes_is_gathered_in_one_buffer():
    got = []

    def handler(ws):
        got.append(ws.receive())
        got.append(ws.receive())

    with talking(handler) as client:
        for opcode in (BINARY, TEXT):
            for byte in frame(opcode, b"x" * 300):
                client.send(bytes([byte]))
                weald.sleep(0)
        assert client.closed(agrees=True) == 1000
    assert got == [b"x" * 300, "x" * 300]


def test_a_client_that_has_left_is_nobodys_error():
    left = weald.event.Event()

    def handler(ws):
        assert left.wait(PATIENCE)
        while True:
            ws.send("x" * 10000)

    with recorded_errors() as errors, talking(handler) as client:
        client.file.close()
        client.sock.close()
        left.set()
    assert errors == []
