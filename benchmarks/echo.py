"""The CPU time of an echo server per 64-byte request, for each side: `benchmarks/run echo [options]`.

One server process per side, one load generator for all (`echo_client.c`, compiled at run time; for TLS, a Python
program) on another core, rounds interleaved.  The figure is the server's CPU time (user + system) divided by the
requests it answered.  Nothing here passes or fails: a missed target is printed as OVER.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _env import HERE, BenchError, Child, Side, add_options, choose_cores, headline, resolve
from _report import against, number, ratio, table

DEFAULT = ("weald", "gevent", "uvloop-protocol", "uvloop-streams", "asyncio-protocol")
SIDES = (
    *DEFAULT,
    *("weald-protocol", "weald-streams", "asyncio-streams", "trio", "eventlet"),
    *("weald-tls", "uvloop-tls", "asyncio-tls"),
)
TARGETS = {"gevent": 0.60, "uvloop-protocol": 1.10}  # largest acceptable ratios to these sides

Figures = tuple[float, float, float]  # CPU microseconds a request, requests a second, share of one core in use
Results = dict[str, dict[int, list[Figures]]]  # side label, connections, one entry a round


def build_client(directory: Path) -> str:
    """Compile the load generator; return its path."""
    compiler = shlex.split(os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or "")
    if not compiler:
        raise BenchError("the load generator is C and there is no compiler: apt-get install gcc libc6-dev, or set CC")
    target = directory / "echo_client"
    done = subprocess.run([*compiler, "-O2", "-Wall", "-o", str(target), str(HERE / "echo_client.c")], timeout=60)
    if done.returncode:
        raise BenchError(f"{compiler[0]} could not compile echo_client.c; its message stands above")
    return str(target)


def load(client: str, side: Side, connections: int, seconds: float, cores: tuple[int, int]) -> Figures:
    """One measurement of one side; cores are the server's and the client's."""
    with Child(side, "echo_server.py", side.kind, str(cores[0])) as server:
        port = server.answer(timeout=30).strip()
        tls = [sys.executable, str(HERE / "workloads" / "tls_client.py")]
        program = tls if side.kind.endswith("-tls") else [client]
        command = [*program, port, str(connections), str(seconds), str(server.process.pid)]
        pin = (lambda: os.sched_setaffinity(0, {cores[1]})) if cores[1] >= 0 else None
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=90 + 2 * seconds, preexec_fn=pin)
        except subprocess.TimeoutExpired:
            raise BenchError(f"{side.label}: the load generator did not end at {connections} connections") from None
        if done.returncode:
            raise BenchError(f"{side.label}, {connections} connections: {done.stderr.strip() or 'load generator died'}")
    requests, wall, cpu = (float(word) for word in done.stdout.split())
    if not requests:
        raise BenchError(f"{side.label}, {connections} connections: no request was answered in {seconds:g} s")
    return cpu / requests * 1e6, requests / wall, cpu / wall


def report(sides: Sequence[Side], counts: Sequence[int], results: Results) -> str:
    """One table per number of connections."""
    first = sides[0]
    parts = []
    for count in counts:
        ours = [entry[0] for entry in results[first.label][count]]
        body = []
        for side in sides:
            entries = results[side.label][count]
            cpu, rate, share = (statistics.median(column) for column in zip(*entries, strict=True))
            target = TARGETS.get(side.kind) if first.kind == "weald" and side is not first else None
            body.append(
                [
                    side.label,
                    f"{cpu:.2f}",
                    number(rate),
                    f"{share:.0%}",
                    "" if side is first else against(ratio(ours, [entry[0] for entry in entries]), target),
                    f"{target:.2f}" if target else "",
                ]
            )
        title, versus = f"{count:,} connections", f"{first.label} / it"
        header = [title, "CPU us/request", "requests/s", "core busy", versus, "target"]
        parts.append(table(header, body))
    return "\n\n".join(parts)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run echo`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run echo", description=__doc__)
    add_options(parser, DEFAULT, rounds=5)
    parser.add_argument("--connections", default="1,100,1000", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="a measurement, at most 60 (default: %(default)s)")
    options = parser.parse_args(arguments)
    counts = [int(count) for count in options.connections.split(",")]
    cores = choose_cores(options.core)
    sides = resolve(options, SIDES)
    print(headline(sides) + f"; server on core {cores[0]}, client on {cores[1]}", flush=True)
    results: Results = {side.label: {count: [] for count in counts} for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        client = build_client(Path(directory))
        for turn in range(options.rounds):
            for count in counts:
                print(f"round {turn + 1}/{options.rounds}: {count} connections", file=sys.stderr)
                for side in sides:
                    results[side.label][count].append(load(client, side, count, options.seconds, cores))
    print(f"\n{report(sides, counts, results)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
