"""Descriptors: waiting for them, and a socket's hot calls straight on them.

Called by: weald.socket (recv, send, …), weald.os, weald.ssl, http/channel.pyx, select.pyx, tls.pyx, watchers/io.pyx,
aio/core.pyx.
Invariants:
- `hub.fds[n]` is the one FdEntry for descriptor n in that hub's loop.  It holds the native watch and the greenlets
  parked on it, and lives as long as it has users: Descriptor objects and raw waits (`wait_read(fd)`).
- The descriptor stays watched for reading after a wake-up, until an event arrives for which no greenlet waits.  So a
  connection with requests and responses makes no epoll_ctl calls.  It is watched for writing only during a wait.
- A stream that returned less than was requested is drained: the next recv parks before it calls recv(2).  The watch is
  level-triggered, so no data is missed.
- `close()` wakes all waiters with EBADF and leaves the loops before the number can be used again.
- Calls pass MSG_DONTWAIT, so a description that another process made blocking does not block the loop.

Long because the hot calls share a module with the code that waits: calls across modules cost more.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Realloc
from cpython.object cimport PyObject, PyObject_TypeCheck, PyTypeObject
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_INCREF
from libc.errno cimport EAGAIN, EBADF, EINTR, errno
from libc.string cimport memcpy, memset

from weald._core.c_poll cimport POLLHUP, POLLRDHUP, events_now
from weald._core.c_python cimport slot_offset
from weald._core.hub cimport Hub, Waiter
from weald._core.loops.contract cimport DISARMED_EVENT, READ_EVENT, WRITE_EVENT, Target
from weald._core.threads cimport current_hub, has_hub, living_hubs
from weald._core.waiters cimport WaitList, append, park_listed, remove, seconds, wake_all
from weald._core.yielding cimport give_way
from weald._core.yielding import sleep

import os
import socket as _socket
from _socket import socket as _base_socket

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        MSG_PEEK
        MSG_WAITALL
    ssize_t c_recv "recv"(int, void *, size_t, int)
    ssize_t c_send "send"(int, const void *, size_t, int)

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int, int, ...)
    int F_GETFD

cdef extern from *:
    """
    #include <errno.h>
    #include <sys/socket.h>
    static void weald_set_errno(int value) { errno = value; }

    /* Up to so many bytes are received on the stack, then copied. */
    enum { WEALD_RECEIVE_ON_STACK = 8192 };

    /* recv(2) of up to WEALD_RECEIVE_ON_STACK bytes into a new bytes object; None, with `n` below 0, if it fails.
     * Not inlined: its buffer would be part of the frame of callers that park, and greenlet would copy it each time. */
    static __attribute__((noinline)) PyObject *weald_receive_small(int fd, Py_ssize_t size, int flags, ssize_t *n)
    {
        char buffer[WEALD_RECEIVE_ON_STACK];
        *n = recv(fd, buffer, (size_t)size, flags);
        if (*n < 0)
            Py_RETURN_NONE;
        return PyBytes_FromStringAndSize(buffer, *n < size ? *n : size);
    }
    """
    enum:
        RECEIVE_ON_STACK "WEALD_RECEIVE_ON_STACK"
    object receive_small "weald_receive_small"(int, Py_ssize_t, int, ssize_t *)
    void set_errno "weald_set_errno"(int)

cdef object type_of = _base_socket.type.__get__
cdef int SOCK_STREAM = int(_socket.SOCK_STREAM)
cdef enum:
    TYPE_MASK = 0xF  # a socket's type without flags such as SOCK_NONBLOCK: include/linux/net.h
cdef double HUNG_UP_PAUSE = 0.01  # seconds
cdef object CLOSED = object()  # the value with which waiters of a closed descriptor are woken


cdef bint c_hung_up(int fd) noexcept:
    """Whether no more data will come.

    If a datagram socket is shut down for reading, or a listener is shut down, the system reports it only to a call that
    blocks; poll(2) shows it.
    """
    cdef int events = events_now(fd, POLLRDHUP)
    return events > 0 and events & (POLLRDHUP | POLLHUP)


cdef bint end_of_stream(int fd) noexcept:
    """Whether the stream has ended behind the bytes that have arrived."""
    return events_now(fd, POLLRDHUP) != 0


cdef object system_error(int number):
    return OSError(number, os.strerror(number))


cdef object closed_error():
    return system_error(EBADF)


cdef object make_cut_short = None


def set_cut_short(make):
    """Make waits that end because their descriptor is closed raise `make()`, an OSError; None: OSError(EBADF)."""
    global make_cut_short
    make_cut_short = make


cdef class Listener:
    """Gets a descriptor's events without parking on it: select, or a watcher."""

    cdef int ready(self, int events) except -1:
        self.fired |= events & self.events
        if self.waiter is not None and self.fired:
            self.waiter.resume(None)
        return 0


cdef class FdEntry(Target):
    """A descriptor in one hub's loop: the native watch, and the greenlets and listeners that wait."""

    cdef int wanted(self) except -1:
        """The events that greenlets or listeners wait for."""
        cdef int events = self.wanted_by_listeners()
        if self.readers.head != NULL:
            events |= READ_EVENT
        if self.writers.head != NULL:
            events |= WRITE_EVENT
        return events

    cdef int wanted_by_listeners(self) except -1:
        cdef int events = 0
        cdef Listener listener
        if self.listeners:
            for listener in self.listeners:
                events |= listener.events
        return events

    cdef int ready(self, int events) except -1:
        cdef Listener listener
        cdef int spare
        cdef int unheard = events
        if events & READ_EVENT and self.readers.head != NULL:
            wake_all(&self.readers, None)
            unheard &= ~READ_EVENT
        if events & WRITE_EVENT and self.writers.head != NULL:
            wake_all(&self.writers, None)
        if self.listeners:
            # A copy, because a listener that is called may leave; a single one needs no copy.
            for listener in self.listeners if len(self.listeners) == 1 else list(self.listeners):
                if listener.events & events:
                    listener.ready(events)
                    unheard &= ~READ_EVENT
        if self.gone:
            return 0
        # libuv stops a watch when there is an error, which need not be the end: that of a connected UDP socket is not.
        if events & DISARMED_EVENT and self.listeners and fcntl(self.fd, F_GETFD) >= 0:
            self.arm(self.wanted_by_listeners())
        # Write interest is dropped after the wake-up; read interest only if no greenlet waited for the event.
        spare = self.watch.events & (WRITE_EVENT | (unheard & READ_EVENT))
        if spare:
            spare &= ~self.wanted()
            if spare:
                self.watch.update(self.watch.events & ~spare)
        return 0

    cdef int arm(self, int events) except -1:
        """Watch for `events` as well."""
        if self.watch is not None and self.watch.events & events != events:
            self.watch.update(self.watch.events | events)
        return 0

    cdef int wait(self, int events, double timeout) except -1:
        """Park until one of `events` occurs.  Returns 1, or 0 after a timeout.  OSError(EBADF) if closed meanwhile."""
        cdef Waiter waiter
        cdef WaitList *list
        cdef int woken = 1
        cdef unsigned long generation = self.hub.generation
        if self.gone:
            raise closed_error()
        if self.always:
            return 1
        waiter = self.hub.waiter()
        list = &self.readers if events == READ_EVENT else &self.writers
        self.arm(events)
        append(list, waiter)
        self.hub.refs += 1
        try:
            if timeout < 0.0:
                self.hub.park(waiter, self)  # `park_listed` without its detours
            else:
                woken = park_listed(list, waiter, self, timeout)
        finally:
            remove(list, waiter)
            if self.hub.generation == generation:
                self.hub.refs -= 1
        if waiter.value is CLOSED:
            raise closed_error() if make_cut_short is None else make_cut_short()
        return woken

    cdef int listen(self, Listener listener) except -1:
        """Report events to `listener` from now on."""
        if self.listeners is None:
            self.listeners = []
        self.listeners.append(listener)
        if listener.events:
            self.arm(listener.events)
        return 0

    cdef int unlisten(self, Listener listener) except -1:
        """Undo `listen`; the entry has one user less."""
        if self.listeners is not None and listener in self.listeners:
            self.listeners.remove(listener)
        return self.release()

    cdef int renew(self) except -1:
        """Register the descriptor again: other code may have closed it, so that the number is another file now."""
        cdef int events
        if self.watch is not None and self.watch.events:
            events = self.watch.events
            self.watch.update(0)
            self.watch.update(events)
        return 0

    cdef int release(self) except -1:
        """One user less; the last one takes the entry out of the loop."""
        self.users -= 1
        if self.users <= 0:
            self.discard()
        return 0

    cdef int discard(self) except -1:
        if self.gone:
            return 0
        self.gone = True
        if self.fd < len(self.hub.fds) and self.hub.fds[self.fd] is self:
            self.hub.fds[self.fd] = None
        self.leave()
        return 0

    cdef int leave(self) except -1:
        """Drop the watch.  It refers to this entry, and only the garbage collector would free that cycle."""
        watch, self.watch = self.watch, None
        if watch is not None:
            watch.close()
        return 0

    def close(self):
        """Wake all waiters with an error: the descriptor is about to be closed."""
        cdef Listener listener
        self.discard()
        wake_all(&self.readers, CLOSED)
        wake_all(&self.writers, CLOSED)
        for listener in self.listeners or ():
            listener.ready(listener.events)

    cdef int detach(self) except -1:
        """Wake readers and writers with an error, but not listeners: the socket has detached its descriptor."""
        wake_all(&self.readers, CLOSED)
        wake_all(&self.writers, CLOSED)
        return self.release()

    cdef int rouse(self) except -1:
        """Make readers and writers try again."""
        wake_all(&self.readers, None)
        wake_all(&self.writers, None)
        return 0

    cdef int change(self) except -1:
        """Wake readers and writers with an error: the number is another file now.  Listeners get that file's events."""
        cdef Listener listener
        wake_all(&self.readers, CLOSED)
        wake_all(&self.writers, CLOSED)
        try:
            self.watch = self.hub.backend.watch(self.fd, self)
            self.always = False
        except PermissionError:
            self.always = True
            for listener in self.listeners or ():
                listener.ready(listener.events)
            return 0
        return self.watch.update(self.wanted_by_listeners())

    cdef int end_from_elsewhere(self, bint closing) except -1:
        """`close` or `detach`, called in another thread.

        The number may be another file's before this thread's hub calls `end`.  So `entry_for` does that first.
        """
        if closing or self.ending < 0:
            self.ending = -1
        else:
            self.ending += 1
        self.hub.run_callback_threadsafe(self.end)
        return 0

    def end(self):
        """Do what other threads have wanted, unless it is done."""
        cdef int ending = 0 if self.gone else self.ending
        self.ending = 0
        if ending < 0:
            self.close()
        for _ in range(ending):
            self.detach()

    def rouse_later(self):
        """`rouse`, from another thread."""
        self.rouse()

    def reopen(self):
        """Watch the descriptor again: the loop has lost its own descriptors."""
        cdef int events
        if self.watch is not None:
            events = self.watch.events
            self.leave()
            self.watch = self.hub.backend.watch(self.fd, self)
            self.watch.update(events)

    def abandon(self):
        """In a fork's child: leave the loop without waking any greenlet."""
        self.gone = True
        self.leave()

    def __repr__(self):
        return f"descriptor {self.fd}"


cdef FdEntry entry_for(Hub hub, int fd):
    """The entry of `fd` in `hub`, made if there is none; the caller becomes one of its users."""
    cdef FdEntry entry
    if fd < 0:
        raise ValueError(f"a descriptor must be 0 or more, got {fd}")
    entry = hub.fds[fd] if fd < len(hub.fds) else None
    if entry is not None and entry.ending:
        entry.end()
        entry = hub.fds[fd]
    if entry is not None:
        entry.renew()
        entry.users += 1
        return entry
    entry = FdEntry.__new__(FdEntry)
    entry.hub = hub
    entry.fd = fd
    entry.users = 1
    try:
        entry.watch = hub.backend.watch(fd, entry)
    except PermissionError:
        if hub.backend.name == "virtual":
            raise
        entry.always = True  # epoll refuses files that are always ready
    # Not before it is known to be open: for a number such as 2**30 the list would take all memory.
    while len(hub.fds) <= fd:
        hub.fds.extend([None] * (fd + 1 - len(hub.fds)))
    hub.fds[fd] = entry
    return entry


cdef object receive_new(int fd, Py_ssize_t size, int flags, ssize_t *n):
    """recv(2) of up to `size` bytes into a new bytes object; None, with `n` below 0 and errno set, if it fails.

    With MSG_TRUNC the system may return the length of a datagram that is longer; then zeros replace the bytes cut off.
    """
    cdef int error
    if size <= RECEIVE_ON_STACK:
        made = receive_small(fd, size, flags, n)
        return made + bytes(n[0] - size) if n[0] > size else made
    made = PyBytes_FromStringAndSize(NULL, size)
    n[0] = c_recv(fd, PyBytes_AS_STRING(made), size, flags)
    if n[0] == size:
        return made
    if n[0] > size:
        return made + bytes(n[0] - size)
    if n[0] < 0:
        error = errno  # freeing may change it
        made = None
        set_errno(error)
        return None
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(made), n[0])


cdef PyObject **by_number = NULL  # the latest Descriptor of each number; borrowed, `__dealloc__` removes it
cdef int numbers = 0  # the length of `by_number`


cdef int enter(Descriptor descriptor) except -1:
    """Note `descriptor` as its number's."""
    global by_number, numbers
    cdef int fd = descriptor.number
    cdef int room
    cdef PyObject **longer
    if fd >= numbers:
        room = max(2 * numbers, fd + 1, 64)
        longer = <PyObject **>PyMem_Realloc(by_number, room * sizeof(PyObject *))
        if longer == NULL:
            raise MemoryError()
        memset(longer + numbers, 0, (room - numbers) * sizeof(PyObject *))
        by_number = longer
        numbers = room
    by_number[fd] = <PyObject *>descriptor
    return 0


cdef void leave_number(Descriptor descriptor) noexcept:
    cdef int fd = descriptor.number
    if 0 <= fd < numbers and by_number[fd] == <PyObject *>descriptor:
        by_number[fd] = NULL


cdef FdEntry lasting_entry(Hub hub, int fd, bint own):
    """As `entry_for`.  If the number has a Descriptor, the entry lasts as long as that: making one takes seven calls.

    `own` says that no other code closes the number, so that it need not be registered again.
    """
    cdef FdEntry entry
    if 0 <= fd < numbers and by_number[fd] != NULL:
        entry = (<Descriptor>by_number[fd]).find_entry()
        if own:
            entry.users += 1
            return entry
    return entry_for(hub, fd)


def waits_in_calls(int fd):
    """Whether calls on number `fd` wait for ever, because its Descriptor has no timeout.

    To the system such a socket is non-blocking.
    """
    return 0 <= fd < numbers and by_number[fd] != NULL and (<Descriptor>by_number[fd]).limit < 0.0


cdef PyTypeObject *slot_owner = NULL  # weald.socket.socket, whose slot `_descriptor` lies at `slot`
cdef Py_ssize_t slot = -1


cdef Descriptor descriptor_of(object sock):
    """`sock._descriptor`, read from its slot: looking it up in the bases would be a tenth of a small recv."""
    global slot_owner, slot
    cdef PyObject *found
    if slot_owner != NULL and PyObject_TypeCheck(sock, slot_owner):
        found = (<PyObject **>(<char *><PyObject *>sock + slot))[0]
        if found != NULL:
            return <Descriptor>found
    descriptor = <Descriptor?>sock._descriptor
    if slot_owner == NULL:
        member = getattr(type(sock), "_descriptor", None)
        slot = slot_offset(member)
        if slot >= 0:
            owner = member.__objclass__
            Py_INCREF(owner)
            slot_owner = <PyTypeObject *>owner
    return descriptor


cdef class Descriptor:
    """Descriptor(fd, timeout=None): a file descriptor that greenlets of any thread may wait for.

    It never closes the number itself.  `timeout` is how long a socket's calls wait (seconds; None: for ever, 0.0:
    never).  ValueError if `fd` or `timeout` is negative.

    `receive_limit` and `send_limit` are the socket's options SO_RCVTIMEO and SO_SNDTIMEO (seconds; 0.0: none).  They
    end a wait that has no timeout, with OSError(EAGAIN).
    """

    def __cinit__(self):
        self.number = -1
        self.kind = UNKNOWN
        self.limit = -1.0
        self.ref = True

    def __init__(self, int fd, timeout=None):
        if fd < 0:
            raise ValueError(f"a descriptor must be 0 or more, got {fd}")
        self.number = fd
        self.timeout = timeout
        enter(self)

    def __dealloc__(self):
        # A socket that is freed closes its number without calling `close` first.
        cdef FdEntry entry = self.entry
        leave_number(self)
        if entry is not None and not entry.gone and entry.hub.thread_ident == PyThread_get_thread_ident():
            entry.release()

    @property
    def fd(self):
        """The number, or -1 after `close`."""
        return self.number

    @property
    def timeout(self):
        """Seconds that a socket's calls wait at most; None: for ever, 0.0: never.  ValueError for negative ones."""
        return None if self.limit < 0.0 else self.limit

    @timeout.setter
    def timeout(self, value):
        cdef double limit
        if value is None:
            self.limit = -1.0
            return
        limit = value
        if limit < 0.0:
            raise ValueError("Timeout value out of range")
        self.limit = limit

    cdef FdEntry find_entry(self):
        cdef Hub hub = current_hub()
        cdef FdEntry entry = self.entry
        if entry is not None and entry.hub is hub and not entry.gone:
            return entry
        if self.number < 0:
            raise closed_error()
        if entry is None or entry.gone:
            self.entry = entry_for(hub, self.number)
            return self.entry
        for entry in self.others or ():
            if entry.hub is hub and not entry.gone:
                return entry
        entry = entry_for(hub, self.number)
        if self.others is None:
            self.others = []
        self.others.append(entry)
        return entry

    cdef int wait(self, int events, double timeout) except -1:
        cdef FdEntry entry
        cdef bint limited = False
        if self.number < 0:
            raise closed_error()
        entry = self.find_entry()
        if timeout < 0.0:
            timeout = self.receive_limit if events & READ_EVENT else self.send_limit
            limited = timeout > 0.0
            if not limited:
                timeout = -1.0
        if not (entry.wait(events, timeout) if self.ref else self.wait_unnoticed(entry, events, timeout)):
            if limited:  # the system's error in that case: socket(7)
                raise system_error(EAGAIN)
            raise TimeoutError("timed out")
        if self.number < 0:  # closed by a greenlet that ran before this one: the number may be another file's by now
            raise closed_error()
        return 0

    cdef int wait_unnoticed(self, FdEntry entry, int events, double timeout) except -1:
        """Wait without `ref`."""
        cdef unsigned long generation = entry.hub.generation
        entry.hub.refs -= 1
        try:
            return entry.wait(events, timeout)
        finally:
            if entry.hub.generation == generation:
                entry.hub.refs += 1

    def wait_read(self, timeout=None):
        """Park until it is readable.  TimeoutError after `timeout` seconds, OSError(EBADF) if it is closed."""
        self.wait(READ_EVENT, seconds(timeout))

    def wait_write(self, timeout=None):
        """Park until it is writable.  TimeoutError after `timeout` seconds, OSError(EBADF) if it is closed."""
        self.wait(WRITE_EVENT, seconds(timeout))

    def close(self):
        """Make every wait raise OSError(EBADF), and leave the loops.  Call it before close(2).  Idempotent."""
        cdef FdEntry entry
        cdef Hub hub
        cdef int number = self.number
        if number < 0:
            return
        leave_number(self)
        self.number = -1
        entries, self.others = [self.entry, *(self.others or ())], None
        self.entry = None
        if has_hub():
            hub = current_hub()
            if number < len(hub.fds):
                entries.append(hub.fds[number])  # `select` may wait for the number without this Descriptor
        for entry in entries:
            if entry is None or entry.gone:
                continue
            if entry.hub.thread_ident == PyThread_get_thread_ident():
                entry.close()
            else:
                # Another thread's loop, which only that thread may use.
                entry.end_from_elsewhere(True)

    def detach(self):
        """As `close`, for a number that stays open: `select` calls and watchers of it go on."""
        cdef FdEntry entry
        if self.number < 0:
            return
        leave_number(self)
        self.number = -1
        entries, self.others = [self.entry, *(self.others or ())], None
        self.entry = None
        for entry in entries:
            if entry is None or entry.gone:
                continue
            if entry.hub.thread_ident == PyThread_get_thread_ident():
                entry.detach()
            else:
                entry.end_from_elsewhere(False)

    def rouse(self):
        """Make all readers and writers try again: the socket was shut down, which the system does not always report."""
        cdef FdEntry entry
        self.drained = False
        for entry in [self.entry, *(self.others or ())]:
            if entry is None or entry.gone:
                continue
            if entry.hub.thread_ident == PyThread_get_thread_ident():
                entry.rouse()
            else:
                entry.hub.run_callback_threadsafe(entry.rouse_later)

    cdef bint is_stream(self, object sock) except -1:
        if self.kind == UNKNOWN:
            self.kind = STREAM if type_of(sock) & TYPE_MASK == SOCK_STREAM else NO_STREAM
        return self.kind == STREAM

    cdef object receive(self, object sock, char *buffer, Py_ssize_t size, int flags):
        """recv(2), parking up to the timeout.  Returns the number of bytes received; without a `buffer`, the bytes."""
        cdef ssize_t n
        cdef int error
        cdef bint waited = False
        cdef double end = -1.0
        if size == 0:  # as in the standard library, without a system call
            return b"" if buffer == NULL else 0
        if self.number < 0:
            raise closed_error()
        if self.drained and self.limit != 0.0 and not flags:
            self.drained = False
            self.wait(READ_EVENT, self.limit)
        else:
            give_way(True)  # with a peer that sends faster than this reads, no call ever parks
        while True:
            if buffer == NULL:
                data = receive_new(self.number, size, flags | MSG_DONTWAIT, &n)
            else:
                n = c_recv(self.number, buffer, size, flags | MSG_DONTWAIT)
            if n >= 0:
                self.drained = 0 < n < size and not flags and self.is_stream(sock)
                if flags & MSG_WAITALL and 0 < n < size and self.limit < 0.0 and self.is_stream(sock):
                    return self.receive_rest(data if buffer == NULL else None, buffer, n, size, flags)
                return data if buffer == NULL else n
            error = errno
            if error == EINTR:
                continue
            if error != EAGAIN or self.limit == 0.0 or flags & MSG_DONTWAIT:
                give_way(error == EAGAIN)
                raise system_error(error)
            if waited and c_hung_up(self.number):
                if self.limit < 0.0:
                    return b"" if buffer == NULL else 0
                # Always ready, with nothing to read.  A blocking call would wait for its timeout, so this does.
                if current_hub().backend.time() >= end:
                    raise TimeoutError("timed out")
                sleep(HUNG_UP_PAUSE)
            waited = True
            if self.limit > 0.0:
                # Only after a spurious wake-up does this run twice.
                if end < 0.0:
                    end = current_hub().backend.time() + self.limit
                self.wait(READ_EVENT, max(end - current_hub().backend.time(), 0.0))
            else:
                self.wait(READ_EVENT, -1.0)

    cdef object receive_rest(self, bytes begin, char *buffer, Py_ssize_t got, Py_ssize_t size, int flags):
        """Receive the rest of `size` bytes, of which `got` are there, as a blocking stream does with MSG_WAITALL.

        Fewer at the stream's end, or after an error, which the next call raises (recv(2)).  Returns as `receive`.
        """
        cdef ssize_t n
        cdef double pause = 0.001
        if begin is not None:
            whole = PyBytes_FromStringAndSize(NULL, size)
            buffer = PyBytes_AS_STRING(whole)
            memcpy(buffer, PyBytes_AS_STRING(begin), got)
        else:
            whole = None
        while got < size:
            if flags & MSG_PEEK:  # the data stays in the socket, which the loop would report as ready at once
                if end_of_stream(self.number):
                    break
                sleep(pause)
                pause = min(2 * pause, 0.05)
                n = c_recv(self.number, buffer, size, flags | MSG_DONTWAIT)
                if n <= 0:
                    break
                got = n
                continue
            n = c_recv(self.number, buffer + got, size - got, flags | MSG_DONTWAIT)
            if n > 0:
                got += n
            elif n < 0 and errno == EAGAIN:
                try:
                    self.wait(READ_EVENT, -1.0)
                except BlockingIOError:  # SO_RCVTIMEO has passed
                    break
            elif n == 0 or errno != EINTR:
                break
        return got if whole is None else whole if got == size else whole[:got]

    cdef Py_ssize_t transmit(self, const char *data, Py_ssize_t size, int flags, double *end) except -1:
        """Park until there is room, then send(2) once.  `end` is the deadline; below 0, the first wait sets it."""
        cdef ssize_t n
        cdef int error
        while True:
            if self.number < 0:
                raise closed_error()
            n = c_send(self.number, data, size, flags | MSG_DONTWAIT | MSG_NOSIGNAL)
            if n >= 0:
                return n
            error = errno
            if error == EINTR:
                continue
            if error != EAGAIN or self.limit == 0.0 or flags & MSG_DONTWAIT:
                give_way(error == EAGAIN)
                raise system_error(error)
            if end[0] < 0.0:
                end[0] = self.deadline()
            self.wait(WRITE_EVENT, -1.0 if end[0] < 0.0 else max(end[0] - current_hub().backend.time(), 0.0))

    cdef Py_ssize_t transmit_rest(self, const char *data, Py_ssize_t size, Py_ssize_t sent, int flags) except -1:
        """send(2) until all is sent, as on a blocking stream.  Returns the number of bytes; fewer after an error."""
        cdef double end = -1.0
        while sent < size:
            try:
                sent += self.transmit(data + sent, size - sent, flags, &end)
            except OSError:
                if self.number < 0:
                    raise  # closed meanwhile
                break  # as the system does: the next call raises the error
        return sent

    cdef int transmit_all(self, const char *data, Py_ssize_t size, int flags) except -1:
        """send(2) until all is sent; the timeout is for the whole call."""
        cdef double end = -1.0
        cdef Py_ssize_t sent
        give_way(True)
        sent = self.transmit(data, size, flags, &end)
        while sent < size:
            sent += self.transmit(data + sent, size - sent, flags, &end)
        return 0

    cdef double deadline(self) except? -2.0:
        return current_hub().backend.time() + self.limit if self.limit > 0.0 else -1.0

    def __repr__(self):
        return f"<Descriptor {self.number}>"


# ------------------------------------------------------------------ methods of weald.socket.socket

def recv(self, Py_ssize_t bufsize, int flags=0, /):
    """Receive up to `bufsize` bytes, as socket.recv does; b"" at the end of the stream.

    Parks until there are some.  TimeoutError after the socket's timeout.
    """
    if bufsize < 0:
        raise ValueError("negative buffersize in recv")
    return descriptor_of(self).receive(self, NULL, bufsize, flags)


def recv_into(self, buffer, Py_ssize_t nbytes=0, int flags=0):
    """Receive up to `nbytes` bytes (0: as many as fit) into `buffer`, as `recv`; returns how many."""
    cdef Descriptor d = descriptor_of(self)
    cdef Py_buffer view
    if nbytes < 0:
        raise ValueError("negative buffersize in recv_into")
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
    except BufferError:
        raise TypeError(
            f"recv_into() argument 1 must be read-write bytes-like object, not {type(buffer).__name__}") from None
    try:
        if nbytes == 0:
            nbytes = view.len
        elif view.len < nbytes:
            raise ValueError("buffer too small for requested bytes")
        return d.receive(self, <char *>view.buf, nbytes, flags)
    finally:
        PyBuffer_Release(&view)


cdef object OWN = object()  # stands for the socket's own timeout


def send(self, data, int flags=0, /, timeout=OWN):
    """Send some of `data`, as socket.send does; without a timeout all of it.  Returns how many bytes.

    Parks while there is no room, up to `timeout` seconds (None: for ever; by default the socket's timeout): then
    TimeoutError.
    """
    cdef Descriptor d = descriptor_of(self)
    cdef Py_buffer view
    cdef Py_ssize_t sent
    cdef double end = -1.0
    if timeout is not OWN:
        if d.number < 0:
            raise closed_error()
        d = Descriptor(d.number, timeout)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        give_way(True)
        sent = d.transmit(<char *>view.buf, view.len, flags, &end)
        if sent < view.len and d.limit < 0.0 and not flags & MSG_DONTWAIT:
            return d.transmit_rest(<char *>view.buf, view.len, sent, flags)
        return sent
    finally:
        PyBuffer_Release(&view)


def sendall(self, data, int flags=0, /):
    """Send all of `data`, as socket.sendall does.  TimeoutError if that takes longer than the socket's timeout."""
    cdef Descriptor d = descriptor_of(self)
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        d.transmit_all(<char *>view.buf, view.len, flags)
    finally:
        PyBuffer_Release(&view)


# ------------------------------------------------------------------ raw descriptors

def number_ends(int fd):
    """Call this before descriptor `fd` is closed or becomes another file: its waiters get OSError(EBADF).

    For numbers that no Descriptor closes.  To `poll_fds` the number becomes ready.
    """
    cdef Hub hub
    cdef FdEntry entry
    for hub in living_hubs():
        entry = hub.fds[fd] if 0 <= fd < len(hub.fds) else None
        if entry is None or entry.gone:
            continue
        if hub.thread_ident == PyThread_get_thread_ident():
            entry.close()
        else:
            entry.end_from_elsewhere(True)


def number_changes(int fd, change):
    """Return `change()`, which makes descriptor `fd` another file.  Its readers and writers get OSError(EBADF).

    `poll_fds` and watchers of the number look at the new file from then on.
    """
    cdef Hub hub
    cdef FdEntry entry, own = None
    for hub in living_hubs():
        entry = hub.fds[fd] if 0 <= fd < len(hub.fds) else None
        if entry is None or entry.gone:
            continue
        if hub.thread_ident == PyThread_get_thread_ident():
            own = entry
        else:
            entry.end_from_elsewhere(True)
    if own is None:
        return change()
    own.leave()
    try:
        return change()
    finally:
        own.change()


def hung_up(int fd):
    """Whether no more data will come from socket `fd`: the peer has ended, or the socket was shut down for reading."""
    return c_hung_up(fd)


cdef int check_fd(int fd) except -1:
    if fd < 0:
        raise ValueError(f"a descriptor must be 0 or more, got {fd}")
    if fcntl(fd, F_GETFD) < 0:
        raise closed_error()
    return 0


cdef int wait_fd(int fd, int events, object timeout, object timeout_exc) except -1:
    cdef FdEntry entry
    check_fd(fd)
    entry = entry_for(current_hub(), fd)
    try:
        if not entry.wait(events, seconds(timeout)):
            raise timeout_exc if timeout_exc is not None else TimeoutError("timed out")
    finally:
        entry.release()
    return 0


def wait_read(int fileno, timeout=None, timeout_exc=None):
    """Park until descriptor `fileno` is readable, up to `timeout` seconds (None: for ever).

    Then raises `timeout_exc` (None: TimeoutError); OSError(EBADF) if it is closed, ValueError if it is negative.
    """
    wait_fd(fileno, READ_EVENT, timeout, timeout_exc)


def wait_write(int fileno, timeout=None, timeout_exc=None):
    """Park until descriptor `fileno` is writable; timeouts and errors as with `wait_read`."""
    wait_fd(fileno, WRITE_EVENT, timeout, timeout_exc)
