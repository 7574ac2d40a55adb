"""weald.aio: a protocol's methods are called one after the other and in order, even if one of them blocks.

On asyncio's loops nothing else can happen, because a method that blocks there stalls the loop.
"""

import array
import asyncio
import contextlib
import contextvars
import fcntl
import os
import socket
import struct
import sys
import termios

import pytest

import weald
import weald.aio
from weald.event import Event


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


class Buffers(Blocks, asyncio.BufferedProtocol):  # type: ignore[misc]
    """The same with a buffer that is smaller than what arrives."""

    size = 1000

    def get_buffer(self, hint):
        if self.calls[-1].endswith("begins"):
            self.calls.append("asks for a buffer")
        return bytearray(self.size)

    def buffer_updated(self, count):
        self.note("data")


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


def test_a_child_has_been_connected_when_it_has_been_started():
    async def main():
        loop = asyncio.get_running_loop()
        made = []
        starting = asyncio.create_task(loop.subprocess_exec(lambda: made.append(Blocks("made")) or made[0], "true"))
        while not made or not made[0].begun:
            await asyncio.sleep(0)
        await turns()
        began = starting.done()
        made[0].gate.set()
        assert not began
        transport, protocol = await starting
        assert protocol.calls[:2] == ["made begins", "made ends"]
        await protocol.lost

    weald.aio.run(main())


def test_a_child_that_is_not_wanted_any_more_before_it_has_been_connected():
    async def main():
        loop = asyncio.get_running_loop()
        made = []
        starting = asyncio.create_task(
            loop.subprocess_exec(lambda: made.append(Blocks("made")) or made[0], "sleep", "1000")
        )
        while not made or not made[0].begun:
            await asyncio.sleep(0)
        await turns()
        starting.cancel()
        await turns()
        made[0].gate.set()
        result = await asyncio.gather(starting, return_exceptions=True)
        code = made[0].transport.get_returncode()
        made[0].transport.close()
        return type(result[0]), code

    assert weald.aio.run(main()) == (asyncio.CancelledError, -9)


def waiting(pipe):
    """How many bytes lie in a pipe."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]


def test_what_a_child_writes_does_not_pile_up_while_its_protocol_blocks():
    """As on asyncio, where the child waits until its pipe has room."""
    size = 50_000_000

    class Counts(Blocks):
        count = 0

        def pipe_data_received(self, fd, data):
            self.count += len(data)
            super().pipe_data_received(fd, data)

    async def main():
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.subprocess_exec(
            lambda: Counts("data"), "head", "-c", str(size), "/dev/zero", stderr=None
        )
        pipe = transport.get_pipe_transport(1).get_extra_info("pipe")
        capacity = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        while "data" not in protocol.begun:
            await asyncio.sleep(0)
        while waiting(pipe) < capacity and transport.get_returncode() is None:
            await asyncio.sleep(0)
        await turns(500)
        full = waiting(pipe)
        protocol.gate.set()
        await protocol.lost
        return full == capacity, protocol.count

    assert weald.aio.run(main()) == (True, size)


# ------------------------------------------------------------------ TLS


def in_turn(calls):
    """Whether each call had ended when the next one began."""
    return all(
        one.split() == [name, "begins"] and other == f"{name} ends"
        for one, other, name in zip(calls[::2], calls[1::2], (call.split()[0] for call in calls[::2]), strict=True)
    )


@pytest.mark.parametrize("upgrade", [False, True])
@pytest.mark.parametrize("kind", [Blocks, Buffers])
@pytest.mark.parametrize("how", ["eof", "close", "abort", "pause"])
@pytest.mark.parametrize("blocks", ["made", "data", "eof"])
def test_over_tls(io_loop, certificate, blocks, how, kind, upgrade):
    if upgrade and blocks == "made":
        pytest.skip("start_tls does not call connection_made")

    async def main():
        loop = asyncio.get_running_loop()
        made = []

        def factory():
            made.append(kind(blocks))
            return made[0]

        ours, theirs = socket.socketpair()
        if upgrade:
            transport, protocol = await loop.connect_accepted_socket(factory, ours)
            connecting = asyncio.create_task(
                loop.start_tls(transport, protocol, certificate.server_context(), server_side=True)
            )
        else:
            connecting = asyncio.create_task(
                loop.connect_accepted_socket(factory, ours, ssl=certificate.server_context())
            )
        reader, writer = await asyncio.open_connection(
            sock=theirs, ssl=certificate.client_context(), server_hostname="localhost"
        )
        writer.write(b"x" * 100_000)
        if how == "eof" or blocks == "eof":
            writer.close()
        while blocks not in made[0].begun:
            await asyncio.sleep(0)
        # A task that has begun to connect returns when the connection has been made.
        await turns()
        assert connecting.done() == (blocks != "made")
        transport = made[0].transport if blocks == "made" else await connecting
        transport = transport[0] if isinstance(transport, tuple) else transport
        if how == "close":
            transport.close()
        elif how == "abort":
            transport.abort()
        elif how == "pause":
            transport.pause_reading()
            transport.resume_reading()
        for _ in range(5):
            await asyncio.sleep(0.001)
        blocked = made[0].calls[-1] == f"{blocks} begins"
        made[0].gate.set()
        writer.close()
        await made[0].lost
        try:
            await connecting
        except ConnectionError:
            assert blocks == "made" and how == "abort"
        return blocked, made[0].calls

    blocked, calls = weald.aio.run(main())
    assert blocked and in_turn(calls), calls
    assert calls[0] == "made begins" and calls[-1] == "lost ends"


def test_closing_tls_passes_on_what_has_been_received(io_loop, certificate):
    """As on asyncio; while a method blocks, it waits for its end."""

    class Counts(Buffers):
        size = 8000
        count = 0

        def buffer_updated(self, count):
            self.count += count
            super().buffer_updated(count)

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        connecting = asyncio.create_task(
            loop.connect_accepted_socket(lambda: Counts("data"), ours, ssl=certificate.server_context())
        )
        reader, writer = await asyncio.open_connection(
            sock=theirs, ssl=certificate.client_context(), server_hostname="localhost"
        )
        writer.write(b"x" * 10_000)  # one record
        transport, protocol = await connecting
        while not protocol.begun:
            await asyncio.sleep(0)
        transport.close()
        await turns()
        protocol.gate.set()
        await protocol.lost
        writer.close()
        return protocol.count

    assert weald.aio.run(main()) == 10_000


# ---------------------------------------------------------------- accepted connections

NOTED = contextvars.ContextVar("NOTED", default="nothing")


class Says(asyncio.Protocol):
    """Answers each connection with what its context has; each of its callbacks changes that."""

    def __init__(self):
        self.seen = [NOTED.get()]
        NOTED.set("factory")

    def connection_made(self, transport):
        self.transport = transport
        self.seen.append(NOTED.get())
        NOTED.set("made")

    def data_received(self, data):
        self.seen.append(NOTED.get())
        NOTED.set("data")
        if data == b"end":
            self.transport.write(",".join(self.seen).encode())
            self.transport.close()


def test_an_accepted_connection_has_a_context_of_its_own():
    """The first method gets what the factory has set, as on asyncio; nothing comes from another connection."""

    async def main():
        NOTED.set("server")
        server = await asyncio.get_running_loop().create_server(Says, "127.0.0.1", 0)
        found = []
        for _ in range(2):
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"begin")
            await writer.drain()
            await turns()
            writer.write(b"end")
            found.append(await reader.read())
            writer.close()
        server.close()
        return found

    found = weald.aio.run(main())
    assert found[0] == found[1]
    assert found[0].startswith(b"server,factory,")
    assert found == asyncio.Runner(loop_factory=asyncio.SelectorEventLoop).run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_a_factory_that_fails_costs_its_connection_only(debug):
    async def main():
        loop = asyncio.get_running_loop()
        loop.set_debug(debug)
        reports = []
        loop.set_exception_handler(lambda loop, context: reports.append(context["message"]))
        failing = True

        def factory():
            if failing:
                raise ZeroDivisionError
            return Says()

        server = await loop.create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        if not debug:
            assert await reader.read() == b""
        writer.close()
        failing = False
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"end")
        assert await reader.read()
        writer.close()
        server.close()
        return reports

    reports = weald.aio.run(main())
    assert reports == (["Error on transport creation for incoming connection"] if debug else [])


def test_a_factory_that_blocks_stalls_its_connection_only():
    async def main():
        gate = Event()
        waiting = [True]

        def factory():
            if waiting and waiting.pop():
                gate.wait()
            return Says()

        server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        first = await asyncio.open_connection(*address)
        second = await asyncio.open_connection(*address)
        for reader, writer in (second, first):
            writer.write(b"end")
            assert await reader.read()
            writer.close()
            gate.set()
        server.close()

    weald.aio.run(main())


def test_a_client_that_has_left_before_it_is_accepted():
    async def main():
        server = await asyncio.get_running_loop().create_server(Says, "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        with socket.create_connection(address) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"end")
        assert await reader.read()
        writer.close()
        server.close()

    weald.aio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="servers do not know their connections")
def test_a_closed_server_whose_connections_nobody_has_closed(io_loop):
    """asyncio's servers forget connections that are collected; each of these still tells its server that it ends."""

    async def main():
        loop = asyncio.get_running_loop()
        made = []

        class Keeps(asyncio.Protocol):
            def connection_made(self, transport):
                made.append(transport)

        server = await loop.create_server(Keeps, "127.0.0.1", 0)
        clients = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(2)]
        while len(made) < 2:
            await asyncio.sleep(0)
        server.close()
        server._clients.clear()  # as the collector does before it calls `__del__`
        for transport in made:
            with pytest.warns(ResourceWarning, match="unclosed transport"):
                transport.__del__()
            transport._sock = None  # it is called once only
        for client in clients:
            client.close()

    weald.aio.run(main())


@pytest.mark.parametrize("how", ["close", "abort", "both"])
def test_a_datagram_endpoint_that_ends_while_a_datagram_is_being_received(io_loop, how, tmp_path):
    """Its `connection_lost` waits for a `datagram_received` that blocks, also when `close` has datagrams to send."""

    async def main():
        loop = asyncio.get_running_loop()
        ours, theirs = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
        for sock, name in ((ours, "ours"), (theirs, "theirs")):
            sock.bind(str(tmp_path / name))
            sock.setblocking(False)
        protocol = Blocks("data")
        transport, _ = await loop.create_datagram_endpoint(lambda: protocol, sock=ours)
        size = 0
        while not transport.get_write_buffer_size():
            transport.sendto(b"x" * 1000, theirs.getsockname())
            size += 1
        transport.sendto(b"last", theirs.getsockname())
        theirs.sendto(b"x", ours.getsockname())
        while "data" not in protocol.begun:
            await asyncio.sleep(0)
        transport.abort() if how == "abort" else transport.close()
        got = []
        for _ in range(50):
            with contextlib.suppress(BlockingIOError):
                while True:
                    got.append(theirs.recv(2000))
            await asyncio.sleep(0)
        if how == "both":
            transport.abort()
            await turns()
        begun = list(protocol.begun)
        protocol.gate.set()
        await protocol.lost
        await turns()
        theirs.close()
        assert len(got) == size - 1 if how == "abort" else len(got) == size + 1
        return begun, protocol.calls

    begun, calls = weald.aio.run(main())
    assert begun == ["made", "data"]
    assert calls == [f"{name} {what}" for name in ("made", "data", "lost") for what in ("begins", "ends")]
