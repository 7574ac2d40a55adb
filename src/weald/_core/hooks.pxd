# See hooks.pyx.

cdef class Watched:
    cdef bint busy  # a watcher is active: the loop's rounds call callbacks
    cdef double before_poll(self, double deadline) except -1.0
    cdef int after_poll(self) except -1
    cdef int forked(self) except -1
    cdef int closed(self) except -1

cdef class SignalWatch:
    cdef int before_wait(self) except -1
    cdef int after_wait(self) except -1
    cdef bint owns(self, int fd) noexcept
    cdef int close(self) except -1

cdef class Supervisor:
    cdef int ended(self, object task) except -1

cdef object await_it(object waited)

cdef class Driven:
    cdef int parking(self) except -1
    cdef list waiting(self)
    cdef object step(self)
