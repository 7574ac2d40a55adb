# cython: nonecheck=True
"""Watchers: callbacks on descriptors, timers, signals, children and the loop's own turns.

For users and libraries that drive the event loop themselves (`get_hub().loop.io(fd, READ)` and so on);
weald's own rooms do not use them.  Names and arguments are those of gevent's loops.

Called by: users through `hub.loop`, an `EventLoop`.
Invariants:
- A callback runs in the hub, after the poll that its event came up in, so it must not block.  What is due
  at the same time runs by priority, then in the order of events.
- An active watcher is kept alive by its loop; one with `ref` is something the hub waits for.
- A watcher belongs to its loop's thread; only `async_().send()` may be called from others.
- In a fork's child no watcher of the parent is active; fork watchers are called once.

Long because it holds ten kinds of watcher, each short, and the loop that makes them.
"""

from weald._core.descriptor cimport FdEntry, Listener, check_fd, entry_for
from weald._core.hub cimport BaseTimer, Callback, Hub, Watched
from weald._core.loop cimport READ_EVENT, WRITE_EVENT

import os
import signal as _signal
import sys

from weald._core import hub as _hub

EVENTS = object()  # as a callback's first argument: stands for the events that came up

MINPRI = -2
MAXPRI = 2

cdef object original_signal = _signal.signal
cdef object original_getsignal = _signal.getsignal
# Whoever watches a signal, and the handler that was there before.  The main thread's alone.
cdef dict signal_watchers = {}
cdef dict signal_handlers = {}


cdef class Watcher:
    """Base of all watchers: start(callback, *args), stop(), close(); a context manager that closes."""

    cdef readonly EventLoop loop
    cdef object function
    cdef tuple arguments
    cdef bint is_active
    cdef bint is_pending
    cdef bint is_ref
    cdef bint is_closed
    cdef int level
    cdef int fired

    def __init__(self, EventLoop loop not None, bint ref=True, priority=None):
        self.loop = loop
        self.is_ref = ref
        self.level = 0
        if priority is not None:
            self.priority = priority

    cdef int arm(self) except -1:
        """Begin to watch."""
        return 0

    cdef int disarm(self) except -1:
        """Stop watching; also called by `EventLoop.forked`, when the hub has forgotten its timers and descriptors."""
        return 0

    def start(self, callback, *args):
        """Have `callback(*args)` called in the hub at each event.  It must not block."""
        self.begin(callback, args)

    cdef int begin(self, object callback, tuple args) except -1:
        self.loop.alive()
        if self.is_closed:
            raise ValueError(f"{self!r} is closed: make a new watcher")
        if not callable(callback):
            raise TypeError(f"a watcher needs a callable, got {callback!r}")
        self.function = callback
        self.arguments = args
        if not self.is_active:
            self.activate()
        return 0

    cdef int activate(self) except -1:
        self.arm()
        self.is_active = True
        self.loop.actives.add(self)
        self.loop.busy = True
        if self.is_ref:
            self.loop.hub.refs += 1
        return 0

    cdef int deactivate(self) except -1:
        if not self.is_active:
            return 0
        self.is_active = False
        self.loop.actives.discard(self)
        self.loop.busy = bool(self.loop.actives)
        if self.is_ref:
            self.loop.hub.refs -= 1
        self.disarm()
        return 0

    def stop(self):
        """Watch no more, and do not call for what has come up already.  `start` begins anew."""
        self.is_pending = False
        self.function = None
        self.arguments = None
        self.deactivate()

    def close(self):
        """`stop`, for good.  Idempotent."""
        self.stop()
        self.is_closed = True

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.close()

    cdef int fire(self, int events) except -1:
        """An event came up: the callback is due."""
        self.fired |= events
        if self.is_active and not self.is_pending:
            self.is_pending = True
            self.loop.due.append(self)
        return 0

    cdef int before_call(self) except -1:
        """The callback is about to be called."""
        return 0

    cdef int call(self) except -1:
        cdef int events = self.fired
        self.is_pending = False
        self.fired = 0
        self.before_call()
        function, args = self.function, self.arguments
        if function is None:
            return 0
        if args and args[0] is EVENTS:
            args = (events, *args[1:])
        try:
            function(*args)
        except BaseException:
            self.loop.handle_error(self, *sys.exc_info())
        if not self.is_active:  # it was the last call: hold on to nothing
            self.function = self.arguments = None
        return 0

    @property
    def active(self):
        """Is it started?"""
        return self.is_active

    @property
    def pending(self):
        """Has an event come up whose callback has not been called yet?"""
        return self.is_pending

    @property
    def ref(self):
        """Does the hub wait for it while it is active?"""
        return self.is_ref

    @ref.setter
    def ref(self, bint value):
        if value != self.is_ref and self.is_active:
            self.loop.hub.refs += 1 if value else -1
        self.is_ref = value

    @property
    def priority(self):
        """-2 to 2; among callbacks that are due at the same time, higher ones come first."""
        return self.level

    @priority.setter
    def priority(self, value):
        if self.is_active:
            raise AttributeError("cannot set the priority of an active watcher: stop it first")
        if not MINPRI <= value <= MAXPRI:
            raise ValueError(f"a priority is from {MINPRI} to {MAXPRI}, not {value!r}")
        self.level = value

    @property
    def callback(self):
        return self.function

    @callback.setter
    def callback(self, value):
        if value is not None and not callable(value):
            raise TypeError(f"a watcher needs a callable or None, got {value!r}")
        self.function = value

    @property
    def args(self):
        return self.arguments

    @args.setter
    def args(self, value):
        if value is not None and not isinstance(value, tuple):
            raise TypeError(f"args must be a tuple or None, got {value!r}")
        self.arguments = value

    def _format(self):
        return ""

    def __repr__(self):
        state = "".join((" active" if self.is_active else "", " pending" if self.is_pending else "",
                         " closed" if self.is_closed else ""))
        if self.function is not None:
            state += f" callback={self.function!r} args={self.arguments!r}"
        return f"<{type(self).__name__} at {id(self):#x}{self._format()}{state}>"


# ------------------------------------------------------------------ descriptors

cdef class IoListener(Listener):
    cdef io watcher

    cdef int ready(self, int events) except -1:
        if self.watcher is None:
            return 0
        self.watcher.fired |= events & self.events
        if self.watcher.entry.gone:
            post(self.watcher)  # closed under it, in between the loop's turns
        else:
            self.watcher.fire(0)
        return 0


cdef class io(Watcher):
    """A descriptor that is readable (events & 1) or writable (events & 2); level-triggered."""

    cdef int number
    cdef int wanted
    cdef FdEntry entry
    cdef IoListener listener

    def __init__(self, EventLoop loop not None, int fd, int events, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        if fd < 0:
            raise ValueError(f"fd must be non-negative: {fd}")
        self.number = fd
        self.wanted = checked_events(events)
        loop.alive()
        check_fd(fd)

    def start(self, callback, *args, bint pass_events=False):
        """Have `callback(*args)` called when ready; with `pass_events`, the events come first."""
        self.begin(callback, (EVENTS, *args) if pass_events else args)

    cdef int arm(self) except -1:
        cdef IoListener listener
        check_fd(self.number)
        self.entry = entry_for(self.loop.hub, self.number)
        if self.entry.always:
            self.loop.turns.append(self)
            return 0
        listener = IoListener.__new__(IoListener)
        listener.watcher = self
        listener.events = self.wanted
        self.listener = listener
        self.entry.listen(listener)
        return 0

    cdef int disarm(self) except -1:
        entry, self.entry = self.entry, None
        listener, self.listener = self.listener, None
        if listener is None:
            remove(self.loop.turns, self)
        else:
            (<IoListener>listener).watcher = None
            remove((<FdEntry>entry).listeners, listener)
        (<FdEntry>entry).release()
        return 0

    cdef int rearm(self) except -1:
        if self.is_active:
            self.disarm()
            self.arm()
        return 0

    @property
    def fd(self):
        return self.number

    @fd.setter
    def fd(self, int value):
        check_fd(value)
        self.number = value
        self.rearm()

    @property
    def events(self):
        """1: readable, 2: writable, 3: either."""
        return self.wanted

    @events.setter
    def events(self, int value):
        self.wanted = checked_events(value)
        self.rearm()

    @property
    def events_str(self):
        return events_str(self.wanted)

    def _format(self):
        return f" fd={self.number} events={self.events_str}"


def events_str(int events):
    """"READ", "WRITE" or "READ|WRITE"."""
    return "|".join([name for bit, name in ((READ_EVENT, "READ"), (WRITE_EVENT, "WRITE")) if events & bit])


cdef int checked_events(int events) except -1:
    if events & ~(READ_EVENT | WRITE_EVENT):
        raise ValueError(f"illegal event mask: {events}")
    return events


cdef int remove(list items, object item) except -1:
    if items is not None and item in items:
        items.remove(item)
    return 0


# ------------------------------------------------------------------ time

cdef class Entry(BaseTimer):
    """A watcher's place in the hub's heap; the watcher does the counting of references."""

    cdef Timed watcher

    cdef int expire(self) except -1:
        if self.watcher is not None:
            self.watcher.expired(self)
        return 0


cdef class Timed(Watcher):
    """Base of watchers that need a timer."""

    cdef Entry entry

    cdef int schedule(self, double seconds) except -1:
        self.unschedule()
        self.entry = Entry.__new__(Entry)
        self.entry.watcher = self
        self.entry.calls = True
        self.entry.start(self.loop.hub, seconds)
        return 0

    cdef int unschedule(self) except -1:
        entry, self.entry = self.entry, None
        if entry is not None:
            (<Entry>entry).watcher = None
            (<Entry>entry).stop()
        return 0

    cdef int disarm(self) except -1:
        self.unschedule()
        return 0

    cdef int expired(self, Entry entry) except -1:
        return 0


cdef class timer(Timed):
    """Once after `after` seconds, then every `repeat` seconds unless that is 0."""

    cdef double after
    cdef double every

    def __init__(self, EventLoop loop not None, double after=0.0, double repeat=0.0, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        self.repeat = repeat
        self.after = after

    def start(self, callback, *args, update=None):
        """Have `callback(*args)` called when the time has come.  (The clock is never stale: `update` does nothing.)"""
        self.begin(callback, args)

    def again(self, callback, *args, update=None):
        """Begin a new period of `repeat` seconds; with no `repeat`, stop."""
        if self.is_active:
            self.begin(callback, args)
            if self.every > 0.0:
                self.is_pending = False
                self.schedule(self.every)
            else:
                self.stop()
        elif self.every > 0.0:
            after, self.after = self.after, self.every
            try:
                self.begin(callback, args)
            finally:
                self.after = after

    cdef int arm(self) except -1:
        self.schedule(self.after)
        return 0

    cdef int expired(self, Entry entry) except -1:
        # From when it was due, so that a late turn does not shift the later ones.
        cdef double next = entry.when + self.every - self.loop.hub.backend.time()
        self.entry = None
        if self.every > 0.0:
            self.schedule(next)
        self.fire(0)
        return 0

    cdef int before_call(self) except -1:
        if self.every <= 0.0 and self.entry is None:
            self.deactivate()
        return 0

    @property
    def repeat(self):
        """Seconds between calls after the first; 0: there is but one."""
        return self.every

    @repeat.setter
    def repeat(self, double value):
        if not value >= 0.0:
            raise ValueError(f"repeat must be positive or zero: {value!r}")
        self.every = value

    def _format(self):
        return f" after={self.after} repeat={self.every}"


cdef class stat(Timed):
    """A path whose os.stat() changes; looked at every `interval` seconds (0: every half second)."""

    cdef readonly object path
    cdef readonly double interval
    cdef readonly object attr  # os.stat_result; None where there is no such file
    cdef readonly object prev  # the one before the last change

    def __init__(self, EventLoop loop not None, path, double interval=0.0, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        self.path = os.fspath(path)
        self.interval = interval if interval > 0.0 else 0.0

    cdef object look(self):
        try:
            return os.stat(self.path)
        except OSError:
            return None

    cdef int arm(self) except -1:
        self.attr = self.prev = self.look()
        self.schedule(self.interval or 0.5)
        return 0

    cdef int expired(self, Entry entry) except -1:
        self.schedule(self.interval or 0.5)
        now = self.look()
        if stat_key(now) != stat_key(self.attr):
            self.prev, self.attr = self.attr, now
            self.fire(0)
        return 0

    def _format(self):
        return f" path={self.path!r} interval={self.interval}"


cdef object stat_key(found):
    """What counts as a change; not the time of the last access."""
    return found and (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev, found.st_mode)


# ------------------------------------------------------------------ processes

cdef class child(Timed):
    """A child process that ends; it is reaped then, and `rpid` and `rstatus` are set.

    Only this child is waited for, never one that is somebody else's.  If somebody else has reaped it,
    `rstatus` is that of exit status 255.  Without pidfds (Linux before 5.3) the child is asked after
    50 times a second.
    """

    cdef readonly int pid
    cdef public int rpid
    cdef public int rstatus
    cdef io watch
    cdef int pidfd

    def __init__(self, EventLoop loop not None, int pid, trace=0, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        if pid <= 0:
            raise ValueError(f"a child watcher needs the process ID of a child, not {pid}")
        self.pid = pid
        self.pidfd = -1

    cdef int arm(self) except -1:
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.schedule(0.0)  # gone already: `expired` finds out how
            return 0
        except (OSError, AttributeError):
            self.schedule(0.02)
            return 0
        os.set_inheritable(self.pidfd, False)
        self.watch = io(self.loop, self.pidfd, READ_EVENT, ref=False)
        self.watch.start(self._look)
        return 0

    cdef int disarm(self) except -1:
        self.unschedule()
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        return 0

    cdef int expired(self, Entry entry) except -1:
        self.entry = None
        if not self._look():
            self.schedule(0.02)
        return 0

    def _look(self):
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, 255 << 8
        if not pid:
            return False
        self.rpid = pid
        self.rstatus = status
        if self.watch is not None:
            self.watch.stop()
        self.fire(0)
        return True

    cdef int before_call(self) except -1:
        self.deactivate()
        return 0

    def _format(self):
        return f" pid={self.pid} rstatus={self.rstatus}"


cdef class signal(Watcher):
    """A signal that arrives.  The handler set with signal.signal() is not called meanwhile.

    Only the main thread may start and stop it.
    """

    cdef readonly int signalnum

    def __init__(self, EventLoop loop not None, int signalnum, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        if not 0 < signalnum < _signal.NSIG:
            raise ValueError(f"illegal signal number: {signalnum}")
        self.signalnum = signalnum

    cdef int arm(self) except -1:
        watchers = signal_watchers.setdefault(self.signalnum, [])
        if not watchers:
            signal_handlers[self.signalnum] = original_signal(self.signalnum, on_signal)
        watchers.append(self)
        return 0

    cdef int disarm(self) except -1:
        watchers = signal_watchers[self.signalnum]
        watchers.remove(self)
        if not watchers:
            before = signal_handlers.pop(self.signalnum)
            if original_getsignal(self.signalnum) is on_signal:
                original_signal(self.signalnum, _signal.SIG_DFL if before is None else before)
        return 0

    def _format(self):
        return f" signalnum={self.signalnum}"


def on_signal(signum, frame):
    """What the interpreter calls for watched signals, in the midst of whatever runs."""
    cdef signal watcher
    for watcher in signal_watchers.get(signum, ()):
        post(watcher)


cdef int post(Watcher watcher) except -1:
    """From outside the loop's turns: have `watcher` fire in the next one."""
    watcher.loop.hub.push(Callback(watcher.loop._deliver, (watcher,)))
    return 0


# ------------------------------------------------------------------ the loop's turns

cdef class async_(Watcher):
    """Fires after send(), which any thread may call.  Sends that come before the callback are one."""

    cdef bint sent

    def send(self):
        """Have the callback called soon.  Any thread."""
        if self.is_active and not self.sent:
            self.sent = True
            post(self)

    def send_ignoring_arg(self, _ignored):
        """`send`, for use as a link."""
        self.send()

    @property
    def pending(self):
        return self.sent or self.is_pending

    cdef int disarm(self) except -1:
        self.sent = False
        return 0

    cdef int before_call(self) except -1:
        self.sent = False
        return 0


cdef class Turn(Watcher):
    """Base of those that are asked at each of the loop's turns."""

    cdef int arm(self) except -1:
        self.loop.turns.append(self)
        return 0

    cdef int disarm(self) except -1:
        remove(self.loop.turns, self)
        return 0


cdef class idle(Turn):
    """Fires at each turn in which nothing else is ready; the loop does not block meanwhile."""


cdef class prepare(Turn):
    """Fires before each poll."""


cdef class check(Turn):
    """Fires after each poll."""


cdef class fork(Watcher):
    """Fires once in a fork's child."""


# ------------------------------------------------------------------ the loop

cdef class EventLoop(Watched):
    """A hub's loop as users see it (`hub.loop`): clock, watchers, callbacks.

    `EventLoop()` makes one with a backend of its own, which its maker drives with `run()`.
    """

    MINPRI = MINPRI
    MAXPRI = MAXPRI

    cdef readonly Hub hub  # whose loop it is
    cdef set actives
    cdef list due
    cdef list turns  # idle, prepare and check watchers, and those of regular files
    cdef public object error_handler

    def __init__(self, Hub hub=None):
        self.hub = _hub.Hub() if hub is None else hub
        self.actives = set()
        self.due = []
        self.turns = []
        if hub is None:
            self.hub.watched = self

    cdef int alive(self) except -1:
        if self.hub.backend.destroyed:
            raise ValueError("operation on destroyed loop")
        return 0

    # -------------------------------------------------------------- called by the hub

    cdef double before_poll(self, double deadline) except -1.0:
        cdef Watcher watcher
        cdef bint idling = False
        if not self.turns:
            return deadline
        for watcher in self.turns:
            if isinstance(watcher, prepare):
                watcher.fire(0)
            elif isinstance(watcher, idle):
                idling = True
            elif isinstance(watcher, io):
                deadline = 0.0
                watcher.fire((<io>watcher).wanted)
        idling = idling and deadline > self.hub.backend.time()
        if idling:
            for watcher in self.turns:
                if isinstance(watcher, idle):
                    watcher.fire(0)
        self.call_due()
        if idling or self.hub.ring_count > 0:
            return 0.0
        # What the callbacks have started counts, too.
        return min(deadline, self.hub.next_deadline())

    cdef int after_poll(self) except -1:
        cdef Watcher watcher
        for watcher in self.turns:
            if isinstance(watcher, check):
                watcher.fire(0)
        self.call_due()
        return 0

    cdef int call_due(self) except -1:
        cdef Watcher watcher
        if not self.due:
            return 0
        due, self.due = self.due, []
        due.sort(key=by_priority)
        for watcher in due:
            if watcher.is_pending:
                watcher.call()
        return 0

    cdef int forked(self) except -1:
        cdef Watcher watcher
        actives, self.actives = self.actives, set()
        self.due = []
        for watcher in actives:
            if isinstance(watcher, fork):
                self.actives.add(watcher)
                if watcher.is_ref:
                    self.hub.refs += 1
                post(watcher)
            else:
                watcher.is_active = watcher.is_pending = False
        # Behind that, for some have others, which then are not disarmed twice.
        for watcher in actives:
            if not watcher.is_active:
                watcher.disarm()
        self.turns = []
        self.busy = bool(self.actives)
        return 0

    cdef int closed(self) except -1:
        for watcher in list(self.actives):
            (<Watcher>watcher).stop()
        return 0

    def _deliver(self, Watcher watcher):
        """An event that came from outside the loop's turns."""
        watcher.fire(0)
        self.call_due()

    # -------------------------------------------------------------- public

    @property
    def name(self):
        """The backend's: "libuv", "libev", "virtual"."""
        return self.hub.backend.name

    @property
    def destroyed(self):
        return self.hub.backend.destroyed

    @property
    def activecnt(self):
        """How many watchers are active."""
        return len(self.actives)

    @property
    def pendingcnt(self):
        """How many callbacks and greenlets are ready to run."""
        return len(self.due) + self.hub.ring_count

    def now(self):
        """Seconds on this loop's clock (monotonic; the virtual clock's own)."""
        return self.hub.backend.time()

    def update_now(self):
        """Nothing: the clock is never stale."""

    update = update_now

    def fileno(self):
        """The epoll descriptor, for embedding; -1 where there is none."""
        return self.hub.backend.fileno()

    def run_callback(self, callback, *args):
        """Have `callback(*args)` called in the hub soon; an object with `stop()` and `pending`."""
        return self.hub.run_callback(callback, *args)

    def run_callback_threadsafe(self, callback, *args):
        """`run_callback` from any thread."""
        return self.hub.run_callback(callback, *args)

    def ref(self):
        """Count one more thing to wait for."""
        self.hub.ref()

    def unref(self):
        self.hub.unref()

    def handle_error(self, context, type, value, tb):
        """An exception that a callback let escape: to `error_handler` if there is one, else to the hub."""
        handler = self.error_handler
        if handler is None:
            handler = self.hub.handle_error
        else:
            handler = getattr(handler, "handle_error", handler)
        handler(context, type, value, tb)

    def run(self, nowait=False, once=False):
        """Drive a loop of one's own until nothing is left to wait for; `nowait`, `once`: one round."""
        self.alive()
        self.hub.run_loop(nowait, once)

    def break_(self, how=None):
        """End `run` after this round."""
        self.hub.break_loop()

    def destroy(self):
        """Free a loop of one's own.  (A hub's ends with `hub.destroy()`.)"""
        if not self.hub.backend.destroyed:
            self.hub.destroy()
            return True

    def closing_fd(self, int fd):
        """Descriptor `fd` is about to be closed: wake whoever waits for it.  Was there anybody?"""
        entry = self.hub.fds[fd] if 0 <= fd < len(self.hub.fds) else None
        if entry is None:
            return False
        entry.close()
        return True

    def io(self, fd, events, ref=True, priority=None):
        """A watcher of descriptor `fd`: `events` 1 readable, 2 writable, 3 either."""
        return io(self, fd, events, ref, priority)

    def timer(self, after, repeat=0.0, ref=True, priority=None):
        """A watcher that fires after `after` seconds, then every `repeat` seconds unless 0."""
        return timer(self, after, repeat, ref, priority)

    def signal(self, signum, ref=True, priority=None):
        """A watcher of signal `signum`."""
        return signal(self, signum, ref, priority)

    def child(self, pid, trace=0, ref=True):
        """A watcher of the end of child process `pid`."""
        return child(self, pid, trace, ref)

    def stat(self, path, interval=0.0, ref=True, priority=None):
        """A watcher of changes to the file `path`, looked at every `interval` seconds."""
        return stat(self, path, interval, ref, priority)

    def idle(self, ref=True, priority=None):
        """A watcher that fires when nothing else is ready."""
        return idle(self, ref, priority)

    def prepare(self, ref=True, priority=None):
        """A watcher that fires before each poll."""
        return prepare(self, ref, priority)

    def check(self, ref=True, priority=None):
        """A watcher that fires after each poll."""
        return check(self, ref, priority)

    def fork(self, ref=True, priority=None):
        """A watcher that fires in a fork's child."""
        return fork(self, ref, priority)

    def async_(self, ref=True, priority=None):
        """A watcher that fires after `send()` from any thread."""
        return async_(self, ref, priority)

    def __repr__(self):
        state = "destroyed" if self.hub.backend.destroyed else self.hub.backend.name
        return f"<{type(self).__name__} at {id(self):#x} {state} active={len(self.actives)}>"


def by_priority(Watcher watcher):
    return -watcher.level


_hub.set_event_loop_class(EventLoop)
