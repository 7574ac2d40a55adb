"""Fixtures for all tests: the loop a test runs on."""

from collections.abc import Iterator

import pytest

from weald import _core


def _fresh_hub(name: str | None) -> None:
    _core.get_hub().destroy()
    _core.set_loop_factory(name)


@pytest.fixture(params=["libuv", "virtual"])
def loop_name(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on each loop, with a hub of its own."""
    _fresh_hub(request.param)
    yield request.param
    _fresh_hub(None)


@pytest.fixture
def virtual() -> Iterator[_core.Hub]:
    """A hub on the virtual clock: sleeping takes no time, and exactly as long as asked."""
    _fresh_hub("virtual")
    yield _core.get_hub()
    _fresh_hub(None)
