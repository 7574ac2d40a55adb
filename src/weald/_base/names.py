"""Where to look up names that a public module does not have itself.

Called by: every public module, whose module-level `__getattr__` is what `more_names` makes; weald.compat, which sets
`look_up`.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["look_up", "more_names"]


def _nowhere(module: str, name: str) -> Any:
    raise AttributeError(f"module {module!r} has no attribute {name!r}")


# Called with a module's full name and a name that it does not have: returns the value or raises AttributeError.
look_up: Callable[[str, str], Any] = _nowhere


def more_names(module: str) -> Callable[[str], Any]:
    """Return a `__getattr__` for the module of that full name."""

    def __getattr__(name: str) -> Any:
        # Python looks up `__path__`, `__all__`, …; no other place has those of this module.
        return _nowhere(module, name) if name.startswith("__") else look_up(module, name)

    return __getattr__
