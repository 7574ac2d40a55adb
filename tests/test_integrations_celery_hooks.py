"""weald's Celery pool: limits, revokes and cold stops work in a task's hooks and signal handlers, not just its body."""

import signal

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded  # noqa: E402
from celery_worker import PATIENCE, crew, redis_url, start, wait_for, worker  # noqa: E402, F401

BEFORE = ["task_prerun", "before_start", "__call__", "body"]  # the places before the outcome is known
FAILED = ["on_failure", "task_failure", "on_retry", "task_retry"]
DONE = ["on_success", "task_success", "after_return", "task_postrun"]  # the outcome is stored: it stays
HOWS = ["wait", "compute", "stubborn"]


@pytest.fixture(scope="module")
def shared(crew):
    worker = crew.launch("hooks", concurrency=50)
    yield worker
    crew.dismiss(worker, "hooks")


def there(worker, result):
    """Wait until the task is at the place where it spends its time."""
    wait_for(lambda: worker.noted(f"{result.id}:there"), what="the task")


def gone(worker, result):
    """Wait until the task runs no more."""
    wait_for(lambda: result.id not in {entry["id"] for entry in worker.ask("active")}, what="its end")


def failure(result):
    with pytest.raises(Exception) as caught:  # noqa: B017
        result.get(timeout=PATIENCE)
    return caught.value


@pytest.fixture(scope="module")
def limited(shared):
    """Tasks that do not compute, all at the same time, with a hard limit."""
    return {(place, how): shared.send("phased", place, how, time_limit=2)
            for place in BEFORE + FAILED + DONE for how in ("wait", "stubborn")}


@pytest.fixture(scope="module")
def limited_softly(shared):
    return {(place, "wait"): shared.send("phased", place, "wait", soft_time_limit=2) for place in BEFORE}


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("place", BEFORE + FAILED)
def test_hard_limit(shared, limited, place, how):
    result = limited.get((place, how)) or shared.send("phased", place, how, time_limit=1)
    there(shared, result)
    wait_for(lambda: isinstance(shared.app.AsyncResult(result.id).result, TimeLimitExceeded), what="the limit")
    gone(shared, result)
    assert f"Hard time limit ({1 if how == 'compute' else 2}s) exceeded for phased[{result.id}]" in shared.text()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("place", DONE)
def test_hard_limit_when_the_result_is_stored(shared, limited, place, how):
    """As with prefork, the hook ends and the result stays."""
    result = limited.get((place, how)) or shared.send("phased", place, how, time_limit=1)
    there(shared, result)
    gone(shared, result)
    assert result.get(timeout=PATIENCE) == "done"


@pytest.mark.parametrize("how", ["wait", "compute"])
@pytest.mark.parametrize("place", BEFORE)
def test_soft_limit(shared, limited_softly, place, how):
    result = limited_softly.get((place, how)) or shared.send("phased", place, how, soft_time_limit=1)
    there(shared, result)
    if place == "task_prerun":  # Celery logs what a handler raises, and goes on
        assert result.get(timeout=PATIENCE) == "done"
        assert "SoftTimeLimitExceeded" in shared.text()
    else:
        assert isinstance(failure(result), SoftTimeLimitExceeded)
    gone(shared, result)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("place", BEFORE)
def test_revoked(shared, place, how):
    result = shared.send("phased", place, how)
    there(shared, result)
    result.revoke(terminate=True)
    assert isinstance(failure(result), TaskRevokedError)
    gone(shared, result)


def test_hook_that_the_limit_itself_calls(shared):
    """The limit is recorded, then `on_failure` is called, which has no end."""
    result = shared.send("phased_late", "on_failure", "wait", time_limit=1)
    there(shared, result)
    gone(shared, result)
    assert isinstance(failure(result), TimeLimitExceeded)


@pytest.mark.worker(concurrency=20)
def test_cold_stop(worker):
    """For tasks at each place: the worker does not wait for them, and tasks with `acks_late` go back."""
    results = [worker.send("phased_late", place, how) for place in BEFORE for how in ("wait", "stubborn")]
    for result in results:
        there(worker, result)
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert worker.queued() == (len(results), 0)


def test_process_id(shared):
    """The worker's, as with prefork; and a job is found by it."""
    results = [shared.send("phased", "body", "wait") for _ in range(2)]
    for result in results:
        there(shared, result)
    found = {entry["id"]: entry["worker_pid"] for entry in shared.ask("active")}
    assert [found[result.id] for result in results] == [shared.process.pid] * 2
    results[0].revoke(terminate=True)
    gone(shared, results[0])
    assert results[1].id in {entry["id"] for entry in shared.ask("active")}
    results[1].revoke(terminate=True)
