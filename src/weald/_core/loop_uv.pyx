"""The libuv backend; loop.pyx has the contract.

Called by: hub.pyx (makes one per hub).
Invariants: native handles are malloc'ed and freed by libuv's close callback, so that they live as
long as libuv needs them.  `handle.data` of a poll handle is its UvWatch, borrowed: `close` cuts it
first.  The async handle stays referenced, which is what makes uv_run wait at all when no
descriptor is watched.
"""

from libc.math cimport ceil, isinf
from libc.stdlib cimport calloc, free
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl

from weald._core.c_uv cimport *
from weald._core.loop cimport (
    DISARMED_EVENT, READ_EVENT, WRITE_EVENT, FdWatch, FiredList, Loop, Target, check_room, monotonic, report)

import os

cdef enum:
    ROOM = 8  # an epoll, an eventfd, libuv's two pipes, and the pipe of signals.pyx


cdef struct State:
    # What native callbacks touch, without the GIL; uv_loop_t.data points here.
    FiredList *fired
    double armed  # the deadline the native timer is set to; 0.0: not set
    bint woken  # by `wake`, since the last poll began to wait


cdef void on_close(uv_handle_t *handle) noexcept nogil:
    free(handle)


cdef void on_wake(uv_async_t *handle) noexcept nogil:
    cdef uv_loop_t *loop = (<uv_handle_t *>handle).loop
    (<State *>loop.data).woken = True


cdef void on_timer(uv_timer_t *handle) noexcept nogil:
    # uv_run runs due timers before it polls: without a stop it would then wait for ever.
    cdef uv_loop_t *loop = (<uv_handle_t *>handle).loop
    (<State *>loop.data).armed = 0.0
    uv_stop(loop)


cdef void on_poll(uv_poll_t *handle, int status, int events) noexcept nogil:
    cdef uv_loop_t *loop = (<uv_handle_t *>handle).loop
    if handle.data == NULL:
        return
    if status < 0:
        # libuv has stopped the handle (EPOLLERR); the waiter's system call will tell what is wrong.
        events = READ_EVENT | WRITE_EVENT | DISARMED_EVENT
    report((<State *>loop.data).fired, handle.data, events)


cdef void close_handle(uv_handle_t *handle, void *arg) noexcept nogil:
    if not uv_is_closing(handle):
        uv_close(handle, on_close)


cdef object uv_error(int code, what):
    return OSError(-code, f"{what}: {os.strerror(-code)}")


cdef class UvWatch(FdWatch):
    cdef uv_poll_t *handle

    cdef int update(self, int events) except -1:
        cdef int error
        if self.handle == NULL or self.loop.destroyed:
            return 0
        if events:
            # READ_EVENT and WRITE_EVENT have the values of UV_READABLE and UV_WRITABLE.
            error = uv_poll_start(self.handle, events, on_poll)
            if error < 0:
                raise uv_error(error, f"cannot watch descriptor {self.fd}")
            self.loop.changed.append(self)
        else:
            uv_poll_stop(self.handle)
        self.events = events
        return 0

    cdef int close(self) except -1:
        cdef uv_poll_t *handle = self.handle
        self.handle = NULL
        self.events = 0
        if handle == NULL or self.loop.destroyed:
            return 0
        handle.data = NULL
        uv_close(<uv_handle_t *>handle, on_close)
        self.loop.forget(self)
        return 0

    def __dealloc__(self):
        if self.handle != NULL:
            self.handle.data = NULL
            if self.loop is not None and not self.loop.destroyed:
                uv_close(<uv_handle_t *>self.handle, on_close)


cdef class UvLoop(Loop):
    """libuv: epoll, one native timer, one async handle."""

    name = "libuv"
    cdef uv_loop_t *loop
    cdef uv_async_t *waker
    cdef uv_timer_t *timer
    cdef State state

    def __cinit__(self):
        self.open()

    cdef int open(self) except -1:
        cdef int error
        check_room(ROOM)  # libuv would abort the process
        self.state.fired = &self.fired
        self.state.armed = 0.0
        self.loop = <uv_loop_t *>calloc(1, sizeof(uv_loop_t))
        self.waker = <uv_async_t *>calloc(1, sizeof(uv_async_t))
        self.timer = <uv_timer_t *>calloc(1, sizeof(uv_timer_t))
        if self.loop == NULL or self.waker == NULL or self.timer == NULL:
            raise MemoryError
        error = uv_loop_init(self.loop)
        if error < 0:
            free(self.loop)
            free(self.waker)
            free(self.timer)
            self.loop = NULL
            raise uv_error(error, "cannot make an event loop")
        self.loop.data = &self.state
        uv_async_init(self.loop, self.waker, on_wake)
        uv_timer_init(self.loop, self.timer)
        return 0

    cdef FdWatch watch(self, int fd, Target target):
        cdef UvWatch watch = UvWatch.__new__(UvWatch)
        cdef int error, flags
        flags = fcntl(fd, F_GETFL)
        watch.loop = self
        watch.fd = fd
        watch.target = target
        watch.handle = <uv_poll_t *>calloc(1, sizeof(uv_poll_t))
        if watch.handle == NULL:
            raise MemoryError
        error = uv_poll_init(self.loop, watch.handle, fd)
        if error < 0:
            free(watch.handle)
            watch.handle = NULL
            raise uv_error(error, f"cannot watch descriptor {fd}")
        watch.handle.data = <void *>watch
        if not flags & O_NONBLOCK:
            # libuv sets O_NONBLOCK, which the description's other holders (a shell, say) would see.
            fcntl(fd, F_SETFL, flags)
        return watch

    cdef int poll(self, double deadline) except -1:
        cdef double wait
        if self.loop == NULL:
            raise RuntimeError("this event loop is destroyed")
        if self.changed or deadline == 0.0:
            self.check_changed()
            self.state.woken = False
            uv_run(self.loop, UV_RUN_NOWAIT)
            if deadline == 0.0 or self.fired.count or self.state.woken:
                return 0
        if isinf(deadline):
            if self.state.armed:
                uv_timer_stop(self.timer)
                self.state.armed = 0.0
        elif self.state.armed != deadline:
            wait = deadline - monotonic()
            uv_update_time(self.loop)
            uv_timer_start(self.timer, on_timer, <unsigned long long>ceil(max(wait, 0.0) * 1000.0), 0)
            self.state.armed = deadline
        with nogil:
            uv_run(self.loop, UV_RUN_ONCE)
        return 0

    cdef void wake(self) noexcept:
        if self.loop != NULL:
            uv_async_send(self.waker)

    cdef int close(self) except -1:
        if self.loop == NULL:
            return 0
        self.destroyed = True
        uv_walk(self.loop, close_handle, NULL)
        while uv_loop_close(self.loop) < 0:
            uv_run(self.loop, UV_RUN_ONCE)
        free(self.loop)
        self.loop = NULL
        return 0

    cdef int forked(self) except -1:
        # A new epoll descriptor first, so that the owners, who close their watches next, do not
        # take the parent's registrations away.
        self.fired.count = 0
        if self.loop != NULL:
            uv_loop_fork(self.loop)
            uv_timer_stop(self.timer)
            self.state.armed = 0.0
        return 0

    cdef bint owns(self, int fd) noexcept:
        return self.loop != NULL and (fd == uv_backend_fd(self.loop) or fd == self.loop.async_io_watcher.fd)

    def __dealloc__(self):
        if self.loop != NULL:
            uv_walk(self.loop, close_handle, NULL)
            uv_run(self.loop, UV_RUN_NOWAIT)
            uv_loop_close(self.loop)
            free(self.loop)

    def fileno(self):
        """The epoll descriptor, for embedding."""
        return uv_backend_fd(self.loop) if self.loop != NULL else -1


def version():
    """libuv's version, at run time."""
    return uv_version_string().decode()
