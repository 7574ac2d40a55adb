# See yielding.pyx.
cdef int give_way(bint asks) except -1
cdef int let_others_run() except -1
