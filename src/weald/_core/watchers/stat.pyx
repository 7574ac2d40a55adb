# cython: nonecheck=True
"""stat: a file that changes.

Called by: loop.pyx (`EventLoop.stat`).
"""

from weald._core.c_python cimport show_as
from weald._core.watchers.base cimport TimedWatcher, Watcher, WatcherLoop, WatcherTimer

import os

cdef double DEFAULT_INTERVAL = 0.5  # seconds


cdef class stat(TimedWatcher):
    """A path whose os.stat() changes; looked at every `interval` seconds (0: every half second)."""

    cdef readonly object path
    cdef readonly double interval
    cdef readonly object attr  # os.stat_result; None where there is no such file
    cdef readonly object prev  # the one before the last change

    def __init__(self, WatcherLoop loop not None, path, double interval=0.0, bint ref=True, priority=None):
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
        self.schedule(self.interval or DEFAULT_INTERVAL)
        return 0

    cdef int expired(self, WatcherTimer timer) except -1:
        self.schedule(self.interval or DEFAULT_INTERVAL)
        now = self.look()
        if stat_key(now) != stat_key(self.attr):
            self.prev, self.attr = self.attr, now
            self.fire(0)
        return 0

    def _format(self):
        return f" path={self.path!r} interval={self.interval}"


cdef object stat_key(found):
    """The fields whose change counts; the time of the last access does not."""
    return found and (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev, found.st_mode)


show_as(stat, "weald._core.watchers.stat")
