# cython: nonecheck=True
"""EventLoop: a hub's loop as users see it.

Called by: users through `hub.loop`, the hub around each poll.
"""

from weald._core.c_python cimport show_as
from weald._core.hub cimport Hub
from weald._core.watchers.base cimport IF_IDLE, MUST_NOT_WAIT, BeforePoll, Watcher, WatcherLoop, post

from weald._core import hub as _hub
from weald._core.watchers.async_ import async_
from weald._core.watchers.base import MAXPRI, MINPRI
from weald._core.watchers.child import child
from weald._core.watchers.io import io
from weald._core.watchers.rounds import check, fork, idle, prepare
from weald._core.watchers.signal import signal
from weald._core.watchers.stat import stat
from weald._core.watchers.timer import timer


cdef class EventLoop(WatcherLoop):
    """A hub's loop as users see it (`hub.loop`): clock, watchers, callbacks.

    `EventLoop()` makes one with a backend of its own, which its maker drives with `run()`.
    """

    MINPRI = MINPRI
    MAXPRI = MAXPRI

    cdef public object error_handler

    def __init__(self, Hub hub=None):
        self.hub = _hub.Hub() if hub is None else hub
        self.actives = set()
        self.due = []
        self.in_rounds = []
        if hub is None:
            self.hub.watched = self

    # -------------------------------------------------------------- called by the hub

    cdef double before_poll(self, double deadline) except -1.0:
        cdef Watcher watcher
        cdef BeforePoll answer
        if not self.in_rounds:
            return deadline
        if_idle = []
        for watcher in self.in_rounds:
            answer = watcher.before_poll()
            if answer == IF_IDLE:
                if_idle.append(watcher)
            elif answer == MUST_NOT_WAIT:
                deadline = 0.0
        if if_idle and deadline > self.hub.backend.time():
            deadline = 0.0
            for watcher in if_idle:
                watcher.fire(0)
        self.call_due()
        if self.hub.ring.count > 0:
            return 0.0
        # The callbacks may have started timers.
        return min(deadline, self.hub.timers.next_deadline())

    cdef int after_poll(self) except -1:
        cdef Watcher watcher
        # Watchers of the poll itself (`check`) are called before the watchers for which it has found events.
        found, self.due = self.due, []
        for watcher in self.in_rounds:
            watcher.after_poll()
        self.due += found
        self.call_due()
        return 0

    cdef int forked(self) except -1:
        cdef Watcher watcher
        actives, self.actives = self.actives, set()
        self.due = []
        for watcher in actives:
            if watcher.fires_after_fork():
                self.actives.add(watcher)
                if watcher.is_ref:
                    self.hub.refs += 1
                post(watcher)
            else:
                watcher.is_active = watcher.is_pending = False
        # In a loop of its own: a child watcher has an io watcher, which must be inactive by then.
        for watcher in actives:
            if not watcher.is_active:
                watcher.disarm()
        self.in_rounds = []
        self.busy = bool(self.actives)
        return 0

    cdef int closed(self) except -1:
        for watcher in list(self.actives):
            (<Watcher>watcher).stop()
        return 0

    # -------------------------------------------------------------- public

    @property
    def name(self):
        """The backend's name: "libuv", "libev" or "virtual"."""
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
        return len(self.due) + self.hub.ring.count

    def now(self):
        """Seconds on this loop's clock (monotonic; the virtual clock's own)."""
        return self.hub.backend.time()

    def update_now(self):
        """Does nothing: the clock is never stale."""

    update = update_now

    def fileno(self):
        """The epoll descriptor, for embedding; -1 if there is none."""
        return self.hub.backend.fileno()

    def run_callback(self, func, *args):
        """Have `func(*args)` called in the hub soon; an object with `stop()` and `pending`.

        ValueError if the loop is destroyed.
        """
        self.alive()
        return self.hub.run_callback(func, *args)

    def run_callback_threadsafe(self, func, *args):
        """`run_callback` from any thread."""
        self.alive()
        return self.hub.run_callback(func, *args)

    def ref(self):
        """Count one more thing that the hub waits for."""
        self.hub.ref()

    def unref(self):
        """Take back one `ref`."""
        self.hub.unref()

    def handle_error(self, context, type, value, tb):
        """Handle an uncaught exception of a callback: by `error_handler` if there is one, else by the hub.

        `error_handler` is a callable with these arguments, or an object with such a method `handle_error`.
        """
        handler = self.error_handler
        if handler is None:
            handler = self.hub.handle_error
        else:
            handler = getattr(handler, "handle_error", handler)
        handler(context, type, value, tb)

    def run(self, nowait=False, once=False):
        """Run a loop that belongs to no thread's hub until nothing is left to wait for.

        With `nowait` do one round without waiting, with `once` one round.  ValueError if it is destroyed, RuntimeError
        for the loop of this thread's hub, which runs by itself.
        """
        self.alive()
        self.hub.run_loop(nowait, once)

    def break_(self, how=None):
        """Have `run` return after this round.  `how` is ignored."""
        self.hub.break_loop()

    def destroy(self):
        """Free a loop that belongs to no thread's hub; returns True, or None if it was destroyed already.

        (A hub's loop ends with `hub.destroy()`.)
        """
        if not self.hub.backend.destroyed:
            self.hub.destroy()
            return True

    def closing_fd(self, int fd):
        """Call this before closing descriptor `fd`: it wakes all that wait for it.  Returns whether it was watched."""
        entry = self.hub.fds[fd] if 0 <= fd < len(self.hub.fds) else None
        if entry is None:
            return False
        entry.close()
        return True

    def io(self, fd, events, ref=True, priority=None):
        """A watcher of descriptor `fd`: `events` is READ, WRITE or both.  ValueError for other events and numbers."""
        return io(self, fd, events, ref, priority)

    def timer(self, after, repeat=0.0, ref=True, priority=None):
        """A watcher that fires after `after` seconds, then every `repeat` seconds unless that is 0."""
        return timer(self, after, repeat, ref, priority)

    def signal(self, signum, ref=True, priority=None):
        """A watcher of signal `signum`; the main thread's only.  ValueError if there is no such signal."""
        return signal(self, signum, ref, priority)

    def child(self, pid, trace=0, ref=True):
        """A watcher of the end of child process `pid`, which it reaps.  `trace` is ignored."""
        return child(self, pid, trace, ref)

    def stat(self, path, interval=0.0, ref=True, priority=None):
        """A watcher of changes to the file `path`, looked at every `interval` seconds (0: every half second)."""
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
        """A watcher that fires once in a fork's child."""
        return fork(self, ref, priority)

    def async_(self, ref=True, priority=None):
        """A watcher that fires after its `send()`, which any thread may call."""
        return async_(self, ref, priority)

    def __repr__(self):
        state = "destroyed" if self.hub.backend.destroyed else self.hub.backend.name
        return f"<{type(self).__name__} at {id(self):#x} {state} active={len(self.actives)}>"


show_as(EventLoop, "weald._core.watchers.EventLoop")
_hub.set_event_loop_class(EventLoop)
