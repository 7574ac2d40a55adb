"""weald.time: sleep parks, and refuses what time.sleep refuses."""

import time as stdlib
from typing import Any

import pytest
from helpers import VIRTUAL, takes, tick

import weald
from weald import time


def test_names() -> None:
    assert time.monotonic is stdlib.monotonic
    assert time.strftime is stdlib.strftime
    assert set(time.__all__) == {name for name in vars(stdlib) if not name.startswith("_")}


@VIRTUAL
def test_sleep(loop_name: str) -> None:
    order = []

    def sleeper(ticks: float) -> None:
        time.sleep(tick(ticks))
        order.append(ticks)

    with takes(3):
        weald.joinall([weald.spawn(sleeper, ticks) for ticks in (3, 1, 2)])
    assert order == [1, 2, 3]


@VIRTUAL
@pytest.mark.parametrize("zero", [0, 0.0, -0.0, False])
def test_zero_yields_once(loop_name: str, zero: Any) -> None:
    order: list[int] = []

    def steps(number: int) -> None:
        for _ in range(3):
            order.append(number)
            time.sleep(zero)

    weald.joinall([weald.spawn(steps, number) for number in (1, 2)])
    assert order == [1, 2] * 3


@pytest.mark.parametrize("bad", [-1, -0.5, float("nan"), float("inf"), 1e300, 2**70, "1", None, 1j])
def test_errors_are_the_stdlibs(bad: Any) -> None:
    with pytest.raises((ValueError, OverflowError, TypeError)) as theirs:
        stdlib.sleep(bad)
    with pytest.raises((ValueError, OverflowError, TypeError)) as ours:
        time.sleep(bad)
    assert ours.type is theirs.type
    with pytest.raises(TypeError):
        time.sleep(seconds=1)  # type: ignore[call-arg]


@VIRTUAL
def test_what_counts_as_a_number(loop_name: str) -> None:
    class Index:
        def __index__(self) -> int:
            return 1000

    with takes(1):
        time.sleep(Index())  # type: ignore[arg-type]
