"""gevent's top-level names that weald does not have itself.

Called by: _door.py, for `weald.kill` and its like; hub.py.
"""

from sys import getswitchinterval, setswitchinterval
from typing import Any

from greenlet import GreenletExit, greenlet

from weald import _core

__all__ = ["getswitchinterval", "kill", "setswitchinterval"]


def kill(greenlet: greenlet, exception: Any = GreenletExit) -> None:
    """Have `exception` raised in `greenlet`, without waiting for its end (`Greenlet.kill` can)."""
    if isinstance(greenlet, _core.Greenlet):
        greenlet.kill(exception, block=False)
    else:
        _core.killall([greenlet], exception, block=False)
