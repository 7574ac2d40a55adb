# See waiting.pyx.

cpdef bint is_ready(int fd, short event) except -1
cdef Py_ssize_t at_once(int fd, object data, bint reads, Py_ssize_t *size) except -2
