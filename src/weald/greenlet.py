"""Greenlet, the unit of concurrency, and the functions that start, join and kill many of them.

Called by: users.
"""

from typing import TYPE_CHECKING

from greenlet import GreenletExit, getcurrent, greenlet

from weald._base.names import more_names
from weald._core import Greenlet, iwait, joinall, killall, spawn, spawn_later, spawn_raw, wait

__all__ = [
    "Greenlet",
    "GreenletExit",
    "getcurrent",
    "iwait",
    "joinall",
    "kill",
    "killall",
    "spawn",
    "spawn_later",
    "spawn_raw",
    "wait",
]


def kill(greenlet: greenlet, exception: type[BaseException] | BaseException = GreenletExit) -> None:
    """Raise `exception` in `greenlet` soon, without waiting for it to end.

    Works on every greenlet, also on those of `spawn_raw` and on the main one, which have no method `kill`.
    """
    if not greenlet.dead:
        killall([greenlet], exception, block=False)


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
