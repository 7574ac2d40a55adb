"""weald's Celery pool on a real RabbitMQ: heartbeats, reconnecting, shutdowns, a broker that is killed.

`WEALD_FULL_LENGTH=1` makes test_heartbeats_go_on_with_a_full_pool take its two minutes: heartbeat 5 s, tasks of 30 s;
and each fault happens twenty times.
"""

import os
import signal

import psutil
import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from celery_worker import PATIENCE, Proxy, RabbitMQ, crew, redis_url, start, wait_for, worker  # noqa: E402, F401


@pytest.fixture(scope="module")
def rabbitmq(request, tmp_path_factory):
    server = RabbitMQ.early(request, tmp_path_factory)
    server.wait()
    return server


@pytest.fixture(scope="module")
def beats(crew, rabbitmq):
    """Started first and looked at last: the worker of the heartbeats, and how many tasks it has."""
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


def test_reconnecting_leaves_no_timers(start, beats, rabbitmq):
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


# -------------------------------------------------------------------- faults

def cut(rabbitmq, proxy, worker):
    proxy.drop()


def close_all(rabbitmq, proxy, worker):
    """The broker closes all connections of the worker."""
    rabbitmq.close(proxy.ports())


def close_one(rabbitmq, proxy, worker):
    """The broker closes the oldest connection of the worker: the one that tasks come on."""
    rabbitmq.close(proxy.ports()[:1])


def close_channel(rabbitmq, proxy, worker):
    """The broker closes the channel that tasks come on."""
    worker.send("close_channel")


def unreachable(rabbitmq, proxy, worker):
    """Nothing comes through, for longer than heartbeats may be missed."""
    proxy.open.clear()
    lost = worker.text().count("onnection to broker lost") + worker.text().count("Trying again")
    wait_for(lambda: worker.text().count("onnection to broker lost") + worker.text().count("Trying again") > lost,
             what="noticing")
    proxy.open.set()


def stop_and_start(rabbitmq, proxy, worker):
    rabbitmq.kill()
    rabbitmq.start()
    rabbitmq.wait()


FAULTS = [cut, close_one, close_all, close_channel, unreachable, stop_and_start]
TIMES = 20 if os.environ.get("WEALD_FULL_LENGTH") == "1" else 3


@pytest.mark.timeout(600 if TIMES < 20 else 3600)
@pytest.mark.parametrize("alias", [False, True], ids=["pool", "alias"])
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_fault(start, rabbitmq, fault, alias):
    """While tasks run, wait, and are acknowledged: each is done, the worker recovers, and ends."""
    proxy = Proxy(rabbitmq.port)
    url = rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port))
    name = f"fault-{fault.__name__}-{alias}"
    worker = amqp(start, rabbitmq.url, name, "-E", environ={"BROKER": url}, concurrency=20, alias=alias,
                  broker_heartbeat=2, broker_connection_timeout=2, broker_channel_error_retry=True)
    worker.ready()
    for number in range(TIMES if fault is not stop_and_start else min(TIMES, 3)):
        key = f"{name}-{number}"
        sent = {worker.send("late_nap_once", key).id for _ in range(10)}
        sent |= {worker.send("late_nap", 0.05 * length, key).id for length in range(40)}
        wait_for(lambda key=key: len(worker.noted(f"{key}:ended")) >= 5)
        fault(rabbitmq, proxy, worker)
        worker.notes.rpush(key, "go")
        wait_for(lambda key=key, sent=sent: set(worker.noted(f"{key}:ended")) == sent, what="all tasks")
        # The key stays: what was delivered twice looks at it again.
    assert worker.ask("ping")
    wait_for(lambda: not worker.ask("active"))
    assert worker.stop() == 0, worker.text()[-3000:]
    wait_for(lambda: rabbitmq.messages(worker.app, name) == 0)
    proxy.close()


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
    assert worker.stop() == 0


def test_broker_killed_under_load(start, rabbitmq):
    """Every task that acknowledges late is done at least once."""
    worker = amqp(start, rabbitmq.url, "load", concurrency=10, broker_heartbeat=2)
    sent = {worker.send("late_nap", 0.4, "load").id for _ in range(60)}
    wait_for(lambda: len(worker.noted("load:ended")) >= 10)
    rabbitmq.kill()
    rabbitmq.start()
    rabbitmq.wait()
    wait_for(lambda: set(worker.noted("load:ended")) == sent)
    assert worker.stop() == 0
    assert rabbitmq.messages(worker.app, "load") == 0
