"""Locks that were made before patching: replace them by weald's, in all places or in none.

Called by: weald.monkey (`patch_thread`, `patch_queue`, `patch_select`).

The same is done for other objects of classes in C: `threading.local`, `queue.SimpleQueue` with its items,
`select.epoll`.

A native lock blocks the loop when a greenlet waits for it, and a native RLock does not even exclude greenlets of one
thread from each other.  So every free lock is replaced wherever it is held.

Invariant: if one reference to a lock cannot be replaced (in a local variable, in a tuple other than a function's
defaults, in C code, in weald itself), the lock stays everywhere: with two locks in place of one, neither would exclude
the users of the other.
"""

import _queue
import _thread
import gc
import select
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any

from weald import _core
from weald.select import epoll

_allocate_lock = _thread.allocate_lock
_count_threads = _thread._count  # those that were started from Python, without the main thread
_Method = type(len)

# How to put a new lock in one place, and how many references to the old one go with that.
_Place = tuple[Callable[[Any], object], int]


def _new_local(old: Any) -> Any:
    new = _core.local()
    new.__dict__.update(old.__dict__)
    return new


def _new_queue(old: Any) -> Any:
    new: Any = _core.SimpleQueue()
    while not old.empty():
        new.put(old.get_nowait())
    return new


_LOCKS: dict[type, Callable[[Any], Any]] = {
    type(_allocate_lock()): lambda old: _core.Lock(),
    type(threading.RLock()): lambda old: _core.RLock(),
}
_LOCALS: dict[type, Callable[[Any], Any]] = {_thread._local: _new_local}
_QUEUES: dict[type, Callable[[Any], Any]] = {_queue.SimpleQueue: _new_queue}
_EPOLLS: dict[type, Callable[[Any], Any]] = {select.epoll: epoll.adopt}


def replace_locks() -> None:
    """Replace locks and, unless other native threads could have values in them, `threading.local` objects."""
    # Of a thread whose hub polls there is no Python frame, so threads are counted as well.
    alone = len(sys._current_frames()) == 1 and _count_threads() == 0
    _replace({**_LOCKS, **_LOCALS} if alone else _LOCKS)


def replace_queues() -> None:
    """Replace `queue.SimpleQueue` objects, with what is in them."""
    _replace(_QUEUES)


def replace_epolls() -> None:
    """Replace `select.epoll` objects by others of the same descriptors."""
    _replace(_EPOLLS)


def _replace(kinds: dict[type, Callable[[Any], Any]]) -> None:
    found = {id(made): made for made in gc.get_objects() if type(made) in kinds and _free(made)}
    if not found:
        return
    probe = _allocate_lock()  # a lock held nowhere else: its references are those that this function makes
    found[id(probe)] = probe
    del probe
    places = _places(found)
    counts = [(key, sys.getrefcount(lock)) for key, lock in found.items()]
    ours = counts.pop()[1]
    for key, count in counts:
        if places[key] and count - ours == sum(references for _, references in places[key]):
            new = kinds[type(found[key])](found[key])
            for put, _ in places[key]:
                put(new)


def _free(lock: Any) -> bool:
    """Return whether this native lock is free; for an object that is not a lock, whether it is open."""
    if type(lock) not in _LOCKS:
        return not getattr(lock, "closed", False)
    owned = getattr(lock, "_is_owned", None)
    if (owned is not None and owned()) or not lock.acquire(False):
        return False
    lock.release()
    return True


def _places(found: dict[int, Any]) -> dict[int, list[_Place]]:
    """Where the locks `found` (by id) are held."""
    places: dict[int, list[_Place]] = {key: [] for key in found}
    holders = [holder for holder in gc.get_referrers(*found.values()) if holder is not found and not _is_ours(holder)]
    classes = _classes_of([holder for holder in holders if type(holder) is dict])
    of_conditions = set()
    for holder in holders:
        if type(holder) is threading.Condition:
            lock = holder._lock  # type: ignore[attr-defined]
            if id(lock) in found and not holder._waiters:  # type: ignore[attr-defined]
                methods = [id(value) for value in vars(holder).values() if getattr(value, "__self__", None) is lock]
                of_conditions.update(methods)
                places[id(lock)].append((holder.__init__, 1 + len(methods)))  # type: ignore[misc]
        elif id(holder) in classes:
            for name, value in holder.items():
                if id(value) in found:
                    places[id(value)].append((partial(setattr, classes[id(holder)], name), 1))
        elif type(holder) is tuple:
            functions = _functions_with(holder, holders)
            for index, value in enumerate(holder if functions else ()):
                if id(value) in found:
                    places[id(value)].append((partial(_put_default, functions, index), 1))
        else:
            attributes = holder if type(holder) is dict else getattr(holder, "__dict__", None)
            if type(attributes) is dict:
                for name, value in attributes.items():
                    if id(value) in found:
                        places[id(value)].append((partial(attributes.__setitem__, name), 1))
    holder = None  # it may be one of the methods whose references are counted
    for method in holders:
        if isinstance(method, _Method) and id(method) not in of_conditions:
            lists = [holder for holder in gc.get_referrers(method) if type(holder) is list and holder is not holders]
            # In `holders`, the variable here and the argument there.
            if sum(method is item for items in lists for item in items) == sys.getrefcount(method) - 3:
                places[id(method.__self__)].append((partial(_put_method, lists, method), 1))  # type: ignore[attr-defined]
    return places


def _classes_of(dicts: list[Any]) -> dict[int, type]:
    """The classes whose attributes are in one of `dicts`, by the dict's id."""
    return {
        id(attributes): owner
        for owner in (gc.get_referrers(*dicts) if dicts else ())
        if isinstance(owner, type)
        for attributes in gc.get_referents(owner)
        if type(attributes) is dict
    }


def _functions_with(defaults: tuple[Any, ...], holders: list[Any]) -> list[FunctionType]:
    """The functions that have these defaults; none if anything else, except `holders`, refers to this tuple."""
    functions: list[FunctionType] = []
    for owner in gc.get_referrers(defaults):  # no comprehension, whose own reference would be found
        if type(owner) is FunctionType and owner.__defaults__ is defaults:
            functions.append(owner)
        elif owner is not holders:
            return []
    return functions


def _put_default(functions: list[FunctionType], index: int, lock: Any) -> None:
    defaults = functions[0].__defaults__ or ()
    defaults = (*defaults[:index], lock, *defaults[index + 1 :])
    for function in functions:
        function.__defaults__ = defaults


def _put_method(lists: list[list[Any]], method: Any, lock: Any) -> None:
    """Replace the bound `method` of an old lock in `lists`, such as those of os.register_at_fork."""
    for items in lists:
        for index, item in enumerate(items):
            if item is method:
                items[index] = getattr(lock, method.__name__)


def _is_ours(holder: Any) -> bool:
    """Whether it is the dict of a module, class or object of weald, or an object of weald's."""
    name = holder.get("__name__" if "__spec__" in holder else "__module__") if type(holder) is dict else None
    name = name or getattr(type(holder), "__module__", None)
    return isinstance(name, str) and (name == "weald" or name.startswith("weald."))
