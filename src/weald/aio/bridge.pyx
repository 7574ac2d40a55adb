"""From a greenlet to a coroutine: `await_`.

Called by: users, through weald.aio; weald.http.asgi_server, weald.http.lifespan.
Invariants:
- A coroutine that `await_` has begun has ended when `await_` returns or raises: who is killed or times out cancels it
  and waits for that.
- Each hub has at most one resident loop.  It is made at first use, needs no greenlet in `run_forever`, and ends with
  its hub.
- On Python 3.12 and later a coroutine begins in the greenlet that calls `await_`: one that does not wait costs no
  switch.
"""

from weald._core.c_greenlet cimport greenlet
from weald._core.hub cimport Hub, Waiter, acting_greenlet, current_greenlet
from weald._core.threads cimport current_hub
from weald._core.waiters cimport park_for, seconds

import asyncio
import sys
from _asyncio import _get_running_loop
from types import CoroutineType

from greenlet import GreenletExit

from weald._core import BlockingSwitchOutError
from weald.aio.calls import Called as _Called
from weald.aio.calls import copy_back
from weald.aio.loop import EventLoop
from weald.asyncio import _set_running_loop

cdef extern from "Python.h":
    object PyContext_CopyCurrent()

cdef object Called = _Called
cdef object Task = asyncio.Task
cdef object CancelledError = asyncio.CancelledError
cdef object ensure_future = asyncio.ensure_future
cdef object iscoroutine = asyncio.iscoroutine
cdef object running_loop = _get_running_loop
cdef bint EAGER = sys.version_info >= (3, 12)


# ------------------------------------------------------------------ from a greenlet

cdef class Waker:
    """A future's callback that ends a greenlet's wait."""

    cdef Waiter waiter

    def __call__(self, future):
        self.waiter.resume(None)


cdef bint wait_done(Hub hub, object future, double limit) except -1:
    """Park until `future` is done, `limit` seconds at most (negative: for ever).  False when the time is over."""
    cdef Waiter waiter = hub.waiter()
    cdef Waker waker = Waker.__new__(Waker)
    waker.waiter = waiter
    future.add_done_callback(waker)
    try:
        if limit < 0.0:
            hub.park(waiter, future)
        else:
            park_for(waiter, future, limit, True)
    finally:
        if not future.done():
            future.remove_done_callback(waker)
    return not waiter.timed_out


cdef int end(Hub hub, object future, object loop) except -1:
    """The caller is killed: cancel and wait for the end.  What comes of it is told to the loop's exception handler."""
    while not future.done():
        future.cancel()
        if hub.stopping:  # the thread ends, and nothing of it runs any more
            return 0
        try:
            wait_done(hub, future, -1.0)
        except BaseException:
            pass  # killed once more: cancel it once more; the first kill is what the caller will see
    # GreenletExit: killed while it blocked before its first await.
    if not future.cancelled() and not isinstance(future.exception(), (type(None), GreenletExit)):
        loop.call_exception_handler({
            "message": "what a killed greenlet awaited has failed",
            "exception": future.exception(),
            "future": future,
        })
    return 0


cdef int finish(Hub hub, object future, object loop, double limit) except -1:
    """Wait until it is done; after `limit` seconds cancel it, and wait for its end."""
    cdef bint done
    try:
        done = wait_done(hub, future, limit)
        if not done:
            future.cancel()
            wait_done(hub, future, -1.0)
    except BaseException:
        end(hub, future, loop)
        raise
    if not done and future.cancelled():
        try:
            future.result()
        except CancelledError as error:
            raise TimeoutError(f"not done within {limit} seconds") from error
    return 0


cdef object resident_loop(Hub hub):
    """The loop that coroutines of this hub's greenlets run on."""
    loop = hub.resident
    if loop is None:
        loop = EventLoop()
        loop._become_resident()
        hub.resident = loop
    return loop


def get_resident_loop():
    """The loop on which `await_` runs coroutines of this thread's greenlets, made if need be."""
    return resident_loop(current_hub())


def await_(awaitable, timeout=None):
    """Wait in a greenlet for a coroutine, a Future or another awaitable; returns its result or raises its exception.

    It runs on the hub's resident loop, made at first use; in a function that `to_greenlet` has called, on the loop of
    the coroutine that called it.  After `timeout` seconds (None: never) it is cancelled; when it has ended,
    TimeoutError is raised.  If the greenlet is killed, it is cancelled as well, and has ended when the greenlet goes
    on.  Context variables that a coroutine sets are set for the caller afterwards, as with `await`.

    RuntimeError in a coroutine, where `await` does that, and for a coroutine that is awaited already;
    BlockingSwitchOutError in the hub; TypeError for what cannot be awaited; ValueError for a Future of another loop.
    """
    cdef Hub hub = current_hub()
    cdef greenlet me = current_greenlet()
    cdef double limit = seconds(timeout)
    if me is hub:
        raise BlockingSwitchOutError("await_() in the hub would stop the loop: spawn a greenlet that calls it")
    if running_loop() is not None:
        raise RuntimeError("await_() is for greenlets; this is a coroutine or a callback of a loop: use await there")
    loop = me.home if type(me) is Called else resident_loop(hub)
    context = None
    if type(awaitable) is CoroutineType or iscoroutine(awaitable):
        if type(awaitable) is CoroutineType and awaitable.cr_await is not None:
            raise RuntimeError("coroutine is being awaited already")  # as `await` has it, which tasks do not ask
        context = PyContext_CopyCurrent()
        # In a signal's handler the running loop is the main greenlet's business, which the handler acts for.
        if EAGER and loop._task_factory is None and acting_greenlet() is me:
            _set_running_loop(loop)
            try:
                future = Task(awaitable, loop=loop, context=context, eager_start=True)
            finally:
                _set_running_loop(None)
        else:
            future = loop.create_task(awaitable, context=context)
    else:
        future = ensure_future(awaitable, loop=loop)
    try:
        if not future.done():
            finish(hub, future, loop, limit)
    finally:
        if context is not None and context != PyContext_CopyCurrent():
            copy_back(context)
    return future.result()
