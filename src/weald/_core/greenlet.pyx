"""Greenlet: a greenlet with a result, links and joining; and waiting for several of them.

Called by: weald's users, local.pyx, scopes.pyx, pool.py, threading.py.
Invariants:
- `state` only goes forward: NEW, SCHEDULED, RUNNING, DONE.  A greenlet killed before it ran goes to
  DONE without running, and the hub drops it from the ring.
- The outcome is stored first.  Then each link is called once, and then the joiners are woken: when `join` returns, the
  links have been called.
- A Greenlet runs in its hub's thread; `kill`, `join`, links and `get` work from any thread.

Long because it is one public subject: the life of a Greenlet, and waiting for several of them.
"""

from cpython.object cimport PyObject_TypeCheck, PyTypeObject

from weald._core.arena cimport begin_stack
from weald._core.c_greenlet cimport (
    PyGreenlet_Import, PyGreenlet_SetParent, PyGreenlet_STARTED, greenlet)
from weald._core.frames cimport as_frames, calling_frames
from weald._core.hooks cimport Supervisor, await_it
from weald._core.hub cimport Hub, Throw, Waiter, current_greenlet
from weald._core.links cimport Link, add_link, drop_link, schedule_links
from weald._core.threads cimport current_hub
from weald._core.timers cimport BaseTimer
from weald._core.waiters cimport (
    WaitList, made_hub, new_waiter, park, seconds as to_seconds, time_is_over, wake_all, wake_one)

import sys
from collections import deque
from functools import partial
from gc import get_objects
from greenlet import GreenletExit, getcurrent
from weakref import ref

from weald._core.hub import report_error
from weald._core.links import FailureLink as _FailureLink
from weald._core.links import SpawnedLink as _SpawnedLink
from weald._core.links import SuccessLink as _SuccessLink
from weald._core.raw import track_spawns as _track_raw_spawns
from weald._core.timeout import Timeout, expired
from weald._core.yielding import sleep

cdef extern from "Python.h":
    object PyContext_CopyCurrent()

PyGreenlet_Import()

cdef object raw_throw = greenlet.throw
cdef object find_dead = greenlet.dead.__get__
# Whether a new greenlet remembers which greenlet has spawned it, and where (see `track_spawns`).
cdef bint track_tree = True
cdef bint track_stacks = False
cdef set spawn_callbacks = set()


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
            target.hub.push(target)
        return 0

    cdef int abandon(self) except -1:
        if self.target is None or self.target.state != SCHEDULED:
            return 0
        self.target.kill(block=False)
        return 1


cdef class Kill(Throw):
    """Raises an exception in `target`, if it has one, then resumes `killer`, which waits for its end, at once.

    Before that it calls the links of `killed`, the greenlets that ended thereby.
    """

    cdef list killed
    cdef Waiter killer

    cdef int run(self, Hub hub) except -1:
        cdef Greenlet g
        cdef Link link
        Throw.run(self, hub)
        killed, self.killed = self.killed, None
        killer, self.killer = self.killer, None
        if killer is None:
            return 0
        for g in killed:
            if g.state == DONE and g.links is not None:
                for link in list(g.links):
                    if link.hub is hub:
                        link.run(hub)
        hub.move_ahead(killer)
        return 0


cdef class Greenlet(greenlet):
    """Greenlet(run=None, *args, **kwargs): a light thread; once started, the hub runs `run(*args, **kwargs)` in it.

    Subclasses may override `_run` instead of passing `run`.  `Greenlet.spawn(f, *args)` makes one and starts it.
    TypeError if `run` is not callable.
    """

    cdef public tuple args
    cdef dict keywords  # None once it has ended
    cdef readonly object value
    cdef object function
    cdef object error  # the exception it ended with, or None
    cdef object traceback
    cdef State state
    cdef Hub hub
    cdef StartTimer start_timer
    cdef WaitList joiners
    cdef object links  # see links.pyx
    cdef public object spawning_greenlet
    cdef object stack  # of its spawning: (code, line) of the innermost frame, of the next, …
    cdef object locals_
    cdef object name_
    cdef str info  # the call that it makes, for repr; kept once computed, because the end clears the rest
    cdef Py_ssize_t ident
    cdef list free_idents  # of its hub: where `ident` goes in the end
    cdef Supervisor supervisor  # a TaskGroup, which raises its error; None: the error is reported

    spawning_stack_limit = 10

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
        self.keywords = kwargs
        self.gr_context = PyContext_CopyCurrent()
        if track_tree:
            self.remember_spawner()
        return 0

    cdef int remember_spawner(self) except -1:
        spawner = getcurrent()
        self.spawning_greenlet = ref(spawner)
        if spawner is not self.hub.main:
            try:
                self.locals_ = spawner.spawn_tree_locals
            except AttributeError:
                self.locals_ = spawner.spawn_tree_locals = {}
        if track_stacks:
            self.stack = calling_frames(self.spawning_stack_limit)
        return 0

    @property
    def kwargs(self):
        """The keyword arguments that it is called with; {} once it has ended."""
        return {} if self.keywords is None else self.keywords

    @kwargs.setter
    def kwargs(self, value):
        self.keywords = value

    @property
    def spawning_stack(self):
        """Where it was spawned, as a frame (for traceback.print_stack), or None."""
        return as_frames(self.stack)

    @property
    def _run(self):
        """The function to call.  Subclasses may define a method of this name instead."""
        return nothing if self.function is None else self.function

    @_run.setter
    def _run(self, function):
        self.function = function

    # -------------------------------------------------------------- starting

    @classmethod
    def spawn(cls, *args, **kwargs):
        """Make a greenlet, with the arguments that the class takes, and start it; returns it."""
        cdef Greenlet g = cls(*args, **kwargs)
        g.start()
        return g

    @classmethod
    def spawn_later(cls, seconds, *args, **kwargs):
        """As `spawn`, but start it after `seconds`.  Without a function, TypeError."""
        if cls is Greenlet and not args:
            raise TypeError("spawn_later needs a callable to run")
        g = cls(*args, **kwargs)
        g.start_later(seconds)
        return g

    def start(self):
        """Have it run soon.  Does nothing if it has been started."""
        if self.state == NEW:
            if spawn_callbacks:
                call_spawn_callbacks(self)
            self.state = SCHEDULED
            self.hub.push(self)

    def start_later(self, seconds):
        """Have it run after `seconds`.  Does nothing if it has been started."""
        cdef StartTimer timer
        cdef double delay = seconds
        if self.state == NEW:
            if spawn_callbacks:
                call_spawn_callbacks(self)
            timer = StartTimer.__new__(StartTimer)
            timer.target = self
            timer.ref = True
            timer.start(self.hub.timers, delay)
            self.start_timer = timer
            self.state = SCHEDULED

    @staticmethod
    def add_spawn_callback(callback):
        """Have `callback(greenlet)` called whenever a Greenlet is started; once, however often it was added."""
        spawn_callbacks.add(callback)

    @staticmethod
    def remove_spawn_callback(callback):
        """Take back `add_spawn_callback`.  Does nothing if `callback` was not added."""
        spawn_callbacks.discard(callback)

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
            if self.keywords:
                value = function(*self.args, **self.keywords)
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
        _, error, traceback = exc_info
        if isinstance(error, GreenletExit) or isinstance(error, BaseExceptionGroup) \
                and error.split(GreenletExit)[1] is None:  # the rest of a TaskGroup's, of which errors were handled
            self.value = error
            self.finish()
            return 0
        self.error = error
        self.traceback = traceback
        self.report_and_finish()
        return 0

    cdef int report_and_finish(self) except -1:
        """Report `error`, with which it has ended, and finish."""
        # In this order: a SystemExit reaches the main greenlet before a join's wake-up does, and the report can still
        # name the function and its arguments.
        self.state = DONE
        if self.supervisor is None:
            report_error(self.hub, self, type(self.error), self.error, self.traceback)
        self.finish()
        return 0

    cdef int finish(self) except -1:
        """Called when there is an outcome: call the links, wake the joiners."""
        self.state = DONE
        self.function = None
        self.args = ()
        self.keywords = None
        if self.links is not None:
            self.run_links()
        if self.supervisor is not None:
            self.supervisor.ended(self)
            self.supervisor = None
        # Last: links have been called when `join` returns.
        if self.joiners.head != NULL:
            wake_all(&self.joiners, None)
        return 0

    cdef int run_links(self) except -1:
        return schedule_links(self.links)

    cdef int kill_unbegun(self, object exception) except -1:
        """End it with `exception`: it was killed before it ran."""
        self.cancel_start()
        if isinstance(exception, type):
            try:
                exception = exception()
            except BaseException as error:  # its __init__ needs arguments, say; a running greenlet gets that error, too
                exception = error
        if isinstance(exception, GreenletExit):
            self.value = exception
            self.finish()
        else:
            self.error = exception
            self.report_and_finish()
        return 0

    cdef bint unbegun(self) except -1:
        """Whether it has not run yet."""
        return self.state <= SCHEDULED and not PyGreenlet_STARTED(<void *>self)

    # -------------------------------------------------------------- ending

    def kill(self, exception=GreenletExit, block=True, timeout=None):
        """Raise `exception` in it, and wait for its end, up to `timeout` seconds (None: for ever), if `block`.

        `exception` is a class, an instance, or a triple as of sys.exc_info().  A greenlet that has not begun to run
        never will.  Does nothing if it has ended.
        """
        cdef Kill kill
        if self.state == DONE:
            return
        exception, traceback = to_raise(exception)
        if self.unbegun():
            self.kill_unbegun(exception)
            return
        if not block:
            self.hub.throw_into(self, exception, traceback)
            return
        kill = Kill.__new__(Kill)
        kill.target = self
        kill.exception = exception
        kill.traceback = traceback
        kill.killed = [self]
        self.hub.push(kill)
        if type(self) is not Greenlet and type(self).join is not JOIN:
            self.join(timeout)  # a subclass's own
        else:
            self.join_killed(kill, timeout)

    cdef int join_killed(self, Kill kill, object timeout) except -1:
        """As `join`, for a greenlet that `kill` will end: the caller goes on as soon as it has ended."""
        cdef double limit
        if self.state == DONE or find_dead(self):
            return 0
        limit = to_seconds(timeout)
        if made_hub() and self.state == DONE:
            return 0
        kill.killer = new_waiter(None)
        park(&self.joiners, kill.killer, self, limit)
        return 0

    def throw(self, *args):
        """Switch to it at once and raise there, as greenlet.throw; a kill if it has not begun to run.

        The arguments are an exception, or a class and its value.  Does nothing if it has ended.
        """
        if self.state == DONE or find_dead(self):
            return None
        if self.unbegun():
            exception = args[1] if len(args) > 1 and args[1] is not None else args[0] if args else GreenletExit
            if not isinstance(exception, (BaseException, type)) and len(args) > 1:
                exception = args[0](exception)
            self.kill_unbegun(raisable(exception))
            return None
        return raw_throw(self, *args)

    # -------------------------------------------------------------- state

    def ready(self):
        """Whether it has ended, with a value or an exception."""
        return self.state == DONE or <bint>find_dead(self)

    @property
    def dead(self):
        """Whether it has ended, as `ready`."""
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
        """(type, exception, traceback) of the exception it ended with, or None."""
        if self.error is None:
            return None
        return type(self.error), self.error, self.traceback

    @property
    def loop(self):
        """The event loop it runs on (`hub.loop`)."""
        return self.hub.loop

    # -------------------------------------------------------------- waiting

    def join(self, timeout=None):
        """Wait for its end, up to `timeout` seconds (None: for ever).  `ready()` tells whether it has ended."""
        cdef double limit
        if self.state == DONE or find_dead(self):
            return
        limit = to_seconds(timeout)
        if made_hub() and self.state == DONE:
            return
        if not park(&self.joiners, new_waiter(None), self, limit) and self.state != DONE:
            time_is_over(timeout)

    def __await__(self):
        return await_it(self)

    def get(self, block=True, timeout=None):
        """Its value; raises the exception that it ended with.

        Waits for its end, up to `timeout` seconds (None: for ever), if `block`.  Raises weald.Timeout if it has not
        ended by then.
        """
        if self.state != DONE:
            if not block:
                raise Timeout()
            self.join(timeout)
            if self.state != DONE:
                raise expired(timeout)
        if self.error is not None:
            raise self.error.with_traceback(self.traceback)
        return self.value

    # -------------------------------------------------------------- links

    def rawlink(self, callback):
        """Have `callback(self)` called in the hub once it has ended; it must not block.  TypeError if not callable."""
        self.links = add_link(self.links, self, callback)
        if self.state == DONE or find_dead(self):
            self.run_links()

    def link(self, callback, SpawnedLink=None):
        """Have `callback(self)` called in a new greenlet once it has ended.

        `SpawnedLink` is a class whose instance, made with `callback`, becomes the callback of `rawlink`.
        """
        self.rawlink((SpawnedLink or _SpawnedLink)(callback))

    def link_value(self, callback, SpawnedLink=None):
        """As `link`, only if it ends with a value."""
        self.link(callback, SpawnedLink or _SuccessLink)

    def link_exception(self, callback, SpawnedLink=None):
        """As `link`, only if it ends with an exception."""
        self.link(callback, SpawnedLink or _FailureLink)

    def unlink(self, callback):
        """Take back one link to `callback`.  Does nothing if there is none."""
        drop_link(self.links, callback)

    def unlink_all(self):
        """Take back every link."""
        cdef Link link
        for link in self.links or ():
            link.callback = link.source = None
        self.links = None

    def has_links(self):
        """Whether there are links, or greenlets and threads that wait for its end."""
        return bool(self.links) or self.joiners.count > 0

    # -------------------------------------------------------------- names

    @property
    def minimal_ident(self):
        """A number, 0 or more, that no other living greenlet of the hub has: the smallest free one."""
        if self.ident == 0:
            self.take_ident()
        return self.ident - 1

    cdef int take_ident(self) except -1:
        if not isinstance(self.parent, Hub):
            raise TypeError(f"Cannot convert the parent, {self.parent!r}, to a Hub: it has the numbers")
        idents = self.parent.__dict__.get("_idents")
        if idents is None:
            idents = self.parent._idents = [0]  # minus the greatest number in use, then the numbers that are free again
        if len(idents) > 1:
            self.ident = min(idents[1:])
            idents.remove(self.ident)
        else:
            idents[0] -= 1  # negative, so that `remove` cannot mistake it
            self.ident = -idents[0]
        self.free_idents = idents
        return 0

    def __dealloc__(self):
        if self.free_idents is not None:
            self.free_idents.append(self.ident)

    @property
    def name(self):
        """A name to show to people; "Greenlet-<minimal_ident>" until it is set."""
        if self.name_ is None:
            return f"Greenlet-{self.minimal_ident}"
        return self.name_

    @name.setter
    def name(self, value):
        self.name_ = value

    @property
    def spawn_tree_locals(self):
        """A dict shared by all greenlets spawned, directly or not, from the same root."""
        if self.locals_ is None and self.spawning_greenlet is not None:
            self.locals_ = {}
        return self.locals_

    @spawn_tree_locals.setter
    def spawn_tree_locals(self, value):
        self.locals_ = value

    def __enter__(self):
        return self

    def __exit__(self, t, v, tb):
        """Wait for its end; kill it with the block's exception, if there is one."""
        if t is not None:
            self.kill((t, v, tb))
            return
        try:
            self.join()
        finally:
            self.kill()

    def _formatinfo(self):
        """The call that it makes, as text; "" once it has ended, unless this was called before."""
        if self.info is None:
            if self.state == DONE and self.keywords is None:
                return ""
            # What it calls, or an argument, may be an object whose text contains this greenlet.  Py_ReprEnter would
            # make a dict that nobody frees, for a greenlet that is shown when its thread ends.
            self.info = "..."
            info = None
            try:
                info = called(self, self.function, self.args, self.keywords)
            finally:
                self.info = info
        return self.info

    def __repr__(self):
        name = f'"{self.name}" ' if self.name_ is not None or self.ident != 0 else ""
        info = self._formatinfo()
        return f"<{type(self).__name__} {name}at {id(self):#x}{': ' + info if info else ''}>"


cdef object JOIN = Greenlet.join


cdef str called(Greenlet self, object function, tuple args, dict kwargs):
    """`function(args)` as text, each argument cut to 50 characters; the greenlet's own method without the greenlet."""
    owner = getattr(function, "__self__", None)
    if function is None:
        name = "_run"
    elif owner is not None and owner is not self:
        name = repr(function)
    else:
        name = getattr(function, "__name__", "") or repr(function)
    given = [repr(arg)[:50] for arg in args]
    given += [f"{key}={repr(value)[:50]}" for key, value in (kwargs or {}).items()]
    return f"{name}({', '.join(given)})" if given else name


def nothing(*args, **kwargs):
    """The body of a Greenlet that was given no function."""


cdef object raisable(object exception):
    """`exception`; a TypeError if it is no exception, because a kill must end the greenlet."""
    if isinstance(exception, BaseException) or isinstance(exception, type) and issubclass(exception, BaseException):
        return exception
    return TypeError(f"exceptions must be classes or instances that derive from BaseException, not {exception!r}")


cdef tuple to_raise(object exception):
    """(exception, traceback) for the argument of a kill: an exception, or a tuple like sys.exc_info()'s."""
    traceback = None
    if isinstance(exception, tuple):
        typ, exception, traceback = exception
        if exception is None:
            exception = typ
        elif not isinstance(exception, BaseException):
            exception = typ(exception)
    return raisable(exception), traceback


cdef int call_spawn_callbacks(Greenlet g) except -1:
    for callback in list(spawn_callbacks):
        callback(g)
    return 0


def track_spawns(tree=None, stacks=None):
    """Choose whether new greenlets remember who spawned them (`tree`), and where (`stacks`); None changes nothing."""
    global track_tree, track_stacks
    if tree is not None:
        track_tree = tree
        _track_raw_spawns(tree)
    if stacks is not None:
        track_stacks = stacks


def living(type cls):
    """A list of all objects of class `cls` that the garbage collector knows.

    Compiled, because no other thread may run meanwhile: the list would contain tuples that such a thread is making.
    """
    return [each for each in get_objects() if PyObject_TypeCheck(each, <PyTypeObject *>cls)]


def spawn(function, /, *args, **kwargs):
    """Have `function(*args, **kwargs)` run in a new Greenlet soon; returns the Greenlet.

    TypeError if `function` is not callable.
    """
    cdef Greenlet g = Greenlet.__new__(Greenlet)
    g.setup(function, args, kwargs)
    if spawn_callbacks:
        call_spawn_callbacks(g)
    g.state = SCHEDULED
    g.hub.push(g)
    return g


def new_task(Supervisor supervisor, function, tuple args, dict kwargs):
    """A Greenlet that will call `function(*args, **kwargs)` and tells `supervisor` its end.  It is not started."""
    cdef Greenlet g = Greenlet.__new__(Greenlet)
    g.setup(function, args, kwargs)
    g.supervisor = supervisor
    return g


def spawn_later(seconds, *args, **kwargs):
    """Have `function(*args, **kwargs)` run in a new Greenlet after `seconds`; returns the Greenlet."""
    return Greenlet.spawn_later(seconds, *args, **kwargs)


# ------------------------------------------------------------------ waiting for several

cdef class Arrivals:
    """Objects that have become ready and have not been asked for yet; one greenlet waits for more."""

    cdef object arrived  # a deque
    cdef WaitList waiting
    cdef Waiter woken  # the waiter woken last

    def __init__(self):
        self.arrived = deque()

    def arrive(self, source):
        cdef Hub hub
        self.arrived.append(source)
        if self.waiting.head != NULL:
            self.woken = <Waiter>self.waiting.head
            wake_one(&self.waiting, None)
        # Called as a link, in the hub: the waiter goes on in this turn, after the links that follow in the ring.
        if self.woken is not None:
            hub = self.woken.hub
            if hub is not None and <greenlet>hub is current_greenlet() \
                    and not (hub.ring.count > 0 and type(<object>hub.ring.items[hub.ring.head]) is Link):
                hub.move_ahead(self.woken)

    cdef int wait(self, double limit) except -1:
        """Wait up to `limit` seconds (negative: for ever) for an arrival; 1 if there is one, 0 if not."""
        while not self.arrived:
            try:
                if not park(&self.waiting, new_waiter(None), "several things", limit):
                    return bool(self.arrived)  # it may have come while the wake-up was under way
            finally:
                self.woken = None
        return 1


class iwait:
    """iwait(objects, timeout=None, count=None): greenlets, events, … in the order in which they become ready.

    The iteration ends after `count` of them (None: all), or when `timeout` seconds (None: no limit) are over.  Its end,
    and that of a `with` block, takes back the links to those that are not ready.  With None as `objects` it gives one
    value: what `wait(None, timeout)` returns.
    """

    def __init__(self, objects, timeout=None, count=None):
        self._for_hub = None
        if objects is None:
            self._for_hub = partial(current_hub().join, timeout)
            objects = ()
        self._arrivals = Arrivals()
        self._arrive = self._arrivals.arrive
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
        cdef Arrivals arrivals = self._arrivals
        if self._left <= 0:
            for_hub, self._for_hub = self._for_hub, None
            if for_hub is not None:
                return for_hub()
            self.close()
            raise StopIteration
        if not self._linked:
            self._linked = True
            for obj in self._pending:
                ready = getattr(obj, "ready", None)
                if ready is not None and ready():
                    arrivals.arrive(obj)
                else:
                    obj.rawlink(self._arrive)
        try:
            if not arrivals.wait(-1.0 if self._end is None else max(self._end - current_hub().backend.time(), 0.0)):
                self.close()
                raise StopIteration
        except BaseException:
            self.close()
            raise
        self._left -= 1
        return arrivals.arrived.popleft()

    def close(self):
        """End the iteration and take back the links."""
        self._left = 0
        pending, self._pending = self._pending, ()
        if self._linked:
            for obj in pending:
                obj.unlink(self._arrive)


def wait(objects=None, timeout=None, count=None):
    """Wait until `count` (None: all) of `objects` are ready, up to `timeout` seconds (None: for ever).

    Returns a list of those that are, in the order in which they became ready.  Without `objects`, wait until the hub
    has nothing left to do, and return whether that happened in time.
    """
    if objects is None:
        return current_hub().join(timeout)
    return list(iwait(objects, timeout, count))


def joinall(greenlets, timeout=None, raise_error=False, count=None):
    """Wait for `count` (None: all) of `greenlets` to end, up to `timeout` seconds (None: for ever).

    Returns a list of those that have ended.  With `raise_error`, the first exception that one of them ends with is
    raised.
    """
    found = []
    with iwait(greenlets, timeout, count) as waiting:
        for g in waiting:
            if raise_error and not g.successful() and getattr(g, "exception", None) is not None:
                g.get()
            found.append(g)
    return found


def killall(greenlets, exception=GreenletExit, block=True, timeout=None):
    """Raise `exception` in all of `greenlets`.

    Waits for their end, up to `timeout` seconds (None: for ever), if `block`.  Raises weald.Timeout if they have not
    all ended by then.
    """
    cdef Hub hub = current_hub()
    cdef double end = -1.0 if timeout is None else hub.backend.time() + to_seconds(timeout)
    cdef bint plain = False
    cdef Kill kill = None
    waited = []
    thrown, traceback = to_raise(exception)
    for g in list(greenlets):
        if isinstance(g, Greenlet):
            (<Greenlet>g).kill(exception, False)
            waited.append(g)
        else:
            hub.throw_into(g, thrown, traceback)
            plain = True
    if not block:
        return
    if plain:
        sleep(0)  # until it has been raised in the plain greenlets, which cannot be joined
    for g in reversed(waited):
        if g.ready():
            continue
        left = None if timeout is None else max(end - hub.backend.time(), 0.0)
        if kill is None:
            kill = Kill.__new__(Kill)
            kill.killed = waited
            hub.push(kill)  # behind the kills of all the others
            (<Greenlet>g).join_killed(kill, left)
        else:
            g.join(left)
        if not g.ready():
            raise Timeout(timeout)
