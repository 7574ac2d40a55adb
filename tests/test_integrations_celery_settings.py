"""weald's Celery pool with each setting of the table in docs/celery.md: brokers, shutdowns, priorities."""

import shutil
import signal
import subprocess

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import redis  # noqa: E402
from celery.exceptions import TimeLimitExceeded  # noqa: E402
from celery_worker import PATIENCE, Proxy, crew, free_port, rabbitmq, redis_url, start, store, wait_for  # noqa: E402, F401
from kombu import Queue  # noqa: E402

pytestmark = pytest.mark.timeout(300)


def value(result):
    return result.get(timeout=PATIENCE)


# -------------------------------------------------------------------- brokers

QUORUM = {
    "task_default_queue_type": "quorum", "task_default_exchange": "quorate", "task_default_exchange_type": "topic",
    "task_default_routing_key": "quorate", "broker_native_delayed_delivery_queue_type": "classic",
}


def test_quorum_queue_with_delayed_delivery(start, rabbitmq):
    """A task with a countdown waits in RabbitMQ, not in the worker."""
    worker = start(broker=rabbitmq.url, queue="quorate", concurrency=5, **QUORUM).ready()
    worker.app.conf.update(QUORUM, task_default_queue="quorate", task_queues=None)
    first = worker.app.send_task("add", (1, 2))
    later = worker.app.send_task("now", countdown=2)
    assert value(first) == 3
    assert worker.ask("scheduled") == [] and not later.ready()
    value(later)
    listed = rabbitmq.control("-q", "list_queues", "name", "type").splitlines()
    assert "quorate\tquorum" in listed


@pytest.fixture
def sentinel(store, tmp_path):
    """The port of a sentinel that watches `store`."""
    port, file = free_port(), tmp_path / "sentinel.conf"
    file.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {store.port} 1\n")
    process = subprocess.Popen([shutil.which("redis-server"), str(file), "--sentinel"], stdout=subprocess.DEVNULL)

    def answers():
        try:
            return redis.Redis(port=port).sentinel_master("main")["num-other-sentinels"] == 0
        except redis.ConnectionError:
            return False

    wait_for(answers, what="the sentinel")
    yield port
    process.terminate()
    process.wait(PATIENCE)


def test_sentinel(start, sentinel):
    url, options = f"sentinel://127.0.0.1:{sentinel}/0", {"master_name": "main"}
    worker = start(broker=url, environ={"BACKEND": url}, broker_transport_options=options,
                   result_backend_transport_options=options)
    worker.app.conf.update(broker_transport_options=options, result_backend=url,
                           result_backend_transport_options=options)
    assert [value(result) for result in [worker.send("add", 1, number) for number in range(20)]] == list(range(1, 21))
    assert isinstance(failure(worker.send("nap", 300, time_limit=0.3)), TimeLimitExceeded)
    assert worker.stop() == 0


def failure(result):
    with pytest.raises(Exception) as caught:  # noqa: B017
        value(result)
    return caught.value


def test_tls(start, certificate, tmp_path):
    port = free_port()
    server = subprocess.Popen(
        [shutil.which("redis-server"), "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", "",
         "--tls-cert-file", certificate.cert, "--tls-key-file", certificate.key, "--tls-auth-clients", "no",
         "--tls-ca-cert-file", certificate.cert],
        cwd=tmp_path, stdout=subprocess.DEVNULL,
    )
    try:
        url = f"rediss://localhost:{port}/0?ssl_cert_reqs=required&ssl_ca_certs={certificate.cert}"
        wait_for(lambda: answers_tls(url), what="Redis")
        worker = start(broker=url, environ={"BACKEND": url})
        worker.app.conf.result_backend = url
        assert [value(result) for result in [worker.send("add", 1, n) for n in range(20)]] == list(range(1, 21))
        assert isinstance(failure(worker.send("nap", 300, time_limit=0.3)), TimeLimitExceeded)
        assert worker.stop() == 0
    finally:
        server.terminate()
        server.wait(PATIENCE)


def answers_tls(url):
    try:
        return redis.Redis.from_url(url).ping()
    except redis.ConnectionError:
        return False


# -------------------------------------------------------------------- shutting down, acknowledging

def test_soft_shutdown(start):
    """Tasks that end within the time are done, the others go back."""
    worker = start(concurrency=10, worker_soft_shutdown_timeout=4)
    quick = [worker.send("hold", "soft-quick") for _ in range(3)]
    for _ in range(3):
        worker.send("late_hold", "soft-shutdown")
    wait_for(lambda: worker.pool()["running"] == 6)
    worker.tell(signal.SIGQUIT)
    wait_for(lambda: "Soft Shutdown" in worker.text())
    worker.notes.rpush("soft-quick", "go")
    assert worker.process.wait(PATIENCE) == 0, worker.text()
    assert [result.status for result in quick] == ["SUCCESS"] * 3
    assert worker.queued() == (3, 0)


def test_acks_on_failure_or_timeout(start):
    """If it is off: a task that fails is rejected and lost; one that hits its hard limit goes back and runs again."""
    worker = start(concurrency=5, task_acks_late=True, task_acks_on_failure_or_timeout=False)
    worker.notes.rpush("acks", "go")
    assert isinstance(failure(worker.send("hold_and_fail", "acks")), ValueError)
    wait_for(lambda: worker.queued() == (0, 0), what="the rejection")
    limited = worker.send("late_nap_once", "again", time_limit=1)
    assert isinstance(failure(limited), TimeLimitExceeded)
    wait_for(lambda: len(worker.noted("again:began")) > 1, what="the second run")
    worker.notes.rpush("again", "go")
    wait_for(lambda: worker.noted("again:ended") and worker.queued() == (0, 0))


def test_cancel_on_connection_loss(start, redis_url):
    """Tasks that acknowledge late are ended when the connection breaks, and run again."""
    proxy = Proxy(int(redis_url.rpartition(":")[2]))
    worker = start(broker=f"redis://127.0.0.1:{proxy.port}/150", concurrency=5,
                   worker_cancel_long_running_tasks_on_connection_loss=True)
    sent = {worker.send("late_nap_once", "cancelled").id for _ in range(3)}
    wait_for(lambda: len(worker.noted("cancelled:began")) == 3)
    proxy.drop()
    wait_for(lambda: len(worker.noted("cancelled:began")) == 6, what="the second run")
    assert worker.noted("cancelled:ended") == []
    worker.notes.rpush("cancelled", "go")
    wait_for(lambda: set(worker.noted("cancelled:ended")) == sent)
    wait_for(lambda: worker.pool()["running"] == 0)
    assert len(worker.noted("cancelled:ended")) == 3
    assert worker.stop() == 0
    proxy.close()


# -------------------------------------------------------------------- order

def in_order(worker, priorities, key, **options):
    """The priorities of tasks, in the order in which they begin; one task at a time, and none before all are sent."""
    gate = worker.send("late_hold", f"{key}-gate", **options)
    wait_for(lambda: gate.id in {entry["id"] for entry in worker.ask("active")})
    sent = {worker.send("late_nap", 0, key, priority=priority, **options).id: priority for priority in priorities}
    worker.notes.rpush(f"{key}-gate", "go")
    wait_for(lambda: len(worker.noted(f"{key}:ended")) == len(sent))
    return [sent[task] for task in worker.noted(f"{key}:began")]


def test_priorities_on_redis(start):
    """0 comes first; the one that is prefetched while the pool is full is ahead of them."""
    options = {"queue_order_strategy": "priority", "priority_steps": [0, 3, 6, 9]}
    worker = start(concurrency=1, worker_prefetch_multiplier=1, task_acks_late=True, broker_transport_options=options)
    worker.app.conf.broker_transport_options = options
    found = in_order(worker, [9, 6, 3, 0, 9, 0, 3, 6], "priorities-redis")
    assert found[found.index(9) + 1 :] == [0, 0, 3, 3, 6, 6, 9] or found == [0, 0, 3, 3, 6, 6, 9, 9]


def test_priorities_on_rabbitmq(start, rabbitmq):
    """The highest comes first."""
    worker = start(broker=rabbitmq.url, queue="prior", concurrency=1, worker_prefetch_multiplier=1, task_acks_late=True,
                   task_queue_max_priority=9).ready()
    worker.app.conf.task_queues = [Queue("prior", queue_arguments={"x-max-priority": 9})]
    found = in_order(worker, [1, 5, 9, 1, 9, 5], "priorities-amqp")
    assert sorted(found[1:], reverse=True) == found[1:] or found == [9, 9, 5, 5, 1, 1]
