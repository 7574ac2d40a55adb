"""Forks: in the child, hubs start afresh.

Called by: the interpreter, in a fork's child; yielding.pyx (`is_fresh_fork`).
Invariants: in the child the parent's greenlets stay parked for good, except those that the forking greenlet wakes.
Nothing that was scheduled in the parent happens in the child.  But an asyncio loop keeps its calls and timers, for the
case that the child runs it.
"""

from weald._core.c_greenlet cimport *
from weald._core.hub cimport Hub, current_greenlet
from weald._core.reports cimport forget_helpers
from weald._core.ring cimport ring_pop
from weald._core.threads cimport adopt_process, current_hub, has_hub

import os

cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept, void (*parent)() noexcept, void (*child)() noexcept)

cdef bint fresh_fork = False


cdef void note_fork() noexcept nogil:
    global fresh_fork
    fresh_fork = True


cdef bint is_fresh_fork() noexcept:
    """Whether this is a fork's child whose hubs have not started afresh yet."""
    return fresh_fork


def _after_fork_in_child():
    global fresh_fork
    cdef Hub hub
    forget_helpers()
    mine = current_hub() if has_hub() else None
    if mine is not None:
        (<Hub>mine).main = main_line(mine)
    for hub in adopt_process():
        forget_parent(hub)
        if hub is not mine:
            hub.stopping = True
            hub.backend.close()
    fresh_fork = False


cdef greenlet main_line(Hub hub):
    """The greenlet whose end is the end of the child: the one that has forked.

    If other greenlets have switched to it and wait for it as its parents, it is the outermost of these.
    """
    cdef greenlet g = current_greenlet()
    if g is hub:
        return hub.main
    while g.parent is not None and g.parent is not hub:
        g = g.parent
    return g


cdef int forget_parent(Hub hub) except -1:
    """Drop everything that the parent had scheduled."""
    hub.generation += 1
    dropped = []
    while hub.ring.count > 0:
        dropped.append(ring_pop(&hub.ring))
    hub.timers.clear()
    hub.raisings = set()
    hub.refs = 0
    hub.threadpool = None
    hub.resolver = None
    hub.resident = None
    hub.idlers = []
    hub.onlookers = None
    hub.backend.polling = False
    hub.backend.forked()
    for entry in hub.fds:
        if entry is not None:
            entry.abandon()
    hub.fds = []
    if hub.watched is not None:
        hub.watched.forked()
    hub.forked_at = hub.backend.time()
    if hub.signals is not None:
        hub.close_signals()
        hub.backend.settle()  # libev opens a descriptor before it closes the old one, and aborts if there is none left
        hub.watch_signals()
    return 0


# Functions that other modules have registered, such as threading's, run before this.  They call `is_fresh_fork`.
if pthread_atfork(NULL, NULL, note_fork):
    raise MemoryError
os.register_at_fork(after_in_child=_after_fork_in_child)
