"""gevent._hub_primitives: waiting."""

from typing import TYPE_CHECKING

from weald._core import iwait as iwait_on_objects
from weald._core import wait as wait_on_objects
from weald._core import wait_read, wait_readwrite, wait_write
from weald._missing import gevent_names
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
    __getattr__ = gevent_names("weald._hub_primitives")
