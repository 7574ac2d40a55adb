"""Event and AsyncResult: between greenlets and between threads."""

import threading
from concurrent.futures import CancelledError

import pytest
from helpers import PATIENCE, HubMakingTime, Thread

import weald
from weald import Timeout
from weald.event import AsyncResult, Event


def test_event_set_then_clear_wakes_those_who_waited(loop_name):
    event = Event()
    gs = [weald.spawn(event.wait) for _ in range(3)]
    weald.sleep(0)
    event.set()
    event.clear()
    weald.joinall(gs)
    assert not event.is_set()


def test_event_wait_times_out(virtual):
    begin = virtual.loop.now()
    assert Event().wait(3) is False
    assert virtual.loop.now() == begin + 3


def test_async_result(loop_name):
    result = AsyncResult()
    gs = [weald.spawn(result.get) for _ in range(3)]
    with pytest.raises(Timeout):
        result.get(block=False)
    result.set(5)
    assert [g.get() for g in gs] == [5, 5, 5]
    failed = AsyncResult()
    failed.set_exception(KeyError("x"))
    with pytest.raises(KeyError):
        failed.get()
    cancelled = AsyncResult()
    assert cancelled.cancel() and cancelled.cancelled() and not cancelled.cancel()


def test_async_result_as_a_future(loop_name, capsys):
    result, seen = AsyncResult(), []
    assert not result.done() and not result.running() and not result.cancelled()
    result.add_done_callback(lambda r: seen.append(("first", r.result())))
    result.add_done_callback(lambda r: 1 / 0)  # reported, and not raised elsewhere
    result.add_done_callback(lambda r: seen.append(("second", r.done())))
    with pytest.raises(TypeError):
        result.add_done_callback(3)
    with pytest.raises(TimeoutError):
        result.result(timeout=0.001)
    result.set_result(5)
    assert seen == [("first", 5), ("second", True)], "called by who brings the outcome, in order"
    result.add_done_callback(lambda r: seen.append("at once"))
    assert seen[2:] == ["at once"]
    result.set(6)
    assert len(seen) == 3, "called once"
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_async_result_done_callbacks_when_it_fails_and_when_it_is_cancelled(loop_name):
    for end in (AsyncResult.cancel, lambda r: r.set_exception(KeyError("x"))):
        result, seen = AsyncResult(), []
        result.add_done_callback(lambda r, seen=seen: seen.append((r.cancelled(), type(r.exception))))
        end(result)
        assert seen == [(end is AsyncResult.cancel, CancelledError if end is AsyncResult.cancel else KeyError)]
    with pytest.raises(CancelledError):
        cancelled = AsyncResult()
        cancelled.cancel()
        cancelled.result()


def test_async_result_done_callback_of_a_thread_without_a_hub():
    result, seen = AsyncResult(), []
    Thread(lambda: result.add_done_callback(lambda r: seen.append(r.value))).result()
    result.set(1)
    assert seen == [1]


def test_event_set_from_a_thread_and_waited_for_in_one():
    event, back = Event(), Event()

    def other():
        assert event.wait(PATIENCE)
        back.set()

    thread = threading.Thread(target=other)
    thread.start()
    weald.spawn(event.set)
    assert back.wait(PATIENCE)
    thread.join()


def test_what_comes_while_the_first_wait_makes_the_hub():
    event = Event()
    with HubMakingTime(event.set):
        assert event.wait(timeout=0) is True
    for wait in (lambda r: r.get(timeout=0), lambda r: r.result(timeout=0), lambda r: r.wait(timeout=0)):
        result = AsyncResult()
        with HubMakingTime(lambda result=result: result.set(7)):
            assert wait(result) == 7


@pytest.mark.parametrize("get", [AsyncResult.get, AsyncResult.result])
def test_a_result_that_comes_as_the_time_is_over_is_given(virtual, get):
    result = AsyncResult()
    g = weald.spawn(get, result, timeout=1)
    weald.sleep(0)
    virtual.loop.timer(1).start(result.set, 5)
    assert g.get() == 5


def test_a_timeout_that_is_too_large_is_refused_as_threadings_is():
    event = Event()
    for seconds in (1e12, 10**12, float("inf")):
        with pytest.raises(OverflowError, match="timeout value is too large"):
            event.wait(seconds)
    event.set()
    assert event.wait(1e12) is True


def test_who_waits_for_a_set_event_does_not_overtake_those_it_has_woken():
    event, order = Event(), []

    def wait(name):
        event.wait()
        order.append(name)

    greenlets = [weald.spawn(wait, name) for name in "ab"]
    weald.sleep(0)
    event.set()
    wait("c")
    assert order == ["a", "b", "c"]
    greenlets.append(weald.spawn(order.append, "e"))
    wait("d")  # no waiter came first: it goes on at once
    assert order == ["a", "b", "c", "d"]
    weald.joinall(greenlets)


@pytest.mark.parametrize("killed", [False, True])
def test_those_who_were_woken_and_killed_are_not_waited_for(killed):
    event, order = Event(), []
    woken = weald.spawn(event.wait)
    weald.sleep(0)
    event.set()
    if killed:
        woken.kill(block=False)
    woken.join()
    other = weald.spawn(order.append, "other")
    event.wait()
    assert order == []
    other.join()
