"""weald.aio: a callback that blocks changes neither the order of its connection's callbacks, nor whose context is
whose, nor which `await` a cancellation comes to.

Nothing of this can happen on asyncio's loops, because a callback that blocks there stalls the loop.
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


# ------------------------------------------------------------------ connections


async def turns(number=50):
    """Let everything happen that can."""
    for _ in range(number):
        await asyncio.sleep(0)


class Blocks(asyncio.Protocol, asyncio.DatagramProtocol, asyncio.SubprocessProtocol):  # type: ignore[misc]
    """Its callbacks, or that named `blocks` alone, block until `gate` is set; each notes when it begins and ends."""

    def __init__(self, blocks=None):
        self.blocks = blocks
        self.gate = Event()
        self.notes = []
        self.begun = []
        self.calls = []
        self.lost = asyncio.get_running_loop().create_future()

    def note(self, what):
        self.begun.append(what)
        self.calls.append(f"{what} begins")
        if self.blocks in (None, what):
            self.gate.wait()
        self.calls.append(f"{what} ends")
        self.notes.append(what)

    def connection_made(self, transport):
        self.transport = transport
        self.note("made")

    def data_received(self, data):
        self.note("data")

    def datagram_received(self, data, address):
        self.note("data")

    def eof_received(self):
        self.note("eof")

    def pipe_data_received(self, fd, data):
        self.note("data")

    def pipe_connection_lost(self, fd, exception):
        self.note("pipe lost")

    def process_exited(self):
        self.note("exited")

    def connection_lost(self, exception):
        self.note("lost")
        self.lost.set_result(None)


async def first_alone(protocol, what):
    """Nothing else of the connection is called while the callback `what` blocks."""
    while what not in protocol.begun:
        await asyncio.sleep(0)
    await turns()
    begun = list(protocol.begun)
    protocol.gate.set()  # before the assertion: what blocks would never end
    assert begun == [what]
    await protocol.lost


@pytest.mark.parametrize("how", ["eof", "abort", "pause"])
@pytest.mark.parametrize("blocks", ["made", "data"])
def test_a_protocols_methods_are_called_one_after_the_other_even_if_one_blocks(io_loop, blocks, how):
    """As on asyncio, where a method that blocks stalls the loop."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        protocol = Blocks(blocks)
        connecting = asyncio.ensure_future(loop.connect_accepted_socket(lambda: protocol, ours))
        theirs.send(b"x")
        while blocks not in protocol.begun:
            await asyncio.sleep(0)
        transport = protocol.transport
        if how == "pause":
            transport.pause_reading()
            transport.resume_reading()
        if how == "abort":
            transport.abort()
        theirs.close()
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert protocol.calls[-1] == f"{blocks} begins"
        assert connecting.done() == (blocks == "data")
        protocol.gate.set()
        await protocol.lost
        await connecting
        return protocol.calls

    calls = weald.aio.run(main())
    names = ["made", "data", "eof", "lost"]
    if how == "abort":
        names = ["made", "lost"] if blocks == "made" else ["made", "data", "lost"]
    assert calls == [f"{name} {what}" for name in names for what in ("begins", "ends")]


def test_a_connection_is_made_before_its_data_come(io_loop):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.sendall(b"data")
        theirs.close()
        made = []
        connecting = asyncio.create_task(loop.create_connection(lambda: made.append(Blocks()) or made[0], sock=ours))
        while not made:
            await asyncio.sleep(0)
        await first_alone(made[0], "made")
        await connecting
        return made[0].notes

    assert weald.aio.run(main()) == ["made", "data", "eof", "lost"]


def test_a_connection_is_lost_after_its_data_have_come(io_loop):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        protocol = Blocks()
        protocol.gate.set()
        transport, _ = await loop.create_connection(lambda: protocol, sock=ours)
        protocol.gate.clear()
        protocol.begun.clear()
        theirs.sendall(b"data")
        while not protocol.begun:
            await asyncio.sleep(0)
        transport.abort()
        await first_alone(protocol, "data")
        theirs.close()
        return protocol.notes

    assert weald.aio.run(main()) == ["made", "data", "lost"]


def test_what_a_protocol_waits_for_is_sent_meanwhile(io_loop):
    """A protocol that blocks until its data is written does not wait for itself."""

    class Drains(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.written = Event()
            self.all = asyncio.get_running_loop().create_future()

        def pause_writing(self):
            self.written.clear()

        def resume_writing(self):
            self.written.set()

        def data_received(self, data):
            self.transport.write(b"x" * 5_000_000)
            self.written.wait()
            self.all.set_result(None)

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        transport, protocol = await loop.create_connection(Drains, sock=ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(b"go")
        received = len(await reader.readexactly(5_000_000))
        await protocol.all
        transport.close()
        writer.close()
        return received

    assert weald.aio.run(main()) == 5_000_000


def test_an_endpoint_is_made_before_its_datagrams_come(io_loop):
    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        theirs.send(b"datagram")
        made = []
        making = asyncio.create_task(loop.create_datagram_endpoint(lambda: made.append(Blocks()) or made[0], sock=ours))
        while not made or not made[0].begun:
            await asyncio.sleep(0)
        await turns()
        begun = list(made[0].begun)
        made[0].gate.set()
        assert begun == ["made"]
        await making
        while made[0].notes != ["made", "data"]:
            await asyncio.sleep(0)
        made[0].transport.close()
        await made[0].lost
        theirs.close()

    weald.aio.run(main())


def test_a_pipe_is_made_before_its_data_come(io_loop):
    async def main():
        loop = asyncio.get_running_loop()
        reading, writing = os.pipe()
        os.write(writing, b"data")
        os.close(writing)
        made = []
        connecting = asyncio.create_task(
            loop.connect_read_pipe(lambda: made.append(Blocks()) or made[0], os.fdopen(reading, "rb", 0))
        )
        while not made:
            await asyncio.sleep(0)
        await first_alone(made[0], "made")
        await connecting
        return made[0].notes

    notes = weald.aio.run(main())
    assert notes[:2] == ["made", "data"] and notes[-1] == "lost"


def test_what_a_child_writes_comes_before_its_end():
    async def main():
        loop = asyncio.get_running_loop()
        made = []
        starting = asyncio.create_task(
            loop.subprocess_exec(lambda: made.append(Blocks()) or made[0], "echo", "data", stdin=None, stderr=None)
        )
        while not made:
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)  # not to synchronise: so that there is something to hold back
        await first_alone(made[0], "made")
        await starting
        return made[0].notes

    notes = weald.aio.run(main())
    assert notes[0] == "made" and notes[-1] == "lost", notes
    assert notes.index("data") < notes.index("pipe lost") < notes.index("lost"), notes


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
