"""`asyncio` in threads that are greenlets: each greenlet has a running loop of its own.

Called by: `weald.monkey.patch_thread` (whenever asyncio is imported), selectors.py.

asyncio keeps "the running loop" per native thread, in C.  Here Python code gets the greenlet's.  What asyncio
does in C (Future() and Task() without a loop) goes on reading the thread's slot, so whoever runs a loop puts it
there when it starts and whenever its `select` returns, and puts back what was there when it parks or ends.  So
it does around a switch in the midst of a callback that seems to wait by asking again and again.
"""

import _asyncio
import asyncio.events as _events
import asyncio.tasks as _tasks
import os
from typing import Any

from weald import selectors
from weald._core import around_giving_way, local

__implements__ = ["_get_running_loop", "_set_running_loop", "get_event_loop", "get_running_loop"]
__all__ = ["current_task", "get_event_loop", "get_running_loop"]

_get_slot = _asyncio._get_running_loop
_set_slot = _asyncio._set_running_loop
_current_task = _tasks.current_task

# asyncio's own in Python: these ask the functions here, and warnings name who called.
get_event_loop = _events._py_get_event_loop  # type: ignore[attr-defined]


class _Running(local):
    loop: Any = None
    before: Any = None  # what the thread's slot held


_running = _Running()


def _get_running_loop() -> Any:
    """The loop that this greenlet runs, or None."""
    return _running.loop


def _set_running_loop(loop: Any) -> None:
    running = _running
    if loop is None:
        _set_slot(running.before)
        running.before = None
    else:
        running.before = _get_slot()
        _set_slot(loop)
    running.loop = loop


def get_running_loop() -> Any:
    """The loop that this greenlet runs; RuntimeError if there is none."""
    loop = _running.loop
    if loop is None:
        raise RuntimeError("no running event loop")
    return loop


def current_task(loop: Any = None) -> Any:
    """The task that `loop` (None: the one this greenlet runs) is in, or None."""
    return _current_task(get_running_loop() if loop is None else loop)


def _leave_slot() -> bool:
    """This greenlet's loop is about to park; whether there is one."""
    running = _running
    if running.loop is None:
        return False
    _set_slot(running.before)
    return True


def _retake_slot() -> None:
    """This greenlet's loop goes on."""
    running = _running
    running.before = _get_slot()
    _set_slot(running.loop)


def _after_fork_in_child() -> None:
    """A loop runs in the process that started it."""
    running = _running
    running.loop = running.before = None
    _set_slot(None)


os.register_at_fork(after_in_child=_after_fork_in_child)
selectors.parking = _leave_slot, _retake_slot
around_giving_way(_leave_slot, _retake_slot)
