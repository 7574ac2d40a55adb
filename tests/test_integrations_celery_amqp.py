"""weald's Celery pool on a real RabbitMQ: heartbeats, reconnecting, shutdowns.

Faults are in test_integrations_celery_faults.py.

With `WEALD_FULL_LENGTH=1` test_heartbeats_go_on_with_a_full_pool takes two minutes: heartbeats of 5 s, tasks of 30 s.
"""

import os
import signal

import psutil
import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery_worker import PATIENCE, Proxy, crew, rabbitmq, redis_url, start, wait_for, worker  # noqa: E402, F401


@pytest.fixture(scope="module")
def beats(crew, rabbitmq):
    """Started first and checked last: the worker of the heartbeats, and how many tasks it has."""
    full = os.environ.get("WEALD_FULL_LENGTH") == "1"
    worker = crew.launch("beats", concurrency=1, broker=rabbitmq.url, queue="beats",
                         broker_heartbeat=5 if full else 2, worker_prefetch_multiplier=4)
    lengths = [30, 30, 30, 30, 0] if full else [6, 0, 0.1, 0.1, 0.1]
    for seconds in lengths:
        worker.send("late_nap", seconds, "beats")
    yield worker, len(lengths), sum(lengths)
    crew.dismiss(worker, "beats")


def amqp(start, url, queue, *args, **options):
    """A worker on AMQP with a queue of its own."""
    return start(*args, broker=url, queue=queue, **options)


def test_reconnecting_leaves_no_timers_and_what_runs_twice_can_be_revoked(start, beats, rabbitmq):
    proxy = Proxy(rabbitmq.port)
    url = rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port))
    worker = amqp(start, rabbitmq.url, "timers", "-E", environ={"BROKER": url}, concurrency=2, broker_heartbeat=10)
    timers = wait_for(lambda: worker.pool()["timers"])
    for count in range(4):
        proxy.drop()
        wait_for(lambda count=count: worker.text().count("Connected to amqp") >= 2 * (count + 2))  # pidbox's, too
        assert worker.ask("ping")
    assert worker.send("add", 1, 2).get(timeout=PATIENCE) == 3
    wait_for(lambda: worker.pool()["timers"] <= timers)  # now and then one more is under way
    twice = worker.send("late_nap_once", "twice")
    wait_for(lambda: len(worker.noted("twice:began")) == 1)
    proxy.drop()
    wait_for(lambda: len(worker.noted("twice:began")) == 2)
    assert worker.ask("ping")  # it hears remote control again
    twice.revoke(terminate=True)  # ends both runs
    wait_for(lambda: worker.pool()["running"] == 0)
    assert worker.stop() == 0
    proxy.close()


def test_sigquit_gives_back(start, beats, rabbitmq):
    worker = amqp(start, rabbitmq.url, "quit", concurrency=4)
    for _ in range(8):
        worker.send("late_nap", 300, "amqp-quit")
    wait_for(lambda: len(worker.noted("amqp-quit:began")) == 4)
    assert worker.stop(signal.SIGQUIT) == 0, worker.text()
    assert rabbitmq.messages(worker.app, "quit") == 8


def test_sigkill_loses_no_task_that_acknowledges_late(start, beats, rabbitmq):
    worker = amqp(start, rabbitmq.url, "kill", concurrency=4)
    sent = {worker.send("late_nap_once", "amqp-kill").id for _ in range(8)}
    wait_for(lambda: len(worker.noted("amqp-kill:began")) == 4)
    worker.process.kill()
    worker.process.wait()
    worker.notes.rpush("amqp-kill", "go")
    worker.launch()
    wait_for(lambda: set(worker.noted("amqp-kill:ended")) == sent)


def test_heartbeats_go_on_with_a_full_pool(beats):
    """With one slot and four messages prefetched: no drop, no redelivery."""
    worker, count, seconds = beats
    wait_for(lambda: len(worker.noted("beats:ended")) == count, PATIENCE + seconds)
    assert len(worker.noted("beats:began")) == count
    assert "onnection" not in worker.text().partition(" ready.")[2].replace("pidbox: Connected", "")
    assert worker.stop() == 0


def test_what_waits_runs_once(start, rabbitmq):
    """Tasks that wait for a slot when the connection breaks are delivered again, and not run twice."""
    proxy = Proxy(rabbitmq.port)
    url = rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port))
    worker = amqp(start, rabbitmq.url, "waits", environ={"BROKER": url}, concurrency=1, worker_prefetch_multiplier=4)
    worker.send("hold", "waits-go")
    for number in range(3):
        worker.send("tick", f"waits-{number}")
    wait_for(lambda: worker.pool()["waiting"] == 3)
    proxy.drop()
    wait_for(lambda: worker.text().count("Connected to amqp") >= 4)
    wait_for(lambda: worker.pool()["waiting"] == 3)
    worker.notes.rpush("waits-go", "go")
    wait_for(lambda: rabbitmq.messages(worker.app, "waits") == 0 and worker.pool()["running"] == 0)
    assert worker.stop() == 0
    assert [len(worker.noted(f"waits-{number}")) for number in range(3)] == [1, 1, 1]
    proxy.close()


def test_remote_control_listens_again(start, rabbitmq):
    """Its connection alone is closed by the broker."""
    worker = amqp(start, rabbitmq.url, "listen", concurrency=2)
    assert worker.ask("ping")
    before = worker.text().count("pidbox: Connected")
    for connection in psutil.Process(worker.process.pid).net_connections("tcp"):
        if connection.raddr and connection.raddr.port == rabbitmq.port:
            rabbitmq.close([connection.laddr.port])
            wait_for(lambda: worker.ask("ping"))
    assert worker.text().count("pidbox: Connected") > before
