# See yielding.pyx.
cdef bint is_others_turn(bint in_vain) except -1
cdef int give_way(bint asks) except -1
cdef int let_others_run() except -1
