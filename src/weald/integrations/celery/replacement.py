"""Replaces a worker's process by a new one with the same command and process id, or ends it.

Called by: pool.py; fetch.py, which asks whether the worker shuts down.

Invariants:
- Unacknowledged messages are given back before the process is replaced: `at_exit` shuts the worker down warmly;
  `after_recording` is given a function that does it, because the hub is stuck.
- A worker that is told to stop, before or while it is being replaced, is not replaced: who told it waits for its end,
  and does not tell the new process.
"""

import atexit
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

from celery import platforms
from celery.worker import state

from weald._base.originals import get_original
from weald._core import announced_signals, monotonic

__all__ = ["after_recording", "at_exit", "count", "give_back", "resident_kib", "shuts_down", "told_to_stop"]

PATIENCE = 5.0  # seconds for recording and giving back, before a stuck process is replaced
CHECK_INTERVAL = 0.05  # seconds between checks whether that is done
STOPPING = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}  # the signals that tell a Celery worker to stop
_COUNT = "WEALD_CELERY_REPLACEMENTS"

_native_sleep = get_original("time", "sleep")
_start_new_thread = get_original("_thread", "start_new_thread")
_signal = get_original("signal", "signal")


class _ExitStatus(int):
    """The exit status of a warm shutdown by which a worker is replaced; no other shutdown has this object."""


_REPLACED = _ExitStatus(platforms.EX_OK)


def count() -> int:
    """How often this worker has replaced its process."""
    return int(os.environ.get(_COUNT, "0"))


def told_to_stop() -> bool:
    """Whether the worker has been told to stop, warmly or coldly, and not only in order to be replaced."""
    warmly = _is_set(state.should_stop) and state.should_stop is not _REPLACED
    return warmly or _is_set(state.should_terminate)


def shuts_down() -> bool:
    """Whether the worker has to shut down, for good or in order to be replaced."""
    return _is_set(state.should_stop) or _is_set(state.should_terminate)


def _is_set(status: object) -> bool:
    return status is not None and status is not False  # an exit status of 0 tells to stop, too


def at_exit() -> None:
    """Shut the worker down warmly, then run the same command again."""
    atexit.register(_unless_told_to_stop, os.getpid())
    state.should_stop = _REPLACED


def after_recording(record: Callable[[], None], stopping: bool) -> None:
    """Replace the process although its hub is stuck, once `record` has run in another thread, or `PATIENCE` is over.

    If it is `stopping`, or a signal that its stuck main thread could not handle tells it to stop, the process ends
    instead, with status 1.  Called in a native thread; does not return.
    """
    done = []

    def run() -> None:
        try:
            record()
        finally:
            done.append(True)

    _start_new_thread(run, ())
    deadline = monotonic() + PATIENCE
    while not done and monotonic() < deadline:
        _native_sleep(CHECK_INTERVAL)
    if stopping or told_to_stop() or STOPPING.intersection(announced_signals()):
        os._exit(platforms.EX_FAILURE)
    _now()


def _unless_told_to_stop(worker: int) -> None:
    if os.getpid() != worker:
        return  # a forked child ends
    for number in STOPPING:
        _signal(number, signal.SIG_DFL)  # from now on they end the process, as they end the new one while it starts
    if not told_to_stop():
        _now()


def _now() -> None:
    os.environ[_COUNT] = str(count() + 1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def give_back(consumer: Any) -> None:
    """Put unacknowledged messages back in Redis; other brokers do that themselves when the connection ends."""
    qos: Any = consumer.task_consumer and getattr(consumer.task_consumer.channel, "qos", None)
    if hasattr(qos, "restore_by_tag"):
        for tag in list(qos._delivered):
            qos.restore_by_tag(tag)


def resident_kib() -> int:
    """This process's resident memory in KiB; without /proc the most it has used yet."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
