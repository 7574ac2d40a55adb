"""Replaces originals that are held by other names: in modules' globals, classes' attributes, functions' defaults.

Called by: weald.monkey, after it has replaced something.

Invariant: only exact matches are replaced; weald's own modules and the import system's are left alone, and so is
the module that defines an original (`_socket`, say), where the original can be found.
"""

import gc
import sys
from collections.abc import Callable, Iterable, Iterator
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

from weald._base.originals import left_alone


def is_foreign(module: object) -> bool:
    """Return whether objects that the module of this name defines may be changed."""
    top = module.partition(".")[0] if isinstance(module, str) else ""
    return bool(top) and top not in left_alone and not top.startswith("_frozen")


def mend_modules(
    replaced: Iterable[tuple[Any, Any]], put: Callable[[ModuleType, str, Any], object]
) -> None:
    """In modules' globals, `put` the second of each pair in place of the first."""
    swap = {id(old): new for old, new in replaced if callable(old)}
    if not swap:
        return
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and is_foreign(name):
            for attr, value in list(vars(module).items()):
                if id(value) in swap and getattr(value, "__module__", None) != module.__name__:
                    put(module, attr, swap[id(value)])


def methods(replaced: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield the methods of each replaced class, paired with those of the derived class that has replaced it.

    So a program that has saved `socket.socket` and `socket.socket.connect`, to restore both later, has both from the
    same class.
    """
    for old, new in replaced:
        if not (isinstance(old, type) and isinstance(new, type) and issubclass(new, old)):
            continue
        own = new.__mro__[: new.__mro__.index(old)]
        # Methods of the class itself, or of the class in C that it completes.
        where = [cls for cls in old.__mro__ if cls is old or cls.__module__ == f"_{old.__module__}"]
        for name in {name for cls in own for name in vars(cls)}:
            for cls in where:
                method = vars(cls).get(name)
                if isinstance(method, FunctionType | MethodDescriptorType):
                    yield method, getattr(new, name)
                    break


def mend_classes_and_defaults(replaced: Iterable[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    """Replace the first of each pair in classes' attributes and functions' defaults; returns (place, original)s."""
    pairs = {id(old): (old, new) for old, new in replaced if callable(old)}
    originals = [old for old, _ in pairs.values()]
    holders = [holder for holder in gc.get_referrers(*originals) if type(holder) in (dict, tuple)]
    dicts = [holder for holder in holders if type(holder) is dict]
    tuples = {id(holder) for holder in holders if type(holder) is tuple}
    done: list[tuple[str, Any]] = []
    for owner in gc.get_referrers(*holders) if holders else ():
        # `functools.wraps` copies `__module__`, so a function's globals tell where it was defined.
        function = type(owner) is FunctionType
        defined = owner.__globals__.get("__name__") if function else getattr(owner, "__module__", None)
        if not is_foreign(defined):
            continue
        if isinstance(owner, type):
            if any(referent is attributes for referent in gc.get_referents(owner) for attributes in dicts):
                for name, value in list(vars(owner).items()):
                    old, new = pairs.get(id(value), (None, None))
                    if old is not None:
                        # A builtin in a class is not a method; the function that replaces it must not become one.
                        builtin = isinstance(old, BuiltinFunctionType) and isinstance(new, FunctionType)
                        setattr(owner, name, staticmethod(new) if builtin else new)
                        done.append((f"{owner.__module__}.{owner.__qualname__}.{name}", old))
        elif isinstance(owner, FunctionType):
            where = f"a default of {owner.__module__}.{owner.__qualname__}()"
            if id(owner.__defaults__) in tuples:
                done += [(where, value) for value in owner.__defaults__ or () if id(value) in pairs]
                owner.__defaults__ = tuple(pairs.get(id(value), (None, value))[1] for value in owner.__defaults__ or ())
            keywords = owner.__kwdefaults__ or {}
            for name, value in list(keywords.items()):
                if id(value) in pairs:
                    keywords[name] = pairs[id(value)][1]
                    done.append((where, value))
    return done
