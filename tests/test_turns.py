"""How many turns other greenlets get while a call blocks: no more than with gevent, because programs rely on it.

A greenlet that calls `sleep(0)` counts turns.  The numbers are those of gevent 26.9, measured in the same way.
"""

from collections.abc import Callable
from typing import Any

import pytest

import weald
from weald import getcurrent, iwait, joinall, killall, select, sleep, socket, spawn, wait
from weald.event import AsyncResult, Event
from weald.lock import BoundedSemaphore, RLock, Semaphore
from weald.pool import Group, Pool
from weald.queue import Channel, JoinableQueue, Queue, SimpleQueue

Op = Callable[[], Any]
CASES = {}


def turns(count):
    """The decorated function prepares a call, which then takes `count` turns with gevent."""

    def add(prepare):
        CASES[prepare.__name__] = (count, prepare)
        return prepare

    return add


def forever():
    while True:
        sleep(1000)


def begun(function=forever):
    found = spawn(function)
    sleep(0)
    sleep(0)
    return found


def new(count=3, function=lambda: None, *args):
    return [spawn(function, *args) for _ in range(count)]


# ------------------------------------------------------------------ greenlets


@turns(1)
def kill():
    return begun().kill


@turns(1)
def kill_of_a_greenlet_with_links():
    found = begun()
    called = []
    found.rawlink(called.append)

    def op():
        found.kill()
        assert called == [found]

    return op


@turns(0)
def kill_of_one_that_has_not_begun():
    return lambda: spawn(forever).kill()


@turns(2)
def kill_without_waiting_and_join():
    found = begun()
    return lambda: (found.kill(block=False), found.join())


def catch():
    try:
        sleep(1000)
    finally:
        sleep(0)


@turns(3)
def kill_of_one_that_takes_a_turn_to_end():
    return begun(catch).kill


@turns(1)
def kill_of_several():
    found = [begun() for _ in range(3)]
    return lambda: killall(found)


@turns(0)
def kill_of_several_that_have_not_begun():
    return lambda: killall(new(3, forever))


@turns(0)
def kill_without_waiting():
    found = begun()
    return lambda: killall([found], block=False)


@turns(2)
def join():
    return lambda: spawn(lambda: None).join()


@turns(2)
def get():
    return lambda: spawn(lambda: 1).get()


@turns(3)
def join_of_a_sleeper():
    return lambda: spawn(sleep, 0).join()


@turns(2)
def join_of_several():
    return lambda: joinall(new())


@turns(3)
def join_of_several_sleepers():
    return lambda: joinall(new(3, sleep, 0))


@turns(2)
def wait_for_several():
    return lambda: wait(new())


@turns(2)
def wait_for_one_of_several():
    return lambda: wait(new(), count=1)


@turns(2)
def iwait_for_several():
    return lambda: list(iwait(new()))


@turns(2)
def with_block():
    def op():
        with spawn(lambda: None):
            pass

    return op


@turns(3)
def link():
    def op():
        ended = Event()
        spawn(lambda: None).link(lambda _: ended.set())
        ended.wait()

    return op


@turns(3)
def rawlink():
    def op():
        ended = Event()
        spawn(lambda: None).rawlink(lambda _: ended.set())
        ended.wait()

    return op


@turns(2)
def spawn_raw():
    def op():
        ended = Event()
        weald.spawn_raw(ended.set)
        ended.wait()

    return op


@turns(1)
def sleeping():
    return lambda: sleep(0)


@turns(1)
def with_a_timeout():
    return lambda: weald.with_timeout(1000, sleep, 0)


@turns(1)
def switch_of_the_hub():
    hub = weald.get_hub()

    def op():
        hub.loop.run_callback(getcurrent().switch)
        hub.switch()

    return op


@turns(2)
def run_callback():
    def op():
        called = Event()
        weald.get_hub().loop.run_callback(called.set)
        called.wait()

    return op


# ------------------------------------------------------------------ primitives


@turns(2)
def event():
    found = Event()
    return lambda: (spawn(found.set), found.wait())


@turns(0)
def event_that_is_set():
    found = Event()
    found.set()
    return found.wait


@turns(0)
def set_of_an_event():
    found = Event()
    begun(found.wait)
    return found.set


@turns(2)
def wait_for_events():
    found = [Event() for _ in range(3)]
    return lambda: (spawn(lambda: [one.set() for one in found]), wait(found))


@turns(2)
def result():
    found = AsyncResult()
    return lambda: (spawn(found.set, 1), found.get())


@turns(0)
def result_that_is_there():
    found = AsyncResult()
    found.set(1)
    return found.get


@pytest.mark.parametrize("cls", [Queue, SimpleQueue, JoinableQueue, Channel])
def test_get_of_queues(cls):
    def prepare():
        queue = cls()
        return lambda: (spawn(queue.put, 1), queue.get())

    check(2, prepare)


@turns(0)
def get_of_an_item_that_is_there():
    queue = Queue()
    queue.put(1)
    return queue.get


@turns(0)
def put_for_a_getter():
    queue = Queue()
    begun(queue.get)
    return lambda: queue.put(1)


@turns(2)
def put_into_a_full_queue():
    queue = Queue(1)
    queue.put(1)
    return lambda: (spawn(queue.get), queue.put(2))


@turns(2)
def there_and_back():
    there = Queue()
    back = Queue()

    def peer():
        while True:
            back.put(there.get())

    begun(peer)
    return lambda: (there.put(1), back.get())


@turns(2)
def join_of_a_queue():
    queue = JoinableQueue()
    queue.put(1)
    return lambda: (spawn(lambda: (queue.get(), queue.task_done())), queue.join())


@turns(2)
def put_into_a_channel():
    channel = Channel()
    return lambda: (spawn(channel.get), channel.put(1))


@turns(1)
def put_into_a_channel_with_a_getter():
    channel = Channel()
    begun(channel.get)
    return lambda: channel.put(1)


@pytest.mark.parametrize("cls", [Semaphore, BoundedSemaphore])
def test_semaphores(cls):
    def prepare():
        semaphore = cls(1)
        semaphore.acquire()
        return lambda: (spawn(semaphore.release), semaphore.acquire())

    check(2, prepare)


@turns(0)
def free_semaphore():
    return Semaphore(1).acquire


@turns(0)
def release_for_a_waiter():
    semaphore = Semaphore(0)
    begun(semaphore.acquire)
    return semaphore.release


@turns(2)
def wait_for_a_semaphore():
    semaphore = Semaphore(0)
    return lambda: (spawn(semaphore.release), semaphore.wait())


@turns(3)
def rlock():
    lock = RLock()

    def hold():
        with lock:
            sleep(0)

    def op():
        spawn(hold)
        sleep(0)
        with lock:
            pass

    return op


# ------------------------------------------------------------------ pools


@turns(0)
def spawn_with_room():
    pool = Pool(2)
    return lambda: pool.spawn(lambda: None)


@turns(3)
def spawn_without_room():
    pool = Pool(1)
    return lambda: (pool.spawn(lambda: None), pool.spawn(lambda: None))


@turns(2)
def apply():
    return lambda: Pool(2).apply(lambda: 1)


@turns(7)
def map_of_a_pool():
    return lambda: Pool(2).map(str, range(4))


@turns(7)
def imap():
    return lambda: list(Pool(2).imap(str, range(4)))


@turns(7)
def imap_unordered():
    return lambda: list(Pool(2).imap_unordered(str, range(4)))


@pytest.mark.parametrize("cls", [Group, Pool])
def test_join_of_groups(cls):
    def prepare():
        group = cls()
        return lambda: ([group.spawn(lambda: None) for _ in range(2)], group.join())

    check(3, prepare)


def with_members():
    pool = Pool(3)
    for _ in range(3):
        pool.spawn(forever)
    sleep(0)
    sleep(0)
    return pool


@turns(2)
def kill_of_a_pool():
    return with_members().kill


@turns(2)
def kill_of_a_member():
    pool = with_members()
    member = next(iter(pool))
    return lambda: pool.killone(member)


# ------------------------------------------------------------------ sockets


@pytest.fixture
def pair():
    a, b = socket.socketpair()
    with a, b:
        yield a, b


@pytest.mark.parametrize("call", ["send", "sendall"])
def test_send_with_room(pair, call):
    check(0, lambda: lambda: getattr(pair[0], call)(b"x"))


def test_recv_of_what_is_there(pair):
    def prepare():
        pair[1].send(b"x")
        return lambda: pair[0].recv(1)

    check(0, prepare)


def test_recv_at_the_end(pair):
    pair[1].close()
    check(0, lambda: lambda: pair[0].recv(1))


def test_shutdown(pair):
    check(0, lambda: lambda: pair[0].shutdown(socket.SHUT_RDWR))


def test_accept_of_a_connection_that_is_there():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        select.select([listener], [], [])
        check(0, lambda: lambda: listener.accept()[0].close(), places=1)


@pytest.mark.parametrize("timeout", [None, 0])
def test_select_of_what_is_ready(pair, timeout):
    pair[1].send(b"x")
    check(1, lambda: lambda: select.select([pair[0]], [], [], timeout))


# ------------------------------------------------------------------ counting


def counted(prepare, place):
    """The turns that the call takes in the main greenlet, in a new one, in one that was woken, after a sleep."""
    count = 0

    def count_turns():
        nonlocal count
        while True:
            count += 1
            sleep(0)

    def body():
        op = prepare()
        if place == 2:
            woken = Event()
            spawn(woken.set)
            woken.wait()
        elif place == 3:
            sleep(0)
        before = count
        op()
        return count - before

    counting = spawn(count_turns)
    try:
        if place:
            return spawn(body).get()
        sleep(0)
        return body()
    finally:
        counting.kill()


def check(expected, prepare, places=4):
    found = [counted(prepare, place) for place in range(places)]
    assert max(found) <= expected, found


@pytest.mark.parametrize("name", CASES)
def test_turns(virtual, name):
    check(*CASES[name])
