# cython: nonecheck=True
"""idle, prepare and check: steps of the loop's rounds; fork: the beginning of a fork's child.

Called by: loop.pyx (`EventLoop.idle` and so on).
"""

from weald._core.c_python cimport show_as
from weald._core.watchers.base cimport IF_IDLE, MAY_WAIT, BeforePoll, Watcher, discard


cdef class RoundWatcher(Watcher):
    """Base of the watchers that take part in each of the loop's rounds."""

    cdef int arm(self) except -1:
        self.loop.in_rounds.append(self)
        return 0

    cdef int disarm(self) except -1:
        discard(self.loop.in_rounds, self)
        return 0


cdef class idle(RoundWatcher):
    """Fires in each round in which nothing else is ready.  The loop does not wait while it is active."""

    cdef BeforePoll before_poll(self) except? MAY_WAIT:
        return IF_IDLE


cdef class prepare(RoundWatcher):
    """Fires before each poll."""

    cdef BeforePoll before_poll(self) except? MAY_WAIT:
        self.fire(0)
        return MAY_WAIT


cdef class check(RoundWatcher):
    """Fires after each poll."""

    cdef int after_poll(self) except -1:
        self.fire(0)
        return 0


cdef class fork(Watcher):
    """Fires once in a fork's child."""

    cdef bint fires_after_fork(self) noexcept:
        return True


show_as(idle, "weald._core.watchers.idle")
show_as(prepare, "weald._core.watchers.prepare")
show_as(check, "weald._core.watchers.check")
show_as(fork, "weald._core.watchers.fork")
