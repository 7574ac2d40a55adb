"""The compiled part of `weald.aio.EventLoop`."""

from collections.abc import Callable
from contextvars import Context
from typing import Any

from typing_extensions import disjoint_base

@disjoint_base
class Handle:
    """A call that the loop is going to make, as asyncio.Handle."""

    def cancel(self) -> None:
        """Do not make the call.  Idempotent."""
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
    def get_context(self) -> Context:
        """The contextvars.Context that the call is made in."""

@disjoint_base
class TimerHandle:
    """A call that the loop is going to make at a given time, as asyncio.TimerHandle."""

    def cancel(self) -> None:
        """Do not make the call.  Idempotent."""
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
    def when(self) -> float:
        """When the call is due, in seconds on the clock of `loop.time()`."""
    def get_context(self) -> Context:
        """The contextvars.Context that the call is made in."""

@disjoint_base
class Core:
    """Base of EventLoop; see there."""

    _closed: bool
    _stopping: bool
    _debug: bool
    _thread_id: int | None
    slow_callback_duration: float
    def _stalls(self, stalls: bool) -> None: ...
    def _bind(self) -> None: ...
    def _drive(self) -> None: ...
    def _forget(self) -> None: ...
    def _become_resident(self) -> None: ...
    def _hub_ends(self) -> None: ...
    def _new_handle(self, callback: Callable[..., object], args: tuple[Any, ...]) -> Handle: ...
    def _is_busy(self, connection: object) -> bool: ...
    def _fd_events(self, fd: int) -> int: ...
    def _add_reader(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle: ...
    def _add_writer(
        self, fd: Any, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Handle: ...
    def _remove_reader(self, fd: Any) -> bool: ...
    def _remove_writer(self, fd: Any) -> bool: ...
