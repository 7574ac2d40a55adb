"""How long new connections wait for an answer while one of two workers of `weald serve` is in trouble.

    python benchmarks/bad_worker.py [--connections 200] [--workers 2]

It prints a line for each case: the number of answered connections, their seconds (median, 95th and 99th percentile,
maximum), and how many took more than 0.2 s.  A connection is made every 5 ms, whether or not earlier ones have been
answered.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path

APP = """
import os, time, weald.monkey
{before}
def app(environ, start_response):
    path = environ["PATH_INFO"]
    end = time.monotonic() + 6
    if path == "/busy":
        while time.monotonic() < end:
            pass
    if path == "/stuck":
        weald.monkey.get_original("time", "sleep")(6)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
CASES = (
    *("all well", "busy: computes", "stuck in C", "stopped (SIGSTOP)", "killed, loads for 4 s"),
    *("killed, code is broken", "reload"),
)


class Service:
    """A running `weald serve`."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder = folder
        self.write("")
        command = [sys.executable, "-m", "weald", "serve", "site_app:app", "--app-dir", str(folder)]
        command += ["--workers", str(workers), "--bind", "127.0.0.1:0"]
        environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            found = re.search(r"workers? at http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found[1])
                break
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def write(self, before: str) -> None:
        """Write the application."""
        (self.folder / "site_app.py").write_text(APP.format(before=before))

    def get(self, path: str = "/") -> int:
        """Send a request; return the worker's process id."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=60) as response:
            return int(response.read())

    def hold_up(self, path: str) -> None:
        """Send a request that takes the worker 6 s; the service may end before."""
        with suppress(OSError, HTTPException):
            self.get(path)

    def trouble(self, case: str) -> int:
        """Bring a worker into trouble; return its process id, if it is known."""
        if case in ("busy: computes", "stuck in C"):
            threading.Thread(target=self.hold_up, args=("/busy" if "busy" in case else "/stuck",), daemon=True).start()
            time.sleep(0.3)
            return 0
        if case == "killed, loads for 4 s":
            self.write("time.sleep(4)")
        elif case == "killed, code is broken":
            self.write("raise ValueError")
        if case == "reload":
            self.process.send_signal(signal.SIGHUP)
        elif case != "all well":
            pid = self.get()
            os.kill(pid, signal.SIGSTOP if "STOP" in case else signal.SIGKILL)
            return pid
        return 0


def measure(port: int, count: int) -> tuple[list[float], int]:
    """Return the seconds from each connection's beginning to the end of its response, and how many failed."""
    found: list[float] = []
    failed = 0

    def ask() -> None:
        nonlocal failed
        start = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", port), 60) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while part := sock.recv(4096):
                    answer += part
            assert answer.startswith(b"HTTP/1.1 200")
            found.append(time.monotonic() - start)
        except (OSError, AssertionError):
            failed += 1

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
        time.sleep(0.005)
    for thread in threads:
        thread.join()
    return sorted(found), failed


def main() -> None:
    """Measure all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print(f"{'case':24} {'answered':>8} {'failed':>6} {'50 %':>7} {'95 %':>7} {'99 %':>7} {'max':>7}  > 0.2 s")
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            service = Service(Path(folder), options.workers)
            pid = service.trouble(case)
            times, failed = measure(service.port, options.connections)
            if "STOP" in case:
                os.kill(pid, signal.SIGCONT)
            service.process.send_signal(signal.SIGQUIT)
            service.process.wait()
        shown = " ".join(f"{times[min(int(len(times) * at), len(times) - 1)]:7.4f}" for at in (0.5, 0.95, 0.99, 1))
        print(f"{case:24} {len(times):8} {failed:6} {shown}  {sum(seconds > 0.2 for seconds in times):7}", flush=True)


if __name__ == "__main__":
    main()
