"""Timers: a heap of calls to make later.

Called by: hub.pyx (`fire`, `next_deadline`), every module with timeouts (`BaseTimer.start`, `stop`).
Invariants:
- Most timers never fire, so stopping one is cheap: its entry stays in the heap until it reaches the head, or until half
  of the heap are such entries.  A native timer for each would cost more than the rest of a timeout, so there is one
  native timer, for the heap's head.
- Timers for the same time fire in the order in which they were started.  One that is started while others fire waits
  for the next round.
- Any thread may start and stop timers, with the GIL; they fire in their hub's thread.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan
from libc.stdlib cimport calloc, free, realloc

from weald._core.loops.contract cimport Loop, end_poll

cdef enum:
    CHILDREN = 4  # of a heap's node
    FIRST_SIZE = 64  # entries there is room for at first
    FEW = 64  # the heap is not rebuilt for fewer stopped timers

cdef double INFINITY = float("inf")


@cython.no_gc
cdef class BaseTimer:
    """A timer: `expire` is called once its time has come.  It must not block.

    If it runs Python code (`runs_python`), it is called in the hub greenlet.  If it only makes something ready, it may
    be called in a greenlet that is about to park (see `Hub.round_here`).
    """

    cdef int start(self, Timers timers, double seconds) except -1:
        """Expire after `seconds`; negative ones count as 0."""
        if isnan(seconds):
            raise ValueError("a timeout must be a number of seconds, not nan")
        return self.start_at(timers, timers.loop.time() + (seconds if seconds > 0.0 else 0.0))

    cdef int start_at(self, Timers timers, double when) except -1:
        """Expire at `when` on the loop's clock."""
        self.timers = timers
        self.state = PENDING
        self.when = when
        timers.push(self)
        if self.ref:
            timers.refs += 1
        return 0

    cdef int stop(self) except -1:
        """Never expire.  Idempotent."""
        cdef Timers timers = self.timers
        if self.state == PENDING:
            self.state = OVER
            if self.ref:
                timers.refs -= 1
            timers.drop(self)
        return 0

    cdef int expire(self) except -1:
        return 0

    cdef int abandon(self) except -1:
        """Called when the thread ends before the timer expires.  Returns 1 if a greenlet would have begun then."""
        return 0

    cdef int forked(self) except -1:
        """Called in a fork's child, where the timer does not expire."""
        return 0


cdef inline bint before(HeapItem *a, HeapItem *b) noexcept:
    return a.when < b.when or (a.when == b.when and a.number < b.number)


@cython.final
cdef class Timers:
    """The timers of one hub."""

    def __cinit__(self, Loop loop):
        self.loop = loop
        self.size = FIRST_SIZE
        self.items = <HeapItem *>calloc(FIRST_SIZE, sizeof(HeapItem))
        if self.items == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.items != NULL:
            for i in range(self.count):
                Py_DECREF(<object>self.items[i].timer)
            free(self.items)

    cdef int push(self, BaseTimer timer) except -1:
        cdef HeapItem *bigger
        cdef Py_ssize_t i, parent
        cdef HeapItem item
        if self.count == self.size:
            bigger = <HeapItem *>realloc(self.items, self.size * 2 * sizeof(HeapItem))
            if bigger == NULL:
                raise MemoryError
            self.items = bigger
            self.size *= 2
        Py_INCREF(timer)
        self.started += 1
        item.when = timer.when
        item.number = self.started
        item.timer = <void *>timer
        i = self.count
        self.count += 1
        while i > 0:
            parent = (i - 1) // CHILDREN
            if self.items[parent].when <= item.when:  # equal times: the older stays in front
                break
            self.items[i] = self.items[parent]
            i = parent
        self.items[i] = item
        if i == 0 and self.loop.polling:
            end_poll(self.loop)  # another thread's timer became the next one due
        return 0

    cdef void sift_down(self, Py_ssize_t i) noexcept:
        cdef HeapItem item = self.items[i]
        cdef Py_ssize_t child, best, end
        while True:
            child = CHILDREN * i + 1
            if child >= self.count:
                break
            best = child
            end = min(child + CHILDREN, self.count)
            child += 1
            while child < end:
                if before(&self.items[child], &self.items[best]):
                    best = child
                child += 1
            if not before(&self.items[best], &item):
                break
            self.items[i] = self.items[best]
            i = best
        self.items[i] = item

    cdef int drop(self, BaseTimer timer) except -1:
        """Remove `timer`, which is stopped: at once if it is the last entry, else when it reaches the head."""
        cdef Py_ssize_t i, kept
        if self.items[self.count - 1].timer == <void *>timer:
            self.count -= 1
            Py_DECREF(timer)
            return 0
        self.stopped += 1
        if self.stopped < FEW or self.stopped * 2 < self.count:
            return 0
        dead = []  # freed after the heap is whole again
        kept = 0
        for i in range(self.count):
            if (<BaseTimer>self.items[i].timer).state == PENDING:
                self.items[kept] = self.items[i]
                kept += 1
            else:
                dead.append(<object>self.items[i].timer)
                Py_DECREF(<object>self.items[i].timer)
        self.count = kept
        self.stopped = 0
        i = (kept - 2) // CHILDREN if kept > 1 else -1  # the last one that has children
        while i >= 0:
            self.sift_down(i)
            i -= 1
        return 0

    cdef BaseTimer pop(self):
        """Take the first one off the heap."""
        cdef BaseTimer timer = <BaseTimer>self.items[0].timer
        Py_DECREF(timer)
        self.count -= 1
        if self.count > 0:
            self.items[0] = self.items[self.count]
            self.sift_down(0)
        return timer

    cdef double next_deadline(self) noexcept:
        """When the next timer is due, on the loop's clock; inf without one."""
        while self.count > 0:
            if (<BaseTimer>self.items[0].timer).state == PENDING:
                return self.items[0].when
            self.stopped -= 1
            self.pop()
        return INFINITY

    cdef int fire(self, double now, bint may_run_python) except -1:
        """Expire the timers due at `now`.  Without `may_run_python`, stop at one that runs Python code; 1 if so."""
        cdef BaseTimer timer
        cdef Py_ssize_t budget = self.count  # a timer started by an expiring one waits for the next round
        while budget > 0 and self.count > 0:
            budget -= 1
            timer = <BaseTimer>self.items[0].timer
            if timer.state == PENDING:
                if self.items[0].when > now:
                    break
                if timer.runs_python and not may_run_python:
                    return 1
            timer = self.pop()
            if timer.state != PENDING:
                self.stopped -= 1
                continue
            timer.state = OVER
            if timer.ref:
                self.refs -= 1
            timer.expire()
        return 0

    cdef int abandon_all(self) except -1:
        """Called when the thread ends: tell each timer.  Returns how many greenlets would have begun."""
        cdef BaseTimer timer
        cdef int unbegun = 0
        while self.count > 0:
            timer = self.pop()
            if timer.state == PENDING:
                timer.state = OVER
                unbegun += timer.abandon()
        return unbegun

    cdef int clear(self) except -1:
        """In a fork's child: forget every timer, and tell each that was pending."""
        cdef Py_ssize_t i
        cdef BaseTimer timer
        dropped = []
        pending = []
        for i in range(self.count):
            timer = <BaseTimer>self.items[i].timer
            if timer.state == PENDING:
                pending.append(timer)
            timer.state = OVER
            dropped.append(timer)
            Py_DECREF(timer)
        self.count = self.stopped = 0
        self.refs = 0
        for timer in pending:
            timer.forked()
        return 0
