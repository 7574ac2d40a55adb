"""gevent._ident: small numbers for objects.

Called by: users, as gevent._ident; hub.py.
"""

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any
from weakref import ref

from weald._base.names import more_names

__all__ = ["IdentRegistry"]


class IdentRegistry:
    """Gives each of its living objects a number from 0 on that no other has; the smallest that is free."""

    def __init__(self) -> None:
        self._idents: dict[int, tuple[int, ref[Any]]] = {}  # id(object) to its number
        self._free: list[int] = []

    def get_ident(self, obj: Any) -> int:
        """The number of `obj`, which must be one that weak references can be made to."""
        found = self._idents.get(id(obj))
        if found is not None and found[1]() is obj:
            return found[0]
        ident = heappop(self._free) if self._free else len(self._idents)
        key = id(obj)
        self._idents[key] = ident, ref(obj, lambda _: self._forget(key))
        return ident

    def _forget(self, key: int) -> None:
        heappush(self._free, self._idents.pop(key)[0])

    def __len__(self) -> int:
        return len(self._idents)


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._ident")
