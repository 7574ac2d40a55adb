"""gevent's top-level names that weald does not have itself, and small ones of other modules.

Called by: _door.py, for `weald.kill` and its like; hub.py; _names.py.
"""

import threading
from sys import getswitchinterval, setswitchinterval
from typing import Any

from greenlet import GreenletExit, greenlet

from weald import _core

__all__ = ["getswitchinterval", "kill", "main_native_thread", "setswitchinterval"]


def kill(greenlet: greenlet, exception: Any = GreenletExit) -> None:
    """Have `exception` raised in `greenlet`, without waiting for its end (`Greenlet.kill` can)."""
    if isinstance(greenlet, _core.Greenlet):
        greenlet.kill(exception, block=False)
    else:
        _core.killall([greenlet], exception, block=False)


def main_native_thread() -> threading.Thread:
    """Return `threading.main_thread()`."""
    return threading.main_thread()
