"""Greenlet: a greenlet with a result, links and joining; and waiting for several things at once.

Called by: weald's users, pool.py, threading.py.
Invariants:
- `state` only goes forward: NEW, SCHEDULED, RUNNING, DONE.  A greenlet killed before it ran goes to
  DONE without running, and the hub drops it from the ring.
- The outcome is stored before anybody is told; then joiners are woken and links called, once each.
- It runs on its hub's thread; `kill`, `join`, links and `get` work from any thread.
"""

from cpython.object cimport PyObject

from weald._core.arena cimport begin_stack
from weald._core.c_greenlet cimport (
    PyGreenlet_ACTIVE, PyGreenlet_Import, PyGreenlet_SetParent, PyGreenlet_STARTED, greenlet)
from weald._core.hub cimport BaseTimer, Callback, Hub, current_hub
from weald._core.waiters cimport WaitList, made_hub, new_waiter, park, seconds as to_seconds, wake_all, wake_one

import sys
from collections import deque
from greenlet import GreenletExit, getcurrent
from weakref import ref

from weald._core.timeout import Timeout

cdef extern from "Python.h":
    object PyContext_CopyCurrent()

PyGreenlet_Import()

cdef object raw_throw = greenlet.throw
cdef object find_dead = greenlet.dead.__get__
cdef object track_spawns = True


cdef enum State:
    NEW
    SCHEDULED
    RUNNING
    DONE


cdef class StartTimer(BaseTimer):
    cdef Greenlet target

    cdef int expire(self) except -1:
        cdef Greenlet target = self.target
        self.target = None
        if target.state == SCHEDULED:
            self.hub.push(target)
        return 0


cdef class Greenlet(greenlet):
    """Greenlet(run=None, *args, **kwargs): a light thread, run by the hub once started.

    Subclasses override `_run`.  `Greenlet.spawn(f, *args)` makes one and starts it.
    """

    cdef public tuple args
    cdef public dict kwargs
    cdef readonly object value
    cdef object function
    cdef object error  # the exception it ended with, or None
    cdef object traceback
    cdef State state
    cdef Hub hub
    cdef StartTimer start_timer
    cdef WaitList joiners
    cdef list links
    cdef public object spawning_greenlet
    cdef public object spawning_stack
    cdef object locals_
    cdef object name_
    cdef Py_ssize_t ident

    def __cinit__(self, *args, **kwargs):
        self.hub = current_hub()
        PyGreenlet_SetParent(<void *>self, <void *>self.hub)
        self.args = ()

    def __init__(self, run=None, *args, **kwargs):
        self.setup(run, args, kwargs)

    cdef int setup(self, object run, tuple args, dict kwargs) except -1:
        if run is not None:
            if not callable(run):
                raise TypeError(f"The run argument or self._run must be callable, got {run!r}")
            self.function = run
        self.args = args
        self.kwargs = kwargs
        self.gr_context = PyContext_CopyCurrent()
        if track_spawns:
            self.spawning_greenlet = ref(getcurrent())
        return 0

    @property
    def _run(self):
        """What it calls; subclasses define a method of this name."""
        if self.function is None:
            raise AttributeError(f"{type(self).__name__} has neither a run argument nor a _run method")
        return self.function

    @_run.setter
    def _run(self, function):
        self.function = function

    # -------------------------------------------------------------- starting

    @classmethod
    def spawn(cls, *args, **kwargs):
        """Make a greenlet of `args` (as the class takes them) and start it."""
        cdef Greenlet g = cls(*args, **kwargs)
        g.start()
        return g

    @classmethod
    def spawn_later(cls, seconds, *args, **kwargs):
        """As `spawn`, but start it after `seconds`."""
        if cls is Greenlet and not args:
            raise TypeError("spawn_later needs a callable")
        g = cls(*args, **kwargs)
        g.start_later(seconds)
        return g

    def start(self):
        """Schedule it to run in this loop's next batch."""
        if self.state == NEW:
            self.state = SCHEDULED
            self.hub.push(self)

    def start_later(self, seconds):
        """Schedule it to run after `seconds`."""
        cdef StartTimer timer
        cdef double delay = seconds
        if self.state == NEW:
            timer = StartTimer.__new__(StartTimer)
            timer.target = self
            timer.ref = True
            timer.start(self.hub, delay)
            self.start_timer = timer
            self.state = SCHEDULED

    cdef int cancel_start(self) except -1:
        if self.start_timer is not None:
            self.start_timer.stop()
            self.start_timer.target = None
            self.start_timer = None
        return 0

    # -------------------------------------------------------------- running

    def run(self):
        """The greenlet's body, called by its first switch.  Not for callers."""
        if self.state == DONE:
            return None
        begin_stack()
        self.cancel_start()
        self.state = RUNNING
        try:
            function = self.function
            if function is None:
                function = self._run
            if self.kwargs:
                value = function(*self.args, **self.kwargs)
            else:
                value = function(*self.args)
        except BaseException:
            function = None
            self.failed(sys.exc_info())
            return None
        self.value = value
        self.finish()
        return value

    cdef int failed(self, tuple exc_info) except -1:
        typ, error, traceback = exc_info
        if isinstance(error, GreenletExit):
            self.value = error
            self.finish()
            return 0
        self.error = error
        self.traceback = traceback
        self.finish()
        self.hub.handle_error(self, typ, error, traceback)
        return 0

    cdef int finish(self) except -1:
        """There is an outcome: tell everybody."""
        self.state = DONE
        self.function = None
        self.args = ()
        self.kwargs = None
        if self.joiners.head != NULL:
            wake_all(&self.joiners, None)
        if self.links is not None:
            self.run_links()
        return 0

    cdef int run_links(self) except -1:
        cdef Hub hub
        links, self.links = self.links, None
        for hub, callback in links or ():
            hub.push(Callback(callback, (self,)))
        return 0

    cdef int die_unborn(self, object exception) except -1:
        """Killed before it ran."""
        self.cancel_start()
        if isinstance(exception, type):
            exception = exception()
        if isinstance(exception, GreenletExit):
            self.value = exception
        else:
            self.error = exception
        self.finish()
        if self.error is not None:
            self.hub.handle_error(self, type(exception), exception, None)
        return 0

    cdef bint unborn(self) except -1:
        return self.state <= SCHEDULED and not PyGreenlet_STARTED(<void *>self)

    # -------------------------------------------------------------- ending

    def kill(self, exception=GreenletExit, block=True, timeout=None):
        """Raise `exception` (class or instance) in it, and wait up to `timeout` seconds for its end if `block`.

        A greenlet that has not begun to run never will.  Does nothing to a dead one.
        """
        if self.state == DONE:
            return
        if self.unborn():
            self.die_unborn(exception)
            return
        self.hub.throw_into(self, exception, None)
        if block:
            self.join(timeout)

    def throw(self, *args):
        """Switch to it at once and raise there, as greenlet.throw; a kill if it has not begun."""
        if self.unborn():
            exception = args[1] if len(args) > 1 and args[1] is not None else args[0] if args else GreenletExit
            if isinstance(exception, BaseException) or isinstance(exception, type):
                self.die_unborn(exception)
            else:
                self.die_unborn(args[0](exception))
            return None
        return raw_throw(self, *args)

    # -------------------------------------------------------------- state

    def ready(self):
        """Whether it has ended, in whatever way."""
        return self.state == DONE or <bint>find_dead(self)

    @property
    def dead(self):
        return self.state == DONE or <bint>find_dead(self)

    @property
    def started(self):
        """Whether it has been started and has not ended."""
        return self.state == SCHEDULED or self.state == RUNNING

    def __bool__(self):
        return self.state == SCHEDULED or self.state == RUNNING

    def successful(self):
        """Whether it ended with a value, GreenletExit counted as one."""
        return self.state == DONE and self.error is None

    @property
    def exception(self):
        """The exception it ended with, or None."""
        return self.error

    @property
    def exc_info(self):
        """(type, exception, traceback) of the exception it ended with, or ()."""
        if self.error is None:
            return ()
        return type(self.error), self.error, self.traceback

    @property
    def loop(self):
        return self.hub.loop

    # -------------------------------------------------------------- waiting

    def join(self, timeout=None):
        """Wait for its end, up to `timeout` seconds."""
        cdef double limit
        if self.state == DONE or find_dead(self):
            return
        limit = to_seconds(timeout)
        if made_hub() and self.state == DONE:
            return
        park(&self.joiners, new_waiter(None), self, limit)

    def get(self, block=True, timeout=None):
        """Its value, once it has ended; raises what it ended with.

        Raises weald.Timeout if that takes longer than `timeout` seconds, or it has not ended and
        `block` is false.
        """
        if self.state != DONE:
            if not block:
                raise Timeout()
            self.join(timeout)
            if self.state != DONE:
                raise Timeout(timeout)
        if self.error is not None:
            raise self.error.with_traceback(self.traceback)
        return self.value

    # -------------------------------------------------------------- links

    def rawlink(self, callback):
        """Call `callback(self)` in the hub once it has ended; it must not block."""
        if not callable(callback):
            raise TypeError(f"a link must be callable, got {callback!r}")
        if self.links is None:
            self.links = []
        self.links.append((current_hub(), callback))
        if self.state == DONE:
            self.run_links()

    def link(self, callback, SpawnedLink=None):
        """Call `callback(self)` in a new greenlet once it has ended."""
        self.rawlink((SpawnedLink or _SpawnedLink)(callback))

    def link_value(self, callback, SpawnedLink=None):
        """As `link`, only if it ends with a value."""
        self.link(callback, SpawnedLink or _SuccessLink)

    def link_exception(self, callback, SpawnedLink=None):
        """As `link`, only if it ends with an exception."""
        self.link(callback, SpawnedLink or _FailureLink)

    def unlink(self, callback):
        """Take back a link."""
        for i, link in enumerate(self.links or ()):
            if link[1] == callback:
                del self.links[i]
                return

    def unlink_all(self):
        """Take back every link."""
        self.links = None

    def has_links(self):
        return bool(self.links) or self.joiners.count > 0

    # -------------------------------------------------------------- names

    @property
    def minimal_ident(self):
        """A small number of its own among the hub's living greenlets."""
        if self.ident == 0:
            self.ident = next_ident()
        return self.ident - 1

    @property
    def name(self):
        """For people; "Greenlet-<minimal_ident>" until set."""
        if self.name_ is None:
            self.name_ = f"{type(self).__name__}-{self.minimal_ident}"
        return self.name_

    @name.setter
    def name(self, value):
        self.name_ = value

    @property
    def spawn_tree_locals(self):
        """A dict shared by all greenlets spawned, directly or not, from the same root."""
        if self.locals_ is None:
            parent = self.spawning_greenlet() if self.spawning_greenlet is not None else None
            if isinstance(parent, Greenlet):
                self.locals_ = parent.spawn_tree_locals
            else:
                self.locals_ = {}
        return self.locals_

    def __enter__(self):
        return self

    def __exit__(self, t, v, tb):
        self.kill()

    def __repr__(self):
        name = getattr(self.function, "__qualname__", None) or (repr(self.function) if self.function else "")
        state = ("new", "scheduled", "running", "dead")[<int>self.state]
        return f"<{type(self).__name__} {self.name!r} at {id(self):#x}{': ' + name if name else ''} {state}>"


cdef Py_ssize_t idents = 0


cdef Py_ssize_t next_ident() noexcept:
    global idents
    idents += 1
    return idents


class _SpawnedLink:
    """A link that runs its callback in a greenlet of its own."""

    __slots__ = ("callback",)

    def __init__(self, callback):
        if not callable(callback):
            raise TypeError(f"a link must be callable, got {callback!r}")
        self.callback = callback

    def wanted(self, source):
        return True

    def __call__(self, source):
        if self.wanted(source):
            spawn_link(self.callback, source)

    def __eq__(self, other):
        return self.callback == getattr(other, "callback", other)

    def __hash__(self):
        return hash(self.callback)


class _SuccessLink(_SpawnedLink):
    __slots__ = ()

    def wanted(self, source):
        return source.successful()


class _FailureLink(_SpawnedLink):
    __slots__ = ()

    def wanted(self, source):
        return not source.successful()


cdef int spawn_link(object callback, object source) except -1:
    from weald._core.hub import spawn_raw
    spawn_raw(callback, source)
    return 0


def spawn(function, /, *args, **kwargs):
    """Run `function(*args, **kwargs)` in a new Greenlet, soon; returns it."""
    cdef Greenlet g = Greenlet.__new__(Greenlet)
    g.setup(function, args, kwargs)
    g.state = SCHEDULED
    g.hub.push(g)
    return g


def spawn_later(seconds, *args, **kwargs):
    """`Greenlet.spawn_later`."""
    return Greenlet.spawn_later(seconds, *args, **kwargs)


# ------------------------------------------------------------------ waiting for several

cdef class Gathering:
    """Collects what becomes ready; one greenlet waits for it."""

    cdef object arrived
    cdef WaitList waiting

    def __init__(self):
        self.arrived = deque()

    def arrive(self, source):
        self.arrived.append(source)
        wake_one(&self.waiting, None)

    cdef int wait(self, double limit) except -1:
        """1 once something has arrived, 0 when the time is over."""
        while not self.arrived:
            if not park(&self.waiting, new_waiter(None), "several things", limit):
                return 0
        return 1


class iwait:
    """Iterate over `objects` (greenlets, events, …) in the order in which they become ready.

    Stops after `count` of them, or when `timeout` seconds are over.  Leaving the `with` block, or
    the end, takes back the links to those that are not ready.
    """

    def __init__(self, objects, timeout=None, count=None):
        self._gathering = Gathering()
        self._arrive = self._gathering.arrive
        self._pending = list(objects)
        self._left = len(self._pending) if count is None else min(count, len(self._pending))
        self._end = None if timeout is None else current_hub().backend.time() + to_seconds(timeout)
        self._linked = False

    def __iter__(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, t, v, tb):
        self.close()

    def __next__(self):
        cdef Gathering gathering = self._gathering
        if self._left <= 0:
            self.close()
            raise StopIteration
        if not self._linked:
            self._linked = True
            for obj in self._pending:
                obj.rawlink(self._arrive)
        try:
            if not gathering.wait(-1.0 if self._end is None else max(self._end - current_hub().backend.time(), 0.0)):
                self.close()
                raise StopIteration
        except BaseException:
            self.close()
            raise
        self._left -= 1
        return gathering.arrived.popleft()

    def close(self):
        """Take the links back."""
        self._left = 0
        pending, self._pending = self._pending, ()
        if self._linked:
            for obj in pending:
                obj.unlink(self._arrive)


def wait(objects=None, timeout=None, count=None):
    """Wait until `count` (all, if None) of `objects` are ready, or `timeout` seconds are over.

    Returns those that are, in the order in which they became so.  Without `objects`: wait until
    the hub has nothing left to do; whether it came to that.
    """
    if objects is None:
        return current_hub().join(timeout)
    return list(iwait(objects, timeout, count))


def joinall(greenlets, timeout=None, raise_error=False, count=None):
    """Wait for `greenlets` to end, `count` of them if given, up to `timeout` seconds.

    Returns those that have ended.  With `raise_error` the first exception one ends with is raised.
    """
    found = []
    with iwait(greenlets, timeout, count) as waiting:
        for g in waiting:
            if raise_error and not g.successful() and getattr(g, "exception", None) is not None:
                g.get()
            found.append(g)
    return found


def killall(greenlets, exception=GreenletExit, block=True, timeout=None):
    """Raise `exception` in all of `greenlets`, and wait up to `timeout` seconds for their end if `block`.

    Raises weald.Timeout if that takes longer.
    """
    cdef Hub hub = current_hub()
    cdef double end = -1.0 if timeout is None else hub.backend.time() + to_seconds(timeout)
    waited = []
    for g in list(greenlets):
        if isinstance(g, Greenlet):
            (<Greenlet>g).kill(exception, False)
            waited.append(g)
        elif PyGreenlet_ACTIVE(<void *><PyObject *>g):
            hub.throw_into(g, exception, None)
        else:
            raw_throw(g, exception) if not g.dead and PyGreenlet_STARTED(<void *><PyObject *>g) else None
    if not block:
        return
    for g in waited:
        if g.ready():
            continue
        left = None if timeout is None else max(end - hub.backend.time(), 0.0)
        g.join(left)
        if not g.ready():
            raise Timeout(timeout)
