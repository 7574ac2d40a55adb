"""Locks that were made before patching: replace them by weald's, in all places or in none.

Called by: `weald.monkey.patch_thread`.

A native lock blocks the loop when a greenlet waits for it, and a native RLock does not even exclude greenlets
of one thread from each other.  So every lock that is free is replaced wherever it is held.

Invariant: a lock of which one reference cannot be replaced (a local variable's, a tuple's, C code's, weald's
own) stays what it is everywhere: two locks in place of one would exclude nobody.
"""

import gc
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from weald import _core

_Lock = type(threading._allocate_lock())  # type: ignore[attr-defined]
_RLock = type(threading.RLock())
_NEW = {_Lock: _core.Lock, _RLock: _core.RLock}
_BoundMethod = type(len)

# How to put a new lock in one place, and how many references to the old one go with that.
_Place = tuple[Callable[[Any], object], int]


def replace() -> int:
    """Replace what can be; how many locks were."""
    found = {id(lock): lock for lock in gc.get_objects() if type(lock) in _NEW and _free(lock)}
    probe = _Lock()  # a lock in no place at all: how many references the ones here make
    found[id(probe)] = probe
    del probe
    places: dict[int, list[_Place]] = defaultdict(list)
    for key, place in _places(found):
        places[key].append(place)
    counts = [(key, sys.getrefcount(lock)) for key, lock in found.items()]
    ours = counts.pop()[1]
    replaced = 0
    for key, count in counts:
        if places[key] and count - ours == sum(references for _, references in places[key]):
            lock = _NEW[type(found[key])]()
            for put, _ in places[key]:
                put(lock)
            replaced += 1
    return replaced


def _free(lock: Any) -> bool:
    """Whether nobody holds this native lock."""
    owned = getattr(lock, "_is_owned", None)
    if (owned is not None and owned()) or not lock.acquire(False):
        return False
    lock.release()
    return True


def _places(found: dict[int, Any]) -> Iterator[tuple[int, _Place]]:
    """Where the locks `found` (by id) are held: (id, place)."""
    holders = [holder for holder in gc.get_referrers(*found.values()) if holder is not found]
    dicts = [holder for holder in holders if type(holder) is dict]
    classes = {
        id(attributes): owner
        for owner in gc.get_referrers(*dicts)
        if isinstance(owner, type)
        for attributes in gc.get_referents(owner)
        if type(attributes) is dict
    } if dicts else {}
    for holder in holders:
        if _is_ours(holder):
            continue
        if type(holder) is threading.Condition:
            if id(holder._lock) in found and not holder._waiters:  # type: ignore[attr-defined]
                bound = sum(1 for value in vars(holder).values() if _lock_of(value) is holder._lock)  # type: ignore[attr-defined]
                yield id(holder._lock), (holder.__init__, 1 + bound)  # type: ignore[attr-defined, misc]
        elif isinstance(holder, _BoundMethod):
            if holder.__name__ == "_at_fork_reinit" and id(holder.__self__) in found:
                yield id(holder.__self__), (_reinit_at_fork, 1)
        elif type(holder) is dict and id(holder) in classes:
            for name, value in holder.items():
                if id(value) in found:
                    yield id(value), (partial(setattr, classes[id(holder)], name), 1)
        else:
            attributes = holder if type(holder) is dict else getattr(holder, "__dict__", None)
            if type(attributes) is dict:
                for name, value in attributes.items():
                    if id(value) in found:
                        yield id(value), (partial(attributes.__setitem__, name), 1)


def _lock_of(value: Any) -> Any:
    return value.__self__ if isinstance(value, _BoundMethod) else None


def _reinit_at_fork(lock: Any) -> None:
    os.register_at_fork(after_in_child=lock._at_fork_reinit)


def _is_ours(holder: Any) -> bool:
    """Is it a module, class or object of weald?"""
    name = holder.get("__name__" if "__spec__" in holder else "__module__") if type(holder) is dict else None
    name = name or getattr(type(holder), "__module__", None)
    return isinstance(name, str) and (name == "weald" or name.startswith("weald."))
