cdef bint trim() noexcept nogil
