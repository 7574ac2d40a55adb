"""Scopes: deadlines, cancellation, shields and task groups, as trio has them."""

import gc
import os
import random
import time
import weakref
from math import inf, nan

import pytest
from helpers import Thread, python, recorded_errors

import weald
from weald import GreenletExit, Timeout, socket
from weald._core import get_hub_if_exists
from weald.event import AsyncResult, Event
from weald.fileobject import FileObject
from weald.lock import Condition, Semaphore
from weald.queue import Queue
from weald.scopes import (
    Cancelled,
    CancelScope,
    TaskGroup,
    current_effective_deadline,
    current_time,
    fail_after,
    move_on_after,
)
from weald.testing import blocked
from weald.threadpool import ThreadPool


def errors_in(group):
    """The exceptions of an ExceptionGroup as a sorted list of texts."""
    return sorted(repr(error) for error in group.exceptions)


# ------------------------------------------------------------------ deadlines


def test_a_block_ends_at_its_deadline(virtual):
    begin = virtual.loop.now()
    with move_on_after(5) as scope:
        weald.sleep(100)
    assert virtual.loop.now() == begin + 5
    assert scope.cancelled_caught and scope.cancel_called and scope.deadline == begin + 5


def test_a_block_that_is_in_time(virtual):
    with move_on_after(5) as scope:
        weald.sleep(4)
    assert not scope.cancelled_caught and not scope.cancel_called
    weald.sleep(10)
    assert not scope.cancel_called  # its deadline has passed since, but the block had been left


def test_fail_after_raises_timeout_error(virtual):
    with pytest.raises(TimeoutError, match=r"^not done within 1\.5 seconds$"), fail_after(1.5):
        weald.sleep(2)
    with fail_after(1.5) as scope:
        scope.cancel()
        weald.sleep(0)
        pytest.fail("was not cancelled")
    assert scope.cancelled_caught  # but not because its time was over


@pytest.mark.parametrize("seconds", [0, -1, -inf, 0.0])
def test_a_time_that_is_over_from_the_beginning(virtual, seconds):
    done = []
    with move_on_after(seconds) as scope:
        done.append(1)
        weald.sleep(0)
        done.append(2)
    assert done == [1] and scope.cancelled_caught


def test_no_limit(virtual):
    with move_on_after(None) as scope:
        weald.sleep(1e6)
    with fail_after(inf), CancelScope():
        weald.sleep(1e6)
    assert scope.deadline == inf


@pytest.mark.parametrize("make", [move_on_after, fail_after, lambda seconds: CancelScope(deadline=seconds)])
def test_times_that_are_none(make):
    with pytest.raises(ValueError, match="nan"):
        make(nan)
    with pytest.raises(TypeError):
        make("1")
    with pytest.raises(ValueError, match="nan"):
        CancelScope().deadline = nan


def test_the_inner_deadline_first(virtual):
    with move_on_after(10) as outer:
        with move_on_after(1) as inner:
            weald.sleep(100)
        assert inner.cancelled_caught and not outer.cancel_called
        with move_on_after(100) as inner:
            weald.sleep(1000)
            pytest.fail("the outer deadline was passed over")
        pytest.fail("the inner block has caught what was meant for the outer one")
    assert outer.cancelled_caught and not inner.cancelled_caught


def test_both_deadlines_at_once(virtual):
    with move_on_after(5) as outer:
        with move_on_after(5) as inner:
            weald.sleep(100)
        pytest.fail("the outermost cancelled scope catches it")
    assert outer.cancelled_caught and not inner.cancelled_caught


def test_a_deadline_can_be_moved(virtual):
    begin = virtual.loop.now()
    with move_on_after(5) as scope:
        weald.sleep(4)
        scope.deadline += 10
        weald.sleep(10)
        scope.deadline = begin + 14.5
        weald.sleep(10)
    assert scope.cancelled_caught and virtual.loop.now() == begin + 14.5
    with move_on_after(5) as scope:
        scope.deadline = current_time() - 1
        weald.sleep(1)
        pytest.fail("was not cancelled")
    with move_on_after(5) as scope:
        scope.deadline = inf
        weald.sleep(10)
    assert not scope.cancel_called


def test_a_deadline_set_before(virtual):
    scope = CancelScope(deadline=current_time() + 3)
    weald.sleep(2)
    begin = virtual.loop.now()
    with scope:
        weald.sleep(100)
    assert virtual.loop.now() == begin + 1


def test_a_deadline_that_passes_in_a_computation(io_loop):
    with move_on_after(0.001) as scope:
        while not scope.cancel_called:
            time.sleep(0.001)
        weald.sleep(0)
        pytest.fail("was not cancelled")
    assert scope.cancelled_caught


def test_the_effective_deadline(virtual):
    now = current_time()
    assert current_effective_deadline() == inf
    with move_on_after(10):
        with move_on_after(20):
            assert current_effective_deadline() == now + 10
            with move_on_after(30, shield=True):
                assert current_effective_deadline() == now + 30
            with move_on_after(5) as scope:
                assert current_effective_deadline() == now + 5
                scope.cancel()
                assert current_effective_deadline() == -inf
        assert current_effective_deadline() == now + 10
    assert current_effective_deadline() == inf


# ------------------------------------------------------------------ cancellation


def test_every_wait_of_a_cancelled_block_is_cancelled(virtual):
    """Each kind of wait, until the block is left: code that swallows the exception gets it again."""
    semaphore, condition = Semaphore(0), Condition()
    left, right = socket.socketpair()
    waits = [
        lambda: weald.sleep(1),
        lambda: weald.sleep(0),
        weald.idle,
        lambda: Queue().get(),
        lambda: Queue(1).put(1) or Queue(1).put(2),
        Event().wait,
        AsyncResult().get,
        semaphore.acquire,
        lambda: weald.spawn(weald.sleep, 1000).join(),
        lambda: weald.joinall([weald.spawn(weald.sleep, 1000)]),
        weald.get_hub().join,
    ]
    waits[4] = lambda: (full := Queue(1)).put(1) or full.put(2)
    seen = []
    with CancelScope() as scope:
        scope.cancel()
        for wait in waits:
            try:
                wait()
            except Cancelled:
                seen.append(wait)
        with condition:
            try:
                condition.wait()
            except Cancelled:
                seen.append(condition)
    left.close()
    right.close()
    assert seen == [*waits, condition]
    assert not scope.cancelled_caught  # nothing has come out of the block
    weald.sleep(1)


def test_waits_on_sockets_and_threads(io_loop):
    left, right = socket.socketpair()
    pool = ThreadPool(1)
    go = Queue()
    seen = []
    with CancelScope() as scope:
        scope.cancel()
        for wait in (lambda: left.recv(1), lambda: pool.apply(time.sleep, (0.01,)), lambda: left.sendall(b"x" * 10**7)):
            with pytest.raises(Cancelled):
                wait()
            seen.append(wait)
    assert len(seen) == 3
    left.close()
    right.close()
    pool.kill()
    del go


def test_cancel_from_another_greenlet(virtual):
    scope = CancelScope()

    def work():
        with scope:
            weald.sleep(1000)
        return "after"

    greenlet = weald.spawn(work)
    weald.sleep(1)
    scope.cancel()
    scope.cancel()
    assert greenlet.get() == "after" and scope.cancelled_caught


def test_cancel_before_the_block(virtual):
    scope = CancelScope()
    scope.cancel()
    with scope:
        weald.sleep(1)
        pytest.fail("was not cancelled")
    assert scope.cancelled_caught


def test_cancel_after_the_block(virtual):
    with CancelScope() as scope:
        weald.sleep(1)
    scope.cancel()
    weald.sleep(1)
    assert scope.cancel_called and not scope.cancelled_caught


def test_what_has_come_before_the_cancellation_is_not_lost(virtual):
    queue = Queue()
    with CancelScope() as scope:
        getter = weald.spawn(lambda: queue.put("item") or scope.cancel())
        assert queue.get() == "item"
        with pytest.raises(Cancelled):
            queue.get()
    getter.get()
    queue.put("another")
    assert queue.get() == "another"


def test_an_item_on_its_way_is_passed_on(virtual):
    """The wake-up is under way when Cancelled is raised: the next one waiting gets the item."""
    queue, scope = Queue(), CancelScope()
    got = []

    def first():
        with scope:
            got.append(("first", queue.get()))

    greenlets = [weald.spawn(first), weald.spawn(lambda: got.append(("second", queue.get())))]
    weald.sleep(0)
    scope.cancel()
    queue.put("item")
    queue.put("more")
    weald.joinall(greenlets)
    assert sorted(item for _, item in got) == ["item", "more"] or [who for who, _ in got] == ["second"]
    assert len(got) + queue.qsize() == 2


def test_a_semaphore_is_whole_after_a_cancellation(virtual):
    semaphore = Semaphore(1)
    scope = CancelScope()

    def wait():
        with scope, semaphore:
            weald.sleep(1000)

    with semaphore:
        waiting = [weald.spawn(wait) for _ in range(3)]
        blocked()
        scopes_end = weald.spawn(scope.cancel)
        weald.joinall([scopes_end])
    # One scope is entered once: the second and the third greenlet have failed with RuntimeError.
    weald.joinall(waiting)
    assert semaphore.counter == 1


def test_cancel_from_another_thread(io_loop):
    for _ in range(20):
        scope, entered = CancelScope(), Event()

        def cancel(scope=scope, entered=entered):
            entered.wait()
            scope.cancel()

        thread = Thread(cancel)
        with scope:
            entered.set()
            weald.sleep(1000)
        assert scope.cancelled_caught
        thread.wait()


def test_exceptions_pass(virtual):
    with pytest.raises(KeyError), move_on_after(1) as scope:
        weald.sleep(0.5)
        raise KeyError
    with pytest.raises(KeyError), move_on_after(1) as scope:
        try:
            weald.sleep(5)
        finally:
            raise KeyError
    assert scope.cancel_called and not scope.cancelled_caught


def test_cancelled_in_a_group_is_taken_out(virtual):
    with pytest.raises(ExceptionGroup) as caught, move_on_after(1) as scope:
        try:
            weald.sleep(5)
        except Cancelled as error:
            raise BaseExceptionGroup("", [error, KeyError(1)]) from None
    assert errors_in(caught.value) == ["KeyError(1)"] and scope.cancelled_caught
    with move_on_after(1) as scope:
        try:
            weald.sleep(5)
        except Cancelled as error:
            raise BaseExceptionGroup("", [error]) from None
    assert scope.cancelled_caught
    with pytest.raises(ExceptionGroup), move_on_after(1):
        raise ExceptionGroup("", [KeyError(1)])


def test_cleaning_up_for_a_kill_is_cleaning_up_for_a_cancellation(virtual):
    seen = []
    with move_on_after(1):
        try:
            weald.sleep(5)
        except GreenletExit:
            seen.append("cleaned up")
            raise
    assert seen == ["cleaned up"]


def test_a_timeout_and_a_kill_pass_through_a_scope(virtual):
    with pytest.raises(Timeout), Timeout(1), move_on_after(5) as scope:
        weald.sleep(10)
    assert not scope.cancel_called
    with Timeout(5), move_on_after(1) as scope:
        weald.sleep(10)
    assert scope.cancelled_caught

    def work():
        with move_on_after(5):
            weald.sleep(10)
        pytest.fail("the scope has caught the kill")

    greenlet = weald.spawn(work)
    weald.sleep(1)
    greenlet.kill()
    assert isinstance(greenlet.value, GreenletExit) and not isinstance(greenlet.value, Cancelled)


def test_greenlets_spawned_in_a_block_are_not_part_of_it(virtual):
    with move_on_after(1):
        greenlet = weald.spawn(weald.sleep, 5)
        weald.sleep(10)
    assert not greenlet.ready()
    greenlet.join()
    assert greenlet.successful() and greenlet.value is None


# ------------------------------------------------------------------ shields


def test_a_shield(virtual):
    begin = virtual.loop.now()
    with move_on_after(1) as outer:
        try:
            weald.sleep(10)
        finally:
            with CancelScope(shield=True):
                weald.sleep(5)  # cleaning up
            assert virtual.loop.now() == begin + 6
            with pytest.raises(Cancelled):
                weald.sleep(0)
    assert outer.cancelled_caught


def test_a_cancellation_waits_for_the_end_of_a_shield(virtual):
    with CancelScope() as outer:
        with CancelScope(shield=True):
            outer.cancel()
            weald.sleep(5)
            with move_on_after(1) as inner:
                weald.sleep(10)
            assert inner.cancelled_caught
        weald.sleep(0)
        pytest.fail("was not cancelled")
    assert outer.cancelled_caught


def test_a_shield_can_be_cancelled_itself(virtual):
    with move_on_after(1, shield=True) as scope:
        weald.sleep(5)
    assert scope.cancelled_caught


def test_a_shield_can_be_taken_away(virtual):
    scope = CancelScope(shield=True)

    def expose():
        weald.sleep(5)
        scope.shield = False

    begin = virtual.loop.now()
    weald.spawn(expose)
    with move_on_after(1) as outer, scope:
        weald.sleep(100)
    assert virtual.loop.now() == begin + 5 and outer.cancelled_caught


# ------------------------------------------------------------------ misuse


def test_a_scope_is_entered_once(virtual):
    with CancelScope() as scope:
        pass
    with pytest.raises(RuntimeError, match="entered once"), scope:
        pass
    with pytest.raises(RuntimeError, match="without having been entered"):
        CancelScope().__exit__(None, None, None)


def test_scopes_are_left_in_order_and_where_they_were_entered(virtual):
    outer, inner = CancelScope(), CancelScope()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(RuntimeError, match="reverse order"):
        outer.__exit__(None, None, None)
    assert current_effective_deadline() == inf
    inner.cancel()
    outer.cancel()
    weald.sleep(0)  # both are left
    with CancelScope() as scope:
        greenlet = weald.spawn(scope.__exit__, None, None, None)
        with recorded_errors():
            greenlet.join()
        assert "cannot be left in another greenlet" in str(greenlet.exception)


def test_no_scope_in_the_hub(virtual):
    found = AsyncResult()

    def callback():
        try:
            with CancelScope():
                pass
        except RuntimeError as error:
            found.set(str(error))

    virtual.run_callback(callback)
    assert "is for greenlets" in found.get()


def test_repr(virtual):
    scope = CancelScope(deadline=current_time() + 1, shield=True)
    assert "not entered, shield, deadline" in repr(scope)
    with scope:
        scope.cancel()
        assert "entered, cancelled, shield" in repr(scope)
    assert " left, cancelled" in repr(scope)


# ------------------------------------------------------------------ task groups


def test_a_group_waits_for_its_tasks(virtual):
    begin = virtual.loop.now()
    with TaskGroup() as group:
        tasks = [group.spawn(lambda n=n: weald.sleep(n) or n) for n in range(1, 4)]
    assert virtual.loop.now() == begin + 3
    assert [task.value for task in tasks] == [1, 2, 3]
    with TaskGroup():
        pass


def test_arguments_and_results(virtual):
    with TaskGroup() as group:
        task = group.spawn(lambda *args, **kwargs: (args, kwargs), 1, function=2)
        assert task.get() == ((1,), {"function": 2})
        with pytest.raises(TypeError, match="callable"):
            group.spawn(None)


def test_tasks_may_spawn_tasks(virtual):
    done = []

    def work(group, depth):
        weald.sleep(1)
        if depth:
            group.spawn(work, group, depth - 1)
            group.spawn(work, group, depth - 1)
        done.append(depth)

    with TaskGroup() as group:
        group.spawn(work, group, 3)
    assert sorted(done) == [0] * 8 + [1] * 4 + [2] * 2 + [3]


def test_a_task_spawned_when_the_last_one_has_ended(virtual):
    """By its link, before the block goes on: the block waits for that one, too, and does not spin."""
    begin = virtual.loop.now()
    later = []
    with TaskGroup() as group:
        group.spawn(weald.sleep, 1).rawlink(lambda _: later.append(group.spawn(weald.sleep, 5)))
    assert virtual.loop.now() == begin + 6 and later[0].ready()


def test_an_error_cancels_the_others(virtual):
    begin = virtual.loop.now()
    seen = []

    def wait(n):
        try:
            weald.sleep(1000)
        except Cancelled:
            seen.append(n)
            raise

    def fail():
        weald.sleep(2)
        raise KeyError("x")

    with recorded_errors() as reported, pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        others = [group.spawn(wait, n) for n in range(3)]
        failed = group.spawn(fail)
        wait("block")
    assert errors_in(caught.value) == ["KeyError('x')"]
    assert str(caught.value) == "unhandled errors in a TaskGroup (1 sub-exception)"
    assert sorted(map(str, seen)) == ["0", "1", "2", "block"]
    assert virtual.loop.now() == begin + 2 and reported == []
    assert all(isinstance(other.value, Cancelled) and other.successful() for other in others)
    with pytest.raises(KeyError):
        failed.get()


def test_an_error_of_the_block_cancels_the_tasks(virtual):
    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        task = group.spawn(weald.sleep, 1000)
        weald.sleep(1)
        raise KeyError("x")
    assert errors_in(caught.value) == ["KeyError('x')"] and isinstance(task.value, Cancelled)


def test_all_errors_are_kept(virtual):
    def fail(error):
        try:
            weald.sleep(1000)
        finally:
            raise error

    with pytest.raises(BaseExceptionGroup) as caught, TaskGroup() as group:
        for n in range(3):
            group.spawn(fail, KeyError(n))
        group.spawn(fail, Timeout(3))
        weald.sleep(1)
        raise KeyError("block")
    kinds = sorted(type(error).__name__ for error in caught.value.exceptions)
    assert kinds == ["KeyError"] * 4 + ["Timeout"]


def test_a_deadline_holds_for_the_tasks(virtual):
    begin = virtual.loop.now()
    with move_on_after(5) as scope, TaskGroup() as outer:
        outer.spawn(weald.sleep, 1)

        def nested():
            assert current_effective_deadline() == begin + 5
            with TaskGroup() as inner:
                tasks.append(inner.spawn(weald.sleep, 1000))

        tasks = [outer.spawn(weald.sleep, 1000), outer.spawn(nested)]
    assert scope.cancelled_caught and virtual.loop.now() == begin + 5
    assert [isinstance(task.value, Cancelled) for task in tasks] == [True, True, True]


def test_cancelling_the_group_is_no_error(virtual):
    with TaskGroup() as group:
        task = group.spawn(weald.sleep, 1000)
        weald.sleep(1)
        group.cancel_scope.cancel()
        group.spawn(weald.sleep, 1000)
        weald.sleep(1000)
        pytest.fail("was not cancelled")
    assert isinstance(task.value, Cancelled) and group.cancel_scope.cancelled_caught
    with TaskGroup() as group:
        group.spawn(group.cancel_scope.cancel)
        group.spawn(weald.sleep, 1000)


def test_a_task_that_has_not_begun_is_cancelled_at_its_first_wait(virtual):
    seen = []

    def work():
        seen.append("begun")
        weald.sleep(1)
        seen.append("not cancelled")

    with TaskGroup() as group:
        group.spawn(work)
        group.cancel_scope.cancel()
    assert seen == ["begun"]


def test_cleaning_up_in_a_task_under_a_shield(virtual):
    begin = virtual.loop.now()

    def work():
        try:
            weald.sleep(1000)
        finally:
            with CancelScope(shield=True):
                weald.sleep(7)

    with move_on_after(1), TaskGroup() as group:
        group.spawn(work)
    assert virtual.loop.now() == begin + 8


def test_a_shielded_group(virtual):
    with move_on_after(1) as scope, TaskGroup() as group:
        group.cancel_scope.shield = True
        task = group.spawn(lambda: weald.sleep(5) or "done")
    assert task.value == "done" and scope.cancel_called and not scope.cancelled_caught


def test_killing_a_task_is_no_error(virtual):
    with TaskGroup() as group:
        task, other = group.spawn(weald.sleep, 1000), group.spawn(weald.sleep, 5)
        unbegun = group.spawn(pytest.fail, "has begun")
        unbegun.kill()
        weald.sleep(1)
        task.kill()
    assert isinstance(task.value, GreenletExit) and other.value is None


def test_a_kill_of_the_block_cancels_the_tasks(virtual):
    ended = []

    def task():
        try:
            weald.sleep(1000)
        finally:
            with CancelScope(shield=True):
                weald.sleep(3)
            ended.append(virtual.loop.now())

    def work():
        with TaskGroup() as group:
            group.spawn(task)

    begin = virtual.loop.now()
    host = weald.spawn(work)
    weald.sleep(1)
    host.kill()
    assert type(host.value) is GreenletExit and ended == [begin + 4] == [virtual.loop.now()]


def test_a_timeout_of_the_block_cancels_the_tasks(virtual):
    with Timeout(1, False), TaskGroup() as group:
        task = group.spawn(weald.sleep, 1000)
    assert isinstance(task.value, Cancelled)
    with Timeout(1, False), TaskGroup() as group:
        task = group.spawn(weald.sleep, 1000)
        weald.sleep(1000)
    assert isinstance(task.value, Cancelled)


def test_system_exit_of_a_task_ends_the_program():
    python(
        """
        import sys, weald
        from weald.scopes import TaskGroup
        with TaskGroup() as group:
            group.spawn(sys.exit, 3)
            group.spawn(weald.sleep, 1000)
        """,
        expect=3,
    )
    python(
        """
        import sys, weald
        from weald.scopes import TaskGroup
        def fail():
            try:
                weald.sleep(1000)
            finally:
                raise KeyError("x")
        try:
            with TaskGroup() as group:
                group.spawn(fail)
                weald.sleep(0)
                group.spawn(sys.exit, 3)
        except BaseExceptionGroup as caught:
            assert sorted(map(repr, caught.exceptions)) == ["KeyError('x')", "SystemExit(3)"], caught.exceptions
        """
    )


def test_a_deadlock_in_a_group():
    """LoopExit cancels the tasks; those that no cancellation reaches do not make the program hang."""
    python(
        """
        import weald
        from weald.event import Event
        from weald.scopes import CancelScope, Cancelled, TaskGroup
        def shielded():
            with CancelScope(shield=True):
                Event().wait()
        for functions in ((Event().wait,), (Event().wait, shielded)):
            try:
                with TaskGroup() as group:
                    tasks = [group.spawn(function) for function in functions]
            except* weald.LoopExit as caught:
                assert len(caught.exceptions) == len(functions)
                assert isinstance(tasks[0].value, Cancelled)
        """
    )


def test_control_c_ends_a_group():
    done = python(
        """
        import os, signal, weald
        from weald.scopes import TaskGroup
        def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
        def work():
            try:
                weald.sleep(1000)
            finally:
                print("ended")
        try:
            with TaskGroup() as group:
                group.spawn(work)
                weald.spawn(interrupt)
                weald.sleep(1000)
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert done == "ended\ninterrupted\n"


def test_when_a_group_takes_tasks(virtual):
    group = TaskGroup()
    with pytest.raises(RuntimeError, match="not open"):
        group.spawn(weald.sleep)
    with group:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        group.spawn(weald.sleep)
    with TaskGroup() as group:
        found = Queue()

        def spawn():
            try:
                group.spawn(weald.sleep)
            except RuntimeError as error:
                found.put(str(error))

        Thread(spawn).wait()
        assert "run in the thread of its block" in found.get_nowait()


def test_a_forks_child_leaves_a_group():
    python(
        """
        import os, weald
        from weald.scopes import TaskGroup, move_on_after
        with move_on_after(60), TaskGroup() as group:
            group.spawn(weald.sleep, 0.01)
            weald.sleep(0)
            child = os.fork()
        if not child:
            with move_on_after(0) as scope:
                weald.sleep(60)
            os._exit(7 if scope.cancelled_caught else 8)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        """
    )


def test_a_forks_child_is_in_the_cancelled_scope():
    python(
        """
        import os, weald
        from weald.scopes import CancelScope
        with CancelScope() as scope:
            scope.cancel()
            child = os.fork()
            if not child:
                weald.sleep(0)
                os._exit(7)
        if not child:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        """
    )


def test_many_tasks(virtual):
    with pytest.raises(ExceptionGroup), TaskGroup() as group:
        tasks = [group.spawn(weald.sleep, 1000) for _ in range(5000)]
        weald.sleep(1)
        raise KeyError
    assert all(isinstance(task.value, Cancelled) for task in tasks)


def test_nothing_is_kept(virtual):
    class Thing:
        pass

    def work(thing):
        with move_on_after(1000), TaskGroup() as group:
            group.spawn(weald.sleep, 1)

    thing = Thing()
    kept = weakref.ref(thing)
    weald.spawn(work, thing).get()
    scope = move_on_after(1000)
    with scope:
        weald.sleep(1)
    kept_scope = weakref.ref(thing)
    del thing
    gc.collect()
    assert kept() is None and kept_scope() is None


def slow_to_end():
    """A task that takes 5 seconds to clean up."""
    try:
        weald.sleep(1000)
    finally:
        with CancelScope(shield=True):
            weald.sleep(5)


def test_arguments_of_any_name(virtual):
    with TaskGroup() as group:
        task = group.spawn(dict, run=1, self=2, function=3)
    assert task.value == {"run": 1, "self": 2, "function": 3}


def test_links_of_a_task_are_the_programs_own(virtual):
    with TaskGroup() as group:
        task = group.spawn(weald.sleep, 1)
        assert not task.has_links()
        task.unlink_all()
    assert task.ready()


def test_a_spawn_callback_that_fails():
    python(
        """
        import weald
        from weald.scopes import TaskGroup

        def callback(task):
            raise KeyError("x")

        weald.Greenlet.add_spawn_callback(callback)
        try:
            with TaskGroup() as group:
                group.spawn(print, "has begun")
        except* KeyError as caught:
            assert len(caught.exceptions) == 1
        """
    )


def test_groups_that_are_misused(virtual):
    with pytest.raises(RuntimeError, match="without having been entered"):
        TaskGroup().__exit__(None, None, None)
    group = TaskGroup()
    with group.cancel_scope, pytest.raises(RuntimeError, match="without having been entered"):
        group.__exit__(None, None, None)
    with TaskGroup() as group:
        with pytest.raises(RuntimeError, match="a TaskGroup can be entered once"), group:
            pass
        task = group.spawn(weald.sleep, 1)
        elsewhere = weald.spawn(group.__exit__, None, None, None)
        with recorded_errors():
            elsewhere.join()
        assert "cannot be left in another greenlet" in str(elsewhere.exception) and not task.ready()
    assert task.ready()
    with pytest.raises(RuntimeError, match="a TaskGroup can be entered once"), group:
        pass


@pytest.mark.parametrize("in_body", [True, False])
def test_kills_while_a_group_ends(virtual, in_body):
    def work():
        with TaskGroup() as group:
            group.spawn(slow_to_end)
            if in_body:
                weald.sleep(1000)

    host = weald.spawn(work)
    weald.sleep(1)
    first, last = GreenletExit(1), GreenletExit(2)
    host.kill(first, block=False)
    weald.sleep(1)
    host.kill(last)
    assert host.value is last and last.__context__ is first


def test_a_kill_whose_group_has_errors(virtual):
    """A program that handles the errors has not handled the kill, which is no error, either."""

    def fail():
        try:
            weald.sleep(1000)
        finally:
            raise KeyError

    def work():
        try:
            with TaskGroup() as group:
                group.spawn(fail)
        except* KeyError:
            seen.append("handled")
        pytest.fail("goes on although it was killed")

    seen = []
    host = weald.spawn(work)
    weald.sleep(1)
    with recorded_errors() as reported:
        host.kill()
    assert seen == ["handled"] and host.successful() and reported == []


def test_timeouts_while_a_group_ends(virtual):
    with Timeout(2, False):
        with Timeout(1, False), TaskGroup() as group:
            task = group.spawn(slow_to_end)
        pytest.fail("the outer time is over, too")
    assert isinstance(task.value, Cancelled)


def test_an_error_of_a_task_that_the_block_waits_for_is_raised_once(virtual):
    def fail():
        weald.sleep(1)
        raise KeyError

    for ready in (False, True):
        with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
            task = group.spawn(fail)
            if ready:
                with CancelScope(shield=True):
                    weald.sleep(2)
            task.get()
        assert caught.value.exceptions == (task.exception,)


def test_what_exceptions_say_about_their_cause(virtual):
    def work():
        with TaskGroup() as group:
            group.spawn(weald.sleep, 1000)

    kill, cause = GreenletExit(), KeyError()
    kill.__cause__ = cause
    host = weald.spawn(work)
    weald.sleep(1)
    host.kill(kill)
    assert host.value is kill and kill.__cause__ is cause

    with pytest.raises(ExceptionGroup) as caught, move_on_after(1):
        try:
            weald.sleep(10)
        except Cancelled as error:
            raise BaseExceptionGroup("", [error, KeyError(1)]) from cause
    assert caught.value.__cause__ is cause and isinstance(caught.value.__context__, Cancelled)

    with pytest.raises(ExceptionGroup) as caught, TaskGroup() as group:
        group.spawn(weald.sleep, 1000)
        raise KeyError
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_control_c_anywhere_in_a_group():
    """Wherever it comes, the group's tasks have ended when it has passed on, and no scope is left open."""
    python(
        """
        import signal, weald
        from weald.scopes import CancelScope, TaskGroup

        def work():
            for _ in range(3):
                weald.sleep(0)

        def once(n):
            global interrupted, unended
            tasks = []
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.00002 + n % 50 * 0.000003)
                try:
                    with TaskGroup() as group:
                        tasks.append(group.spawn(work))
                        tasks.append(group.spawn(work))
                        weald.sleep(0)
                finally:  # CPython 3.14 lets an exception within `all(…)` of a generator pass by the `except` around it
                    unended += list(filter(weald.Greenlet.ready, tasks)) != tasks
                while True:  # until it has come
                    pass
            except KeyboardInterrupt:
                interrupted += 1

        signal.signal(signal.SIGALRM, signal.default_int_handler)
        interrupted = unended = 0
        for n in range(1500):
            once(n)
        assert unended == 0 and interrupted == 1500, (unended, interrupted)
        with CancelScope() as scope:
            scope.cancel()
            weald.sleep(0)
        assert scope.cancelled_caught
        """
    )


def test_a_group_in_a_generator(virtual):
    def generate():
        with TaskGroup() as group:
            yield group.spawn(slow_to_end)

    generator = generate()
    task = next(generator)
    weald.sleep(1)
    generator.close()
    assert isinstance(task.value, Cancelled)


def test_a_group_in_a_thread_that_ends():
    """The greenlets that end with the thread run their clean-up."""
    done = python(
        """
        import threading, weald
        from weald.scopes import TaskGroup

        def work():
            try:
                with TaskGroup() as group:
                    group.spawn(weald.sleep, 1000)
            finally:
                print("cleaned up")

        def thread():
            weald.spawn(work)
            weald.sleep(0.01)

        native = threading.Thread(target=thread)
        native.start()
        native.join()
        """,
        stderr=None,
    )
    assert done == "cleaned up\n"


def test_a_thread_that_cancels_gets_no_hub(io_loop):
    found, entered = [], Event()
    scope = CancelScope()

    def cancel():
        entered.wait()
        scope.cancel()
        found.append(get_hub_if_exists())

    thread = Thread(cancel)
    with scope:
        entered.set()
        weald.sleep(1000)
    thread.wait()
    assert scope.cancelled_caught and found == [None]


def test_a_scope_that_is_kept_keeps_nothing(virtual):
    def work():
        with CancelScope(), move_on_after(1000) as scope:
            weald.sleep(1)
        return scope

    greenlet = weald.spawn(work)
    scope = greenlet.get()
    kept = weakref.ref(greenlet)
    del greenlet
    weald.sleep(0)
    assert kept() is None and not scope.cancelled_caught


def test_groups_in_groups(virtual):
    """Cancelling them takes a time that grows with their number, not with its square, and no stack."""

    def work(depth):
        with TaskGroup() as group:
            if depth:
                group.spawn(work, depth - 1)
            weald.sleep(1000)

    with move_on_after(1) as scope:
        work(3000)
    assert scope.cancelled_caught


def test_a_shield_that_comes_and_goes(virtual):
    """Under a cancelled scope, with tasks inside; what it keeps off comes when it is gone."""
    group = TaskGroup()
    log = []

    def task(name):
        for _ in range(4):
            try:
                weald.sleep(1)
                log.append(name)
            except Cancelled:
                log.append(f"{name} cancelled")
                raise

    with CancelScope() as outer, group:
        group.cancel_scope.shield = True
        outer.cancel()
        group.spawn(task, "task")
        weald.sleep(1)
        group.cancel_scope.shield = False
        group.cancel_scope.shield = True
        group.spawn(task, "another")
        weald.sleep(1.5)
        assert log == ["task", "task", "another"]
        group.cancel_scope.shield = False
        weald.sleep(1)
    assert log[3:] == ["task cancelled", "another cancelled"] and outer.cancelled_caught


# ------------------------------------------------------------------ conditions

CONDITION = """
    import sys, weald
    from weald.scopes import Cancelled, CancelScope
    {imports}
    condition = Condition({lock})

    def wait():
        with condition:
            condition.wait()

    def wait_in_scope():
        with scope:
            wait()
        return "left"

    for way in ("cancel", "kill"):
        scope = CancelScope()
        waiting = weald.spawn(wait_in_scope)
        weald.sleep(0)
        with condition:  # so that the one that waits cannot take the lock again at once
            if way == "cancel":
                scope.cancel()
            else:
                waiting.kill(block=False)
            for _ in range(10):
                weald.sleep(0)
            assert not waiting.ready()
        assert repr(waiting.get()) == ("'left'" if way == "cancel" else "GreenletExit()"), waiting
        with condition:
            condition.notify()
"""


@pytest.mark.parametrize("lock", ["", "Lock()"])
def test_a_condition_takes_its_lock_again(lock):
    python(CONDITION.format(imports="from weald.lock import Condition, Lock", lock=lock))


def test_a_condition_of_patched_threading_takes_its_lock_again():
    imports = "import weald.monkey; weald.monkey.patch_all(); from threading import Condition, RLock"
    python(CONDITION.format(imports=imports, lock=""))


# ------------------------------------------------------------------ with asyncio


def test_a_scope_cancels_what_a_greenlet_awaits(virtual):
    import asyncio

    from weald.aio import await_

    seen = []

    async def work():
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await asyncio.sleep(2)  # cleaning up, which a second cancellation would cut short
            seen.append("cleaned up")
            raise

    begin = virtual.loop.now()
    with move_on_after(1) as scope:
        await_(work())
    assert scope.cancelled_caught and seen == ["cleaned up"] and virtual.loop.now() == begin + 3


def test_a_scope_cancels_a_loop_that_runs_in_it(virtual):
    import asyncio

    from weald import aio

    seen = []

    async def work():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(2)
            seen.append("cleaned up")

    with move_on_after(1) as scope:
        aio.run(work())
    assert scope.cancelled_caught and seen == ["cleaned up"]


# ------------------------------------------------------------------ with files


def test_a_file_that_is_closed_in_a_cancelled_scope_is_written(io_loop, tmp_path):
    with CancelScope() as scope, FileObject(tmp_path / "file", "w") as file:
        file.write("text")
        scope.cancel()
        weald.sleep(0)
    assert scope.cancelled_caught and (tmp_path / "file").read_text() == "text"


# ------------------------------------------------------------------ at random


@pytest.mark.parametrize("seed", range(30))
def test_random_trees_of_groups_and_scopes(virtual, seed):
    """Whatever is cancelled, no task outlives its group, and no time exceeds its deadline but under a shield."""
    chance = random.Random(seed)
    living = set()
    scopes = []

    def task(depth, parent):
        me = object()
        living.add(me)
        try:
            for _ in range(chance.randrange(4)):
                step(depth)
                assert parent is None or parent in living
        finally:
            living.discard(me)
        return me

    def step(depth):
        kind = chance.randrange(6)
        if kind == 0 or depth > 3:
            weald.sleep(chance.randrange(5))
        elif kind == 1:
            with move_on_after(chance.randrange(6)) as scope:
                scopes.append(scope)
                step(depth + 1)
        elif kind == 2:
            with CancelScope(shield=True):
                step(depth + 1)
        elif kind == 3 and scopes:
            chance.choice(scopes).cancel()
        elif kind == 4:
            raise KeyError(depth)
        else:
            me = object()
            living.add(me)
            tasks = []
            try:
                with TaskGroup() as group:
                    scopes.append(group.cancel_scope)
                    for _ in range(chance.randrange(4)):
                        tasks.append(group.spawn(task, depth + 1, me))
                    step(depth + 1)
            except* KeyError:
                pass
            finally:
                assert all(each.ready() for each in tasks)
                living.discard(me)

    for _ in range(30):
        try:
            task(0, None)
        except KeyError:
            pass
    assert not living
    weald.sleep(10)
    assert current_effective_deadline() == inf
    os.sched_yield()
