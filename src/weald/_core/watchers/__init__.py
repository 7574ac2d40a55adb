"""Watchers: callbacks on descriptors, timers, signals, children and the rounds of the loop.

Each kind is in a file of its own, their base classes are in `base`, the loop that makes them is in `loop`.

Called by: users through `hub.loop`; weald.compat._interfaces.
"""

from weald._core.watchers.async_ import async_
from weald._core.watchers.base import EVENTS, MAXPRI, MINPRI, Watcher
from weald._core.watchers.child import child
from weald._core.watchers.io import events_str, io
from weald._core.watchers.loop import EventLoop
from weald._core.watchers.rounds import check, fork, idle, prepare
from weald._core.watchers.signal import signal
from weald._core.watchers.stat import stat
from weald._core.watchers.timer import timer

__all__ = [
    "EVENTS",
    "MAXPRI",
    "MINPRI",
    "EventLoop",
    "Watcher",
    "async_",
    "check",
    "child",
    "events_str",
    "fork",
    "idle",
    "io",
    "prepare",
    "signal",
    "stat",
    "timer",
]
