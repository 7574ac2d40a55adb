"""Times one batch function: finds how many operations fill the wanted time, then runs that many.

Used by every workload in this directory, inside the child process of one side.  A batch is a plain function
`batch(n)` that does n operations and returns when the last of them is complete; nothing is left running.
"""

import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

PAGE = os.sysconf("SC_PAGE_SIZE")
LIMIT = 50_000_000  # operations; keeps an operation of (next to) no cost bounded


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per operation, on the process's CPU clock and on the wall clock."""

    cpu: float
    wall: float
    operations: int


def measure(batch: Callable[[int], object], seconds: float, unit: int = 1) -> Cost:
    """Cost of one operation of `batch`, over about `seconds` of wall time; n is always a multiple of `unit`."""
    n = unit
    while True:
        wall, cpu = _once(batch, n)
        if wall >= seconds * 0.6 or n >= LIMIT:
            return Cost(cpu / n * 1e9, wall / n * 1e9, n)
        # Never more than tenfold at a time: the first small batches are dominated by their own set-up.
        wanted = min(n * seconds / max(wall, 1e-9), n * 10, LIMIT)
        n = max(n + unit, int(wanted) // unit * unit)


def _once(batch: Callable[[int], object], n: int) -> tuple[float, float]:
    """(wall, CPU) seconds of `batch(n)`; the garbage collector stays on, as it is in a user's program."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    batch(n)
    return time.perf_counter() - wall, time.process_time() - cpu


def resident() -> int:
    """Resident bytes of this process now."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * PAGE
