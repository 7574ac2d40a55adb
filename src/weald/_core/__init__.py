"""weald's compiled core, gathered: what the rest of the package may import (see __init__.pyi).

Called by: every module of weald that waits or spawns.
"""

import sys as _sys

from greenlet import GreenletExit, getcurrent

try:
    from weald._core import forks as _forks  # for its effect: hubs start afresh in a fork's child
except ImportError as _error:
    if _error.name != __name__:
        raise
    from importlib.machinery import EXTENSION_SUFFIXES as _SUFFIXES

    raise ImportError(
        f"weald's compiled modules for this Python (forks{_SUFFIXES[0]}, …) are not in {__path__[0]}: "
        "pip install weald with this Python, or make build in a clone",
        name=__name__,
    ) from None

from weald._core.descriptor import (
    Descriptor,
    hung_up,
    number_changes,
    number_ends,
    recv,
    recv_into,
    send,
    sendall,
    set_cut_short,
    wait_read,
    wait_write,
    waits_in_calls,
)
from weald._core.ending import end_with
from weald._core.event import AsyncResult, Event
from weald._core.greenlet import Greenlet, iwait, joinall, killall, living, spawn, spawn_later, track_spawns, wait
from weald._core.hooks import set_awaiting
from weald._core.hub import (
    BlockingSwitchOutError,
    Callback,
    Hub,
    InvalidSwitchError,
    LoopExit,
    Timer,
    set_event_loop_class,
    set_handler_class,
)
from weald._core.local import local
from weald._core.lock import (
    BoundedSemaphore,
    Condition,
    DummySemaphore,
    ImportLock,
    Lock,
    RLock,
    Semaphore,
    name_rlock_as_patched,
)
from weald._core.logs import Steady, report, retry_logs, steady
from weald._core.loops.backends import load_loop as _load_loop
from weald._core.loops.backends import loop_names, set_loop_factory
from weald._core.loops.contract import READ, WRITE, monotonic
from weald._core.queue import (
    Channel,
    Empty,
    Full,
    JoinableQueue,
    LifoQueue,
    PriorityQueue,
    Queue,
    ShutDown,
    SimpleQueue,
)
from weald._core.raw import begin_raw, spawn_raw
from weald._core.reports import helper_idle, signals_may_wake
from weald._core.running_loop import count_loops, put_loop_aside, take_loop_back, use_asyncio
from weald._core.scopes import (
    Cancelled,
    CancelScope,
    TaskGroup,
    current_effective_deadline,
    current_time,
    fail_after,
    move_on_after,
)
from weald._core.select import poll_fds, wait_readwrite
from weald._core.signals import (
    announced_signals,
    listen_to_signals,
    open_signalfd,
    raise_in_handler,
    run_in_midst,
    unlisten_to_signals,
    wait_for_handler,
)
from weald._core.threads import (
    can_park,
    get_hub,
    get_hub_if_exists,
    get_hub_with_rest,
    is_on_main_thread,
    prepare_hub,
    set_default_hub_class,
    set_hub,
    set_hub_class,
    waits_natively,
)
from weald._core.timeout import Timeout, drop_mains_timeouts, with_timeout
from weald._core.tls import tls_read, tls_sendall
from weald._core.waiters import Linkable
from weald._core.watchers import EVENTS, EventLoop, Watcher
from weald._core.yielding import asked_in_vain, before_io, has_looked, idle, sleep

_load_loop()

# A free-threaded interpreter takes the GIL back on importing the above, unless it was told not to.
if not getattr(_sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("weald's core relies on the GIL: do not set PYTHON_GIL=0 or -X gil=0")

__all__ = [name for name in dir() if not name.startswith("_")]
