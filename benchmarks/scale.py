"""Does the cost of an operation stay flat in a crowd?  `benchmarks/run primitives --scale [options]`.

From 100 to 100,000 parked greenlets and pending timers; prints a table and draws the curves as SVG.  One child
process a side, round and crowd size, so that no size inherits the memory of another.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from _env import BenchError, Child, Side, choose_core, headline, resolve
from _report import chart, median, number, table

SIDES = ("weald", "gevent", "eventlet")
CURVES = (
    "parked: sleep(0)",
    "parked: spawn + join",
    "parked: spawn, park, wake one of n",
    "parked: the same, no collector",
    "timers: sleep(0)",
    "timers: with Timeout(10)",
    "timers: sleep that fires",
    "timers: start and cancel one of n",
    "timers: the same, no collector",
)
FLAT = 1.5  # the largest cost of a curve over its smallest that still counts as flat

Costs = dict[str, dict[str, dict[int, list[float]]]]  # curve, side label, crowd size, one entry a round


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `--scale`."""
    parser.add_argument("--scale", action="store_true", help="measure curves over crowd sizes instead of the rows")
    parser.add_argument("--sizes", default="100,1000,10000,100000", help="crowd sizes (default: %(default)s)")
    parser.add_argument("--svg", type=Path, default=Path("bench-scale.svg"), help="picture (default: %(default)s)")


def measure(sides: Sequence[Side], sizes: Sequence[int], rounds: int, seconds: float, core: int) -> Costs:
    """All rounds, sides and sizes."""
    costs: Costs = {curve: {side.label: {size: [] for size in sizes} for side in sides} for curve in CURVES}
    for turn in range(rounds):
        for size in sizes:
            print(f"round {turn + 1}/{rounds}: {size:,}", file=sys.stderr)
            with ExitStack() as stack:
                arguments = ("worker.py", f"curves:{size}")
                pinned = (str(core), str(seconds))
                children = [stack.enter_context(Child(side, *arguments, side.package, *pinned)) for side in sides]
                for child in children:
                    child.ready()
                for curve in CURVES:
                    for child in children:
                        answer = json.loads(child.answer(300, curve))
                        costs[curve][child.label][size].append(answer["cpu"])
    return costs


def main(options: argparse.Namespace) -> None:
    """Measure, print, draw."""
    sizes = sorted({int(size) for size in options.sizes.split(",")})
    if sizes[0] < 1:
        raise BenchError("--sizes must be positive")
    if options.sides.startswith("weald,gevent,asyncio"):
        options.sides = "weald,gevent"  # the default of the rows; the curves know no tasks
    sides = resolve(options, SIDES)
    core = choose_core(options.core)
    print(headline(sides) + (f"; core {core}" if core >= 0 else ""), flush=True)
    costs = measure(sides, sizes, options.rounds, options.seconds, core)
    body, panels = [], {}
    for curve, by_side in costs.items():
        panels[curve] = {
            label: [(float(size), median(values) or 0.0) for size, values in sorted(by_size.items())]
            for label, by_size in by_side.items()
        }
        for label, points in panels[curve].items():
            values = [value for _, value in points]
            growth = max(values) / min(values)
            cells = [f"{curve}, {label}", *(number(value) for value in values)]
            body.append([*cells, f"{growth:.2f} {'flat' if growth <= FLAT else 'NOT FLAT'}"])
    print(f"\n{table(['ns of CPU per operation', *(f'{size:,}' for size in sizes), 'largest / smallest'], body)}")
    options.svg.write_text(chart(panels, "parked greenlets or pending timers", "ns of CPU per operation"))
    print(f"\ncurves: {options.svg}")
    if options.json:
        options.json.write_text(json.dumps(costs, indent=1))
