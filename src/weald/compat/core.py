"""gevent.core: the event loop's class, with the names that only gevent's loops have, and what else was there.

Called by: users (gevent.core, weald.core), hub.py; _door.py, for `weald.config.loop`.

Once this is imported, the loops of hubs are of this class.
"""

from time import time
from typing import TYPE_CHECKING, Any, ClassVar

from weald import _core
from weald._base.names import more_names
from weald._core import EVENTS, READ, WRITE, Event, EventLoop, get_hub, get_hub_if_exists, getcurrent, sleep, spawn_raw
from weald._core import Callback as callback

__all__ = [
    "EVENTS",
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

LIBEV_EMBED = False
BACKEND_EPOLL = 4


# What the first argument of `loop` may say, without effect: the loop is on epoll.
FLAGS = (
    *("epoll", "forkcheck", "kqueue", "linux_aio", "linux_iouring", "noenv", "nosigmask", "poll", "port", "select"),
    "signalfd",
)


def _check_flags(flags: Any) -> None:
    if not flags or isinstance(flags, (int, _core.Hub)):
        return
    for word in flags.split(",") if isinstance(flags, str) else flags:
        if word.strip() and word.strip().lower() not in FLAGS:
            raise ValueError(f"Invalid backend or flag: {word!r}\nPossible values: {', '.join(FLAGS)}")


class loop(EventLoop):
    """A hub's loop, or with `default=False` one of its maker's own, driven by `run()`."""

    CALLBACK_CHECK_COUNT = 50
    approx_timer_resolution = 0.00001  # seconds
    backend = "epoll"
    backend_int = BACKEND_EPOLL
    origflags: ClassVar[list[str]] = []
    origflags_int = 0
    iteration = -1  # not counted, as by gevent's loops on libuv
    depth = -1
    sigfd = -1  # signals do not come by signalfd(2)
    sig_pending = False  # nor do they wait in the loop

    def __new__(cls, flags: Any = None, default: bool | None = None, ptr: Any = None) -> Any:
        _check_flags(flags)
        if default is not False and not isinstance(flags, _core.Hub):
            return get_hub().loop
        return super().__new__(cls)

    def __init__(self, flags: Any = None, default: bool | None = None, ptr: Any = None) -> None:
        if isinstance(flags, _core.Hub):  # the core makes a hub's loop
            super().__init__(flags)
        elif default is False:
            super().__init__()

    @property
    def default(self) -> bool:
        """Is it the loop of the main thread's hub?"""
        return bool(getattr(self.hub, "main_hub", False)) and not self.destroyed

    @property
    def WatcherType(self) -> type:
        """The base class of the watchers."""
        return _core.Watcher

    def run(self, nowait: bool = False, once: bool = False) -> None:
        """Run the loop until nothing is left to wait for, or `break_()`; one round if `nowait` or `once`.

        A hub's loop runs by itself.  In its thread this waits for the same in another greenlet than the hub.
        """
        hub = self.hub
        if hub is not get_hub_if_exists() or getcurrent() is hub:
            super().run(nowait, once)
        elif nowait:
            sleep(0)
        else:
            over = Event()
            self._runs.append(over)
            check = self.check(ref=False)
            if once:
                check.start(over.set)
            try:
                spawn_raw(self._set_when_idle, over)
                over.wait()
            finally:
                check.stop()
                check.close()
                self._runs.remove(over)

    def _set_when_idle(self, over: Event) -> None:
        self.hub.join()
        over.set()

    def break_(self, how: Any = None) -> None:
        """End `run`."""
        if self._runs:
            self._runs[-1].set()
        else:
            super().break_(how)

    @property
    def _runs(self) -> list[Event]:
        """The object that greenlets in `run` wait for."""
        found: list[Event] = self.__dict__.setdefault("_waited_for", [])
        return found

    def verify(self) -> None:
        """Nothing to verify."""

    def reinit(self) -> None:
        """Nothing: a fork's child has a fresh loop already."""

    def install_sigchld(self) -> None:
        """Nothing: children are watched without SIGCHLD."""

    def reset_sigchld(self) -> None:
        """Nothing, see `install_sigchld`."""

    def _format(self) -> str:
        default = " default" if self.default else ""
        return f"{self.backend}{default} pending={self.pendingcnt} ref={self.activecnt} fileno={self.fileno()}"

    def debug(self) -> list[str]:
        """Lines about what it watches."""
        return [repr(self)]


# `async` is a keyword.
setattr(loop, "async", EventLoop.async_)
_core.set_event_loop_class(loop)


def supported_backends() -> list[str]:
    """The possible backends of the loop; on Linux that is epoll."""
    return ["epoll"]


def recommended_backends() -> list[str]:
    """Return what the loop is built on."""
    return ["epoll"]


def embeddable_backends() -> list[str]:
    """Return nothing: no backend can be embedded."""
    return []


def get_version() -> str:
    """The name of the library under the loop."""
    return get_hub().loop.name


def get_header_version() -> str:
    """Return the same as `get_version`."""
    return get_version()


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.core")
