"""What is asked of a room that it does not have: gevent's name for it, from compat, or an error that helps.

Called by: the public rooms, whose module `__getattr__` is what `gevent_names` makes.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["gevent_names"]


def gevent_names(module: str) -> Callable[[str], Any]:
    """A `__getattr__` for `module`, a room of weald, by its full name."""
    room = module.removeprefix("weald.")

    def __getattr__(name: str) -> Any:
        if name.startswith(("__", "_gevent_")):  # patching asks each room for functions of that name
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        names = import_module("weald.compat._names")
        home = names.HOMES.get(room, {}).get(name)
        if home is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}{names.advice(room, name)}")
        where, _, what = home.partition(":")
        return getattr(import_module(f"weald.{where}"), what)

    return __getattr__
