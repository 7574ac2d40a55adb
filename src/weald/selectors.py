"""`selectors` on greenlets: the stdlib's classes over weald's select, poll and epoll.

Called by: users, weald.monkey, subprocess.py, weald.compat.
"""

import selectors as _stdlib
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey
from typing import TYPE_CHECKING

from weald import select
from weald._base.names import more_names

__implements__ = ["DefaultSelector", "EpollSelector", "PollSelector", "SelectSelector"]
__imports__ = ["EVENT_READ", "EVENT_WRITE", "BaseSelector", "SelectorKey"]

__all__ = [
    "EVENT_READ",
    "EVENT_WRITE",
    "BaseSelector",
    "DefaultSelector",
    "EpollSelector",
    "PollSelector",
    "SelectSelector",
    "SelectorKey",
]


class SelectSelector(_stdlib.SelectSelector):
    """selectors.SelectSelector whose `select` parks the greenlet."""

    _select = staticmethod(select.select)


class PollSelector(_stdlib.PollSelector):
    """selectors.PollSelector whose `select` parks the greenlet."""

    _selector_cls = select.poll


class EpollSelector(_stdlib.EpollSelector):
    """selectors.EpollSelector whose `select` parks the greenlet."""

    _selector_cls = select.epoll


DefaultSelector = EpollSelector


if not TYPE_CHECKING:
    _more_names = more_names(__name__)

    def __getattr__(name: str) -> object:
        # The stdlib's module has no __all__, and programs import its imports (`from selectors import abstractmethod`).
        return getattr(_stdlib, name) if hasattr(_stdlib, name) else _more_names(name)
