"""gevent._semaphore."""

from typing import TYPE_CHECKING

from weald._core import BoundedSemaphore, Semaphore
from weald._missing import gevent_names

__all__ = ["BoundedSemaphore", "Semaphore"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald._semaphore")
