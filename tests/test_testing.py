"""weald.testing: waiting until all others are parked; a clock that jumps."""

import os
import socket
import threading

import pytest
from helpers import PATIENCE, python

import weald
import weald.socket
from weald import _core
from weald.event import Event
from weald.lock import Semaphore
from weald.queue import Queue
from weald.testing import blocked, virtual_clock


@pytest.fixture
def pair():
    a, b = weald.socket.socketpair()
    with a, b:
        yield a, b


# ---------------------------------------------------------------- blocked


def test_what_has_been_set_going_has_gone_as_far_as_it_can(loop_name):
    """However many switches that takes."""
    queues = [Queue[int]() for _ in range(50)]

    def hand_on(number):
        for _ in range(3):
            queues[number + 1].put(queues[number].get() + 1)

    for number in range(49):
        weald.spawn(hand_on, number)
    for _ in range(3):
        queues[0].put(0)
    blocked()
    assert [queues[-1].get_nowait() for _ in range(3)] == [49] * 3


def test_data_that_has_been_sent_is_read(io_loop, pair):
    a, b = pair

    def echo():
        while data := b.recv(100):
            b.sendall(data)

    weald.spawn(echo)
    answers = []
    reader = weald.spawn(lambda: answers.extend(iter(lambda: a.recv(100), b"")))
    blocked()
    assert not answers and not reader.ready()
    for number in range(20):
        a.sendall(b"%d" % number)
        blocked()
        assert answers[number:] == [b"%d" % number]
    b.shutdown(socket.SHUT_RDWR)
    blocked()
    assert reader.ready()


def test_timers_that_are_not_due_are_not_waited_for(loop_name):
    begin = weald.get_hub().loop.now()
    sleeper = weald.spawn(weald.sleep, 1000)
    due = weald.spawn_later(0, int)
    blocked()
    assert not sleeper.ready() and due.ready()
    if loop_name == "virtual":
        assert weald.get_hub().loop.now() == begin
    sleeper.kill()


def test_callbacks_and_watchers_run_first(loop_name):
    seen = []
    hub = weald.get_hub()
    event = Event()
    hub.run_callback(seen.append, "callback")
    with hub.loop.timer(0) as timer, hub.loop.check() as check:
        timer.start(event.set)
        check.start(check.stop)
        waiter = weald.spawn(event.wait)
        blocked()
        assert seen == ["callback"] and waiter.ready() and not check.active


def test_several_wait_for_it(loop_name):
    lock, order = Semaphore(0), list[int]()

    def look_on(number):
        blocked()
        order.append(number)

    onlookers = [weald.spawn(look_on, number) for number in range(3)]
    worker = weald.spawn(lambda: (lock.acquire(), order.append(-1)))
    weald.spawn(lock.release)
    weald.joinall([*onlookers, worker])
    assert order == [-1, 0, 1, 2]


def test_it_can_be_cut_short(loop_name):
    def run_on():
        while not stop:
            weald.sleep(0)

    stop = []
    runner, onlooker = weald.spawn(run_on), weald.spawn(blocked)
    for _ in range(1000):
        weald.sleep(0)
    assert not onlooker.ready()
    onlooker.kill()
    stop.append(1)
    blocked()
    assert runner.ready() and isinstance(onlooker.value, weald.GreenletExit)


def test_nobody_else_is_there():
    """It does not count as a deadlock; real ones are reported as usual."""
    out = python(
        """
        import weald
        from weald.event import Event
        from weald.testing import blocked
        blocked()
        waiting = weald.spawn(Event().wait)
        blocked()
        print(waiting.ready())
        try:
            waiting.join()
        except weald.LoopExit:
            blocked()
            print("deadlock")
        """
    )
    assert out == "False\ndeadlock\n"


def test_in_a_thread_and_in_a_forks_child():
    def in_thread():
        event = Event()
        done = weald.spawn(lambda: event.wait() and 7)
        blocked()
        event.set()
        blocked()
        results.append(done.value)

    results = []
    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join(PATIENCE)
    assert results == [7]
    # A greenlet forks the child while another waits in `blocked`: the other one stays in the parent.
    looking = weald.spawn(blocked)
    weald.sleep(0)

    def fork():
        pid = os.fork()
        if not pid:
            try:
                in_thread()
                os._exit(0 if results == [7, 7] and not looking.ready() else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert weald.spawn(fork).get() == 0
    looking.join(PATIENCE)
    assert looking.successful()


def test_the_hub_itself_cannot_wait():
    errors = []

    def call():
        try:
            blocked()
        except weald.BlockingSwitchOutError as error:
            errors.append(error)

    weald.get_hub().run_callback(call)
    blocked()
    assert len(errors) == 1


# ---------------------------------------------------------------- virtual_clock


def test_time_jumps_within_the_block():
    before = weald.get_hub()
    with virtual_clock() as hub:
        assert hub is weald.get_hub() is not before and hub.loop.name == "virtual"
        begin = hub.loop.now()
        order = []
        sleepers = [weald.spawn(lambda n=n: (weald.sleep(n), order.append(n))) for n in (3000, 1000, 2000)]
        weald.joinall(sleepers)
        assert order == [1000, 2000, 3000] and hub.loop.now() == begin + 3000
        other = []
        thread = threading.Thread(target=lambda: other.append(weald.get_hub().loop.name))
        thread.start()
        thread.join(PATIENCE)
        assert other == ["virtual"]
    assert weald.get_hub().loop.name != "virtual"


def test_an_exception_ends_the_block():
    with pytest.raises(KeyError), virtual_clock():
        raise KeyError
    assert weald.get_hub().loop.name != "virtual"


def test_a_loop_that_was_chosen_is_chosen_again():
    _core.set_loop_factory("libev")
    try:
        with virtual_clock():
            pass
        assert weald.get_hub().loop.name == "libev"
    finally:
        weald.get_hub().destroy()
        _core.set_loop_factory(None)
