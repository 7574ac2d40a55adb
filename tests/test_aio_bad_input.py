"""weald.aio: mistakes of a program get asyncio's own error, or a better message.

Each case is run with asyncio's loop and with weald's; the errors must be the same, except for the cases in `BETTER`.
"""

import asyncio
import errno
import gc
import os
import re
import socket
import threading
import tracemalloc
import warnings

import pytest
from helpers import PATIENCE, settle

import weald
import weald.aio
from weald.aio import await_, to_greenlet
from weald.event import AsyncResult

LOOPS = {"asyncio": asyncio.SelectorEventLoop, "weald": weald.aio.new_event_loop}


async def answer():
    return 42


async def wait_for_ever():
    await asyncio.get_running_loop().create_future()


class Case:
    """A loop and the objects that a case needs."""

    def __init__(self, kind):
        self.kind = kind
        self.loop = LOOPS[kind]()

    def closed(self):
        self.loop.close()
        return self.loop

    def run(self, main):
        return self.loop.run_until_complete(main())

    def elsewhere(self, function):
        """The outcome of `function()`, called in another thread while the loop runs in this one."""

        async def main():
            return await asyncio.to_thread(function)

        return self.run(main)


CASES = {}


def case(function):
    CASES[function.__name__] = function
    return function


# ------------------------------------------------------------------ a loop in a loop


@case
def run_in_a_coroutine(given):
    async def main():
        asyncio.run(answer()) if given.kind == "asyncio" else weald.aio.run(answer())

    given.run(main)


@case
def run_until_complete_in_its_own_coroutine(given):
    async def main():
        given.loop.run_until_complete(answer())

    given.run(main)


@case
def run_forever_in_its_own_callback(given):
    future = given.loop.create_future()

    def call():
        try:
            given.loop.run_forever()
        except BaseException as error:
            future.set_exception(error)

    given.loop.call_soon(call)
    given.loop.run_until_complete(future)


@case
def another_loop_in_a_coroutine(given):
    other = LOOPS[given.kind]()

    async def main():
        try:
            other.run_until_complete(answer())
        finally:
            other.close()

    given.run(main)


@case
def close_in_a_coroutine(given):
    async def main():
        given.loop.close()

    given.run(main)


@case
def stopped_too_early(given):
    async def main():
        given.loop.stop()
        await given.loop.create_future()

    given.run(main)


@case
def run_of_no_coroutine(given):
    asyncio.run(answer) if given.kind == "asyncio" else weald.aio.run(answer)  # type: ignore[arg-type]


@case
def run_until_complete_of_a_number(given):
    given.loop.run_until_complete(1)


# ------------------------------------------------------------------ a coroutine twice


@case
def awaited_twice(given):
    async def main():
        coroutine = answer()
        assert await coroutine == 42
        await coroutine

    given.run(main)


@case
def awaited_by_two(given):
    async def slowly():
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def main():
        coroutine = slowly()
        first, second = asyncio.create_task(coroutine), asyncio.create_task(coroutine)
        try:
            await second
        finally:
            await first

    given.run(main)


@case
def run_twice(given):
    coroutine = answer()
    given.loop.run_until_complete(coroutine)
    given.loop.run_until_complete(coroutine)


@case
def a_task_of_no_coroutine(given):
    given.loop.create_task(answer)


# ------------------------------------------------------------------ another thread


@case
def run_where_another_thread_runs_it(given):
    given.elsewhere(given.loop.run_forever)


@case
def closed_where_another_thread_runs_it(given):
    given.elsewhere(given.loop.close)


@case
def call_soon_of_another_thread_in_debug_mode(given):
    given.loop.set_debug(True)
    given.elsewhere(lambda: given.loop.call_soon(print))


@case
def call_later_of_another_thread_in_debug_mode(given):
    given.loop.set_debug(True)
    given.elsewhere(lambda: given.loop.call_later(1, print))


@case
def a_future_of_another_loop(given):
    other = LOOPS[given.kind]()
    future = other.create_future()

    async def main():
        await future

    try:
        given.run(main)
    finally:
        other.close()


@case
def a_lock_of_another_loop(given):
    other = LOOPS[given.kind]()
    event = asyncio.Event()

    async def main():
        await asyncio.wait_for(event.wait(), 0.001)

    with pytest.raises(TimeoutError):
        other.run_until_complete(main())
    try:
        given.run(main)
    finally:
        other.close()


@case
def no_running_loop(given):
    asyncio.get_running_loop()


@case
def create_task_without_a_loop(given):
    coroutine = answer()
    try:
        asyncio.create_task(coroutine)
    finally:
        coroutine.close()


# ------------------------------------------------------------------ a closed loop

CLOSED = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(loop.time(), print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_until_complete": lambda loop: loop.run_until_complete(answer()),
    "create_task": lambda loop: loop.create_task(answer()),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(1, print),
    "remove_reader": lambda loop: loop.remove_reader(0),
    "remove_writer": lambda loop: loop.remove_writer(1),
    "add_signal_handler": lambda loop: loop.add_signal_handler(10, print),
    "remove_signal_handler": lambda loop: loop.remove_signal_handler(10),
    "stop": lambda loop: loop.stop(),
    "close": lambda loop: loop.close(),
    "create_future": lambda loop: loop.create_future().done(),
    "is_closed": lambda loop: loop.is_closed(),
    "is_running": lambda loop: loop.is_running(),
    "set_debug": lambda loop: loop.set_debug(True),
}
for _name, _call in CLOSED.items():
    CASES[f"{_name} of a closed loop"] = lambda given, call=_call: call(given.closed())


# ------------------------------------------------------------------ arguments

ARGUMENTS = {
    "call_later without a delay": lambda loop: loop.call_later(None, print),
    "call_at without a time": lambda loop: loop.call_at(None, print),
    "call_soon of a number": lambda loop: (loop.set_debug(True), loop.call_soon(1)),
    "call_soon of a coroutine function": lambda loop: (loop.set_debug(True), loop.call_soon(answer)),
    "call_later of a coroutine function": lambda loop: (loop.set_debug(True), loop.call_later(1, answer)),
    "call_at of a number": lambda loop: (loop.set_debug(True), loop.call_at(1, 1)),
    "add_reader of a negative number": lambda loop: loop.add_reader(-1, print),
    "add_reader of a text": lambda loop: loop.add_reader("0", print),
    "add_reader of a file": lambda loop: loop.add_reader(file(), print),
    "add_reader of a closed number": lambda loop: loop.add_reader(closed_number(), print),
    "add_writer of a closed number": lambda loop: loop.add_writer(closed_number(), print),
    "add_reader of a closed number, running": lambda loop: in_it(loop, lambda: loop.add_reader(100, print)),
    "add_reader of a file, running": lambda loop: in_it(loop, lambda: loop.add_reader(file(), print)),
    "remove_reader of a closed number": lambda loop: loop.remove_reader(closed_number()),
    "add_signal_handler of no signal": lambda loop: loop.add_signal_handler(1000, print),
    "add_signal_handler of SIGKILL": lambda loop: loop.add_signal_handler(9, print),
    "add_signal_handler of a text": lambda loop: loop.add_signal_handler("USR1", print),
    "add_signal_handler of a coroutine function": lambda loop: loop.add_signal_handler(10, answer),
    "set_task_factory of a number": lambda loop: loop.set_task_factory(1),
    "set_exception_handler of a number": lambda loop: loop.set_exception_handler(1),
    "set_default_executor of a number": lambda loop: loop.set_default_executor(1),
    "create_connection without an address": lambda loop: loop.run_until_complete(
        loop.create_connection(asyncio.Protocol)
    ),
    "sock_recv of a socket that blocks": lambda loop: sock_recv(loop),
}
for _name, _call in ARGUMENTS.items():
    CASES[_name] = lambda given, call=_call: call(given.loop) and None


def file():
    return os.open(__file__, os.O_RDONLY)


def closed_number():
    number = file()
    os.close(number)
    return number


def in_it(loop, function):
    async def main():
        return function()

    return loop.run_until_complete(main())


def sock_recv(loop):
    loop.set_debug(True)
    with socket.socket() as sock:
        loop.run_until_complete(loop.sock_recv(sock, 1))


# ------------------------------------------------------------------ the table

# weald's messages instead, and why.
BETTER = {
    # asyncio names the method that call_later calls.
    "call_later of a coroutine function": ("raised", "TypeError: coroutines cannot be used with call_later()"),
    "add_reader of a closed number, running": (
        "raised",
        "OSError: [Errno 9] cannot watch descriptor 100: Bad file descriptor",
    ),
}


def outcome(kind, function):
    given = Case(kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of coroutines that were never awaited, where that is the point
            try:
                return "returned", repr(function(given))
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
            gc.collect()
    finally:
        if not given.loop.is_running():
            given.loop.close()
    return "raised", text


def neutral(text):
    """The text without the parts that differ from loop to loop and run to run."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text)
    text = re.sub(r"<[\w.]*(Unix|)(Selector|)EventLoop[^>]*>", "<loop>", text)
    return re.sub(r"Task-\d+", "Task", text)


@pytest.mark.parametrize("name", CASES)
def test_as_asyncio_has_it(name):
    expected = tuple(map(neutral, outcome("asyncio", CASES[name])))
    assert tuple(map(neutral, outcome("weald", CASES[name]))) == BETTER.get(name, expected)
    # And nothing is left running here.
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    assert weald.aio.run(answer()) == 42


# ------------------------------------------------------------------ the bridge


def test_a_number_that_no_descriptor_has():
    """A table by descriptor does not grow for it: for 2**31 - 1 it would take all memory."""

    async def watch():
        loop = asyncio.get_running_loop()
        for add in loop.add_reader, loop.add_writer:
            tracemalloc.start()
            try:
                with pytest.raises(OSError) as caught:
                    add(5_000_000, answer)
                assert caught.value.errno == errno.EBADF
                assert tracemalloc.get_traced_memory()[1] < 1_000_000
            finally:
                tracemalloc.stop()

    weald.aio.run(watch())


def raised_by(function):
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


USE_AWAIT = "RuntimeError: await_() is for greenlets; this is a coroutine or a callback of a loop: use await there"


def refused(call=answer):
    """The error of await_ for a coroutine, which is closed."""
    coroutine = call()
    try:
        return raised_by(lambda: await_(coroutine))
    finally:
        coroutine.close()


def test_await_in_coroutines_and_callbacks():
    """In the greenlet in run_forever, and in one that has taken over."""

    async def main():
        said = [refused()]
        weald.sleep(0.001)
        said.append(refused())
        await asyncio.sleep(0.001)
        asyncio.get_running_loop().call_soon(lambda: said.append(refused()))
        asyncio.get_running_loop().call_later(0.001, lambda: said.append(refused()))
        await asyncio.sleep(0.01)
        return said

    async def blocked():
        weald.sleep(0.005)
        return await main()

    async def both():
        return await asyncio.gather(blocked(), main(), blocked())

    assert weald.aio.run(both()) == [[USE_AWAIT] * 4] * 3
    assert await_(both()) == [[USE_AWAIT] * 4] * 3


def test_await_on_asyncios_own_loop():
    async def main():
        return refused()

    assert asyncio.run(main()) == USE_AWAIT


@pytest.mark.parametrize("value", [1, None, "text", answer, [answer]])
def test_await_of_what_cannot_be_awaited(value):
    assert raised_by(lambda: await_(value)).startswith("TypeError: ")


@pytest.mark.parametrize("timeout", ["1", float("nan"), object()])
def test_await_with_a_bad_timeout(timeout):
    coroutine = answer()
    said = raised_by(lambda: await_(coroutine, timeout))
    coroutine.close()
    assert said.startswith(("TypeError: ", "ValueError: "))


def test_await_of_a_coroutine_that_runs():
    """Another greenlet awaits it already."""
    coroutine = wait_for_ever()
    first = weald.spawn(await_, coroutine)
    settle()
    assert raised_by(lambda: await_(coroutine)) == "RuntimeError: coroutine is being awaited already"
    first.kill()


def test_await_of_another_threads_task():
    made = AsyncResult()
    end = threading.Event()

    def run():
        async def main():
            made.set(asyncio.create_task(asyncio.to_thread(end.wait)))
            await made.get()

        weald.aio.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    task = made.get()
    assert raised_by(lambda: await_(task)).startswith("ValueError: ")
    end.set()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_to_greenlet_of_what_cannot_be_called():
    async def main():
        await to_greenlet(1)  # type: ignore[arg-type]

    assert raised_by(lambda: weald.aio.run(main())) == "TypeError: 'int' object is not callable"


def test_await_of_a_greenlet_or_a_result_without_a_loop():
    result = AsyncResult()
    assert "no event loop runs here" in raised_by(lambda: next(iter(result.__await__())))


def test_a_greenlet_awaits_itself():
    """It would wait for ever: the deadlock is reported, or refused."""

    async def main():
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None and loop is not None
        await task

    assert raised_by(lambda: weald.aio.run(main())).startswith("RuntimeError: Task cannot await on itself")
