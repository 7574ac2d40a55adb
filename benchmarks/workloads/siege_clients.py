"""The clients of `siege`, one kind per process: `siege_clients.py dribble|keep|ask PORT COUNT SECONDS`.

dribble  COUNT connections whose request heads never end, one byte per second each, spread evenly over the second; a
         connection that is closed is made again.  Prints JSON when COUNT are open, and again at the end: bytes sent
         since the last report, connections ended, those of them that got a 408, and how long they lasted.
keep     COUNT connections that have sent one request and stay; prints a line when all are open, ends with its input.
ask      Sends COUNT requests a second on one connection; prints JSON: latencies in microseconds.
"""

import errno
import gc
import json
import os
import select
import socket
import sys
import time
from typing import Any

PHASES = 1000  # parts of a second
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
NOW = time.monotonic


class Dribbler:
    def __init__(self, port: int, count: int) -> None:
        self.port, self.count = port, count
        self.epoll = select.epoll()
        self.open: dict[int, Any] = {}  # descriptor: socket
        self.born: dict[int, float] = {}
        self.phases: list[set[int]] = [set() for _ in range(PHASES)]  # descriptors by when they send
        self.sent = 0
        self.lasted: list[float] = []
        self.told = 0  # 408
        self.failed = 0

    def connect(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        if sock.connect_ex(("127.0.0.1", self.port)) not in (0, errno.EINPROGRESS):
            self.failed += 1
            return
        self.open[sock.fileno()] = sock
        self.born[sock.fileno()] = NOW()
        self.phases[sock.fileno() % PHASES].add(sock.fileno())
        self.epoll.register(sock, select.EPOLLIN)
        try:
            sock.send(HEAD + b"X: ")  # to an address of this machine, connecting is over by now
        except OSError:
            pass

    def end(self, fd: int) -> None:
        try:
            answer = self.open[fd].recv(1000)
        except OSError:
            answer = b""
        self.told += answer.startswith(b"HTTP/1.1 408")
        self.lasted.append(NOW() - self.born.pop(fd))
        self.epoll.unregister(fd)
        self.phases[fd % PHASES].discard(fd)
        self.open.pop(fd).close()

    def run(self, seconds: float, ramp: float) -> None:
        """Connections open evenly within `ramp` seconds, and so they end; it stops `seconds` after all are open."""
        start = NOW()
        announced = False
        end = start + 10 * ramp
        turn = 0
        while (now := NOW()) < end:
            wanted = min(self.count, int(self.count * (now - start) / ramp))
            for _ in range(min(wanted - len(self.open), 100)):
                self.connect()
            if not announced and len(self.open) >= self.count * 0.98:
                announced = True
                end = now + seconds
                print(self.report(), flush=True)
            # A late client catches up, or skips the requests that it cannot send in time: no bursts.
            turn = max(turn + 1, int((NOW() - start) * PHASES) - 2)
            for fd in self.phases[turn % PHASES]:
                try:
                    self.open[fd].send(b"a")
                    self.sent += 1
                except OSError:
                    pass
            for fd, _ in self.epoll.poll(max(start + turn / PHASES - NOW(), 0)):
                self.end(fd)
        if not announced:
            sys.exit(f"only {len(self.open)} of {self.count} connections were open at a time")
        print(self.report(), flush=True)

    def report(self) -> str:
        lasted = sorted(self.lasted) or [0.0]
        sent, self.sent = self.sent, 0
        return json.dumps(
            {"open": len(self.open), "ended": len(self.lasted), "told": self.told, "failed": self.failed, "sent": sent}
            | {"shortest": lasted[0], "median": lasted[len(lasted) // 2], "longest": lasted[-1]}
        )


def ask(port: int, rate: int, seconds: float) -> None:
    took = []
    gc.disable()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = NOW() + seconds
        while (start := NOW()) < end:
            sock.sendall(HEAD + b"\r\n")
            answer = sock.recv(10_000)
            took.append((NOW() - start) * 1e6)
            assert answer.startswith(b"HTTP/1.1 200"), answer
            time.sleep(max(start + 1 / rate - NOW(), 0))
    print(json.dumps(took), flush=True)


def keep(port: int, count: int) -> None:
    kept = []
    for _ in range(count):
        sock = socket.create_connection(("127.0.0.1", port), timeout=30)
        sock.sendall(HEAD + b"\r\n")
        assert sock.recv(10_000).startswith(b"HTTP/1.1 200")
        kept.append(sock)
    print(len(kept), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    kind, port, count, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    if kind == "dribble":
        # It shares a core with the measuring client, whose waiting for the core would look like the server's delay.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        Dribbler(port, count).run(seconds, float(sys.argv[5]))
    elif kind == "ask":
        ask(port, count, seconds)
    else:
        keep(port, count)
