"""The curves of `primitives --scale`: cost per operation in the presence of n parked greenlets or n pending timers.

For packages shaped like gevent.  `curves(package)` gives functions `curve(n, seconds)` that return nanoseconds of
CPU per operation; each cleans up after itself.  A flat curve means the crowd costs nothing but its memory.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from greenlets import load, nothing
from measure import measure

FAR = 3600.0  # seconds; no timer of the crowd fires during a run


def curves(package: str) -> dict[str, Callable[[int, float], float]]:
    """Curve name to function."""
    api = load(package)
    return {**_parked(api), **_pending(api)}


def _uncollected(curve: Callable[[int, float], float]) -> Callable[[int, float], float]:
    """The curve without CPython's cyclic collector, whose full passes over the crowd are most of its growth."""

    def without(n: int, seconds: float) -> float:
        gc.disable()
        try:
            return curve(n, seconds)
        finally:
            gc.enable()

    return without


def _switch(api: Any) -> Callable[[int], None]:
    sleep = api.sleep

    def batch(n: int) -> None:
        for _ in range(n):
            sleep(0)

    return batch


def _spawn(api: Any) -> Callable[[int], None]:
    spawn = api.spawn

    def batch(n: int) -> None:
        for _ in range(n):
            spawn(nothing).join()

    return batch


def _timeout(api: Any) -> Callable[[int], None]:
    timeout = api.Timeout

    def batch(n: int) -> None:
        for _ in range(n):
            with timeout(10):
                pass

    return batch


def _sleep_short(api: Any) -> Callable[[int], None]:
    """A timer that fires at once: into the heap or wheel of n others and out again."""
    sleep = api.sleep

    def batch(n: int) -> None:
        for _ in range(n):
            sleep(1e-6)

    return batch


def _parked(api: Any) -> dict[str, Callable[[int, float], float]]:
    @contextmanager
    def crowd(n: int) -> Iterator[None]:
        event = api.Event()
        greenlets = [api.spawn(event.wait) for _ in range(n)]
        api.sleep(0)
        try:
            yield
        finally:
            event.set()
            api.joinall(greenlets)

    def during(make: Callable[[Any], Callable[[int], None]]) -> Callable[[int, float], float]:
        def curve(n: int, seconds: float) -> float:
            with crowd(n):
                return measure(make(api), seconds).cpu

        return curve

    def come_and_go(n: int, seconds: float) -> float:
        def batch(rounds: int) -> None:
            for _ in range(rounds):
                with crowd(n):
                    pass

        return measure(batch, seconds).cpu / n

    return {
        "parked: sleep(0)": during(_switch),
        "parked: spawn + join": during(_spawn),
        "parked: spawn, park, wake one of n": come_and_go,
        "parked: the same, no collector": _uncollected(come_and_go),
    }


def _pending(api: Any) -> dict[str, Callable[[int, float], float]]:
    @contextmanager
    def crowd(n: int) -> Iterator[None]:
        timers = [api.Timeout(FAR + i % 1000) for i in range(n)]
        for timer in timers:
            timer.start()
        api.sleep(0)
        try:
            yield
        finally:
            for timer in timers:
                timer.cancel()

    def during(make: Callable[[Any], Callable[[int], None]]) -> Callable[[int, float], float]:
        def curve(n: int, seconds: float) -> float:
            with crowd(n):
                return measure(make(api), seconds).cpu

        return curve

    def start_cancel(n: int, seconds: float) -> float:
        def batch(rounds: int) -> None:
            for _ in range(rounds):
                with crowd(n):
                    pass

        return measure(batch, seconds).cpu / n

    return {
        "timers: sleep(0)": during(_switch),
        "timers: with Timeout(10)": during(_timeout),
        "timers: sleep that fires": during(_sleep_short),
        "timers: start and cancel one of n": start_cancel,
        "timers: the same, no collector": _uncollected(start_cancel),
    }
