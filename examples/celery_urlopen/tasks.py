"""Celery's own gevent example for today's Celery: open URLs, many at once.

    weald celery -A tasks worker -c 100
    python bulk_task_producer.py http://127.0.0.1:8000/

BROKER and BACKEND say where Redis is (redis://127.0.0.1/0 and /1).
"""

import os
from urllib.request import urlopen

from celery import Celery

app = Celery(
    "tasks",
    broker=os.environ.get("BROKER", "redis://127.0.0.1/0"),
    backend=os.environ.get("BACKEND", "redis://127.0.0.1/1"),
)
app.conf.broker_connection_retry_on_startup = True


@app.task(name="urlopen", soft_time_limit=30, autoretry_for=(OSError,), max_retries=2, default_retry_delay=1)
def open_url(url: str) -> tuple[str, int, int]:
    """Return (url, status, bytes) of the response; tried three times."""
    with urlopen(url, timeout=10) as response:
        return url, response.status, len(response.read())
