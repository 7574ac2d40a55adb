"""The Celery app of the workers in test_integrations_celery*.py.

The environment has its settings: BROKER and BACKEND are URLs, SETTINGS a JSON object of more.
"""

import asyncio
import contextvars
import ctypes
import functools
import itertools
import json
import multiprocessing
import os
import threading
import time

import billiard
import celery_forks
import redis
from celery import Celery, group, signals
from celery.exceptions import SoftTimeLimitExceeded
from greenlet import getcurrent

from weald import spawn
from weald.monkey import get_original

app = Celery("proj", broker=os.environ.get("BROKER"), backend=os.environ.get("BACKEND"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_track_started=True,
    **{"worker_cancel_long_running_tasks_on_connection_loss": False, **json.loads(os.environ.get("SETTINGS", "{}"))},
)
if "STOPPING" in os.environ:
    from weald.integrations.celery import results

    results.STOPPING = float(os.environ["STOPPING"])
original_sleep = get_original("time", "sleep")  # stays in C
variable = contextvars.ContextVar("variable", default="fresh")


def notes():
    return redis.Redis.from_url(os.environ["NOTES"], socket_timeout=None)


def note(key, value=1):
    """Append to a list that the tests read."""
    with notes() as client:
        client.rpush(key, value)


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


@app.task(name="kill_oneself")
def kill_oneself(at_once):
    """As programs do that keep the greenlets of their tasks in order to end them."""
    if at_once:
        getcurrent().kill()
    spawn(getcurrent().kill)
    time.sleep(600)


@app.task(name="hold")
def hold(key):
    """Waits until something is pushed on the list `key`."""
    with notes() as client:
        client.blmove(key, key, 0, "RIGHT", "RIGHT")  # changes nothing, so all waiters are woken


@app.task(name="wait_at_gate")
def wait_at_gate():
    gate.wait()


@app.task(name="open_gate")
def open_gate():
    """Lets all tasks go on that wait at the gate."""
    gate.set()


gate = threading.Event()


@app.task(name="meet", bind=True)
async def meet(self, key, count):
    """Waits until `count` of these run."""
    request = self.request.id
    note(key)
    with notes() as client:
        while client.llen(key) < count:
            await asyncio.sleep(0.05)
    return request == self.request.id, variable.get()


@app.task(name="now")
def now():
    return time.time()


@app.task(name="total")
def total(numbers):
    return sum(numbers)


@app.task(name="tick")
def tick(key):
    note(key)


@app.task(name="late_nap_once", bind=True, acks_late=True)
def late_nap_once(self, key):
    """Does not end before something is pushed on the list `key`."""
    note(f"{key}:began", self.request.id)
    hold.run(key)
    note(f"{key}:ended", self.request.id)


@app.task(name="meet_greenlets")
def meet_greenlets(key, count):
    """Waits until `count` of these run."""
    note(key)
    with notes() as client:
        while client.llen(key) < count:
            time.sleep(0.05)
    return count


@app.task(name="soft")
def soft():
    began = time.monotonic()
    try:
        time.sleep(60)
    except SoftTimeLimitExceeded:
        return time.monotonic() - began


@app.task(name="ignore_soft")
def ignore_soft(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(seconds)
        except SoftTimeLimitExceeded:
            pass
    return "finished"


@app.task(name="soft_in_c")
def soft_in_c(seconds):
    """Returns how many calls, each of which takes so long in C, were made, and the exception that ended them."""
    calls = 0
    try:
        while calls < 1000:
            calls += 1
            original_sleep(seconds)
    except SoftTimeLimitExceeded as error:
        return calls, type(error).__name__


@app.task(name="wait_in_except")
def wait_in_except(key):
    try:
        try:
            raise ValueError("first")
        except ValueError:
            time.sleep(60)
    finally:
        note(key, "finally")


@app.task(name="persevere", bind=True, default_retry_delay=0)
def persevere(self, attempts, seconds):
    """The attempt that succeeds; each takes `seconds`."""
    time.sleep(seconds)
    if self.request.retries < attempts:
        raise self.retry(max_retries=attempts, countdown=0)
    return self.request.retries


@app.task(name="retry_on_limit", bind=True)
def retry_on_limit(self):
    try:
        if self.request.retries < 2:
            time.sleep(60)
    except SoftTimeLimitExceeded as error:
        raise self.retry(exc=error, countdown=0, max_retries=2) from error
    return self.request.retries


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


@app.task(name="spin", bind=True)
def spin(self):
    note(self.request.id, time.time())
    while True:
        pass


@app.task(name="stubborn_spin", bind=True)
def stubborn_spin(self):
    note(self.request.id, time.time())
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


def in_a_coroutine(task):
    """A task like `task` whose body is a coroutine that calls the other body, which may block or compute."""

    @app.task(name=f"{task.name}_in_a_coroutine", bind=True)
    async def body(self, *args):
        request = self.request.id
        await asyncio.sleep(0)
        function = task.__wrapped__
        value = function.__func__(self, *args) if hasattr(function, "__func__") else function(*args)
        assert self.request.id == request
        return value


@app.task(
    name="retry_by_itself",
    bind=True,
    autoretry_for=(KeyError, SoftTimeLimitExceeded),
    retry_kwargs={"max_retries": 2, "countdown": 0},
)
async def retry_by_itself(self, seconds):
    await asyncio.sleep(0)
    if self.request.retries < 2:
        await asyncio.sleep(seconds)
        raise KeyError(seconds)
    return self.request.retries


@app.task(name="where", bind=True)
async def where(self):
    """Returns its native thread and loop, the result of another coroutine, and whether it is in a task of asyncio."""
    loop = asyncio.get_running_loop()
    return threading.get_native_id(), id(loop), await wait_in_a_coroutine(), asyncio.current_task() is not None


@app.task(name="where_await")
def where_await():
    from weald.aio import await_

    async def main():
        return id(asyncio.get_running_loop())

    return await_(main())


@app.task(name="called")
async def wait_in_a_coroutine():
    await asyncio.sleep(0)
    return "awaited"


@app.task(name="cleanup_in_a_coroutine")
async def cleanup_in_a_coroutine(key):
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        note(key, "finally")


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


@app.task(name="stuck_later", acks_late=True)
def stuck_later(key, seconds):
    note(key)
    time.sleep(seconds)
    stuck.run()


@app.task(name="stuck_with_gil", acks_late=True)
def stuck_with_gil():
    sum(itertools.repeat(0))


@app.task(name="version")
def version():
    import reloaded

    return reloaded.version()


# -------------------------------------------------------------------- time that is spent outside of the body

def spend(task_id, args, place):
    """Spend ten minutes at `place` of a task's run, in the way its arguments say."""
    if args[0] != place or task_id in spent:
        return
    spent.add(task_id)
    note(f"{task_id}:there")
    if args[1] == "wait":
        time.sleep(600)
    elif args[1] == "compute":
        end = time.monotonic() + 600
        while time.monotonic() < end:
            pass
    else:
        while True:
            try:
                time.sleep(600)
            except BaseException:
                pass


spent = set()


class Phased(app.Task):
    abstract = True

    def __call__(self, *args):
        spend(self.request.id, args, "__call__")
        return super().__call__(*args)

    def before_start(self, task_id, args, kwargs):
        spend(task_id, args, "before_start")

    def on_success(self, retval, task_id, args, kwargs):
        spend(task_id, args, "on_success")

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        spend(task_id, args, "on_failure")

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        spend(task_id, args, "on_retry")

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        spend(task_id, args, "after_return")


def be_phased(self, place, how):
    """Spends time at `place`, and ends in the way that leads there."""
    spend(self.request.id, (place, how), "body")
    if place in ("on_failure", "task_failure"):
        raise ValueError("on purpose")
    if place in ("on_retry", "task_retry"):
        raise self.retry(countdown=0)
    return "done"


for late in False, True:
    name = "phased_late" if late else "phased"
    app.task(name=name, bind=True, base=Phased, acks_late=late)(be_phased)


def spend_at(signal, name):
    @signal.connect(weak=False)
    def handler(sender=None, task_id=None, args=None, **_):
        if getattr(sender, "name", None) in ("phased", "phased_late"):
            request = sender.request
            spend(task_id or request.id, args or request.args, name)


for at in "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry":
    spend_at(getattr(signals, at), at)


@app.task(name="wait_for_others")
def wait_for_others():
    """Waits for the results of three tasks, and for one of them on its own."""
    several = group(nap.s(0.1) for _ in range(3)).apply_async()
    one = nap.delay(0.2)
    options = {"disable_sync_subtasks": False, "timeout": 50}
    return several.get(**options), one.get(**options)


@app.task(name="hold_and_fail")
def hold_and_fail(key):
    hold.run(key)
    raise ValueError("on purpose")


@app.task(name="late_hold", acks_late=True)
def late_hold(key):
    hold.run(key)


@app.task(name="close_channel")
def close_channel():
    """Acknowledges a message that was not delivered; AMQP's brokers answer by closing the channel."""
    from weald.integrations.celery.pool import _workers

    _workers[app].consumer.task_consumer.channel.basic_ack(999_999)


# -------------------------------------------------------------------- children

def fork_by_hand(stay):
    pid = celery_forks.by_hand(stay)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        if stay:
            os.kill(pid, 9)


def fork_subprocess(stay):
    import subprocess
    import sys

    code = f"import time; time.sleep({600 * stay}); raise SystemExit(9)"
    return subprocess.run([sys.executable, "-c", code]).returncode


def fork_process(context, stay):
    process = context.Process(target=celery_forks.stay if stay else celery_forks.square, args=(3,))
    process.start()
    process.join()
    return process.exitcode


def fork_pool(context, stay):
    with context.Pool(2) as pool:
        return pool.map(celery_forks.stay if stay else celery_forks.square, range(4))


def fork_manager(context, stay):
    with context.Manager() as manager:
        shared = manager.list([1, 2])
        shared.append(3)
        if stay:
            time.sleep(600)
        return list(shared)


def fork_executor(context, stay):
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(2, mp_context=context) as executor:
        try:
            return list(executor.map(celery_forks.stay if stay else celery_forks.square, range(4)))
        except BaseException:
            for process in list((executor._processes or {}).values()):
                process.terminate()
            raise


@app.task(name="children", bind=True, acks_late=True)
def children(self, kind, method, how):
    """Has children: they end, or stay and are waited for; `how` "fail" raises afterwards."""
    note(f"{self.request.id}:there")
    make = globals()[f"fork_{kind}"]
    if method is None:
        value = make(how == "stay")
    else:
        module = billiard if kind == "billiard" else multiprocessing
        value = make(module.get_context(method), how == "stay")
    if how == "fail":
        raise ValueError(value)
    return value


fork_billiard = fork_pool


@app.task(name="child_with_handler")
def child_with_handler():
    """The exit status of a child that has a handler of its own for SIGTERM."""
    context = multiprocessing.get_context("fork")
    key = context.Event()
    process = context.Process(target=celery_forks.with_handler, args=(key,))
    process.start()
    key.wait()
    process.terminate()
    process.join()
    return process.exitcode


# -------------------------------------------------------------------- SQLite, which has one writer at a time

@app.task(name="write_with_sqlalchemy")
def write_with_sqlalchemy(path, seconds):
    """Waits in a transaction that writes."""
    from sqlalchemy import text

    with engine_of(path).begin() as connection:
        connection.execute(text("insert into written values (1)"))
        time.sleep(seconds)


@functools.cache
def engine_of(path):
    import sqlite3

    from sqlalchemy import create_engine

    from weald.threadpool import Proxy

    return create_engine(f"sqlite:///{path}", module=Proxy(sqlite3, autowrap=[sqlite3.Connection, sqlite3.Cursor]),
                         pool_size=5, max_overflow=0, pool_timeout=60, connect_args={"timeout": 60})


@app.task(name="write_with_django")
def write_with_django(seconds):
    """Waits in a transaction that writes."""
    from django.db import connection, transaction

    with one_writer, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("insert into written values (1)")
        time.sleep(seconds)


one_writer = threading.Lock()


for _task in (soft, soft_spin, ignore_soft, soft_in_c, spin, stubborn, stubborn_spin, burn, leave, memory):
    in_a_coroutine(_task)


# -------------------------------------------------------------------- PostgreSQL, which goes on with a query

@app.task(name="query")
def query(url, cancels):
    """Runs a query of ten minutes; if it `cancels`, the server ends that with the task."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)
    try:
        connection.execute("select pg_sleep(600)")
    except BaseException:
        if cancels:
            connection.cancel_safe(timeout=0.8)
        raise
    finally:
        connection.close()
