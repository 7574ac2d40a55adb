"""The rows of `aio`: operations of an asyncio loop.  `rows(package)` gives batch functions by row name."""

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any


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


COROUTINES = (call_soon, call_later, sleep0, switch, future, task)


def rows(package: str) -> dict[str, Callable[[int], object]]:
    """Row name to batch function; all share one loop, kept for the whole process."""
    module = {"weald": "weald.aio", "uvloop": "uvloop", "asyncio": "asyncio"}[package]
    runner = asyncio.Runner(loop_factory=import_module(module).new_event_loop)

    def batch(main: Callable[..., Coroutine[Any, Any, object]]) -> Callable[..., object]:
        return lambda n: runner.run(main(n))

    found: dict[str, Callable[[int], object]] = {main.__name__: batch(main) for main in COROUTINES}
    return {**found, "await_done": await_done, "await_once": await_once} if package == "weald" else found
