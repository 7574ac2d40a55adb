"""The other end of `network_worker`'s rows, made of the standard library: `network_other.py dns …|tls …|drain …`."""

import asyncio
import selectors
import socket
import ssl
import sys

DELAY = 0.1  # seconds until the name server answers
CONNECTIONS = 50


class _NameServer(asyncio.DatagramProtocol):
    """Answers every question for an address with one, `delay` seconds later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, peer: object) -> None:
        if self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.answer, data, peer)
        else:
            self.answer(data, peer)

    def answer(self, query: bytes, peer: object) -> None:
        end = 12
        while query[end]:
            end += query[end] + 1
        # RFC 1035 section 4.1: header, question, and a record whose name points at the question's, TTL 0.
        header = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x0a\1\2\3"
        self.transport.sendto(header + query[12 : end + 5] + record, peer)  # type: ignore[attr-defined]


def dns(address: str = "127.0.0.1", port: str = "0", delay: str = str(DELAY)) -> None:
    async def serve() -> None:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        sock.bind((address, int(port)))
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: _NameServer(float(delay)), sock=sock)
        print(sock.getsockname()[1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(serve())


def tls(port: int, count: int) -> None:
    """`count` requests over 50 connections; a line when connected, begun by a line, a line at the end."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sockets = [context.wrap_socket(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)]
    message = bytes(64)
    for sock in sockets:  # the first answer brings TLS 1.3's session tickets with it
        sock.sendall(message)
        sock.recv(64)
    print("connected", flush=True)
    sys.stdin.readline()
    selector = selectors.DefaultSelector()
    for sock in sockets:
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ)
        sock.send(message)
    sent, answered = len(sockets), 0
    while answered < count:
        for key, _ in selector.select():
            try:
                key.fileobj.recv(64)  # type: ignore[union-attr]
            except ssl.SSLWantReadError:
                continue
            answered += 1
            if sent < count:
                key.fileobj.send(message)  # type: ignore[union-attr]
                sent += 1
    print("done", flush=True)
    sys.stdin.readline()


def drain(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        buffer = bytearray(1 << 18)
        while sock.recv_into(buffer):
            pass
    sys.stdin.readline()


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "dns":
        dns(*arguments)
    else:
        {"tls": tls, "drain": drain}[command](*map(int, arguments))
