"""Costs that grow with the number of connections: `benchmarks/run connections [options]`.

From 100 to 15,000 connections, for each side: CPU of a server per 64-byte echo, per HTTP request on keep-alive
connections, per HTTP request on a connection of its own, and the bytes of an idle connection.  Prints a table and draws
the curves as SVG.  Nothing here passes or fails; a request that costs more than GROWTH times its cost at 1,000
connections is printed as OVER.
"""

import argparse
import json
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import echo
import http_server
import siege
from _env import BenchError, Side, add_options, choose_cores, headline, resolve
from _report import chart, median, number, table

SIDES = ("weald", "weald@libev", "gevent", "uvloop-protocol")
KINDS = ("weald", "gevent", "uvloop-protocol")
ECHO, KEPT, MADE, IDLE = "echo", "http", "http-close", "idle"
PARTS = (ECHO, KEPT, MADE, IDLE)
GROWTH = 1.3
SPARE = 200  # descriptors that a server or client needs besides its connections

Costs = dict[str, dict[str, dict[int, list[float]]]]  # part, side label, connections, one entry a round


def cost(part: str, side: Side, count: int, client: str, folder: Path, options: argparse.Namespace) -> float | None:
    """Microseconds of CPU (or bytes) of one measurement; None if this side has no such server."""
    cores = options.cores
    if part == ECHO:
        return echo.load(client, side, count, options.seconds, cores)[0]
    if side.kind not in http_server.SIDES:
        return None
    if part == IDLE:
        return siege.idle_bytes(side, count, cores)
    # wrk first connects one by one, which takes long with so many connections; it sends no requests meanwhile.
    seconds = max(options.seconds, count // 1000)
    asked = argparse.Namespace(connections=count, seconds=seconds, close=part == MADE)
    return http_server.load(side, "hello", asked, folder, cores)[0]


def main(arguments: Sequence[str]) -> None:
    """Entry of `run connections`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run connections", description=__doc__)
    add_options(parser, SIDES, rounds=3)
    parser.add_argument("--parts", default=",".join(PARTS), help="(default: %(default)s)")
    parser.add_argument("--connections", default="100,1000,5000,15000", help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="a measurement (default: %(default)s)")
    parser.add_argument("--svg", type=Path, default=Path("bench-connections.svg"), help="(default: %(default)s)")
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        raise BenchError("the load generator is wrk: apt-get install wrk")
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        raise BenchError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    counts = sorted({int(count) for count in options.connections.split(",")})
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if counts[-1] + SPARE > most:
        raise BenchError(f"{counts[-1]:,} connections need more descriptors than the {most:,} allowed: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the servers inherit it
    options.cores = choose_cores(options.core)
    sides = resolve(options, KINDS)
    print(headline(sides) + f"; server on core {options.cores[0]}, client on {options.cores[1]}", flush=True)
    costs: Costs = {part: {side.label: {} for side in sides} for part in parts}
    with tempfile.TemporaryDirectory() as directory:
        client = echo.build_client(Path(directory))
        for turn in range(options.rounds):
            for part in parts:
                for count in counts:
                    print(f"round {turn + 1}/{options.rounds}: {part}, {count:,}", file=sys.stderr)
                    for side in sides:
                        value = cost(part, side, count, client, Path(directory), options)
                        if value is not None:
                            costs[part][side.label].setdefault(count, []).append(value)
    print(f"\n{report(costs, counts)}")
    panels = {
        part: {label: _points(by_count) for label, by_count in by_side.items() if by_count}
        for part, by_side in costs.items()
    }
    options.svg.write_text(chart(panels, "connections", "us of CPU per request; bytes of an idle connection"))
    print(f"\ncurves: {options.svg}")
    if options.json:
        options.json.write_text(json.dumps(costs, indent=1))


def _points(by_count: dict[int, list[float]]) -> list[tuple[float, float]]:
    return [(float(count), median(values) or 0.0) for count, values in sorted(by_count.items())]


def report(costs: Costs, counts: Sequence[int]) -> str:
    """One row per part and side; the last column is the largest figure divided by the one at 1,000 connections."""
    body = []
    for part, by_side in costs.items():
        for label, by_count in by_side.items():
            if not by_count:
                continue
            figures = dict(_points(by_count))
            cells = [number(figures.get(float(count))) for count in counts]
            base = figures.get(1000.0)
            grown = max(value for count, value in figures.items() if count >= 1000) / base if base else None
            verdict = "" if grown is None else f"{grown:.2f} {'ok' if part == IDLE or grown <= GROWTH else 'OVER'}"
            body.append([f"{part}, {label}", *cells, verdict])
    return table(["CPU us/request; bytes", *(f"{count:,}" for count in counts), "most / at 1,000"], body)
