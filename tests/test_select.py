"""weald.select: select, poll and epoll park the greenlet, and return the same events as the stdlib's."""

import errno
import os
import re
import resource
import select as stdlib
import socket as stdlib_socket
from pathlib import Path

import pytest
from helpers import PATIENCE, Thread, run_patched, settle

import weald
from weald import Timeout, select, socket
from weald.monkey import get_original

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair(io_loop):
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture
def pipe():
    read, write = os.pipe()
    yield read, write
    for fd in (read, write):
        try:
            os.close(fd)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise


# Each way to find out which descriptors are readable: a function of (descriptors, seconds).


def by_select(fds, seconds):
    return select.select(fds, [], [], seconds)[0]


def by_poll(fds, seconds):
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(None if seconds is None else seconds * 1000)]


def by_epoll(fds, seconds):
    with select.epoll() as poller:
        for fd in fds:
            poller.register(fd, select.EPOLLIN)
        return [fd for fd, _ in poller.poll(seconds)]


READABLE = [by_select, by_poll, by_epoll]
readable = pytest.mark.parametrize("ask", READABLE)


def test_module_has_the_names_of_the_stdlib():
    assert set(select.__all__) == {name for name in vars(stdlib) if not name.startswith("_")}
    for name in select.__imports__:
        assert getattr(select, name) is getattr(stdlib, name)


@readable
def test_parks_until_something_can_be_read(pair, ask):
    a, b = pair
    asking = weald.spawn(ask, [a.fileno(), b.fileno()], None)
    settle()
    assert not asking.ready()
    b.send(b"x")
    assert asking.get(timeout=PATIENCE) == [a.fileno()]
    assert ask([a.fileno(), b.fileno()], None) == [a.fileno()]


@readable
def test_times_out(pair, ask):
    a, _ = pair
    with Timeout(PATIENCE):
        assert ask([a.fileno()], 0) == []
        assert ask([a.fileno()], 0.01) == []


@readable
def test_a_call_that_need_not_wait_lets_others_run(pair, ask):
    a, b = pair
    ran = []
    weald.spawn(ran.append, 1)
    ask([a.fileno()], 0)
    assert ran == [1]
    b.send(b"x")
    weald.spawn(ran.append, 2)
    ask([a.fileno()], None)
    assert ran == [1, 2]


@readable
def test_end_of_file_can_be_read(io_loop, pipe, ask):
    read, write = pipe
    asking = weald.spawn(ask, [read], None)
    settle()
    os.close(write)
    assert asking.get(timeout=PATIENCE) == [read]


@readable
def test_killed_and_timed_out_callers_leave_nothing_behind(pair, ask):
    a, b = pair
    ask([a.fileno()], 0.001)  # the loop has its descriptors now
    before = len(os.listdir("/proc/self/fd"))
    killed = weald.spawn(ask, [a.fileno()], None)
    settle()
    killed.kill()
    with Timeout(0.01, False):
        ask([a.fileno()], None)
    assert len(os.listdir("/proc/self/fd")) == before
    b.send(b"x")
    assert ask([a.fileno()], PATIENCE) == [a.fileno()]


@readable
def test_in_a_plain_thread(pair, ask):
    a, b = pair
    thread = Thread(ask, [a.fileno()], PATIENCE)
    b.send(b"x")
    assert thread.wait() == [a.fileno()]


@readable
def test_several_wait_for_the_same(pair, ask):
    a, b = pair
    asking = [weald.spawn(ask, [a.fileno()], None) for _ in range(3)]
    settle()
    b.send(b"x")
    weald.joinall(asking, timeout=PATIENCE)
    assert [greenlet.value for greenlet in asking] == [[a.fileno()]] * 3


@readable
def test_descriptors_above_1023(io_loop, ask):
    a, b = stdlib_socket.socketpair()
    high = os.dup2(a.fileno(), 1500)
    try:
        asking = weald.spawn(ask, [high], None)
        settle()
        b.send(b"x")
        assert asking.get(timeout=PATIENCE) == [high]
    finally:
        os.close(high)
        a.close()
        b.close()


# -------------------------------------------------------------------- select


def test_select_finds_each_kind(pair):
    a, b = pair
    assert select.select([a, b], [a], [b], 0) == ([], [a], [])
    b.send(b"x")
    assert select.select([a, b], [a, b], [a, b]) == ([a], [a, b], [])


def test_select_parks_until_something_can_be_written(pair):
    a, b = pair
    a.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            a.send(bytes(65536))
    asking = weald.spawn(select.select, [], [a], [])
    settle()
    assert not asking.ready()
    while select.select([b], [], [], 0)[0]:
        b.recv(65536)
    assert asking.get(timeout=PATIENCE) == ([], [a], [])


def test_select_finds_urgent_data(io_loop):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as client:
        client.connect(listener.getsockname())
        server, _ = listener.accept()
        with server:
            asking = weald.spawn(select.select, [], [], [server])
            settle()
            client.send(b"!", stdlib_socket.MSG_OOB)
            assert asking.get(timeout=PATIENCE) == ([], [], [server])


def test_select_gives_back_what_it_was_given(pair):
    a, b = pair
    a.send(b"x")

    class File:
        def fileno(self):
            return b.fileno()

    file = File()
    assert select.select([b, file, b.fileno()], [], [], 1) == ([b, file, b.fileno()], [], [])
    assert select.select(iter([b]), (), (), 1)[0] == [b]


def test_select_of_nothing_sleeps(virtual):
    begin = virtual.loop.now()
    assert select.select([], [], [], 0) == ([], [], [])
    assert virtual.loop.now() == begin


def test_select_of_a_regular_file_returns_at_once(io_loop, tmp_path):
    with (tmp_path / "file").open("w+") as file:
        assert select.select([file], [file], [], None) == ([file], [file], [])


def test_select_of_a_closed_descriptor(pair):
    a, _ = pair
    fd = os.dup(a.fileno())
    os.close(fd)
    with pytest.raises(OSError) as caught:
        select.select([a, fd], [], [], 20)
    assert caught.value.errno == errno.EBADF


def test_a_socket_closed_during_select(pair):
    """The descriptor is closed: the caller must not wait for ever, nor get events of the next file with that number.

    It counts as ready, as on Linux: the call that follows raises the error.
    """
    a, _ = pair
    asking = weald.spawn(select.select, [a], [], [])
    settle()
    a.close()
    assert asking.get(timeout=PATIENCE) == ([a], [], [])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([], [], [], -1), ValueError),
        (([], [], [], "1"), TypeError),
        ((["x"], [], []), TypeError),
        (([-1], [], []), ValueError),
        ((1, [], []), TypeError),
    ],
)
def test_select_refuses_what_the_stdlib_refuses(arguments, error):
    for module in (stdlib, select):
        with pytest.raises(error):
            module.select(*arguments)


class Index:
    """An integer, as numpy's are."""

    def __init__(self, value):
        self._value = value

    def __index__(self):
        return self._value


def poll_call(module, timeout):
    return module.poll().poll(timeout)


def epoll_call(module, timeout):
    with module.epoll() as poller:
        return poller.poll(timeout)


def select_call(module, timeout):
    return module.select([], [], [], timeout)


@pytest.mark.parametrize("call", [select_call, poll_call, epoll_call])
def test_timeouts_are_what_the_stdlib_takes(call):
    with Timeout(PATIENCE):
        for timeout in (0, 0.0, 0.001, True, Index(0), Index(1), 1e-12):
            assert not any(call(select, timeout))
        for timeout in ("1", b"1", [], 1j, float("nan"), float("inf"), 1e30, 2**70):
            with pytest.raises(Exception) as theirs:
                call(stdlib, timeout)
            with pytest.raises(theirs.type):
                call(select, timeout)


# -------------------------------------------------------------------- poll


def test_poll_reports_the_events(pair):
    a, b = pair
    poller = select.poll()
    poller.register(a)
    poller.register(b, select.POLLIN)
    assert poller.poll() == [(a.fileno(), select.POLLOUT)]
    b.send(b"x")
    assert poller.poll() == [(a.fileno(), select.POLLIN | select.POLLOUT)]
    poller.modify(a, select.POLLIN)
    assert poller.poll() == [(a.fileno(), select.POLLIN)]
    poller.unregister(a.fileno())
    assert poller.poll(0) == []
    b.close()


def test_poll_reports_hangup_and_nonsense_unasked(io_loop, pipe):
    read, write = pipe
    poller = select.poll()
    poller.register(read, 0)
    asking = weald.spawn(poller.poll)
    settle()
    assert not asking.ready()
    os.close(write)
    assert asking.get(timeout=PATIENCE) == [(read, select.POLLHUP)]
    os.close(read)
    assert poller.poll() == [(read, select.POLLNVAL)]


def test_poll_times_out_in_milliseconds(pair):
    a, _ = pair
    poller = select.poll()
    poller.register(a, select.POLLIN)
    with Timeout(PATIENCE):
        assert poller.poll(10) == [] and poller.poll(0.5) == [] and poller.poll(0) == []
    for forever in (None, -1, -0.5):
        asking = weald.spawn(poller.poll, forever)
        settle()
        assert not asking.ready()
        asking.kill()
    with pytest.raises(TypeError):
        poller.poll("1")


def test_poll_of_urgent_data_without_a_descriptor_to_spare(pair):
    a, b = pair
    poller = select.poll()
    poller.register(a)
    poller.modify(a, select.POLLIN | select.POLLPRI)
    weald.sleep(0)  # the hub has its descriptors
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert poller.poll(1) == []
        weald.spawn_later(0.001, b.send, b"x")
        assert poller.poll(100_000) == [(a.fileno(), select.POLLIN)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_poll_of_unknown_descriptors(pair):
    a, _ = pair
    for module in (stdlib, select):
        poller = module.poll()
        with pytest.raises(FileNotFoundError):
            poller.modify(a, select.POLLIN)
        with pytest.raises(KeyError):
            poller.unregister(a)
        with pytest.raises(TypeError):
            poller.register("x")


# -------------------------------------------------------------------- epoll


def test_epoll_reports_the_events(pair):
    a, b = pair
    with select.epoll() as poller:
        poller.register(a, select.EPOLLIN | select.EPOLLOUT)
        assert poller.poll() == [(a.fileno(), select.EPOLLOUT)]
        poller.modify(a, select.EPOLLIN)
        assert poller.poll(0) == []
        b.send(b"x")
        assert poller.poll() == [(a.fileno(), select.EPOLLIN)]
        poller.unregister(a)
        assert poller.poll(0) == [] and poller.poll(0.01) == []
    assert poller.closed
    with pytest.raises(ValueError):
        poller.poll(0)
    with pytest.raises(ValueError), poller:
        pass


def test_epoll_hears_of_what_is_registered_while_it_waits(pair):
    a, b = pair
    with select.epoll() as poller:
        asking = weald.spawn(poller.poll)
        settle()
        poller.register(a, select.EPOLLIN)
        b.send(b"x")
        assert asking.get(timeout=PATIENCE) == [(a.fileno(), select.EPOLLIN)]


def test_epoll_edge_triggered_and_one_shot(pair):
    a, b = pair
    for flag in (select.EPOLLET, select.EPOLLONESHOT):
        with select.epoll() as poller:
            poller.register(a, select.EPOLLIN | flag)
            b.send(b"x")
            assert poller.poll() == [(a.fileno(), select.EPOLLIN)]
            assert poller.poll(0) == [] and poller.poll(0.01) == []
            again = weald.spawn(poller.poll)
            settle()
            assert not again.ready()
            b.send(b"x")
            if flag == select.EPOLLONESHOT:
                poller.modify(a, select.EPOLLIN)
            assert again.get(timeout=PATIENCE) == [(a.fileno(), select.EPOLLIN)]


def test_epoll_maxevents(pair):
    a, b = pair
    with select.epoll() as poller:
        poller.register(a, select.EPOLLOUT)
        poller.register(b, select.EPOLLOUT)
        assert len(poller.poll(1, 1)) == 1 and len(poller.poll(1, maxevents=9)) == 2
        with pytest.raises(ValueError):
            poller.poll(1, 0)


def test_epoll_fromfd_and_fileno(pair):
    a, _ = pair
    with select.epoll() as one:
        one.register(a, select.EPOLLOUT)
        two = select.epoll.fromfd(os.dup(one.fileno()))
        assert two.poll() == [(a.fileno(), select.EPOLLOUT)] and not two.closed
        two.close()
        assert one.poll() == [(a.fileno(), select.EPOLLOUT)]


def test_closing_an_epoll_wakes_who_polls(pair):
    a, _ = pair
    poller = select.epoll()
    poller.register(a, select.EPOLLIN)
    asking = weald.spawn(poller.poll)
    settle()
    poller.close()
    with pytest.raises(OSError) as caught:
        asking.get(timeout=PATIENCE)
    assert caught.value.errno == errno.EBADF


def test_a_dropped_epoll_closes_its_descriptor(io_loop):
    poller = select.epoll()
    fd = poller.fileno()
    del poller
    with pytest.raises(OSError):
        os.fstat(fd)


# ---------------------------------------------------------------- clocks that programs replace


def test_timeouts_end_on_a_frozen_clock():
    """As freezegun does it: every module's global that is one of the clocks stands still."""
    out = run_patched(
        """
        import gc, http.server, os, select, selectors, socket, ssl, subprocess, sys, threading, time
        import multiprocessing, weald.http.http2, weald.multiprocessing, weald.socket, weald.ssl
        weald.sleep(0)
        clocks = {id(clock): clock for clock in (time.time, time.monotonic, time.perf_counter)}
        for module in list(sys.modules.values()):
            if module is sys.modules["__main__"]:
                continue
            for name, value in list(vars(module).items()):
                if id(value) in clocks:
                    setattr(module, name, lambda: 1.5e9)
        one, other = socket.socketpair()
        print(select.select([one], [], [], 0.01))
        poll = select.poll()
        poll.register(one, select.POLLIN)
        print(poll.poll(10), poll.poll(0))
        with select.epoll() as epoll:
            epoll.register(one, select.EPOLLIN)
            print(epoll.poll(0.01))
        for kind in selectors.SelectSelector, selectors.PollSelector, selectors.EpollSelector:
            with kind() as selector:
                selector.register(one, selectors.EVENT_READ)
                print(selector.select(0.01))
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.shutdown()
        thread.join()
        one.settimeout(0.01)
        for wait in (lambda: one.recv(1), lambda: one.sendall(bytes(10**8)),
                     lambda: subprocess.run(["sleep", "1000"], timeout=0.05),
                     lambda: subprocess.run(["sleep", "1000"], timeout=0.05, capture_output=True)):
            try:
                wait()
            except (TimeoutError, subprocess.TimeoutExpired) as error:
                print(type(error).__name__)
        lock = multiprocessing.get_context("spawn").Lock()
        lock.acquire()
        print(lock.acquire(timeout=0.05))
        """
    )
    assert out.splitlines() == [
        "([], [], [])",
        "[] []",
        *["[]"] * 4,
        "TimeoutError",
        "TimeoutError",
        "TimeoutExpired",
        "TimeoutExpired",
        "False",
    ]


def test_no_module_waits_by_a_clock_that_can_be_replaced():
    root = Path(weald.__file__).parent
    users = [
        str(path.relative_to(root))
        for path in sorted(root.rglob("*.py"))
        if re.search(r"from time import .*\bmonotonic\b|\btime\.monotonic\(", path.read_text())
    ]
    # A supervisor runs no code of the program, and compat only passes the name on.
    assert set(users) <= {"compat/_compat.py", "serve/supervisor.py"}


def test_an_epoll_object_is_closed_as_the_time_of_a_poll_is_over():
    """Both timers expire in one round of the loop, and `close` is called first."""
    epoll = select.epoll()
    polling = weald.spawn(epoll.poll, 0.02)
    weald.sleep(0)
    closing = weald.spawn_later(0.001, epoll.close)
    get_original("time", "sleep")(0.1)
    assert polling.get() == []
    closing.get()


def test_what_is_closed_while_another_thread_waits_for_it():
    """An epoll object or a selector returns nothing, after its timeout."""
    out = run_patched(
        """
        import select, selectors, socket, threading, time
        def wait(function, close):
            thread = threading.Thread(target=lambda: results.append(function()))
            thread.start()
            time.sleep(0.01)
            close()
            thread.join()
        for registered in False, True:
            results = []
            one, other = socket.socketpair()
            epoll = select.epoll()
            if registered:
                epoll.register(one, select.EPOLLIN)
            wait(lambda: epoll.poll(0.05), epoll.close)
            selector = selectors.DefaultSelector()
            if registered:
                selector.register(one, selectors.EVENT_READ)
            wait(lambda: selector.select(0.05), selector.close)
            print(results)
        results = []
        poll = select.poll()
        poll.register(other, select.POLLIN)
        wait(lambda: poll.poll(100_000)[0][1] == select.POLLNVAL, other.close)
        print(results)
        """
    )
    assert out == "[[], []]\n[[], []]\n[True]\n"


# ------------------------------------------------------------------ who saw the event, and who took it


@pytest.mark.parametrize("order", ["watcher first", "watcher last"])
@pytest.mark.parametrize("how", ["select", "poll"])
def test_what_a_watcher_has_taken_was_ready(order, how):
    """A callback of the loop drains the socket before the greenlet runs, which still gets the event."""
    a, b = stdlib_socket.socketpair()
    with a, b:
        a.setblocking(False)
        watcher = weald.get_hub().loop.io(a.fileno(), 1)
        taken = []

        def ask():
            if how == "select":
                return select.select([a], [], [], 10 * PATIENCE)[0]
            poller = select.poll()
            poller.register(a, select.POLLIN)
            return poller.poll(10_000 * PATIENCE)

        if order == "watcher first":
            watcher.start(lambda: taken.append(a.recv(10)))
        asker = weald.spawn(ask)
        settle()
        if order == "watcher last":
            watcher.start(lambda: taken.append(a.recv(10)))
        b.send(b"x")
        assert asker.get(timeout=PATIENCE) == ([a] if how == "select" else [(a.fileno(), select.POLLIN)])
        assert taken == [b"x"]
        watcher.stop()
