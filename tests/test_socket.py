"""weald.socket: every method in blocking, timeout and non-blocking mode, and the effect of closing on waiters."""

import array
import errno
import gc
import io
import os
import pickle
import socket as stdlib
import struct
import time
import warnings
from contextlib import closing
from functools import partial

import pytest
from helpers import PATIENCE, Thread, is_open, run_patched, settle

from weald import resolver, socket
from weald._base.config import config
from weald._core import Timeout, joinall, sleep, spawn

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def connected(listener):
    client = socket.create_connection(listener.getsockname()[:2])
    server, _ = listener.accept()
    return client, server


def fill(sock):
    """Send until the peer's buffer is full; return the number of bytes sent."""
    timeout = sock.gettimeout()
    sock.settimeout(0.0)
    total = 0
    try:
        while True:
            total += sock.send(bytes(65536))
    except BlockingIOError:
        return total
    finally:
        sock.settimeout(timeout)


RECEIVES = {
    "recv": lambda s: s.recv(10),
    "recv_into": lambda s: s.recv_into(bytearray(10)),
    "recvfrom": lambda s: s.recvfrom(10),
    "recvfrom_into": lambda s: s.recvfrom_into(bytearray(10)),
    "recvmsg": lambda s: s.recvmsg(10),
    "recvmsg_into": lambda s: s.recvmsg_into([bytearray(10)]),
}
SENDS = {
    "send": lambda s: s.send(b"x" * 65536),
    "sendall": lambda s: s.sendall(b"x" * 65536),
    "sendmsg": lambda s: s.sendmsg([b"x" * 65536]),
}
receives = pytest.mark.parametrize("call", RECEIVES.values(), ids=list(RECEIVES))
sends = pytest.mark.parametrize("call", SENDS.values(), ids=list(SENDS))


# ---------------------------------------------------------------- the module


def test_module_has_the_names_of_the_stdlib():
    missing = [name for name in stdlib.__all__ if not hasattr(socket, name)]
    assert missing == []
    assert set(stdlib.__all__) < set(socket.__all__)
    assert all(hasattr(socket, name) for name in socket.__all__)
    for name in socket.__implements__:
        assert getattr(socket, name) is not getattr(stdlib, name)
    for name in socket.__imports__:
        assert getattr(socket, name) is getattr(stdlib, name)


def test_socket_is_a_stdlib_socket(pair):
    a, _ = pair
    assert isinstance(a, stdlib.socket)
    assert isinstance(a, stdlib.SocketType)
    assert repr(a).startswith(f"<weald.socket.socket fd={a.fileno()}, family=")
    with pytest.raises(TypeError, match="pickle"):
        pickle.dumps(a)


def test_constructor_defaults_and_types():
    with socket.socket() as s:
        assert (s.family, s.type, s.proto) == (stdlib.AF_INET, stdlib.SOCK_STREAM, 0)
        assert s.gettimeout() is None
        assert not os.get_blocking(s.fileno())
        assert not s.get_inheritable()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as s:
        assert (s.type, s.gettimeout()) == (stdlib.SOCK_DGRAM, 0.0)


def test_default_timeout():
    socket.setdefaulttimeout(7.0)
    try:
        with socket.socket() as s:
            assert s.timeout == 7.0
    finally:
        socket.setdefaulttimeout(None)


# ---------------------------------------------------------------- timeouts


def test_settimeout(pair):
    a, _ = pair
    assert a.getblocking()
    a.settimeout(3)
    assert (a.gettimeout(), a.timeout, a.getblocking()) == (3.0, 3.0, True)
    a.setblocking(False)
    assert (a.gettimeout(), a.getblocking()) == (0.0, False)
    a.setblocking(True)
    assert (a.gettimeout(), a.getblocking()) == (None, True)
    for value, error in ((-1, ValueError), (float("nan"), ValueError), (1e300, OverflowError), ("1", TypeError)):
        with pytest.raises(error):
            a.settimeout(value)  # type: ignore[arg-type]
    assert a.gettimeout() is None


def test_settimeout_of_a_closed_socket_fails(pair):
    a, _ = pair
    a.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        a.settimeout(1)


def test_descriptor_stays_non_blocking_whatever_the_timeout(pair):
    a, _ = pair
    for timeout in (None, 1.0, 0.0):
        os.set_blocking(a.fileno(), True)
        a.settimeout(timeout)
        assert not os.get_blocking(a.fileno())


@receives
def test_receive_times_out(pair, call):
    pair[0].settimeout(0.01)
    with pytest.raises(TimeoutError, match="^timed out$"):
        call(pair[0])


@receives
def test_receive_non_blocking(pair, call):
    pair[0].settimeout(0)
    with pytest.raises(BlockingIOError):
        call(pair[0])


@sends
def test_send_times_out(pair, call):
    fill(pair[0])
    pair[0].settimeout(0.01)
    with pytest.raises(TimeoutError, match="^timed out$"):
        call(pair[0])


@sends
def test_send_non_blocking(pair, call):
    fill(pair[0])
    pair[0].settimeout(0)
    with pytest.raises(BlockingIOError):
        call(pair[0])


# ---------------------------------------------------------------- waiting


@receives
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_receive_parks_until_data_comes(pair, call, timeout):
    a, b = pair
    a.settimeout(timeout)
    receiver = spawn(call, a)
    settle()
    assert not receiver.ready()
    b.send(b"hello")
    result = receiver.get()
    assert (result[0] if isinstance(result, tuple) else result) in (b"hello", 5)


@sends
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_send_parks_until_there_is_room(pair, call, timeout):
    a, b = pair
    buffered = fill(a)
    a.settimeout(timeout)
    sender = spawn(call, a)
    settle()
    assert not sender.ready()
    while buffered:
        buffered -= len(b.recv(min(buffered, 65536)))
    if call is SENDS["sendall"]:
        buffered = 65536
        while buffered:
            buffered -= len(b.recv(65536))
    assert sender.get() in (None, 65536)


def test_sendall_of_more_than_the_buffers_hold(pair):
    a, b = pair
    data = os.urandom(3_000_000)
    sender = spawn(a.sendall, data)
    received = bytearray()
    while len(received) < len(data):
        received += b.recv(100_000)
    assert received == data
    assert sender.get() is None


def test_sendto_and_sendmsg_park_on_a_full_datagram_queue(tmp_path):
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as a,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as b,
    ):
        path = str(tmp_path / "b")
        b.bind(path)
        a.settimeout(0)
        sent = 0
        with pytest.raises(BlockingIOError):
            while True:
                a.sendto(b"x", path)
                sent += 1
        a.settimeout(0.01)
        with pytest.raises(TimeoutError):
            a.sendto(b"x", path)
        a.settimeout(None)
        senders = [spawn(a.sendto, b"y", path), spawn(a.sendmsg, [b"y"], [], 0, path)]
        for _ in range(10):  # the system reports that sending is possible, so they try again and again
            sleep(0)
        assert not any(sender.ready() for sender in senders)
        for _ in range(sent):
            assert b.recv(10) == b"x"
        assert [b.recv(10), b.recv(10)] == [b"y", b"y"]
        assert [sender.get() for sender in senders] == [1, 1]


def test_retries_use_up_one_timeout(pair):
    """Two greenlets wait for one byte: the other one goes on waiting, and its timeout does not start again."""
    a, b = pair
    for seconds in (0.1, 1, 10):  # again if the machine was so slow that the byte came too late for both
        a.settimeout(seconds)
        order = []
        readers = [spawn(a.recvfrom, 1) for _ in range(2)]
        settle()
        anew = spawn(sleep, seconds)
        anew.rawlink(order.append)
        readers[1].rawlink(order.append)
        sleep(seconds / 2)
        if any(reader.ready() for reader in readers):
            joinall(readers)
            continue
        b.send(b"x")
        joinall([*readers, anew])
        break
    assert sorted(type(reader.exception).__name__ for reader in readers) == ["NoneType", "TimeoutError"]
    assert readers[1].exception is None or order == [readers[1], anew]


def test_sendmsg_and_recvmsg_into_take_iterators(pair):
    a, b = pair
    first, second = bytearray(2), bytearray(4)
    receiver = spawn(b.recvmsg_into, iter([first, second]))
    settle()
    assert a.sendmsg(iter([b"ab", b"cd"])) == 4
    assert receiver.get()[0] == 4
    assert first + second == b"abcd\0\0"


def test_dontwait_never_parks(pair):
    a, _ = pair
    for call in (lambda: a.recv(1, socket.MSG_DONTWAIT), lambda: a.recvfrom(1, socket.MSG_DONTWAIT)):
        with pytest.raises(BlockingIOError):
            call()


def test_peek_leaves_the_data(pair):
    a, b = pair
    b.send(b"abc")
    assert a.recv(2, socket.MSG_PEEK) == b"ab"
    assert a.recv(10, socket.MSG_PEEK) == b"abc"
    assert a.recv(10) == b"abc"


def test_receiving_nothing_needs_no_waiting(pair):
    a, b = pair
    with Timeout(PATIENCE):
        assert a.recv(0) == b""
        assert a.recv_into(bytearray()) == 0
        b.send(b"abc")
        assert a.recv(10) == b"abc"  # after which the socket is known to be drained
        assert a.recv(0) == b""


def test_receiving_nothing_leaves_a_datagram():
    a, b = socket.socketpair(type=socket.SOCK_DGRAM)
    with a, b:
        b.send(b"abc")
        assert a.recv(0) == b""
        assert a.recv_into(bytearray()) == 0
        assert a.recv(10) == b"abc"


@pytest.mark.parametrize("size", [3, 10_000])
def test_the_length_of_a_datagram_that_is_cut(size):
    a, b = socket.socketpair(type=socket.SOCK_DGRAM)
    with a, b:
        data = bytes(range(1, 251)) * 200
        b.send(data)
        for flags in (socket.MSG_PEEK, 0):
            got = a.recv(size, flags | socket.MSG_TRUNC)
            assert got == data[:size] + bytes(len(data) - size)  # the rest is zeros, not stray memory


def test_bad_arguments(pair):
    a, _ = pair
    with pytest.raises(ValueError, match="negative"):
        a.recv(-1)
    with pytest.raises(ValueError, match="negative"):
        a.recvfrom(-1)
    with pytest.raises(TypeError):
        a.send("text")
    with pytest.raises(TypeError):
        a.sendto(b"x")


@pytest.mark.parametrize("name", ["recv_into", "recvfrom_into"])
def test_receiving_into_what_is_read_only(pair, name):
    with pytest.raises(TypeError, match="read-write bytes-like"):
        getattr(pair[0], name)(b"read-only")


def test_a_killed_receiver_leaves_the_socket_usable(pair):
    a, b = pair
    receiver = spawn(a.recv, 10)
    settle()
    receiver.kill()
    with Timeout(0.01, False):
        a.recvfrom(10)
    b.send(b"x")
    assert a.recv(10) == b"x"


def test_use_from_another_thread(pair):
    a, b = pair
    thread = Thread(a.recv, 10)
    b.send(b"x")
    assert thread.wait() == b"x"


# ---------------------------------------------------------------- closing


@receives
def test_close_wakes_receivers(pair, call):
    a, _ = pair
    receivers = [spawn(call, a), spawn(call, a)]
    settle()
    a.close()
    joinall(receivers)
    for receiver in receivers:
        assert isinstance(receiver.exception, OSError)
        assert receiver.exception.errno == errno.EBADF


@sends
def test_close_wakes_senders(pair, call):
    a, _ = pair
    fill(a)
    sender = spawn(call, a)
    settle()
    a.close()
    sender.join()
    assert isinstance(sender.exception, OSError)
    assert sender.exception.errno == errno.EBADF


def test_close_wakes_accept(listener):
    acceptor = spawn(listener.accept)
    settle()
    listener.close()
    acceptor.join()
    assert isinstance(acceptor.exception, OSError)
    assert acceptor.exception.errno == errno.EBADF


@pytest.mark.parametrize("call", [*RECEIVES.values(), *SENDS.values(), lambda s: s.accept()])
def test_closed_socket(pair, call):
    a, _ = pair
    a.close()
    assert a.fileno() == -1
    assert "[closed]" in repr(a)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        call(a)
    assert caught.value.errno == errno.EBADF
    a.close()


@pytest.mark.parametrize("timeout", [0, PATIENCE])
def test_a_timeout_that_is_set_while_sendmsg_waits_leaves_no_gap(pair, timeout):
    """Then it sends no more than there is room for, and nothing of what comes after that."""
    a, b = pair
    data = bytes(number % 251 for number in range(6_000_000))
    sender = spawn(a.sendmsg, [data[:3_000_000], data[3_000_000:]])
    settle()
    assert not sender.ready()
    a.settimeout(timeout)
    b.settimeout(PATIENCE)
    received = bytearray()
    while not sender.ready() or len(received) < sender.get():
        received += b.recv(1_000_000)
    assert received == data[: sender.get()]


def test_detach_gives_the_descriptor_away(pair):
    a, b = pair
    receiver = spawn(a.recv, 1)
    settle()
    fd = a.detach()
    receiver.join()
    assert isinstance(receiver.exception, OSError)
    assert a.fileno() == -1 and a._closed and "[closed]" in repr(a)
    assert os.get_blocking(fd)  # as the stdlib's would be
    with socket.socket(fileno=fd) as again:
        assert not os.get_blocking(fd)
        b.send(b"x")
        assert again.recv(1) == b"x"


@pytest.mark.parametrize("timeout", [0, 5])
def test_detach_with_a_timeout_leaves_it_non_blocking(pair, timeout):
    a, _ = pair
    a.settimeout(timeout)
    fd = a.detach()
    assert not os.get_blocking(fd)
    os.close(fd)


def test_create_connection_uses_what_a_program_puts_into_socket():
    out = run_patched(
        """
        import socket
        class Proxied(socket.socket):
            def connect(self, address):
                print("to", address)
        socket.socket = Proxied
        socket.getaddrinfo = lambda host, port, *rest: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port))]
        socket.create_connection(("somewhere", 80)).close()
        """
    )
    assert out == "to ('somewhere', 80)\n"


def test_makefile_keeps_the_descriptor(pair):
    a, b = pair
    fd = a.fileno()
    reader = a.makefile("rb")
    a.close()
    assert is_open(fd)
    line = spawn(reader.readline)
    settle()
    b.sendall(b"one\ntwo")
    assert line.get() == b"one\n"
    reader.close()
    assert not is_open(fd)


def test_makefile_for_text_and_writing(pair):
    a, b = pair
    with a.makefile("rw", encoding="utf-8", newline="\n") as both:
        both.write("größe\n")
        both.flush()
        assert b.recv(20) == "größe\n".encode()
        b.sendall(b"ok\n")
        assert both.readline() == "ok\n"


def test_a_dropped_socket_is_closed_with_a_warning():
    a, b = socket.socketpair()
    with b:
        b.settimeout(0.01)
        with pytest.raises(TimeoutError):
            b.recv(1)  # so that the loop knows it
        fd = a.fileno()
        with pytest.warns(ResourceWarning, match="unclosed"):
            del a
            gc.collect()
        assert not is_open(fd)
        assert b.recv(1) == b""


def test_a_dropped_closed_socket_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        a, b = socket.socketpair()
        a.close()
        os.close(b.detach())
        del a, b
        gc.collect()


def test_a_number_is_watched_anew_after_it_was_closed():
    for _ in range(3):
        a, b = socket.socketpair()
        with a, b:
            receiver = spawn(a.recv, 1)
            settle()
            b.send(b"x")
            assert receiver.get() == b"x"


# ---------------------------------------------------------------- connecting


def test_accept_and_connect(listener):
    acceptor = spawn(listener.accept)
    with socket.socket() as client:
        client.connect(listener.getsockname())
        server, address = acceptor.get()
        with server:
            assert type(server) is socket.socket
            assert address == client.getsockname()
            assert (server.family, server.type, server.proto) == (client.family, client.type, listener.proto)
            assert server.gettimeout() is None
            server.sendall(b"x")
            assert client.recv(1) == b"x"


def test_accepted_socket_has_the_default_timeout(listener):
    listener.settimeout(PATIENCE)
    socket.setdefaulttimeout(2)
    try:
        client, server = connected(listener)
    finally:
        socket.setdefaulttimeout(None)
    with client, server:
        assert server.gettimeout() == 2


def test_accept_timeout_and_non_blocking(listener):
    listener.settimeout(0.01)
    with pytest.raises(TimeoutError):
        listener.accept()
    listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_connect_refused(listener):
    address = listener.getsockname()
    listener.close()
    with socket.socket() as client:
        with pytest.raises(ConnectionRefusedError) as caught:
            client.connect(address)
        assert caught.value.errno == errno.ECONNREFUSED
        assert client.connect_ex(address) == errno.ECONNREFUSED


def test_connect_twice(listener):
    with socket.create_connection(listener.getsockname()) as client:
        assert client.connect_ex(listener.getsockname()) == errno.EISCONN
        with pytest.raises(OSError, match="already connected"):
            client.connect(listener.getsockname())


def test_connect_goes_on_after_a_signal(listener, monkeypatch):
    """As connect(2) does when it is interrupted (EINTR): PEP 475."""
    interrupted = []

    class Interrupted(stdlib.socket):
        def connect_ex(self, address):
            if not interrupted:
                interrupted.append(address)
                return errno.EINTR
            return stdlib.socket.connect_ex(self, address)

    monkeypatch.setattr(socket, "_Base", Interrupted)
    with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as client:
        assert client.getpeername() == listener.getsockname()
    assert interrupted


def test_connect_times_out():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())
        with socket.socket() as client:
            client.settimeout(0.02)
            with pytest.raises(TimeoutError, match="^timed out$"):
                client.connect(full.getsockname())
        with socket.socket() as client:
            client.settimeout(0.02)
            assert client.connect_ex(full.getsockname()) == errno.EAGAIN


def test_connect_non_blocking():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())
        with socket.socket() as client:
            client.setblocking(False)
            with pytest.raises(BlockingIOError) as caught:
                client.connect(full.getsockname())
            assert caught.value.errno == errno.EINPROGRESS
            assert client.connect_ex(full.getsockname()) == errno.EALREADY
            # Asked in blocking mode, it waits for the attempt under way.
            client.settimeout(PATIENCE)
            full.accept()[0].close()
            client.connect(full.getsockname())
            client.sendall(b"x")


def test_connect_to_a_unix_listener_with_a_full_backlog(tmp_path):
    path = str(tmp_path / "listener")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(0.01)
            with pytest.raises(TimeoutError):
                client.connect(path)
            client.settimeout(None)
            connecting = spawn(client.connect, path)
            settle()
            assert not connecting.ready()
            listener.accept()[0].close()
            connecting.get()
            listener.accept()[0].close()


def test_close_wakes_connect():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())
        client = socket.socket()
        connecting = spawn(client.connect, full.getsockname())
        settle()
        client.close()
        connecting.join()
        assert isinstance(connecting.exception, OSError)
        assert connecting.exception.errno == errno.EBADF


def test_shutdown_is_a_half_close(listener):
    client, server = connected(listener)
    with client, server:
        receiver = spawn(server.recv, 1)
        settle()
        client.shutdown(socket.SHUT_WR)
        assert receiver.get() == b""
        server.sendall(b"x")
        assert client.recv(1) == b"x"


def test_a_reset_peer(listener):
    client, server = connected(listener)
    with server:
        receiver = spawn(server.recv, 1)
        settle()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        receiver.join()
        assert isinstance(receiver.exception, ConnectionResetError)


def test_many_greenlets_on_many_connections(listener):
    def serve():
        while True:
            sock, _ = listener.accept()
            spawn(echo, sock)

    def echo(sock):
        with sock:
            while data := sock.recv(100):
                sock.sendall(data)

    def client(number):
        with socket.create_connection(listener.getsockname()) as sock:
            for _ in range(3):
                sock.sendall(b"%03d" % number)
                data = sock.recv(100)
            return data

    server = spawn(serve)
    clients = [spawn(client, number) for number in range(100)]
    joinall(clients)
    assert [client.get() for client in clients] == [b"%03d" % number for number in range(100)]
    server.kill()


# ---------------------------------------------------------------- families and types


def test_udp():
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as a,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as b,
    ):
        a.bind(("127.0.0.1", 0))
        b.bind(("127.0.0.1", 0))
        receiver = spawn(a.recvfrom, 100)
        settle()
        assert b.sendto(b"data", a.getsockname()) == 4
        assert receiver.get() == (b"data", b.getsockname())
        b.sendto(b"", 0, a.getsockname())
        assert a.recvfrom(100) == (b"", b.getsockname())
        b.connect(a.getsockname())
        b.send(b"")
        b.send(b"short")
        b.send(b"next")
        assert [a.recv(100), a.recv(100), a.recv(100)] == [b"", b"short", b"next"]
        buffer = bytearray(10)
        b.send(b"into")
        assert a.recvfrom_into(buffer, nbytes=3) == (3, b.getsockname())
        assert buffer[:4] == b"int\0"


def test_ipv6():
    try:
        server = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with server:
        client, accepted = connected(server)
        with client, accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


def test_abstract_unix_socket():
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(b"\0weald-test-%d" % os.getpid())
        listener.listen()
        client.connect(listener.getsockname())
        server, address = listener.accept()
        with server:
            assert not address
            client.sendall(b"x")
            assert server.recv(1) == b"x"


def test_descriptors_travel(pair):
    a, b = pair
    r, w = os.pipe()
    try:
        receiver = spawn(socket.recv_fds, b, 10, 1)
        settle()
        socket.send_fds(a, [b"fd"], [w])
        data, fds, _, _ = receiver.get()
        assert data == b"fd"
        os.write(fds[0], b"x")
        assert os.read(r, 1) == b"x"
        os.close(fds[0])
    finally:
        os.close(r)
        os.close(w)


def test_ancillary_data(pair):
    a, b = pair
    fds = array.array("i", [a.fileno()])
    a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    data, ancillary, _, _ = b.recvmsg(1, socket.CMSG_SPACE(4))
    assert data == b"x"
    (level, kind, payload) = ancillary[0]
    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
    os.close(array.array("i", payload)[0])


# ---------------------------------------------------------------- descriptors


def test_fileno_argument():
    a, b = stdlib.socketpair()
    with b, socket.socket(fileno=a.detach()) as taken:
        assert (taken.family, taken.type) == (stdlib.AF_UNIX, stdlib.SOCK_STREAM)
        assert not os.get_blocking(taken.fileno())
        b.send(b"x")
        assert taken.recv(1) == b"x"


def test_bad_descriptors():
    with pytest.raises(ValueError, match="negative"):
        socket.socket(fileno=-1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        socket.socket(fileno=10**6)
    with open(os.devnull) as file, pytest.raises(OSError, match="non-socket"):
        socket.socket(fileno=file.fileno())
    with pytest.raises(TypeError):
        socket.socket(fileno="x")  # type: ignore[arg-type]


def test_dup_and_fromfd(pair):
    a, b = pair
    a.settimeout(PATIENCE)
    with a.dup() as twin, socket.fromfd(a.fileno(), a.family, a.type) as third:
        assert type(twin) is type(third) is socket.socket
        assert twin.gettimeout() == PATIENCE
        assert len({a.fileno(), twin.fileno(), third.fileno()}) == 3
        a.close()
        b.send(b"xy")
        assert (twin.recv(1), third.recv(1)) == (b"x", b"y")


# ---------------------------------------------------------------- sendfile


def test_sendfile(listener, tmp_path):
    path = tmp_path / "data"
    data = os.urandom(2_000_000)
    path.write_bytes(data)
    client, server = connected(listener)
    with client, server, path.open("rb") as file:
        sender = spawn(client.sendfile, file)
        received = bytearray()
        while len(received) < len(data):
            received += server.recv(65536)
        assert received == data
        assert sender.get() == len(data)
        assert file.tell() == len(data)
        assert client.sendfile(file, offset=10, count=20) == 20
        assert file.tell() == 30
        assert server.recv(100) == data[10:30]


def test_sendfile_of_what_has_no_descriptor(listener):
    client, server = connected(listener)
    with client, server:
        assert client.sendfile(io.BytesIO(b"0123456789"), 2, 5) == 5  # type: ignore[arg-type]
        assert server.recv(100) == b"23456"


def test_sendfile_errors(listener, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(10_000_000))
    client, server = connected(listener)
    with client, server, path.open("rb") as file:
        client.settimeout(0.02)
        with pytest.raises(TimeoutError):
            client.sendfile(file)
        assert file.tell() > 0
        client.settimeout(0)
        with pytest.raises(ValueError, match="non-blocking"):
            client.sendfile(file)
        with pytest.raises(ValueError, match="positive"):
            client.sendfile(file, count=0)


# ---------------------------------------------------------------- functions


def test_socketpair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with a, b:
        assert type(a) is socket.socket
        assert a.type == socket.SOCK_DGRAM
        a.send(b"x")
        assert b.recv(10) == b"x"


class FakeResolver:
    """Knows one name."""

    def __init__(self, *addresses):
        self.addresses = addresses
        self.asked = []

    def getaddrinfo(self, host, port, family=0, *rest):
        self.asked.append(host)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in self.addresses
        ]


@pytest.fixture
def fake_resolver(monkeypatch):
    fake = FakeResolver("127.0.0.1")
    monkeypatch.setattr(resolver, "current", lambda: fake)
    return fake


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_host_of_bytes(listener, kind):
    with socket.socket() as client:
        client.connect((kind(b"127.0.0.1"), listener.getsockname()[1]))


def test_names_go_through_the_resolver(listener, fake_resolver):
    port = listener.getsockname()[1]
    with socket.socket() as client:
        client.connect(("some.name", port))
    with socket.socket() as client:
        client.bind((b"some.name", 0))
        assert client.getsockname()[0] == "127.0.0.1"
        assert client.connect_ex(("some.name", port)) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", ("some.name", port))
        client.sendmsg([b"x"], [], 0, ("some.name", port))
    assert fake_resolver.asked == ["some.name", b"some.name", "some.name", "some.name", "some.name"]


def test_numbers_and_nonsense_do_not_go_through_the_resolver(listener, fake_resolver):
    with socket.socket() as client:
        client.connect(listener.getsockname())
    with socket.socket() as client:
        client.bind(("", 0))
        for address in (("127.0.0.1",), "127.0.0.1", (127, 80), ("127.0.0.1", "80"), None):
            with pytest.raises((TypeError, OSError)):
                client.connect(address)
    assert fake_resolver.asked == []


def test_create_connection_tries_each_address(listener, fake_resolver):
    port = listener.getsockname()[1]
    fake_resolver.addresses = ("127.0.0.2", "127.0.0.1")
    with socket.create_connection(("some.name", port), timeout=PATIENCE, source_address=("127.0.0.1", 0)) as client:
        assert client.getpeername() == ("127.0.0.1", port)
        assert client.gettimeout() == PATIENCE


def test_create_connection_fails(listener, fake_resolver):
    port = listener.getsockname()[1]
    fake_resolver.addresses = ("127.0.0.2", "127.0.0.3")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("some.name", port))
    with pytest.raises(ExceptionGroup) as caught:
        socket.create_connection(("some.name", port), all_errors=True)
    assert [type(error) for error in caught.value.exceptions] == [ConnectionRefusedError] * 2
    fake_resolver.addresses = ()
    with pytest.raises(OSError, match="empty list"):
        socket.create_connection(("some.name", port))


def test_create_connection_killed_closes_its_socket():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())
        before = len(os.listdir("/proc/self/fd"))
        connecting = spawn(socket.create_connection, full.getsockname())
        settle()
        connecting.kill()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_connection_that_came_about_has_not_timed_out(listener):
    """However long the loop was blocked."""
    connecting = spawn(socket.create_connection, listener.getsockname(), timeout=0.02)
    sleep(0)
    time.sleep(0.05)  # blocks the whole thread
    connecting.get().close()


def test_happy_eyeballs(listener, fake_resolver, monkeypatch):
    """A silent address delays the next one only for the delay; the losing attempt leaves nothing behind."""
    port = listener.getsockname()[1]
    with socket.create_server(("127.0.0.2", port), backlog=0) as full, socket.socket() as first:
        first.connect(full.getsockname())  # from now on it does not answer
        fake_resolver.addresses = ("127.0.0.2", "127.0.0.3", "127.0.0.1")
        before = len(os.listdir("/proc/self/fd"))
        start = time.monotonic()
        monkeypatch.setattr(config, "happy_eyeballs_delay", 0.05)
        with socket.create_connection(("some.name", port), timeout=PATIENCE) as client:
            assert client.getpeername() == ("127.0.0.1", port)
            assert client.gettimeout() == PATIENCE
            assert 0.05 <= time.monotonic() - start
            assert len(os.listdir("/proc/self/fd")) == before + 1
        fake_resolver.addresses = ("127.0.0.3", "127.0.0.2", "127.0.0.4")
        monkeypatch.setattr(config, "happy_eyeballs_delay", 0.01)
        for seconds in (0.1, 1, 10):  # again if the machine was so slow that no address was tried
            with pytest.raises(ExceptionGroup) as caught:
                socket.create_connection(("some.name", port), timeout=seconds, all_errors=True)
            kinds = [type(error) for error in caught.value.exceptions]
            if kinds == [ConnectionRefusedError, ConnectionRefusedError, TimeoutError]:
                break
        else:
            pytest.fail(repr(kinds))
        monkeypatch.setattr(config, "happy_eyeballs_delay", 10)
        connecting = spawn(socket.create_connection, full.getsockname())
        settle()
        connecting.kill()
        assert len(os.listdir("/proc/self/fd")) == before


def test_happy_eyeballs_alternates_families():
    assert socket._in_turns([10, 10, 10, 2, 2]) == [0, 3, 1, 4, 2]
    assert socket._in_turns([2, 10, 2]) == [0, 1, 2]
    assert socket._in_turns([]) == []


def test_create_server_options():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True, backlog=3) as server:
        assert type(server) is socket.socket
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
    with pytest.raises(ValueError, match="AF_INET6"):
        socket.create_server(("127.0.0.1", 0), dualstack_ipv6=True)


def test_wait_functions(pair):
    a, b = pair
    socket.wait_write(a.fileno())
    socket.wait_readwrite(a.fileno())
    with pytest.raises(TimeoutError):
        socket.wait_read(a.fileno(), 0.01)
    with pytest.raises(KeyError):
        socket.wait_read(a.fileno(), 0.01, KeyError("mine"))
    waiter = spawn(socket.wait_read, a.fileno())
    settle()
    assert not waiter.ready()
    b.send(b"x")
    waiter.get()


def test_cancel_wait_leaves_the_socket_open(pair):
    a, b = pair
    a.settimeout(PATIENCE)
    receiver = spawn(a.recv, 1)
    settle()
    socket.cancel_wait(a)
    receiver.join()
    assert isinstance(receiver.exception, OSError)
    assert receiver.exception.errno == errno.EBADF
    b.send(b"x")
    assert (a.recv(1), a.gettimeout()) == (b"x", PATIENCE)


def test_a_forked_sharer_may_hold_the_description(listener):
    """A socket that is dropped without close leaves the loop, also if its description stays open elsewhere."""
    client, server = connected(listener)
    with closing(stdlib.fromfd(server.fileno(), server.family, server.type)) as sharer:
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.recv(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del server
            gc.collect()
        client.sendall(b"x")
        spent = os.times()
        sleep(0.3)
        used = os.times()
        assert used.user + used.system - spent.user - spent.system < 0.2, "the loop spins"
        sharer.setblocking(True)
        assert sharer.recv(1) == b"x"
    client.close()




def test_create_server_patched():
    out = run_patched(
        """
        import socket, weald.socket
        with socket.create_server(("127.0.0.1", 0), backlog=3) as server:
            print(type(server) is weald.socket.socket)
            with socket.create_connection(server.getsockname()):
                server.accept()[0].close()
        """
    )
    assert out == "True\n"


def test_data_that_came_in_time_is_not_late_because_the_loop_was_busy(pair):
    a, b = pair
    for seconds in (0.02, 0.2, 2, 20):  # again if the machine was so slow that it did not come in time
        a.settimeout(seconds)
        receiver = spawn(a.recv, 1)
        settle()
        if not receiver.ready():
            break
        with pytest.raises(TimeoutError):
            receiver.get()
    b.send(b"x")
    busy_until = time.monotonic() + seconds + 0.03
    while time.monotonic() < busy_until:
        pass
    assert receiver.get() == b"x"


def limit(sock, option, seconds):
    """Set SO_RCVTIMEO or SO_SNDTIMEO."""
    sock.setsockopt(stdlib.SOL_SOCKET, option, struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000)))


def test_limits_of_a_blocking_socket_by_its_options():
    """SO_RCVTIMEO and SO_SNDTIMEO end a call with EAGAIN, or with the bytes transferred by then (socket(7))."""
    a, b = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    with a, b, listener:
        limit(a, stdlib.SO_RCVTIMEO, 0.01)
        for receive in (
            partial(a.recv, 5), partial(a.recv_into, bytearray(5)), partial(a.recvfrom, 5), partial(a.recvmsg, 5),
            partial(a.recv, 5, stdlib.MSG_PEEK), partial(a.dup().recv, 5),
        ):  # fmt: skip
            with pytest.raises(BlockingIOError) as caught:
                receive()
            assert caught.value.errno == errno.EAGAIN
        b.send(b"xy")
        assert a.recv(5, stdlib.MSG_WAITALL) == b"xy"
        with a.makefile("rb") as file, a.makefile("rb", buffering=0) as raw:
            assert raw.read(5) is None
            assert file.read(5) is None
        limit(a, stdlib.SO_SNDTIMEO, 0.01)
        assert 0 < a.send(bytes(8_000_000)) < 8_000_000
        for send in (partial(a.send, b"x"), partial(a.sendall, b"x"), partial(a.sendmsg, [b"x"])):
            with pytest.raises(BlockingIOError):
                send()
        limit(listener, stdlib.SO_RCVTIMEO, 0.01)
        with pytest.raises(BlockingIOError):
            listener.accept()
        # An accepted socket has its listener's options.
        with socket.create_connection(listener.getsockname()) as sock, listener.accept()[0] as peer:
            with pytest.raises(BlockingIOError):
                peer.recv(1)
            limit(peer, stdlib.SO_RCVTIMEO, 0)
            got = spawn(peer.recv, 1)
            settle()
            sock.send(b"x")
            assert got.get() == b"x"


def test_a_timeout_counts_for_more_than_the_options():
    a, b = socket.socketpair()
    with a, b:
        limit(a, stdlib.SO_RCVTIMEO, 0.001)
        a.settimeout(0.01)
        with pytest.raises(TimeoutError, match="timed out"):
            a.recv(1)
        assert a.getsockopt(stdlib.SOL_SOCKET, stdlib.SO_RCVTIMEO, 16)


def test_a_connection_attempt_ends_by_the_option():
    """A listener whose backlog is full does not answer any more."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        errors = set()
        for sock in waiting:
            limit(sock, stdlib.SO_SNDTIMEO, 0.01)
            errors.add(sock.connect_ex(listener.getsockname()))
            sock.close()
        assert errors == {0, errno.EINPROGRESS}
