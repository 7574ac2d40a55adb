"""weald.selectors: the stdlib's selectors park the greenlet."""

import selectors as stdlib

import pytest
from helpers import PATIENCE, settle

import weald
from weald import selectors, socket
from weald.selectors import EVENT_READ, EVENT_WRITE

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair(io_loop):
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.fixture(params=["SelectSelector", "PollSelector", "EpollSelector", "DefaultSelector"])
def selector(request):
    with getattr(selectors, request.param)() as made:
        yield made


def test_names():
    for name in selectors.__implements__:
        ours, theirs = getattr(selectors, name), getattr(stdlib, name)
        assert issubclass(ours, theirs) and ours is not theirs
    for name in selectors.__imports__:
        assert getattr(selectors, name) is getattr(stdlib, name)


def test_select_parks_until_something_is_ready(pair, selector):
    a, b = pair
    key = selector.register(a, EVENT_READ, "data")
    assert key.fileobj is a and key.fd == a.fileno() and key.data == "data"
    waiting = weald.spawn(selector.select)
    settle()
    assert not waiting.ready()
    b.send(b"x")
    assert waiting.get(timeout=PATIENCE) == [(key, EVENT_READ)]


def test_both_events(pair, selector):
    a, b = pair
    selector.register(a, EVENT_READ | EVENT_WRITE)
    assert [events for _, events in selector.select()] == [EVENT_WRITE]
    b.send(b"x")
    assert [events for _, events in selector.select()] == [EVENT_READ | EVENT_WRITE]
    selector.modify(a, EVENT_READ)
    assert [events for _, events in selector.select()] == [EVENT_READ]
    selector.unregister(a)
    assert selector.select(0) == [] and not selector.get_map()


def test_select_times_out(pair, selector):
    a, _ = pair
    selector.register(a, EVENT_READ)
    ran = []
    weald.spawn(ran.append, 1)
    assert selector.select(0) == [] and ran == [1]
    assert selector.select(0.01) == [] and selector.select(-1) == []


def test_the_end_of_the_peer_can_be_read(pair, selector):
    a, b = pair
    selector.register(a, EVENT_READ)
    waiting = weald.spawn(selector.select)
    settle()
    b.close()
    assert [events for _, events in waiting.get(timeout=PATIENCE)] == [EVENT_READ]


def test_a_server_in_the_manner_of_asyncio(io_loop, selector):
    """One greenlet serves many connections through one selector while others use them."""
    pairs = [socket.socketpair() for _ in range(20)]
    for ours, _ in pairs:
        ours.setblocking(False)
        selector.register(ours, EVENT_READ)

    def serve():
        served = 0
        while served < len(pairs) * 5:
            for key, _ in selector.select():
                key.fileobj.send(key.fileobj.recv(100))  # type: ignore[union-attr]
                served += 1

    def use(sock):
        for number in range(5):
            sock.sendall(b"%d" % number)
            assert sock.recv(100) == b"%d" % number

    server = weald.spawn(serve)
    weald.joinall([weald.spawn(use, theirs) for _, theirs in pairs], timeout=PATIENCE, raise_error=True)
    server.get(timeout=PATIENCE)
    for both in pairs:
        for sock in both:
            sock.close()


@pytest.mark.parametrize("name", ["SelectSelector", "PollSelector", "EpollSelector"])
def test_closing(pair, name):
    a, _ = pair
    selector = getattr(selectors, name)()
    selector.register(a, EVENT_READ)
    selector.close()
    selector.close()
    with pytest.raises((KeyError, RuntimeError)):
        selector.get_key(a)
