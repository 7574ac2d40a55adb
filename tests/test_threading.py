"""weald.threading, and patched `threading`, `queue` and `concurrent.futures`.

Each case in an interpreter of its own, which must end with status 0 and print no complaint.
"""

import sys
import threading as stdlib

import pytest
from helpers import python, run_patched

from weald import threading


def test_names():
    for name in threading.__all__:
        assert hasattr(threading, name)
    for name in threading.__implements__:
        assert hasattr(stdlib, name) and hasattr(threading, name)


def test_threads_are_greenlets():
    out = run_patched(
        """
        import greenlet, threading, weald
        seen, go = [], threading.Event()
        def work(n):
            before = greenlet.getcurrent()
            go.wait()
            seen.append((n, threading.current_thread().name, threading.get_ident(), before))
        threads = [threading.Thread(target=work, args=(n,), name=f"t{n}") for n in range(5)]
        assert [thread.ident for thread in threads] == [None] * 5
        for thread in threads:
            thread.start()
        assert all(thread.is_alive() for thread in threads)
        assert threading.active_count() == 6 and set(threads) < set(threading.enumerate())
        go.set()
        for thread in threads:
            thread.join()
        assert not any(thread.is_alive() for thread in threads)
        assert threading.enumerate() == [threading.main_thread()]
        print([entry[:2] for entry in seen])
        assert [entry[2] for entry in seen] == [thread.ident for thread in threads]
        assert all(isinstance(entry[3], weald.Greenlet) for entry in seen)
        assert len({thread.ident for thread in threads}) == 5
        import _thread
        assert threading.get_native_id() == threading.main_thread().native_id
        """
    )
    assert out == "[(0, 't0'), (1, 't1'), (2, 't2'), (3, 't3'), (4, 't4')]\n"


def test_main_thread_stays_itself():
    out = run_patched(
        """
        print(threading.current_thread() is threading.main_thread() is before, threading.get_ident() == before.ident)
        print(before.is_alive(), threading.main_thread().daemon, repr(before)[:24])
        """,
        before="import threading\nbefore = threading.current_thread()",
    )
    assert out.splitlines() == ["True True", "True False <_MainThread(MainThread,"]


def test_join():
    out = run_patched(
        """
        import threading, time
        go = threading.Event()
        thread = threading.Thread(target=go.wait)
        for call in (thread.join, threading.current_thread().join):
            try:
                call()
            except RuntimeError as error:
                print(error)
        thread.start()
        begin = time.monotonic()
        thread.join(0.05)
        assert time.monotonic() - begin >= 0.04 and thread.is_alive()
        thread.join(0)
        thread.join(timeout=-1)
        waiters = [threading.Thread(target=thread.join) for _ in range(3)]
        for waiter in waiters:
            waiter.start()
        go.set()
        for waiter in waiters:
            waiter.join(100)
            assert not waiter.is_alive()
        assert not thread.is_alive()
        thread.join()
        try:
            thread.start()
        except RuntimeError as error:
            print(error)
        """
    )
    assert out.splitlines() == [
        "cannot join thread before it is started",
        "cannot join current thread",
        "threads can only be started once",
    ]


def test_a_thread_that_fails_or_exits():
    out = run_patched(
        """
        import _thread, sys, threading
        told = []
        threading.excepthook = lambda args: told.append((args.exc_type.__name__, args.thread.name))
        for target in (lambda: 1 / 0, sys.exit, _thread.exit, lambda: sys.exit(3)):
            thread = threading.Thread(target=target, name="mine")
            thread.start()
            thread.join()
            assert not thread.is_alive() and threading.active_count() == 1
        print(told)
        """
    )
    # The hook is called for SystemExit, too, as in native threads; the standard hook ignores it.
    assert out == str([(name, "mine") for name in ("ZeroDivisionError", *["SystemExit"] * 3)]) + "\n"


def test_threads_end_before_the_process():
    out = run_patched(
        """
        import atexit, threading, time
        atexit.register(print, "atexit")
        def work():
            time.sleep(0.1)
            threading.Thread(target=later, daemon=False).start()
            print("work")
        def later():
            time.sleep(0.1)
            print("later")
        threading.Thread(target=work).start()
        print("main")
        """
    )
    assert out.splitlines() == ["main", "work", "later", "atexit"]


def test_daemons_do_not_keep_the_process():
    out = run_patched(
        """
        import threading, time
        lock = threading.Lock()
        def forever():
            with lock:
                time.sleep(1000)
        def wait():
            lock.acquire()
        for target in (forever, wait, wait):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
        assert thread.daemon and threading.active_count() == 4
        print("main")
        """
    )
    assert out == "main\n"


def test_an_exception_of_the_program_still_waits_for_threads():
    out = run_patched(
        """
        import threading, time
        threading.Thread(target=lambda: (time.sleep(0.1), print("late"))).start()
        1 / 0
        """,
        expect=1,
        stderr=None,
    )
    assert out == "late\n"


def test_keyboard_interrupt_reaches_the_main_thread():
    out = run_patched(
        """
        import os, signal, threading, time
        def interrupt():
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)
        thread = threading.Thread(target=interrupt)
        thread.start()
        try:
            time.sleep(1000)
        except KeyboardInterrupt:
            print("interrupted")
        thread.join()
        """
    )
    assert out == "interrupted\n"


def test_timer():
    out = run_patched(
        """
        import threading
        timer = threading.Timer(0.02, print, ["timer"])
        timer.start()
        timer.join()
        timer = threading.Timer(1000, print, ["never"])
        timer.start()
        timer.cancel()
        timer.join()
        """
    )
    assert out == "timer\n"


def test_synchronisation():
    out = run_patched(
        """
        import threading, time

        def together(count, target):
            threads = [threading.Thread(target=target, args=(n,)) for n in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(100)
                assert not thread.is_alive()

        barrier = threading.Barrier(3)
        turns = []
        together(3, lambda n: turns.append(barrier.wait()))
        assert sorted(turns) == [0, 1, 2]
        broken = threading.Barrier(2)
        try:
            broken.wait(0.01)
        except threading.BrokenBarrierError:
            pass

        semaphore = threading.BoundedSemaphore(2)
        inside, most = [], []
        def limited(n):
            with semaphore:
                inside.append(n)
                most.append(len(inside))
                time.sleep(0.01)
                inside.remove(n)
        together(6, limited)
        assert max(most) == 2
        try:
            semaphore.release()
        except ValueError:
            pass
        else:
            raise AssertionError

        condition = threading.Condition()
        items = []
        def consume(n):
            with condition:
                assert condition.wait_for(lambda: items, 100)
                items.pop()
        def produce(n):
            if n < 5:
                return consume(n)
            for _ in range(5):
                with condition:
                    items.append(1)
                    condition.notify()
        together(6, produce)
        assert not items
        with condition:
            assert condition.wait(0.01) is False

        lock = threading.Lock()
        assert lock.acquire() and not lock.acquire(False) and not lock.acquire(timeout=0.01)
        lock.release()
        rlock = threading.RLock()
        with rlock, rlock:
            results = []
            other = threading.Thread(target=lambda: results.append(rlock.acquire(False)))
            other.start()
            other.join()
            assert results == [False]

        event = threading.Event()
        assert event.wait(0.01) is False
        together(3, lambda n: event.wait(100) if n < 2 else event.set())
        print("fine")
        """
    )
    assert out == "fine\n"


def test_local():
    out = run_patched(
        """
        import threading, time
        local = threading.local()
        local.value = "main"
        class Mine(threading.local):
            def __init__(self, value):
                self.value = value
        def work(n):
            assert not hasattr(local, "value")
            local.value = mine.value = n
            time.sleep(0.01)
            assert (local.value, mine.value) == (n, n)
        mine = Mine("main")
        threads = [threading.Thread(target=work, args=(n,)) for n in range(5)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        print(local.value, mine.value)
        """
    )
    assert out == "main main\n"


@pytest.mark.parametrize("kind", ["Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"])
def test_queues_between_threads(kind):
    out = run_patched(
        f"""
        import queue, threading, time
        q = queue.{kind}()
        bounded = queue.Queue(1)
        got = []
        def consume():
            while (item := q.get()) >= 0:
                got.append(item)
            q.put(item)
        def produce(n):
            for item in range(10):
                q.put(n * 10 + item)
                bounded.put(n)
        threads = [threading.Thread(target=produce, args=(n,)) for n in range(5)]
        for thread in threads: thread.start()
        for _ in range(50):
            bounded.get()
            bounded.task_done()
        for thread in threads: thread.join()
        bounded.join()
        consumers = [threading.Thread(target=consume) for n in range(3)]
        for thread in consumers: thread.start()
        while len(got) < 50:
            time.sleep(0.001)
        q.put(-1)
        for thread in consumers: thread.join()
        assert sorted(got) == list(range(50))
        q.get()
        for call in (q.get_nowait, lambda: q.get(timeout=0.01), lambda: q.get(False)):
            try:
                call()
            except queue.Empty:
                continue
            raise AssertionError
        print(q.empty(), q.qsize())
        """
    )
    assert out == "True 0\n"


def test_queue_made_before():
    out = run_patched(
        """
        import threading
        thread = threading.Thread(target=lambda: q.put(q.get() + q.get()))
        thread.start()
        q.put(1)
        assert thread.is_alive()
        q.put(2)
        thread.join(100)
        print(thread.is_alive(), q.get())
        """,
        before="import queue\nq = queue.Queue(1)",
    )
    assert out == "False 3\n"


def test_executor():
    out = run_patched(
        """
        import concurrent.futures, threading, time, weald
        from concurrent.futures import ThreadPoolExecutor, as_completed, wait
        with ThreadPoolExecutor(30, initializer=lambda: names.append(threading.current_thread().name)) as pool:
            names, all_there = [], threading.Barrier(30)
            jobs = {pool.submit(lambda n: (all_there.wait(), n)[1], n): n for n in range(30)}
            for job in as_completed(jobs, timeout=100):
                assert job.result() == jobs[job]
            assert len(set(names)) == 30
            failing = pool.submit(lambda: 1 / 0)
            assert isinstance(failing.exception(100), ZeroDivisionError)
            done, rest = wait([pool.submit(time.sleep, 0.01), pool.submit(time.sleep, 10000)], None, "FIRST_COMPLETED")
            assert (len(done), len(rest)) == (1, 1)
            done, rest = wait([*done, *rest], 0.01)
            assert (len(done), len(rest)) == (1, 1)
            # From many greenlets at once.
            greenlets = [weald.spawn(lambda n: pool.submit(int, n).result(), n) for n in range(20)]
            weald.joinall(greenlets, raise_error=True)
            assert [g.value for g in greenlets] == list(range(20))
            pool.shutdown(False, cancel_futures=True)
            import greenlet, gc
            for g in gc.get_objects():
                if isinstance(g, weald.Greenlet) and g.gr_frame is not None:
                    g.kill()
        print("fine")
        """,
        stderr=None,
    )
    assert out == "fine\n"


def test_executor_made_before_and_left_running():
    out = run_patched(
        """
        print(pool.submit(sum, (1, 2)).result(100))
        import weald
        import time
        greenlets = [weald.spawn(lambda: pool.submit(time.sleep, 0.01).result()) for _ in range(4)]
        weald.joinall(greenlets, raise_error=True)
        from weald.threading import Barrier
        all_there = Barrier(20)
        assert sorted(unused.map(lambda n: all_there.wait(), range(20))) == list(range(20))
        """,
        before="from concurrent.futures import ThreadPoolExecutor\npool = ThreadPoolExecutor(2)\n"
        "assert pool.submit(int, 1).result() == 1\nunused = ThreadPoolExecutor(20)",
    )
    assert out == "3\n"


def test_a_greenlet_is_a_dummy_thread_as_long_as_it_lives():
    out = run_patched(
        """
        import gc, logging, threading, weald
        def work():
            me = threading.current_thread()
            assert me is threading.current_thread() and me.is_alive() and me.daemon
            assert me.name.startswith("Dummy-") and me.ident == threading.get_ident()
            assert me in threading.enumerate()
            logging.getLogger("x").info("nothing")
            repr(me)
        for start in (weald.spawn, weald.spawn_raw):
            greenlets = [start(work) for _ in range(5)]
            weald.sleep(0.01)
            weald.sleep(0.01)
            del greenlets
            gc.collect()
            print(threading.active_count())
        """
    )
    assert out.splitlines() == ["1", "1"]


def test_native_threads_still_work():
    """Native threads of the thread pool, which use primitives of the patched `threading`."""
    out = run_patched(
        """
        import threading, weald
        from weald.threadpool import ThreadPool
        lock, event, queue = threading.Lock(), threading.Event(), __import__("queue").Queue()
        begun = threading.Barrier(4)  # each job has a thread of its own before one ends
        def work():
            ident = threading.get_ident()
            assert ident == threading.current_thread().ident
            begun.wait()
            event.wait(100)
            with lock:
                queue.put(1)
            return ident
        pool = ThreadPool(3)
        jobs = [pool.spawn(work) for _ in range(3)]
        begun.wait()
        with lock:
            event.set()
            weald.sleep(0.01)
        print([queue.get() for _ in jobs], len({job.get() for job in jobs}))
        pool.kill()
        """
    )
    assert out == "[1, 1, 1] 3\n"


def test_fork_from_a_thread():
    out = run_patched(
        """
        import os, threading, time
        other = threading.Thread(target=time.sleep, args=(0.2,))
        other.start()
        def fork():
            pid = os.fork()
            if not pid:
                if threading.enumerate() != [threading.current_thread()]:
                    os._exit(8)
                inner = threading.Thread(target=time.sleep, args=(0.01,))
                inner.start()
                inner.join()
                os._exit(7)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        forker = threading.Thread(target=fork)
        forker.start()
        forker.join()
        assert other.is_alive()
        other.join()
        """
    )
    assert out == "7\n"


def test_nothing_of_the_parents_runs_while_a_child_begins():
    """A function of other code calls `is_alive` 3,000 times in a child, before the hub has handled the fork."""
    out = run_patched(
        """
        import os, threading, time
        ran, go = [], threading.Event()
        other = threading.Thread(target=lambda: go.wait() and ran.append(os.getpid()))
        other.start()
        registered.append(lambda: [other.is_alive() for _ in range(3000)])
        go.set()
        pid = os.fork()
        if not pid:
            os._exit(len(ran))
        registered.clear()
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        other.join()
        print(ran == [os.getpid()])
        """,
        before="import os\nregistered = []\nos.register_at_fork(after_in_child=lambda: [f() for f in registered])",
    )
    assert out == "0\nTrue\n"


def test_unpatched_threads_are_native():
    python(
        """
        import _thread, threading, weald.threading
        idents = []
        thread = weald.threading.Thread(target=lambda: idents.append(_thread.get_native_id()))
        thread.start()
        thread.join()
        assert idents != [_thread.get_native_id()]
        """
    )


def test_event_looks_as_ever():
    event = threading.Event()
    assert repr(event).endswith(": unset>") and repr(event).startswith("<threading.Event at 0x")
    event.set()
    assert repr(event).endswith(": set>")
    with pytest.warns(DeprecationWarning, match="use is_set"):
        assert event.isSet()


def test_a_thread_inherits_no_context():
    out = run_patched(
        """
        import contextvars, decimal, threading
        variable = contextvars.ContextVar("variable", default="unset")
        variable.set("set")
        decimal.getcontext().prec = 3
        def look():
            print(variable.get(), decimal.getcontext().prec)
        for _ in range(2):
            thread = threading.Thread(target=look)
            thread.start()
            thread.join()
        thread = threading.Thread(target=contextvars.copy_context().run, args=(look,))
        thread.start()
        thread.join()
        """
    )
    assert out == "unset 28\nunset 28\nset 3\n"


_BUSY_WAITS = [  # the object waited for, the call that ends the wait, the wait
    ("threading.Event()", "it.set", "while not it.is_set(): pass"),
    ("started(time.sleep, 0.01)", "int", "while it.is_alive(): pass"),
    ("held(threading.Lock())", "it.release", "while it.locked(): pass"),
    ("held(threading.Lock())", "it.release", "while not it.acquire(False): pass"),
    ("held_elsewhere(threading.RLock())", "int", "while not it.acquire(False): pass"),
    ("threading.Semaphore(0)", "it.release", "while not it.acquire(False): pass"),
    ("concurrent.futures.Future()", "it.cancel", "while not it.done(): pass"),
    ("queue.Queue()", "lambda: it.put(1)", "while it.empty(): pass"),
    ("queue.Queue()", "lambda: it.put(1)", "until(queue.Empty, it.get_nowait)"),
    ("queue.SimpleQueue()", "lambda: it.put(1)", "while it.empty(): pass"),
    ("queue.SimpleQueue()", "lambda: it.put(1)", "until(queue.Empty, it.get_nowait)"),
    ("pair()", "lambda: it[1].send(b'1')", "until(BlockingIOError, it[0].recv, 1)"),
    ("pair()", "lambda: it[1].send(b'1')", "until(BlockingIOError, it[0].recvmsg, 1)"),
    ("subprocess.Popen('cat', stdin=-1)", "it.stdin.close", "while it.poll() is None: pass"),
    ("subprocess.Popen('cat', stdin=-1)", "it.stdin.close", "while not os.waitpid(it.pid, os.WNOHANG)[0]: pass"),
]


def test_a_busy_wait_lets_others_run():
    """Another greenlet does what it waits for; native threads would let it run, too."""
    cases = "\n".join(
        f"it = {make}\nthreading.Timer(0.01, {change}).start()\n{wait}\nprint({i})"
        for i, (make, change, wait) in enumerate(_BUSY_WAITS)
    )
    code = """
import concurrent.futures, os, queue, socket, subprocess, threading, time
def until(error, call, *args):
    while True:
        try:
            return call(*args)
        except error:
            pass
def started(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread
def held(lock):
    lock.acquire()
    return lock
def held_elsewhere(lock):
    def hold():
        with lock:
            holding.set()
            time.sleep(0.01)
    holding = threading.Event()
    started(hold)
    holding.wait()
    return lock
def pair():
    ends = socket.socketpair()
    ends[0].setblocking(False)
    return ends
"""
    assert run_patched(code + cases).split() == [str(i) for i in range(len(_BUSY_WAITS))]


def test_an_answer_holds_when_the_caller_gets_it():
    """Others run before an answer, never between the answer and the caller's next step."""
    out = run_patched(
        """
        import threading
        event, ready, both = threading.Event(), threading.Event(), []
        def first():
            ready.wait()
            for _ in range(20000):
                if not event.is_set():
                    if event.is_set():
                        both.append(1)
        def other():
            ready.wait()
            while len(done) < 1:
                event.set()
                event.clear()
                with lock:
                    pass
        lock, done = threading.Lock(), []
        threads = [threading.Thread(target=first), threading.Thread(target=other)]
        for thread in threads:
            thread.start()
        ready.set()
        threads[0].join()
        done.append(1)
        print(both)
        """
    )
    assert out == "[]\n"


def test_asyncio_keeps_its_loop_across_such_a_switch():
    """A callback that takes locks again and again lets another thread's loop run in between."""
    out = run_patched(
        """
        import asyncio, threading
        lock, wrong = threading.Lock(), []
        async def main():
            mine = asyncio.get_running_loop()
            for _ in range(30):
                for _ in range(3000):
                    with lock:
                        pass
                made = asyncio.Future()  # in C, which reads the thread's slot
                if made.get_loop() is not mine or asyncio.get_running_loop() is not mine:
                    wrong.append(made)
                await asyncio.sleep(0)
        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(wrong)
        """
    )
    assert out == "[]\n"


def test_threads_do_not_name_the_process():
    """From 3.14 on a thread names its native thread, which here would name the whole process."""
    out = run_patched(
        """
        import threading
        def name():
            with open("/proc/self/comm") as comm:
                return comm.read().strip()
        before, names = name(), []
        def run():
            names.append(name())
            threading.current_thread().name = "another"
            names.append(name())
        thread = threading.Thread(target=run, name="one of many")
        thread.start()
        thread.join()
        print(names == [before] * 2, thread.name, before == name())
        threading.main_thread().name = "main"
        print(name())
        """
    )
    named = "main" if sys.version_info >= (3, 14) else "python"
    assert out.splitlines() == ["True another True", named]


JOINS_OF_THE_MAIN_THREAD = """
    import threading, time, weald
    main, told = threading.main_thread(), []
    def watch():
        main.join(0.01)
        told.append(main.is_alive())
        main.join(0)
        main.join()
        print("ended", main.is_alive(), told)
    threads = [threading.Thread(target=watch) for _ in range(2)]
    for thread in threads:
        thread.start()
    while len(told) < 2:
        time.sleep(0.001)
    try:
        main.join()
    except RuntimeError as error:
        print(str(error).lower())
    print("main", main.is_alive())
"""


def test_the_main_thread_may_be_joined():
    expected = "cannot join current thread\nmain True\n" + "ended False [True, True]\n" * 2
    assert run_patched(JOINS_OF_THE_MAIN_THREAD) == expected
    assert run_patched(JOINS_OF_THE_MAIN_THREAD, before="import threading; threading.current_thread()") == expected


def test_a_greenlet_and_a_native_thread_join_the_main_thread():
    out = run_patched(
        """
        import threading, weald
        from weald.monkey import get_original
        main, told = threading.main_thread(), []
        waits = weald.spawn(main.join)
        get_original("_thread", "start_new_thread")(lambda: (main.join(0.01), told.append(main.is_alive())), ())
        while not told:
            weald.sleep(0.001)
        print(waits.ready(), told)
        """
    )
    assert out == "False [True]\n"


def test_a_forked_childs_thread_joins_its_main_thread():
    out = run_patched(
        """
        import os, sys, threading
        def watch():
            threading.main_thread().join()
            print("the child has ended", flush=True)
        def fork():
            pid = os.fork()
            if pid:
                print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
                return
            assert threading.main_thread() is threading.current_thread()
            threading.Thread(target=watch).start()
            if threading.current_thread() is not before:
                threading._shutdown()
                os._exit(3)
            sys.exit(3)
        before = threading.main_thread()
        fork()
        thread = threading.Thread(target=fork)
        thread.start()
        thread.join()
        """
    )
    assert out == "the child has ended\n3\n" * 2


def test_threads_made_before():
    """Started or not: waiting for them lets others run, also at the end of the program."""
    out = run_patched(
        """
        import time, weald
        from weald.event import Event
        ticks, ticking = [], Event()
        def tick():
            ticking.wait()
            for n in range(3):
                time.sleep(0.01)
                ticks.append(n)
            go.set()
        weald.spawn(tick)
        native.join(0.001)
        print(native.is_alive(), daemon.is_alive(), ticks)
        ticking.set()
        later.start()
        later.join()
        native.join()
        daemon.join()
        native.join()
        print(native.is_alive(), daemon.is_alive(), later.is_alive(), ticks, len(ended))
        weald.spawn(lambda: (time.sleep(0.02), last_go.set()))
        """,
        before="""
            import threading
            go, last_go, ended = threading.Event(), threading.Event(), []
            def work(event):
                event.wait()
                ended.append(1)
            native, later, last = (threading.Thread(target=work, args=(event,)) for event in (go, go, last_go))
            daemon = threading.Thread(target=work, args=(go,), daemon=True)
            for thread in native, daemon, last:
                thread.start()
        """,
    )
    assert out == "True True []\nFalse False False [0, 1, 2] 3\n"


def test_frames_of_threads():
    """Profilers and dumps of stacks look for a thread's frame by its ident."""
    out = run_patched(
        """
        import signal, sys, threading
        names = lambda frame: [] if frame is None else [frame.f_code.co_name, *names(frame.f_back)]
        go = threading.Event()
        def waits_here():
            go.wait()
        def asks():
            frames = sys._current_frames()
            print(names(frames[threading.get_ident()])[0], "<module>" in names(frames[threading.main_thread().ident]))
        thread = threading.Thread(target=waits_here)
        thread.start()
        weald.sleep(0)
        frames = sys._current_frames()
        print("waits_here" in names(frames[thread.ident]), names(frames[threading.get_ident()]), len(frames))
        del frames
        asking = threading.Thread(target=asks)
        asking.start()
        asking.join()
        native = weald.threadpool.ThreadPool(1)
        print(native.apply(lambda: names(sys._current_frames()[threading.get_ident()])[0]))
        signal.signal(signal.SIGUSR1, lambda number, frame: asks())
        signal.raise_signal(signal.SIGUSR1)
        go.set()
        thread.join()
        print(thread.ident in sys._current_frames())
        native.kill()
        """,
        before="import weald.threadpool",
    )
    assert out.splitlines() == [
        "True ['<module>'] 2", "asks True", "<lambda>", "asks False", "False"
    ]  # fmt: skip


def test_in_a_child_there_are_the_frames_and_the_count_of_one_thread():
    out = run_patched(
        """
        import _thread, os, sys, threading
        go = threading.Event()
        threads = [threading.Thread(target=go.wait) for _ in range(3)]
        for thread in threads: thread.start()
        def fork():
            if not (child := os.fork()):
                print(len(sys._current_frames()), _thread._count(), flush=True)
                os._exit(0)
            os.waitpid(child, 0)
        fork()
        forking = threading.Thread(target=fork)
        forking.start()
        forking.join()
        print(len(sys._current_frames()))
        go.set()
        """,
        before="import warnings; warnings.simplefilter('ignore')",
    )
    assert out.splitlines() == ["1 0", "2 1", "4"]
