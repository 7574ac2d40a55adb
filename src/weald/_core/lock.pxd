# See lock.pyx.
from weald._core.c_greenlet cimport greenlet

cdef class Step:
    cdef object base
    cdef greenlet runner
    cdef bint ended
    cdef list awaited  # RLocks that it may hold, and for which other steps wait; None: none
    cdef int end(self) except -1
    cdef int add(self, object lock) except -1

cdef Step new_step(object base, greenlet runner)
