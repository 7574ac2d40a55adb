"""gevent._hub_primitives: waiting.

Called by: users, as gevent._hub_primitives.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald._core import iwait as iwait_on_objects
from weald._core import wait as wait_on_objects
from weald._core import wait_read, wait_readwrite, wait_write
from weald.compat.hub import Hub as WaitOperationsGreenlet

__all__ = [
    "WaitOperationsGreenlet",
    "iwait_on_objects",
    "wait_on_objects",
    "wait_read",
    "wait_readwrite",
    "wait_write",
]


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._hub_primitives")
