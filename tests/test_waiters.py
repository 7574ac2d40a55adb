"""The waiters of every primitive: order, timeouts, kills, links; for greenlets and threads alike."""

import random
import signal
import threading

import pytest
from helpers import Thread, python, recorded_errors, settle, takes, tick, wait_until, waiting

import weald
from weald import _core
from weald.event import AsyncResult, Event
from weald.lock import Lock, Semaphore
from weald.queue import Channel, Queue


def test_first_come_first_woken(loop_name):
    semaphore, order = Semaphore(0), []

    def work(name):
        semaphore.acquire()
        order.append(name)

    greenlets = []
    for name in range(5):
        greenlets.append(weald.spawn(work, name))
        weald.sleep(0)
    semaphore.release(5)
    weald.joinall(greenlets)
    assert order == [0, 1, 2, 3, 4]


def test_greenlets_and_threads_wait_in_one_queue(io_loop):
    lock, order = Lock(), []

    def work(name):
        with lock:
            order.append(name)

    lock.acquire()
    waiters = []
    for name in ("greenlet", "thread", "greenlet", "thread"):
        if name == "greenlet":
            waiters.append(weald.spawn(work, name))
        else:
            waiters.append(Thread(work, name))
        wait_until(lambda: waiting(lock) == len(waiters))
    lock.release()
    wait_until(lambda: len(order) == 4)
    assert order == ["greenlet", "thread", "greenlet", "thread"]


@pytest.mark.parametrize("end", ["timeout", "kill", "Timeout"])
def test_whoever_stops_waiting_leaves_the_queue(loop_name, end):
    event = Event()

    def work():
        if end == "Timeout":
            with weald.Timeout(tick(), False):
                event.wait()
            return None
        return event.wait(tick() if end == "timeout" else None)

    greenlet = weald.spawn(work)
    weald.sleep(0)
    assert waiting(event) == 1
    if end == "kill":
        greenlet.kill()
    with takes(0 if end == "kill" else 1):
        greenlet.join()
    assert waiting(event) == 0


def test_one_that_is_killed_once_woken_passes_on_what_it_was_given(loop_name):
    queue = Queue()
    first, second = weald.spawn(queue.get), weald.spawn(queue.get)
    weald.sleep(0)
    first.kill(block=False)
    queue.put(1)  # wakes the first, which is killed before it runs
    weald.joinall([first, second])
    assert isinstance(first.value, weald.GreenletExit) and second.value == 1


@pytest.mark.parametrize(
    ("timeout", "error"), [(float("nan"), ValueError), ("1", TypeError), (object(), TypeError), (1j, TypeError)]
)
def test_timeouts_that_are_none(loop_name, timeout, error):
    event = Event()
    with pytest.raises(error):
        event.wait(timeout)
    assert waiting(event) == 0


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5])
def test_timeouts_that_are_over_at_once(loop_name, timeout):
    with takes(0):
        assert Event().wait(timeout) is False


@pytest.mark.parametrize(
    ("make", "call", "result"),
    [
        (lambda: Semaphore(0), lambda semaphore: semaphore.acquire(timeout=0), "False"),
        (Event, lambda event: event.wait(0), "False"),
        (AsyncResult, lambda result: result.wait(timeout=0), "None"),
        (AsyncResult, lambda result: result.get(timeout=0), "Timeout"),
        (Queue, lambda queue: queue.get(timeout=0), "Empty"),
        (Queue, lambda queue: queue.get(block=False), "Empty"),
        (Queue, lambda queue: queue.peek(timeout=0), "Empty"),
        (Channel, lambda channel: channel.get(timeout=0), "Empty"),
        (Channel, lambda channel: channel.put(1, timeout=0), "Full"),
        (lambda: Queue(1, [1]), lambda queue: queue.put(2, timeout=0), "Full"),
        (lambda: Queue(1, [1]), lambda queue: queue.put(2, block=False), "Full"),
        (lambda: Queue(items=[1]), lambda queue: queue.join(timeout=0), "False"),
    ],
)
def test_a_wait_of_no_time_is_over_at_once_in_a_callback(loop_name, make, call, result):
    """Where nobody can wait."""
    found, thing, over = [], make(), Event()

    def callback():
        try:
            found.append(str(call(thing)))
        except (Exception, weald.Timeout) as error:
            found.append(type(error).__name__)
        over.set()

    weald.get_hub().run_callback(callback)
    over.wait()
    assert found == [result]


def test_a_timeout_object_counts_by_its_seconds(virtual):
    result = AsyncResult()
    timeout = weald.Timeout(5)
    begin = virtual.loop.now()
    with pytest.raises(weald.Timeout) as caught:
        result.get(timeout=timeout)  # type: ignore[arg-type]
    assert caught.value is timeout and virtual.loop.now() == begin + 5


# ------------------------------------------------------------------ threads without a hub


def in_thread(function, *args):
    """Return `function(*args)`, called in a thread of its own, in which it must not make a hub."""

    def work():
        found = function(*args)
        assert _core.get_hub_if_exists() is None
        return found

    return Thread(work).result()


def test_a_thread_without_a_hub_waits_and_times_out():
    event = Event()
    assert in_thread(event.wait, 0.001) is False
    assert waiting(event) == 0
    event.set()
    assert in_thread(event.wait) is True


def test_a_thread_without_a_hub_is_woken_from_a_greenlet(io_loop):
    event = Event()
    thread = Thread(event.wait)
    wait_until(lambda: waiting(event) == 1)
    event.set()
    assert thread.result() is True


def test_a_signals_handler_runs_though_its_thread_waits():
    """The main thread waits with its hub, and wakes for the handler; the wait goes on."""
    code = f"""
        import os, signal, threading, weald
        from weald.event import Event
        event = Event()
        signal.signal({int(signal.SIGUSR1)}, lambda *args: event.set())
        threading.Timer(0.05, os.kill, (os.getpid(), {int(signal.SIGUSR1)})).start()
        print(event.wait(100))
    """
    assert python(code) == "True\n"


# ------------------------------------------------------------------ links


def test_links_are_called_once_in_order_and_in_the_hub(loop_name):
    hub, event, calls = weald.get_hub(), Event(), []
    for name in "ab":
        event.rawlink(lambda source, name=name: calls.append((name, source, weald.getcurrent() is hub)))
    assert calls == [] and event.statistics()["links"] == 2
    event.set()
    event.clear()
    event.set()
    settle()
    assert calls == [("a", event, True), ("b", event, True)] and event.statistics()["links"] == 0


def test_a_link_to_what_is_ready_is_called_soon(loop_name):
    event, calls = Event(), []
    event.set()
    event.rawlink(calls.append)
    assert calls == []
    settle()
    assert calls == [event]


def test_a_link_can_be_taken_back_until_its_turn_has_come(loop_name):
    event, calls = Event(), []
    event.rawlink(calls.append)
    event.rawlink(calls.append)
    event.unlink(print)  # there is none
    event.set()
    event.unlink(calls.append)  # one of the two
    settle()
    assert calls == [event]


def test_a_link_that_fails_is_reported_and_the_others_are_called(loop_name):
    event, calls = Event(), []

    def fail(source):
        raise KeyError("a link")

    event.rawlink(fail)
    event.rawlink(calls.append)
    with recorded_errors() as errors:
        event.set()
        settle()
    assert calls == [event]
    assert [(context[0] is fail, kind) for context, kind, _, _ in errors] == [(True, KeyError)]


class Callback:
    """Notes its calls.  Equal to callbacks of the same name."""

    compared = 0

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __call__(self, source):
        self.calls.append(self)

    def __eq__(self, other):
        Callback.compared += 1
        return isinstance(other, Callback) and other.name == self.name

    def __hash__(self):
        return hash(self.name)


class Unhashable(Callback):
    __hash__ = None


def take_back(links, callback):
    """What `unlink` does, with a list: the first that is `callback`, or else equal to it."""
    same = [place for place, each in enumerate(links) if each is callback]
    equal = [place for place, each in enumerate(links) if each == callback]
    for place in [*same, *equal][:1]:
        del links[place]


@pytest.mark.parametrize("names", [5, 1000], ids=["equal", "different"])
@pytest.mark.parametrize("kinds", [[Callback], [Callback, Unhashable]], ids=["hashable", "unhashable"])
@pytest.mark.parametrize("make", [Event, AsyncResult])
def test_links_are_called_in_order_however_many_were_taken_back(make, kinds, names):
    chance = random.Random(1)
    for count in [10, 40, 200]:
        subject, expected, calls = make(), [], []
        made = [chance.choice(kinds)(chance.randrange(names), calls) for _ in range(count)]

        def change(link_odds, subject=subject, expected=expected, made=made):
            callback = chance.choice(made)
            if chance.random() < link_odds:
                subject.rawlink(callback)
                expected.append(callback)
            else:
                subject.unlink(callback)
                take_back(expected, callback)
            assert subject.statistics()["links"] == len(expected)

        for odds in [1.0, 0.5, 0.7]:
            for _ in range(count):
                change(odds)
        subject.set()
        for _ in range(count):
            change(0.0)
        settle()
        assert [id(each) for each in calls] == [id(each) for each in expected]
        assert subject.statistics()["links"] == 0


def test_a_greenlets_links_are_called_in_order_however_many_were_taken_back():
    g, calls = weald.spawn(int), []
    links = [Callback(name, calls) for name in range(100)]
    for each in links:
        g.link(each)
    for each in random.Random(1).sample(links, 60):
        g.unlink(each)
        links.remove(each)
    g.join()
    settle()
    assert calls == links and not g.has_links()


def test_taking_back_one_of_many_links_looks_at_few():
    event, calls, count = Event(), [], 300
    for name in range(count):
        event.rawlink(Callback(name, calls))
    Callback.compared = 0
    for name in random.Random(1).sample(range(count), count):
        event.unlink(Callback(name, calls))
        event.unlink(Callback(-1, calls))  # there is none
    assert event.statistics()["links"] == 0
    assert Callback.compared <= 2 * count


def test_a_link_can_be_taken_back_while_links_are_made(virtual):
    event, calls = Event(), []

    class Meddling(Callback):
        def __hash__(self):
            weald.sleep(1)  # others make links and take some back
            return 1

    links = [Meddling("first", calls), *[Callback(name, calls) for name in range(30)]]
    for each in links:
        event.rawlink(each)
    late = Callback("late", calls)
    taking = weald.spawn(event.unlink, links[5])
    weald.sleep(0.5)
    event.rawlink(late)
    event.unlink(links[7])
    taking.join()
    event.set()
    weald.sleep(5)
    assert [each.name for each in calls] == ["first", *[name for name in range(30) if name not in (4, 6)], "late"]


def test_a_link_must_be_callable(loop_name):
    event = Event()
    with pytest.raises(TypeError, match="a link must be callable"):
        event.rawlink(3)  # type: ignore[arg-type]
    assert event.statistics()["links"] == 0


def test_a_link_is_called_in_the_hub_of_the_thread_that_made_it(io_loop):
    event, where = Event(), []
    linked = threading.Event()

    def work():
        hub = weald.get_hub()
        event.rawlink(lambda source: where.append(weald.getcurrent() is hub))
        linked.set()
        wait_until(lambda: where)

    thread = Thread(work)
    linked.wait()
    event.set()
    thread.result()
    assert where == [True]
