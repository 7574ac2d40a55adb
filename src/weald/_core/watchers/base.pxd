# See base.pyx.
from weald._core.hooks cimport Watched
from weald._core.hub cimport Hub
from weald._core.timers cimport BaseTimer

cdef enum BeforePoll:
    MAY_WAIT  # the poll may wait
    IF_IDLE  # if the poll would wait, this watcher fires, and the poll does not wait
    MUST_NOT_WAIT  # the watcher has fired

cdef class WatcherLoop(Watched):
    cdef readonly Hub hub  # whose loop it is
    cdef set actives
    cdef list due  # watchers whose callbacks are to be called
    cdef list in_rounds  # watchers that take part in each round: idle, prepare, check, and io of regular files
    cdef int alive(self) except -1
    cdef int call_due(self) except -1

cdef class Watcher:
    cdef readonly WatcherLoop loop
    cdef object function
    cdef tuple arguments
    cdef bint is_active
    cdef bint is_pending
    cdef bint is_ref
    cdef bint is_closed
    cdef int level  # the priority
    cdef int fired  # events for which the callback has not been called yet
    cdef int arm(self) except -1
    cdef int disarm(self) except -1
    cdef BeforePoll before_poll(self) except? MAY_WAIT
    cdef int after_poll(self) except -1
    cdef bint fires_after_fork(self) noexcept
    cdef int begin(self, object callback, tuple args) except -1
    cdef int activate(self) except -1
    cdef int deactivate(self) except -1
    cdef int fire(self, int events) except -1
    cdef int before_call(self) except -1
    cdef int call(self) except -1

cdef class WatcherTimer(BaseTimer):
    cdef TimedWatcher watcher

cdef class TimedWatcher(Watcher):
    cdef WatcherTimer timer
    cdef int schedule(self, double seconds) except -1
    cdef int unschedule(self) except -1
    cdef int expired(self, WatcherTimer timer) except -1

cdef int post(Watcher watcher) except -1
cdef int discard(list items, object item) except -1
