"""What is kept for a native thread of asyncio's loop: the loop itself and, from Python 3.14 on, its current task, by
asyncio; the hooks of asynchronous generators and how deep the origins of coroutines are tracked, by the interpreter.

Here each greenlet has its own.  They are put aside when it parks and taken back when it goes on, wherever in a callback
or coroutine that is: without that, the next greenlet to run a loop would be told that a task of another loop is being
run.

Called by: hub.pyx (around each park), weald.asyncio (whenever a loop begins or ends), weald.signal.
Invariants: nothing here runs Python code, for `Hub.park` allows none: asyncio's functions are builtins, and what `sys`
has functions for, which announce themselves to audit hooks, is swapped where it lies.  While no greenlet runs a loop
(`loops` is 0) nobody asks.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        PyObject *async_gen_firstiter
        PyObject *async_gen_finalizer
        int coroutine_origin_tracking_depth
    PyThreadState *PyThreadState_Get()

cdef Py_ssize_t loops = 0
cdef object get_loop = None  # asyncio's, of the native thread
cdef object set_loop = None
cdef object swap_task = None  # None before 3.14, where the tasks are kept by loop
cdef dict tasks = {}  # by loop: the task that its greenlet has parked in
cdef dict settings = {}  # by loop: what it has set in the interpreter, in the order of PyThreadState


def use_asyncio(get_running_loop, set_running_loop, swap_current_task):
    """Have asyncio's C functions; `swap_current_task` is None where asyncio keeps the current task elsewhere.

    Returns the current tasks of the loops that are put aside, by loop.
    """
    global get_loop, set_loop, swap_task
    get_loop, set_loop, swap_task = get_running_loop, set_running_loop, swap_current_task
    return tasks


def count_loops(Py_ssize_t change):
    """So many loops more (or fewer) are run by greenlets; 0: none is, as in a fork's child."""
    global loops
    loops = loops + change if change else 0
    if not change:
        settings.clear()


cdef object put_aside():
    """Put the running loop and its current task aside; the loop, None if there is none."""
    loop = get_loop()
    if loop is None:
        return None
    if swap_task is not None:
        task = swap_task(loop, None)
        if task is not None:
            tasks[loop] = task
    put_settings_aside(loop)
    set_loop(None)
    return loop


cdef object taken(PyObject **place):
    """What is in `place`, None if nothing is; it is empty then."""
    if place[0] == NULL:
        return None
    found = <object>place[0]
    place[0] = NULL
    Py_DECREF(found)
    return found


cdef int put_settings_aside(object loop) except -1:
    cdef PyThreadState *state = PyThreadState_Get()
    cdef int depth = state.coroutine_origin_tracking_depth
    if state.async_gen_firstiter != NULL or state.async_gen_finalizer != NULL or depth:
        settings[loop] = taken(&state.async_gen_firstiter), taken(&state.async_gen_finalizer), depth
        state.coroutine_origin_tracking_depth = 0
    return 0


cdef int take_settings_back(object loop) except -1:
    cdef PyThreadState *state = PyThreadState_Get()
    found = settings.pop(loop, None)
    if found is None:
        return 0
    first, final, depth = found
    # Usually nothing: others may have left theirs.  They are freed once all is in its place.
    _others = taken(&state.async_gen_firstiter), taken(&state.async_gen_finalizer)
    if first is not None:
        Py_INCREF(first)
        state.async_gen_firstiter = <PyObject *>first
    if final is not None:
        Py_INCREF(final)
        state.async_gen_finalizer = <PyObject *>final
    state.coroutine_origin_tracking_depth = depth
    return 0


cdef int take_back(object loop) except -1:
    """Undo `put_aside`, which returned `loop`."""
    set_loop(loop)
    if settings and loop is not None:
        take_settings_back(loop)
    if tasks and loop is not None:
        task = tasks.pop(loop, None)
        if task is not None:
            swap_task(loop, task)
    return 0


def put_loop_aside():
    """`put_aside`; None while no greenlet runs a loop."""
    return put_aside() if loops > 0 else None


def take_loop_back(loop):
    """Undo `put_loop_aside`, which returned `loop`."""
    if loop is not None:
        take_back(loop)
