"""Greenlet: outcome, links, killing, joining."""

import contextvars
import gc
import time
import weakref

import greenlet
import pytest
from helpers import settle, tick

import weald
from weald import Greenlet, GreenletExit, Timeout
from weald.event import AsyncResult, Event


def boom():
    raise ValueError("boom")


def test_value_and_error(loop_name, capsys):
    good, bad = weald.spawn(int, "7"), weald.spawn(boom)
    assert good.get() == 7 and good.successful() and good.ready()
    with pytest.raises(ValueError, match="boom"):
        bad.get()
    assert not bad.successful() and bad.exc_info[0] is ValueError
    assert capsys.readouterr().err.count("ValueError: boom") == 1


def test_subclass_with_run_method(loop_name):
    class Adder(Greenlet):
        def __init__(self, a, b):
            super().__init__()
            self.pair = a, b

        def _run(self):
            return sum(self.pair)

    assert Adder.spawn(1, 2).get() == 3


def test_kill_while_parked_runs_finally_and_counts_as_success(loop_name):
    seen = []

    def work():
        try:
            weald.sleep(1000)
        finally:
            seen.append("finally")

    g = weald.spawn(work)
    weald.sleep(0)
    g.kill()
    g.kill()
    assert seen == ["finally"] and isinstance(g.value, GreenletExit) and g.successful()


def test_kill_before_start_never_runs(loop_name):
    seen = []
    for g in [weald.spawn(seen.append, 1), weald.spawn_later(1, seen.append, 2), Greenlet(seen.append, 3)]:
        g.kill()
        assert g.dead and isinstance(g.get(), GreenletExit)
        g.start()
    weald.sleep(2) if loop_name == "virtual" else weald.sleep(0)
    assert seen == []


def test_kill_with_an_exception_of_ones_own(loop_name, capsys):
    g = weald.spawn(weald.sleep, 1000)
    weald.sleep(0)
    g.kill(KeyError("k"))
    assert isinstance(g.exception, KeyError)


def test_a_greenlet_that_outlives_the_kill(virtual):
    def stubborn():
        try:
            weald.sleep(1000)
        except GreenletExit:
            weald.sleep(5)
            return "done"

    g = weald.spawn(stubborn)
    weald.sleep(0)
    begin = virtual.loop.now()
    g.kill(timeout=2)
    assert not g.ready() and virtual.loop.now() == begin + 2
    g.join()
    assert g.value == "done" and virtual.loop.now() == begin + 5


def test_links(loop_name, capsys):
    seen = []
    good, bad = weald.spawn(int, "1"), weald.spawn(boom)
    for name, g in [("good", good), ("bad", bad)]:
        g.link(lambda g, name=name: seen.append((name, "any")))
        g.link_value(lambda g, name=name: seen.append((name, "value")))
        g.link_exception(lambda g, name=name: seen.append((name, "exception")))
        g.link(seen.append)
        g.unlink(seen.append)
    result = AsyncResult()
    good.link(result)
    assert result.get() == 1
    weald.sleep(0)
    weald.sleep(0)
    assert sorted(seen) == [("bad", "any"), ("bad", "exception"), ("good", "any"), ("good", "value")]
    good.link(lambda g: seen.append("late"))
    weald.sleep(0)
    weald.sleep(0)
    assert seen[-1] == "late"


def test_get_without_an_outcome(virtual):
    g = weald.spawn(weald.sleep, 10)
    with pytest.raises(Timeout):
        g.get(block=False)
    with pytest.raises(Timeout):
        g.get(timeout=1)
    g.join(timeout=1)
    assert not g.ready()


def test_joinall_raise_error_and_count(virtual, capsys):
    quick, slow = weald.spawn(weald.sleep, 1), weald.spawn(weald.sleep, 9)
    assert weald.joinall([slow, quick], count=1) == [quick]
    with pytest.raises(ValueError):
        weald.joinall([slow, weald.spawn(boom)], raise_error=True)
    assert not slow.ready()
    assert weald.joinall([slow], timeout=1) == []


def test_iwait_gives_what_is_ready_first(virtual):
    event = Event()
    gs = [weald.spawn(weald.sleep, n) for n in (3, 1, 2)]
    weald.spawn_later(1.5, event.set)
    assert list(weald.iwait([*gs, event])) == [gs[1], event, gs[2], gs[0]]
    assert list(weald.iwait([Event()], timeout=1)) == []


def test_killall_waits_for_all(loop_name):
    gs = [weald.spawn(weald.sleep, 1000) for _ in range(50)]
    weald.sleep(0)
    weald.killall(gs)
    assert all(g.dead for g in gs)


def test_context_variables_are_copied_at_spawn(loop_name):
    var = contextvars.ContextVar("var", default=0)
    var.set(1)

    def change():
        old = var.get()
        var.set(2)
        return old

    assert weald.spawn(change).get() == 1
    assert var.get() == 1


def test_a_dead_greenlet_and_its_arguments_are_freed(loop_name):
    class Thing:
        pass

    thing = Thing()
    g = weald.spawn(lambda _: None, thing)
    g.join()
    refs = weakref.ref(thing), weakref.ref(g)
    del thing, g
    gc.collect()
    assert [r() for r in refs] == [None, None]


def test_a_hundred_thousand_at_once(loop_name):
    go = Event()
    gs = [weald.spawn(go.wait) for _ in range(100_000)]
    weald.sleep(0)
    go.set()
    weald.joinall(gs)
    assert all(g.value is True for g in gs)


def test_what_is_not_callable_is_refused(loop_name):
    for make in (weald.spawn, weald.spawn_raw, Greenlet):
        with pytest.raises(TypeError, match="callable"):
            make(5)


def test_throw_at_a_dead_greenlet_does_nothing(loop_name):
    g = weald.spawn(int)
    g.join()
    assert g.throw(ValueError) is None and g.throw() is None
    assert g.successful() and g.get() == 0


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("wait", [Greenlet.join, lambda g: weald.sleep(0)])
def test_what_ends_the_program_reaches_the_main_greenlet_ahead_of_its_own_wake_up(loop_name, error, wait, capsys):
    def leave():
        raise error(3)

    g = weald.spawn(leave)
    with pytest.raises(error):
        wait(g)
    assert isinstance(g.exception, error)


def test_the_report_of_an_error_says_what_was_called(loop_name, capsys):
    weald.spawn(int, "seven").join()
    assert ": int('seven')> failed with ValueError" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["text", None, int, 5])
def test_what_is_no_exception_kills_all_the_same(loop_name, what, capsys):
    for end in (Greenlet.kill, lambda g, what: weald.killall([g], what)):
        begun, new = weald.spawn(weald.sleep, 1000), Greenlet(weald.sleep, 1000)
        weald.sleep(0)
        for g in (begun, new):
            end(g, what)
            assert type(g.exception) is TypeError and repr(what) in str(g.exception)


def test_kill_takes_what_raise_took(loop_name, capsys):
    begun = weald.spawn(weald.sleep, 1000)
    weald.sleep(0)
    begun.kill((KeyError, "k", None))
    assert repr(begun.exception) == "KeyError('k')"


def test_an_exception_that_cannot_be_made_is_one(loop_name, capsys):
    class Odd(Exception):
        def __init__(self, a, b):
            pass

    begun, new = weald.spawn(weald.sleep, 1000), Greenlet(weald.sleep, 1000)
    weald.sleep(0)
    for g in (begun, new):
        g.kill(Odd)
        assert isinstance(g.exception, TypeError)


def test_killall_ends_plain_greenlets_too(loop_name):
    seen = []

    def work():
        try:
            weald.sleep(1000)
        except GreenletExit:
            seen.append("killed")

    begun = weald.spawn_raw(work)
    weald.sleep(0)
    new = weald.spawn_raw(work)
    foreign = greenlet.greenlet(work)
    weald.killall([begun, new, foreign])
    assert begun.dead and new.dead and foreign.dead and seen == ["killed", "killed"]
    weald.sleep(0)


@pytest.mark.parametrize("given", [(KeyError, None, None), (KeyError, "text", None), (KeyError, KeyError(1), None)])
def test_killall_takes_tuples_for_plain_greenlets_too(loop_name, given):
    seen = []

    def work():
        try:
            weald.sleep(1000)
        except KeyError as error:
            seen.append(error)

    plain, full = weald.spawn_raw(work), weald.spawn(work)
    weald.sleep(0)
    weald.killall([plain, full], given)
    assert plain.dead and full.ready() and len(seen) == 2 and str(seen[0]) == str(seen[1])


def test_what_has_ended_in_time_is_joined_though_the_loop_was_busy(loop_name):
    def keep_busy():
        time.sleep(0.05)

    quick, busy, slow = weald.spawn(int), weald.spawn(keep_busy), weald.spawn(weald.sleep, 1000)
    assert weald.joinall([quick, busy, slow], timeout=0.02) == [quick, busy]
    slow.kill()


def test_has_links_is_a_truth_value(loop_name):
    g = weald.spawn(int)
    assert g.has_links() is False
    g.rawlink(repr)
    assert g.has_links() is True


def test_a_greenlet_that_runs_a_method_of_its_own_has_a_text(loop_name):
    class Worker(Greenlet):
        def __init__(self, number):
            super().__init__(self.work, number)

        def work(self, number):
            return number

    worker = Worker(3)
    assert repr(worker).startswith("<Worker ") and repr(worker).endswith(": work(3)>")


def test_a_greenlet_whose_callee_shows_the_greenlet_has_a_text(loop_name):
    class Service:
        def __init__(self):
            self.greenlet = Greenlet(self.serve)

        def serve(self):
            return 7

        def __repr__(self):
            return f"Service({self.greenlet!r})"

    service = Service()
    assert repr(service.greenlet).count("Service") >= 1
    service.greenlet.start()
    assert service.greenlet.get() == 7
    assert repr(service).startswith("Service(<Greenlet")


def test_arguments_are_empty_once_it_has_ended(loop_name):
    g = Greenlet(dict, [("a", 1)], b=2)
    assert (g.args, g.kwargs) == (([("a", 1)],), {"b": 2})
    g.kwargs = {"c": 3}
    g.start()
    assert g.get() == {"a": 1, "c": 3}
    assert (g.args, g.kwargs) == ((), {})


def test_iwait_of_nothing_waits_for_the_hub(virtual):
    g = weald.spawn(weald.sleep, 5)
    assert list(weald.iwait(None, timeout=1)) == [False] and not g.ready()
    assert list(weald.iwait(None)) == [True] and g.ready()


@pytest.mark.parametrize("how", ["kill", "with"])
def test_a_subclasss_join_is_how_kill_waits(loop_name, how):
    class Counted(Greenlet):
        joins = 0

        def join(self, timeout=None):
            self.joins += 1
            super().join(timeout)

    killed = Counted.spawn(weald.sleep, tick(1000))
    if how == "kill":
        killed.kill()  # not begun: there is nothing to wait for
        assert killed.dead and killed.joins == 0
        killed = Counted.spawn(weald.sleep, tick(1000))
    settle()
    if how == "kill":
        killed.kill(KeyError, timeout=tick(1000))
    else:
        with pytest.raises(KeyError), killed:
            raise KeyError
    assert killed.dead and killed.joins == 1 and type(killed.exception) is KeyError
