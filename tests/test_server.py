"""StreamServer and DatagramServer: addresses, handlers, limits, errors of accept, stopping."""

import errno
import os
import resource
import socket as stdlib_socket
import ssl as stdlib_ssl
import subprocess
import sys
import textwrap
from contextlib import contextmanager, suppress

import pytest
from helpers import PATIENCE, USE_UP_DESCRIPTORS, python, recorded_errors, settle, wait_until

import weald
from weald import Timeout, server, socket, ssl
from weald.event import Event
from weald.pool import Pool
from weald.server import DatagramServer, StreamServer

pytestmark = pytest.mark.usefixtures("io_loop")

LOCAL = ("127.0.0.1", 0)


def echo(sock, address):
    while data := sock.recv(65536):
        sock.sendall(data)


class Held:
    """A handler that lasts until `go` is set."""

    def __init__(self):
        self.go = Event()
        self.inside = self.most = self.ended = self.killed = 0

    def __call__(self, *args):
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            self.go.wait()
            if hasattr(args[0], "sendall"):
                args[0].sendall(b"done")
        except BaseException:
            self.killed += 1
            raise
        finally:
            self.inside -= 1
            self.ended += 1


@contextmanager
def running(made):
    """Start it; only failures that the test expects may reach the hub's error handler."""
    with recorded_errors() as errors:
        made.start()
        try:
            yield made
        finally:
            made.stop(timeout=0)
        settle()
    assert not errors, errors


def connect(made):
    family = made.socket.family
    if family == socket.AF_UNIX:
        sock = socket.socket(family)
        sock.connect(made.address)
        return sock
    host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
    return socket.create_connection((host, made.server_port), timeout=PATIENCE)


def answer(made, data=b"hello"):
    """The response of an echo server to `data`."""
    with connect(made) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def read_all(sock):
    chunks = []
    while chunk := sock.recv(65536):
        chunks.append(chunk)
    return b"".join(chunks)


# -------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("address", "family", "parsed"),
    [
        (("127.0.0.1", 80), socket.AF_INET, ("127.0.0.1", 80)),
        (("", 80), socket.AF_INET6, ("", 80)),
        (("::1", 80), socket.AF_INET6, ("::1", 80)),
        (("::1", 80, 0, 1), socket.AF_INET6, ("::1", 80, 0, 1)),
        ("127.0.0.1:80", socket.AF_INET, ("127.0.0.1", 80)),
        ("localhost:80", socket.AF_INET, ("localhost", 80)),
        (":80", socket.AF_INET, ("", 80)),
        ("*:80", socket.AF_INET, ("", 80)),
        ("[::1]:80", socket.AF_INET6, ("::1", 80)),
        ("80", socket.AF_INET6, ("", 80)),
        (80, socket.AF_INET6, ("", 80)),
        (0, socket.AF_INET6, ("", 0)),
    ],
)
def test_address_forms(address, family, parsed):
    assert server.parse_address(address) == (family, parsed)
    made = StreamServer(address, echo)
    assert made.address == parsed and made.family == family and made.closed and not made.started


@pytest.mark.parametrize(
    ("address", "error"), [(None, TypeError), (1.5, TypeError), ("localhost", ValueError), ("host:http", ValueError)]
)
def test_addresses_that_are_none(address, error):
    with pytest.raises(error):
        StreamServer(address, echo)


@pytest.mark.parametrize("address", [LOCAL, "127.0.0.1:0", ":0", "*:0", "localhost:0", 0, "0", ("", 0), ("::1", 0)])
def test_echo_at(address):
    made = StreamServer(address, echo)
    with running(made):
        assert made.server_port and made.started and not made.closed
        assert made.server_host == made.socket.getsockname()[0]
        assert answer(made) == b"hello"
    assert made.closed and not made.started


def test_a_port_alone_serves_both_families():
    with running(StreamServer(0, echo)) as made:
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, made.server_port), timeout=PATIENCE) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"


def test_unix_socket(tmp_path):
    path = str(tmp_path / "socket")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    with running(StreamServer(listener, echo)) as made:
        assert made.address == path and made.server_host is None and made.server_port is None
        assert answer(made) == b"hello"
    assert listener.fileno() == -1


def test_a_listener_made_by_the_stdlib_and_one_of_ours():
    for make in (stdlib_socket.create_server, socket.create_server):
        listener = make(LOCAL)
        with running(StreamServer(listener, echo)) as made:
            assert made.address == listener.getsockname() and answer(made) == b"hello"
        assert listener.fileno() == -1


def test_an_address_in_use():
    with running(StreamServer(LOCAL, echo)) as made:
        other = StreamServer(made.address, echo)
        with pytest.raises(OSError, match=str(made.server_port)) as caught:
            other.start()
        assert caught.value.errno == errno.EADDRINUSE
        assert other.closed and not other.started
        assert answer(made) == b"hello"


def test_the_same_port_again_at_once():
    with running(StreamServer(LOCAL, echo)) as made:
        address = made.address
        with connect(made) as sock:
            made.close()
            sock.sendall(b"x")  # running handlers go on, and the connection stays in use
            assert sock.recv(1) == b"x"
            with StreamServer(address, echo) as again:
                again.start()
                assert answer(again) == b"hello"


@pytest.mark.parametrize("kind", [StreamServer, DatagramServer])
def test_a_port_is_shared_if_asked_for(kind):
    class Alone(kind):
        reuse_addr = None  # which would do for datagrams

    class Shared(Alone):
        reuse_port = True

    def handle(*args):
        pass

    with Alone(LOCAL, handle) as alone:
        alone.start()
        with pytest.raises(OSError, match="in use"):
            Shared(alone.address, handle).start()
    with Shared(LOCAL, handle) as one:
        one.start()
        with Shared(one.address, handle) as other:
            other.start()
            assert one.address == other.address


def test_arguments_that_make_no_server():
    with pytest.raises(TypeError, match="handle"):
        StreamServer(LOCAL)
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams, pytest.raises(TypeError, match="datagrams"):
        StreamServer(datagrams, echo)
    with socket.create_server(LOCAL) as listener, pytest.raises(TypeError, match="backlog"):
        StreamServer(listener, echo, backlog=5)

    class Greedy(StreamServer):
        max_accept = 0

    with pytest.raises(ValueError, match="max_accept"):
        Greedy(LOCAL, echo)


def test_repr_tells_the_address_and_whether_it_is_closed():
    made = StreamServer(LOCAL, echo)
    assert "closed" in repr(made) and "127.0.0.1" in repr(made)
    with running(made):
        assert f"fileno={made.socket.fileno()}" in repr(made) and str(made.server_port) in repr(made)


# -------------------------------------------------------------------- handlers


def test_handle_as_a_method():
    class Mine(StreamServer):
        def handle(self, sock, address):
            sock.sendall(repr(address).encode())

    with running(Mine(LOCAL)) as made, connect(made) as sock:
        assert read_all(sock) == repr(sock.getsockname()).encode()


class Spawned:
    """A callable given as `spawn`."""

    def __init__(self):
        self.calls = 0

    def __call__(self, function, *args):
        self.calls += 1
        weald.spawn_raw(function, *args)


SPAWNS = [lambda: "default", lambda: "raw", lambda: 5, lambda: Pool(5), Pool, Spawned]


@pytest.mark.parametrize("spawn", SPAWNS)
def test_each_way_to_run_handlers(spawn):
    held, way = Held(), spawn()
    with running(StreamServer(LOCAL, held, spawn=way)) as made:
        socks = [connect(made) for _ in range(4)]
        wait_until(lambda: held.inside == 4)
        held.go.set()
        assert [read_all(sock) for sock in socks] == [b"done"] * 4  # closed when the handler ends
        for sock in socks:
            sock.close()
    assert held.ended == 4 and not held.killed
    if isinstance(way, Spawned):
        assert way.calls == 4


def test_without_spawn_the_accepting_greenlet_handles_one_after_the_other():
    held = Held()
    with running(StreamServer(LOCAL, held, spawn=None)) as made:
        socks = [connect(made) for _ in range(3)]
        wait_until(lambda: held.inside)
        held.go.set()
        assert [read_all(sock) for sock in socks] == [b"done"] * 3
        for sock in socks:
            sock.close()
    assert held.most == 1


@pytest.mark.parametrize("spawn", ["default", "raw", 2, None])
def test_a_handler_that_fails_closes_its_connection_and_nothing_else(spawn):
    def handle(sock, address):
        if sock.recv(1) == b"!":
            raise ValueError("handler")
        sock.sendall(b"fine")

    with recorded_errors() as errors:
        made = StreamServer(LOCAL, handle, spawn=spawn)
        made.start()
        for data, expected in ((b"!", b""), (b"x", b"fine"), (b"!", b""), (b"x", b"fine")):
            with connect(made) as sock:
                sock.sendall(data)
                assert read_all(sock) == expected
        made.stop()
    assert [call[1] for call in errors] == [ValueError] * 2


def test_a_spawn_that_fails_closes_the_connection_and_the_server_goes_on():
    class Failing:
        failures = 2

        def __call__(self, function, *args):
            if self.failures:
                self.failures -= 1
                raise KeyError("spawn")
            return weald.spawn(function, *args)

    with recorded_errors() as errors:
        made = StreamServer(LOCAL, echo, spawn=Failing())
        made.start()
        for _ in range(2):
            with connect(made) as sock:
                assert read_all(sock) == b""
        assert answer(made) == b"hello"
        made.stop()
    assert [call[1] for call in errors] == [KeyError] * 2


def test_a_pool_limits_how_many_are_handled_at_a_time():
    held = Held()
    with running(StreamServer(LOCAL, held, spawn=2)) as made:
        socks = [connect(made) for _ in range(6)]
        wait_until(lambda: held.inside == 2)
        settle()
        assert held.inside == 2 and made.full()
        held.go.set()
        assert [read_all(sock) for sock in socks] == [b"done"] * 6
        for sock in socks:
            sock.close()
    assert held.most == 2


def test_while_the_pool_is_full_others_on_the_listener_accept():
    held, mine = Held(), []
    with socket.create_server(LOCAL) as listener:
        with running(StreamServer(listener.dup(), held, spawn=1)) as made:
            first = connect(made)
            wait_until(lambda: held.inside == 1)
            second = connect(made)
            listener.settimeout(PATIENCE)
            mine.append(listener.accept()[0])
            held.go.set()
            assert read_all(first) == b"done"
            for sock in (first, second, *mine):
                sock.close()


def test_max_accept_lets_others_run_in_between():
    """Many new connections do not delay the existing ones."""

    class Fair(StreamServer):
        max_accept = 3

    order = []

    class Watching(Fair):
        def do_handle(self, *args):
            order.append("accept")
            super().do_handle(*args)

    made = Watching(LOCAL, lambda sock, address: order.append("handle"))
    made.init_socket()
    socks = [connect(made) for _ in range(9)]
    with running(made):
        wait_until(lambda: order.count("handle") == 9)
    assert order == (["accept"] * 3 + ["handle"] * 3) * 3
    for sock in socks:
        sock.close()


def test_a_thousand_connections():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    count = 1000

    def client(made, number):
        with connect(made) as sock:
            for round in range(3):
                data = b"%d %d" % (number, round)
                sock.sendall(data)
                assert sock.recv(100) == data

    try:
        with running(StreamServer(LOCAL, echo, backlog=1024)) as made:
            clients = [weald.spawn(client, made, number) for number in range(count)]
            done = weald.joinall(clients, timeout=PATIENCE, raise_error=True)
            assert len(done) == count
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -------------------------------------------------------------------- errors of accept


def failing_server(errors, **attributes):
    """An echo server whose accept fails with `errors`, one after the other, and then works."""

    class Failing(StreamServer):
        def do_read(self):
            if errors:
                raise errors.pop(0)
            return super().do_read()

    for name, value in attributes.items():
        setattr(Failing, name, value)
    return Failing(LOCAL, echo)


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN, errno.EPERM])
def test_a_connection_lost_before_it_was_accepted_is_passed_over(number):
    with running(failing_server([OSError(number, "x")] * 5)) as made:
        assert answer(made) == b"hello"


def test_failures_without_end_starve_nobody():
    errors = [OSError(errno.ECONNABORTED, "x") for _ in range(10_000)]
    made = failing_server(errors)
    made.start()
    for _ in range(10):
        weald.sleep(0)
    assert errors
    made.stop()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_out_of_resources_is_reported_and_tried_again_after_a_growing_pause(number):
    with recorded_errors() as errors:
        made = failing_server([OSError(number, "x")] * 4, min_delay=0.001, max_delay=0.003)
        made.start()
        wait_until(lambda: len(errors) == 4)
        assert made.delay == 0.003
        assert answer(made) == b"hello" and made.delay == 0.001
        made.stop()
    assert [call[2].errno for call in errors] == [number] * 4


def test_emfile_does_not_end_the_server():
    """With the descriptors really used up."""
    code = """
    import sys, weald
    from weald import socket
    from weald.server import StreamServer

    errors = []
    weald.get_hub().handle_error = lambda *args: errors.append(args[2])
    server = StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(b"hello"))
    server.start()
    clients = [socket.socket() for _ in range(3)]
    for client in clients:
        client.settimeout(100)
    weald.sleep(0)
    hoard = use_up_descriptors()
    for client in clients:
        client.connect(server.address)
    while not errors:
        weald.sleep(0.01)
    ticks = 0
    while ticks < 3:  # the loop lives
        weald.sleep(0.01)
        ticks += 1
    for fd in hoard:
        os.close(fd)
    print([client.recv(100) for client in clients])
    print(sorted({error.errno for error in errors}), server.started)
    """
    out = python(USE_UP_DESCRIPTORS + textwrap.dedent(code))
    assert out == f"{[b'hello'] * 3}\n[{errno.EMFILE}] True\n"


@pytest.mark.parametrize("number", [errno.EBADF, errno.EINVAL, errno.ENOTSOCK])
def test_a_listener_that_is_gone_ends_the_server(number, capsys):
    with recorded_errors() as errors, Timeout(PATIENCE):
        made = failing_server([OSError(number, "gone")])
        made.serve_forever()
    assert made.closed and not made.started
    assert [call[2].errno for call in errors] == [number] and "gone" in capsys.readouterr().err


def test_a_failure_of_another_kind_does_not_end_the_server():
    with recorded_errors() as errors:
        made = failing_server([ValueError("x")])  # type: ignore[list-item]
        made.start()
        assert answer(made) == b"hello"
        made.stop()
    assert [call[1] for call in errors] == [ValueError]


# -------------------------------------------------------------------- stopping


def test_stop_lets_connections_finish_in_time():
    held = Held()
    with running(StreamServer(LOCAL, held, spawn=5)) as made:
        with connect(made) as sock:
            wait_until(lambda: held.inside)
            stopping = weald.spawn(made.stop, timeout=PATIENCE)
            settle()
            assert made.closed and not stopping.ready()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(made.address)
            held.go.set()
            assert read_all(sock) == b"done"
            stopping.get(timeout=PATIENCE)
    assert held.ended == 1 and not held.killed


def test_stop_kills_what_takes_longer():
    held = Held()
    with running(StreamServer(LOCAL, held, spawn=Pool())) as made:
        with connect(made) as sock:
            wait_until(lambda: held.inside)
            made.stop(timeout=0.01)
            assert held.killed == 1 and read_all(sock) == b""


def test_stop_without_a_timeout_gives_stop_timeout_seconds():
    class Impatient(StreamServer):
        stop_timeout = 0.01

    held = Held()
    with running(Impatient(LOCAL, held, spawn=5)) as made, connect(made) as sock:
        wait_until(lambda: held.inside)
        made.stop()
        assert held.killed == 1 and read_all(sock) == b""


@pytest.mark.parametrize("spawn", ["default", "raw"])
def test_handlers_outside_a_pool_go_on_after_stop(spawn):
    held = Held()
    with running(StreamServer(LOCAL, held, spawn=spawn)) as made, connect(made) as sock:
        wait_until(lambda: held.inside)
        made.stop()
        assert held.inside == 1
        held.go.set()
        assert read_all(sock) == b"done"


def test_what_was_accepted_begins_before_the_listener_is_closed():
    """gunicorn's handlers first call the listener's getsockname()."""
    names = []

    def handle(sock, address):
        names.append(listener.getsockname())
        sock.sendall(b"done")

    listener = socket.socket()
    listener.bind(LOCAL)
    listener.listen()
    running = StreamServer(listener, handle, spawn=Pool(10))
    original = running.do_handle

    def do_handle(*args):
        closing.append(weald.spawn(running.close))  # runs before the handler
        original(*args)

    closing = []
    running.do_handle = do_handle  # type: ignore[method-assign]
    running.start()
    address = listener.getsockname()
    with socket.create_connection(address) as sock:
        assert sock.recv(100) == b"done"
    weald.joinall(closing, timeout=PATIENCE)
    assert names == [address] and running.closed


def test_stopping_twice_and_what_never_started():
    made = StreamServer(LOCAL, echo)
    made.stop()
    made.start()
    made.stop()
    made.stop()
    made.close()
    assert made.closed
    made.start()  # anew, at the port it had
    assert answer(made) == b"hello"
    made.stop()


def test_a_server_is_a_context_manager():
    with StreamServer(LOCAL, echo) as made:
        made.start()
        assert answer(made) == b"hello"
    assert made.closed


def test_accepting_can_pause():
    with running(StreamServer(LOCAL, echo)) as made:
        made.stop_accepting()
        with connect(made) as sock:
            sock.sendall(b"x")
            settle()
            sock.settimeout(0)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            made.start_accepting()
            sock.settimeout(PATIENCE)
            assert sock.recv(1) == b"x"


def test_serve_forever_until_stopped():
    made = StreamServer(LOCAL, echo)
    serving = weald.spawn(made.serve_forever)
    wait_until(lambda: made.started)
    assert answer(made) == b"hello" and not serving.ready()
    made.stop()
    serving.get(timeout=PATIENCE)
    assert made.closed


def test_serve_forever_killed_stops_the_server():
    held = Held()
    made = StreamServer(LOCAL, held, spawn=5)
    serving = weald.spawn(made.serve_forever, stop_timeout=0)
    wait_until(lambda: made.started)
    with connect(made) as sock:
        wait_until(lambda: held.inside)
        serving.kill()
        assert made.closed and held.killed == 1 and read_all(sock) == b""


def test_a_handler_may_stop_its_server():
    def handle(sock, address):
        made.stop(timeout=0)

    made = StreamServer(LOCAL, handle)
    serving = weald.spawn(made.serve_forever)
    wait_until(lambda: made.started)
    with connect(made) as sock:
        assert read_all(sock) == b""
    serving.get(timeout=PATIENCE)


def test_no_descriptor_is_left():
    answer_once()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(5):
        answer_once()
    assert set(os.listdir("/proc/self/fd")) == before


def answer_once():
    with running(StreamServer(LOCAL, echo, spawn=3)) as made:
        assert answer(made) == b"hello"


def test_a_forked_worker_shares_the_listener():
    """As pre-forking servers do it: bind, fork, serve in each process."""
    code = """
    import os, signal, weald
    from weald import socket
    from weald.server import StreamServer

    server = StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(b"%d" % os.getpid()), spawn=1)
    server.init_socket()
    children = []
    for _ in range(2):
        pid = os.fork()
        if not pid:
            server.serve_forever()
            os._exit(0)
        children.append(pid)
    seen = set()
    for _ in range(10):
        with socket.create_connection(server.address, timeout=100) as sock:
            seen.add(int(sock.recv(100)))
    assert seen and seen <= set(children), (seen, children)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    print("served")
    """
    assert python(code) == "served\n"


# -------------------------------------------------------------------- TLS


def tls_client(made, certificate):
    context = ssl.cooperative(certificate.client_context())
    return context.wrap_socket(connect(made), server_hostname="localhost")


def test_tls_from_a_context(certificate):
    context = certificate.server_context()
    with running(StreamServer(LOCAL, echo, ssl_context=context)) as made:
        assert made.ssl_enabled
        with tls_client(made, certificate) as sock:
            sock.sendall(b"x" * 100_000)
            got = b""
            while len(got) < 100_000:
                got += sock.recv(65536)
            assert got == b"x" * 100_000


def test_tls_from_files(certificate):
    with running(StreamServer(LOCAL, echo, certfile=certificate.cert, keyfile=certificate.key)) as made:
        with tls_client(made, certificate) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"hello"


def test_tls_with_a_real_client(certificate):
    """The stdlib's, in another process."""
    context = certificate.server_context()
    code = """
    import socket, ssl, sys
    context = ssl.create_default_context(cafile=sys.argv[2])
    with context.wrap_socket(socket.create_connection(("localhost", int(sys.argv[1]))),
                             server_hostname="localhost") as sock:
        sock.sendall(b"hello")
        print(sock.recv(100), sock.version())
    """
    with running(StreamServer(LOCAL, echo, ssl_context=context)) as made:
        child = subprocess.Popen(
            [sys.executable, "-c", "\n".join(line[4:] for line in code.splitlines()), str(made.server_port)]
            + [certificate.cert],
            stdout=subprocess.PIPE,
        )
        wait_until(lambda: child.poll() is not None)
        assert child.communicate()[0] == b"b'hello' TLSv1.3\n" and child.returncode == 0


def test_a_failed_handshake_is_reported_and_concerns_nobody_else(certificate):
    context = certificate.server_context()
    with recorded_errors() as errors:
        made = StreamServer(LOCAL, echo, ssl_context=context)
        made.start()
        with connect(made) as plain, connect(made) as silent:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with suppress(ConnectionResetError):
                read_all(plain)
            with tls_client(made, certificate) as sock:  # while another has not begun its handshake
                sock.sendall(b"hello")
                assert sock.recv(100) == b"hello"
            silent.close()
        wait_until(lambda: len(errors) == 2)
        made.stop()
    assert issubclass(errors[0][1], stdlib_ssl.SSLError) and issubclass(errors[1][1], OSError)


def test_tls_arguments_that_make_no_server(certificate):
    listener = ssl.cooperative(certificate.server_context()).wrap_socket(socket.create_server(LOCAL), server_side=True)
    with listener, pytest.raises(TypeError, match="plain"):
        StreamServer(listener, echo)


# -------------------------------------------------------------------- datagrams


def udp_client(made):
    sock = socket.socket(made.family, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    sock.connect(("::1" if made.family == socket.AF_INET6 else "127.0.0.1", made.server_port))
    return sock


class Mirror(DatagramServer):
    def handle(self, data, address):
        self.sendto(data[::-1], address)


@pytest.mark.parametrize("address", [LOCAL, ":0", 0, ("::1", 0)])
@pytest.mark.parametrize("spawn", ["default", "raw", 3, None])
def test_datagrams(address, spawn):
    with running(Mirror(address, spawn=spawn)) as made, udp_client(made) as sock:
        for data in (b"abc", b"", bytes(range(256)) * 200):
            sock.send(data)
            assert sock.recv(65536) == data[::-1]


def test_datagrams_on_a_unix_socket(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "server"))
    with running(Mirror(listener)) as made, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "client"))
        sock.connect(str(tmp_path / "server"))
        sock.send(b"abc")
        sock.settimeout(PATIENCE)
        assert sock.recv(10) == b"cba"
        assert made.server_port is None


@pytest.mark.parametrize("module", [stdlib_socket, socket])
def test_answers_wait_for_a_client_that_is_slow(module, tmp_path):
    here, there = str(tmp_path / "server"), str(tmp_path / "client")

    def answer_often(data, address):
        for _ in range(1000):
            made.sendto(b"x", address)

    with module.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(here)
        made = DatagramServer(listener, answer_often)
        with running(made), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.bind(there)
            client.settimeout(PATIENCE)
            client.sendto(b"go", here)
            for _ in range(1000):
                assert client.recv(10) == b"x"


def test_datagrams_wait_while_the_pool_is_full():
    held = Held()
    with running(DatagramServer(LOCAL, held, spawn=1)) as made, udp_client(made) as sock:
        for _ in range(3):
            sock.send(b"x")
        wait_until(lambda: held.inside == 1)
        settle()
        assert held.inside == 1
        held.go.set()
        wait_until(lambda: held.ended == 3)
    assert held.most == 1


def test_a_failing_handler_does_not_end_a_datagram_server():
    def handle(data, address):
        if data == b"!":
            raise ValueError("handler")
        made.sendto(data, address)

    with recorded_errors() as errors:
        made = DatagramServer(LOCAL, handle)
        made.start()
        with udp_client(made) as sock:
            sock.send(b"!")
            sock.send(b"x")
            assert sock.recv(10) == b"x"
        made.stop()
    assert [call[1] for call in errors] == [ValueError]
    assert made.closed


def test_localhost_is_bound_without_a_look_up(monkeypatch):
    """One turn after `serve_forever` was spawned, the server listens."""

    def no_look_up(*args):
        raise AssertionError("the resolver was asked")

    monkeypatch.setattr("weald.resolver.current", no_look_up)
    server = StreamServer(("localhost", 0), lambda *args: None)
    server.start()
    assert server.server_host == "127.0.0.1"
    server.stop()


# -------------------------------------------------------------------- others' kills

KILL_ALL = """
    import gc, sys, weald, weald.socket
    def kill_all(kind=weald.Greenlet):
        "As tests of programs do in the end."
        me = weald.getcurrent()
        weald.killall([g for g in gc.get_objects() if isinstance(g, kind) and g not in (me, weald.get_hub())])
"""


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("kind", ["StreamServer", "WSGIServer"])
def test_killing_all_greenlets_leaves_a_server_alone(kind, begun):
    python(
        KILL_ALL
        + f"""
    from weald.server import StreamServer
    from weald.pywsgi import WSGIServer
    if {kind!r} == "StreamServer":
        made = StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(b"HTTP/1.1"))
    else:
        made = WSGIServer(("127.0.0.1", 0), lambda environ, start_response: 1 / 0, log=None, error_log=None)
    made.start()
    if {begun}:
        weald.sleep(0)
    for _ in range(3):
        kill_all()
        with weald.socket.create_connection(made.address) as sock:
            sock.sendall(b"bad\\r\\n\\r\\n")
            assert sock.recv(8) == b"HTTP/1.1"
    made.stop()
    address = made.address
    try:
        weald.socket.create_connection(("127.0.0.1", made.server_port))
    except ConnectionRefusedError:
        print("stopped", file=sys.stderr)
    """,
        stderr="stopped\n",
    )


def test_killing_all_greenlets_leaves_those_alone_who_wait_for_a_child():
    python(
        KILL_ALL
        + """
    from weald import subprocess
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    assert not child.ready()
    weald.sleep(0)
    kill_all()
    weald.sleep(0)
    assert not child.ready()
    child.stdin.close()
    assert child.result.get() == 0
    """
    )


def test_what_runs_handlers_can_be_changed():
    server = StreamServer(("127.0.0.1", 0), lambda sock, address: None, spawn=1)
    assert server.pool.size == 1
    for spawn in (None, "default", "raw", weald.spawn):
        server.set_spawn(spawn)
        assert server.pool is None and not server.full()
    server.set_spawn(3)
    assert server.pool.size == 3
