"""gevent._semaphore."""

from weald._core import BoundedSemaphore, Semaphore

__all__ = ["BoundedSemaphore", "Semaphore"]
