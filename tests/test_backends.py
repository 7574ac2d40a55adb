"""Which event loops there are, and which one new hubs get."""

from collections.abc import Iterator

import pytest
from helpers import python

import weald
from weald import _core
from weald._core.loops import backends, ev, uv


@pytest.fixture(autouse=True)
def back_to_the_default() -> Iterator[None]:
    yield
    _core.get_hub().destroy()
    _core.set_loop_factory(None)


def fresh_hub() -> _core.Hub:
    _core.get_hub().destroy()
    return _core.get_hub()


def test_the_names_of_the_loops_there_are() -> None:
    assert _core.loop_names() == ["libuv", "libev", "virtual"]


@pytest.mark.parametrize("name", _core.loop_names())
def test_new_hubs_get_the_loop_that_was_chosen(name: str) -> None:
    before = fresh_hub()
    _core.set_loop_factory(name)
    assert weald.get_hub() is before, "a hub keeps its loop"
    hub = fresh_hub()
    assert hub.loop.name == name
    with weald.Timeout(1000, False):
        weald.sleep(0.001)
    assert not hub.loop.destroyed
    hub.destroy()
    assert hub.loop.destroyed and "destroyed" in repr(hub) and "destroyed" in repr(hub.loop)


def test_none_goes_back_to_the_default() -> None:
    _core.set_loop_factory("virtual")
    _core.set_loop_factory(None)
    assert fresh_hub().loop.name == backends.make_loop(None).name != "virtual"


@pytest.mark.parametrize("name", _core.loop_names())
def test_the_environment_chooses_the_default(name: str) -> None:
    code = f"import os; os.environ['WEALD_LOOP'] = {name!r}; import weald; print(weald.get_hub().loop.name)"
    assert python(code) == f"{name}\n"


def test_a_name_that_is_not_known_changes_nothing() -> None:
    _core.set_loop_factory("virtual")
    with pytest.raises(ValueError, match="no event loop 'nonesuch'.*libuv, libev, virtual"):
        _core.set_loop_factory("nonesuch")
    assert fresh_hub().loop.name == "virtual"


def test_a_loop_that_was_left_out_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.BACKENDS, "libev", ("weald._core.loops.nonesuch", "EvLoop"))
    assert _core.loop_names() == ["libuv", "virtual"]
    with pytest.raises(ValueError, match="no event loop 'libev' here; there are: libuv, virtual"):
        _core.set_loop_factory("libev")


@pytest.mark.parametrize("name", _core.loop_names())
def test_a_loop_that_is_destroyed_refuses_to_poll(name: str) -> None:
    loop = _core.EventLoop()
    loop.destroy()
    assert loop.destroyed and loop.fileno() == -1
    with pytest.raises(ValueError, match="destroyed"):
        loop.run()


def test_the_descriptor_to_wait_on_from_outside() -> None:
    _core.set_loop_factory("libuv")
    assert fresh_hub().loop.fileno() >= 0
    _core.set_loop_factory("virtual")
    assert fresh_hub().loop.fileno() == -1


@pytest.mark.parametrize("library", [uv, ev])
def test_a_backend_knows_the_version_of_its_library(library: object) -> None:
    version: str = library.version()  # type: ignore[attr-defined]
    assert all(part.isdigit() for part in version.split("."))
