"""Child process of one side: runs the named rows (or curves) and prints one JSON line for each as it is ready.

Started by `primitives` and `scale` with the side's own interpreter:
`worker.py KIND PACKAGE CORE SECONDS NAME...`, KIND being `rows` or `curves:N`; CORE -1 pins to no core.
"""

import json
import os
import sys
from importlib import import_module

from measure import measure

# Rows that only make sense in multiples of so many operations.
UNITS = {"switch": 10, "semaphore_contended": 10, "sleepers": 10_000}
MODULES = {"asyncio": "tasks", "uvloop": "tasks", "trio": "nurseries"}


def main() -> None:
    """See the module's docstring."""
    kind, package, core, seconds, *names = sys.argv[1:]
    if int(core) >= 0:
        os.sched_setaffinity(0, {int(core)})
    if kind == "rows":
        rows = import_module(MODULES.get(package, "greenlets")).rows(package)
        for name in names:
            if name not in rows:
                answer: dict[str, object] = {"missing": True}
            elif name == "resident":
                answer = {"cpu": rows[name](10_000), "wall": 0.0}
            else:
                answer = vars(measure(rows[name], float(seconds), UNITS.get(name, 1)))
            print(json.dumps({"name": name, **answer}), flush=True)
    else:
        curves = import_module("crowd").curves(package)
        count = int(kind.partition(":")[2])
        for name in names or curves:
            print(json.dumps({"name": name, "cpu": curves[name](count, float(seconds))}), flush=True)


if __name__ == "__main__":
    main()
