"""A loop without an operating system under it: time jumps to the next deadline.

Called by: backends.py, when "virtual" is chosen.
Invariants: time advances only in `poll`, to exactly the deadline.  Descriptors cannot be watched.
With nothing scheduled, `poll` waits for another thread's `wake`.
"""

from cpython.pythread cimport (
    NOWAIT_LOCK, WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_release_lock, PyThread_type_lock)
from libc.errno cimport EPERM
from libc.math cimport isinf

from weald._core.loops.contract cimport FdWatch, Loop, Target

cdef double BEGINNING = 1000.0  # seconds


cdef class VirtualLoop(Loop):
    """A loop whose clock jumps."""

    name = "virtual"
    cdef double clock
    cdef PyThread_type_lock woken  # held, except between a wake and the poll it ends

    def __cinit__(self):
        self.clock = BEGINNING
        self.shortest_wait = 0.0  # this clock stands still unless `poll` waits
        self.woken = PyThread_allocate_lock()
        if self.woken == NULL:
            raise MemoryError
        PyThread_acquire_lock(self.woken, WAIT_LOCK)

    def __dealloc__(self):
        if self.woken != NULL:
            PyThread_free_lock(self.woken)

    cdef double time(self) noexcept:
        return self.clock

    cdef FdWatch watch(self, int fd, Target target):
        raise OSError(
            EPERM, f"the virtual clock cannot watch descriptor {fd}: use the libuv or libev loop for I/O")

    cdef int poll(self, double deadline) except -1:
        if deadline == 0.0:
            return 0
        if isinf(deadline):
            with nogil:
                PyThread_acquire_lock(self.woken, WAIT_LOCK)
            return 0
        if deadline > self.clock:
            self.clock = deadline
        return 0

    cdef void wake(self) noexcept:
        # Under the GIL, and the hub sends at most one wake per poll: see `end_poll`.
        PyThread_acquire_lock(self.woken, NOWAIT_LOCK)
        PyThread_release_lock(self.woken)
