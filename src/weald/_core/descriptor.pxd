# See descriptor.pyx.
from weald._core.hub cimport Hub, Waiter
from weald._core.loops.contract cimport FdWatch, Target
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
    cdef readonly bint always  # it cannot be watched (a regular file) and is always ready
    cdef bint gone  # it has left the loop
    cdef int ending  # what other threads want and `end` will do: that many times `detach`, or `close` (below 0)
    cdef WaitList readers
    cdef WaitList writers
    cdef list listeners
    cdef int wanted(self) except -1
    cdef int wanted_by_listeners(self) except -1
    cdef int change(self) except -1
    cdef int arm(self, int events) except -1
    cdef int wait(self, int events, double timeout) except -1
    cdef int listen(self, Listener listener) except -1
    cdef int unlisten(self, Listener listener) except -1
    cdef int renew(self) except -1
    cdef int release(self) except -1
    cdef int discard(self) except -1
    cdef int detach(self) except -1
    cdef int rouse(self) except -1
    cdef int leave(self) except -1
    cdef int end_from_elsewhere(self, bint closing) except -1

cdef FdEntry entry_for(Hub hub, int fd)
cdef FdEntry lasting_entry(Hub hub, int fd, bint own)
cdef int check_fd(int fd) except -1

cdef enum Kind:
    UNKNOWN
    STREAM
    NO_STREAM

cdef class Descriptor:
    cdef int number
    cdef Kind kind
    cdef public bint ref  # a wait for it counts as something that may wake a greenlet
    cdef bint drained  # the last recv returned less than was asked for
    cdef double limit  # the timeout in seconds; -1.0: none
    cdef public double receive_limit  # SO_RCVTIMEO in seconds; 0.0: none
    cdef public double send_limit  # SO_SNDTIMEO, likewise
    cdef FdEntry entry
    cdef list others  # entries in the loops of other threads
    cdef FdEntry find_entry(self)
    cdef int wait(self, int events, double timeout) except -1
    cdef int wait_unnoticed(self, FdEntry entry, int events, double timeout) except -1
    cdef bint is_stream(self, object sock) except -1
    cdef object receive(self, object sock, char *buffer, Py_ssize_t size, int flags)
    cdef Py_ssize_t transmit(self, const char *data, Py_ssize_t size, int flags, double *end) except -1
    cdef object receive_rest(self, bytes begin, char *buffer, Py_ssize_t got, Py_ssize_t size, int flags)
    cdef Py_ssize_t transmit_rest(self, const char *data, Py_ssize_t size, Py_ssize_t sent, int flags) except -1
    cdef int transmit_all(self, const char *data, Py_ssize_t size, int flags) except -1
    cdef double deadline(self) except? -2.0

cdef Descriptor descriptor_of(object sock)
