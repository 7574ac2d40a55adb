"""Waiting for several descriptors at once.

Called by: weald.select, weald.subprocess, users (`wait_readwrite`).
"""

cimport cython

from weald._core.descriptor cimport FdEntry, Listener, check_fd, lasting_entry
from weald._core.hub cimport Hub, Waiter
from weald._core.loops.contract cimport READ_EVENT, WRITE_EVENT
from weald._core.threads cimport current_hub
from weald._core.waiters cimport park_for, seconds


def wait_readwrite(int fileno, timeout=None, timeout_exc=None):
    """Park until descriptor `fileno` is readable or writable; timeouts and errors as with `wait_read`."""
    if not poll_fds({fileno: READ_EVENT | WRITE_EVENT}, timeout):
        raise timeout_exc if timeout_exc is not None else TimeoutError("timed out")


cdef class Descriptors:
    """The descriptors that a greenlet waits for in `poll_fds`; their text is made only for reports: it may be long."""

    cdef dict wanted

    def __repr__(self):
        return f"descriptors {sorted(self.wanted)}" if self.wanted else "select"


@cython.final
cdef class Wanted(Listener):
    """One of the descriptors that `poll_fds` waits for."""

    cdef FdEntry entry


def poll_fds(dict wanted, timeout, bint own=False):
    """Wait until one of several descriptors is ready, up to `timeout` seconds (None: for ever).

    `wanted` maps descriptors to the events to wait for, READ or WRITE or both.  Returns a dict of the same form with
    the events that have occurred, empty when the time is over.  OSError(EBADF) if a descriptor is closed.  `own` says
    that they are files of weald's, which no other code closes: that takes fewer system calls.
    """
    cdef Hub hub = current_hub()
    cdef Waiter waiter = hub.waiter()
    cdef Wanted each
    cdef Descriptors what
    cdef double limit = seconds(timeout)
    cdef unsigned long generation = hub.generation
    cdef bint parks = True
    cdef list held = []
    cdef dict ready = {}
    try:
        for fd, events in wanted.items():
            check_fd(fd)
            each = Wanted.__new__(Wanted)
            each.entry = lasting_entry(hub, fd, own)
            each.events = events
            held.append(each)
            if each.entry.always:
                each.fired = each.events
                parks = False
            else:
                each.waiter = waiter
                each.entry.listen(each)
        if parks:
            what = Descriptors.__new__(Descriptors)
            what.wanted = wanted
            hub.refs += 1
            try:
                if limit < 0.0:
                    hub.park(waiter, what)
                else:
                    park_for(waiter, what, limit, True)
            finally:
                if hub.generation == generation:
                    hub.refs -= 1
        for each in held:
            if each.fired:
                ready[each.entry.fd] = each.fired
        return ready
    finally:
        for each in held:
            each.waiter = None
            each.entry.unlisten(each)
