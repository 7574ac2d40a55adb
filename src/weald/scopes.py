"""Scopes: blocks with a deadline, blocks that can be cancelled, and tasks that end before their block does.

Called by: users.

The semantics are trio's, for blocking code.  Cancellation is in _core/scopes.pyx.

Invariants of a TaskGroup:
- When its block has been left, all its tasks have ended, whatever ended the block.  (The exception is a deadlock: tasks
  that wait under a shield for what nothing can bring about.)
- No exception is lost: those of tasks and of the block are raised together.  One that was raised in the block's
  greenlet from outside (a kill, a Timeout), or that ends programs (KeyboardInterrupt, SystemExit), is raised as it is,
  if it is the only one.
"""

from math import inf
from types import TracebackType
from typing import Self

from weald._core import (
    Cancelled,
    CancelScope,
    Event,
    GreenletExit,
    LoopExit,
    Tasks,
    Timeout,
    current_effective_deadline,
    current_time,
    fail_after,
    get_hub,
    move_on_after,
)

__all__ = [
    "CancelScope",
    "Cancelled",
    "TaskGroup",
    "current_effective_deadline",
    "current_time",
    "fail_after",
    "move_on_after",
]

_ENDS_PROGRAM = (KeyboardInterrupt, SystemExit)
_FROM_OUTSIDE = (GreenletExit, Timeout, *_ENDS_PROGRAM)


class TaskGroup(Tasks):
    """A `with` block whose end waits for the tasks that were spawned in it.

    If a task or the block raises an exception, everything else in the group is cancelled, and when all have ended
    the exceptions are raised as an ExceptionGroup.  A kill or a Timeout of the block's greenlet cancels the tasks, too,
    and passes on when they have ended.  A task that is killed or cancelled has ended without an error.
    `cancel_scope` is the scope of the block and of all tasks: `group.cancel_scope.cancel()` ends them.
    """

    def __init__(self) -> None:
        self._errors: list[BaseException] = []
        self._from_outside: list[BaseException] = []

    def __enter__(self) -> Self:
        self.cancel_scope.__enter__()
        self._generation = get_hub().generation
        return self

    def _task_failed(self, error: BaseException) -> None:
        self._fail(error, self._from_outside if isinstance(error, _ENDS_PROGRAM) else self._errors)

    def _fail(self, error: BaseException, errors: list[BaseException]) -> None:
        errors.append(error)
        self.cancel_scope.cancel()

    def _wait(self) -> bool:
        """Wait until all tasks have ended, whatever is raised here meanwhile; return whether there was one left."""
        if get_hub().generation != self._generation:  # a fork's child, where the parent's tasks do not run
            self._members.clear()
        if not self._members:
            return False
        self._done = Event()
        with CancelScope(shield=True):  # a cancellation reaches the tasks, and then they end
            while self._members:
                self._done.clear()
                try:
                    self._done.wait()
                except BaseException as error:
                    deadlocked = isinstance(error, LoopExit) and self.cancel_scope.cancel_called
                    self._fail(error, self._from_outside)
                    if deadlocked:
                        break  # tasks that wait for ever although they are cancelled
        return True

    def __exit__(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> bool | None:
        if isinstance(value, Cancelled):
            self.cancel_scope.cancel()
        elif value is not None:
            self._fail(value, self._from_outside if isinstance(value, _FROM_OUTSIDE) else self._errors)
        waited = self._wait()
        errors, outside = self._errors, self._from_outside
        self._errors, self._from_outside = [], []
        try:
            if errors or len(outside) > 1:
                error: BaseException | None = BaseExceptionGroup("unhandled errors in a TaskGroup", errors + outside)
            elif outside:
                error = outside[0]
            elif value is None and waited and current_effective_deadline() == -inf:
                error = Cancelled("its scope has been cancelled")  # while it waited for its tasks
            else:
                error = value
            if self.cancel_scope.__exit__(type(error), error, None):
                return True
            if error is None or error is value:
                return None
            raise error from None
        finally:
            del errors, outside, value
            error = None  # it refers to this frame
