"""gevent._threading: a lock and a queue for native threads, patched or not."""

from typing import TYPE_CHECKING

from weald import monkey
from weald._core import Queue as _Queue
from weald._missing import gevent_names
from weald.queue import Empty as EmptyTimeout

__all__ = ["EmptyTimeout", "Lock", "Queue"]

Lock = monkey.get_original("threading", "Lock")


class Queue(_Queue):  # type: ignore[type-arg]
    """Unbounded; any thread may put and get."""

    def kill(self) -> None:
        self.shutdown(immediate=True)


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald._threading")
