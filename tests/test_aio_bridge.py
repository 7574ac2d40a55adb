"""weald.aio's bridge: greenlets that wait for coroutines, coroutines that call blocking code."""

import asyncio
import contextvars
import gc
import logging
import re
import sys
import threading
import traceback

import pytest
from helpers import PATIENCE, numbers, python, settle

import weald
from weald import BlockingSwitchOutError, GreenletExit, Timeout
from weald.aio import EventLoop, await_, new_event_loop, run, to_greenlet
from weald.event import AsyncResult, Event

variable = contextvars.ContextVar("variable", default="unset")


# ------------------------------------------------------------------ await_


async def answer(value):
    return value


async def slowly(value, seconds=0.001):
    await asyncio.sleep(seconds)
    return value


def test_await_what_does_not_wait(loop_name):
    assert await_(answer(1)) == 1


def test_await_what_waits(loop_name):
    assert await_(slowly(2)) == 2


def test_await_again_and_again(loop_name):
    assert [await_(slowly(i)) for i in range(20)] == list(range(20))


def test_a_coroutine_begins_in_the_calling_greenlet():
    """So one that does not wait costs no switch, and other greenlets do not run before it."""
    order = []

    async def begin(waits):
        order.append(weald.getcurrent() is me)
        assert asyncio.current_task() is not None and asyncio.get_running_loop() is not None
        if waits:
            await asyncio.sleep(0)
            order.append(weald.getcurrent() is me)

    me = weald.getcurrent()
    other = weald.spawn(order.append, "other")
    await_(begin(False))
    assert order == [True]
    await_(begin(True))
    assert order == [True, True, "other", False]
    other.join()


def test_a_coroutine_of_a_loop_that_has_its_own_call_soon():
    """A subclass may pass on other callbacks, in other contexts."""

    class Loop(EventLoop):
        def call_soon(self, callback, *args, context=None):
            return super().call_soon(lambda: callback(*args))

    async def main():
        return await to_greenlet(lambda: [await_(answer(1)), await_(slowly(2))])

    with asyncio.Runner(loop_factory=Loop) as runner:
        assert runner.run(main()) == [1, 2]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_coroutine_that_ends_the_program_at_once(error):
    out = python(
        f"""
        import asyncio, weald.aio

        async def end():
            raise {error.__name__}

        async def name():
            return asyncio.current_task().get_name()

        try:
            weald.aio.await_(end())
        except {error.__name__}:
            print("ended")
        print(weald.aio.await_(asyncio.wait_for(name(), 10)))
        """,
        stderr="" if sys.version_info < (3, 12) else None,  # an eager task of asyncio's reports it, too
    )
    assert out.splitlines()[0] == "ended" and out.splitlines()[1].startswith("Task-")


@pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="from Python 3.14 on asyncio's tasks fail in the child: it has no running loop"
)
def test_a_fork_in_a_coroutine_that_has_begun():
    """In the child no loop is left running: it can run one."""
    out = python(
        """
        import asyncio, os, weald, weald.aio

        async def fork():
            return os.fork()

        async def task(loop):
            weald.sleep(0)
            await asyncio.sleep(0)
            weald.sleep(0)
            return asyncio.current_task() is not None and asyncio.get_running_loop() is loop

        async def main():
            return await asyncio.gather(*[task(asyncio.get_running_loop()) for _ in range(3)])

        pid = weald.aio.await_(fork())
        good = weald.aio.run(main()) == [True] * 3
        if not pid:
            os._exit(0 if good else 1)
        print(good, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        """
    )
    assert out == "True 0\n"


async def slow_to_end():
    try:
        await asyncio.sleep(100)
    finally:
        await asyncio.sleep(10)


def test_a_kill_while_the_coroutine_ends_after_a_timeout(virtual):
    went_on = []

    def program():
        with weald.Timeout(1, False):
            weald.aio.await_(slow_to_end())
        went_on.append(True)

    greenlet = weald.spawn(program)
    weald.sleep(2)
    greenlet.kill()
    assert not went_on


def test_an_outer_timeout_while_the_coroutine_ends_after_an_inner_one(virtual):
    with pytest.raises(weald.Timeout) as caught, weald.Timeout(3) as outer, weald.Timeout(1, False):
        weald.aio.await_(slow_to_end())
    assert caught.value is outer


def test_coroutines_of_many_greenlets_share_a_loop(virtual):
    loops = set()

    async def wait(i):
        loops.add(asyncio.get_running_loop())
        await asyncio.sleep(10)
        loops.add(asyncio.get_running_loop())
        return i

    before = virtual.loop.now()
    jobs = [weald.spawn(await_, wait(i)) for i in range(100)]
    assert [job.get() for job in jobs] == list(range(100))
    assert virtual.loop.now() - before == 10 and len(loops) == 1


def test_what_a_coroutine_leaves_behind_runs_on():
    async def begin():
        return asyncio.create_task(slowly("later"))

    task = await_(begin())
    assert await_(task) == "later"


def test_other_awaitables():
    class Awaitable:
        def __await__(self):
            yield from asyncio.sleep(0.001).__await__()
            return "awaited"

    assert await_(Awaitable()) == "awaited"
    with pytest.raises(TypeError):
        await_(3)


def test_callbacks_that_were_added_before_are_called_before():
    called = []

    async def add():
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(called.append)
        return [future]

    [future] = await_(add())
    future.get_loop().call_later(0.001, future.set_result, 1)
    assert await_(future) == 1 and called == [future]


def test_exceptions_keep_their_tracebacks():
    async def fail():
        await asyncio.sleep(0)
        raise KeyError("text")

    with pytest.raises(KeyError, match="text") as caught:
        await_(fail())
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert "fail" in names and "test_exceptions_keep_their_tracebacks" in names

    async def fail_at_once():
        raise KeyError("text")

    with pytest.raises(KeyError, match="text"):
        await_(fail_at_once())


def test_timeout(virtual):
    ended = []

    async def wait():
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(5)
            ended.append(True)

    before = virtual.loop.now()
    with pytest.raises(TimeoutError, match="10"):
        await_(wait(), timeout=10)
    assert ended and virtual.loop.now() - before == 15  # it has ended when await_ returns


def test_a_timeout_that_the_coroutine_survives(virtual):
    async def stubborn():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            return "done anyway"

    assert await_(stubborn(), timeout=1) == "done anyway"


def test_a_killed_greenlet_cancels_and_waits(virtual):
    events = []

    async def wait():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            events.append("cancelled")
            await asyncio.sleep(3)
            events.append("ended")
            raise

    def caller():
        try:
            await_(wait())
        finally:
            events.append("caller")

    greenlet = weald.spawn(caller)
    weald.sleep(1)
    greenlet.kill()
    assert events == ["cancelled", "ended", "caller"]
    assert isinstance(greenlet.value, GreenletExit)


def test_a_greenlet_killed_twice_loses_no_coroutine(virtual):
    events = []

    async def wait():
        for _ in range(2):
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                events.append("cancelled")
        events.append("ended")

    greenlet = weald.spawn(await_, wait())
    weald.sleep(1)
    greenlet.kill(block=False)
    weald.sleep(1)
    greenlet.kill()
    assert events == ["cancelled", "cancelled", "ended"] and greenlet.dead


def test_what_fails_in_a_killed_greenlets_coroutine_is_logged(virtual, caplog):
    async def fail():
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            raise KeyError("while it is cancelled") from None

    greenlet = weald.spawn(await_, fail())
    weald.sleep(1)
    with caplog.at_level(logging.ERROR, "asyncio"):
        greenlet.kill()
    assert "while it is cancelled" in caplog.text


def test_a_weald_timeout_ends_await(virtual):
    with pytest.raises(Timeout), Timeout(5):
        await_(asyncio.sleep(100))


def test_cancelled_by_others(virtual):
    async def begin():
        return asyncio.ensure_future(asyncio.sleep(100))

    task = await_(begin())
    greenlet = weald.spawn(await_, task)
    weald.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        greenlet.get()


def test_context_variables_pass_both_ways():
    async def change(waits):
        assert variable.get() == "outer"
        if waits:
            await asyncio.sleep(0.001)
        variable.set("inner")

    for waits in (False, True):
        variable.set("outer")
        await_(change(waits))
        assert variable.get() == "inner"


def test_asynchronous_generators_that_are_left_are_closed(virtual):
    """Also those that begin before the coroutine waits for the first time: there it runs in the greenlet itself."""
    closed = []

    async def main(wait):
        if wait:
            await asyncio.sleep(0)
        async for _ in numbers(closed):
            break

    before = sys.get_asyncgen_hooks()
    for wait in (False, True):
        await_(main(wait))
        weald.spawn(await_, main(wait)).get()
    gc.collect()
    weald.sleep(1)
    assert len(closed) == 4 and sys.get_asyncgen_hooks() == before


def test_await_in_a_coroutine_says_what_to_do():
    async def main():
        coroutine = answer(1)
        with pytest.raises(RuntimeError, match="use await"):
            await_(coroutine)
        coroutine.close()

    run(main())
    await_(main())


def test_await_in_the_hub():
    result = AsyncResult()

    def call():
        coroutine = answer(1)
        try:
            await_(coroutine)
        except BaseException as error:
            result.set(error)
        coroutine.close()

    weald.get_hub().run_callback(call)
    assert isinstance(result.get(), BlockingSwitchOutError)


def test_a_coroutine_twice():
    coroutine = answer(1)
    assert await_(coroutine) == 1
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await_(coroutine)


def test_a_future_of_another_loop():
    loop = new_event_loop()
    with pytest.raises(ValueError, match="loop"):
        await_(loop.create_future())
    loop.close()


def test_the_resident_loop_cannot_be_stopped_or_run():
    async def main():
        return asyncio.get_running_loop()

    loop = await_(main())
    with pytest.raises(RuntimeError, match="as long as the hub"):
        loop.stop()
    with pytest.raises(RuntimeError, match="already running"):
        loop.run_forever()
    with pytest.raises(RuntimeError, match="Cannot close a running"):
        loop.close()


def test_the_resident_loop_ends_with_its_hub(loop_name):
    async def main():
        return asyncio.get_running_loop()

    loop = await_(main())
    weald.get_hub().destroy()
    assert loop.is_closed() and not loop.is_running()
    other = await_(main())
    assert other is not loop and await_(main()) is other


def test_each_thread_has_its_own():
    loops = []

    async def main():
        await asyncio.sleep(0.001)
        loops.append(asyncio.get_running_loop())

    threads = [threading.Thread(target=await_, args=(main(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(set(loops)) == 2


def test_a_native_thread_ends_in_silence():
    """The greenlet that runs its resident loop is nothing that the program has left behind."""
    out = python(
        """
        import asyncio, threading
        from weald.aio import await_
        thread = threading.Thread(target=await_, args=(asyncio.sleep(0.001),))
        thread.start()
        thread.join()
        """
    )
    assert out == ""


def test_a_deadlock_names_tasks():
    out = python(
        """
        import asyncio, weald
        from weald.aio import await_
        async def forever():
            await asyncio.get_running_loop().create_future()
        async def outer():
            await forever()
        try:
            await_(outer())
        except weald.LoopExit as error:
            print(error)
        """
    )
    assert re.search(r"(?s)<string>:\d+ in outer.*<string>:\d+ in forever", out), out


def test_a_coroutine_that_nothing_can_end_is_a_deadlock():
    out = python(
        """
        import asyncio, weald
        from weald.aio import await_
        async def stubborn():
            while True:
                try:
                    await asyncio.get_running_loop().create_future()
                except asyncio.CancelledError:
                    print("cancelled")
        try:
            await_(stubborn())
        except weald.LoopExit:
            print("deadlock", flush=True)
        import os
        os._exit(0)  # the interpreter's end would say that a task was not done
        """
    )
    assert out == "cancelled\ndeadlock\n"


def test_exits_reach_the_main_greenlet():
    async def leave():
        await asyncio.sleep(0.001)
        raise SystemExit(3)

    def caller():
        with pytest.raises(SystemExit):
            await_(leave())

    weald.spawn(caller)
    with pytest.raises(SystemExit):
        Event().wait(1000)
    assert await_(slowly("goes on")) == "goes on"


def test_a_coroutine_that_blocks_blocks_no_other(virtual):
    async def block(seconds):
        await asyncio.sleep(0)
        weald.sleep(seconds)
        return seconds

    before = virtual.loop.now()
    jobs = [weald.spawn(await_, block(seconds)) for seconds in (30, 10, 20)]
    assert [job.get() for job in jobs] == [30, 10, 20]
    assert virtual.loop.now() - before == 30


def test_the_interpreter_ends_with_a_resident_loop():
    out = python(
        """
        import asyncio, weald.aio
        async def main():
            await asyncio.sleep(0.001)
            return "text"
        print(weald.aio.await_(main()))
        """
    )
    assert out == "text\n"


# ------------------------------------------------------------------ to_greenlet


def test_blocking_code_in_a_greenlet(loop_name):
    def block(a, *, b):
        weald.sleep(0.001)
        return a + b

    async def main():
        return await asyncio.gather(to_greenlet(block, 1, b=2), to_greenlet(block, 3, b=4))

    assert run(main()) == [3, 7]


def test_exceptions_of_blocking_code():
    def fail():
        weald.sleep(0)
        raise KeyError("text")

    async def main():
        with pytest.raises(KeyError, match="text") as caught:
            await to_greenlet(fail)
        assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    run(main())


def test_cancelling_kills_the_greenlet_and_waits(virtual):
    events = []

    def block():
        try:
            weald.sleep(100)
        except GreenletExit:
            weald.sleep(3)
            events.append("killed")
            raise

    async def main():
        try:
            async with asyncio.timeout(10):
                await to_greenlet(block)
        finally:
            events.append(asyncio.get_running_loop().time())

    before = virtual.loop.now()
    with pytest.raises(TimeoutError):
        run(main())
    assert events == ["killed", before + 13]


def test_cancelled_before_the_greenlet_begins():
    began = []

    async def main():
        task = asyncio.create_task(to_greenlet(began.append, 1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert began in ([], [1])


def test_context_variables_pass_to_blocking_code_and_back():
    def change():
        assert variable.get() == "outer"
        variable.set("inner")

    async def main():
        variable.set("outer")
        await to_greenlet(change)
        return variable.get()

    assert run(main()) == "inner"


def test_blocking_code_awaits_on_the_loop_that_called_it():
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_later(0.001, future.set_result, "set")

        def block():
            async def inner():
                assert asyncio.get_running_loop() is loop
                return await future

            return await_(inner())

        return await to_greenlet(block)

    assert run(main()) == "set"


def test_only_on_wealds_loop():
    async def main():
        with pytest.raises(RuntimeError, match="needs weald's event loop"):
            await to_greenlet(print)
        with pytest.raises(RuntimeError, match="needs weald's event loop"):
            await AsyncResult()

    asyncio.run(main())


# ------------------------------------------------------------------ await of greenlets and AsyncResults


def test_await_a_greenlet(loop_name):
    def block(value):
        weald.sleep(0.001)
        return value

    async def main():
        done = weald.spawn(block, 0)
        assert await done == 0
        return [await done, *await asyncio.gather(*[slot(weald.spawn(block, i)) for i in range(3)])]

    async def slot(greenlet):
        return await greenlet

    assert run(main()) == [0, 0, 1, 2]


def test_await_an_async_result():
    async def main():
        result = AsyncResult()
        asyncio.get_running_loop().call_soon(result.set, "value")
        assert await result == "value"
        failed = AsyncResult()
        failed.set_exception(KeyError("text"))
        with pytest.raises(KeyError):
            await failed

    run(main())


def test_cancelling_the_wait_leaves_the_greenlet(virtual):
    async def main():
        greenlet = weald.spawn(weald.sleep, 100)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await greenlet
        assert not greenlet.dead
        await greenlet

    run(main())
    settle()


def test_a_result_that_another_thread_sets():
    async def main():
        result = AsyncResult()
        threading.Thread(target=result.set, args=("there",)).start()
        return await result

    assert run(main()) == "there"


# ------------------------------------------------------------------ patched


def test_patched():
    out = python(
        """
        import weald.monkey
        weald.monkey.patch_all()
        import asyncio, threading, time, queue, weald.aio
        from weald.aio import await_, to_greenlet

        inside = []
        async def block():
            task = asyncio.current_task()
            assert threading.current_thread() is threading.main_thread()
            inside.append(task)
            while len(inside) < 100:  # all at the same time
                time.sleep(0.001)
            assert asyncio.current_task() is task and threading.current_thread() is threading.main_thread()
            await asyncio.sleep(0.01)
            assert asyncio.current_task() is task and asyncio.get_running_loop() is task.get_loop()
            return 1

        async def main():
            total = sum(await asyncio.gather(*[block() for _ in range(100)]))
            q = queue.Queue()
            getting = asyncio.create_task(to_greenlet(q.get))
            await asyncio.sleep(0.01)
            q.put("item")
            return total, await getting, await asyncio.to_thread(max, 1, 2)

        print(weald.aio.run(main()))
        print(await_(block()))
        results = []
        thread = threading.Thread(target=lambda: results.append(weald.aio.run(asyncio.sleep(0.01, "thread"))))
        thread.start(); thread.join()
        print(results)
        """
    )
    assert out.splitlines() == ["(100, 'item', 2)", "1", "['thread']"]


def test_eager_tasks():
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        task = asyncio.create_task(answer(1))
        assert task.done()
        return await task

    assert run(main()) == 1


def test_eager_tasks_on_the_resident_loop():
    if sys.version_info < (3, 12):
        pytest.skip("eager tasks came with Python 3.12")

    async def set_factory(factory):
        asyncio.get_running_loop().set_task_factory(factory)

    await_(set_factory(asyncio.eager_task_factory))
    try:
        assert await_(slowly("waits")) == "waits" and await_(answer("at once")) == "at once"
        with pytest.raises(TimeoutError):
            await_(slowly(1, 1000), timeout=0.001)
    finally:
        await_(set_factory(None))
