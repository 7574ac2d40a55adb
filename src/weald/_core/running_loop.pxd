# See running_loop.pyx.

cdef Py_ssize_t loops
cdef bint in_loop() noexcept
cdef int enter(object loop) except -1
cdef int leave() except -1
cdef object step_here()
cdef object put_aside(object what)
cdef int take_back(tuple aside) except -1
