"""From a greenlet to a coroutine: `await_`."""

from collections.abc import Awaitable
from typing import TypeVar

from weald.aio.loop import EventLoop

_T = TypeVar("_T")

def get_resident_loop() -> EventLoop:
    """The loop on which `await_` runs coroutines of this thread's greenlets, made if need be."""

def await_(awaitable: Awaitable[_T], timeout: float | None = None) -> _T:
    """Wait in a greenlet for a coroutine, a Future or another awaitable; returns its result or raises its exception.

    It runs on the hub's resident loop, made at first use; in a function that `to_greenlet` has called, on the loop of
    the coroutine that called it.  After `timeout` seconds (None: never) it is cancelled; when it has ended,
    TimeoutError is raised.  If the greenlet is killed, it is cancelled as well, and has ended when the greenlet goes
    on.  Context variables that a coroutine sets are set for the caller afterwards, as with `await`.

    RuntimeError in a coroutine, where `await` does that, BlockingSwitchOutError in the hub; TypeError for what cannot
    be awaited; ValueError for a Future of another loop.
    """
