"""Waiting for several descriptors at once.

Called by: weald.select, users (`wait_readwrite`).
"""

from weald._core.descriptor cimport FdEntry, Listener, check_fd, entry_for
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

    def __init__(self, wanted):
        self.wanted = wanted

    def __repr__(self):
        return f"descriptors {sorted(self.wanted)}" if self.wanted else "select"


def poll_fds(dict wanted, timeout):
    """Wait until one of several descriptors is ready, up to `timeout` seconds (None: for ever).

    `wanted` maps descriptors to the events to wait for, READ or WRITE or both.  Returns a dict of the same form with
    the events that have occurred, empty when the time is over.  OSError(EBADF) if a descriptor is closed.
    """
    cdef Hub hub = current_hub()
    cdef Waiter waiter = hub.waiter()
    cdef Listener listener
    cdef FdEntry entry
    cdef double limit = seconds(timeout)
    cdef unsigned long generation = hub.generation
    held = []
    ready = {}
    try:
        for fd, events in wanted.items():
            check_fd(fd)
            entry = entry_for(hub, fd)
            listener = Listener.__new__(Listener)
            listener.events = events
            held.append((entry, listener))
            if entry.always:
                listener.fired = events
                ready[fd] = events
                continue
            listener.waiter = waiter
            entry.listen(listener)
        if not ready:
            hub.refs += 1
            try:
                if limit < 0.0:
                    hub.park(waiter, Descriptors(wanted))
                else:
                    park_for(waiter, Descriptors(wanted), limit, True)
            finally:
                if hub.generation == generation:
                    hub.refs -= 1
        for entry, listener in held:
            if listener.fired:
                ready[entry.fd] = listener.fired
        return ready
    finally:
        for entry, listener in held:
            listener.waiter = None
            entry.unlisten(listener)
