"""Letting others run: sleep, and calls that never wait but are made again and again.

Called by: users (`sleep`), descriptor.pyx, queue.pyx, sync.pyx (`give_way`), the package's select and time.
"""

from libc.math cimport isnan

from weald._core.hub cimport (
    READY, Hub, Waiter, WakeTimer, current_greenlet, current_hub, current_hub_or_none, has_hub, is_exiting,
    is_fresh_fork, tick)
from weald._core.waiters cimport park_thread

cdef enum:
    MANY_CALLS = 1024  # see give_way
    LONG_TURN = 5  # milliseconds


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
    timer.start(hub, seconds)
    try:
        hub.park(waiter, "sleep")
    except BaseException:
        timer.stop()
        raise
    return 0


def sleep(seconds=0, ref=True):
    """Let others run for `seconds` (a float); 0 or less yields once.

    With `ref` false the sleep alone does not keep the hub waiting.  In a thread without a hub it
    is a plain sleep of the thread.
    """
    cdef double s = seconds
    if isnan(s):
        raise ValueError("cannot sleep for nan seconds")
    sleep_for(s, ref)


def idle(priority=0):
    """Let everything else that is ready run first."""
    sleep_for(0.0, True)


# ------------------------------------------------------------------ busy waits

cdef int give_way(bint asks) except -1:
    """For a call that could have had to wait and need not: others run now and then, if the caller seems to wait
    by calling again and again.

    It does when it has made a great many such calls, or when it `asks` what only others can change and has kept
    the loop waiting.  To be called ahead of the answer, which then holds when the caller gets it.
    """
    cdef Hub hub
    if not has_hub():
        return 0
    hub = current_hub()
    hub.calls += 1
    if hub.calls < MANY_CALLS and (
        not asks or hub.calls & 7 or tick() - hub.batch_tick <= LONG_TURN or hub.timeless
    ):
        return 0
    return let_others_run()


cdef int let_others_run() except -1:
    """Yield once, where there is somebody to yield to."""
    cdef Hub hub
    if not has_hub() or is_exiting() or is_fresh_fork():
        return 0
    hub = current_hub()
    hub.calls = 0
    if current_greenlet() is hub:
        return 0
    return sleep_for(0.0, True)


def asked_in_vain():
    """`give_way` for a call written in Python that found nothing changed; it had better look again."""
    give_way(True)
