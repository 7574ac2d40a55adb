"""Event and AsyncResult: one greenlet or thread tells others that something happened.

Called by: users.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import AsyncResult, Event

__all__ = ["AsyncResult", "Event"]


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
