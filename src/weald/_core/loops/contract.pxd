# The contract between the hub and a backend; see contract.pyx.

cdef enum:
    READ_EVENT = 1
    WRITE_EVENT = 2
    DISARMED_EVENT = 4

cdef class Target:
    cdef int ready(self, int events) except -1

cdef struct Fired:
    void *watch  # FdWatch, borrowed; NULL once closed
    int events

cdef struct FiredList:
    Fired *items
    int count
    int size

cdef int report(FiredList *fired, void *watch, int events) noexcept nogil

cdef class FdWatch:
    cdef Loop loop
    cdef readonly int fd
    cdef readonly int events
    cdef Target target
    cdef int update(self, int events) except -1
    cdef int close(self) except -1

cdef class Loop:
    cdef FiredList fired
    cdef list changed
    cdef readonly bint destroyed
    cdef bint polling  # the hub is in a `poll` that may wait, and no other thread has ended it yet
    cdef readonly double shortest_wait  # seconds: instead of a shorter wait, polling without waiting is cheaper
    cdef double time(self) noexcept
    cdef FdWatch watch(self, int fd, Target target)
    cdef int poll(self, double deadline) except -1
    cdef void wake(self) noexcept
    cdef int dispatch(self) except -1
    cdef int close(self) except -1
    cdef int forked(self) except -1
    cdef int settle(self) except -1
    cdef int reopened(self) except -1
    cdef bint owns(self, int fd) noexcept
    cdef void forget(self, FdWatch watch) noexcept
    cdef int check_changed(self) except -1

cpdef double monotonic() noexcept nogil
cdef int check_room(int pipes, int others) except -1
cdef int why_unwatchable(int fd) noexcept


cdef inline void end_poll(Loop loop) noexcept:
    """End the poll that is under way (`loop.polling`); once is enough.  Any thread, with the GIL."""
    loop.polling = False
    loop.wake()
