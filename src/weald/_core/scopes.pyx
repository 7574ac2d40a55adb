"""Cancel scopes: blocks whose waits end with Cancelled, by a deadline or by a call; groups of tasks.

Called by: weald.scopes, lock.pyx, aio/bridge.pyx; through an interface (`Supervisor`), when a task has ended.
Invariants:
- `hub.scopes` has the innermost scope of each greenlet that is in one.  A scope's `parent` is the next one outwards: of
  the same greenlet, or for a task of a TaskGroup the group's.
- A greenlet in a cancelled scope gets Cancelled at every wait until it has left that scope.  For this it has a
  `Raising` in the ring, which raises Cancelled each time that the greenlet has parked.  So waits that are in no
  cancelled scope cost nothing.
- A shield keeps cancellations of the scopes around it from what is inside it, for as long as it lasts.
- Each `Raising` checks again, when it runs, that the greenlet is in a cancelled scope still: `effective` of the
  innermost scope says so.  It is kept up to date from outside inwards (`spread`), so that nobody has to look outwards.
- When the block of a TaskGroup has been left, all its tasks have ended, whatever ended the block.  (The exception is a
  deadlock: tasks that wait under a shield for what nothing can bring about.)
- No error is lost: those of tasks and of the block are raised together.

TaskGroup is compiled so that a signal's handler raises nothing in it but where it waits.

Long because groups and their scopes share state that only this module's C code reaches.

The semantics are trio's ("Cancellation and timeouts" in its manual): cancellation is a state of the block, and the
outermost cancelled scope catches Cancelled.
"""

from cpython.long cimport PyLong_FromVoidPtr
from cpython.object cimport PyObject
from libc.math cimport isnan

from weald._core.c_greenlet cimport PyGreenlet_ACTIVE, PyGreenlet_Import, PyGreenlet_STARTED, greenlet
from weald._core.hooks cimport Supervisor
from weald._core.hub cimport Hub, Runnable, Throw, Waiter, current_greenlet
from weald._core.threads cimport current_hub, hub_here
from weald._core.timers cimport BaseTimer

from os import register_at_fork

from greenlet import GreenletExit

from weald._core.greenlet import new_task
from weald._core.hub import LoopExit
from weald._core.timeout import Timeout

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
        return scope is not None and (<CancelScope>scope).effective


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
    cdef dict members  # of a TaskGroup's scope: each task that has not ended, and its first scope
    cdef State state
    cdef double deadline_
    cdef double seconds  # until the deadline, from entering; negative: none
    cdef bint shield_
    cdef bint called
    cdef bint effective  # once entered: it is cancelled, or a scope around it is and no shield lies between
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
        self.spread()

    @property
    def cancel_called(self):
        """Whether it has been cancelled, by a call or because its deadline has passed."""
        if not self.called and self.state == ENTERED and self.deadline_ <= self.hub.backend.time():
            self.expire()
        return self.called

    # -------------------------------------------------------------- cancelling

    def cancel(self):
        """Cancel it, for good.  Any thread.  Before it is entered, it is cancelled from the beginning.  Idempotent."""
        cdef Change change
        if self.called:
            return
        self.called = True
        if self.state != ENTERED:
            return
        if hub_here() == <PyObject *>self.hub:
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
        """It has been cancelled, or its shield has changed: adjust what is inside.  In the hub's thread."""
        cdef CancelScope scope
        cdef list reached = [self]
        for scope in reached:  # which grows meanwhile: recursion would need too much stack for groups in groups in …
            if scope.state == ENTERED:
                scope.reach(reached)
        return 0

    cdef int reach(self, list reached) except -1:
        """`spread` in this greenlet; append the first scopes of tasks inside to `reached`."""
        cdef CancelScope scope = self.hub.scopes.get(self.key)
        cdef list inside = []  # this greenlet's scopes from here inwards
        while scope is not None and scope is not self:
            inside.append(scope)
            scope = scope.parent
        inside.append(self)
        for scope in reversed(inside):
            if not scope.adjust():
                return 0
            if scope.members is not None:
                reached.extend(scope.members.values())
        if scope.effective:
            raise_soon(self.hub, self.target, self.key)
        return 0

    cdef bint adjust(self) noexcept:
        """Set `effective`; returns whether it has changed."""
        cdef bint before = self.effective
        self.effective = self.called or not self.shield_ and self.parent is not None and self.parent.effective
        return self.effective != before

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
        self.begin()
        return self

    cdef int begin(self) except -1:
        self.hub.scopes[self.key] = self
        self.state = ENTERED
        if self.adjust():
            raise_soon(self.hub, self.target, self.key)
        return self.start_timer()

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
        if self.parent is None or self.parent.target is not self.target:  # the greenlet's outermost
            self.hub.scopes.pop(self.key, None)
        else:
            self.hub.scopes[self.key] = self.parent
            if self.parent.effective:
                raise_soon(self.hub, self.target, self.key)
        self.parent = self.target = None  # who keeps it does not keep them
        return 0

    cdef int check_leaver(self) except -1:
        """RuntimeError if the current greenlet has not entered this, or has left it."""
        if self.state != ENTERED:
            raise RuntimeError("this scope is left without having been entered")
        if current_greenlet() is not self.target:
            raise RuntimeError(
                f"this scope was entered in {self.target!r}: it cannot be left in another greenlet")
        return 0

    cdef int check_leaving(self) except -1:
        """As `check_leaver`; if a scope inside this one is still open, leave both and raise RuntimeError."""
        cdef CancelScope scope
        self.check_leaver()
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
        self.check_leaving()
        return self.leave(value, value)

    cdef object leave(self, object value, object error):
        """The end of `__exit__`, called with `value`: leave it with `error`.  Returns True if nothing is raised."""
        error = self.without_cancelled(error)
        if error is None or error is value:
            return error is not value
        context = error.__context__
        try:
            raise error
        finally:
            error.__context__ = context  # not `value`, of which it is a part

    cdef object without_cancelled(self, object error):
        """Leave it with `error` or None; returns what is to be raised then."""
        cdef bint catches = error is not None and self.called and not (  # else Cancelled is for a scope further out
            not self.shield_ and self.parent is not None and self.parent.effective)
        self.end()
        if not catches:
            return error
        rest = None
        if isinstance(error, BaseExceptionGroup):
            found, rest = error.split(Cancelled)
            if found is None:
                return error
        elif not isinstance(error, Cancelled):
            return error
        self.cancelled_caught = True
        if rest is None and self.fails and self.late:
            rest = TimeoutError(
                "its deadline has passed" if self.seconds < 0.0 else f"not done within {self.seconds:g} seconds")
            rest.__context__ = error  # it shows where the block was
        return rest

    # -------------------------------------------------------------- for TaskGroup

    cdef int adopt(self, greenlet task) except -1:
        """Make `task`, which has not begun, part of this block."""
        cdef CancelScope scope = CancelScope.__new__(CancelScope)
        scope.parent, scope.hub, scope.target = self, self.hub, task
        scope.key = PyLong_FromVoidPtr(<void *>task)
        if self.members is None:
            self.members = {}
        self.members[task] = scope
        return scope.begin()

    cdef int release(self, object task) except -1:
        """Take back `adopt`: the task has ended."""
        cdef CancelScope scope = self.members.pop(task, None)
        if scope is not None:
            scope.end()
        return 0

    def __repr__(self):
        states = {NEW: "not entered", ENTERED: "entered", LEFT: "left"}
        details = [states[self.state]] + ["cancelled"] * self.called + ["shield"] * self.shield_
        if self.deadline_ != INFINITY:
            details.append(f"deadline {self.deadline_:.3f}")
        return f"<{type(self).__name__} at {id(self):#x} {', '.join(details)}>"


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


def _after_fork_in_child():
    """The greenlet that has forked is still in its scopes, but what was to be raised in it was in the parent's ring."""
    cdef CancelScope scope
    cdef greenlet me = current_greenlet()
    if hub_here() != NULL and (<Hub>hub_here()).scopes is not None:
        scope = (<Hub>hub_here()).scopes.get(PyLong_FromVoidPtr(<void *>me))
        if scope is not None and scope.effective:
            raise_soon(scope.hub, scope.target, scope.key)


register_at_fork(after_in_child=_after_fork_in_child)  # after that of forks.pyx


# ------------------------------------------------------------------ groups of tasks

cdef tuple ENDS_PROGRAM = (KeyboardInterrupt, SystemExit)
cdef tuple FROM_OUTSIDE = (GreenletExit, GeneratorExit, Timeout, *ENDS_PROGRAM)


cdef class TaskGroup(Supervisor):
    """A `with` block whose end waits for the tasks that were spawned in it.

    If a task or the block raises an exception, everything else in the group is cancelled, and when all have ended
    the exceptions are raised as an ExceptionGroup.  A kill or a Timeout of the block's greenlet cancels the tasks, too,
    and passes on when they have ended.  A task that is killed or cancelled has ended without an error.
    `cancel_scope` is the scope of the block and of all tasks: `group.cancel_scope.cancel()` ends them.
    """

    cdef readonly CancelScope cancel_scope
    cdef list errors
    cdef object outside  # the latest kill, Timeout or end of the program that was raised in it; None: none
    cdef Waiter leaving  # of the block's greenlet, while it waits for the tasks
    cdef Hub hub  # of the thread that has entered it; None while it takes no tasks
    cdef unsigned long generation

    def __cinit__(self, *args, **kwargs):
        self.cancel_scope = CancelScope()
        self.errors = []

    def __init__(self):
        pass  # takes no arguments

    def __enter__(self):
        if self.cancel_scope.state != NEW:
            raise RuntimeError("a TaskGroup can be entered once: make another one")
        self.cancel_scope.__enter__()
        self.cancel_scope.members = {}
        self.hub = self.cancel_scope.hub
        self.generation = self.hub.generation
        return self

    def spawn(self, function, /, *args, **kwargs):
        """Have `function(*args, **kwargs)` run in a new task of this group soon; returns its Greenlet.

        Tasks may spawn more of them.  RuntimeError before the block and after its end, and in another thread than
        the block's; TypeError if `function` is not callable.
        """
        if self.hub is None:
            raise RuntimeError("this TaskGroup is not open: spawn its tasks within its with block")
        if hub_here() != <PyObject *>self.hub:
            raise RuntimeError("tasks of a TaskGroup run in the thread of its block: spawn them there")
        if not callable(function):
            raise TypeError(f"a task needs a callable to run, got {function!r}")
        self.forget_parents()
        task = new_task(self, function, args, kwargs)
        self.cancel_scope.adopt(task)
        try:
            task.start()
        except BaseException:  # of a function that is called for each spawn
            task.kill(block=False)
            raise
        return task

    cdef int forget_parents(self) except -1:
        """In a fork's child: the parent's tasks do not run there."""
        if self.hub.generation != self.generation:
            self.generation = self.hub.generation
            self.cancel_scope.members.clear()
        return 0

    cdef int ended(self, object task) except -1:
        self.cancel_scope.release(task)
        if task.exception is not None:
            self.fail(task.exception, ENDS_PROGRAM)
        if not self.cancel_scope.members and self.leaving is not None:
            self.leaving.resume(None)
        return 0

    cdef int fail(self, object error, tuple outside) except -1:
        """Keep `error`, and cancel everything."""
        if not isinstance(error, outside):
            if not (self.errors and self.errors[-1] is error):
                self.errors.append(error)
        elif not isinstance(self.outside, ENDS_PROGRAM) or isinstance(error, ENDS_PROGRAM):
            # As in blocking code, where an exception in a `finally` takes the place of the first.
            if error.__context__ is None and error is not self.outside:
                error.__context__ = self.outside
            self.outside = error
        self.cancel_scope.cancel()
        return 0

    cdef bint wait(self) except -1:
        """Wait until all tasks have ended, whatever is raised here meanwhile; return whether there was one left."""
        cdef dict tasks = self.cancel_scope.members
        cdef bint in_vain = False
        self.forget_parents()
        if not tasks:
            return False
        with CancelScope(shield=True):  # a cancellation reaches the tasks, and then they end
            while tasks and not in_vain:
                self.leaving = self.hub.waiter()
                try:
                    self.hub.park(self.leaving, self)
                except BaseException as error:
                    # The thread ends, and none of its greenlets runs any more; or nothing will end the tasks, which
                    # wait for ever although they have been cancelled.
                    in_vain = self.hub.stopping or isinstance(error, LoopExit) and self.cancel_scope.called
                    self.fail(error, FROM_OUTSIDE)
                finally:
                    self.leaving = None
        return True

    def __exit__(self, typ, value, tb):
        cdef bint waited
        self.cancel_scope.check_leaver()
        if self.hub is None:
            raise RuntimeError("this TaskGroup is left without having been entered")
        if isinstance(value, Cancelled):
            self.cancel_scope.cancel()
        elif value is not None and not any([value is error for error in self.errors]):
            self.fail(value, FROM_OUTSIDE)
        waited = self.wait()
        self.hub = None
        self.cancel_scope.check_leaving()
        return self.cancel_scope.leave(value, self.outcome(value, waited))

    cdef object outcome(self, object value, bint waited):
        """What the block raises; None: nothing.  `value` is what it has been left with, `waited` as `wait` says."""
        errors, self.errors = self.errors, []
        outside, self.outside = self.outside, None
        if errors:
            return BaseExceptionGroup("unhandled errors in a TaskGroup", errors + [outside] * (outside is not None))
        if outside is not None:
            return outside
        if value is None and waited and self.cancel_scope.effective:
            return Cancelled("its scope has been cancelled")  # while it waited for its tasks
        return value

    def __repr__(self):
        tasks = self.cancel_scope.members
        return f"<{type(self).__name__} at {id(self):#x}, {len(tasks) if tasks else 0} tasks>"


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
    if scope is not None and scope.effective:
        return -INFINITY
    while scope is not None:
        earliest = min(earliest, scope.deadline_)
        if scope.shield_:
            break
        scope = scope.parent
    return earliest
