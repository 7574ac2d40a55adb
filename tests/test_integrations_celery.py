"""weald's Celery pool on Redis: limits, revokes, control, canvas, what it reports.

Most tests share one worker (`shared`, with 20 slots) or another with a single slot (`narrow`).  Tests that end or
replace a worker are in test_integrations_celery_process.py, AMQP in test_integrations_celery_amqp.py, fetching messages
in test_integrations_celery_fetch.py.
"""

import subprocess
import sys
import time

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import celery  # noqa: E402
from celery import chain, chord, group  # noqa: E402
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded, WorkerLostError  # noqa: E402
from celery_worker import PATIENCE, TRIES, Events, crew, redis_url, wait_for, within  # noqa: E402, F401

from weald.integrations.celery_command import arrange  # noqa: E402


@pytest.fixture(scope="module")
def shared(crew, narrow):
    worker = crew.launch("shared", "-E")
    yield worker
    crew.dismiss(worker, "shared")


@pytest.fixture(scope="module")
def narrow(crew):
    """It has one slot and prefetches four messages."""
    worker = crew.launch("narrow", concurrency=1)
    yield worker
    crew.dismiss(worker, "narrow")


def failure(result):
    """The exception that the task failed with."""
    with pytest.raises(BaseException) as caught:  # noqa: B017  (Timeout is no Exception)
        result.get(timeout=PATIENCE)
    return caught.value


def value(result):
    return result.get(timeout=PATIENCE)


def free(worker):
    """Wait until nothing runs."""
    wait_for(lambda: (pool := worker.pool())["running"] == pool["waiting"] == 0, what="the end of all tasks")


# -------------------------------------------------------------------- limits

@pytest.mark.parametrize(
    "name", ["soft", "soft_spin", "arrive_late", "soft_in_a_coroutine", "soft_spin_in_a_coroutine"]
)
def test_soft_limit_within_a_tenth_of_a_second(shared, name):
    """In a task that waits, one that computes, a coroutine."""

    def late():
        took = shared.send(name, soft_time_limit=0.3).get(timeout=PATIENCE, propagate=False)
        # The limit begins before the body does; on a slow machine it may be over by then.
        return took - 0.3 if isinstance(took, float) and took > 0.1 else 99

    within(0.1, late)


def test_soft_limit_that_the_task_does_not_catch(shared):
    assert isinstance(failure(shared.send("nap", 30, soft_time_limit=0.2)), SoftTimeLimitExceeded)


@pytest.mark.parametrize("name", ["ignore_soft", "ignore_soft_in_a_coroutine"])
def test_soft_limit_that_the_task_ignores(shared, name):
    """The hard limit then ends it; without one, its result is stored."""
    assert value(shared.send(name, 0.5, soft_time_limit=0.1)) == "finished"
    assert isinstance(failure(shared.send(name, 30, soft_time_limit=0.1, time_limit=0.4)), TimeLimitExceeded)


@pytest.mark.parametrize("name", ["soft_in_c", "soft_in_c_in_a_coroutine"])
def test_soft_limit_in_c_code(shared, name):
    """It is raised when the code in C returns."""
    calls, error = value(shared.send(name, 0.4, soft_time_limit=0.2))
    assert (calls, error) == (1, "SoftTimeLimitExceeded")


def test_soft_limit_in_an_except_clause(shared):
    """It is raised there, too, and `finally` clauses run."""
    result = shared.send("wait_in_except", "excepted", soft_time_limit=0.2)
    assert isinstance(failure(result), SoftTimeLimitExceeded) and shared.noted("excepted") == ["finally"]


@pytest.mark.parametrize("name", ["stubborn", "stubborn_in_a_coroutine"])
def test_hard_limit_ends_a_task_that_catches_everything(shared, name):
    told = celery.VERSION >= (5, 7)  # before, Celery sends no event of that
    with Events(shared) as events:
        result = shared.send(name, name, time_limit=0.5)
        assert isinstance(failure(result), TimeLimitExceeded)
        if told:
            events.of(result, "task-failed")
        wait_for(lambda: result.id not in {entry["id"] for entry in shared.ask("active")})
        caught = len(shared.noted(name))
        after = shared.send("nap", 0.3)
        assert value(after)
        events.of(after, "task-succeeded")
    assert len(shared.noted(name)) == caught  # it runs no more
    assert events.types[result.id].count("task-failed") == told and "task-succeeded" not in events.types[result.id]
    assert shared.text().count(f"Hard time limit (0.5s) exceeded for {name}[{result.id}]") == 1


@pytest.mark.parametrize("name", ["spin", "stubborn_spin", "spin_in_a_coroutine", "stubborn_spin_in_a_coroutine"])
def test_hard_limit_ends_a_task_that_computes_while_others_go_on(shared, name):
    gone_on = []

    def late():
        spinning = shared.send(name, time_limit=1.0)
        other = shared.send("nap", 0.2)
        assert value(other) == 0.2
        gone_on.append(not spinning.ready())
        assert isinstance(failure(spinning), TimeLimitExceeded)
        took = spinning.date_done.timestamp() - float(shared.noted(spinning.id)[0])
        return took - 1.0 if took > 0.8 else 99

    within(0.5, late)
    while not any(gone_on):
        assert len(gone_on) < TRIES, "no other task ran while this one computed"
        late()
    assert value(shared.send("add", 1, 2)) == 3


@pytest.mark.parametrize("at_once", [True, False])
def test_a_task_whose_greenlet_the_program_kills_fails(shared, at_once):
    assert type(failure(shared.send("kill_oneself", at_once))).__name__ == "GreenletExit"
    assert value(shared.send("add", 1, 2)) == 3


def test_own_timeout_is_a_failure_of_its_own(shared):
    import weald

    for options in {}, {"time_limit": 20}:
        result = shared.send("own_timeout", **options)
        error = failure(result)
        assert isinstance(error, weald.Timeout) and error.seconds == 0.1
        assert result.status == "FAILURE" and "own_timeout" in result.traceback


@pytest.mark.parametrize("where", ["", "_in_a_coroutine"])
@pytest.mark.parametrize("name, error", [("leave", WorkerLostError), ("memory", MemoryError)])
def test_exceptions_that_celery_does_not_trace_are_recorded(shared, name, error, where):
    assert isinstance(failure(shared.send(name + where)), error)
    assert value(shared.send("called")) == "awaited"  # the loop goes on


def test_hard_limit_of_a_coroutine(shared):
    """In one that catches everything; `finally` clauses may await."""
    assert isinstance(failure(shared.send("arrive_never", time_limit=0.3)), TimeLimitExceeded)
    result = shared.send("cleanup_in_a_coroutine", "cleaned up", time_limit=0.3)
    assert isinstance(failure(result), TimeLimitExceeded)
    wait_for(lambda: shared.noted("cleaned up") == ["finally"])


# -------------------------------------------------------------------- retries, canvas

def test_retries_within_limits(shared):
    """Each attempt has the limit of its own, and a limit that is hit can be retried."""

    def persevere(seconds):  # each attempt takes half of its limit, all together twice as much
        return shared.send("persevere", 3, seconds, soft_time_limit=2 * seconds).get(timeout=PATIENCE, propagate=False)

    # Again if the machine was too slow for that.
    assert 3 in map(persevere, (0.15, 1.5, 15))
    assert value(shared.send("retry_on_limit", soft_time_limit=0.2)) == 2


def test_a_coroutine_is_tried_again_as_its_decorator_says(shared):
    assert value(shared.send("retry_by_itself", 0)) == 2
    assert value(shared.send("retry_by_itself", 60, soft_time_limit=0.2)) == 2


def signature(worker, name, *args, **options):
    return worker.app.signature(name, args, app=worker.app, **options)


def test_canvas_with_limits(shared):
    """Chains, groups and chords whose parts hit a limit, or do not."""
    quick = [signature(shared, "nap", 0.01 * number, soft_time_limit=20, time_limit=30) for number in range(5)]
    slow = signature(shared, "nap", 30, time_limit=0.3)
    late = signature(shared, "nap", 30, soft_time_limit=0.3)
    total = signature(shared, "total")
    assert value(chord(quick, total, app=shared.app).apply_async()) == pytest.approx(0.1)
    assert value(chain(quick[1], signature(shared, "add", 1), app=shared.app).apply_async()) == pytest.approx(1.01)
    assert isinstance(failure(chain(slow, signature(shared, "add", 1), app=shared.app).apply_async().parent),
                      TimeLimitExceeded)
    outcome = group([*quick, slow, late], app=shared.app).apply_async()
    wait_for(outcome.ready)
    assert [result.status for result in outcome.results] == ["SUCCESS"] * 5 + ["FAILURE"] * 2
    broken = chord([*quick, late], total, app=shared.app).apply_async()
    assert "SoftTimeLimitExceeded" in repr(failure(broken))


# -------------------------------------------------------------------- revoking, control, contexts

@pytest.mark.parametrize("name", ["stubborn", "stubborn_in_a_coroutine"])
def test_revoked_task_is_revoked_only(shared, name):
    """Also when it is revoked twice."""
    with Events(shared) as events:
        result = shared.send(name, "revoked")
        wait_for(lambda: result.status == "STARTED")
        result.revoke(terminate=True)
        result.revoke(terminate=True)
        assert isinstance(failure(result), TaskRevokedError)
        events.of(result, "task-revoked")
        free(shared)
        after = shared.send("nap", 0.1)
        events.of(after, "task-succeeded")
    ends = [event for event in events.types[result.id] if event not in ("task-received", "task-started")]
    assert set(ends) == {"task-revoked"}
    assert result.status == "REVOKED"


@pytest.mark.parametrize("name", ["burn", "burn_in_a_coroutine"])
def test_control_is_answered_while_a_task_computes(shared, name):
    result = shared.send(name, 3)
    wait_for(lambda: result.status == "STARTED")

    def answer():
        nonlocal result
        if result.ready():
            result = shared.send(name, 3)
            wait_for(lambda: result.status == "STARTED")
        began = time.monotonic()
        assert shared.ask("ping") == {"ok": "pong"}
        took = time.monotonic() - began
        return took if not result.ready() else 99

    for _ in range(3):
        within(0.5, answer)
    assert value(result) == "burnt"


def test_each_task_has_a_fresh_context(shared):
    results = [shared.send("context", str(number)) for number in range(30)]
    assert [value(result) for result in results] == [["fresh", str(number)] for number in range(30)]


def test_coroutines_run_at_the_same_time(shared):
    results = [shared.send("meet", "arrive", 10) for _ in range(10)]
    assert [value(result) for result in results] == [[True, "fresh"]] * 10


def test_coroutines_run_on_the_workers_own_loop(shared):
    """In the main thread; all on one loop, that of await_; tasks called by coroutines can be awaited."""
    first, second = value(shared.send("where")), value(shared.send("where"))
    assert first == second and first[0] == shared.process.pid and first[2:] == ["awaited", True]
    assert value(shared.send("where_await")) == first[1]


def test_statistics(shared):
    free(shared)
    before = shared.pool()
    running = [shared.send("hold", "statistics") for _ in range(20)]
    waiting = [shared.send("nap", 0) for _ in range(5)]
    stats = wait_for(lambda: (found := shared.pool())["waiting"] == 5 and found)
    assert stats["running"] == stats["max-concurrency"] == 20
    assert stats["longest-running"]["name"] == "hold" and stats["longest-running"]["seconds"] >= 0
    assert stats["loop-lag"] >= 0 and stats["worst-loop-lag"] >= stats["loop-lag"] and stats["recycles"] == 0
    shared.notes.rpush("statistics", "go")
    for result in running + waiting:
        value(result)
    wait_for(shared.send("soft", soft_time_limit=0.1).ready)
    failure(shared.send("nap", 30, time_limit=0.1))
    free(shared)
    after = shared.pool()
    assert {name: after["limits-hit"][name] - before["limits-hit"][name] for name in ("soft", "hard")} == {
        "soft": 1, "hard": 1,
    }
    assert after["tasks-run"] == before["tasks-run"] + 27 and after["longest-running"] is None


# -------------------------------------------------------------------- one slot

def test_a_full_pool_does_not_hold_up_the_consumer(narrow):
    """Remote control is answered, and waiting tasks can be revoked, also twice.  (Heartbeats are AMQP's.)"""
    long = narrow.send("hold", "narrow")
    wait_for(lambda: long.status == "STARTED")
    others = [narrow.send("add", 1, number) for number in range(3)]
    wait_for(lambda: narrow.pool()["waiting"] == 3)

    def answer():
        began = time.monotonic()
        assert narrow.ask("ping")
        return time.monotonic() - began

    within(0.5, answer)
    assert len(narrow.ask("reserved")) == 3 and len(narrow.ask("active")) == 1
    others[1].revoke(terminate=True)
    others[1].revoke()
    wait_for(lambda: others[1].id in narrow.ask("revoked"))
    narrow.notes.rpush("narrow", "go")
    assert isinstance(failure(others[1]), TaskRevokedError)
    assert [value(others[0]), value(others[2])] == [1, 3]


def test_tasks_that_expire_while_they_wait_are_not_run(narrow):
    long = narrow.send("hold", "expiry")
    wait_for(lambda: long.status == "STARTED")
    due = time.time() + 1
    late, other = narrow.send("tick", "expired", expires=1), narrow.send("add", 1, 2)
    wait_for(lambda: narrow.pool()["waiting"] == 2)
    wait_for(lambda: time.time() > due)
    narrow.notes.rpush("expiry", "go")
    assert isinstance(failure(late), TaskRevokedError) and value(other) == 3
    assert narrow.noted("expired") == []


def test_countdowns_with_a_full_pool(narrow):
    """A task whose time has come while the pool is full runs once there is room, and none before its time."""
    long = narrow.send("hold", "countdowns")
    wait_for(lambda: long.status == "STARTED")
    due = time.time() + 1
    later = [narrow.send("now", eta=None, countdown=1) for _ in range(6)]
    wait_for(lambda: time.time() > due and narrow.pool()["waiting"] == 6)
    narrow.notes.rpush("countdowns", "go")
    assert all(value(result) >= due - 0.05 for result in later)


def test_rate_limit(narrow):
    """Ten tasks at twenty a second take half a second at least."""
    reply = narrow.app.control.rate_limit("now", "20/s", reply=True, timeout=PATIENCE, limit=1)
    assert "new rate limit set" in str(reply)
    times = sorted(value(result) for result in [narrow.send("now") for _ in range(10)])
    narrow.app.control.rate_limit("now", "0", reply=True, timeout=PATIENCE, limit=1)
    assert times[-1] - times[0] >= 0.3


def test_grow_and_shrink(narrow):
    free(narrow)
    results = [narrow.send("hold", "grown") for _ in range(5)]
    wait_for(lambda: narrow.pool()["waiting"] == 4)
    narrow.app.control.pool_grow(3)
    assert wait_for(lambda: (pool := narrow.pool())["running"] == 4 and pool)["max-concurrency"] == 4
    narrow.app.control.pool_shrink(3)
    pool = wait_for(lambda: (pool := narrow.pool())["max-concurrency"] == 1 and pool)
    assert pool["running"] == 4  # those that run go on
    narrow.app.control.pool_shrink(5)  # refused: one slot stays
    narrow.notes.rpush("grown", "go")
    for result in results:
        value(result)
    wait_for(lambda: narrow.pool()["running"] == 0)
    assert narrow.pool()["max-concurrency"] == 1


# -------------------------------------------------------------------- the command

@pytest.mark.parametrize(
    "given, made",
    [
        ("-A proj worker -c 9", ("-A proj worker -c 9 -P custom", "weald")),
        ("-A proj worker -P weald", ("-A proj worker -P custom", "weald")),
        ("-A proj worker -Pgevent -c 9", ("-A proj worker -c 9 -P gevent", "gevent")),
        ("-A proj worker --pool=gevent", ("-A proj worker -P gevent", "gevent")),
        ("-A proj worker -P prefork", ("-A proj worker -P prefork", "prefork")),
        ("-A proj inspect ping", ("-A proj inspect ping", None)),
        ("multi start 2 -A proj", ("multi start 2 -A proj --cmd=-m weald celery worker --detach", None)),
        ("multi show 2 -- -c 9", ("multi show 2 --cmd=-m weald celery worker --detach -- -c 9", None)),
        ("multi restart worker --cmd=x", ("multi restart worker --cmd=x", None)),
        ("multi stop worker", ("multi stop worker", None)),
        ("-A multi worker", ("-A multi worker -P custom", "weald")),
    ],
)
def test_arguments_of_the_command(given, made):
    arguments, pool = arrange(given.split())
    assert (" ".join(arguments), pool) == made


@pytest.mark.parametrize("of", [[], ["worker"]])
def test_help_shows_the_command_that_was_given(of):
    done = subprocess.run(
        [sys.executable, "-m", "weald", "celery", *of, "--help"], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(" ".join(["Usage: weald celery", *of, "["])), done.stdout


def test_without_celery_the_command_says_what_to_install():
    code = "import sys; sys.modules.update(celery=None, kombu=None); import weald.__main__ as it; it.main()"
    for arguments in (["--help"], ["-A", "proj", "worker"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "celery", *arguments], capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.startswith("weald celery needs Celery 5.5 or later") and "weald[celery]" in done.stderr
        assert "Traceback" not in done.stderr
