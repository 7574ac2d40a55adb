"""gevent.selectors.GeventSelector.

Called by: _names.py, for names of gevent.selectors.
"""

from typing import Any

from weald._core import get_hub
from weald.selectors import DefaultSelector, SelectorKey

__all__ = ["GeventSelector"]


class GeventSelector(DefaultSelector):
    """weald's default selector; a descriptor that is not open is refused with ValueError."""

    def __init__(self, hub: Any = None) -> None:
        super().__init__()
        self.hub = get_hub() if hub is None else hub

    def register(self, fileobj: Any, events: int, data: Any = None) -> SelectorKey:
        """As DefaultSelector's.  Raises ValueError if the descriptor is not open."""
        try:
            return super().register(fileobj, events, data)
        except OSError as error:
            raise ValueError("Invalid file descriptor") from error
