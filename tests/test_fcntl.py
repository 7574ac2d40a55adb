"""File locks: waiting for one parks, so that the greenlet or process that has it can release it."""

import errno
import fcntl as stdlib
import subprocess
import sys
from contextlib import contextmanager

import pytest

import weald
from weald import fcntl, os

HOLDER = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "locked"
    path.touch()
    return path


@contextmanager
def a_process_that_has(path):
    """Yields a function that makes the holder release the lock."""
    holder = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        try:
            yield process.stdin.close
        finally:
            process.kill()


def test_flock_waits_for_a_greenlet(path):
    order = []

    def use(name):
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            order.append(f"{name} begins")
            weald.sleep(0.001)
            order.append(f"{name} ends")
            fcntl.flock(file, fcntl.LOCK_UN)

    weald.joinall([weald.spawn(use, name) for name in "abc"], raise_error=True)
    assert sorted(order[::2]) == ["a begins", "b begins", "c begins"]
    assert [end.replace("ends", "begins") for end in order[1::2]] == order[::2]


@pytest.mark.parametrize(
    "lock",
    [
        lambda file: fcntl.lockf(file, fcntl.LOCK_EX),
        lambda file: fcntl.lockf(file, fcntl.LOCK_EX, 1, 0, 0),
        lambda file: os.lockf(file.fileno(), os.F_LOCK, 0),
    ],
    ids=["lockf", "lockf of a byte", "os.lockf"],
)
def test_others_run_while_a_process_has_the_lock(path, lock):
    with a_process_that_has(path) as release, path.open("r+") as file:
        waiting = weald.spawn(lock, file)
        weald.sleep(0)
        assert not waiting.dead
        release()
        waiting.get()


def test_who_is_killed_meanwhile_has_no_lock(path):
    with path.open() as first, path.open() as second, path.open() as third:
        fcntl.flock(first, fcntl.LOCK_EX)
        waiting = weald.spawn(fcntl.flock, second, fcntl.LOCK_EX)
        weald.sleep(0)
        waiting.kill()
        fcntl.flock(first, fcntl.LOCK_UN)
        stdlib.flock(third, stdlib.LOCK_EX | stdlib.LOCK_NB)


def test_what_does_not_wait_is_the_stdlibs(path):
    with path.open("r+") as first, path.open("r+") as second:
        fcntl.flock(first, fcntl.LOCK_SH)
        fcntl.flock(second, fcntl.LOCK_SH)
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with a_process_that_has(path), pytest.raises(OSError) as caught:
            os.lockf(first.fileno(), os.F_TLOCK, 0)
        assert caught.value.errno in (errno.EACCES, errno.EAGAIN)
        with pytest.raises(TypeError):
            fcntl.flock(first, "exclusively")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="lockf"):
            fcntl.lockf(first, 64)
    with pytest.raises(ValueError, match="closed file"):
        fcntl.flock(first, fcntl.LOCK_EX)
    for lock in (fcntl.flock, fcntl.lockf):
        with pytest.raises(OSError) as bad:
            lock(999, fcntl.LOCK_EX)
        assert bad.value.errno == errno.EBADF
    assert fcntl.F_GETFL == stdlib.F_GETFL and fcntl.fcntl is stdlib.fcntl
