# See waiting.pyx.

cpdef bint is_ready(int fd, short event) except -1
cdef Py_ssize_t at_once(int fd, object data, bint reads, Py_ssize_t *size) except -2
cdef Py_ssize_t write_nowait(int fd, void *data, size_t size) noexcept

cdef enum:
    MOMENT = 4096  # bytes that are copied faster than other threads could begin to run
