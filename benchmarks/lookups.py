"""Look-ups, resolver by resolver, side against side: `benchmarks/run dns [options]`.

Every side runs in child processes of its own, in interleaved rounds; the table shows medians.  Needs Linux and the
right to make network and mount namespaces.  Nothing here passes or fails: a target that is missed is printed as OVER.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from _env import Child, Side, add_options, choose_cores, headline, resolve
from _report import cpu_and_wall, ratios, table

SIDES = ("weald", "gevent")
RESOLVERS = ("thread", "dnspython", "ares")
WITHOUT = {("gevent", "dnspython")}  # gevent 26.9 fails with dnspython 2.3 and 2.9


@dataclass(frozen=True)
class Row:
    """One line of the table: `clock`, "cpu" or "wall", is what is compared, and shall not exceed the peer's."""

    title: str
    resolver: str
    count: int
    delay: float
    clock: str


ROWS = [
    row
    for resolver in RESOLVERS
    for row in (
        Row(f"2,000 look-ups at once, {resolver}", resolver, 2000, 0, "cpu"),
        Row(f"300 that take 100 ms, {resolver}", resolver, 300, 0.1, "wall"),
    )
]

Results = dict[tuple[str, str], list[dict[str, float]]]  # side label, row's title; one entry a round


def measure(sides: Sequence[Side], rows: Sequence[Row], rounds: int, cores: tuple[int, int]) -> Results:
    """Run all rounds; within one, the sides take turns row by row."""
    results: Results = {(side.label, row.title): [] for side in sides for row in rows}
    for turn in range(rounds):
        for row in rows:
            print(f"round {turn + 1}/{rounds}: {row.title}", file=sys.stderr)
            for side in sides:
                if (side.package, row.resolver) in WITHOUT:
                    continue
                environ = {**side.environ, f"{side.package.upper()}_RESOLVER": row.resolver}
                chosen = Side(side.label, side.kind, side.package, side.python, environ)
                with Child(chosen, "dns_worker.py", side.package, str(cores[0]), str(cores[1])) as child:
                    child.ready()
                    results[side.label, row.title].append(json.loads(child.answer(180, f"{row.count} {row.delay}")))
    return results


def report(sides: Sequence[Side], rows: Sequence[Row], results: Results) -> str:
    """Medians of each side, and the first's ratio to the others."""
    first, *others = sides
    body = []
    for row in rows:
        cells = [row.title]
        for side in sides:
            entries = results[side.label, row.title]
            failed = sum(entry["failed"] for entry in entries)
            cells.append(cpu_and_wall(entries) + (f", {failed} failed" if failed else ""))
        theirs = [results[other.label, row.title] for other in others]
        cells += [f"{row.clock} {cell}" for cell in ratios(row.clock, results[first.label, row.title], theirs, 1.0)]
        body.append(cells)
    labels = [side.label for side in sides]
    return table(["CPU (wall) seconds", *labels, *(f"{labels[0]} / {label}" for label in labels[1:])], body)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run dns`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run dns", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--resolvers", default=",".join(RESOLVERS), help="comma-separated (default: %(default)s)")
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if row.resolver in options.resolvers.split(",")]
    cores = choose_cores(options.core)
    sides = resolve(options, SIDES)
    print(headline(sides) + f"; measured on core {cores[0]}, the server on {cores[1]}", flush=True)
    results = measure(sides, rows, options.rounds, cores)
    print(f"\n{report(sides, rows, results)}")
    if options.json:
        options.json.write_text(json.dumps({" ".join(key): value for key, value in results.items()}, indent=1))
