# cython: nonecheck=True
"""timer: a call after some time, once or repeatedly.

Called by: loop.pyx (`EventLoop.timer`).
"""

from weald._core.c_python cimport show_as
from weald._core.watchers.base cimport TimedWatcher, Watcher, WatcherLoop, WatcherTimer


cdef class timer(TimedWatcher):
    """Fires after `after` seconds, then every `repeat` seconds unless that is 0."""

    cdef double after
    cdef double every

    def __init__(self, WatcherLoop loop not None, double after=0.0, double repeat=0.0, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        self.repeat = repeat
        self.after = after

    def start(self, callback, *args, update=None):
        """Have `callback(*args)` called when the time is over.  `update` is ignored: the clock is never stale."""
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

    cdef int expired(self, WatcherTimer timer) except -1:
        # Counted from when it was due, so that a late round does not shift the later ones.
        cdef double next = timer.when + self.every - self.loop.hub.backend.time()
        self.timer = None
        if self.every > 0.0:
            self.schedule(next)
        self.fire(0)
        return 0

    cdef int before_call(self) except -1:
        if self.every <= 0.0 and self.timer is None:
            self.deactivate()
        return 0

    @property
    def repeat(self):
        """Seconds between the calls after the first; 0: there is only one call."""
        return self.every

    @repeat.setter
    def repeat(self, double value):
        if not value >= 0.0:
            raise ValueError(f"repeat must be positive or zero: {value!r}")
        self.every = value

    def _format(self):
        return f" after={self.after} repeat={self.every}"


show_as(timer, "weald._core.watchers.timer")
