"""weald's Celery pool: tasks that have children, in every way there is, and how they end."""

import signal

import psutil
import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery.exceptions import TaskRevokedError, TimeLimitExceeded  # noqa: E402
from celery_worker import PATIENCE, crew, redis_url, start, wait_for, worker  # noqa: E402, F401

pytestmark = pytest.mark.timeout(300)

SQUARES = [0, 1, 4, 9]
KINDS = {  # what the task returns
    ("by_hand", None): 9,
    ("subprocess", None): 9,
    **{("process", method): 0 for method in ("fork", "spawn", "forkserver")},
    **{("pool", method): SQUARES for method in ("fork", "spawn", "forkserver")},
    **{("manager", method): [1, 2, 3] for method in ("fork", "spawn")},
    **{("executor", method): SQUARES for method in ("fork", "spawn", "forkserver")},
    ("billiard", "fork"): SQUARES,
}
IDS = ["-".join(filter(None, kind)) for kind in KINDS]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=IDS)


@pytest.fixture(scope="module")
def shared(crew):
    worker = crew.launch("forks")
    yield worker
    crew.dismiss(worker, "forks")


def offspring(worker):
    """The worker's children, but for multiprocessing's own helpers, which end with it."""
    found = []
    for child in psutil.Process(worker.process.pid).children(recursive=True):
        try:
            command = " ".join(child.cmdline())
            helps = child.ppid() == worker.process.pid and ("resource_tracker" in command or "forkserver" in command)
            if child.status() != psutil.STATUS_ZOMBIE and not helps:
                found.append(child)
        except psutil.NoSuchProcess:
            pass
    return found


def there(worker, kind):
    """Start a task whose children stay; wait until they are there."""
    result = worker.send("children", *kind, "stay")
    wait_for(lambda: worker.noted(f"{result.id}:there"))
    wait_for(lambda: offspring(worker), what="children")
    return result


@each_kind
def test_normal_end(shared, kind):
    assert shared.send("children", *kind, "end").get(timeout=PATIENCE) == KINDS[kind]
    wait_for(lambda: not offspring(shared), what="the end of its children")


@each_kind
def test_exception(shared, kind):
    with pytest.raises(ValueError):
        shared.send("children", *kind, "fail").get(timeout=PATIENCE)
    wait_for(lambda: not offspring(shared), what="the end of its children")


@each_kind
def test_hard_limit(shared, kind):
    result = shared.send("children", *kind, "stay", time_limit=2)
    with pytest.raises(TimeLimitExceeded):
        result.get(timeout=PATIENCE)


@each_kind
def test_revoke(shared, kind):
    result = there(shared, kind)
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
@each_kind
def test_worker_ends(start, kind, number):
    worker = start(concurrency=4, weald_shutdown_timeout=0.5)
    worker.ready()
    there(worker, kind)
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert worker.stop(number) == 0, worker.text()
    wait_for(lambda: not [child for child in children if child.is_running() and child.status() != "zombie"],
             what="the end of all children")
    assert worker.queued() == (1, 0)


def test_handler_of_the_childs_own(shared):
    assert shared.send("child_with_handler").get(timeout=PATIENCE) == 7
    assert shared.ask("ping")
