"""The fuzzer's targets with input that hypothesis makes from the tests' tables: the same each time, and short."""

import fuzz
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


def pieces(target):
    """Valid and invalid messages in sequence, some of them cut, with some bytes in between."""
    seeds = [seed[1:] for seed in fuzz.seeds(target)]
    whole = st.sampled_from(seeds)
    part = st.tuples(whole, st.integers(0, 60)).map(lambda drawn: drawn[0][: drawn[1]])
    return st.tuples(st.binary(min_size=1, max_size=1), st.lists(whole | part | st.binary(max_size=9), max_size=4)).map(
        lambda drawn: drawn[0] + b"".join(drawn[1])
    )


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_nothing_but_the_protocols_own_errors(target):
    @settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @given(pieces(target))
    def run(data):
        fuzz.TARGETS[target](data)

    run()


@pytest.mark.parametrize("target", fuzz.TARGETS)
def test_the_seeds(target):
    for seed in fuzz.seeds(target):
        fuzz.TARGETS[target](seed)
