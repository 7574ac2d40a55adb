"""SIGUSR2: a new `weald serve` takes over the sockets of the running one, under load."""

import os
import signal
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from helpers import PATIENCE, wait_until
from serving import APP, Load, serving


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    return tmp_path


def children(pid):
    return {child.pid for child in psutil.Process(pid).children()}


@contextmanager
def next_program(served):
    """The process that SIGUSR2 has started, once it serves; it is killed at the end if it still runs."""
    served.signal(signal.SIGUSR2)
    pid = int(served.wait_for(r"process (\d+) starts beside this one")[1])
    try:
        served.wait_for("workers? at ", 2)
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def parents(served, count=60):
    """The parents of the workers that answer `count` requests."""
    return {int(Path(f"/proc/{served.get().split()[1]}/stat").read_text().split()[3]) for _ in range(count)}


@pytest.mark.parametrize("how", ["TERM", "WINCH"])
def test_another_program_takes_over_and_no_request_fails(folder, how):
    pid_file = folder / "pid"
    with serving(folder, "--workers", "2", "--pid", str(pid_file)) as served:
        load = Load(served.port)
        load.wait_for(100)
        (folder / "site_app.py").write_text(APP.format(version=2))
        with next_program(served) as new:
            wait_until(lambda: parents(served, 5) & {new})
            assert pid_file.read_text() == f"{served.process.pid}\n"
            assert (folder / "pid.2").read_text() == f"{new}\n"
            if how == "WINCH":
                served.signal(signal.SIGWINCH)
                served.wait_for("the workers stop")
                wait_until(lambda: children(served.process.pid) == {new})
                load.wait_for(100)
                assert parents(served) == {new}
            assert served.end() == 0
            served.wait_for(f"process {served.process.pid} has ended; this one, {new}, goes on alone")
            start = len(load.bodies)
            load.wait_for(100)
            assert all(body.startswith("2 ") for body in load.bodies[start + 10 :])
            wait_until(lambda: pid_file.exists() and pid_file.read_text() == f"{new}\n")
            assert not (folder / "pid.2").exists()
            assert parents(served) == {new}
            os.kill(new, signal.SIGTERM)
            load.end()
            wait_until(lambda: not pid_file.exists())


def test_a_program_that_was_to_take_over_may_end(folder):
    sock = folder / "sock"
    with serving(folder, "--workers", "1", "--bind", f"unix:{sock}") as served:
        load = Load(served.port)
        load.wait_for(20)
        with next_program(served) as new:
            served.signal(signal.SIGUSR2)
            served.wait_for("no further program is started")
            served.signal(signal.SIGWINCH)
            served.wait_for("the workers stop")
            load.wait_for(100)
            os.kill(new, signal.SIGTERM)
            served.wait_for(rf"process {new} has ended \(status 0\); this one goes on")
        load.wait_for(100)
        assert parents(served, 10) == {served.process.pid}
        assert sock.exists()
        load.end()


def test_after_winch_hup_starts_the_workers_again(folder):
    with serving(folder, "--workers", "1") as served:
        served.signal(signal.SIGWINCH)  # a terminal's size has changed, perhaps
        with next_program(served) as new:
            served.signal(signal.SIGWINCH)
            served.wait_for("the workers stop")
            assert parents(served) == {new}
            served.signal(signal.SIGHUP)
            wait_until(lambda: served.process.pid in parents(served, 5))
            os.kill(new, signal.SIGTERM)
            served.wait_for("this one goes on")
        assert parents(served, 5) == {served.process.pid}


def test_a_program_that_cannot_start_changes_nothing(folder):
    with serving(folder, "--workers", "1", "--bind", f"unix:{folder}/sock") as served:
        (folder / "site_app.py").write_text("raise ValueError('broken')")
        served.signal(signal.SIGUSR2)
        served.wait_for(r"has ended \(status 1\); this one goes on")
        assert served.get()
        assert (folder / "sock").exists()


def test_systemd_is_told_who_takes_over(folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.settimeout(PATIENCE)
        with serving(folder, "--workers", "1", env={"NOTIFY_SOCKET": str(folder / "notify")}) as served:
            with next_program(served) as new:
                assert served.end() == 0
                while notified.recv(1000) != f"MAINPID={new}".encode():
                    pass
                os.kill(new, signal.SIGTERM)
