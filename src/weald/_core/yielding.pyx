"""Letting other greenlets run: `sleep`, and `give_way` for functions that do not wait but may be called in loops.

Called by: tls.pyx, users (`sleep`), greenlet.pyx, descriptor.pyx, queue.pyx, event.pyx, lock.pyx, _base/buffered.pyx
and _base/pipes.pyx, the package's select and time.
"""

from cpython.object cimport PyObject
from libc.math cimport isnan

from weald._core.forks cimport is_fresh_fork
from weald._core.hub cimport READY, Hub, Waiter, WakeTimer, current_greenlet, tick
from weald._core.threads cimport current_hub, current_hub_or_none, has_hub, hub_here, is_exiting
from weald._core.waiters cimport park_thread

cdef enum:
    MANY_CALLS = 1024  # since the last switch, after which `give_way` lets others run
    CLOCK_CALLS = 8  # `give_way` looks at the clock at every eighth call; a power of 2
    LONG_BATCH = 5  # milliseconds
    MANY_IN_CALLBACK = 16384  # as MANY_CALLS, since a callback or a step of a coroutine has begun


cdef int sleep_for(double seconds, bint ref) except -1:
    cdef Hub hub
    cdef Waiter waiter
    cdef WakeTimer timer
    hub = current_hub_or_none()
    if hub is None:
        waiter = Waiter.__new__(Waiter)
        park_thread(waiter, seconds if seconds > 0.0 else 0.0)
        return 0
    waiter = hub.waiter()
    if seconds <= 0.0:
        waiter.state = READY
        hub.push(waiter)
        hub.park(waiter, "its turn")
        return 0
    timer = WakeTimer.__new__(WakeTimer)
    timer.waiter = waiter
    timer.ref = ref
    timer.start(hub.timers, seconds)
    try:
        hub.park(waiter, "sleep")
    except BaseException:
        timer.stop()
        raise
    return 0


def sleep(seconds=0, ref=True):
    """Let others run for `seconds` (a float); 0 or less lets everything that is ready run once.

    With `ref` false the hub does not wait for the sleep's end if nothing else is left to wait for.  In a thread without
    a hub the thread itself sleeps.  ValueError if `seconds` is nan.
    """
    cdef double s = 0.0
    if seconds != 0:  # comparing costs less than making a float of the integer 0
        s = seconds
        if isnan(s):
            raise ValueError("cannot sleep for nan seconds")
    sleep_for(s, ref)


def idle(priority=0):
    """Let everything that is ready run first.  `priority` is ignored."""
    sleep_for(0.0, True)


# ------------------------------------------------------------------ busy waits

cdef bint is_others_turn(bint in_vain) except -1:
    """As `give_way`, but only count the call and return whether to `let_others_run`."""
    cdef PyObject *hub = hub_here()
    cdef Py_ssize_t calls
    if hub == NULL:
        return False
    if (<Hub>hub).driving != NULL:
        return True  # `let_others_run` counts there
    calls = (<Hub>hub).calls_since_switch = (<Hub>hub).calls_since_switch + 1
    return calls >= MANY_CALLS or (
        in_vain
        and not calls & (CLOCK_CALLS - 1)
        and tick() - (<Hub>hub).batch_tick > LONG_BATCH
        and not (<Hub>hub).timeless
    )


cdef int give_way(bint in_vain) except -1:
    """For functions that return without waiting: let others run if the caller calls such functions again and again.

    They run after MANY_CALLS such calls since the last switch.  If the call is `in_vain`, that is, it found a state
    unchanged that only others can change, they run as soon as the batch has taken LONG_BATCH.  Call this before you
    compute the function's result, because the others may change it.

    Coroutines rely on it that no other code runs between two awaits unless they block.  So there others run only after
    very many such calls (MANY_IN_CALLBACK).
    """
    return let_others_run() if is_others_turn(in_vain) else 0


cdef int let_others_run() except -1:
    """Let everything that is ready run once; in a coroutine only at every MANY_IN_CALLBACK calls.

    Returns at once if nothing can run: without a hub, in the hub, at exit, in a fresh fork.
    """
    cdef Hub hub
    if not has_hub() or is_exiting() or is_fresh_fork():
        return 0
    hub = current_hub()
    if hub.driving != NULL:
        hub.calls_since_switch += 1
        if hub.calls_since_switch < MANY_IN_CALLBACK:
            return 0
    hub.calls_since_switch = 0
    if current_greenlet() is hub:
        return 0
    return sleep_for(0.0, True)


def has_looked():
    """Let everything that is ready run once.  For calls that only look at state, which programs make in loops.

    In a coroutine on weald's event loop only if it makes very many such calls without a turn of the loop.
    """
    cdef Hub hub = current_hub_or_none()
    if hub is not None and hub.driving != NULL:
        let_others_run()
    else:
        sleep_for(0.0, True)


def before_io():
    """Let others run if this greenlet has run for long.  For calls that do I/O and may never have to wait.

    Call this before the I/O: data that was read would be lost if the greenlet were killed here.
    """
    give_way(True)


def asked_in_vain():
    """Let others run if the caller checks again and again.  For checks that have found no change.

    The other greenlets may change what was checked, so check again afterwards.
    """
    give_way(True)
