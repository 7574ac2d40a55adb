"""weald's Celery pool: tasks that wait for results, on each kind of result backend; a result store that is stopped."""

import os
import signal
import socket
import sqlite3
import subprocess
import time

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import celery_environment  # noqa: E402
from celery_worker import (  # noqa: E402, F401
    PATIENCE,
    crew,
    free_port,
    rabbitmq,
    redis_url,
    start,
    store,
    wait_for,
    worker,
)
from conftest import require_program  # noqa: E402
from third_party.servers import postgresql  # noqa: E402

pytestmark = pytest.mark.timeout(600)

AT_ONCE = 50
OFTEN = {"result_backend_max_sleep_between_retries_ms": 500}


@pytest.fixture
def memcached():
    """A memcached for these tests: host and port."""
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


def waited_for(start, python=None, **options):
    """Run tasks that wait for others, fifty at once; return the worker that has run them."""
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


# -------------------------------------------------------------------- SQLite in tasks

def written(start, folder, python, task, *args, **environ):
    """Thirty tasks at once that write to one SQLite file: each waits in its transaction, while the worker goes on."""
    path = folder / "written.sqlite"
    database = sqlite3.connect(path)
    database.execute("create table written (number)")
    command = [python, "-m", "celery", "-A", "celery_proj", "worker", "-P", "custom", "-c", "100", "-l", "INFO"]
    worker = start(command=command, environ={"DATABASE": str(path), **environ})
    results = [worker.send(task, *args) for _ in range(30)]
    for result in results:
        result.get(timeout=2 * PATIENCE)
    assert database.execute("select count(*) from written").fetchone() == (30,)
    database.close()


def test_sqlalchemy_writes_to_sqlite(start, tmp_path):
    path = str(tmp_path / "written.sqlite")
    written(start, tmp_path, celery_environment.python("sqlalchemy"), "write_with_sqlalchemy", path, 0.02)


def test_django_writes_to_sqlite(start, tmp_path):
    python = celery_environment.python("django", "django-celery-results")
    written(start, tmp_path, python, "write_with_django", 0.02, DJANGO_SETTINGS_MODULE="celery_django",
            ENGINE="celery_sqlite")


# -------------------------------------------------------------------- few connections

@pytest.mark.parametrize("setting", ["redis_max_connections", "weald_result_connections"])
def test_one_connection(start, setting):
    """A single one would wait for itself, so there are two, and the log says so."""
    worker = waited_for(start, **{setting: 1})
    assert "results need 2 connections to Redis, not 1" in worker.text()


# -------------------------------------------------------------------- a store that goes away

def test_store_goes_away_while_tasks_end(start, store):
    """Each outcome is stored once it is back, and the log says it once."""
    worker = start(environ={"BACKEND": store.url}, concurrency=100, **OFTEN)
    worker.app.conf.result_backend = store.url
    results = [worker.send(name, "away") for name in ("hold", "hold_and_fail") for _ in range(40)]
    wait_for(lambda: worker.pool()["running"] == 80)
    store.stop()
    worker.notes.rpush("away", "go")
    wait_for(lambda: "the result store is away" in worker.text())
    time.sleep(1)  # how long it is away
    assert worker.pool()["running"] == 80
    store.start()
    wait_for(lambda: worker.pool()["running"] == 0, what="the end of all")
    states = [worker.app.AsyncResult(result.id).status for result in results]
    assert states == ["SUCCESS"] * 40 + ["FAILURE"] * 40
    text = worker.text()
    assert text.count("the result store is away") == text.count("the result store is back") == 1
    assert text.count("Traceback") <= 1 + 40, text  # each failed task has its own
    assert worker.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_worker_ends_while_the_store_is_away(start, store, number):
    """Tasks that acknowledge late go back, if the worker is told to end before their outcome is stored."""
    worker = start(environ={"BACKEND": store.url, "STOPPING": "1"}, concurrency=10, **OFTEN)
    for _ in range(5):
        worker.send("late_hold", f"gone-{number}")
    wait_for(lambda: worker.pool()["running"] == 5)
    store.stop()
    worker.notes.rpush(f"gone-{number}", "go")
    wait_for(lambda: "the result store is away" in worker.text())
    assert worker.stop(number, 2 * PATIENCE) == 0, worker.text()
    assert worker.queued() == (5, 0)


# -------------------------------------------------------------------- a query that outlives its task

def test_postgresql_is_told_of_the_end_of_a_task(start):
    """By the task, as docs/celery.md shows, and by whatever ends the task; otherwise it goes on."""
    psycopg = pytest.importorskip("psycopg")
    with postgresql() as port:
        url = f"host=127.0.0.1 port={port} user=postgres dbname=postgres"
        worker = start(concurrency=10)
        watching = psycopg.connect(url, autocommit=True)

        def running():
            found = watching.execute("select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' "
                                     "and state = 'active' and pid <> pg_backend_pid()").fetchone()
            return found[0]

        left = worker.send("query", url, False)
        wait_for(lambda: running() == 1)
        soft = worker.send("query", url, True, soft_time_limit=2)
        hard = worker.send("query", url, True, time_limit=2)
        revoked = worker.send("query", url, True)
        wait_for(lambda: running() == 4, what="all queries")
        for result in left, revoked:
            result.revoke(terminate=True)
        for result in soft, hard, left, revoked:
            result.get(timeout=PATIENCE, propagate=False)
        wait_for(lambda: running() == 1, what="the end of three queries")
        assert [result.status for result in (soft, hard, left, revoked)] == ["FAILURE", "FAILURE", "REVOKED", "REVOKED"]
        watching.close()
        assert worker.stop() == 0
