"""Interfaces through which the hub calls the rooms above it, which implement them.

Called by: hub.pyx, running_loop.pyx, reports.pyx, event.pyx, greenlet.pyx; implemented by watchers/base.pyx
(`Watched`), signals.pyx (`SignalWatch`), scopes.pyx (`Supervisor`), aio/core.pyx (`Driven`) and weald.aio.calls
(`await_it`).
"""


cdef class Watched:
    """The watchers of a hub's loop."""

    cdef double before_poll(self, double deadline) except -1.0:
        """Called before the loop polls; returns the deadline of the poll, `deadline` or earlier."""
        return deadline

    cdef int after_poll(self) except -1:
        return 0

    cdef int forked(self) except -1:
        """Called in a fork's child, after everything else."""
        return 0

    cdef int closed(self) except -1:
        """Called when the hub ends."""
        return 0


cdef class SignalWatch:
    """Makes signals end the hub's wait."""

    cdef int before_wait(self) except -1:
        """Called before a poll that may wait."""
        return 0

    cdef int after_wait(self) except -1:
        return 0

    cdef bint owns(self, int fd) noexcept:
        """Whether descriptor `fd` is one on which signals are announced."""
        return False

    cdef int close(self) except -1:
        """Stop: signals do not end the hub's wait any more."""
        return 0


cdef class Supervisor:
    """What a Greenlet belongs to that does not report its own error."""

    cdef int ended(self, object task) except -1:
        """Called once when `task` has its outcome, before those that join it are woken.  Any thread."""
        return 0


cdef object awaiting = None  # awaiting(object) returns the iterator for `await` of a greenlet or an AsyncResult


def set_awaiting(function):
    """Make `await` of greenlets and AsyncResults iterate over `function(object)`."""
    global awaiting
    awaiting = function


cdef object await_it(object waited):
    """The iterator for `await waited`."""
    if awaiting is None:
        raise RuntimeError(
            "await of a greenlet or an AsyncResult needs weald's event loop: run the coroutine by weald.aio.run")
    return awaiting(waited)


cdef class Driven:
    """An asyncio loop whose callbacks a greenlet runs."""

    cdef int parking(self) except -1:
        """Called when the callback that is running (see `Hub.driving`) parks.  Must not run Python code."""
        return 0

    cdef list waiting(self):
        """Lines that say what its tasks wait for."""
        return []

    cdef object step(self):
        """The lock.Step of the callback that the current greenlet is in."""
        return None
