"""Sends WebSocket messages, each when the one before has come back: `websocket_load.py PORT CONNECTIONS SECONDS`.

Called by: http_server.py.  Prints the number of messages that came back, in wrk's format.
"""

import selectors
import socket
import sys
import time

SIZE = 100  # bytes of a message
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
FRAME = bytes([0x81, 0x80 | SIZE, 0, 0, 0, 1]) + b"aaa`" * (SIZE // 4)  # the text "aaa…", masked


def main() -> None:
    port, connections, seconds = map(int, sys.argv[1:])
    selector = selectors.DefaultSelector()
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(HANDSHAKE)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        if b" 101 " not in head:
            raise SystemExit(f"no WebSocket: {head!r}")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, [0])
        sock.sendall(FRAME)
    count = 0
    start = time.monotonic()
    while (passed := time.monotonic() - start) < seconds:
        for key, _ in selector.select(1):
            sock = key.fileobj
            key.data[0] += len(sock.recv(65536))
            if key.data[0] >= SIZE + 2:
                key.data[0] -= SIZE + 2
                count += 1
                sock.sendall(FRAME)
    print(f"{count} requests in {passed:.2f}s\nRequests/sec: {count / passed:.2f}")


if __name__ == "__main__":
    main()
