"""The outcome of a waiting call when its descriptor is closed, shut down, detached or replaced.

Each pair of call and action is run by closings.py on the unpatched standard library and on the patched one.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import closings
import pytest
from helpers import PATIENCE, Thread, settle, tick

import weald
from weald import os as weald_os
from weald import select as weald_select
from weald import socket as weald_socket
from weald import spawn

TAKEN_AWAY = {"close", "os_close", "detach", "dup2"}


def run(kind, *files):
    """The outcome of each action, plain and patched; both run at the same time, because they mostly wait."""
    program = Path(__file__).with_name("closings.py")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, str(program), mode, kind, *files], **pipes) for mode in ("plain", "patched")
    ]
    for process in started:
        out, errors = process.communicate(timeout=2 * PATIENCE)
        assert process.returncode == 0, errors
        yield {(action, limit): result for action, limit, result in json.loads(out)}


@pytest.mark.parametrize("kind", closings.KINDS)
def test_as_the_standard_library(kind, certificate):
    """In a patched program a call that reads, writes, accepts or connects raises EBADF at once.

    A plain thread goes on with a file that is no longer the socket's, or notices after its timeout.
    """
    files = (str(certificate.cert), str(certificate.key)) if kind.startswith("Ssl") else ()
    plain, patched = run(kind, *files)
    expected = dict(plain)
    for action, limit in plain:
        calls = kind not in closings.LOOKING and not kind.endswith("SelectorObject")
        stays = (kind, action) == ("File", "close") or (kind == "EpollObject" and limit is not None)
        if calls and action in TAKEN_AWAY and not stays:
            expected[action, limit] = "OSError EBADF"
        elif action == "shutdown_write" and "Send" in kind:
            # A Unix socket wakes only calls that block in the system, not calls with a timeout.
            expected[action, limit] = plain[action, None]
    assert patched == expected


def test_a_number_that_becomes_another_socket(io_loop):
    """dup2 over a socket that the loop knows: from then on the new one is watched."""
    a, b = weald_socket.socketpair()
    c, d = weald_socket.socketpair()
    with a, b, c, d:
        b.send(b"x")
        reader = spawn(a.recv, 1)
        assert reader.get(timeout=PATIENCE) == b"x"  # the loop watches it still
        looker = spawn(weald_select.select, [a], [], [])
        settle()
        weald_os.dup2(c.fileno(), a.fileno())
        reader = spawn(a.recv, 1)
        settle()
        assert not reader.ready() and not looker.ready()
        d.send(b"yz")
        assert reader.get(timeout=PATIENCE) in (b"y", b"z") and looker.get(timeout=PATIENCE) == ([a], [], [])


def test_dup2_that_fails_takes_nothing_away(io_loop):
    a, b = weald_socket.socketpair()
    with a, b:
        reader = spawn(a.recv, 1)
        settle()
        closed = os.dup(b.fileno())
        os.close(closed)
        for wrong in closed, -1:
            with pytest.raises(OSError):
                weald_os.dup2(wrong, a.fileno())
        with pytest.raises(OSError):
            weald_os.dup2(b.fileno(), -1)
        with pytest.raises(TypeError):
            weald_os.dup2("1", 2)  # type: ignore[arg-type]
        assert weald_os.dup2(a.fileno(), a.fileno()) == a.fileno()
        b.send(b"x")
        assert reader.get(timeout=PATIENCE) == b"x"


def test_who_waits_in_another_threads_loop_hears_of_it(io_loop):
    for action in (weald_os.close, lambda fd: weald_os.dup2(0, fd)):
        a, b = socket.socketpair()
        number = a.detach()
        parked = []

        def wait(number=number, parked=parked):
            reader = spawn(weald.socket.wait_read, number)
            settle()
            parked.append(1)
            with pytest.raises(OSError, match="Bad file descriptor"):
                reader.get(timeout=PATIENCE)
            return True

        thread = Thread(wait)
        while not parked:
            weald.sleep(tick(1))
        action(number)
        assert thread.wait() is True
        b.close()
