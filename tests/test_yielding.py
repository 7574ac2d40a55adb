"""sleep and idle, and calls that return without waiting, which let others run if they are repeated."""

import time

import pytest
from helpers import REAL, Thread, python, takes, tick

import weald
from weald import _core
from weald.event import Event
from weald.lock import Lock, RLock
from weald.queue import Queue

LIMIT = 5000  # more calls than any such loop needs until others run


def test_sleeping_takes_as_long_as_asked(loop_name):
    with takes(2):
        weald.sleep(tick(2))


@pytest.mark.parametrize("seconds", [0, -1, 0.0, -0.5])
def test_what_is_ready_runs_once(loop_name, seconds):
    seen = []

    def work():
        for name in "ab":
            seen.append(name)
            weald.sleep(0)

    weald.spawn_raw(work)
    with takes(0):
        weald.sleep(seconds)
        assert seen == ["a"]
        weald.idle()
    assert seen == ["a", "b"]


@pytest.mark.parametrize(("seconds", "error"), [(float("nan"), ValueError), ("1", TypeError), (None, TypeError)])
def test_what_is_no_time(loop_name, seconds, error):
    with pytest.raises(error):
        weald.sleep(seconds)


def test_a_sleep_that_is_not_waited_for():
    # In a process of its own, because a thread left by another test could still wake a greenlet.
    code = """
        import weald
        try:
            weald.sleep(1000, ref=False)
        except weald.LoopExit:
            print("deadlock")
    """
    assert python(code) == "deadlock\n"


def test_a_sleep_that_is_killed_leaves_no_timer(virtual):
    greenlet = weald.spawn(weald.sleep, 1000)
    weald.sleep(0)
    greenlet.kill()
    begin = virtual.loop.now()
    assert virtual.join()
    assert virtual.loop.now() == begin


def test_a_thread_without_a_hub_sleeps_itself():

    def work():
        begin = time.monotonic()
        weald.sleep(0.02)
        weald.sleep(0)
        _core.asked_in_vain()
        assert _core.get_hub_if_exists() is None
        return time.monotonic() - begin

    assert Thread(work).result() >= 0.02


# ------------------------------------------------------------------ calls that return without waiting


def calls_in_vain():
    """Calls that find a state unchanged that only others can change."""
    lock, rlock, queue, event = Lock(), RLock(), Queue[int](), Event()
    lock.acquire()
    weald.spawn(rlock.acquire).join()
    return {
        "Event.is_set": event.is_set,
        "Lock.acquire(False)": lambda: lock.acquire(False),
        "Lock.locked": lock.locked,
        "RLock.acquire(False)": lambda: rlock.acquire(False),
        "Queue.empty": queue.empty,
        "Queue.get_nowait": lambda: pytest.raises(weald.queue.Empty, queue.get_nowait),
        "asked_in_vain": _core.asked_in_vain,
    }


@pytest.mark.parametrize("name", calls_in_vain())
def test_asking_again_and_again_lets_others_run(virtual, name):
    ran = []
    call = calls_in_vain()[name]
    weald.spawn_raw(ran.append, True)
    for _ in range(LIMIT):
        call()
        if ran:
            return
    pytest.fail(f"{name} never lets others run")


@REAL
def test_asking_in_vain_lets_others_run_once_they_have_waited_for_long(loop_name):
    ran = []
    weald.spawn_raw(ran.append, True)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    for _ in range(100):  # fewer than would do in a batch that is young
        _core.asked_in_vain()
    assert ran == [True]


def test_taking_locks_in_a_loop_lets_others_run(virtual):
    ran = []
    lock = Lock()
    weald.spawn_raw(ran.append, True)
    for _ in range(LIMIT):
        with lock:
            pass
        if ran:
            return
    pytest.fail("others never run")


def test_nobody_runs_in_the_hub_between(virtual):
    """A callback must not block: there such calls just return."""
    done = []

    def callback():
        for _ in range(LIMIT):
            _core.asked_in_vain()
        done.append(True)

    virtual.run_callback(callback)
    weald.sleep(0)
    assert done == [True]
