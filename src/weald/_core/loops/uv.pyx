"""The libuv backend; contract.pyx has the contract.

Called by: backends.py, when "libuv" is chosen.
Invariants:
- Native handles are malloc'ed and freed by libuv's close callback, so that they live as long as libuv needs them.
  `handle.data` of a poll handle is its UvWatch, borrowed: `close` cuts it first.
- The async handle stays referenced.  Without it uv_run would not wait when no descriptor is watched.
- No native loop has more than GROUP_SIZE descriptors: there are groups, each with a native loop of its own.  uv_run
  reads 1,024 events at a time.  As long as it gets that many it reads again, up to 48 times, and would get the same
  descriptors, whose data has not been read meanwhile.
- The first group waits.  It watches the epoll descriptors of the others, which run when they have events.  It has 1,024
  descriptors itself when there are 128 other groups, with 115,000 descriptors.
"""

cimport cython
from libc.errno cimport ENOMEM
from libc.math cimport ceil, isinf
from libc.stdlib cimport calloc, free, realloc
from posix.fcntl cimport F_GETFL, F_SETFL, O_NONBLOCK, fcntl

from weald._core.loops.c_uv cimport *
from weald._core.loops.contract cimport (
    DISARMED_EVENT, READ_EVENT, WRITE_EVENT, FdWatch, FiredList, Loop, Target, check_room, monotonic, report)

import os

cdef enum:
    GROUP_SIZE = 896  # descriptors
    # Descriptors that a group needs, and the pipe of signals.pyx.
    PIPES = 3
    OTHERS = 2  # an epoll, an eventfd


cdef struct State:
    # The state that native callbacks use, without the GIL; uv_loop_t.data points here.
    FiredList *fired
    double armed  # the deadline the native timer is set to; 0.0: not set
    bint woken  # by `wake`, since the last poll began to wait
    bint pending  # at least one group must run


cdef struct Group:
    uv_loop_t loop
    int members
    bint pending  # it must run: a descriptor is ready, or libuv has to update the kernel or to free something
    uv_poll_t *outer  # watches the group's epoll descriptor in the first group; NULL: it is the first


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
        # libuv has stopped the handle (EPOLLERR).  The waiter's system call will raise the error.
        events = READ_EVENT | WRITE_EVENT | DISARMED_EVENT
    report((<State *>loop.data).fired, handle.data, events)


cdef void on_group(uv_poll_t *handle, int status, int events) noexcept nogil:
    note_pending(<Group *>handle.data)


cdef void note_pending(Group *group) noexcept nogil:
    group.pending = True
    (<State *>group.loop.data).pending = True


cdef void run_pending(Group **groups, int count, State *state) noexcept nogil:
    """Run the pending groups, except the first."""
    cdef int i
    state.pending = False
    for i in range(1, count):
        if groups[i].pending:
            groups[i].pending = False
            uv_run(&groups[i].loop, UV_RUN_NOWAIT)


cdef void close_handle(uv_handle_t *handle, void *arg) noexcept nogil:
    if not uv_is_closing(handle):
        uv_close(handle, on_close)


cdef object uv_error(int code, what):
    return OSError(-code, f"{what}: {os.strerror(-code)}")


@cython.no_gc_clear  # `leave` needs the loop
cdef class UvWatch(FdWatch):
    cdef uv_poll_t *handle
    cdef Group *group

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
            if self.group.outer != NULL:
                note_pending(self.group)
        else:
            uv_poll_stop(self.handle)
        self.events = events
        return 0

    cdef int close(self) except -1:
        if self.leave():
            self.loop.forget(self)
        self.events = 0
        return 0

    cdef bint leave(self) noexcept:
        """Close the native handle; returns whether there was one."""
        cdef uv_poll_t *handle = self.handle
        self.handle = NULL
        if handle == NULL or self.loop.destroyed:
            return False
        handle.data = NULL
        uv_close(<uv_handle_t *>handle, on_close)
        self.group.members -= 1
        if self.group.outer != NULL:
            note_pending(self.group)
        return True

    def __dealloc__(self):
        self.leave()


cdef class UvLoop(Loop):
    """libuv: epoll, one native timer, one async handle."""

    name = "libuv"
    cdef Group **groups
    cdef int count  # of groups; 0: destroyed
    cdef uv_async_t *waker
    cdef uv_timer_t *timer
    cdef State state

    def __cinit__(self):
        self.state.fired = &self.fired
        self.waker = <uv_async_t *>calloc(1, sizeof(uv_async_t))
        self.timer = <uv_timer_t *>calloc(1, sizeof(uv_timer_t))
        if self.waker == NULL or self.timer == NULL:
            raise MemoryError
        try:
            self.add_group()
        except BaseException:
            free(self.waker)
            free(self.timer)
            raise
        uv_async_init(&self.groups[0].loop, self.waker, on_wake)
        uv_timer_init(&self.groups[0].loop, self.timer)

    cdef Group *add_group(self) except NULL:
        cdef int error
        cdef Group *group
        check_room(PIPES, OTHERS)  # libuv would abort the process
        cdef Group **more = <Group **>realloc(self.groups, (self.count + 1) * sizeof(Group *))
        if more == NULL:
            raise MemoryError
        self.groups = more
        group = <Group *>calloc(1, sizeof(Group))
        if group == NULL:
            raise MemoryError
        error = uv_loop_init(&group.loop)
        if error < 0:
            free(group)
            raise uv_error(error, "cannot make an event loop")
        group.loop.data = &self.state
        if self.count > 0:
            error = self.watch_group(group)
            if error < 0:
                uv_loop_close(&group.loop)
                free(group)
                raise uv_error(error, "cannot watch an event loop")
        self.groups[self.count] = group
        self.count += 1
        return group

    cdef int watch_group(self, Group *group) noexcept:
        """Have the first group watch the epoll descriptor of `group`; a negative error number if that fails."""
        cdef int error
        cdef uv_poll_t *outer = <uv_poll_t *>calloc(1, sizeof(uv_poll_t))
        if outer == NULL:
            return -ENOMEM
        error = uv_poll_init(&self.groups[0].loop, outer, uv_backend_fd(&group.loop))
        if error < 0:
            free(outer)
            return error
        outer.data = group
        group.outer = outer
        return uv_poll_start(outer, UV_READABLE, on_group)

    cdef Group *group_with_room(self) except NULL:
        cdef int i
        for i in range(self.count):
            if self.groups[i].members < GROUP_SIZE:
                return self.groups[i]
        return self.add_group()

    cdef FdWatch watch(self, int fd, Target target):
        cdef UvWatch watch = UvWatch.__new__(UvWatch)
        cdef int error, flags
        cdef Group *group = self.group_with_room()
        flags = fcntl(fd, F_GETFL)
        watch.loop = self
        watch.fd = fd
        watch.target = target
        watch.group = group
        watch.handle = <uv_poll_t *>calloc(1, sizeof(uv_poll_t))
        if watch.handle == NULL:
            raise MemoryError
        error = uv_poll_init(&group.loop, watch.handle, fd)
        if error < 0:
            free(watch.handle)
            watch.handle = NULL
            raise uv_error(error, f"cannot watch descriptor {fd}")
        watch.handle.data = <void *>watch
        group.members += 1
        if not flags & O_NONBLOCK:
            # libuv sets O_NONBLOCK, which the description's other holders (a shell, say) would see.
            fcntl(fd, F_SETFL, flags)
        return watch

    cdef int poll(self, double deadline) except -1:
        cdef double wait
        if self.count == 0:
            raise RuntimeError("this event loop is destroyed")
        if self.changed or self.state.pending or deadline == 0.0:
            self.check_changed()
            self.state.woken = False
            uv_run(&self.groups[0].loop, UV_RUN_NOWAIT)
            if self.state.pending:
                run_pending(self.groups, self.count, &self.state)
            if deadline == 0.0 or self.fired.count or self.state.woken:
                return 0
        if isinf(deadline):
            if self.state.armed:
                uv_timer_stop(self.timer)
                self.state.armed = 0.0
        elif self.state.armed != deadline:
            wait = deadline - monotonic()
            uv_update_time(&self.groups[0].loop)
            uv_timer_start(self.timer, on_timer, <unsigned long long>ceil(max(wait, 0.0) * 1000.0), 0)
            self.state.armed = deadline
        with nogil:
            uv_run(&self.groups[0].loop, UV_RUN_ONCE)
            if self.state.pending:
                run_pending(self.groups, self.count, &self.state)
        return 0

    cdef void wake(self) noexcept:
        if self.count > 0:
            uv_async_send(self.waker)

    cdef int close(self) except -1:
        self.destroyed = True
        self.free_groups()
        return 0

    cdef void free_groups(self) noexcept:
        cdef int i
        cdef int count = self.count
        self.count = 0
        for i in range(count):
            uv_walk(&self.groups[i].loop, close_handle, NULL)
            while uv_loop_close(&self.groups[i].loop) < 0:
                uv_run(&self.groups[i].loop, UV_RUN_ONCE)
            free(self.groups[i])
        free(self.groups)
        self.groups = NULL

    cdef int forked(self) except -1:
        # The epoll descriptors first: the watches are closed next, and that must not remove the parent's registrations.
        cdef int i, error
        self.fired.count = 0
        for i in range(self.count):
            if i > 0:
                self.groups[i].outer.data = NULL
                uv_close(<uv_handle_t *>self.groups[i].outer, on_close)
            uv_loop_fork(&self.groups[i].loop)
            if i > 0:
                error = self.watch_group(self.groups[i])
                if error < 0:
                    raise uv_error(error, "cannot watch an event loop")
                note_pending(self.groups[i])
        if self.count > 0:
            uv_timer_stop(self.timer)
            self.state.armed = 0.0
        return 0

    cdef bint owns(self, int fd) noexcept:
        cdef int i
        for i in range(self.count):
            if fd == uv_backend_fd(&self.groups[i].loop) or fd == self.groups[i].loop.async_io_watcher.fd:
                return True
        return False

    def __dealloc__(self):
        self.free_groups()

    def fileno(self):
        """The epoll descriptor, for embedding."""
        return uv_backend_fd(&self.groups[0].loop) if self.count > 0 else -1


def version():
    """libuv's version, at run time."""
    return uv_version_string().decode()
