cdef bint trim() noexcept nogil
cdef void begin_stack() noexcept
