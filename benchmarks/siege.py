"""The cost of many idle or hostile clients for an HTTP server: `benchmarks/run siege [options]`.

Two parts.  `idle`: resident bytes of the server per keep-alive connection, with 10,000 connections that have sent one
request, for each side.  `dribble`, for weald only: 10,000 connections send their request's head byte by byte, and
connect again when they are disconnected.  It measures when they are disconnected, a well-behaved client's latency
meanwhile and on an idle server, and the growth of memory.  Nothing here passes or fails: a missed target is OVER.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from _env import HERE, BenchError, Child, Side, add_options, choose_cores, headline, resolve
from _report import against, number, table
from http_server import cpu

SIDES = ("weald", "gevent")
PARTS = ("idle", "dribble")
PAGE = resource.getpagesize()
MEMORY_TARGET, LATENCY_TARGET = 0.5, 2.0
RATE = 200  # requests a second of the well-behaved client


def resident(pid: int) -> int:
    """Bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


class Clients:
    """A process of siege_clients.py, on a core of its own."""

    def __init__(self, core: int, *arguments: object) -> None:
        pin = (lambda: os.sched_setaffinity(0, {core})) if core >= 0 else None
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "workloads" / "siege_clients.py"), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=pin,
        )

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise BenchError("the clients died")
        return line

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *exc: object) -> None:
        self.process.kill()
        self.process.communicate()


def percentiles(took: Sequence[float]) -> tuple[float, float]:
    """The 50th and the 99th."""
    ordered = sorted(took)
    return ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]


def idle_bytes(side: Side, count: int, cores: tuple[int, int]) -> float:
    """Bytes of memory per connection, for `count` connections that have sent one request and stay."""
    with Child(side, "http_servers.py", side.kind, str(cores[0]), "hello") as server:
        port = int(server.answer(timeout=30))
        with Clients(cores[1], "keep", port, 100, 0) as first:  # makes the objects that are made once
            first.answer()
            before = resident(server.process.pid)
            with Clients(cores[1], "keep", port, count, 0) as crowd:
                crowd.answer()
                return (resident(server.process.pid) - before) / count


def idle(sides: Sequence[Side], count: int, cores: tuple[int, int]) -> str:
    """Bytes of memory per connection."""
    used = {side.label: idle_bytes(side, count, cores) for side in sides}
    ours = used[sides[0].label]
    body = [
        [side.label, number(used[side.label])]
        + (["", ""] if i == 0 else [against(ours / used[side.label], MEMORY_TARGET), f"{MEMORY_TARGET}"])
        for i, side in enumerate(sides)
    ]
    return table([f"{count:,} idle connections", "bytes each", f"{sides[0].label} / it", "target"], body)


def dribble(side: Side, count: int, timeout: float, cores: tuple[int, int]) -> str:
    """Latency and memory while `count` connections dribble."""
    limited = Side(side.label, side.kind, side.package, side.python, {**side.environ, "HEAD_TIMEOUT": str(timeout)})
    with Child(limited, "http_servers.py", side.kind, str(cores[0]), "hello") as server:
        port = int(server.answer(timeout=30))
        with Clients(cores[1], "ask", port, RATE, 10) as alone:
            calm = percentiles(json.loads(alone.answer()))
        start = resident(server.process.pid)
        with Clients(cores[1], "dribble", port, count, 1.5 * timeout, timeout) as crowd:
            crowd.answer()
            all_there = time.monotonic()
            first = resident(server.process.pid)
            begun, spent = time.monotonic(), cpu(server.process.pid)
            with Clients(cores[1], "ask", port, RATE, timeout) as during:
                busy = percentiles(json.loads(during.answer()))
            spent, passed = cpu(server.process.pid) - spent, time.monotonic() - begun
            last = resident(server.process.pid)
            ended = json.loads(crowd.answer())
            dribbled = ended["sent"] / (time.monotonic() - all_there)
    body = [
        ["a good client's latency: median, us", number(calm[0]), number(busy[0]), f"{busy[0] / calm[0]:.2f}", ""],
        [
            "99th percentile, us",
            number(calm[1]),
            number(busy[1]),
            against(busy[1] / calm[1], LATENCY_TARGET),
            f"{LATENCY_TARGET}",
        ],
        ["resident MiB, nobody / all there", f"{start / 2**20:.1f}", f"{first / 2**20:.1f}", "", ""],
        ["all there / later", f"{first / 2**20:.1f}", f"{last / 2**20:.1f}", f"{last / first:.2f}", ""],
    ]
    return (
        table([f"{count:,} dribble", "before", "during", "ratio", "target"], body)
        + f"\n\n{ended['ended']:,} connections were thrown out, {ended['told']:,} of them with 408; they lasted "
        f"{ended['shortest']:.1f} to {ended['longest']:.1f} s (median {ended['median']:.1f}), of {timeout:g}; "
        f"{ended['failed']} could not connect; {dribbled:,.0f} bytes a second came; the server's core was busy for "
        f"{spent / passed:.0%} of the time"
    )


def main(arguments: Sequence[str]) -> None:
    """Entry of `run siege`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run siege", description=__doc__)
    add_options(parser, SIDES, rounds=1)
    parser.add_argument("--parts", default=",".join(PARTS), help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--head-timeout", type=float, default=20.0, help="seconds (default: the server's, %(default)s)")
    options = parser.parse_args(arguments)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        raise BenchError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = options.clients + 1000
    if soft < needed:
        if hard < needed:
            raise BenchError(f"{needed} open files are needed, {hard} are allowed: ulimit -n, as root")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    cores = choose_cores(options.core)
    sides = resolve(options, SIDES)
    print(headline(sides) + f"; server on core {cores[0]}, clients on {cores[1]}", flush=True)
    for _ in range(options.rounds):
        if "idle" in parts:
            print(f"\n{idle(sides, options.clients, cores)}", flush=True)
        if "dribble" in parts:
            print(f"\n{dribble(sides[0], options.clients, options.head_timeout, cores)}", flush=True)
