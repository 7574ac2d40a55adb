"""What the hub calls of rooms that lie above it: interfaces, which those rooms implement.

Called by: hub.pyx, running_loop.pyx, reports.pyx, event.pyx, greenlet.pyx; implemented by watchers/base.pyx
(`Watched`), signals.pyx (`SignalWatch`), aio/core.pyx (`Driven`) and weald.aio.calls (`await_it`).
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


cdef object awaiting = None  # awaiting(object): what `await` of a greenlet or an AsyncResult iterates over


def set_awaiting(function):
    """Have `await` of greenlets and AsyncResults iterate over `function(object)`."""
    global awaiting
    awaiting = function


cdef object await_it(object waited):
    """Iterate over what `await waited` stands for."""
    if awaiting is None:
        raise RuntimeError(
            "await of a greenlet or an AsyncResult needs weald's event loop: run the coroutine by weald.aio.run")
    return awaiting(waited)


cdef class Driven:
    """A loop of asyncio's kind, whose callbacks a greenlet runs."""

    cdef int parking(self) except -1:
        """The callback that is running (`Hub.driving`) parks.  Must not run Python code."""
        return 0

    cdef list waiting(self):
        """Lines that say what its tasks wait for."""
        return []
