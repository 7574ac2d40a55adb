"""gevent._interfaces: what a loop, its watchers and its callbacks offer, as interfaces.

Called by: users, as gevent._interfaces.  gevent documents it; pika's adapter for gevent names ILoop in its annotations.

With zope.interface installed these are its interfaces, and weald's classes provide them; else they are plain classes.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from weald import _core
from weald._base.names import more_names
from weald._core import watchers
from weald.compat.events import Attribute, Interface

__all__ = ["ICallback", "ILoop", "IWatcher"]


class ILoop(Interface):  # type: ignore[misc]
    """`hub.loop`.  The watchers that its methods make tell of events once they are started; see IWatcher.

    `ref=False`: a started watcher does not keep `gevent.wait()` and `hub.join()` waiting.
    """

    default = Attribute("Whether it is the main thread's")
    approx_timer_resolution = Attribute("About how many seconds a timer may be late")

    def run(nowait: bool = False, once: bool = False) -> Any:
        """Run until nothing is left to wait for; once: for one turn; nowait: for one that does not wait."""

    def now() -> Any:  # type: ignore[misc]
        """The loop's time in seconds; only differences mean something."""

    def update_now() -> None:  # type: ignore[misc]
        """Read the clock."""

    def destroy() -> Any:  # type: ignore[misc]
        """End the loop."""

    def io(fd: int, events: int, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of a descriptor.  `events`: 1 for reading, 2 for writing, 3 for both."""

    def closing_fd(fd: int) -> Any:
        """Tell the watchers of `fd` that it is about to be closed; whether there are any."""

    def timer(after: float, repeat: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of time: fires after `after` seconds, and then every `repeat` seconds if that is not 0."""

    def signal(signum: int, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of a signal."""

    def idle(ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires in each turn in which nothing else has to be done."""

    def prepare(ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires before each poll."""

    def check(ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires after each poll."""

    def fork(ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires in the child of a fork."""

    def async_(ref: bool = True, priority: int | None = None) -> Any:
        """A watcher that fires after its `send()`, which other threads may call."""

    def child(pid: int, trace: int = 0, ref: bool = True) -> Any:
        """A watcher of a child's end."""

    def stat(path: str, interval: float = 0.0, ref: bool = True, priority: int | None = None) -> Any:
        """A watcher of a path in the file system."""

    def run_callback(func: Any, *args: Any) -> Any:
        """Have `func(*args)` called soon, in the hub: it must not wait.  An ICallback."""

    def run_callback_threadsafe(func: Any, *args: Any) -> Any:
        """`run_callback` for another thread than the loop's."""


class IWatcher(Interface):  # type: ignore[misc]
    """What a loop's methods make."""

    def start(callback: Any, *args: Any, **kwargs: Any) -> None:
        """Watch from now on; at each event the hub calls `callback(*args)`."""

    def stop() -> None:  # type: ignore[misc]
        """Watch no longer; `start` may follow."""

    def close() -> None:  # type: ignore[misc]
        """Stop for good."""


class ICallback(Interface):  # type: ignore[misc]
    """What `run_callback` returns."""

    pending = Attribute("Whether it is still to be called")

    def stop() -> None:  # type: ignore[misc]
        """Do not call it."""

    def close() -> None:  # type: ignore[misc]
        """The same."""


if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...

else:
    with suppress(ImportError):
        from zope.interface import classImplements

        classImplements(_core.EventLoop, ILoop)
        classImplements(_core.Callback, ICallback)
        classImplements(watchers.Watcher, IWatcher)
    __getattr__ = more_names(__name__)
