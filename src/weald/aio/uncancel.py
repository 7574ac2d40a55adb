"""Before Python 3.13: a cancellation that asyncio.timeout or a TaskGroup has taken back does not come later.

Called by: weald.aio.loop.

Both cancel the task that is inside, and call its `uncancel` at their end.  Before Python 3.13 that does not take back
a cancellation which the task has not heard of.  asyncio's loops cannot get there: while a task is cancelled, it waits.
On weald's loop it may block, and leave the block without an `await`.
"""

import asyncio
import sys
from typing import Any

__all__ = ["mend"]


def _mend_class(kind: Any, attribute: str) -> None:
    leave = kind.__aexit__

    async def __aexit__(self: Any, *args: Any) -> Any:
        try:
            return await leave(self, *args)
        finally:
            task = getattr(self, attribute)
            if task is not None and task._must_cancel and not task.cancelling():
                try:
                    await asyncio.sleep(0)  # raises what is pending
                except asyncio.CancelledError:
                    if task.cancelling():  # requested meanwhile
                        raise

    __aexit__.__qualname__ = leave.__qualname__
    kind.__aexit__ = __aexit__


def mend() -> None:
    """Mend asyncio's classes, if need be."""
    if sys.version_info < (3, 13):
        _mend_class(asyncio.Timeout, "_task")
        _mend_class(asyncio.TaskGroup, "_parent_task")
