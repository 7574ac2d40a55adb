"""weald.time: sleep parks, and refuses what time.sleep refuses."""

import sys
import time as stdlib
from decimal import Decimal
from fractions import Fraction

import pytest
from helpers import VIRTUAL, takes, tick

import weald
from weald import time
from weald.select import select
from weald.socket import socket


def test_names():
    assert time.monotonic is stdlib.monotonic
    assert time.strftime is stdlib.strftime
    assert set(time.__all__) == {name for name in vars(stdlib) if not name.startswith("_")}


@VIRTUAL
def test_sleep(loop_name):
    order = []

    def sleeper(ticks):
        time.sleep(tick(ticks))
        order.append(ticks)

    with takes(3):
        weald.joinall([weald.spawn(sleeper, ticks) for ticks in (3, 1, 2)])
    assert order == [1, 2, 3]


@VIRTUAL
@pytest.mark.parametrize("zero", [0, 0.0, -0.0, False])
def test_zero_yields_once(loop_name, zero):
    order = []

    def steps(number):
        for _ in range(3):
            order.append(number)
            time.sleep(zero)

    weald.joinall([weald.spawn(steps, number) for number in (1, 2)])
    assert order == [1, 2] * 3


@pytest.mark.parametrize("bad", [-1, -0.5, float("nan"), float("inf"), 1e300, 2**70, "1", None, 1j])
def test_errors_are_the_stdlibs(bad):
    with pytest.raises((ValueError, OverflowError, TypeError)) as theirs:
        stdlib.sleep(bad)
    with pytest.raises((ValueError, OverflowError, TypeError)) as ours:
        time.sleep(bad)
    assert ours.type is theirs.type
    with pytest.raises(TypeError):
        time.sleep(seconds=1)  # type: ignore[call-arg]


@VIRTUAL
def test_what_counts_as_a_number(loop_name):
    class Index:
        def __index__(self):
            return 1000

    with takes(1):
        time.sleep(Index())  # type: ignore[arg-type]


@VIRTUAL
@pytest.mark.skipif(sys.version_info < (3, 15), reason="numbers were ints and floats")
def test_any_real_number_is_one(loop_name):
    class Real:
        def __float__(self):
            return 1000.0

    for number in (Decimal(1000), Fraction(1000), Real()):
        with takes(1):
            time.sleep(number)  # type: ignore[arg-type]
    with socket() as sock:
        sock.settimeout(Fraction(1, 2))  # type: ignore[arg-type]
        assert sock.gettimeout() == 0.5
    assert select([], [], [], Decimal("0.001")) == ([], [], [])
