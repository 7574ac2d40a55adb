"""`async def` tasks: an asyncio loop in a native thread of its own, which jobs wait for.

Called by: job.py.  The loop is started by the first coroutine and lives as long as the process.

Invariants:
- A coroutine runs in its job's context, with its job's `Task.request`.
- What is raised in the waiting job (a limit, say) is raised in the coroutine, where it awaits; the job goes on once
  the coroutine has ended, or `PATIENCE` seconds after Ended.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

from celery._state import _task_stack

from weald._base.originals import get_original
from weald._core import AsyncResult, Lock, Timeout, get_hub

__all__ = ["run"]

PATIENCE = 1.0

_start_new_thread = get_original("_thread", "start_new_thread")


class _Steps(Coroutine[Any, Any, Any]):
    """Drives `inner`: each step finds the task's request on Celery's stacks, which go by greenlet and thread."""

    def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
        self.inner = inner
        self.error: BaseException | None = None  # to be raised instead of asyncio's CancelledError
        self.task: asyncio.Task[Any] | None = None
        self.celery_task = _task_stack.top
        self.request = None if self.celery_task is None else self.celery_task.request_stack.top

    def send(self, value: Any) -> Any:
        return self._step(self.inner.send, value)

    def throw(self, *args: Any) -> Any:
        error, self.error = self.error, None
        if error is not None:
            if self.task is not None:
                self.task.uncancel()
            args = (error,)
        return self._step(self.inner.throw, *args)

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.inner.__await__()

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        if self.celery_task is None or self.request is None:
            return step(*args)
        _task_stack.push(self.celery_task)
        self.celery_task.request_stack.push(self.request)
        try:
            return step(*args)
        finally:
            self.celery_task.request_stack.pop()
            _task_stack.pop()


class _Loop:
    """The asyncio loop and its thread."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self._starting = Lock()

    def get(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self.loop is None:
                started: AsyncResult[asyncio.AbstractEventLoop] = AsyncResult()
                _start_new_thread(self._serve, (started,))
                self.loop = started.get()
            return self.loop

    def _serve(self, started: "AsyncResult[asyncio.AbstractEventLoop]") -> None:
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(started.set, loop)
        loop.run_forever()


_loop = _Loop()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` on the asyncio loop while other greenlets run; its value, or what it raises."""
    loop = _loop.get()
    steps = _Steps(coroutine)
    done: AsyncResult[Any] = AsyncResult()
    context = copy_context()

    def start() -> None:
        steps.task = loop.create_task(steps, context=context)
        steps.task.add_done_callback(finish)

    def finish(task: "asyncio.Task[Any]") -> None:
        if task.cancelled():
            done.set_exception(asyncio.CancelledError())
        else:
            error = task.exception()
            done.set(task.result()) if error is None else done.set_exception(error)

    def interrupt(error: BaseException) -> None:
        if steps.task is not None and not steps.task.done():
            steps.error = error
            steps.task.cancel()

    hub = get_hub()
    hub.ref()
    try:
        loop.call_soon_threadsafe(start)
        try:
            return done.get()
        except BaseException as error:
            if done.ready():
                raise
            loop.call_soon_threadsafe(interrupt, error)
            with Timeout(None if isinstance(error, Exception) else PATIENCE, False):
                return done.get()
            raise
    finally:
        hub.unref()
