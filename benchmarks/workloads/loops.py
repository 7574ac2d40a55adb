"""The rows of `aio`: operations of an asyncio loop.  `rows(package)` gives batch functions by row name."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any


def nothing() -> None:
    """A callback."""


async def call_soon(n: int) -> None:
    """In batches of 100."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        for _ in range(100):
            loop.call_soon(nothing)
        await asyncio.sleep(0)


async def call_later(n: int) -> None:
    """Started and cancelled at once."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        loop.call_later(10, nothing).cancel()


async def sleep0(n: int) -> None:
    """One task, alone."""
    for _ in range(n):
        await asyncio.sleep(0)


async def switch(n: int) -> None:
    """Two tasks, in turns."""
    await asyncio.gather(sleep0(n // 2), sleep0(n // 2))


async def future(n: int) -> None:
    """A round trip through the loop."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        waited = loop.create_future()
        loop.call_soon(waited.set_result, None)
        await waited


async def empty() -> None:
    """A coroutine that does not wait."""


async def task(n: int) -> None:
    """One after the other."""
    for _ in range(n):
        await asyncio.create_task(empty())


class Echo(asyncio.Protocol):
    """Sends back what it gets: all at once, or in `pieces`."""

    pieces = 1

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.pieces == 1:
            self.transport.write(data)
        else:
            step = len(data) // self.pieces
            self.transport.writelines([data[at : at + step] for at in range(0, len(data), step)])


class InPieces(Echo):
    pieces = 10


class Asks(asyncio.Protocol, asyncio.DatagramProtocol):  # type: ignore[misc]
    """Sends a message `n` times, each time that an answer is complete."""

    def __init__(self, n: int, size: int) -> None:
        self.left, self.message, self.missing = n, bytes(size), size
        self.done = asyncio.get_running_loop().create_future()

    async def ask(self, send: Callable[[bytes], object]) -> None:
        """Send the first message, wait for the last answer."""
        self.send = send
        send(self.message)
        await self.done

    def datagram_received(self, data: bytes, address: object) -> None:
        self.data_received(data)

    def data_received(self, data: bytes) -> None:
        self.missing -= len(data)
        if not self.missing:
            self.missing = len(self.message)
            self.left -= 1
            if self.left:
                self.send(self.message)
            else:
                self.done.set_result(None)


async def _connected(n: int, size: int, protocol: Callable[[], Echo]) -> None:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    served, _ = await loop.connect_accepted_socket(protocol, theirs)
    transport, asks = await loop.create_connection(lambda: Asks(n, size), sock=ours)
    await asks.ask(transport.write)
    transport.close()
    served.close()


async def writelines(n: int) -> None:
    """Of 10 pieces of 64 bytes; sent by one `write`."""
    await _connected(n, 640, InPieces)


async def large(n: int) -> None:
    """Echo of 64 KiB."""
    await _connected(n, 65536, Echo)


async def datagram(n: int) -> None:
    """A round trip of 64 bytes; both sides are endpoints of the loop."""

    class Answers(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, address: Any) -> None:
            self.transport.sendto(data, address)

    loop = asyncio.get_running_loop()
    server, _ = await loop.create_datagram_endpoint(Answers, local_addr=("127.0.0.1", 0))
    address = server.get_extra_info("sockname")
    client, asks = await loop.create_datagram_endpoint(lambda: Asks(n, 64), remote_addr=address)
    await asks.ask(client.sendto)
    client.close()
    server.close()


async def pipe(n: int) -> None:
    """64 bytes through a pipe whose ends are transports of the loop."""
    loop = asyncio.get_running_loop()
    reads, writes = os.pipe()
    receiving, asks = await loop.connect_read_pipe(lambda: Asks(n, 64), open(reads, "rb", 0))
    sending, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, open(writes, "wb", 0))
    await asks.ask(sending.write)
    sending.close()
    receiving.close()


async def sock(n: int) -> None:
    """A round trip of 64 bytes by `sock_sendall` and `sock_recv`."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)

        async def serve() -> None:
            while data := await loop.sock_recv(theirs, 4096):
                await loop.sock_sendall(theirs, data)

        serving = asyncio.create_task(serve())
        for _ in range(n):
            await loop.sock_sendall(ours, bytes(64))
            await loop.sock_recv(ours, 4096)
        ours.shutdown(socket.SHUT_WR)
        await serving


async def connect(n: int) -> None:
    """A connection, accepted and closed."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()

    class Closes(asyncio.Protocol):
        def connection_lost(self, error: Exception | None) -> None:
            self.lost.set_result(None)

    for _ in range(n):
        transport, protocol = await loop.create_connection(Closes, *address)
        protocol.lost = loop.create_future()
        transport.close()
        await protocol.lost
    server.close()


async def executor(n: int) -> None:
    """A function of a native thread, called and awaited; both threads' CPU time."""
    for _ in range(n):
        await asyncio.to_thread(nothing)


def await_done(n: int) -> None:
    """From a greenlet."""
    await_ = import_module("weald.aio").await_
    for _ in range(n):
        await_(empty())


def await_once(n: int) -> None:
    """From a greenlet."""
    await_ = import_module("weald.aio").await_
    for _ in range(n):
        await_(asyncio.sleep(0))


COROUTINES = (
    *(call_soon, call_later, sleep0, switch, future, task),
    *(writelines, large, datagram, pipe, sock, connect, executor),
)


def rows(package: str) -> dict[str, Callable[[int], object]]:
    """Row name to batch function; all share one loop, kept for the whole process."""
    module = {"weald": "weald.aio", "uvloop": "uvloop", "asyncio": "asyncio"}[package]
    runner = asyncio.Runner(loop_factory=import_module(module).new_event_loop)

    def batch(main: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., object]:
        return lambda n: runner.run(main(n))

    found: dict[str, Callable[[int], object]] = {main.__name__: batch(main) for main in COROUTINES}
    return {**found, "await_done": await_done, "await_once": await_once} if package == "weald" else found
