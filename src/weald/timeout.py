"""Timeout: an exception that is raised in the greenlet that started it, unless cancelled in time.

Called by: users.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import Timeout, with_timeout

__all__ = ["Timeout", "with_timeout"]


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
