"""Hubs and loops of a program that has not asked for gevent's, of classes that allow them to become gevent's later.

Called by: _door.py, which has the core make them; hub.py, which turns those that there are into its own.
"""

from collections.abc import Callable
from typing import Any

from weald import _core

__all__ = ["Hub", "Loop", "become", "hub_class"]

def _unset() -> type[_core.Hub]:
    return _core.Hub


# Imports gevent's hub module, which calls `become`, and returns its class of hubs.  Set by _door.py.
load_hub_class: Callable[[], type[_core.Hub]] = _unset


class Hub(_core.Hub):
    """A hub.  When a program reads an attribute that only gevent's hubs have, it becomes one of them."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__") and hasattr(load_hub_class(), name):
            return getattr(self, name)  # its class is another now
        raise AttributeError(f"a hub has no attribute {name!r}")


class Loop(_core.EventLoop):
    """A hub's loop."""


_hub_class: type[_core.Hub] = Hub


def hub_class() -> type[_core.Hub]:
    """Return the class of hubs, unless one was chosen with `set_hub_class`."""
    return _hub_class


def become(hub: type[_core.Hub], loop: type[_core.EventLoop]) -> list[Any]:
    """Make hubs and loops of these classes from now on, and of those that there are.  Return these hubs."""
    global _hub_class
    for made in _core.living(Loop):
        made.__class__ = loop  # type: ignore[assignment]
    hubs = _core.living(Hub)
    for found in hubs:
        found.__class__ = hub  # type: ignore[assignment]
    _hub_class = hub
    return hubs
