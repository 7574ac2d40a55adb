"""Children that tasks fork, with `multiprocessing` or by hand.

Called by: pool.py, job.py, coroutines.py.

Invariants:
- A child has none of the worker's signal handlers, so SIGTERM ends it.  Signals are blocked from the fork until the
  handlers are removed, so an early SIGTERM ends it, too.
- A child never returns into Celery's code, where it would use the worker's connections.  It ends with the task's body.
- The worker ends the children of `multiprocessing` and billiard that tasks leave, and does not wait for them for ever.
"""

import multiprocessing.pool
import multiprocessing.process
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import wraps
from typing import Any, NoReturn

import billiard.pool
import billiard.process
from celery.utils.log import get_logger

from weald._base.originals import get_original
from weald._core import monotonic
from weald.lock import Semaphore

__all__ = ["end_children", "in_child", "leave", "mark_worker"]

logger = get_logger("celery.pool")

_thread_ident = get_original("_thread", "get_ident")

PATIENCE = 2.0  # seconds from SIGTERM to SIGKILL
_OWN = ("celery", "weald")  # handlers from these packages are the worker's
_OBEYED = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2")

_worker = 0  # the worker's process id
_one_at_a_time = Semaphore(1)  # SIGQUIT and a stop under way both end the children; two joins of a Process at once fail
_masks: dict[int, set[Any]] = {}  # of signals, by the thread that forks


def mark_worker(recording: Callable[[], AbstractContextManager[None]]) -> None:
    """Mark this process as the worker, whose forks are its children.  Within `recording()` no task is ended."""
    global _worker
    if not _worker:
        os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_go, after_in_child=_begin)
        processes: tuple[Any, ...] = (multiprocessing.process.BaseProcess, billiard.process.BaseProcess)
        pools: tuple[Any, ...] = (multiprocessing.pool.Pool, billiard.pool.Pool)
        for process in processes:
            process.start = _whole(process.start, recording)
        for pool in pools:
            pool.__init__ = _whole(pool.__init__, recording)
    _worker = os.getpid()


def _whole(start: Callable[..., None], recording: Callable[[], AbstractContextManager[None]]) -> Callable[..., None]:
    """`start`, during which the task is not ended.

    Otherwise a half-started child would be in no list, and the threads of a half-made pool would fail, which for
    billiard ends the process.
    """

    @wraps(start)
    def whole(*args: Any, **kwargs: Any) -> None:
        with recording():
            start(*args, **kwargs)

    return whole


def _hold_signals() -> None:
    """Block signals while a thread forks: in the child, the worker's handler would ignore SIGTERM."""
    _masks[_thread_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _obeyed())


def _let_signals_go() -> None:
    mask = _masks.pop(_thread_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _obeyed() -> list[int]:
    return [int(getattr(signal, name)) for name in _OBEYED if hasattr(signal, name)]


def _begin() -> None:
    """In the child: remove the worker's signal handlers."""
    for name in _OBEYED:
        number = getattr(signal, name, None)
        if number is None:
            continue
        handler = signal.getsignal(number)
        if callable(handler) and getattr(handler, "__module__", "").partition(".")[0] in _OWN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)
    _let_signals_go()


def in_child() -> bool:
    """Whether this process is a child of the worker."""
    return _worker != 0 and os.getpid() != _worker


def leave(error: BaseException | None) -> NoReturn:
    """End the child as a program ends: its task's body has returned, or has raised `error`."""
    status = 0
    if isinstance(error, SystemExit):
        if isinstance(error.code, int):
            status = error.code
        elif error.code is not None:
            print(error.code, file=sys.__stderr__)
            status = 1
    elif error is not None:
        traceback.print_exception(error, file=sys.__stderr__)
        status = 1
    for stream in sys.stdout, sys.stderr, sys.__stderr__:
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(status & 0xFF)


def end_children() -> None:
    """End the children of `multiprocessing` and billiard that tasks have left; else the exit would wait for them."""
    with _one_at_a_time:
        left: list[Any] = []
        for name in "multiprocessing", "billiard":
            module = sys.modules.get(name)
            if module is not None and hasattr(module, "active_children"):
                left += module.active_children()
        if not left:
            return
        logger.warning("ending %d child processes that tasks have left: %s", len(left), ", ".join(map(repr, left)))
        for child in left:
            child.terminate()
        deadline = monotonic() + PATIENCE
        for child in left:
            child.join(max(deadline - monotonic(), 0.0))
            if child.exitcode is None:
                os.kill(child.pid, signal.SIGKILL)
                child.join()
