"""weald.os: children are waited for, descriptors read and written, while others run."""

import _socket
import os as stdlib
import sys
from _socket import AF_UNIX, socketpair
from contextlib import suppress

import pytest
from helpers import PATIENCE, Thread, python, recorded_errors, run_patched, settle

import weald
from weald import os


def child(code="pass"):
    """Start an interpreter; return its process id."""
    return stdlib.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], dict(stdlib.environ))


def waiting_child():
    """Start a child that ends with status 7 once a descriptor is closed; return its process id and the descriptor."""
    r, w = stdlib.pipe()
    stdlib.set_inheritable(r, True)
    pid = child(f"import os, sys; os.read({r}, 1); sys.exit(7)")
    stdlib.close(r)
    return pid, w


@pytest.fixture
def pipe():
    r, w = stdlib.pipe()
    yield r, w
    for fd in (r, w):
        try:
            stdlib.close(fd)
        except OSError:
            pass


def test_names():
    assert os.getpid is stdlib.getpid
    assert os.fork is stdlib.fork
    for name in os.__all__:
        assert hasattr(os, name)


@pytest.mark.parametrize("which", ["pid", "any", "wait", "group"])
def test_others_run_while_a_child_does(which):
    pid, gate = waiting_child()
    call, args = {
        "pid": (os.waitpid, (pid, 0)),
        "any": (os.waitpid, (-1, 0)),
        "wait": (os.wait, ()),
        "group": (os.waitpid, (0, 0)),
    }[which]
    waiter = weald.spawn(call, *args)
    settle()
    assert not waiter.ready()
    stdlib.close(gate)
    found, status = waiter.get()
    assert (found, stdlib.waitstatus_to_exitcode(status)) == (pid, 7)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)


def test_each_waiter_gets_its_child():
    children = [waiting_child() for _ in range(5)]
    waiters = [weald.spawn(os.waitpid, pid, 0) for pid, _ in children]
    settle()
    for _, gate in reversed(children):
        stdlib.close(gate)
    weald.joinall(waiters)
    assert [waiter.get()[0] for waiter in waiters] == [pid for pid, _ in children]


def test_wnohang():
    pid, gate = waiting_child()
    assert os.waitpid(pid, stdlib.WNOHANG) == (0, 0)
    stdlib.close(gate)
    assert os.waitpid(pid, 0)[0] == pid


def test_a_stopped_child():
    pid, gate = waiting_child()
    stopper = weald.spawn(stdlib.kill, pid, 19)  # SIGSTOP
    found, status = os.waitpid(pid, stdlib.WUNTRACED)
    assert found == pid and stdlib.WIFSTOPPED(status)
    stopper.get()
    stdlib.kill(pid, 18)  # SIGCONT
    stdlib.close(gate)
    assert stdlib.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_waiter_can_be_killed_and_leaves_the_child_and_no_descriptor():
    pid, gate = waiting_child()
    before = len(stdlib.listdir("/proc/self/fd"))
    waiter = weald.spawn(os.waitpid, pid, 0)
    settle()
    waiter.kill()
    assert len(stdlib.listdir("/proc/self/fd")) == before
    with pytest.raises(weald.Timeout), weald.Timeout(0.01):
        os.waitpid(pid, 0)
    stdlib.close(gate)
    assert stdlib.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_no_such_child():
    with pytest.raises(ChildProcessError):
        os.waitpid(1, 0)


def test_without_pidfd(monkeypatch):
    def refuse(pid, flags=0):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(stdlib, "pidfd_open", refuse, raising=False)
    pid, gate = waiting_child()
    waiter = weald.spawn(os.waitpid, pid, 0)
    settle()
    assert not waiter.ready()
    stdlib.close(gate)
    assert waiter.get()[0] == pid


def test_fork():
    """A child starts with a fresh loop: it can sleep, and its parent's greenlets and timers stay in the parent."""
    out = python(
        """
        import os, weald, weald.os
        ran = weald.spawn_later(0.05, print, "once", flush=True)
        pid = os.fork()
        if not pid:
            weald.sleep(0.1)
            weald.joinall([weald.spawn(weald.sleep, 0.01)])
            os._exit(9)
        print(os.waitstatus_to_exitcode(weald.os.waitpid(pid, 0)[1]))
        ran.join()
        """
    )
    assert sorted(out.splitlines()) == ["9", "once"]


# ---------------------------------------------------------------- descriptors


def test_make_nonblocking(pipe):
    assert os.make_nonblocking(pipe[0]) is True
    assert os.make_nonblocking(pipe[0]) is False
    assert not stdlib.get_blocking(pipe[0])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.make_nonblocking(10**6)


def test_nb_read_and_write(pipe):
    r, w = pipe
    for fd in pipe:
        os.make_nonblocking(fd)
    reader = weald.spawn(os.nb_read, r, 100)
    settle()
    assert not reader.ready()
    assert os.nb_write(w, b"data") == 4
    assert reader.get() == b"data"
    total = 1_000_000

    def write():
        sent = 0
        while sent < total:
            sent += os.nb_write(w, bytes(total - sent))
        stdlib.close(w)

    writer = weald.spawn(write)
    received = 0
    while data := os.nb_read(r, 65536):
        received += len(data)
    assert received == total
    writer.get()


def test_tp_read_and_write(pipe):
    """In native threads, so that the descriptors may block."""
    r, w = pipe
    reader = weald.spawn(os.tp_read, r, 100)
    settle()
    assert not reader.ready()
    assert os.tp_write(w, b"data") == 4
    assert reader.get() == b"data"
    with recorded_errors() as errors, pytest.raises(OSError, match="Bad file descriptor"):
        os.tp_read(10**6, 1)
    assert errors == []


def test_bad_descriptor():
    calls = [(os.nb_read, 10**6, 1), (os.nb_write, 10**6, b"x")]
    for call, *args in calls:
        with pytest.raises(OSError, match="Bad file descriptor"):
            call(*args)


def test_read_and_write_of_blocking_pipes(pipe):
    r, w = pipe
    reader = weald.spawn(os.read, r, 100)
    settle()
    assert not reader.ready()
    assert os.write(w, b"data") == 4
    assert reader.get() == b"data"
    total = 1_000_000
    writer = weald.spawn(os.write, w, memoryview(bytes(total // 4)).cast("i", [total // 4 // 4]))
    writer.link(lambda _: stdlib.close(w))
    received = 0
    while data := os.read(r, 65536):
        received += len(data)
    assert received == writer.get() == total // 4
    assert stdlib.get_blocking(r)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in Python 3.14")
def test_readinto_of_blocking_pipes(pipe):
    r, w = pipe
    buffer = bytearray(10)
    reader = weald.spawn(os.readinto, r, memoryview(buffer)[2:])
    settle()
    assert not reader.ready()
    os.write(w, b"data")
    assert reader.get() == 4 and bytes(buffer) == b"\0\0data\0\0\0\0"
    assert os.readinto(r, bytearray()) == 0
    for bad in (b"read only", "text", None):
        with pytest.raises(TypeError):
            os.readinto(r, bad)


def test_a_write_whose_reader_goes_away_midway(pipe):
    r, w = pipe
    writer = weald.spawn(os.write, w, bytes(1_000_000))
    settle()
    assert not writer.ready()
    stdlib.close(r)
    assert 0 < writer.get() < 1_000_000  # as the system's own call does
    with pytest.raises(BrokenPipeError):
        os.write(w, b"x")


def test_read_and_write_of_what_never_waits(pipe, tmp_path):
    r, w = pipe
    os.make_nonblocking(r)
    with pytest.raises(BlockingIOError):
        os.read(r, 1)
    os.make_nonblocking(w)
    assert 0 < os.write(w, bytes(1_000_000)) < 1_000_000
    with pytest.raises(BlockingIOError):
        os.write(w, bytes(1_000_000))
    fd = os.open(tmp_path / "file", stdlib.O_RDWR | stdlib.O_CREAT)
    assert os.write(fd, bytes(1_000_000)) == 1_000_000
    os.lseek(fd, 0, 0)
    assert os.read(fd, 2_000_000) == bytes(1_000_000)
    stdlib.close(fd)
    calls = [(os.read, 1), (os.write, b"x"), (os.write, bytes(100_000))]
    for call, argument in calls:
        for bad, error in ((10**6, OSError), (-1, OSError), (2**40, OverflowError), ("0", TypeError)):
            with pytest.raises(error):
                call(bad, argument)
    with pytest.raises(TypeError):
        os.write(w, "text")
    blocking = stdlib.pipe()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(blocking[0], b"x")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(blocking[1], 1)
    for fd in blocking:
        stdlib.close(fd)


def test_nothing_to_read_or_write_needs_no_waiting(pipe):
    r, w = pipe
    with weald.Timeout(PATIENCE):
        assert os.read(r, 0) == b""
        stdlib.set_blocking(w, False)
        for size in (65536, 1):
            with suppress(BlockingIOError):
                while True:
                    stdlib.write(w, bytes(size))
        stdlib.set_blocking(w, True)
        assert os.write(w, b"") == 0


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_a_message_is_written_as_one(kind):
    a, b = socketpair(AF_UNIX, getattr(_socket, kind))
    try:
        assert os.write(a.fileno(), bytes(10_000)) == 10_000
        assert b.recv(20_000) == bytes(10_000)
    finally:
        a.close()
        b.close()


def test_read_in_a_native_thread_without_a_hub(pipe):
    r, w = pipe
    reader = Thread(os.read, r, 10)
    assert os.write(w, b"data") == 4
    assert reader.result() == b"data"


CHILD_OF_A_GREENLET = """
    import atexit, os, signal, sys, time, threading, weald
    atexit.register(print, "at exit", flush=True)
    def fork(how):
        pid = os.fork()
        if pid:
            if how == "signal":
                ready.recv(1)
                os.kill(pid, signal.SIGTERM)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
            return
        if how == "return":
            print("in the child")
        elif how == "exit":
            sys.exit(4)
        elif how == "text":
            sys.exit("why")
        elif how == "thread exits":
            weald.spawn(sys.exit, 5)
            weald.sleep(1000)
        elif how == "thread":
            threading.Thread(target=lambda: (time.sleep(0.01), print("inner"))).start()
        elif how == "signal":
            told.send(b"x")
            weald.sleep(1000)
        elif how == "deadlock":
            try:
                threading.Event().wait()
            except BaseException:
                os._exit(6)
    def main():
        try:
            if sys.argv[1:] == ["thread"]:
                thread = threading.Thread(target=fork, args=(HOW,))
                thread.start()
                thread.join()
            else:
                running = weald.spawn(fork, HOW)
                while running:
                    weald.sleep(0.01)
        finally:
            print("the main greenlet ends")
    import socket
    ready, told = socket.socketpair()
    if HOW == "signal":
        signal.signal(signal.SIGTERM, lambda *args: sys.exit(7))
    main()
"""


@pytest.mark.parametrize(
    ("how", "thread", "output"),
    [
        ("return", True, "in the child\n0\n"),
        ("thread", True, "inner\n0\n"),
        ("exit", True, "0\n"),  # a thread's SystemExit ends just the thread
        ("signal", True, "0\n"),
        ("deadlock", True, "6\n"),
        ("return", False, "in the child\n0\n"),
        ("exit", False, "at exit\n4\n"),
        ("text", False, "at exit\n1\n"),
        ("thread exits", False, "at exit\n5\n"),
        ("thread", False, "inner\n0\n"),
        ("signal", False, "at exit\n7\n"),
        ("deadlock", False, "6\n"),
    ],
)
def test_a_child_forked_in_a_greenlet_has_it_as_its_main_line(how, thread, output):
    """The parent's main greenlet, which waits there, does not go on in the child, whatever ends it."""
    out = run_patched(
        CHILD_OF_A_GREENLET.replace("HOW", repr(how)),
        before=f"import sys; sys.argv[1:] = {['thread'] if thread else []}",
        stderr=None if how == "text" else "",
    )
    assert out == output + "the main greenlet ends\nat exit\n"


def test_a_child_forked_in_a_signals_handler_goes_on_with_the_main_greenlet():
    out = python(
        """
        import os, weald, weald.signal as signal
        children = []
        signal.signal(signal.SIGALRM, lambda *args: children.append(os.fork()))
        weald.spawn(lambda: None).join()
        signal.raise_signal(signal.SIGALRM)
        if not children[0]:
            weald.sleep(0)
            os._exit(9)
        print(os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]))
        """
    )
    assert out == "9\n"


@pytest.mark.parametrize("loop", ["libuv", "libev"])
@pytest.mark.parametrize("how", ["closerange", "close"])
def test_who_closes_all_descriptors_gets_a_fresh_loop(loop, how):
    """As daemons do: waits, threads, signals and children go on; waits for closed descriptors end with an error."""
    if (loop, how) == ("libev", "close"):
        pytest.skip("libev does not tell which descriptors are its own")
    out = run_patched(
        f"""
        import os, signal, socket, subprocess, threading, time, weald
        how = {how!r}
        """
        """
        inside, outside = socket.socketpair(), socket.socketpair()
        kept = []
        for sock in outside:
            os.dup2(sock.fileno(), 300 + len(kept))
            kept.append(socket.socket(fileno=300 + len(kept)))
            sock.close()
        def wait():
            try:
                inside[0].recv(1)
            except OSError as error:
                print("inside:", type(error).__name__, error.errno)
        if how == "closerange":
            closed = weald.spawn(wait)
        heard = weald.spawn(kept[0].recv, 1)
        time.sleep(0.01)
        if how == "closerange":
            os.closerange(3, 256)
        else:
            for fd in range(3, 256):
                try:
                    os.close(fd)
                except OSError:
                    pass
        for sock in inside:
            sock.detach()
        time.sleep(0.01)
        kept[1].send(b"x")
        print(heard.get())
        if how == "closerange":
            closed.get()
        native = __import__("weald.threadpool").threadpool.ThreadPool(1)
        print(native.apply(lambda: "from a thread"))
        told = threading.Event()
        signal.signal(signal.SIGALRM, lambda *args: told.set())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        print(told.wait(100))
        print(subprocess.run(["echo", "child"], capture_output=True).stdout)
        os.closerange(5, 3)
        os.closerange(-5, 0)
        """,
        before=f"import os; os.environ['WEALD_LOOP'] = {loop!r}",
    )
    inside = "inside: OSError 9\n" if how == "closerange" else ""
    expected = inside + "b'x'\nfrom a thread\nTrue\nb'child\\n'\n"
    assert sorted(out.splitlines()) == sorted(expected.splitlines())


# ---------------------------------------------------------------- numbers of sockets, several buffers


NUMBERS = """
    import os, socket, sys, threading, time
    def meanwhile(wait, act):
        results = []
        def run():
            try:
                results.append(wait())
            except OSError as error:
                results.append(type(error).__name__)
        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(0.05)  # mostly enough for it to wait; the results are the same if it does not yet
        if results:
            print("it did not wait:", results)
        act()
        thread.join()
        return results[0]
    def drain(read):
        got = 0
        while got < size:
            got += len(read())
    size = 400_000
    for make in (lambda: (os.pipe, os.read, os.write), lambda: None):
        kind = make()
        def ends():
            if kind is None:
                a, b = socket.socketpair()
                keep.extend((a, b))
                return a.fileno(), b.fileno()
            return os.pipe()
        keep = []
        r, w = ends()
        print(meanwhile(lambda: os.read(r, 10), lambda: os.write(w, b"x")))
        room = bytearray(3), bytearray(3)
        print(meanwhile(lambda: os.readv(r, room), lambda: os.writev(w, [b"ab", b"cdef"])), room)
        print(meanwhile(lambda: os.write(w, bytes(size)), lambda: drain(lambda: os.read(r, 65536))))
        r, w = ends()
        print(meanwhile(lambda: os.writev(w, [bytes(size // 2), bytearray(size // 2)]),
                        lambda: drain(lambda: os.read(r, 65536))))
        print(os.writev(w, []), os.writev(w, [b""]), os.writev(w, (memoryview(b"xy"),)), os.read(r, 10))
        for wrong in [1], b"ab", 3:
            try:
                print(os.writev(w, wrong))
            except (TypeError, OSError) as error:
                print(type(error).__name__)
        with open(sys.executable, "rb") as file:
            sent = os.sendfile(w, file.fileno(), 0, 100)
            print(sent, len(os.read(r, 1000)))
    a, b = socket.socketpair()
    for limit in 0.0, 5.0:
        a.settimeout(limit)
        try:
            os.read(a.fileno(), 1)
        except BlockingIOError:
            print("does not wait")
    """


def test_numbers_of_sockets_and_several_buffers_as_in_the_standard_library():
    assert run_patched(NUMBERS) == python(NUMBERS)


def test_a_pipe_that_the_program_made_non_blocking_does_not_wait():
    code = """
        import os, subprocess
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        os.set_blocking(child.stdout.fileno(), False)
        os.set_blocking(child.stdin.fileno(), False)
        print(child.stdout.read(5), child.stdout.read(), child.stdout.readinto(bytearray(3)))
        sent = 0
        while (count := child.stdin.write(bytes(1_000_000))) == 1_000_000:
            sent += count
        print(count is None or 0 < count < 1_000_000)
        child.kill()
        child.wait()
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        os.set_blocking(child.stdout.fileno(), False)
        print(child.stdout.read(5), child.stdout.read1(5), child.stdout.peek(), child.stdout.readline())
        child.stdin.close()
        child.wait()
        print(child.stdout.read())
        """
    assert run_patched(code, stderr=None) == python(code, stderr=None)


def test_a_command_lets_others_run(pipe):
    r, w = pipe
    stdlib.set_inheritable(r, True)
    waiting = weald.spawn(os.system, f"read line < /dev/fd/{r}; exit 3")
    weald.sleep(0)
    assert not waiting.dead
    stdlib.write(w, b"line\n")
    assert stdlib.waitstatus_to_exitcode(waiting.get()) == 3
    assert os.system(b"exit 4") >> 8 == 4
    with pytest.raises(TypeError):
        os.system(5)
    with pytest.raises(ValueError, match="null byte"):
        os.system("true\0")


def test_a_loop_that_yields_the_processor_lets_others_run():
    done = []
    other = weald.spawn(done.append, True)
    while not done:
        os.sched_yield()
    other.join()


@pytest.mark.skipif(not hasattr(stdlib, "eventfd"), reason="not in this C library")
def test_an_eventfd_parks():
    fd = stdlib.eventfd(0)
    try:
        waiting = weald.spawn(os.eventfd_read, fd)
        weald.sleep(0)
        assert not waiting.dead
        os.eventfd_write(fd, 3)
        assert waiting.get() == 3
        os.eventfd_write(fd, 2**64 - 2)  # no more fits in
        writing = weald.spawn(os.eventfd_write, fd, 1)
        weald.sleep(0)
        assert not writing.dead and os.eventfd_read(fd) == 2**64 - 2
        writing.join()
        assert os.eventfd_read(fd) == 1
    finally:
        stdlib.close(fd)


def test_splice_parks(pipe, tmp_path):
    r, w = pipe
    with (tmp_path / "file").open("w+b") as file:
        waiting = weald.spawn(os.splice, r, file.fileno(), 10)
        weald.sleep(0)
        assert not waiting.dead
        stdlib.write(w, b"some")
        assert waiting.get() == 4
        file.seek(0)
        assert file.read() == b"some"
        stdlib.set_blocking(w, False)
        with suppress(BlockingIOError):
            while True:
                stdlib.write(w, bytes(4096))
        stdlib.set_blocking(w, True)
        waiting = weald.spawn(os.splice, file.fileno(), w, 4, offset_src=0)
        weald.sleep(0)
        assert not waiting.dead
        stdlib.read(r, 2**20)
        assert waiting.get() == 4 and stdlib.read(r, 10) == b"some"
    with pytest.raises(OSError, match="descriptor"):
        os.splice(r, 999, 1)
