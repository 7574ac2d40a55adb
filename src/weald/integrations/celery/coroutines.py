"""`async def` tasks: coroutines on the hub's resident asyncio loop, which `weald.aio.await_` uses, too.

Called by: job.py.

Invariants:
- A coroutine runs in its job's context, with its job's `Task.request`.
- Its steps run in greenlets of the loop, not in the job's: `owner_of` returns the job whose step runs in a greenlet.
- The job waits for the coroutine's end.  Meanwhile limits are raised in the coroutine, where it awaits, blocks or
  computes, not in the job.  If the coroutine still does not end, the job ends without it, and the log says so.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

from celery._state import _task_stack
from celery.utils.log import get_logger
from greenlet import getcurrent, greenlet

from weald._core import AsyncResult
from weald.aio import await_
from weald.integrations.celery import forks

__all__ = ["STEP_CODE", "Steps", "owner_of", "run"]

logger = get_logger("celery.pool")

STRIKES = 3  # how often Ended is raised in a coroutine, a second apart, until the job ends without it

_in_step: dict[greenlet, Any] = {}  # the jobs whose coroutines run a step, by the greenlet that runs it


def owner_of(current: greenlet) -> Any:
    """The job whose coroutine runs a step in greenlet `current`, or None."""
    return _in_step.get(current)


class _Exit(Exception):
    """Carries a SystemExit or KeyboardInterrupt out of the loop, which it would end."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Steps(Coroutine[Any, Any, Any]):
    """Drives `inner` for job `owner`: each step finds the task's request on Celery's stacks, which go by greenlet."""

    def __init__(self, inner: Coroutine[Any, Any, Any], owner: Any) -> None:
        self.inner = inner
        self.owner = owner
        self.done: AsyncResult[Any] = AsyncResult()
        self.task: asyncio.Task[Any] | None = None
        self._greenlet: greenlet | None = None  # runs a step now; it is parked if another greenlet runs
        self._make: Callable[[], BaseException] | None = None  # makes the exception to raise instead of CancelledError
        self._strikes = 0
        self._celery_task = _task_stack.top
        self._request = None if self._celery_task is None else self._celery_task.request_stack.top

    def interrupt(self, make: Callable[[], BaseException], for_good: bool) -> None:
        """In the hub: raise `make()` where the coroutine is.  `for_good`: the coroutine has to end by it."""
        self._strikes += for_good
        if self._strikes >= STRIKES and not self.done.ready():
            logger.error("the coroutine of %s[%s] does not end, and goes on", self.owner.task_name, self.owner.task_id)
            self.done.set(None)
        elif self._greenlet is not None:  # it blocks
            self._greenlet.throw(make())
        elif self.task is not None and not self.task.done():
            self._make = make
            self.task.cancel()

    def finish(self, task: "asyncio.Task[Any]") -> None:
        """Give the job the coroutine's outcome."""
        if self.done.ready():
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if isinstance(error, _Exit):
            error = error.error
        if error is None:
            self.done.set(task.result())
        else:
            self.done.set_exception(error)

    def send(self, value: Any) -> Any:
        """A step of the coroutine."""
        return self._step(self.inner.send, value)

    def throw(self, *args: Any) -> Any:
        """A step that begins with an exception; after `interrupt`, the one that `make` makes, not CancelledError."""
        make, self._make = self._make, None
        if make is not None:
            if self.task is not None:
                self.task.uncancel()
            args = (make(),)  # made here, so that no other reference keeps it alive
        return self._step(self.inner.throw, *args)

    def close(self) -> None:
        """End the coroutine, of which no more steps are taken."""
        self.inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.inner.__await__()

    def _step(self, step: Callable[..., Any], *args: Any) -> Any:
        current = getcurrent()
        celery_task = self._celery_task if self._request is not None else None
        if celery_task is not None:
            _task_stack.push(celery_task)
            celery_task.request_stack.push(self._request)
        self._greenlet = current
        _in_step[current] = self.owner
        try:
            return step(*args)
        except StopIteration:
            if forks.in_child():
                forks.leave(None)
            raise
        except BaseException as error:
            if forks.in_child():
                forks.leave(error)
            if getattr(self.inner, "cr_frame", None) is not None:  # raised here, after the coroutine's step had ended
                return self.inner.throw(error)
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise _Exit(error) from None
            raise
        finally:
            _in_step.pop(current, None)
            self._greenlet = None
            if celery_task is not None:
                celery_task.request_stack.pop()
                _task_stack.pop()


STEP_CODE = Steps._step.__code__


async def _begin(steps: Steps) -> None:
    steps.task = asyncio.create_task(steps, context=copy_context())
    steps.task.add_done_callback(steps.finish)


def run(coroutine: Coroutine[Any, Any, Any], job: Any) -> Any:
    """Run `coroutine` on the hub's loop for `job` (None: no limits) and wait for it; its value.

    Raises what the coroutine raises.
    """
    steps = Steps(coroutine, job)
    if job is not None:
        job.steps = steps
    try:
        await_(_begin(steps))
        return steps.done.get()
    finally:
        if job is not None:
            job.steps = None
