"""The echo servers of `echo`, one per process: `echo_server.py KIND CORE`.

Binds a free port of 127.0.0.1, prints it on a line of its own, and serves until standard input ends (its parent
closes it, or dies).  Each server is written as its library's documentation recommends.
"""

import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from importlib import import_module
from typing import Any

BUFFER = 4096  # bytes requested by each recv


def listener() -> socket.socket:
    """A plain listening socket with room for a thousand connections at once."""
    return socket.create_server(("127.0.0.1", 0), backlog=2048)


def announce(port: int) -> None:
    """Print the port for the parent, and end with the parent."""
    print(port, flush=True)

    def watch() -> None:
        # The descriptor itself: an interpreter that is ending must not find sys.stdin locked.
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def certified() -> ssl.SSLContext:
    """A context with a certificate made for it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        key, certificate = f"{directory}/key.pem", f"{directory}/certificate.pem"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", certificate]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        context.load_cert_chain(certificate, key)
    return context


def serve_stream_server(package: str) -> None:
    """`StreamServer` of weald or gevent, one greenlet a connection."""

    def echo(sock: Any, address: Any) -> None:
        while data := sock.recv(BUFFER):
            sock.sendall(data)

    server = import_module(f"{package}.server").StreamServer(("127.0.0.1", 0), echo, backlog=2048)
    server.start()
    announce(server.server_port)
    server.serve_forever()


def serve_eventlet() -> None:
    """eventlet.serve, one green thread a connection."""
    eventlet = import_module("eventlet")

    def echo(sock: Any, address: Any) -> None:
        while data := sock.recv(BUFFER):
            sock.sendall(data)

    listening = eventlet.listen(("127.0.0.1", 0), backlog=2048)
    announce(listening.getsockname()[1])
    eventlet.serve(listening, echo, concurrency=20_000)


def serve_asyncio(style: str, package: str) -> None:
    """A Protocol, one over TLS, or the streams, on asyncio's own loop, on uvloop or on weald's."""
    import asyncio

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.write = transport.write

        def data_received(self, data: bytes) -> None:
            self.write(data)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(BUFFER):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        sock = listener()
        if style in ("protocol", "tls"):
            context = certified() if style == "tls" else None
            server: Any = await asyncio.get_running_loop().create_server(Echo, sock=sock, ssl=context, backlog=2048)
        else:
            server = await asyncio.start_server(echo, sock=sock, backlog=2048)
        announce(sock.getsockname()[1])
        await server.serve_forever()

    module = {"weald": "weald.aio"}.get(package, package)
    with asyncio.Runner(loop_factory=import_module(module).new_event_loop) as runner:
        runner.run(main())


def serve_trio() -> None:
    """trio.serve_listeners, one task a connection."""
    trio = import_module("trio")

    async def echo(stream: Any) -> None:
        while data := await stream.receive_some(BUFFER):
            await stream.send_all(data)

    async def main() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=2048)
        announce(listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(echo, listeners)

    trio.run(main)


def main() -> None:
    """See the module's docstring."""
    kind, core = sys.argv[1], int(sys.argv[2])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    package, _, style = kind.partition("-")
    if style in ("protocol", "tls", "streams"):
        serve_asyncio(style, package)
    elif package == "trio":
        serve_trio()
    elif package == "eventlet":
        serve_eventlet()
    else:
        serve_stream_server(package)


if __name__ == "__main__":
    main()
