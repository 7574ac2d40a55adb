"""Parking inside GNU readline, which calls a hook before each key.

Called by: builtins.py.

readline.c waits for keys in select, for a tenth of a second each time while CPython's `PyOS_InputHook` is set, and
calls the hook in between.  The hook here calls a Python function, which returns when there is a key to read.

Invariants:
- The hook is set only while `reading` runs, and does nothing in other threads.
- A hook of the program's own (tkinter's runs its windows) stays; then `wait` is not called.
"""

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int (*PyOS_InputHook)() noexcept nogil

cdef object waiting = None  # the function that the hook calls
cdef object ending = None  # the function that it calls after `waiting` has raised
cdef object raised = None  # the exception that `waiting` has raised
cdef unsigned long reader = 0  # the thread that reads


cdef int hook() noexcept nogil:
    if PyThread_get_thread_ident() == reader:
        with gil:
            wait_here()
    return 0


cdef int wait_here() noexcept:
    """Call `waiting`, and `ending` if that raises.  A signal's handler may raise at any point of both."""
    global raised, ending
    if raised is None:
        try:
            waiting()
        except BaseException as error:
            raised = error
    if raised is not None and ending is not None:
        try:
            ending()
            ending = None
        except BaseException:
            pass  # readline calls again in a tenth of a second
    return 0


def reading(read, wait, end, /):
    """Return `read()`, which reads a line by readline.  Readline calls `wait()`, which may park, before each key.

    If `wait` raises an exception, `end()` is called, which must make readline end its line, and the exception is
    raised here.  One call at a time in a process.
    """
    global PyOS_InputHook, waiting, ending, raised, reader
    if PyOS_InputHook != NULL:
        return read()
    waiting, ending, raised = wait, end, None
    reader = PyThread_get_thread_ident()
    PyOS_InputHook = hook
    try:
        line = read()
    except BaseException:
        if raised is None:
            raise
    finally:
        if PyOS_InputHook == hook:
            PyOS_InputHook = NULL
        error, raised = raised, None
        reader = 0
        waiting = ending = None
    if error is not None:
        raise error
    return line
