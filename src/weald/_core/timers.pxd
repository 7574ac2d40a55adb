# See timers.pyx.
cimport cython

from weald._core.loops.contract cimport Loop

cdef enum TimerState:
    IDLE
    PENDING  # in the heap
    OVER


@cython.no_gc  # repeated here for derived classes in other modules
cdef class BaseTimer:
    cdef Timers timers  # of the hub it was started in
    cdef double when
    cdef readonly bint ref  # a hub with this timer has something to wait for
    cdef bint runs_python  # its `expire` does
    cdef TimerState state
    cdef int start(self, Timers timers, double seconds) except -1
    cdef int start_at(self, Timers timers, double when) except -1
    cdef int stop(self) except -1
    cdef int expire(self) except -1
    cdef int abandon(self) except -1
    cdef int forked(self) except -1

cdef struct HeapItem:
    double when
    unsigned long long number  # in the order of starting
    void *timer  # BaseTimer, owned

cdef class Timers:
    cdef Loop loop
    cdef Py_ssize_t refs  # pending timers with `ref`
    cdef HeapItem *items
    cdef Py_ssize_t count
    cdef Py_ssize_t size
    cdef Py_ssize_t stopped  # how many of the `count` entries are stopped and will not fire
    cdef unsigned long long started
    cdef int push(self, BaseTimer timer) except -1
    cdef void sift_down(self, Py_ssize_t i) noexcept
    cdef int drop(self, BaseTimer timer) except -1
    cdef BaseTimer pop(self)
    cdef double next_deadline(self) noexcept
    cdef int fire(self, double now, bint may_run_python) except -1
    cdef int abandon_all(self) except -1
    cdef int clear(self) except -1
