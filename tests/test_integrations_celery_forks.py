"""weald's Celery pool: tasks that start child processes, by each way Python has, and how these tasks end."""

import signal

import psutil
import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery.exceptions import TaskRevokedError, TimeLimitExceeded  # noqa: E402
from celery_worker import PATIENCE, crew, redis_url, start, wait_for, worker  # noqa: E402, F401
from helpers import run_patched  # noqa: E402

pytestmark = pytest.mark.timeout(300)

SQUARES = [0, 1, 4, 9]
KINDS = {  # the task's result
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


@each_kind
def test_normal_end(shared, kind):
    assert shared.send("children", *kind, "end").get(timeout=PATIENCE) == KINDS[kind]
    wait_for(lambda: not offspring(shared), what="the end of its children")


@each_kind
def test_exception(shared, kind):
    with pytest.raises(ValueError):
        shared.send("children", *kind, "fail").get(timeout=PATIENCE)
    wait_for(lambda: not offspring(shared), what="the end of its children")


@pytest.fixture(scope="module")
def staying(crew):
    """A worker for tasks whose children stay."""
    worker = crew.launch("staying", concurrency=40)
    yield worker
    crew.dismiss(worker, "staying")


def all_there(worker, **options):
    """A task of each kind whose children stay, once all are there."""
    results = {kind: worker.send("children", *kind, "stay", **options) for kind in KINDS}
    for result in results.values():
        wait_for(lambda result=result: worker.noted(f"{result.id}:there"))
    return results


@pytest.fixture(scope="module")
def limited(staying):
    """A task of each kind, all at the same time."""
    return {kind: staying.send("children", *kind, "stay", time_limit=2) for kind in KINDS}


@each_kind
def test_hard_limit(limited, kind):
    with pytest.raises(TimeLimitExceeded):
        limited[kind].get(timeout=PATIENCE)


@pytest.fixture(scope="module")
def revoked(staying):
    """A task of each kind, revoked while its children are there."""
    results = all_there(staying)
    wait_for(lambda: len(offspring(staying)) >= len(KINDS), what="children")
    for result in results.values():
        result.revoke(terminate=True)
    return results


@each_kind
def test_revoke(revoked, kind):
    with pytest.raises(TaskRevokedError):
        revoked[kind].get(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_worker_ends(start, number):
    """For children of each kind."""
    worker = start(concurrency=40, weald_shutdown_timeout=0.5)
    worker.ready()
    all_there(worker)
    wait_for(lambda: len(offspring(worker)) >= len(KINDS), what="children")
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert worker.stop(number) == 0, worker.text()
    wait_for(lambda: not [child for child in children if child.is_running() and child.status() != "zombie"],
             what="the end of all children")
    assert worker.queued() == (len(KINDS), 0)


def test_handler_of_the_childs_own(shared):
    assert shared.send("child_with_handler").get(timeout=PATIENCE) == 7
    assert shared.ask("ping")


def test_children_are_ended_once():
    """A stop and SIGQUIT may end them at the same time."""
    out = run_patched(
        """
        import logging, multiprocessing, sys, time, weald
        from weald.integrations.celery import forks
        logging.basicConfig(stream=sys.stdout, format="%(message).24s")
        context = multiprocessing.get_context("fork")
        children = [context.Process(target=time.sleep, args=(1000,)) for _ in range(3)]
        for child in children:
            child.start()
        weald.joinall([weald.spawn(forks.end_children) for _ in range(3)], raise_error=True)
        print([child.exitcode for child in children])
        """,
        stderr=None,
    )
    assert out == "ending 3 child processes\n[-15, -15, -15]\n"
