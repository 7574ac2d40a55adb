"""RLocks in the coroutines and callbacks of weald.aio's loop: which of them exclude each other, which share."""

import asyncio
import re

import pytest
from greenlet import getcurrent
from helpers import run_patched

import weald
import weald.aio
from weald.event import Event
from weald.lock import Condition, RLock


def test_a_coroutine_that_blocks_keeps_its_rlocks(virtual):
    lock, order = RLock(), []

    async def use(name, seconds):
        with lock, lock:
            order.append(f"{name} begins")
            weald.sleep(seconds)
            order.append(f"{name} ends")

    async def main():
        await asyncio.gather(use("a", 2), use("b", 1), use("c", 1))

    weald.aio.run(main())
    assert order == [f"{name} {what}" for name in "abc" for what in ("begins", "ends")]
    assert not lock.locked()


@pytest.mark.parametrize("make", [RLock, Condition])
def test_an_rlock_goes_with_its_coroutine(loop_name, make):
    """After an `await` another greenlet may run it, because a coroutine blocks."""
    lock, blocked, go = make(), Event(), Event()
    greenlets = []

    async def use():
        lock.acquire()
        greenlets.append(getcurrent())
        while not blocked.is_set():
            await asyncio.sleep(0)
        greenlets.append(getcurrent())
        assert lock._is_owned()
        with lock:
            go.set()
        lock.release()
        assert not lock._is_owned()

    async def block():
        blocked.set()
        go.wait()

    async def main():
        await asyncio.gather(use(), block())

    weald.aio.run(main())
    assert greenlets[0] is not greenlets[1]


@pytest.mark.parametrize("blocks", [False, True])
def test_an_rlock_across_an_await_is_the_loops(loop_name, blocks):
    """As on asyncio, where the task that awaits another one would otherwise wait for itself."""
    lock, go = RLock(), Event()
    loop = weald.aio.EventLoop()
    shared = []

    async def inner():
        with lock:
            shared.append((lock.acquire(blocking=False), lock._recursion_count()))
            lock.release()
        go.set()

    async def outer():
        with lock:
            if blocks:
                loop.call_soon(go.wait)
            await asyncio.create_task(inner())
            assert weald.spawn(lock.acquire, blocking=False).get() is False
        assert not lock.locked()

    loop.run_until_complete(outer())
    loop.close()
    assert shared == [(True, 3)]


def test_coroutines_that_wait_for_an_rlock_share_it_when_its_holder_awaits(virtual):
    """The holder blocks first, so they wait; then it awaits them, as it may on asyncio.  One after the other enters."""
    lock, order = RLock(), []

    async def inner(name):
        with lock:
            order.append(f"{name} begins")
            weald.sleep(1)
            order.append(f"{name} ends")

    async def outer():
        with lock:
            tasks = [asyncio.create_task(inner(name)) for name in "ab"]
            stranger = weald.spawn(lambda: lock.acquire() and order.append("stranger"))
            asyncio.get_running_loop().call_soon(order.append, "callback")
            weald.sleep(1)
            order.append("blocked")
            await asyncio.gather(*tasks)
            order.append("outer ends")
        assert not lock._is_owned()
        await stranger

    weald.aio.run(outer())
    assert order == ["callback", "blocked", "a begins", "a ends", "b begins", "b ends", "outer ends", "stranger"]


def test_a_waiter_for_a_shared_rlock_that_is_killed_leaves_it_to_the_next(virtual):
    lock, order = RLock(), []

    async def inner(name, seconds):
        try:
            with weald.Timeout(seconds), lock:
                order.append(name)
        except weald.Timeout:
            order.append(f"{name} gave up")

    async def outer():
        with lock:
            tasks = [asyncio.create_task(inner("a", 1)), asyncio.create_task(inner("b", 5))]
            weald.sleep(2)
            await asyncio.gather(*tasks)
            assert lock._recursion_count() == 1
        assert not lock.locked()

    weald.aio.run(outer())
    assert order == ["a gave up", "b"]


def test_an_rlock_that_is_held_around_a_run_is_the_runs(loop_name):
    """In a blocked loop, too, where other greenlets run the coroutines."""
    lock, go = RLock(), Event()
    greenlets = []

    async def use():
        await asyncio.sleep(0)
        greenlets.append(getcurrent())
        with lock:
            await asyncio.sleep(0)
        lock.acquire()
        go.set()

    async def main():
        task = asyncio.create_task(use())
        await asyncio.sleep(0)
        go.wait()
        await task

    with lock:
        weald.aio.run(main())
    assert lock._recursion_count() == 1
    assert weald.spawn(lock.acquire, blocking=False).get() is False
    assert greenlets != [getcurrent()]

    async def finish():
        lock.release()

    weald.aio.run(finish())  # of another loop, but of the same greenlet
    assert not lock.locked()


def test_an_rlock_of_one_loop_is_not_anothers(loop_name):
    """Loops in different greenlets are like asyncio's in different threads."""
    lock, taken, done = RLock(), Event(), Event()

    async def hold():
        lock.acquire()
        await asyncio.sleep(0)
        taken.set()
        while not done.is_set():
            await asyncio.sleep(0)
        lock.release()

    async def ask():
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="cannot release un-acquired lock"):
            lock.release()
        return lock.acquire(blocking=False)

    holder = weald.spawn(weald.aio.run, hold())
    taken.wait()
    assert weald.spawn(weald.aio.run, ask()).get() is False
    assert lock.acquire(blocking=False) is False
    done.set()
    holder.get()
    assert not lock.locked()


def test_an_rlock_across_an_await_in_await_(loop_name):
    """Where the greenlet itself begins the coroutine, another one finishes it."""
    lock = RLock()

    async def use():
        with lock:
            await asyncio.sleep(0)
            with lock:
                await asyncio.sleep(0)

    with lock:
        weald.aio.await_(asyncio.sleep(0, lock.acquire(False)))
        lock.release()
    for job in [weald.spawn(weald.aio.await_, use()) for _ in range(3)]:
        job.get()
    assert not lock.locked()


def test_a_signal_handler_may_take_the_rlock_of_the_coroutine_that_it_interrupts():
    """As on asyncio, where logging in a handler takes the locks that a coroutine holds."""
    code = """
        import asyncio, os, signal, threading
        lock, taken = threading.RLock(), []

        def handle(number, frame):
            with lock:
                taken.append(number)

        async def main():
            with lock:
                os.kill(os.getpid(), signal.SIGUSR1)
                while not taken:
                    pass
                await asyncio.sleep(0)
                os.kill(os.getpid(), signal.SIGUSR1)
                while len(taken) < 2:
                    pass
            print(len(taken), lock._is_owned())

        signal.signal(signal.SIGUSR1, handle)
        asyncio.run(main())
    """
    assert run_patched(code) == "2 False\n"


def test_a_condition_in_coroutines(virtual):
    condition, items, order = Condition(), [], []

    async def get():
        with condition:
            await asyncio.sleep(1)
            while not items:
                condition.wait()
            order.append(items.pop())
            await asyncio.sleep(1)
            assert condition._lock._recursion_count() == 1

    async def put():
        await asyncio.sleep(5)
        with condition:
            items.append("item")
            condition.notify()
            weald.sleep(1)
            order.append("notified")

    async def main():
        await asyncio.gather(get(), put())

    weald.aio.run(main())
    assert order == ["notified", "item"]
    assert not condition._lock.locked()


def test_what_an_rlock_says_of_its_owner(loop_name):
    lock = RLock()

    async def main():
        with lock:
            inside = repr(lock)
            await asyncio.sleep(0)
            return inside, repr(lock)

    inside, later = weald.aio.run(main())
    assert re.match(r"<locked RLock object owner=<a step of .* in .*> count=1 at 0x", inside)
    assert re.match(r"<locked RLock object owner=<an ended step of .* in .*> count=1 at 0x", later)


def test_an_rlock_in_a_callback_that_ends_by_an_exception(loop_name):
    lock, loop = RLock(), weald.aio.EventLoop()

    def hold():
        lock.acquire()
        raise KeyboardInterrupt

    loop.call_soon(hold)
    with pytest.raises(KeyboardInterrupt):
        loop.run_forever()
    loop.close()
    assert lock._is_owned()
    lock.release()


def test_an_rlock_of_multiprocessing_goes_with_its_coroutine():
    code = """
        import asyncio, multiprocessing, threading
        from greenlet import getcurrent
        context = multiprocessing.get_context("fork")
        lock, blocked, go, greenlets = context.RLock(), threading.Event(), threading.Event(), []

        async def use():
            with lock:
                greenlets.append(getcurrent())
                while not blocked.is_set():
                    await asyncio.sleep(0)
                greenlets.append(getcurrent())
                process = context.Process(target=ask)
                process.start()
                process.join()
                with lock:
                    go.set()
                print(process.exitcode)

        def ask():
            raise SystemExit(7 if lock.acquire(False) else 8)

        async def block():
            blocked.set()
            go.wait()
            with lock:
                return greenlets[0] is greenlets[1]

        async def main():
            print(await asyncio.gather(use(), block()))

        asyncio.run(main())
        print(lock.acquire(False), lock.release())
    """
    assert run_patched(code) == "8\n[None, False]\nTrue None\n"
