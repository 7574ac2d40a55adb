"""Semaphores and locks; fair (first come, first served) and usable between threads."""

from weald._core import BoundedSemaphore, Condition, DummySemaphore, Lock, RLock, Semaphore

__all__ = ["BoundedSemaphore", "Condition", "DummySemaphore", "Lock", "RLock", "Semaphore"]
