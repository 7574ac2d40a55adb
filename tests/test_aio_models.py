"""Random programs of tasks and greenlets on the virtual clock: they spawn, call, cancel, kill and time out each other.

A program is a tree of nodes, each a coroutine or a greenlet with steps: to wait, to block, to spawn or call another
node (with a timeout, perhaps, or with a shield), to cancel or kill any that has begun, to wait for one, to do some
steps in `asyncio.timeout` (a greenlet: in `Timeout`) or a TaskGroup.  A call goes by the bridge where the two are of
different kinds.  What must hold in every program:

- A node begins once, each of its steps is done once, in order, and it ends: nothing is lost.
- A called node has ended when its caller goes on; its result or failure reaches the caller only.
- A wait takes the requested time, to the second, whatever else blocks: no node stalls another.
- In a scope with a timeout no wait ends well after the time is over.  A scope's cancellation is over when the scope is.
- When a group has ended, so have its tasks.  A shield's task goes on when its caller ends.
- The current task, the running loop and the context are the node's own after each step.
- A node that was cancelled or killed, and waits after that, gets the exception, and not more often than requested.

The runs are the same each time; WEALD_MODELS=5000 makes that many random ones.
"""

import asyncio
import contextvars
import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weald
import weald.aio
from weald import GreenletExit, Timeout, _core
from weald.aio import await_, to_greenlet
from weald.testing import virtual_clock

RUNS = int(os.environ.get("WEALD_MODELS", "0"))
SETTINGS = settings(max_examples=RUNS or 150, deadline=None, derandomize=not RUNS)

variable = contextvars.ContextVar("variable", default=None)
current_greenlet = weald.getcurrent


class Failure(Exception):
    """The exception of a node's step "fail"."""

    def __init__(self, node):
        super().__init__(node.name)
        self.node = node


class Expired(BaseException):
    """The time of a greenlet's scope is over."""


@dataclass(eq=False)
class Node:
    """One coroutine or greenlet."""

    kind: str
    steps: list[Any]
    cleanup: int  # seconds that it takes to end
    name: str = field(default="", repr=False)
    handle: Any = field(default=None, repr=False)  # its Task or greenlet, once it has begun
    done: int = field(default=0, repr=False)  # steps that it has begun
    ended: bool = field(default=False, repr=False)
    asked: int = field(default=0, repr=False)  # times that another node cancelled or killed it
    heard: int = field(default=0, repr=False)
    caller: "Node | None" = field(default=None, repr=False)  # whose ends are its ends, too
    failed: bool = field(default=False, repr=False)  # what it called has failed: with asyncio that ends a cancellation
    limited: int = field(default=0, repr=False)  # by so many timeouts
    told: float = field(default=0.0, repr=False)  # when it was asked first
    tasks: list[Any] = field(default_factory=list, repr=False)
    deadlines: list[float] = field(default_factory=list, repr=False)  # of the scopes that it is in
    grouped: bool = field(default=False, repr=False)  # it has used a TaskGroup, which may leave a count of `cancelling`

    def __str__(self):
        return f"{self.kind} {self.name}"

    def begin(self, world, handle):
        assert self.handle is None, f"{self} has begun twice"
        self.handle = handle
        world.begun.append(self)
        variable.set(self)

    def ask(self, now):
        self.told = self.told if self.asked else now
        self.asked += 1

    def most(self):
        """How often it may get the exception at most."""
        return self.asked + self.limited + self.grouped + (0 if self.caller is None else self.caller.most())

    def called(self, caller, timeout):
        self.caller, self.limited = caller, (timeout is not None) + len(caller.deadlines)

    def waited(self, now):
        """Called when a wait has ended without an exception."""
        under_way = self.kind == "greenlet" and self.told == now
        assert self.heard or self.failed or not self.asked or under_way, f"{self} has heard nothing"
        assert self.heard or self.failed or all(now <= at for at in self.deadlines), f"{self} has not timed out"

    def check(self):
        """Check that the task, loop and context are its own."""
        assert not self.ended and variable.get() is self
        if self.kind == "task":
            assert asyncio.current_task() is self.handle and asyncio.get_running_loop() is self.handle.get_loop()
        else:
            assert current_greenlet() is self.handle and asyncio._get_running_loop() is None


def copied(node):
    """A node as it was before the run; hypothesis may use an example again."""
    return Node(node.kind, copied_steps(node.steps), node.cleanup)


def copied_steps(part):
    """A part of a node's steps, in which lists and tuples may lie in each other."""
    if isinstance(part, Node):
        return copied(part)
    return [copied_steps(each) for each in part] if isinstance(part, (list, tuple)) else part


class World:
    """One run of a program."""

    def __init__(self, hub):
        self.hub = hub
        self.begun = []
        self.expected = []  # nodes that were called or spawned
        self.unheard = []  # errors that were reported instead of raised

    def now(self):
        return self.hub.loop.now()  # type: ignore[no-any-return]

    def expect(self, node):
        node.name = str(len(self.expected))
        self.expected.append(node)
        return node

    def target(self, number, me):
        others = [node for node in self.begun[1:] if node is not me]
        return others[number % len(others)] if others else None

    def end(self, target):
        """Cancel or kill it."""
        if target.ended:
            return
        target.ask(self.now())
        if target.kind == "task":
            target.handle.cancel()
        else:
            target.handle.kill(block=False)

    # ------------------------------------------------------------------ a coroutine

    async def task(self, node):
        node.begin(self, asyncio.current_task())
        try:
            for number, step in enumerate(node.steps):
                assert node.done == number
                node.done += 1
                await self.step_of_task(node, *step)
                node.check()
            return node
        except asyncio.CancelledError:
            node.heard += 1
            raise
        except (GreenletExit, Expired):  # while it blocked before its first await, which await_ runs in the greenlet
            assert node.caller is not None
            node.caller.failed = True
            raise
        finally:
            try:
                if node.cleanup:
                    await self.sleep(node, node.cleanup)
            except asyncio.CancelledError:
                node.heard += 1
                raise
            finally:
                node.ended = True

    async def sleep(self, node, seconds):
        before = self.now()
        await asyncio.sleep(seconds)
        assert self.now() - before == seconds
        node.waited(self.now())

    async def step_of_task(self, node, what, *args):
        if what == "wait":
            await self.sleep(node, *args)
        elif what == "block":
            self.block(*args)
        elif what == "spawn":
            child = self.expect(args[0])
            if child.kind == "task":
                loop = asyncio.get_running_loop()
                child.tasks.append(loop.create_task(self.task(child), context=contextvars.copy_context()))
                child.tasks[0].add_done_callback(self.retrieve)
            else:
                weald.spawn(self.greenlet, child)
        elif what == "call":
            await self.call_from_task(node, *args)
        elif what == "shield":
            await self.shield(node, *args)
        elif what == "scope":
            await self.scope(node, *args)
        elif what == "group":
            await self.group(node, *args)
        elif what == "end":
            target = self.target(args[0], node)
            if target is not None:
                self.end(target)
        elif what == "join":
            target = self.target(args[0], node)
            if target is not None and target.kind == "greenlet" and not self.waits_for(target, node):
                try:
                    await target.handle
                except Failure:
                    pass
                assert target.ended
                node.waited(self.now())
        elif what == "fail":
            raise Failure(node)

    async def scope(self, node, timeout, steps):
        """Do `steps` within `timeout` seconds."""
        me = asyncio.current_task()
        before, requests, pending = node.asked, me.cancelling(), me._must_cancel
        node.deadlines.append(self.now() + timeout)
        try:
            async with asyncio.timeout(timeout) as scope:
                for step in steps:
                    await self.step_of_task(node, *step)
                    node.check()
        except TimeoutError:
            assert scope.expired() and self.now() >= node.deadlines[-1]
            node.failed |= pending
        finally:
            node.deadlines.pop()
            variable.set(node)  # what a child of its has set passes over the bridge
        if node.caller is None and not node.grouped:  # a caller may cancel it, too
            assert me.cancelling() - requests == node.asked - before

    async def group(self, node, children, steps):
        """Do `steps` beside the tasks of a group."""
        node.grouped = True
        me, began = asyncio.current_task(), self.now()
        before, requests = node.asked, me.cancelling()
        try:
            async with asyncio.TaskGroup() as group:
                for child in children:
                    self.expect(child).called(node, 0)  # if another one fails, the group cancels it
                    called = self.task(child) if child.kind == "task" else to_greenlet(self.greenlet, child)
                    child.tasks.append(group.create_task(called))
                for step in steps:
                    await self.step_of_task(node, *step)
                    node.check()
        except BaseExceptionGroup as errors:
            node.failed = True
            for error in errors.exceptions:
                if isinstance(error, Expired) or isinstance(error, GreenletExit) and node.caller is not None:
                    node.caller.failed = True  # whose time is over, or which was killed, before the first await
                assert isinstance(error, (Failure, GreenletExit, Expired)), errors
            if node.caller is None:
                # Before Python 3.13 a group may leave the request by which it has cancelled this task.
                over = sum(began < at <= self.now() for at in node.deadlines)
                for _ in range(me.cancelling() - requests - (node.asked - before) - over):
                    me.uncancel()
        finally:
            for child in children:
                self.check_ended(child)
            variable.set(node)
        node.failed |= any(child.failed for child in children)

    async def shield(self, node, child, timeout):
        """Call it by a task that goes on if this one ends."""
        loop = asyncio.get_running_loop()
        self.expect(child)
        called = self.task(child) if child.kind == "task" else to_greenlet(self.greenlet, child)
        child.tasks.append(loop.create_task(called, context=contextvars.copy_context()))
        child.tasks[0].add_done_callback(self.retrieve)
        before, pending = node.asked, asyncio.current_task()._must_cancel
        try:
            async with asyncio.timeout(timeout):
                assert await asyncio.shield(child.tasks[0]) is child
        except TimeoutError:
            assert timeout is not None
            node.failed |= pending
        except Failure as failure:
            assert failure.node is child
            node.failed = True
        except GreenletExit:
            assert child.kind == "greenlet" and child.asked
            node.failed = True
        except asyncio.CancelledError:
            if node.asked != before or asyncio.current_task().cancelling():
                raise
            assert child.kind == "task" and (child.asked or child.grouped)

    async def call_from_task(self, node, child, timeout):
        self.expect(child).called(node, timeout)
        # asyncio takes a request that comes before a scope, and is heard in it, for one that has been answered.  If the
        # time is over before the scope is left, that ends in a TimeoutError.
        before, pending = node.asked, asyncio.current_task()._must_cancel  # type: ignore[union-attr]
        try:
            async with asyncio.timeout(timeout):
                if child.kind == "task":
                    task = asyncio.create_task(self.task(child))
                    result = await task
                else:
                    result = await to_greenlet(self.greenlet, child)
            assert result is child
            node.failed |= child.failed
        except TimeoutError:
            assert timeout is not None
            node.failed |= pending
        except Failure as failure:
            assert failure.node is child
            node.failed = True
        except GreenletExit:
            assert child.kind == "greenlet" and child.asked  # another node has killed it
        except asyncio.CancelledError:
            if node.asked == before and not asyncio.current_task().cancelling():  # type: ignore[union-attr]
                assert child.kind == "task" and (child.asked or child.grouped)  # another node has cancelled it
            else:
                self.check_ended(child)
                raise
        self.check_ended(child)
        variable.set(node)  # what the other side has set passes over the bridge

    def retrieve(self, task):
        if not task.cancelled() and not isinstance(task.exception(), (type(None), Failure, GreenletExit)):
            self.unheard.append(task.exception())

    # ------------------------------------------------------------------ a greenlet

    def greenlet(self, node):
        node.begin(self, current_greenlet())
        try:
            for number, step in enumerate(node.steps):
                assert node.done == number
                node.done += 1
                self.step_of_greenlet(node, *step)
                node.check()
            return node
        except GreenletExit:
            node.heard += 1
            raise
        finally:
            try:
                if node.cleanup:
                    self.block(node.cleanup)
                    node.waited(self.now())
            except GreenletExit:
                node.heard += 1
                raise
            finally:
                node.ended = True

    def block(self, seconds):
        before = self.now()
        weald.sleep(seconds)
        assert self.now() - before == seconds

    def step_of_greenlet(self, node, what, *args):
        if what in ("wait", "block"):
            self.block(*args)
            node.waited(self.now())
        elif what == "spawn":
            child = self.expect(args[0])
            weald.spawn(self.greenlet if child.kind == "greenlet" else self.await_task, child)
        elif what == "call":
            self.call_from_greenlet(node, *args)
        elif what == "shield":  # greenlets have none
            self.call_from_greenlet(node, *args)
        elif what == "scope":
            self.scope_of_greenlet(node, *args)
        elif what == "group":
            for child in args[0]:
                self.call_from_greenlet(node, child, None)
        elif what == "end":
            target = self.target(args[0], node)
            if target is not None:
                self.end(target)
        elif what == "join":
            target = self.target(args[0], node)
            if target is not None and target.kind == "greenlet" and not self.waits_for(target, node):
                target.handle.join()
                assert target.ended
                node.waited(self.now())
        elif what == "fail":
            raise Failure(node)

    def scope_of_greenlet(self, node, timeout, steps):
        node.deadlines.append(self.now() + timeout)
        try:
            with Timeout(timeout, Expired):
                for step in steps:
                    self.step_of_greenlet(node, *step)
                    node.check()
        except Expired:
            assert self.now() >= node.deadlines[-1]
        finally:
            node.deadlines.pop()
            variable.set(node)

    def await_task(self, child):
        try:
            await_(self.task(child))
        except (asyncio.CancelledError, Failure):
            pass
        self.check_ended(child)

    def call_from_greenlet(self, node, child, timeout):
        self.expect(child).called(node, timeout)
        try:
            if child.kind == "task":
                result = await_(self.task(child), timeout)
            else:
                greenlet = weald.spawn(self.greenlet, child)
                try:
                    with Timeout(timeout, TimeoutError):
                        result = greenlet.get()
                finally:
                    self.kill(greenlet)
                if isinstance(result, GreenletExit):
                    assert child.asked
                    result = child
            assert result is child
        except TimeoutError:
            assert timeout is not None
        except Failure as failure:
            assert failure.node is child
        except asyncio.CancelledError:
            assert child.kind == "task" and (child.asked or child.grouped)
        except (GreenletExit, Expired):
            self.check_ended(child)
            raise
        self.check_ended(child)
        variable.set(node)

    def kill(self, greenlet):
        """Kill it and wait for its end, even if the current one is killed meanwhile: as await_ does with coroutines."""
        killed = None
        while not greenlet.dead:
            try:
                greenlet.kill()
            except (GreenletExit, Expired) as error:
                killed = error
        if killed is not None:
            raise killed

    # ------------------------------------------------------------------ what must hold

    def waits_for(self, target, me):
        """Whether waiting for it could never end: one of a ring would wait for itself."""
        return int(target.name) <= int(me.name)

    def check_ended(self, child):
        assert child.ended or child.handle is None, f"{child} goes on when its caller does"

    def check(self):
        assert not self.unheard
        for node in self.expected:
            if node.handle is None:
                continue  # cancelled or killed before it began
            assert node.ended, f"{node} has not ended"
            assert node.heard <= node.most(), f"{node} was cancelled {node.most()} times, and heard of {node.heard}"


# ------------------------------------------------------------------ programs

SECONDS = st.integers(0, 3)
TIMEOUTS = st.sampled_from([None, None, 0.5, 1.5, 2.5])
SCOPES = st.sampled_from([0.5, 1.5, 2.5])
NUMBERS = st.integers(0, 9)


PLAIN = [
    st.tuples(st.just("wait"), SECONDS),
    st.tuples(st.just("block"), SECONDS),
    st.tuples(st.just("end"), NUMBERS),
    st.tuples(st.just("join"), NUMBERS),
]


def nodes(*more, least=1):
    steps = st.one_of(*PLAIN, *more)
    return st.builds(
        Node,
        st.sampled_from(["task", "greenlet"]),
        st.lists(steps, min_size=least, max_size=5),
        st.sampled_from([0, 0, 1]),
    )


def parents(children, least=1):
    spawn = st.tuples(st.just("spawn"), children)
    call = st.tuples(st.just("call"), children, TIMEOUTS)
    shield = st.tuples(st.just("shield"), children, TIMEOUTS)
    steps = st.lists(st.one_of(*PLAIN, call, shield), max_size=3)
    scope = st.tuples(st.just("scope"), SCOPES, steps)
    group = st.tuples(st.just("group"), st.lists(children, min_size=1, max_size=2), steps)
    return nodes(spawn, spawn, call, shield, scope, group, least=least)


LEAVES = nodes(st.tuples(st.just("fail")))
PROGRAMS = parents(parents(st.one_of(LEAVES, parents(LEAVES))), least=4)


def run_by(start, program):
    with virtual_clock() as hub:
        world = World(hub)

        def report(*args):
            if not issubclass(args[1], Failure):
                world.unheard.append(args)

        hub.handle_error = report
        root = copied(program)
        # The root itself is not to be cancelled.
        start(world, world.expect(root))
        weald.sleep(1000)  # nodes that no other waits for end
        world.check()


def in_a_loop(world, root):
    """The root is a coroutine of `run`, or a greenlet that one calls."""

    def note(_, context):
        if not isinstance(context.get("exception"), (Failure, Expired)):  # one whose caller was killed meanwhile
            world.unheard.append(context)

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(note)
        called = world.task(root) if root.kind == "task" else to_greenlet(world.greenlet, root)
        try:
            await asyncio.create_task(called)  # type: ignore[arg-type]
        except Failure as failure:
            assert failure.node is root
        await asyncio.sleep(1000)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    weald.aio.run(main())


def in_a_greenlet(world, root):
    """The root is a greenlet, or a coroutine on the resident loop."""
    try:
        if root.kind == "task":
            await_(world.task(root))
        else:
            greenlet = weald.spawn(world.greenlet, root)
            greenlet.get()
    except Failure as failure:
        assert failure.node is root


@pytest.mark.parametrize("start", [in_a_loop, in_a_greenlet])
def test_programs(start):
    @SETTINGS
    @given(PROGRAMS)
    def run(program):
        run_by(start, program)

    run()
    assert _core.get_hub() is not None
