"""The compiled part of `weald.aio.EventLoop`: its queue, the greenlet that empties it, timers, watched descriptors.

Called by: loop.py, whose `EventLoop` derives from `Core`; stream.pyx; transport.pyx; bridge.pyx (`Waker`, tasks);
weald.http.asgi; by the hub, for which it is a `Driven`.
Invariants:
- `ready` is the queue of jobs, first in, first out.  One greenlet, the driver, empties it: at first the one in
  `run_forever`, called the root.  When the queue is empty the driver parks in the hub, so greenlets and coroutines
  share one poll.
- A callback may park.  Then the loop has no driver, and as soon as a job is queued, a spare greenlet takes over
  (`parking`, `wake`).  When the root's callback has returned, the root drives again, so that `run_forever` returns
  when the loop is stopped.  A spare ends when it is no longer the driver.
- `Hub.driving` is the loop whose callback is running and has not parked.
- Two callbacks of a connection are never under way at the same time, nor are two in the same contextvars.Context.
  One that is due while the other is parked is held until that has returned.
- `parking`, `Listener.ready` and timers' `expire` run no Python code.
- Any thread that holds the GIL may call `enqueue`.

Long because a loop, its handles and its watchers call each other: in files of their own they would import each other.
"""

from cpython.exc cimport PyErr_Clear, PyErr_ExceptionMatches
from cpython.method cimport PyMethod_Check
from cpython.object cimport PyObject, PyTypeObject, Py_TYPE
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF
from libc.math cimport isnan

cimport cython

from weald._core.c_greenlet cimport greenlet
from weald._core.descriptor cimport FdEntry, Listener, entry_for
from weald._core.hooks cimport Driven
from weald._core.hub cimport READY, Hub, Runnable, Waiter, current_greenlet
from weald._core.lock cimport Step, new_step
from weald._core.loops.contract cimport READ_EVENT, WRITE_EVENT, monotonic
from weald._core.ring cimport ring_append, ring_free, ring_init, ring_pop
from weald._core.threads cimport current_hub, has_hub
from weald._core.timers cimport PENDING, BaseTimer, Timers

import asyncio
import errno
import os
import stat
import sys
from asyncio import base_events, base_subprocess, format_helpers, sslproto, unix_events
from asyncio.log import logger
from types import FunctionType

from weald._core.reports import lines_of_task
from weald.asyncio import _set_running_loop
from weald.thread import set_stand_in

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object) noexcept  # -1 with an exception set: RuntimeError if it is entered already
    int PyContext_Exit(object) except -1
    object PyContext_Copy(object)
    PyObject *PyObject_Call(object, object, PyObject *)
    PyObject *PyMethod_GET_SELF(object)
    PyObject *PyMethod_GET_FUNCTION(object)
    bint PyType_IsSubtype(PyTypeObject *, PyTypeObject *)

cdef object Transport = asyncio.BaseTransport
cdef object SubprocessTransport = asyncio.SubprocessTransport
cdef object ReadPipe = unix_events._UnixReadPipeTransport
cdef object ChildReader = base_subprocess.ReadSubprocessPipeProto
cdef object TLSProtocol = sslproto.SSLProtocol
cdef object TLSTransport = sslproto._SSLProtocolTransport
cdef dict OF_TLS = vars(sslproto)
# What asyncio queues for a connection.  Not what writes: a protocol that blocks may be waiting for that.
cdef frozenset CALLBACKS_OF_TRANSPORTS = frozenset({"_connected", "_read_ready", "_call_connection_lost"})
cdef frozenset CALLBACKS_THAT_WRITE = frozenset({"_write_ready", "_write_send", "_write_sendmsg", "_sendto_ready"})
cdef frozenset CALLBACKS_OF_TLS = frozenset({"_do_read", "_do_flush"})
cdef frozenset CALLBACKS_OF_SUBPROCESSES = frozenset({"pipe_data_received", "pipe_connection_lost", "process_exited"})
cdef object TaskClass = asyncio.Task
cdef object FutureClass = asyncio.Future
cdef bint EAGER = sys.version_info >= (3, 12)  # whether tasks can begin at once


# ------------------------------------------------------------------ what the queue holds

cdef class Job:
    """Something to run."""

    cdef int run(self, Core loop) except -1:
        return 0

    cdef PyObject *connection(self) noexcept:
        """The transport or protocol of which this is a callback; NULL for any other job.  No Python code here."""
        return NULL


cdef int raise_set() except -1:
    """Raise the exception that a C call left set."""
    return -1


cdef int call_in_context(object handle, object callback, tuple args, object context, Core loop) except -1:
    """Call `callback`.  Exceptions go to the loop's handler, except SystemExit and KeyboardInterrupt.

    Returns 1 if a greenlet that is parked has entered the context: `handle` is held until it has left.  What writes is
    called in a copy of the context instead, for that greenlet may be waiting for it.
    """
    cdef PyObject *result = NULL
    if PyContext_Enter(context) == 0:
        result = PyObject_Call(callback, args, NULL)
        PyContext_Exit(context)
    elif PyErr_ExceptionMatches(RuntimeError):
        PyErr_Clear()
        if is_writing(callback):
            return call_in_context(handle, callback, args, PyContext_Copy(context), loop)
        loop.wait_for_context(handle)
        return 1
    if result != NULL:
        Py_DECREF(<object>result)
        return 0
    try:
        raise_set()
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        report(handle, callback, args, loop, error)
    return 0


def report(handle, callback, args, loop, error):
    """Tell the loop's exception handler that a callback has raised `error`."""
    text = format_helpers._format_callback_source(callback, args)
    context = {"message": f"Exception in callback {text}", "exception": error, "handle": handle}
    if handle._source_traceback:
        context["source_traceback"] = handle._source_traceback
    loop.call_exception_handler(context)


cdef PyObject *connection_of(object callback, tuple args) noexcept:
    """The connection that `callback` belongs to: its transport, or the protocol of a subprocess.  NULL: none."""
    cdef PyObject *me
    if not PyMethod_Check(callback):
        return of_closure(callback) if type(callback) is FunctionType else NULL
    me = PyMethod_GET_SELF(callback)
    function = <object>PyMethod_GET_FUNCTION(callback)
    if type(function) is not FunctionType:
        return NULL
    name = function.__name__
    if name in CALLBACKS_OF_TRANSPORTS:
        if PyType_IsSubtype(Py_TYPE(<object>me), <PyTypeObject *>SubprocessTransport):
            return <PyObject *>(<object>me)._protocol
        if PyType_IsSubtype(Py_TYPE(<object>me), <PyTypeObject *>ReadPipe) and name == "_read_ready":
            reader = (<object>me)._protocol
            if type(reader) is ChildReader and reader.proc is not None:
                # A child's output is not read while its protocol cannot take it: it would pile up in the queue.
                return <PyObject *>reader.proc._protocol
        return me if PyType_IsSubtype(Py_TYPE(<object>me), <PyTypeObject *>Transport) else NULL
    if name == "connection_made":
        if len(args) != 1 or not PyType_IsSubtype(Py_TYPE(args[0]), <PyTypeObject *>Transport):
            return NULL
        if PyType_IsSubtype(Py_TYPE(args[0]), <PyTypeObject *>SubprocessTransport):
            return me
        return below_tls(args[0])
    if name in CALLBACKS_OF_TLS:
        if not PyType_IsSubtype(Py_TYPE(<object>me), <PyTypeObject *>TLSProtocol):
            return NULL
        return below_tls((<object>me)._transport)
    return me if name in CALLBACKS_OF_SUBPROCESSES else NULL


cdef PyObject *of_closure(object function) noexcept:
    """The same for a function without `self`, which asyncio's TLS queues, too."""
    if function.__globals__ is OF_TLS and function.__closure__ is not None:
        for cell in function.__closure__:
            protocol = cell.cell_contents
            if PyType_IsSubtype(Py_TYPE(protocol), <PyTypeObject *>TLSProtocol):
                return below_tls(protocol._transport)
    return NULL


cdef PyObject *below_tls(object transport) noexcept:
    """The transport that a TLS transport uses, or that the one uses which it uses."""
    while PyType_IsSubtype(Py_TYPE(transport), <PyTypeObject *>TLSTransport):
        protocol = transport._ssl_protocol
        transport = None if protocol is None else protocol._transport
    return NULL if transport is None else <PyObject *>transport


cdef bint is_writing(object callback) except -1:
    """Whether `callback` is what a transport of asyncio's has called when more can be written."""
    return isinstance(getattr(callback, "__self__", None), Transport) and callback.__name__ in CALLBACKS_THAT_WRITE


cdef list described(object handle, str name):
    """A handle's repr, in parts."""
    parts = [name]
    if handle._cancelled:
        parts.append("cancelled")
    if handle._callback is not None:
        parts.append(format_helpers._format_callback_source(handle._callback, handle._args))
    if handle._source_traceback:
        frame = handle._source_traceback[-1]
        parts.append(f"created at {frame[0]}:{frame[1]}")
    return parts


cdef object caller_stack():
    """The stack of the Python code that has called the loop; None if there is no Python code, as in the hub."""
    try:
        frame = sys._getframe()
    except ValueError:
        return None
    if frame.f_code is None:  # as on Python 3.15 in a thread that begins in C
        return None
    return format_helpers.extract_stack(frame)


cdef class Handle(Job):
    """A call that the loop is going to make, as asyncio.Handle."""

    cdef int run(self, Core loop) except -1:
        if self._cancelled:
            return 0
        return call_in_context(self, self._callback, self._args, self._context, loop)

    cdef PyObject *connection(self) noexcept:
        return connection_of(self._callback, self._args)

    def cancel(self):
        """Do not make the call.  Idempotent."""
        if self._cancelled:
            return
        self._cancelled = True
        if (<Core>self._loop)._debug:
            self.text = repr(self)  # names the callback, which is dropped below
        self._callback = None
        self._args = None

    def cancelled(self):
        """Whether `cancel` was called."""
        return self._cancelled

    def get_context(self):
        """The contextvars.Context that the call is made in."""
        return self._context

    def _run(self):
        self.run(self._loop)

    def _repr_info(self):
        return described(self, "Handle")

    def __repr__(self):
        return self.text if self.text is not None else f"<{' '.join(self._repr_info())}>"


cdef Handle new_handle(Core loop, object callback, tuple args, object context):
    cdef Handle handle = Handle.__new__(Handle)
    handle._loop = loop
    handle._callback = callback
    handle._args = args
    handle._context = PyContext_CopyCurrent() if context is None else context
    return handle


cdef class TimerHandle(BaseTimer):
    """A call that the loop is going to make at a given time, as asyncio.TimerHandle."""

    cdef int expire(self) except -1:
        cdef Core loop = self._loop
        loop.polled += 1
        return loop.enqueue(self)

    cdef int abandon(self) except -1:
        self.timers = None
        (<Core>self._loop).unbound.append(self)  # the loop may run again, in another thread
        return 0

    cdef int forked(self) except -1:
        return self.abandon()  # in the child, too, the loop may run again

    cdef int run(self, Core loop) except -1:
        if self._cancelled:
            return 0
        return call_in_context(self, self._callback, self._args, self._context, self._loop)

    def cancel(self):
        """Do not make the call.  Idempotent."""
        if self._cancelled:
            return
        self._cancelled = True
        if self.timers is not None:
            self.stop()
        if (<Core>self._loop)._debug:
            self.text = repr(self)
        self._callback = None
        self._args = None

    def cancelled(self):
        """Whether `cancel` was called."""
        return self._cancelled

    def when(self):
        """When the call is due, in seconds on the clock of `loop.time()`."""
        return self.at

    def get_context(self):
        """The contextvars.Context that the call is made in."""
        return self._context

    @property
    def _when(self):
        return self.at

    @property
    def _scheduled(self):
        return self.state == PENDING

    def _run(self):
        self.run(self._loop)

    def _repr_info(self):
        parts = described(self, type(self).__name__)
        parts.insert(2 if self._cancelled else 1, f"when={self.at}")
        return parts

    def __repr__(self):
        return self.text if self.text is not None else f"<{' '.join(self._repr_info())}>"

    # As asyncio's, which programs keep in sets and compare.
    def __hash__(self):
        return hash(self.at)

    def __eq__(self, other):
        cdef TimerHandle timer
        if not isinstance(other, TimerHandle):
            return NotImplemented
        timer = other
        return self is timer or (
            self.at == timer.at
            and self._callback == timer._callback
            and self._args == timer._args
            and self._cancelled == timer._cancelled
        )

    def __lt__(self, other):
        return self.at < other.when() if isinstance(other, TimerHandle) else NotImplemented

    def __le__(self, other):
        return self.at <= other.when() if isinstance(other, TimerHandle) else NotImplemented

    def __gt__(self, other):
        return self.at > other.when() if isinstance(other, TimerHandle) else NotImplemented

    def __ge__(self, other):
        return self.at >= other.when() if isinstance(other, TimerHandle) else NotImplemented


cdef class Waker:
    """A future's callback that ends a greenlet's wait."""

    def __call__(self, future):
        self.waiter.resume(None)


# ------------------------------------------------------------------ descriptors

@cython.final
cdef class FdWatcher(Listener):
    """The jobs that a loop runs when a descriptor is ready to read (`reader`) or to write (`writer`).

    Each poll reports the descriptor while it is ready.  If its job is still queued then, or has begun and is parked, it
    is not queued again, and the event is not watched until the job has run.  So a loop without a driver does not keep
    the hub busy, and a connection's data is handled in order, even by a job that blocks.
    """

    cdef int ready(self, int events) except -1:
        cdef Job job
        cdef Core loop = self.loop
        if events & READ_EVENT and self.events & READ_EVENT:
            job = self.reader
            if job.queued:
                self.events &= ~READ_EVENT
            else:
                job.queued = True
                loop.polled += 1
                loop.enqueue(job)
        if events & WRITE_EVENT and self.events & WRITE_EVENT:
            job = self.writer
            if job.queued:
                self.events &= ~WRITE_EVENT
            else:
                job.queued = True
                loop.polled += 1
                loop.enqueue(job)
        return 0

    cdef int want(self) except -1:
        """Listen for what `reader` and `writer` wait for, and for nothing else."""
        cdef int events = 0
        if self.reader is not None:
            events |= READ_EVENT
        if self.writer is not None:
            events |= WRITE_EVENT
        self.events = events
        if self.entry is None:
            return 0
        self.count(events != 0)
        if events and not self.entry.gone:
            self.entry.arm(events)
        return 0

    cdef int ran(self, Job job) except -1:
        """`job` has run: if its event is not listened for any more, listen again."""
        if self.reader is job and not self.events & READ_EVENT or self.writer is job and not self.events & WRITE_EVENT:
            self.want()
        return 0

    cdef bint is_open(self) except -1:
        """Whether the descriptor is still the file that was added, as far as known.  If not, nothing is heard of it,
        as with asyncio; its number may by now be that of the hub's own epoll, which would end the process.
        """
        try:
            status = os.fstat(self.fd)
        except OSError:
            return False
        return self.file_id is None or self.file_id == (status.st_dev, status.st_ino)

    cdef int bind(self) except -1:
        """Listen, in the hub of the loop."""
        cdef FdEntry entry = entry_for(self.loop.hub, self.fd)
        if entry.always:
            entry.release()
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # as epoll has it
        self.entry = entry
        entry.listen(self)
        self.want()
        return 0

    cdef int unbind(self) except -1:
        cdef FdEntry entry = self.entry
        if entry is None:
            return 0
        self.count(False)
        self.entry = None
        entry.unlisten(self)
        return 0

    cdef int count(self, bint wanted) except -1:
        """Add this watcher to the hub's count of what it waits for, or remove it.  A fork's child counts from zero."""
        if wanted != self.counted:
            self.counted = wanted
            if self.loop.generation == self.loop.hub.generation:
                self.loop.hub.refs += 1 if wanted else -1
        return 0


cdef class FdHandle(Handle):
    """A callback that is called whenever a descriptor is ready, until it is removed."""

    cdef FdWatcher watcher

    cdef int run(self, Core loop) except -1:
        cdef bint held = False
        try:
            if not self._cancelled:
                held = call_in_context(self, self._callback, self._args, self._context, loop)
        finally:
            if not held:
                self.queued = False
                self.watcher.ran(self)
        return 0


cdef int number_of(object fd) except -1:
    """The number of a descriptor, which may be an object with `fileno`."""
    cdef int number
    if isinstance(fd, int):
        number = fd
    else:
        try:
            number = int(fd.fileno())
        except (AttributeError, TypeError, ValueError):
            raise ValueError(f"Invalid file object: {fd!r}") from None
    if number < 0:
        raise ValueError(f"Invalid file descriptor: {number}")
    return number


cdef bint is_file(int mode) except -1:
    """Whether a file of this `st_mode` is a regular one or a directory, which are always ready."""
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


# ------------------------------------------------------------------ the loop

class Spare(greenlet):
    """Drives a loop while the greenlet in `run_forever` is blocked.

    To `threading` it is the greenlet `main`: the one in `run_forever`, or for a resident loop the main greenlet.
    """

    main = None


set_stand_in(Spare, owns_locks=True)


cdef greenlet outermost(Hub hub):
    """The greenlet that runs a callback: the current one, or the one in which a guest runs (guests.py)."""
    cdef greenlet runner = current_greenlet()
    while runner.parent is not None and runner.parent is not hub:
        runner = runner.parent
    return runner


cdef class StartSpare(Runnable):
    """Starts a greenlet that drives a loop whose driver is parked in a callback."""

    cdef int run(self, Hub hub) except -1:
        cdef Core loop = self.loop
        loop.starting = False
        if loop.driver is None and loop.hub is hub and (loop.root is not None or loop.resident):
            loop.driver = Spare(loop._run_spare, hub)
            loop.driver.main = hub.main if loop.resident else loop.root
            hub.begin(loop.driver)
        return 0


cdef class Core(Driven):
    """Base of EventLoop; see there."""

    def __cinit__(self, *args, **kwargs):
        ring_init(&self.ready)
        self.fds = {}
        self.unbound = []
        self.busy = {}
        self.parked = {}
        self.held = []
        self.steps = {}

    def __dealloc__(self):
        ring_free(&self.ready)

    # -------------------------------------------------------------- the queue

    cdef int enqueue(self, object job) except -1:
        """Put `job` in the queue.  For any thread that holds the GIL."""
        ring_append(&self.ready, job)
        return self.wake()

    cdef int wake(self) except -1:
        """See that a greenlet empties the queue: wake the driver, or start a spare."""
        cdef Waiter waiter = self.idle
        cdef StartSpare start
        if waiter is not None:
            self.idle = None
            waiter.resume(None)
        elif self.driver is None and not self.starting and (
            self.resident or self.root is not None and not self._stopping
        ):
            self.starting = True
            start = StartSpare.__new__(StartSpare)
            start.loop = self
            self.hub.push(start)
        return 0

    cdef int parking(self) except -1:
        """The callback that is running parks.  No Python code here."""
        cdef PyObject *connection
        self.hub.driving = NULL
        if self.stalls:
            self.stalled = True
            return 0
        self.driver = None
        if isinstance(<object>self.running, Job):
            connection = (<Job>self.running).connection()
            if connection != NULL:
                self.busy[<size_t>connection] = outermost(self.hub)
                self.parked[<size_t>self.running] = <object>connection
        if self.ready.count > 0:
            self.wake()
        return 0

    cdef int drive(self, bint is_root) except -1:
        """Run the queued jobs until the loop is stopped; as a spare, until another greenlet is the driver."""
        cdef greenlet me = current_greenlet()
        cdef Hub hub = self.hub
        cdef Waiter waiter
        cdef Py_ssize_t left
        cdef bint polled
        if is_root:
            self.driver = me
            if not hub:  # it has not begun
                self.next_turn()  # a new hub runs what is ready, this greenlet, before its first poll
            self.next_turn()  # poll once even if the loop is stopped already
        elif self.driver is not me:
            return 0  # a signal handler blocked before this greenlet got here
        while True:
            left = self.ready.count
            polled = self.polled == left
            self.polled = 0
            while left > 0 and self.ready.count > 0:
                left -= 1
                job = ring_pop(&self.ready)
                if self.busy and self.must_wait(job):
                    continue
                self.running = <PyObject *>job
                hub.driving = <void *>self
                hub.calls_since_switch = 0
                try:
                    if self._debug or self.stalls:
                        self.run_in_debug(job)
                    else:
                        self.run_job(job)
                finally:
                    hub.driving = NULL
                    if self.steps:
                        self.end_step()
                    if self.driver is not me:
                        self.returned(job)
                job = None
                if self.driver is not me:  # it has parked
                    if not is_root:
                        return 0
                    self.take_over(me)
            if self._stopping:
                return 0
            if self.ready.count > 0:
                # What descriptors and timers have called belongs to their poll, and what that has queued comes next.
                if not polled or hub.ring.count > 0:
                    self.next_turn()
            else:
                waiter = hub.waiter()
                if self.ready.count > 0 or self._stopping:
                    continue  # `hub.waiter` ended greenlets that other threads had dropped, and they queued jobs
                self.idle = waiter
                try:
                    hub.park(waiter, self)
                finally:
                    if self.idle is waiter:
                        self.idle = None
            if self.driver is not me:  # the root drives again
                return 0

    cdef bint must_wait(self, object job) except -1:
        """Whether another callback of `job`'s connection is parked.  If so, `job` is held until that has returned."""
        cdef PyObject *connection = (<Job>job).connection() if isinstance(job, Job) else NULL
        if connection == NULL or <size_t>connection not in self.busy:
            return False
        self.held.append(job)
        return True

    def _is_busy(self, connection):
        """Whether another greenlet is parked in a callback of `connection`: a transport, or a subprocess's protocol."""
        cdef PyObject *transport = below_tls(connection)
        cdef greenlet me = outermost(self.hub)
        return self.busy.get(<size_t>transport, me) is not me

    cdef int returned(self, object job) except -1:
        """`job`, which had parked, has returned."""
        connection = self.parked.pop(<size_t><PyObject *>job, None)
        if connection is not None:
            self.busy.pop(<size_t><PyObject *>connection, None)
        if self.held:
            self.go_on()
        return 0

    cdef int go_on(self) except -1:
        """Put the jobs that are held back into the queue, before all others."""
        cdef Py_ssize_t behind = self.ready.count
        held, self.held = self.held, []
        for job in held:
            ring_append(&self.ready, job)
        for _ in range(behind):
            ring_append(&self.ready, ring_pop(&self.ready))
        return self.wake()

    cdef int wait_for_context(self, object job) except -1:
        """Hold `job`, whose context a parked greenlet has entered, until a parked job has returned.

        The context may also be left by a greenlet that runs no job of this loop: look again now and then.
        """
        cdef TimerHandle timer
        self.held.append(job)
        if not self.retrying and self.hub is not None:
            timer = self.new_timer(self.time() + 0.01, self._look_again, (), None)
            timer.start_at(self.hub.timers, timer.at)
            self.retrying = True
        return 0

    def _look_again(self):
        self.retrying = False
        if self.held:
            self.go_on()

    cdef object step(self):
        cdef greenlet runner = outermost(self.hub)
        cdef Step step = self.steps.get(runner)
        if step is None:
            self.steps[runner] = step = new_step(self if self.resident else self.root, runner)
        return step

    cdef int end_step(self) except -1:
        """The callback that this greenlet was in has returned."""
        cdef Step step = self.steps.pop(outermost(self.hub), None)
        return 0 if step is None else step.end()

    cdef int next_turn(self) except -1:
        """Poll descriptors and timers, as asyncio's loops do once a turn, and let other greenlets run."""
        cdef Hub hub = self.hub
        cdef Waiter waiter
        if hub.look_here():
            return 0
        waiter = hub.waiter()
        waiter.state = READY
        hub.push(waiter)
        hub.batch_left = hub.batch_extra = 0  # poll first
        hub.park(waiter, self)
        return 0

    cdef int take_over(self, greenlet me) except -1:
        """Make the root, whose callback has returned, the driver again.  A spare that is idle ends."""
        cdef Waiter waiter = self.idle
        self.driver = me
        if waiter is not None:
            self.idle = None
            waiter.resume(None)
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    cdef int run_job(self, object job) except -1:
        if type(job) is Handle:
            return (<Handle>job).run(self)
        if type(job) is TimerHandle:
            return (<TimerHandle>job).run(self)
        return (<Job>job).run(self)

    cdef int run_in_debug(self, object job) except -1:
        """Run `job`, and warn if it takes long: in debug mode, or if it has stalled the loop."""
        cdef double began = monotonic()
        cdef double took
        self.stalled = False
        self._current_handle = job
        try:
            self.run_job(job)
            took = monotonic() - began
            if took >= self.slow_callback_duration:
                if self.stalled:
                    logger.warning(
                        "%s blocked for %.3f seconds, and its loop with it (blocking=\"stall\")", shown(job), took)
                elif self._debug and self.hub.driving != NULL:
                    logger.warning("Executing %s took %.3f seconds", shown(job), took)
        finally:
            self._current_handle = None
        return 0

    def _drive(self):
        """Run until the loop is stopped, in this greenlet."""
        cdef Waiter waiter
        self.root = current_greenlet()
        try:
            self.drive(True)
            failure, self.failure = self.failure, None
            if failure is not None:
                raise failure
        finally:
            self.root = None
            self.driver = None
            waiter, self.idle = self.idle, None
            if waiter is not None:
                waiter.resume(None)  # a spare, which ends

    def _drive_as_spare(self):
        """Drive the loop until another greenlet does."""
        cdef greenlet me = current_greenlet()
        _set_running_loop(self)
        self._set_hooks()
        try:
            self.drive(False)
        except (SystemExit, KeyboardInterrupt) as error:
            if self.resident:
                self.hub.handle_system_error(type(error), error, error.__traceback__)
            else:
                self.failure = error
                self.stop()
        finally:
            self._unset_hooks()
            _set_running_loop(None)
            if self.driver is me:
                self.driver = None
                if self.ready.count > 0:
                    self.wake()

    def _become_resident(self):
        """Run whenever there is something to run, without a greenlet in `run_forever`."""
        self._bind()
        self._thread_id = PyThread_get_thread_ident()
        self.first_hook = self._asyncgen_firstiter_hook
        self.final_hook = self._asyncgen_finalizer_hook
        self.resident = True

    def _hub_ends(self):
        """The hub of a resident loop is destroyed."""
        cdef greenlet driver = self.driver
        self.resident = False
        self.first_hook = self.final_hook = None
        self._thread_id = None
        self._closed = True
        self._forget()
        self.driver = None
        if self.idle is not None and driver is not None and current_greenlet() is self.hub.main:
            self.idle = None
            driver.throw()  # it ends

    cdef list waiting(self):
        """The object that each task waits for, as lines of the deadlock report."""
        lines = []
        for task in asyncio.all_tasks(self):
            lines.append(f"    task {task.get_name()!r} waits for {task._fut_waiter!r}")
            lines.extend(lines_of_task(task))
        return lines

    def _bind(self):
        """Attach the loop to this thread's hub, which watches its descriptors and keeps its timers."""
        cdef Hub hub = current_hub()
        cdef FdWatcher watcher
        cdef TimerHandle timer
        if current_greenlet() is hub:
            raise RuntimeError("an event loop cannot run in the hub: it would stop the hub; spawn a greenlet there")
        if self.hub is hub and self.generation == hub.generation and not hub.backend.destroyed:
            return
        for watcher in self.fds.values():
            watcher.unbind()
        timers = self._take_timers()
        self._drop_parked()
        self.hub = hub
        self.generation = hub.generation
        for watcher in list(self.fds.values()):
            if watcher.is_open():
                watcher.bind()
        for timer in timers:
            self.start_timer(timer)

    def _drop_parked(self):
        """Forget the callbacks that are parked on the hub that the loop leaves: they do not return."""
        self.busy.clear()
        self.parked.clear()
        if self.held:
            self.go_on()

    def _take_timers(self):
        """The timers that have not fired yet, stopped."""
        cdef TimerHandle timer
        cdef Py_ssize_t i
        cdef Timers timers
        found, self.unbound = self.unbound, []
        if self.hub is not None:
            timers = self.hub.timers
            for i in range(timers.count):
                item = <object>timers.items[i].timer
                if type(item) is TimerHandle and (<TimerHandle>item)._loop is self:
                    if (<TimerHandle>item).state == PENDING:
                        found.append(item)
            for timer in found:
                if timer.timers is not None:
                    timer.stop()
                    timer.timers = None
        return [timer for timer in found if not timer._cancelled]

    def _forget(self):
        """Drop all jobs, timers and watchers: the loop is closed."""
        cdef FdWatcher watcher
        for watcher in self.fds.values():
            watcher.unbind()
        self.fds.clear()
        self._take_timers()
        self.future_arguments = None
        self.busy.clear()
        self.parked.clear()
        self.held.clear()
        while self.ready.count > 0:
            ring_pop(&self.ready)

    # -------------------------------------------------------------- calls

    cdef int check(self, object callback, str method, bint thread) except -1:
        """For debug mode: raise if this is not the loop's thread (with `thread`), or `callback` cannot be called."""
        if thread:
            self._check_thread()
        self._check_callback(callback, method)
        return 0

    def call_soon(self, callback, *args, context=None):
        """Have `callback(*args)` called in the loop, after the calls that are queued already; returns its Handle.

        `context` is the contextvars.Context to call it in, by default a copy of the caller's.  RuntimeError if the loop
        is closed.
        """
        cdef Handle handle
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if type(callback) is Waker and self.ready.count == 0:
            # Nothing is to be called before, and it only makes a greenlet ready: no turn of the loop for that.
            (<Waker>callback).waiter.resume(None)
            return None
        if self._debug:
            self.check(callback, "call_soon", True)
        handle = new_handle(self, callback, args, context)
        if self._debug:
            handle._source_traceback = caller_stack()
        if self.first_context is not None and context is self.first_context:
            self.first_step = handle  # see `begun_task`
        else:
            self.enqueue(handle)
        return handle

    cdef int queue(self, Handle handle, object callback, tuple args, object context) except -1:
        """`call_soon` with a handle of a class of one's own."""
        if self._closed:
            raise RuntimeError("Event loop is closed")
        handle._loop = self
        handle._callback = callback
        handle._args = args
        handle._context = PyContext_CopyCurrent() if context is None else context
        if self._debug:
            self.check(callback, "call_soon", True)
            handle._source_traceback = caller_stack()
        return self.enqueue(handle)

    def call_soon_threadsafe(self, callback, *args, context=None):
        """As `call_soon`, from any thread and from signal handlers."""
        cdef Handle handle
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if self._debug:
            self.check(callback, "call_soon_threadsafe", False)
        handle = new_handle(self, callback, args, context)
        if self._debug:
            handle._source_traceback = caller_stack()
        self.enqueue(handle)
        return handle

    cdef int start_timer(self, TimerHandle timer) except -1:
        if self.hub is None:
            self.unbound.append(timer)
            return 0
        timer.ref = True
        return timer.start_at(self.hub.timers, timer.at)

    def call_later(self, delay, callback, *args, context=None):
        """Have `callback(*args)` called after `delay` seconds; returns its TimerHandle."""
        cdef TimerHandle timer
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if delay is None:
            raise TypeError("delay must not be None")
        if self._debug:
            self.check(callback, "call_later", True)
        timer = self.new_timer(self.time() + <double>delay, callback, args, context)
        if <double>delay <= 0.0:
            self.enqueue(timer)
        else:
            self.start_timer(timer)
        return timer

    def call_at(self, when, callback, *args, context=None):
        """Have `callback(*args)` called at `when`, in seconds on the clock of `time()`; returns its TimerHandle."""
        cdef TimerHandle timer
        if self._closed:
            raise RuntimeError("Event loop is closed")
        if when is None:
            raise TypeError("when cannot be None")
        if self._debug:
            self.check(callback, "call_at", True)
        timer = self.new_timer(when, callback, args, context)
        self.start_timer(timer)
        return timer

    cdef TimerHandle new_timer(self, double when, object callback, tuple args, object context):
        cdef TimerHandle timer
        if isnan(when):
            raise ValueError("a time must be a number of seconds, not nan")
        timer = TimerHandle.__new__(TimerHandle)
        timer._loop = self
        timer._callback = callback
        timer._args = args
        timer._context = PyContext_CopyCurrent() if context is None else context
        timer.at = when
        if self._debug:
            timer._source_traceback = caller_stack()
        return timer

    def _stalls(self, bint stalls):
        """Set whether a callback that blocks stalls the loop."""
        self.stalls = stalls

    def _add_callback_signalsafe(self, Handle handle not None):
        """Have a Handle called; for signal handlers."""
        if not handle._cancelled:
            self.enqueue(handle)

    def _new_handle(self, callback, args):
        """A Handle that is not in the queue."""
        return new_handle(self, callback, args, None)

    # -------------------------------------------------------------- state

    def time(self):
        """Seconds on the loop's clock: that of time.monotonic(), or the virtual one."""
        if self.hub is not None:
            return self.hub.backend.time()
        return current_hub().backend.time() if has_hub() else monotonic()

    def get_debug(self):
        """Whether the loop is in debug mode."""
        return self._debug

    def is_closed(self):
        """Whether `close` was called."""
        return self._closed

    def is_running(self):
        """Whether `run_forever` is being run."""
        return self._thread_id is not None

    def stop(self):
        """Make `run_forever` return once the calls that are ready now have been made."""
        if self.resident:
            raise RuntimeError("this loop is the hub's own: it runs as long as the hub does")
        self._stopping = True
        if self.idle is not None:
            self.wake()

    def create_future(self):
        """A Future of this loop."""
        cdef PyObject *future
        if self.future_arguments is None:
            self.future_arguments = {"loop": self}  # made once: as costly as the Future
        future = PyObject_Call(FutureClass, (), <PyObject *>self.future_arguments)
        if future == NULL:
            raise_set()
        made = <object>future
        Py_DECREF(made)
        return made

    cdef object begun_task(self, object coroutine, object context):
        """A Task of `coroutine`, which begins here, in this greenlet: it waits for something or has ended.

        The caller has made this loop the running one, and greenlets that run callbacks of it are parked.  `context`:
        the contextvars.Context of the task, which nobody else has; None: a copy of the current one.
        """
        cdef Handle step
        if EAGER:
            return TaskClass(coroutine, loop=self, context=context, eager_start=True)
        # Before Python 3.12 a task has its first step queued.  It is taken out of `call_soon` and made here.
        self.first_context = context = PyContext_CopyCurrent() if context is None else context
        try:
            task = TaskClass(coroutine, loop=self, context=context)
        finally:
            self.first_context = None
            step, self.first_step = self.first_step, None
        if step is not None:  # it is None if a subclass has a `call_soon` of its own
            try:
                step.run(self)
            except (SystemExit, KeyboardInterrupt):
                task.exception()  # it is raised here: no report that nobody has asked for it
                raise
        return task

    # -------------------------------------------------------------- descriptors

    cdef FdWatcher watcher(self, object fd):
        """The FdWatcher of descriptor `fd`, made if there is none."""
        cdef int number = number_of(fd)
        cdef FdWatcher watcher = self.fds.get(number)
        if watcher is not None:
            if self.hub is None or watcher.entry is not None and not watcher.entry.gone:
                return watcher
            watcher.unbind()  # closed meanwhile: the number is another file's
            del self.fds[number]
        watcher = FdWatcher.__new__(FdWatcher)
        watcher.loop = self
        watcher.fd = number
        if self.hub is not None:
            watcher.bind()
        else:
            status = os.fstat(number)  # OSError if it is not open
            if is_file(status.st_mode):
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))  # as epoll has it
            watcher.file_id = status.st_dev, status.st_ino
        self.fds[number] = watcher
        return watcher

    cdef FdWatcher watch_job(self, object fd, int event, Job job):
        """Queue `job` whenever descriptor `fd` is ready for `event`.  It replaces an earlier job for that event."""
        cdef FdWatcher watcher
        cdef Job before
        if self._closed:
            raise RuntimeError("Event loop is closed")
        watcher = self.watcher(fd)
        if not isinstance(fd, int):
            watcher.file = fd
        before = watcher.reader if event == READ_EVENT else watcher.writer
        if before is not None:
            if isinstance(before, Handle):
                (<Handle>before).cancel()
            if watcher.entry is not None:
                watcher.entry.renew()
        if event == READ_EVENT:
            watcher.reader = job
        else:
            watcher.writer = job
        watcher.want()
        return watcher

    cdef Handle watch_callback(self, object fd, int event, object callback, tuple args, object context):
        """Call `callback(*args)` whenever descriptor `fd` is ready for `event`."""
        cdef FdHandle handle = FdHandle.__new__(FdHandle)
        handle._loop = self
        handle._callback = callback
        handle._args = args
        handle._context = PyContext_CopyCurrent() if context is None else context
        if self._debug:
            handle._source_traceback = caller_stack()
        handle.watcher = self.watch_job(fd, event, handle)
        return handle

    def _add_reader(self, fd, callback, *args, context=None):
        return self.watch_callback(fd, READ_EVENT, callback, args, context)

    def _add_writer(self, fd, callback, *args, context=None):
        return self.watch_callback(fd, WRITE_EVENT, callback, args, context)

    def _remove_reader(self, fd):
        return self.remove(fd, READ_EVENT)

    def _remove_writer(self, fd):
        return self.remove(fd, WRITE_EVENT)

    cdef FdWatcher find(self, object fd):
        """The FdWatcher of `fd`, or None.  It finds a closed file, too, which has no descriptor any more."""
        cdef FdWatcher watcher
        try:
            return self.fds.get(number_of(fd))
        except ValueError:
            for watcher in self.fds.values():
                if watcher.file is fd:
                    return watcher
            raise

    cdef bint remove(self, object fd, int event) except -1:
        cdef FdWatcher watcher
        cdef Job job
        if self._closed:
            return False
        watcher = self.find(fd)
        if watcher is None:
            return False
        if event == READ_EVENT:
            job, watcher.reader = watcher.reader, None
        else:
            job, watcher.writer = watcher.writer, None
        if watcher.reader is None and watcher.writer is None:
            watcher.unbind()
            del self.fds[watcher.fd]
        else:
            watcher.want()
        if job is None:
            return False
        if isinstance(job, Handle):
            (<Handle>job).cancel()
        return True

    def _fd_events(self, int fd):
        """The events that descriptor `fd` is watched for: 1 to read, 2 to write; 0: none."""
        cdef FdWatcher watcher = self.fds.get(fd)
        if watcher is None:
            return 0
        return (READ_EVENT if watcher.reader is not None else 0) | (WRITE_EVENT if watcher.writer is not None else 0)


def shown(handle):
    """A handle as asyncio's warnings show it."""
    return base_events._format_handle(handle) if isinstance(handle, (Handle, TimerHandle)) else repr(handle)
