"""Waiting for child processes without reaping them.

Called by: weald.os, weald.subprocess.

A pidfd becomes readable when its child has ended.  For other queries (any child, a process group, stops) and where
the system has no pidfds, a native thread waits in waitid(2) with WNOWAIT.

Invariants:
- Nothing here reaps a child or handles SIGCHLD.
- The thread gets no signals, since the program does not know of it.
- However many greenlets make the same query, one thread waits for the answer.  It ends when it has the answer.
"""

import os
from contextlib import suppress

from weald._base.originals import get_original
from weald._base.workers import hear_no_signals
from weald._core import Event, get_hub, helper_idle, sleep, wait_read, waits_natively

__all__ = ["await_change", "await_end"]

_Question = tuple[int, int, int]  # arguments of waitid()

_waitid = os.waitid
_start_new_thread = get_original("_thread", "start_new_thread")

_PAUSE = 0.05  # seconds between two checks if no thread can be started, or no loop any more

_asked: dict[_Question, Event] = {}  # questions that a thread waits for an answer to


def await_end(pid: int, timeout: float | None = None) -> bool:
    """Park until child `pid` has ended, without reaping it.  Return False after `timeout` seconds.

    It may return early: only the caller's own waitpid() with WNOHANG tells whether the child has ended.
    """
    return await_change(os.P_PID, pid, os.WEXITED, timeout)


def await_change(idtype: int, id: int, options: int, timeout: float | None = None) -> bool:
    """Park until waitid(idtype, id, options) may find something.  Return False after `timeout` seconds."""
    if waits_natively():
        if timeout is None:
            with suppress(OSError):  # the caller's own call raises it
                _waitid(idtype, id, options | os.WNOWAIT)
        else:
            sleep(min(_PAUSE, timeout))
        return True
    if options == os.WEXITED and idtype == os.P_PID:
        try:
            fd = os.pidfd_open(id)
        except (AttributeError, OSError):  # an old kernel or C library, a sandbox, too many open files
            pass
        else:
            try:
                wait_read(fd, timeout)
            except TimeoutError:
                return False
            finally:
                os.close(fd)
            return True
    return _await_change_in_thread((idtype, id, options), timeout)


def _await_change_in_thread(question: _Question, timeout: float | None) -> bool:
    changed = _asked.get(question)
    if changed is None:
        changed = _asked[question] = Event()
        try:
            _start_new_thread(_ask, (question, changed))
        except RuntimeError:  # no more threads
            del _asked[question]
            sleep(_PAUSE if timeout is None else min(_PAUSE, timeout))
            return True
    hub = get_hub()
    hub.ref()
    try:
        return changed.wait(timeout)
    finally:
        hub.unref()


def _ask(question: _Question, changed: Event) -> None:
    """The thread's function."""
    idtype, id, options = question
    hear_no_signals()
    helper_idle(1)  # `hub.ref` counts the greenlet that waits for the answer; do not count this thread as well
    try:
        _waitid(idtype, id, options | os.WNOWAIT)
    except OSError:
        pass  # there is no such child any more; the caller's own call raises that
    finally:
        helper_idle(-1)
        if _asked.get(question) is changed:
            del _asked[question]
        changed.set()


os.register_at_fork(after_in_child=_asked.clear)
