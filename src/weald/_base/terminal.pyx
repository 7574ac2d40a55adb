"""Waiting inside of GNU readline: it asks a function before each key, and that one may park.

Called by: builtins.py.

readline.c waits for keys in select, for a tenth of a second each time while CPython's `PyOS_InputHook` is set, and
calls the hook in between.  The hook here calls a Python function, which returns when there is a key to read.

Invariants:
- The hook is set only while a `reading` runs, and does nothing in other threads than that one's.
- A hook that the program has (tkinter's runs its windows) stays; then `wait` is not called.
"""

cdef extern from "Python.h":
    unsigned long PyThread_get_thread_ident() noexcept nogil
    int (*PyOS_InputHook)() noexcept nogil

cdef object waiting = None  # what the hook calls
cdef object ending = None  # what it calls once that has raised something
cdef object raised = None  # which is this
cdef unsigned long reader = 0  # the thread in which it does


cdef int hook() noexcept nogil:
    if PyThread_get_thread_ident() == reader:
        with gil:
            wait_here()
    return 0


cdef int wait_here() noexcept:
    """Call `waiting`, and `ending` if that raises; a signal's handler may raise in both, wherever they are."""
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
    """Return `read()`, which reads a line by readline; meanwhile readline calls `wait()` before each key.

    When `wait` raises something, `end()` is called, which must have readline find the end of its line, and what `wait`
    has raised is raised here.  One call at a time in a process.
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
