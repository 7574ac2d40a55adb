"""`multiprocessing` on greenlets: its semaphores, on which everything in it waits, let others run.

Called by: `weald.monkey.patch_thread`, which puts SemLock into the module `_multiprocessing`.

A semaphore that processes share cannot be waited for through a descriptor, so it is looked at again and
again, at least 100 times a second.
"""

import _multiprocessing  # type: ignore[import-not-found]
from time import monotonic
from typing import Any

from greenlet import getcurrent

from weald._core import get_hub_if_exists, sleep

__implements__ = ["SemLock"]

_LONGEST_PAUSE = 0.01  # seconds between two looks


class SemLock(_multiprocessing.SemLock):  # type: ignore[misc]
    """What multiprocessing's Lock, Semaphore, Condition, Event, Queue and Pool are made of."""

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take it; others run meanwhile.  False if it could not be had (in `timeout` seconds)."""
        hub = get_hub_if_exists()
        if not block or hub is None or getcurrent() is hub:
            return super().acquire(block, timeout)  # type: ignore[no-any-return]
        end = None if timeout is None else monotonic() + timeout
        pause = 0.0
        while not super().acquire(False):
            left = _LONGEST_PAUSE if end is None else end - monotonic()
            if left <= 0.0:
                return False
            sleep(min(pause, left))
            pause = min(pause * 2 or 0.0005, _LONGEST_PAUSE)
        return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: Any) -> None:
        self.release()
