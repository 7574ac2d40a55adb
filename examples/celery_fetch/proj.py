"""The Celery app: one task, which fetches a URL.

Called by: `celery -A proj worker -P gevent -c 1000` and by drive.py.  The environment names the broker:
BROKER (redis://…, amqp://…) or, without it, folders under FETCH_DIR, which need no server.
"""

import os
import time
from pathlib import Path

import requests
from celery import Celery
from celery.backends.filesystem import FilesystemBackend
from celery.result import AsyncResult
from celery.signals import worker_ready

BROKER = os.environ.get("BROKER", "")
FETCH_DIR = Path(os.environ.get("FETCH_DIR", "/tmp/weald-celery-fetch"))


class Results(FilesystemBackend):
    """Celery's backend, except that a half-written result is never read."""

    def set(self, key, value):
        name = os.fsdecode(self._filename(key))
        Path(f"{name}.part").write_bytes(value.encode() if isinstance(value, str) else value)
        os.replace(f"{name}.part", name)


app = Celery("proj")
if BROKER:
    app.conf.broker_url = BROKER
    app.conf.result_backend = "rpc://" if BROKER.startswith("amqp") else BROKER
else:
    for folder in ("queue", "outbox", "processed", "control", "results"):
        (FETCH_DIR / folder).mkdir(parents=True, exist_ok=True)
    app.conf.broker_url = "filesystem://"
    app.conf.broker_transport_options = {
        "data_folder_in": FETCH_DIR / "queue",
        "data_folder_out": FETCH_DIR / "outbox",  # see `submit`
        "processed_folder": FETCH_DIR / "processed",
        "control_folder": FETCH_DIR / "control",
        "polling_interval": 0.05,
    }
    app.conf.result_backend = f"proj:Results+file://{FETCH_DIR / 'results'}"
app.conf.update(
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
    result_extended=False,
)


@worker_ready.connect
def tell_the_driver(**_: object) -> None:
    """drive.py waits for this file before it sends anything."""
    (FETCH_DIR / "ready").touch()


@app.task(name="fetch")
def fetch(url: str) -> dict[str, float]:
    """GET `url`; return when it began and ended (seconds since the epoch) and the number of bytes received."""
    began = time.time()
    body = requests.get(url, timeout=60).content
    return {"began": began, "ended": time.time(), "size": len(body)}


def submit(url: str) -> AsyncResult:
    """Send a `fetch` of `url`.

    A worker of the filesystem broker takes a message as soon as its file is there, even one that is not yet written;
    so messages are written beside the queue and moved there when they are complete.
    """
    result = fetch.delay(url)
    if not BROKER:
        for message in (FETCH_DIR / "outbox").iterdir():
            message.rename(FETCH_DIR / "queue" / message.name)
    return result
