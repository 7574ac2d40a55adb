"""Semaphores, locks and Condition: between greenlets and between threads."""

import pickle
import sys
import threading
import weakref
from functools import partial

import pytest
from helpers import PATIENCE, HubMakingTime, Thread, settle

import weald
from weald import Timeout
from weald.event import AsyncResult, Event
from weald.lock import BoundedSemaphore, Condition, DummySemaphore, Lock, RLock, Semaphore


def test_semaphore_hands_over_in_order(loop_name):
    sem, seen = Semaphore(1), []

    def work(n):
        with sem:
            seen.append(n)
            weald.sleep(0)

    weald.joinall([weald.spawn(work, n) for n in range(10)])
    assert seen == list(range(10)) and sem.counter == 1


@pytest.mark.parametrize("make", [Semaphore, Lock, RLock])
def test_a_timeout_object_ends_acquire(loop_name, make):
    lock = make()
    lock.acquire()

    def try_it(timeout):  # in another greenlet, for which an RLock is held, too
        return weald.spawn(lock.acquire, timeout=timeout).get()

    assert try_it(Timeout(0.001)) is False
    with pytest.raises(KeyError, match="late"):
        try_it(Timeout(0.001, KeyError("late")))


@pytest.mark.parametrize("make", [Semaphore, Lock, RLock])
def test_a_waiter_that_dies_once_woken_passes_on_what_it_was_given(loop_name, make):
    lock, seen = make(), []
    lock.acquire()
    first = weald.spawn(lock.acquire)
    second = weald.spawn(lambda: (lock.acquire(), seen.append("second")))
    weald.sleep(0)
    weald.get_hub().run_callback(first.throw)  # comes before the wake-up below
    lock.release()
    second.join()
    assert first.dead and isinstance(first.value, weald.GreenletExit) and seen == ["second"]


def test_acquire_times_out_and_leaves_no_trace(virtual):
    for lock in (Semaphore(0), held(Lock())):
        assert lock.acquire(timeout=2) is False
        assert lock.statistics()["waiting"] == 0


def held(lock):
    lock.acquire()
    return lock


def test_bounded_semaphore_and_lock_refuse_too_many_releases(loop_name):
    with pytest.raises(ValueError):
        BoundedSemaphore(1).release()
    with pytest.raises(RuntimeError):
        Lock().release()
    with pytest.raises(RuntimeError):
        RLock().release()


def test_rlock_belongs_to_a_greenlet(loop_name):
    lock = RLock()
    with lock, lock:
        assert weald.spawn(lock.acquire, False).get() is False
    assert not lock.locked()


def test_condition(virtual):
    condition, items, got = Condition(), [], []

    def consume():
        with condition:
            condition.wait_for(lambda: items)
            got.append(items.pop())

    gs = [weald.spawn(consume) for _ in range(3)]
    weald.sleep(0)
    for n in range(3):
        with condition:
            items.append(n)
            condition.notify()
        weald.sleep(0)
    weald.joinall(gs)
    assert sorted(got) == [0, 1, 2]
    with condition:
        assert condition.wait(timeout=1) is False
    with pytest.raises(RuntimeError):
        condition.notify()


@pytest.mark.parametrize("make", [Semaphore, Lock, RLock])
def test_a_lock_excludes_across_threads_and_their_greenlets(make):
    lock, state = make(), {"inside": 0, "total": 0, "worst": 0}

    def work():
        for _ in range(50):
            with lock:
                state["inside"] += 1
                state["worst"] = max(state["worst"], state["inside"])
                weald.sleep(0)
                state["total"] += 1
                state["inside"] -= 1

    def in_greenlets():
        weald.joinall([weald.spawn(work) for _ in range(5)])

    threads = [threading.Thread(target=t) for t in [in_greenlets] * 3 + [work] * 3]
    for thread in threads:
        thread.start()
    in_greenlets()
    for thread in threads:
        thread.join()
    assert state == {"inside": 0, "total": 23 * 50, "worst": 1}


def test_a_lock_held_by_another_thread_does_not_stop_this_threads_greenlets():
    lock, taken, seen = Lock(), threading.Event(), []
    done = threading.Event()

    def hold():
        with lock:
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    waiter = weald.spawn(lock.acquire)
    for n in range(5):
        weald.sleep(0)
        seen.append(n)
    assert not waiter.ready() and seen == list(range(5))
    done.set()
    assert waiter.get() is True
    thread.join()


@pytest.mark.parametrize("make", [Lock, RLock, Event, AsyncResult, Semaphore, DummySemaphore, Condition])
def test_weak_references(make):
    primitive = make()
    reference = weakref.ref(primitive)
    assert reference() is primitive
    del primitive
    assert reference() is None


@pytest.mark.parametrize("make", [Lock, RLock])
def test_locks_refuse_timeouts_as_the_stdlibs_do(make):
    lock = make()
    for wrong in ((True, 1e100), (True, threading.TIMEOUT_MAX + 1)):
        with pytest.raises(OverflowError):
            lock.acquire(*wrong)
    for wrong in ((False, 1), (True, -100)):
        with pytest.raises(ValueError):
            lock.acquire(*wrong)
    assert lock.acquire(timeout=threading.TIMEOUT_MAX)
    assert repr(lock).startswith(f"<locked {make.__name__} object")
    lock.release()
    assert repr(lock).startswith(f"<unlocked {make.__name__} object")


def acquired_elsewhere(lock):
    """Make a thread hold `lock`; return the function that makes it release the lock."""
    taken, let_go = threading.Event(), threading.Event()

    def hold():
        with lock:
            taken.set()
            let_go.wait(PATIENCE)

    thread = Thread(hold)
    assert taken.wait(PATIENCE)
    return lambda: (let_go.set(), thread.result())


@pytest.mark.parametrize("make", [Semaphore, BoundedSemaphore, Lock, RLock])
def test_a_lock_that_is_freed_while_the_first_wait_makes_the_hub(make):
    for wait in (lambda lock: lock.acquire(timeout=0.01), lambda lock: lock.__enter__()):
        lock = make()
        with HubMakingTime(acquired_elsewhere(lock)), Timeout(PATIENCE):
            assert wait(lock) is True
        assert lock.acquire(blocking=False) is (make is RLock)
    if make in (Semaphore, BoundedSemaphore):
        semaphore = make()
        with HubMakingTime(acquired_elsewhere(semaphore)):
            assert semaphore.wait(timeout=0.01) == 1


def test_a_semaphore_that_owes_permits_hands_none_over(virtual):
    """Pools shrink by lowering the counter."""
    semaphore = Semaphore(2)
    assert semaphore.acquire() and semaphore.acquire()
    waiter = weald.spawn(semaphore.acquire)
    weald.sleep(0)
    semaphore.counter -= 1
    semaphore.release()
    settle()
    assert semaphore.counter == 0 and not waiter.ready()
    semaphore.release()
    settle()
    assert semaphore.counter == 0 and waiter.ready()


def test_a_semaphore_with_a_raised_counter_lets_in_as_many(virtual):
    semaphore = Semaphore(0)
    waiters = [weald.spawn(semaphore.acquire) for _ in range(5)]
    weald.sleep(0)
    semaphore.counter += 2
    semaphore.release()
    settle()
    assert [waiter.ready() for waiter in waiters] == [True] * 3 + [False] * 2 and semaphore.counter == 0


@pytest.mark.parametrize("make", [Lock, RLock])
def test_a_condition_gives_no_lock_away_when_its_waiters_are_killed(virtual, make):
    """Killed once while they wait to be notified, and once more while they wait for the lock."""
    lock = make()
    condition, inside = Condition(lock), []

    def wait():
        with condition:
            try:
                condition.wait()
            finally:
                inside.append(weald.getcurrent())
                assert lock.locked()

    def hold():
        with condition:
            weald.sleep(10)
            inside.append(weald.getcurrent())

    waiter = weald.spawn(wait)
    weald.sleep(0)
    holder = weald.spawn(hold)
    weald.sleep(0)
    waiter.kill(block=False)
    weald.sleep(1)
    waiter.kill(KeyError("again"), block=False)
    weald.joinall([waiter, holder])
    assert inside == [holder, waiter] and not lock.locked() and holder.successful()
    assert isinstance(waiter.exception, KeyError)


def test_a_notification_is_passed_on_by_who_dies_before_the_lock_is_free(virtual):
    condition, notified = Condition(), []

    def wait(name):
        with condition:
            condition.wait()
            notified.append(name)

    first, second = weald.spawn(wait, "first"), weald.spawn(wait, "second")
    weald.sleep(0)
    with condition:
        condition.notify()
        weald.sleep(1)  # the first is woken and waits for the lock
        first.kill(block=False)
        weald.sleep(1)
    second.join(timeout=PATIENCE)
    assert notified == ["second"] and first.ready()


def test_rlock_takes_arguments_as_the_stdlibs_does():
    if sys.version_info >= (3, 15):
        with pytest.raises(TypeError, match="no arguments"):
            RLock(1, name="x")
        return
    with pytest.warns(DeprecationWarning, match="no arguments"):
        lock = RLock(1, name="x")
    with lock:
        assert lock.locked()


@pytest.mark.parametrize(
    "cls", [AsyncResult, BoundedSemaphore, Condition, DummySemaphore, Event, Lock, RLock, Semaphore]
)
def test_pickles_of_classes_name_the_module_that_they_always_have_named(cls):
    assert cls.__module__ == "weald._core.sync"
    assert pickle.loads(b"cweald._core.sync\n" + cls.__name__.encode() + b"\n.") is cls
    assert pickle.loads(pickle.dumps(cls)) is cls


def test_pickles_of_a_dummy_semaphore():
    known = b"cweald._core.sync\n__pyx_unpickle_DummySemaphore\n(cweald._core.sync\nDummySemaphore\nI238750788\n(ttR."
    for text in (known, pickle.dumps(DummySemaphore())):
        assert type(pickle.loads(text)) is DummySemaphore


def test_all_who_look_for_a_permit_see_it_at_once(loop_name):
    sem, seen = Semaphore(0), []

    def look(n):
        assert sem.wait() == 1
        seen.append(n)

    def take():
        sem.acquire()
        seen.append("taken")

    for work in (partial(look, 0), partial(look, 1), take, partial(look, 2)):
        weald.spawn(work)
    settle()
    sem.release()
    weald.sleep(0)
    assert seen == [0, 1, "taken"] and sem.counter == 0
    sem.release()
    weald.sleep(0)
    assert seen == [0, 1, "taken", 2] and sem.counter == 1
