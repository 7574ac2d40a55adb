# See forks.pyx.

cdef bint is_fresh_fork() noexcept
