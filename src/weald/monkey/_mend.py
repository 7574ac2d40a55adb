"""Mends what was imported or made before patching: names bound to originals, and native locks.

Called by `weald.monkey` at the end of each round of patching.

Invariants:
- A name is rebound only where a module's global *is* an original that has just been replaced.
- A lock is exchanged only if nobody holds it and every reference to it is found and exchanged with it;
  two users of one lock never end up with two locks.  All others stay as they are.
"""

import _thread
import gc
import sys
from types import BuiltinMethodType, CellType, ModuleType
from typing import Any

from weald._core import Lock, RLock
from weald.monkey import _state

# (module, name) of every global that was rebound.
mended_globals: list[tuple[str, str]] = []
# Locks that were exchanged, and native ones that had to stay, so that waiting for them blocks the loop.
exchanged_locks = 0
remaining_locks = 0

# As this module is imported before anything is patched.
_NativeLock = type(_thread.allocate_lock())
_NativeRLock = type(_thread.RLock())


def globals_holding_originals() -> None:
    """Rebind the globals of all modules that still hold what has been replaced (`from time import sleep`)."""
    replaced, _state.replaced = _state.replaced, {}
    if not replaced:
        return
    for name, module in list(sys.modules.items()):
        if not isinstance(module, ModuleType) or _is_ours(name):
            continue
        namespace = ModuleType.__getattribute__(module, "__dict__")
        for attr, value in list(namespace.items()):
            found = replaced.get(id(value))
            if found is not None and found[0] is value and attr not in _state.saved.get(name, ()):
                namespace[attr] = found[1]
                mended_globals.append((name, attr))


def _is_ours(name: str) -> bool:
    root = name.partition(".")[0]
    # greenlet's and the import system's own locks must stay native.
    return root in ("weald", "gevent", "greenlet", "_frozen_importlib", "_frozen_importlib_external", "importlib")


def native_locks() -> None:
    """Exchange the native locks that are free and whose every reference can be found.

    Nothing is done while there are other native threads, which could take a lock at any moment.
    """
    global exchanged_locks, remaining_locks
    found = [lock for lock in gc.get_objects() if type(lock) is _NativeLock or type(lock) is _NativeRLock]
    if not found:
        return
    if len(sys._current_frames()) > 1:
        remaining_locks = len(found)
        return
    # A reference from the list `found`, one from `candidates`, one from the loop variable, one from the argument.
    candidates = _Candidates([lock for lock in found if _is_free(lock)])
    remaining_locks = len(found)
    del found
    exchanged = candidates.exchange()
    exchanged_locks += exchanged
    remaining_locks -= exchanged


def _is_free(lock: Any) -> bool:
    if type(lock) is _NativeLock:
        return not lock.locked()
    if lock._is_owned() or not lock.acquire(blocking=False):
        return False
    lock.release()
    return True


class _Candidates:
    """Locks that may be exchanged, and where they, and bound methods of theirs (`lock.acquire`), are kept."""

    def __init__(self, locks: list[Any]) -> None:
        self.objects: dict[int, Any] = {id(lock): lock for lock in locks}
        self.places: dict[int, list[tuple[Any, Any]]] = {id(lock): [] for lock in locks}
        self.methods: dict[int, list[Any]] = {id(lock): [] for lock in locks}
        self._find(locks)
        methods = [method for kept in self.methods.values() for method in kept]
        self.objects.update((id(method), method) for method in methods)
        self.places.update((id(method), []) for method in methods)
        if methods:
            self._find(methods)

    def _find(self, objects: list[Any]) -> None:
        own = [objects, self.objects, self.places, self.methods, *self.methods.values()]
        own_ids = {id(container) for container in own}
        for referrer in gc.get_referrers(*objects):
            if id(referrer) in own_ids:
                continue
            if isinstance(referrer, BuiltinMethodType):
                if id(referrer.__self__) in self.methods:
                    self.methods[id(referrer.__self__)].append(referrer)
            elif isinstance(referrer, CellType):
                self._note(referrer, None, referrer.cell_contents)
            elif isinstance(referrer, dict):
                self._search(referrer)
            elif isinstance(namespace := getattr(referrer, "__dict__", None), dict):
                self._search(namespace)

    def _search(self, namespace: dict[Any, Any]) -> None:
        for key, value in namespace.items():
            self._note(namespace, key, value)

    def _note(self, container: Any, key: Any, value: Any) -> None:
        places = self.places.get(id(value))
        if places is not None and not any(kept is container and k == key for kept, k in places):
            places.append((container, key))

    def exchange(self) -> int:
        """Exchange the locks all of whose references are known; how many."""
        count = 0
        for ident, methods in self.methods.items():
            lock = self.objects[ident]
            # Besides the places: `self.objects`, the variable `lock` and the argument here; each method, too.
            known = len(self.places[ident]) + len(methods)
            if sys.getrefcount(lock) != known + 3 or not all(self._all_known(method) for method in methods):
                continue
            new = Lock() if type(lock) is _NativeLock else RLock()
            self._put(ident, new)
            for method in methods:
                self._put(id(method), getattr(new, method.__name__))
            count += 1
        return count

    def _all_known(self, method: Any) -> bool:
        # `self.objects`, the list in `self.methods`, the caller's variable, ours, and getrefcount's argument.
        return sys.getrefcount(method) == len(self.places[id(method)]) + _METHOD_REFERENCES

    def _put(self, ident: int, new: Any) -> None:
        for container, key in self.places[ident]:
            if isinstance(container, CellType):
                container.cell_contents = new
            else:
                container[key] = new


def _method_references() -> int:
    """How many references `_all_known` sees to a method that is in no place at all."""
    lock = _NativeLock.__call__() if False else _thread.allocate_lock()
    probe = _Candidates.__new__(_Candidates)
    method = lock.acquire
    probe.objects = {id(method): method}
    probe.places = {id(method): []}
    methods = [method]
    del method
    return next(sys.getrefcount(found) for found in methods)
