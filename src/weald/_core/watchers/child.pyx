# cython: nonecheck=True
"""child: a child process that ends.

Called by: loop.pyx (`EventLoop.child`).
"""

from weald._core.c_python cimport show_as
from weald._core.loops.contract cimport READ_EVENT
from weald._core.watchers.base cimport TimedWatcher, Watcher, WatcherLoop, WatcherTimer
from weald._core.watchers.io cimport io

import os
import posix

cdef object original_waitpid = posix.waitpid  # that of os may be patched, and leave this child to its watcher
cdef double INTERVAL = 0.02  # seconds between looks at a child that cannot be watched
cdef int UNKNOWN_STATUS = 255 << 8  # as waitpid(2) encodes exit status 255


cdef class child(TimedWatcher):
    """Fires when child `pid` ends: reaps it and sets `rpid` and `rstatus`.

    It waits for this child only.  If other code has reaped the child, `rstatus` is that of exit status 255.  Without
    pidfds (Linux before 5.3) it looks at the child 50 times a second.
    """

    cdef readonly int pid
    cdef public int rpid
    cdef public int rstatus
    cdef io watch
    cdef int pidfd

    def __init__(self, WatcherLoop loop not None, int pid, trace=0, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        if pid <= 0:
            raise ValueError(f"a child watcher needs the process ID of a child, not {pid}")
        self.pid = pid
        self.pidfd = -1

    cdef int arm(self) except -1:
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self.schedule(0.0)  # it has ended already: `expired` gets its status
            return 0
        except (OSError, AttributeError):
            self.schedule(INTERVAL)
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

    cdef int expired(self, WatcherTimer timer) except -1:
        self.timer = None
        if not self._look():
            self.schedule(INTERVAL)
        return 0

    def _look(self):
        try:
            pid, status = original_waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status = self.pid, UNKNOWN_STATUS
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


show_as(child, "weald._core.watchers.child")
