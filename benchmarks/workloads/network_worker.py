"""Child process of one side: prints that it is ready, then answers each name of a row with a line of JSON.

Started by `network` with the side's own interpreter: `network_worker.py PACKAGE CORE OTHER_CORE SIZE DELAY
CERTIFICATE`.  The other end of each row (a client, a name server) is a process that uses only the standard library, on
OTHER_CORE.
An answer has the CPU seconds of this process (and of its children, if they are measured) and wall seconds.
For look-ups it enters namespaces of its own (network, mounts), where resolv.conf names a server, so that the C library
queries it, too.  Each answer comes DELAY seconds after its query.
"""

import ctypes
import fcntl
import json
import os
import resource
import socket as plain
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
INSIDE = "LOOKUPS_INSIDE"
NAME_SERVER = "127.77.0.1"


class Rows:
    """The rows; each method does `size` operations and returns (CPU seconds, wall seconds)."""

    def __init__(self, package: str, other_core: int, size: int, delay: str, certificate: str) -> None:
        self.package, self.other_core, self.size = package, other_core, size
        self.delay, self.certificate = delay, certificate
        self.failed = 0
        self.library = import_module(package)

    def part(self, name: str) -> Any:
        return import_module(f"{self.package}.{name}")

    @contextmanager
    def other(self, *arguments: str) -> Any:
        """The other end; its output goes through a pipe that is read only when there is some."""
        pin = (lambda: os.sched_setaffinity(0, {self.other_core})) if self.other_core >= 0 else None
        command = [sys.executable, str(HERE / "network_other.py"), *arguments]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=pin)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def children(self) -> tuple[float, float]:
        """subprocess.run(["true"]), one after the other."""
        run = self.part("subprocess").run
        return _timed(lambda: [run(["true"]) for _ in range(self.size)], children=True)

    def children_at_once(self) -> tuple[float, float]:
        """The same, all at once, their output captured."""
        run, spawn = self.part("subprocess").run, self.library.spawn

        def all_at_once() -> None:
            self.library.joinall([spawn(run, ["true"], capture_output=True) for _ in range(self.size)])

        return _timed(all_at_once, children=True)

    def lookups(self) -> tuple[float, float]:
        """Names looked up all at once."""
        sockets, spawn = self.part("socket"), self.library.spawn
        with self.other("dns", NAME_SERVER, "53", self.delay) as server:
            server.stdout.readline()
            sockets.getaddrinfo("first.example", 80, plain.AF_INET)  # makes the objects that are made once
            names = [f"name{i}.example" for i in range(self.size)]
            jobs: list[Any] = []

            def all_at_once() -> None:
                jobs.extend(spawn(sockets.getaddrinfo, name, 80, plain.AF_INET) for name in names)
                self.library.joinall(jobs)

            took = _timed(all_at_once)
            self.failed = sum(not job.successful() for job in jobs)
            return took

    def tls(self) -> tuple[float, float]:
        """Echo of 64 bytes over TLS, 50 connections."""
        ssl = self.part("ssl")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)

        def echo(sock: Any, address: Any) -> None:
            while data := sock.recv(4096):
                sock.sendall(data)

        server = self.part("server").StreamServer(("127.0.0.1", 0), echo, ssl_context=context)
        server.start()
        try:
            with self.other("tls", str(server.server_port), str(self.size)) as client:
                wait = self.part("socket").wait_read
                wait(client.stdout.fileno())
                client.stdout.readline()  # all connected

                def requests() -> None:
                    client.stdin.write("\n")
                    client.stdin.flush()
                    wait(client.stdout.fileno())

                return _timed(requests)
        finally:
            server.stop()

    def bulk(self) -> tuple[float, float]:
        """sendall of 100 MB over TCP to a peer that reads as fast as it can."""
        data = bytes(100_000_000)
        with plain.create_server(("127.0.0.1", 0)) as listener:
            with self.other("drain", str(listener.getsockname()[1])):
                accepted, _ = listener.accept()
                with self.part("socket").socket(fileno=accepted.detach()) as sock:

                    def send() -> None:
                        sock.sendall(data)
                        sock.shutdown(plain.SHUT_WR)
                        sock.recv(1)

                    return _timed(send)


def _timed(function: Callable[[], object], children: bool = False) -> tuple[float, float]:
    def cpu() -> float:
        whose = [resource.RUSAGE_SELF, *([resource.RUSAGE_CHILDREN] if children else [])]
        return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, whose))

    before, start = cpu(), time.perf_counter()
    function()
    return cpu() - before, time.perf_counter() - start


def enter_namespaces() -> None:
    """Become a process whose network and whose resolv.conf are its own."""
    if os.environ.get(INSIDE) != "yes":
        kinds = ["-m", "-n"] if os.geteuid() == 0 else ["-r", "-m", "-n"]
        os.execvpe("unshare", ["unshare", *kinds, sys.executable, *sys.argv], {**os.environ, INSIDE: "yes"})
    with plain.socket(plain.AF_INET, plain.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 0x49))  # SIOCSIFFLAGS: up, loopback, running
    libc = ctypes.CDLL(None, use_errno=True)
    files = {"resolv.conf": f"nameserver {NAME_SERVER}\noptions timeout:30\n", "hosts": "127.0.0.1 localhost\n"}
    for name, text in files.items():
        with tempfile.NamedTemporaryFile("w") as file:  # the mount holds it
            file.write(text)
            file.flush()
            if libc.mount(file.name.encode(), f"/etc/{name}".encode(), None, 4096, None):  # MS_BIND
                raise OSError(ctypes.get_errno(), f"cannot mount a file on /etc/{name}")


def main() -> None:
    """See the module's docstring."""
    package, core, other_core, size, delay, certificate = sys.argv[1:]
    if f"{package.upper()}_RESOLVER" in os.environ:
        enter_namespaces()
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    rows = Rows(package, int(other_core), int(size), delay, certificate)
    print("ready", flush=True)
    for line in sys.stdin:
        cpu, wall = getattr(rows, line.strip())()
        print(json.dumps({"cpu": cpu, "wall": wall, "failed": rows.failed}), flush=True)


if __name__ == "__main__":
    main()
