"""The loop's watchers, on every loop; those that need descriptors on libuv and libev."""

import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import weakref

import pytest
from helpers import PATIENCE, python, recorded_errors, settle, tick, wait_until

import weald
from weald import _core
from weald.event import Event


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    a.setblocking(False)
    yield a, b
    a.close()
    b.close()


def loop():
    return weald.get_hub().loop


def test_timer_fires_once(virtual):
    timer, seen = virtual.loop.timer(5), []
    begin = virtual.loop.now()
    assert not timer.active and not timer.pending
    timer.start(lambda *args: seen.append((virtual.loop.now() - begin, args, timer.active)), 1, 2)
    assert timer.active and timer in (w for w in [timer]) and virtual.loop.activecnt == 1
    weald.sleep(20)
    assert seen == [(5, (1, 2), False)]
    assert not timer.active and virtual.loop.activecnt == 0


def test_timer_repeats_on_the_beat(virtual):
    timer, seen = virtual.loop.timer(1, repeat=3), []
    begin = virtual.loop.now()
    timer.start(lambda: seen.append(virtual.loop.now() - begin))
    weald.sleep(11)
    timer.stop()
    weald.sleep(11)
    assert seen == [1, 4, 7, 10]


def test_timer_again(virtual):
    timer, seen = virtual.loop.timer(1, repeat=3), []
    begin = virtual.loop.now()

    def call():
        seen.append(virtual.loop.now() - begin)

    timer.again(call)  # the first call after `repeat`, too
    weald.sleep(2)
    timer.again(call)
    weald.sleep(4)
    assert seen == [5]
    timer.repeat = 0
    timer.again(call)
    assert not timer.active
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match="repeat must be positive or zero"):
            timer.repeat = bad


def test_start_and_stop(virtual):
    timer, seen = virtual.loop.timer(1), []
    for bad in (None, 5):
        with pytest.raises(TypeError, match="callable"):
            timer.start(bad)
    assert not timer.active
    timer.start(seen.append, "first")
    timer.start(seen.append, "second")  # replaces the callback
    weald.sleep(2)
    timer.start(seen.append, "stopped")
    timer.stop()
    timer.stop()
    weald.sleep(2)
    assert seen == ["second"]
    with timer:
        timer.start(seen.append, "closed")
    timer.close()
    weald.sleep(2)
    assert seen == ["second"] and not timer.active
    with pytest.raises(ValueError, match="closed"):
        timer.start(seen.append)
    assert "closed" in repr(timer)


def test_a_pending_callback_can_be_stopped(virtual):
    first, second, seen = virtual.loop.timer(1), virtual.loop.timer(1), []
    first.start(lambda: (seen.append(second.pending), second.stop()))
    second.start(seen.append, "never")
    weald.sleep(2)
    assert seen == [True]


def test_callback_and_args_can_be_set(virtual):
    timer, seen = virtual.loop.timer(1), []
    timer.start(print)
    timer.callback, timer.args = seen.append, (7,)
    with pytest.raises(TypeError):
        timer.callback = 5
    with pytest.raises(TypeError):
        timer.args = [5]
    assert timer.args == (7,)
    weald.sleep(2)
    assert seen == [7]


def test_priority(virtual):
    seen = []
    watchers = [virtual.loop.timer(1, priority=p) for p in (-2, 0, 2, 0)]
    for n, watcher in enumerate(watchers):
        watcher.start(seen.append, n)
    with pytest.raises(AttributeError, match="active"):
        watchers[0].priority = 1
    weald.sleep(2)
    assert seen == [2, 1, 3, 0]
    with pytest.raises(ValueError):
        virtual.loop.timer(1, priority=3)


def test_an_error_in_a_callback_goes_to_the_hub_and_the_rest_goes_on(virtual):
    bad, good, seen = virtual.loop.timer(1, 1), virtual.loop.timer(1), []
    with recorded_errors() as errors:
        bad.start(lambda: 1 / 0)
        good.start(seen.append, 1)
        weald.sleep(2.5)
    assert seen == [1] and [e[1] for e in errors] == [ZeroDivisionError] * 2
    bad.stop()
    told = []
    virtual.loop.error_handler = lambda *args: told.append(args)
    good.start(lambda: 1 / 0)
    weald.sleep(2)
    assert told[0][:2] == (good, ZeroDivisionError)


def test_ref_is_what_the_hub_waits_for(virtual):
    timer = virtual.loop.timer(50, ref=False)
    seen = []
    timer.start(seen.append, 1)
    begin = virtual.loop.now()
    assert virtual.join() and virtual.loop.now() == begin
    timer.ref = True
    assert virtual.join() and virtual.loop.now() == begin + 50 and seen == [1]
    timer.start(seen.append, 2)
    timer.ref = False
    assert virtual.join() and virtual.loop.now() == begin + 50
    timer.stop()


def test_nobody_waits_for_what_only_an_unreferenced_watcher_could_bring():
    python(
        """
        import weald
        from weald.event import Event
        timer = weald.get_hub().loop.timer(50, ref=False)
        timer.start(print)
        try:
            Event().wait()
        except weald.LoopExit as error:
            assert "Event" in str(error)
        else:
            assert 0
        """
    )


def test_an_active_watcher_lives_and_a_stopped_one_is_freed(virtual):
    timer, seen = virtual.loop.timer(1), []

    class Call:
        def __call__(self):
            seen.append(1)

    call = Call()
    freed = weakref.ref(call)
    timer.start(call)
    del timer, call
    gc.collect()
    weald.sleep(2)
    assert seen == [1]
    gc.collect()
    assert freed() is None


def test_a_callback_must_not_block(virtual):
    timer = virtual.loop.timer(1)
    with recorded_errors() as errors:
        timer.start(weald.sleep, 1)
        weald.sleep(2)
    assert [e[1] for e in errors] == [weald.BlockingSwitchOutError]


def test_idle_prepare_check(loop_name):
    seen = []
    watchers = {name: getattr(loop(), name)() for name in ("idle", "prepare", "check")}
    for name, watcher in watchers.items():
        watcher.start(seen.append, name)
    busy = weald.spawn(lambda: [weald.sleep(0) for _ in range(300)])
    busy.join()
    assert "idle" not in seen and {"prepare", "check"} <= set(seen)  # something was ready all the time
    del seen[:]
    watchers["idle"].start(lambda: (seen.append("idle"), watchers["idle"].stop()))
    weald.sleep(tick(3))
    assert seen.count("idle") == 1
    for watcher in watchers.values():
        watcher.stop()
    at_idle = seen.index("idle")
    assert seen[at_idle - 1] == "prepare" and seen[at_idle + 1] == "check"


def test_async_from_another_thread(loop_name):
    watcher, seen, done = loop().async_(), [], Event()
    watcher.start(lambda: (seen.append(threading.get_ident()), done.set()))
    threading.Thread(target=lambda: [watcher.send() for _ in range(100)]).start()
    assert done.wait(PATIENCE) and set(seen) == {threading.get_ident()}
    watcher.stop()
    watcher.send()
    assert not watcher.pending


def test_sends_before_the_callback_are_one(virtual):
    watcher, seen = virtual.loop.async_(), []
    watcher.start(seen.append, 1)
    watcher.send()
    watcher.send_ignoring_arg("link")
    assert watcher.pending
    weald.sleep(1)
    assert seen == [1]
    watcher.send()
    weald.sleep(1)
    assert seen == [1, 1]
    watcher.stop()


def test_io_is_level_triggered(io_loop, pair):
    a, b = pair
    seen, watcher = [], loop().io(a.fileno(), 1)

    def readable(events, word):
        seen.append((events, word))
        if len(seen) == 3:
            a.recv(10)

    watcher.start(readable, "word", pass_events=True)
    b.send(b"x")
    wait_until(lambda: len(seen) >= 3)
    assert seen == [(1, "word")] * 3
    watcher.stop()
    b.send(b"x")
    settle()
    assert len(seen) == 3


def test_io_events(io_loop, pair):
    a, b = pair
    both = loop().io(a.fileno(), 3)
    seen = []
    both.start(lambda events: (seen.append(events), both.stop()), _core.EVENTS)
    b.send(b"x")
    settle()
    assert both.events_str == "READ|WRITE" and seen == [3]
    both.start(lambda: None)
    both.events = 1
    both.fd = b.fileno()
    both.start(seen.append, "read")
    settle()
    assert seen == [3]
    both.close()
    with pytest.raises(ValueError, match="non-negative"):
        loop().io(-1, 1)
    with pytest.raises(ValueError, match="illegal event mask"):
        loop().io(a.fileno(), 8)
    with pytest.raises(OSError, match="Bad file descriptor"):
        loop().io(12345, 1)


def test_two_watchers_and_a_greenlet_on_one_descriptor(io_loop, pair):
    a, b = pair
    seen = []
    watchers = [loop().io(a.fileno(), 1) for _ in range(2)]
    for n, watcher in enumerate(watchers):
        watcher.start(lambda n=n, watcher=watcher: (seen.append(n), watcher.stop()))
    reader = weald.spawn(lambda: (_core.wait_read(a.fileno()), seen.append("greenlet")))
    weald.sleep(0)
    b.send(b"x")
    settle()
    assert sorted(map(str, seen)) == ["0", "1", "greenlet"] and reader.ready()


def test_io_goes_on_after_an_error(io_loop):
    """A connected UDP socket is ready for each refused datagram, and for those that come once somebody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    seen = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        sock.setblocking(False)
        watcher = loop().io(sock.fileno(), 1)

        def readable():
            try:
                seen.append(sock.recv(100))
            except ConnectionRefusedError:
                seen.append("refused")

        watcher.start(readable)
        for count in range(1, 4):
            sock.send(b"refused")
            wait_until(lambda count=count: len(seen) == count)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(address)
            other.sendto(b"text", sock.getsockname())
            wait_until(lambda: len(seen) == 4)
        watcher.close()
    assert seen == ["refused"] * 3 + [b"text"]


def test_io_on_a_regular_file_is_always_ready(io_loop, tmp_path):
    with open(tmp_path / "file", "w+b") as file:
        watcher, done = loop().io(file.fileno(), 1), Event()
        watcher.start(lambda: (watcher.stop(), done.set()))
        assert done.wait(PATIENCE)


def test_a_closed_descriptor_wakes_its_watcher(io_loop, pair):
    a, b = pair
    watcher, done = loop().io(a.fileno(), 1), Event()
    watcher.start(done.set)
    assert loop().closing_fd(a.fileno()) is True and done.wait(PATIENCE)
    watcher.close()
    assert loop().closing_fd(b.fileno()) is False


def test_child(io_loop):
    other = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    pid = os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", "exit 5")
    watcher, done = loop().child(pid), Event()
    watcher.start(done.set)
    assert done.wait(PATIENCE) and watcher.rpid == pid
    assert os.waitstatus_to_exitcode(watcher.rstatus) == 5 and not watcher.active
    assert other.wait(PATIENCE) == 7  # not stolen
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, 0)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="process ID"):
            loop().child(bad)


def test_a_child_that_is_not_ours_or_reaped_already(io_loop):
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
    watcher, done = loop().child(pid), Event()
    watcher.start(done.set)
    assert done.wait(PATIENCE) and os.waitstatus_to_exitcode(watcher.rstatus) == 255


def test_signal(io_loop):
    before = signal.getsignal(signal.SIGUSR2)
    watchers = [loop().signal(signal.SIGUSR2) for _ in range(2)]
    seen = []
    for n, watcher in enumerate(watchers):
        watcher.start(seen.append, n)
    os.kill(os.getpid(), signal.SIGUSR2)
    settle()
    assert seen == [0, 1]
    watchers[0].stop()
    os.kill(os.getpid(), signal.SIGUSR2)
    settle()
    assert seen == [0, 1, 1]
    watchers[1].stop()
    assert signal.getsignal(signal.SIGUSR2) is before
    for bad in (0, 500):
        with pytest.raises(ValueError, match="illegal signal number"):
            loop().signal(bad)


def test_a_signal_wakes_a_loop_that_waits(io_loop):
    watcher, done = loop().signal(signal.SIGALRM), Event()
    watcher.start(done.set)
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    assert done.wait(PATIENCE)
    watcher.close()


def test_stat(virtual, tmp_path):
    path = tmp_path / "file"
    watcher, seen = virtual.loop.stat(path, interval=5), []
    watcher.start(lambda: seen.append((watcher.prev and watcher.prev.st_size, watcher.attr and watcher.attr.st_size)))
    weald.sleep(20)
    assert seen == []
    path.write_text("1")
    weald.sleep(20)
    path.write_text("22")
    weald.sleep(20)
    path.unlink()
    weald.sleep(20)
    assert seen == [(None, 1), (1, 2), (2, None)]
    assert watcher.path == str(path) and watcher.interval == 5
    watcher.stop()


def test_fork(io_loop):
    ours, timer, seen = loop().fork(), loop().timer(0.01, 0.01), []
    ours.start(seen.append, "fork")
    timer.start(seen.append, "timer")
    pid = os.fork()
    if not pid:
        try:
            settle()
            os._exit(0 if seen == ["fork"] and not timer.active and ours.active else 9)
        except BaseException:
            os._exit(8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    wait_until(lambda: "timer" in seen)
    assert "fork" not in seen and "timer" in seen
    timer.stop()
    ours.stop()


def test_a_loop_of_ones_own(io_loop, pair):
    a, b = pair
    own, seen = _core.EventLoop(), []
    own.run()  # nothing to wait for
    timer, watcher = own.timer(0.02), own.io(a.fileno(), 1)
    watcher.start(lambda: (seen.append(a.recv(5)), watcher.stop()))
    own.run_callback(seen.append, "callback")
    own.run(nowait=True)
    assert seen == ["callback"]
    timer.start(b.send, b"x")
    own.run()
    assert seen == ["callback", b"x"]
    assert own is not loop() and own.name == io_loop
    own.destroy()
    assert own.destroyed
    with pytest.raises(ValueError, match="destroyed"):
        own.timer(1).start(print)
    with pytest.raises(RuntimeError, match="runs by itself"):
        _core.EventLoop.run(loop())  # its class may have become gevent's, which has a `run` of its own


def test_break(io_loop):
    own, seen = _core.EventLoop(), []
    timer = own.timer(0, 0.001)
    timer.start(lambda: (seen.append(1), len(seen) == 3 and own.break_()))
    own.run()
    assert len(seen) == 3
    own.destroy()


def test_watchers_of_an_ended_hub():
    python(
        """
        import threading, weald, gc
        def work():
            hub = weald.get_hub()
            for watcher in (hub.loop.timer(1), hub.loop.async_(), hub.loop.io(0, 1), hub.loop.idle()):
                watcher.start(print)
                kept.append(watcher)
        kept = []
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        gc.collect()
        print([watcher.active for watcher in kept])
        """
    )


def test_a_timer_that_is_over_holds_on_to_nothing(loop_name):
    done = Event()
    timer = loop().timer(0)
    timer.start(done.set)
    assert done.wait(PATIENCE)
    weald.sleep(0)
    assert not timer.active and timer.callback is None and timer.args is None

    def again(calls):
        calls.append(timer.callback)
        if len(calls) < 3:
            timer.start(again, calls)
        else:
            done.set()

    done.clear()
    calls = []
    timer.start(again, calls)
    assert done.wait(PATIENCE)
    weald.sleep(0)
    assert calls == [again] * 3 and timer.callback is None


def test_a_child_watcher_stays_behind_in_a_fork():
    python(
        """
        import os, weald
        hub = weald.get_hub()
        running = os.fork()
        if not running:
            weald.sleep(10)
        watcher = hub.loop.child(running)
        watcher.start(lambda: None)
        weald.sleep(0)
        pid = os.fork()
        if not pid:
            weald.sleep(0.01)
            os._exit(3 if watcher.active else 0)
        assert os.waitpid(pid, 0)[1] == 0
        os.kill(running, 9)
        """
    )


def test_fed_watchers_call_once(loop_name):
    seen = []
    for watcher in (loop().timer(1000), loop().async_(), loop().idle()):
        watcher.feed(1, lambda *args: seen.append(args), 2)
        assert watcher.pending and not watcher.active and not seen
        wait_until(lambda: seen)
        assert seen == [(2,)] and not watcher.pending
        seen.clear()
        watcher.feed(1, seen.append)
        watcher.stop()
        weald.sleep(0)
        weald.sleep(0)
        assert not seen
        watcher.close()
    with pytest.raises(TypeError):
        loop().timer(1).feed(1, None)


def test_fed_watchers_tell_what_was_fed(pair):
    seen = []
    watcher = loop().io(pair[0].fileno(), 1)
    watcher.feed(3, lambda *args: seen.append(args), _core.EVENTS, 2)
    wait_until(lambda: seen)
    assert seen == [(3, 2)]
    watcher.close()


def test_checks_are_called_before_what_the_poll_has_found(virtual):
    seen, timer, check = [], virtual.loop.timer(1), virtual.loop.check()
    timer.start(seen.append, "timer")
    check.start(seen.append, "check")
    weald.sleep(2)
    check.close()
    assert seen.index("timer") > 0 and seen[seen.index("timer") - 1] == "check"


def test_a_destroyed_loop_takes_no_callbacks():
    own = _core.EventLoop()
    own.destroy()
    for call in (own.run_callback, own.run_callback_threadsafe):
        with pytest.raises(ValueError, match="destroyed"):
            call(print)
