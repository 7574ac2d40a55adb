"""Numbers of all workers in one piece of shared memory, and their text for Prometheus.

Called by: supervisor (makes the memory), worker (its servers count in it: `ServerState.count_in`), fair (whose
shares they tell), the process that serves /metrics.

Each worker slot has a row of doubles, which only its current worker writes.  A row outlives its worker, so counters
never fall.  While a worker is replaced, two write to it, and single counts may get lost.
"""

import mmap
from collections.abc import Iterable
from typing import Any

__all__ = ["BUCKETS", "Metrics", "application"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_CLASSES = 6  # responses 0xx (none was sent), 1xx, …, 5xx
_SECONDS = _CLASSES
_BUCKET = _CLASSES + 1
_GAUGES = _BUCKET + len(BUCKETS) + 1
CONNECTIONS, LAG, LAG_MAX, MEMORY, STARTS = range(_GAUGES, _GAUGES + 5)
BEAT = STARTS + 1  # when its worker's loop last turned, on the system's monotonic clock
_WIDTH = BEAT + 1


class Metrics:
    """The rows of `workers` slots.  Make it before forking."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._memory = mmap.mmap(-1, workers * _WIDTH * 8)
        self._values = memoryview(self._memory).cast("d")

    def row(self, slot: int) -> Any:
        """A slot's row, writable."""
        return self._values[slot * _WIDTH : (slot + 1) * _WIDTH]

    def text(self) -> str:
        """The exposition format."""
        rows = [self.row(slot) for slot in range(self.workers)]
        out = ["# HELP weald_requests_total Responses by class of status.", "# TYPE weald_requests_total counter"]
        for kind in range(1, _CLASSES):
            out.append(f'weald_requests_total{{code="{kind}xx"}} {_sum(rows, kind):.0f}')
        name = "weald_request_duration_seconds"
        out += [f"# HELP {name} Time from a request's head to its response's end.", f"# TYPE {name} histogram"]
        total = 0.0
        for i, edge in enumerate(BUCKETS):
            total += _sum(rows, _BUCKET + i)
            out.append(f'{name}_bucket{{le="{edge:g}"}} {total:.0f}')
        total += _sum(rows, _BUCKET + len(BUCKETS))
        out += [f'{name}_bucket{{le="+Inf"}} {total:.0f}', f"{name}_sum {_sum(rows, _SECONDS):.6f}"]
        out.append(f"{name}_count {total:.0f}")
        for index, name, form, text in (
            (CONNECTIONS, "weald_connections", "gauge", "Open connections."),
            (LAG, "weald_loop_lag_seconds", "gauge", "How late a timer was, lately."),
            (LAG_MAX, "weald_loop_lag_max_seconds", "gauge", "How late a timer was at worst in the last minute."),
            (MEMORY, "weald_resident_memory_bytes", "gauge", "Resident memory."),
            (STARTS, "weald_worker_starts_total", "counter", "Workers started in this slot."),
        ):
            out += [f"# HELP {name} {text}", f"# TYPE {name} {form}"]
            # Slots that have had a worker: SIGTTIN may add some.
            out += [f'{name}{{worker="{slot}"}} {row[index]:.9g}' for slot, row in enumerate(rows) if row[STARTS]]
        return "\n".join(out) + "\n"


def _sum(rows: Iterable[Any], index: int) -> float:
    total: float = sum(row[index] for row in rows)
    return total


def application(metrics: Metrics) -> Any:
    """The WSGI application behind /metrics."""

    def serve(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the metrics are at /metrics\n"]
        start_response("200 OK", [("Content-Type", "text/plain; version=0.0.4; charset=utf-8")])
        return [metrics.text().encode()]

    return serve
