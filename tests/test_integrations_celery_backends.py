"""weald's Celery pool: results that tasks wait for, on each of Celery's result backends; a store that goes away."""

import os
import socket
import subprocess
import time

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import celery_environment  # noqa: E402
import redis as redis_client  # noqa: E402
from celery_worker import (  # noqa: E402, F401
    PATIENCE,
    RabbitMQ,
    crew,
    free_port,
    redis_url,
    start,
    wait_for,
    worker,
)
from conftest import require_program  # noqa: E402

pytestmark = pytest.mark.timeout(600)

AT_ONCE = 50


@pytest.fixture
def memcached():
    """A memcached of our own: host and port."""
    program, port = require_program("memcached", "memcached"), free_port()
    server = subprocess.Popen([program, "-u", "nobody", "-l", "127.0.0.1", "-p", str(port), "-c", "4096"])

    def answers():
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            return False
        return True

    wait_for(answers, what="memcached")
    yield f"127.0.0.1:{port}"
    server.terminate()
    server.wait(PATIENCE)


@pytest.fixture(scope="module")
def rabbitmq(request, tmp_path_factory):
    server = RabbitMQ.early(request, tmp_path_factory)
    server.wait()
    return server


def waited_for(start, python=None, **options):
    """Run tasks that wait for others, fifty at once; a worker that has run them, and ended."""
    given = {} if python is None else {
        "command": [python, "-m", "celery", "-A", "celery_proj", "worker", "-P", "custom", "-c", "300", "-l", "INFO",
                    *(["-Q", options["queue"], "-n", f"{options['queue']}@%h"] if "queue" in options else [])]
    }
    worker = start(concurrency=300, **given, **options)
    worker.ready()
    count = 0
    results = [worker.send("wait_for_others") for _ in range(AT_ONCE)]

    def done():
        nonlocal count
        count = worker.text().count("Task wait_for_others") - AT_ONCE
        return count >= AT_ONCE

    wait_for(done, what="the end of all")
    assert len([line for line in worker.text().splitlines() if "wait_for_others" in line and "succeeded" in line]) \
        == AT_ONCE, worker.text()[-5000:]
    del results
    assert worker.stop() == 0, worker.text()[-3000:]
    return worker


def test_redis(start):
    waited_for(start)


def test_rpc_on_redis(start):
    waited_for(start, environ={"BACKEND": "rpc://"})


def test_rpc_on_rabbitmq(start, rabbitmq):
    waited_for(start, broker=rabbitmq.url, queue="rpc", environ={"BACKEND": "rpc://"})


def test_database(start, tmp_path):
    url = f"db+sqlite:///{tmp_path}/results.sqlite"
    waited_for(start, celery_environment.python("sqlalchemy"), environ={"BACKEND": url})


def test_django(start, tmp_path):
    python = celery_environment.python("django", "django-celery-results")
    environ = {"DJANGO_SETTINGS_MODULE": "celery_django", "DATABASE": str(tmp_path / "results.sqlite"),
               "BACKEND": "django-db"}
    subprocess.run([python, "-m", "django", "migrate", "-v0"], cwd=os.path.dirname(__file__),
                   env={**os.environ, **environ}, check=True)
    waited_for(start, python, environ=environ)


def test_filesystem(start, tmp_path):
    waited_for(start, environ={"BACKEND": f"file://{tmp_path}"})


def test_memcached(start, memcached):
    python = celery_environment.python("pymemcache")
    waited_for(start, python, environ={"BACKEND": f"cache+memcached://{memcached}"})


# -------------------------------------------------------------------- few connections

@pytest.mark.parametrize("setting", ["redis_max_connections", "weald_result_connections"])
def test_one_connection(start, setting):
    """One would wait for itself: so there are two, and the log says so."""
    worker = waited_for(start, **{setting: 1})
    assert "results need 2 connections to Redis, not 1" in worker.text()


# -------------------------------------------------------------------- a store that goes away

class Store:
    """A Redis of its own for results, which can be stopped and started again with what it had."""

    def __init__(self, folder):
        self.port = free_port()
        self.command = [require_program("redis-server", "redis-server"), "--port", str(self.port), "--bind",
                        "127.0.0.1", "--dir", str(folder), "--appendonly", "yes", "--appendfsync", "always"]
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        client = redis_client.Redis(port=self.port)

        def answers():
            try:
                return client.ping()
            except redis_client.ConnectionError:
                return False

        wait_for(answers, what="the store")
        client.close()

    def stop(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    store.start()
    yield store
    store.stop()


def test_store_goes_away_while_tasks_end(start, store):
    """Each outcome is stored once it is back, and the log says it once."""
    worker = start(environ={"BACKEND": store.url}, concurrency=100)
    worker.app.conf.result_backend = store.url
    results = [worker.send(name, "away") for name in ("hold", "hold_and_fail") for _ in range(40)]
    wait_for(lambda: worker.pool()["running"] == 80)
    store.stop()
    worker.notes.rpush("away", "go")
    wait_for(lambda: "the result store is away" in worker.text())
    time.sleep(3)  # how long it is away
    assert worker.pool()["running"] == 80
    store.start()
    wait_for(lambda: worker.pool()["running"] == 0, what="the end of all")
    states = [worker.app.AsyncResult(result.id).status for result in results]
    assert states == ["SUCCESS"] * 40 + ["FAILURE"] * 40
    text = worker.text()
    assert text.count("the result store is away") == text.count("the result store is back") == 1
    assert text.count("Traceback") <= 1 + 40, text  # each failed task has its own
    assert worker.stop() == 0
