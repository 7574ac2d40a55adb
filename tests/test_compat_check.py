"""`python -m weald.compat --check`."""

import subprocess
import sys

import pytest
from helpers import PATIENCE


def check(where):
    done = subprocess.run(
        [sys.executable, "-m", "weald.compat", "--check", str(where)], capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout, done.stderr


def test_names_are_found_where_they_are_used(tmp_path):
    (tmp_path / "fine.py").write_text(
        "import gevent, gevent.pool as gp\nfrom gevent.queue import Queue as Q\nimport eventlet\n"
        "gp.Pool(2); gevent.spawn(Q); eventlet.spawn_n(Q); gevent.version_info.major\n"
    )
    status, out, err = check(tmp_path)
    assert (status, err) == (0, "")
    homes = {words[1]: words[2] for words in map(str.split, out.splitlines()) if words[0] == "has"}
    assert homes["gevent.pool.Pool"] == "weald.pool.Pool" and homes["gevent.queue.Queue"] == "weald.queue.Queue"
    assert homes["gevent.spawn"] == "weald.spawn" and homes["eventlet.spawn_n"] == "weald.spawn_raw"


def test_what_weald_lacks_is_named_with_what_to_use_instead(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import gevent.queue\nfrom gevent.queue import ItemWaiter\n\ngevent.nonesuch()\n")
    status, out, _ = check(program)
    assert status == 1
    assert f"use weald.event.AsyncResult   (1 uses; {program}:2)" in out
    assert "LACKS    gevent.nonesuch" in out and f"{program}:4" in out


@pytest.mark.parametrize("name", ["nowhere", "no.where"])
def test_a_place_that_is_not_there(tmp_path, name):
    status, _, err = check(tmp_path / name)
    assert status == 1 and "neither a file" in err
