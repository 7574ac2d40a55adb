"""The module that pickles name for the classes of `event` and `lock`, which were once one module.

Called by: pickle; `__module__` of these classes names it.  weald/__init__.py has it imported: cloudpickle, and so loky
and joblib, look for classes in imported modules only, and try to copy others.
"""

import sys

from weald._core import (
    AsyncResult,
    BoundedSemaphore,
    Condition,
    DummySemaphore,
    Event,
    Lock,
    RLock,
    Semaphore,
)

__all__ = [
    "AsyncResult",
    "BoundedSemaphore",
    "Condition",
    "DummySemaphore",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
]

# The function that pickles of a DummySemaphore call.
__pyx_unpickle_DummySemaphore = sys.modules["weald._core.lock"].__pyx_unpickle_DummySemaphore
