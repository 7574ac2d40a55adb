"""weald's own exceptions; all others that it raises are the standard library's.

Called by: users, weald.threadpool, weald.compat.

`_core` defines and raises BlockingSwitchOutError, InvalidSwitchError and LoopExit; users find them here.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import BlockingSwitchOutError, InvalidSwitchError, LoopExit

__all__ = [
    "BlockingSwitchOutError",
    "ConcurrentObjectUseError",
    "InvalidSwitchError",
    "InvalidThreadUseError",
    "LoopExit",
]


class ConcurrentObjectUseError(AssertionError):
    """Two greenlets waited on an object for which only one at a time may wait."""


class InvalidThreadUseError(RuntimeError):
    """An object that belongs to one thread's hub was used from another thread."""


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
