"""weald.aio: asyncio's event loop on the hub.

CPython's own tests check the behaviour of any asyncio loop (scripts/asyncio-tests).  The tests here are for weald's
features: greenlets beside the loop, callbacks that block, hubs and threads.
"""

import _thread
import asyncio
import contextvars
import gc
import logging
import os
import re
import select as native_select
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
import weakref

import pytest
from greenlet import getcurrent, greenlet
from helpers import PATIENCE, numbers, python, run_patched

import weald
import weald.aio
import weald.signal
from weald import _core, select
from weald.event import AsyncResult, Event
from weald.queue import Queue
from weald.thread import allocate_lock


async def echo_once(text):
    """Send `text` through a server and back."""

    async def serve(reader, writer):
        writer.write(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(text)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer


# ------------------------------------------------------------------ beside greenlets


def test_a_program(io_loop):
    assert weald.aio.run(echo_once(b"hello")) == b"hello"


def test_greenlets_run_beside_the_loop(loop_name):
    order = []

    def greenlet():
        for i in range(3):
            order.append(i)
            weald.sleep(0.01)

    async def main():
        for name in "abc":
            order.append(name)
            await asyncio.sleep(0.01)

    other = weald.spawn(greenlet)
    weald.aio.run(main())
    other.join()
    assert sorted(map(str, order)) == ["0", "1", "2", "a", "b", "c"]
    assert order.index(2) > order.index("b")  # in turns, not one after the other


def test_busy_coroutines_starve_no_greenlet():
    done = Event()
    turns = 0

    async def spin():
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    def greenlet():
        receiving, sending = socket.socketpair()
        with receiving, sending:
            sending.send(b"x")
            _core.wait_read(receiving.fileno())  # the descriptor is polled, too
        weald.sleep(0.001)
        done.set()

    weald.spawn(greenlet)
    weald.aio.run(asyncio.wait_for(spin(), PATIENCE))
    assert turns


def test_a_busy_greenlet_starves_no_coroutine():
    async def main():
        for _ in range(10):
            await asyncio.sleep(0.001)
        return "done"

    def spin():
        while True:
            weald.sleep(0)

    spinner = weald.spawn(spin)
    assert weald.aio.run(asyncio.wait_for(main(), PATIENCE)) == "done"
    spinner.kill()


def test_loops_in_two_greenlets():
    async def main(name):
        loop = asyncio.get_running_loop()
        for _ in range(5):
            await asyncio.sleep(0.001)
            assert asyncio.get_running_loop() is loop and asyncio.current_task().get_name() == name
        return name

    def run(name):
        with asyncio.Runner(loop_factory=weald.aio.new_event_loop) as runner:
            loop = runner.get_loop()
            return loop.run_until_complete(loop.create_task(main(name), name=name))

    jobs = [weald.spawn(run, name) for name in ("first", "second")]
    assert [job.get() for job in jobs] == ["first", "second"]


def test_no_loop_runs_in_other_greenlets():
    seen = []

    def greenlet():
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            seen.append(str(error))

    async def main():
        weald.spawn(greenlet)
        while not seen:
            await asyncio.sleep(0)
        asyncio.get_running_loop()

    weald.aio.run(main())
    assert seen == ["no running event loop"]


def test_virtual_clock(virtual):
    async def main():
        loop = asyncio.get_running_loop()
        before = loop.time()
        await asyncio.sleep(1000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(500):
                await asyncio.sleep(5000)
        return loop.time() - before

    assert weald.aio.run(main()) == 1500


def test_timers_fire_in_order(virtual):
    fired = []

    async def main():
        loop = asyncio.get_running_loop()
        for seconds in (3, 1, 2, 1, 0):
            loop.call_later(seconds, fired.append, (seconds, len(fired)))
        loop.call_at(loop.time() + 2.5, fired.append, 2.5)
        loop.call_later(1.5, fired.append, 1.5).cancel()
        await asyncio.sleep(10)

    weald.aio.run(main())
    assert [one[0] if isinstance(one, tuple) else one for one in fired] == [0, 1, 1, 2, 2.5, 3]


# ------------------------------------------------------------------ callbacks that block


def test_a_coroutine_that_blocks_stalls_only_itself(virtual):
    async def block(seconds):
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        weald.sleep(seconds)
        assert asyncio.current_task() is task and asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        return seconds

    async def main():
        before = asyncio.get_running_loop().time()
        assert await asyncio.gather(*[block(100) for _ in range(100)]) == [100] * 100
        return asyncio.get_running_loop().time() - before

    assert weald.aio.run(main()) == 100


def test_what_a_blocked_coroutine_waits_for_may_come_from_the_loop(loop_name):
    queue = Queue()

    async def consume():
        return queue.get()

    async def produce():
        await asyncio.sleep(0.001)
        queue.put("item")

    async def main():
        return (await asyncio.gather(consume(), produce()))[0]

    assert weald.aio.run(main()) == "item"


def test_everything_is_each_coroutines_own_while_it_blocks(virtual):
    variable = contextvars.ContextVar("variable", default=None)

    async def block(number):
        variable.set(number)
        try:
            async with asyncio.timeout(10):
                weald.sleep(5 + number)
                await asyncio.sleep(0)
                assert variable.get() == number
                await asyncio.sleep(20)
        except TimeoutError:
            assert variable.get() == number
            return asyncio.get_running_loop().time()

    async def main():
        before = asyncio.get_running_loop().time()
        return [at - before for at in await asyncio.gather(*[block(number) for number in range(3)])]

    assert weald.aio.run(main()) == [10, 10, 10]


def test_calls_that_do_not_block_let_nobody_in_between(loop_name):
    """Between two awaits only a call that waits may switch: programs rely on that, as with asyncio."""
    turns = []
    greenlet = weald.spawn(lambda: [turns.append(1) or weald.sleep(0) for _ in iter(int, 1)])
    ours, theirs = socket.socketpair()
    event, queue, free, held = Event(), Queue(), allocate_lock(), allocate_lock()
    held.acquire()

    async def main():
        await asyncio.sleep(0)
        poller = select.poll()
        poller.register(ours, select.POLLIN)
        before = len(turns)
        for _ in range(2000):
            assert not poller.poll(0) and not event.is_set() and queue.empty() and not held.acquire(False)
            with free:
                pass
        assert len(turns) == before
        while len(turns) == before:  # but a busy wait does not go on for ever
            event.is_set()

    with ours, theirs:
        weald.aio.run(main())
    greenlet.kill()


def test_reprs_of_an_object_in_coroutines_that_block():
    """`reprlib.recursive_repr` takes the second one for a recursion if both have the same ident."""
    out = run_patched(
        """
        import asyncio, dataclasses, reprlib, weald.aio, weald.testing
        from weald.event import Event
        go = Event()

        class Slow:
            def __repr__(self):
                go.wait()
                return "slow"

        @dataclasses.dataclass
        class Data:
            value: object

        class Other(Slow):
            __repr__ = reprlib.recursive_repr()(Slow.__repr__)

        async def show(value):
            return repr(value)

        async def main():
            values = Data(Slow()), Other()
            weald.spawn(lambda: (weald.testing.blocked(), go.set()))
            print(*await asyncio.gather(*[show(value) for value in values for _ in range(2)]))

        weald.aio.run(main())
        """
    )
    assert out == "Data(value=slow) Data(value=slow) slow slow\n"


def test_current_thread_is_the_same_in_every_coroutine():
    """Also if it is first asked for in a greenlet that runs the loop while another coroutine blocks."""
    out = run_patched(
        """
        import asyncio, gc, threading, weald, weald.aio
        from weald.event import Event
        blocked, go = Event(), Event()
        found = []

        async def block():
            blocked.set()
            go.wait()

        async def ask():
            await asyncio.sleep(0)
            found.append(threading.current_thread())
            go.set()

        async def main():
            await asyncio.gather(block(), ask())

        def job():
            loop = weald.aio.EventLoop()
            loop.run_until_complete(main())
            loop.close()
            gc.collect()
            return blocked.is_set() and threading.current_thread() is found[0]

        print(weald.spawn(job).get())
        """
    )
    assert out == "True\n"


def test_callbacks_that_block(virtual):
    loop = weald.aio.new_event_loop()
    done = []

    def block(seconds):
        weald.sleep(seconds)
        done.append((seconds, loop.time()))

    before = loop.time()
    loop.call_soon(block, 3)
    loop.call_soon(block, 1)
    loop.call_soon(block, 2)
    loop.call_later(4, loop.stop)
    loop.run_forever()
    loop.close()
    assert done == [(1, before + 1), (2, before + 2), (3, before + 3)]


def test_the_loop_stops_when_its_last_blocked_callback_has_returned(virtual):
    """The greenlet in run_forever may be the one that is blocked."""
    loop = weald.aio.new_event_loop()
    done = []
    loop.call_soon(lambda: (weald.sleep(5), done.append("root")))
    loop.call_soon(loop.stop)
    before = loop.time()
    loop.run_forever()
    assert done == ["root"] and loop.time() == before + 5
    loop.close()


def test_asynchronous_generators_of_blocked_coroutines_are_closed(virtual):
    closed = []

    async def main():
        weald.sleep(1)  # a spare greenlet drives from here on, too
        async for _ in numbers(closed):
            weald.sleep(1)
            break
        gc.collect()

    async def both():
        await asyncio.gather(main(), main())

    weald.aio.run(both())
    assert closed == [True, True]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_exits_leave_run_forever_whoever_runs_the_callback(virtual, error):
    loop = weald.aio.new_event_loop()
    done = []

    def leave():
        raise error

    loop.call_soon(lambda: (weald.sleep(1), done.append("the one in run_forever")))
    loop.call_soon(leave)
    with pytest.raises(type(error)):
        loop.run_forever()
    assert done and not loop.is_running()
    # Also when the greenlet in run_forever drives again, and has nothing to run.
    loop.call_soon(lambda: weald.sleep(1))
    loop.call_soon(lambda: (weald.sleep(2), leave()))
    with pytest.raises(type(error)):
        loop.run_forever()
    assert not loop.is_running()
    loop.close()


def test_a_forks_child_closes_what_it_has_inherited():
    out = python(
        """
        import asyncio, os, signal, socket, weald, weald.aio
        loop = weald.aio.new_event_loop()
        a, b = socket.socketpair()
        async def prepare():
            loop.add_reader(a, print)
            loop.add_signal_handler(signal.SIGUSR1, print)
        loop.run_until_complete(prepare())
        pid = os.fork()
        if not pid:
            loop.close()
            weald.sleep(0.01)  # it would be a deadlock if what the parent counts were taken off
            print("slept", flush=True)
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        loop.close()
        """,
        stderr=None,
    )
    assert out == "slept\n0\n"


def test_a_forks_child_runs_a_loop_that_the_parent_has_made():
    out = python(
        """
        import asyncio, os, socket, weald.aio
        loop = weald.aio.new_event_loop()
        a, b = socket.socketpair()
        heard = []
        async def prepare():
            loop.add_reader(a, lambda: (heard.append(a.recv(1)), loop.stop()))
        loop.run_until_complete(prepare())
        pid = os.fork()
        if not pid:
            b.send(b"x")
            loop.run_forever()
            print(heard, flush=True)
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        """,
        stderr=None,
    )
    assert out == "[b'x']\n0\n"


def test_a_forks_child_has_the_timers_of_a_loop_that_has_run():
    out = python(
        """
        import asyncio, functools, os, weald.aio
        print = functools.partial(print, flush=True)
        loop = weald.aio.new_event_loop()

        async def wait():
            await asyncio.sleep(0.01)
            return "waited"

        loop.run_until_complete(asyncio.sleep(0))
        task = loop.create_task(wait())
        cancelled = loop.call_later(0.001, print, "cancelled")
        loop.call_later(0.002, print, "timer")
        loop.run_until_complete(asyncio.sleep(0))
        for who in "child", "parent":
            if who == "child" and (pid := os.fork()):
                os.waitpid(pid, 0)
                continue
            cancelled.cancel()
            print(who, loop.run_until_complete(task))
            if who == "child":
                loop.close()
                os._exit(0)
        """,
        stderr=None,
    )
    assert out == "timer\nchild waited\ntimer\nparent waited\n"


def test_stall(caplog):
    order = []

    async def block():
        order.append("begin")
        weald.sleep(0.15)
        order.append("end")

    async def other():
        order.append("other")

    async def main():
        await asyncio.gather(block(), other())

    def factory():
        return weald.aio.EventLoop(blocking="stall")

    with asyncio.Runner(loop_factory=factory) as runner, caplog.at_level(logging.WARNING, "asyncio"):
        runner.run(main())
    assert order == ["begin", "end", "other"]
    assert re.search(r"block\(\).* blocked for \d", caplog.text)


def stalling():
    loop = weald.aio.EventLoop(blocking="stall")
    loop.slow_callback_duration = 1000  # nothing is logged
    return loop


def test_nothing_of_a_stalled_loop_runs(virtual):
    """Timers, futures and calls from other threads wait.  Greenlets do not, and neither do other loops."""
    order = []
    start = virtual.loop.now()

    def note(what):
        order.append((what, virtual.loop.now() - start))

    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(1, note, "timer")
        loop.call_soon_threadsafe(note, "soon")
        greenlet = weald.spawn_later(2, note, "greenlet")
        other = weald.spawn(weald.aio.run, elsewhere())
        task = asyncio.current_task()
        weald.sleep(10)
        assert asyncio.current_task() is task and asyncio.get_running_loop() is loop
        note("blocked")
        try:
            async with asyncio.timeout(5):
                weald.sleep(10)
                await asyncio.sleep(0)
        except TimeoutError:
            note("timeout")
        await asyncio.sleep(0)
        assert greenlet.dead and other.dead

    async def elsewhere():
        await asyncio.sleep(3)
        note("other loop")

    with asyncio.Runner(loop_factory=stalling) as runner:
        runner.run(main())
    expected = [("greenlet", 2), ("other loop", 3), ("blocked", 10), ("soon", 20), ("timer", 20), ("timeout", 20)]
    assert sorted(order) == sorted(expected)
    assert [what for what, _ in order[:3]] == ["greenlet", "other loop", "blocked"]


def test_a_loop_that_stalls_for_ever_is_a_deadlock():
    out = python(
        """
        import asyncio, weald, weald.aio
        from weald.queue import Queue
        queue = Queue()
        async def main():
            asyncio.get_running_loop().call_soon(queue.put, "item")
            queue.get()
        try:
            weald.aio.EventLoop(blocking="stall").run_until_complete(main())
        except weald.LoopExit as error:
            print(error)
        """
    )
    assert "waits for <Queue" in out


def test_stall_when_patched():
    """time.sleep and a lock of threading stall it, as they stall asyncio's loop."""
    out = python(
        """
        import weald.monkey
        weald.monkey.patch_all()
        import asyncio, threading, time, weald.aio
        order = []
        async def block():
            order.append("begin")
            time.sleep(0.01)
            with threading.Lock():
                time.sleep(0)
            order.append("end")
        async def main():
            await asyncio.gather(block(), block(), asyncio.to_thread(time.sleep, 0.001))
        with asyncio.Runner(loop_factory=lambda: weald.aio.EventLoop(blocking="stall")) as runner:
            runner.run(main())
        print(" ".join(order))
        """
    )
    assert out == "begin end begin end\n"


def test_blocking_is_one_of_two():
    with pytest.raises(ValueError, match='"alone" or "stall"'):
        weald.aio.EventLoop(blocking="perhaps")


def test_blocked_coroutines_go_on_in_debug_mode(virtual):
    """Greenlets other than the one in `run_forever` run them, with no Python code below them."""

    async def block(seconds):
        weald.sleep(seconds)
        await asyncio.sleep(seconds)
        frame = sys._getframe(1)  # as warnings and loggers look up their caller
        return asyncio.get_running_loop().create_future().done(), frame is not None

    async def main():
        future = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(1, weald.sleep, 100)
        asyncio.get_running_loop().call_later(2, asyncio.get_running_loop().call_soon, future.set_result, "called")
        return await asyncio.gather(block(3), block(4), block(5), future)

    assert weald.aio.run(main(), debug=True) == [*[(False, True)] * 3, "called"]


def test_debug_mode_where_no_python_code_is():
    """The loop is called by the hub, or by a thread that begins in C."""
    loop = weald.aio.EventLoop()
    loop.set_debug(True)
    called = []

    async def main():
        weald.get_hub().loop.run_callback(loop.call_soon, called.append, "hub")
        weald.spawn(loop.call_later, 0, called.append, "greenlet").join()
        _thread.start_new_thread(loop.call_soon_threadsafe, (called.append, "thread"))
        while len(called) < 3:
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    loop.close()
    assert sorted(called) == ["greenlet", "hub", "thread"]


def test_what_a_dropped_greenlet_queues_is_run():
    """greenlet ends dropped greenlets of other threads at its next call: here, when the loop begins to wait."""

    async def main():
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        here = getcurrent()

        def body():
            try:
                here.switch()
            finally:
                loop.call_soon(done.set_result, None)

        dropped = [greenlet(body)]
        dropped[0].switch()

        def drop():
            dropped.clear()
            lock.release()

        def have_it_dropped():
            _thread.start_new_thread(drop, ())
            lock.acquire()  # greenlet is not called meanwhile

        lock = _thread.allocate_lock()
        lock.acquire()
        loop.call_soon(have_it_dropped)
        await done

    weald.aio.run(main())


def test_debug_mode_warns_of_slow_callbacks_not_of_blocked_ones(caplog):
    async def blocks():
        weald.sleep(0.05)

    async def computes():
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            pass

    async def main():
        asyncio.get_running_loop().slow_callback_duration = 0.01
        await asyncio.gather(blocks(), computes())

    with caplog.at_level(logging.WARNING, "asyncio"):
        weald.aio.run(main(), debug=True)
    # On a slow machine others take as long.
    assert re.search(r"computes\(\).* took \d", caplog.text) and "blocks()" not in caplog.text


def test_what_cannot_be_called_is_told():
    """As asyncio tells it: None, and contexts that cannot be entered, do not end the loop."""
    loop = weald.aio.new_event_loop()
    told = []
    loop.set_exception_handler(lambda loop, context: told.append(type(context["exception"])))
    context = contextvars.copy_context()

    def run():
        for call in (loop.call_soon, loop.call_soon_threadsafe, lambda *args, **kw: loop.call_later(0, *args, **kw)):
            call(None)
            call(told.append, "called", context=context)  # which is entered already
            call(told.append, "called", context="no context")
        loop.call_soon(loop.call_soon, loop.stop)
        loop.run_forever()

    context.run(run)
    loop.close()
    # From Python 3.12 on the handler is called in that context, too, and its failure is logged.
    assert [error for error in told if error is not RuntimeError] == [TypeError] * 6


# ------------------------------------------------------------------ hubs and threads


def test_a_loop_made_in_one_thread_and_run_in_another():
    loop = weald.aio.new_event_loop()
    receiving, sending = socket.socketpair()
    got = []

    def read():
        got.append(receiving.recv(10))
        loop.remove_reader(receiving)
        loop.stop()

    loop.add_reader(receiving, read)
    timer = loop.call_later(0.001, lambda: sending.send(b"x"))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    thread.join(PATIENCE)
    assert got == [b"x"] and timer.when() < loop.time()
    # And in a third.
    loop.call_later(0.001, loop.stop)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    loop.close()
    receiving.close()
    sending.close()


def test_call_soon_threadsafe_from_a_native_thread():
    async def main():
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        thread = threading.Thread(target=lambda: loop.call_soon_threadsafe(future.set_result, "called"))
        thread.start()
        result = await future
        await asyncio.to_thread(thread.join)
        return result

    assert weald.aio.run(main()) == "called"


def test_run_coroutine_threadsafe():
    loop = weald.aio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert asyncio.run_coroutine_threadsafe(echo_once(b"text"), loop).result(PATIENCE) == b"text"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(PATIENCE)
    loop.close()


def test_asyncios_own_loop_in_a_native_thread_beside():
    async def ours():
        return await asyncio.to_thread(asyncio.run, echo_once(b"theirs"))

    assert weald.aio.run(ours()) == b"theirs"


def test_a_deadlock_is_reported():
    out = python(
        """
        import asyncio, weald.aio
        async def main():
            await asyncio.get_running_loop().create_future()
        try:
            weald.aio.new_event_loop().run_until_complete(main())
        except weald.LoopExit as error:
            print(error)
        """
    )
    assert "waits for <EventLoop running=True" in out


@pytest.mark.parametrize("patch", ["", "import weald.monkey; weald.monkey.patch_all()"])
def test_a_program_that_only_waits_ends_by_ctrl_c(patch):
    """It has no timer and no descriptor, but Runner's handler of SIGINT, which cancels the main task."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{patch}\nimport asyncio, weald.aio\n"
            "async def main():\n"
            "    asyncio.get_running_loop().call_later(0.001, lambda: print('waits', flush=True))\n"
            "    try:\n"
            "        await asyncio.Event().wait()\n"
            "    finally:\n"
            "        print('cancelled', flush=True)\n"
            "weald.aio.run(main())\n",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "waits\n"
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.3)  # it goes on to wait; a slow machine shows nothing here, but breaks nothing either
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=PATIENCE)
    assert out == "cancelled\n" and err.endswith("KeyboardInterrupt\n") and "LoopExit" not in err


def test_handlers_that_block_while_a_callback_runs():
    """Each signal interrupts whatever runs, while earlier handlers are parked; it parks or not; everything goes on."""
    out = python(
        """
        import asyncio, os, signal, subprocess, sys, weald.aio, weald.signal, weald.testing
        handled = awaited = 0
        def handler(signum, frame):
            global handled, awaited
            handled += 1
            weald.spawn(os.write, acknowledge, b"x")  # once this one has parked or ended, the next may come
            if handled % 3 == 0:
                weald.sleep(0)
            elif handled % 3 == 1:
                weald.aio.await_(asyncio.sleep(0.001))
                awaited += 1
        weald.signal.signal(signal.SIGUSR1, handler)
        async def busy(name):
            task, i = asyncio.current_task(), 0
            while handled < 300:
                i += 1
                sum(range(200))
                if i % 3 == 0:
                    await asyncio.sleep(0.001)
                elif i % 3 == 1:
                    weald.sleep(0.001)
                else:
                    await asyncio.sleep(0)
                assert asyncio.current_task() is task
            return name
        async def main():
            return await asyncio.gather(*[busy(name) for name in "abc"])
        code = f"import os, signal\\nwhile os.read(0, 1): os.kill({os.getpid()}, signal.SIGUSR1)"
        acknowledged, acknowledge = os.pipe()
        sender = subprocess.Popen([sys.executable, "-c", code], stdin=acknowledged)
        os.write(acknowledge, b"x")
        print(weald.aio.run(main()))
        sender.kill()
        sender.wait()
        weald.testing.blocked()
        assert awaited
        """
    )
    assert out == "['a', 'b', 'c']\n"


@pytest.mark.parametrize("wait", ["weald.sleep(0)", "weald.aio.await_(asyncio.sleep(0))"])
def test_a_handler_that_waits_wherever_it_interrupts(wait):
    """A signal at the first instruction of a loop's run in Python code, the same with the second one, and so on."""
    out = python(
        f"""
        import asyncio, signal, sys, weald.aio, weald.signal
        from weald.testing import blocked
        handled = 0
        def handler(signum, frame):
            global handled
            {wait}
            handled += 1
        async def busy(name):
            task = asyncio.current_task()
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            weald.sleep(0)
            assert asyncio.current_task() is task
            await asyncio.sleep(0.0001)
            assert asyncio.current_task() is task
            return name
        async def main():
            return await asyncio.gather(busy("a"), busy("b"))
        def trace(frame, event, arg):
            global count
            if event == "call":
                frame.f_trace_opcodes, frame.f_trace_lines = True, False
            elif event == "opcode":
                count += 1
                if count == at:
                    signal.raise_signal(signal.SIGUSR1)
            return trace
        weald.signal.signal(signal.SIGUSR1, handler)
        loop = weald.aio.EventLoop()
        count, at = 0, -1  # Python 3.12 reports no instruction of the first run
        while count >= at:  # until the run has fewer instructions than that
            at += 1
            count = 0
            sys.settrace(trace)
            try:
                result = loop.run_until_complete(main())
            finally:
                sys.settrace(None)
            assert result == ["a", "b"], (at, result)
            blocked()
        assert handled == at - 1 > 500, (at, handled)
        """
    )
    assert out == ""


def test_a_forks_child_does_not_call_the_signal_handlers_of_its_parents_loop():
    """Neither when the child has a handler of its own, which waits; it may add a callback again."""
    python(
        """
        import asyncio, os, signal, traceback, weald, weald.aio, weald.signal
        from weald.testing import blocked
        called = []
        def own(signum, frame):
            weald.sleep(0)
            called.append("own")
        def child(loop):
            signal.raise_signal(signal.SIGUSR1)
            blocked()
            assert called == [], called
            weald.signal.signal(signal.SIGUSR1, own)
            signal.raise_signal(signal.SIGUSR1)
            blocked()
            assert called == ["own"], called
            loop.add_signal_handler(signal.SIGUSR1, called.append, "again")
            signal.raise_signal(signal.SIGUSR1)
            blocked()
            assert called == ["own", "again"], called
            assert loop.remove_signal_handler(signal.SIGUSR1)
        async def main():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGUSR1, called.append, "the parent's")
            pid = os.fork()
            if pid == 0:
                try:
                    child(loop)
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            assert os.waitpid(pid, 0)[1] == 0
            os.kill(os.getpid(), signal.SIGUSR1)
            await asyncio.sleep(0)
            assert called == ["the parent's"], called
        weald.aio.run(main())
        """
    )


def test_no_deadlock_while_a_signal_may_come():
    """A timer that the hub does not count wakes no other greenlet."""
    python(
        """
        import asyncio, os, signal, threading, weald.aio
        async def main():
            loop = asyncio.get_running_loop()
            came = asyncio.Event()
            loop.add_signal_handler(signal.SIGUSR1, came.set)
            child = os.fork()
            if child == 0:
                while open(f"/proc/{os.getppid()}/stat").read().rpartition(")")[2].split()[0] != "S":
                    pass  # until the parent waits
                os.kill(os.getppid(), signal.SIGUSR1)
                os._exit(0)
            await came.wait()
            assert loop.remove_signal_handler(signal.SIGUSR1) and not loop.remove_signal_handler(signal.SIGUSR1)
            os.waitpid(child, 0)
        weald.aio.run(main())
        """
    )


def test_ctrl_c_cancels_the_main_task():
    async def main():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    cancelled = []
    with pytest.raises(KeyboardInterrupt):
        weald.aio.run(main())
    assert cancelled


@pytest.mark.parametrize("patched", [True, False])
def test_the_program_sets_a_handler_of_its_own_beside_the_loops(patched):
    """Both are called, as with asyncio; servers replace the loop's handler by theirs and restore it."""
    set_handler = weald.signal.signal if patched else signal.signal

    async def main():
        loop = asyncio.get_running_loop()
        called = []
        loop.add_signal_handler(signal.SIGUSR1, called.append, "loop")
        before = set_handler(signal.SIGUSR1, lambda *args: called.append("own"))
        try:
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.01)
            assert sorted(called) == ["loop", "own"]
            set_handler(signal.SIGUSR1, before)
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.01)
            assert sorted(called) == ["loop", "loop", "own"]
            assert loop.remove_signal_handler(signal.SIGUSR1)
            set_handler(signal.SIGUSR1, lambda *args: called.append("last"))
            signal.raise_signal(signal.SIGUSR1)
            await asyncio.sleep(0.01)
            assert called[3:] == ["last"]
        finally:
            set_handler(signal.SIGUSR1, signal.SIG_DFL)

    weald.aio.run(main())


def test_signals_only_in_the_main_thread():
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, print)

    def run():
        with pytest.raises(RuntimeError, match="main thread"):
            weald.aio.run(main())

    weald.aio.run(asyncio.to_thread(run))


def test_a_thread_ends_while_a_callback_is_blocked():
    ended = []

    def run():
        loop = weald.aio.new_event_loop()

        def block():
            try:
                weald.sleep(1000)
            except BaseException as error:
                ended.append(type(error))
                raise

        loop.call_soon(weald.sleep, 0.01)  # blocks the one in run_forever: a spare has the next
        loop.call_soon(block)
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive() and ended == [weald.GreenletExit]


# ------------------------------------------------------------------ descriptors


def test_a_descriptor_that_nobody_reads_keeps_no_hub_busy():
    """While the loop is not run, what it watches is ready all the time."""
    receiving, sending = socket.socketpair()
    loop = weald.aio.new_event_loop()
    calls = []
    loop.add_reader(receiving, calls.append, 1)
    loop.call_soon(loop.stop)
    loop.run_forever()
    sending.send(b"x")
    before = time.thread_time()
    weald.sleep(0.3)
    assert time.thread_time() - before < 0.15
    assert not calls
    for _ in range(3):
        loop.call_soon(loop.stop)
        loop.run_forever()
    assert calls
    loop.close()
    receiving.close()
    sending.close()


@pytest.mark.parametrize("run_before", [False, True])
def test_a_file_that_was_closed_can_be_removed(run_before):
    """As with selectors: it has no descriptor any more, but is the object that was added."""
    loop = weald.aio.new_event_loop()
    receiving, sending = socket.socketpair()
    if run_before:
        loop.run_until_complete(asyncio.sleep(0))
    loop.add_reader(receiving, print)
    loop.add_writer(receiving, lambda: loop.remove_writer(receiving))
    loop.run_until_complete(asyncio.sleep(0))
    receiving.close()
    assert loop.remove_reader(receiving) and not loop._fd_events(receiving.fileno())
    with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
        loop.remove_reader(receiving)
    with pytest.raises(ValueError, match="Invalid file"):
        loop.add_reader(receiving, print)
    loop.close()
    sending.close()


def test_a_number_that_was_closed_and_used_again():
    loop = weald.aio.new_event_loop()
    got = []
    receiving, sending = socket.socketpair()
    number = receiving.fileno()
    loop.add_reader(number, got.append, "first")
    loop.call_soon(loop.stop)
    loop.run_forever()
    receiving.close()  # without notice to the loop
    sending.close()
    receiving, sending = socket.socketpair()
    if receiving.fileno() != number:
        os.dup2(receiving.fileno(), number)
    loop.add_reader(number, lambda: (got.append("second"), loop.stop()))
    sending.send(b"x")
    loop.call_later(20, loop.stop)
    loop.run_forever()
    assert got == ["second"]
    loop.close()
    receiving.close()
    sending.close()


def test_regular_files_cannot_be_watched(tmp_path):
    (tmp_path / "file").touch()
    loop = weald.aio.new_event_loop()
    with open(tmp_path / "file") as file:
        loop.call_soon(loop.stop)
        loop.run_forever()
        with pytest.raises(PermissionError):
            loop.add_reader(file, print)
    loop.close()


@pytest.mark.parametrize("fd", [-1, "text", None])
def test_bad_descriptors(fd):
    loop = weald.aio.new_event_loop()
    with pytest.raises(ValueError):
        loop.add_reader(fd, print)
    loop.close()


def test_a_loop_that_is_stopped_before_its_first_run_polls_once():
    """As with asyncio, in a thread whose hub has not run before, too."""
    out = python(
        """
        import socket, weald.aio
        a, b = socket.socketpair()
        b.send(b"x")
        for _ in range(2):
            loop, calls = weald.aio.new_event_loop(), []
            loop.add_reader(a, calls.append, "read")
            loop.call_soon(calls.append, "called")
            loop.stop()
            loop.run_forever()
            loop.close()
            print(sorted(calls))
        """
    )
    assert out == "['called', 'read']\n" * 2


# ------------------------------------------------------------------ misuse


def test_a_closed_loop():
    loop = weald.aio.new_event_loop()
    loop.close()
    loop.close()
    assert loop.is_closed()
    for call in (
        lambda: loop.call_soon(print),
        lambda: loop.call_soon_threadsafe(print),
        lambda: loop.call_later(1, print),
        lambda: loop.call_at(1, print),
        lambda: loop.add_reader(0, print),
        loop.run_forever,
        lambda: loop.run_in_executor(None, print),
        lambda: loop.getaddrinfo("127.0.0.1", 1).send(None),
    ):
        with pytest.raises(RuntimeError, match="Event loop is closed"):
            call()


def test_a_second_loop_in_a_running_one():
    async def main():
        with pytest.raises(RuntimeError, match="cannot be called from a running event loop"):
            weald.aio.run(inner := asyncio.sleep(0))
        inner.close()
        loop = weald.aio.new_event_loop()
        with pytest.raises(RuntimeError, match="while another loop is running"):
            loop.run_forever()
        loop.close()
        with pytest.raises(RuntimeError, match="already running"):
            asyncio.get_running_loop().run_forever()
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            asyncio.get_running_loop().close()

    weald.aio.run(main())


def test_a_coroutine_awaited_twice():
    async def main():
        coroutine = asyncio.sleep(0)
        await coroutine
        await coroutine

    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        weald.aio.run(main())


def test_run_in_the_hub():
    result = AsyncResult()

    def run():
        loop = weald.aio.new_event_loop()
        try:
            loop.run_forever()
        except RuntimeError as error:
            result.set(str(error))
        finally:
            loop.close()

    weald.get_hub().run_callback(run)
    assert "cannot run in the hub" in result.get()


def test_the_wrong_thread_in_debug_mode():
    async def main():
        loop = asyncio.get_running_loop()

        def call():
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                loop.call_soon(print)
            with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
                loop.call_later(1, print)
            return "refused"

        return await asyncio.to_thread(call)

    assert weald.aio.run(main(), debug=True) == "refused"


def test_not_a_number():
    loop = weald.aio.new_event_loop()
    with pytest.raises(ValueError, match="nan"):
        loop.call_later(float("nan"), print)
    with pytest.raises(TypeError):
        loop.call_later(None, print)
    loop.close()


def test_timers_in_sets():
    """Timers compare as asyncio's do."""
    loop = weald.aio.new_event_loop()
    first, second = loop.call_at(1e9, print, 1), loop.call_at(2e9, print, 1)
    assert {first, second, first} == {second, first} and len({first, second}) == 2
    assert first != second and first == loop.call_at(1e9, print, 1) and first != loop.call_at(1e9, print, 2)
    assert hash(first) == hash(first.when()) and first != 1e9
    first.cancel()
    assert first != loop.call_at(1e9, print, 1)
    loop.close()


def test_timers_outlive_the_thread_that_ran_the_loop():
    loop = weald.aio.new_event_loop()
    called = []
    loop.call_later(0.05, called.append, "made before it ran")
    loop.call_later(1000, called.append, "cancelled").cancel()

    def first():
        loop.run_until_complete(asyncio.sleep(0))
        loop.call_later(0.05, called.append, "made there")

    async def both():
        while len(called) < 2:
            await asyncio.sleep(0.001)

    thread = threading.Thread(target=first)
    thread.start()
    thread.join()
    loop.run_until_complete(asyncio.wait_for(both(), PATIENCE))
    loop.close()
    assert sorted(called) == ["made before it ran", "made there"]


CLOSED_BEFORE = """
import asyncio, os, socket
os.environ["WEALD_LOOP"] = "{loop}"
import weald, weald.aio

if {hub}:
    weald.sleep(0)
loop = weald.aio.new_event_loop()
pairs = [socket.socketpair() for _ in range(20)]
numbers = [sock.fileno() for pair in pairs for sock in pair]
for number in numbers:
    loop.add_reader(number, print, "readable")
    loop.add_writer(number, print, "writable")
for pair in pairs:
    for sock in pair:
        sock.close()
loop.run_until_complete(asyncio.sleep(0.01))
receiving, sending = socket.socketpair()
assert receiving.fileno() in numbers
loop.add_reader(receiving, lambda: (print(receiving.recv(1)), loop.stop()))
sending.send(b"x")
loop.run_forever()
for number in numbers:
    assert loop.remove_reader(number)
loop.close()
"""


@pytest.mark.parametrize("hub", [True, False])
def test_a_descriptor_that_is_closed_before_the_loop_runs(hub, io_loop):
    """As with asyncio, nothing is heard of it; its number may be free, or that of one of the hub's own descriptors."""
    assert python(CLOSED_BEFORE.format(loop=io_loop, hub=hub)) == "b'x'\n"


@pytest.mark.parametrize("size", [1, 1000, 30_000, 1_000_000])
def test_writelines(io_loop, size):
    """In order, also behind what could not be sent yet; any bytes-like objects, in any iterable."""
    data = [bytes([65 + i]) * size for i in range(4)]

    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        other, closes = await asyncio.open_connection(sock=theirs)
        reading = asyncio.create_task(other.read())
        transport = writer.transport
        transport.writelines([])
        transport.writelines([b"", bytearray()])
        transport.writelines(data)
        transport.writelines((bytearray(data[0]), memoryview(data[1])))
        transport.writelines(memoryview(piece).cast("B") for piece in data[2:])
        writer.writelines(iter(data))
        with pytest.raises(TypeError):
            transport.writelines([b"x", "text"])
        with pytest.raises(TypeError):
            transport.writelines(3)
        writer.write_eof()
        if sys.version_info >= (3, 12):  # before, asyncio's method is `write` of all
            with pytest.raises(RuntimeError):
                transport.writelines([b"x"])
        await writer.drain()
        received = await reading
        writer.close()
        closes.close()
        return received

    assert weald.aio.run(main()) == b"".join(data) * 3


def test_writelines_to_a_peer_that_has_left(io_loop):
    async def main():
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        theirs.close()
        writer.transport.writelines([b"x", b"y"])
        writer.transport.writelines([b"x", b"y"])
        with pytest.raises(ConnectionError):
            await writer.drain()
            await reader.read()
            await writer.wait_closed()
        writer.transport.writelines([b"x", b"y"])  # the connection is lost: dropped

    weald.aio.run(main())


@pytest.mark.parametrize(("family", "size"), [(socket.AF_INET, 65_507), (socket.AF_UNIX, 150_000)])
def test_the_largest_datagrams_arrive_whole(io_loop, family, size, tmp_path):
    class Receiver(asyncio.DatagramProtocol):
        def __init__(self):
            self.received = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, address):
            self.received.set_result(data)

    async def main():
        loop = asyncio.get_running_loop()
        address = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket")
        with socket.socket(family, socket.SOCK_DGRAM) as ours:
            ours.bind(address)
            transport, protocol = await loop.create_datagram_endpoint(Receiver, sock=ours)
            with socket.socket(family, socket.SOCK_DGRAM) as theirs:
                theirs.setblocking(False)
                await loop.sock_sendto(theirs, bytes(size), ours.getsockname())
            received = await protocol.received
            transport.close()
            return received

    assert weald.aio.run(main()) == bytes(size)


def test_pipes_and_packets_are_read_without_mapping_memory(io_loop):
    """For reads of 256 KiB the C library maps memory at each read, which takes longer than the rest."""

    async def main():
        loop = asyncio.get_running_loop()
        reads, writes = os.pipe()
        with os.fdopen(writes, "wb", 0), os.fdopen(reads, "rb", 0) as file:
            pipe, _ = await loop.connect_read_pipe(asyncio.Protocol, file)
            packets, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
            sizes = pipe.max_size, packets.max_size
            pipe.close()
            packets.close()
            return sizes

    assert max(weald.aio.run(main())) < 128 * 1024


def test_what_descriptors_and_timers_have_called_belongs_to_their_poll(io_loop):
    """A task that waits for data costs one poll, as on uvloop: none lies between wake-up and step; nor with timers."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        polls, costs = [], []
        watcher = weald.get_hub().loop.prepare()
        watcher.start(polls.append, 1)
        for _ in range(3):
            before = len(polls)
            theirs.send(b"x")
            await reader.read(1)
            costs.append(len(polls) - before)
            woken = loop.create_future()
            loop.call_later(0.0001, lambda woken=woken: woken.set_result(len(polls)))
            before = await woken  # how many polls the wait takes depends on the loop and the machine
            costs.append(len(polls) - before)
            before = len(polls)
            await asyncio.sleep(0)
            costs.append(len(polls) - before)
        watcher.stop()
        writer.close()
        theirs.close()
        return costs

    assert weald.aio.run(main()) == [1, 0, 1] * 3


def test_greenlets_that_a_descriptors_callback_wakes_run_before_what_it_queues(io_loop):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        order, event, done = [], Event(), loop.create_future()
        greenlet = weald.spawn(lambda: [event.wait(), order.append("greenlet")])
        await asyncio.sleep(0)

        def readable():
            loop.remove_reader(ours)
            event.set()
            loop.call_soon(order.append, "callback")
            loop.call_soon(done.set_result, None)

        with ours, theirs:
            loop.add_reader(ours, readable)
            theirs.send(b"x")
            await done
        greenlet.join()
        return order

    assert weald.aio.run(main()) == ["greenlet", "callback"]


def test_code_that_makes_the_loops_turns_itself():
    """As nest_asyncio does: it calls the selector."""
    loop = weald.aio.new_event_loop()
    with pytest.raises(RuntimeError, match="the hub polls"):
        loop._selector.select(0)
    loop.close()


def test_a_loop_that_is_forgotten_warns():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = weald.aio.new_event_loop()
        loop.call_later(1000, print)
        del loop
        gc.collect()
    assert any("unclosed event loop" in str(one.message) for one in caught)


# ------------------------------------------------------------------ names, threads, children


def test_names_are_looked_up_by_the_resolver():
    async def main():
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)
        with pytest.raises(socket.gaierror):
            await loop.getaddrinfo("nothing.invalid", 80)
        name = await loop.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)
        return found[0][4], name

    assert weald.aio.run(main()) == (("127.0.0.1", 80), ("127.0.0.1", "80"))


def test_executors_are_native_threads():
    async def main():
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, threading.get_ident), await asyncio.to_thread(lambda: 1 + 1)

    ident, two = weald.aio.run(main())
    assert ident != threading.get_ident() and two == 2


def test_executors_threads_have_asyncios_names():
    async def main():
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    assert weald.aio.run(main()) == "asyncio_0"


def test_children(io_loop):
    async def main():
        process = await asyncio.create_subprocess_exec(
            "sh", "-c", "cat; exit 3", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate(b"text")
        return out, process.returncode

    assert weald.aio.run(main()) == (b"text", 3)


def test_children_without_pidfds(monkeypatch):
    def refuse(pid, flags=0):
        raise PermissionError

    monkeypatch.setattr(os, "pidfd_open", refuse)

    async def main():
        process = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
        return await process.wait()

    assert weald.aio.run(main()) == 3


def test_tls(certificate):
    async def main():
        async def serve(reader, writer):
            writer.write(await reader.read(100))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=certificate.server_context())
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port, ssl=certificate.client_context())
            writer.write(b"secret")
            answer = await reader.read(100)
            writer.close()
        return answer

    assert weald.aio.run(main()) == b"secret"


# ------------------------------------------------------------------ stream transports


class Recorder(asyncio.Protocol):
    """Records its calls."""

    def __init__(self):
        self.events = []
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def eof_received(self):
        self.events.append("eof")

    def connection_lost(self, exc):
        self.lost.set_result(exc)


async def connected_pair():
    """Two ends of a connection."""
    loop = asyncio.get_running_loop()
    ends = []
    for sock in socket.socketpair():
        sock.setblocking(False)
        ends.append((await loop.create_connection(Recorder, sock=sock))[1])
    return ends[0], ends[1]


def test_a_lot_is_written_and_flow_is_controlled(io_loop):
    size = 20_000_000

    async def main():
        ours, theirs = await connected_pair()
        theirs.transport.pause_reading()
        for data in (b"x" * (size // 2), bytearray(b"y" * (size // 4)), memoryview(b"z" * (size // 4))):
            ours.transport.write(data)
        assert ours.events == ["pause"] and ours.transport.get_write_buffer_size() > 0
        theirs.transport.resume_reading()
        ours.transport.write_eof()
        assert await theirs.lost is None
        ours.transport.close()
        await ours.lost
        return ours.events, theirs

    events, theirs = weald.aio.run(main())
    assert events[:2] == ["pause", "resume"] and theirs.events == ["eof"]
    assert theirs.data == b"x" * (size // 2) + b"y" * (size // 4) + b"z" * (size // 4)


def test_debug_mode_names_slow_protocols_and_readers(caplog):
    class Slow(Recorder):
        def data_received(self, data):
            time.sleep(0.02)
            super().data_received(data)

    def read(sock, done):
        time.sleep(0.02)
        asyncio.get_running_loop().remove_reader(sock)
        done.set_result(sock.recv(1))

    async def main():
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.01
        one, other = socket.socketpair()
        transport, protocol = await loop.create_connection(Slow, sock=one)
        other.send(b"x")
        other.close()
        await protocol.lost
        one, other = socket.socketpair()
        with one, other:
            done = loop.create_future()
            loop.add_reader(one, read, one, done)
            other.send(b"x")
            await done

    with caplog.at_level(logging.WARNING, "asyncio"):
        weald.aio.run(main(), debug=True)
    assert re.search(r"Executing <Stream of <SocketTransport .*received by <.*Slow object .* took \d", caplog.text)
    assert re.search(r"Executing <Handle cancelled .*read\(.* took \d", caplog.text)


def test_bad_writes():
    async def main():
        ours, theirs = await connected_pair()
        with pytest.raises(TypeError):
            ours.transport.write("text")
        ours.transport.write(b"")
        ours.transport.write_eof()
        with pytest.raises(RuntimeError, match="write_eof"):
            ours.transport.write(b"more")
        theirs.transport.close()
        ours.transport.close()
        await theirs.lost
        assert theirs.transport.is_closing()
        theirs.transport.write(b"after the end")
        await ours.lost

    weald.aio.run(main())


def test_a_reset_connection(io_loop):
    async def main():
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Recorder, "127.0.0.1", 0)
        sock = socket.create_connection(server.sockets[0].getsockname())
        sock.setblocking(False)
        _, ours = await loop.create_connection(Recorder, sock=sock)
        raw = ours.transport.get_extra_info("socket")
        with socket.socket(fileno=os.dup(raw.fileno())) as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        accepted = asyncio.Future()

        class Server(Recorder):
            def connection_made(self, transport):
                super().connection_made(transport)
                accepted.set_result(self)

        server.close()
        server = await loop.create_server(Server, "127.0.0.1", 0)
        client = socket.create_connection(server.sockets[0].getsockname())
        end = await accepted
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        error = await end.lost
        ours.transport.abort()
        await ours.lost
        server.close()
        return error

    assert isinstance(weald.aio.run(main()), ConnectionResetError)


@pytest.mark.parametrize("data", [b"x", bytearray(b"x")])
def test_a_write_to_a_reset_connection(data, io_loop):
    """The protocol hears of the reset, not of what a second attempt to send meets (a broken pipe)."""

    async def main():
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        listener.close()
        transport, protocol = await loop.create_connection(Recorder, sock=client)
        transport.pause_reading()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        poller = native_select.poll()
        poller.register(client.fileno(), native_select.POLLIN)
        assert poller.poll(PATIENCE * 1000)  # the reset has arrived
        transport.write(data)
        return await protocol.lost

    assert isinstance(weald.aio.run(main()), ConnectionResetError)


def test_errors_of_protocols_are_told_and_end_the_connection():
    told = []

    class Fails(Recorder):
        def data_received(self, data):
            raise KeyError("text")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        _, protocol = await loop.create_connection(Fails, sock=ours)
        theirs.send(b"x")
        error = await protocol.lost
        theirs.close()
        return error

    error = weald.aio.run(main())
    assert isinstance(error, KeyError)
    assert told[0]["exception"] is error and "data_received() call failed" in told[0]["message"]


def test_nothing_of_a_closed_connection_waits_for_the_collector():
    async def main():
        ours, theirs = await connected_pair()
        references = [weakref.ref(end.transport) for end in (ours, theirs)]
        ours.transport.close()
        await asyncio.gather(ours.lost, theirs.lost)
        del ours.transport, theirs.transport
        await asyncio.sleep(0)
        return [reference() for reference in references]

    gc.disable()
    try:
        assert weald.aio.run(main()) == [None, None]
    finally:
        gc.enable()


def test_a_protocol_that_blocks_stalls_no_other_connection(io_loop):
    """Its own bytes come in order nevertheless."""

    class Blocks(Recorder):
        inside = entered = 0

        def data_received(self, data):
            self.inside += 1
            self.entered = max(self.entered, self.inside)
            weald.sleep(0.05)
            super().data_received(data)
            self.inside -= 1

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        _, protocol = await loop.create_connection(Blocks, sock=ours)
        for letter in (b"a", b"b", b"c"):
            theirs.send(letter)
            assert await echo_once(b"other") == b"other"
        theirs.close()
        await protocol.lost
        return protocol.data, protocol.entered

    assert weald.aio.run(main()) == (b"abc", 1)


@pytest.mark.parametrize("then", ["nothing", "abort"])
def test_connection_lost_waits_for_data_received_that_blocks(io_loop, then):
    """`close` is called, and the rest of what was written is sent, meanwhile."""
    size = 4_000_000
    notes = []

    async def main():
        loop = asyncio.get_running_loop()
        gate, lost = Event(), loop.create_future()

        class Blocks(asyncio.Protocol):
            def data_received(self, data):
                notes.append("begins")
                gate.wait()
                notes.append("ends")

            def connection_lost(self, error):
                notes.append("lost")
                lost.set_result(error)

        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        transport, _ = await loop.connect_accepted_socket(Blocks, ours)
        transport.write(bytes(size))
        theirs.send(b"x")
        while not notes:
            await asyncio.sleep(0)
        transport.close()
        received = 0
        while received < size:
            received += len(await loop.sock_recv(theirs, size))
        for _ in range(20):
            await asyncio.sleep(0)
        if then == "abort":
            transport.abort()
            await asyncio.sleep(0)
        gate.set()
        assert await lost is None
        for _ in range(20):
            await asyncio.sleep(0)
        theirs.close()

    weald.aio.run(main())
    assert notes == ["begins", "ends", "lost"]


def test_a_reader_that_blocks_is_not_called_again_meanwhile():
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        got, entered, done = [], [], loop.create_future()

        def read():
            assert not entered
            entered.append(True)
            weald.sleep(0.01)
            got.append(ours.recv(1))
            entered.clear()
            if len(got) == 3:
                loop.remove_reader(ours)
                done.set_result(got)

        loop.add_reader(ours, read)
        for letter in (b"a", b"b", b"c"):
            theirs.send(letter)
            await asyncio.sleep(0.001)
        result = await done
        ours.close()
        theirs.close()
        return result

    assert weald.aio.run(main()) == [b"a", b"b", b"c"]


# ------------------------------------------------------------------ streams, whose readers are fed directly


async def stream_pair(**options):
    """A reader and a writer, of the two ends of a connection; the writer keeps the other objects alive."""
    ours, theirs = socket.socketpair()
    reader, other_writer = await asyncio.open_connection(sock=ours, **options)
    other_reader, writer = await asyncio.open_connection(sock=theirs)
    writer.others = other_reader, other_writer
    return reader, writer


def test_a_reader_gets_all_in_order(io_loop):
    """More than its limit, too: then it has its transport pause."""

    async def main():
        reader, writer = await stream_pair(limit=1000)
        data = os.urandom(100_000)
        writer.write(data)
        got = await reader.readexactly(10)
        while not reader._paused:
            await asyncio.sleep(0)
        assert 2 * 1000 < len(reader._buffer) < len(data)
        writer.write_eof()
        got += await reader.read()
        assert got == data and reader.at_eof()
        writer.close()

    weald.aio.run(main())


@pytest.mark.parametrize("limit", [2**70, float("inf"), sys.maxsize])
def test_a_reader_with_an_odd_limit(limit):
    async def main():
        reader, writer = await stream_pair(limit=limit)
        writer.write(b"text")
        assert await reader.read(10) == b"text"
        writer.close()

    weald.aio.run(main())


class Shouts(asyncio.StreamReader):
    def feed_data(self, data):
        super().feed_data(data.upper())


class ShoutsToo(asyncio.StreamReaderProtocol):
    def data_received(self, data):
        super().data_received(data.upper())


@pytest.mark.parametrize("made_of", [(Shouts, asyncio.StreamReaderProtocol), (asyncio.StreamReader, ShoutsToo)])
def test_readers_of_other_classes_have_their_methods_called(made_of):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader = made_of[0](loop=loop)
        transport, _ = await loop.create_connection(lambda: made_of[1](reader, loop=loop), sock=ours)
        theirs.send(b"text")
        assert await reader.read(10) == b"TEXT"
        theirs.close()
        transport.close()

    weald.aio.run(main())


@pytest.mark.parametrize("of_class", [True, False])
@pytest.mark.parametrize("name", ["data_received", "feed_data", "_wakeup_waiter"])
def test_methods_of_readers_that_are_replaced_are_called(monkeypatch, name, of_class):
    """At any time, in the class or in the object."""
    called = []

    async def main():
        reader, writer = await stream_pair()
        writer.write(b"one")
        assert await reader.read(10) == b"one" and not called
        owner = reader._transport.get_protocol() if name == "data_received" else reader
        original = getattr(type(owner) if of_class else owner, name)

        def replaced(*args):
            called.append(name)
            return original(*args)

        with monkeypatch.context() as patch:
            patch.setattr(type(owner) if of_class else owner, name, replaced)
            writer.write(b"two")
            assert await reader.read(10) == b"two"
            assert called == [name]
        writer.write(b"three")
        assert await reader.read(10) == b"three" and called == [name]
        writer.close()

    weald.aio.run(main())


def test_another_property_tells_the_reader(monkeypatch):
    async def main():
        reader, writer = await stream_pair()
        other = asyncio.StreamReader()
        monkeypatch.setattr(asyncio.StreamReaderProtocol, "_stream_reader", other)
        writer.write(b"text")
        assert await other.read(10) == b"text" and not reader._buffer
        monkeypatch.undo()
        writer.close()

    weald.aio.run(main())


def test_errors_of_readers_are_told_and_end_the_connection():
    told = []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        reader, writer = await stream_pair()
        with memoryview(reader._buffer):  # which can take nothing meanwhile
            writer.write(b"text")
            with pytest.raises(BufferError):
                await reader.read(10)
        reader, writer = await stream_pair()
        reader.feed_eof()
        writer.write(b"text")
        assert await writer.others[0].read() == b""  # the end that could not take it has closed
        writer.close()

    weald.aio.run(main())
    assert [type(context["exception"]) for context in told] == [BufferError, AssertionError]
    assert all("data_received() call failed" in context["message"] for context in told)


def test_a_reader_that_is_cancelled_loses_nothing():
    async def main():
        reader, writer = await stream_pair()
        task = asyncio.create_task(reader.read(10))
        await asyncio.sleep(0)
        task.cancel()
        writer.write(b"text")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await reader.read(10) == b"text"
        writer.close()

    weald.aio.run(main())


def test_a_reader_that_is_dropped_takes_nothing():
    async def main():
        reader, writer = await stream_pair()
        transport = reader._transport
        gone = weakref.ref(reader)
        writer.others[1]._reader = reader = None
        assert gone() is None
        writer.write(b"text")
        await asyncio.sleep(0.01)
        assert not transport.is_closing()
        writer.close()
        transport.close()

    weald.aio.run(main())


def test_errors_do_not_deafen_a_datagram_endpoint(io_loop):
    """A connected UDP socket hears of each refused datagram, and of what comes once somebody listens."""
    heard = asyncio.Queue()

    class Protocol(asyncio.DatagramProtocol):
        def error_received(self, error):
            heard.put_nowait(error)

        def datagram_received(self, data, address):
            heard.put_nowait(data)

    async def main():
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()
        transport, _ = await loop.create_datagram_endpoint(Protocol, remote_addr=address)
        for _ in range(3):
            transport.sendto(b"refused")
            assert isinstance(await heard.get(), ConnectionRefusedError)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(address)
            other.sendto(b"text", transport.get_extra_info("sockname"))
            assert await heard.get() == b"text"
        transport.close()

    weald.aio.run(asyncio.wait_for(main(), PATIENCE))


# ------------------------------------------------------------------ turns


def test_each_turn_hears_of_descriptors(io_loop):
    """As with asyncio's loop and uvloop's: events are handled one turn later."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        heard = []
        loop.add_reader(ours, heard.append, "ready")
        await asyncio.sleep(0)
        for turn in range(5):
            theirs.send(b"x")
            future = loop.create_future()
            loop.call_soon(loop.call_soon, future.set_result, None)
            await future  # three turns: a call, another, the task's
            assert heard, turn
            ours.recv(10)
            await asyncio.sleep(0)
            heard.clear()
            theirs.send(b"x")
            await asyncio.sleep(0)  # it is polled before this goes on, and handled after
            await asyncio.sleep(0)
            assert heard, turn
            ours.recv(10)
            await asyncio.sleep(0)
            heard.clear()
        loop.remove_reader(ours)
        ours.close()
        theirs.close()

    weald.aio.run(main())


def test_each_turn_hears_of_timers():
    async def main():
        loop = asyncio.get_running_loop()
        fired = []
        loop.call_later(1e-9, fired.append, True)
        time.sleep(1e-3)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert fired

    weald.aio.run(main())


# ------------------------------------------------------------------ asyncio's own tools


@pytest.mark.skipif(sys.version_info < (3, 14), reason="it came with Python 3.14")
def test_asyncio_ps():
    code = """
import asyncio, weald, weald.aio
async def inner(blocks):
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.01, lambda: print("waits", flush=True))
    if blocks:
        weald.sleep(1000)
    await asyncio.sleep(1000)
async def main():
    async with asyncio.TaskGroup() as group:
        group.create_task(inner(True), name="blocked")
        group.create_task(inner(False), name="waiting")
weald.aio.run(main())
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert [child.stdout.readline(), child.stdout.readline()] == ["waits\n"] * 2
        done = subprocess.run(
            [sys.executable, "-m", "asyncio", "ps", str(child.pid)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if "Permission" in done.stderr or "not permitted" in done.stderr:
            pytest.skip("this system lets nobody look into other processes")
        assert done.returncode == 0, done.stderr
        rows = {line.split()[2]: line for line in done.stdout.splitlines() if str(child.pid) in line}
        assert set(rows) >= {"blocked", "waiting"}
        assert "inner" in rows["blocked"] and "sleep -> inner" in rows["waiting"]
        assert all("__aexit__ -> main" in rows[name] for name in ("blocked", "waiting"))
    finally:
        child.kill()
        child.communicate()


class Notes(asyncio.Protocol):
    """Notes in what order things happen, and what `variable` is then."""

    def __init__(self, variable):
        self.variable = variable
        self.notes = []
        self.ended = asyncio.get_running_loop().create_future()

    def note(self, what):
        self.notes.append((what, self.variable.get()))

    def connection_made(self, transport):
        self.note("made")
        self.variable.set("of connection_made")
        asyncio.get_running_loop().call_soon(self.note, "called soon")

    def data_received(self, data):
        self.note(data)

    def connection_lost(self, error):
        self.note("lost")
        self.ended.set_result(None)


def test_a_connections_callbacks_have_the_contexts_and_the_order_of_asyncio():
    async def main():
        variable = contextvars.ContextVar("variable", default="none")
        variable.set("of the caller")
        ours, theirs = socket.socketpair()
        theirs.send(b"x")
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_accepted_socket(lambda: Notes(variable), ours)
        protocol.note("connected")
        variable.set("of the closer")
        while len(protocol.notes) < 4:
            await asyncio.sleep(0)
        transport.close()
        await protocol.ended
        theirs.close()
        return protocol.notes

    notes, theirs = weald.aio.run(main()), asyncio.run(main())
    assert notes[:2] == [("made", "of the caller"), ("called soon", "of connection_made")]
    # Whether the task goes on before data is received depends on the poll.
    assert sorted(notes[2:4], key=str) == sorted(theirs[2:4], key=str)
    assert (notes[:2], notes[4:]) == (theirs[:2], theirs[4:])
    if sys.version_info < (3, 15):  # from then on a connection has one context
        assert (b"x", "of the caller") in notes
        assert notes[4:] == [("lost", "of the closer")]


@pytest.mark.parametrize("module", [weald.aio, asyncio])
def test_a_transport_that_has_ended_still_tells_its_addresses(module):
    async def main():
        server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        own = writer.get_extra_info("socket").getsockname()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert writer.get_extra_info("socket").fileno() == -1
        assert writer.get_extra_info("peername") == address
        assert writer.get_extra_info("sockname") == own
        assert writer.get_extra_info("nothing", 1) == 1
        server.close()

    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("module", [weald.aio, asyncio])
def test_a_transports_descriptor_is_its_own_until_it_is_closed(module):
    async def main():
        loop = asyncio.get_running_loop()
        for _ in range(2):  # the second time with the number of a transport that is gone
            ours, theirs = socket.socketpair()
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            fd = transport.get_extra_info("socket").fileno()
            with pytest.raises(RuntimeError, match="is used by transport"):
                loop.add_reader(fd, print)
            transport.close()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            del transport
            theirs.close()

    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("module", [weald.aio, asyncio])
def test_a_protocol_whose_connection_made_fails_is_reported_and_gets_its_data(module):
    class Fails(asyncio.Protocol):
        def connection_made(self, transport):
            raise ValueError("at the beginning")

        def data_received(self, data):
            received.set_result(data)

    async def main():
        nonlocal received
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        received = loop.create_future()
        ours, theirs = socket.socketpair()
        theirs.send(b"x")
        transport, _ = await loop.connect_accepted_socket(Fails, ours)
        assert await received == b"x"
        transport.close()
        theirs.close()

    received, reports = None, []
    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(main())
    assert len(reports) == 1
    assert "Fails.connection_made" in reports[0]["message"]
    assert repr(reports[0]["handle"]).startswith("<Handle ")


@pytest.mark.parametrize("default", [None, 5.0])
@pytest.mark.parametrize("kind", ["inet", "inet6", "unix", "unix with a name", "unix, abstract"])
def test_an_accepted_connection_knows_its_peer_and_does_not_block(tmp_path, kind, default):
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(kind, socket.AF_UNIX)
    server = {"inet": ("127.0.0.1", 0), "inet6": ("::1", 0)}.get(kind, str(tmp_path / "server"))
    names = {"unix with a name": str(tmp_path / "client"), "unix, abstract": f"\0weald {os.getpid()}"}

    async def main():
        loop = asyncio.get_running_loop()
        made = loop.create_future()

        class Made(asyncio.Protocol):
            def connection_made(self, transport):
                made.set_result(transport)

        listening = socket.socket(family)
        listening.bind(server)
        serving = await loop.create_server(Made, sock=listening)
        with socket.socket(family) as client:
            if kind in names:
                client.bind(names[kind])
            client.settimeout(5)
            client.connect(listening.getsockname())
            transport = await made
            own = transport.get_extra_info("socket")
            assert transport.get_extra_info("peername") == client.getsockname() == own.getpeername()
            assert transport.get_extra_info("sockname") == client.getpeername() == own.getsockname()
            assert (own.family, own.type, own.proto) == (family, socket.SOCK_STREAM, listening.proto)
            assert own.gettimeout() == 0
            assert not os.get_blocking(own.fileno())
            assert not os.get_inheritable(own.fileno())
            transport.abort()
        serving.close()

    socket.setdefaulttimeout(default)
    try:
        weald.aio.run(main())
    finally:
        socket.setdefaulttimeout(None)


def test_small_pieces_of_tcp_are_sent_at_once():
    async def main():
        ends = asyncio.Queue()
        server = await asyncio.start_server(lambda reader, writer: ends.put_nowait(writer), "127.0.0.1", 0)
        _, client = await asyncio.open_connection(*server.sockets[0].getsockname())
        accepted = await ends.get()
        for writer in client, accepted:
            assert writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()
        server.close()

    weald.aio.run(main())


@pytest.fixture
def unused_address(tmp_path):
    """Of each family, an address that nobody listens at."""
    found = {socket.AF_UNIX: str(tmp_path / "nobody")}
    for family, host in (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"):
        with socket.socket(family) as sock:
            sock.bind((host, 0))
            found[family] = sock.getsockname()[:2]
    return found


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_a_refused_connection_has_the_error_of_asyncio(unused_address, family):
    async def main():
        loop = asyncio.get_running_loop()
        address, errors = unused_address[family], []
        with socket.socket(family) as sock:
            sock.setblocking(False)
            with pytest.raises(OSError) as caught:
                await loop.sock_connect(sock, address)
            errors.append(caught.value)
        with pytest.raises(OSError) as caught:
            if family == socket.AF_UNIX:
                await loop.create_unix_connection(asyncio.Protocol, address)
            else:
                await loop.create_connection(asyncio.Protocol, *address)
        errors.append(caught.value)
        return [(type(error), error.args) for error in errors]

    assert weald.aio.run(main()) == asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
@pytest.mark.parametrize("as_text", [False, True])
def test_sock_connect_takes_what_asyncios_takes(host, as_text):
    async def main():
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server(("::1" if ":" in host else "127.0.0.1", 0), family=family) as server:
            port = server.getsockname()[1]
            with socket.socket(family) as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, (host, str(port) if as_text else port))
                assert sock.getpeername() == server.getsockname()
                with pytest.raises(OSError) as caught:
                    await loop.sock_connect(sock, (host, port))  # a second time
                return type(caught.value), caught.value.args

    async def tried():
        try:
            return await main()
        except BaseException as error:  # what it does not take, asyncio's does not take
            return type(error), error.args

    assert weald.aio.run(tried()) == asyncio.run(tried())


def test_sock_connect_waits_while_the_connection_is_not_made():
    """The queue of a server that accepts nothing is full: the kernel drops what comes more."""

    async def main():
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0), backlog=0) as server, socket.socket() as sock:
            address = server.getsockname()
            first = [socket.socket() for _ in range(4)]
            for one in first:
                one.setblocking(False)
                one.connect_ex(address)
            sock.setblocking(False)
            connecting = asyncio.create_task(loop.sock_connect(sock, address))
            for _ in range(20):
                await asyncio.sleep(0)
            assert not connecting.done()
            fd = sock.fileno()
            assert loop._fd_events(fd) == selectors.EVENT_WRITE
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await asyncio.sleep(0)
            assert loop._fd_events(fd) == 0
            for one in first:
                one.close()

    weald.aio.run(main())


@pytest.mark.parametrize("module", [weald.aio, asyncio])
def test_a_server_has_accepted_a_connection_when_its_client_goes_on(module):
    async def main():
        made = []

        class Made(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        loop = asyncio.get_running_loop()
        server = await loop.create_server(Made, "127.0.0.1", 0)
        transport, _ = await loop.create_connection(asyncio.Protocol, *server.sockets[0].getsockname())
        assert len(made) == 1
        transport.abort()
        made[0].abort()
        server.close()

    with asyncio.Runner(loop_factory=module.new_event_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "1.2.3.4"])
@pytest.mark.parametrize("port", [80, 0])
@pytest.mark.parametrize("kind", [0, socket.SOCK_STREAM])
def test_a_numeric_address_is_looked_up_without_waiting(host, port, kind):
    async def main():
        loop = asyncio.get_running_loop()
        with pytest.raises(StopIteration) as ended:
            loop.getaddrinfo(host, port, type=kind).send(None)
        assert ended.value.value == socket.getaddrinfo(host, port, type=kind)
        for family in socket.AF_INET, socket.AF_INET6:
            outcomes = []
            for look_up in loop.getaddrinfo, super(type(loop), loop).getaddrinfo:
                try:
                    outcomes.append(await look_up(host, port, family=family, type=kind))
                except OSError as error:
                    outcomes.append((type(error), error.args))
            assert outcomes[0] == outcomes[1]

    weald.aio.run(main())


def test_a_connection_goes_through_none_of_asyncios_transport_code():
    """Which was most of what a connection cost; what is left concerns the listening side and the end of input."""
    called = set()

    def note(frame, event, arg):
        if event == "call" and frame.f_code.co_filename.endswith(("selector_events.py", "asyncio/transports.py")):
            called.add(frame.f_code.co_name)

    async def main():
        server = await asyncio.get_running_loop().create_server(Closes, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        await exchange(address)  # what happens once only
        sys.setprofile(note)
        try:
            await exchange(address)
        finally:
            sys.setprofile(None)
        server.close()

    class Closes(asyncio.Protocol):
        def connection_made(self, transport):
            transport.write(b"x")
            transport.close()

    async def exchange(address):
        reader, writer = await asyncio.open_connection(*address)
        assert await reader.read() == b"x"
        writer.close()
        await writer.wait_closed()

    weald.aio.run(main())
    assert called <= {"_ensure_fd_no_transport", "_read_ready__on_eof", "_fatal_error", "is_closing"}


def test_a_transport_that_has_sent_the_rest_and_ended_may_be_aborted_and_closed():
    """asyncio's fails there before Python 3.14."""
    python(
        """
        import asyncio, socket, weald.aio

        async def main():
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            theirs.setblocking(False)
            transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, ours)
            transport.write(bytes(1_000_000))
            transport.close()
            while await loop.sock_recv(theirs, 1_000_000):
                pass
            transport.abort()
            transport.close()

        weald.aio.run(main())
        """
    )
