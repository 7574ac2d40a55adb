"""scripts/gauntlet's driver: verdicts of tests whose process fails, hangs or dies; its list of failures; no network."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
if not SCRIPTS.exists():  # a source distribution's tests may stand alone
    pytest.skip("there are no scripts", allow_module_level=True)
sys.path.insert(0, str(SCRIPTS))
import apart  # noqa: E402
import gauntlet  # noqa: E402

sys.path.remove(str(SCRIPTS))

TESTS = """
import os, time, pytest

def test_passes():
    pass

def test_fails():
    assert 1 == 2

@pytest.mark.skip
def test_is_skipped():
    pass

@pytest.mark.xfail
def test_fails_as_said():
    assert 1 == 2

def test_hangs():
    time.sleep(10000)

@pytest.fixture
def broken():
    yield
    raise ValueError

def test_fails_when_it_is_over(broken):
    pass

def test_dies():
    os._exit(3)

def test_is_the_last():
    import socket
    assert socket.socket.__module__ == os.environ["EXPECTED_MODULE"]
"""


@pytest.mark.parametrize(("side", "module"), [("plain", "socket"), ("weald", "weald.socket")])
def test_each_test_gets_its_verdict(tmp_path, side, module):
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, gauntlet.__file__, "--run", side, "--seconds", "6", "--arguments", '["test_it.py"]']
    environment = {**os.environ, "EXPECTED_MODULE": module}
    results = apart.in_processes(
        lambda found: apart.in_process(command, [], found, environment, 600, tmp_path),
    )
    assert {test.partition("::")[2]: apart.kind_of(verdict) for test, verdict in results.items()} == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_is_skipped": "skipped",
        "test_fails_as_said": "passed",
        "test_hangs": "hung",
        "test_fails_when_it_is_over": "failed",
        "test_dies": "died",
        "test_is_the_last": "passed",
    }
    assert "Timeout (0:00:06)" in results["test_it.py::test_hangs"]
    assert "exit status 3" in results["test_it.py::test_dies"]
    assert apart.counts(results) == (3, 4, 1)


LOOPS = """
import asyncio, os, uvloop

def names(loop):
    name = type(loop).__module__
    loop.close()
    return name

def test_loops():
    assert names(asyncio.new_event_loop()) == names(uvloop.new_event_loop()) == os.environ["EXPECTED_MODULE"]

def test_classes():
    loop = uvloop.new_event_loop()
    assert isinstance(loop, uvloop.Loop)
    loop.close()

def test_run():
    async def name():
        return type(asyncio.get_running_loop()).__module__
    assert asyncio.run(name()) == os.environ["EXPECTED_MODULE"]
"""


@pytest.mark.parametrize(
    ("side", "module"), [("uvloop", "uvloop"), ("aio", "weald.aio.loop"), ("asyncio", "asyncio.unix_events")]
)
def test_each_side_of_an_asyncio_suite_has_its_loop(tmp_path, side, module):
    if side == "uvloop":
        pytest.importorskip("uvloop")
    (tmp_path / "test_it.py").write_text(LOOPS)
    command = [sys.executable, gauntlet.__file__, "--run", side, "--seconds", "60", "--arguments", '["test_it.py"]']
    environment = {**os.environ, "EXPECTED_MODULE": module}
    results = apart.in_processes(
        lambda found: apart.in_process(command, [], found, environment, 600, tmp_path),
    )
    assert len(results) == 3 and set(results.values()) == {"passed"}, results


def test_expected_failures(tmp_path, monkeypatch):
    file = tmp_path / "expected"
    file.write_text("# a comment\none  test_a[*] b  why\none  test_c  sometimes it does\ntwo  test_d  why\n")
    monkeypatch.setattr(gauntlet, "EXPECTED", file)
    listed = gauntlet.Expected("one")
    assert listed.unseen == {"test_a[*] b"}
    assert listed.lists("test_a[1 x] b") and listed.lists("test_c")
    assert not listed.lists("test_d") and not listed.lists("test_c2")
    assert listed.unseen == set()


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_without_a_network(tmp_path, ci, status):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {"WEALD_GAUNTLET": str(tmp_path), "CI": ci, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}
    command = [sys.executable, gauntlet.__file__, "flask-socketio"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, done.stdout + done.stderr
    assert "flask-socketio: cannot be fetched (is there a network?), so it is not run: ERROR: No match" in done.stdout
    assert done.stdout.endswith("0 unexpected, 1 suites not run\n")
    assert done.stderr == ""
