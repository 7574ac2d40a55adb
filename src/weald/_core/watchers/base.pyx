# cython: nonecheck=True
"""The base class of all watchers, and that of the loop that they belong to.

For users and libraries that drive the event loop themselves (`get_hub().loop.io(fd, READ)` and so on); weald's own
rooms do not use them.

Called by: every other module of this package; each has one kind of watcher.
Invariants:
- A callback runs in the hub, after the poll that reported its event, so it must not block.  Callbacks that are due at
  the same time run by priority, then in the order of their events.
- The loop keeps an active watcher alive; the hub waits for it if its `ref` is true.
- A watcher belongs to its loop's thread; only `async_().send()` may be called from others.
- In a fork's child no watcher of the parent is active; fork watchers are called once.
"""

from weald._core.c_python cimport show_as
from weald._core.hooks cimport Watched
from weald._core.hub cimport Callback
from weald._core.timers cimport BaseTimer

import sys

EVENTS = object()  # as the first argument after a callback: replaced by the events that occurred

MINPRI = -2
MAXPRI = 2


cdef class Watcher:
    """Base of all watchers: start(callback, *args), stop(), close(); a context manager that closes."""

    def __init__(self, WatcherLoop loop not None, bint ref=True, priority=None):
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

    cdef BeforePoll before_poll(self) except? MAY_WAIT:
        """Called before the loop polls, for watchers in `loop.in_rounds`."""
        return MAY_WAIT

    cdef int after_poll(self) except -1:
        """Called after the loop has polled, for watchers in `loop.in_rounds`."""
        return 0

    cdef bint fires_after_fork(self) noexcept:
        """Whether it stays active in a fork's child, and its callback is due there."""
        return False

    def start(self, callback, *args):
        """Have `callback(*args)` called in the hub at each event.  It must not block.

        ValueError if the watcher is closed or its loop destroyed, TypeError if `callback` is not callable.
        """
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

    def feed(self, revents, callback, *args):
        """Have `callback(*args)` called once in the hub, as if `revents` (int, for EVENTS) had come up.

        It need not be started, nor does this start it.  TypeError if `callback` is not callable.
        """
        if not callable(callback):
            raise TypeError(f"a watcher needs a callable, got {callback!r}")
        self.loop.alive()
        self.function = callback
        self.arguments = args
        self.fired |= <int>revents
        if not self.is_pending:
            self.is_pending = True
            self.loop.hub.push(Callback(self.loop._deliver_fed, (self,)))

    def stop(self):
        """Stop watching, and drop events that have already occurred.  `start` begins again."""
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
        """Have the callback called: an event has occurred."""
        self.fired |= events
        if self.is_active and not self.is_pending:
            self.is_pending = True
            self.loop.due.append(self)
        return 0

    cdef int before_call(self) except -1:
        """Called before the callback."""
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
        if not self.is_active:  # that was the last call: drop the references
            self.function = self.arguments = None
        return 0

    @property
    def active(self):
        """Whether it watches: started, and neither stopped nor over."""
        return self.is_active

    @property
    def pending(self):
        """Whether an event has occurred for which the callback has not been called yet."""
        return self.is_pending

    @property
    def ref(self):
        """Whether the hub waits for it while it is active."""
        return self.is_ref

    @ref.setter
    def ref(self, bint value):
        if value != self.is_ref and self.is_active:
            self.loop.hub.refs += 1 if value else -1
        self.is_ref = value

    @property
    def priority(self):
        """MINPRI (-2) to MAXPRI (2); among callbacks that are due at the same time, higher ones come first.

        It cannot be set while the watcher is active (AttributeError).
        """
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
        """The function called at each event; None while stopped."""
        return self.function

    @callback.setter
    def callback(self, value):
        if value is not None and not callable(value):
            raise TypeError(f"a watcher needs a callable or None, got {value!r}")
        self.function = value

    @property
    def args(self):
        """The arguments of the callback, a tuple; None while stopped."""
        return self.arguments

    @args.setter
    def args(self, value):
        if value is not None and not isinstance(value, tuple):
            raise TypeError(f"args must be a tuple or None, got {value!r}")
        self.arguments = value

    def _format(self):
        """More text for `repr`; subclasses override it."""
        return ""

    def __repr__(self):
        state = "".join((" active" if self.is_active else "", " pending" if self.is_pending else "",
                         " closed" if self.is_closed else ""))
        if self.function is not None:
            state += f" callback={self.function!r} args={self.arguments!r}"
        return f"<{type(self).__name__} at {id(self):#x}{self._format()}{state}>"


show_as(Watcher, "weald._core.watchers.Watcher")


cdef int post(Watcher watcher) except -1:
    """Have `watcher` fire soon: for events that occur outside the loop's rounds."""
    watcher.loop.hub.push(Callback(watcher.loop._deliver, (watcher,)))
    return 0


cdef int discard(list items, object item) except -1:
    """Remove `item` from `items`, if it is there."""
    if items is not None and item in items:
        items.remove(item)
    return 0


# ------------------------------------------------------------------ watchers that need a timer

cdef class WatcherTimer(BaseTimer):
    """A watcher's timer.  Its `ref` is false: whether the hub waits is decided by the watcher's `ref`."""

    cdef int expire(self) except -1:
        if self.watcher is not None:
            self.watcher.expired(self)
        return 0


cdef class TimedWatcher(Watcher):
    """Base of watchers that need a timer."""

    cdef int schedule(self, double seconds) except -1:
        """Have `expired` called after `seconds`, instead of after those of an earlier call."""
        self.unschedule()
        self.timer = WatcherTimer.__new__(WatcherTimer)
        self.timer.watcher = self
        self.timer.runs_python = True
        self.timer.start(self.loop.hub.timers, seconds)
        return 0

    cdef int unschedule(self) except -1:
        timer, self.timer = self.timer, None
        if timer is not None:
            (<WatcherTimer>timer).watcher = None
            (<WatcherTimer>timer).stop()
        return 0

    cdef int disarm(self) except -1:
        self.unschedule()
        return 0

    cdef int expired(self, WatcherTimer timer) except -1:
        """Called when the time is over."""
        return 0


# ------------------------------------------------------------------ the loop

cdef class WatcherLoop(Watched):
    """Base of EventLoop: the active watchers, and the callbacks that are due."""

    cdef int alive(self) except -1:
        """ValueError if the loop is destroyed."""
        if self.hub.backend.destroyed:
            raise ValueError("operation on destroyed loop")
        return 0

    cdef int call_due(self) except -1:
        """Call the callbacks that are due, by priority."""
        cdef Watcher watcher
        if not self.due:
            return 0
        due, self.due = self.due, []
        due.sort(key=by_priority)
        for watcher in due:
            if watcher.is_pending:
                watcher.call()
        return 0

    def _deliver(self, Watcher watcher):
        """Have `watcher` fire now, for an event that occurred outside the loop's rounds."""
        watcher.fire(0)
        self.call_due()

    def _deliver_fed(self, Watcher watcher):
        """An event that was fed to a watcher, which may not be active."""
        if watcher.is_pending:
            watcher.call()


def by_priority(Watcher watcher):
    """A key to sort by: higher priorities first."""
    return -watcher.level
