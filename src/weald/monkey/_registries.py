"""Registries keyed by class, and dataclasses: registers the new class there, beside the replaced one or instead of it.

Called by: weald.monkey, after it has replaced something and mended modules, classes and defaults by `_names`.

Only places whose meaning the standard library defines: the tables of `copyreg` and of picklers (multiprocessing's
among them), `functools.singledispatch`, the fields of dataclasses.  There the key is "the class of that name", and an
object of the new class has to be found by it.

Invariants:
- A program's own lists, dictionaries, closures and objects stay: it may keep an original there on purpose.
- A registry keeps its original key, because objects of that class may exist.  Entries that the program has made for
  the new class stay, too.
"""

import copyreg
import functools
import gc
import pickle
import sys
from collections import ChainMap
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from weald.monkey import _names

__all__ = ["mend"]

# Every function that `singledispatch` has made runs this code.
_DISPATCHER = functools.singledispatch(lambda _: None).__code__  # type: ignore[attr-defined]


def mend(replaced: Iterable[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    """Register the second of each pair where the first is registered; return (place, original)s."""
    pairs = [(old, new) for old, new in replaced if callable(old)]
    classes = [(old, new) for old, new in pairs if isinstance(old, type) and isinstance(new, type)]
    for table in _tables():
        for old, new in classes:
            if old in table:
                table.setdefault(new, table[old])
    done: list[tuple[str, Any]] = []
    swap = {id(old): new for old, new in pairs}
    dataclasses = sys.modules.get("dataclasses")
    for found in gc.get_objects():
        if type(found) is FunctionType:
            if found.__code__ is _DISPATCHER and _names.is_foreign(found.__module__):
                _mend_dispatcher(found, classes)
        elif dataclasses is not None and issubclass(type(found), type) and "__dataclass_fields__" in vars(found):
            if _names.is_foreign(found.__module__):
                done += _mend_dataclass(found, swap)
    return done


def _tables() -> Iterator[dict[Any, Any]]:
    """The standard library's tables of reduction functions by class, for pickling."""
    yield copyreg.dispatch_table
    todo: list[type] = [pickle.Pickler, pickle._Pickler]
    while todo:
        pickler = todo.pop()
        todo += pickler.__subclasses__()
        for value in vars(pickler).values():
            for table in value.maps if isinstance(value, ChainMap) else (value,):
                if type(table) is dict:
                    yield table


def _mend_dispatcher(dispatcher: Any, classes: Iterable[tuple[type, type]]) -> None:
    for old, new in classes:
        known = dispatcher.registry
        if old in known and new not in known and not issubclass(new, old):
            dispatcher.register(new, known[old])


def _mend_dataclass(cls: Any, swap: dict[int, Any]) -> Iterator[tuple[str, Any]]:
    for name, field in vars(cls)["__dataclass_fields__"].items():
        for attr in ("type", "default", "default_factory"):
            value = getattr(field, attr)
            if id(value) in swap:
                setattr(field, attr, swap[id(value)])
                yield f"the field {cls.__module__}.{cls.__qualname__}.{name}", value
    for attr in ("__annotations__", "__annotations_cache__"):  # the latter from Python 3.14 on
        for name, value in list(vars(cls).get(attr, {}).items()):
            if id(value) in swap:
                vars(cls)[attr][name] = swap[id(value)]
    # The generated method has the factories in its closure.
    init = vars(cls).get("__init__")
    if type(init) is FunctionType and init.__code__.co_filename == "<string>":
        for name, cell in zip(init.__code__.co_freevars, init.__closure__ or (), strict=True):
            if name != "__class__" and id(cell.cell_contents) in swap:
                cell.cell_contents = swap[id(cell.cell_contents)]
