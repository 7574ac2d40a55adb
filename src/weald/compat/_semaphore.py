"""gevent._semaphore.

Called by: users, as gevent._semaphore.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import BoundedSemaphore, Semaphore

__all__ = ["BoundedSemaphore", "Semaphore"]


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._semaphore")
