"""Queues between greenlets and threads, with the standard library's methods and exceptions."""

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

# What `weald.monkey.patch_queue` puts into the module `queue`.  `queue.Queue` and its subclasses stay the
# standard library's: written in Python over `threading`, they become cooperative with it and keep their
# protocol for subclasses (`_put`, `mutex`, ...).  SimpleQueue is written in C and would block the loop.
# A copy imported afresh also needs the exceptions that SimpleQueue raises.
__implements__ = ["SimpleQueue", "Empty", "Full"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names(__name__)
