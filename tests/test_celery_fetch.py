"""The main job, with few tasks: a real Celery worker on weald."""

import os
import re
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from weald.compat import _distribution

ROOT = Path(__file__).parents[1]


@pytest.fixture
def environment(tmp_path):
    """The name gevent from a folder, so that nothing needs to be installed for it; and a mark of this run."""
    _distribution.write(tmp_path)
    return {**os.environ, "TASKS": "40", "DELAY": "2", "PYTHONPATH": str(tmp_path), "WEALD_TEST": uuid.uuid4().hex}


def left_over(environment):
    """The processes of this run that still live."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WEALD_TEST") == environment["WEALD_TEST"]:
                found.append(process.cmdline())
        except psutil.Error:
            pass
    return found


def test_forty_tasks_at_once(environment):
    done = subprocess.run(
        [sys.executable, "examples/celery_fetch/drive.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"│ (.+?) +│ (.+?) +│", done.stdout))
    assert (rows["tasks"], rows["failures"]) == ("40", "0")
    assert int(rows["largest number in flight"]) > 10
    assert left_over(environment) == []


def test_interrupt_leaves_nothing_behind(environment):
    child = subprocess.Popen(
        [sys.executable, "-u", "examples/celery_fetch/drive.py"],
        cwd=ROOT, env={**environment, "TASKS": "2000"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline().startswith("server:")
    child.stdout.readline()
    assert left_over(environment)
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=200)
    assert child.returncode == 130, out
    assert "interrupted" in out and left_over(environment) == []
