"""weald: blocking-style networking on greenlets and libuv.

`_core` is the compiled part (loop, hub, greenlets, primitives, descriptors); the modules named like
the standard library's (socket, ssl, select, …) are their cooperative replacements; event, lock,
queue, pool, threadpool, local and timeout hold the primitives by subject.
"""

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
    "get_hub",
    "getcurrent",
    "idle",
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
