# See reports.pyx.

cdef bint other_threads_may_wake() noexcept
cdef bint handlers_may_wake() noexcept
cdef void count_idle(int change) noexcept
cdef void forget_helpers() noexcept
cdef str deadlock_report(list parked, object main, double now)
cdef int print_error(object context, object type, object value, object tb) except -1
