"""`weald celery … -P gevent`: Celery's gevent pool, which loses no task that acknowledges late, and no outcome."""

import signal

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery_worker import PATIENCE, crew, redis_url, start, store, wait_for, worker  # noqa: E402, F401

pytestmark = pytest.mark.timeout(300)


def holding(start, key, **settings):
    """A worker in which three tasks wait that acknowledge late."""
    worker = start(alias=True, concurrency=10, **settings)
    for _ in range(3):
        worker.send("late_hold", key)
    wait_for(lambda: len(worker.ask("active")) == 3)
    return worker


def test_interrupted_twice(start):
    worker = holding(start, "alias-twice")
    worker.process.send_signal(signal.SIGINT)
    wait_for(lambda: "Warm shutdown" in worker.text())
    assert worker.stop(signal.SIGINT) == 0, worker.text()
    assert worker.queued() == (3, 0)


def test_sigquit(start):
    worker = holding(start, "alias-quit")
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert worker.queued() == (3, 0)


def test_soft_shutdown(start):
    worker = holding(start, "alias-soft", worker_soft_shutdown_timeout=0.5)
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert "Soft Shutdown" in worker.text()
    assert worker.queued() == (3, 0)


def test_revoke(start):
    worker = start(alias=True, concurrency=10)
    result = worker.send("late_hold", "alias-revoke")
    wait_for(lambda: worker.ask("active"))
    result.revoke(terminate=True)
    wait_for(lambda: result.status == "REVOKED")
    wait_for(lambda: worker.queued() == (0, 0) and not worker.ask("active"))
    assert worker.send("add", 1, 2).get(timeout=PATIENCE) == 3


def test_store_goes_away_while_tasks_end(start, store):
    worker = start(environ={"BACKEND": store.url}, alias=True, concurrency=100)
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
