"""Children, TLS, bulk sending, and look-ups, for each side: `benchmarks/run network|dns [options]`.

Every side runs in child processes of its own, in interleaved rounds; the tables show medians.  Look-ups need Linux and
the right to make network and mount namespaces.  Nothing here passes or fails: a missed target is printed as OVER.
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
from _report import cpu_and_wall, ratios, table

SIDES = ("weald", "gevent")


RESOLVERS = ("thread", "dnspython", "ares")
WITHOUT = {("gevent", "dnspython")}  # gevent 26.9 fails with dnspython 2.3 and 2.9


@dataclass(frozen=True)
class Row:
    """One line of the table; `target` is the largest acceptable ratio to gevent by `clock` ("cpu" or "wall")."""

    name: str
    title: str
    size: int
    target: float = 1.0
    clock: str = "cpu"
    resolver: str = ""
    delay: float = 0.0  # seconds until a name server answers


ROWS = (
    Row("children", 'run(["true"]) x 500', 500),
    Row("children_at_once", 'run(["true"], capture_output=True) x 500, at once', 500),
    Row("tls", "TLS echo of 64 bytes x 20,000, 50 connections", 20_000, 0.75),
    Row("bulk", "sendall of 100 MB", 1),
)
LOOKUPS = tuple(
    row
    for resolver in RESOLVERS
    for row in (
        Row("lookups", f"2,000 look-ups at once, {resolver}", 2000, resolver=resolver),
        Row("lookups", f"300 that take 100 ms, {resolver}", 300, clock="wall", resolver=resolver, delay=0.1),
    )
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
                if (side.package, row.resolver) in WITHOUT:
                    continue
                resolver = {f"{side.package.upper()}_RESOLVER": row.resolver} if row.resolver else {}
                environ = {**side.environ, **resolver}
                chosen = Side(side.label, side.kind, side.package, side.python, environ)
                arguments = (side.package, str(cores[0]), str(cores[1]), str(row.size), str(row.delay), pem)
                with Child(chosen, "network_worker.py", *arguments) as child:
                    child.ready()
                    results[side.label, row.title].append(json.loads(child.answer(180, row.name)))
    return results


def report(sides: Sequence[Side], rows: Sequence[Row], results: Results) -> str:
    """Medians of each side, and the first's ratio to the others."""
    body = []
    for row in rows:
        entries = [results[side.label, row.title] for side in sides]
        cells = []
        for each in entries:
            failed = sum(entry["failed"] for entry in each)
            cells.append(cpu_and_wall(each) + (f", {failed:.0f} failed" if failed else ""))
        body.append([row.title, *cells, *ratios(row.clock, entries[0], entries[1:], row.target), row.clock])
    labels = [side.label for side in sides]
    return table(["CPU (wall) seconds", *labels, *(f"{labels[0]} / {label}" for label in labels[1:]), "clock"], body)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run network`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run network", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--rows", help="comma-separated rows (default: all): children, children_at_once, tls, bulk")
    options = parser.parse_args(arguments)
    names = {row.name for row in ROWS}
    chosen = set(options.rows.split(",")) if options.rows else names
    if unknown := chosen - names:
        raise BenchError(f"no such row: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(names))}")
    _run(options, [row for row in ROWS if row.name in chosen])


def lookups(arguments: Sequence[str]) -> None:
    """Entry of `run dns`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run dns", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--resolvers", default=",".join(RESOLVERS), help="comma-separated (default: %(default)s)")
    options = parser.parse_args(arguments)
    _run(options, [row for row in LOOKUPS if row.resolver in options.resolvers.split(",")])


def _run(options: argparse.Namespace, rows: Sequence[Row]) -> None:
    cores = choose_cores(options.core)
    sides = resolve(options, SIDES)
    print(headline(sides) + f"; measured on core {cores[0]}, the other end on {cores[1]}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        pem = certificate(Path(directory)) if any(row.name == "tls" for row in rows) else ""
        results = measure(sides, rows, options.rounds, cores, pem)
    print(f"\n{report(sides, rows, results)}")
    if options.json:
        options.json.write_text(json.dumps({" ".join(key): value for key, value in results.items()}, indent=1))
