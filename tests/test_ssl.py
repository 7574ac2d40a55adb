"""weald.ssl: handshakes, data, ends of connections and errors, with TLS 1.2 and 1.3."""

import contextlib
import os
import socket as stdlib_socket
import ssl as stdlib
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Certificate, require_program
from helpers import PATIENCE, Thread, settle, wait_until

import weald
from weald import Timeout, socket, ssl
from weald._core import joinall, sleep, spawn

Pair = tuple[Any, Any]  # client, server

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture(params=VERSIONS, ids=["1.2", "1.3"])
def version(request):
    return request.param


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """A certificate for other.test that `certificate.client_context()` does not trust."""
    folder = tmp_path_factory.mktemp("stranger")
    made = Certificate(str(folder / "cert.pem"), str(folder / "key.pem"))
    subprocess.run(
        [
            *(require_program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=other.test", "-addext", "subjectAltName=DNS:other.test"),
            *("-keyout", made.key, "-out", made.cert),
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return made


def contexts(certificate, version=None):
    """Contexts of a client and a server."""
    made = ssl.cooperative(certificate.client_context()), ssl.cooperative(certificate.server_context())
    if version is not None:
        for context in made:
            context.minimum_version = context.maximum_version = version
    return made


def plain_pair():
    """A connection over TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@contextlib.contextmanager
def connection(client_context, server_context, make=plain_pair, **client_arguments):
    """A TLS connection, both ends in this process; times out after 20 seconds of silence."""
    client, server = make()
    for sock in (client, server):
        sock.settimeout(PATIENCE)
    client_arguments.setdefault("server_hostname", "localhost")
    ends = [
        spawn(client_context.wrap_socket, client, **client_arguments),
        spawn(server_context.wrap_socket, server, server_side=True),
    ]
    joinall(ends, timeout=PATIENCE, raise_error=True)
    with ends[0].get() as a, ends[1].get() as b:
        yield a, b


@pytest.fixture
def pair(io_loop, certificate, version):
    with connection(*contexts(certificate, version)) as both:
        yield both


@pytest.fixture
def unix_pair(io_loop, certificate, version):
    """As `pair`, for `fill`: TCP moves data between the buffers of its ends when it likes."""
    with connection(*contexts(certificate, version), make=socket.socketpair) as both:
        yield both


def read_exactly(sock, count):
    data = bytearray(count)
    view = memoryview(data)
    while view:
        got = sock.recv_into(view)
        assert got, f"the stream ended {len(view)} bytes early"
        view = view[got:]
    return bytes(data)


RECORD = bytes(16384)


def fill(sock):
    """Send RECORDs until that would block; return the number of bytes sent.

    The last RECORD is half sent: OpenSSL requires it again before it accepts anything else.
    """
    sock.settimeout(0.0)
    total = 0
    with contextlib.suppress(ssl.SSLWantWriteError):
        while True:
            total += sock.send(RECORD)
    sock.settimeout(PATIENCE)
    return total


def failure(greenlet):
    """The exception of `greenlet`."""
    greenlet.join(PATIENCE)
    assert greenlet.exception is not None, greenlet
    return greenlet.exception


# -------------------------------------------------------------------- names


def test_module_has_the_names_of_the_stdlib():
    public = {name for name, value in vars(stdlib).items() if name[0] != "_" and not isinstance(value, type(os))}
    assert public <= set(ssl.__all__)
    for name in set(ssl.__imports__) - {"create_connection", "socket"}:
        assert getattr(ssl, name) is getattr(stdlib, name)


def test_contexts_make_cooperative_sockets():
    for context in (
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        ssl.create_default_context(),
        ssl._create_unverified_context(),
        ssl.cooperative(stdlib.create_default_context()),
    ):
        assert isinstance(context, stdlib.SSLContext) and context.sslsocket_class is ssl.SSLSocket
    own = stdlib.create_default_context()
    own.sslsocket_class = type("Own", (stdlib.SSLSocket,), {})
    assert ssl.cooperative(own).sslsocket_class.__name__ == "Own"
    with pytest.raises(TypeError):
        ssl.SSLSocket()


def test_the_socket_is_ours_and_the_stdlibs(pair):
    for sock in pair:
        assert isinstance(sock, stdlib.SSLSocket) and isinstance(sock, socket.socket)
        assert isinstance(sock, stdlib_socket.socket) and type(sock) is ssl.SSLSocket
        assert not os.get_blocking(sock.fileno()) and sock.gettimeout() == PATIENCE
        with pytest.raises(NotImplementedError):
            sock.dup()
        with pytest.raises(NotImplementedError):
            sock.recvmsg(1)
        with pytest.raises(NotImplementedError):
            sock.sendmsg([b"x"])
        with pytest.raises(ValueError):
            sock.recvfrom(1)
        with pytest.raises(ValueError):
            sock.sendto(b"x", ("127.0.0.1", 1))


# -------------------------------------------------------------------- data


def test_both_ends_talk(pair, version):
    client, server = pair
    assert client.version() == server.version() == ("TLSv1.3" if version == VERSIONS[1] else "TLSv1.2")
    assert client.cipher() and client.getpeercert()["subject"] == ((("commonName", "localhost"),),)
    assert client.server_hostname == "localhost" and server.server_side
    for a, b in ((client, server), (server, client)):
        receiving = spawn(b.recv, 100)
        settle()
        assert not receiving.ready()
        assert a.send(b"hello") == 5
        assert receiving.get(timeout=PATIENCE) == b"hello"


def test_every_way_to_read(pair):
    client, server = pair
    client.sendall(b"abcdefghij")
    assert server.recv(2) == b"ab" and server.pending() == 8
    buffer = bytearray(4)
    assert server.recv_into(buffer) == 4 and buffer == b"cdef"
    assert server.recv_into(buffer, 1) == 1 and buffer[:1] == b"g"
    assert server.read(2) == b"hi"
    assert server.read(1, buffer) == 1 and buffer[:1] == b"j"
    assert server.recv(0) == b""
    with pytest.raises(ValueError):
        server.recv(1, stdlib_socket.MSG_PEEK)
    with pytest.raises(ValueError):
        server.send(b"x", stdlib_socket.MSG_OOB)
    receiving = spawn(server.recv_into, buffer)
    settle()
    client.sendall(b"later")
    assert receiving.get(timeout=PATIENCE) == 4 and buffer == b"late"
    with server.makefile("rwb") as file:
        client.sendall(b"st\nline\n")
        assert file.readline() == b"rst\n" and file.readline() == b"line\n"
        file.write(b"answer")
        file.flush()
    assert client.recv(100) == b"answer"


def test_much_data_both_ways_at_once(pair):
    client, server = pair
    data = os.urandom(1_000_000)
    senders = [spawn(sock.sendall, data) for sock in pair]
    readers = [spawn(read_exactly, sock, len(data)) for sock in pair]
    joinall([*senders, *readers], timeout=PATIENCE, raise_error=True)
    assert [reader.get() for reader in readers] == [data, data]


def test_small_records_read_in_larger_and_smaller_pieces(pair):
    """When the reader calls, some bytes are in OpenSSL and some in the kernel."""
    client, server = pair
    for size in (1, 3, 7, 100):
        for _ in range(50):
            client.sendall(b"12345")
        got = b""
        while len(got) < 250:
            got += server.recv(size)
        assert got == b"12345" * 50


def test_sendfile(pair, tmp_path):
    client, server = pair
    data = os.urandom(300_000)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        sending = spawn(client.sendfile, file)
        assert read_exactly(server, len(data)) == data and sending.get(timeout=PATIENCE) == len(data)


def test_send_parks_until_there_is_room(unix_pair):
    client, server = unix_pair
    total = fill(client)
    sending = spawn(client.sendall, RECORD + b"end")
    settle()
    assert not sending.ready()
    assert read_exactly(server, total + len(RECORD) + 3)[-4:] == b"\0end"
    sending.get(timeout=PATIENCE)


def test_several_greenlets_send_on_one_connection(unix_pair):
    """Each waits while another's record is half sent: OpenSSL would send its data as the rest of that record."""
    client, server = unix_pair
    size = fill(client) * 2
    senders = [spawn(client.sendall, RECORD)]  # what `fill` began
    senders += [spawn(client.sendall, bytes([n]) * size) for n in range(1, 4)]
    settle()
    assert not any(sender.ready() for sender in senders)
    data = read_exactly(server, size // 2 + len(RECORD) + 3 * size)
    joinall(senders, timeout=PATIENCE, raise_error=True)
    assert [data.count(bytes([n])) for n in range(1, 4)] == [size] * 3


def test_waiting_for_another_greenlets_record_counts_for_the_timeout(unix_pair):
    client, server = unix_pair
    fill(client)
    first = spawn(client.sendall, RECORD)
    settle()
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="write operation timed out"):
        client.sendall(b"second")
    first.kill()


def test_several_greenlets_receive_on_one_connection(pair):
    client, server = pair
    readers = [spawn(server.recv, 1) for _ in range(5)]
    settle()
    client.sendall(b"abcde")
    joinall(readers, timeout=PATIENCE, raise_error=True)
    assert sorted(reader.get() for reader in readers) == [b"a", b"b", b"c", b"d", b"e"]


def test_the_options_for_timeouts_do_not_end_a_wait(pair):
    """The standard library's connections go on when SO_RCVTIMEO has passed."""
    a, b = pair
    a.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_RCVTIMEO, struct.pack("@ll", 0, 1000))
    reading = spawn(a.recv, 10)
    sleep(0.01)  # longer than the option says
    b.sendall(b"hello")
    assert reading.get() == b"hello"


def test_non_blocking(pair):
    client, server = pair
    for sock in pair:
        sock.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        server.recv(1)
    client.send(b"x" * 10)
    wait_until(lambda: read_now(server, 4) == b"xxxx")
    assert read_now(server, 100) == b"x" * 6
    with pytest.raises(ssl.SSLWantReadError):
        server.recv(1)


def read_now(sock, size):
    try:
        data = sock.recv(size)
    except ssl.SSLWantReadError:
        return None
    return data


def test_a_thread_and_a_greenlet_at_the_two_ends(pair):
    client, server = pair
    thread = Thread(lambda: client.sendall(read_exactly(client, 100_000)[::-1]))
    server.sendall(b"a" * 50_000 + b"b" * 50_000)
    assert read_exactly(server, 100_000) == b"b" * 50_000 + b"a" * 50_000
    thread.wait()


# -------------------------------------------------------------------- handshakes


def test_others_run_during_a_handshake(certificate):
    client_context, server_context = contexts(certificate)
    client, server = plain_pair()
    wrapping = spawn(client_context.wrap_socket, client, server_hostname="localhost")
    settle()
    assert not wrapping.ready()
    with server_context.wrap_socket(server, server_side=True) as b, wrapping.get(timeout=PATIENCE) as a:
        a.sendall(b"x")
        assert b.recv(1) == b"x"


def test_a_handshake_of_ones_own(certificate, version):
    client_context, server_context = contexts(certificate, version)
    plain = plain_pair()
    client = client_context.wrap_socket(plain[0], server_hostname="localhost", do_handshake_on_connect=False)
    server = server_context.wrap_socket(plain[1], server_side=True, do_handshake_on_connect=False)
    with client, server:
        client.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        other = spawn(server.do_handshake)
        client.do_handshake(block=True)
        other.get(timeout=PATIENCE)
        assert client.gettimeout() == 0.0 and client.version() == server.version()


def test_connect_after_wrapping(certificate):
    client_context, server_context = contexts(certificate)
    with server_context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        for connect in ("connect", "connect_ex"):
            accepting = spawn(listener.accept)
            with client_context.wrap_socket(socket.socket(), server_hostname="localhost") as client:
                assert not getattr(client, connect)(listener.getsockname())
                server, address = accepting.get(timeout=PATIENCE)
                with server:
                    assert isinstance(server, ssl.SSLSocket) and address == client.getsockname()
                    server.sendall(b"hello")
                    assert client.recv(10) == b"hello"
                with pytest.raises(ValueError):
                    client.connect(listener.getsockname())


def test_a_listener_survives_a_client_that_speaks_no_tls(certificate):
    client_context, server_context = contexts(certificate)
    with server_context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        accepting = spawn(listener.accept)
        with socket.create_connection(listener.getsockname()) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert isinstance(failure(accepting), ssl.SSLError)
        accepting = spawn(listener.accept)
        plain = socket.create_connection(listener.getsockname())
        with client_context.wrap_socket(plain, server_hostname="localhost"):
            accepting.get(timeout=PATIENCE)[0].close()


def test_wrapping_a_socket_of_the_stdlib(certificate):
    client_context, server_context = contexts(certificate)
    a, b = stdlib_socket.socketpair()
    a.settimeout(PATIENCE)
    fd = a.fileno()
    server = spawn(server_context.wrap_socket, b, server_side=True)
    with client_context.wrap_socket(a, server_hostname="localhost") as client, server.get(timeout=PATIENCE) as other:
        assert client.fileno() == fd and a.fileno() == -1 and client.gettimeout() == PATIENCE
        assert other.gettimeout() is None
        client.sendall(b"x")
        assert other.recv(1) == b"x"


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_silent_peer_and_a_timeout(certificate, side):
    client_context, server_context = contexts(certificate)
    mine, silent = plain_pair()
    mine.settimeout(0.02)
    with silent, pytest.raises(TimeoutError, match="handshake operation timed out"):
        if side == "client":
            client_context.wrap_socket(mine, server_hostname="localhost")
        else:
            server_context.wrap_socket(mine, server_side=True)
    assert mine.fileno() == -1


def test_a_peer_that_dribbles_has_one_timeout_for_the_whole_handshake(certificate):
    client_context, _ = contexts(certificate)
    client, server = plain_pair()
    client.settimeout(0.1)
    wrapping = spawn(client_context.wrap_socket, client, server_hostname="localhost")
    with server, Timeout(PATIENCE), contextlib.suppress(OSError):
        server.sendall(b"\x16\x03\x03\x40\x00")  # a long handshake record
        while not wrapping.ready():
            server.sendall(b"\x02")
            weald.sleep(0.01)
    assert "handshake operation timed out" in str(failure(wrapping))


def test_killed_during_the_handshake(certificate):
    client_context, _ = contexts(certificate)
    client, server = plain_pair()
    wrapping = spawn(client_context.wrap_socket, client, server_hostname="localhost")
    settle()
    wrapping.kill()
    with server:
        server.settimeout(PATIENCE)
        while server.recv(65536):  # what was begun, and then the end: the socket is closed
            pass


def is_end(error):
    """Whether `error` means that the peer has gone.  Releases up to 3.11.2 have no SSLEOFError from OpenSSL 3."""
    reason = getattr(error, "reason", None)
    return isinstance(error, ssl.SSLEOFError | ConnectionError) or reason == "UNEXPECTED_EOF_WHILE_READING"


def test_a_peer_that_goes_away_during_the_handshake(certificate):
    client_context, _ = contexts(certificate)
    client, server = plain_pair()
    client_context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which the first releases of Python 3.11 set
    wrapping = spawn(client_context.wrap_socket, client, server_hostname="localhost")
    settle()
    server.recv(65536)
    server.close()
    assert is_end(failure(wrapping))


def test_handshake_on_a_non_blocking_socket_is_the_callers(certificate):
    client_context, _ = contexts(certificate)
    client, server = plain_pair()
    client.setblocking(False)
    with server, pytest.raises(ValueError, match="non-blocking"):
        client_context.wrap_socket(client, server_hostname="localhost")


# -------------------------------------------------------------------- plain text before the handshake


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("side", ["client", "server"])
def test_plain_text_before_the_handshake_is_never_data(certificate, side, how):
    """CVE-2023-40217: the peer sends and closes before the socket is wrapped."""
    client_context, server_context = contexts(certificate)
    mine, evil = plain_pair()
    evil.sendall(b"DELETE / HTTP/1.0\r\n\r\n")
    reset(evil) if how == "reset" else evil.close()
    socket.wait_read(mine.fileno(), 20)
    data = []
    with pytest.raises(OSError):
        if side == "client":
            wrapped = client_context.wrap_socket(mine, server_hostname="localhost")
        else:
            wrapped = server_context.wrap_socket(mine, server_side=True)
        data.append(wrapped.recv(100))
    assert data == []


def test_plain_text_is_not_data_when_the_handshake_is_put_off(certificate):
    _, server_context = contexts(certificate)
    mine, evil = plain_pair()
    with evil, server_context.wrap_socket(mine, server_side=True, do_handshake_on_connect=False) as server:
        evil.sendall(b"DELETE / HTTP/1.0\r\n\r\n")
        server.settimeout(PATIENCE)
        with pytest.raises(ssl.SSLError):
            server.recv(100)
        with pytest.raises(OSError):
            server.do_handshake()


def test_starttls_does_not_read_ahead(certificate):
    client_context, server_context = contexts(certificate)
    client, server = plain_pair()
    client.sendall(b"STARTTLS\r\n")
    wrapping = spawn(client_context.wrap_socket, client, server_hostname="localhost")
    settle()
    assert read_exactly(server, 10) == b"STARTTLS\r\n"
    with server_context.wrap_socket(server, server_side=True) as b, wrapping.get(timeout=PATIENCE) as a:
        b.sendall(b"ready")
        assert a.recv(10) == b"ready"


# -------------------------------------------------------------------- certificates


def refused(client_context, server_context, hostname="localhost"):
    """The exceptions of both ends of a failing handshake (or of the first read after it)."""
    client, server = plain_pair()
    for sock in (client, server):
        sock.settimeout(PATIENCE)

    def talk(context, sock, **arguments):
        with context.wrap_socket(sock, **arguments) as wrapped:
            wrapped.sendall(b"x")
            wrapped.recv(1)

    ends = [
        spawn(talk, client_context, client, server_hostname=hostname),
        spawn(talk, server_context, server, server_side=True),
    ]
    joinall(ends, timeout=PATIENCE)
    return ends[0].exception, ends[1].exception


def test_an_unknown_certificate_is_refused(certificate, stranger, version):
    client_context, _ = contexts(certificate, version)
    _, server_context = contexts(stranger, version)
    mine, theirs = refused(client_context, server_context)
    assert isinstance(mine, ssl.SSLCertVerificationError) and mine.verify_code == 18
    assert isinstance(theirs, ssl.SSLError) and "UNKNOWN_CA" in theirs.reason


def test_a_wrong_host_name_is_refused(certificate, version):
    mine, theirs = refused(*contexts(certificate, version), hostname="example.org")
    assert isinstance(mine, ssl.SSLCertVerificationError) and "example.org" in mine.verify_message
    assert isinstance(theirs, ssl.SSLError)


def test_a_client_without_the_certificate_asked_for(certificate, version):
    client_context, server_context = contexts(certificate, version)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(certificate.cert)
    mine, theirs = refused(client_context, server_context)
    assert isinstance(theirs, ssl.SSLError) and theirs.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    assert isinstance(mine, OSError)  # TLS 1.3 tells the client after its handshake


def test_client_certificates(certificate, stranger, version):
    client_context, server_context = contexts(certificate, version)
    client_context.load_cert_chain(stranger.cert, stranger.key)
    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(stranger.cert)
    with connection(client_context, server_context) as (client, server):
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert server.getpeercert()["subject"] == ((("commonName", "other.test"),),)


def test_no_version_in_common(certificate):
    client_context, server_context = contexts(certificate)
    client_context.maximum_version = ssl.TLSVersion.TLSv1_2
    server_context.minimum_version = ssl.TLSVersion.TLSv1_3
    mine, theirs = refused(client_context, server_context)
    assert isinstance(mine, ssl.SSLError) and isinstance(theirs, ssl.SSLError)


def test_no_host_name_to_check(certificate):
    client_context, _ = contexts(certificate)
    client, server = plain_pair()
    with client, server, pytest.raises(ValueError, match="server_hostname"):
        client_context.wrap_socket(client)


# -------------------------------------------------------------------- extensions


def test_server_name_picks_the_certificate(certificate, stranger, version):
    _, first = contexts(certificate, version)
    _, second = contexts(stranger, version)
    asked = []

    def pick(sock, name, context):
        assert isinstance(sock, ssl.SSLSocket) and context is first
        asked.append(name)
        if name == "other.test":
            sock.context = second

    first.sni_callback = pick
    for name, trusted in (("localhost", certificate), ("other.test", stranger)):
        client_context, _ = contexts(trusted, version)
        with connection(client_context, first, server_hostname=name) as (client, _):
            assert client.getpeercert()["subject"] == ((("commonName", name),),)
    assert asked == ["localhost", "other.test"]


def test_a_server_name_nobody_knows(certificate, version):
    client_context, server_context = contexts(certificate, version)
    server_context.sni_callback = lambda sock, name, context: ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    mine, theirs = refused(client_context, server_context)
    assert "UNRECOGNIZED_NAME" in mine.reason and isinstance(theirs, ssl.SSLError)


@pytest.mark.parametrize(
    ("client_protocols", "server_protocols", "chosen"),
    [
        (["h2", "http/1.1"], ["http/1.1", "h2"], "http/1.1"),
        (["h2"], ["h2"], "h2"),
        (["h2"], [], None),
        ([], ["h2"], None),
    ],
)
def test_alpn(certificate, version, client_protocols, server_protocols, chosen):
    client_context, server_context = contexts(certificate, version)
    if client_protocols:
        client_context.set_alpn_protocols(client_protocols)
    if server_protocols:
        server_context.set_alpn_protocols(server_protocols)
    with connection(client_context, server_context) as both:
        assert [sock.selected_alpn_protocol() for sock in both] == [chosen, chosen]


def test_a_session_is_used_again(certificate, version):
    client_context, server_context = contexts(certificate, version)
    with connection(client_context, server_context) as (client, server):
        assert not client.session_reused and not server.session_reused
        server.sendall(b"x")
        assert client.recv(1) == b"x"  # with TLS 1.3 tickets come after the handshake
        session = client.session
        assert session is not None and session.has_ticket
    with connection(client_context, server_context, session=session) as (client, server):
        assert client.session_reused and server.session_reused
        client.sendall(b"y")
        assert server.recv(1) == b"y"


def test_channel_binding(pair, version):
    if version == ssl.TLSVersion.TLSv1_2:
        assert pair[0].get_channel_binding() == pair[1].get_channel_binding() != None  # noqa: E711


def test_memory_bios_are_the_stdlibs(certificate):
    client_context, server_context = contexts(certificate)
    assert ssl.MemoryBIO is stdlib.MemoryBIO and ssl.SSLObject is stdlib.SSLObject
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    unfinished = [client, server]
    while unfinished:
        for end in list(unfinished):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                unfinished.remove(end)
    client.write(b"hello")
    assert server.read(100) == b"hello" and type(client) is stdlib.SSLObject


# -------------------------------------------------------------------- timeouts


READS = {
    "recv": lambda s: s.recv(10),
    "recv_into": lambda s: s.recv_into(bytearray(10)),
    "read": lambda s: s.read(10),
}


@pytest.mark.parametrize("read", READS.values(), ids=list(READS))
def test_a_read_times_out(pair, read):
    client, server = pair
    server.settimeout(0.02)
    for _ in range(2):
        with pytest.raises(TimeoutError, match="read operation timed out"):
            read(server)
        client.sendall(b"x")
        server.settimeout(PATIENCE)
        assert read(server) in (b"x", 1)  # whole, and the next waits before it tries
        server.settimeout(0.02)


def test_part_of_a_record_does_not_count_as_data(pair):
    """A reader woken by half a record waits for the rest within the same timeout."""
    client, server = pair
    server.settimeout(0.05)
    reading = spawn(server.recv, 10)
    settle()
    os.write(client.fileno(), b"\x17\x03\x03\x00\x40half")
    assert isinstance(failure(reading), TimeoutError)


@pytest.mark.parametrize("call", ["send", "sendall"])
def test_a_write_times_out(unix_pair, call):
    client, server = unix_pair
    total = fill(client)
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="write operation timed out"):
        getattr(client, call)(RECORD)
    client.settimeout(PATIENCE)
    assert read_exactly(server, total) == bytes(total)
    getattr(client, call)(RECORD)
    assert read_exactly(server, len(RECORD)) == RECORD


def test_unwrap_times_out(pair):
    client, _ = pair
    client.settimeout(0.02)
    with pytest.raises(TimeoutError, match="The read operation timed out"):
        client.unwrap()


def test_a_timeout_around_a_read(pair):
    client, server = pair
    with Timeout(0.01, False):
        server.recv(1)
        pytest.fail("there was nothing to read")
    client.sendall(b"x")
    assert server.recv(1) == b"x"


# -------------------------------------------------------------------- ends of connections


def test_unwrap_and_go_on_in_plain_text(pair):
    client, server = pair
    client.sendall(b"secret")
    assert server.recv(100) == b"secret"
    other = spawn(server.unwrap)
    plain = client.unwrap()
    other_plain = other.get(timeout=PATIENCE)
    assert isinstance(plain, socket.socket) and plain.fileno() == client.fileno()
    for a, b in ((plain, other_plain), (other_plain, plain)):
        receiving = spawn(b.recv, 100)
        settle()
        a.sendall(b"open")
        assert receiving.get(timeout=PATIENCE) == b"open"
    with pytest.raises(ValueError, match="No SSL wrapper"):
        client.unwrap()
    with pytest.raises(ValueError):
        client.read(1)


def test_a_reader_sees_the_peers_unwrap_as_the_end(pair):
    client, server = pair
    client.sendall(b"last")
    unwrapping = spawn(client.unwrap)
    assert server.recv(100) == b"last" and server.recv(100) == b"" and server.recv(100) == b""
    assert not unwrapping.ready()
    server.unwrap()
    unwrapping.get(timeout=PATIENCE)


def test_half_close(pair):
    """After one end's close_notify the other may go on sending; the first then cannot unwrap cleanly."""
    client, server = pair
    unwrapping = spawn(client.unwrap)
    assert server.recv(100) == b""
    assert server.send(b"more") == 4
    assert isinstance(failure(unwrapping), ssl.SSLError)


def test_shutdown_ends_tls(pair):
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    assert server.recv(100) == b""  # without a close_notify: ragged, and suppressed
    assert client.version() is None
    server.close()
    with pytest.raises(ValueError):
        client.unwrap()


@pytest.mark.parametrize("suppress", [True, False])
def test_an_end_without_close_notify(certificate, version, suppress):
    client_context, server_context = contexts(certificate, version)
    if not suppress:
        client_context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which the first releases of Python 3.11 set
    with connection(client_context, server_context, suppress_ragged_eofs=suppress) as (client, server):
        server.sendall(b"x")
        assert client.recv(10) == b"x"
        reading = spawn(client.recv, 10)
        settle()
        server.close()
        if suppress:
            assert reading.get(timeout=PATIENCE) == b""
        else:
            assert is_end(failure(reading))


def test_a_reset_connection(pair):
    client, server = pair
    reading = spawn(client.recv, 10)
    settle()
    reset(server)
    reading.join(PATIENCE)
    # Older OpenSSL bindings take it for an end without close_notify.
    assert reading.value == b"" or isinstance(reading.exception, ConnectionResetError)
    with pytest.raises(OSError):
        for _ in range(3):
            client.sendall(b"x")


@pytest.mark.parametrize("call", ["send", "unwrap", "send at once"])
@pytest.mark.parametrize("failing", ["at once", "at once, not waiting", "after waiting", "reading"])
def test_one_connections_failure_is_not_anothers(unix_pair, certificate, version, failing, call):
    """OpenSSL keeps a list of errors per native thread, and Python 3.14 and later leave a broken connection's there."""
    client, server = unix_pair
    total = fill(client)
    with connection(*contexts(certificate, version), make=socket.socketpair) as (broken, peer):
        if failing == "after waiting":
            fill(broken)
            sending = spawn(broken.send, RECORD)
            settle()
            assert not sending.ready()
        if failing == "at once, not waiting":
            broken.settimeout(0.0)
        peer.close()
        if failing == "reading":
            with contextlib.suppress(OSError):  # from OpenSSL 3.6 on: the alert that it sends cannot be delivered
                broken.recv(1)
        else:
            with pytest.raises(OSError):
                sending.get(timeout=PATIENCE) if failing == "after waiting" else broken.send(b"x")
        if call == "send at once":
            client.settimeout(0.0)
            with pytest.raises(ssl.SSLWantWriteError):
                client.send(RECORD)
            client.settimeout(PATIENCE)
            return
        waiting = spawn(getattr(client, call), *[RECORD] * (call == "send"))
        settle()
        assert not waiting.ready(), waiting.exception
        if call == "send":
            assert read_exactly(server, total + len(RECORD)) == bytes(total + len(RECORD))
            assert waiting.get(timeout=PATIENCE) == len(RECORD)
        else:
            waiting.kill()


def test_close_wakes_who_waits(unix_pair):
    client, server = unix_pair
    fill(client)
    waiting = [spawn(client.recv, 1), spawn(client.sendall, RECORD), spawn(client.sendall, b"x")]
    settle()
    assert not any(greenlet.ready() for greenlet in waiting)
    client.close()
    for greenlet in waiting:
        assert isinstance(failure(greenlet), OSError)
    with pytest.raises(OSError):
        client.recv(1)


def test_a_killed_reader_leaves_the_connection_usable(pair):
    client, server = pair
    reading = spawn(server.recv, 10)
    settle()
    reading.kill()
    client.sendall(b"x")
    assert server.recv(10) == b"x"


def test_detach_leaves_the_descriptor_to_the_caller(pair):
    client, _ = pair
    fd = client.detach()
    assert client.fileno() == -1
    os.close(fd)


def test_no_descriptor_is_left(certificate):
    def use():
        with connection(*contexts(certificate)) as (client, server):
            client.sendall(b"x")
            assert server.recv(1) == b"x"
        client, server = plain_pair()
        server.close()
        with pytest.raises(OSError):
            contexts(certificate)[0].wrap_socket(client, server_hostname="localhost")

    use()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        use()
    assert set(os.listdir("/proc/self/fd")) == before


# -------------------------------------------------------------------- module functions and real peers


def test_wrap_socket_of_the_module(certificate):
    plain = plain_pair()
    server = spawn(
        ssl.wrap_socket, plain[1], server_side=True, certfile=certificate.cert, keyfile=certificate.key
    )
    with ssl.wrap_socket(plain[0]) as client, server.get(timeout=PATIENCE) as other:
        client.sendall(b"x")
        assert other.recv(1) == b"x"
    with pytest.raises(ValueError, match="certfile"):
        ssl.wrap_socket(socket.socket(), server_side=True)


def test_get_server_certificate(certificate, stranger):
    _, server_context = contexts(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            for _ in range(3):
                sock, _ = listener.accept()
                with contextlib.suppress(OSError):
                    server_context.wrap_socket(sock, server_side=True).close()

        serving = spawn(serve)
        address = listener.getsockname()
        expected = Path(certificate.cert).read_text()
        assert ssl.get_server_certificate(address, timeout=PATIENCE) == expected
        assert ssl.get_server_certificate(address, ca_certs=certificate.cert, timeout=PATIENCE) == expected
        with pytest.raises(ssl.SSLError):
            ssl.get_server_certificate(address, ca_certs=stranger.cert, timeout=PATIENCE)
        serving.get(timeout=PATIENCE)


def test_against_openssl_s_server(certificate, version):
    """Another implementation of the same protocol, with a key update if it has one."""
    client_context, _ = contexts(certificate, version)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    server = subprocess.Popen(
        [require_program("openssl"), "s_server", "-quiet", "-rev", "-accept", f"127.0.0.1:{port}"]
        + ["-cert", certificate.cert, "-key", certificate.key],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        with Timeout(PATIENCE):
            while True:
                try:
                    plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
                    break
                except ConnectionRefusedError:
                    weald.sleep(0.01)
        with client_context.wrap_socket(plain, server_hostname="localhost") as client:
            for word in (b"hello", b"world" * 1000):
                client.sendall(word + b"\n")
                assert read_exactly(client, len(word) + 1) == word[::-1] + b"\n"
    finally:
        server.kill()
        server.wait()


def test_a_read_of_nothing_does_not_wait(pair):
    """Nor does one that must fail, though the last one has taken all that had come."""
    client, server = pair

    def call(name, *args):
        server.sendall(b"x")
        assert client.recv(9) == b"x"
        with weald.Timeout(PATIENCE):
            return getattr(client, name)(*args)

    assert call("recv", 0) == call("read", 0) == b""
    assert call("recv_into", bytearray(0)) == call("read", 5, bytearray(0)) == 0
    for name, args, error in [
        ("recv", (-1,), ValueError),
        ("read", ("x",), TypeError),
        ("recv_into", (b"x",), TypeError),
        ("read", (5, b"x"), TypeError),
    ]:
        with pytest.raises(error):
            call(name, *args)
