# See hub.pyx.
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_type_lock

from weald._core.c_greenlet cimport greenlet
from weald._core.loop cimport Loop

cdef enum WaiterState:
    PARKED
    READY  # its wake-up is under way
    RUNNING  # being switched to
    DONE

cdef enum TimerState:
    IDLE
    PENDING  # in the heap
    DUE  # expired, its work is in the ready ring
    OVER

cdef class Hub(greenlet)

cdef class Watched:
    cdef bint busy  # a watcher is active: the loop's rounds call callbacks
    cdef double before_poll(self, double deadline) except -1.0
    cdef int after_poll(self) except -1
    cdef int forked(self) except -1
    cdef int closed(self) except -1

cdef class SignalWatch:
    cdef int before_wait(self) except -1
    cdef int after_wait(self) except -1
    cdef bint owns(self, int fd) noexcept
    cdef int close(self, bint in_main_thread) except -1

cdef class Runnable:
    cdef int run(self, Hub hub) except -1
    cdef int abandon(self) except -1

cdef class Callback(Runnable):
    cdef public object callback
    cdef public tuple args

cdef class Waiter:
    cdef Hub hub  # None: a thread without a hub
    cdef greenlet parked  # the greenlet, while it waits
    cdef WaiterState state
    cdef bint timed_out
    cdef bint lost  # it had been woken when something was thrown in: the waker's gift is to be passed on
    cdef object value  # what the waker hands over
    cdef object what  # what it waits for, for reports
    cdef double since
    cdef void *next  # WaitList links
    cdef void *prev
    cdef void *list
    cdef void *hub_next  # Hub's list of the parked
    cdef void *hub_prev
    cdef PyThread_type_lock lock
    cdef bint resume(self, object value) except -1

cdef class BaseTimer(Runnable):
    cdef Hub hub
    cdef double when
    cdef readonly bint ref
    cdef bint calls
    cdef TimerState state
    cdef int start(self, Hub hub, double seconds) except -1
    cdef int stop(self) except -1
    cdef int expire(self) except -1

cdef class WakeTimer(BaseTimer):
    cdef Waiter waiter

cdef class Throw(Runnable):
    cdef greenlet target
    cdef object exception
    cdef object traceback

cdef struct HeapItem:
    double when
    unsigned long long seq
    void *timer  # BaseTimer, owned

cdef class Hub(greenlet):
    cdef Loop backend
    cdef Watched watched  # what users see as `hub.loop`; None until somebody looks
    cdef readonly greenlet main  # the main line: the thread's main greenlet; in a fork's child who has forked
    cdef readonly unsigned long thread_ident
    cdef public object threadpool
    cdef public object resolver
    cdef public object name
    # ready ring
    cdef void **ring
    cdef Py_ssize_t ring_head
    cdef Py_ssize_t ring_count
    cdef Py_ssize_t ring_mask
    cdef Py_ssize_t batch_owed  # items that were ready when the batch began: all of them run
    cdef Py_ssize_t batch_extra  # how many more may run before the next poll
    cdef long batch_tick
    cdef bint timeless  # the loop's clock is no real one: nothing may depend on how long something took
    cdef Py_ssize_t calls  # of give_way since the last switch
    # timers
    cdef HeapItem *heap
    cdef Py_ssize_t heap_count
    cdef Py_ssize_t heap_size
    cdef Py_ssize_t heap_dead
    cdef unsigned long long heap_seq
    # state
    cdef Py_ssize_t refs  # what can still wake somebody
    cdef int polling  # 1: blocked in poll, 2: and woken
    cdef bint stopping
    cdef bint running
    cdef bint lent  # the hub greenlet only waits for the greenlet it switched to: that one may turn the loop itself
    cdef double loop_time
    cdef void *parked_head
    cdef list idlers
    cdef list fds  # descriptor number to FdEntry or None; descriptor.pyx owns it
    cdef SignalWatch signals  # None but in the main thread
    cdef unsigned long generation  # how many forks ago this hub began
    cdef double forked_at
    cdef object idents
    cdef int grow_ring(self) except -1
    cdef int push(self, object item) except -1
    cdef int push_first(self, object item) except -1
    cdef object pop(self)
    cdef void begin_batch(self) noexcept
    cdef bint batch_goes_on(self) noexcept
    cdef int run_batch(self) except -1
    cdef int run_next(self) except -1
    cdef int begin(self, greenlet g) except -1
    cdef int switched(self, PyObject *result, greenlet g) except -1
    cdef int heap_push(self, BaseTimer timer) except -1
    cdef void sift_down(self, Py_ssize_t i) noexcept
    cdef int heap_drop(self, BaseTimer timer) except -1
    cdef object heap_pop(self)
    cdef double next_deadline(self) noexcept
    cdef int fire_timers(self, bint here) except -1
    cdef int check_made(self) except -1
    cdef int turn(self, double deadline) except -1
    cdef int poll(self, double deadline) except -1
    cdef int wake_idlers(self) except -1
    cdef int watch_signals(self) except -1
    cdef int close_signals(self) except -1
    cdef int report_deadlock(self) except -1
    cdef greenlet forking(self)
    cdef bint main_goes_on(self) noexcept
    cdef int end_child(self, object exception, object traceback) except -1
    cdef int forked(self) except -1
    cdef object park(self, Waiter waiter, object what)
    cdef bint turn_here(self, Waiter waiter) except -1
    cdef Waiter waiter(self)
    cdef int throw_into(self, greenlet target, object exception, object traceback) except -1
    cdef int throw_into_main(self, object exception, object traceback) except -1

cdef greenlet current_greenlet()
cdef greenlet acting_greenlet()
cdef Hub current_hub()
cdef Hub current_hub_or_none()
cdef bint in_main_thread() noexcept
cdef bint has_hub() noexcept
cdef bint is_exiting() noexcept
cdef bint is_fresh_fork() noexcept
cdef long tick() noexcept
