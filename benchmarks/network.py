"""Children, look-ups, TLS and bulk sending, side against side: `benchmarks/run network [options]`.

Every side runs in child processes of its own, in interleaved rounds; the table shows medians.  weald's two DNS
resolvers are measured against a time, everything else against gevent.  Nothing here passes or fails: a target that
is missed is printed as OVER.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _env import BenchError, Child, Side, add_options, choose_cores, headline, resolve
from _report import against, cpu_and_wall, median, ratios, table

SIDES = ("weald", "gevent")


@dataclass(frozen=True)
class Row:
    """One line of the table; `target` is what the ratio of `clock` to gevent shall not exceed."""

    name: str
    title: str
    size: int
    target: float | None = None
    clock: str = "cpu"
    resolver: str = ""
    seconds: float | None = None  # wall time that shall not be exceeded


ROWS = (
    Row("children", 'run(["true"]) x 500', 500, 1.0),
    Row("children_at_once", 'run(["true"], capture_output=True) x 500, at once', 500, 1.0),
    Row("tls", "TLS echo of 64 bytes x 20,000, 50 connections", 20_000, 0.75),
    Row("bulk", "sendall of 100 MB", 1, 1.0),
    Row("lookups", "1,000 look-ups of 100 ms, ares", 1, resolver="ares", seconds=0.4),
    Row("lookups", "1,000 look-ups of 100 ms, dnspython", 1, resolver="dnspython", seconds=0.4),
)

Results = dict[tuple[str, str], list[dict[str, float]]]  # side label, row's title; one entry a round


def certificate(directory: Path) -> str:
    """A self-signed one and its key, in one file."""
    path = directory / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        made = subprocess.run(
            [*command, "-keyout", str(path), "-out", "-"], capture_output=True, check=True, timeout=60
        )
    except FileNotFoundError:
        raise BenchError("the TLS row needs openssl: apt-get install openssl") from None
    with path.open("ab") as file:
        file.write(made.stdout)
    return str(path)


def measure(sides: Sequence[Side], rows: Sequence[Row], rounds: int, cores: tuple[int, int], pem: str) -> Results:
    """Run all rounds; within one, the sides take turns row by row."""
    results: Results = {(side.label, row.title): [] for side in sides for row in rows}
    for turn in range(rounds):
        for row in rows:
            print(f"round {turn + 1}/{rounds}: {row.title}", file=sys.stderr)
            for side in sides:
                if row.resolver and side.kind != "weald":
                    continue  # its look-ups go through ten threads
                environ = {**side.environ, **({"WEALD_RESOLVER": row.resolver} if row.resolver else {})}
                chosen = Side(side.label, side.kind, side.package, side.python, environ)
                arguments = (side.package, str(cores[0]), str(cores[1]), str(row.size), pem)
                with Child(chosen, "network_worker.py", *arguments) as child:
                    child.ready()
                    results[side.label, row.title].append(json.loads(child.answer(120, row.name)))
    return results


def report(sides: Sequence[Side], rows: Sequence[Row], results: Results) -> str:
    """Medians of each side, and the first's ratio to the others."""
    first, *others = sides
    body = []
    for row in rows:
        ours, theirs = results[first.label, row.title], [results[other.label, row.title] for other in others]
        cells = [row.title, *map(cpu_and_wall, [ours, *theirs]), *ratios(row.clock, ours, theirs, row.target)]
        if row.seconds is not None:
            wall = median([entry["wall"] for entry in results[first.label, row.title]])
            cells.append(f"{row.seconds:.2f} s: {against(wall, row.seconds).split()[-1]}")
        else:
            cells.append(f"{row.target:.2f}")
        body.append(cells)
    labels = [side.label for side in sides]
    return table(["CPU (wall) seconds", *labels, *(f"{labels[0]} / {label}" for label in labels[1:]), "target"], body)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run network`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run network", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--rows", help="comma-separated rows (default: all): children, children_at_once, tls, …")
    options = parser.parse_args(arguments)
    names = {row.name for row in ROWS}
    chosen = set(options.rows.split(",")) if options.rows else names
    if unknown := chosen - names:
        raise BenchError(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(names))}")
    rows = [row for row in ROWS if row.name in chosen]
    cores = choose_cores(options.core)
    sides = resolve(options, SIDES)
    print(headline(sides) + f"; measured on core {cores[0]}, the other end on {cores[1]}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        results = measure(sides, rows, options.rounds, cores, certificate(Path(directory)))
    print(f"\n{report(sides, rows, results)}")
    if options.json:
        options.json.write_text(json.dumps({" ".join(key): value for key, value in results.items()}, indent=1))
