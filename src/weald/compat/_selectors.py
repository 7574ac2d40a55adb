"""gevent.selectors.GeventSelector, and a DefaultSelector that takes a hub, which importing this puts in its place.

Called by: _names.py, for names of gevent.selectors; _surface.py.
"""

from typing import Any

from weald import selectors
from weald._core import get_hub
from weald.selectors import EpollSelector, SelectorKey

__all__ = ["DefaultSelector", "GeventSelector"]


class DefaultSelector(EpollSelector):
    """weald's default selector.  `hub` is the attribute of that name; a selector works in any thread's hub."""

    def __init__(self, hub: Any = None) -> None:
        super().__init__()
        self._hub = hub

    @property
    def hub(self) -> Any:
        """The hub given, by default that of the thread that asks."""
        return get_hub() if self._hub is None else self._hub


class GeventSelector(DefaultSelector):
    """weald's default selector; a descriptor that is not open is refused with ValueError."""

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As DefaultSelector's.  Raises ValueError if the descriptor is not open."""
        try:
            return super().register(fileobj, events, data)
        except OSError as error:
            raise ValueError("Invalid file descriptor") from error


selectors.DefaultSelector = DefaultSelector
selectors.__all__.append("GeventSelector")
