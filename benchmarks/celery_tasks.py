"""The cost of a Celery task for a worker, for each side: `benchmarks/run celery [options]`.

A worker process per side and round, rounds interleaved, one Redis for all.  The tasks are queued before the worker
consumes the queue; it is done when the queue is empty and nothing is unacknowledged.  Nothing here passes or
fails: a missed target is printed as UNDER.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _env import HERE, ROOT, BenchError, _answer, _command, _weald_python

SIDES = {
    "weald": ["-P", "custom"],
    "weald-alias": ["-Pgevent"],
    "gevent": ["-P", "gevent"],
    "gevent-shared": ["-P", "gevent"],
    "prefork": ["-P", "prefork"],
    "threads": ["-P", "threads"],
}
PEERS = ["gevent>=26.9", "celery>=5.7", "redis>=5", "packaging", "psutil"]
WORKLOADS = {"results": ("nothing", 2000), "ignored": ("unheard", 2000), "sleep(0.5)": ("wait", 1000)}
# The target for weald's throughput, as a multiple of that side's.
TARGETS = {
    ("results", "gevent"): 3.0,
    ("results", "gevent-shared"): 1.0,
    ("ignored", "gevent"): 1.2,
    ("sleep(0.5)", "gevent"): 1.0,
}


def redis_server(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A Redis of the benchmark's own, and its port."""
    program = shutil.which("redis-server")
    if program is None:
        raise BenchError("there is no redis-server: apt-get install redis-server")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL), port


def peer_python(weald: str) -> str:
    """An interpreter with the real gevent and Celery, in an environment of its own."""
    version = _answer(weald, "import sys; print('%d.%d' % sys.version_info[:2])")
    venv = ROOT / f".bench-celery-venv-{version}"
    python = str(venv / "bin" / "python")
    if not _answer(python, "import gevent, celery, redis, psutil; print(1)"):
        base = _answer(weald, "import sys; print(getattr(sys, '_base_executable', sys.executable))")
        _command([base or sys.executable, "-m", "venv", str(venv)])
        (venv / ".gitignore").write_text("*\n")
        _command([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PEERS])
    return python


class Run:
    """One side's worker."""

    def __init__(self, side: str, python: str, port: int, folder: Path, concurrency: int) -> None:
        import psutil
        import redis

        self.client = redis.Redis(port=port)
        self.client.flushall()
        broker, backend = f"redis://127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/1"
        settings = {"result_backend_thread_safe": True} if side == "gevent-shared" else {}
        program = ["-m", "weald", "celery"] if side == "weald-alias" else ["-m", "celery"]
        log = folder / f"{side}.log"
        environ = {
            **os.environ,
            "BROKER": broker,
            "BACKEND": backend,
            "SETTINGS": json.dumps(settings),
            "CELERY_CUSTOM_WORKER_POOL": "weald.integrations.celery:TaskPool" if side == "weald" else "",
        }
        if not side.startswith("weald"):
            environ.pop("PYTHONPATH", None)
        options = ["-c", str(concurrency), "-Q", "idle", "--without-mingle", "--without-gossip"]
        with log.open("w") as out:
            self.worker = subprocess.Popen(
                [python, *program, "-A", "celery_proj", "worker", *options, *SIDES[side]],
                cwd=HERE / "workloads", env=environ, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )
        self.process = psutil.Process(self.worker.pid)
        from celery import Celery

        self.app = Celery("bench", broker=broker, backend=backend, set_as_current=False)
        deadline = time.monotonic() + 60
        while not self.app.control.ping(timeout=0.5, limit=1):
            if self.worker.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"the worker of {side} did not start:\n{log.read_text()[-2000:]}")

    def measure(self, task: str, count: int) -> tuple[float, float]:
        """(seconds, CPU milliseconds per task) for `count` tasks."""
        queue = f"bench-{task}"
        with self.app.producer_pool.acquire(block=True) as producer:
            for _ in range(count):
                self.app.send_task(task, queue=queue, producer=producer, ignore_result=task == "unheard")
        before, began = self.cpu(), time.monotonic()
        self.app.control.add_consumer(queue)
        deadline = began + 120
        while self.client.llen(queue) or self.client.hlen("unacked"):
            if time.monotonic() > deadline:
                raise BenchError(f"{self.client.llen(queue)} tasks are not done after two minutes")
            time.sleep(0.01)
        if task != "unheard":
            results = self.client.__class__(port=self.client.connection_pool.connection_kwargs["port"], db=1)
            while results.dbsize() < count and time.monotonic() < deadline:
                time.sleep(0.01)
            results.flushdb()
        seconds = time.monotonic() - began
        after = self.cpu()
        self.app.control.cancel_consumer(queue)
        return seconds, (after - before) / count * 1000

    def cpu(self) -> float:
        """Seconds of CPU that the worker and its children have used."""
        times = [process.cpu_times() for process in (self.process, *self.process.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def stop(self) -> None:
        self.app.close()
        for process in (*self.process.children(recursive=True), self.process):
            process.kill()
        self.worker.wait()


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run celery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=20, help="of prefork (default: %(default)s)")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--workloads", default=",".join(WORKLOADS))
    parser.add_argument("--weald-python", default=os.environ.get("WEALD_PYTHON"))
    parser.add_argument("--peer-python", help="interpreter with gevent, celery and redis (default: one is made)")
    options = parser.parse_args(arguments)
    weald = _weald_python(options.weald_python)
    sides = options.sides.split(",")
    peer = options.peer_python or (peer_python(weald) if any(not side.startswith("weald") for side in sides) else weald)
    wanted = {name: WORKLOADS[name] for name in options.workloads.split(",")}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {side: [] for side in sides} for name in wanted}
    with tempfile.TemporaryDirectory() as name:
        server, port = redis_server(Path(name))
        try:
            time.sleep(0.5)
            for _ in range(options.rounds):
                for side in sides:
                    python = weald if side.startswith("weald") else peer
                    concurrency = options.processes if side == "prefork" else options.concurrency
                    run = Run(side, python, port, Path(name), concurrency)
                    try:
                        for workload, (task, count) in wanted.items():
                            seconds, cpu = run.measure(task, count)
                            found[workload][side].append((seconds, cpu))
                            print(f"{side} {workload}: {seconds:.2f} s, {cpu:.3f} ms a task", file=sys.stderr)
                    finally:
                        run.stop()
        finally:
            server.terminate()
            server.wait()
    print(report(sides, found, options.rounds))


def report(sides: Sequence[str], found: Any, rounds: int) -> str:
    """The table: medians of the rounds, and weald's throughput as a multiple of each side's."""
    lines = [f"Celery tasks, medians of {rounds} interleaved rounds", ""]
    lines.append(f"{'workload':12} {'side':14} {'tasks/s':>9} {'CPU ms/task':>12} {'weald is':>9}")
    for workload in found:
        count = WORKLOADS[workload][1]
        for side in sides:
            runs = found[workload][side]
            rate = statistics.median(count / seconds for seconds, _ in runs)
            cpu = statistics.median(cpu for _, cpu in runs)
            multiple = ""
            if "weald" in sides and side != "weald":
                ratios = [
                    theirs[0] / ours[0] for theirs, ours in zip(runs, found[workload]["weald"], strict=True)
                ]
                value = statistics.median(ratios)
                target = TARGETS.get((workload, side))
                multiple = f"{value:8.2f}x" + (f" UNDER {target}" if target is not None and value < target else "")
            lines.append(f"{workload:12} {side:14} {rate:9.0f} {cpu:12.3f} {multiple:>9}")
    return "\n".join(lines)
