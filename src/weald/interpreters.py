"""`_interpreters` on greenlets: while another interpreter runs, the calling greenlet parks and other greenlets run.

Called by: weald.monkey (`patch_thread`).  Users call it through `concurrent.interpreters` and
`concurrent.futures.InterpreterPoolExecutor`, both from Python 3.14 on.

Each interpreter has a GIL of its own, so it can run in a native thread beside the loop's.  There is a thread for each
call under way, kept for a while for the next.  weald cannot be imported there, because greenlet cannot.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import _interpreters as _stdlib
from greenlet import getcurrent

from weald._base.originals import get_original
from weald._core import get_hub_if_exists
from weald.threadpool import ThreadPool

__target__ = "_interpreters"
__implements__ = [name for name in ("call", "exec", "run_func", "run_string") if hasattr(_stdlib, name)]
__all__ = __implements__

_MAX_CALLS = 1000  # at the same time, of one hub
_IDLE = 10.0  # seconds after which a thread without a call ends

_of_thread = get_original("_thread", "_local")()


def _pool() -> ThreadPool:
    pool: ThreadPool | None = getattr(_of_thread, "pool", None)
    if pool is None or pool.hub is not get_hub_if_exists():
        pool = _of_thread.pool = ThreadPool(_MAX_CALLS, idle_task_timeout=_IDLE)
    return pool


def _parking(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def parks(*args: Any, **kwargs: Any) -> Any:
        hub = get_hub_if_exists()
        if hub is None or getcurrent() is hub:
            return function(*args, **kwargs)
        return _pool().apply(function, args, kwargs)

    return parks


for _name in __implements__:
    globals()[_name] = _parking(getattr(_stdlib, _name))
