"""gevent.hub: the names of it that weald has."""

from greenlet import GreenletExit, getcurrent

from weald._core import (
    BlockingSwitchOutError,
    Hub,
    InvalidSwitchError,
    LoopExit,
    get_hub,
    get_hub_if_exists,
    iwait,
    sleep,
    spawn_raw,
    wait,
)
from weald._core import set_hub_class as set_default_hub_class
from weald.compat import kill

__all__ = [
    "BlockingSwitchOutError",
    "GreenletExit",
    "Hub",
    "InvalidSwitchError",
    "LoopExit",
    "get_hub",
    "get_hub_if_exists",
    "getcurrent",
    "iwait",
    "kill",
    "set_default_hub_class",
    "sleep",
    "spawn_raw",
    "wait",
]
