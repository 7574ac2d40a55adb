"""Celery's timer on weald: heartbeats, countdowns, rate limits.

Called by: pool.py, for Celery's worker (`TaskPool.Timer`), from any greenlet of the worker's thread.

Invariants:
- An entry is in `_handles` exactly while it is due to fire.
- Each entry fires in a greenlet of its own, so one that waits does not delay others.
"""

from typing import Any

from kombu.asynchronous import timer as kombu_timer

from weald._core import Timer as HubTimer
from weald._core import get_hub, monotonic, spawn_raw

__all__ = ["Timer"]


class Timer(kombu_timer.Timer):
    """kombu's timer, whose entries the hub fires.  Cancelling a repeated entry stops all its repetitions."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._handles: dict[Any, tuple[HubTimer, float, int]] = {}

    def _enter(self, eta: float, priority: int, entry: Any, **kwargs: Any) -> Any:
        handle = HubTimer(get_hub(), max(eta - monotonic(), 0.0), self._due, entry, ref=False)
        self._handles[entry] = handle, eta, priority
        return entry

    def _due(self, entry: Any) -> None:
        if self._handles.pop(entry, None) is not None and not entry.canceled:
            spawn_raw(self.apply_entry, entry)

    def cancel(self, tref: Any) -> None:
        """Cancel the entry `tref`, which a method of this timer has returned."""
        tref.cancel()
        handle = self._handles.pop(tref, None)
        if handle is not None:
            handle[0].cancel()

    def clear(self) -> None:
        """Cancel all entries."""
        handles, self._handles = self._handles, {}
        for handle, _, _ in handles.values():
            handle.cancel()

    stop = clear

    def __len__(self) -> int:
        return len(self._handles)

    @property
    def queue(self) -> list[Any]:
        """The entries that are due to fire, the next one first."""
        entries = [
            kombu_timer.scheduled(eta, priority, entry)
            for entry, (_, eta, priority) in self._handles.items()
            if not entry.canceled
        ]
        return sorted(entries, key=lambda item: item.eta)
