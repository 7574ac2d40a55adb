# See stream.pyx.
from weald.aio.core cimport Core, FdWatcher, Job

cdef class Stream(Job):
    cdef object transport
    cdef FdWatcher watcher
    cdef int fd
    cdef object context
    cdef object ends  # addresses of which no text has been made; see transport.pyx
    cdef public bint buffered
    cdef public object protocol
    cdef public object buffer
    cdef public object empty_waiter
    cdef public int conn_lost
    cdef public bint closing
    cdef public bint paused
    cdef public bint eof
    cdef int begin(self, Core loop, object context) except -1
    cdef int receive(self) except -1
    cdef int fail(self, int error, str message) except -1
