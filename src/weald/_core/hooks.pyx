"""What the hub calls of rooms that lie above it: interfaces, which those rooms implement.

Called by: hub.pyx, running_loop.pyx; implemented by watchers/base.pyx (`Watched`), signals.pyx (`SignalWatch`) and
aio/core.pyx (`Driven`).
"""


cdef class Watched:
    """The watchers of a hub's loop."""

    cdef double before_poll(self, double deadline) except -1.0:
        """The loop is about to poll; returns when to be back at the latest."""
        return deadline

    cdef int after_poll(self) except -1:
        return 0

    cdef int forked(self) except -1:
        """In a fork's child, after everything else."""
        return 0

    cdef int closed(self) except -1:
        """The hub ends."""
        return 0


cdef class SignalWatch:
    """What makes signals end the hub's wait."""

    cdef int before_wait(self) except -1:
        """The loop is about to poll, and may wait."""
        return 0

    cdef int after_wait(self) except -1:
        return 0

    cdef bint owns(self, int fd) noexcept:
        """Whether descriptor `fd` is one that signals are announced on."""
        return False

    cdef int close(self) except -1:
        """Signals shall not end the hub's wait any more."""
        return 0


cdef class Driven:
    """A loop of asyncio's kind, whose callbacks a greenlet runs."""

    cdef int parking(self) except -1:
        """The callback that is running (`Hub.driving`) parks.  Must not run Python code."""
        return 0
