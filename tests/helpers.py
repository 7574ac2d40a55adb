"""Helpers that several test modules share: durations, recorded errors, threads, subprocesses.

Durations are counted in ticks, so that a test runs on any loop: on the virtual clock a tick is
1000 s, passes at once and is checked exactly; on a real one it is 10 ms and only checked from below.

No test knows how fast the machine is.  An expected event may take PATIENCE.  A duration is compared only with
something that takes far longer, by checking which of the two comes last.
"""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

import weald
from weald import _core
from weald.testing import blocked

# Seconds that anything may take on a slow and busy machine: a bound for hangs, never a measure.
# Programs in texts, which cannot import this, use 100.
PATIENCE = 120.0

# Whether to run other projects' programs that need packages of their own: not all exist for Python 3.14 and later.
PROGRAMS_RUN = os.environ.get("WEALD_PROGRAMS", "yes" if sys.version_info < (3, 14) else "no") != "no"
PROGRAMS_REASON = "not all of these programs run on Python 3.14, or WEALD_PROGRAMS=no: another Python runs them"

VIRTUAL = pytest.mark.parametrize("loop_name", ["virtual"], indirect=True)
REAL = pytest.mark.parametrize("loop_name", ["libuv"], indirect=True)


def tick(count=1):
    """`count` ticks in seconds."""
    return count * (1000.0 if weald.get_hub().loop.name == "virtual" else 0.01)


@contextmanager
def takes(ticks):
    """The body takes `ticks`: exactly on the virtual clock, at least on a real one."""
    loop = weald.get_hub().loop
    virtual = loop.name == "virtual"
    clock = loop.now if virtual else time.monotonic
    start = clock()
    yield
    elapsed = clock() - start
    if virtual:
        assert elapsed == tick(ticks)
    else:
        assert elapsed >= tick(ticks) - 0.002


settle = blocked


def wait_until(predicate, seconds=PATIENCE):
    """Poll until `predicate()` holds; other greenlets run meanwhile."""
    deadline = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < deadline, "what the test waits for did not come about"
        weald.sleep(0.001)


def send_what_fits(sock, data):
    """Send as much of `data` as the system accepts although the peer does not read; return the number of bytes."""
    view, sent, full = memoryview(data), 0, False
    sock.settimeout(0)
    while sent < len(data):
        try:
            sent += sock.send(view[sent : sent + 1_000_000])
            full = False
        except BlockingIOError:
            if full:
                break
            full = True
            settle()
    sock.settimeout(PATIENCE)
    return sent


def waiting(primitive):
    """How many greenlets and threads are parked on `primitive`."""
    return sum(count for name, count in primitive.statistics().items() if name.startswith("waiting"))


@contextmanager
def recorded_errors():
    """Collect the calls of this hub's error handler instead of printing."""
    hub = weald.get_hub()
    calls = []
    hub.handle_error = lambda *args: calls.append(args)
    try:
        yield calls
    finally:
        del hub.handle_error


class HubMakingTime:
    """In the block, `function` is called while this thread's next hub is made, as another thread might do it."""

    def __init__(self, function):
        class Slow(_core.Hub):
            def __init__(self, *args):
                super().__init__(*args)
                _core.set_hub_class(None)
                function()

        self.hub_class = Slow

    def __enter__(self):
        weald.get_hub().destroy()
        _core.set_hub_class(self.hub_class)

    def __exit__(self, *args):
        _core.set_hub_class(None)


def service(port, protocol="tcp"):
    """The name of a port, or its number in a text where the system has no list of services (Debian's netbase)."""
    try:
        return socket.getservbyport(port, protocol)
    except OSError:
        return str(port)


def is_open(fd):
    """Whether descriptor `fd` is open in this process."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Thread(threading.Thread):
    """A started native thread; `result()` returns what its function did or raises what it raised."""

    def __init__(self, function, *args):
        super().__init__(daemon=True)
        self.function, self.args = function, args
        self.value = None
        self.error = None
        self.start()

    def run(self):
        try:
            self.value = self.function(*self.args)
        except BaseException as error:
            self.error = error

    def result(self, seconds=PATIENCE):
        """Blocks the calling thread, its greenlets included."""
        self.join(seconds)
        assert not self.is_alive(), f"a thread hangs in {self.function!r}"
        if self.error is not None:
            raise self.error
        return self.value

    def wait(self):
        """As `result`, while this thread's other greenlets run."""
        wait_until(lambda: not self.is_alive())
        return self.result()


def python(code, *, expect=0, stderr=""):
    """Run `code` in a fresh interpreter; its standard output.

    Checks the exit status, and standard error too unless `stderr` is None.
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == expect, f"exit status {done.returncode}:\n{done.stdout}{done.stderr}"
    assert stderr is None or done.stderr == stderr, done.stderr
    return done.stdout


def run_patched(code, before="", *, patch="", expect=0, stderr=""):
    """Run `code` after `weald.monkey.patch_all(patch)` in a fresh interpreter, `before` before that."""
    lines = [textwrap.dedent(before), f"import weald.monkey; weald.monkey.patch_all({patch})", textwrap.dedent(code)]
    return python("\n".join(lines), expect=expect, stderr=stderr)


# For programs in texts: a function that uses up all descriptors but `left`, and returns those that it has made.
USE_UP_DESCRIPTORS = """
import os, resource
def use_up_descriptors(left=0):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    kept = []
    try:
        while True:
            kept.append(os.dup(0))
    except OSError:
        pass
    for _ in range(left):
        os.close(kept.pop())
    return kept
"""


@contextmanager
def no_descriptors():
    """In the block no descriptor can be opened, and poll(2) fails."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def most_at_once(begun, number):
    """By how many the list `begun` grows at most between two turns of the current greenlet, until it has `number`."""
    seen = [0]
    while len(begun) < number:
        weald.sleep(0)
        seen.append(len(begun))
    return max(after - before for before, after in pairwise(seen))


async def numbers(closed):
    """Yields 1 and 2; adds True to the list `closed` when the generator is closed, and waits before that."""
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        closed.append(True)
