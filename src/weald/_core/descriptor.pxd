# See descriptor.pyx.
from weald._core.hub cimport Hub, Waiter
from weald._core.loop cimport FdWatch, Target
from weald._core.waiters cimport WaitList

cdef class Listener:
    cdef int events
    cdef int fired
    cdef Waiter waiter
    cdef int ready(self, int events) except -1

cdef class FdEntry(Target):
    cdef Hub hub
    cdef int fd
    cdef int users
    cdef FdWatch watch
    cdef readonly bint always  # cannot be watched (a regular file): always ready
    cdef bint gone
    cdef WaitList readers
    cdef WaitList writers
    cdef list listeners
    cdef int wanted(self) except -1
    cdef int arm(self, int events) except -1
    cdef int wait(self, int events, double timeout) except -1
    cdef int listen(self, Listener listener) except -1
    cdef int release(self) except -1
    cdef int discard(self) except -1
    cdef int leave(self) except -1

cdef FdEntry entry_for(Hub hub, int fd)
cdef int check_fd(int fd) except -1
