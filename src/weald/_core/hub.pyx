"""The hub: the ready ring, parking and resuming, timers, and the loop that drives them.

The only code that switches greenlets.  Everything else parks on a `Waiter` and is resumed.  What hangs on it is in
modules of its own: raw.pyx, yielding.pyx, signals.pyx, watchers.pyx.

Called by: every module of _core above it.
Invariants:
- Exactly one resume per park.  `Waiter.resume` moves PARKED to READY and puts the waiter on its
  hub's ring; whoever takes it off moves it to RUNNING and switches.  A waiter in any other state
  is dropped.
- A parking greenlet switches straight to the next ready one ("resume directly", half the
  switches).  It goes to the hub when the ring is empty, the batch is used up, or the next item is
  not a parked greenlet: new greenlets must start on the hub's stack, or each would begin on top of
  the stack of the one before.
- When nothing is ready, it polls in the hub's stead (`turn_here`), which runs no Python code: what does is left to
  the hub greenlet.
- Wake-ups are FIFO: the ring is.
- With the GIL held any thread may push on any hub's ring; a hub blocked in its poll is woken once.
- Timers live in a heap of our own with lazy deletion: most never fire, and a native timer each
  would cost more than all the rest (one native timer stands for the heap's head).

Long because it is one thing: ring, heap and switching share their state in hot code.
"""

cimport cython
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_free_lock, PyThread_get_thread_ident, PyThread_release_lock
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.math cimport isnan
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from weald._core cimport arena, running_loop
from weald._core.c_greenlet cimport *
from weald._core.loop cimport Loop

import atexit
import os
import sys
import threading
import traceback as tracebacks
from functools import partial
from greenlet import GreenletExit, getcurrent

from weald._core import arena as _arena
from weald._core.backends import load_loop, make_loop
from weald._core.ending import end_process

cdef extern from * nogil:
    """
    #include <time.h>
    /* This thread's hub, borrowed: HubKeeper owns it. */
    static __thread PyObject *weald_hub __attribute__((tls_model("initial-exec"))) = NULL;

    /* Clock ticks of a few milliseconds, read without a system call. */
    static long weald_tick(void)
    {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
        return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    }

    /* How many other Python threads live in this interpreter.  GIL held. */
    static int weald_other_threads(void)
    {
        int n = -1;
        PyThreadState *t = PyInterpreterState_ThreadHead(PyInterpreterState_Get());
        for (; t != NULL; t = PyThreadState_Next(t))
            n++;
        return n;
    }
    """
    PyObject *weald_hub
    long c_tick "weald_tick"()
    int other_threads "weald_other_threads"()

cdef extern from "Python.h":
    PyObject *PyThreadState_GetDict()  # borrowed

cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept, void (*parent)() noexcept, void (*child)() noexcept)

cdef enum:
    BATCH_EXTRA = 128

PyGreenlet_Import()
_arena.install()

cdef double INFINITY = float("inf")
cdef unsigned long main_thread_ident = threading.main_thread().ident
cdef object hub_class = None  # set_hub_class
cdef object default_hub_class = lambda: Hub  # set_default_hub_class
cdef set hubs = set()  # all live hubs; guarded by the GIL (no Python code runs while it changes)
cdef Py_ssize_t idle_helpers = 0  # own threads that wait for work and so will not wake anybody
cdef bint signals_handled = False  # by handlers of the program's, which may wake somebody
cdef bint exiting = False
cdef bint forked = False  # in a fork's child, and the hubs do not know it yet


class LoopExit(Exception):
    """Nothing is left that could wake any greenlet; the text says who waits for what."""


class BlockingSwitchOutError(AssertionError):
    """A blocking call was tried in the hub greenlet (in an event loop callback)."""


class InvalidSwitchError(AssertionError):
    """A parked greenlet was switched to by something that is not its waker."""


# ------------------------------------------------------------------ what the ring holds

cdef class Runnable:
    """Work for the hub greenlet."""

    cdef int run(self, Hub hub) except -1:
        return 0

    cdef int abandon(self) except -1:
        """The thread ends before the time for it came."""
        return 0


@cython.freelist(256)
@cython.no_gc
cdef class Waiter:
    """One parked greenlet (or thread), good for one park."""

    def __cinit__(self):
        self.state = PARKED

    def __dealloc__(self):
        if self.lock != NULL:
            PyThread_free_lock(self.lock)

    cdef bint resume(self, object value) except -1:
        """Wake it with `value`.  False if it is woken already or no longer waits.  Any thread."""
        if self.state != PARKED:
            return False
        self.state = READY
        self.value = value
        if self.hub is None:
            PyThread_release_lock(self.lock)
        else:
            self.hub.push(self)
        return True


cdef class Callback(Runnable):
    """A call the hub will make once; `stop()` cancels it."""

    def __init__(self, callback, tuple args):
        self.callback = callback
        self.args = args

    cdef int run(self, Hub hub) except -1:
        callback, args = self.callback, self.args
        self.callback = None
        self.args = None
        if callback is None:
            return 0
        try:
            callback(*args)
        except BaseException:
            report_error(hub, self, *sys.exc_info())
        return 0

    def stop(self):
        self.callback = None
        self.args = None

    close = stop

    @property
    def pending(self):
        return self.callback is not None

    def __bool__(self):
        return self.callback is not None

    def __repr__(self):
        state = f" callback={self.callback!r} args={self.args!r}" if self.callback is not None else " stopped"
        return f"<{type(self).__name__} at {id(self):#x}{state}>"


cdef class Throw(Runnable):
    """Raise an exception in a greenlet when its turn comes."""

    cdef int run(self, Hub hub) except -1:
        cdef PyObject *result
        cdef greenlet target = self.target
        self.target = None
        if target is None:
            return 0
        if not PyGreenlet_ACTIVE(<void *>target):
            if PyGreenlet_STARTED(<void *>target):
                if target is hub.main:
                    hub.end_child(self.exception, self.traceback)
                return 0  # dead
            PyGreenlet_SetParent(<void *>target, <void *>hub)  # where it will leave the exception
        exception = self.exception
        cls = exception if isinstance(exception, type) else type(exception)
        result = PyGreenlet_Throw(
            <void *>target,
            <PyObject *>cls,
            NULL if cls is exception else <PyObject *>exception,
            <PyObject *>self.traceback if self.traceback is not None else NULL)
        hub.switched(result, target)
        return 0


# ------------------------------------------------------------------ timers

@cython.no_gc  # a class derived from one that the collector tracks is tracked, too
cdef class BaseTimer(Runnable):
    """An entry of the heap.  `expire` is called once the time has come; it must not block.

    With `calls` it runs Python code, and so in the hub greenlet; others only make something ready, and may expire in
    a greenlet that is about to park (see `Hub.turn_here`).
    """

    cdef int start(self, Hub hub, double seconds) except -1:
        if isnan(seconds):
            raise ValueError("a timeout must be a number of seconds, not nan")
        self.hub = hub
        self.state = PENDING
        self.when = hub.backend.time() + (seconds if seconds > 0.0 else 0.0)
        hub.heap_push(self)
        if self.ref:
            hub.refs += 1
        return 0

    cdef int stop(self) except -1:
        """Never fire, whether still pending or just expired."""
        cdef Hub hub = self.hub
        if self.state == PENDING:
            self.state = OVER
            if self.ref:
                hub.refs -= 1
            hub.heap_drop(self)
        elif self.state == DUE:
            self.state = OVER
        return 0

    cdef int expire(self) except -1:
        return 0


@cython.no_gc
cdef class WakeTimer(BaseTimer):
    """Resumes a waiter that has waited too long."""

    cdef int expire(self) except -1:
        cdef Waiter waiter = self.waiter
        self.waiter = None
        if waiter is not None and waiter.state == PARKED:
            waiter.timed_out = True
            waiter.resume(None)
        return 0


cdef class Timer(BaseTimer):
    """Calls `callback(*args)` in the hub after `seconds`.  The callback must not block."""

    cdef object callback
    cdef tuple args

    def __init__(self, Hub hub not None, double seconds, callback, *args, bint ref=True):
        self.callback = callback
        self.args = args
        self.ref = ref
        self.calls = True
        self.start(hub, seconds)

    cdef int expire(self) except -1:
        callback, args = self.callback, self.args
        self.callback = None
        self.args = None
        try:
            callback(*args)
        except BaseException:
            report_error(self.hub, self, *sys.exc_info())
        return 0

    @property
    def pending(self):
        return self.state == PENDING

    def cancel(self):
        self.stop()
        self.callback = None
        self.args = None


cdef class Watched:
    """What the hub knows of a loop's watchers; watchers.pyx has the rest."""

    cdef double before_poll(self, double deadline) except -1.0:
        """About to poll; when to be back at the latest."""
        return deadline

    cdef int after_poll(self) except -1:
        return 0

    cdef int forked(self) except -1:
        """In a fork's child, last of all."""
        return 0

    cdef int closed(self) except -1:
        """The hub ends."""
        return 0


cdef class SignalWatch:
    """What the hub knows of signals; signals.pyx has the rest."""

    cdef int before_wait(self) except -1:
        """About to poll and to wait."""
        return 0

    cdef int after_wait(self) except -1:
        return 0

    cdef bint owns(self, int fd) noexcept:
        return False

    cdef int close(self, bint in_main_thread) except -1:
        """Signals shall end the hub's wait no more."""
        return 0


cdef object signal_watch_class = None


def set_signal_watch(cls):
    """Have `cls(hub)`, a SignalWatch, see that signals end the wait of the main thread's hub."""
    global signal_watch_class
    signal_watch_class = cls


cdef object event_loop_class = None


def set_event_loop_class(cls):
    """Make `hub.loop` an instance of `cls`, an EventLoop, for hubs whose loop nobody has looked at yet."""
    global event_loop_class
    event_loop_class = cls


def report_error(Hub hub, context, type, value, tb):
    """`hub.handle_error`, which users override; what it raises itself must not end the hub."""
    try:
        hub.handle_error(context, type, value, tb)
    except BaseException as error:
        if isinstance(error, hub.SYSTEM_ERROR):
            hub.throw_into_main(error, None)
            return
        try:
            tracebacks.print_exc(file=sys.__stderr__)
        except Exception:
            pass


# ------------------------------------------------------------------ the hub

cdef class Hub(greenlet):
    """The greenlet that runs a thread's event loop.

    `get_hub()` makes it at first use; it is the parent of the thread's spawned greenlets.
    """

    SYSTEM_ERROR = (KeyboardInterrupt, SystemExit, SystemError)
    NOT_ERROR = (GreenletExit,)

    def __cinit__(self, *args, **kwargs):
        self.ring_mask = 63
        self.ring = <void **>calloc(64, sizeof(void *))
        self.heap_size = 64
        self.heap = <HeapItem *>calloc(64, sizeof(HeapItem))
        if self.ring == NULL or self.heap == NULL:
            raise MemoryError

    def __init__(self, loop=None):
        super().__init__()
        self.thread_ident = PyThread_get_thread_ident()
        self.main = main_greenlet()
        PyGreenlet_SetParent(<void *>self, <void *>self.main)
        self.backend = loop if isinstance(loop, Loop) else make_loop(loop)
        self.timeless = self.backend.name == "virtual"
        self.loop_time = self.backend.time()
        self.batch_tick = tick()
        self.idlers = []
        self.fds = []
        self.name = ""

    def __dealloc__(self):
        cdef Py_ssize_t i
        if self.ring != NULL:
            for i in range(self.ring_count):
                Py_DECREF(<object>self.ring[(self.ring_head + i) & self.ring_mask])
            free(self.ring)
        if self.heap != NULL:
            for i in range(self.heap_count):
                Py_DECREF(<object>self.heap[i].timer)
            free(self.heap)

    # -------------------------------------------------------------- ring

    cdef int grow_ring(self) except -1:
        cdef Py_ssize_t size = self.ring_mask + 1
        cdef Py_ssize_t first = size - self.ring_head
        cdef void **bigger = <void **>calloc(size * 2, sizeof(void *))
        if bigger == NULL:
            raise MemoryError
        memcpy(bigger, self.ring + self.ring_head, first * sizeof(void *))
        memcpy(bigger + first, self.ring, self.ring_head * sizeof(void *))
        free(self.ring)
        self.ring = bigger
        self.ring_head = 0
        self.ring_mask = size * 2 - 1
        return 0

    cdef int push(self, object item) except -1:
        """Put `item` (Waiter, unstarted greenlet or Runnable) at the ring's end.  Any thread, with the GIL."""
        if self.ring_count > self.ring_mask:
            self.grow_ring()
        Py_INCREF(item)
        self.ring[(self.ring_head + self.ring_count) & self.ring_mask] = <void *>item
        self.ring_count += 1
        if self.polling == 1:
            self.polling = 2
            self.backend.wake()
        return 0

    cdef int push_first(self, object item) except -1:
        """Put `item` before everything else that is ready.  Any thread, with the GIL."""
        if self.ring_count > self.ring_mask:
            self.grow_ring()
        Py_INCREF(item)
        self.ring_head = (self.ring_head - 1) & self.ring_mask
        self.ring[self.ring_head] = <void *>item
        self.ring_count += 1
        if self.polling == 1:
            self.polling = 2
            self.backend.wake()
        return 0

    cdef object pop(self):
        cdef object item = <object>self.ring[self.ring_head]
        Py_DECREF(item)
        self.ring_head = (self.ring_head + 1) & self.ring_mask
        self.ring_count -= 1
        return item

    cdef bint batch_goes_on(self) noexcept:
        """May one more item run before the next poll?"""
        if self.batch_owed > 0:
            self.batch_owed -= 1
            return True
        if self.batch_extra > 0 and (tick() == self.batch_tick or self.timeless):
            self.batch_extra -= 1
            return True
        return False

    cdef void begin_batch(self) noexcept:
        self.batch_owed = self.ring_count
        self.batch_extra = BATCH_EXTRA
        self.batch_tick = tick()

    cdef int run_batch(self) except -1:
        self.begin_batch()
        while self.ring_count > 0 and not self.stopping and self.batch_goes_on():
            self.run_next()
        return 0

    cdef int run_next(self) except -1:
        """Run the ring's first item."""
        cdef Waiter waiter
        cdef PyObject *result
        cdef greenlet g
        item = self.pop()
        if type(item) is Waiter:
            waiter = <Waiter>item
            if waiter.state == READY:
                waiter.state = RUNNING
                g = waiter.parked
                # This frame lives until the hub's next turn: it must not keep what the waiter holds.
                item = None
                waiter = None
                self.lent = True
                result = PyGreenlet_Switch(<void *>g)
                self.lent = False
                self.switched(result, g)
        elif isinstance(item, greenlet):
            g = <greenlet>item
            item = None
            if not PyGreenlet_STARTED(<void *>g):
                self.calls = 0
                self.lent = True
                result = PyGreenlet_Switch(<void *>g)
                self.lent = False
                self.switched(result, g)
        else:
            (<Runnable>item).run(self)
        return 0

    cdef int begin(self, greenlet g) except -1:
        """Start a new greenlet, unless it was killed or started by hand since."""
        if not PyGreenlet_STARTED(<void *>g):
            self.calls = 0
            self.switched(PyGreenlet_Switch(<void *>g), g)
        return 0

    cdef int switched(self, PyObject *result, greenlet g) except -1:
        """Back in the hub after a switch.  An error here is one that a plain greenlet let escape."""
        if result != NULL:
            Py_DECREF(<object>result)
            return 0
        try:
            raise_current()
        except BaseException:
            # With direct resumes the greenlet that died need not be `g`; only the traceback knows.
            report_error(self, "a plain greenlet", *sys.exc_info())
        return 0

    # -------------------------------------------------------------- parking

    cdef Waiter waiter(self):
        """A waiter for the current greenlet, which must not be the hub."""
        cdef Waiter waiter = Waiter.__new__(Waiter)
        waiter.hub = self
        waiter.parked = current_greenlet()
        return waiter

    cdef object park(self, Waiter waiter, object what):
        """Switch away until `waiter` is resumed; returns the value it was resumed with.

        An exception thrown in ends the wait.  `waiter.lost` then says that a wake-up was on its
        way, which the caller passes on (see waiters.pyx).
        """
        cdef Waiter other
        cdef PyObject *result
        cdef void *target = <void *>self
        cdef WaiterState state
        cdef object loop = None  # asyncio's, that this greenlet runs
        if <void *>waiter.parked == <void *>self:
            raise BlockingSwitchOutError(
                f"cannot wait for {what} in an event loop callback: it would stop the loop; "
                "spawn a greenlet there instead")
        waiter.what = what
        waiter.since = self.loop_time
        while True:
            if self.ring_count > 0:
                item = <object>self.ring[self.ring_head]
                if type(item) is not Waiter or self.stopping:
                    break
                other = <Waiter>item
                if other.state != READY:
                    self.pop()
                    continue
                if self.batch_goes_on():
                    self.pop()
                    other.state = RUNNING
                    if other is waiter:
                        waiter.state = DONE
                        return waiter.value
                    target = <void *>other.parked
                    break
            if not self.lent or not self.turn_here(waiter):
                break
        item = None
        other = None
        # Linked into the hub's list of the parked, for reports.
        waiter.hub_next = self.parked_head
        waiter.hub_prev = NULL
        if self.parked_head != NULL:
            (<Waiter>self.parked_head).hub_prev = <void *>waiter
        self.parked_head = <void *>waiter
        if running_loop.loops > 0:
            loop = running_loop.put_aside()
        result = PyGreenlet_Switch(<void *>target)
        self.calls = 0
        if waiter.hub_prev != NULL:
            (<Waiter>waiter.hub_prev).hub_next = waiter.hub_next
        else:
            self.parked_head = waiter.hub_next
        if waiter.hub_next != NULL:
            (<Waiter>waiter.hub_next).hub_prev = waiter.hub_prev
        state = waiter.state
        if result == NULL:
            waiter.lost = state == READY
            waiter.state = DONE
            if loop is None:
                raise_current()
            try:
                raise_current()
            finally:
                running_loop.take_back(loop)
        Py_DECREF(<object>result)
        waiter.state = DONE
        if loop is not None:
            running_loop.take_back(loop)
        if state != RUNNING:
            raise InvalidSwitchError(
                f"Invalid switch into {waiter.parked!r}, which waits for {what}: only its waker may do that; "
                "use kill() or throw() to end the wait")
        return waiter.value

    cdef bint turn_here(self, Waiter waiter) except -1:
        """One round of the loop in the greenlet that is about to park with `waiter`, for which the hub greenlet
        would only be a detour.  False if it takes the hub: to end, to call callbacks, to report a deadlock.

        The ring is empty, or its first item is one for the next batch.
        """
        if self.stopping or self.ring_count == 0 and self.refs <= 0 or self.watched is not None and self.watched.busy:
            return False
        cdef bint handed_over
        try:
            self.poll(0.0 if self.ring_count > 0 else self.next_deadline())
            self.backend.dispatch()
            handed_over = self.fire_timers(True)
        except BaseException:
            waiter.state = DONE
            raise
        self.begin_batch()
        self.calls = 0
        return not handed_over

    cdef int throw_into(self, greenlet target, object exception, object traceback) except -1:
        """Have `exception` raised in `target` when its turn in the ring comes."""
        cdef Throw throw = Throw.__new__(Throw)
        throw.target = target
        throw.exception = exception
        throw.traceback = traceback
        self.push(throw)
        return 0

    cdef int throw_into_main(self, object exception, object traceback) except -1:
        """Have `exception` raised in the main greenlet before anything else, its own wake-up included, happens."""
        cdef Throw throw = Throw.__new__(Throw)
        throw.target = self.main
        throw.exception = exception
        throw.traceback = traceback
        self.push_first(throw)
        return 0

    # -------------------------------------------------------------- timers

    cdef int heap_push(self, BaseTimer timer) except -1:
        cdef HeapItem *bigger
        cdef Py_ssize_t i, parent
        cdef HeapItem item
        if self.heap_count == self.heap_size:
            bigger = <HeapItem *>realloc(self.heap, self.heap_size * 2 * sizeof(HeapItem))
            if bigger == NULL:
                raise MemoryError
            self.heap = bigger
            self.heap_size *= 2
        Py_INCREF(timer)
        self.heap_seq += 1
        item.when = timer.when
        item.seq = self.heap_seq
        item.timer = <void *>timer
        i = self.heap_count
        self.heap_count += 1
        while i > 0:
            parent = (i - 1) >> 2
            if self.heap[parent].when <= item.when:  # equal times: the older stays in front
                break
            self.heap[i] = self.heap[parent]
            i = parent
        self.heap[i] = item
        if self.polling == 1 and i == 0:
            self.polling = 2
            self.backend.wake()  # another thread's timer became the next one due
        return 0

    cdef void sift_down(self, Py_ssize_t i) noexcept:
        cdef HeapItem item = self.heap[i]
        cdef Py_ssize_t child, best, last
        while True:
            child = 4 * i + 1
            if child >= self.heap_count:
                break
            best = child
            last = min(child + 4, self.heap_count)
            child += 1
            while child < last:
                if before(&self.heap[child], &self.heap[best]):
                    best = child
                child += 1
            if not before(&self.heap[best], &item):
                break
            self.heap[i] = self.heap[best]
            i = best
        self.heap[i] = item

    cdef int heap_drop(self, BaseTimer timer) except -1:
        """`timer` will not fire: forget it now if that is free, else when it surfaces."""
        cdef Py_ssize_t i, kept
        if self.heap[self.heap_count - 1].timer == <void *>timer:
            self.heap_count -= 1
            Py_DECREF(timer)
            return 0
        self.heap_dead += 1
        if self.heap_dead < 64 or self.heap_dead * 2 < self.heap_count:
            return 0
        dead = []  # freed after the heap is whole again
        kept = 0
        for i in range(self.heap_count):
            if (<BaseTimer>self.heap[i].timer).state == PENDING:
                self.heap[kept] = self.heap[i]
                kept += 1
            else:
                dead.append(<object>self.heap[i].timer)
                Py_DECREF(<object>self.heap[i].timer)
        self.heap_count = kept
        self.heap_dead = 0
        i = (kept - 2) >> 2
        while i >= 0:
            self.sift_down(i)
            i -= 1
        return 0

    cdef object heap_pop(self):
        cdef object timer = <object>self.heap[0].timer
        Py_DECREF(timer)
        self.heap_count -= 1
        if self.heap_count > 0:
            self.heap[0] = self.heap[self.heap_count]
            self.sift_down(0)
        return timer

    cdef double next_deadline(self) noexcept:
        """When the next live timer is due; inf without one."""
        while self.heap_count > 0:
            if (<BaseTimer>self.heap[0].timer).state == PENDING:
                return self.heap[0].when
            self.heap_dead -= 1
            self.heap_pop()
        return INFINITY

    cdef int fire_timers(self, bint here) except -1:
        """Expire what is due.  `here`, outside the hub greenlet, stop at one that calls Python code; 1 if there is."""
        cdef BaseTimer timer
        cdef Py_ssize_t budget = self.heap_count  # a timer started by an expiring one waits its turn
        if budget == 0:
            return 0
        self.loop_time = self.backend.time()
        while budget > 0 and self.heap_count > 0:
            budget -= 1
            timer = <BaseTimer>self.heap[0].timer
            if timer.state == PENDING:
                if self.heap[0].when > self.loop_time:
                    break
                if here and timer.calls:
                    return 1
            timer = self.heap_pop()
            if timer.state != PENDING:
                self.heap_dead -= 1
                continue
            timer.state = OVER
            if timer.ref:
                self.refs -= 1
            timer.expire()
        return 0

    # -------------------------------------------------------------- the loop

    cdef int check_made(self) except -1:
        if self.backend is None:
            raise RuntimeError("a hub that has not been made: a subclass's __init__ must call Hub's")
        return 0

    def run(self):
        """The hub greenlet's body; ends when `destroy` asks for it."""
        cdef double deadline
        self.check_made()
        self.running = True
        while not self.stopping:
            self.run_batch()
            if self.stopping:
                break
            if self.ring_count > 0:
                deadline = 0.0
            else:
                deadline = self.next_deadline()
                if self.refs <= 0:
                    if self.idlers:
                        self.wake_idlers()
                        continue
                    if not other_threads_may_wake() and not (signals_handled and self.main_goes_on()):
                        self.report_deadlock()
                        continue
            self.turn(deadline)
        self.running = False

    cdef int turn(self, double deadline) except -1:
        """One round of the loop: wait until `deadline` at the latest, then make ready what is due."""
        if self.watched is not None:
            deadline = self.watched.before_poll(deadline)
        self.poll(deadline)
        # In this order: what came in time is not taken for late because the loop was busy.
        self.backend.dispatch()
        self.fire_timers(False)
        if self.watched is not None:
            self.watched.after_poll()
        return 0

    def run_loop(self, bint nowait=False, bint once=False):
        """Drive a hub that is nobody's greenlet, in the calling one, until nothing is left to wait for.

        `nowait`: one round without waiting; `once`: one round.
        """
        cdef double deadline
        if <PyObject *>self == weald_hub:
            raise RuntimeError("this thread's own loop runs by itself: wait for something instead")
        self.check_made()
        self.stopping = False
        while not self.stopping:
            self.run_batch()
            if self.refs <= 0 and self.ring_count == 0 and not nowait:
                break
            deadline = 0.0 if nowait or self.ring_count > 0 else self.next_deadline()
            self.turn(deadline)
            if nowait or once:
                self.run_batch()
                break
        self.stopping = False

    def break_loop(self):
        """End `run_loop` after the round that is under way."""
        self.stopping = True

    cdef int poll(self, double deadline) except -1:
        cdef double now
        if deadline > 0.0:
            now = self.backend.time()
            if deadline <= now + self.backend.shortest:
                deadline = 0.0  # due, or so soon that this comes back before a system call that waits would
            elif arena.trim() and deadline > now + 1.0:
                deadline = now + 1.0  # come back to trim the rest
        if deadline == 0.0:
            self.backend.poll(0.0)
            return 0
        self.polling = 1
        try:
            if self.signals is not None:
                self.signals.before_wait()
            self.backend.poll(deadline)
        finally:
            self.polling = 0
            if self.signals is not None:
                self.signals.after_wait()
        self.loop_time = self.backend.time()
        return 0

    cdef int wake_idlers(self) except -1:
        cdef Waiter waiter
        idlers, self.idlers = self.idlers, []
        for waiter in idlers:
            waiter.resume(True)
        return 0

    cdef int watch_signals(self) except -1:
        """Let a signal end a blocking poll of the main thread's hub."""
        if self.backend.name != "virtual":
            self.signals = signal_watch_class(self)
        return 0

    # -------------------------------------------------------------- public

    @property
    def loop(self):
        """The loop as users see it: its clock, its name, watchers (an `EventLoop`)."""
        if self.watched is None:
            made = event_loop_class(self)
            if self.watched is None:  # else a signal's handler has made one meanwhile
                self.watched = made
        return self.watched

    def switch(self):
        """Give control to the hub until somebody switches back; the value switched with.

        For code that arranges its own waking: `hub.run_callback(greenlet.switch, value)`.
        """
        cdef PyObject *result
        if current_greenlet() is self:
            raise BlockingSwitchOutError("the hub cannot switch to itself: this call would block the event loop")
        result = PyGreenlet_Switch(<void *>self)
        if result == NULL:
            raise_current()
        value = <object>result
        Py_DECREF(value)
        return value

    def run_callback(self, callback, *args):
        """Run `callback(*args)` in the hub soon, after what is ready already."""
        if not callable(callback):
            raise TypeError(f"run_callback needs a callable, got {callback!r}")
        cdef Callback item = Callback(callback, args)
        self.push(item)
        return item

    run_callback_threadsafe = run_callback

    def ref(self):
        """Count one more thing that can wake a greenlet: the hub then waits for it."""
        self.refs += 1

    def unref(self):
        """The opposite of `ref`.  Any thread."""
        self.refs -= 1
        if self.refs <= 0 and self.polling == 1:
            self.polling = 2
            self.backend.wake()

    def join(self, timeout=None):
        """Wait until nothing is left to run or to wait for.  True if that came to be in `timeout` seconds."""
        cdef Waiter waiter
        cdef WakeTimer timer = None
        self.check_made()
        if self.backend.destroyed:
            return True
        waiter = self.waiter()
        if timeout is not None:
            timer = WakeTimer.__new__(WakeTimer)
            timer.waiter = waiter
            timer.start(self, timeout)
        self.idlers.append(waiter)
        try:
            return bool(self.park(waiter, "the hub to run dry"))
        finally:
            if timer is not None:
                timer.stop()
            if waiter in self.idlers:
                self.idlers.remove(waiter)

    def destroy(self, destroy_loop=True):
        """End the hub: free its loop and descriptors.  The thread may make a new one afterwards.

        What is parked on it stays so for good.
        """
        global weald_hub
        if self.backend.destroyed:
            return
        self.stopping = True
        if current_greenlet() is self.main and self.parent is self.main and PyGreenlet_ACTIVE(<void *>self):
            result = PyGreenlet_Switch(<void *>self)
            if result == NULL:
                raise_current()
            Py_DECREF(<object>result)
        hubs.discard(self)
        pool, self.threadpool = self.threadpool, None
        if pool is not None:
            pool.kill()
        resolver, self.resolver = self.resolver, None
        if resolver is not None:
            resolver.close()
        if self.watched is not None:
            self.watched.closed()
        for entry in self.fds:
            if entry is not None:
                entry.close()
        self.fds = []
        self.close_signals()
        self.backend.close()
        if weald_hub == <PyObject *>self:
            weald_hub = NULL
            drop_keeper()

    def owns(self, int fd):
        """Whether descriptor `fd` is one of the hub's own: of its loop, or of how signals wake it."""
        self.check_made()
        return self.backend.owns(fd) or self.signals is not None and self.signals.owns(fd)

    def close_range(self, close, int first, int end):
        """Call `close()`, which closes the descriptors from `first` up to, not including, `end`, the hub's own perhaps.

        Those are then opened anew.  Who waits for one of the others gets OSError(EBADF).
        """
        self.check_made()
        signals = self.signals is not None
        for entry in self.fds[first:end]:
            if entry is not None:
                entry.close()
        self.close_signals()
        resolver, self.resolver = self.resolver, None  # it has sockets
        if resolver is not None:
            resolver.close()
        try:
            close()
        finally:
            self.backend.reopened()
            for entry in self.fds:
                if entry is not None:
                    entry.reopen()
            if signals:
                self.watch_signals()

    cdef int close_signals(self) except -1:
        if self.signals is not None:
            self.signals.close(in_main_thread())
            self.signals = None
        return 0

    cdef greenlet forking(self):
        """In a fork's child: the main line from now on, which is the greenlet that has forked.

        The main greenlet stays it if it is waiting for that one, as greenlets do for their children.
        """
        cdef greenlet g = current_greenlet()
        if g is self:
            return self.main
        while g.parent is not None and g.parent is not self:
            g = g.parent
        return g

    cdef bint main_goes_on(self) noexcept:
        """False if the main line has ended; a thread's main greenlet ends with the thread only."""
        return PyGreenlet_ACTIVE(<void *>self.main) or not PyGreenlet_STARTED(<void *>self.main)

    cdef int end_child(self, object exception, object traceback) except -1:
        """The main line of a fork's child has ended, with `exception` or, if that is None, because nothing is left.

        The process ends as if it had been the main greenlet.  That one is the parent's: it must not go on here.
        """
        self.push_first(greenlet(partial(end_process, exception, traceback), self))
        return 0

    cdef int forked(self) except -1:
        """In a fork's child: keep nothing of what the parent had scheduled.

        Its greenlets stay parked for good, but for those that one running here wakes itself.
        """
        cdef Py_ssize_t i
        self.generation += 1
        dropped = []
        while self.ring_count > 0:
            dropped.append(self.pop())
        for i in range(self.heap_count):
            (<BaseTimer>self.heap[i].timer).state = OVER
            dropped.append(<object>self.heap[i].timer)
            Py_DECREF(<object>self.heap[i].timer)
        self.heap_count = self.heap_dead = 0
        self.refs = 0
        self.polling = 0
        self.threadpool = None
        self.resolver = None
        self.idlers = []
        if <PyObject *>self == weald_hub:
            self.main = self.forking()
        self.backend.forked()
        for entry in self.fds:
            if entry is not None:
                entry.abandon()
        self.fds = []
        if self.watched is not None:
            self.watched.forked()
        self.forked_at = self.backend.time()
        if self.signals is not None:
            self.close_signals()
            self.watch_signals()
        return 0

    def handle_error(self, context, type, value, tb):
        """An exception nobody caught in `context` (a greenlet, a callback or None).

        SYSTEM_ERROR goes to the main greenlet, NOT_ERROR nowhere, everything else is printed.
        """
        if not issubclass(type, self.NOT_ERROR):
            self.print_exception(context, type, value, tb)
        if issubclass(type, self.SYSTEM_ERROR):
            self.handle_system_error(type, value, tb)

    def handle_system_error(self, type, value, tb=None):
        """Raise the exception in the main greenlet."""
        self.throw_into_main(value if value is not None else type, tb)

    def print_exception(self, context, type, value, tb):
        """Write the traceback and `context` to sys.stderr."""
        stderr = sys.stderr
        if stderr is None:
            return
        if issubclass(type, (KeyboardInterrupt, SystemExit)):
            return
        try:
            tracebacks.print_exception(type, value, tb, file=stderr)
            if context is not None:
                stderr.write(f"{context!r} failed with {type.__name__}\n\n")
        except Exception:
            # A broken stderr or repr must not take the hub down with it.
            pass

    def parked(self):
        """Who waits: a list of (greenlet, what it waits for, since when on the loop's clock), oldest first."""
        cdef void *node = self.parked_head
        cdef Waiter waiter
        found = []
        while node != NULL:
            waiter = <Waiter>node
            if waiter.since >= self.forked_at:  # else it stayed behind in the parent
                found.append((waiter.parked, waiter.what, waiter.since))
            node = waiter.hub_next
        found.reverse()
        return found

    cdef int report_deadlock(self) except -1:
        """Nothing can ever wake anybody: tell the main greenlet who waits for what."""
        cdef PyObject *result
        if not self.main_goes_on():
            return self.end_child(None, None)
        error = LoopExit(deadlock_report(self))
        result = PyGreenlet_Throw(<void *>self.main, <PyObject *>LoopExit, <PyObject *>error, NULL)
        self.switched(result, self.main)
        return 0

    def __repr__(self):
        state = "destroyed" if self.backend is None or self.backend.destroyed else self.backend.name
        return f"<{type(self).__name__} at {id(self):#x} {state} thread_ident={self.thread_ident:#x}>"


cdef inline bint before(HeapItem *a, HeapItem *b) noexcept:
    return a.when < b.when or (a.when == b.when and a.seq < b.seq)


cdef int raise_current() except -1:
    """Raise the exception that a C call left set."""
    return -1


cdef str deadlock_report(Hub hub):
    now = hub.backend.time()
    lines = ["this operation would block forever: nothing is left that could wake a greenlet"]
    for g, what, since in hub.parked()[:50]:
        lines.append(f"  {g!r} waits for {what!r} since {max(now - since, 0.0):.1f} s")
        frame = g.gr_frame
        if frame is None and g is hub.main:
            continue
        for entry in tracebacks.extract_stack(frame)[-6:] if frame is not None else ():
            lines.append(f"    {entry.filename}:{entry.lineno} in {entry.name}")
    return "\n".join(lines)


# ------------------------------------------------------------------ one hub per thread

class _Keeper:
    """Lives in a thread's state dict; its end is the thread's end, and the hub's."""

    __slots__ = ("hub",)

    def __init__(self, hub):
        self.hub = hub

    def __del__(self):
        hub, self.hub = self.hub, None
        # A fork's child drops the states of the parent's other threads: their greenlets are not its to end.
        if hub is not None and not exiting and hub.thread_ident == PyThread_get_thread_ident():
            end_of_thread(hub)


cdef str KEEPER = "weald.hub"


cdef int drop_keeper() except -1:
    keeper = (<dict>PyThreadState_GetDict()).pop(KEEPER, None)
    if keeper is not None:
        keeper.hub = None
    return 0


cdef int end_of_thread(Hub hub) except -1:
    """End its greenlets, which would else never be freed, then the hub."""
    global weald_hub
    cdef PyObject *result
    cdef BaseTimer timer
    hub.stopping = True  # the hub greenlet ends at the first switch to it
    for g, _, _ in hub.parked():
        if g is not hub.main and PyGreenlet_ACTIVE(<void *>g):
            result = PyGreenlet_Throw(<void *>g, <PyObject *>GreenletExit, NULL, NULL)
            hub.switched(result, g)
    g = None
    # Those that never began: somebody in another thread may wait for them.
    while hub.ring_count > 0:
        item = hub.pop()
        if isinstance(item, greenlet) and not PyGreenlet_STARTED(<void *>item) and hasattr(item, "kill"):
            item.kill(block=False)
    while hub.heap_count > 0:
        timer = <BaseTimer>hub.heap_pop()
        if timer.state == PENDING:
            timer.state = OVER
            timer.abandon()
    weald_hub = NULL  # so that `destroy` leaves the state dict alone, which is being cleared
    hub.destroy()
    return 0


cdef greenlet last_greenlet = None  # the one that ran when the interpreter began to end


cdef greenlet current_greenlet():
    """The greenlet that runs; while the interpreter ends, when greenlet no longer says, the one that is left."""
    cdef PyObject *current = PyGreenlet_GetCurrent()
    if current == NULL:
        if exiting and last_greenlet is not None and in_main_thread():
            PyErr_Clear()
            return last_greenlet
        raise_current()
    g = <greenlet>current
    Py_DECREF(g)
    return g


cdef object handler_class = None


def set_handler_class(cls):
    """Signals' handlers run in greenlets of class `cls`, on behalf of the greenlet that is their attribute `main`.

    What is that one's, its locks and its locals, is theirs, too, as with a handler that the interpreter runs.
    """
    global handler_class
    handler_class = cls


cdef greenlet acting_greenlet():
    """The current greenlet or, of a signal's handler, the one on whose behalf it runs; None if there is none left."""
    cdef PyObject *current = PyGreenlet_GetCurrent()
    if current == NULL:
        PyErr_Clear()
        return None
    g = <greenlet>current
    Py_DECREF(g)
    return g.main if handler_class is not None and type(g) is handler_class else g


cdef greenlet main_greenlet():
    """This thread's main greenlet."""
    g = getcurrent()
    while g.parent is not None:
        g = g.parent
    return g


cdef Hub make_hub():
    global weald_hub
    if exiting:
        raise RuntimeError("the interpreter is shutting down: no event loop can be started any more")
    cdef Hub hub = (default_hub_class() if hub_class is None else hub_class)()
    if weald_hub != NULL:  # made meanwhile, by a signal handler: what it has spawned is there
        hub.destroy()
        return <Hub>weald_hub
    (<dict>PyThreadState_GetDict())[KEEPER] = _Keeper(hub)
    weald_hub = <PyObject *>hub
    hubs.add(hub)
    if hub.thread_ident == main_thread_ident:
        try:
            hub.watch_signals()
        except BaseException:  # no descriptors are left, say: the next call tries again
            hub.destroy()
            raise
    return hub


cdef Hub current_hub():
    """This thread's hub, made at the first call."""
    if weald_hub != NULL:
        return <Hub>weald_hub
    return make_hub()


cdef Hub current_hub_or_none():
    """This thread's hub; None in a thread that has none and need not have one.

    The main thread always has one: that is where deadlocks are found and signals arrive.  When the interpreter ends it
    makes none any more, and what it has is of no use once greenlets do not switch: finalizers then wait as threads do.
    """
    if weald_hub != NULL:
        return None if exiting and not greenlets_switch() else <Hub>weald_hub
    if in_main_thread() and not exiting:
        return make_hub()
    return None


cdef bint greenlets_switch() noexcept:
    """False when the interpreter is too far gone."""
    cdef PyObject *current = PyGreenlet_GetCurrent()
    if current == NULL:
        PyErr_Clear()
        return False
    Py_DECREF(<object>current)
    return True


cdef bint has_hub() noexcept:
    return weald_hub != NULL


cdef bint is_exiting() noexcept:
    """Has the interpreter begun to end?"""
    return exiting


cdef bint is_fresh_fork() noexcept:
    """Is this a fork's child whose hubs still have what the parent's had?"""
    return forked


cdef void note_fork() noexcept nogil:
    global forked
    forked = True


cdef long tick() noexcept:
    """Milliseconds on a coarse clock."""
    return c_tick()


cdef bint in_main_thread() noexcept:
    return PyThread_get_thread_ident() == main_thread_ident


def get_hub():
    """This thread's hub, made at the first call."""
    return current_hub()


def prepare_hub():
    """Import what hubs are made of, so that one can be made wherever it is needed: in a signal's handler, say."""
    load_loop()
    if hub_class is None:
        default_hub_class()


def get_hub_if_exists():
    """This thread's hub, or None."""
    if weald_hub != NULL and not (exiting and not greenlets_switch()):
        return <Hub>weald_hub
    return None


def waits_natively():
    """Whether the interpreter is ending and this thread can have no hub any more."""
    return exiting and current_hub_or_none() is None


def set_hub(Hub hub):
    """Make `hub`, which must have been made in this thread, this thread's; None: the next one is made when needed.

    The one before goes on existing with what is parked on it, until somebody destroys it.
    """
    global weald_hub
    cdef Hub before = <Hub>weald_hub if weald_hub != NULL else None
    if hub is before:
        return
    if hub is not None and (hub.thread_ident != PyThread_get_thread_ident() or hub.backend.destroyed):
        raise ValueError(f"only a living hub of this thread can be made its hub, not {hub!r}")
    if before is not None:
        before.close_signals()
        drop_keeper()
    if hub is None:
        weald_hub = NULL
        return
    (<dict>PyThreadState_GetDict())[KEEPER] = _Keeper(hub)
    weald_hub = <PyObject *>hub
    hubs.add(hub)
    if hub.thread_ident == main_thread_ident and hub.signals is None:
        hub.watch_signals()


def set_hub_class(cls):
    """Make hubs of class `cls` (a subclass of Hub) from now on; None: of the default."""
    global hub_class
    if cls is not None and not issubclass(cls, Hub):
        raise TypeError(f"a hub class must derive from weald's Hub, got {cls!r}")
    hub_class = cls


def set_default_hub_class(find):
    """Make hubs, while nobody has called `set_hub_class`, of the class that `find()` returns when one is needed."""
    global default_hub_class
    default_hub_class = find


# ------------------------------------------------------------------ helpers, threads, forks, exit

cdef bint other_threads_may_wake() noexcept:
    return other_threads() > idle_helpers


def helper_idle(int change):
    """A helper thread of weald's own begins (1) or ends (-1) waiting for work, so that it does not
    count as somebody who may yet wake a greenlet."""
    global idle_helpers
    idle_helpers += change


def signals_may_wake(bint handled):
    """Whether the program has handlers of signals: a signal may then wake a greenlet that nothing else can wake."""
    global signals_handled
    signals_handled = handled


def _after_fork_in_child():
    """A fresh loop for this thread's hub; the parent's greenlets stay behind."""
    global forked, main_thread_ident, idle_helpers
    cdef Hub hub
    main_thread_ident = PyThread_get_thread_ident()
    idle_helpers = 0
    mine = <object>weald_hub if weald_hub != NULL else None
    for hub in list(hubs):
        hub.forked()
        if hub is not mine:
            hub.stopping = True
            hub.backend.close()
            hubs.discard(hub)
    forked = False


def _at_exit():
    """Nothing of weald runs in a half-dead interpreter."""
    global exiting, last_greenlet
    last_greenlet = current_greenlet()
    exiting = True


# Functions that others have registered, threading's for one, run before ours.
if pthread_atfork(NULL, NULL, note_fork):
    raise MemoryError
os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
