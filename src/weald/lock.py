"""Semaphores and locks; fair (first come, first served) and usable between threads."""

from typing import TYPE_CHECKING

from weald._core import BoundedSemaphore, Condition, DummySemaphore, Lock, RLock, Semaphore
from weald._missing import gevent_names

__all__ = ["BoundedSemaphore", "Condition", "DummySemaphore", "Lock", "RLock", "Semaphore"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names(__name__)
