"""`asyncio` in threads that are greenlets: each greenlet has a running loop of its own.

Called by: weald.monkey (`patch_thread`, whenever asyncio is imported), weald.aio, weald.http.asgi.

asyncio keeps the running loop per native thread, in C, and from Python 3.14 on its current task as well.  The functions
here give Python code the greenlet's.  asyncio's C code (steps of tasks, Future() without a loop) still reads the
thread's.  So both are saved when a greenlet that runs a loop parks, and restored when it goes on.  The same is done
with the settings that a loop makes in `sys` for the thread: the hooks of asynchronous generators, and the depth to
which the origins of coroutines are tracked.  The core does this (running_loop.pyx), as long as there are loops.
"""

import _asyncio
import asyncio.events as _events
import asyncio.tasks as _tasks
import os
import sys
from types import FunctionType
from typing import Any

from greenlet import getcurrent

from weald._base.builtin import as_builtin, as_builtins
from weald._core import count_loops, local, put_loop_aside, take_loop_back, use_asyncio

__implements__ = ["_get_running_loop", "_set_running_loop", "get_event_loop", "get_running_loop"]
__all__ = ["current_task", "get_event_loop", "get_running_loop"]

_get_slot = _asyncio._get_running_loop
_set_slot = _asyncio._set_running_loop
_current_task = _tasks.current_task
_BY_LOOP = sys.version_info < (3, 14)  # whether asyncio keeps the current task by loop
_tasks_aside = use_asyncio(
    _get_slot,
    _set_slot,
    None if _BY_LOOP else _asyncio._swap_current_task,  # type: ignore[attr-defined]
    _asyncio._current_tasks if _BY_LOOP else None,  # type: ignore[attr-defined]
)

# asyncio's version in Python: it calls the functions here, and its warnings name the right caller.
get_event_loop = _events._py_get_event_loop  # type: ignore[attr-defined]


class _Running(local):
    loop: Any = None
    before: Any = None  # the thread's running loop, which was saved


_running = _Running()


def _get_running_loop() -> Any:
    """The loop that this greenlet runs, or None."""
    loop = _running.loop
    return _of_the_thread() if loop is None else loop


def _of_the_thread() -> Any:
    """The native thread's running loop, or None.

    There is one in two cases only: it ran already when weald patched, or its coroutine has switched to this greenlet
    by itself.  In all other cases it is saved when the loop's greenlet parks.
    """
    loop = _get_slot()
    if loop is not None and getcurrent().parent is None:
        _running.loop = loop
        count_loops(1)
    return loop


def _set_running_loop(loop: Any) -> None:
    running = _running
    if running.loop is None and loop is not None:
        running.before = put_loop_aside()
        count_loops(1)
    _set_slot(loop)
    if running.loop is not None and loop is None:
        count_loops(-1)
        take_loop_back(running.before)
        running.before = None
    running.loop = loop


def get_running_loop() -> Any:
    """The loop that this greenlet runs; RuntimeError if there is none."""
    find = _get_running_loop
    loop = None if find is None else find()  # the interpreter ends: this module's names are gone
    if loop is None:
        raise RuntimeError("no running event loop")
    return loop


def current_task(loop: Any = None) -> Any:
    """The task that `loop` (None: the one this greenlet runs) is in, or None."""
    if loop is None:
        loop = get_running_loop()
    return _current_task(loop) or _tasks_aside.get(loop)


def _after_fork_in_child() -> None:
    """In a fork's child no loop runs; it goes on in the parent."""
    running = _running
    running.loop = running.before = None
    put_loop_aside()
    count_loops(0)
    _tasks_aside.clear()


as_builtins(globals(), _events)
if type(_tasks.current_task) is not FunctionType:
    current_task = as_builtin(current_task)

os.register_at_fork(after_in_child=_after_fork_in_child)
if (_loop := _get_slot()) is not None:  # patched by a coroutine
    _running.loop = _loop
    count_loops(1)
