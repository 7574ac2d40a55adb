"""weald's own exceptions: their classes, and the places where each is raised."""

import pytest
from helpers import python

import weald
from weald import _core, exceptions, threadpool
from weald.event import Event


def test_they_are_the_cores_and_the_packages():
    for name in ("BlockingSwitchOutError", "InvalidSwitchError", "LoopExit"):
        assert getattr(exceptions, name) is getattr(_core, name)
    assert exceptions.LoopExit is weald.LoopExit and exceptions.BlockingSwitchOutError is weald.BlockingSwitchOutError
    for name in exceptions.__all__:
        assert issubclass(getattr(exceptions, name), Exception) and getattr(exceptions, name).__doc__


def test_loop_exit_when_nothing_is_left_that_could_wake_a_greenlet():
    text = python(
        """
        import weald.event, weald.exceptions
        try:
            weald.event.Event().wait()
        except weald.exceptions.LoopExit as error:
            print(error)
        """
    )
    assert "Event" in text


def test_blocking_switch_out_error_in_a_callback_of_the_loop(virtual):
    caught = []

    def callback():
        try:
            weald.sleep(1)
        except exceptions.BlockingSwitchOutError as error:
            caught.append(error)

    virtual.run_callback(callback)
    weald.sleep(1)
    assert len(caught) == 1


def test_invalid_switch_error_for_a_parked_greenlet_that_somebody_else_switches_to(virtual):
    event = Event()

    def waits():
        with pytest.raises(exceptions.InvalidSwitchError):
            event.wait()
        return "on"

    waiting = weald.spawn(waits)
    weald.sleep(1)
    virtual.run_callback(waiting.switch, "by somebody else")
    assert waiting.get() == "on"


def test_invalid_thread_use_error_for_a_pool_of_another_thread():
    pool = threadpool.ThreadPool(1)
    other = threadpool.ThreadPool(1)

    def use():
        weald.get_hub()
        with pytest.raises(exceptions.InvalidThreadUseError, match="belongs to another thread"):
            pool.spawn(int)
        weald.get_hub().destroy()
        return "refused"

    assert other.apply(use) == "refused"


def test_concurrent_object_use_error_for_what_one_greenlet_may_wait_on():
    python(
        """
        import weald, weald.exceptions, weald.hub
        waiter = weald.hub.Waiter()
        first = weald.spawn(waiter.get)
        weald.sleep(0)
        try:
            waiter.get()
        except weald.exceptions.ConcurrentObjectUseError as error:
            assert repr(first) in str(error)
        else:
            raise SystemExit("no error")
        """
    )
