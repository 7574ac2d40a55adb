"""Celery's gevent pool on weald: it loses no task with `acks_late` and no outcome.

It is started by `weald celery … -P gevent` or, with weald installed as gevent, by `celery … -P gevent`.
"""

import os
import signal
import sys
import time

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery_worker import PATIENCE, crew, redis_url, start, store, wait_for, within  # noqa: E402, F401

from weald.compat import _distribution  # noqa: E402

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def as_ever(tmp_path):
    """Options for a worker that is started by `celery … -P gevent`, with weald installed as gevent."""
    _distribution.write(tmp_path / "site")
    path = f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}"
    arguments = ["-A", "celery_proj", "worker", "-c", "10", "-l", "INFO", "--without-mingle", "--without-gossip"]
    return {"command": [sys.executable, "-m", "celery", *arguments, "-P", "gevent"], "environ": {"PYTHONPATH": path}}


def test_what_is_cut_short_goes_back(start, as_ever):
    """Three tasks with `acks_late`, ended by a second Ctrl-C, by SIGQUIT, by the end of a soft shutdown.

    Celery's loop takes five seconds to end, so the three workers end at the same time.
    """
    twice = start(concurrency=10, task_soft_time_limit=60, **as_ever)
    quit = start(alias=True, concurrency=10)
    soft = start(alias=True, concurrency=10, worker_soft_shutdown_timeout=0.5)
    for worker in twice, quit, soft:
        for _ in range(3):
            worker.send("late_hold", "alias-held")
    for worker in twice, quit, soft:
        wait_for(lambda worker=worker: len(worker.ask("active")) == 3)
    text = twice.text()
    assert "Celery's gevent pool, run by weald: up to 10 tasks at once" in text
    assert "unacknowledged tasks that a shutdown ends go back to the queue" in text
    assert "settings: the soft time limit of add, arrive_late, arrive_never and" in text
    twice.process.send_signal(signal.SIGINT)
    quit.process.send_signal(signal.SIGQUIT)
    soft.process.send_signal(signal.SIGQUIT)
    wait_for(lambda: "Warm shutdown" in twice.text())
    twice.process.send_signal(signal.SIGINT)
    for worker in twice, quit, soft:
        assert worker.process.wait(PATIENCE) == 0, worker.text()
        assert worker.queued() == (3, 0)
    assert "Soft Shutdown" in soft.text()


def test_no_more_tasks_begin_after_sigterm(start):
    """Of those that were taken off Redis together, too: only the one that waits for a slot, as with gevent."""
    worker = start(alias=True, concurrency=2, worker_prefetch_multiplier=10)
    results = [worker.send("hold", "alias-sigterm") for _ in range(80)]
    wait_for(lambda: sum(result.status == "STARTED" for result in results) == 2)
    wait_for(lambda: worker.queued()[1] > 5)
    worker.tell(signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in worker.text())
    worker.notes.rpush("alias-sigterm", "go")
    assert worker.process.wait(PATIENCE) == 0, worker.text()
    done = sum(result.status == "SUCCESS" for result in results)
    assert 2 <= done <= 4
    assert worker.queued() == (80 - done, 0)


def test_revoke_and_a_prefetch_limit_of_one(start):
    """An acknowledgement makes room at once, not when Celery's loop checks again, two seconds later."""
    worker = start(alias=True, concurrency=1, worker_prefetch_multiplier=1)
    result = worker.send("late_hold", "alias-revoke")
    wait_for(lambda: worker.ask("active"))
    result.revoke(terminate=True)
    wait_for(lambda: result.status == "REVOKED")
    wait_for(lambda: worker.queued() == (0, 0) and not worker.ask("active"))
    assert worker.send("add", 1, 2).get(timeout=PATIENCE) == 3

    def ten():
        began, done = time.monotonic(), len(worker.noted("ten:ended"))
        for _ in range(10):
            worker.send("late_nap", 0, "ten")
        wait_for(lambda: len(worker.noted("ten:ended")) == done + 10)
        return time.monotonic() - began

    within(10, ten, tries=5)


def test_store_goes_away_while_tasks_end(start, store):
    worker = start(environ={"BACKEND": store.url}, alias=True, concurrency=100,
                   result_backend_max_sleep_between_retries_ms=500)
    worker.app.conf.result_backend = store.url
    results = [worker.send(name, "alias-away") for name in ("hold", "hold_and_fail") for _ in range(10)]
    wait_for(lambda: len(worker.ask("active")) == 20)
    store.stop()
    worker.notes.rpush("alias-away", "go")
    wait_for(lambda: "the result store is away" in worker.text())
    store.start()
    wait_for(lambda: not worker.ask("active"), what="the end of all")
    states = [worker.app.AsyncResult(result.id).status for result in results]
    assert states == ["SUCCESS"] * 10 + ["FAILURE"] * 10
    assert worker.stop() == 0
