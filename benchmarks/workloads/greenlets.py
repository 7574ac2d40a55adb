"""The rows of `primitives` for libraries shaped like gevent: weald, gevent, and eventlet through an adapter.

`rows(package)` gives the batch functions by row name.  The same lines run for every package, so a ratio compares
libraries and not benchmarks.  See `measure` for what a batch is.
"""

import gc
from collections.abc import Callable
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from measure import resident

SLEEPERS = 10_000


def nothing() -> None:
    """The function of the spawned greenlets."""


def load(package: str) -> SimpleNamespace:
    """The names the rows use, taken from `package`."""
    if package == "eventlet":
        return _load_eventlet()
    top = import_module(package)
    return SimpleNamespace(
        spawn=top.spawn,
        spawn_raw=top.spawn_raw,
        joinall=top.joinall,
        sleep=top.sleep,
        Timeout=top.Timeout,
        Queue=import_module(f"{package}.queue").Queue,
        Event=import_module(f"{package}.event").Event,
        AsyncResult=import_module(f"{package}.event").AsyncResult,
        Semaphore=import_module(f"{package}.lock").Semaphore,
        Pool=import_module(f"{package}.pool").Pool,
        scopes=import_module("weald.scopes") if package == "weald" else None,
    )


def _load_eventlet() -> SimpleNamespace:
    eventlet = import_module("eventlet")
    event = import_module("eventlet.event").Event
    thread = import_module("eventlet.greenthread").GreenThread
    thread.join = thread.wait
    return SimpleNamespace(
        spawn=eventlet.spawn,
        spawn_raw=eventlet.spawn_n,
        joinall=lambda threads: [thread.wait() for thread in threads],
        sleep=eventlet.sleep,
        Timeout=eventlet.Timeout,
        Queue=import_module("eventlet.queue").Queue,
        Event=type("Event", (event,), {"set": event.send}),
        AsyncResult=type("AsyncResult", (event,), {"set": event.send, "get": event.wait}),
        Semaphore=import_module("eventlet.semaphore").Semaphore,
        Pool=type("Pool", (eventlet.GreenPool,), {"join": eventlet.GreenPool.waitall}),
        scopes=None,
    )


def rows(package: str) -> dict[str, Callable[[int], object]]:
    """Row name to batch function.  `resident` is not a batch: it takes a count and returns bytes per greenlet."""
    api = load(package)
    return {**_switching(api), **_handing_over(api), **_guarding(api), **_scopes(api)}


def _switching(api: Any) -> dict[str, Callable[[int], object]]:
    spawn, spawn_raw, joinall, sleep = api.spawn, api.spawn_raw, api.joinall, api.sleep

    def spawn_join(n: int) -> None:
        for _ in range(n):
            spawn(nothing).join()

    def spawn_joinall(n: int) -> None:
        for first in range(0, n, 1000):
            joinall([spawn(nothing) for _ in range(min(1000, n - first))])

    def raw(n: int) -> None:
        for first in range(0, n, 100):
            last = None
            for _ in range(min(100, n - first)):
                last = spawn_raw(nothing)
            sleep(0)
            assert getattr(last, "dead", False), "spawn_raw's greenlets have not run"

    def switch(n: int) -> None:
        def loop() -> None:
            for _ in range(n // 10):
                sleep(0)

        joinall([spawn(loop) for _ in range(10)])

    def sleepers(n: int) -> None:
        for _ in range(0, n, SLEEPERS):
            joinall([spawn(sleep, (i % 100 + 1) / 10_000) for i in range(SLEEPERS)])

    def pool_spawn(n: int) -> None:
        pool = api.Pool(100)
        for _ in range(n):
            pool.spawn(nothing)
        pool.join()

    def parked(n: int) -> float:
        def park(event: Any) -> None:
            event.wait()

        def grow(count: int) -> float:
            event = api.Event()
            gc.collect()
            before = resident()
            greenlets = [spawn(park, event) for _ in range(count)]
            sleep(0)
            sleep(0.01)
            grown = (resident() - before) / count
            event.set()
            joinall(greenlets)
            return grown

        grow(100)  # loads what is loaded once
        return grow(n)

    return {
        "spawn_join": spawn_join,
        "spawn_joinall": spawn_joinall,
        "spawn_raw": raw,
        "switch": switch,
        "sleepers": sleepers,
        "pool_spawn": pool_spawn,
        "resident": parked,
    }


def _handing_over(api: Any) -> dict[str, Callable[[int], object]]:
    spawn, joinall, sleep, result = api.spawn, api.joinall, api.sleep, api.AsyncResult

    def transfer(queue: Any, n: int, burst: int) -> None:
        def produce() -> None:
            put = queue.put
            for i in range(n):
                put(i)
                if burst and i % burst == 0:
                    sleep(0)

        def consume() -> None:
            get = queue.get
            for _ in range(n):
                get()

        joinall([spawn(produce), spawn(consume)])

    def queue1(n: int) -> None:
        transfer(api.Queue(1), n, 0)

    def queue_unbounded(n: int) -> None:
        transfer(api.Queue(), n, 100)

    def asyncresult(n: int) -> None:
        """A asks and waits for the answer; B waits for the question: two results, two switches."""
        question = result()

        def ask() -> None:
            nonlocal question
            for _ in range(n):
                answer = result()
                asked, question = question, result()
                asked.set(answer)
                answer.get()

        def reply() -> None:
            for _ in range(n):
                question.get().set(None)

        joinall([spawn(reply), spawn(ask)])

    return {"queue1": queue1, "queue_unbounded": queue_unbounded, "asyncresult": asyncresult}


def _guarding(api: Any) -> dict[str, Callable[[int], object]]:
    spawn, joinall, sleep, timeout = api.spawn, api.joinall, api.sleep, api.Timeout

    def semaphore_contended(n: int) -> None:
        semaphore = api.Semaphore(1)

        def loop() -> None:
            for _ in range(n // 10):
                with semaphore:
                    sleep(0)

        joinall([spawn(loop) for _ in range(10)])

    def semaphore_free(n: int) -> None:
        semaphore = api.Semaphore(1)
        for _ in range(n):
            with semaphore:
                pass

    def timeout_idle(n: int) -> None:
        for _ in range(n):
            with timeout(10):
                pass

    return {
        "semaphore_contended": semaphore_contended,
        "semaphore_free": semaphore_free,
        "timeout": timeout_idle,
    }


def _scopes(api: Any) -> dict[str, Callable[[int], object]]:
    """The others have no scopes: their rows are what programs use instead, Timeout and spawn + joinall."""
    if api.scopes is None:
        return {"scope": _guarding(api)["timeout"], "task_group": _switching(api)["spawn_joinall"]}
    move_on_after, group_class = api.scopes.move_on_after, api.scopes.TaskGroup

    def scope(n: int) -> None:
        for _ in range(n):
            with move_on_after(10):
                pass

    def task_group(n: int) -> None:
        for first in range(0, n, 1000):
            with group_class() as group:
                for _ in range(min(1000, n - first)):
                    group.spawn(nothing)

    return {"scope": scope, "task_group": task_group}
