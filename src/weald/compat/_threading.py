"""gevent._threading: a lock and a queue for native threads, patched or not.

Called by: users, as gevent._threading.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._base.originals import get_original
from weald._core import Queue as _Queue
from weald.queue import Empty as EmptyTimeout

__all__ = ["EmptyTimeout", "Lock", "Queue"]

Lock = get_original("threading", "Lock")


class Queue(_Queue):  # type: ignore[type-arg]
    """Unbounded; any thread may put and get."""

    def kill(self) -> None:
        """Shut down: greenlets and threads that wait get ShutDown."""
        self.shutdown(immediate=True)


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._threading")
