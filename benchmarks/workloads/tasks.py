"""The rows of `primitives` for asyncio, on its own loop or on uvloop: the same work with tasks.

`rows(package)` gives batch functions by row name; they share one event loop, kept for the whole process.
Where asyncio has no counterpart the nearest thing a user would write stands in, and a comment says so.
"""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any

from measure import resident

SLEEPERS = 10_000


async def nothing() -> None:
    """The function of the spawned tasks."""


def rows(package: str) -> dict[str, Callable[[int], object]]:
    """Row name to batch function.  `resident` is not a batch: it takes a count and returns bytes per task."""
    factory = import_module("uvloop").new_event_loop if package == "uvloop" else None
    runner = asyncio.Runner(loop_factory=factory)

    def batch(main: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., object]:
        return lambda *n: runner.run(main(*n))

    return {main.__name__: batch(main) for main in ROWS} | {"scope": batch(timeout)}


async def spawn_join(n: int) -> None:
    for _ in range(n):
        await asyncio.create_task(nothing())


async def spawn_joinall(n: int) -> None:
    for first in range(0, n, 1000):
        await asyncio.gather(*[asyncio.create_task(nothing()) for _ in range(min(1000, n - first))])


async def spawn_raw(n: int) -> None:
    """A task that is not awaited; the list keeps it alive, as asyncio's documentation demands."""
    for first in range(0, n, 100):
        tasks = [asyncio.create_task(nothing()) for _ in range(min(100, n - first))]
        await asyncio.sleep(0)
        assert tasks[-1].done(), "the tasks have not run"


async def switch(n: int) -> None:
    async def loop() -> None:
        for _ in range(n // 10):
            await asyncio.sleep(0)

    await asyncio.gather(*[loop() for _ in range(10)])


async def _transfer(queue: "asyncio.Queue[int]", n: int, burst: int) -> None:
    async def produce() -> None:
        for i in range(n):
            await queue.put(i)
            if burst and i % burst == 0:
                await asyncio.sleep(0)

    async def consume() -> None:
        for _ in range(n):
            await queue.get()

    await asyncio.gather(produce(), consume())


async def queue1(n: int) -> None:
    await _transfer(asyncio.Queue(1), n, 0)


async def queue_unbounded(n: int) -> None:
    await _transfer(asyncio.Queue(), n, 100)


async def asyncresult(n: int) -> None:
    """A asks and waits for the answer; B waits for the question: two futures, two switches."""
    new = asyncio.get_running_loop().create_future
    question = new()

    async def ask() -> None:
        nonlocal question
        for _ in range(n):
            answer = new()
            asked, question = question, new()
            asked.set_result(answer)
            await answer

    async def reply() -> None:
        for _ in range(n):
            (await question).set_result(None)

    await asyncio.gather(reply(), ask())


async def semaphore_contended(n: int) -> None:
    semaphore = asyncio.Semaphore(1)

    async def loop() -> None:
        for _ in range(n // 10):
            async with semaphore:
                await asyncio.sleep(0)

    await asyncio.gather(*[loop() for _ in range(10)])


async def semaphore_free(n: int) -> None:
    semaphore = asyncio.Semaphore(1)
    for _ in range(n):
        async with semaphore:
            pass


async def timeout(n: int) -> None:
    for _ in range(n):
        async with asyncio.timeout(10):
            pass


async def task_group(n: int) -> None:
    for first in range(0, n, 1000):
        async with asyncio.TaskGroup() as group:
            for _ in range(min(1000, n - first)):
                group.create_task(nothing())


async def pool_spawn(n: int) -> None:
    """asyncio has no pool: a TaskGroup behind a semaphore of 100, given back by the task's done callback."""
    semaphore = asyncio.Semaphore(100)

    def give_back(task: "asyncio.Task[None]") -> None:
        semaphore.release()

    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            await semaphore.acquire()
            group.create_task(nothing()).add_done_callback(give_back)


async def sleepers(n: int) -> None:
    for _ in range(0, n, SLEEPERS):
        await asyncio.gather(*[asyncio.sleep((i % 100 + 1) / 10_000) for i in range(SLEEPERS)])


async def parked(n: int) -> float:
    async def park(event: asyncio.Event) -> None:
        await event.wait()

    async def grow(count: int) -> float:
        event = asyncio.Event()
        gc.collect()
        before = resident()
        tasks = [asyncio.create_task(park(event)) for _ in range(count)]
        await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        grown = (resident() - before) / count
        event.set()
        await asyncio.gather(*tasks)
        return grown

    await grow(100)  # loads what is loaded once
    return await grow(n)


parked.__name__ = "resident"  # the row's name; `resident` itself is the gauge

ROWS: tuple[Callable[..., Coroutine[Any, Any, object]], ...] = (
    spawn_join,
    spawn_joinall,
    spawn_raw,
    switch,
    queue1,
    queue_unbounded,
    asyncresult,
    semaphore_contended,
    semaphore_free,
    timeout,
    task_group,
    pool_spawn,
    sleepers,
    parked,
)
