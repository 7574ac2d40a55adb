"""Semaphores, locks and Condition.

Called by: weald.lock, weald.thread, weald.threading, threadpool, every module that locks.

Invariants:
- Permits are handed over to the first waiter.  No later caller overtakes it, and no waiter wakes up in vain.
- A waiter that is killed after it was woken passes its permit on.
- All of it works between greenlets of different threads and threads without a hub; waiters.pyx sees to that.

Long because six locks and Condition, each short, share the handing over.
"""

from weald._core cimport running_loop
from weald._core.c_greenlet cimport greenlet
from weald._core.c_python cimport show_as
from weald._core.hub cimport PARKED, Waiter, acting_greenlet, current_greenlet
from weald._core.threads cimport current_hub
from weald._core.waiters cimport (
    Linkable, WaitList, append, clear, first, made_hub, new_waiter, park, park_listed, remove, seconds, time_is_over,
    wake_all, wake_one)
from weald._core.yielding cimport give_way, let_others_run

import sys
import warnings
from _thread import TIMEOUT_MAX

from weald._core.hub import BlockingSwitchOutError, LoopExit
from weald._core.scopes import Cancelled, CancelScope


# ------------------------------------------------------------------ semaphores

cdef object LOOKS = object()  # the value of a waiter that takes no permit: `Semaphore.wait`


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

        Returns whether it was taken.
        """
        if self.counter > 0:
            self.counter -= 1
            return True
        if not blocking:
            return False
        if self.acquire_slowly(seconds(timeout)):
            return True
        time_is_over(timeout)
        return False

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
        """Give one permit to the first waiter, or to the counter.

        `counter` is public: a pool shrinks by making it negative, and permits then go there first.
        """
        cdef Waiter waiter
        self.counter += 1
        while self.counter > 0 and self.waiters.head != NULL:
            waiter = first(&self.waiters)
            if waiter is None:
                break
            if waiter.value is not LOOKS:
                self.counter -= 1
            waiter.resume(None)
        if self.counter > 0 and self.links is not None:
            self.run_links()
        return 0

    def release(self, n=1):
        """Give back `n` permits; returns how many are free then.  Any greenlet or thread may.

        ValueError if `n` is less than 1.
        """
        cdef Py_ssize_t _
        if n < 1:
            raise ValueError("n must be one or more")
        for _ in range(<Py_ssize_t>n):
            self.give_back()
        return self.counter

    def wait(self, timeout=None):
        """Wait up to `timeout` seconds (None: for ever) until a permit is free, without taking it.

        Returns how many are free then.
        """
        cdef Waiter waiter
        if self.counter > 0 or made_hub() and self.counter > 0:
            return self.counter
        waiter = new_waiter(LOOKS)
        if not park(&self.waiters, waiter, self, seconds(timeout)):
            time_is_over(timeout)
            return self.counter
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
        """Give back `n` permits; ValueError if there would be more than at the start."""
        if self.counter + <Py_ssize_t>n > self.initial:
            raise ValueError("Semaphore released too many times")
        return Semaphore.release(self, n)


cdef class DummySemaphore:
    """DummySemaphore(value=None): a semaphore with any number of permits.  It counts nothing and never waits."""

    cdef object __weakref__

    def __init__(self, value=None):
        pass

    def locked(self):
        """Returns False: no greenlet ever waits."""
        return False

    def ready(self):
        """Returns True: a permit is always free."""
        return True

    def release(self, n=1):
        """Does nothing."""

    def rawlink(self, callback):
        """Does nothing: no permit ever becomes free."""

    def unlink(self, callback):
        """Does nothing: nothing is linked."""

    def wait(self, timeout=None):
        """Returns 1 at once."""
        return 1

    def acquire(self, blocking=True, timeout=None):
        """Returns True at once."""
        return True

    def __enter__(self):
        return None

    def __exit__(self, t, v, tb):
        return None


# ------------------------------------------------------------------ locks

cdef double lock_timeout(bint blocking, object timeout) except? -2.0:
    """The `timeout` of `acquire` as seconds, by threading's rules, or a Timeout's; -1.0, also for None: for ever."""
    cdef double value
    if timeout is None:
        return -1.0
    if type(timeout) is not int and type(timeout) is not float and isinstance(timeout, BaseException):
        return seconds(timeout)
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
    """Lock(): threading.Lock's contract; any greenlet or thread may release it.  First come, first served."""

    cdef object __weakref__
    cdef bint held

    def __init__(self):
        pass

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock, waiting for it up to `timeout` seconds (-1: for ever) if `blocking`.

        Returns whether it was taken.  ValueError for a timeout of a call that is not blocking, OverflowError for one
        above threading.TIMEOUT_MAX.
        """
        cdef double limit = -1.0 if timeout is None else lock_timeout(blocking, timeout)
        if self.is_free():
            self.held = True
            return True
        if not blocking:
            # Threads that spin on a lock must let its holder run.
            let_others_run()
            return False
        if self.acquire_slowly(limit):
            return True
        time_is_over(timeout)
        return False

    cdef bint is_free(self) except -1:
        """Whether it can be taken at once.  Lets others run if the caller takes locks again and again."""
        if self.held:
            return False
        give_way(False)
        return not self.held

    def _is_owned(self):
        """Whether it is held.  threading.Condition calls this; else it would try to acquire the lock."""
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
        """Give the lock to the waiter that has waited longest, or free it.  RuntimeError if it is not held."""
        if not self.held:
            raise RuntimeError("release unlocked lock")
        self.pass_on()

    def locked(self):
        """Whether it is held."""
        if self.held:
            give_way(True)
        return self.held

    def ready(self):
        """Whether it can be taken at once."""
        return not self.held

    @property
    def counter(self):
        """1 if it can be taken at once, else 0, as of a semaphore."""
        return 0 if self.held else 1

    def wait(self, timeout=None):
        """Wait up to `timeout` seconds (None: for ever) until it can be taken, without taking it; `counter` then."""
        cdef Waiter waiter
        if not self.held or made_hub() and not self.held:
            return 1
        waiter = new_waiter(None)
        try:
            if not park(&self.waiters, waiter, self, seconds(timeout)):
                return self.counter
        except BaseException:
            if waiter.lost:
                self.pass_on()
            raise
        self.pass_on()
        return 1

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


cdef class ImportLock(Lock):
    """A Lock that lets others run only when it has to wait.

    For the import system: code that releases a module must not be killed halfway, as if it waited there.
    """

    cdef bint is_free(self) except -1:
        return not self.held

    def acquire(self, blocking=True, timeout=-1):
        """As Lock's."""
        return (blocking or not self.held) and Lock.acquire(self, blocking, timeout)


cdef object holder():
    """The owner of an RLock that is taken now: the current greenlet, or the Step of a loop that it is in.

    At the end of the interpreter, when there is no current greenlet any more, callbacks of weak references (logging's)
    still take locks.  Nothing else runs then, so they share one owner.
    """
    if running_loop.loops > 0 and running_loop.in_loop():
        step = running_loop.step_here()
        if step is not None:
            return step
    try:
        return current_greenlet()
    except RuntimeError:
        return LAST_HOLDER


cdef object LAST_HOLDER = object()
# Earlier Pythons' threading.RLock ignores arguments.
cdef bint REFUSES_ARGUMENTS = sys.version_info >= (3, 15)


cdef class RLock(Linkable):
    """RLock(): threading.RLock's contract: its owner, a greenlet, may take it again.  First come, first served.

    The callbacks and coroutines of an asyncio loop exclude each other while they block.  One that is held across an
    `await` is the loop's: its other coroutines may take and release it meanwhile, as on asyncio, where they are one
    thread.
    """

    cdef object __weakref__
    cdef object owner  # a greenlet or a Step; None: free
    cdef Py_ssize_t count

    def __init__(self, *args, **kwargs):
        if args or kwargs:
            if REFUSES_ARGUMENTS:
                raise TypeError("RLock takes no arguments")
            warnings.warn("RLock takes no arguments", DeprecationWarning, stacklevel=2)

    def acquire(self, blocking=True, timeout=-1):
        """Take the lock, once more if this greenlet holds it, waiting up to `timeout` seconds (-1: for ever).

        Returns whether it was taken; without `blocking` it does not wait.  Errors as with Lock.
        """
        cdef double limit = -1.0 if timeout is None else lock_timeout(blocking, timeout)
        me = holder()
        if self.is_held_by(me):
            if self.owner is not me and type(me) is Step:
                self.lend(<Step>me)
            self.count += 1
            return True
        give_way(self.owner is not None)  # in case the caller takes locks, or tries to, again and again
        if self.owner is None:
            self.owner = me
            self.count = 1
            return True
        if not blocking:
            return False
        if self.acquire_slowly(me, limit):
            return True
        time_is_over(timeout)
        return False

    cdef bint acquire_slowly(self, object me, double timeout) except -1:
        cdef Waiter waiter
        if made_hub() and self.owner is None:
            self.owner = me
            self.count = 1
            return True
        if type(me) is Step and type(self.owner) is Step and (<Step>self.owner).base is (<Step>me).base:
            (<Step>self.owner).add(self)
        waiter = new_waiter(me)
        try:
            # The releaser makes the first waiter the owner: `pass_on`.
            return park(&self.waiters, waiter, self, timeout)
        except BaseException:
            if waiter.lost:
                self.release_one()
            raise

    cdef int release_one(self) except -1:
        self.count -= 1
        if self.count == 0:
            self.pass_on()
        return 0

    cdef int pass_on(self) except -1:
        cdef Waiter waiter = first(&self.waiters) if self.waiters.head != NULL else None
        if waiter is not None:
            self.owner = waiter.value
            self.count = 1
            if type(self.owner) is Step and self.waiters.head != NULL:
                (<Step>self.owner).add(self)
            waiter.resume(None)
            return 0
        self.owner = None
        self.count = 0
        if self.links is not None:
            self.run_links()
        return 0

    def release(self):
        """Undo one `acquire`.  The last `release` gives the lock to the waiter that has waited longest, or frees it.

        RuntimeError if this greenlet does not hold it.
        """
        if not self.is_held_by(holder()):
            raise RuntimeError("cannot release un-acquired lock")
        self.release_one()

    def locked(self):
        """Whether a greenlet holds it."""
        return self.owner is not None

    def ready(self):
        """Whether no greenlet holds it."""
        return self.owner is None

    def __enter__(self):
        return self.acquire()

    def __exit__(self, t, v, tb):
        self.release()

    cdef inline bint is_held_by(self, object me) except -1:
        return self.owner is me or self.owner is not None and self.is_shared_with(me)

    cdef bint is_shared_with(self, object me) except -1:
        """Whether `me`, which is not the owner, may act as the owner."""
        owner = self.owner
        acting = acting_greenlet()
        if acting is owner:
            return True
        if type(owner) is Step:
            if not (<Step>owner).ended:
                return acting is (<Step>owner).runner and type(me) is not Step  # a signal handler in the midst of it
            owner = (<Step>owner).base
        return (<Step>me).base is owner if type(me) is Step else acting is owner

    cdef int lend(self, Step step) except -1:
        """Make `step` the owner of a lock that is its base's, so that it excludes other steps while it blocks."""
        if type(self.owner) is Step or self.owner is step.base:
            self.owner = step
            if self.waiters.head != NULL:
                step.add(self)
        return 0

    cdef int lend_to_waiter(self, object base) except -1:
        """The lock has become that of `base`: let the first step of the same base that waits for it have it."""
        cdef Waiter waiter
        cdef void *item = self.waiters.head
        while item != NULL:
            waiter = <Waiter>item
            item = waiter.next
            if waiter.state == PARKED and type(waiter.value) is Step and (<Step>waiter.value).base is base:
                remove(&self.waiters, waiter)
                self.count += 1
                self.lend(<Step>waiter.value)
                waiter.resume(None)
                return 0
        return 0

    def _is_owned(self):
        return self.is_held_by(holder())

    def _recursion_count(self):
        return self.count if self.is_held_by(holder()) else 0

    def _release_save(self):
        if self.owner is None:
            raise RuntimeError("cannot release un-acquired lock")
        state = (self.count, self.owner)
        self.pass_on()
        return state

    def _acquire_restore(self, state):
        killed = acquire_again(self.acquire, True)
        self.count, self.owner = state
        if killed is not None:
            raise killed

    def _at_fork_reinit(self):
        self.owner = None
        self.count = 0
        clear(&self.waiters)

    def __repr__(self):
        return (f"<{'locked' if self.owner is not None else 'unlocked'} {type(self).__name__} object "
                f"owner={self.owner!r} count={self.count} at {id(self):#x} waiting={self.waiters.count}>")


cdef class Step:
    """One call of a callback by an asyncio loop of weald's, such as a task's run up to its next `await`.

    It is the owner of the RLocks that it takes: while it blocks, other callbacks of the loop run and must not enter.
    What it holds at its end belongs to its `base` from then on: the greenlet in `run_forever`, or the loop if there is
    none.  To asyncio's programs all callbacks of a run are one thread.  So each later step of that run, one at a time,
    may act as the owner, and so may the greenlet itself.
    """

    cdef int end(self) except -1:
        cdef RLock lock
        self.ended = True
        awaited, self.awaited = self.awaited, None
        if awaited is not None:
            for lock in awaited:
                if lock.owner is self:
                    lock.lend_to_waiter(self.base)
        return 0

    cdef int add(self, object lock) except -1:
        """Take note that steps wait for `lock`, which this one holds."""
        if self.awaited is None:
            self.awaited = []
        self.awaited.append(lock)
        return 0

    def __repr__(self):
        return f"<{'an ended' if self.ended else 'a'} step of {self.base!r} in {self.runner!r}>"


cdef Step new_step(object base, greenlet runner):
    cdef Step step = Step.__new__(Step)
    step.base = base
    step.runner = runner
    return step


# ------------------------------------------------------------------ Condition

cdef object acquire_again(object acquire, bint own):
    """Call `acquire()`, of a lock that a wait for a condition has released, until it succeeds.

    Returns the exception to raise afterwards if the greenlet was killed meanwhile, else None: whoever has called
    `wait` will release the lock, so it must hold it.  For a lock that is not weald's `own`, any exception is raised at
    once: it may be an error of that lock, which each call would raise.
    """
    killed = shield = None
    try:
        while True:
            try:
                acquire()
                return killed
            except (BlockingSwitchOutError, LoopExit):
                raise  # it is impossible to wait here, now or later
            except BaseException as error:
                if not own:
                    raise
                killed = error
                if shield is None and isinstance(error, Cancelled):
                    shield = CancelScope(shield=True)  # else each of these waits would be cancelled
                    shield.__enter__()
    finally:
        if shield is not None:
            shield.__exit__(None, None, None)


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
        """Release the lock, wait to be notified, up to `timeout` seconds (None: for ever), and take the lock again.

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
        # This happens before the lock is released, so that no notification is missed.
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
                    lock._acquire_restore(state)
                else:
                    killed = acquire_again(lock.acquire, isinstance(lock, Linkable))
                    if killed is not None:
                        raise killed
            except BaseException:
                if notified:
                    wake_one(&self.waiters, None)
                raise
        return notified

    def wait_for(self, predicate, timeout=None):
        """`wait` until `predicate()` is true, up to `timeout` seconds (None: for ever); returns its last value."""
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
        """Wake the `n` greenlets or threads that have waited longest.  RuntimeError if the lock is not held."""
        cdef Py_ssize_t _
        if not self.is_owned():
            raise RuntimeError("cannot notify on un-acquired lock")
        for _ in range(<Py_ssize_t>n):
            if not wake_one(&self.waiters, None):
                break

    def notify_all(self):
        """Wake all waiters.  RuntimeError if the lock is not held."""
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


# Earlier versions had these classes in this module: pickles name it.
show_as(Semaphore, "weald._core.sync.Semaphore")
show_as(BoundedSemaphore, "weald._core.sync.BoundedSemaphore")
show_as(DummySemaphore, "weald._core.sync.DummySemaphore")
show_as(Lock, "weald._core.sync.Lock")
show_as(RLock, "weald._core.sync.RLock")

show_as(Condition, "weald._core.sync.Condition")


def name_rlock_as_patched():
    """Let RLock name itself `_thread.RLock`, which patching has made it: programs check that name (trio)."""
    show_as(RLock, "_thread.RLock")
