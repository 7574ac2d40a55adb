"""The rows of `primitives` for trio: the same work with nurseries, memory channels and cancel scopes.

`rows(package)` gives batch functions by row name; each batch is one `trio.run`.
"""

import gc
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio
from measure import resident

SLEEPERS = 10_000


async def nothing() -> None:
    """The function of the spawned tasks."""


def rows(package: str) -> dict[str, Callable[[int], object]]:
    """Row name to batch function.  `resident` is not a batch: it takes a count and returns bytes per task."""
    return {name: partial(trio.run, main) for name, main in ROWS.items()}


async def _together(count: int, function: Callable[..., Awaitable[object]], *args: Any) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(function, *args)


async def spawn_join(n: int) -> None:
    for _ in range(n):
        await _together(1, nothing)


async def spawn_joinall(n: int) -> None:
    for first in range(0, n, 1000):
        await _together(min(1000, n - first), nothing)


async def spawn_raw(n: int) -> None:
    async with trio.open_nursery() as nursery:
        for first in range(0, n, 100):
            for _ in range(min(100, n - first)):
                nursery.start_soon(nothing)
            await trio.sleep(0)


async def switch(n: int) -> None:
    async def loop() -> None:
        for _ in range(n // 10):
            await trio.sleep(0)

    await _together(10, loop)


async def _transfer(size: float, n: int, burst: int) -> None:
    sender, receiver = trio.open_memory_channel[int](size)

    async def produce() -> None:
        for i in range(n):
            await sender.send(i)
            if burst and i % burst == 0:
                await trio.sleep(0)

    async def consume() -> None:
        for _ in range(n):
            await receiver.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(consume)


async def queue1(n: int) -> None:
    await _transfer(1, n, 0)


async def queue_unbounded(n: int) -> None:
    await _transfer(math.inf, n, 100)


async def semaphore_contended(n: int) -> None:
    semaphore = trio.Semaphore(1)

    async def loop() -> None:
        for _ in range(n // 10):
            async with semaphore:
                await trio.sleep(0)

    await _together(10, loop)


async def semaphore_free(n: int) -> None:
    """trio's acquire is always a checkpoint, free or not."""
    semaphore = trio.Semaphore(1)
    for _ in range(n):
        async with semaphore:
            pass


async def timeout(n: int) -> None:
    for _ in range(n):
        with trio.move_on_after(10):
            pass


async def pool_spawn(n: int) -> None:
    """trio has no pool: a nursery behind a semaphore of 100."""
    semaphore = trio.Semaphore(100)

    async def work() -> None:
        semaphore.release()

    async with trio.open_nursery() as nursery:
        for _ in range(n):
            await semaphore.acquire()
            nursery.start_soon(work)


async def sleepers(n: int) -> None:
    for _ in range(0, n, SLEEPERS):
        async with trio.open_nursery() as nursery:
            for i in range(SLEEPERS):
                nursery.start_soon(trio.sleep, (i % 100 + 1) / 10_000)


async def parked(n: int) -> float:
    async def park(event: trio.Event) -> None:
        await event.wait()

    async def grow(count: int) -> float:
        event = trio.Event()
        gc.collect()
        before = resident()
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(park, event)
            await trio.sleep(0.01)
            grown = (resident() - before) / count
            event.set()
        return grown

    await grow(100)  # loads what is loaded once
    return await grow(n)


# No `asyncresult`: trio leaves results to the user, on purpose.
ROWS: dict[str, Callable[..., Awaitable[object]]] = {
    "spawn_join": spawn_join,
    "spawn_joinall": spawn_joinall,
    "spawn_raw": spawn_raw,
    "switch": switch,
    "queue1": queue1,
    "queue_unbounded": queue_unbounded,
    "semaphore_contended": semaphore_contended,
    "semaphore_free": semaphore_free,
    "timeout": timeout,
    "scope": timeout,
    "task_group": spawn_joinall,
    "pool_spawn": pool_spawn,
    "sleepers": sleepers,
    "resident": parked,
}
