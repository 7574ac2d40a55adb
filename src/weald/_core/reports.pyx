"""Reports of deadlocks and of uncaught exceptions: when they are due, and their text.

Called by: hub.pyx, forks.pyx, aio/core.pyx; modules with helper threads (`helper_idle`).
Invariants: a deadlock is reported only while no other thread could wake a greenlet.  Helper threads of weald's own
cannot while they wait for work; `helper_idle` counts those.
"""

from weald._core.hooks cimport Driven

import traceback as tracebacks

from weald._core.logs import report

cdef extern from * nogil:
    """
    /* How many other Python threads live in this interpreter.  GIL held. */
    static int weald_other_threads(void)
    {
        int n = -1;
        PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
        for (; t != NULL; t = PyThreadState_Next(t))
            n++;
        return n;
    }
    """
    int other_threads "weald_other_threads"()

cdef enum:
    MAX_GREENLETS = 50  # in a report
    MAX_FRAMES = 6  # of each

cdef Py_ssize_t idle_helpers = 0
cdef bint signals_handled = False  # the program has handlers of signals


cdef bint other_threads_may_wake() noexcept:
    """Whether there are threads that might wake a greenlet of this one."""
    return other_threads() > idle_helpers


cdef void count_idle(int change) noexcept:
    global idle_helpers
    idle_helpers += change


def helper_idle(int change):
    """Count a helper thread that waits for work and so wakes no greenlet: 1 when its wait begins, -1 when it ends.

    A deadlock can be reported while all other threads are idle helpers.
    """
    count_idle(change)


cdef bint handlers_may_wake() noexcept:
    """Whether the program has handlers of signals, which may wake a greenlet."""
    return signals_handled


def signals_may_wake(bint handled):
    """Set whether the program has signal handlers.  While it has, no deadlock is reported: they may wake a greenlet."""
    global signals_handled
    signals_handled = handled


cdef void forget_helpers() noexcept:
    """In a fork's child: set the count of helper threads to 0, because the parent's do not exist here."""
    global idle_helpers
    idle_helpers = 0


def lines_of_task(task):
    """Where in its coroutines an asyncio task waits, as lines of a report, the innermost last."""
    lines = []
    coroutine = task.get_coro()
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None:
            lines.append(f"      {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return lines


cdef str deadlock_report(list parked, object main, double now):
    """The text of a LoopExit: what each greenlet of `parked` (see `Hub.parked`) waits for, since when and where."""
    lines = ["This operation would block forever: nothing is left that could wake a greenlet"]
    for g, what, since in parked[:MAX_GREENLETS]:
        lines.append(f"  {g!r} waits for {what!r} since {max(now - since, 0.0):.1f} s")
        if isinstance(what, Driven):
            lines.extend((<Driven>what).waiting())
        elif hasattr(what, "get_coro"):
            lines.extend(lines_of_task(what))
        frame = g.gr_frame
        if frame is None and g is main:
            continue
        for entry in tracebacks.extract_stack(frame)[-MAX_FRAMES:] if frame is not None else ():
            lines.append(f"    {entry.filename}:{entry.lineno} in {entry.name}")
    return "\n".join(lines)


cdef int print_error(object context, object type, object value, object tb) except -1:
    """Write the traceback and `context` to sys.stderr; nothing for KeyboardInterrupt and SystemExit."""
    if issubclass(type, (KeyboardInterrupt, SystemExit)):
        return 0
    text = ""
    try:
        text = "".join(tracebacks.format_exception(type, value, tb))
        if context is not None:
            text += f"{context!r} failed with {type.__name__}\n\n"
    except Exception:
        pass  # a broken repr
    report(text)
    return 0
