"""Cost of each primitive, side against side: `benchmarks/run primitives [options]`.

Every side runs in child processes of its own, in interleaved rounds; the tables show medians.  The work itself is in
`workloads/`.  Nothing here passes or fails: a target that is missed is printed as OVER.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import scale
from _env import BenchError, Child, Side, add_options, choose_core, headline, resolve
from _report import against, median, number, ratio, table

SIDES = ("weald", "gevent", "asyncio", "uvloop", "trio", "eventlet")
DEFAULT = ("weald", "gevent", "asyncio", "uvloop", "trio")


@dataclass(frozen=True)
class Row:
    """One line of the tables; `target` is what the ratio to gevent shall not exceed."""

    name: str
    title: str
    target: float


ROWS = (
    Row("spawn_join", "spawn + join, one at a time", 0.25),
    Row("spawn_joinall", "spawn + joinall, 1,000 at a time", 0.25),
    Row("spawn_raw", "spawn_raw, 100 at a time", 0.25),
    Row("switch", "switch by sleep(0), 10 greenlets", 0.30),
    Row("queue1", "Queue(1) ping-pong, per item", 0.35),
    Row("queue_unbounded", "unbounded Queue, put + get", 1.0),
    Row("asyncresult", "AsyncResult round trip", 0.40),
    Row("semaphore_contended", "Semaphore, contended by 10", 0.45),
    Row("semaphore_free", "Semaphore, free", 0.60),
    Row("timeout", "with Timeout(10), not firing", 0.25),
    Row("pool_spawn", "Pool(100).spawn", 0.30),
    Row("sleepers", "10,000 short sleepers, each", 0.40),
    Row("resident", "resident bytes a parked greenlet", 0.80),
)
# "No slower than uvloop" is about time: a task needs no C stack, so its bytes are no yardstick.
UVLOOP_TARGET = 1.0

Results = dict[str, dict[str, list[dict[str, float]]]]  # side label, row, one entry a round


def measure(sides: Sequence[Side], rows: Sequence[Row], rounds: int, seconds: float, core: int) -> Results:
    """Run all rounds.  Within one, the sides take turns row by row, so that no two of a ratio are far apart in time.

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
                    stack.enter_context(Child(side, "worker.py", "rows", side.package, *pinned)) for side in sides
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

    def all_rounds(label: str, row: Row, clock: str) -> list[float]:
        return [entry[clock] for entry in results[label][row.name]]

    def cost(label: str, row: Row) -> str:
        cpu, wall = median(all_rounds(label, row, "cpu")), median(all_rounds(label, row, "wall"))
        return number(cpu) if row.name == "resident" or cpu is None else f"{number(cpu)} ({number(wall)})"

    labels = [side.label for side in sides]
    lines = [[row.title, *(cost(label, row) for label in labels)] for row in rows]
    costs = table(["ns per operation: CPU (wall)", *labels], lines)
    if len(sides) < 2:
        return costs
    first, *others = sides
    body = []
    for row in rows:
        cells = [row.title, f"{row.target:.2f}"]
        for other in others:
            uvloop = UVLOOP_TARGET if other.kind == "uvloop" and row.name != "resident" else None
            target = row.target if other.kind == "gevent" else uvloop
            value = ratio(all_rounds(first.label, row, "cpu"), all_rounds(other.label, row, "cpu"))
            cells.append(against(value, target if first.kind == "weald" else None))
        body.append(cells)
    ratios = table([f"{first.label} divided by", "target x gevent", *(side.label for side in others)], body)
    reading = f"Ratios of CPU, median of the rounds (below 1: {first.label} is cheaper; target against uvloop: 1.00)"
    return f"{costs}\n\n{reading}\n\n{ratios}"


def main(arguments: Sequence[str]) -> None:
    """Entry of `run primitives`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run primitives", description=__doc__)
    add_options(parser, DEFAULT, rounds=5)
    parser.add_argument("--rows", help="comma-separated rows (default: all): " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--seconds", type=float, default=0.3, help="per row, side and round (default: %(default)s)")
    scale.add_options(parser)
    options = parser.parse_args(arguments)
    chosen = options.rows.split(",") if options.rows else [row.name for row in ROWS]
    if unknown := set(chosen) - {row.name for row in ROWS}:
        raise BenchError(f"no such row: {', '.join(sorted(unknown))}; see --help")
    if options.scale or options.waiters:
        scale.main(options)
        return
    rows = [row for row in ROWS if row.name in chosen]
    core = choose_core(options.core)
    sides = resolve(options, SIDES)
    print(headline(sides) + (f"; core {core}" if core >= 0 else ""), flush=True)
    results = measure(sides, rows, options.rounds, options.seconds, core)
    print(f"\n{report(sides, rows, results)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
