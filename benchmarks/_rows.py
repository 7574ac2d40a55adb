"""Rows of operations for all sides: measured by `workloads/worker.py` in a process per side, shown as tables.

Called by `primitives`, `aio` and `files`.  Within a round the sides take turns row by row, so that no two figures of a
ratio are far apart in time.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from _env import BenchError, Child, Side, choose_core, headline, resolve
from _report import against, median, number, ratio, table


@dataclass(frozen=True)
class Row:
    """One line of the tables; `targets`: the largest acceptable ratio to each kind of side."""

    name: str
    title: str
    targets: Mapping[str, float] = field(default_factory=dict)
    other: str = ""  # the row of the other sides that it is compared with, if that is not the same


Results = dict[str, dict[str, list[dict[str, float]]]]  # side label, row, one entry a round


def measure(sides: Sequence[Side], kind: str, rows: Sequence[Row], rounds: int, seconds: float, core: int) -> Results:
    """Run all rounds of the rows that module `kind` of `workloads/` has (`rows`: the one for the side's package).

    The memory row gets a process of its own, untouched by the garbage of the others.
    """
    results: Results = {side.label: {row.name: [] for row in rows} for side in sides}
    names = [row.name for row in rows if row.name != "resident"]
    parts = [part for part in (names, ["resident"] if len(names) < len(rows) else []) if part]
    for turn in range(rounds):
        for part in parts:
            with ExitStack() as stack:
                pinned = (str(core), str(seconds))
                children = [
                    stack.enter_context(Child(side, "worker.py", kind, side.package, *pinned)) for side in sides
                ]
                for child in children:
                    child.ready()
                for name in part:
                    print(f"round {turn + 1}/{rounds}: {name}", file=sys.stderr)
                    for child in children:
                        if answer := json.loads(child.answer(60 + 20 * seconds, name)):
                            results[child.label][name].append(answer)
    return results


def report(sides: Sequence[Side], rows: Sequence[Row], results: Results) -> str:
    """Both tables: costs of every side, then ratios of the first side to the others."""

    def all_rounds(label: str, name: str, clock: str) -> list[float]:
        return [entry[clock] for entry in results[label][name]]

    def cost(label: str, row: Row) -> str:
        cpu, wall = median(all_rounds(label, row.name, "cpu")), median(all_rounds(label, row.name, "wall"))
        return number(cpu) if row.name == "resident" or cpu is None else f"{number(cpu)} ({number(wall)})"

    labels = [side.label for side in sides]
    lines = [[row.title, *(cost(label, row) for label in labels)] for row in rows]
    costs = table(["ns per operation: CPU (wall)", *labels], lines)
    if len(sides) < 2:
        return costs
    first, *others = sides
    body = []
    for row in rows:
        cells = [row.title, ", ".join(f"{target:.2f} x {kind}" for kind, target in row.targets.items())]
        for other in others:
            value = ratio(
                all_rounds(first.label, row.name, "cpu"), all_rounds(other.label, row.other or row.name, "cpu")
            )
            cells.append(against(value, row.targets.get(other.kind) if first.kind == "weald" else None))
        body.append(cells)
    ratios = table([f"{first.label} divided by", "target", *(side.label for side in others)], body)
    return f"{costs}\n\nRatios of CPU, median of the rounds (below 1: {first.label} is cheaper)\n\n{ratios}"


def add_options(parser: argparse.ArgumentParser, rows: Sequence[Row], seconds: float) -> None:
    """Add the options that choose among `rows`, and how many seconds each takes."""
    parser.add_argument("--rows", help="comma-separated rows (default: all): " + ", ".join(row.name for row in rows))
    parser.add_argument("--seconds", type=float, default=seconds, help="per row, side and round (default: %(default)s)")


def chosen(options: argparse.Namespace, rows: Sequence[Row]) -> list[Row]:
    """The rows that `--rows` names.  BenchError for an unknown one."""
    names = options.rows.split(",") if options.rows else [row.name for row in rows]
    if unknown := set(names) - {row.name for row in rows}:
        raise BenchError(f"no such row: {', '.join(sorted(unknown))}; see --help")
    return [row for row in rows if row.name in names]


def run(options: argparse.Namespace, kinds: Sequence[str], kind: str, rows: Sequence[Row]) -> None:
    """Measure what the command line asks for, and print it."""
    core = choose_core(options.core)
    sides = resolve(options, kinds)
    print(headline(sides) + (f"; core {core}" if core >= 0 else ""), flush=True)
    results = measure(sides, kind, rows, options.rounds, options.seconds, core)
    print(f"\n{report(sides, rows, results)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
