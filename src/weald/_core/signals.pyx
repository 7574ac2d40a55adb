"""Signals end the main hub's wait, and their Python handlers run in a greenlet.

A signal must end the main hub's blocking poll.  For that CPython has one descriptor per process, to which it writes
(`signal.set_wakeup_fd`).  weald sets its own as long as no other code sets one.  Setting it costs two system calls, too
much for each poll, so `signal.set_wakeup_fd` is replaced by a function that records other descriptors.  If there is one
(asyncio's, say), weald's is set only while the hub blocks, and the bytes are passed on.

Called by: the hub, through an interface (`SignalWatch`); weald.signal (`run_in_midst`, `raise_in_handler`).
Invariants: main thread only.  Handlers may block, so they run in a greenlet, which runs before everything else.
"""

from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from posix.signal cimport sigaddset, sigemptyset, sigset_t
from posix.unistd cimport close as close_fd, read, write

from weald._core cimport running_loop
from weald._core.c_greenlet cimport greenlet
from weald._core.hooks cimport SignalWatch
from weald._core.hub cimport Callback, Hub, Waiter, current_greenlet
from weald._core.loops.contract cimport READ_EVENT, FdWatch, Target
from weald._core.raw cimport new_raw
from weald._core.threads cimport current_hub, has_hub, in_main_thread

import os
import signal

from weald._core.hub import set_signal_watch

cdef extern from "<sys/signalfd.h>" nogil:
    int signalfd(int, const sigset_t *, int)
    enum:
        SFD_CLOEXEC
        SFD_NONBLOCK

# Called in a greenlet with the number of each signal that is announced on weald's own descriptor.  No signal is
# announced there while another descriptor is set, except while the hub waits.
cdef list listeners = []
cdef list pausing = []  # waiters of greenlets that wait for any signal's handler
cdef object original_set_wakeup_fd = signal.set_wakeup_fd
cdef int foreign_wakeup_fd = -1
cdef bint foreign_warns = True  # whether CPython warns when that descriptor's buffer is full
cdef Signals of_main = None  # the main hub's


cdef class Announcements(Target):
    """Reads the bytes that CPython's C handler writes, passes them on, and makes the Python handlers run."""

    cdef Hub hub
    cdef int fd

    cdef int ready(self, int events) except -1:
        self.take()
        return 0

    cdef bint take(self) except -1:
        cdef unsigned char[64] buffer
        cdef ssize_t n = read(self.fd, buffer, sizeof(buffer))
        if n <= 0:
            return 0
        if foreign_wakeup_fd >= 0:
            write(foreign_wakeup_fd, buffer, n)
        # Who begins to wait for a handler from now on does not wait for these signals'.
        self.hub.push_first(new_raw(self.hub, take_signals, (buffer[:n], tuple(pausing))))
        return n == sizeof(buffer)  # there may be more


cdef class Signals(SignalWatch):
    """Ends the main hub's wait: a pipe on which signals are announced, watched by the hub's loop."""

    cdef int read_fd
    cdef int write_fd
    cdef FdWatch watch
    cdef Announcements announcements

    def __cinit__(self, Hub hub):
        global foreign_wakeup_fd, of_main
        cdef Announcements target = Announcements.__new__(Announcements)
        self.read_fd, self.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        target.hub = hub
        target.fd = self.read_fd
        self.announcements = target
        self.watch = hub.backend.watch(self.read_fd, target)
        self.watch.update(READ_EVENT)
        previous = original_set_wakeup_fd(self.write_fd, warn_on_full_buffer=False)
        if previous >= 0:
            foreign_wakeup_fd = previous  # set before weald was imported
            original_set_wakeup_fd(previous)
        of_main = self
        # A signal that came just before was not announced: its handler would run only after the hub's first wait.
        hub.push_first(new_raw(hub, take_signals, (b"", ())))

    cdef int before_wait(self) except -1:
        if foreign_wakeup_fd >= 0:
            original_set_wakeup_fd(self.write_fd, warn_on_full_buffer=False)
        return 0

    cdef int after_wait(self) except -1:
        if foreign_wakeup_fd >= 0:
            original_set_wakeup_fd(foreign_wakeup_fd, warn_on_full_buffer=foreign_warns)
        return 0

    cdef bint owns(self, int fd) noexcept:
        return fd == self.read_fd or fd == self.write_fd

    cdef int close(self) except -1:
        global of_main
        if of_main is self:
            of_main = None
        self.watch.close()
        if foreign_wakeup_fd < 0 and in_main_thread():
            original_set_wakeup_fd(-1)
        # Not by os.close, which programs replace, as weald does.
        close_fd(self.read_fd)
        close_fd(self.write_fd)
        return 0


def set_wakeup_fd(fd, *, warn_on_full_buffer=True):
    """signal.set_wakeup_fd(): set the descriptor on which signals are announced, return the one before."""
    global foreign_wakeup_fd, foreign_warns
    original_set_wakeup_fd(fd, warn_on_full_buffer=warn_on_full_buffer)
    if has_hub() and current_hub().signals is not None:
        # Signals that were announced before are not for the new descriptor.
        while (<Signals>current_hub().signals).announcements.take():
            pass
    previous, foreign_wakeup_fd, foreign_warns = foreign_wakeup_fd, fd, warn_on_full_buffer
    if fd < 0 and has_hub() and current_hub().signals is not None:
        original_set_wakeup_fd((<Signals>current_hub().signals).write_fd, warn_on_full_buffer=False)
    return previous


def take_signals(bytes announced, tuple paused):
    """Run the handlers of signals that have arrived, wake the waiters `paused`, then call the listeners."""
    cdef Waiter waiter
    check_signals()
    for waiter in paused:
        waiter.resume(None)
    for number in announced if listeners else b"":
        for listener in list(listeners):
            listener(number)


def listen_to_signals(listener):
    """Have `listener(number)` called in a greenlet for each signal that is announced to the main thread's hub.

    It must neither wait nor raise.  It is called for every signal that has a Python handler, whichever that is.
    """
    listeners.append(listener)


def unlisten_to_signals(listener):
    """Undo `listen_to_signals`."""
    listeners.remove(listener)


def announced_signals():
    """Take and return the numbers of the signals that are announced and not yet handled.

    Their Python handlers may not run after that: for a process that ends or is replaced while its main thread is stuck.
    May be called in any thread.  Signals that came while another descriptor was set are missing.
    """
    cdef unsigned char[64] buffer
    cdef ssize_t n = read(of_main.read_fd, buffer, sizeof(buffer)) if of_main is not None else 0
    return set(buffer[:n]) if n > 0 else set()


def check_signals():
    """Run the Python handlers of signals that have arrived.  Their exceptions are raised in the main greenlet."""
    try:
        PyErr_CheckSignals()
    except BaseException as error:
        current_hub().handle_system_error(type(error), error, error.__traceback__)


def wait_for_handler():
    """Park until a Python signal handler has been called; return True.

    False at once in the hub itself, and in all threads but the main one, which alone runs handlers.
    """
    cdef Hub hub
    cdef Waiter waiter
    if not has_hub() or not in_main_thread() or current_greenlet() is current_hub():
        return False
    hub = current_hub()
    if hub.signals is None:
        return False  # a loop with a virtual clock, which does not wait for signals
    # Signals that have been announced already do not count.
    while (<Signals>hub.signals).announcements.take():
        pass
    check_signals()
    waiter = hub.waiter()
    pausing.append(waiter)
    hub.refs += 1
    try:
        hub.park(waiter, "a signal")
    finally:
        hub.refs -= 1
        pausing.remove(waiter)
    return True


def open_signalfd(signals):
    """Return a new descriptor that is readable while one of `signals` is pending: signalfd(2).  OSError if it fails."""
    cdef sigset_t wanted
    cdef int fd
    sigemptyset(&wanted)
    for number in signals:
        if sigaddset(&wanted, number) != 0:
            PyErr_SetFromErrno(OSError)
    fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK)
    if fd < 0:
        PyErr_SetFromErrno(OSError)
    return fd


def run_in_midst(Hub hub not None, greenlet interrupted not None, greenlet runner not None, *args):
    """Run `runner(*args)`, a signal handler's greenlet, while `interrupted`, the current one, stands still.

    If the handler parks, `interrupted` goes on.  In C, so that no other signal's handler runs in between.  If one did
    and raised, the callback that switches to `interrupted` would stay in the ring, and run during a later wait.
    """
    cdef Callback resume = None
    loop = running_loop.put_aside(None) if running_loop.loops > 0 else None
    if interrupted is not hub:  # the hub need not be woken: a greenlet that parks switches to it
        resume = hub.run_callback(interrupted.switch)
    try:
        runner.switch(*args)
    finally:
        if loop is not None:
            running_loop.take_back(loop)
        if resume is not None:
            resume.stop()
        if not runner.dead:
            runner.parent = hub


def raise_in_handler(Hub hub not None, greenlet handler not None, exception):
    """Have `exception` raised in `handler`, a signal handler's greenlet that is parked, before all that is ready."""
    hub.throw_first(handler, exception, exception.__traceback__)


set_wakeup_fd.__module__ = "signal"
signal.set_wakeup_fd = set_wakeup_fd
set_signal_watch(Signals)
