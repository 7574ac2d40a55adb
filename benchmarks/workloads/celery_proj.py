"""The app of `benchmarks/run celery`, for every side: tasks that do nothing, and one that waits.

Called by: `celery -A celery_proj worker`, which celery.py starts.
"""

import json
import os
import time

from celery import Celery

app = Celery("proj", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(broker_connection_retry_on_startup=True, **json.loads(os.environ.get("SETTINGS", "{}")))


@app.task(name="nothing")
def nothing():
    """Has a result."""


@app.task(name="unheard", ignore_result=True)
def unheard():
    """Has none."""


@app.task(name="wait")
def wait():
    """Half a second."""
    time.sleep(0.5)
