"""gevent._hub_primitives: waiting."""

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
