"""Child process of one side: says it is ready, then answers each name of a row (or curve) it reads with a line of JSON.

Started by `_rows` and `scale` with the side's own interpreter: `worker.py KIND PACKAGE CORE SECONDS`, KIND being
`rows`, `loops`, `files`, `curves:N` or `waiters:N`; CORE -1 pins to no core.  Ends with its standard input.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from measure import measure

# Rows that only make sense in multiples of so many operations.
UNITS = {"switch": 10, "semaphore_contended": 10, "sleepers": 10_000, "call_soon": 100}
MODULES = {"asyncio": "tasks", "uvloop": "tasks", "trio": "nurseries"}


def row(rows: dict[str, Callable[[int], Any]], name: str, seconds: float) -> dict[str, Any]:
    """What one row costs; empty if this side has no such thing."""
    if name not in rows:
        return {}
    if name == "resident":
        return {"cpu": rows[name](10_000), "wall": 0.0}
    return vars(measure(rows[name], seconds, UNITS.get(name, 1)))


def main() -> None:
    """See the module's docstring."""
    kind, package, core, seconds = sys.argv[1:]
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    kind, _, count = kind.partition(":")
    if kind in ("rows", "loops", "files"):
        rows = import_module(MODULES.get(package, "greenlets") if kind == "rows" else kind).rows(package)
    elif kind == "curves":
        curves = import_module("crowd").curves(package)
    else:
        waiters = import_module("waiters").curves(package)
    print("ready", flush=True)
    for line in sys.stdin:
        name = line.strip()
        if kind in ("rows", "loops", "files"):
            answer = row(rows, name, float(seconds))
        elif kind == "curves":
            answer = {"cpu": curves[name](int(count), float(seconds))}
        else:
            answer = {"cpu": waiters[name](int(count))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
