"""asyncio on weald's loop, uvloop and asyncio's own: `benchmarks/run aio [options]`.

CPU nanoseconds for each operation of a loop, then what `echo` measures, with a Protocol, with streams and with TLS.  A
process a side, rounds interleaved.  Nothing here passes or fails: a target that is missed is printed as OVER.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import echo
from _env import BenchError, Child, Side, add_options, choose_core, headline, resolve
from _report import against, median, number, ratio, table

SIDES = ("weald", "uvloop", "asyncio")
# Row: what it measures, and what the ratio to uvloop shall not exceed.  `await_` is compared with uvloop's sleep(0).
ROWS = {
    "call_soon": ("call_soon", 1.0),
    "call_later": ("call_later and cancel", 1.0),
    "sleep0": ("await asyncio.sleep(0)", 1.0),
    "switch": ("switch between two tasks", 1.0),
    "future": ("future, set by a callback, awaited", 1.0),
    "task": ("create_task and await it", 1.0),
    "await_done": ("await_ of a coroutine that does not wait", 3.0),
    "await_once": ("await_ of a coroutine that waits once", 6.0),
}
OF_WEALD = ("await_done", "await_once")
STYLES = {"protocol": 1.0, "streams": 0.9, "tls": 1.0}


def measure(sides: Sequence[Side], rounds: int, seconds: float, core: int) -> dict[str, dict[str, list[float]]]:
    """CPU nanoseconds: side, row, one entry a round."""
    results: dict[str, dict[str, list[float]]] = {side.label: {row: [] for row in ROWS} for side in sides}
    for turn in range(rounds):
        with ExitStack() as stack:
            pinned = (str(core), str(seconds))
            children = [
                (side, stack.enter_context(Child(side, "aio_worker.py", side.package, *pinned))) for side in sides
            ]
            for _, child in children:
                child.ready()
            for row in ROWS:
                print(f"round {turn + 1}/{rounds}: {row}", file=sys.stderr)
                for side, child in children:
                    if side.package == "weald" or row not in OF_WEALD:
                        results[side.label][row].append(float(child.answer(60 + 20 * seconds, row)))
    return results


def report(sides: Sequence[Side], results: dict[str, dict[str, list[float]]]) -> str:
    """One line a row: every side's cost, and the ratio of the first to uvloop."""
    ours = results[sides[0].label]
    uvloop = next((results[side.label] for side in sides if side.package == "uvloop"), None)
    body = []
    for row, (title, target) in ROWS.items():
        cells = [title, *(number(median(results[side.label][row])) for side in sides)]
        if uvloop is not None:
            cells.append(against(ratio(ours[row], uvloop["sleep0" if row in OF_WEALD else row]), target))
            cells.append(f"{target:.2f}")
        body.append(cells)
    header = ["CPU ns per operation", *(side.label for side in sides)]
    return table(header + ([f"{sides[0].label} / uvloop", "target"] if uvloop is not None else []), body)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run aio`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run aio", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="per row, side and round (default: %(default)s)")
    parser.add_argument("--connections", default="1,100,1000", help="of echo; empty: no echo (default: %(default)s)")
    options = parser.parse_args(arguments)
    core = choose_core(options.core)
    sides = resolve(options, SIDES)
    if any("@" in side.label and side.package != "weald" for side in sides):
        raise BenchError("only weald has a choice of loops here")
    print(headline(sides) + (f"; core {core}" if core >= 0 else ""), flush=True)
    results = measure(sides, options.rounds, options.seconds, core)
    print(f"\n{report(sides, results)}\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    shared = [f"--rounds={options.rounds}", f"--connections={options.connections}"]
    for name in ("weald_python", "peer_python", "core"):
        if getattr(options, name) is not None:
            shared.append(f"--{name.replace('_', '-')}={getattr(options, name)}")
    for style in STYLES if options.connections else ():
        echo.main([*shared, f"--sides={','.join(f'{side.kind}-{style}' for side in sides)}"])
        print(f"target of weald / uvloop: {STYLES[style]:.2f}\n", flush=True)
