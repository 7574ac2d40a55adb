# See hub.pyx.
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_type_lock

from weald._core.c_greenlet cimport greenlet
from weald._core.hooks cimport Driven, SignalWatch, Watched
from weald._core.loops.contract cimport Loop
from weald._core.ring cimport Ring
from weald._core.timers cimport BaseTimer, Timers

cdef enum WaiterState:
    PARKED = 0  # of a new Waiter
    READY  # its wake-up is under way
    RUNNING  # being switched to
    DONE

cdef class Hub(greenlet)

cdef class Runnable:
    cdef int run(self, Hub hub) except -1

cdef class Callback(Runnable):
    cdef public object callback
    cdef public tuple args

cdef class Waiter:
    cdef Hub hub  # None: a thread without a hub
    cdef greenlet parked  # the greenlet, while it waits
    cdef WaiterState state
    cdef bint timed_out
    cdef bint lost  # an exception has ended the wait after the wake-up: the primitive passes `value` on
    cdef object value  # the value given by the waker
    cdef object what  # the object waited for, shown in reports
    cdef double since  # when it began to wait, on the loop's clock
    cdef void *next  # WaitList links
    cdef void *prev
    cdef void *list
    cdef void *hub_next  # Hub's list of the parked
    cdef void *hub_prev
    cdef PyThread_type_lock lock  # of a thread without a hub, while it waits
    cdef bint resume(self, object value) except -1

cdef class WakeTimer(BaseTimer):
    cdef Waiter waiter

cdef class Throw(Runnable):
    cdef greenlet target
    cdef object exception
    cdef object traceback

cdef class Hub(greenlet):
    cdef Loop backend
    cdef Watched watched  # `hub.loop`; None until it is first read
    cdef readonly greenlet main  # the thread's main greenlet; in a fork's child the one that has forked
    cdef readonly unsigned long thread_ident
    cdef public object threadpool
    cdef public object resolver
    cdef public object resident  # the asyncio loop on which `weald.aio.await_` runs coroutines; None: not made
    cdef public object name
    cdef Timers timers
    # the ready items: Waiters, greenlets that have not begun, Runnables
    cdef Ring ring
    cdef Py_ssize_t batch_left  # items that were ready when the batch began and have not run yet: all of them will
    cdef Py_ssize_t batch_extra  # how many more may run before the next poll
    cdef long batch_tick  # when the batch began, by `tick`
    cdef bint timeless  # the loop's clock is virtual: nothing may depend on how long something takes
    cdef Py_ssize_t calls_since_switch  # calls of `give_way` since then
    cdef Py_ssize_t refs  # how many things can still wake a greenlet; timers are counted in `timers.refs`
    cdef bint is_threads  # `get_hub` in its thread returns it
    cdef bint stopping
    cdef public Py_ssize_t traced  # how many watch switches to the hub greenlet; unless 0, every wait goes through it
    cdef bint resuming  # the hub greenlet waits in `run_next`: a greenlet that parks may do a round of the loop itself
    cdef double loop_time  # when the last poll or the last look at the timers was
    cdef void *parked_head  # of the list of parked Waiters: the latest
    cdef list idlers  # Waiters of `join`
    cdef list onlookers  # Waiters of `wait_blocked`; None without any
    cdef Waiter lingerer  # of `linger`, in a helper's thread
    cdef list fds  # descriptor number to FdEntry or None; descriptor.pyx owns it
    cdef dict scopes  # of greenlets in a scope, by address: the innermost CancelScope; None before the first
    cdef set raisings  # addresses of those in which Cancelled will be raised (see scopes.pyx)
    cdef SignalWatch signals  # of the main thread's hub; None in others
    cdef void *driving  # the Driven whose callback runs just now and has not parked yet; borrowed
    cdef readonly unsigned long generation  # how many forks ago this hub began
    cdef double forked_at
    cdef int push(self, object item) except -1
    cdef int push_first(self, object item) except -1
    cdef void begin_batch(self) noexcept
    cdef bint batch_goes_on(self) noexcept
    cdef int run_batch(self) except -1
    cdef int run_next(self) except -1
    cdef int begin(self, greenlet g) except -1
    cdef int switched(self, PyObject *result, greenlet g) except -1
    cdef int fire_timers(self, bint may_run_python) except -1
    cdef list unended(self)
    cdef int end_greenlets(self) except -1
    cdef int check_made(self) except -1
    cdef int run_round(self, double deadline) except -1
    cdef int run_idle_round(self, double deadline) except -1
    cdef int poll(self, double deadline) except -1
    cdef int wake_idlers(self) except -1
    cdef int wake_onlookers(self) except -1
    cdef bint has_others_parked(self) noexcept
    cdef int watch_signals(self) except -1
    cdef int close_signals(self) except -1
    cdef int report_deadlock(self) except -1
    cdef bint main_goes_on(self) noexcept
    cdef int end_child(self, object exception, object traceback) except -1
    cdef object park(self, Waiter waiter, object what)
    cdef int raise_blocking(self, object what) except -1
    cdef int raise_invalid(self, Waiter waiter, object what) except -1
    cdef bint round_here(self, Waiter waiter) except -1
    cdef bint look_here(self) except -1
    cdef Waiter waiter(self)
    cdef int move_ahead(self, Waiter waiter) except -1
    cdef int throw_into(self, greenlet target, object exception, object traceback) except -1
    cdef int throw_into_main(self, object exception, object traceback) except -1
    cdef int throw_first(self, greenlet target, object exception, object traceback) except -1

cdef int keep_last() except -1
cdef greenlet current_greenlet()
cdef greenlet acting_greenlet()
cdef long tick() noexcept
