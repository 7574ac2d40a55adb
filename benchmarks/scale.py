"""Whether the cost of an operation stays flat in a crowd: `benchmarks/run primitives --scale|--waiters [options]`.

From 100 to 100,000 greenlets: `--scale` parks them (and timers) beside the operation, `--waiters` on its object.
Prints a table and draws the curves as SVG.  One child process per side, round and crowd size, so that no size inherits
the memory of another.
"""

import argparse
import json
import math
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
# Each wakes n greenlets that wait on one object; the cost is per waiter.
WAITERS = (
    "Event: set wakes all",
    "AsyncResult: set wakes all",
    "Semaphore: release, one by one",
    "Event: waiters killed in random order",
    "Semaphore: waiters killed in random order",
    "Queue: getters killed in random order",
    "Queue: n getters, put one by one",
    "Queue(1): n putters, got one by one",
    "Greenlet: n links called",
    "Greenlet: links taken back in random order",
    "wait for n events",
    "iwait for n events",
    "Pool(1): n wait for a place",
    "Timeout: n cancelled in random order",
    "sleep: n killed in random order",
)
ANSWER = 1200.0  # seconds after which a child has died
FLAT = 1.5  # the largest cost of a curve over its smallest that still counts as flat

Costs = dict[str, dict[str, dict[int, list[float]]]]  # curve, side label, crowd size, one entry a round


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `--scale`."""
    parser.add_argument("--scale", action="store_true", help="curves over the size of a crowd beside the operation")
    parser.add_argument("--waiters", action="store_true", help="curves over the number of waiters on one object")
    parser.add_argument("--sizes", default="100,1000,10000,100000", help="crowd sizes (default: %(default)s)")
    parser.add_argument("--svg", type=Path, default=Path("bench-scale.svg"), help="picture (default: %(default)s)")
    parser.add_argument(
        "--patience",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="for one figure; a curve that would take longer ends there (default: %(default)s)",
    )


def measure(sides: Sequence[Side], sizes: Sequence[int], options: argparse.Namespace, core: int) -> Costs:
    """All rounds, sides and sizes, except sizes that are expected to take longer than `--patience`."""
    kind, curves = ("waiters", WAITERS) if options.waiters else ("curves", CURVES)
    costs: Costs = {curve: {side.label: {size: [] for size in sizes} for side in sides} for curve in curves}
    rounds, seconds = options.rounds, options.seconds
    for turn in range(rounds):
        for size in sizes:
            print(f"round {turn + 1}/{rounds}: {size:,}", file=sys.stderr)
            with ExitStack() as stack:
                arguments = ("worker.py", f"{kind}:{size}")
                pinned = (str(core), str(seconds))
                children = [stack.enter_context(Child(side, *arguments, side.package, *pinned)) for side in sides]
                for child in children:
                    child.ready()
                for curve in curves:
                    for child in children:
                        known = costs[curve][child.label]
                        if _expected(known, size) > options.patience:
                            continue
                        answer = json.loads(child.answer(ANSWER, curve))
                        known[size].append(answer["cpu"])
    return costs


def _expected(known: dict[int, list[float]], size: int) -> float:
    """Expected seconds for a crowd of `size`, if its cost per member grows as between the last two sizes."""
    points = [(count, values[-1]) for count, values in sorted(known.items()) if values and count < size]
    if len(points) < 2:
        return 0.0
    (smaller, before), (larger, cost) = points[-2:]
    growth = max(1.0, cost / before) ** (math.log(size / larger) / math.log(larger / smaller))
    return cost * growth * size / 1e9


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
    costs = measure(sides, sizes, options, core)
    body, panels = [], {}
    for curve, by_side in costs.items():
        panels[curve] = {
            label: [(float(size), median(values) or 0.0) for size, values in sorted(by_size.items()) if values]
            for label, by_size in by_side.items()
        }
        for label, points in panels[curve].items():
            values = [value for _, value in points]
            growth = max(values) / min(values)
            cells = [f"{curve}, {label}", *(number(value) for value in values), *["-"] * (len(sizes) - len(values))]
            body.append([*cells, f"{growth:.2f} {'flat' if growth <= FLAT else 'NOT FLAT'}"])
    each = "ns of CPU for each waiter" if options.waiters else "ns of CPU per operation"
    crowd = "greenlets waiting on one object" if options.waiters else "parked greenlets or pending timers"
    print(f"\n{table([each, *(f'{size:,}' for size in sizes), 'largest / smallest'], body)}")
    options.svg.write_text(chart(panels, crowd, each))
    print(f"\ncurves: {options.svg}")
    if options.json:
        options.json.write_text(json.dumps(costs, indent=1))
