"""Queues between greenlets and threads, with the standard library's methods and exceptions."""

import queue as _stdlib
from typing import TYPE_CHECKING

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
from weald._missing import gevent_names

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
    __getattr__ = gevent_names(__name__)
