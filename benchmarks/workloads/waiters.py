"""The curves of `primitives --waiters`: n greenlets wait on ONE object; the cost per waiter of waking them.

For packages shaped like gevent.  `curves(package)` gives functions `curve(n)` that return nanoseconds of CPU per
waiter.  Only the waking is measured, not the waiting.  The cyclic collector is off meanwhile, so that only the object's
own bookkeeping can grow; `primitives --scale` has the collector's part.
"""

import gc
import random
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from greenlets import load, nothing

AT_LEAST = 20_000  # waiters a figure is the mean of
FAR = 3600.0  # seconds

# Makes a crowd of n and returns the function that wakes it, which returns when no greenlet waits any more.
Crowd = Callable[[int], Callable[[], object]]


def curves(package: str) -> dict[str, Callable[[int], float]]:
    """Curve name to function."""
    api = load(package)
    crowds = {**_woken(api), **_killed(api), **_queues(api), **_sets(api, package), **_timers(api)}
    return {name: _measured(crowd) for name, crowd in crowds.items()}


def _measured(crowd: Crowd) -> Callable[[int], float]:
    def curve(n: int) -> float:
        rounds = max(1, AT_LEAST // n)
        spent = 0.0
        for _ in range(rounds):
            go = crowd(n)
            gc.collect()
            gc.disable()
            try:
                start = time.process_time()
                go()
                spent += time.process_time() - start
            finally:
                gc.enable()
        return spent / (rounds * n) * 1e9

    return curve


def _parked(api: Any, n: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    greenlets = [api.spawn(function, *arguments) for _ in range(n)]
    api.sleep(0)
    return greenlets


def _shuffled(items: list[Any]) -> list[Any]:
    """In an order that is random and the same on every side."""
    return random.Random(len(items)).sample(items, len(items))


def _woken(api: Any) -> dict[str, Crowd]:
    def event(n: int) -> Callable[[], object]:
        happened = api.Event()
        greenlets = _parked(api, n, happened.wait)

        def go() -> None:
            happened.set()
            api.joinall(greenlets)

        return go

    def result(n: int) -> Callable[[], object]:
        value = api.AsyncResult()
        greenlets = _parked(api, n, value.get)

        def go() -> None:
            value.set(1)
            api.joinall(greenlets)

        return go

    def semaphore(n: int) -> Callable[[], object]:
        permits = api.Semaphore(0)
        greenlets = _parked(api, n, permits.acquire)

        def go() -> None:
            for _ in range(n):
                permits.release()
            api.joinall(greenlets)

        return go

    return {
        "Event: set wakes all": event,
        "AsyncResult: set wakes all": result,
        "Semaphore: release, one by one": semaphore,
    }


def _killed(api: Any) -> dict[str, Crowd]:
    def killing(make: Callable[[], Callable[..., Any]], *arguments: Any) -> Crowd:
        def crowd(n: int) -> Callable[[], object]:
            greenlets = _parked(api, n, make(), *arguments)
            mixed = _shuffled(greenlets)

            def go() -> None:
                for greenlet in mixed:
                    greenlet.kill(block=False)
                api.joinall(greenlets)

            return go

        return crowd

    return {
        "Event: waiters killed in random order": killing(lambda: api.Event().wait),
        "Semaphore: waiters killed in random order": killing(lambda: api.Semaphore(0).acquire),
        "Queue: getters killed in random order": killing(lambda: api.Queue().get),
        "sleep: n killed in random order": killing(lambda: api.sleep, FAR),
    }


def _queues(api: Any) -> dict[str, Crowd]:
    def getters(n: int) -> Callable[[], object]:
        queue = api.Queue()
        greenlets = _parked(api, n, queue.get)

        def go() -> None:
            for number in range(n):
                queue.put(number)
            api.joinall(greenlets)

        return go

    def putters(n: int) -> Callable[[], object]:
        queue = api.Queue(1)
        queue.put(0)
        greenlets = _parked(api, n, queue.put, 1)

        def go() -> None:
            for _ in range(n):
                queue.get()
            api.joinall(greenlets)

        return go

    return {"Queue: n getters, put one by one": getters, "Queue(1): n putters, got one by one": putters}


def _sets(api: Any, package: str) -> dict[str, Crowd]:
    top = import_module(package)

    def links(n: int) -> Callable[[], object]:
        finished = api.Event()
        greenlet = _parked(api, 1, finished.wait)[0]
        called: list[Any] = []
        for _ in range(n):
            greenlet.link(lambda source: called.append(source))

        def go() -> None:
            finished.set()
            greenlet.join()
            while len(called) < n:
                api.sleep(0)

        return go

    def unlinked(n: int) -> Callable[[], object]:
        greenlet = _parked(api, 1, api.Event().wait)[0]
        callbacks = [(lambda source, number=number: number) for number in range(n)]
        for callback in callbacks:
            greenlet.link(callback)
        mixed = _shuffled(callbacks)

        def go() -> None:
            for callback in mixed:
                greenlet.unlink(callback)

        return go

    def wait(n: int) -> Callable[[], object]:
        events = [api.Event() for _ in range(n)]
        api.spawn(lambda: [event.set() for event in events])
        return lambda: top.wait(events)

    def iwait(n: int) -> Callable[[], object]:
        events = [api.Event() for _ in range(n)]
        api.spawn(lambda: [event.set() for event in _shuffled(events)])
        return lambda: list(top.iwait(events))

    def pool(n: int) -> Callable[[], object]:
        workers = api.Pool(1)
        finished = api.Event()
        workers.spawn(finished.wait)
        greenlets = _parked(api, n, workers.spawn, nothing)

        def go() -> None:
            finished.set()
            api.joinall(greenlets)
            workers.join()

        return go

    return {
        "Greenlet: n links called": links,
        "Greenlet: links taken back in random order": unlinked,
        "wait for n events": wait,
        "iwait for n events": iwait,
        "Pool(1): n wait for a place": pool,
    }


def _timers(api: Any) -> dict[str, Crowd]:
    def cancelled(n: int) -> Callable[[], object]:
        timers = [api.Timeout(FAR + number % 1000) for number in range(n)]
        for timer in timers:
            timer.start()
        mixed = _shuffled(timers)

        def go() -> None:
            for timer in mixed:
                timer.cancel()

        return go

    return {"Timeout: n cancelled in random order": cancelled}
