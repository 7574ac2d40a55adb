"""Uploads over HTTP/1.1: `upload_load.py PORT CONNECTIONS REQUESTS SIZE length|chunked|expect|slow [tls]`.

Called by: uploads.py.  Each connection sends the same number of bodies of SIZE bytes, each when the one before has been
answered.  `expect` waits for "100 Continue" before the body; `slow` sends it in 20 pieces, 5 ms apart.  Ends with an
error if an answer is not the body's size.
"""

import socket
import ssl
import sys
import threading
import time
from typing import Any

PIECE = 65536  # bytes of a chunk


def converse(sock: Any, count: int, size: int, form: str) -> None:
    """Upload `count` bodies."""
    kind = "Transfer-Encoding: chunked" if form == "chunked" else f"Content-Length: {size}"
    expect = "Expect: 100-continue\r\n" if form == "expect" else ""
    head = f"POST / HTTP/1.1\r\nHost: a\r\n{kind}\r\n{expect}\r\n".encode()
    whole = b"x" * size
    if form == "chunked":
        pieces = [whole[at : at + PIECE] for at in range(0, size, PIECE)]
        whole = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    step = -(-len(whole) // 20) if form == "slow" else len(whole)
    reader = sock.makefile("rb")
    for _ in range(count):
        if form == "expect":
            sock.sendall(head)
            if b" 100 " not in reader.readline() or reader.readline() != b"\r\n":
                raise SystemExit("no 100 Continue")
            sock.sendall(whole)
        elif form == "slow":
            sock.sendall(head)
            for at in range(0, len(whole), step):
                time.sleep(0.005)
                sock.sendall(whole[at : at + step])
        elif len(whole) < PIECE:
            sock.sendall(head + whole)
        else:
            sock.sendall(head)
            sock.sendall(whole)
        length = 0
        status = reader.readline()
        while (line := reader.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        answer = reader.read(length)
        if b" 200 " not in status or answer != b"%d" % size:
            raise SystemExit(f"a wrong answer: {status!r} {answer[:100]!r}")


def main() -> None:
    """See the module's docstring."""
    port, connections, requests, size = map(int, sys.argv[1:5])
    form, tls = sys.argv[5], len(sys.argv) > 6
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    socks: list[Any] = [socket.create_connection(("127.0.0.1", port), 60) for _ in range(connections)]
    for sock in socks:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if tls:
        socks = [context.wrap_socket(sock) for sock in socks]
    done: list[int] = []

    def run(sock: Any) -> None:
        converse(sock, requests // connections, size, form)
        done.append(1)

    threads = [threading.Thread(target=run, args=(sock,)) for sock in socks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(done) != connections:
        raise SystemExit(f"only {len(done)} of {connections} connections had all answers")


if __name__ == "__main__":
    main()
