"""The Celery app that test_integrations_celery.py runs workers of.

BROKER and BACKEND say where; SETTINGS is a JSON object of further settings.
"""

import asyncio
import contextvars
import ctypes
import itertools
import json
import os
import time

import redis
from celery import Celery, signals
from celery.exceptions import SoftTimeLimitExceeded

app = Celery("proj", broker=os.environ.get("BROKER"), backend=os.environ.get("BACKEND"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_track_started=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    **json.loads(os.environ.get("SETTINGS", "{}")),
)
variable = contextvars.ContextVar("variable", default="fresh")


def note(key, value=1):
    """Append to a list that the tests read."""
    redis.Redis.from_url(os.environ["NOTES"]).rpush(key, value)


@signals.task_postrun.connect
def after(task_id, **_):
    variable.set("left over")


@app.task(name="add")
def add(x, y):
    return x + y


@app.task(name="nothing", ignore_result=True)
def nothing():
    pass


@app.task(name="nap")
def nap(seconds):
    time.sleep(seconds)
    return seconds


@app.task(name="late_nap", bind=True, acks_late=True)
def late_nap(self, seconds, key):
    note(f"{key}:began", self.request.id)
    time.sleep(seconds)
    note(f"{key}:ended", self.request.id)


@app.task(name="soft")
def soft(seconds):
    began = time.monotonic()
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return time.monotonic() - began


@app.task(name="soft_spin")
def soft_spin():
    began = time.monotonic()
    try:
        while True:
            pass
    except SoftTimeLimitExceeded:
        return time.monotonic() - began


@app.task(name="stubborn", bind=True)
def stubborn(self, key):
    while True:
        try:
            time.sleep(0.2)
        except BaseException:
            note(key, "caught")


@app.task(name="spin")
def spin():
    while True:
        pass


@app.task(name="stubborn_spin")
def stubborn_spin():
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass


@app.task(name="burn")
def burn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "burnt"


@app.task(name="own_timeout")
def own_timeout():
    import weald

    with weald.Timeout(0.1):
        time.sleep(30)


@app.task(name="leave")
def leave():
    raise SystemExit(3)


@app.task(name="memory")
def memory():
    raise MemoryError("too much")


@app.task(name="context")
def context(value):
    before = variable.get()
    variable.set(value)
    time.sleep(0.05)
    return before, variable.get()


@app.task(name="arrive", bind=True)
async def arrive(self, seconds):
    request = self.request.id
    await asyncio.sleep(seconds)
    return request == self.request.id, variable.get()


@app.task(name="arrive_late")
async def arrive_late():
    began = time.monotonic()
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded:
        return time.monotonic() - began


@app.task(name="arrive_never")
async def arrive_never():
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException:
            pass


@app.task(name="pid")
def pid():
    return os.getpid()


@app.task(name="grab")
def grab(mebibytes):
    grabbed.append(b"x" * (mebibytes << 20))
    return os.getpid()


grabbed = []


@app.task(name="stuck", acks_late=True)
def stuck():
    """Waits in C for ever, for a mutex that its own thread holds; the GIL is released."""
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    lock(mutex)


@app.task(name="stuck_with_gil", acks_late=True)
def stuck_with_gil():
    sum(itertools.repeat(0))


@app.task(name="version")
def version():
    import reloaded

    return reloaded.version()
