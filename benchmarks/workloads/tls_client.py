"""Load generator of the TLS echo, as echo_client.c of the plain one: `tls_client.py PORT CONNECTIONS SECONDS PID`.

Keeps one 64-byte message in flight on each connection; prints requests, wall seconds, CPU seconds that process PID has
spent meanwhile.  In Python, because only the server's CPU time counts.
"""

import selectors
import socket
import ssl
import sys
import time

MESSAGE = bytes(range(64))
PATIENCE = 20  # seconds


def connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A connection whose handshake is over."""
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock)


def main() -> None:
    """See the module's docstring."""
    port, count, seconds, pid = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    clock = ~pid << 3 | 2  # clock_getcpuclockid(pid)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connections = [connect(port, context) for _ in range(count)]
    selector = selectors.DefaultSelector()
    answered = set()
    for connection in connections:
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ)
        connection.send(MESSAGE)
    requests = 0
    begin = end = cpu = 0.0
    deadline = time.monotonic() + PATIENCE
    while True:
        now = time.monotonic()
        if end and now >= end:
            break
        if not end and len(answered) == count:
            if not begin:
                begin = now + seconds / 4  # the warm-up
            elif now >= begin:
                requests, begin, end, cpu = 0, now, now + seconds, time.clock_gettime(clock)
        if now > deadline + 2 * seconds:
            sys.exit("tls_client: no answers")
        for key, _ in selector.select(1):
            connection = key.fileobj
            assert isinstance(connection, ssl.SSLSocket)
            try:
                data = connection.recv(4096)
            except ssl.SSLWantReadError:  # a session ticket
                continue
            if data != MESSAGE:
                sys.exit("tls_client: a wrong answer")
            requests += 1
            answered.add(key.fd)
            connection.send(MESSAGE)
    print(requests, now - begin, time.clock_gettime(clock) - cpu)


if __name__ == "__main__":
    main()
