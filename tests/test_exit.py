"""Code that runs while the interpreter ends works as in an unpatched program, with and without a hub."""

import subprocess
import sys

import pytest
from helpers import PATIENCE

PATCH = "import weald.monkey; weald.monkey.patch_all()\n"
HUB = "import time; time.sleep(0.001)\n"
# Everything that a handler needs is its default: at the very end the module's names are gone.
WORK = """
import atexit, asyncio, logging, queue, select, socket, subprocess, threading, time, weakref

def work(asyncio=asyncio, queue=queue, socket=socket, subprocess=subprocess, select=select, threading=threading,
         time=time, print=print):
    a, b = socket.socketpair()
    a.sendall(b"x")
    b.settimeout(0.001)
    print(b.recv(1), select.select([b], [], [], 0.001)[0])
    try:
        b.recv(1)
    except TimeoutError:
        print("timed out")
    lock = threading.Lock()
    lock.acquire()
    print(lock.acquire(timeout=0.001), threading.Event().wait(0.001))
    try:
        queue.Queue().get(timeout=0.001)
    except queue.Empty:
        print("empty")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0] as server:
            server.sendall(b"hello")
            print(client.recv(10))
    print(subprocess.run(["true"], capture_output=True).returncode)
    time.sleep(0.001)
    print(socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)[0][4][1])
    async def coroutine():
        await asyncio.sleep(0.001)
        return "awaited"
    print(asyncio.run(coroutine()))
    print("worked")
"""
WORKED = """\
b'x' []
timed out
False False
empty
b'hello'
0
80
awaited
worked
"""
WHEN = {
    "atexit": "atexit.register(work)\n",
    "finalize": "weakref.finalize(work, work.__call__, *work.__defaults__)\n",
    "thread's atexit": "threading._register_atexit(work)\n",
    "thread": "threading.Thread(target=lambda: (time.sleep(0.01), work())).start()\n",
}


def run(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("when", WHEN)
@pytest.mark.parametrize("hub", ["", HUB])
def test_after_patching(when, hub):
    assert run(PATCH + WORK + WHEN[when] + hub) == WORKED


@pytest.mark.parametrize("hub", ["", HUB])
def test_what_was_registered_before_patching(hub):
    """It is called after what weald itself registers."""
    assert run(WORK + WHEN["atexit"] + PATCH + hub) == WORKED


def test_a_handler_for_each_of_the_others():
    """The last of them makes the hub, the first still waits in it."""
    assert run(WORK + WHEN["atexit"] * 2 + PATCH + WHEN["atexit"]) == 3 * WORKED


AT_THE_END = """
import weald, asyncio, os, socket, threading, queue, select, selectors, ssl, subprocess, tempfile

class Last:
    def __init__(self):
        self.lock, self.event, self.queue = threading.RLock(), threading.Event(), queue.Queue()
        self.a, self.b = socket.socketpair()
        self.ident, self.loop, self.local = threading.get_ident, asyncio.get_running_loop, threading.local()
        self.write = os.write

    def __del__(self):
        with self.lock:
            self.event.set()
            self.queue.put(self.event.wait(0.001))
        self.a.sendall(b"x")
        self.local.ident = self.ident()
        try:
            self.loop()
        except RuntimeError as error:
            self.write(1, f"{self.b.recv(1)} {self.queue.get()} {error}\\n".encode())

last = Last()
listener, pair = socket.create_server(("127.0.0.1", 0)), socket.socketpair()
file = socket.socketpair()[0].makefile("rwb")
selector, epoll, poll = selectors.DefaultSelector(), select.epoll(), select.poll()
selector.register(listener, selectors.EVENT_READ)
held = threading.Lock()
held.acquire()
tls = ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x")
child = subprocess.Popen(["true"], stdout=subprocess.PIPE)
child.wait()
folder = tempfile.TemporaryFile()
cycle = [listener, last]
cycle.append(cycle)
"""


@pytest.mark.parametrize("hub", ["", HUB])
def test_what_the_collector_ends(hub):
    assert run(PATCH + hub + AT_THE_END) == "b'x' True no running event loop\n"


NEVER_FREED = """
import os, select, selectors, subprocess, sys, threading, time

class Last:
    def __init__(self):
        self.close, self.dup, self.read, self.write = os.close, os.dup, os.read, os.write
        self.sleep, self.select, self.system = time.sleep, select.select, os.system
        self.pipe = os.pipe()
        self.child = subprocess.Popen(["sh", "-c", "sleep 0.1; exit 3"])
        self.epoll, self.selector = select.epoll(), selectors.DefaultSelector()

    def __del__(self, print=print, BaseException=BaseException):
        try:
            self.write(self.pipe[1], b"x")
            print(self.select([self.pipe[0]], [], [], 1)[0] == [self.pipe[0]], self.read(self.pipe[0], 2))
            self.close(self.dup(self.pipe[0]))
            self.sleep(0.001)
            print(self.system("exit 0"))
            PROGRAM
        except BaseException as error:
            print(repr(error))

"""
LAST_CALLS = "print(self.child.wait(), self.epoll.poll(0.001), self.selector.select(0.001))"


@pytest.mark.parametrize("hub", ["", HUB])
@pytest.mark.parametrize(
    ("kept", "calls"),
    [
        ("last = Last()", LAST_CALLS.replace(", self.epoll.poll(0.001), self.selector.select(0.001)", "")),
        ("import builtins; builtins.last = Last()", LAST_CALLS),
        ("import _thread; _thread.last = Last()", "pass"),
    ],
    ids=["module", "builtins", "for good"],
)
def test_a_finalizer_at_the_very_end(hub, kept, calls):
    """The modules of what it calls may have lost their names; the functions are the standard library's builtins."""
    program = NEVER_FREED.replace("PROGRAM", calls) + kept + "\n" + hub
    assert run(PATCH + program) == run(program)
