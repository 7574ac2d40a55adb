"""Random runs against models: the primitives keep their promises, whatever is spawned, killed and timed out, and when.

Each machine drives one primitive on the virtual clock, by hypothesis: workers that use it, kills, timeouts,
and turns in which those that are ready run.  Between turns several things happen at once, so that wake-ups,
kills and timeouts meet.  The promises are checked when no worker is ready any more (`check`).  At the end no worker
may still wait for something that is available.

The runs are the same each time; WEALD_MODELS=20000 makes that many of each machine, random ones.
"""

import itertools
import os
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import weald
from weald import Timeout, _core
from weald.event import AsyncResult, Event
from weald.lock import BoundedSemaphore, Condition, Lock, RLock, Semaphore
from weald.queue import Channel, Empty, Full, LifoQueue, PriorityQueue, Queue, SimpleQueue

RUNS = int(os.environ.get("WEALD_MODELS", "0"))
SETTINGS = settings(max_examples=RUNS or 100, stateful_step_count=40, deadline=None, derandomize=not RUNS)

# Events of the tests happen at whole seconds, timeouts end in between: there are no ties.
TIMEOUTS = st.sampled_from([None, None, 0.5, 1.5, 3.5])
STYLES = st.sampled_from(["argument", "block"])  # a timeout as the call's argument, or a Timeout around it
ANYBODY = st.integers(0, 19)


class Machine(RuleBasedStateMachine):
    """The workers, kills and timeouts, and turns."""

    def __init__(self):
        super().__init__()
        weald.get_hub().destroy()
        _core.set_loop_factory("virtual")
        self.hub = weald.get_hub()
        self.errors = []
        self.hub.handle_error = lambda *args: self.errors.append(args)  # type: ignore[method-assign]
        self.workers = []
        self.tickets = itertools.count(1)
        self.running = None  # the ticket of the worker that has begun to wait, until another greenlet runs
        self.served = []  # tickets of those that parked and got what they waited for, in that order

    def spawn(self, function, *args):
        self.workers.append(weald.spawn(function, *args))

    @property
    def alive(self):
        self.workers = [worker for worker in self.workers if not worker.ready()]
        return self.workers

    @contextmanager
    def waiting(self, whom, timeout, style):
        """For a worker's wait: yields its ticket, which is in `whom` meanwhile, and the timeout to pass on."""
        ticket = next(self.tickets)
        whom.add(ticket)
        self.running = ticket
        try:
            if style == "block":
                with Timeout(timeout, False):
                    yield ticket, None
            else:
                yield ticket, timeout
        finally:
            whom.discard(ticket)

    def was_served(self, ticket):
        if self.running != ticket:
            self.served.append(ticket)
        self.running = None

    def settle(self):
        """Run the workers that are ready, until none is.  Takes no time."""
        for _ in range(2 * len(self.workers) + 10):
            self.running = None
            weald.sleep(0)
        assert not self.errors, self.errors
        self.running = None

    def check(self):
        """Check the promises while no worker is ready."""
        assert self.served == sorted(self.served), "somebody overtook somebody who waited"

    def free_everybody(self):
        """Give the waiting workers what they wait for."""
        raise NotImplementedError

    # ---------------------------------------------------------------- rules

    @precondition(lambda self: self.alive)
    @rule(victim=ANYBODY, how=st.sampled_from(["kill", "throw", "last"]))
    def kill(self, victim, how):
        self.running = None
        worker = self.alive[-1 if how == "last" else victim % len(self.alive)]
        if how == "throw":
            self.hub.run_callback(worker.throw)
        else:
            worker.kill(block=False)

    @rule()
    def turn(self):
        self.running = None
        weald.sleep(0)

    @rule()
    def rest(self):
        self.settle()
        self.check()

    @rule(seconds=st.sampled_from([1, 2, 5]))
    def pass_time(self, seconds):
        self.running = None
        weald.sleep(seconds)
        self.settle()
        self.check()

    def teardown(self):
        try:
            if hasattr(self, "subject"):
                self.settle()
                self.check()
                for _ in range(1000):
                    if not self.alive:
                        break
                    self.free_everybody()
                    self.running = None
                    weald.sleep(1)
                assert not self.alive, f"forgotten: {self.alive}"
                self.settle()
                self.check()
        finally:
            self.hub.destroy()
            _core.set_loop_factory(None)


# -------------------------------------------------------------------- semaphores


class SemaphoreMachine(Machine):
    bounded = False

    @initialize(permits=st.integers(0, 3))
    def make(self, permits):
        self.subject = Semaphore(permits)
        self.permits = permits
        self.acquiring = set()
        self.watching = set()
        self.holding = set()

    @rule(timeout=TIMEOUTS, style=STYLES, seconds=st.sampled_from([0, 1, 50]))
    def acquire(self, timeout, style, seconds):
        def work():
            got = False
            with self.waiting(self.acquiring, timeout, style) as (ticket, argument):
                got = self.subject.acquire(timeout=argument)
            if got:
                self.was_served(ticket)
                self.hold(ticket, seconds)

        self.spawn(work)

    def hold(self, ticket, seconds):
        assert self.subject.counter >= 0, "a permit was given that is owed"
        self.holding.add(ticket)
        try:
            weald.sleep(seconds)
        finally:
            self.holding.discard(ticket)
            self.subject.release()

    @rule(seconds=st.sampled_from([0, 1]))
    def try_to_acquire(self, seconds):
        def work():
            if self.subject.acquire(blocking=False):
                self.hold(next(self.tickets), seconds)

        self.spawn(work)

    @rule(timeout=TIMEOUTS, style=STYLES)
    def wait(self, timeout, style):
        def work():
            with self.waiting(self.watching, timeout, style) as (_, argument):
                self.subject.wait(argument)

        self.spawn(work)

    @precondition(lambda self: not self.bounded)
    @rule(count=st.integers(1, 3))
    def release(self, count):
        self.running = None
        self.permits += count
        self.subject.release(count)

    @precondition(lambda self: not self.bounded)
    @rule(count=st.integers(1, 2))
    def shrink(self, count):
        """As pools do."""
        self.settle()  # a permit may be on its way to a worker, which then gets it nevertheless
        self.permits -= count
        self.subject.counter -= count

    def check(self):
        super().check()
        semaphore = self.subject
        assert semaphore.counter == self.permits - len(self.holding)
        assert semaphore.statistics()["waiting"] == len(self.acquiring) + len(self.watching)
        assert semaphore.counter <= 0 or not (self.acquiring or self.watching)

    def free_everybody(self):
        self.release(max(1, -self.subject.counter))


class BoundedSemaphoreMachine(SemaphoreMachine):
    bounded = True

    @initialize(permits=st.integers(1, 3))
    def make(self, permits):
        super().make(permits)
        self.subject = BoundedSemaphore(permits)

    @rule(count=st.integers(1, 3))
    def release_too_many(self, count):
        with pytest.raises(ValueError):
            self.subject.release(self.permits - self.subject.counter + count)

    def free_everybody(self):
        pass  # the holders give theirs back in time


# -------------------------------------------------------------------- locks


class LockMachine(Machine):
    @initialize(make=st.sampled_from([Lock, RLock]))
    def make(self, make):
        self.subject = make()
        self.acquiring = set()
        self.inside = set()

    @rule(timeout=TIMEOUTS, style=STYLES, depth=st.integers(1, 3), seconds=st.sampled_from([0, 1, 7]))
    def acquire(self, timeout, style, depth, seconds):
        def work():
            got = False
            with self.waiting(self.acquiring, timeout, style) as (ticket, argument):
                got = self.subject.acquire(timeout=-1 if argument is None else argument)
            if got:
                self.was_served(ticket)
                try:
                    self.use(ticket, depth if isinstance(self.subject, RLock) else 1, seconds)
                finally:
                    self.subject.release()

        self.spawn(work)

    def use(self, ticket, depth, seconds):
        """With the lock held `depth` times."""
        if depth > 1:
            with self.subject:
                weald.sleep(seconds)
                self.use(ticket, depth - 1, seconds)
            return
        assert not self.inside and self.subject.locked()
        self.inside.add(ticket)
        try:
            weald.sleep(seconds)
        finally:
            self.inside.discard(ticket)

    @rule()
    def try_to_acquire(self):
        def work():
            if self.subject.acquire(blocking=False):
                try:
                    self.use(0, 1, 1)
                finally:
                    self.subject.release()

        self.spawn(work)

    @rule()
    def release_what_is_not_ours(self):
        if isinstance(self.subject, RLock) or not self.subject.locked():
            with pytest.raises(RuntimeError):
                self.subject.release()

    def check(self):
        super().check()
        assert self.subject.statistics()["waiting"] == len(self.acquiring)
        assert self.subject.locked() or not self.acquiring

    def free_everybody(self):
        pass  # the holder releases it in time

    def teardown(self):
        super().teardown()
        assert not hasattr(self, "subject") or not self.subject.locked()


# -------------------------------------------------------------------- conditions


class ConditionMachine(Machine):
    """Each notification wakes one waiter, in order, and passes on from a waiter that dies to one that still waits."""

    @initialize(make=st.sampled_from([Lock, RLock, Semaphore, lambda: None]))
    def make(self, make):
        self.subject = Condition(make())
        self.asleep = set()
        self.inside = set()
        self.notified = 0
        self.died = 0

    @contextmanager
    def locked(self, ticket):
        """Holds the lock for the body, and fails if the lock is not held by this greenlet alone when the body ends."""
        with self.subject:
            self.enter(ticket)
            try:
                yield
            finally:
                self.inside.discard(ticket)

    def enter(self, ticket):
        assert not self.inside, "two hold the lock"
        self.inside.add(ticket)

    @rule(count=st.integers(1, 3), timeout=TIMEOUTS, style=STYLES)
    def wait(self, count, timeout, style):
        def work():
            own = -next(self.tickets)
            with self.locked(own), self.waiting(self.asleep, timeout, style) as (ticket, argument):
                self.inside.discard(own)
                try:
                    notified = self.subject.wait(argument)
                except BaseException:
                    self.died += 1
                    raise
                finally:
                    self.enter(own)
                if notified:
                    self.notified += 1
                    self.was_served(ticket)

        for _ in range(count):
            self.spawn(work)
        self.settle()
        self.check()

    @rule(
        count=st.integers(1, 3),
        kills=st.lists(st.tuples(st.sampled_from(["before", "after", "later"]), ANYBODY), max_size=2),
        seconds=st.sampled_from([0, 1]),
    )
    def notify(self, count, kills, seconds):
        """Notify `count`, while some are killed: before it, after it, or while they wait for the held lock."""
        self.settle()
        asleep, notified, died = len(self.asleep), self.notified, self.died

        def kill_some(when):
            for moment, victim in kills:
                if moment == when and self.alive:
                    self.alive[victim % len(self.alive)].kill(block=False)

        def work():
            with self.locked(0):
                kill_some("before")
                self.subject.notify(count)
                kill_some("after")
                weald.sleep(seconds)
                kill_some("later")
                weald.sleep(seconds)

        notifier = weald.spawn(work)
        notifier.join()
        self.settle()
        self.check()
        died = self.died - died
        timed_out = asleep - len(self.asleep) - died - (self.notified - notified)
        assert timed_out == 0 or seconds
        assert min(count, asleep - died - timed_out) <= self.notified - notified <= min(count, asleep)

    @rule()
    def notify_all(self):
        self.settle()
        asleep, notified = len(self.asleep), self.notified
        with self.subject:
            self.subject.notify_all()
        self.settle()
        assert self.notified - notified == asleep and not self.asleep

    def check(self):
        super().check()
        assert self.subject.statistics()["waiting"] == len(self.asleep) and not self.inside
        assert self.subject.acquire(False)
        self.subject.release()

    def free_everybody(self):
        self.notify_all()


# -------------------------------------------------------------------- events


class EventMachine(Machine):
    """Those that wait when it is set are woken, also if it is cleared at once; no others are."""

    @initialize()
    def make(self):
        self.subject = Event()
        self.asleep = set()
        self.entitled = set()  # asleep, and it has been set since
        self.called = []
        self.linked = set()

    @rule(timeout=TIMEOUTS)
    def wait(self, timeout):
        def work():
            was_set = self.subject.is_set()
            with self.waiting(self.asleep, timeout, "argument") as (ticket, argument):
                woken = self.subject.wait(argument)
            assert woken == (was_set or ticket in self.entitled or self.subject.is_set())
            self.entitled.discard(ticket)
            if woken:
                self.was_served(ticket)

        self.spawn(work)

    @rule(clear=st.booleans())
    def set(self, clear):
        self.running = None
        self.entitled |= self.asleep
        self.subject.set()
        self.linked.clear()
        if clear:
            self.subject.clear()

    @rule()
    def clear(self):
        self.subject.clear()

    @rule()
    def link(self):
        ticket = next(self.tickets)
        if not self.subject.is_set():
            self.linked.add(ticket)
        self.subject.rawlink(lambda event: self.called.append(ticket))

    def check(self):
        super().check()
        assert self.subject.statistics() == {"waiting": len(self.asleep), "links": len(self.linked)}
        assert not (self.asleep & self.entitled) and not (self.subject.is_set() and self.asleep)
        assert self.called == sorted(set(self.called)) and not self.linked & set(self.called)

    def free_everybody(self):
        self.set(clear=False)


class AsyncResultMachine(Machine):
    """Each waiter gets the outcome that is set when the waiter runs."""

    @initialize()
    def make(self):
        self.subject = AsyncResult()
        self.asleep = set()
        self.outcomes = []

    @rule(timeout=TIMEOUTS, style=STYLES, wait=st.booleans())
    def get(self, timeout, style, wait):
        def work():
            with self.waiting(self.asleep, timeout, style) as (ticket, argument):
                try:
                    value = self.subject.wait(argument) if wait else self.subject.get(timeout=argument)
                except Timeout:
                    assert not self.subject.ready() or style == "block"
                    raise
                except ValueError as error:
                    assert error is self.outcomes[-1] and not wait
                else:
                    last = self.outcomes[-1] if self.outcomes else None
                    assert value == (None if isinstance(last, ValueError) else last)
            if self.subject.ready():
                self.was_served(ticket)

        def guarded():
            try:
                work()
            except Timeout:
                pass

        self.spawn(guarded)

    @rule(fails=st.booleans())
    def set(self, fails):
        self.running = None
        if fails:
            self.outcomes.append(ValueError())
            self.subject.set_exception(self.outcomes[-1])
        else:
            self.outcomes.append(next(self.tickets))
            self.subject.set(self.outcomes[-1])

    def check(self):
        super().check()
        assert self.subject.statistics()["waiting"] == len(self.asleep)
        assert not (self.subject.ready() and self.asleep)

    def free_everybody(self):
        self.set(fails=False)


# -------------------------------------------------------------------- queues


class QueueMachine(Machine):
    """Items are numbered as `put` is called with them."""

    kinds: list[Any] = [SimpleQueue, Queue, LifoQueue, PriorityQueue]
    sizes: list[Any] = [None, None, 1, 2, 3]

    def make_it(self, kind, maxsize):
        self.subject = kind(maxsize)
        self.getting = set()
        self.peeking = set()
        self.joining = set()
        self.putting = set()
        self.put = set()
        self.refused = set()
        self.unsure = set()  # killed in `put`: taken by then, or not
        self.got = {}  # item: when
        self.undone = 0
        self.deaths = 0  # of getters, since the last check
        self.inversions = set()

    @initialize(data=st.data())
    def make(self, data):
        self.make_it(data.draw(st.sampled_from(self.kinds)), data.draw(st.sampled_from(self.sizes)))

    @property
    def in_order(self):
        return not isinstance(self.subject, LifoQueue | PriorityQueue)

    @rule(timeout=TIMEOUTS, style=STYLES)
    def produce(self, timeout, style):
        def work():
            with self.waiting(self.putting, timeout, style) as (item, argument):
                self.unsure.add(item)
                try:
                    self.subject.put(item, timeout=argument)
                except Full:
                    assert argument is not None
                    self.unsure.discard(item)
                    self.refused.add(item)
                else:
                    self.unsure.discard(item)
                    self.put.add(item)

        self.spawn(work)

    @rule(count=st.integers(1, 3), timeout=TIMEOUTS, style=STYLES)
    def consume(self, count, timeout, style):
        def work():
            item = None
            try:
                with self.waiting(self.getting, timeout, style) as (ticket, argument):
                    try:
                        item = self.subject.get(timeout=argument)
                    except Empty:
                        assert argument is not None
                        return
            finally:
                if item is None:
                    self.deaths += 1
            if item is not None:
                self.was_served(ticket)
                self.took(item)

        for _ in range(count):
            self.spawn(work)

    def took(self, item):
        assert item not in self.got, "an item was got twice"
        self.got[item] = len(self.got)
        self.undone += 1

    @precondition(lambda self: not isinstance(self.subject, Channel))
    @rule(timeout=TIMEOUTS, style=STYLES)
    def peek(self, timeout, style):
        def work():
            with self.waiting(self.peeking, timeout, style) as (_, argument):
                try:
                    item = self.subject.peek(timeout=argument)
                except Empty:
                    assert argument is not None
                else:
                    assert item not in self.got

        self.spawn(work)

    @rule()
    def put_now(self):
        self.running = None
        item = next(self.tickets)
        try:
            self.subject.put_nowait(item)
        except Full:
            self.refused.add(item)
        else:
            self.put.add(item)

    @rule()
    def get_now(self):
        self.running = None
        try:
            self.took(self.subject.get_nowait())
        except Empty:
            pass

    def check(self):
        super().check()
        queue = self.subject
        lying, got = list(queue.queue), set(self.got)
        # No item is lost, and none exists twice.
        assert len(set(lying)) == len(lying) and not got & set(lying)
        there = got | set(lying)
        assert self.put <= there <= self.put | self.unsure and not there & (self.refused | self.putting)
        # Nobody is forgotten.
        counts = queue.statistics()
        assert (counts["getters"], counts["putters"]) == (len(self.getting), len(self.putting))
        assert not (lying and (self.getting or self.peeking))
        self.check_room(lying)
        # In order: no putter overtakes a waiting one, and no item is got before an earlier one,
        # unless that one was given to a getter that died.
        assert not self.putting or not there or min(self.putting) > max(there)
        if self.in_order:
            assert lying == sorted(lying)
            inversions = {(early, late) for early in lying for late in got if early < late}
            assert inversions <= self.inversions or self.deaths
            self.inversions = inversions
        self.deaths = 0

    def check_room(self, lying):
        queue = self.subject
        assert not self.putting or (queue.maxsize is not None and len(lying) >= queue.maxsize)

    def free_everybody(self):
        if self.getting or self.peeking:
            self.put_now()
        elif self.putting:
            self.get_now()

    @precondition(lambda self: self.getting)
    @rule(spared=st.lists(ANYBODY, max_size=2), count=st.integers(1, 3), peek=st.booleans())
    def give_to_the_dying(self, spared, count, peek):
        """The kills come before the wake-ups that the items cause."""
        self.settle()
        self.check()
        victims = list(self.alive)
        if peek and not isinstance(self.subject, Channel):
            self.peek(None, "argument")
        for number, victim in enumerate(victims):
            if number not in spared:
                victim.kill(block=False)
        for _ in range(count):
            self.put_now()

    @precondition(lambda self: not isinstance(self.subject, Channel))
    @rule(maxsize=st.sampled_from([None, 1, 2, 4]))
    def resize(self, maxsize):
        self.running = None
        self.subject.maxsize = maxsize


class TaskQueueMachine(QueueMachine):
    """The queues that count tasks."""

    kinds = [Queue, LifoQueue, PriorityQueue]

    @rule(timeout=TIMEOUTS, style=STYLES)
    def join(self, timeout, style):
        def work():
            with self.waiting(self.joining, timeout, style) as (_, argument):
                self.subject.join(argument)

        self.spawn(work)

    @rule(count=st.integers(1, 3))
    def done(self, count):
        self.running = None
        for _ in range(min(count, self.undone)):
            self.undone -= 1
            self.subject.task_done()

    def check(self):
        super().check()
        unfinished = len(self.subject.queue) + self.undone
        assert self.subject.unfinished_tasks == unfinished
        assert unfinished or not self.joining

    def free_everybody(self):
        super().free_everybody()
        if not (self.getting or self.peeking):
            self.get_now()
            self.done(1000)


class ChannelMachine(QueueMachine):
    kinds = [Channel]
    sizes = [1]

    def check_room(self, lying):
        assert not (self.putting and self.getting)


MACHINES = [
    SemaphoreMachine,
    BoundedSemaphoreMachine,
    LockMachine,
    ConditionMachine,
    EventMachine,
    AsyncResultMachine,
    QueueMachine,
    TaskQueueMachine,
    ChannelMachine,
]


@pytest.mark.timeout(0 if RUNS else 120)
@pytest.mark.parametrize("machine", MACHINES)
def test_model(machine):
    run_state_machine_as_test(machine, settings=SETTINGS)
