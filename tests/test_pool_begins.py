"""Greenlets, threads, timers and links that a call in a pool's thread starts, and leaves there when it returns."""

import pytest
from helpers import PATIENCE, python, run_patched, wait_until

import weald
from weald import Timeout, threadpool
from weald._core import get_hub
from weald.event import Event
from weald.threadpool import ThreadPool, ThreadPoolExecutor


@pytest.fixture
def pool():
    made = ThreadPool(1)
    yield made
    made.kill()


@pytest.fixture
def told():
    return []


BEGINNINGS = {
    "spawn": lambda function: weald.spawn(function),
    "start": lambda function: weald.Greenlet(function).start(),
    "spawn_raw": lambda function: weald.spawn_raw(function),
    "spawn_later": lambda function: weald.spawn_later(0.001, function),
    "spawn and wait": lambda function: (weald.spawn(lambda: (weald.sleep(0.001), function())), weald.sleep(0)),
    "link": lambda function: weald.spawn(int).link(lambda source: function()),
    "rawlink": lambda function: weald.spawn(int).rawlink(lambda source: function()),
    "run_callback": lambda function: get_hub().run_callback(function),
    "loop.timer": lambda function: get_hub().loop.timer(0.001).start(function),
}


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_what_a_call_begins_goes_on(pool, told, begin):
    pool.apply(begin, (lambda: told.append(threadpool.get_hub_if_exists()),))
    wait_until(lambda: told)
    assert told != [get_hub()]  # in the thread that began it


@pytest.mark.parametrize("begin", BEGINNINGS.values(), ids=BEGINNINGS)
def test_what_an_executors_call_begins_goes_on_after_shutdown(told, begin):
    with ThreadPoolExecutor(1) as executor:
        executor.submit(begin, lambda: told.append(True)).result()
    wait_until(lambda: told)


def test_it_goes_on_when_the_pool_is_killed(pool, told):
    go = Event()
    pool.apply(weald.spawn, (lambda: (go.wait(), told.append(True)),))
    pool.kill()
    wait_until(lambda: pool._workers.threads == 0)
    go.set()
    wait_until(lambda: told)


def test_a_thread_with_something_left_takes_jobs(pool, told):
    go = Event()
    ident = pool.apply(lambda: (weald.spawn(lambda: (go.wait(), told.append(True))), get_hub().thread_ident)[1])
    assert [pool.apply(lambda: get_hub().thread_ident) for _ in range(3)] == [ident] * 3
    go.set()
    wait_until(lambda: told)
    assert pool.apply(lambda: get_hub().thread_ident) == ident


def test_other_threads_are_preferred_for_jobs_that_block(told):
    pool, go = ThreadPool(2), Event()
    block = threadpool._allocate_lock()
    block.acquire()
    pool.apply(weald.spawn, (lambda: (go.wait(), told.append(True)),))
    wait_until(lambda: pool._workers._lingering)
    job = pool.spawn(block.acquire)
    wait_until(lambda: pool._workers.threads == 2)
    assert not job.ready()
    block.release()
    assert job.get(timeout=PATIENCE)
    go.set()
    wait_until(lambda: told)
    pool.kill()


def test_an_idle_thread_does_not_end_with_something_left(told):
    pool, go = ThreadPool(1, idle_task_timeout=0.001), Event()
    pool.apply(weald.spawn, (lambda: (go.wait(), told.append(True)),))
    weald.sleep(0.01)
    assert pool._workers.threads == 1
    go.set()
    wait_until(lambda: told and pool._workers.threads == 0)


def test_a_timeout_that_a_call_leaves_started_ends_nobody_else(pool):
    pool.apply(
        lambda: [Timeout.start_new(0.001 * i, exception) for i in range(20) for exception in (None, OSError)] and 1
    )
    for _ in range(20):
        pool.apply(weald.sleep, (0.002,))
    assert pool._workers.threads == 1


def raise_exit():
    raise SystemExit


def test_errors_of_what_is_left_are_reported(pool, capfd):
    pool.apply(weald.spawn, (lambda: 1 // 0,))
    pool.apply(weald.spawn, (raise_exit,))
    errors = ""
    while "ZeroDivisionError" not in errors:
        weald.sleep(0.001)
        errors += capfd.readouterr().err
    assert pool.apply(int, ("7",)) == 7


def test_a_deadlock_is_found_while_a_thread_waits_with_what_is_left():
    assert (
        python(
            """
        import weald
        from weald.event import Event
        from weald.threadpool import ThreadPool
        pool = ThreadPool(1)
        pool.apply(weald.spawn, (Event().wait,))
        weald.sleep(0.05)  # until the thread idles
        try:
            Event().wait()
        except weald.hub.LoopExit:
            print("LoopExit")
        """
        )
        == "LoopExit\n"
    )


def test_a_forks_child_forgets_what_is_left():
    assert (
        python(
            """
        import os, warnings, weald
        from weald.event import Event
        from weald.threadpool import ThreadPool
        warnings.simplefilter("ignore")  # of forking with threads
        pool, go = ThreadPool(1), Event()
        ended = pool.apply(weald.spawn, (go.wait,))
        pid = os.fork()
        if not pid:
            pool.apply(weald.spawn, (int,)).join()
            os._exit(pool.apply(int, ("7",)))
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        go.set()
        print(ended.get(timeout=100))
        """
        )
        == "7\nTrue\n"
    )


# -------------------------------------------------------------------- patched threads

CALLS = {
    "ThreadPool": "from weald.threadpool import ThreadPool; ThreadPool(1).apply(begin)",
    "ThreadPoolExecutor": """
import concurrent.futures
with concurrent.futures.ThreadPoolExecutor(1) as executor:
    executor.submit(begin).result()
""",
    "to_thread": """
import asyncio
async def main():
    await asyncio.to_thread(begin)
asyncio.run(main())
""",
    "Proxy": """
from weald.threadpool import Proxy
class Target:
    def begin(self):
        begin()
Proxy(Target()).begin()
""",
    "native thread": """
ended = weald.event.Event()
weald.monkey.get_original("_thread", "start_new_thread")(lambda: (begin(), ended.set()), ())
ended.wait()
""",
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_thread_runs_to_its_end(call):
    daemon = ", daemon=False" if "start_new_thread" in call else ""  # as of threads that threading does not know
    out = run_patched(
        f"""
import _thread, threading, time, weald, weald.event
leave = _thread.allocate_lock()
leave.acquire()
def work():
    with leave:
        time.sleep(0.001)
        print("ended", threading.current_thread().name, flush=True)
def begin():
    threading.Thread(target=work, name="named"{daemon}).start()
    endless = threading.Thread(target=time.sleep, args=(1000,), daemon=True)
    endless.start()
{call}
print("leaving", flush=True)
leave.release()
"""
    )
    assert out == "leaving\nended named\n"


def test_a_thread_is_joined_from_everywhere():
    out = run_patched(
        """
        import asyncio, sys, threading, time, weald
        def begin():
            thread = threading.Thread(target=lambda: time.sleep(0.001))
            thread.start()
            return thread
        async def main():
            thread = await asyncio.to_thread(begin)
            await asyncio.to_thread(thread.join)
            return thread
        print(asyncio.run(main()).is_alive())
        pool = weald.threadpool.ThreadPool(1)
        gate = threading.Event()
        def begin():
            thread = threading.Thread(target=gate.wait)
            thread.start()
            return thread, thread.ident in sys._current_frames(), thread in threading.enumerate()
        thread, *known = pool.apply(begin)
        thread.join(0.001)
        print(thread.is_alive(), known)
        gate.set()
        thread.join()
        print(thread.is_alive(), thread in threading.enumerate(), gate.is_set())
        """,
        before="import weald.threadpool",
    )
    assert out == "False\nTrue [True, True]\nFalse False True\n"


def test_a_job_waits_natively_for_its_thread():
    """The job blocks its native thread, as a C library does; the threads that it started run all the same."""
    out = run_patched(
        """
        import _thread, threading, weald.threadpool
        lock = weald.monkey.get_original("_thread", "allocate_lock")()
        lock.acquire()
        def begin():
            threading.Thread(target=lock.release).start()
            return lock.acquire()
        print(weald.threadpool.ThreadPool(1).apply(begin))
        """
    )
    assert out == "True\n"


def test_errors_locals_and_low_level_threads():
    out = run_patched(
        """
        import _thread, sys, threading, weald.threadpool
        pool = weald.threadpool.ThreadPool(1)
        threading.excepthook = lambda args: print(args.exc_type.__name__)
        def begin():
            thread = threading.Thread(target=lambda: 1 // 0)
            thread.start()
            thread.join()
        pool.apply(begin)
        local, ended, idents = threading.local(), threading.Event(), []
        def begin():
            local.x = 1
            idents.append(_thread.start_new_thread(
                lambda: (idents.append(_thread.get_ident()), print(hasattr(local, "x")), ended.set(), sys.exit()), ()))
        pool.apply(begin)
        ended.wait()
        print(len(set(idents)), _thread.get_ident() not in idents)
        """
    )
    assert out == "ZeroDivisionError\nFalse\n1 True\n"


def test_what_a_thread_begins_goes_on_after_it():
    out = run_patched(
        """
        import threading, weald.threadpool, weald.event
        told = weald.event.AsyncResult()
        def begin():
            thread = threading.Thread(target=lambda: weald.spawn_later(0.001, told.set, "ran"))
            thread.start()
            thread.join()
        weald.threadpool.ThreadPool(1).apply(begin)
        print(told.get())
        """
    )
    assert out == "ran\n"


# -------------------------------------------------------------------- native threads that nobody runs


def test_greenlets_that_end_with_their_thread_are_named():
    out = python(
        """
        import _thread, os, sys, weald
        from weald.event import Event
        sys.stderr = sys.stdout
        told, native = [], []
        class Named(weald.Greenlet):
            def __repr__(self):
                return f"<Named {self.args}>"
        def work():
            native.append(_thread.get_native_id())
            told.append(Named.spawn(print, "never", flush=True))  # reports go past a buffer
            told.append(Named.spawn_later(1000, print, "never"))
            told.append(Named.spawn(Event().wait, 1000))
            weald.sleep(0)
            told.append(Named.spawn(print, "nor this"))
        _thread.start_new_thread(work, ())
        while not native or os.path.exists(f"/proc/self/task/{native[0]}"):
            weald.sleep(0.001)
        print([type(greenlet.value).__name__ for greenlet in told])
        """
    )
    lines = out.splitlines()
    assert lines[0] == "never"
    assert "native thread has ended" in lines[1]
    assert [line.strip() for line in lines[2:5]] == [
        "<Named (1000,)>",
        "<Named ('nor this',)>",
        "1 that were to begin later",
    ]
    assert lines[-1] == "['NoneType', 'GreenletExit', 'GreenletExit', 'GreenletExit']"


def test_threads_with_greenlets_do_not_abort_the_process_at_its_end():
    """They take the GIL again while the interpreter is taken apart."""
    assert (
        python(
            """
        import _thread, time, weald
        from weald.threadpool import ThreadPool
        def work():
            while True:
                time.sleep(0.0001)
        class Last:
            def __del__(self, sleep=time.sleep):
                sleep(0.05)
        def begin():
            weald.spawn(work)
            weald.sleep(0)
        last = Last()
        _thread.start_new_thread(begin, ())
        ThreadPool(1).spawn(begin)
        weald.sleep(0.01)
        print("leaving")
        """
        )
        == "leaving\n"
    )


def test_who_leaves_nothing_is_told_nothing():
    assert (
        python(
            """
        import threading, weald
        def work():
            weald.spawn(print, "ran").join()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        """
        )
        == "ran\n"
    )
