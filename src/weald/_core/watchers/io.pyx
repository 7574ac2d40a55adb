# cython: nonecheck=True
"""io: a descriptor that is readable or writable.

Called by: loop.pyx (`EventLoop.io`), child.pyx.
"""

from weald._core.c_python cimport show_as
from weald._core.descriptor cimport FdEntry, Listener, check_fd, entry_for
from weald._core.loops.contract cimport READ_EVENT, WRITE_EVENT
from weald._core.watchers.base cimport MAY_WAIT, MUST_NOT_WAIT, BeforePoll, Watcher, WatcherLoop, discard, post

from weald._core.watchers.base import EVENTS


cdef class IoListener(Listener):
    """Passes a descriptor's events on to an io watcher."""

    cdef int ready(self, int events) except -1:
        if self.watcher is None:
            return 0
        self.watcher.fired |= events & self.events
        if self.watcher.entry.gone:
            post(self.watcher)  # closed meanwhile, outside the loop's rounds
        else:
            self.watcher.fire(0)
        return 0


cdef class io(Watcher):
    """A descriptor that is readable (events & READ) or writable (events & WRITE); level-triggered."""

    def __init__(self, WatcherLoop loop not None, int fd, int events, bint ref=True, priority=None):
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
            self.loop.in_rounds.append(self)
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
            discard(self.loop.in_rounds, self)
            return (<FdEntry>entry).release()
        (<IoListener>listener).watcher = None
        return (<FdEntry>entry).unlisten(<Listener>listener)

    cdef BeforePoll before_poll(self) except? MAY_WAIT:
        self.fire(self.wanted)  # a regular file, which is always ready
        return MUST_NOT_WAIT

    cdef int rearm(self) except -1:
        if self.is_active:
            self.disarm()
            self.arm()
        return 0

    @property
    def fd(self):
        """The descriptor watched.  Setting it goes on with another one."""
        return self.number

    @fd.setter
    def fd(self, int value):
        check_fd(value)
        self.number = value
        self.rearm()

    @property
    def events(self):
        """READ (1), WRITE (2) or both.  Setting it goes on with other events."""
        return self.wanted

    @events.setter
    def events(self, int value):
        self.wanted = checked_events(value)
        self.rearm()

    @property
    def events_str(self):
        """The events as text: "READ", "WRITE" or "READ|WRITE"."""
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


show_as(io, "weald._core.watchers.io")
