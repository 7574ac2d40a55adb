# See waiters.pyx.
from weald._core.hub cimport Waiter

cdef struct WaitList:
    void *head  # Waiter, owned
    void *tail
    Py_ssize_t count

cdef void append(WaitList *list, Waiter waiter) noexcept
cdef void remove(WaitList *list, Waiter waiter) noexcept
cdef Waiter first(WaitList *list)
cdef void clear(WaitList *list) noexcept
cdef bint made_hub() except -1
cdef Waiter new_waiter(object value)
cdef int park(WaitList *list, Waiter waiter, object what, double timeout) except -1
cdef bint park_for(Waiter waiter, object what, double limit, bint ref) except -1
cdef int park_listed(WaitList *list, Waiter waiter, object what, double timeout) except -1
cdef int park_thread(Waiter waiter, double timeout) except -1
cdef bint wake_one(WaitList *list, object value) except -1
cdef Py_ssize_t wake_all(WaitList *list, object value) except -1
cdef double seconds(object timeout) except? -2.0
cdef int time_is_over(object timeout) except -1

cdef class Linkable:
    cdef WaitList waiters
    cdef object links  # see links.pyx
    cdef int run_links(self) except -1
    cdef int wait_for(self, object timeout) except -1
