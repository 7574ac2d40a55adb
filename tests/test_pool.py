"""Group and Pool: membership, limits, mapping, killing, errors."""


import greenlet as greenlet_module
import pytest
from helpers import PATIENCE, recorded_errors, settle

import weald
from weald import Greenlet, GreenletExit, Timeout
from weald.event import Event
from weald.pool import Group, Pool, PoolFull
from weald.queue import Full

pytestmark = pytest.mark.usefixtures("virtual")


@pytest.fixture(params=[Group, Pool, lambda: Pool(1), lambda: Pool(3)], ids=["Group", "Pool", "Pool(1)", "Pool(3)"])
def pool(request):
    made = request.param()
    return made


class Gauge:
    """Counts how many are inside at a time."""

    def __init__(self):
        self.inside = self.most = 0

    def __call__(self, item=None, seconds=1):
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            weald.sleep(seconds)
        finally:
            self.inside -= 1
        return item


def inverse(number):
    """Ready the sooner, the smaller `number` is; fails for 0."""
    weald.sleep(number)
    return 1 / number


def fail(error):
    raise error


def drain(iterator):
    """The results of an imap, with errors as their classes, until it stops."""
    got = []
    while True:
        try:
            got.append(next(iterator))
        except StopIteration:
            return got
        except Exception as error:
            got.append(type(error))


# -------------------------------------------------------------------- members


def test_members_are_those_that_run(pool):
    assert not pool and len(pool) == 0
    member = pool.spawn(weald.sleep, 1)
    assert len(pool) == 1 and member in pool and list(pool) == [member]
    assert pool.join() is True
    assert len(pool) == 0 and member not in pool and member.successful()


def test_a_group_of_what_runs_already():
    members = [weald.spawn(weald.sleep, seconds) for seconds in (1, 2)]
    group = Group(members)
    assert set(group) == set(members)
    group.add(members[0])
    assert len(group) == 2
    group.join()
    assert all(member.ready() for member in members)
    with pytest.raises(TypeError):
        Group(members, members)


def test_adding_what_has_ended_leaves_at_once(pool):
    ended = weald.spawn(int)
    ended.join()
    pool.add(ended)
    settle()
    assert not pool and pool.join(timeout=0) is True


def test_discarded_members_run_on(pool):
    member = pool.spawn(weald.sleep, 1)
    pool.discard(member)
    pool.discard(member)
    assert not pool and pool.join(timeout=0) is True and not member.ready()
    assert not pool.full()
    member.join()
    settle()
    assert not pool and not pool.full()


def test_a_greenlet_class_of_ones_own():
    class Mine(Greenlet):
        pass

    class MyGroup(Group):
        greenlet_class = Mine

    assert type(MyGroup().spawn(int)) is Mine
    assert type(Pool(1, Mine).spawn(int)) is Mine


@pytest.mark.parametrize("make", [Group, Pool, lambda: Pool(2)])
def test_spawn_from_a_member(make):
    pool = make()
    assert pool.spawn(pool.spawn, int, "7").get().get() == 7


# -------------------------------------------------------------------- joining


def test_join_times_out(pool, virtual):
    pool.spawn(weald.sleep, 10)
    begin = virtual.loop.now()
    assert pool.join(timeout=4) is False and virtual.loop.now() == begin + 4
    assert pool.join() is True and virtual.loop.now() == begin + 10


def test_join_raises_the_error_of_a_member(pool):
    with recorded_errors() as errors:
        pool.spawn(fail, KeyError("x"))
        pool.join()
        pool.spawn(fail, KeyError("y"))
        with pytest.raises(KeyError, match="y"):
            pool.join(raise_error=True)
    assert [call[1] for call in errors] == [KeyError, KeyError]



# -------------------------------------------------------------------- a limit


def test_spawn_waits_for_room_and_order_is_kept():
    pool, gauge, began = Pool(2), Gauge(), []

    def work(number):
        began.append(number)
        gauge()

    for number in range(7):
        pool.spawn(work, number)
        assert len(pool) <= 2
    pool.join()
    assert began == list(range(7)) and gauge.most == 2


def test_those_who_wait_for_room_get_it_in_order():
    pool, got = Pool(1), []
    blocker = pool.spawn(weald.sleep, 1)

    def want(number):
        pool.spawn(weald.sleep, 1)
        got.append(number)

    wanting = [weald.spawn(want, number) for number in range(5)]
    settle()
    assert got == [] and not blocker.ready()
    weald.joinall(wanting)
    assert got == [0, 1, 2, 3, 4]


def test_full_and_free():
    pool = Pool(2)
    assert not pool.full() and pool.free_count() == 2 and pool.wait_available() == 2
    first = pool.spawn(weald.sleep, 1)
    assert not pool.full() and pool.free_count() == 1 and pool.wait_available() == 1
    pool.spawn(weald.sleep, 2)
    assert pool.full() and pool.free_count() == 0
    assert pool.wait_available(timeout=0.5) == 0
    assert pool.wait_available() == 1 and first.ready()
    unlimited = Pool()
    unlimited.spawn(weald.sleep, 1)
    assert not unlimited.full() and unlimited.free_count() >= 1 and unlimited.wait_available() >= 1


def test_nobody_gets_into_a_full_pool(virtual):
    pool, outside = Pool(1), Greenlet(int)
    pool.spawn(weald.sleep, 10)
    with pytest.raises(PoolFull):
        pool.add(outside, blocking=False)
    begin = virtual.loop.now()
    with pytest.raises(Full):
        pool.add(outside, timeout=3)
    assert virtual.loop.now() == begin + 3
    with pytest.raises(PoolFull):
        pool.start(outside, blocking=False)
    assert outside not in pool and not outside.started
    pool.join()
    pool.start(outside)
    assert outside.get() == 0


def test_a_pool_of_size_0_is_full():
    pool = Pool(0)
    assert pool.full() and pool.free_count() == 0
    with pytest.raises(PoolFull):
        pool.add(Greenlet(int), blocking=False)
    with pytest.raises(ValueError):
        Pool(-1)


def test_killed_while_it_waits_for_room():
    pool = Pool(1)
    pool.spawn(weald.sleep, 1)
    wanting = weald.spawn(pool.spawn, weald.sleep, 1)
    settle()
    wanting.kill()
    pool.join()
    assert pool.wait_available() == 1 and pool.free_count() == 1 and not pool.full()


def test_room_is_given_back_once_however_a_member_ends():
    pool = Pool(4)
    with recorded_errors():
        failed, killed, early = (
            pool.spawn(fail, ValueError()),
            pool.spawn(weald.sleep, 9),
            pool.spawn(weald.sleep, 9),
        )
        early.kill()  # before it began
        settle()
        killed.kill()
    discarded = pool.spawn(weald.sleep, 1)
    pool.discard(discarded)
    discarded.join()
    settle()
    assert failed.ready() and not pool and pool.wait_available() == 4


def test_a_pool_grows_and_shrinks_as_celery_does_it():
    pool, gauge = Pool(2), Gauge()

    def feed():
        for number in range(20):
            pool.spawn(gauge, seconds=1 + number / 100)  # so that no two end at once

    assert pool.size is not None
    feeder = weald.spawn(feed)
    settle()
    assert gauge.inside == 2
    pool.size += 2
    pool._semaphore.release(2)
    settle()
    assert gauge.inside == 4
    pool.size -= 3
    pool._semaphore.counter -= 3
    weald.sleep(1.5)
    assert gauge.inside == 1
    gauge.most = 1
    feeder.join()
    pool.join()
    assert gauge.most == 1 and pool.wait_available() == 1 and pool.free_count() == 1


def test_a_pool_grows_as_gunicorn_does_it():
    """By raising the counter; waiting greenlets notice at the next release."""
    pool, gauge = Pool(1), Gauge()

    def feed():
        for _ in range(10):
            pool.spawn(gauge)

    feeder = weald.spawn(feed)
    settle()
    assert pool.size is not None
    pool.size += 2
    pool._semaphore.counter += 2
    feeder.join()
    pool.join()
    assert gauge.most == 3 and pool.wait_available() == 3


# -------------------------------------------------------------------- apply


def test_apply(pool):
    assert pool.apply(int, ("11",), {"base": 2}) == 3
    assert pool.apply(int) == 0
    with recorded_errors(), pytest.raises(ZeroDivisionError):
        pool.apply(inverse, (0,))


def test_apply_by_a_member_of_a_full_pool():
    pool = Pool(1)
    assert pool.spawn(pool.apply, int, ("7",)).get() == 7


def test_apply_cb(pool):
    called = []
    assert pool.apply_cb(int, ("7",), callback=called.append) == 7
    settle()
    assert called == [7]


def test_apply_async(pool):
    called = []
    task = pool.apply_async(inverse, (2,), callback=called.append)
    assert not task.ready() and task.get() == 0.5
    settle()
    assert called == [0.5]
    with recorded_errors():
        failed = pool.apply_async(inverse, (0,), callback=called.append)
        with pytest.raises(ZeroDivisionError):
            failed.get()
    settle()
    assert called == [0.5]


def test_apply_async_never_waits(virtual):
    pool, called = Pool(1), []
    begin = virtual.loop.now()
    tasks = [pool.apply_async(weald.sleep, (1,), callback=called.append) for _ in range(3)]
    assert virtual.loop.now() == begin and len(pool) == 1
    weald.joinall(tasks)
    settle()
    assert virtual.loop.now() == begin + 3 and called == [None] * 3


# -------------------------------------------------------------------- map


def test_map_keeps_the_order(pool):
    assert pool.map(inverse, [4, 2, 1]) == [0.25, 0.5, 1.0]
    assert pool.map(inverse, iter([])) == []


def test_map_runs_as_many_at_a_time_as_there_is_room_for(virtual):
    gauge, begin = Gauge(), virtual.loop.now()
    assert Pool(3).map(gauge, range(7)) == list(range(7))
    assert gauge.most == 3 and virtual.loop.now() == begin + 3


def test_map_raises_the_error_of_the_first_item_that_failed(pool):
    def work(number):
        weald.sleep(5 - number)
        raise ValueError(number)

    with recorded_errors() as errors, pytest.raises(ValueError, match="1"):
        pool.map(work, [1, 2])
    assert len(errors) >= 1


def test_map_cb_and_map_async(pool):
    called = []
    assert pool.map_cb(inverse, [2, 1], called.append) == [0.5, 1.0] and called == [[0.5, 1.0]]
    task = pool.map_async(inverse, [4, 1], called.append)
    assert len(called) == 1
    assert task.get() == [0.25, 1.0] and called[1:] == [[0.25, 1.0]]


def test_imap_keeps_the_order(pool):
    assert list(pool.imap(inverse, [4, 2, 1])) == [0.25, 0.5, 1.0]
    assert list(pool.imap(pow, [2, 3, 4], [3, 2])) == [8, 9]
    assert list(pool.imap(inverse, [])) == []


def test_imap_unordered_gives_first_what_is_ready_first():
    assert list(Pool(3).imap_unordered(inverse, [4, 2, 1])) == [1.0, 0.5, 0.25]
    assert list(Pool(1).imap_unordered(inverse, [4, 2, 1])) == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("maxsize", [None, 1, 2])
@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_an_item_that_fails_does_not_end_an_imap(pool, name, maxsize):
    with recorded_errors() as errors:
        got = drain(getattr(pool, name)(inverse, [1, 0, 2], maxsize=maxsize))
    assert sorted(map(str, got)) == sorted(map(str, [1.0, ZeroDivisionError, 0.5]))
    assert len(errors) == 1
    if name == "imap":
        assert got == [1.0, ZeroDivisionError, 0.5]


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_items_that_fail_end_an_imap_after_what_is_under_way(pool, name):
    def items():
        yield 2
        yield 1
        raise KeyError("items")

    results = getattr(pool, name)(inverse, items())
    assert sorted([next(results), next(results)]) == [0.5, 1.0]
    with pytest.raises(KeyError, match="items"):
        next(results)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)


@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_a_reader_that_is_behind_stops_the_feeder(name):
    taken = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    results = getattr(Pool(5), name)(int, items(), maxsize=2)
    weald.sleep(10)
    assert len(taken) == 3  # two that wait for the reader, and the one that waits for its slot
    next(results)
    weald.sleep(10)
    assert len(taken) == 4
    assert list(results) == list(range(1, 10))


@pytest.mark.parametrize("when", ["before it began", "while it runs"])
@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
def test_a_killed_imap_ends_its_reader(name, when):
    results = getattr(Pool(1), name)(inverse, [1, 2, 3])
    if when == "while it runs":
        settle()
    reader = weald.spawn(drain_until_exit, results)
    results.kill()
    assert isinstance(reader.get(timeout=PATIENCE)[-1], GreenletExit)


def drain_until_exit(results):
    got = []
    try:
        got.extend(results)
    except GreenletExit as error:
        got.append(error)
    return got


def test_imap_within_a_timeout():
    results = Pool(1).imap(inverse, [1, 100])
    with pytest.raises(Timeout), Timeout(10):
        list(results)


# -------------------------------------------------------------------- killing


def test_kill_ends_every_member(pool):
    seen = []

    def work():
        try:
            weald.sleep(100)
        except KeyError:
            seen.append("killed")

    free = pool.free_count() if isinstance(pool, Pool) and pool.size else 3
    members = [pool.spawn(work) for _ in range(free)]
    settle()
    pool.kill(KeyError)
    assert not pool and seen == ["killed"] * free and all(member.successful() for member in members)
    pool.kill()


def test_kill_before_members_began(pool):
    called = []
    member = pool.spawn(called.append, 1)
    pool.kill()
    assert not pool and called == [] and isinstance(member.value, GreenletExit)


def test_kill_without_waiting(pool):
    member = pool.spawn(weald.sleep, 100)
    settle()
    pool.kill(block=False)
    assert member in pool and not member.ready()
    settle()
    assert not pool and member.ready()


def test_kill_times_out_on_a_member_that_takes_its_time(pool, virtual):
    def work():
        try:
            weald.sleep(100)
        finally:
            weald.sleep(10)

    pool.spawn(work)
    settle()
    begin = virtual.loop.now()
    pool.kill(timeout=3)
    assert len(pool) == 1 and virtual.loop.now() == begin + 3
    pool.kill()
    assert not pool and virtual.loop.now() == begin + 10


def test_kill_takes_those_who_come_meanwhile():
    group = Group()

    def work():
        try:
            weald.sleep(100)
        finally:
            group.spawn(weald.sleep, 100)

    group.spawn(work)
    settle()
    group.kill()
    assert not group


def test_a_feeder_that_waits_for_room_is_let_in_and_killed_too():
    pool, begun = Pool(1), []
    pool.spawn(weald.sleep, 100)
    feeder = weald.spawn(lambda: [begun.append(pool.spawn(weald.sleep, 100)) for _ in range(2)])
    settle()
    pool.kill(timeout=1000)
    pool.kill(timeout=1000)
    assert feeder.ready() and not pool and all(member.ready() for member in begun)


def test_a_member_may_kill_its_group():
    group = Group()
    other = group.spawn(weald.sleep, 100)
    killer = group.spawn(group.kill)
    weald.joinall([other, killer], timeout=1000)
    assert other.ready() and killer.ready() and not group


def test_killone(pool):
    member, stranger = pool.spawn(weald.sleep, 100), weald.spawn(weald.sleep, 100)
    settle()
    pool.killone(stranger)
    assert not stranger.ready()
    pool.killone(member)
    assert member.ready() and member not in pool
    pool.killone(member)
    stranger.kill()


def test_plain_greenlets_can_be_members_and_killed():
    pool, seen = Pool(2), []
    started = Event()

    def work():
        started.set()
        try:
            weald.sleep(100)
        except GreenletExit:
            seen.append("killed")

    raw = weald.spawn_raw(work)
    pool.add(raw)
    started.wait()
    assert raw in pool and isinstance(raw, greenlet_module.greenlet) and len(pool) == 1
    pool.kill()
    settle()
    assert seen == ["killed"] and not pool and pool.wait_available() == 2


@pytest.mark.parametrize("size", [None, 10])
def test_ten_thousand_members(size):
    pool, total = Pool(size), []
    work = total.append
    for number in range(10_000):
        pool.spawn(work, number)
    pool.join()
    assert total == list(range(10_000)) and not pool


def test_what_map_has_called_is_no_member_any_more(pool):
    free = pool.free_count() if isinstance(pool, Pool) else None
    assert pool.map(inverse, [1, 1, 1]) == [1, 1, 1]
    assert len(pool) == 0
    if free is not None:
        assert pool.free_count() == free and pool.wait_available(0) >= free


def test_an_imap_has_the_next_of_python_2():
    for results in (Pool(2).imap(str, [1, 2]), Pool(2).imap_unordered(str, [1, 2])):
        assert sorted([results.next(), results.next()]) == ["1", "2"]
        with pytest.raises(StopIteration):
            results.next()
