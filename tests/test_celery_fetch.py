"""The main job, with few tasks: a real Celery worker on weald."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment():
    """The name gevent from the source tree, so that nothing need be installed for it."""
    return {**os.environ, "TASKS": "40", "DELAY": "0.5", "PYTHONPATH": str(ROOT / "compat/gevent")}


def children():
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    ours = [line for line in found.splitlines() if sys.prefix in line]
    return [line for line in ours if "celery -A proj" in line or "server.py 0.5" in line]


def test_forty_tasks_at_once(environment):
    done = subprocess.run(
        [sys.executable, "examples/celery_fetch/drive.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=55,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"│ (.+?) +│ (.+?) +│", done.stdout))
    assert (rows["tasks"], rows["failures"]) == ("40", "0")
    # One after the other they would take 20 s.
    assert float(rows["wall time"].split()[0]) < 10 and int(rows["largest number in flight"]) > 10
    assert children() == []


def test_interrupt_leaves_nothing_behind(environment):
    child = subprocess.Popen(
        [sys.executable, "-u", "examples/celery_fetch/drive.py"],
        cwd=ROOT, env={**environment, "TASKS": "2000"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith("server:")
    child.stdout.readline()
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=50)
    assert child.returncode == 130, out
    assert "interrupted" in out and children() == []
