"""Semaphores and locks; fair (first come, first served) and usable between threads.

Called by: users, integrations/celery/forks.py.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import BoundedSemaphore, Condition, DummySemaphore, Lock, RLock, Semaphore

__all__ = ["BoundedSemaphore", "Condition", "DummySemaphore", "Lock", "RLock", "Semaphore"]


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
