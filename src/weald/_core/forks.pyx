"""Forks: in the child, hubs begin anew.

Called by: the interpreter, in a fork's child; yielding.pyx (`is_fresh_fork`).
Invariants: the parent's greenlets stay parked in the child for good, but for those that one running there wakes itself.
Nothing that the parent had scheduled happens in the child.
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
    """Whether this is a fork's child whose hubs still hold what the parent's held."""
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
    """Whose end is the child's: the greenlet that has forked.

    The main greenlet if it is waiting for that one, as greenlets do for their children.
    """
    cdef greenlet g = current_greenlet()
    if g is hub:
        return hub.main
    while g.parent is not None and g.parent is not hub:
        g = g.parent
    return g


cdef int forget_parent(Hub hub) except -1:
    """Keep nothing of what the parent had scheduled."""
    hub.generation += 1
    dropped = []
    while hub.ring.count > 0:
        dropped.append(ring_pop(&hub.ring))
    hub.timers.clear()
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
        hub.watch_signals()
    return 0


# Functions that others have registered, threading's for one, run before ours: the C function tells them.
if pthread_atfork(NULL, NULL, note_fork):
    raise MemoryError
os.register_at_fork(after_in_child=_after_fork_in_child)
