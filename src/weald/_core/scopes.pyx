"""Cancel scopes: blocks whose waits end with Cancelled, by a deadline or by a call.

Called by: weald.scopes, lock.pyx, aio/bridge.pyx.
Invariants:
- `hub.scopes` has the innermost scope of each greenlet that is in one.  A scope's `parent` is the next one outwards.  A
  task of a TaskGroup begins in the group's scope, which has a set of its tasks (`members`).
- A greenlet in a cancelled scope gets Cancelled at every wait until it has left that scope.  For this it has a
  `Raising` in the ring, which raises Cancelled each time that the greenlet has parked.  So waits that are in no
  cancelled scope cost nothing.
- A shield keeps cancellations of the scopes around it from what is inside it, for as long as it lasts.
- Each `Raising` checks again, when it runs, that the greenlet is in a cancelled scope still.

The semantics are trio's ("Cancellation and timeouts" in its manual): cancellation is a state of the block, and the
outermost cancelled scope catches Cancelled.
"""

from cpython.long cimport PyLong_FromVoidPtr
from libc.math cimport isnan

from weald._core.c_greenlet cimport PyGreenlet_ACTIVE, PyGreenlet_Import, PyGreenlet_STARTED, greenlet
from weald._core.hooks cimport Supervisor
from weald._core.hub cimport Hub, Runnable, Throw, current_greenlet
from weald._core.threads cimport current_hub
from weald._core.timers cimport BaseTimer

from greenlet import GreenletExit

from weald._core.greenlet import spawn_supervised

cdef double INFINITY = float("inf")

PyGreenlet_Import()


class Cancelled(GreenletExit):
    """Raised by every wait of a greenlet in a cancelled scope.  Let it pass: the scope catches it.

    It derives from GreenletExit, because code that cleans up when its greenlet is killed has the same to do here.
    """


cdef class Raising(Runnable):
    """Raises Cancelled in `target`, once each time that it waits, for as long as it is in a cancelled scope."""

    cdef greenlet target
    cdef object key

    cdef int run(self, Hub hub) except -1:
        cdef Throw throw
        if not self.lasts(hub):
            hub.raisings.discard(self.key)
            return 0
        hub.push(self)  # first, so that it comes before the end of whatever the greenlet waits for next
        if PyGreenlet_STARTED(<void *>self.target):
            throw = Throw.__new__(Throw)
            throw.target = self.target
            throw.exception = Cancelled("its scope has been cancelled")
            throw.run(hub)
        return 0

    cdef bint lasts(self, Hub hub) except -1:
        """Whether the greenlet lives, and is in a cancelled scope."""
        if PyGreenlet_STARTED(<void *>self.target) and not PyGreenlet_ACTIVE(<void *>self.target):
            return False
        scope = hub.scopes.get(self.key)
        return scope is not None and (<CancelScope>scope).in_effect()


cdef class Change(Runnable):
    """Work for the hub's thread: `scope` has been cancelled by another thread, or the time of `timer` is over."""

    cdef CancelScope scope
    cdef DeadlineTimer timer

    cdef int run(self, Hub hub) except -1:
        if self.timer is None:
            self.scope.spread()
        elif self.timer.scope is not None:  # else the scope has been left, or its deadline moved
            self.timer.scope.expire()
        return 0


cdef class DeadlineTimer(BaseTimer):
    """Ends a scope's time."""

    cdef CancelScope scope

    cdef int expire(self) except -1:
        cdef Change change
        if self.scope is not None:
            change = Change.__new__(Change)
            change.timer = self
            self.scope.hub.push(change)
        return 0


cdef enum State:
    NEW
    ENTERED
    LEFT


cdef class CancelScope:
    """CancelScope(*, deadline=inf, shield=False): a `with` block whose waits can be cancelled together.

    Once `cancel()` has been called or *deadline* (seconds, on the clock of `current_time`) has passed, every wait
    in the block raises Cancelled until the block is left, and its end catches Cancelled (`cancelled_caught`).
    Tasks of a TaskGroup that is opened in the block are part of it.  A computation that never waits is not interrupted.

    With *shield*, cancellations of the scopes around it do not reach the block.  It is entered once, and left by
    the greenlet that has entered it.  ValueError if *deadline* is nan.
    """

    cdef CancelScope parent
    cdef greenlet target
    cdef object key  # of `target` in `hub.scopes`: its address
    cdef Hub hub
    cdef DeadlineTimer timer
    cdef set members  # of a TaskGroup's scope: its tasks; else None
    cdef State state
    cdef double deadline_
    cdef double seconds  # until the deadline, from entering; negative: none
    cdef bint shield_
    cdef bint called
    cdef bint late  # cancelled because its time was over
    cdef bint fails  # raises TimeoutError then
    cdef readonly bint cancelled_caught

    def __cinit__(self):
        self.deadline_ = INFINITY
        self.seconds = -1.0

    def __init__(self, *, double deadline=INFINITY, bint shield=False):
        if isnan(deadline):
            raise ValueError("a deadline must be a number of seconds, not nan")
        self.deadline_ = deadline
        self.shield_ = shield

    # -------------------------------------------------------------- state

    @property
    def deadline(self):
        """When it is cancelled by itself, in seconds on the clock of `current_time`; inf: never.  It can be moved."""
        return self.deadline_

    @deadline.setter
    def deadline(self, double value):
        if isnan(value):
            raise ValueError("a deadline must be a number of seconds, not nan")
        self.deadline_ = value
        self.seconds = -1.0
        if self.state == ENTERED:
            self.stop_timer()
            self.start_timer()

    @property
    def shield(self):
        """Whether cancellations of the scopes around it do not reach it.  It can be changed."""
        return self.shield_

    @shield.setter
    def shield(self, bint value):
        self.shield_ = value
        if not value and self.state == ENTERED and self.in_effect():
            self.spread()

    @property
    def cancel_called(self):
        """Whether it has been cancelled, by a call or because its deadline has passed."""
        if not self.called and self.state == ENTERED and self.deadline_ <= self.hub.backend.time():
            self.expire()
        return self.called

    cdef bint in_effect(self) noexcept:
        """Whether it is cancelled, or a scope around it is and no shield lies between."""
        cdef CancelScope scope = self
        while scope is not None:
            if scope.called:
                return True
            if scope.shield_:
                return False
            scope = scope.parent
        return False

    # -------------------------------------------------------------- cancelling

    def cancel(self):
        """Cancel it, for good.  Any thread.  Before it is entered, it is cancelled from the beginning.  Idempotent."""
        cdef Change change
        if self.called:
            return
        self.called = True
        if self.state != ENTERED:
            return
        if current_hub() is self.hub:
            self.spread()
        else:
            change = Change.__new__(Change)
            change.scope = self
            self.hub.push(change)

    cdef int expire(self) except -1:
        """Cancel it because its time is over."""
        self.stop_timer()
        if self.state == ENTERED and not self.called:
            self.called = self.late = True
            self.spread()
        return 0

    cdef int spread(self) except -1:
        """Have Cancelled raised in the greenlets inside; in the hub's thread."""
        if self.state == ENTERED:
            self.spread_in(self.target)
            self.spread_to_members()
        return 0

    cdef int spread_to_members(self) except -1:
        if self.members is not None:
            for task in list(self.members):
                self.spread_in(task)
        return 0

    cdef int spread_in(self, greenlet target) except -1:
        """Have Cancelled raised in `target`, which is in this scope, and in the tasks of groups that it has opened."""
        cdef CancelScope scope
        cdef list inside = []  # the scopes that the greenlet has entered within this one
        key = PyLong_FromVoidPtr(<void *>target)
        scope = self.hub.scopes.get(key)
        while scope is not None and scope is not self:
            inside.append(scope)
            scope = scope.parent
        for scope in reversed(inside):
            if scope.shield_:
                return 0
            scope.spread_to_members()
        raise_soon(self.hub, target, key)
        return 0

    # -------------------------------------------------------------- the block

    def __enter__(self):
        cdef Hub hub = current_hub()
        cdef greenlet target = current_greenlet()
        if self.state != NEW:
            raise RuntimeError("a CancelScope can be entered once: make another one")
        if target is hub:
            raise RuntimeError("a CancelScope is for greenlets: the hub and its callbacks never wait")
        self.hub, self.target = hub, target
        self.key = PyLong_FromVoidPtr(<void *>target)
        if hub.scopes is None:
            hub.scopes = {}
        self.parent = hub.scopes.get(self.key)
        hub.scopes[self.key] = self
        self.state = ENTERED
        self.start_timer()
        if self.called:
            self.spread()
        return self

    cdef int start_timer(self) except -1:
        cdef double now
        if self.called or self.deadline_ == INFINITY and self.seconds < 0.0:
            return 0
        now = self.hub.backend.time()
        if self.deadline_ == INFINITY:
            self.deadline_ = now + self.seconds
        if self.deadline_ <= now:
            return self.expire()
        self.timer = DeadlineTimer.__new__(DeadlineTimer)
        self.timer.scope = self
        self.timer.ref = True
        self.timer.start_at(self.hub.timers, self.deadline_)
        return 0

    cdef int stop_timer(self) except -1:
        timer, self.timer = self.timer, None
        if timer is not None:
            (<DeadlineTimer>timer).scope = None
            (<DeadlineTimer>timer).stop()
        return 0

    cdef int end(self) except -1:
        """Leave it; the greenlet is in the scope around it from now on."""
        self.stop_timer()
        self.state = LEFT
        if self.parent is None:
            self.hub.scopes.pop(self.key, None)
        else:
            self.hub.scopes[self.key] = self.parent
            if self.shield_ and self.parent.in_effect():
                raise_soon(self.hub, self.target, self.key)
        return 0

    cdef int check_leaving(self) except -1:
        """RuntimeError if this is not the current greenlet's innermost scope."""
        cdef CancelScope scope
        if self.state != ENTERED:
            raise RuntimeError("this CancelScope is left without having been entered")
        if current_greenlet() is not self.target:
            raise RuntimeError(
                f"this CancelScope was entered in {self.target!r}: it cannot be left in another greenlet")
        scope = self.hub.scopes.get(self.key)
        if scope is not self:
            while scope is not None and scope is not self:
                scope.stop_timer()
                scope.state = LEFT
                scope = scope.parent
            self.end()
            raise RuntimeError(
                "scopes must be left in the reverse order of entering: one inside this one is still open")
        return 0

    def __exit__(self, typ, value, tb):
        cdef bint passes  # Cancelled is for a scope further out
        self.check_leaving()
        self.end()
        if value is None or not self.called:
            return None
        passes = not self.shield_ and self.parent is not None and self.parent.in_effect()
        self.parent = None
        if passes:
            return None
        if isinstance(value, Cancelled):
            rest = None
        elif isinstance(value, BaseExceptionGroup):
            found, rest = value.split(Cancelled)
            if found is None:
                return None
        else:
            return None
        self.cancelled_caught = True
        if rest is not None:
            raise rest
        if self.fails and self.late:
            raise TimeoutError(
                "its deadline has passed" if self.seconds < 0.0 else f"not done within {self.seconds:g} seconds")
        return True

    def __repr__(self):
        states = {NEW: "not entered", ENTERED: "entered", LEFT: "left"}
        details = [states[self.state]] + ["cancelled"] * self.called + ["shield"] * self.shield_
        if self.deadline_ != INFINITY:
            details.append(f"deadline {self.deadline_:.3f}")
        return f"<{type(self).__name__} at {id(self):#x} {', '.join(details)}>"


cdef class Tasks(Supervisor):
    """The tasks of a TaskGroup, which derives from this; not for other callers."""

    cdef readonly CancelScope cancel_scope
    cdef public object _done  # an Event, set when no task is left; None until that is waited for

    def __cinit__(self):
        self.cancel_scope = CancelScope.__new__(CancelScope)
        self.cancel_scope.members = set()

    @property
    def _members(self):
        """The tasks that have not ended: a set."""
        return self.cancel_scope.members

    def spawn(self, function, /, *args, **kwargs):
        """Have `function(*args, **kwargs)` run in a new task of this group soon; returns its Greenlet.

        Tasks may spawn more of them.  RuntimeError before the block and after its end, and in another thread than
        the block's; TypeError if `function` is not callable.
        """
        cdef CancelScope scope = self.cancel_scope
        if scope.state != ENTERED:
            raise RuntimeError("this TaskGroup is not open: spawn its tasks within its with block")
        if current_hub() is not scope.hub:
            raise RuntimeError("tasks of a TaskGroup run in the thread of its block: spawn them there")
        task = spawn_supervised(self, function, args, kwargs)
        key = PyLong_FromVoidPtr(<void *>task)
        scope.members.add(task)
        scope.hub.scopes[key] = scope
        if scope.in_effect():
            raise_soon(scope.hub, task, key)
        return task

    cdef int ended(self, object task) except -1:
        cdef CancelScope scope = self.cancel_scope
        scope.members.discard(task)
        scope.hub.scopes.pop(PyLong_FromVoidPtr(<void *>task), None)
        if task.exception is not None:
            self._task_failed(task.exception)
        if self._done is not None and not scope.members:
            self._done.set()
        return 0


cdef int raise_soon(Hub hub, greenlet target, object key) except -1:
    """Have Cancelled raised in `target` when it next waits."""
    cdef Raising raising
    if key in hub.raisings:
        return 0
    hub.raisings.add(key)
    raising = Raising.__new__(Raising)
    raising.target, raising.key = target, key
    hub.push(raising)
    return 0


# ------------------------------------------------------------------ deadlines

cdef CancelScope timed(object seconds, bint shield, bint fails):
    cdef CancelScope scope = CancelScope.__new__(CancelScope)
    cdef double value
    if seconds is not None:
        value = seconds
        if isnan(value):
            raise ValueError("a timeout must be a number of seconds or None, not nan")
        scope.seconds = value if value > 0.0 else 0.0
    scope.shield_ = shield
    scope.fails = fails
    return scope


def move_on_after(seconds, *, bint shield=False):
    """A CancelScope that is cancelled `seconds` after it was entered (None: never); its block then ends early.

    `cancelled_caught` says whether it did.  ValueError if `seconds` is nan.
    """
    return timed(seconds, shield, False)


def fail_after(seconds, *, bint shield=False):
    """As `move_on_after`, but a block whose time is over raises TimeoutError."""
    return timed(seconds, shield, True)


def current_time():
    """Seconds on the clock of deadlines: that of the thread's loop (monotonic, or the virtual clock's own)."""
    return current_hub().backend.time()


def current_effective_deadline():
    """The earliest deadline that applies here, in seconds on the clock of `current_time`.

    inf if there is none; -inf if a scope has been cancelled: the next wait raises Cancelled.
    """
    cdef Hub hub = current_hub()
    cdef double earliest = INFINITY
    cdef CancelScope scope
    cdef greenlet target = current_greenlet()
    if hub.scopes is None:
        return earliest
    scope = hub.scopes.get(PyLong_FromVoidPtr(<void *>target))
    while scope is not None:
        if scope.called:
            return -INFINITY
        earliest = min(earliest, scope.deadline_)
        if scope.shield_:
            break
        scope = scope.parent
    return earliest
