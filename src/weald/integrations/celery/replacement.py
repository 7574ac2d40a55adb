"""Replaces a worker's process by a new one with the same command and process id, or ends it.

Called by: pool.py.

Invariants:
- Unacknowledged messages are given back before the process is replaced: `at_exit` shuts the worker down warmly;
  `after_recording` is given a function that does it, because the hub is stuck.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import Any

from celery import platforms
from celery.worker import state

from weald._base.originals import get_original
from weald._core import monotonic

__all__ = ["after_recording", "at_exit", "count", "give_back", "resident_kib"]

PATIENCE = 5.0  # seconds for recording and giving back, before a stuck process is replaced
CHECK_INTERVAL = 0.05  # seconds between checks whether that is done
_COUNT = "WEALD_CELERY_REPLACEMENTS"

_native_sleep = get_original("time", "sleep")
_start_new_thread = get_original("_thread", "start_new_thread")


def count() -> int:
    """How often this worker has replaced its process."""
    return int(os.environ.get(_COUNT, "0"))


def at_exit() -> None:
    """Shut the worker down warmly, then run the same command again."""
    atexit.register(_now, os.getpid())
    state.should_stop = platforms.EX_OK


def after_recording(record: Callable[[], None], for_good: bool) -> None:
    """Replace the process although its hub is stuck, once `record` has run in another thread, or `PATIENCE` is over.

    With `for_good` the process ends instead, with status 1.  Called in a native thread; does not return.
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
    if for_good:
        os._exit(platforms.EX_FAILURE)
    _now(os.getpid())


def _now(worker: int) -> None:
    if os.getpid() != worker:
        return  # a forked child ends
    os.environ[_COUNT] = str(count() + 1)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def give_back(consumer: Any) -> None:
    """Put unacknowledged messages back in Redis; other brokers do that themselves when the connection ends."""
    qos: Any = consumer.task_consumer and getattr(consumer.task_consumer.channel, "qos", None)
    if hasattr(qos, "restore_by_tag"):
        for tag in list(qos._delivered):
            qos.restore_by_tag(tag)


def resident_kib() -> int:
    """This process's resident memory in KiB; 0 on systems without /proc."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    except OSError:
        return 0
