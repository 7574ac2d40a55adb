"""Queues: order, blocking, shutdown, tasks; nothing lost when getters die."""

import threading
import weakref
from types import GenericAlias

import pytest
from helpers import PATIENCE, HubMakingTime, settle

import weald
from weald.queue import Channel, Empty, Full, LifoQueue, PriorityQueue, Queue, ShutDown, SimpleQueue


@pytest.mark.parametrize(("make", "order"), [(Queue, [3, 1, 2]), (LifoQueue, [2, 1, 3]), (PriorityQueue, [1, 2, 3])])
def test_order(loop_name, make, order):
    q = make()
    for n in (3, 1, 2):
        q.put(n)
    assert q.peek() == order[0]
    assert [q.get() for _ in range(3)] == order


def test_ten_thousand_producers(loop_name):
    q = Queue(1)
    for n in range(10_000):
        weald.spawn(q.put, n)
    assert [q.get() for _ in range(10_000)] == list(range(10_000))


def test_blocking_and_timeouts(virtual):
    q = Queue(1)
    with pytest.raises(Empty):
        q.get_nowait()
    with pytest.raises(Empty):
        q.get(timeout=1)
    q.put(1)
    with pytest.raises(Full):
        q.put_nowait(2)
    with pytest.raises(Full):
        q.put(2, timeout=1)
    assert q.get() == 1 and q.statistics() == {"items": 0, "getters": 0, "putters": 0}


def test_getters_are_served_in_order(loop_name):
    q, seen = Queue(), []
    gs = [weald.spawn(lambda n=n: seen.append((n, q.get()))) for n in range(5)]
    weald.sleep(0)
    for n in range(5):
        q.put(n)
    weald.joinall(gs)
    assert seen == [(n, n) for n in range(5)]


@pytest.mark.parametrize("make", [Queue, LifoQueue, PriorityQueue, SimpleQueue])
def test_a_getter_that_dies_with_an_item_in_hand_puts_it_back(loop_name, make):
    q = make()
    g = weald.spawn(q.get)
    weald.sleep(0)
    weald.get_hub().run_callback(g.throw)  # runs before the wake-up that `put` schedules
    q.put("x")
    weald.sleep(0)
    assert g.dead and q.get_nowait() == "x"


def test_channel_meets(loop_name):
    c, seen = Channel(), []
    weald.spawn(lambda: (c.put(1), seen.append("put")))
    weald.sleep(0)
    assert seen == [] and c.get() == 1
    weald.sleep(0)
    assert seen == ["put"]
    with pytest.raises(Full):
        c.put_nowait(1)
    getter = weald.spawn(c.get)
    weald.sleep(0)
    c.put_nowait(5)
    assert getter.get() == 5


def test_iteration_ends_with_stop_iteration(loop_name):
    assert list(Queue(items=[1, 2, StopIteration])) == [1, 2]


def test_task_done_and_join(loop_name):
    q = Queue()
    for n in range(3):
        q.put(n)
    joiner = weald.spawn(q.join)
    weald.sleep(0)
    for _ in range(3):
        assert not joiner.ready()
        q.get()
        q.task_done()
        weald.sleep(0)
    assert joiner.get() is True
    with pytest.raises(ValueError):
        q.task_done()


def test_shutdown(loop_name):
    q = Queue()
    q.put(1)
    q.shutdown()
    with pytest.raises(ShutDown):
        q.put(2)
    assert q.get() == 1
    with pytest.raises(ShutDown):
        q.get()
    waiting = Queue()
    g = weald.spawn(waiting.get)
    weald.sleep(0)
    waiting.shutdown()
    with pytest.raises(ShutDown):
        g.get()


def test_between_threads():
    q = Queue(2)

    def produce():
        for n in range(500):
            q.put(n)

    threads = [threading.Thread(target=produce) for _ in range(4)]
    for thread in threads:
        thread.start()
    got = sorted(q.get(timeout=PATIENCE) for _ in range(2000))
    for thread in threads:
        thread.join()
    assert got == sorted(list(range(500)) * 4)


@pytest.mark.parametrize("make", [Queue, LifoQueue, PriorityQueue, SimpleQueue])
def test_a_maxsize_of_0_is_no_limit(make):
    q = make(0)
    assert q.maxsize is None and not q.full()
    for n in range(3):
        q.put_nowait(n)
    assert q.qsize() == 3 and q.copy().maxsize is None


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2)])
@pytest.mark.parametrize("make", [Queue, SimpleQueue, Channel])
def test_items_in_the_hands_of_several_dying_getters_keep_their_order(virtual, make, order):
    q = make()
    getters = [weald.spawn(q.get) for _ in range(3)]
    weald.sleep(0)
    if make is Channel:  # there a put of a greenlet lets the getter go on first
        for n in range(3):
            weald.get_hub().run_callback(q.put, n)
    for n in order:
        weald.get_hub().run_callback(getters[n].throw)
    if make is not Channel:
        for n in range(4):
            q.put(n)
    settle()
    assert [getters[n].value for n in range(3) if n not in order] == [n for n in range(3) if n not in order]
    assert [q.get_nowait() for _ in order] == sorted(order)
    assert make is Channel or q.get_nowait() == 3


def test_an_item_that_was_put_back_wakes_who_peeks(virtual):
    q = Queue()
    getter = weald.spawn(q.get)
    weald.sleep(0)
    peeker = weald.spawn(q.peek)  # begins once the item is in the getter's hand
    weald.get_hub().run_callback(getter.throw)
    q.put("x")
    assert peeker.get(timeout=1) == "x" and getter.dead and q.get_nowait() == "x"


def test_peeking_into_a_channel(virtual):
    c = Channel()
    peeker = weald.spawn(c.peek)
    weald.sleep(0)
    putter = weald.spawn(c.put, 1)
    assert peeker.get(timeout=1) == 1 and not putter.ready()
    assert c.get() == 1


@pytest.mark.parametrize("wait", ["get", "peek"])
def test_an_item_that_comes_while_the_first_wait_makes_the_hub(wait):
    q = Queue()
    with HubMakingTime(lambda: q.put(1)):
        assert getattr(q, wait)(timeout=0) == 1


def test_room_that_comes_while_the_first_wait_makes_the_hub():
    q = Queue(1, [1])
    with HubMakingTime(q.get):
        q.put(2, timeout=0)
    q.task_done()
    with HubMakingTime(q.task_done):
        assert q.join(timeout=0) is True


@pytest.mark.parametrize("make", [Queue, SimpleQueue])
def test_a_timeout_below_zero_is_an_error(make):
    queue = make(1)
    queue.put(1, timeout=0)
    for call in (lambda: queue.get(timeout=-1), lambda: queue.put(2, timeout=-1)):
        with pytest.raises(ValueError, match="non-negative"):
            call()
    with pytest.raises(Full):
        queue.put(2, False, -1)
    assert queue.get(False, -1) == 1


@pytest.mark.parametrize("make", [SimpleQueue, Queue, LifoQueue, PriorityQueue, Channel])
def test_weak_references(make):
    queue = make()
    reference = weakref.ref(queue)
    assert reference() is queue
    del queue
    assert reference() is None


# -------------------------------------------------------------------- subclasses


class Unique(Queue):
    """Keeps each item once."""

    def _init(self, maxsize, items=()):
        self.kept = dict.fromkeys(items)

    def _put(self, item):
        self.kept[item] = None

    def _get(self):
        item = next(iter(self.kept))
        del self.kept[item]
        return item

    def _peek(self):
        return next(iter(self.kept))

    def _qsize(self):
        return len(self.kept)


class Further(Unique):
    """Inherits what its base overrides."""


@pytest.mark.parametrize("make", [Unique, Further])
def test_a_subclass_keeps_items_as_it_likes(loop_name, make):
    q = make(2, [1, 2])
    assert q.full() and len(q) == q.qsize() == 2 and q.peek() == 1
    late = weald.spawn(q.put, 3)
    settle()
    assert not late.dead
    assert q.get() == 1
    late.get()
    assert [q.get(), q.get()] == [2, 3] and q.empty()
    getters = [weald.spawn(q.get) for _ in range(3)]
    settle()
    for item in "aab":
        q.put(item)
    assert [getter.get() for getter in getters] == ["a", "a", "b"]
    q.put("c")
    q.put("c")
    assert q.qsize() == 1


@pytest.mark.parametrize(
    ("base", "first", "second"), [(Queue, 1, 2), (SimpleQueue, 1, 2), (LifoQueue, 2, 1), (PriorityQueue, 1, 2)]
)
def test_a_subclass_may_call_its_bases_ways(base, first, second):
    calls = []

    class Recording(base):
        def _put(self, item):
            calls.append(item)
            super()._put(item)

        def _get(self):
            return super()._get(), "got"

    q = Recording()
    q.put(1)
    q.put(2)
    assert calls == [1, 2] and q.peek() == first
    assert q.get() == (first, "got") and q.get() == (second, "got")


class Choosy(Queue):
    def _put(self, item):
        if item == "bad":
            raise ZeroDivisionError(item)
        super()._put(item)

    def _get(self):
        if self.queue[0] == "stuck":
            raise ZeroDivisionError(self.queue[0])
        return super()._get()


def test_an_error_of_a_subclass_reaches_who_called_and_leaves_the_queue_as_it_was(loop_name):
    q = Choosy(1)
    with pytest.raises(ZeroDivisionError):
        q.put("bad")
    assert q.empty() and q.unfinished_tasks == 0
    q.put(1)
    putters = [weald.spawn(q.put, item) for item in ("bad", "good")]
    settle()
    assert q.get() == 1
    weald.joinall(putters)
    assert isinstance(putters[0].exception, ZeroDivisionError) and putters[1].successful()
    assert q.get() == "good" and q.unfinished_tasks == 2

    getter = weald.spawn(q.get)
    settle()
    q.put("stuck")
    getter.join()
    assert isinstance(getter.exception, ZeroDivisionError) and q.qsize() == 1
    with pytest.raises(ZeroDivisionError):
        q.get()


def test_a_getter_that_dies_with_a_subclasss_item_gives_it_back(loop_name):
    q = Unique()
    getters = [weald.spawn(q.get) for _ in range(2)]
    settle()
    weald.get_hub().run_callback(getters[0].throw)
    q.put("a")
    assert getters[1].get(timeout=PATIENCE) == "a"
    last = weald.spawn(q.get)
    settle()
    weald.get_hub().run_callback(last.throw)
    q.put("b")
    last.join()
    assert q.get_nowait() == "b"


def test_another_container_may_be_assigned(loop_name):
    q = Queue()
    q.put(1)
    q.queue = [7, 8]
    assert q.qsize() == 2 and q.get() == 8
    q = LifoQueue()
    q.queue = [7, 8]
    assert q.get() == 8


@pytest.mark.parametrize("make", [SimpleQueue, Queue, LifoQueue, PriorityQueue, Channel, Unique])
def test_a_subscript_is_a_generic_alias(make):
    alias = make[int]
    assert type(alias) is GenericAlias and alias.__origin__ is make and alias.__args__ == (int,)


def test_a_getter_that_waits_in_a_channel_goes_on_before_the_putter(loop_name):
    channel, log = Channel(), []

    def put():
        for n in range(3):
            channel.put(n)
            log.append(f"put {n}")

    def get():
        for _ in range(3):
            log.append(f"got {channel.get()}")

    for first, second in ((put, get), (get, put)):
        log.clear()
        weald.joinall([weald.spawn(first), weald.spawn(second)])
        assert log == ["got 0", "put 0", "got 1", "put 1", "got 2", "put 2"]


def test_a_channel_tells_who_waits(loop_name):
    channel = Channel()
    getter = weald.spawn(channel.get)
    settle()
    assert channel.getters == [getter] and channel.putters == []
    getter.kill()
    putter = weald.spawn(channel.put, 1)
    settle()
    assert channel.getters == [] and channel.putters == [putter]
    assert channel.get() == 1


def test_a_timeout_that_no_clock_can_hold():
    """The standard library says OverflowError."""
    for empty in SimpleQueue(), Queue(), LifoQueue():
        for huge in 1e12, float("inf"):
            with pytest.raises(OverflowError):
                empty.get(timeout=huge)
            with pytest.raises(Empty):
                empty.get(block=False, timeout=huge)


def test_a_subclass_may_say_how_full_it_is(loop_name):
    class Bytes(Queue):
        def qsize(self):
            return sum(map(len, self.queue))

    q = Bytes(10)
    q.put(b"123456")
    assert len(q) == q.qsize() == 6 and not q.full() and not q.empty()
    q.put(b"7890")
    assert q.full()
    with pytest.raises(Full):
        q.put(b"1", block=False)
    putter = weald.spawn(q.put, b"abc")
    settle()
    assert not putter.ready()
    assert [q.get(), q.get(), q.get()] == [b"123456", b"7890", b"abc"]
    assert q.empty()
    putter.join()


def test_unfinished_tasks_begin_with_the_items(loop_name):
    assert [Queue(None, (1, 2), n).unfinished_tasks for n in (None, 0, 5)] == [2, 2, 5]
