"""weald: blocking-style networking on greenlets and libuv.

`_core` is the compiled part (loop, hub, greenlets, primitives, descriptors); the modules named like
the standard library's (socket, ssl, select, …) are their cooperative replacements; event, lock,
queue, pool, threadpool, local and timeout hold the primitives by subject.
"""

from importlib import import_module
from typing import Any

import weald._cpython  # noqa: F401  (first: it refuses interpreters that the compiled part would crash on)
from weald import _core
from weald._alias import GEVENT_ONLY, Loop, find_compat_modules, hub_class, install_as_gevent
from weald._config import config
from weald._core import (
    BlockingSwitchOutError,
    Greenlet,
    GreenletExit,
    LoopExit,
    Timeout,
    get_hub,
    getcurrent,
    idle,
    iwait,
    joinall,
    killall,
    sleep,
    spawn,
    spawn_later,
    spawn_raw,
    wait,
    with_timeout,
)

__version__ = "0.1.0"

__all__ = [
    "BlockingSwitchOutError",
    "Greenlet",
    "GreenletExit",
    "LoopExit",
    "Timeout",
    "config",
    "get_hub",
    "getcurrent",
    "idle",
    "install_as_gevent",
    "iwait",
    "joinall",
    "killall",
    "sleep",
    "spawn",
    "spawn_later",
    "spawn_raw",
    "wait",
    "with_timeout",
]

# Modules that only gevent has lie in compat/, and so does the class of hubs that gevent's users expect.
find_compat_modules()
_core.set_default_hub_class(hub_class)
_core.set_event_loop_class(Loop)


def __getattr__(name: str) -> Any:
    """Top-level names that only gevent has are in weald.compat."""
    if name in GEVENT_ONLY:
        return getattr(import_module("weald.compat"), name)
    raise AttributeError(f"module 'weald' has no attribute {name!r}")
