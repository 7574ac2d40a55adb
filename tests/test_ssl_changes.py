"""TLS sockets that change while a greenlet waits on them, and peers that keep one busy: the same as unpatched."""

import textwrap

import pytest
from helpers import python, run_patched

PRELUDE = """
import os, socket, ssl, sys, threading, time

def pair():
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(CERT, KEY)
    client_context = ssl.create_default_context(cafile=CERT)
    one, other = socket.socketpair()
    made = []
    thread = threading.Thread(target=lambda: made.append(server_context.wrap_socket(other, server_side=True)))
    thread.start()
    client = client_context.wrap_socket(one, server_hostname="localhost")
    thread.join()
    return client, made[0]

def outcome(call, *args):
    try:
        got = call(*args)
    except OSError as error:
        return "an OSError"
    except BaseException as error:
        return repr(error)
    return got if isinstance(got, bytes) else "a number" if isinstance(got, int) else got

def background(call, *args):
    got = []
    thread = threading.Thread(target=lambda: got.append(outcome(call, *args)), daemon=True)
    thread.start()
    return thread, got

def settled(thread):
    # `thread` waits in a call: a greenlet does so once it has begun; of a native thread the system tells.
    if "weald" in sys.modules:
        time.sleep(0.001)
        return
    while thread.is_alive():
        with open(f"/proc/self/task/{thread.native_id}/syscall") as file:
            number = file.read().split()[0]
        if number not in ("running", "202", "98"):  # futex: it waits for the interpreter
            break
        time.sleep(0.001)
"""


def program(certificate, code):
    return f"CERT, KEY = {certificate.cert!r}, {certificate.key!r}\n" + PRELUDE + textwrap.dedent(code)


def same(certificate, code):
    code = program(certificate, code)
    plain = python(code)
    assert run_patched(code) == plain
    return plain


HOWS = ["SHUT_RD", "SHUT_WR", "SHUT_RDWR"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("call", ["recv(10)", "read(10)", "recv_into(bytearray(10))"])
@pytest.mark.parametrize("before", ["", "b.sendall(b'early'); a.recv(10)"], ids=["", "drained"])
def test_shutdown_while_another_reads(certificate, how, call, before):
    out = same(
        certificate,
        f"""
        a, b = pair()
        {before}
        thread, got = background(lambda: a.{call})
        settled(thread)
        a.shutdown(socket.{how})
        if {how!r} == "SHUT_WR":
            b.sendall(b"late")
        thread.join()
        print(got)
        """,
    )
    assert "ValueError" not in out


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("call", ["write(BIG)", "sendall(BIG)", "send(BIG)"])
@pytest.mark.parametrize("limit", [None, 30])
def test_shutdown_while_another_writes(certificate, how, call, limit):
    code = f"""
        BIG = bytes(4 << 20)
        a, b = pair()
        a.settimeout({limit})
        def write():
            while True:
                a.{call}
        thread, got = background(write)
        settled(thread)
        a.shutdown(socket.{how})
        b.close()
        thread.join()
        print(got)
        """
    assert run_patched(program(certificate, code)) == "['an OSError']\n"


def test_nothing_is_sent_in_plain_after_a_shutdown(certificate):
    """The standard library sends the rest of the data of `sendall` in plain text."""
    code = """
        secret = b"secret" * 500_000
        a, b = pair()
        thread, got = background(a.sendall, secret)
        settled(thread)
        a.shutdown(socket.SHUT_RD)
        raw = socket.socket(fileno=b.detach())
        seen = b""
        raw.settimeout(30)
        drain, _ = background(lambda: [None for _ in iter(lambda: raw.recv(1 << 16).count(b"secretsecret") or 1, 0)])
        while thread.is_alive():
            time.sleep(0.01)
        print(got)
        """
    assert run_patched(program(certificate, code)) in ("['an OSError']\n", "[None]\n")


def test_close_while_another_writes(certificate):
    code = """
        a, b = pair()
        def write():
            while True:
                a.sendall(bytes(1 << 20))
        threads = [background(write) for _ in range(3)]
        settled(threads[-1][0])
        a.close()
        for thread, got in threads:
            thread.join()
            print(got)
        """
    assert run_patched(program(certificate, code)) == "['an OSError']\n" * 3


@pytest.mark.parametrize("end", ["close()", "shutdown(socket.SHUT_RDWR)"])
def test_handshake_on_what_has_ended(certificate, end):
    code = f"""
        a, b = pair()
        a.{end}
        print(outcome(a.do_handshake))
        """
    assert run_patched(program(certificate, code)) == "an OSError\n"


def test_close_during_a_handshake(certificate):
    code = """
        one, other = socket.socketpair()
        context = ssl.create_default_context(cafile=CERT)
        client = context.wrap_socket(one, server_hostname="localhost", do_handshake_on_connect=False)
        thread, got = background(client.do_handshake)
        settled(thread)
        client.close()
        thread.join()
        print(got)
        """
    assert run_patched(program(certificate, code)) == "['an OSError']\n"


def test_the_timeout_of_a_read_is_for_all_of_it(certificate):
    """A record comes piece by piece, after a wait: the deadline does not start again (on the core's clock)."""
    code = """
        a, b = pair()
        b.sendall(b"early")
        a.recv(10)  # which leaves the socket drained
        raw = socket.socket(fileno=os.dup(b.fileno()))
        seen = []
        def read_on(sslobj, error, timeout, *args):
            seen.append((time.monotonic(), timeout))
            raise TimeoutError
        a._read_on = read_on  # called when OpenSSL wants more than has come
        a.settimeout(30)
        def read():
            seen.append(time.monotonic())
            return a.recv(10)
        thread, got = background(read)
        settled(thread)
        time.sleep(2)
        raw.send(b"\\x17")  # a record begins
        thread.join()
        begin, (again, rest) = seen
        print(got, rest < 30 and again + rest < begin + 31.9)  # anew, it would be two seconds later
        """
    assert run_patched(program(certificate, code)) == "['an OSError'] True\n"


@pytest.mark.parametrize("kind", ["tls", "plain", "udp", "pipe"])
def test_a_fast_peer_lets_others_run(certificate, tmp_path, kind):
    """It is a process of its own that never lets the reader wait; a second greenlet ends it."""
    code = f"""
        import subprocess, weald
        kind = {kind!r}
        peer = '''if True:
            import os, socket, ssl, sys
            kind, port, cert = sys.argv[1:]
            if kind == "pipe":
                while True:
                    os.write(1, bytes(1 << 16))
            s = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
            s.connect(("127.0.0.1", int(port)))
            if kind == "tls":
                s = ssl.create_default_context(cafile=cert).wrap_socket(s, server_hostname="localhost")
            while True:
                try:
                    s.send(bytes(1000 if kind == "udp" else 1 << 20))
                except ConnectionRefusedError:
                    sys.exit()
            '''
        listener = socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        listener.bind(("127.0.0.1", 0))
        kind == "udp" or listener.listen()
        child = subprocess.Popen(
            [sys.executable, "-c", peer, kind, str(listener.getsockname()[1]), CERT],
            stdout=subprocess.PIPE if kind == "pipe" else None, stderr=subprocess.DEVNULL,
        )
        if kind == "pipe":
            read = lambda: os.read(child.stdout.fileno(), 1 << 16)
        elif kind == "udp":
            read = lambda: listener.recvfrom(2000)
        else:
            sock, _ = listener.accept()
            if kind == "tls":
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERT, KEY)
                sock = context.wrap_socket(sock, server_side=True)
            read = lambda: sock.recv(1000)
        read()
        turns = 0
        def others():
            global turns
            while True:
                weald.sleep(0)
                turns += 1
        weald.spawn(others)
        begin = time.monotonic()
        while turns < 5 and time.monotonic() < begin + 60:
            read()
        print(turns >= 5)
        child.kill()
        """
    assert run_patched(program(certificate, code)) == "True\n"


# ---------------------------------------------------------------- what another's call leaves for one that waits
# With native threads the system decides which of them is faster.


def test_unwrap_while_another_reads(certificate):
    """The peer's answer may have come by then: the system has nothing more to report for the reader."""
    out = run_patched(
        program(
            certificate,
            """
            a, b = pair()
            thread, got = background(lambda: a.recv(10))
            settled(thread)
            background(b.unwrap)
            a.unwrap()
            thread.join(20)
            print(thread.is_alive(), got)
            """,
        )
    )
    assert out == "False ['an OSError']\n"


def test_two_readers_of_one_record(certificate):
    """One takes the begin of a record; the rest, which OpenSSL holds, is for the other, which waits."""
    out = run_patched(
        program(
            certificate,
            """
            a, b = pair()
            thread, got = background(lambda: a.recv(3))
            settled(thread)
            b.sendall(b"abcdef")
            first = a.recv(3)  # at once: the loop has not been asked since
            thread.join(20)
            print(thread.is_alive(), sorted([first, *got]))
            """,
        )
    )
    assert out == "False [b'abc', b'def']\n"


# ---------------------------------------------------------------- methods that a program overrides


def test_a_class_whose_calls_are_its_own(certificate):
    """Each method calls the same other methods, with the same arguments, as the standard library's."""
    same(
        certificate,
        """
        class Traced(ssl.SSLSocket):
            def read(self, len=1024, buffer=None):
                print("read", len, buffer is None)
                return super().read(len, buffer)

            def write(self, data):
                print("write", bytes(data))
                return super().write(data)

            def send(self, data, flags=0):
                print("send", bytes(data))
                return super().send(bytes(data)[:2], flags)

        ssl.SSLContext.sslsocket_class = Traced
        a, b = pair()
        a.send(b"12")
        a.sendall(b"345")
        a.sendall(bytearray(b"67"))
        a.sendall(b"")
        a.write(b"89")
        a.makefile("wb", 0).write(b"0")
        got = b""
        while len(got) < 10:
            got += b.recv(100)
        print(got)
        b.sendall(b"line\\n")
        print(a.makefile("rb").readline())
        """,
    )


def test_a_method_that_a_program_replaces(certificate):
    """Tracers do this."""
    same(
        certificate,
        """
        a, b = pair()
        sent = []
        send = ssl.SSLSocket.send
        for _ in range(2):
            a.sendall(b"before")
            print(b.recv(10), sent)
            ssl.SSLSocket.send = lambda self, *args: sent.append(bytes(args[0])) or send(self, *args)
            a.sendall(b"abc")
            print(b.recv(10), sent)
            ssl.SSLSocket.send = send
        """,
    )
