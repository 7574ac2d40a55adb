# See frames.pyx.

cdef tuple calling_frames(Py_ssize_t limit)
cdef object as_frames(tuple stack)
