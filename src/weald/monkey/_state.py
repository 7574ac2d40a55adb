"""What has been replaced in which module, and what stood there before.

The bottom of `weald.monkey`: imports nothing of weald, so that every room can ask for originals.
"""

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any, overload

# Module name -> attribute -> what stood there before the first patch.  Third parties read it.
saved: dict[str, dict[str, Any]] = {}

# What the next `_mend.globals_holding_originals` replaces: id -> (original, replacement).
replaced: dict[int, tuple[Any, Any]] = {}

_ABSENT = object()


def is_module_patched(mod_name: str) -> bool:
    """Has anything in module `mod_name` been replaced?"""
    return mod_name in saved


def is_object_patched(mod_name: str, item_name: str) -> bool:
    """Has `mod_name.item_name` been replaced?"""
    return item_name in saved.get(mod_name, ())


def is_anything_patched() -> bool:
    return bool(saved)


@overload
def get_original(mod_name: str | Iterable[str], item_name: str) -> Any: ...
@overload
def get_original(mod_name: str | Iterable[str], item_name: Iterable[str]) -> list[Any]: ...
def get_original(mod_name: str | Iterable[str], item_name: str | Iterable[str]) -> Any:
    """What `mod_name.item_name` was before patching; what it is, if it has not been patched.

    Several `item_name` give a list.  Of several `mod_name` the first that can be imported counts.
    Raises ImportError or AttributeError for what does not exist.
    """
    if not isinstance(mod_name, str):
        names = list(mod_name)
        for name in names[:-1]:
            try:
                importlib.import_module(name)
            except ImportError:
                continue
            return get_original(name, item_name)
        mod_name = names[-1]
    if not isinstance(item_name, str):
        return [get_original(mod_name, name) for name in item_name]
    originals = saved.get(mod_name, {})
    if item_name in originals:
        return originals[item_name]
    return getattr(importlib.import_module(mod_name), item_name)


def patch_item(module: ModuleType, attr: str, newitem: Any) -> None:
    """Set `module.attr`, keeping for `get_original` what stood there first."""
    old = getattr(module, attr, _ABSENT)
    if old is newitem:
        return
    if old is not _ABSENT:
        saved.setdefault(module.__name__, {}).setdefault(attr, old)
        if callable(old):
            replaced[id(old)] = (old, newitem)
    setattr(module, attr, newitem)


def remove_item(module: ModuleType, attr: str) -> None:
    """Delete `module.attr`, if it is there, keeping it for `get_original`."""
    old = getattr(module, attr, _ABSENT)
    if old is not _ABSENT:
        saved.setdefault(module.__name__, {}).setdefault(attr, old)
        delattr(module, attr)
