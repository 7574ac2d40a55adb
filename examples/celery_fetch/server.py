"""A loopback HTTP server on weald that answers after a delay.

Called by: drive.py (`python server.py SECONDS`).  Prints its URL, then serves until it is terminated.
"""

import sys
from typing import Any

import weald
from weald.server import StreamServer

DELAY = float(sys.argv[1])
BODY = b"x" * 1024
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(BODY) + BODY


def answer(sock: Any, address: Any) -> None:
    """One request, one answer."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = sock.recv(4096)
        if not piece:
            return
        request += piece
    weald.sleep(DELAY)
    sock.sendall(ANSWER)


server = StreamServer(("127.0.0.1", 0), answer, backlog=2048)
server.start()
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
