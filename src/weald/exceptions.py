"""The exceptions weald raises on its own account; everything else is the standard library's.

Used by every module above `_core`, which defines the first three itself.
"""

from typing import TYPE_CHECKING

from greenlet import GreenletExit

from weald._core import BlockingSwitchOutError, InvalidSwitchError, LoopExit
from weald._missing import gevent_names

__all__ = [
    "BlockingSwitchOutError",
    "ConcurrentObjectUseError",
    "HubDestroyed",
    "InvalidSwitchError",
    "InvalidThreadUseError",
    "LoopExit",
]


class ConcurrentObjectUseError(AssertionError):
    """Two greenlets waited on an object that only one at a time may wait on."""


class InvalidThreadUseError(RuntimeError):
    """An object that belongs to one thread's hub was used from another thread."""


class HubDestroyed(GreenletExit):
    """Thrown into a hub that is being destroyed; not for users to raise."""

    def __init__(self, destroy_loop: bool = True) -> None:
        super().__init__(destroy_loop)
        self.destroy_loop = destroy_loop


if not TYPE_CHECKING:
    __getattr__ = gevent_names(__name__)
