"""Lack of descriptors, threads, processes and memory.

Calls fail with the error that a program without weald gets, never hang, and work once there is enough again.
"""

import os
import platform
from socket import EAI_AGAIN, gaierror

import pytest
from helpers import USE_UP_DESCRIPTORS, python, run_patched

import weald
from weald._base import workers
from weald._core import hub as hub_module
from weald.fileobject import FileObjectThread
from weald.resolver.thread import Resolver
from weald.threadpool import ThreadPool

CALLS = """
import asyncio, encodings.idna, os, resource, select, selectors, signal, socket, subprocess, sys, threading, time
import weald, weald.fileobject, weald.resolver.thread, weald.server, weald.threadpool
def pair():
    a, b = socket.socketpair()
    b.send(b"x")
    return a, b
def selected():
    a, b = pair()
    with a, b, selectors.DefaultSelector() as selector:
        selector.register(a, selectors.EVENT_READ)
        return len(selector.select()) + len(select.select([a], [], [])[0])
def polled():
    a, b = pair()
    with a, b, select.epoll() as poll:
        poll.register(a)
        return len(poll.poll())
def served():
    server = weald.server.StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(b"x"))
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.server_port), 0.2) as sock:
            return len(sock.recv(1))
    finally:
        server.stop()
def lines():
    with weald.fileobject.FileObject("/etc/passwd") as file:
        return bool(file.readline())
def piped():
    with os.popen("echo x") as file:
        return file.read()
def forked():
    pid = os.fork()
    if not pid:
        os._exit(0)
    return os.waitpid(pid, 0)[1]
async def empty():
    await asyncio.sleep(0)
CALLS = {
    "sleep": lambda: time.sleep(0.001),
    "thread": lambda: threading.Thread(target=int).start(),
    "run": lambda: subprocess.run(["true"]).check_returncode(),
    "output": lambda: subprocess.run(["echo", "x"], capture_output=True).check_returncode(),
    "popen": piped,
    "fork": forked,
    "spawn": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], os.environ), 0),
    "look-up": lambda: socket.getaddrinfo("localhost", 80),
    "pool": lambda: weald.threadpool.ThreadPool(1).apply(int),
    "file": lines,
    "select": selected,
    "epoll": polled,
    "server": served,
    "asyncio": lambda: asyncio.run(empty()),
}
def outcome(call):
    try:
        call()
    except Exception as error:
        return error
"""

CHILDREN = ("run", "output", "popen", "fork", "spawn")


@pytest.mark.parametrize("hub", [True, False], ids=["with a hub", "without"])
def test_no_descriptors_are_left(hub):
    """OSError(EMFILE), or success for calls that need none; with 0 to 3 left, from the first call on."""
    out = run_patched(
        CALLS
        + USE_UP_DESCRIPTORS
        + f"""
WITH_HUB = {hub}
def tried(name, left):
    if WITH_HUB:
        time.sleep(0)
    call = CALLS[name]
    held = use_up_descriptors(left)
    error = outcome(call)
    for fd in held:
        os.close(fd)
    again = outcome(call)
    if not (error is None or isinstance(error, OSError)) or again is not None:
        print(name, left, repr(error), repr(again), flush=True)
for name in CALLS:
    for left in range(4):
        pid = os.fork()
        if not pid:
            signal.alarm(30)
            tried(name, left)
            sys.stdout.flush()
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        if status:
            print(name, left, "ended by", status)
""",
        before="import warnings; warnings.simplefilter('ignore')",
        stderr=None,
    )
    assert out == ""


@pytest.mark.parametrize("loop", ["libuv", "libev"])
def test_a_child_of_fork_without_descriptors_waits(loop):
    """Its loop opens its own descriptors in place of the parent's."""
    out = run_patched(
        """
        import time
        time.sleep(0.001)
        kept = use_up_descriptors()
        pid = os.fork()
        if not pid:
            time.sleep(0.001)
            os._exit(3)
        for fd in kept:
            os.close(fd)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """,
        before=f"{USE_UP_DESCRIPTORS}os.environ['WEALD_LOOP'] = {loop!r}",
    )
    assert out == "3\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user of its own")
def test_no_processes_and_no_native_threads_may_be_started():
    """BlockingIOError (EAGAIN) of fork; a file is read without a thread; a look-up may be tried again."""
    out = run_patched(
        CALLS
        + """
CHILDREN = ("run", "output", "popen", "fork", "spawn")
resource.setrlimit(resource.RLIMIT_NPROC, (1, 100))
os.setuid(54321)  # a user without other processes
for name in CALLS:
    print(name, type(outcome(CALLS[name])).__name__)
resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))
print([name for name in CALLS if outcome(CALLS[name]) is not None])
"""
    )
    refused = {**dict.fromkeys(CHILDREN, "BlockingIOError"), "look-up": "gaierror", "pool": "RuntimeError"}
    names = ["sleep", "thread", *CHILDREN, "look-up", "pool", "file", "select", "epoll", "server", "asyncio"]
    assert out.splitlines() == [*(f"{name} {refused.get(name, 'NoneType')}" for name in names), "[]"]


# The numbers of system calls.
PIPE2 = {"x86_64": 293, "aarch64": 59}.get(platform.machine())
EPOLL_CTL = {"x86_64": 233, "aarch64": 21}.get(platform.machine())
REFUSE = """
import ctypes, errno, struct
def refuse(number, error):
    "Have the system call `number` fail with `error` from now on, in this thread and those that it starts: seccomp(2)."
    libc = ctypes.CDLL(None, use_errno=True)
    load, equal, answer = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0), (equal, 0, 1, number), (answer, 0, 0, 0x50000 | error), (answer, 0, 0, 0x7FFF0000)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
    no_new_privileges, filter_calls = 38, 22
    for call in ((no_new_privileges, 1, 0), (filter_calls, 2, ctypes.addressof(program))):
        if libc.prctl(*map(ctypes.c_ulong, call), ctypes.c_ulong(0), ctypes.c_ulong(0)):
            raise OSError(ctypes.get_errno(), "prctl")
"""


@pytest.mark.skipif(PIPE2 is None, reason="does not know the numbers of system calls here")
@pytest.mark.parametrize("loop", ["libuv", "libev"])
def test_no_pipe_may_be_made(loop):
    """A user may have too many pipes, and still room for other descriptors: OSError(ENFILE) when the loop is made."""
    out = python(
        REFUSE
        + f"""
import os
os.environ["WEALD_LOOP"] = {loop!r}
import weald
weald.sleep
pid = os.fork()
if not pid:
    refuse({PIPE2}, errno.ENFILE)
    try:
        weald.sleep(0.001)
    except OSError as error:
        print(error, flush=True)
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert out == "[Errno 23] cannot make an event loop: Too many open files in system\n3\n"


@pytest.mark.skipif(EPOLL_CTL is None, reason="does not know the numbers of system calls here")
@pytest.mark.parametrize("loop", ["libuv", "libev"])
def test_no_descriptor_may_be_watched(loop):
    """A user may watch too many descriptors (epoll(7)): OSError(ENOSPC) of what would wait for one; others run."""
    out = python(
        REFUSE
        + f"""
import os, time
os.environ["WEALD_LOOP"] = {loop!r}
import weald, weald.socket
def outcome(call, *args):
    try:
        return call(*args)
    except OSError as error:
        return errno.errorcode[error.errno]
pid = os.fork()
if not pid:
    refuse({EPOLL_CTL}, errno.ENOSPC)
    print(outcome(weald.sleep, 0.001), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
a, b = weald.socket.socketpair()
weald.sleep(0.001)
refuse({EPOLL_CTL}, errno.ENOSPC)
ticks = []
ticker = weald.spawn(lambda: [ticks.append(weald.sleep(0.001)) for _ in range(20)])
before = time.process_time()
print(outcome(a.recv, 1), outcome(b.send, b"x"), outcome(a.recv, 1), outcome(a.recv, 1))
ticker.join()
print(len(ticks), time.process_time() - before < 0.5)
"""
    )
    assert out == "ENOSPC\nENOSPC 1 b'x' ENOSPC\n20 True\n"


@pytest.fixture
def no_thread(monkeypatch):
    def refuse(*args):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(workers, "_start_new_thread", refuse)


@pytest.mark.usefixtures("no_thread")
def test_without_a_thread_a_file_is_read_in_place(tmp_path):
    pool = ThreadPool(1)
    with FileObjectThread(tmp_path / "file", "w+", threadpool=pool) as file:
        file.write("a line\n")
        file.seek(0)
        assert file.read() == "a line\n"


@pytest.mark.usefixtures("no_thread")
def test_without_a_thread_a_pipe_is_not_waited_for():
    """In place, the call would wait for another greenlet, which could not run."""
    reading, writing = os.pipe()
    pool = ThreadPool(1)
    with FileObjectThread(writing, "wb", threadpool=pool, buffering=0) as file:
        with pytest.raises(RuntimeError, match="can't start new thread"):
            file.write(b"x")
    with FileObjectThread(reading, "rb", threadpool=pool) as file:
        for read in (file.read, file.readline):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                read()
    assert file.closed


@pytest.mark.usefixtures("no_thread")
def test_without_a_thread_a_command_runs_in_place():
    """As `subprocess.run` does, which needs no thread."""
    weald.sleep(0)
    assert os.waitstatus_to_exitcode(weald.os.system("exit 3")) == 3


@pytest.mark.usefixtures("no_thread")
def test_without_a_thread_a_look_up_may_be_tried_again():
    with pytest.raises(gaierror, match="can't start new thread") as caught:
        Resolver().getaddrinfo("localhost", 80)
    assert caught.value.errno == EAI_AGAIN


def test_an_error_that_cannot_be_reported_leaves_the_hub_alive(monkeypatch, capfd):
    """For example for lack of memory."""

    def fail(*args):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "report", fail)
        patch.setattr(weald.get_hub(), "handle_error", fail)
        weald.get_hub().run_callback(fail)
        weald.sleep(0.001)
    assert "an exception could not be reported" in capfd.readouterr().err
    weald.sleep(0)
