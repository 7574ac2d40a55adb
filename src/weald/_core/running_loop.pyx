"""The state that belongs to a running asyncio loop and is kept per native thread, made each greenlet's own.

asyncio keeps the running loop and its current task.  The interpreter keeps the hooks of asynchronous generators and the
depth to which the origins of coroutines are tracked.  All of it is saved when a greenlet parks and restored when it
goes on.  Otherwise the next greenlet to run a loop would find that a task of another loop is running.  Before Python
3.14 asyncio keeps the current task by loop, so it is saved only if several greenlets run the same loop (`Driven`).

Called by: hub.pyx (around each park), lock.pyx (who takes an RLock), weald.asyncio (whenever a loop begins or ends),
signals.pyx, weald.aio.bridge and weald.http.asgi (around the first step of a coroutine).
Invariants:
- Nothing here runs Python code, because `Hub.park` allows none.  asyncio's functions are builtins.  The interpreter's
  state is swapped in the thread state, because the functions of `sys` call audit hooks.
- While no greenlet runs a loop (`loops` is 0), none of this is called.
- A loop that parks because its queue is empty waits for itself, and is in no task.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

from weald._core.hooks cimport Driven

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        PyObject *async_gen_firstiter
        PyObject *async_gen_finalizer
        int coroutine_origin_tracking_depth
    PyThreadState *PyThreadState_Get()

cdef extern from *:
    """
    /* Whether the greenlet that runs in this thread runs a loop.  Cheaper than to ask asyncio. */
    static __thread int weald_in_loop __attribute__((tls_model("initial-exec"))) = 0;
    """
    int weald_in_loop

cdef Py_ssize_t loops = 0
cdef object get_loop = None  # asyncio's functions, which read and set the native thread's loop
cdef object set_loop = None
cdef object swap_task = None  # swap_task(loop, task); from Python 3.14 on
cdef dict current_tasks = None  # the current tasks by loop; before Python 3.14
cdef dict tasks = {}  # the current tasks of the loops that are put aside, by loop


def use_asyncio(get_running_loop, set_running_loop, swap_current_task, dict tasks_of_loops):
    """Give this module asyncio's C functions.

    `swap_current_task` is None where asyncio keeps the current tasks in a dict by loop, `tasks_of_loops`.  Returns the
    current tasks of the loops that are put aside, by loop.
    """
    global get_loop, set_loop, swap_task, current_tasks
    get_loop, set_loop, swap_task, current_tasks = get_running_loop, set_running_loop, swap_current_task, tasks_of_loops
    return tasks


def count_loops(Py_ssize_t change):
    """Add `change` to the number of asyncio loops that run in greenlets; 0 resets it, as in a fork's child.

    1 and -1 are for a loop that the calling greenlet begins or ends.
    """
    global loops, weald_in_loop
    weald_in_loop = change > 0
    loops = loops + change if change else 0


cdef bint in_loop() noexcept:
    """Whether the current greenlet runs a loop.  It may still be true when there are no `loops`."""
    return weald_in_loop


cdef int enter(object loop) except -1:
    """Make `loop` the running one of the current greenlet, which runs none; the thread's neither."""
    global loops, weald_in_loop
    set_loop(loop)
    weald_in_loop = 1
    loops += 1
    return 0


cdef int leave() except -1:
    """Undo `enter`."""
    global loops, weald_in_loop
    set_loop(None)
    weald_in_loop = 0
    if loops > 0:  # a fork's child has none
        loops -= 1
    return 0


cdef object step_here():
    """The lock.Step of the loop's callback that the current greenlet is in; None if the loop is another library's.

    Call it only while there are `loops`, and `in_loop`.
    """
    loop = get_loop()
    return (<Driven>loop).step() if isinstance(loop, Driven) else None


cdef object swap(object loop, object task):
    """Make `task` the current one of `loop`; returns the one before.  None: no task."""
    if swap_task is not None:
        return swap_task(loop, task)
    before = current_tasks.pop(loop, None)
    if task is not None:
        current_tasks[loop] = task
    return before


cdef object put_aside(object what):
    """Save the running loop, its current task and its settings in the interpreter; None if there is no loop.

    `what` is the object that the greenlet is going to wait for.
    """
    global weald_in_loop
    cdef PyThreadState *state
    loop = get_loop()
    if loop is None:
        return None
    task = None
    if loop is not what and (swap_task is not None or isinstance(loop, Driven)):
        task = swap(loop, None)
        if task is not None:
            tasks[loop] = task
    state = PyThreadState_Get()
    aside = (
        loop, task, taken(&state.async_gen_firstiter), taken(&state.async_gen_finalizer),
        state.coroutine_origin_tracking_depth,
    )
    state.coroutine_origin_tracking_depth = 0
    set_loop(None)
    weald_in_loop = 0
    return aside


cdef object taken(PyObject **place):
    """Take the object out of `place`; None if it is empty."""
    if place[0] == NULL:
        return None
    found = <object>place[0]
    place[0] = NULL
    Py_DECREF(found)
    return found


cdef int take_back(tuple aside) except -1:
    """Undo `put_aside`, which returned `aside`."""
    global weald_in_loop
    cdef PyThreadState *state = PyThreadState_Get()
    loop, task, first, final, depth = aside
    set_loop(loop)
    weald_in_loop = 1
    # Hooks that other greenlets have left there, usually none.  They are freed when the restored ones are in place.
    _others = taken(&state.async_gen_firstiter), taken(&state.async_gen_finalizer)
    if first is not None:
        Py_INCREF(first)
        state.async_gen_firstiter = <PyObject *>first
    if final is not None:
        Py_INCREF(final)
        state.async_gen_finalizer = <PyObject *>final
    state.coroutine_origin_tracking_depth = depth
    if task is not None:
        tasks.pop(loop, None)
        swap(loop, task)
    return 0


def put_loop_aside():
    """`put_aside`, of the calling greenlet; None if it runs no loop."""
    return put_aside(None)


def take_loop_back(aside):
    """Undo `put_loop_aside`, which returned `aside`."""
    if aside is not None:
        take_back(aside)
