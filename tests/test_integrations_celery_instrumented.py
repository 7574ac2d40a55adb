"""weald's Celery pool with the packages that instrument Celery: Sentry, New Relic, Datadog, OpenTelemetry."""

import json
from collections import Counter

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

import celery_environment  # noqa: E402
from celery_worker import PATIENCE, crew, redis_url, start, wait_for  # noqa: E402, F401

pytestmark = pytest.mark.timeout(600)  # an environment may have to be made

COUNT = 5
PACKAGES = {
    "sentry": ["sentry-sdk"],
    "newrelic": ["newrelic"],
    "ddtrace": ["ddtrace"],
    "opentelemetry": ["opentelemetry-instrumentation-celery", "opentelemetry-sdk"],
}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_task_is_seen(start, tmp_path, name):
    """Tasks that succeed and tasks that fail, with the tag that the task itself has set."""
    sink = tmp_path / "sink"
    sink.touch()
    python = celery_environment.python(*PACKAGES[name])
    command = [python, "-m", "celery", "-A", "celery_instrumented", "worker", "-P", "custom", "-c", "10", "-l", "INFO"]
    worker = start(command=command, environ={"INSTRUMENTATION": name, "SINK": str(sink)})
    results = [worker.send(task, number) for number in range(COUNT) for task in ("works", "fails")]
    for result in results:
        result.get(timeout=PATIENCE, propagate=False)

    def seen():
        lines = [json.loads(line) for line in sink.read_text().splitlines()]
        return Counter((kind, task.rpartition("/")[2], tag) for kind, task, tag in lines)

    expected = Counter({("transaction", task, str(n)): 1 for task in ("works", "fails") for n in range(COUNT)})
    expected.update({("event", "fails", str(number)): 1 for number in range(COUNT)})
    wait_for(lambda: sum(seen().values()) >= sum(expected.values()), what="what was seen")
    assert seen() == expected
