"""The loop "wait, try again, until a deadline"; and checking whether a descriptor is ready."""

import os
import socket
import time

import pytest
from helpers import no_descriptors, python

from weald._base.waiting import POLLIN, POLLOUT, is_ready, retry, retry_as_wanted, until, wait_until_ready

LONG = 1000.0  # seconds


class Waits:
    """A wait that returns at once and records what it was given."""

    def __init__(self):
        self.given = []

    def __call__(self, seconds):
        self.given.append(seconds)


@pytest.fixture
def wait():
    return Waits()


def outcomes(*values):
    """A call that returns these, one after the other, or raises them."""
    left = list(values)

    def call(*args):
        value = left.pop(0)
        if isinstance(value, BaseException):
            raise value
        return value, args

    return call


def test_it_waits_before_it_tries(wait):
    assert retry(wait, None, outcomes(7), "x", 2) == (7, ("x", 2))
    assert wait.given == [None]


def test_it_tries_again_while_the_call_would_block(wait):
    for result in (0, "", (), [0], False):
        found = [None, [], result]
        assert retry(wait, None, lambda found=found: found.pop(0)) is result
    assert until(wait, None, outcomes(BlockingIOError(), BlockingIOError(), 7)) == (7, ())
    assert wait.given == [None] * 18


def test_the_timeout_is_for_the_whole(wait):
    found = [None, None, 7]
    assert until(wait, LONG, lambda: found.pop(0)) == 7
    first, *later = wait.given
    assert first == LONG and 0 < later[1] <= later[0] < LONG


def would_block():
    raise BlockingIOError


@pytest.mark.parametrize("call", [lambda: None, list, would_block])
def test_time_that_has_passed_ends_it(call):
    begin = time.monotonic()
    assert until(time.sleep, 0.02, call) is None
    assert time.monotonic() - begin >= 0.02
    with pytest.raises(TimeoutError, match="^timed out$") as caught:
        retry(time.sleep, 0.02, call)
    assert type(caught.value) is TimeoutError and caught.value.__context__ is None and caught.value.errno is None


def test_what_comes_with_the_last_try_counts():
    assert until(time.sleep, 0.001, outcomes(7)) == (7, ())


@pytest.mark.parametrize("timeout", [0, 0.0, -1.0])
def test_without_time_left_it_neither_waits_nor_tries(wait, timeout):
    assert until(wait, timeout, outcomes()) is None
    with pytest.raises(TimeoutError):
        retry(wait, timeout, outcomes())
    assert wait.given == []


def test_errors_of_the_wait_and_of_the_call_come_through(wait):
    def closed(seconds):
        raise OSError(9, "closed")

    with pytest.raises(OSError, match="closed"):
        until(closed, LONG, outcomes(7))
    for error in (TimeoutError("mine"), ValueError("mine"), KeyboardInterrupt("mine")):
        with pytest.raises(type(error), match="mine") as caught:
            until(wait, LONG, outcomes(BlockingIOError(), error))
        assert caught.value.__context__ is None


def test_a_call_that_says_what_it_wants_chooses_the_wait(wait):
    other = Waits()

    def choose(error):
        if isinstance(error, LookupError):
            return wait if isinstance(error, KeyError) else other
        raise error

    assert retry_as_wanted(choose, wait, None, outcomes(IndexError(), IndexError(), KeyError(), 7)) == (7, ())
    assert len(wait.given) == len(other.given) == 2
    assert retry_as_wanted(choose, other, None, lambda: None) is None
    for error in (BlockingIOError(), ValueError()):
        with pytest.raises(type(error)) as caught:
            retry_as_wanted(choose, wait, LONG, outcomes(KeyError(), error))
        assert caught.value is error and error.__context__ is None
    with pytest.raises(TimeoutError, match="^timed out$"):
        retry_as_wanted(choose, wait, 0.0, outcomes())


def test_no_clock_that_a_program_replaces_is_asked(wait, monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert until(time.sleep, 0.001, lambda: None) is None


def test_a_descriptor_is_ready_or_not():
    a, b = socket.socketpair()
    with a, b:
        assert is_ready(a.fileno(), POLLIN) is False and is_ready(a.fileno(), POLLOUT) is True
        b.send(b"x")
        assert is_ready(a.fileno(), POLLIN)
        number = a.fileno()
    assert is_ready(number, POLLIN) and is_ready(-1, POLLIN)  # closed: the call will say so


def test_waiting_goes_on_until_it_is_ready():
    read, write = os.pipe()
    try:
        waits = []

        def wait(seconds):
            waits.append(seconds)
            if len(waits) == 3:  # woken for nothing before: others were faster
                os.write(write, b"x")

        wait_until_ready(read, POLLIN, wait)
        assert waits == [None] * 3
        wait_until_ready(read, POLLIN, wait)
        assert len(waits) == 3
    finally:
        os.close(read)
        os.close(write)


def test_a_signal_while_it_looks_does_not_make_a_pipe_ready():
    """poll(2) fails with EINTR even if it does not wait; a read of the empty pipe would then stop all greenlets."""
    out = python(
        """
        import os, select, signal
        from weald._base.waiting import is_ready
        empty, _ = os.pipe()
        handled = wrong = 0
        def handler(signum, frame):
            global handled
            handled += 1
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while handled < 300:
            wrong += is_ready(empty, select.POLLIN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(wrong)
        """
    )
    assert out == "0\n"


def test_readiness_where_poll_fails():
    """As if memory were short: what cannot be told must not count as ready, or the call would block the thread."""
    reading, writing = os.pipe()
    with no_descriptors():
        assert not is_ready(reading, POLLIN) and is_ready(writing, POLLOUT)
        os.write(writing, b"x")
        assert is_ready(reading, POLLIN)
        os.close(writing)
        os.read(reading, 1)
        assert is_ready(reading, POLLIN)  # the end
        os.close(reading)
        assert is_ready(reading, POLLIN)  # the call will raise
        with pytest.raises(OSError, match="Invalid argument"):
            is_ready(100_000, POLLIN)
