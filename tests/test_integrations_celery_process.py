"""weald's Celery pool: shutdowns, stuck tasks, replacing the process, and other tests that need their own worker."""

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery import Celery  # noqa: E402
from celery.exceptions import TimeLimitExceeded  # noqa: E402
from celery_worker import HERE, PATIENCE, crew, databases, redis_url, start, wait_for, worker  # noqa: E402, F401
from helpers import python  # noqa: E402
from serving import has_ended  # noqa: E402


def value(result):
    return result.get(timeout=PATIENCE)


# -------------------------------------------------------------------- shutting down

@pytest.mark.worker(concurrency=4)
def test_sigquit_gives_back_tasks_that_acknowledge_late(worker):
    for _ in range(8):
        worker.send("late_nap", 300, "quit")
    wait_for(lambda: len(worker.noted("quit:began")) == 4)
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert worker.queued() == (8, 0)
    assert worker.noted("quit:ended") == []


@pytest.mark.worker(concurrency=2)
def test_sigterm_lets_the_running_end_and_gives_back_the_rest(worker):
    results = [worker.send("nap", 1) for _ in range(8)]
    wait_for(lambda: sum(result.status == "STARTED" for result in results) == 2)
    assert worker.stop() == 0, worker.text()
    assert worker.queued() == (6, 0)
    assert sum(result.status == "SUCCESS" for result in results) == 2


@pytest.mark.worker(concurrency=2, weald_shutdown_timeout=0.5)
def test_sigterm_within_a_bound(worker):
    """Of a task that waits, and of one that computes and catches everything."""
    for _ in range(3):
        worker.send("late_nap", 300, "bound")
    wait_for(lambda: len(worker.noted("bound:began")) == 2)
    assert worker.stop() == 0, worker.text()
    assert worker.queued() == (3, 0)
    assert worker.noted("bound:ended") == []


@pytest.mark.worker(concurrency=2, weald_shutdown_timeout=0.5, weald_stuck_timeout=1)
def test_sigterm_while_a_task_computes_and_catches_everything(worker):
    spinning = worker.send("stubborn_spin")
    wait_for(lambda: worker.noted(spinning.id))
    assert worker.stop() == 0, worker.text()


@pytest.mark.worker(concurrency=2, broker_transport_options={"visibility_timeout": 3})
def test_sigkill_loses_no_task_that_acknowledges_late(worker):
    """Redis: another worker has it after the visibility timeout."""
    sent = {worker.send("late_nap_once", "killed").id for _ in range(4)}
    wait_for(lambda: len(worker.noted("killed:began")) == 2)
    worker.process.kill()
    worker.process.wait()
    worker.notes.rpush("killed", "go")
    worker.launch()
    wait_for(lambda: set(worker.noted("killed:ended")) == sent)


# -------------------------------------------------------------------- the command, and the alias

@pytest.mark.parametrize(
    "options, implementation, banner",
    [
        ([], "weald.integrations.celery:TaskPool", "weald's own: up to 10 tasks at once"),
        (["-Pgevent"], "celery.concurrency.gevent:TaskPool", "Celery's gevent pool, run by weald"),
        (["-Pthreads"], "celery.concurrency.thread:TaskPool", "Celery's own (celery.concurrency.thread:TaskPool)"),
    ],
)
def test_the_command_and_the_pool_that_is_asked_for(start, options, implementation, banner):
    """`weald celery` with weald's pool, with `-Pgevent` (for which Celery alone does not patch), and with another."""
    command = [sys.executable, "-m", "weald", "celery", "-A", "celery_proj", "worker", *options, "-c", "10"]
    worker = start(command=[*command, "--without-mingle", "-l", "INFO"])
    results = [worker.send("meet_greenlets", "command", 10) for _ in range(10)]
    assert [value(result) for result in results] == [10] * 10
    assert worker.ask("stats")["pool"]["implementation"] == implementation
    assert f"[pool]\n  . {banner}" in worker.text()


@pytest.mark.parametrize(
    "arguments, implementation",
    [
        (["multi", "start", "detached"], "weald.integrations.celery:TaskPool"),
        (["worker", "-D", "-n", "detached@%h", "-P", "gevent"], "celery.concurrency.gevent:TaskPool"),
    ],
)
def test_workers_that_detach(redis_url, tmp_path, arguments, implementation):
    """Celery starts another process for each, which has to run on weald, too."""
    broker = f"{redis_url}/{next(databases)}"
    pid_file, log = tmp_path / "pid", tmp_path / "log"
    files = [f"--pidfile={pid_file}", f"--logfile={log}"]
    done = subprocess.run(
        [sys.executable, "-m", "weald", "celery", "-A", "celery_proj", *arguments, *files, "-l", "INFO", "-c", "7"],
        cwd=HERE, env={**os.environ, "BROKER": broker, "BACKEND": broker, "NOTES": broker, "SETTINGS": "{}"},
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(lambda: log.exists() and " ready." in log.read_text(), what="the worker")
    pid = int(pid_file.read_text())
    try:
        with Celery("client", broker=broker, set_as_current=False) as app:
            stats = wait_for(app.control.inspect(limit=1).stats)
        assert [stats["pool"]["implementation"] for stats in stats.values()] == [implementation]
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_for(lambda: has_ended(pid))


@pytest.mark.worker(
    "--soft-time-limit=9000", "--time-limit=8000", concurrency=1, weald_preempt_afer=1, worker_prefetch_multiplier=0,
    broker_pool_limit=0, task_acks_late=True, worker_cancel_long_running_tasks_on_connection_loss=True,
)
def test_settings_that_contradict_the_pools_promises(worker):
    """The worker starts, and its log says which they are, in a sentence each."""
    worker.ready()
    said = [line.partition("settings: ")[2] for line in worker.text().splitlines() if "settings: " in line]
    for part in ("there is no weald_preempt_afer; weald's settings are", "no more than 1 tasks run at once",
                 "worker_prefetch_multiplier is 0", "broker_pool_limit is 0", "never raised",
                 "worker_cancel_long_running_tasks_on_connection_loss is on",
                 "visibility_timeout is 3600 s, no longer than the time limit of add, arrive_late, arrive_never and"):
        assert [part in line for line in said].count(True) == 1, (part, said)


# -------------------------------------------------------------------- connections

COMMAND = [sys.executable, "-m", "celery", "-A", "celery_proj", "worker", "-P", "custom", "-l", "INFO"]


@pytest.mark.worker(command=[*COMMAND, "-c", "501", "-E"])
def test_redis_connections(worker):
    """500 tasks that end together, with gossip, mingle, events and remote control as Celery has them by default.

    Without the pool's care there is a connection for each.
    """
    results = [worker.send("wait_at_gate") for _ in range(500)]
    wait_for(lambda: worker.pool()["running"] == 500)
    wait_for(lambda: len(worker.connections()) <= 10, what="the end of the connections for the start")
    worker.send("open_gate")
    most = []
    while results:
        while results and results[-1].ready():
            results.pop()
        most = max(most, [client["cmd"] for client in worker.connections()], key=len)
    assert 0 < len(most) <= 10, " ".join(most)


# -------------------------------------------------------------------- size and replacement

@pytest.mark.worker("--autoscale=6,1", environ={"AUTOSCALE_KEEPALIVE": "1"})
def test_autoscale(worker):
    results = [worker.send("hold", "autoscale") for _ in range(6)]
    wait_for(lambda: worker.pool()["running"] == 6)
    worker.notes.rpush("autoscale", "go")
    for result in results:
        value(result)
    wait_for(lambda: worker.pool()["max-concurrency"] == 1)


def test_pool_restart_and_embedded_beat(start, tmp_path):
    """Tasks that run go on; those that come run a reloaded module's code."""
    module = tmp_path / "reloaded.py"
    code = "def version():\n    return {}\n"
    module.write_text(code.format(1))
    environ = {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}", "PYTHONDONTWRITEBYTECODE": "1"}
    schedule = {"tick": {"task": "tick", "schedule": 0.2, "args": ["beat"]}}
    worker = start("-I", "reloaded", "-B", "-s", str(tmp_path / "beat"), environ=environ, worker_pool_restarts=True,
                   beat_schedule=schedule)
    assert value(worker.send("version")) == 1
    running = worker.send("hold", "restart")
    wait_for(lambda: running.status == "STARTED")
    module.write_text(code.format(22))
    worker.ask("ping")
    reply = worker.app.control.pool_restart(modules=["reloaded"], reload=True, reply=True, timeout=PATIENCE, limit=1)
    assert next(iter(reply[0].values())) == {"ok": "reload started"}
    assert value(worker.send("version")) == 22
    worker.notes.rpush("restart", "go")
    value(running)
    wait_for(lambda: len(worker.noted("beat")) >= 3, what="beat")


@pytest.mark.worker("--max-tasks-per-child=10", concurrency=2)
def test_max_tasks_per_child_and_hangup(worker):
    """The process is replaced after so many tasks, or when told to, and no message is lost."""
    results = [worker.send("nap", 0.05) for _ in range(25)]
    assert sum(value(result) for result in results) == pytest.approx(1.25)
    wait_for(lambda: worker.starts() == 3)
    pool = worker.pool()
    assert pool["recycles"] == 2 and pool["max-tasks-per-child"] == 10
    worker.tell(signal.SIGHUP)
    wait_for(lambda: worker.starts() == 4)
    assert value(worker.send("pid")) == worker.process.pid
    assert worker.pool()["recycles"] == 3
    assert worker.stop() == 0
    assert worker.queued() == (0, 0)


@pytest.mark.worker("--max-tasks-per-child=1", concurrency=2)
@pytest.mark.parametrize("number, says", [(signal.SIGTERM, "Warm shutdown"), (signal.SIGQUIT, "Cold shutdown")])
def test_a_worker_that_is_told_to_stop_while_it_is_being_replaced_ends(worker, number, says):
    key = f"being replaced, {number}"
    running = worker.send("hold", key)
    wait_for(lambda: running.status == "STARTED")
    value(worker.send("nap", 0))
    wait_for(lambda: "will be replaced" in worker.text())
    worker.tell(number)
    wait_for(lambda: says in worker.text())
    worker.notes.rpush(key, "go")
    assert worker.process.wait(PATIENCE) == 0
    assert worker.starts() == 1


@pytest.mark.worker("--max-tasks-per-child=2", concurrency=2)
def test_a_worker_that_stops_is_not_replaced_by_its_last_tasks(worker):
    running = [worker.send("hold", "stops") for _ in range(2)]
    wait_for(lambda: all(result.status == "STARTED" for result in running))
    worker.tell(signal.SIGTERM)
    wait_for(lambda: "Warm shutdown" in worker.text())
    worker.notes.rpush("stops", "go")
    assert worker.process.wait(PATIENCE) == 0
    assert worker.starts() == 1


@pytest.mark.worker("--max-memory-per-child=150000", concurrency=2)
def test_max_memory_per_child(worker):
    before = worker.send("grab", 120)
    after = [worker.send("nap", 1.2) for _ in range(3)]
    assert value(before) == worker.process.pid
    assert [value(result) for result in after] == [1.2] * 3
    assert worker.pool()["recycles"] == 1


@pytest.mark.worker(concurrency=1, weald_stuck_timeout=1.5)
def test_c_code_that_never_returns(worker):
    """The log names it, the process is replaced, the task has failed, and waiting tasks run."""
    stuck = worker.send("stuck", time_limit=0.5)
    others = [worker.send("add", 1, number) for number in range(3)]
    wait_for(lambda: worker.starts() == 2)
    assert [value(result) for result in others] == [1, 2, 3]
    with pytest.raises(TimeLimitExceeded):
        value(stuck)
    assert "in stuck\n" in worker.text() and "is still in C code" in worker.text()
    assert worker.pool()["recycles"] == 1


@pytest.mark.worker(concurrency=1, weald_stuck_timeout=6)
def test_sigterm_while_a_task_is_stuck_in_c(worker):
    """No handler can run then, and the process is not replaced all the same."""
    worker.send("stuck_later", "stuck now", 0, time_limit=0.5)
    wait_for(lambda: worker.noted("stuck now"))
    wait_for(lambda: not worker.app.control.ping(timeout=1, limit=1), what="a loop that stands still")
    worker.tell(signal.SIGTERM)
    assert worker.process.wait(PATIENCE) == 1
    assert worker.starts() == 1 and "is still in C code" in worker.text()


@pytest.mark.worker(concurrency=4, weald_stuck_timeout=0.5)
def test_c_code_that_keeps_the_gil_ends_the_process(worker):
    worker.send("stuck_with_gil", time_limit=0.5)
    assert worker.process.wait(PATIENCE) == 1
    assert "in stuck_with_gil" in worker.text()


@pytest.mark.worker(concurrency=1, weald_stuck_timeout=0.5)
def test_sigterm_and_then_a_task_is_stuck_in_c(worker):
    """The process ends and is not replaced; waiting tasks go back to the queue."""
    stuck = worker.send("stuck_later", "later", 1, time_limit=2)
    worker.send("add", 1, 2)
    wait_for(lambda: worker.noted("later"))
    worker.tell(signal.SIGTERM)
    assert worker.process.wait(PATIENCE) == 1
    with pytest.raises(TimeLimitExceeded):
        value(stuck)
    assert worker.queued() == (1, 0) and worker.starts() == 1


def test_a_job_that_has_ended_is_freed():
    """Although Celery's request, which the job has, keeps the process id that it got for the job."""
    out = python(
        """
        import gc, weakref, weald, weald.monkey
        weald.monkey.patch_all()
        from weald.integrations.celery import TaskPool
        class Request:
            def on_accepted(self, pid, began):
                self.worker_pid = pid
        pool = TaskPool(10)
        pool.start()
        jobs = [weakref.ref(pool.apply_async(int, accept_callback=Request().on_accepted)) for _ in range(20)]
        while pool.running or pool.waiting:
            weald.sleep(0)
        weald.sleep(0)
        gc.collect()
        print(len([job for job in jobs if job() is not None]))
        pool.stop()
        """
    )
    assert out == "0\n"
