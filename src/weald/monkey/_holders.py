"""What else holds an original: registries and other containers, attributes of objects, closures, partials.

Called by: weald.monkey, after it has replaced something and mended modules, classes and defaults by `_names`.

A registry (`copyreg.dispatch_table`, multiprocessing's reducers, `functools.singledispatch`, a program's own) has
classes as its keys: the new class is put beside the original, of which there may be objects still.

Invariants:
- What weald itself holds is left alone, and so are originals among modules' globals and the attributes of classes,
  which _names.py mends.
- What cannot be changed (tuples, frozensets, `X | None`) is made anew and put where the old one was.
- The variables of functions that are under way stay.
"""

import gc
import sys
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial, reduce
from operator import or_
from types import (
    BuiltinFunctionType,
    CellType,
    FrameType,
    FunctionType,
    GenericAlias,
    MemberDescriptorType,
    MethodType,
    ModuleType,
    UnionType,
)
from typing import Any

from weald._base.originals import left_alone
from weald.monkey import _names

_Pairs = dict[int, tuple[Any, Any]]  # what is replaced, by its id, and with what
_Swap = Callable[[Any], Any]
_Wrapper = (staticmethod, classmethod)
_CONTAINERS = (dict, list, set, frozenset, tuple, deque, CellType, partial, *_Wrapper)
_KEEP = (type, ModuleType, FrameType, FunctionType, BuiltinFunctionType, MethodType)


def mend(replaced: list[tuple[Any, Any]]) -> list[tuple[str, Any]]:
    """Replace the first of each pair by the second in all that holds it.

    Returns in which of the program's objects it was an attribute, and the first.
    """
    pairs: _Pairs = {id(old): (old, new) for old, new in replaced}
    kept = _held_by_weald() | {id(replaced), *map(id, replaced)}
    done: list[tuple[str, Any]] = []
    alive = []  # so that no id in `kept` becomes another object's
    while pairs:
        alive.append(pairs)
        anew = _mend_holders(pairs, kept, done)
        _names.mend_modules(anew.values(), setattr)
        _names.mend_classes_and_defaults(anew.values())
        pairs = anew
    return done


def _mend_holders(pairs: _Pairs, kept: set[int], done: list[tuple[str, Any]]) -> _Pairs:
    """The same, but for what cannot be changed: returns that, by its id, and what is to be put in its place."""
    olds = tuple([old for old, _ in pairs.values()])  # as it is passed on, not as a list, which would be copied
    kept |= {id(olds), *map(id, pairs.values())}
    holders = [holder for holder in gc.get_referrers(*olds) if id(holder) not in kept and _may_change(holder)]
    kept.add(id(holders))
    kept |= _of_classes_and_super(holders)
    anew: _Pairs = {}

    def swap(found: Any) -> Any:
        return pairs.get(id(found), (None, found))[1]

    for holder in holders:
        if id(holder) in kept:
            continue
        if isinstance(holder, tuple | frozenset | UnionType | GenericAlias):
            anew[id(holder)] = holder, _made_anew(holder, swap)
        elif (old := _change(holder, swap)) is not None and _names.is_foreign(type(holder).__module__):
            done.append((f"an object of class {type(holder).__module__}.{type(holder).__qualname__}", old))
    return anew


def _is_left_alone(name: object) -> bool:
    return isinstance(name, str) and name.partition(".")[0] in left_alone


def _held_by_weald() -> set[int]:
    """The ids of what the modules that are left alone hold."""
    seen: set[int] = set()
    todo: list[Any] = [vars(module) for name, module in list(sys.modules.items()) if _is_left_alone(name)]
    while todo:
        found = todo.pop()
        if id(found) not in seen:
            seen.add(id(found))
            todo += filter(_leads_on, gc.get_referents(found))
    return seen


def _leads_on(found: Any) -> bool:
    if isinstance(found, FunctionType | type):
        return _is_left_alone(found.__module__)
    return isinstance(found, _CONTAINERS) or _is_left_alone(type(found).__module__)


def _may_change(holder: Any) -> bool:
    if isinstance(holder, dict):
        return not ("__name__" in holder and "__spec__" in holder)  # a module's
    return not isinstance(holder, _KEEP)


def _of_classes_and_super(holders: list[Any]) -> set[int]:
    """The ids of those that are attributes of classes, or cells that tell `super()` the class, or weald's."""
    inner = [holder for holder in holders if isinstance(holder, dict | CellType)]
    if not inner:
        return set()
    found: set[int] = set()
    closures: list[Any] = []
    for owner in gc.get_referrers(*inner):
        if isinstance(owner, type):
            found.update(id(held) for held in gc.get_referents(owner) if isinstance(held, dict))
        elif type(owner) is tuple:
            closures.append(owner)
    for function in gc.get_referrers(*closures) if closures else ():
        if isinstance(function, FunctionType) and function.__closure__ is not None:
            for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=False):
                if name == "__class__" or _is_left_alone(function.__module__):
                    found.add(id(cell))
    return found


def _made_anew(holder: Any, swap: _Swap) -> Any:
    """What cannot be changed, with what it holds replaced."""
    if isinstance(holder, UnionType):
        return reduce(or_, map(swap, holder.__args__))
    if isinstance(holder, GenericAlias):
        return GenericAlias(swap(holder.__origin__), tuple(map(swap, holder.__args__)))
    if isinstance(holder, frozenset):
        return type(holder)({*holder, *map(swap, holder)})
    if type(holder) is tuple:
        return tuple(map(swap, holder))
    return type(holder)._make(map(swap, holder)) if hasattr(holder, "_make") else holder


def _change(holder: Any, swap: _Swap) -> Any:
    """Replace what `holder` holds; return what was replaced if that is an attribute of an object, else None."""
    if isinstance(holder, dict):
        _change_dict(holder, swap)
    elif isinstance(holder, list | deque):
        for index, value in enumerate(holder):
            if swap(value) is not value:
                holder[index] = swap(value)
    elif isinstance(holder, set):
        holder.update(list(map(swap, holder)))
    elif isinstance(holder, CellType):
        holder.cell_contents = swap(holder.cell_contents)
    elif isinstance(holder, partial):
        state: Any = holder.__reduce__()[2]
        function, args, kwargs, attributes = state
        kwargs = {name: swap(value) for name, value in kwargs.items()}
        holder.__setstate__((swap(function), tuple(map(swap, args)), kwargs, attributes))  # type: ignore[attr-defined]
    elif isinstance(holder, _Wrapper):
        wrapper: Any = holder
        if swap(wrapper.__func__) is not wrapper.__func__:
            wrapper.__init__(swap(wrapper.__func__))
    else:
        return _change_attributes(holder, swap)
    return None


def _change_dict(holder: dict[Any, Any], swap: _Swap) -> Any:
    """Replace values, add keys; return the last value that was replaced."""
    found = None
    for key, value in list(holder.items()):
        if swap(value) is not value:
            dict.__setitem__(holder, key, swap(value))
            found = value
        if swap(key) is not key and type(holder) in (dict, OrderedDict, defaultdict):
            holder.setdefault(swap(key), swap(value))
    if isinstance(holder, defaultdict):
        holder.default_factory = swap(holder.default_factory)
    return found


def _change_attributes(holder: Any, swap: _Swap) -> Any:
    found = None
    with suppress(AttributeError):
        found = _change_dict(object.__getattribute__(holder, "__dict__"), swap)
    for owner in type(holder).__mro__:
        for member in vars(owner).values():
            if isinstance(member, MemberDescriptorType):
                with suppress(AttributeError, TypeError):  # not set, not to be set
                    value = member.__get__(holder)
                    if swap(value) is not value:
                        member.__set__(holder, swap(value))
                        found = value
    return found
