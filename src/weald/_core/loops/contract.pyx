"""The hub's requirements on an event loop: the contract of the backends.

A backend (`uv`, `ev`, `virtual`) subclasses `Loop` and `FdWatch`.  It watches
descriptors and waits; timers, callbacks and everything that runs Python belong to the hub.

- `poll(deadline)` waits for events until `deadline` on the clock of `time()` (seconds; 0.0: do not
  wait, inf: until something happens).  It releases the GIL only when it may wait.  Native
  callbacks run in there without the GIL and only `report` what fired.
- `dispatch()` goes through the reports, with the GIL held, and calls each watch's target.
- `wake()` ends a poll that is under way, from any thread.  A wake-up that comes just before the
  poll starts ends that poll.
- `watch(fd, target)` makes a level-triggered watch, of nothing at first; `update(events)` sets the events to watch for
  (READ_EVENT | WRITE_EVENT; 0: none), `close()` ends it.  One watch per descriptor.
  A descriptor in error reports every event.  DISARMED_EVENT in a report says that the backend
  has stopped the watch by itself.  A descriptor that cannot be watched raises OSError
  (EPERM for regular files, EBADF for closed ones).

Called by: every backend, which implements it; _core/hub.pyx (poll, dispatch, wake, time), timers.pyx (time, wake),
descriptor.pyx and signals.pyx (watch).
Invariants: all but `wake` is called by the owning thread.  A closed watch is never dispatched.
"""

from libc.errno cimport errno
from libc.stdlib cimport free, realloc
from posix.fcntl cimport F_GETFD, fcntl
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as close_fd

import os

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned int, int)
    int EFD_CLOEXEC

cdef extern from "<sys/epoll.h>" nogil:
    struct epoll_event:
        unsigned int events
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLLIN
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event *)

cdef extern from * nogil:
    """
    #include <fcntl.h>
    #include <unistd.h>
    """
    int pipe2(int *, int)
    int O_CLOEXEC

READ = READ_EVENT
WRITE = WRITE_EVENT


cpdef double monotonic() noexcept nogil:
    """Seconds on CLOCK_MONOTONIC.  Unlike time.monotonic, programs (their tests) cannot replace it."""
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return ts.tv_sec + ts.tv_nsec * 1e-9


cdef int check_room(int pipes, int others) except -1:
    """Raise OSError unless a loop can be made, with so many pipes and other descriptors (16 descriptors at most).

    Pipes are made, and one descriptor is watched, because a user may have too many of each and still room for
    descriptors (pipe(7), epoll(7)).
    """
    cdef int[16] fds
    cdef int i, opened = 0, error = 0
    while opened < 2 * pipes + others and not error:
        if opened < 2 * pipes:
            error = errno if pipe2(fds + opened, O_CLOEXEC) < 0 else 0
            opened += 0 if error else 2
        else:
            fds[opened] = eventfd(0, EFD_CLOEXEC)
            error = errno if fds[opened] < 0 else 0
            opened += 0 if error else 1
    if not error:
        close_fd(fds[opened - 1])
        opened -= 1
        error = why_unwatchable(fds[0])
    for i in range(opened):
        close_fd(fds[i])
    if error:
        raise OSError(error, f"cannot make an event loop: {os.strerror(error)}")
    return 0


cdef int why_unwatchable(int fd) noexcept:
    """The error number with which the kernel refuses to watch `fd`; 0 if it does not.  Takes three system calls."""
    cdef epoll_event event
    cdef int error
    cdef int epoll = epoll_create1(EPOLL_CLOEXEC)
    if epoll < 0:
        return errno
    event.events = EPOLLIN
    error = errno if epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 else 0
    close_fd(epoll)
    return error


cdef int report(FiredList *fired, void *watch, int events) noexcept nogil:
    """Remember that `watch` fired.  Called by backends' callbacks, without the GIL."""
    cdef Fired *bigger
    cdef int size
    if fired.count == fired.size:
        size = fired.size * 2 if fired.size else 64
        bigger = <Fired *>realloc(fired.items, size * sizeof(Fired))
        if bigger == NULL:
            return -1  # level-triggered: the next poll reports it again
        fired.items = bigger
        fired.size = size
    fired.items[fired.count].watch = watch
    fired.items[fired.count].events = events
    fired.count += 1
    return 0


cdef class Target:
    """The target that a watch reports to."""

    cdef int ready(self, int events) except -1:
        """`events` are ready.  Called in the hub; must not block."""
        return 0


cdef class FdWatch:
    """A descriptor's place in a backend."""

    cdef int update(self, int events) except -1:
        raise NotImplementedError

    cdef int close(self) except -1:
        raise NotImplementedError


cdef class Loop:
    """Base of the backends."""

    name = "none"

    def __cinit__(self):
        self.shortest_wait = 20e-6
        self.changed = []  # watches whose interest has been raised since the last poll

    def __dealloc__(self):
        free(self.fired.items)

    cdef double time(self) noexcept:
        return monotonic()

    def fileno(self):
        """The epoll descriptor, for embedding; -1 if there is none."""
        return -1

    cdef FdWatch watch(self, int fd, Target target):
        raise NotImplementedError

    cdef int poll(self, double deadline) except -1:
        raise NotImplementedError

    cdef void wake(self) noexcept:
        pass

    cdef int dispatch(self) except -1:
        """Pass the reports of the last poll on to their targets, in order."""
        cdef int i = 0
        cdef FdWatch watch
        while i < self.fired.count:
            if self.fired.items[i].watch != NULL:
                watch = <FdWatch>self.fired.items[i].watch
                if self.fired.items[i].events & DISARMED_EVENT:
                    watch.events = 0
                watch.target.ready(self.fired.items[i].events)
            i += 1
        self.fired.count = 0
        return 0

    cdef void forget(self, FdWatch watch) noexcept:
        """Drop the reports of `watch`, which is closed, that have not been dispatched yet."""
        cdef int i
        for i in range(self.fired.count):
            if self.fired.items[i].watch == <void *>watch:
                self.fired.items[i].watch = NULL

    cdef int check_changed(self) except -1:
        """Report watches whose descriptor other code has closed, before they are registered with the kernel.

        libuv and libev abort the process when epoll_ctl refuses a descriptor.  So a backend applies its
        changes right after this, with the GIL still held: no thread can close a descriptor in between.
        """
        cdef FdWatch watch
        if not self.changed:
            return 0
        changed, self.changed = self.changed, []
        for watch in changed:
            if watch.events and fcntl(watch.fd, F_GETFD) < 0:
                watch.update(0)
                report(&self.fired, <void *>watch, READ_EVENT | WRITE_EVENT | DISARMED_EVENT)
        return 0

    cdef int close(self) except -1:
        """Free the native loop.  Idempotent."""
        self.destroyed = True
        return 0

    cdef int forked(self) except -1:
        """In a fork's child: become a fresh loop without watches."""
        self.fired.count = 0
        return 0

    cdef int settle(self) except -1:
        """Finish what `forked` has begun; the parent's watches are closed by now."""
        return 0

    cdef int reopened(self) except -1:
        """Open the loop's own descriptors again: the program has closed them.  The loop has no watches then."""
        return self.forked()

    cdef bint owns(self, int fd) noexcept:
        """Whether descriptor `fd` is the loop's own, as far as the library tells (libev does not)."""
        return False

    def __repr__(self):
        return f"<{type(self).__name__} {'destroyed' if self.destroyed else 'at'} {id(self):#x}>"
