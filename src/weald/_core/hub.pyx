"""The hub: the ready ring, parking and resuming, and the rounds of the event loop.

Only this module switches greenlets.  Everything else parks on a `Waiter` and is resumed.

Called by: every room of _core above it.
Invariants:
- One resume per park.  `Waiter.resume` moves a waiter from PARKED to READY and puts it on its hub's ring.  The code
  that takes it off moves it to RUNNING and switches to its greenlet.  A waiter in any other state is dropped.
- Wake-ups are first in, first out, because the ring is.
- A greenlet that parks switches straight to the next one that is ready ("resume directly"), which halves the number
  of switches.  It switches to the hub greenlet if the next item is no waiter, or the batch is used up.  New greenlets
  begin on the hub greenlet's stack: otherwise each would begin on top of the stack of the one before.
- If nothing is ready, the greenlet that parks does the loop's next round itself (`round_here`).  That round never calls
  Python code; only the hub greenlet does.
- A batch is the items that were ready when it began, and up to BATCH_EXTRA more.  The loop is polled between batches.
- Any thread that holds the GIL may push on any hub's ring.  A hub that waits in its poll is woken once.

Long because Cython does not inline across modules, and ring, switching and rounds work on the same state in the hottest
code.  Timers, threads, forks and reports are less hot and have rooms of their own.
"""

cimport cython
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident, PyThread_release_lock
from cpython.ref cimport Py_DECREF
from libc.string cimport strlen
from posix.unistd cimport write

from weald._core cimport arena, running_loop
from weald._core.c_greenlet cimport *
from weald._core.hooks cimport Driven
from weald._core.loops.contract cimport Loop, end_poll
from weald._core.reports cimport count_idle, deadlock_report, handlers_may_wake, other_threads_may_wake, print_error
from weald._core.ring cimport ring_append, ring_free, ring_init, ring_pop, ring_prepend
from weald._core.timers cimport PENDING, BaseTimer, Timers

import sys
import traceback as tracebacks
from functools import partial
from greenlet import GreenletExit, getcurrent

from weald._core import arena as _arena
from weald._core.ending import end_process
from weald._core.logs import report
from weald._core.loops.backends import make_loop

cdef extern from * nogil:
    """
    #include <time.h>
    /* Milliseconds on a coarse clock, read without a system call. */
    static long weald_tick(void)
    {
        struct timespec ts;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
        return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    }
    """
    long c_tick "weald_tick"()

cdef enum:
    BATCH_EXTRA = 128  # items that became ready during a batch and may still run in it

cdef const char *NO_REPORT = b"weald: an exception could not be reported\n"
cdef double INFINITY = float("inf")
cdef double TRIM_INTERVAL = 1.0  # seconds a poll waits at most while there are chunks of memory to give back

PyGreenlet_Import()
_arena.install()

# Set by rooms above this one.
cdef object signal_watch_class = None
cdef object event_loop_class = None
cdef object forget_hub = None

cdef Loop NO_LOOP = Loop()  # of a hub whose __init__ has not been called
NO_LOOP.destroyed = True


class LoopExit(Exception):
    """A deadlock: nothing is left that could wake a greenlet.  The text says which greenlets wait, and for what."""


class BlockingSwitchOutError(AssertionError):
    """A blocking call was tried in the hub greenlet (in an event loop callback)."""


class InvalidSwitchError(AssertionError):
    """A parked greenlet was switched to by code that must not wake it."""


# ------------------------------------------------------------------ what the ring holds

cdef class Runnable:
    """Work for the hub greenlet."""

    cdef int run(self, Hub hub) except -1:
        return 0


@cython.freelist(256)
@cython.no_gc
cdef class Waiter:
    """A greenlet, or a thread without a hub, that waits once.

    No `__cinit__` and no `__dealloc__`, which would cost as much as all the rest of making and freeing one.
    """

    cdef bint resume(self, object value) except -1:
        """Wake it; `park` returns `value` to it.  False if it is awake already.  Any thread."""
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
    """A call that the hub will make once, unless `stop()` cancels it."""

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
        """Cancel the call.  Idempotent."""
        self.callback = None
        self.args = None

    close = stop

    @property
    def pending(self):
        """Whether the call is still to be made."""
        return self.callback is not None

    def __bool__(self):
        return self.callback is not None

    def __repr__(self):
        state = f" callback={self.callback!r} args={self.args!r}" if self.callback is not None else " stopped"
        return f"<{type(self).__name__} at {id(self):#x}{state}>"


cdef class Throw(Runnable):
    """Raises an exception in a greenlet."""

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

@cython.no_gc
cdef class WakeTimer(BaseTimer):
    """Ends a wait at its timeout."""

    cdef int expire(self) except -1:
        cdef Waiter waiter = self.waiter
        self.waiter = None
        if waiter is not None and waiter.state == PARKED:
            waiter.timed_out = True
            waiter.resume(None)
        return 0


cdef class Timer(BaseTimer):
    """Calls `callback(*args)` in the hub after `seconds`.  The callback must not block."""

    cdef Hub hub
    cdef object callback
    cdef tuple args

    def __init__(self, Hub hub not None, double seconds, callback, *args, bint ref=True):
        self.hub = hub
        self.callback = callback
        self.args = args
        self.ref = ref
        self.runs_python = True
        self.start(hub.timers, seconds)

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
        """Whether the call is still to be made."""
        return self.state == PENDING

    def cancel(self):
        """Cancel the call.  Idempotent."""
        self.stop()
        self.callback = None
        self.args = None


def set_signal_watch(cls):
    """Have the main thread's hub make `cls(hub)`, a SignalWatch, which lets signals end its wait."""
    global signal_watch_class
    signal_watch_class = cls


def set_event_loop_class(cls):
    """Make `hub.loop` an instance of `cls`, an EventLoop, for hubs whose `loop` has not been read yet."""
    global event_loop_class
    event_loop_class = cls


def set_forget_hub(function):
    """Have `function(hub)` called when a hub is destroyed."""
    global forget_hub
    forget_hub = function


def report_error(Hub hub, context, type, value, tb):
    """Call `hub.handle_error`, which users may override.  The hub survives exceptions that it raises."""
    try:
        hub.handle_error(context, type, value, tb)
    except BaseException as error:
        if isinstance(error, hub.SYSTEM_ERROR):
            hub.throw_into_main(error, None)
            return
        try:
            report(tracebacks.format_exc(), sys.__stderr__)
        except BaseException:  # out of memory, say; the hub goes on
            write(2, NO_REPORT, strlen(NO_REPORT))


# ------------------------------------------------------------------ the hub

cdef class Hub(greenlet):
    """The greenlet that runs a thread's event loop.

    `get_hub()` makes it at first use.  It is the parent of the greenlets that are spawned in the thread.
    """

    SYSTEM_ERROR = (KeyboardInterrupt, SystemExit, SystemError)
    NOT_ERROR = (GreenletExit,)

    def __cinit__(self, *args, **kwargs):
        ring_init(&self.ring)
        self.backend = NO_LOOP
        self.timers = Timers(NO_LOOP)

    def __init__(self, loop=None):
        super().__init__()
        self.thread_ident = PyThread_get_thread_ident()
        self.main = main_greenlet()
        PyGreenlet_SetParent(<void *>self, <void *>self.main)
        self.backend = loop if isinstance(loop, Loop) else make_loop(loop)
        self.timers = Timers(self.backend)
        self.timeless = self.backend.name == "virtual"
        self.loop_time = self.backend.time()
        self.batch_tick = tick()
        self.idlers = []
        self.raisings = set()
        self.fds = []
        self.name = ""

    def __dealloc__(self):
        ring_free(&self.ring)

    # -------------------------------------------------------------- what is ready

    cdef int push(self, object item) except -1:
        """Put `item` (Waiter, unstarted greenlet or Runnable) at the ring's end.  Any thread, with the GIL."""
        ring_append(&self.ring, item)
        if self.backend.polling:
            end_poll(self.backend)
        return 0

    cdef int push_first(self, object item) except -1:
        """Put `item` before everything else that is ready.  Any thread, with the GIL."""
        ring_prepend(&self.ring, item)
        if self.backend.polling:
            end_poll(self.backend)
        return 0

    cdef int move_ahead(self, Waiter waiter) except -1:
        """Resume `waiter`, if it has been woken, as soon as the callback that this hub is calling has returned.

        Its old item stays in the ring.  It will be dropped there, because the waiter is no longer READY by then.
        """
        if waiter.state == READY and waiter.hub is self:
            self.batch_left += 1
            self.push_first(waiter)
        return 0

    cdef bint batch_goes_on(self) noexcept:
        """Whether one more item may run before the next poll."""
        if self.batch_left > 0:
            self.batch_left -= 1
            return True
        if self.batch_extra > 0 and (tick() == self.batch_tick or self.timeless):
            self.batch_extra -= 1
            return True
        return False

    cdef void begin_batch(self) noexcept:
        self.batch_left = self.ring.count
        self.batch_extra = BATCH_EXTRA
        self.batch_tick = tick()

    cdef int run_batch(self) except -1:
        self.begin_batch()
        while self.ring.count > 0 and not self.stopping and self.batch_goes_on():
            self.run_next()
        return 0

    cdef int run_next(self) except -1:
        """Run the ring's first item."""
        cdef Waiter waiter
        cdef PyObject *result
        cdef greenlet g
        item = ring_pop(&self.ring)
        if type(item) is Waiter:
            waiter = <Waiter>item
            if waiter.state == READY:
                waiter.state = RUNNING
                g = waiter.parked
                # This frame stays until the hub greenlet runs again, so it must not hold the waiter.
                item = None
                waiter = None
                self.resuming = True
                result = PyGreenlet_Switch(<void *>g)
                self.resuming = False
                self.switched(result, g)
        elif isinstance(item, greenlet):
            g = <greenlet>item
            item = None
            if not PyGreenlet_STARTED(<void *>g):
                self.calls_since_switch = 0
                self.resuming = True
                result = PyGreenlet_Switch(<void *>g)
                self.resuming = False
                self.switched(result, g)
        else:
            (<Runnable>item).run(self)
        return 0

    cdef int begin(self, greenlet g) except -1:
        """Start a new greenlet, unless it was killed or started by hand meanwhile."""
        if not PyGreenlet_STARTED(<void *>g):
            self.calls_since_switch = 0
            self.switched(PyGreenlet_Switch(<void *>g), g)
        return 0

    cdef int switched(self, PyObject *result, greenlet g) except -1:
        """Called in the hub greenlet after a switch, with the switch's result.

        NULL means that an exception escaped from a plain greenlet.
        """
        if result != NULL:
            Py_DECREF(<object>result)
            return 0
        try:
            raise_current()
        except BaseException:
            # It need not be `g` that has died, since greenlets resume each other.  The traceback shows which one.
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

        Reports name `what` as the object waited for.  An exception that is thrown in ends the wait.  If it came after
        the wake-up, `waiter.lost` is true, and the caller passes the value on that it was woken with (see waiters.pyx).
        """
        cdef Waiter other
        cdef PyObject *result
        cdef void *target = <void *>self
        cdef WaiterState state
        cdef object loop = None  # the asyncio loop that this greenlet runs, with its current task and hooks
        if <void *>waiter.parked == <void *>self:
            self.raise_blocking(what)
        waiter.what = what
        waiter.since = self.loop_time
        if self.driving != NULL:
            (<Driven>self.driving).parking()
        while self.traced == 0:
            if self.ring.count > 0:
                item = <object>self.ring.items[self.ring.head]
                if type(item) is not Waiter or self.stopping:
                    break
                other = <Waiter>item
                if other.state != READY:
                    ring_pop(&self.ring)
                    continue
                if self.batch_goes_on():
                    ring_pop(&self.ring)
                    other.state = RUNNING
                    if other is waiter:
                        waiter.state = DONE
                        return waiter.value
                    target = <void *>other.parked
                    break
            if not self.resuming or not self.round_here(waiter):
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
            loop = running_loop.put_aside(what)
        result = PyGreenlet_Switch(<void *>target)
        self.calls_since_switch = 0
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
            self.raise_invalid(waiter, what)
        return waiter.value

    # Not in `park`: greenlet copies its frame at each switch.

    cdef int raise_blocking(self, object what) except -1:
        raise BlockingSwitchOutError(
            f"cannot wait for {what} in an event loop callback: it would stop the loop; "
            "spawn a greenlet there instead")

    cdef int raise_invalid(self, Waiter waiter, object what) except -1:
        raise InvalidSwitchError(
            f"Invalid switch into {waiter.parked!r}, which waits for {what}: use kill() or throw() to end the wait")

    cdef bint round_here(self, Waiter waiter) except -1:
        """Do one round of the loop in the greenlet that is about to park with `waiter`.

        False if the hub greenlet has to do it: to end, to call callbacks, to resume `wait_blocked`, to report a
        deadlock.  The ring is empty, or its first item belongs to the next batch.
        """
        if self.stopping or self.ring.count == 0 and (
                self.refs + self.timers.refs <= 0 or self.onlookers is not None):
            return False
        if self.watched is not None and self.watched.busy:
            return False
        cdef bint handed_over
        cdef bint done = False
        try:
            self.poll(0.0 if self.ring.count > 0 else self.timers.next_deadline())
            self.backend.dispatch()
            handed_over = self.fire_timers(False)
            done = True
        finally:  # costs nothing unless something is raised, as `except` does
            if not done:
                waiter.state = DONE
        self.begin_batch()
        self.calls_since_switch = 0
        if handed_over:
            # The hub goes on to its next round, or a greenlet that is always ready again would keep it from the timers.
            self.batch_left = self.batch_extra = 0
        return not handed_over

    cdef bint look_here(self) except -1:
        """Poll the loop without waiting, in a greenlet that would then go on.

        Returns False if the greenlet has to park: others are ready, or the hub greenlet is needed.
        """
        cdef bint handed_over
        if not self.resuming or self.stopping or self.ring.count > 0 or (
                self.watched is not None and self.watched.busy):
            return False
        self.poll(0.0)
        self.backend.dispatch()
        handed_over = self.fire_timers(False)
        return not handed_over and self.ring.count == 0

    cdef int throw_into(self, greenlet target, object exception, object traceback) except -1:
        """Have `exception` raised in `target` soon, after everything that is ready already."""
        cdef Throw throw = Throw.__new__(Throw)
        throw.target = target
        throw.exception = exception
        throw.traceback = traceback
        self.push(throw)
        return 0

    cdef int throw_into_main(self, object exception, object traceback) except -1:
        return self.throw_first(self.main, exception, traceback)

    cdef int throw_first(self, greenlet target, object exception, object traceback) except -1:
        """Have `exception` raised in `target` before everything else that is ready, its wake-up included."""
        cdef Throw throw = Throw.__new__(Throw)
        throw.target = target
        throw.exception = exception
        throw.traceback = traceback
        self.push_first(throw)
        return 0

    cdef int fire_timers(self, bint may_run_python) except -1:
        """Expire the timers that are due.  Without `may_run_python`, stop at one that runs Python code; 1 if so."""
        if self.timers.count == 0:
            return 0
        self.loop_time = self.backend.time()
        return self.timers.fire(self.loop_time, may_run_python)

    cdef list unended(self):
        """The greenlets that are parked here, except the main one, and those that have not begun.

        Without the one that waits for something to do on the resident loop: the program has not begun it.
        """
        cdef Py_ssize_t i
        found = [
            g for g, what, _ in self.parked()
            if g is not self.main and PyGreenlet_ACTIVE(<void *>g) and (what is None or what is not self.resident)
        ]
        for i in range(self.ring.count):
            item = <object>self.ring.items[(self.ring.head + i) & self.ring.mask]
            if isinstance(item, greenlet) and not PyGreenlet_STARTED(<void *>item) \
                    and not (hasattr(item, "ready") and item.ready()):
                found.append(item)
        return found

    cdef int end_greenlets(self) except -1:
        """End the thread's greenlets, because the thread ends."""
        cdef PyObject *result
        if self.backend.destroyed:
            return 0
        self.stopping = True  # the hub greenlet ends at the first switch to it
        for g, _, _ in self.parked():
            if g is not self.main and PyGreenlet_ACTIVE(<void *>g):
                result = PyGreenlet_Throw(<void *>g, <PyObject *>GreenletExit, NULL, NULL)
                self.switched(result, g)
        g = None
        # End those that have not begun, too: another thread may wait for them.
        while self.ring.count > 0:
            item = ring_pop(&self.ring)
            if isinstance(item, greenlet) and not PyGreenlet_STARTED(<void *>item) and hasattr(item, "kill"):
                item.kill(block=False)
        return 0

    # -------------------------------------------------------------- the loop

    cdef int check_made(self) except -1:
        if self.backend is NO_LOOP:
            raise RuntimeError("a hub that has not been made: a subclass's __init__ must call Hub's")
        return 0

    def run(self):
        """The hub greenlet's body; ends when `destroy` asks for it."""
        cdef double deadline
        self.check_made()
        while not self.stopping:
            self.run_batch()
            if self.stopping:
                break
            if self.ring.count > 0:
                deadline = 0.0
            elif self.onlookers is not None:
                self.run_round(0.0)  # events that have arrived may wake a greenlet
                if self.ring.count == 0:
                    self.wake_onlookers()
                continue
            else:
                deadline = self.timers.next_deadline()
                if self.refs + self.timers.refs <= 0:
                    if self.idlers:
                        self.wake_idlers()
                        continue
                    if self.lingerer is not None:
                        self.run_idle_round(deadline)
                        continue
                    if not other_threads_may_wake() and not (handlers_may_wake() and self.main_goes_on()):
                        self.report_deadlock()
                        continue
            self.run_round(deadline)

    cdef int run_idle_round(self, double deadline) except -1:
        """Called when a helper's thread lingers and nothing in it can go on by itself: end it, or wait for others."""
        if not self.has_others_parked():
            self.lingerer.resume(None)
            return 0
        count_idle(1)
        try:
            self.run_round(deadline)
        finally:
            count_idle(-1)
        return 0

    cdef bint has_others_parked(self) noexcept:
        """Whether a greenlet besides the main one is parked here, or was not left behind in a fork's parent."""
        cdef void *node = self.parked_head
        while node != NULL:
            if (<Waiter>node).since >= self.forked_at and (<Waiter>node).parked is not self.main:
                return True
            node = (<Waiter>node).hub_next
        return False

    cdef int run_round(self, double deadline) except -1:
        """One round of the loop: wait until `deadline` at the latest, then wake for the events that have arrived."""
        if self.watched is not None:
            deadline = self.watched.before_poll(deadline)
        self.poll(deadline)
        # In this order, so that a wait whose event has come in time does not time out because the loop was busy.
        self.backend.dispatch()
        self.fire_timers(True)
        if self.watched is not None:
            self.watched.after_poll()
        return 0

    def run_loop(self, bint nowait=False, bint once=False):
        """Run a hub that is no thread's own, in the calling greenlet, until nothing is left to wait for.

        With `nowait` do one round without waiting, with `once` one round.  RuntimeError for this thread's own hub,
        which runs by itself.
        """
        cdef double deadline
        if self.is_threads and self.thread_ident == PyThread_get_thread_ident():
            raise RuntimeError("this thread's own loop runs by itself: wait for something instead")
        self.check_made()
        self.stopping = False
        while not self.stopping:
            self.run_batch()
            if self.refs + self.timers.refs <= 0 and self.ring.count == 0 and not nowait:
                break
            deadline = 0.0 if nowait or self.ring.count > 0 else self.timers.next_deadline()
            self.run_round(deadline)
            if nowait or once:
                self.run_batch()
                break
        self.stopping = False

    def break_loop(self):
        """Have `run_loop` return after the round that is under way."""
        self.stopping = True

    cdef int poll(self, double deadline) except -1:
        cdef double now
        if deadline == INFINITY:
            if arena.trim():
                deadline = self.backend.time() + TRIM_INTERVAL  # come back to trim the rest
        elif deadline > 0.0:
            now = self.backend.time()
            if deadline <= now + self.backend.shortest_wait:
                deadline = 0.0  # due, or so soon that this comes back before a system call that waits would
            elif arena.trim() and deadline > now + TRIM_INTERVAL:
                deadline = now + TRIM_INTERVAL
        if deadline == 0.0:
            self.backend.poll(0.0)
            return 0
        self.backend.polling = True
        try:
            if self.signals is not None:
                self.signals.before_wait()
            self.backend.poll(deadline)
        finally:
            self.backend.polling = False
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

    cdef int wake_onlookers(self) except -1:
        cdef Waiter waiter
        onlookers, self.onlookers = self.onlookers, None
        for waiter in onlookers or ():
            waiter.resume(None)
        return 0

    cdef int watch_signals(self) except -1:
        """Let signals end this hub's wait; for the main thread's hub only."""
        if self.backend.name != "virtual":
            self.signals = signal_watch_class(self)
        return 0

    # -------------------------------------------------------------- public

    @property
    def loop(self):
        """The event loop as users see it: its clock, its name, its watchers (an `EventLoop`)."""
        if self.watched is None:
            made = event_loop_class(self)
            if self.watched is None:  # else a signal's handler has made one meanwhile
                self.watched = made
        return self.watched

    def switch(self):
        """Switch to the hub until another greenlet switches back; returns the value passed to that switch.

        For code that arranges its own waking, by `hub.run_callback(greenlet.switch, value)` for example.
        BlockingSwitchOutError in the hub greenlet itself.
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
        """Have `callback(*args)` called in the hub greenlet soon, after everything that is ready.  Any thread.

        It must not block.  Returns the Callback, whose `stop()` cancels the call.  TypeError if it is not callable.
        """
        if not callable(callback):
            raise TypeError(f"run_callback needs a callable, got {callback!r}")
        cdef Callback item = Callback(callback, args)
        self.push(item)
        return item

    run_callback_threadsafe = run_callback

    def ref(self):
        """Count one more thing that can wake a greenlet (say, a job in a thread pool): the hub waits for it."""
        self.refs += 1

    def unref(self):
        """Take back one `ref`.  Any thread."""
        self.refs -= 1
        if self.backend.polling and self.refs + self.timers.refs <= 0:
            end_poll(self.backend)

    def join(self, timeout=None):
        """Wait until nothing is left to run or to wait for, up to `timeout` seconds (None: for ever).

        Returns whether that happened in time; True at once if the hub is destroyed.
        """
        cdef Waiter waiter
        cdef WakeTimer timer = None
        self.check_made()
        if self.backend.destroyed:
            return True
        waiter = self.waiter()
        if timeout is not None:
            timer = WakeTimer.__new__(WakeTimer)
            timer.waiter = waiter
            timer.start(self.timers, timeout)
        self.idlers.append(waiter)
        try:
            return bool(self.park(waiter, "the hub to run dry"))
        finally:
            if timer is not None:
                timer.stop()
            if waiter in self.idlers:
                self.idlers.remove(waiter)

    def wait_blocked(self):
        """Wait until all other greenlets of this hub are parked and no event that has arrived will wake one of them.

        It does not wait for later timers, for native threads or for other processes.
        """
        self.check_made()
        cdef Waiter waiter = self.waiter()
        if self.onlookers is None:
            self.onlookers = []
        self.onlookers.append(waiter)
        try:
            self.park(waiter, "all others to be parked")
        finally:
            if self.onlookers is not None and waiter in self.onlookers:
                self.onlookers.remove(waiter)
                if not self.onlookers:
                    self.onlookers = None

    def has_rest(self):
        """Whether something that was started here has not ended: something is ready, waited for, or parked."""
        self.check_made()
        return not self.backend.destroyed and (
            self.ring.count > 0 or self.refs + self.timers.refs > 0 or self.has_others_parked())

    def prepare_linger(self):
        """Have `rouse` end the next `linger`, even if it is called before that has begun."""
        self.check_made()
        self.lingerer = self.waiter()

    def linger(self):
        """In a helper thread's main greenlet: run the thread's greenlets until they have ended or `rouse` is called.

        Call `prepare_linger` before.  Unlike `join`, it also waits for greenlets that only another thread can wake.
        """
        if self.lingerer is None or current_greenlet() is not self.main:
            raise RuntimeError("linger is called in the hub's main greenlet, after prepare_linger")
        try:
            self.park(self.lingerer, "what was begun in this thread to end")
        finally:
            self.lingerer = None

    def rouse(self):
        """End a `linger`.  Any thread."""
        if self.lingerer is not None:
            self.lingerer.resume(None)

    def destroy(self, destroy_loop=True):
        """End the hub: free its loop and its descriptors.  Idempotent.

        The thread may make a new one afterwards.  Greenlets that are parked on this one stay parked for good.
        `destroy_loop` is ignored.
        """
        if self.backend.destroyed:
            return
        self.stopping = True
        if current_greenlet() is self.main and self.parent is self.main and PyGreenlet_ACTIVE(<void *>self):
            result = PyGreenlet_Switch(<void *>self)
            if result == NULL:
                raise_current()
            Py_DECREF(<object>result)
        pool, self.threadpool = self.threadpool, None
        if pool is not None:
            pool.kill()
        resolver, self.resolver = self.resolver, None
        if resolver is not None:
            resolver.close()
        resident, self.resident = self.resident, None
        if resident is not None:
            resident._hub_ends()
        if self.watched is not None:
            self.watched.closed()
        for entry in self.fds:
            if entry is not None:
                entry.close()
        self.fds = []
        self.onlookers = None
        self.close_signals()
        self.backend.close()
        forget_hub(self)

    def owns(self, int fd):
        """Whether descriptor `fd` is the hub's own: its loop's, or the one through which signals wake it."""
        self.check_made()
        return self.backend.owns(fd) or self.signals is not None and self.signals.owns(fd)

    def close_range(self, close, int first, int end):
        """Call `close()`, which closes the descriptors from `first` up to but not including `end`.

        If that closes descriptors of the hub, they are opened again.  Greenlets that wait for one of the others get
        OSError(EBADF).
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
        """Do not let signals end this hub's wait any more."""
        if self.signals is not None:
            self.signals.close()
            self.signals = None
        return 0

    cdef bint main_goes_on(self) noexcept:
        """False if the main greenlet has ended, as it may in a fork's child; else it ends with the thread."""
        return PyGreenlet_ACTIVE(<void *>self.main) or not PyGreenlet_STARTED(<void *>self.main)

    cdef int end_child(self, object exception, object traceback) except -1:
        """End a fork's child whose main greenlet has ended, with `exception`; None if nothing is left to run.

        The process ends as if that greenlet had been the thread's main one, which is the parent's and must not go on.
        """
        self.push_first(greenlet(partial(end_process, exception, traceback), self))
        return 0

    def handle_error(self, context, type, value, tb):
        """Handle an uncaught exception of `context` (a greenlet, a callback or None).

        It is printed, unless its type is in NOT_ERROR; if its type is in SYSTEM_ERROR, it is raised in the main
        greenlet.  `type`, `value` and `tb` are as in sys.exc_info().  Users override this to send errors elsewhere.
        """
        if not issubclass(type, self.NOT_ERROR):
            self.print_exception(context, type, value, tb)
        if issubclass(type, self.SYSTEM_ERROR):
            self.handle_system_error(type, value, tb)

    def handle_system_error(self, type, value, tb=None):
        """Have the exception raised in the main greenlet, before everything else that is ready."""
        self.throw_into_main(value if value is not None else type, tb)

    def print_exception(self, context, type, value, tb):
        """Write the traceback and `context` to sys.stderr; nothing for KeyboardInterrupt and SystemExit."""
        print_error(context, type, value, tb)

    def parked(self):
        """The waiting greenlets: a list of (greenlet, object waited for, loop time when it began), oldest first."""
        cdef void *node = self.parked_head
        cdef Waiter waiter
        found = []
        while node != NULL:
            waiter = <Waiter>node
            if waiter.since >= self.forked_at:  # else it is the parent's, parked here for good
                found.append((waiter.parked, waiter.what, waiter.since))
            node = waiter.hub_next
        found.reverse()
        return found

    cdef int report_deadlock(self) except -1:
        """Raise LoopExit in the main greenlet, because nothing can ever wake a greenlet."""
        cdef PyObject *result
        if not self.main_goes_on():
            return self.end_child(None, None)
        error = LoopExit(deadlock_report(self.parked(), self.main, self.backend.time()))
        result = PyGreenlet_Throw(<void *>self.main, <PyObject *>LoopExit, <PyObject *>error, NULL)
        self.switched(result, self.main)
        return 0

    def __repr__(self):
        state = "destroyed" if self.backend.destroyed else self.backend.name
        return f"<{type(self).__name__} at {id(self):#x} {state} thread_ident={self.thread_ident:#x}>"


cdef int raise_current() except -1:
    """Raise the exception that a C call left set."""
    return -1


cdef greenlet last_greenlet = None  # noted by `keep_last`
cdef unsigned long last_thread = 0  # its thread


cdef int keep_last() except -1:
    """Remember the current greenlet for `current_greenlet`, as greenlet's function fails at the interpreter's end."""
    global last_greenlet, last_thread
    last_greenlet = current_greenlet()
    last_thread = PyThread_get_thread_ident()
    return 0


cdef greenlet current_greenlet():
    """The running greenlet.  At the interpreter's end, when greenlet's function fails, the one remembered before."""
    cdef PyObject *current = PyGreenlet_GetCurrent()
    if current == NULL:
        if last_greenlet is not None and PyThread_get_thread_ident() == last_thread:
            PyErr_Clear()
            return last_greenlet
        raise_current()
    g = <greenlet>current
    Py_DECREF(g)
    return g


cdef object handler_class = None


def set_handler_class(cls):
    """Run signal handlers in greenlets of class `cls`.

    A handler's greenlet acts for the one in its attribute `main`: the two share locals, locks and identity.
    """
    global handler_class
    handler_class = cls


cdef greenlet acting_greenlet():
    """The current greenlet; in a signal handler, the greenlet it acts for; None if that has ended."""
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


cdef long tick() noexcept:
    """Milliseconds on a coarse clock."""
    return c_tick()
