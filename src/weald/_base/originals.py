"""The objects that patching has replaced, and listeners that are called when it does.

Called by: weald.monkey, which fills it; every module that needs an original whether or not the program is patched.

It imports nothing of weald.

Invariant: `saved[module][name]` is the object from before the first replacement, and never changes.
"""

import warnings
from collections.abc import Callable, Iterable
from importlib import import_module
from types import ModuleType
from typing import Any

__all__ = [
    "Listener",
    "MonkeyPatchWarning",
    "arguments_key",
    "before_patching",
    "get_original",
    "is_anything_patched",
    "is_module_patched",
    "is_object_patched",
    "left_alone",
    "listeners",
    "saved",
    "warn",
]

saved: dict[str, dict[str, Any]] = {}

# In `saved`, beside the modules: the arguments of all calls of `patch_all`.
arguments_key = "arguments of patch_all"

# Top-level modules whose globals and classes patching does not touch.
left_alone = {"weald", "greenlet", "importlib", "_thread"}

# Functions that are called before patching looks up the replacements.
before_patching: list[Callable[[], object]] = []


class MonkeyPatchWarning(RuntimeWarning):
    """Patching has met something that it cannot repair, such as a module that was patched too late."""


def warn(message: str) -> None:
    """Issue a MonkeyPatchWarning.  It names the line that called the caller of `warn`."""
    warnings.warn(message, MonkeyPatchWarning, stacklevel=3)


class Listener:
    """Its methods are called while patching.  Override them and append an instance to `listeners`.

    If a `will_` method returns False, the module or the name is not patched.
    """

    def will_patch_all(self, arguments: dict[str, Any], extra: dict[str, Any]) -> bool:
        """`patch_all` was called with `arguments`; `extra` are those that it does not know."""
        return True

    def will_patch_module(self, source: Any, target: ModuleType, items: list[str]) -> bool:
        """The names `items` of module `target` will be replaced with those of `source`.  The list may be changed."""
        return True

    def did_patch_module(self, source: Any, target: ModuleType) -> None:
        """The names of module `target` have been replaced with those of `source`."""

    def did_patch_all(self, arguments: dict[str, Any], extra: dict[str, Any]) -> None:
        """`patch_all` is about to return; the arguments are those of `will_patch_all`."""


listeners: list[Listener] = []


def get_original(mod_name: str | Iterable[str], item_name: str | Iterable[str]) -> Any:
    """Return the unpatched `item_name` of module `mod_name`; a list of them for an iterable of names.

    Of several module names the first that can be imported counts.  Raises ImportError if there is no such module,
    AttributeError if it has no such name.
    """
    if not isinstance(mod_name, str):
        return get_original(_first_importable(mod_name), item_name)
    if not isinstance(item_name, str):
        return [get_original(mod_name, name) for name in item_name]
    originals = saved.get(mod_name, {})
    return originals[item_name] if item_name in originals else getattr(import_module(mod_name), item_name)


def _first_importable(names: Iterable[str]) -> str:
    error: ImportError | None = None
    for name in names:
        try:
            import_module(name)
        except ImportError as failed:
            error = failed
        else:
            return name
    raise error or ImportError("no module name was given")


def is_module_patched(mod_name: str) -> bool:
    """Return whether anything of that module has been replaced."""
    return mod_name in saved


def is_anything_patched() -> bool:
    """Return whether anything at all has been replaced."""
    return bool(saved)


def is_object_patched(mod_name: str, item_name: str) -> bool:
    """Return whether that object has been replaced."""
    return item_name in saved.get(mod_name, {})
