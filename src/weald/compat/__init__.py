"""What exists only so that gevent's names keep working.

`weald.__getattr__` looks here for top-level names; modules in this folder are found as `weald.x`, because
weald's `__path__` includes it.  Nothing else in weald imports it.
"""

from typing import Any

from greenlet import GreenletExit, greenlet

from weald import _core

__all__ = ["kill"]


def kill(greenlet: greenlet, exception: Any = GreenletExit) -> None:
    """Have `exception` raised in `greenlet`, without waiting for its end (`Greenlet.kill` can)."""
    if isinstance(greenlet, _core.Greenlet):
        greenlet.kill(exception, block=False)
    else:
        _core.killall([greenlet], exception, block=False)
