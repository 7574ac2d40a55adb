"""The queue in which greenlets and threads wait for a primitive; first come, first woken.

Greenlets of any thread and threads without a hub wait in it alike: each waiter knows how it is woken (see
`Waiter.resume`).

Called by: every room that waits: primitives, descriptors, timeouts.
Invariants:
- Wake-ups are FIFO and each wakes exactly one waiter that still waits.
- No other code runs between a primitive's check that it has to wait and `append`.  Making the hub runs Python code, so
  a primitive calls `made_hub` before it waits, and checks again if that made one.
- After `park` the waiter is not in the list.  If an exception (a kill, a Timeout) ends the wait after the waiter
  was woken, `waiter.lost` is true, and the primitive passes the waiter's value on.
- The GIL guards every list; no function here runs Python code.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    WAIT_LOCK, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_type_lock)
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan

from weald._core.hub cimport DONE, PARKED, Hub, Waiter, WakeTimer
from weald._core.links cimport add_link, drop_link, schedule_links
from weald._core.loops.contract cimport monotonic
from weald._core.threads cimport current_hub_or_none, has_hub

cdef extern from "Python.h":
    ctypedef enum PyLockStatus:
        PY_LOCK_FAILURE
        PY_LOCK_ACQUIRED
        PY_LOCK_INTR
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long, int) nogil


cdef double LONGEST_WAIT = 3600.0  # seconds per call: longer ones overflow on some systems
cdef int INTERRUPTIBLE = 1


cdef void append(WaitList *list, Waiter waiter) noexcept:
    Py_INCREF(waiter)
    waiter.list = list
    waiter.next = NULL
    waiter.prev = list.tail
    if list.tail != NULL:
        (<Waiter>list.tail).next = <void *>waiter
    else:
        list.head = <void *>waiter
    list.tail = <void *>waiter
    list.count += 1


cdef void remove(WaitList *list, Waiter waiter) noexcept:
    """Remove `waiter`, if it is in `list`."""
    if waiter.list != list:
        return
    waiter.list = NULL
    if waiter.prev != NULL:
        (<Waiter>waiter.prev).next = waiter.next
    else:
        list.head = waiter.next
    if waiter.next != NULL:
        (<Waiter>waiter.next).prev = waiter.prev
    else:
        list.tail = waiter.prev
    waiter.next = waiter.prev = NULL
    list.count -= 1
    Py_DECREF(waiter)


cdef Waiter first(WaitList *list):
    """Take the first waiter that still waits off the list; None if there is none."""
    cdef Waiter waiter
    while list.head != NULL:
        waiter = <Waiter>list.head
        remove(list, waiter)
        if waiter.state == PARKED:
            return waiter
    return None


cdef void clear(WaitList *list) noexcept:
    while list.head != NULL:
        remove(list, <Waiter>list.head)


cdef bint made_hub() except -1:
    """Make this thread's hub if it needs one and has none.  True if one was made.

    Other threads run meanwhile, so the event that the caller is about to wait for may have happened.
    """
    return not has_hub() and current_hub_or_none() is not None


cdef Waiter new_waiter(object value):
    """A waiter for the current greenlet, or the current thread if it has no hub."""
    cdef Hub hub = current_hub_or_none()
    cdef Waiter waiter
    if hub is None:
        waiter = Waiter.__new__(Waiter)
    else:
        waiter = hub.waiter()
    waiter.value = value
    return waiter


cdef int park(WaitList *list, Waiter waiter, object what, double timeout) except -1:
    """Wait in `list` until woken, or for `timeout` seconds (negative: for ever).

    Returns 1 when woken (`waiter.value` is the value given by the waker), 0 when timed out.
    """
    append(list, waiter)
    return park_listed(list, waiter, what, timeout)


cdef bint park_for(Waiter waiter, object what, double limit, bint ref) except -1:
    """Park a waiter of a hub, `limit` seconds at most.  Return False when that time is over.

    With `ref` false the hub does not wait for the timeout if nothing else is left to wait for.
    """
    cdef WakeTimer timer
    if limit == 0.0 and <void *>waiter.parked == <void *>waiter.hub:
        # In a callback of the loop, which cannot wait, a timeout of 0 is over at once.
        waiter.state = DONE
        waiter.timed_out = True
        return False
    timer = WakeTimer.__new__(WakeTimer)
    timer.waiter = waiter
    timer.ref = ref
    timer.start(waiter.hub.timers, limit)
    try:
        waiter.hub.park(waiter, what)
    finally:
        timer.stop()
        timer.waiter = None
    return not waiter.timed_out


cdef int park_listed(WaitList *list, Waiter waiter, object what, double timeout) except -1:
    """`park` for a waiter that is in `list` (or woken) already."""
    try:
        if waiter.hub is None:
            park_thread(waiter, timeout)
        elif timeout < 0.0:
            waiter.hub.park(waiter, what)
        else:
            park_for(waiter, what, timeout, True)
    finally:
        remove(list, waiter)
    return not waiter.timed_out


cdef bint wake_one(WaitList *list, object value) except -1:
    """Wake the first waiter; returns False if there is none."""
    cdef Waiter waiter = first(list)
    if waiter is None:
        return False
    waiter.resume(value)
    return True


cdef Py_ssize_t wake_all(WaitList *list, object value) except -1:
    """Wake all waiters, first come, first woken; returns how many."""
    cdef Py_ssize_t n = 0
    while wake_one(list, value):
        n += 1
    return n


cdef double seconds(object timeout) except? -2.0:
    """A timeout argument (a number, None or a Timeout) as seconds: None is -1.0 (for ever), negative ones are 0.0."""
    cdef double value
    if timeout is None:
        return -1.0
    if isinstance(timeout, BaseException):  # a Timeout, of which only the seconds count here
        return seconds(timeout.seconds)
    value = timeout
    if isnan(value):
        raise ValueError("a timeout must be a number of seconds or None, not nan")
    return value if value > 0.0 else 0.0


cdef int time_is_over(object timeout) except -1:
    """A wait of `timeout` has ended without success: raise the exception that a Timeout was made with."""
    if isinstance(timeout, BaseException):
        exception = timeout.exception
        if exception is not None and exception is not False and type(exception) is not str:
            raise exception
    return 0


cdef int park_thread(Waiter waiter, double timeout) except -1:
    """Park a thread that has no hub on an OS lock; negative `timeout` (seconds): for ever."""
    cdef PyLockStatus status
    cdef double deadline = monotonic() + timeout
    cdef long long microseconds = -1
    cdef bint ended = False
    waiter.lock = PyThread_allocate_lock()
    if waiter.lock == NULL:
        raise MemoryError
    PyThread_acquire_lock(waiter.lock, WAIT_LOCK)
    try:
        while waiter.state == PARKED:
            if timeout >= 0.0:
                microseconds = <long long>(min(max(deadline - monotonic(), 0.0), LONGEST_WAIT) * 1e6)
            with nogil:
                status = PyThread_acquire_lock_timed(waiter.lock, microseconds, INTERRUPTIBLE)
            if status == PY_LOCK_INTR:
                PyErr_CheckSignals()
            elif status == PY_LOCK_FAILURE and waiter.state == PARKED and timeout >= 0.0 and monotonic() >= deadline:
                waiter.timed_out = True
                break
        ended = True
    finally:
        waiter.lost = not ended and waiter.state != PARKED
        waiter.state = DONE
        PyThread_free_lock(waiter.lock)
    return 0


cdef class Linkable:
    """Something that can be waited for: greenlets and threads park on it, callbacks link to it."""

    def ready(self):
        """Whether waiting for it would return at once."""
        return True

    def rawlink(self, callback):
        """Have `callback(self)` called once in this thread's hub when this is ready; soon, if it is already.

        The callback must not block.  TypeError if it is not callable.
        """
        self.links = add_link(self.links, self, callback)
        if self.ready():
            self.run_links()

    def unlink(self, callback):
        """Take back one `rawlink(callback)`.  Does nothing if there is none."""
        drop_link(self.links, callback)

    cdef int run_links(self) except -1:
        """Have every link called, once."""
        return schedule_links(self.links)

    cdef int wait_for(self, object timeout) except -1:
        """Wait until woken, up to `timeout` seconds; 1 when woken, 0 when the time is over."""
        if park(&self.waiters, new_waiter(None), self, seconds(timeout)):
            return 1
        if timeout is not None:
            time_is_over(timeout)
        return 0

    def linkcount(self):
        """How many callbacks are linked and greenlets or threads wait here."""
        return self.waiters.count + (len(self.links) if self.links is not None else 0)

    @property
    def hub(self):
        """The hub of the calling thread, None if it has none: waitable objects belong to no hub."""
        return current_hub_or_none() if has_hub() else None

    def statistics(self):
        """{"waiting": how many greenlets and threads are parked here, "links": how many callbacks}."""
        return {"waiting": self.waiters.count, "links": len(self.links) if self.links is not None else 0}
