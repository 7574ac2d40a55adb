"""The event loops there are, by name; which one new hubs get.

Called by: _core/hub.pyx (`make_loop`), threads.pyx (`load_loop`), the package's settings.

Each backend links a library, so a backend is imported only when it is used.
"""

import os
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["BACKENDS", "load_loop", "loop_names", "make_loop", "set_loop_factory"]

BACKENDS = {
    "libuv": ("weald._core.loops.uv", "UvLoop"),
    "libev": ("weald._core.loops.ev", "EvLoop"),
    "virtual": ("weald._core.loops.virtual", "VirtualLoop"),
}

_chosen: str | None = None


def loop_names() -> list[str]:
    """The names of the backends that this installation has."""
    found = []
    for name, (module, _) in BACKENDS.items():
        try:
            import_module(module)
        except ImportError:
            continue
        found.append(name)
    return found


def set_loop_factory(name: str | None) -> str | None:
    """Make the loops of new hubs with backend `name`; None goes back to WEALD_LOOP or libuv.

    Returns the name set before.  ValueError, which lists the backends, for a name that is not known or not built.
    """
    global _chosen
    if name is not None:
        _loop_class(name)
    before, _chosen = _chosen, name
    return before


def make_loop(name: str | None) -> Any:
    """A new loop of the backend named; None: of the one that new hubs get."""
    return _loop_class(name or _name())()


def _name() -> str:
    return _chosen or os.environ.get("WEALD_LOOP") or "libuv"


def load_loop() -> None:
    """Import the backend that new hubs get, if it exists.

    Otherwise the first wait would import it.  A signal handler that runs meanwhile and waits would interrupt the import
    with the same import, which fails.  It would fail, too, if no descriptors are left by then.
    """
    with suppress(ValueError):
        _loop_class(_name())


def _loop_class(name: str) -> Any:
    found = BACKENDS.get(name)
    if found is not None:
        try:
            return getattr(import_module(found[0]), found[1])
        except ImportError:
            pass
    raise ValueError(f"there is no event loop {name!r} here; there are: {', '.join(loop_names())}")
