"""Event, AsyncResult, semaphores, locks and Condition.

Called by: weald.event, weald.lock, weald.threading, threadpool, everybody.
Invariants:
- Permits are handed over: `release` gives a permit straight to the first waiter, so nobody who
  comes later overtakes it, and no wake-up is for nothing.
- A waiter that dies after it was woken passes on what it was given.
- All of it works between greenlets of different threads and threads without a hub, which is the
  waiters' doing (see waiters.pyx).

Long because it holds ten primitives, each short, that share the handing over and passing on.
"""

from weald._core.hub cimport Waiter, acting_greenlet, current_greenlet, current_hub
from weald._core.waiters cimport (
    Linkable, WaitList, append, clear, first, made_hub, new_waiter, park, park_listed, seconds, wake_all, wake_one)
from weald._core.yielding cimport give_way, let_others_run

import sys
import warnings
from _thread import TIMEOUT_MAX
from concurrent.futures import CancelledError

from weald._core.hub import BlockingSwitchOutError, LoopExit, report_error
from weald._core.timeout import Timeout, expired


# ------------------------------------------------------------------ Event

cdef class Event(Linkable):
    """A flag that can be waited for; threading.Event's contract.

    `set` wakes everybody who waits, also those who have not run yet when it is cleared again.
    """

    cdef object __weakref__
    cdef bint flag

    def __init__(self):
        pass

    def is_set(self):
        """True if the flag is set."""
        if not self.flag:
            give_way(True)
        return self.flag

    isSet = is_set

    def ready(self):
        """`is_set`, as every linkable object has it."""
        return self.flag

    def set(self):
        """Set the flag and wake everybody.  Any thread."""
        self.flag = True
        if self.waiters.head != NULL:
            wake_all(&self.waiters, None)
        if self.links is not None:
            self.run_links()

    def clear(self):
        """Reset the flag; later `wait`s block."""
        self.flag = False

    def wait(self, timeout=None):
        """Block until the flag is set or `timeout` seconds have passed; whether it is set."""
        if self.flag or made_hub() and self.flag:
            return True
        return bool(self.wait_for(timeout)) or self.flag

    def __repr__(self):
        return (f"<{type(self).__name__} at {id(self):#x} {'set' if self.flag else 'clear'} "
                f"waiting={self.waiters.count}>")

    def _reset_internal_locks(self):
        clear(&self.waiters)


# ------------------------------------------------------------------ AsyncResult

cdef enum ResultState:
    WAITING
    VALUE
    FAILED
    CANCELLED


cdef class AsyncResult(Linkable):
    """A value or an exception that arrives once and can be waited for.

    `set` and `set_exception` may be called from any thread.  An AsyncResult can be given as a link
    (`greenlet.link(result)`): it takes over the outcome.  It also has a Future's `result`, `set_result`, `done`,
    `running`, `cancel`, `cancelled` and `add_done_callback`; only `exception` is an attribute here.
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
        """False: nothing here knows of who will bring the outcome."""
        return False

    def cancelled(self):
        """Whether `cancel` ended it."""
        return self.state == CANCELLED

    @property
    def value(self):
        """The value; None as long as there is none."""
        return self.value_

    @property
    def exception(self):
        """The exception, or None."""
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
                self.tell(callback)
        return 0

    cdef int tell(self, object callback) except -1:
        """A done callback; what it raises is reported and not passed on to who brings the outcome."""
        try:
            callback(self)
        except BaseException:
            report_error(current_hub(), (callback, self), *sys.exc_info())
        return 0

    def add_done_callback(self, callback):
        """Call `callback(self)` once there is an outcome: by who brings it, or at once if it is there already.

        As a Future has it, and unlike `rawlink`, it needs no hub to run.  It must not block.
        """
        if not callable(callback):
            raise TypeError(f"a done callback must be callable, got {callback!r}")
        if self.state != WAITING:
            self.tell(callback)
            return
        if self.callbacks is None:
            self.callbacks = []
        self.callbacks.append(callback)

    def set(self, value=None):
        """Store `value` and wake everybody.  A later `set` replaces it."""
        self.value_ = value
        self.error = self.traceback = None
        self.state = VALUE
        self.settle()

    set_result = set

    def set_exception(self, exception, exc_info=None):
        """Store `exception` (an instance or a class), raised by every `get`, and wake everybody."""
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
        """Settle with concurrent.futures.CancelledError, unless there is an outcome already."""
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

    def get(self, block=True, timeout=None):
        """The value, waiting for it if `block`; raises the exception if that is what was set.

        Raises weald.Timeout when it takes longer than `timeout` seconds, or is not there and
        `block` is false.
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
        """`get(timeout=timeout)`, as a Future calls it: the builtin TimeoutError when it takes too long."""
        made_hub()
        if self.state == WAITING and not self.wait_for(timeout) and self.state == WAITING:
            raise TimeoutError(f"no result after {timeout} seconds")
        return self.outcome()

    def get_nowait(self):
        """The value; weald.Timeout if it is not there yet."""
        return self.get(block=False)

    def wait(self, timeout=None):
        """Wait for an outcome of either kind, up to `timeout` seconds; the value, or None."""
        made_hub()
        if self.state == WAITING:
            self.wait_for(timeout)
        return self.value_

    def __call__(self, source):
        """Take over the outcome of `source` (a greenlet, an AsyncResult): for use as a link."""
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


# ------------------------------------------------------------------ semaphores

cdef class Semaphore(Linkable):
    """Semaphore(value=1): at most `value` holders at a time.  First come, first served."""

    cdef object __weakref__
    cdef public Py_ssize_t counter

    def __init__(self, value=1, hub=None):
        if value is None:
            value = 1
        if value < 0:
            raise ValueError(f"a semaphore's value must be 0 or more, got {value}")
        self.counter = value

    def locked(self):
        """Whether `acquire` would have to wait."""
        return self.counter <= 0

    def ready(self):
        """Whether `acquire` would not have to wait."""
        return self.counter > 0

    def acquire(self, blocking=True, timeout=None):
        """Take a permit, waiting for it up to `timeout` seconds (None: for ever) if `blocking`.

        Returns whether it was got.
        """
        if self.counter > 0:
            self.counter -= 1
            return True
        if not blocking:
            return False
        return self.acquire_slowly(seconds(timeout))

    cdef bint acquire_slowly(self, double timeout) except -1:
        cdef Waiter waiter
        if made_hub() and self.counter > 0:
            self.counter -= 1
            return True
        waiter = new_waiter(None)
        try:
            return park(&self.waiters, waiter, self, timeout)
        except BaseException:
            if waiter.lost:
                self.give_back()
            raise

    cdef int give_back(self) except -1:
        """One permit: to the first waiter, else into the counter.

        `counter` is public: a pool shrinks by making it negative, and permits then go there first.
        """
        self.counter += 1
        while self.counter > 0 and self.waiters.head != NULL:
            if not wake_one(&self.waiters, None):
                break
            self.counter -= 1
        if self.counter > 0 and self.links is not None:
            self.run_links()
        return 0

    def release(self, n=1):
        """Give back `n` permits; the permits then free.  Any greenlet or thread may."""
        cdef Py_ssize_t _
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(<Py_ssize_t>n):
            self.give_back()
        return self.counter

    def wait(self, timeout=None):
        """Wait until a permit is free, without taking it; the permits free then."""
        cdef Waiter waiter
        if self.counter > 0 or made_hub() and self.counter > 0:
            return self.counter
        waiter = new_waiter(None)
        try:
            if not park(&self.waiters, waiter, self, seconds(timeout)):
                return self.counter
        except BaseException:
            if waiter.lost:
                self.give_back()
            raise
        self.give_back()
        return self.counter if self.counter > 0 else 1

    def __enter__(self):
        if self.counter > 0:
            self.counter -= 1
        else:
            self.acquire_slowly(-1.0)
        return True

    def __exit__(self, t, v, tb):
        self.release()

    def __repr__(self):
        return f"<{type(self).__name__} at {id(self):#x} counter={self.counter} waiting={self.waiters.count}>"


cdef class BoundedSemaphore(Semaphore):
    """A Semaphore that refuses more releases than acquires."""

    cdef Py_ssize_t initial

    def __init__(self, value=1, hub=None):
        Semaphore.__init__(self, value, hub)
        self.initial = self.counter

    def release(self, n=1):
        """As Semaphore's; ValueError if there would be more permits than at the start."""
        if self.counter + <Py_ssize_t>n > self.initial:
            raise ValueError("Semaphore released too many times")
        return Semaphore.release(self, n)


cdef class DummySemaphore:
    """A semaphore with permits for everybody: nothing is counted, nobody waits."""

    cdef object __weakref__

    def __init__(self, value=None):
        pass

    def locked(self):
        return False

    def ready(self):
        return True

    def release(self, n=1):
        """Nothing is counted."""

    def rawlink(self, callback):
        """Never called: there is no change to tell of."""

    def unlink(self, callback):
        """Nothing is linked."""

    def wait(self, timeout=None):
        return 1

    def acquire(self, blocking=True, timeout=None):
        return True

    def __enter__(self):
        return None

    def __exit__(self, t, v, tb):
        return None


# ------------------------------------------------------------------ locks

cdef double lock_timeout(bint blocking, object timeout) except? -2.0:
    """threading's rules for acquire(blocking, timeout); None is for ever too."""
    cdef double value
    if timeout is None:
        return -1.0
    value = timeout
    if value == -1.0:
        return -1.0
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if value < 0.0:
        raise ValueError("timeout value must be a non-negative number")
    if value > LONGEST:
        raise OverflowError("timeout value is too large")
    return seconds(timeout)


cdef double LONGEST = TIMEOUT_MAX


cdef class Lock(Linkable):
    """threading.Lock's contract; any greenlet or thread may release it.  FIFO."""

    cdef object __weakref__
    cdef bint held

    def __init__(self):
        pass

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock; False if it is not to be had in `timeout` seconds (-1: wait for ever)."""
        cdef double limit = -1.0 if timeout is None else lock_timeout(blocking, timeout)
        if self.is_free():
            self.held = True
            return True
        if not blocking:
            # Threads that spin on a lock must let its holder run.
            let_others_run()
            return False
        return self.acquire_slowly(limit)

    cdef bint is_free(self) except -1:
        """Whether it can be taken at once.  Who takes locks in a loop lets others run."""
        if self.held:
            return False
        give_way(False)
        return not self.held

    def _is_owned(self):
        """For threading.Condition, which else asks by trying to acquire."""
        return self.held

    cdef bint acquire_slowly(self, double timeout) except -1:
        cdef Waiter waiter
        if made_hub() and not self.held:
            self.held = True
            return True
        waiter = new_waiter(None)
        try:
            return park(&self.waiters, waiter, self, timeout)
        except BaseException:
            if waiter.lost:
                self.pass_on()
            raise

    cdef int pass_on(self) except -1:
        if self.waiters.head == NULL or not wake_one(&self.waiters, None):
            self.held = False
            if self.links is not None:
                self.run_links()
        return 0

    def release(self):
        """Give the lock to who has waited longest, or free it.  RuntimeError if it is not held."""
        if not self.held:
            raise RuntimeError("release unlocked lock")
        self.pass_on()

    def locked(self):
        if self.held:
            give_way(True)
        return self.held

    def ready(self):
        return not self.held

    # Python 2's names, which _thread.lock still has.
    acquire_lock = acquire
    release_lock = release
    locked_lock = locked

    def __enter__(self):
        if self.is_free():
            self.held = True
            return True
        return self.acquire_slowly(-1.0)

    def __exit__(self, t, v, tb):
        self.release()

    def _at_fork_reinit(self):
        self.held = False
        clear(&self.waiters)

    def __repr__(self):
        return (f"<{'locked' if self.held else 'unlocked'} {type(self).__name__} object at {id(self):#x} "
                f"waiting={self.waiters.count}>")


cdef object holder():
    """Who holds an RLock: the current greenlet.

    While the interpreter ends, weak reference callbacks (logging's) take locks when there is no current
    greenlet any more; nothing else runs then, so one stand-in serves them all.
    """
    try:
        return current_greenlet()
    except RuntimeError:
        return LAST_HOLDER


cdef object LAST_HOLDER = object()


cdef class RLock(Linkable):
    """threading.RLock's contract: its owner, a greenlet, may take it again.  FIFO."""

    cdef object __weakref__
    cdef object owner
    cdef Py_ssize_t count

    def __init__(self, *args, **kwargs):
        if args or kwargs:  # threading.RLock has always taken and ignored them
            warnings.warn("RLock takes no arguments", DeprecationWarning, stacklevel=2)

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock, once more if it is held by this greenlet; False if it is not to be had in
        `timeout` seconds (-1: wait for ever)."""
        cdef double limit = -1.0 if timeout is None else lock_timeout(blocking, timeout)
        me = holder()
        if self.owner is me or self.owner is not None and acting_greenlet() is self.owner:
            self.count += 1
            return True
        # Who takes locks in a loop, or asks for one again and again, lets others run.
        give_way(self.owner is not None)
        if self.owner is None:
            self.owner = me
            self.count = 1
            return True
        if not blocking:
            return False
        return self.acquire_slowly(me, limit)

    cdef bint acquire_slowly(self, object me, double timeout) except -1:
        cdef Waiter waiter
        if made_hub() and self.owner is None:
            self.owner = me
            self.count = 1
            return True
        waiter = new_waiter(me)
        try:
            # The releaser makes the first waiter the owner: `pass_on`.
            return park(&self.waiters, waiter, self, timeout)
        except BaseException:
            if waiter.lost:
                self.pass_on()
            raise

    cdef int pass_on(self) except -1:
        cdef Waiter waiter = first(&self.waiters) if self.waiters.head != NULL else None
        if waiter is not None:
            self.owner = waiter.value
            self.count = 1
            waiter.resume(None)
            return 0
        self.owner = None
        self.count = 0
        if self.links is not None:
            self.run_links()
        return 0

    def release(self):
        """Undo one acquire.  RuntimeError if this greenlet does not hold the lock."""
        if not self._is_owned():
            raise RuntimeError("cannot release un-acquired lock")
        self.count -= 1
        if self.count == 0:
            self.pass_on()

    def locked(self):
        return self.owner is not None

    def ready(self):
        return self.owner is None

    def __enter__(self):
        return self.acquire()

    def __exit__(self, t, v, tb):
        self.release()

    def _is_owned(self):
        return self.owner is holder() or self.owner is not None and acting_greenlet() is self.owner

    def _recursion_count(self):
        return self.count if self._is_owned() else 0

    def _release_save(self):
        if self.owner is None:
            raise RuntimeError("cannot release un-acquired lock")
        state = (self.count, self.owner)
        self.pass_on()
        return state

    def _acquire_restore(self, state):
        self.acquire()
        self.count, self.owner = state

    def _at_fork_reinit(self):
        self.owner = None
        self.count = 0
        clear(&self.waiters)

    def __repr__(self):
        return (f"<{'locked' if self.owner is not None else 'unlocked'} {type(self).__name__} object "
                f"owner={self.owner!r} count={self.count} at {id(self):#x} waiting={self.waiters.count}>")


# ------------------------------------------------------------------ Condition

cdef class Condition:
    """Condition(lock=None): threading.Condition's contract; `lock` is an RLock by default."""

    cdef object __weakref__
    cdef WaitList waiters
    cdef public object _lock
    cdef readonly object acquire
    cdef readonly object release

    def __init__(self, lock=None):
        self._lock = lock = RLock() if lock is None else lock
        self.acquire = lock.acquire
        self.release = lock.release

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, t, v, tb):
        return self._lock.__exit__(t, v, tb)

    cdef bint is_owned(self) except -1:
        owned = getattr(self._lock, "_is_owned", None)
        if owned is not None:
            return owned()
        if self._lock.acquire(False):
            self._lock.release()
            return False
        return True

    def _is_owned(self):
        return self.is_owned()

    def wait(self, timeout=None):
        """Release the lock, wait to be notified or for `timeout` seconds, take the lock again.

        Returns whether it was notified.  RuntimeError if the lock is not held.
        """
        cdef Waiter waiter
        cdef bint notified = False
        cdef double limit = seconds(timeout)
        if not self.is_owned():
            raise RuntimeError("cannot wait on un-acquired lock")
        lock = self._lock
        save = getattr(lock, "_release_save", None)
        waiter = new_waiter(None)
        # On the list before the lock is free, so that no notification falls between the two.
        append(&self.waiters, waiter)
        state = save() if save is not None else lock.release()
        try:
            notified = park_listed(&self.waiters, waiter, self, limit)
        except BaseException:
            if waiter.lost:
                wake_one(&self.waiters, None)
            raise
        finally:
            try:
                if save is not None:
                    self.take_back(lock._acquire_restore, (state,))
                else:
                    self.take_back(lock.acquire, ())
            except BaseException:
                if notified:
                    wake_one(&self.waiters, None)
                raise
        return notified

    cdef int take_back(self, object acquire, tuple args) except -1:
        """Take the lock again even if the greenlet is killed meanwhile, and raise that then.

        Who called `wait` will release the lock, which must not be somebody else's by then.
        """
        killed = None
        while True:
            try:
                acquire(*args)
                break
            except (BlockingSwitchOutError, LoopExit):
                raise  # it will never be to be had
            except BaseException as error:
                if not isinstance(self._lock, Linkable):
                    raise  # perhaps a failure of its own, which would come again
                killed = error
        if killed is not None:
            raise killed
        return 0

    def wait_for(self, predicate, timeout=None):
        """Wait until `predicate()` is true, up to `timeout` seconds; its last value."""
        result = predicate()
        if result:
            return result
        hub = current_hub()
        end = None if timeout is None else hub.backend.time() + seconds(timeout)
        while not result:
            left = None if end is None else end - hub.backend.time()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def notify(self, n=1):
        """Wake the `n` that have waited longest.  RuntimeError if the lock is not held."""
        cdef Py_ssize_t _
        if not self.is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(<Py_ssize_t>n):
            if not wake_one(&self.waiters, None):
                break

    def notify_all(self):
        """Wake everybody.  RuntimeError if the lock is not held."""
        if not self.is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        wake_all(&self.waiters, None)

    notifyAll = notify_all

    def statistics(self):
        """{"waiting": how many greenlets and threads wait to be notified}."""
        return {"waiting": self.waiters.count}

    def _at_fork_reinit(self):
        self._lock._at_fork_reinit()
        clear(&self.waiters)

    def __repr__(self):
        return f"<Condition({self._lock!r}) waiting={self.waiters.count}>"
