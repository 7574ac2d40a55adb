"""What asyncio keeps for a native thread, in C: the running loop and, from Python 3.14 on, its current task.

Here each greenlet has its own.  They are put aside when it parks and taken back when it goes on, wherever in a
callback or coroutine that is: without that, the next greenlet to run a loop would be told that a task of another loop
is being run.

Called by: hub.pyx (around each park), weald.asyncio (whenever a loop begins or ends), weald.signal.
Invariants: nothing here runs Python code, for `Hub.park` allows none: asyncio's functions are builtins.  While no
greenlet runs a loop (`loops` is 0) nobody asks.
"""

cdef Py_ssize_t loops = 0
cdef object get_loop = None  # asyncio's, of the native thread
cdef object set_loop = None
cdef object swap_task = None  # None before 3.14, where the tasks are kept by loop
cdef dict tasks = {}  # by loop: the task that its greenlet has parked in


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


cdef object put_aside():
    """Put the running loop and its current task aside; the loop, None if there is none."""
    loop = get_loop()
    if loop is None:
        return None
    if swap_task is not None:
        task = swap_task(loop, None)
        if task is not None:
            tasks[loop] = task
    set_loop(None)
    return loop


cdef int take_back(object loop) except -1:
    """Undo `put_aside`, which returned `loop`."""
    set_loop(loop)
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
