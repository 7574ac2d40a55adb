"""Queues between greenlets and threads, with the standard library's methods and exceptions.

Called by: users, weald.monkey, pool.py, weald.compat, weald.serve.
"""

import queue as _stdlib
from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import (
    Channel,
    Empty,
    Full,
    JoinableQueue,
    LifoQueue,
    PriorityQueue,
    Queue,
    ShutDown,
    SimpleQueue,
)

__all__ = [
    "Channel",
    "Empty",
    "Full",
    "JoinableQueue",
    "LifoQueue",
    "PriorityQueue",
    "Queue",
    "ShutDown",
    "SimpleQueue",
]

__implements__ = ["LifoQueue", "PriorityQueue", "Queue", "SimpleQueue"]
__imports__ = [name for name in ("Empty", "Full", "ShutDown") if hasattr(_stdlib, name)]
__extensions__ = [name for name in __all__ if not hasattr(_stdlib, name)]


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
