"""The hub: ring, timers, errors, deadlock reports, threads, forks, exit."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from helpers import PATIENCE, HubMakingTime, python

import weald
from weald import _core
from weald.event import Event


def test_sleep_is_exact_on_the_virtual_clock(virtual):
    begin = virtual.loop.now()
    weald.sleep(1000)
    assert virtual.loop.now() == begin + 1000


def test_timers_fire_in_order_of_time_then_of_start(virtual):
    seen = []
    for name, delay in [("c", 3), ("a", 1), ("b", 2), ("b2", 2)]:
        weald.spawn_later(delay, seen.append, name)
    weald.sleep(5)
    assert seen == ["a", "b", "b2", "c"]


def test_many_cancelled_timers_do_not_disturb_the_rest(virtual):
    fired = []
    timers = [_core.Timer(virtual, 1 + i % 7, fired.append, i) for i in range(1000)]
    for i, timer in enumerate(timers):
        if i % 3:
            timer.cancel()
    weald.sleep(10)
    assert sorted(fired) == [i for i in range(1000) if i % 3 == 0]
    assert [1 + i % 7 for i in fired] == sorted(1 + i % 7 for i in fired)


def test_sleep_zero_takes_turns(loop_name):
    seen = []

    def run(name):
        for _ in range(3):
            seen.append(name)
            weald.sleep(0)

    weald.joinall([weald.spawn(run, n) for n in "ab"])
    assert seen == list("ababab")


def test_nan_is_refused(loop_name):
    with pytest.raises(ValueError, match="nan"):
        weald.sleep(float("nan"))


def test_run_callback_runs_in_order_and_can_be_stopped(loop_name):
    hub, seen = weald.get_hub(), []
    hub.run_callback(seen.append, 1)
    hub.run_callback(seen.append, 2).stop()
    hub.run_callback(seen.append, 3)
    weald.sleep(0)
    assert seen == [1, 3]


def test_callback_from_another_thread_ends_the_poll(loop_name):
    hub, event = weald.get_hub(), Event()
    thread = threading.Thread(target=lambda: hub.run_callback_threadsafe(event.set))
    weald.spawn_raw(thread.start)
    assert event.wait() is True
    thread.join()


def test_callbacks_run_in_the_hub_though_a_parking_greenlet_turns_the_loop(loop_name):
    hub, seen = weald.get_hub(), []

    def where(name):
        seen.append((name, weald.getcurrent() is hub))

    def work():
        _core.Timer(hub, 0.001, where, "timer")
        weald.sleep(0.002)
        hub.run_callback(where, "callback")
        weald.sleep(0.002)
        with hub.loop.timer(0.001) as watcher:
            watcher.start(where, "watcher")
            weald.sleep(0.002)
        weald.sleep(0.002)

    weald.spawn(work).join()
    assert seen == [("timer", True), ("callback", True), ("watcher", True)]


def test_a_greenlet_that_is_always_ready_again_does_not_hold_up_timers(io_loop):
    """Timers that run Python code are the hub greenlet's, which such a greenlet has no other reason to switch to."""
    fired = []
    _core.Timer(weald.get_hub(), 0.001, fired.append, "timer")
    weald.spawn_later(0.001, fired.append, "greenlet")
    reader, writer = os.pipe()
    os.write(writer, b"x")
    descriptor = _core.Descriptor(reader)

    def wait_for_what_is_there():
        for _ in range(100_000):
            if len(fired) < 2:
                descriptor.wait_read()

    weald.spawn(wait_for_what_is_there).join()
    descriptor.close()
    os.close(reader)
    os.close(writer)
    assert sorted(fired) == ["greenlet", "timer"]


def test_a_timer_comes_before_what_it_makes_ready_though_a_greenlet_turns_the_loop(virtual):
    seen = []
    event = Event()
    _core.Timer(virtual, 1, event.set)
    with weald.Timeout(1):
        event.wait()
        seen.append("woken")
    assert seen == ["woken"]


@pytest.mark.parametrize("loop_name", ["libuv", "libev"], indirect=True)
def test_a_greenlet_that_turns_the_loop_is_killed_from_another_thread(loop_name):
    polling = threading.Event()

    def kill():
        polling.wait(PATIENCE)
        g.kill(block=False)

    def work():
        polling.set()
        try:
            weald.sleep(20)
        finally:
            seen.append(weald.getcurrent() is g)

    seen = []
    thread = threading.Thread(target=kill)
    g = weald.spawn(work)
    thread.start()
    g.join()
    thread.join()
    assert seen == [True] and isinstance(g.value, weald.GreenletExit)


def test_a_signal_that_ends_the_poll_of_a_greenlet_has_its_handler_run_elsewhere():
    python(
        """
        import os, signal, threading, weald
        from weald import _core
        seen = []
        r, w = os.pipe()
        def handler(*_):
            seen.append(weald.getcurrent())
            os.write(w, b"x")
        signal.signal(signal.SIGUSR1, handler)
        def work():
            weald.get_hub()
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()  # by then the loop is turned here
            _core.wait_read(r)
        worker = weald.spawn(work)
        worker.get()
        assert seen[0] is not worker and seen[0] is not weald.getcurrent()
        """
    )


def test_blocking_in_the_hub_is_refused(loop_name, capsys):
    weald.get_hub().run_callback(Event().wait)
    weald.sleep(0)
    assert "BlockingSwitchOutError" in capsys.readouterr().err


def test_errors_of_raw_greenlets_and_callbacks_go_to_handle_error_once(loop_name):
    hub, seen = weald.get_hub(), []
    hub.handle_error = lambda *args: seen.append(args)
    weald.spawn_raw(lambda: 1 / 0)
    hub.run_callback(lambda: [][0])
    weald.sleep(0)
    assert [args[1] for args in seen] == [ZeroDivisionError, IndexError]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_system_errors_reach_the_main_greenlet(loop_name, error, capsys):
    def fail():
        raise error

    weald.spawn(fail)
    with pytest.raises(error):
        weald.sleep(10)


@pytest.mark.parametrize("name", ["libuv", "libev", "virtual"])
def test_deadlock_report_names_who_waits_for_what(name):
    # In a process of its own, because a thread left by another test could still wake a greenlet.
    python(
        f"""
        import re, weald
        from weald import _core
        from weald.event import Event
        _core.set_loop_factory({name!r})
        event = Event()
        weald.spawn(event.wait)
        def main():
            event.wait()
        for _ in range(2):  # it can be caught, and comes again
            try:
                main()
            except _core.LoopExit as error:
                report = str(error)
            assert report.startswith("This operation would block forever")  # people look for these words
            assert report.count(f"waits for <Event at {{id(event):#x}}") == 2, report
            assert "in main" in report and re.search(r"since \\d+\\.\\d s", report), report
        event.set()
        weald.sleep(0)
        """
    )


def test_foreign_switch_into_a_parked_greenlet_is_refused(loop_name, capsys):
    g = weald.spawn(Event().wait)
    weald.sleep(0)
    weald.get_hub().run_callback(g.switch)
    weald.sleep(0)
    assert isinstance(g.exception, _core.InvalidSwitchError)


def test_hub_join_waits_until_nothing_is_left(virtual):
    seen = []
    weald.spawn_later(5, seen.append, 1)
    assert virtual.join() is True
    assert seen == [1]
    weald.spawn_later(5, seen.append, 2)
    assert virtual.join(timeout=1) is False


def test_signal_ends_a_blocking_poll():
    arrived = Event()
    before = signal.signal(signal.SIGUSR1, lambda *_: arrived.set())
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", f"import os, time; time.sleep(0.2); os.kill({os.getpid()}, {int(signal.SIGUSR1)})"]
        )
        with weald.Timeout(PATIENCE):  # nothing else to wake the loop for that long
            arrived.wait()
        child.wait()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_a_signal_handler_raises_comes_up_in_the_main_greenlet():
    class Late(Exception):
        pass

    def handler(*args):
        raise Late

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(Late):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            Event().wait(PATIENCE)
        with pytest.raises(Late):  # also where another greenlet runs then
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            weald.spawn(Event().wait, 20).join()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_ten_threads_each_with_a_hub():
    results = []

    def work():
        results.append(len({id(weald.get_hub())} | {g.get() for g in [weald.spawn(lambda: 1) for _ in range(100)]}))
        weald.sleep(0.001)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [2] * 10


def test_hubs_of_ended_threads_give_back_their_descriptors():
    def work():
        weald.sleep(0.001)

    def run():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()

    run()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        run()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forked_child_does_not_run_the_parents_greenlets():
    seen = []
    weald.spawn(seen.append, "parent's")
    pid = os.fork()
    if pid == 0:
        try:
            weald.sleep(0.01)
            os._exit(0 if seen == [] and weald.spawn(lambda: 7).get() == 7 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    weald.sleep(0)
    assert seen == ["parent's"]


def test_a_child_forked_by_a_thread_leaves_the_greenlets_of_the_others_alone():
    python(
        """
        import os, threading, warnings, weald
        warnings.simplefilter("ignore", DeprecationWarning)
        seen = []
        def thread():
            weald.sleep(0.001)
            pid = os.fork()
            if not pid:
                weald.sleep(0.001)
                os._exit(weald.spawn(lambda: 7).get())
            seen.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        g = weald.spawn(weald.sleep, 0.01)
        weald.sleep(0)
        forking = threading.Thread(target=thread)
        forking.start()
        forking.join()
        g.join()
        assert seen == [7], seen
        """
    )


@pytest.mark.parametrize("code", ["", "import sys; sys.exit(3)"])
def test_exit_with_running_greenlets_is_silent(code):
    program = (
        "import weald\nweald.spawn(weald.sleep, 100)\nweald.spawn_later(100, print)\n"
        f"weald.Timeout(100).start()\nweald.sleep(0)\n{code}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (3 if code else 0, "", "")


def test_an_interpreter_that_is_to_do_without_the_gil_is_refused():
    python(
        """
        import sys
        sys._is_gil_enabled = lambda: False
        try:
            import weald
        except ImportError as error:
            assert "relies on the GIL" in str(error)
        else:
            raise AssertionError("imported")
        """
    )


def test_unknown_backend_names_those_there_are():
    with pytest.raises(ValueError, match="libuv"):
        _core.set_loop_factory("nonesuch")


def test_greenlets_of_an_ended_thread_end_too():
    seen, started = [], threading.Event()

    def left_behind():
        try:
            weald.sleep(1000)
        finally:
            seen.append(threading.get_ident())

    def work():
        seen.append(threading.get_ident())
        seen.append(weald.spawn(left_behind))
        weald.sleep(0)
        started.set()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    ident, greenlet, ended_in = seen
    assert ended_in == ident
    assert isinstance(greenlet.get(timeout=PATIENCE), weald.GreenletExit)


def test_greenlets_that_an_ended_thread_had_not_begun_end_too():
    left = []

    def work():
        weald.sleep(0)
        left.extend([weald.spawn(int), weald.spawn_later(1000, int), weald.Greenlet(int)])
        left[2].start()
        weald.get_hub().loop.timer(1000).start(print)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    for greenlet in left:
        assert isinstance(greenlet.get(timeout=PATIENCE), weald.GreenletExit)


def test_a_greenlet_that_blocks_while_its_thread_ends_does_not_keep_it():
    def stubborn():
        while True:
            try:
                weald.sleep(1000)
            except weald.GreenletExit:
                pass

    thread = threading.Thread(target=lambda: (weald.spawn(stubborn), weald.sleep(0)))
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_hub_made_while_another_is_being_made(io_loop):
    """A signal handler may do that.  Afterwards there is one hub, which runs the greenlets that both have spawned."""
    inner = []
    weald.spawn(int).join()
    descriptors = len(os.listdir("/proc/self/fd"))  # one hub's among them
    with HubMakingTime(lambda: inner.extend([weald.get_hub(), weald.spawn(sum, [1, 2])])):
        outer = weald.get_hub()
    assert outer is inner[0]
    assert inner[1].get(timeout=PATIENCE) == 3
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_on_a_clock_that_jumps_nothing_depends_on_how_long_it_took(virtual):
    """Runs are the same each time, however slow the machine is."""
    ran = []
    event = Event()
    weald.spawn(ran.append, 1)
    end = time.perf_counter() + 0.02
    while time.perf_counter() < end:
        pass
    for _ in range(100):
        assert not event.is_set()
    assert ran == []
    weald.sleep(0)
    assert ran == [1]
