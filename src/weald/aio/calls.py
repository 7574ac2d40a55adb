"""From a coroutine to a greenlet: `to_greenlet`, and `await` of greenlets and AsyncResults.

Called by: users, through weald.aio; weald.aio.bridge.
Invariant: when `to_greenlet` returns or raises, its greenlet has ended.  Cancelling kills it and waits for its end.
"""

import asyncio
from _asyncio import _get_running_loop
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import Any, TypeVar

from greenlet import GreenletExit

from weald._core import Greenlet, set_awaiting
from weald.aio.loop import EventLoop

__all__ = ["Called", "to_greenlet"]

_T = TypeVar("_T")
_MISSING: Any = object()


class Called(Greenlet):
    """A greenlet that runs a function for a coroutine.  `home` is the coroutine's loop."""

    home: EventLoop | None = None


class _Call:
    """The result or exception of a call, and the Future that is set when the call has ended."""

    __slots__ = ("began", "error", "future", "result")

    def __init__(self, future: "asyncio.Future[None]") -> None:
        self.began = False
        self.error: BaseException | None = None
        self.result: Any = None
        self.future = future

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.began = True
        try:
            self.result = function(*args, **kwargs)
        except BaseException as error:
            self.error = error

    def tell(self, greenlet: object) -> None:
        if not self.future.done():
            self.future.set_result(None)


def _checked_loop(what: str) -> EventLoop:
    """The running loop, which must be weald's."""
    loop: Any = _get_running_loop()
    if loop is None:
        raise RuntimeError(f"{what} is for coroutines, and no event loop runs here")
    if not isinstance(loop, EventLoop):
        raise RuntimeError(
            f"{what} needs weald's event loop (weald.aio.run, loop_factory=weald.aio.new_event_loop): "
            f"no greenlet runs while {type(loop).__name__} waits"
        )
    return loop


def copy_back(context: Context, before: Context) -> None:
    """Set the variables in the current context that were set in `context`, which began as a copy of `before`."""
    for variable, value in context.items():
        if before.get(variable, _MISSING) is not value:
            variable.set(value)


async def to_greenlet(function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
    """Call `function(*args, **kwargs)`, which may block, in a greenlet of its own; returns its result.

    Exceptions of `function` are raised here.  If the coroutine is cancelled, the greenlet is killed, and CancelledError
    is raised after it has ended.  The function sees the coroutine's context variables; those that it sets are set here
    afterwards.  RuntimeError on a loop that is not weald's.
    """
    loop = _checked_loop("to_greenlet()")
    call = _Call(loop.create_future())
    before = copy_context()
    context = before.copy()
    called = Called(call.run, function, args, kwargs)
    called.home = loop
    called.gr_context = context
    called.rawlink(call.tell)
    called.start()
    cancelled: asyncio.CancelledError | None = None
    while not called.ready():
        try:
            await call.future
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
            call.future = loop.create_future()
            called.kill(block=False)
    if context != before:
        copy_back(context, before)
    error, call.error = call.error, None
    try:
        if error is not None and not (cancelled is not None and isinstance(error, GreenletExit)):
            raise error
        if cancelled is not None:
            raise cancelled
        if not call.began:
            raise GreenletExit("killed before it began")
        return call.result  # type: ignore[no-any-return]
    finally:
        error = cancelled = None  # no cycle with the traceback


async def _outcome(waited: Any) -> Any:
    loop = _checked_loop("await of a greenlet or an AsyncResult")
    future = loop.create_future()

    def tell(_: object) -> None:
        if not future.done():
            future.set_result(None)

    waited.rawlink(tell)
    try:
        await future
    finally:
        waited.unlink(tell)
    return waited.get(block=False)


def _awaiting(waited: Any) -> Generator[Any, Any, Any]:
    """The iterator for `await`.  Cancelling the wait does not kill the greenlet that is waited for."""
    return _outcome(waited).__await__()


set_awaiting(_awaiting)
