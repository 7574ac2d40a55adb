"""Operations of an asyncio loop, for `benchmarks/aio.py`: `aio_worker.py PACKAGE CORE SECONDS`.

Prints a line when it is ready; for each row's name that it reads, the CPU nanoseconds of one operation.
"""

import asyncio
import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from measure import measure


def nothing() -> None:
    """A callback."""


async def call_soon(n: int) -> None:
    """In batches of 100."""
    loop = asyncio.get_running_loop()
    for _ in range(n // 100):
        for _ in range(100):
            loop.call_soon(nothing)
        await asyncio.sleep(0)


async def call_later(n: int) -> None:
    """Started and cancelled at once."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        loop.call_later(10, nothing).cancel()


async def sleep0(n: int) -> None:
    """One task, alone."""
    for _ in range(n):
        await asyncio.sleep(0)


async def switch(n: int) -> None:
    """Two tasks, in turns."""
    await asyncio.gather(sleep0(n // 2), sleep0(n // 2))


async def future(n: int) -> None:
    """A round trip through the loop."""
    loop = asyncio.get_running_loop()
    for _ in range(n):
        waited = loop.create_future()
        loop.call_soon(waited.set_result, None)
        await waited


async def empty() -> None:
    """A coroutine that does not wait."""


async def task(n: int) -> None:
    """One after the other."""
    for _ in range(n):
        await asyncio.create_task(empty())


def await_done(n: int) -> None:
    """From a greenlet."""
    await_ = import_module("weald.aio").await_
    for _ in range(n):
        await_(empty())


def await_once(n: int) -> None:
    """From a greenlet."""
    await_ = import_module("weald.aio").await_
    for _ in range(n):
        await_(asyncio.sleep(0))


ROWS: dict[str, Any] = {
    each.__name__: each for each in (call_soon, call_later, sleep0, switch, future, task, await_done, await_once)
}


def main() -> None:
    """See the module's docstring."""
    package, core, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if core >= 0:
        os.sched_setaffinity(0, {core})
    module = {"weald": "weald.aio", "uvloop": "uvloop", "asyncio": "asyncio"}[package]
    with asyncio.Runner(loop_factory=import_module(module).new_event_loop) as runner:
        print("ready", flush=True)
        for line in sys.stdin:
            row = ROWS[line.strip()]
            batch: Callable[[int], object] = (
                row if row in (await_done, await_once) else lambda n, row=row: runner.run(row(n))
            )
            print(measure(batch, seconds, unit=100).cpu, flush=True)


if __name__ == "__main__":
    main()
