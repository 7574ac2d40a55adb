# The class of state.pyx, for the other compiled modules of weald.http.

from weald.http.protocol cimport HeadParser


cdef class ServerState:
    cdef readonly object limits
    cdef readonly HeadParser parser
    cdef readonly bytearray buffer  # sockets receive into it; what came is copied before any other code runs
    cdef public bint draining
    cdef readonly long served
    cdef long most_requests  # `limits` again, as C numbers; times in seconds
    cdef double head_timeout, keep_alive_timeout, body_timeout, body_grace, body_rate, write_timeout
    cdef Py_buffer counted_in
    cdef double *counters  # the numbers in `counted_in`; NULL: responses are not counted
    cdef list bounds

    cpdef int count(self, long code, double seconds) except -1
