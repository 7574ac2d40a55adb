"""From a greenlet to a coroutine: `await_`."""

from collections.abc import Awaitable
from typing import TypeVar

from weald.aio.loop import EventLoop

_T = TypeVar("_T")

def get_resident_loop() -> EventLoop:
    """The loop on which `await_` runs coroutines for this thread's greenlets; made at the first call."""

def await_(awaitable: Awaitable[_T], timeout: float | None = None) -> _T:
    """Wait in a greenlet for a coroutine, a Future or another awaitable; returns its result or raises its exception.

    The awaitable runs on the hub's resident loop, which is made at first use.  In a function that a coroutine has
    called by `to_greenlet`, it runs on that coroutine's loop.  After `timeout` seconds (None: never) the awaitable is
    cancelled, and TimeoutError is raised as soon as it has ended.  If the greenlet is killed, the awaitable is
    cancelled and has ended before the greenlet goes on.  Context variables that a coroutine sets are set for the
    caller afterwards, as with `await`.

    RuntimeError in a coroutine (use `await` there) and for a coroutine that is being awaited already;
    BlockingSwitchOutError in the hub; TypeError for what cannot be awaited; ValueError for a Future of another loop.
    """
