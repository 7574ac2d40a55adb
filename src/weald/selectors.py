"""`selectors` on greenlets: the stdlib's classes over weald's select, poll and epoll.

Called by: users, `weald.monkey`.
"""

import selectors as _stdlib
from selectors import EVENT_READ, EVENT_WRITE, BaseSelector, SelectorKey

from weald import select

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
    _select = staticmethod(select.select)


class PollSelector(_stdlib.PollSelector):
    _selector_cls = select.poll


class EpollSelector(_stdlib.EpollSelector):
    _selector_cls = select.epoll


DefaultSelector = EpollSelector
