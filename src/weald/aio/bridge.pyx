"""From a greenlet to a coroutine: `await_`.

Called by: users, through weald.aio; weald.http.asgi_server, weald.http.lifespan.
Invariants:
- When `await_` returns or raises, the coroutine has ended.  A greenlet that is killed or times out cancels it first,
  and waits for its end.
- Each hub has at most one resident loop.  It is made at first use, needs no greenlet in `run_forever`, and ends with
  its hub.
- A coroutine begins in the greenlet that calls `await_`, so a coroutine that does not wait costs no switch.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF

from weald._core cimport running_loop
from weald._core.c_greenlet cimport greenlet
from weald._core.hub cimport Hub, Waiter, acting_greenlet, current_greenlet
from weald._core.threads cimport current_hub
from weald._core.waiters cimport park_for, seconds
from weald.aio.core cimport Core, Waker

import asyncio
from _asyncio import _get_running_loop
from types import CoroutineType

from greenlet import GreenletExit

from weald._core import BlockingSwitchOutError, CancelScope, LoopExit
from weald.aio.calls import Called as _Called
from weald.aio.calls import copy_back
from weald.aio.loop import EventLoop
from weald.asyncio import _running

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        PyObject *async_gen_firstiter
        PyObject *async_gen_finalizer
    PyThreadState *PyThreadState_Get()
    object PyContext_CopyCurrent()

cdef object Called = _Called
cdef object Task = asyncio.Task
cdef object CancelledError = asyncio.CancelledError
cdef object ensure_future = asyncio.ensure_future
cdef object iscoroutine = asyncio.iscoroutine
cdef object loop_of_thread = _get_running_loop
cdef object RUNNING = _running


# ------------------------------------------------------------------ from a greenlet

cdef bint wait_done(Hub hub, object future, double limit) except -1:
    """Park until `future` is done, `limit` seconds at most (negative: for ever).  Returns False after a timeout."""
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


cdef object end(Hub hub, object future, object loop):
    """For a caller that is killed: cancel `future` and wait for its end.  Failures go to the loop's handler.

    Returns what was raised in the caller last meanwhile, None if nothing was.
    """
    later = None
    with CancelScope(shield=True):  # a cancelled scope cancels once
        while not future.done():
            future.cancel()
            if hub.stopping:  # the thread ends, and none of its greenlets runs any more
                return later
            try:
                wait_done(hub, future, -1.0)
            except LoopExit:
                return later  # it ignores that it is cancelled, and nothing else can end it
            except BaseException as error:  # killed again: cancel again
                later = error
    # GreenletExit: killed while it blocked before its first await.
    if not future.cancelled() and not isinstance(future.exception(), (type(None), GreenletExit)):
        loop.call_exception_handler({
            "message": "what a killed greenlet awaited has failed",
            "exception": future.exception(),
            "future": future,
        })
    return later


cdef int finish(Hub hub, object future, object loop, double limit) except -1:
    """Wait until `future` is done; after `limit` seconds cancel it, wait for its end, and raise TimeoutError."""
    cdef bint done
    try:
        done = wait_done(hub, future, limit)
        if not done:
            future.cancel()
            wait_done(hub, future, -1.0)
    except BaseException:
        later = end(hub, future, loop)
        if later is not None:
            raise later  # as in blocking code, where an exception in a `finally` takes the place of the first
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
    """The loop on which `await_` runs coroutines for this thread's greenlets; made at the first call."""
    return resident_loop(current_hub())


cdef object begin(object coroutine, object context, Core loop):
    """A task that runs in this greenlet until it waits for the first time, as if `loop` ran here."""
    cdef PyThreadState *state = PyThreadState_Get()
    cdef PyObject *first = state.async_gen_firstiter
    cdef PyObject *final = state.async_gen_finalizer
    hook = (<object>loop)._asyncgen_firstiter_hook if loop.first_hook is None else loop.first_hook
    Py_INCREF(hook)
    state.async_gen_firstiter = <PyObject *>hook
    hook = (<object>loop)._asyncgen_finalizer_hook if loop.final_hook is None else loop.final_hook
    Py_INCREF(hook)
    state.async_gen_finalizer = <PyObject *>hook
    # As `_set_running_loop`, which is written in Python: no loop runs here.
    running_loop.enter(loop)
    RUNNING.loop = loop
    try:
        if (<object>loop)._task_factory is None:
            return loop.begun_task(coroutine, context)
        return (<object>loop).create_task(coroutine, context=context)  # its tasks may be eager, too
    finally:
        if loop.steps:
            loop.end_step()
        RUNNING.loop = None
        running_loop.leave()
        first, state.async_gen_firstiter = state.async_gen_firstiter, first
        final, state.async_gen_finalizer = state.async_gen_finalizer, final
        Py_XDECREF(first)
        Py_XDECREF(final)


def await_(awaitable, timeout=None):
    """Wait in a greenlet for a coroutine, a Future or another awaitable; returns its result or raises its exception.

    The awaitable runs on the hub's resident loop, which is made at first use.  In a function that a coroutine has
    called by `to_greenlet`, it runs on that coroutine's loop.  After `timeout` seconds (None: never) the awaitable is
    cancelled, and TimeoutError is raised as soon as it has ended.  If the greenlet is killed, the awaitable is
    cancelled and has ended before the greenlet goes on.  Context variables that a coroutine sets are set for the
    caller afterwards, as with `await`.

    RuntimeError in a coroutine (use `await` there) and for a coroutine that is being awaited already;
    BlockingSwitchOutError in the hub; TypeError for what cannot be awaited; ValueError for a Future of another loop.
    """
    cdef Hub hub = current_hub()
    cdef greenlet me = current_greenlet()
    cdef double limit = seconds(timeout)
    if me is hub:
        raise BlockingSwitchOutError("await_() in the hub would stop the loop: spawn a greenlet that calls it")
    if loop_of_thread() is not None:
        raise RuntimeError("await_() is for greenlets; this is a coroutine or a callback of a loop: use await there")
    loop = me.home if type(me) is Called else resident_loop(hub)
    context = None
    if type(awaitable) is CoroutineType or iscoroutine(awaitable):
        if type(awaitable) is CoroutineType and awaitable.cr_await is not None:
            raise RuntimeError("coroutine is being awaited already")  # `await` checks that; tasks do not
        context = PyContext_CopyCurrent()
        if acting_greenlet() is me:
            # A signal handler acts for the main greenlet, whose running loop it must not change.
            future = begin(awaitable, context, loop)
        elif loop._task_factory is None:
            future = Task(awaitable, loop=loop, context=context)  # as `create_task`, which is written in Python, does
        else:
            future = loop.create_task(awaitable, context=context)
    else:
        future = ensure_future(awaitable, loop=loop)
    try:
        if not future.done():
            finish(hub, future, loop, limit)
    finally:
        if context is not None and context != PyContext_CopyCurrent():
            copy_back(context, PyContext_CopyCurrent())
    return future.result()
