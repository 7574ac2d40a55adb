"""weald: blocking-style networking on greenlets and libuv.

Called by: users; every module that needs weald's version.

`_core` is the compiled part (loop, hub, greenlets, primitives, descriptors); the modules named like the standard
library's (socket, ssl, select, …) are their cooperative replacements; event, lock, queue, pool, threadpool, local,
timeout and scopes hold the primitives by subject; `_base` holds code that several of these share; `monkey` puts the
replacements in place; `http`, `pywsgi`, `server` and `serve` are servers.
"""

import weald._cpython  # noqa: F401  (first: it refuses interpreters that the compiled part would crash on)

# isort: split
import weald._core.sync  # noqa: F401  (cloudpickle copies classes whose module has not been imported)
from weald._base.config import config
from weald._base.names import more_names
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
from weald.compat._door import install_as_gevent

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

__getattr__ = more_names(__name__)
