"""Descriptors and the hot socket calls."""

import os
import socket as stdlib
import threading

import pytest
from helpers import PATIENCE, Thread, settle

import weald
from weald import _core
from weald._core import Descriptor

pytestmark = pytest.mark.usefixtures("io_loop")


def pair():
    a, b = stdlib.socketpair()
    a.setblocking(False)
    b.setblocking(False)
    return a, b


def test_wait_read_parks_until_data():
    a, b = pair()
    with a, b:
        g = weald.spawn(_core.wait_read, b.fileno())
        weald.sleep(0)
        assert not g.ready()
        a.send(b"x")
        g.get(timeout=PATIENCE)
        with pytest.raises(TimeoutError):
            _core.wait_read(a.fileno(), 0.01)


def test_closing_wakes_who_waits():
    a, b = pair()
    with a, b:
        d = Descriptor(b.fileno())
        g = weald.spawn(d.wait_read)
        weald.sleep(0)
        d.close()
        g.join()
        assert isinstance(g.exception, OSError)
        with pytest.raises(OSError):
            d.wait_read()


def test_bad_numbers():
    with pytest.raises(ValueError):
        _core.wait_read(-1)
    r, w = os.pipe()
    os.close(r)
    os.close(w)
    with pytest.raises(OSError):
        _core.wait_read(r)


def test_poll_fds():
    a, b = pair()
    with a, b:
        wanted = {a.fileno(): _core.READ | _core.WRITE, b.fileno(): _core.READ}
        assert _core.poll_fds(wanted, 10) == {a.fileno(): _core.WRITE}
        assert _core.poll_fds({b.fileno(): _core.READ}, 0.01) == {}
        a.send(b"x")
        assert _core.poll_fds({b.fileno(): _core.READ}, 10) == {b.fileno(): _core.READ}


def test_a_descriptor_used_from_two_threads():
    a, b = pair()
    with a, b:
        d, got = Descriptor(b.fileno()), []

        def wait():
            d.wait_read(PATIENCE)
            got.append(1)

        thread = threading.Thread(target=wait)
        thread.start()
        g = weald.spawn(wait)
        settle()
        a.send(b"x")
        g.get()
        thread.join()
        assert got == [1, 1]


def test_a_blocking_description_stays_blocking():
    r, w = os.pipe()
    try:
        weald.spawn(os.write, w, b"x")
        _core.wait_read(r)
        assert os.get_blocking(r)
    finally:
        os.close(r)
        os.close(w)


WAITS = {
    "wait_read": _core.wait_read,
    "wait_write": _core.wait_write,
    "wait_readwrite": _core.wait_readwrite,
    "poll_fds": lambda fd: _core.poll_fds({fd: _core.READ}, None),
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))
def test_a_number_closed_before_the_loop_has_told_the_kernel(wait):
    """libuv and libev abort the process when epoll_ctl refuses a descriptor."""
    a, b = pair()
    with a, b:
        g = weald.spawn(wait, b.fileno())
        weald.sleep(0)
        fd = b.detach()
        os.close(fd)
        g.join(timeout=PATIENCE)
        assert g.ready()  # the caller's system call raises the error


@pytest.mark.parametrize("wait", WAITS.values(), ids=list(WAITS))
def test_closing_a_descriptor_wakes_who_waits_for_its_number(wait):
    a, b = pair()
    with a, b:
        d = Descriptor(b.fileno())
        fill = b"x" * 65536
        with pytest.raises(BlockingIOError):
            while True:
                b.send(fill)
        g = weald.spawn(wait, b.fileno())
        settle()
        assert not g.ready()
        d.close()
        b.close()
        g.join(timeout=PATIENCE)
        assert g.ready()


@pytest.mark.parametrize("how", ["close", "detach", "os.close", "dup2"])
def test_a_number_that_another_thread_frees_is_a_new_socket_here(io_loop, how):
    """The loop hears of the end only after this thread has opened another socket of that number, and waits for it."""
    old, old_peer = weald.socket.socketpair()
    other, other_peer = stdlib.socketpair()
    old_peer.send(b"x")
    waiter = weald.spawn(old.recv, 1)
    assert waiter.get(timeout=PATIENCE) == b"x"  # this thread's loop knows the number
    number = old.fileno()
    late = weald.spawn(old.recv, 1)
    settle()

    def free():
        if how == "close":
            old.close()
        elif how == "detach":
            os.close(old.detach())
        elif how == "os.close":
            weald.os.close(number)
        else:
            weald.os.dup2(other.fileno(), number)
            os.close(number)

    Thread(free).result()
    pair = weald.socket.socketpair()
    new, peer = pair if pair[0].fileno() == number else pair[::-1]
    assert new.fileno() == number
    sender = weald.spawn(peer.send, b"y")
    assert new.recv(1) == b"y"  # waits before anything else has run in this thread
    assert sender.get(timeout=PATIENCE) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        late.get(timeout=PATIENCE)
    if how in ("os.close", "dup2"):
        old.detach()
    for sock in (new, peer, old_peer, other, other_peer):
        sock.close()
