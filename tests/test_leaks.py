"""Objects, descriptors and resident memory stay flat over many cycles."""

import gc
import os
import socket
import threading
from collections import Counter

import psutil
import pytest
from helpers import PATIENCE

import weald
import weald.socket
from weald.event import AsyncResult, Event
from weald.lock import Semaphore
from weald.pool import Pool
from weald.queue import Queue
from weald.threadpool import ThreadPool


def spawn_and_end():
    weald.joinall([weald.spawn(lambda n=n: n) for n in range(50)])
    for n in range(50):
        weald.spawn_raw(int, n)
    weald.sleep(0)


def kill():
    event, queue, lock = Event(), Queue(), Semaphore(0)
    waiting = [weald.spawn(wait) for wait in (event.wait, queue.get, lock.acquire, lambda: weald.sleep(100))] * 5
    weald.sleep(0)
    weald.killall(waiting)
    weald.killall([weald.spawn(weald.sleep, 1) for _ in range(5)])  # before they begin


def time_out():
    for block in (Event().wait, Queue().get, AsyncResult().get, lambda: weald.sleep(1)):
        with weald.Timeout(0.0001, False):
            block()
    for _ in range(100):
        with weald.Timeout(PATIENCE):
            pass


def link():
    result = AsyncResult()
    greenlet = weald.spawn(lambda: 1)
    greenlet.link(result)
    greenlet.link_value(lambda source: None)
    assert result.get() == 1
    result.rawlink(lambda source: None)
    weald.sleep(0)


def fail():
    hub = weald.get_hub()
    hub.handle_error = lambda *args: None
    greenlet = weald.spawn(lambda: 1 / 0)
    greenlet.join()
    with pytest.raises(ZeroDivisionError):
        greenlet.get()
    del hub.handle_error


def pools():
    pool = Pool(3)
    assert pool.map(str, range(10)) == [str(n) for n in range(10)]
    threads = ThreadPool(2)
    assert threads.spawn(int, "7").get() == 7
    threads.kill()


def sockets():
    a, b = weald.socket.socketpair()
    reader = weald.spawn(a.recv, 10)
    weald.sleep(0)
    b.sendall(b"x")
    assert reader.get() == b"x"
    waiting = weald.spawn(a.recv, 10)
    weald.sleep(0)
    waiting.kill()
    a.close()
    b.close()


def watchers():
    a, b = socket.socketpair()
    loop = weald.get_hub().loop
    for watcher in (loop.io(a.fileno(), 3), loop.timer(0), loop.async_(), loop.idle(), loop.check(), loop.timer(100)):
        watcher.start(lambda: None)
        weald.sleep(0)
        watcher.close()
    a.close()
    b.close()


def hubs():
    def work():
        weald.joinall([weald.spawn(weald.sleep, 0) for _ in range(5)])
        weald.spawn(weald.sleep, 100)  # still parked when the thread ends
        weald.sleep(0)
        sockets()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


CYCLES = (spawn_and_end, kill, time_out, link, fail, pools, sockets, watchers, hubs)


def measured():
    weald.sleep(0.001)
    gc.collect()
    gc.collect()
    process = psutil.Process(os.getpid())
    return Counter(type(o).__qualname__ for o in gc.get_objects()), process.num_fds(), process.memory_info().rss


@pytest.mark.parametrize("cycle", CYCLES, ids=lambda cycle: cycle.__name__)
def test_nothing_is_left_behind(io_loop, cycle):
    for _ in range(20):
        cycle()
    objects, descriptors, memory = measured()
    for _ in range(200):
        cycle()
    objects_after, descriptors_after, memory_after = measured()
    grown = {name: n - objects[name] for name, n in objects_after.items() if n - objects[name] >= 100}
    assert not grown
    assert descriptors_after <= descriptors
    assert memory_after - memory < 3_000_000
