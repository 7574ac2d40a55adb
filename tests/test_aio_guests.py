"""Greenlets of other libraries inside coroutines: SQLAlchemy's asyncio half, on weald's loop.

No database is needed: `greenlet_spawn` and `await_only` are what its engines and sessions are made of.  A real one is
in tests/third_party/test_async_clients.py.
"""

import asyncio
import gc
import weakref

import pytest
from helpers import python

import weald
from weald.aio import await_, run, to_greenlet
from weald.event import Event

concurrency = pytest.importorskip("sqlalchemy.util.concurrency")
greenlet_spawn, await_only = concurrency.greenlet_spawn, concurrency.await_only


async def later(value, turns=1):
    for _ in range(turns):
        await asyncio.sleep(0)
    return value


def add_up(count):
    """A plain function that waits for `count` coroutines."""
    return sum(await_only(later(i)) for i in range(count))


def test_in_a_greenlet(loop_name):
    """The first steps run in the caller's greenlet, the others in the resident loop's."""
    assert await_(greenlet_spawn(add_up, 5)) == 10
    jobs = [weald.spawn(await_, greenlet_spawn(add_up, count)) for count in range(20)]
    assert [job.get() for job in jobs] == [sum(range(count)) for count in range(20)]


def test_a_function_that_blocks(virtual):
    async def task(number):
        current = asyncio.current_task()

        def function():
            weald.sleep(10 - number)
            first = await_only(later(number))
            weald.sleep(number)
            assert asyncio.current_task() is current and asyncio.get_running_loop() is loop
            return first + await_only(later(number))

        loop = asyncio.get_running_loop()
        return await greenlet_spawn(function)

    async def main():
        return await asyncio.gather(*map(task, range(10)))

    expected = [2 * number for number in range(10)]
    before = virtual.loop.now()
    assert run(main()) == expected
    assert virtual.loop.now() - before == 10
    assert await_(main()) == expected


def test_one_that_waits_goes_on_while_another_blocks():
    """The greenlet that began both is blocked in one of them.  Another greenlet goes on with the other."""
    event = Event()

    def waits():
        total = add_up(5)
        event.set()
        return total

    def blocks():
        event.wait()
        return await_only(later("unblocked"))

    async def main():
        waiting = asyncio.create_task(greenlet_spawn(waits))
        await asyncio.sleep(0)
        blocking = asyncio.create_task(greenlet_spawn(blocks))
        return await waiting, await blocking

    assert run(main()) == (10, "unblocked")
    assert await_(main()) == (10, "unblocked")


def test_its_greenlet_outlives_the_one_that_began_it(virtual):
    async def main():
        async def wait():
            await event.wait()
            return 2

        def function():
            return await_only(wait()), await_only(later(3))

        event = asyncio.Event()
        task = asyncio.create_task(greenlet_spawn(function))
        weald.sleep(1)  # another greenlet begins the task
        await asyncio.sleep(1)  # that one has ended, and this one drives again
        event.set()
        return await task

    assert run(main()) == (2, 3)


def test_exceptions_and_cancellation():
    ended = []

    def fails():
        await_only(later(1))
        raise KeyError("text")

    def catches():
        try:
            await_only(fail_later())
        except ValueError:
            return await_only(later("caught"))

    async def fail_later():
        await asyncio.sleep(0)
        raise ValueError

    def is_cancelled():
        try:
            await_only(later(1))
            await_only(asyncio.sleep(1000))
        finally:
            weald.sleep(0.001)
            ended.append(await_only(later("ended")))

    with pytest.raises(KeyError, match="text"):
        await_(greenlet_spawn(fails))
    assert await_(greenlet_spawn(catches)) == "caught"
    with pytest.raises(TimeoutError):
        await_(greenlet_spawn(is_cancelled), timeout=0.01)
    greenlet = weald.spawn(await_, greenlet_spawn(is_cancelled))
    weald.sleep(0.01)
    greenlet.kill()
    assert ended == ["ended", "ended"]


def test_in_blocking_code_that_a_coroutine_calls():
    async def main():
        return await to_greenlet(await_, greenlet_spawn(add_up, 4))

    assert run(main()) == 6


def test_nothing_is_left():
    class Value:
        pass

    def function(value):
        await_only(later(1))
        return value

    value = Value()
    left = weakref.ref(value)
    assert await_(greenlet_spawn(function, value)) is value
    del value
    gc.collect()
    assert left() is None


@pytest.mark.parametrize("first", ["weald.aio", "sqlalchemy.ext.asyncio"])
def test_whichever_is_imported_first(first):
    second = {"weald.aio": "sqlalchemy.ext.asyncio", "sqlalchemy.ext.asyncio": "weald.aio"}[first]
    out = python(
        f"""
        import {first}
        import {second}
        import asyncio
        from sqlalchemy.util.concurrency import await_only, greenlet_spawn
        def function():
            return [await_only(asyncio.sleep(0.001, i)) for i in range(3)]
        print(weald.aio.await_(greenlet_spawn(function)))
        """
    )
    assert out == "[0, 1, 2]\n"
