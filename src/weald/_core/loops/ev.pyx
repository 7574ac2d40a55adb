"""The libev backend; contract.pyx has the contract.

Called by: backends.py, when "libev" is chosen.
Invariants: libev applies changes of interest when it polls next, so `update` makes no system call.  The
ev_io of a watch is malloc'ed and `data` is its EvWatch, borrowed; libev forgets a stopped watcher at once,
so it is freed on close.  The async watcher is what makes ev_run wait when nothing else is watched.
"""

from libc.errno cimport EBADF, EPERM, errno
from libc.math cimport isinf
from libc.stdlib cimport calloc, free
from posix.stat cimport S_ISFIFO, S_ISSOCK, fstat, struct_stat

from weald._core.loops.c_ev cimport *
from weald._core.loops.contract cimport (
    DISARMED_EVENT, READ_EVENT, WRITE_EVENT, FdWatch, FiredList, Loop, Target, check_room, monotonic, report,
    why_unwatchable)

import os


cdef struct State:
    # The state that native callbacks use, without the GIL.
    FiredList *fired
    double armed  # the deadline the native timer is set to; 0.0: not set
    bint woken  # by `wake`, since the last poll began to wait


cdef void on_io(ev_loop *loop, ev_io *watcher, int events) noexcept nogil:
    cdef int found = 0
    if events & EV_ERROR:
        # libev has stopped the watcher.  The waiter's system call will raise the error, or its next wait.
        found = READ_EVENT | WRITE_EVENT | DISARMED_EVENT
        if watcher.data != NULL:
            (<EvWatch>watcher.data).refused = True
    else:
        if events & EV_READ:
            found |= READ_EVENT
        if events & EV_WRITE:
            found |= WRITE_EVENT
    report((<State *>ev_userdata(loop)).fired, watcher.data, found)


cdef void on_timer(ev_loop *loop, ev_timer *watcher, int events) noexcept nogil:
    ev_timer_stop(loop, watcher)
    (<State *>ev_userdata(loop)).armed = 0.0


cdef void on_wake(ev_loop *loop, ev_async *watcher, int events) noexcept nogil:
    (<State *>ev_userdata(loop)).woken = True


cdef class EvWatch(FdWatch):
    cdef ev_io *watcher
    cdef bint refused  # the kernel has refused to watch the descriptor

    cdef int update(self, int events) except -1:
        cdef ev_loop *loop
        cdef int error
        if self.watcher == NULL or self.loop.destroyed:
            return 0
        loop = (<EvLoop>self.loop).loop
        ev_io_stop(loop, self.watcher)
        if events and self.refused:
            # The waiter's system call has found no error: without this, it and libev would try again for ever.
            error = why_unwatchable(self.fd)
            if error:
                raise OSError(error, f"cannot watch descriptor {self.fd}: {os.strerror(error)}")
            self.refused = False
        if events:
            ev_io_set(self.watcher, self.fd,
                      (EV_READ if events & READ_EVENT else 0) | (EV_WRITE if events & WRITE_EVENT else 0))
            ev_io_start(loop, self.watcher)
            self.loop.changed.append(self)
        self.events = events
        return 0

    cdef int close(self) except -1:
        if self.watcher == NULL:
            return 0
        if not self.loop.destroyed:
            ev_io_stop((<EvLoop>self.loop).loop, self.watcher)
            self.loop.forget(self)
        free(self.watcher)
        self.watcher = NULL
        self.events = 0
        return 0

    def __dealloc__(self):
        if self.watcher != NULL:
            if self.loop is not None and not self.loop.destroyed:
                ev_io_stop((<EvLoop>self.loop).loop, self.watcher)
            free(self.watcher)


cdef int why_never_ready(int fd) noexcept:
    """EPERM for a file that epoll refuses to watch, where libev would call it always ready; EBADF if it is closed."""
    cdef struct_stat status
    if fstat(fd, &status) < 0:
        return EBADF
    if S_ISSOCK(status.st_mode) or S_ISFIFO(status.st_mode):
        return 0  # as most are
    return EPERM if why_unwatchable(fd) == EPERM else 0


cdef enum:
    PIPES = 1  # of signals.pyx
    OTHERS = 2  # an epoll, an eventfd


cdef class EvLoop(Loop):
    """libev: epoll, one native timer, one async watcher."""

    name = "libev"
    cdef ev_loop *loop
    cdef ev_async waker
    cdef ev_timer timer
    cdef State state

    def __cinit__(self):
        self.state.fired = &self.fired
        check_room(PIPES, OTHERS)  # libev would abort the process
        self.loop = ev_loop_new(EVBACKEND_EPOLL | EVFLAG_NOENV)
        if self.loop == NULL:
            raise OSError(errno, f"cannot make an event loop: {os.strerror(errno)}")
        ev_set_userdata(self.loop, &self.state)
        ev_async_init(&self.waker, on_wake)
        ev_async_start(self.loop, &self.waker)
        ev_init_timer(&self.timer, on_timer)

    cdef FdWatch watch(self, int fd, Target target):
        cdef EvWatch watch = EvWatch.__new__(EvWatch)
        cdef int error = why_never_ready(fd)
        if error:
            raise OSError(error, f"cannot watch descriptor {fd}: {os.strerror(error)}")
        watch.loop = self
        watch.fd = fd
        watch.target = target
        watch.watcher = <ev_io *>calloc(1, sizeof(ev_io))
        if watch.watcher == NULL:
            raise MemoryError
        ev_io_init(watch.watcher, on_io, fd, EV_READ)
        watch.watcher.data = <void *>watch
        return watch

    cdef int poll(self, double deadline) except -1:
        if self.loop == NULL:
            raise RuntimeError("this event loop is destroyed")
        if self.changed or deadline == 0.0:
            self.check_changed()
            self.state.woken = False
            ev_run(self.loop, EVRUN_NOWAIT)
            if deadline == 0.0 or self.fired.count or self.state.woken:
                return 0
        if isinf(deadline):
            if self.state.armed:
                ev_timer_stop(self.loop, &self.timer)
                self.state.armed = 0.0
        elif self.state.armed != deadline:
            ev_now_update(self.loop)
            self.timer.repeat = max(deadline - monotonic(), 1e-6)
            ev_timer_again(self.loop, &self.timer)
            self.state.armed = deadline
        with nogil:
            ev_run(self.loop, EVRUN_ONCE)
        return 0

    cdef void wake(self) noexcept:
        if self.loop != NULL:
            ev_async_send(self.loop, &self.waker)

    cdef int close(self) except -1:
        if self.loop == NULL:
            return 0
        self.destroyed = True
        self.free_loop()
        return 0

    cdef void free_loop(self) noexcept:
        ev_timer_stop(self.loop, &self.timer)
        ev_async_stop(self.loop, &self.waker)
        ev_loop_destroy(self.loop)
        self.loop = NULL

    cdef int forked(self) except -1:
        self.fired.count = 0
        if self.loop != NULL:
            # Takes effect at the next poll, in `settle`, when the watches of the parent are closed already.
            ev_loop_fork(self.loop)
            ev_timer_stop(self.loop, &self.timer)
            self.state.armed = 0.0
        return 0

    cdef int settle(self) except -1:
        if self.loop != NULL:
            ev_run(self.loop, EVRUN_NOWAIT)
        return 0

    cdef int reopened(self) except -1:
        self.forked()
        return self.settle()  # closes the old numbers now, before the program opens files with them

    def __dealloc__(self):
        if self.loop != NULL:
            self.free_loop()


def version():
    """libev's version, at run time."""
    return f"{ev_version_major()}.{ev_version_minor()}"
