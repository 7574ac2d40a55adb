"""weald.aio: a callback that blocks changes neither whose context is whose, nor which `await` a cancellation comes to.

test_aio_connections.py asks the same of a connection's callbacks.  Nothing of this can happen on asyncio's loops,
because a callback that blocks there stalls the loop.
"""

import asyncio
import contextvars
import os
import signal
import socket
import sys

import pytest

import weald
import weald.aio
from weald.aio import await_, to_greenlet
from weald.event import Event

variable = contextvars.ContextVar("variable", default="unset")


async def turns(number=50):
    """Let everything happen that can."""
    for _ in range(number):
        await asyncio.sleep(0)


# ------------------------------------------------------------------ contexts


def test_tasks_share_a_context_although_one_blocks(virtual):
    context = contextvars.copy_context()
    notes = []

    async def block():
        weald.sleep(1)
        variable.set("blocked")
        await asyncio.sleep(2)
        notes.append(variable.get())

    async def other(name):
        await asyncio.sleep(0)
        notes.append(name)
        variable.set(name)

    async def main():
        tasks = [asyncio.create_task(step, context=context) for step in (block(), other("a"), other("b"))]
        await asyncio.wait_for(asyncio.gather(*tasks), 10)

    weald.aio.run(main())
    assert notes == ["a", "b", "b"] and context[variable] == "b"


def test_a_context_that_a_greenlet_has_entered_is_waited_for(virtual):
    context = contextvars.copy_context()

    async def main():
        greenlet = weald.spawn(context.run, weald.sleep, 1)
        await asyncio.sleep(0)
        before = virtual.loop.now()
        await asyncio.wait_for(asyncio.create_task(asyncio.sleep(0), context=context), 10)
        await greenlet
        return virtual.loop.now() - before

    assert 1 <= weald.aio.run(main()) < 1.1


def test_callbacks_share_a_context_and_come_in_order(virtual):
    context = contextvars.copy_context()
    notes = []

    def note(number):
        weald.sleep(1)
        notes.append(number)

    async def main():
        loop = asyncio.get_running_loop()
        for number in range(5):
            loop.call_soon(note, number, context=context)
        await asyncio.sleep(10)

    weald.aio.run(main())
    assert notes == [0, 1, 2, 3, 4]


def test_a_watched_descriptor_waits_for_its_context(io_loop, caplog):
    context = contextvars.copy_context()

    async def main():
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        gate, got = Event(), loop.create_future()
        loop.call_soon(gate.wait, context=context)
        loop._add_reader(ours, lambda: got.set_result(ours.recv(10)), context=context)
        theirs.send(b"a")
        await turns()
        assert not got.done()
        gate.set()
        result = await got
        loop.remove_reader(ours)
        ours.close()
        theirs.close()
        return result

    assert weald.aio.run(main()) == b"a"
    assert not caplog.records  # no call has failed


def test_signals_that_come_while_a_callback_blocks():
    """The callback is called for each of them, one call after the other."""
    notes = []

    async def main():
        loop = asyncio.get_running_loop()
        gate, all_done = Event(), loop.create_future()

        def hear():
            notes.append("begins")
            gate.wait()
            notes.append("ends")
            if notes.count("ends") == 3:
                all_done.set_result(None)

        loop.add_signal_handler(signal.SIGUSR1, hear)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
            await turns(10)
        assert notes == ["begins"]
        gate.set()
        await all_done

    weald.aio.run(main())
    assert notes == ["begins", "ends"] * 3


def test_callbacks_in_the_context_of_one_that_blocks_wait_for_it(virtual):
    """A context cannot be entered twice.  On asyncio the callback that blocks would stall them, too."""
    order = []
    context = contextvars.copy_context()

    async def use(name, seconds):
        order.append(f"{name} begins")
        weald.sleep(seconds)
        await asyncio.sleep(0)
        order.append(f"{name} ends")

    async def main():
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(use(name, 5), context=context) for name in "ab"]
        loop.call_later(1, order.append, "timer", context=context)
        cancelled = loop.call_later(2, order.append, "cancelled", context=context)
        loop.call_later(3, cancelled.cancel)
        loop.call_later(4, order.append, "another context")
        await asyncio.gather(*tasks)

    weald.aio.run(main())
    assert order[:2] == ["a begins", "another context"]
    assert sorted(order[2:]) == ["a ends", "b begins", "b ends", "timer"]


def test_a_signal_that_arrives_while_the_callback_of_one_blocks(caplog):
    """asyncio calls it once more when it has returned; it is one Handle, with one context."""
    loop, calls, go = weald.aio.EventLoop(), [], Event()

    def called():
        calls.append("begins")
        if len(calls) == 1:
            go.wait()
        calls.append("ends")
        if len(calls) == 4:
            loop.stop()

    loop.add_signal_handler(signal.SIGUSR1, called)
    loop.call_soon(os.kill, os.getpid(), signal.SIGUSR1)

    async def again():
        while not calls:
            await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGUSR1)
        for _ in range(10):
            await asyncio.sleep(0)
        go.set()

    task = loop.create_task(again())
    loop.run_forever()
    assert task.done()
    loop.close()
    assert calls == ["begins", "ends"] * 2
    assert not caplog.records


def test_what_others_set_meanwhile_is_not_set_back(virtual):
    """to_greenlet() sets what its function has set, and nothing else."""
    other = contextvars.ContextVar("other", default="unset")

    async def call():
        await to_greenlet(lambda: (other.set("by the function"), weald.sleep(2)))

    async def meanwhile():
        await asyncio.sleep(1)
        variable.set("meanwhile")

    async def main():
        variable.set("before")
        context = contextvars.copy_context()
        await asyncio.gather(*(asyncio.create_task(step, context=context) for step in (call(), meanwhile())))
        return context[variable], context[other]

    assert weald.aio.run(main()) == ("meanwhile", "by the function")


# ------------------------------------------------------------------ cancellations


async def bad(seconds):
    await asyncio.sleep(seconds)
    raise ValueError


async def in_a_timeout():
    async with asyncio.timeout(1):
        weald.sleep(2)


async def in_a_group():
    with pytest.raises(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(bad(1))
            await asyncio.sleep(0)
            weald.sleep(2)


@pytest.mark.parametrize("block", [in_a_timeout, in_a_group])
@pytest.mark.parametrize("start", [weald.aio.run, await_])
def test_a_cancellation_that_was_taken_back_does_not_come_later(virtual, block, start):
    """As on asyncio's loops, where what is inside would have stalled the loop."""

    async def main():
        await block()
        await asyncio.sleep(0)
        await asyncio.sleep(1)
        return asyncio.current_task().cancelling()  # type: ignore[union-attr]

    assert start(main()) == 0


@pytest.mark.parametrize("block", [in_a_timeout, in_a_group])
def test_another_cancellation_comes(virtual, block):
    async def main():
        task = asyncio.create_task(block())
        asyncio.get_running_loop().call_later(1.5, task.cancel)
        await asyncio.wait([task])
        return task

    # It has ended before the cancellation came to an `await`, or was cancelled; its caller sees the request anyway.
    assert weald.aio.run(main()).cancelling() == 1


def test_a_timeout_comes_to_an_await_inside(virtual):
    async def main():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                weald.sleep(2)
                await asyncio.sleep(0)
        await asyncio.sleep(1)

    weald.aio.run(main())


@pytest.mark.parametrize("ends", [None, ValueError])
def test_a_timeout_that_expires_in_blocking_code_leaves_nothing_behind(virtual, ends):
    """The block has no `await` that could raise, so for asyncio it has ended in time."""

    async def main():
        raised = None
        try:
            async with asyncio.timeout(1) as inner:
                weald.sleep(2)
                if ends:
                    raise ends
        except ValueError:
            raised = ends
        await asyncio.sleep(1)
        assert await asyncio.wait_for(block(), 1) == "value"
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                weald.sleep(2)
                await asyncio.sleep(1)
        assert raised is ends
        assert not asyncio.current_task().cancelling()
        return inner.expired()

    async def block():
        if sys.version_info >= (3, 12):  # before, wait_for makes a task, which ends cancelled
            weald.sleep(2)
        return "value"

    assert weald.aio.run(main())


def test_a_cancellation_beside_a_timeout_that_expires_in_blocking_code(virtual):
    async def block():
        async with asyncio.timeout(1):
            weald.sleep(2)
        await asyncio.sleep(0)
        return "not cancelled"

    async def main():
        task = asyncio.create_task(block())
        await asyncio.sleep(1.5)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert weald.aio.run(main())


def test_a_cancellation_that_comes_as_a_timeout_is_taken_back(virtual):
    async def block():
        async with asyncio.timeout(1):
            weald.sleep(2)
            asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
        await asyncio.sleep(1)

    async def main():
        task = asyncio.create_task(block())
        await asyncio.wait([task])
        return task.cancelled()

    assert weald.aio.run(main())
