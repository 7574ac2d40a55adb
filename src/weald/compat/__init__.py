"""What exists only so that gevent's names keep working.

`weald.__getattr__` looks here for top-level names.  A module here is `weald.x` as well, the same object: for gevent's
public ones there is a file `weald/x.py` that says so, the rest is found by a finder (see _alias.py).
Nothing else in weald imports it.
"""

from importlib import import_module
from sys import getswitchinterval, setswitchinterval
from typing import Any

from greenlet import GreenletExit, greenlet

from weald import _core
from weald._alias import GEVENT_ONLY

__all__ = sorted(GEVENT_ONLY)


def kill(greenlet: greenlet, exception: Any = GreenletExit) -> None:
    """Have `exception` raised in `greenlet`, without waiting for its end (`Greenlet.kill` can)."""
    if isinstance(greenlet, _core.Greenlet):
        greenlet.kill(exception, block=False)
    else:
        _core.killall([greenlet], exception, block=False)


def __getattr__(name: str) -> Any:
    # These live in modules that import much more.
    if name == "fork":
        return import_module("weald.compat._fork").fork
    if name in ("reinit", "signal_handler"):
        hub = import_module("weald.compat.hub")
        return hub.reinit if name == "reinit" else hub.signal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
