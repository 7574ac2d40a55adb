"""How a process ends: a fork's child whose main greenlet is not the process's, and after a signal handler ends late.

Called by: hub.pyx; weald.signal (`end_with`).
"""

import atexit
import os
import sys
import threading
import traceback
from contextlib import suppress

cdef extern from "Python.h" nogil:
    int Py_AtExit(void (*function)() noexcept nogil)

cdef extern from "<stdlib.h>" nogil:
    void exit(int)

cdef extern from "<signal.h>" nogil:
    enum:
        SIGINT

cdef extern from * nogil:
    """
    static void weald_end_by_signal(int number)
    {
        signal(number, SIG_DFL);
        raise(number);
    }
    """
    void end_by_signal "weald_end_by_signal"(int)

cdef tuple not_joined = (type(threading.main_thread()), threading._DummyThread)

cdef enum:
    AS_EVER = -1  # the interpreter's own status
    INTERRUPTED = -2  # ends by SIGINT, as after a KeyboardInterrupt

# How the process ends: an exit status, or one of the above.
cdef int ends_with = AS_EVER
cdef bint at_exit = False  # whether `end_late` is registered


cdef void end_late() noexcept nogil:
    """End the process, when the interpreter has been taken apart: its own exit status was decided before that."""
    if ends_with == INTERRUPTED:
        end_by_signal(SIGINT)
    elif ends_with != AS_EVER:
        exit(ends_with)


def end_with(error):
    """Have the process end as after `error`, an uncaught exception of the main thread; print it, as that does.

    For exceptions that come when the program's code is over and the interpreter's exit status is decided.  The last
    counts.  RuntimeError if C has no room for another function to call at the end.
    """
    global ends_with, at_exit
    ends_with = status_of(error)
    if not at_exit and Py_AtExit(end_late) != 0:
        raise RuntimeError("Py_AtExit failed: the exit status cannot be changed")
    at_exit = True


def end_process(error, tb):
    """End this process as the interpreter does after `error`, an exception or its class, in the main thread.

    Without an error it ends as the child does when a thread has forked and its function returns: with status 0, and
    without calling `atexit` functions.
    """
    cdef int status = 0
    if error is not None:
        if isinstance(error, type):
            error = error()
        status = status_of(error.with_traceback(tb))
        for thread in threading.enumerate():
            if not thread.daemon and not isinstance(thread, not_joined):
                thread.join()
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    if ends_with != AS_EVER:
        status = ends_with
    if status == INTERRUPTED:
        end_by_signal(SIGINT)
    os._exit(status & 0xFF)


cdef int status_of(error) except? -1:
    """The exit status after `error`, whose message or traceback is printed; or INTERRUPTED."""
    if not isinstance(error, SystemExit):
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except BaseException:
            traceback.print_exception(error)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1
