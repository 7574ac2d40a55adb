"""gevent.core: the event loop's class and names around it."""

from time import time
from typing import Any

from weald import _core
from weald._config import config
from weald._core import READ, WRITE, get_hub
from weald._core import Callback as callback

__all__ = [
    "READ",
    "WRITE",
    "callback",
    "embeddable_backends",
    "get_header_version",
    "get_version",
    "loop",
    "recommended_backends",
    "supported_backends",
    "time",
]

EVENTS = getattr(_core, "EVENTS", None)
LIBEV_EMBED = False
BACKEND_EPOLL = 4


_Loop: Any = config.loop


class loop(_Loop):  # type: ignore[misc]
    """A loop of one's own, driven by `run()`; `hub.loop` is the thread's."""

    def __init__(self, flags: Any = None, default: bool | None = None, ptr: Any = None) -> None:
        super().__init__()

    def __new__(cls, flags: Any = None, default: bool | None = None, ptr: Any = None) -> Any:
        return get_hub().loop if default else super().__new__(cls)


def supported_backends() -> list[str]:
    """What the loop can be built on; on Linux that is epoll."""
    return ["epoll"]


def recommended_backends() -> list[str]:
    return ["epoll"]


def embeddable_backends() -> list[str]:
    return []


def get_version() -> str:
    """The name of the library under the loop."""
    return get_hub().loop.name


def get_header_version() -> str:
    return get_version()
