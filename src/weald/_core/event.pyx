"""Event and AsyncResult.

Called by: weald.event, threadpool, every module that waits for an event.
Invariants: both work between greenlets of different threads and threads without a hub (see waiters.pyx).  A flag or an
outcome is stored before the waiters are woken.
"""

from weald._core.c_python cimport show_as
from weald._core.hooks cimport await_it
from weald._core.hub cimport Waiter
from weald._core.threads cimport current_hub
from weald._core.waiters cimport Linkable, clear, made_hub, new_waiter, park, seconds, time_is_over, wake_all
from weald._core.yielding cimport give_way, let_others_run

import sys
from _thread import TIMEOUT_MAX
from concurrent.futures import CancelledError

from weald._core.hub import report_error
from weald._core.timeout import Timeout, expired


cdef class Event(Linkable):
    """Event(): a flag that can be waited for; threading.Event's contract.

    `set` wakes all waiters, even if the flag is cleared before they run.
    """

    cdef object __weakref__
    cdef bint flag
    cdef Py_ssize_t woken  # how many waiters that `set` has woken have not run yet

    def __init__(self):
        pass

    def is_set(self):
        """Whether the flag is set."""
        if not self.flag:
            give_way(True)
        return self.flag

    isSet = is_set

    def ready(self):
        """Whether the flag is set: `is_set` by the name that all waitable objects share."""
        return self.flag

    def set(self):
        """Set the flag and wake all waiters.  Any thread."""
        self.flag = True
        if self.waiters.head != NULL:
            self.woken += wake_all(&self.waiters, None)
        if self.links is not None:
            self.run_links()

    def clear(self):
        """Reset the flag; later `wait`s block."""
        self.flag = False

    def wait(self, timeout=None):
        """Wait until the flag is set, up to `timeout` seconds (None: for ever); returns whether it was set.

        Waiters that `set` has woken run before a `wait` that comes later returns.  OverflowError for a timeout above
        threading.TIMEOUT_MAX.
        """
        cdef Waiter waiter
        cdef bint woken
        if self.flag or made_hub() and self.flag:
            if self.woken > 0:  # they came first
                self.woken = 0
                let_others_run()
            return True
        if isinstance(timeout, (int, float)) and timeout > TIMEOUT_MAX:
            raise OverflowError("timeout value is too large")
        waiter = new_waiter(None)
        try:
            woken = park(&self.waiters, waiter, self, seconds(timeout))
        except BaseException:
            self.woken -= waiter.lost and self.woken > 0
            raise
        self.woken -= woken and self.woken > 0
        if not woken and timeout is not None and not self.flag:
            time_is_over(timeout)
        return woken or self.flag

    def __repr__(self):
        return (f"<{type(self).__name__} at {id(self):#x} {'set' if self.flag else 'clear'} "
                f"waiting={self.waiters.count}>")

    def _reset_internal_locks(self):
        clear(&self.waiters)
        self.woken = 0


# ------------------------------------------------------------------ AsyncResult

cdef enum ResultState:
    WAITING
    VALUE
    FAILED
    CANCELLED


cdef class AsyncResult(Linkable):
    """AsyncResult(): an outcome, a value or an exception, that can be waited for.

    `set` and `set_exception` may be called from any thread.  Given as a link (`greenlet.link(result)`), it takes over
    the greenlet's outcome.  It also has a Future's `result`, `set_result`, `done`, `running`, `cancel`, `cancelled` and
    `add_done_callback`; only `exception` is an attribute here.
    """

    cdef object __weakref__
    cdef ResultState state
    cdef object value_
    cdef object error  # the exception, or None
    cdef object traceback
    cdef list callbacks  # of add_done_callback; None once they are called

    def __init__(self):
        pass

    def ready(self):
        """Whether there is an outcome."""
        return self.state != WAITING

    done = ready

    def successful(self):
        """Whether there is a value."""
        return self.state == VALUE

    def running(self):
        """Returns False: an AsyncResult does not know whether its outcome is being computed."""
        return False

    def cancelled(self):
        """Whether `cancel` ended it."""
        return self.state == CANCELLED

    @property
    def value(self):
        """The value, or None if there is none (yet)."""
        return self.value_

    @property
    def exception(self):
        """The exception, or None if there is none (yet)."""
        return self.error

    @property
    def exc_info(self):
        """(type, exception, traceback), or () without an exception."""
        if self.error is None:
            return ()
        return type(self.error), self.error, self.traceback

    cdef int settle(self) except -1:
        if self.waiters.head != NULL:
            wake_all(&self.waiters, None)
        if self.links is not None:
            self.run_links()
        if self.callbacks is not None:
            callbacks, self.callbacks = self.callbacks, None
            for callback in callbacks:
                self.call_done(callback)
        return 0

    cdef int call_done(self, object callback) except -1:
        """Call a done callback; its exceptions are reported, and not raised in the greenlet that sets the outcome."""
        try:
            callback(self)
        except BaseException:
            report_error(current_hub(), (callback, self), *sys.exc_info())
        return 0

    def add_done_callback(self, callback):
        """Have `callback(self)` called when there is an outcome, by the greenlet that sets it; at once if it is there.

        Unlike with `rawlink`, no hub is needed.  It must not block; its exceptions are reported and go no further.
        TypeError if it is not callable.
        """
        if not callable(callback):
            raise TypeError(f"a done callback must be callable, got {callback!r}")
        if self.state != WAITING:
            self.call_done(callback)
            return
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append(callback)

    def set(self, value=None):
        """Store `value` and wake all waiters.  A later `set` replaces it.  Any thread."""
        self.value_ = value
        self.error = self.traceback = None
        self.state = VALUE
        self.settle()

    set_result = set

    def set_exception(self, exception, exc_info=None):
        """Store `exception` (an instance or a class), which every `get` raises, and wake all waiters.

        `exc_info`, a triple as of sys.exc_info(), replaces it and brings a traceback.  TypeError if it is no exception.
        """
        traceback = None
        if exc_info is not None:
            exception, traceback = exc_info[1] or exc_info[0], exc_info[2]
        if isinstance(exception, type) and issubclass(exception, BaseException):
            exception = exception()
        if not isinstance(exception, BaseException):
            raise TypeError(f"set_exception needs an exception, got {exception!r}")
        self.error = exception
        self.traceback = traceback if traceback is not None else exception.__traceback__
        self.value_ = None
        self.state = FAILED
        self.settle()

    def cancel(self):
        """Store concurrent.futures.CancelledError if there is no outcome yet; returns whether it was stored."""
        if self.state != WAITING:
            return False
        self.error = CancelledError()
        self.traceback = None
        self.state = CANCELLED
        self.settle()
        return True

    cdef object outcome(self):
        if self.error is None:
            return self.value_
        raise self.error.with_traceback(self.traceback)

    def __await__(self):
        return await_it(self)

    def get(self, block=True, timeout=None):
        """The value, waiting for it up to `timeout` seconds (None: for ever) if `block`; or raises the exception.

        Raises weald.Timeout if there is no outcome in time, or none yet and `block` is false.
        """
        if self.state == WAITING:
            if not block:
                raise Timeout()
            made_hub()
            while self.state == WAITING:
                if not self.wait_for(timeout) and self.state == WAITING:
                    raise expired(timeout)
        return self.outcome()

    def result(self, timeout=None):
        """As `get(timeout=timeout)`, by a Future's name; the builtin TimeoutError if there is no outcome in time."""
        made_hub()
        if self.state == WAITING and not self.wait_for(timeout) and self.state == WAITING:
            raise TimeoutError(f"no result after {timeout} seconds")
        return self.outcome()

    def get_nowait(self):
        """The value, or the exception raised; weald.Timeout if there is no outcome yet."""
        return self.get(block=False)

    def wait(self, timeout=None):
        """Wait for an outcome, up to `timeout` seconds (None: for ever); returns the value, or None without one."""
        made_hub()
        if self.state == WAITING:
            self.wait_for(timeout)
        return self.value_

    def __call__(self, source):
        """Take over the outcome of `source`, a greenlet or an AsyncResult that is ready: for use as a link."""
        if source.successful():
            self.set(source.value)
        else:
            self.set_exception(source.exception, getattr(source, "exc_info", None) or None)

    @classmethod
    def __class_getitem__(cls, item):
        return cls

    def __repr__(self):
        state = (f"value={self.value_!r}" if self.state == VALUE else
                 f"exception={self.error!r}" if self.error is not None else "unset")
        return f"<{type(self).__name__} at {id(self):#x} {state} waiting={self.waiters.count}>"


# Earlier versions had these classes in this module: pickles name it.
show_as(Event, "weald._core.sync.Event")
show_as(AsyncResult, "weald._core.sync.AsyncResult")
