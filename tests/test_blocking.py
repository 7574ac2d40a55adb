"""Blocking sockets, pipes and their files: each program prints the same patched and unpatched."""

import textwrap

import pytest
from helpers import python, run_patched

PRELUDE = """
import os, socket, struct, sys, threading

def pair(kind=socket.SOCK_STREAM, tcp=False):
    if not tcp:
        return socket.socketpair(socket.AF_UNIX, kind)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]

def background(function, *args):
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread

def drain(sock, into):
    while chunk := sock.recv(65536):
        into.append(chunk)

def until(predicate):
    import time
    for _ in range(100_000):
        if predicate():
            return
        time.sleep(0.001)
    raise AssertionError("what the test waits for did not come about")

BIG = bytes(range(256)) * 4096 * 4  # 4 MiB
"""

SENDS = {
    "send": "a.send(BIG)",
    "send of a view of words": "a.send(memoryview(BIG).cast('I'))",
    "sendmsg": "a.sendmsg([BIG[:1000], bytearray(BIG[1000:2_000_000]), memoryview(BIG)[2_000_000:].cast('I')])",
    "MSG_MORE": "a.send(BIG, socket.MSG_MORE)",
}


def same(code):
    code = PRELUDE + textwrap.dedent(code)
    plain = python(code)
    assert run_patched(code) == plain
    return plain


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("call", SENDS.values(), ids=SENDS)
def test_a_blocking_send_sends_all(call, tcp):
    out = same(
        f"""
        a, b = pair(tcp={tcp})
        got = []
        reader = background(drain, b, got)
        print({call})
        a.close()
        reader.join()
        print(b"".join(got) == BIG)
        """
    )
    assert out == f"{4 << 20}\nTrue\n"


def test_sendto_on_a_connected_stream():
    out = same(
        """
        a, b = pair(tcp=True)
        got = []
        reader = background(drain, b, got)
        print(a.sendto(BIG, b.getsockname()), a.sendto(BIG, 0, b.getsockname()))
        a.close()
        reader.join()
        print(b"".join(got) == BIG * 2)
        """
    )
    assert out == f"{4 << 20} {4 << 20}\nTrue\n"


@pytest.mark.parametrize("call", ["a.send(BIG)", "a.sendmsg([BIG[:9], BIG])"])
@pytest.mark.parametrize("limit", ["a.settimeout(20)", "a.setblocking(False)"])
def test_with_a_timeout_it_sends_what_there_is_room_for(call, limit):
    out = same(
        f"""
        a, b = pair()
        {limit}
        print(0 < {call} < len(BIG))
        """
    )
    assert out == "True\n"


def test_a_send_that_does_not_wait():
    assert same("a, b = pair(); print(0 < a.send(BIG, socket.MSG_DONTWAIT) < len(BIG))") == "True\n"


@pytest.mark.parametrize("call", ["a.send(BIG)", "a.sendmsg([BIG[:10], BIG[10:]])"])
def test_an_error_after_some_bytes_is_the_next_calls(call):
    out = same(
        f"""
        a, b = pair()
        def leave():
            b.recv(100_000, socket.MSG_WAITALL)
            b.close()
        background(leave)
        print(0 < {call} < len(BIG))
        try:
            a.send(b"x")
        except OSError as error:
            print(type(error).__name__)
        """
    )
    assert out == "True\nBrokenPipeError\n"


RECEIVES = {
    "recv": "b.recv(50, flags)",
    "recv_into": "(b.recv_into(room, 50, flags), bytes(room))",
    "recv_into all": "(b.recv_into(memoryview(room)[:50], 0, flags), bytes(room))",
    "recvfrom": "b.recvfrom(50, flags)[0]",
    "recvfrom_into": "(b.recvfrom_into(room, 50, flags)[0], bytes(room))",
    "recvmsg": "b.recvmsg(50, 0, flags)[:2]",
    "recvmsg_into": "(b.recvmsg_into([memoryview(room)[:30], memoryview(room)[30:50]], 0, flags)[:2], bytes(room))",
}


@pytest.mark.parametrize("tcp", [True, False], ids=["tcp", "unix"])
@pytest.mark.parametrize("call", RECEIVES.values(), ids=RECEIVES)
@pytest.mark.parametrize("end", ["pass", "a.close()"], ids=["open", "closed"])
def test_msg_waitall_waits_for_all(call, tcp, end):
    same(
        f"""
        a, b = pair(tcp={tcp})
        flags, room = socket.MSG_WAITALL, bytearray(60)
        parts = [b"0123456789"] * ({"3" if "close" in end else "6"})
        def write():
            for part in parts:
                a.sendall(part)
                until(lambda: not struct.unpack("i", __import__("fcntl").ioctl(b, 0x541B, bytes(4)))[0])  # FIONREAD
            {end}
        background(write)
        print({call})
        """
    )


def test_msg_waitall_with_peek():
    out = same(
        """
        a, b = pair(tcp=True)
        def write():
            for _ in range(5):
                a.sendall(b"0123456789")
        background(write)
        print(b.recv(50, socket.MSG_WAITALL | socket.MSG_PEEK), b.recv(50, socket.MSG_WAITALL))
        a.sendall(b"end")
        a.close()
        print(b.recv(50, socket.MSG_WAITALL | socket.MSG_PEEK), b.recv(50))
        """
    )
    assert out == f"{b'0123456789' * 5} {b'0123456789' * 5}\nb'end' b'end'\n"


def test_msg_waitall_takes_one_datagram():
    out = same(
        """
        for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            a, b = pair(kind)
            a.send(b"one")
            a.send(b"two")
            print(b.recv(50, socket.MSG_WAITALL), b.recvmsg(50, 0, socket.MSG_WAITALL)[0])
        """
    )
    assert out == "b'one' b'two'\n" * 2


def test_msg_waitall_with_a_timeout_takes_what_there_is():
    assert same("a, b = pair(); b.settimeout(20); a.send(b'x'); print(b.recv(9, socket.MSG_WAITALL))") == "b'x'\n"


def test_descriptors_come_with_their_message():
    out = same(
        """
        a, b = pair()
        def write():
            socket.send_fds(a, [b"12345"], [a.fileno()])
            a.sendall(b"67890")
        background(write)
        message, fds, flags, address = socket.recv_fds(b, 10, 4, socket.MSG_WAITALL)
        print(len(message) in (5, 10), len(fds))
        """
    )
    assert out == "True 1\n"


# ------------------------------------------------------------------ files that threads share


@pytest.mark.parametrize("mode", ["rb", "rwb", "r", "rw"])
def test_two_threads_read_lines_of_one_file(mode):
    """None is lost; as text none may be lost here, though the standard library's text files may lose some."""
    out = run_patched(
        PRELUDE
        + textwrap.dedent(
            f"""
            a, b = pair(tcp=True)
            file = b.makefile({mode!r})
            got = []
            def read():
                while line := file.readline():
                    got.append(int(line))
            readers = [background(read) for _ in range(3)]
            for number in range(3000):
                a.sendall(b"%d\\n" % number)
                if not number % 50:
                    until(lambda: len(got) > number)
            a.close()
            for reader in readers:
                reader.join()
            print(len(got), sorted(got) == list(range(3000)))
            """
        )
    )
    assert out == "3000 True\n"


@pytest.mark.parametrize("call", ["read(7)", "read1(7)", "readinto(bytearray(7))", "peek(1) and file.read(7)"])
@pytest.mark.parametrize("mode", ["rb", "rwb"])
def test_two_threads_read_blocks_of_one_file(call, mode):
    out = same(
        f"""
        a, b = pair(tcp=True)
        file = b.makefile({mode!r})
        got = []
        def read():
            while count := file.{call}:
                got.append(count if isinstance(count, int) else len(count))
        readers = [background(read) for _ in range(2)]
        for number in range(100):
            a.sendall(b"1234567" * 10)
            if not number % 10:
                until(lambda: sum(got) == 70 * (number + 1))
        a.close()
        for reader in readers:
            reader.join()
        print(sum(got))
        """
    )
    assert out == "7000\n"


@pytest.mark.parametrize("mode", ["wb", "rwb", "w", "rw"])
def test_two_threads_write_to_one_file(mode):
    text = "" if "b" in mode else ".decode()"
    out = same(
        f"""
        a, b = pair(tcp=True)
        file = b.makefile({mode!r})
        def write(what):
            for _ in range(20):
                file.write((what * 9999 + b"\\n"){text})
            file.flush()
        got = []
        reader = background(drain, a, got)
        writers = [background(write, what) for what in (b"a", b"b")]
        for writer in writers:
            writer.join()
        file.close()
        b.close()
        reader.join()
        got = b"".join(got)
        print(len(got), got.count(b"a"), got.count(b"b"), got.count(b"\\n"))
        """
    )
    assert out == "400000 199980 199980 40\n"


def test_one_thread_writes_while_another_reads_one_file():
    out = same(
        """
        for mode in ("rwb", "rw"):
            a, b = pair(tcp=True)
            file = b.makefile(mode)
            got = []
            reader = background(lambda: got.append(file.readline()))
            file.write(b"question" if "b" in mode else "question")
            file.flush()
            print(a.recv(20))
            a.sendall(b"answer\\n")
            reader.join()
            print(got)
        """
    )
    assert out == "b'question'\n[b'answer\\n']\nb'question'\n['answer\\n']\n"


def test_a_file_that_is_closed_while_another_thread_reads():
    out = same(
        """
        a, b = pair(tcp=True)
        file = b.makefile("rb")
        got = []
        reader = background(lambda: got.append(file.readline()))
        closer = background(file.close)
        a.sendall(b"line\\n")
        reader.join()
        closer.join()
        print(got, file.closed)
        """
    )
    assert out == "[b'line\\n'] True\n"


def test_a_greenlet_that_calls_itself_is_refused_as_ever():
    out = same(
        """
        a, b = pair()
        class Odd(bytearray):
            pass
        file = b.makefile("rb")
        class Raw(type(file.raw)):
            def readinto(self, room):
                return len(file.read(1))
        file.raw.__class__ = Raw
        try:
            file.readline()
        except RuntimeError as error:
            print(str(error)[:21])
        """
    )
    assert out == "reentrant call inside\n"


def test_a_reader_that_is_killed_leaves_the_file_to_others():
    out = run_patched(
        PRELUDE
        + textwrap.dedent(
            """
            import weald.testing
            a, b = pair()
            file = b.makefile("rb")
            first, second = weald.spawn(file.readline), weald.spawn(file.readline)
            weald.testing.blocked()
            first.kill()
            a.sendall(b"line\\n")
            print(second.get(timeout=100))
            """
        )
    )
    assert out == "b'line\\n'\n"
