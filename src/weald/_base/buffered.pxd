# See buffered.pyx.

cdef class Turns:
    cdef public int fd  # the raw file's, -1 when it is closed
    cdef list inside  # greenlets in a call of the raw file
    cdef Py_ssize_t waiting
    cdef Py_ssize_t busy  # calls under way that consist of several
    cdef object left  # an Event: somebody has left
    cdef Turns outer  # of the text above the buffer whose these are
    cdef Turns below(self)
    cdef object enter(self)
    cdef int leave(self, object current) except -1
    cdef int come(self) except -1
