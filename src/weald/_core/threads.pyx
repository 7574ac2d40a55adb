"""One hub per thread: making it, finding it, ending it with its thread.

Called by: every room that waits (`current_hub`), users (`get_hub`, `set_hub`), forks.pyx.
Invariants:
- A thread's hub is a C variable of that thread, so that finding it costs next to nothing.  `Keeper`, in the thread's
  state dict, owns the hub and ends it when the thread ends.  Greenlets that end with it are named on stderr.
- The main thread always has a hub when it waits: deadlocks are found there, and signals arrive there.  Other threads
  get one when they first need one.
- Functions that atexit calls may still make a hub and wait in it.  After that no hub is made any more; a call that must
  wait then blocks its thread.
"""

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF

from weald._core.c_greenlet cimport *
from weald._core.hub cimport Hub, current_greenlet, keep_last

import atexit
import threading
from sys import is_finalizing

from weald._core import hub as _hub
from weald._core.logs import report
from weald._core.loops.backends import load_loop

cdef extern from * nogil:
    """
    /* This thread's hub, borrowed: a Keeper owns it. */
    static __thread PyObject *weald_hub __attribute__((tls_model("initial-exec"))) = NULL;
    """
    PyObject *weald_hub

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict()  # borrowed

PyGreenlet_Import()

cdef unsigned long main_thread_ident = threading.main_thread().ident
cdef object hub_class = None  # set_hub_class
cdef object default_hub_class = lambda: Hub  # set_default_hub_class
cdef set hubs = set()  # all live hubs; guarded by the GIL (no Python code runs while it changes)
cdef bint exiting = False
cdef str KEEPER = "weald.hub"  # a Keeper's key in the thread's state dict


# ------------------------------------------------------------------ finding it

cdef Hub current_hub():
    """This thread's hub, made at the first call."""
    if weald_hub != NULL:
        return <Hub>weald_hub
    return make_hub()


cdef Hub current_hub_or_none():
    """This thread's hub; None in a thread that has none and need not have one.

    Late in the interpreter's shutdown the main thread makes no hub any more.  Once greenlets cannot switch any more,
    an existing hub is of no use, either: finalizers then wait as threads do.
    """
    if weald_hub != NULL and not exiting:
        return <Hub>weald_hub
    return hub_or_none()


cdef Hub hub_or_none():
    """`current_hub_or_none` where there is no hub yet, or the interpreter ends."""
    if weald_hub != NULL:
        return <Hub>weald_hub if greenlets_switch() else None
    if in_main_thread() and hubs_begin():
        return make_hub()
    return None


cdef bint hubs_begin():
    """Whether a hub can still be made: functions that atexit calls may need the first one."""
    return not exiting or (not is_finalizing() and greenlets_switch())


cdef bint greenlets_switch() noexcept:
    """Whether greenlets can still switch; False late in the interpreter's shutdown."""
    cdef PyObject *current = PyGreenlet_GetCurrent()
    if current == NULL:
        PyErr_Clear()
        return False
    Py_DECREF(<object>current)
    return True


cdef bint has_hub() noexcept:
    return weald_hub != NULL


cdef PyObject *hub_here() noexcept:
    """This thread's hub, borrowed; NULL if it has none.  For what is called very often."""
    return weald_hub


cdef bint in_main_thread() noexcept:
    return PyThread_get_thread_ident() == main_thread_ident


cdef bint is_exiting() noexcept:
    """Whether the interpreter has begun to end."""
    return exiting


cdef list living_hubs():
    """The hubs of all threads."""
    return list(hubs)


def get_hub():
    """This thread's hub, made at the first call.

    RuntimeError if there is none and the interpreter is shutting down.
    """
    return current_hub()


def get_hub_if_exists():
    """This thread's hub, or None if it has none."""
    if weald_hub != NULL and not (exiting and not greenlets_switch()):
        return <Hub>weald_hub
    return None


def can_park():
    """Whether other greenlets could run while this one waits: its thread has a hub, and this is not the hub itself."""
    return get_hub_if_exists() is not None and current_greenlet() is not <greenlet>weald_hub


def is_on_main_thread():
    """Whether this is the main native thread; in a fork's child, the one that has forked."""
    return in_main_thread()


def get_hub_with_rest():
    """This thread's hub if something that was started in it has not ended, else None."""
    if weald_hub != NULL and not exiting and (<Hub>weald_hub).has_rest():
        return <Hub>weald_hub
    return None


def waits_natively():
    """Whether the interpreter is ending and this thread can have no hub any more."""
    return exiting and current_hub_or_none() is None


# ------------------------------------------------------------------ making it

cdef Hub make_hub():
    if not hubs_begin():
        raise RuntimeError("the interpreter is shutting down: no event loop can be started any more")
    cdef Hub hub = (default_hub_class() if hub_class is None else hub_class)()
    if weald_hub != NULL:  # a signal handler has made one meanwhile, and spawned greenlets on it
        hub.destroy()
        return <Hub>weald_hub
    keep(hub)
    if hub.thread_ident == main_thread_ident:
        try:
            hub.watch_signals()
        except BaseException:  # no descriptors are left, say: the next call tries again
            hub.destroy()
            raise
    return hub


cdef int keep(Hub hub) except -1:
    """Make `hub` this thread's hub, owned by a Keeper."""
    global weald_hub
    (<dict>PyThreadState_GetDict())[KEEPER] = Keeper(hub)
    weald_hub = <PyObject *>hub
    hub.is_threads = True
    hubs.add(hub)
    return 0


def prepare_hub():
    """Import everything a hub needs, so that one can be made anywhere, even in a signal handler."""
    load_loop()
    if hub_class is None:
        default_hub_class()


def set_hub(Hub hub):
    """Make `hub` this thread's hub; None: the next one is made when needed.

    The previous hub keeps its parked greenlets until it is destroyed.  ValueError for a hub that
    was made in another thread or is destroyed.
    """
    global weald_hub
    cdef Hub before = <Hub>weald_hub if weald_hub != NULL else None
    if hub is before:
        return
    if hub is not None and (hub.thread_ident != PyThread_get_thread_ident() or hub.backend.destroyed):
        raise ValueError(f"only a living hub of this thread can be made its hub, not {hub!r}")
    if before is not None:
        before.is_threads = False
        before.close_signals()
        drop_keeper()
    if hub is None:
        weald_hub = NULL
        return
    keep(hub)
    if hub.thread_ident == main_thread_ident and hub.signals is None:
        hub.watch_signals()


def set_hub_class(cls):
    """Make hubs of class `cls` (a subclass of Hub) from now on; None: of the default.  TypeError for other classes."""
    global hub_class
    if cls is not None and not issubclass(cls, Hub):
        raise TypeError(f"a hub class must derive from weald's Hub, got {cls!r}")
    hub_class = cls


def set_default_hub_class(find):
    """Until `set_hub_class` is called, make each new hub of the class that `find()` returns at that moment."""
    global default_hub_class
    default_hub_class = find


# ------------------------------------------------------------------ ending it

class Keeper:
    """Lies in a thread's state dict, and is freed when the thread ends: then it ends the hub."""

    __slots__ = ("hub",)

    def __init__(self, hub):
        self.hub = hub

    def __del__(self):
        hub, self.hub = self.hub, None
        # A fork's child frees the states of the parent's other threads, and must not end their greenlets.
        if hub is not None and not exiting and hub.thread_ident == PyThread_get_thread_ident():
            end_of_thread(hub)


cdef int drop_keeper() except -1:
    keeper = (<dict>PyThreadState_GetDict()).pop(KEEPER, None)
    if keeper is not None:
        keeper.hub = None
    return 0


cdef int end_of_thread(Hub hub) except -1:
    """End the greenlets of `hub`, which would never be freed otherwise, then the hub."""
    global weald_hub
    cdef int later
    unended = [repr(g) for g in hub.unended()]
    hub.end_greenlets()
    later = hub.timers.abandon_all()
    weald_hub = NULL  # so that `forget` leaves the state dict alone, which is being cleared
    hub.destroy()
    if unended or later:
        report_lost(unended, later)
    return 0


cdef int report_lost(list unended, int later) except -1:
    """Report the greenlets that have ended with their thread.  `later` more were scheduled to begin."""
    if later:
        unended.append(f"{later} that were to begin later")
    report("weald: a native thread has ended before the greenlets that it began, so they have ended, too:\n"
           + "".join(f"  {line}\n" for line in unended)
           + "Join them, or weald.get_hub(), at the end of the thread's function.\n")
    return 0


def forget(Hub hub):
    """Forget `hub`, which is destroyed.  If it was this thread's, the thread may make a new one."""
    global weald_hub
    hubs.discard(hub)
    hub.is_threads = False
    if weald_hub == <PyObject *>hub:
        weald_hub = NULL
        drop_keeper()


cdef list adopt_process():
    """In a fork's child: make this thread the main one, and its hub, if it has one, the only living one.

    Returns the parent's hubs, this thread's included.
    """
    global main_thread_ident, hubs
    parents = list(hubs)
    main_thread_ident = PyThread_get_thread_ident()
    hubs = set() if weald_hub == NULL else {<object>weald_hub}
    return parents


def _at_exit():
    """Remember that the interpreter has begun to shut down."""
    global exiting
    keep_last()
    exiting = True


_hub.set_forget_hub(forget)
atexit.register(_at_exit)
