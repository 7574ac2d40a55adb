"""The Celery examples, end to end: a real Redis, workers with weald's pool, a generated site."""

import json
import os
import subprocess
import sys
from urllib.request import Request, urlopen

import pytest
from helpers import PATIENCE

pytest.importorskip("flask")

from pathlib import Path  # noqa: E402

from celery_worker import free_port, redis_url, wait_for  # noqa: E402, F401

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(redis_url, tmp_path):
    """Starts an example's worker; the environment for its other programs."""
    environ = {**os.environ, "BROKER": f"{redis_url}/50", "BACKEND": f"{redis_url}/51"}
    children = []

    def start(folder, app="tasks"):
        log = tmp_path / "log"
        command = [sys.executable, "-m", "weald", "celery", "-A", app, "worker", "-c", "50", "-l", "INFO"]
        with log.open("w") as out:
            child = subprocess.Popen(command, cwd=EXAMPLES / folder, env=environ, stdout=out, stderr=out)
        children.append(child)
        wait_for(lambda: " ready." in log.read_text() or child.poll() is not None)
        assert child.poll() is None, log.read_text()
        return environ

    yield start
    for child in children:
        child.terminate()
        assert child.wait(PATIENCE) == 0


@pytest.fixture
def site():
    """The URL of 60 pages."""
    command = [sys.executable, "celery_site.py", "60"]
    child = subprocess.Popen(command, cwd=EXAMPLES, stdout=subprocess.PIPE, text=True)
    yield child.stdout.readline().strip()
    child.terminate()
    child.wait(PATIENCE)
    child.stdout.close()


def test_urlopen(example, site):
    environ = example("celery_urlopen")
    command = [sys.executable, "bulk_task_producer.py", site, "60"]
    done = subprocess.run(
        command, cwd=EXAMPLES / "celery_urlopen", env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 of 60 pages" in done.stdout


def test_crawler(example, site):
    environ = example("celery_crawler")
    command = [sys.executable, "crawl.py", f"{site}page/0"]
    done = subprocess.run(
        command, cwd=EXAMPLES / "celery_crawler", env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "60 of 60 pages" in done.stdout


def test_many_pages_by_two_workers(redis_url):
    environ = {**os.environ, "BROKER": f"{redis_url}/52", "BACKEND": f"{redis_url}/53"}
    command = [sys.executable, "many.py", "--pages", "200", "--greenlets", "50", "--delay", "0.1"]
    done = subprocess.run(
        command, cwd=EXAMPLES / "celery_crawler", env=environ, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 pages in" in done.stdout and "crawler0@" in done.stdout and "crawler1@" in done.stdout


def test_flask(example):
    environ = example("celery_flask", "app.celery")
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "flask", "--app", "app", "run", "--port", str(port)],
        cwd=EXAMPLES / "celery_flask", env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"

    def submit():
        try:
            body = json.dumps({"numbers": [1, 2, 3.5]}).encode()
            return urlopen(Request(f"{base}/sums", body, {"Content-Type": "application/json"}), timeout=PATIENCE)
        except ConnectionError:
            return None
        except OSError as error:
            if isinstance(getattr(error, "reason", None), ConnectionError):
                return None
            raise

    try:
        with wait_for(submit) as answer:
            assert answer.status == 202
            where = json.load(answer)["poll"]

        def poll():
            with urlopen(base + where, timeout=PATIENCE) as answer:
                return json.load(answer) if answer.status == 200 else None

        assert wait_for(poll) == {"state": "SUCCESS", "sum": 6.5}
    finally:
        server.terminate()
        server.wait(PATIENCE)
