"""Timeout: in which greenlet it is raised, and when it is not raised."""

import pytest

import weald
from weald import Greenlet, Timeout, _core
from weald.event import AsyncResult, Event
from weald.lock import Semaphore
from weald.pool import Group, Pool, PoolFull
from weald.queue import Empty, Queue


def test_raises_after_its_time(virtual):
    begin = virtual.loop.now()
    with pytest.raises(Timeout) as caught, Timeout(5):
        weald.sleep(100)
    assert virtual.loop.now() == begin + 5 and str(caught.value) == "5 seconds"


def test_silent_and_custom_exceptions(virtual):
    with Timeout(1, False):
        weald.sleep(2)
    for exception in (KeyError, KeyError("x")):
        with pytest.raises(KeyError), Timeout(1, exception):
            weald.sleep(2)


def test_nesting_delivers_each_to_its_own_block(virtual):
    with Timeout(10) as outer:
        with pytest.raises(Timeout) as caught, Timeout(1) as inner:
            weald.sleep(5)
        assert caught.value is inner and outer.pending
    with pytest.raises(Timeout) as caught, Timeout(1) as outer, Timeout(10):
        weald.sleep(5)
    assert caught.value is outer


def test_not_delivered_once_the_block_is_left(virtual):
    # Both are due in one turn of the loop; the event first, so that the block is left in between.
    event = Event()

    def work():
        _core.Timer(virtual, 1, event.set)
        with Timeout(1):
            event.wait()
        weald.sleep(5)
        return "fine"

    assert weald.spawn(work).get() == "fine"


def test_start_twice_cancel_and_none(virtual):
    timeout = Timeout(1)
    timeout.start()
    with pytest.raises(AssertionError):
        timeout.start()
    timeout.cancel()
    assert not timeout.pending
    weald.sleep(2)
    with Timeout(None) as never:
        weald.sleep(1000)
        assert not never.pending


def test_with_timeout(virtual):
    assert weald.with_timeout(1, weald.sleep, 5, timeout_value="late") == "late"
    with pytest.raises(Timeout):
        weald.with_timeout(1, weald.sleep, 5)
    assert weald.with_timeout(9, int, "3") == 3


def test_bad_seconds_are_refused():
    with pytest.raises(ValueError):
        Timeout(float("nan"))
    with pytest.raises(TypeError):
        Timeout("1")


@pytest.mark.parametrize(
    "wait",
    [
        lambda timeout: Event().wait(timeout),
        lambda timeout: AsyncResult().wait(timeout),
        lambda timeout: AsyncResult().get(timeout=timeout),
        lambda timeout: AsyncResult().result(timeout),
        lambda timeout: Semaphore(0).acquire(timeout=timeout),
        lambda timeout: Semaphore(0).wait(timeout),
        lambda timeout: Queue(items=[1]).join(timeout),
        lambda timeout: Queue().get(timeout=timeout),
        lambda timeout: weald.spawn(weald.sleep, 100).join(timeout),
        lambda timeout: weald.spawn(weald.sleep, 100).get(timeout=timeout),
        lambda timeout: Group([weald.spawn(weald.sleep, 100)]).join(timeout),
        lambda timeout: Pool(0).wait_available(timeout),
        lambda timeout: Pool(0).add(Greenlet(int), timeout=timeout),
    ],
    ids=["Event", "AsyncResult.wait", "AsyncResult.get", "AsyncResult.result", "acquire", "Semaphore.wait",
         "Queue.join", "Queue.get", "join", "get", "Group", "wait_available", "add"],
)  # fmt: skip
def test_a_timeout_as_timeout_raises_what_it_was_made_with(virtual, wait):
    for exception in (KeyError, KeyError("x")):
        with pytest.raises(KeyError):
            wait(Timeout(1, exception))
    try:
        assert not wait(Timeout(1))
    except (Timeout, TimeoutError, Empty, PoolFull):
        pass
