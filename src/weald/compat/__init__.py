"""What exists only so that gevent's names keep working.

`weald.__getattr__` looks here for top-level names; modules in this folder are found as `weald.x`, because
weald's `__path__` includes it.  Nothing else in weald imports it.

Invariant: a module here is imported as `weald.x` only, never as `weald.compat.x`, which would be a second copy.
Among themselves they use relative imports, which mean just that.
"""

from importlib import import_module
from sys import getswitchinterval, setswitchinterval
from typing import Any

from greenlet import GreenletExit, greenlet

from weald import _core

__all__ = ["fork", "getswitchinterval", "kill", "reinit", "setswitchinterval", "signal_handler"]


def kill(greenlet: greenlet, exception: Any = GreenletExit) -> None:
    """Have `exception` raised in `greenlet`, without waiting for its end (`Greenlet.kill` can)."""
    if isinstance(greenlet, _core.Greenlet):
        greenlet.kill(exception, block=False)
    else:
        _core.killall([greenlet], exception, block=False)


def __getattr__(name: str) -> Any:
    # These live in modules that import much more.
    if name == "fork":
        from os import fork

        return fork
    if name in ("reinit", "signal_handler"):
        hub = import_module("weald.hub")
        return hub.reinit if name == "reinit" else hub.signal
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
