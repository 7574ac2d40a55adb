"""Timeout: an exception raised in a greenlet after some time.

Called by: every module with timeouts; `with Timeout(10)` around a request is the common use, and most never fire.
Invariants: a Timeout is raised only in the block that owns it.  After its expiry its `Delivery` waits in the ready
ring; until it is raised, `cancel` takes it back.
"""

from cpython.object cimport Py_LT

from weald._core.c_greenlet cimport greenlet
from weald._core.hub cimport Hub, Runnable, Throw, current_greenlet
from weald._core.threads cimport current_hub
from weald._core.timers cimport PENDING, BaseTimer
from weald._core.waiters cimport seconds as to_seconds

import sys

from weald._core.hub import report_error

cdef extern from "Python.h":
    ctypedef class builtins.BaseException [object PyBaseExceptionObject, check_size ignore]:
        pass


cdef class ThrowTimer(BaseTimer):
    """Raises `exception` in `target` when it expires.

    Its cycle with the Timeout ends when it fires or is stopped.
    """

    cdef Hub hub
    cdef greenlet target
    cdef object exception
    cdef bint due  # expired, its Delivery is in the ready ring
    cdef object owner  # a Timeout of a subclass, which may override `_on_expiration`; else None

    cdef int expire(self) except -1:
        cdef Delivery delivery = Delivery.__new__(Delivery)
        delivery.timer = self
        self.due = True
        self.hub.push(delivery)
        return 0

    cdef int deliver(self) except -1:
        cdef Throw throw
        if not self.due:
            return 0
        self.due = False
        if self.owner is None:
            throw = Throw.__new__(Throw)
            throw.target = self.target
            throw.exception = self.exception
            throw.run(self.hub)
        else:
            try:
                self.owner._on_expiration(self.target, self.exception)
            except BaseException:
                report_error(self.hub, self.owner, *sys.exc_info())
        self.release()
        return 0

    cdef void release(self) noexcept:
        """Drop all references; raise nothing if it has just expired."""
        self.due = False
        self.target = None
        self.exception = None
        self.owner = None


cdef class Delivery(Runnable):
    """An expired timer's place in the ready ring."""

    cdef ThrowTimer timer

    cdef int run(self, Hub hub) except -1:
        self.timer.deliver()
        return 0


cdef class Timeout(BaseException):
    """Timeout(seconds=None, exception=None, ref=True, priority=-1)

    Raises *exception* in the current greenlet after *seconds* (float); the Timeout itself without one.
    With `exception=False` the `with` statement swallows it.  `seconds=None` never expires.  It is raised while
    the greenlet waits: a computation that never waits is not interrupted.

    Use it in a `with` statement, or `start()` it and `close()` it in a `finally` clause.  With `ref=False` the hub does
    not wait for it if nothing else is left to wait for.  `priority` is ignored.  ValueError if *seconds* is nan.
    """

    cdef public object seconds
    cdef public object exception
    cdef ThrowTimer timer_
    cdef bint ref_

    def __init__(self, seconds=None, exception=None, bint ref=True, priority=-1):
        self.seconds = seconds
        self.exception = exception
        self.ref_ = ref
        if seconds is not None:
            to_seconds(seconds)  # raises here, rather than in `start`, if it is no number

    def start(self):
        """Begin to count, in the current greenlet.  AssertionError if it is pending already."""
        if self.is_pending():
            raise AssertionError(f"{self!r} is already started; to restart it, cancel it first")
        self.begin()

    cdef bint is_pending(self) noexcept:
        return self.timer_ is not None and (self.timer_.state == PENDING or self.timer_.due)

    cdef int begin(self) except -1:
        cdef ThrowTimer timer
        if self.seconds is None:
            return 0
        timer = ThrowTimer.__new__(ThrowTimer)
        timer.target = current_greenlet()
        exception = self.exception
        timer.exception = self if exception is None or exception is False or type(exception) is str else exception
        if type(self) is not Timeout:
            timer.owner = self
        timer.ref = self.ref_
        timer.hub = current_hub()
        timer.start(timer.hub.timers, to_seconds(self.seconds))
        self.timer_ = timer
        return 0

    def _on_expiration(self, prev_greenlet, ex):
        """Called in the hub when the time is over.  Subclasses may override it."""
        prev_greenlet.throw(ex)

    @classmethod
    def start_new(cls, timeout=None, exception=None, ref=True):
        """Make a Timeout of *timeout* seconds and start it; returns it.

        *timeout* may be a Timeout already, which is started unless it is pending.
        """
        if isinstance(timeout, Timeout):
            if not timeout.pending:
                timeout.start()
            return timeout
        timeout = cls(timeout, exception, ref=ref)
        timeout.start()
        return timeout

    @property
    def pending(self):
        """Whether it is going to be raised."""
        return self.is_pending()

    def cancel(self):
        """Cancel it, if it is pending.  It can be started again.  Idempotent."""
        self.finish()

    cdef int finish(self) except -1:
        cdef ThrowTimer timer = self.timer_
        if timer is not None:
            self.timer_ = None
            timer.stop()
            timer.release()
        return 0

    def close(self):
        """`cancel`, by the name that goes with `start`."""
        self.finish()

    def __enter__(self):
        if not self.is_pending():
            self.begin()
        return self

    def __exit__(self, typ, value, tb):
        self.finish()
        return True if value is self and self.exception is False else None

    def __repr__(self):
        pending = " pending" if self.pending else ""
        exception = f" exception={self.exception!r}" if self.exception is not None else ""
        return f"<{type(self).__name__} at {id(self):#x} seconds={self.seconds}{exception}{pending}>"

    def __str__(self):
        if self.seconds is None:
            return ""
        text = f"{self.seconds} second{'' if self.seconds == 1 else 's'}"
        if self.exception is None:
            return text
        return f"{text} (silent)" if self.exception is False else f"{text}: {self.exception}"

    def __richcmp__(self, other, int op):
        # Only `<` compares the seconds, of Timeouts and of numbers.
        if op != Py_LT:
            return NotImplemented  # equality falls back to identity
        try:
            return self.seconds < getattr(other, "seconds", other)
        except TypeError:
            return NotImplemented

    def __hash__(self):
        return object.__hash__(self)


def expired(timeout):
    """The exception to raise after a wait of `timeout`: a Timeout of so many seconds; for a Timeout, its exception."""
    if not isinstance(timeout, Timeout):
        return Timeout(timeout)
    exception = timeout.exception
    return timeout if exception is None or exception is False or type(exception) is str else exception


def drop_mains_timeouts(Hub hub not None):
    """Cancel the Timeouts that were started in the main greenlet of `hub`'s thread: the job they limited has ended."""
    cdef Py_ssize_t i
    cdef ThrowTimer timer
    found = []
    for i in range(hub.timers.count):
        item = <object>hub.timers.items[i].timer
        if isinstance(item, ThrowTimer) and (<ThrowTimer>item).target is hub.main:
            found.append(item)
    for timer in found:
        timer.stop()
        timer.release()


cdef object MISSING = object()


def with_timeout(seconds, function, /, *args, **kwds):
    """Call `function(*args, **kwds)` under a Timeout of `seconds` (or a Timeout); returns what it returns.

    When the time is over, the keyword argument `timeout_value` is returned, if given; otherwise the Timeout is raised.
    """
    timeout_value = kwds.pop("timeout_value", MISSING)
    timeout = Timeout.start_new(seconds)
    try:
        return function(*args, **kwds)
    except Timeout as error:
        if error is timeout and timeout_value is not MISSING:
            return timeout_value
        raise
    finally:
        timeout.cancel()
