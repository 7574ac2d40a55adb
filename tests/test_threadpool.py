"""ThreadPool and ThreadPoolExecutor: calls in native threads, waited for by greenlets."""

import concurrent.futures
import contextvars
import gc
import logging
import sys
import threading
import time
import weakref
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, as_completed

import pytest
from helpers import PATIENCE, Thread, python, recorded_errors, run_patched, settle, wait_until

import weald
from weald import Timeout, threadpool
from weald._base import workers
from weald._core import get_hub
from weald.event import AsyncResult
from weald.exceptions import InvalidThreadUseError
from weald.threadpool import ThreadPool, ThreadPoolExecutor


class Gate:
    """Native threads wait in `pass_through` until a greenlet calls `open`."""

    def __init__(self):
        self._open = threading.Event()
        self._lock = threading.Lock()
        self.inside = self.most = self.passed = 0

    def pass_through(self, value=None):
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        assert self._open.wait(PATIENCE), "the gate was never opened: did the loop block?"
        with self._lock:
            self.inside -= 1
            self.passed += 1
        return value

    def open(self):
        self._open.set()

    def open_later(self):
        """By a greenlet, so that no thread passes if the loop is blocked."""
        weald.spawn(self.open)


def fail(message="failed"):
    raise ValueError(message)


@pytest.fixture
def pool():
    made = ThreadPool(3)
    yield made
    made.kill()


@pytest.fixture
def executor():
    with ThreadPoolExecutor(3) as made:
        yield made


# -------------------------------------------------------------------- ThreadPool: calls


def test_functions_run_in_a_native_thread(pool):
    assert pool.apply(threading.get_ident) != threading.get_ident()
    assert pool.spawn(pow, 2, exp=5).get() == 32
    assert pool.apply(int, ("11",), {"base": 2}) == 3


def test_others_run_while_a_function_blocks(pool):
    gate = Gate()
    gate.open_later()
    assert pool.apply(gate.pass_through, (7,)) == 7
    assert pool.spawn(gate.pass_through, 8).get() == 8


def test_an_error_is_raised_where_it_is_waited_for(pool):
    with recorded_errors() as errors:
        with pytest.raises(ValueError, match="failed") as caught:
            pool.apply(fail)
        with pytest.raises(ValueError, match="one"):
            pool.map(fail, ["one", "two"])
        assert errors == []
        result = pool.spawn(fail)
        with pytest.raises(ValueError, match="failed"):
            result.get()
    assert [call[1] for call in errors] == [ValueError]
    assert any(entry.name == "fail" for entry in caught.traceback)
    assert result.exc_info and not result.successful()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, weald.GreenletExit])
def test_exits_in_a_worker_are_results_too(pool, error):
    def leave():
        raise error("x")

    with pytest.raises(error):
        pool.apply(leave)
    assert pool.apply(int) == 0


def test_at_most_maxsize_at_a_time(pool):
    gate = Gate()
    feeder = weald.spawn(lambda: [pool.spawn(gate.pass_through, number) for number in range(10)])
    wait_until(lambda: gate.inside == 3)
    settle()
    assert gate.inside == 3 and not feeder.ready()  # it waits for a slot
    gate.open()
    assert [result.get() for result in feeder.get(timeout=PATIENCE)] == list(range(10))
    assert gate.most == 3 and pool.size == 3


def test_slots_are_given_in_order(pool):
    gate, order = Gate(), []
    pool.maxsize = 1
    first = pool.spawn(gate.pass_through)
    feeders = [weald.spawn(lambda number=number: pool.spawn(order.append, number).get()) for number in range(6)]
    settle()
    gate.open()
    weald.joinall(feeders, timeout=PATIENCE, raise_error=True)
    assert order == list(range(6)) and first.ready()


def test_a_killed_waiter_gives_its_slot_back(pool):
    gate = Gate()
    pool.maxsize = 1
    under_way = [pool.spawn(gate.pass_through) for _ in range(2)]
    waiting = weald.spawn(pool.spawn, int)
    settle()
    waiting.kill()
    gate.open()
    weald.wait(under_way, timeout=PATIENCE)
    assert [pool.spawn(int).get() for _ in range(5)] == [0] * 5


def test_a_killed_greenlet_leaves_its_function_to_end(pool):
    gate = Gate()
    waiting = weald.spawn(pool.apply, gate.pass_through)
    wait_until(lambda: gate.inside)
    waiting.kill()
    gate.open()
    pool.join()
    assert gate.passed == 1 and pool.apply(int) == 0


def test_a_timeout_around_a_call(pool):
    gate = Gate()
    with pytest.raises(Timeout), Timeout(0.01):
        pool.apply(gate.pass_through)
    gate.open()
    pool.join()


def test_what_nobody_waits_for_any_more_does_not_begin(pool):
    """Whether it waited for a thread or for a slot; and the next caller is served."""
    gate, begun = Gate(), list[str]()
    busy = [weald.spawn(pool.apply, gate.pass_through) for _ in range(3)]
    wait_until(lambda: gate.inside == 3)
    left = [weald.spawn(pool.apply, begun.append, (f"left {i}",)) for i in range(5)]
    left.append(weald.spawn(pool.map, begun.append, ["left by map", "twice"]))
    settle()
    weald.killall(left)
    stays = weald.spawn(pool.apply, begun.append, ("stays",))
    gate.open()
    weald.joinall([*busy, stays])
    pool.join()
    assert begun == ["stays"]
    assert len(pool) == 0


def test_join_waits_for_all(pool):
    gate = Gate()
    for _ in range(4):
        pool.spawn(gate.pass_through)
    gate.open_later()
    pool.join()
    assert gate.passed == 4 and len(pool) == 0
    pool.join()


def test_len_counts_jobs_and_a_pool_is_true(pool):
    assert len(pool) == 0 and pool
    gate = Gate()
    results = [pool.spawn(gate.pass_through) for _ in range(2)]
    assert len(pool) == 2 and "tasks=2" in repr(pool)
    gate.open()
    weald.wait(results, timeout=PATIENCE)
    assert len(pool) == 0


def test_maps(pool):
    assert pool.map(int, "123456789") == list(range(1, 10))
    assert list(pool.imap(pow, [1, 2, 3], [2, 2, 2])) == [1, 4, 9]
    assert sorted(pool.imap_unordered(int, "321")) == [1, 2, 3]
    called = []
    assert pool.map_cb(int, "12", called.append) == [1, 2] and called == [[1, 2]]
    assert pool.map_async(int, "12").get() == [1, 2]
    with recorded_errors():
        results = pool.imap(lambda text: int(text), ["1", "x", "3"])
        assert next(results) == 1
        with pytest.raises(ValueError):
            next(results)
        assert list(results) == [3]


def test_imap_unordered_gives_first_what_is_ready_first(pool):
    gate = Gate()
    results = pool.imap_unordered(lambda function: function(), [gate.pass_through, lambda: "first"])
    assert next(results) == "first"
    gate.open()
    assert list(results) == [None]


def test_apply_async_and_callbacks(pool):
    called = []
    assert pool.apply_async(int, ("7",), callback=called.append).get() == 7
    assert pool.apply_cb(int, ("8",), callback=called.append) == 8
    assert called == [7, 8]
    gate = Gate()
    tasks = [pool.apply_async(gate.pass_through, (number,)) for number in range(9)]  # never waits for a slot
    gate.open()
    assert [task.get(timeout=PATIENCE) for task in tasks] == list(range(9))


def test_context_variables_are_the_callers(pool, executor):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("mine")

    def change():
        before = variable.get()
        variable.set("theirs")
        return before

    assert [pool.apply(change), pool.apply(change)] == ["mine"] * 2
    assert [executor.submit(change).result() for _ in range(4)] == ["mine"] * 4
    assert variable.get() == "mine"


def test_profile_and_trace_hooks_of_threading(pool, executor):
    seen = set()

    def marked():
        pass

    def hook(frame, event, argument):
        if frame.f_code is marked.__code__:
            seen.add(event)

    threading.setprofile(hook)
    threading.settrace(hook)
    try:
        pool.apply(marked)
        executor.submit(marked).result()
    finally:
        threading.setprofile(None)  # type: ignore[arg-type]
        threading.settrace(None)  # type: ignore[arg-type]
    assert seen == {"call", "return"}
    assert pool.apply(sys.getprofile) is None and pool.apply(sys.gettrace) is None


# -------------------------------------------------------------------- ThreadPool: size


def test_threads_are_started_as_they_are_needed(pool):
    assert pool.size == 0
    pool.apply(int)
    pool.apply(int)
    assert pool.size == 1
    gate = Gate()
    for _ in range(3):
        pool.spawn(gate.pass_through)
    assert pool.size == 3
    gate.open()
    pool.join()


def test_size_can_be_set(pool):
    pool.size = 2
    assert pool.size == 2
    pool.size = 0
    assert pool.size == 0 and pool.apply(int) == 0
    for size in (-1, 4):
        with pytest.raises(ValueError):
            pool.size = size


def test_a_pool_grows_and_shrinks(pool):
    gate = Gate()
    feeder = weald.spawn(lambda: [pool.spawn(gate.pass_through) for _ in range(20)])
    wait_until(lambda: gate.inside == 3)
    pool.maxsize = 5
    wait_until(lambda: gate.inside == 5)
    pool.maxsize = 1
    assert pool.size == 1
    gate.open()
    weald.wait(feeder.get(timeout=PATIENCE), timeout=PATIENCE)
    assert gate.most == 5
    gate = Gate()
    results = [pool.spawn(gate.pass_through) for _ in range(2)]
    wait_until(lambda: gate.inside)
    settle()
    assert gate.inside == 1
    gate.open()
    weald.wait(results, timeout=PATIENCE)
    assert gate.most == 1


def test_a_suspended_pool_runs_its_jobs_later(pool):
    pool.maxsize = 0
    result = pool.spawn(int)
    settle()
    assert not result.ready() and pool.size == 0
    pool.maxsize = 2
    assert result.get(timeout=PATIENCE) == 0


def test_sizes_that_are_none():
    for size, error in ((-1, ValueError), ("1", TypeError), (1.5, TypeError), (None, TypeError)):
        with pytest.raises(error):
            ThreadPool(size)  # type: ignore[arg-type]


def test_idle_workers_end():
    pool = ThreadPool(3, idle_task_timeout=0.01)
    before = native_threads()
    assert pool.map(int, "123") == [1, 2, 3]
    wait_until(lambda: pool.size == 0)
    wait_until(lambda: native_threads() <= before)
    assert pool.apply(int) == 0


def native_threads():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("Threads:"))


def test_kill_ends_the_threads_after_their_jobs(pool):
    before = native_threads()
    gate = Gate()
    results = [pool.spawn(gate.pass_through, number) for number in range(4)]
    wait_until(lambda: gate.inside == 3)
    pool.kill()
    assert pool.size == 0
    gate.open()
    assert [result.get(timeout=PATIENCE) for result in results] == list(range(4))
    wait_until(lambda: native_threads() <= before)
    assert pool.apply(int) == 0  # and starts a new one when there is more to do


def test_a_dropped_pool_ends_its_threads():
    before = native_threads()
    pool = ThreadPool(3)
    pool.map(int, "123")
    dropped = weakref.ref(pool)
    del pool
    gc.collect()
    assert dropped() is None
    wait_until(lambda: native_threads() <= before)


def test_no_thread_to_be_had(pool, executor, monkeypatch):
    """The job is refused, and not run later either."""

    def refuse(*args):
        raise RuntimeError("can't start new thread")

    called = []
    with monkeypatch.context() as patch:
        patch.setattr(workers, "_start_new_thread", refuse)
        for number in range(5):
            with pytest.raises(RuntimeError, match="new thread"):
                pool.apply(called.append, (number,))
            with pytest.raises(RuntimeError, match="new thread"):
                executor.submit(called.append, number)
    assert len(pool) == 0 and pool.size == 0
    assert pool.map(int, "12345") == [1, 2, 3, 4, 5]
    assert list(executor.map(int, "12345")) == [1, 2, 3, 4, 5]
    assert called == []


# -------------------------------------------------------------------- ThreadPool: threads, hubs


def test_apply_in_a_worker_just_calls(pool):
    pool.maxsize = 1
    inner, outer = pool.apply(lambda: (pool.apply(threading.get_ident), threading.get_ident()))
    assert inner == outer


def test_spawn_from_another_thread_is_refused(pool):
    with pytest.raises(InvalidThreadUseError):
        Thread(pool.spawn, int).wait()


def test_each_thread_has_a_default_pool():
    mine = threadpool.default()
    assert threadpool.default() is mine and mine.hub is get_hub()

    def other():
        pool = threadpool.default()
        return pool is not mine and pool.apply(int, ("7",)) == 7 and pool.hub is get_hub()

    assert Thread(other).wait()


def test_a_job_keeps_the_loop_waiting_for_it():
    """Otherwise the main greenlet would get a deadlock report."""
    assert (
        python(
            """
        import time
        from weald.threadpool import ThreadPool, ThreadPoolExecutor
        pool = ThreadPool(1)
        print(pool.spawn(lambda: time.sleep(0.1) or 7).get())
        with ThreadPoolExecutor(1) as executor:
            print(executor.submit(lambda: time.sleep(0.1) or 8).result())
        """
        )
        == "7\n8\n"
    )


def test_waiting_for_what_no_job_will_bring_is_a_deadlock():
    """Idle workers do not count as threads that could wake a greenlet."""
    out = python(
        """
        import weald
        from weald.event import Event
        from weald.threadpool import ThreadPool, ThreadPoolExecutor
        pool, executor = ThreadPool(2), ThreadPoolExecutor(2)
        pool.apply(int)
        executor.submit(int).result()
        try:
            Event().wait()
        except weald.LoopExit:
            print("LoopExit")
        """
    )
    assert out == "LoopExit\n"


@pytest.mark.parametrize("make", ["ThreadPool(2)", "ThreadPoolExecutor(2)"])
def test_the_interpreter_exits_while_workers_are_busy(make):
    spawn = "spawn" if make.startswith("ThreadPool(") else "submit"
    assert (
        python(
            f"""
        import threading, time
        from weald.threadpool import ThreadPool, ThreadPoolExecutor
        pool = {make}
        pool.{spawn}(time.sleep, 1000)
        pool.{spawn}(int)
        print("leaving")
        """
        )
        == "leaving\n"
    )


def test_a_forks_child_begins_with_no_workers():
    assert (
        python(
            """
        import os, threading, warnings, weald
        from weald.threadpool import ThreadPool, ThreadPoolExecutor
        warnings.simplefilter("ignore")  # of forking with threads
        pool, executor, gate = ThreadPool(2), ThreadPoolExecutor(2), threading.Event()
        jobs = [pool.spawn(gate.wait), executor.submit(gate.wait)]
        pid = os.fork()
        if not pid:
            ok = len(pool) == 0 and pool.size == 0 and pool.apply(int, ("7",)) == 7
            ok = ok and executor.submit(int, "8").result(timeout=100) == 8
            os._exit(0 if ok else 1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        gate.set()
        print(jobs[0].get(timeout=100), jobs[1].result(timeout=100))
        """
        )
        == "0\nTrue True\n"
    )


def test_workers_stay_native_when_threading_is_patched():
    assert (
        run_patched(
            """
        import threading, time, weald
        from weald.threadpool import ThreadPool, ThreadPoolExecutor
        blocking_sleep = weald.monkey.get_original("time", "sleep")
        ticks = []
        ticker = weald.spawn(lambda: [ticks.append(time.sleep(0.001)) for _ in range(20)])
        def until_they_have_run():
            while len(ticks) < 20:
                blocking_sleep(0.001)
        ThreadPool(1).apply(until_they_have_run)
        print(len(ticks))
        with ThreadPoolExecutor(1) as executor:
            print(executor.submit(int, "7").result())
        """
        )
        == "20\n7\n"
    )


# -------------------------------------------------------------------- ThreadPoolExecutor


def test_an_executor_is_the_stdlibs(executor):
    assert isinstance(executor, concurrent.futures.ThreadPoolExecutor)
    future = executor.submit(pow, 2, 5)
    assert isinstance(future, concurrent.futures.Future) and future.result(timeout=PATIENCE) == 32
    assert executor.submit(threading.get_ident).result() != threading.get_ident()
    assert list(executor.map(pow, [1, 2], [3, 3], timeout=PATIENCE)) == [1, 8]


def test_result_lets_others_run(executor):
    gate = Gate()
    future = executor.submit(gate.pass_through, 7)
    gate.open_later()
    assert future.result() == 7


def test_errors_of_futures(executor):
    future = executor.submit(fail)
    with pytest.raises(ValueError, match="failed"):
        future.result(timeout=PATIENCE)
    assert isinstance(future.exception(), ValueError)


def test_a_future_that_takes_too_long(executor):
    gate = Gate()
    future = executor.submit(gate.pass_through, 7)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    with pytest.raises(Timeout), Timeout(0.01):
        future.result()
    gate.open()
    assert future.result(timeout=PATIENCE) == 7


def test_callbacks(executor):
    called = []
    future = executor.submit(int, "7")
    future.add_done_callback(lambda future: called.append(future.result()))
    wait_until(lambda: called)
    future.add_done_callback(lambda future: called.append("late"))
    assert called == [7, "late"]


def test_threads_of_an_executor_have_its_name():
    """As log lines show them.  `threading` forgets them when they end."""

    def name():
        return threading.current_thread().name

    with ThreadPoolExecutor(1, "mine") as named, ThreadPoolExecutor(1) as unnamed:
        assert named.submit(name).result(timeout=PATIENCE) == "mine_0"
        assert unnamed.submit(name).result(timeout=PATIENCE).startswith("ThreadPoolExecutor-")
    assert [thread.name for thread in threading.enumerate() if "mine" in thread.name] == []


def test_many_greenlets_wait_for_one_future(executor):
    gate = Gate()
    future = executor.submit(gate.pass_through, 7)
    waiting = [weald.spawn(future.result) for _ in range(10)]
    waiting[3].kill()
    gate.open_later()
    weald.joinall(waiting, timeout=PATIENCE)
    assert [greenlet.value for number, greenlet in enumerate(waiting) if number != 3] == [7] * 9


@pytest.mark.parametrize("timeout", [None, 20])
def test_as_completed_from_a_greenlet(executor, timeout):
    """The loop goes on: a greenlet lets the jobs end."""
    gates = [Gate() for _ in range(3)]
    futures = [executor.submit(gate.pass_through, number) for number, gate in enumerate(gates)]
    got = []

    def collect():
        for future in as_completed(futures, timeout):
            got.append(future.result())

    collecting = weald.spawn(collect)
    for count, number in enumerate((2, 0, 1), 1):
        gates[number].open_later()
        wait_until(lambda count=count: len(got) == count)  # type: ignore[misc]
    collecting.get(timeout=PATIENCE)
    assert got == [2, 0, 1]


@pytest.mark.parametrize("return_when", [FIRST_COMPLETED, FIRST_EXCEPTION, ALL_COMPLETED])
def test_wait_from_a_greenlet(executor, return_when):
    gate, last = Gate(), Gate()

    def pass_and_fail():
        gate.pass_through()
        fail()

    futures = [executor.submit(pass_and_fail), executor.submit(last.pass_through)]
    gate.open_later()
    if return_when == ALL_COMPLETED:
        last.open_later()
    done, not_done = concurrent.futures.wait(futures, return_when=return_when)
    assert done == (set(futures) if return_when == ALL_COMPLETED else {futures[0]})
    assert done | not_done == set(futures)
    last.open()
    concurrent.futures.wait(futures)


def test_wait_and_as_completed_time_out(executor):
    gate = Gate()
    futures = [executor.submit(gate.pass_through), executor.submit(int)]
    futures[1].result()
    assert concurrent.futures.wait(futures, timeout=0.01) == ({futures[1]}, {futures[0]})
    completed = as_completed(futures, timeout=0.01)
    assert next(completed) is futures[1]
    with pytest.raises(concurrent.futures.TimeoutError):
        next(completed)
    gate.open()


def test_wait_for_ours_together_with_the_stdlibs(executor):
    gate = Gate()
    with concurrent.futures.ThreadPoolExecutor(1) as native:
        futures = [native.submit(gate.pass_through), executor.submit(gate.pass_through)]
        gate.open_later()
        done, not_done = concurrent.futures.wait(futures)
    assert done == set(futures) and not not_done


def test_wait_in_a_plain_thread(executor):
    gate = Gate()
    futures = {executor.submit(gate.pass_through) for _ in range(3)}
    waiting = [Thread(concurrent.futures.wait, futures), Thread(lambda: set(as_completed(futures)))]
    gate.open()
    assert [thread.wait() for thread in waiting] == [(futures, set()), futures]


def test_weald_wait_and_links(executor):
    gate = Gate()
    slow, quick = executor.submit(gate.pass_through), executor.submit(int)
    assert weald.wait([slow, quick], count=1, timeout=PATIENCE) == [quick]
    result = AsyncResult()
    called = []
    slow.rawlink(called.append)  # type: ignore[attr-defined]
    slow.rawlink(result.set)  # type: ignore[attr-defined]
    slow.unlink(called.append)  # type: ignore[attr-defined]
    assert not slow.ready() and not slow.successful()  # type: ignore[attr-defined]
    gate.open()
    assert result.get(timeout=PATIENCE) is slow and called == []
    assert slow.ready() and slow.successful()  # type: ignore[attr-defined]
    failed = executor.submit(fail)
    weald.wait([failed], timeout=PATIENCE)
    assert failed.ready() and not failed.successful()  # type: ignore[attr-defined]


def test_cancelling(executor):
    gate = Gate()
    running = [executor.submit(gate.pass_through) for _ in range(3)]
    wait_until(lambda: gate.inside == 3)
    queued = executor.submit(fail)
    assert queued.cancel() and queued.cancelled() and not running[0].cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        queued.result()
    gate.open()
    assert concurrent.futures.wait([*running, queued]).not_done == set()
    assert executor.submit(int).result() == 0


def test_shutdown(executor):
    gate = Gate()
    futures = [executor.submit(gate.pass_through, number) for number in range(5)]
    wait_until(lambda: gate.inside == 3)
    executor.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(int)
    gate.open_later()
    executor.shutdown()
    assert [future.result(timeout=0) for future in futures] == list(range(5))


def test_shutdown_that_cancels_what_has_not_begun(executor):
    gate = Gate()
    futures = [executor.submit(gate.pass_through, number) for number in range(5)]
    wait_until(lambda: gate.inside == 3)
    gate.open_later()
    executor.shutdown(cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False] * 3 + [True] * 2


def test_an_initializer():
    begun = []
    with ThreadPoolExecutor(2, "named", begun.append, (7,)) as executor:
        assert executor.submit(int).result() == 0
        assert begun == [7]


def test_an_initializer_that_fails(caplog):
    with caplog.at_level(logging.CRITICAL), ThreadPoolExecutor(2, initializer=fail) as executor:
        future = executor.submit(int)
        with pytest.raises(concurrent.futures.thread.BrokenThreadPool):
            future.result(timeout=PATIENCE)
        with pytest.raises(concurrent.futures.thread.BrokenThreadPool):
            executor.submit(int)
    assert "Exception in initializer" in caplog.text


def test_a_dropped_executor_ends_its_threads():
    before = native_threads()
    executor = ThreadPoolExecutor(3)
    executor.submit(int).result()
    del executor
    gc.collect()
    wait_until(lambda: native_threads() <= before)


def test_executors_in_several_threads():
    def use():
        with ThreadPoolExecutor(2) as executor:
            return sum(executor.map(int, "123"))

    threads = [Thread(use) for _ in range(4)]
    assert [thread.wait() for thread in threads] == [6] * 4


@pytest.mark.parametrize("call", [ThreadPool.apply, ThreadPool.spawn])
def test_nothing_is_kept_of_a_job_that_has_ended(pool, call):
    class Thing:
        pass

    thing = Thing()
    gone = weakref.ref(thing)
    result = pool.apply(id, (thing,)) if call is ThreadPool.apply else pool.spawn(id, thing).get()
    assert result
    del thing
    pool.apply(time.sleep, (0,))
    gc.collect()
    assert gone() is None


def test_an_executors_callbacks_run_where_the_loop_does():
    """And may spawn and wait there; they have run when the executor has shut down."""
    ran = []

    def called(future):
        weald.sleep(0)
        spawned.append(weald.spawn(ran.append, (threading.get_ident(), future.result())))

    spawned = []
    with ThreadPoolExecutor(2) as executor:
        futures = [executor.submit(lambda n=n: n) for n in range(5)]
        for future in futures:
            future.add_done_callback(called)
        futures[0].result()
    wait_until(lambda: len(spawned) == 5)
    weald.joinall(spawned)
    assert sorted(ran) == [(threading.get_ident(), n) for n in range(5)]
