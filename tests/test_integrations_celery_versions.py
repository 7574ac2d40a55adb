"""weald's Celery pool under older releases of Celery: limits, shutdowns, results.  All other tests run the newest.

Each release needs an environment of its own, so this runs if `WEALD_CELERY_VERSIONS` names some ("5.5.3 5.6.3"), or is
"all"; `WEALD_CELERY_VERSIONS=all scripts/test tests/test_integrations_celery_versions.py`.  `.ci/run` names the oldest.
"""

import os
import signal
import subprocess

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import celery_environment  # noqa: E402
from celery.exceptions import SoftTimeLimitExceeded, TaskRevokedError, TimeLimitExceeded  # noqa: E402
from celery_worker import PATIENCE, crew, redis_url, start, wait_for  # noqa: E402, F401

KNOWN = ["5.5.3", "5.6.3", "5.7.0"]
WANTED = os.environ.get("WEALD_CELERY_VERSIONS", "")
VERSIONS = KNOWN if WANTED == "all" else WANTED.split()

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not VERSIONS, reason="WEALD_CELERY_VERSIONS names no releases of Celery"),
    pytest.mark.parametrize("version", VERSIONS),
]


def launch(start, version, *arguments, **settings):
    python = celery_environment.python(f"celery=={version}", "redis")
    command = [python, "-m", "celery", "-A", "celery_proj", "worker", "-P", "custom", "-l", "INFO", *arguments]
    worker = start(command=command, **settings).ready()
    assert f" v{version} (" in worker.text()
    return worker


def failure(result):
    with pytest.raises(Exception) as caught:  # noqa: B017
        result.get(timeout=PATIENCE)
    return caught.value


def test_limits(start, version):
    worker = launch(start, version, "-c", "20")
    assert worker.send("soft", soft_time_limit=1).get(timeout=PATIENCE) > 0.1
    for name in "soft_spin", "arrive_late":
        assert worker.send(name, soft_time_limit=1).get(timeout=PATIENCE) > 0.1
    assert isinstance(failure(worker.send("nap", 30, soft_time_limit=0.2)), SoftTimeLimitExceeded)
    for name, *args in ("stubborn", "hard"), ("spin",), ("stubborn_spin",), ("arrive_never",), ("nap", 300):
        assert isinstance(failure(worker.send(name, *args, time_limit=0.5)), TimeLimitExceeded)
    revoked = worker.send("stubborn", "revoked")
    wait_for(lambda: revoked.status == "STARTED")
    revoked.revoke(terminate=True)
    assert isinstance(failure(revoked), TaskRevokedError)
    wait_for(lambda: worker.pool()["running"] == 0)
    assert worker.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_shutdown(start, version, number):
    """With two running tasks that acknowledge late, and two that wait."""
    worker = launch(start, version, "-c", "2", weald_shutdown_timeout=0.5)
    for _ in range(4):
        worker.send("late_nap", 300, f"ended-{version}-{number}")
    wait_for(lambda: len(worker.noted(f"ended-{version}-{number}:began")) == 2)
    assert worker.stop(number) == 0, worker.text()
    assert worker.queued() == (4, 0)


def test_results(start, version):
    """Thirty tasks that wait for others, an `async def` task, and acknowledgements."""
    worker = launch(start, version, "-c", "200")
    for result in [worker.send("wait_for_others") for _ in range(30)]:
        assert result.get(timeout=PATIENCE) == [[0.1] * 3, 0.2]
    meeting = [worker.send("meet", f"meet-{version}", 10) for _ in range(10)]
    assert [result.get(timeout=PATIENCE) for result in meeting] == [[True, "fresh"]] * 10
    assert failure(worker.send("hold_and_fail", f"open-{version}", time_limit=1))
    wait_for(lambda: worker.queued() == (0, 0))
    assert worker.stop() == 0


SUBSCRIBE = """
import sys
import weald.monkey
weald.monkey.patch_all()
import celery, redis, weald
from weald.integrations.celery.results import arrange_backend

app = celery.Celery(backend=sys.argv[1])
arrange_backend(app, 2)
backend = app.backend
weald.joinall([weald.spawn(backend.result_consumer.consume_from, f"task-{i}") for i in range(30)], raise_error=True)
pool = backend.client.connection_pool
print(celery.__version__, len(backend.result_consumer.subscribed_to), len(pool._connections))
"""


def test_tasks_that_subscribe_at_once_use_one_connection(redis_url, version):
    """There are two: if both were taken for subscriptions, no task could store or read a result."""
    python = celery_environment.python(f"celery=={version}", "redis")
    done = subprocess.run([python, "-c", SUBSCRIBE, f"{redis_url}/0"], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.returncode) == (f"{version} 30 1\n", 0), done.stderr
