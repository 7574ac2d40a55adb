"""A short run of each stress case; `scripts/stress` runs them for longer."""

import warnings

import stress


def test_threads_and_hubs():
    assert "operations" in stress.threads_and_hubs(3, greenlets=200, plain=4)


def test_kills(io_loop):
    stress.kills(2)


def test_forks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there is a second thread; that is the point
        stress.forks(3)
