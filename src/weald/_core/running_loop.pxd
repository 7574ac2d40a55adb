# See running_loop.pyx.

cdef Py_ssize_t loops
cdef object put_aside()
cdef int take_back(object loop) except -1
