"""gevent.os's forks, written in Python and able to watch the child they make.

Called by: _drop_in.py; _names.py, for names of gevent.os.

They return at once in parent and child, as os.fork does: a child's hub starts afresh by itself.

Invariant: a child that is watched is reaped by its watcher.  `waitpid`, which takes the place of weald.os's, then has
its status, once, for KEPT seconds; of other children it asks the system.
"""

import os
from collections.abc import Callable
from typing import Any

from weald import os as weald_os
from weald._core import Event, get_hub, monotonic

__all__ = ["fork", "fork_and_watch", "fork_gevent", "forkpty", "forkpty_and_watch", "forkpty_gevent", "waitpid"]

KEPT = 60.0  # seconds for which the status of a watched child is kept for a later waitpid

_fork, _forkpty = os.fork, os.forkpty
_waitpid = weald_os.waitpid
_watched: dict[int, Event] = {}  # children that live, by number; the event is set when they have ended
_ended: dict[int, tuple[int, float]] = {}  # those that have ended, the oldest first: status, and when that was


def fork_gevent() -> int:
    """os.fork()."""
    return _fork()


def forkpty_gevent() -> tuple[int, int]:
    """os.forkpty()."""
    return _forkpty()


def fork_and_watch(
    callback: Callable[[Any], object] | None = None,
    loop: Any = None,
    ref: bool = False,
    fork: Callable[[], int] = fork_gevent,
) -> int:
    """Fork; a `callback` is called in the parent's hub, with a child watcher, when the child has ended."""
    pid = fork()
    if pid and callback is not None:
        _watch(pid, callback, loop, ref)
    return pid


def forkpty_and_watch(
    callback: Callable[[Any], object] | None = None,
    loop: Any = None,
    ref: bool = False,
    forkpty: Callable[[], tuple[int, int]] = forkpty_gevent,
) -> tuple[int, int]:
    """As `fork_and_watch`, with os.forkpty."""
    pid, fd = forkpty()
    if pid and callback is not None:
        _watch(pid, callback, loop, ref)
    return pid, fd


def fork(*args: Any, **kwargs: Any) -> int:
    """os.fork(), which may be given `fork_and_watch`'s arguments."""
    return fork_and_watch(*args, **kwargs)


def forkpty(*args: Any, **kwargs: Any) -> tuple[int, int]:
    """os.forkpty(), which may be given `forkpty_and_watch`'s arguments."""
    return forkpty_and_watch(*args, **kwargs)


def _watch(pid: int, callback: Callable[[Any], object], loop: Any, ref: bool) -> None:
    watcher = (loop or get_hub().loop).child(pid, ref=ref)
    _watched[pid] = Event()
    watcher.start(_on_end, watcher, callback)


def _on_end(watcher: Any, callback: Callable[[Any], object]) -> None:
    watcher.close()
    now = monotonic()
    for pid in [pid for pid, (_, when) in _ended.items() if when < now - KEPT]:
        del _ended[pid]
    _ended[watcher.pid] = watcher.rstatus, now
    _watched.pop(watcher.pid).set()
    callback(watcher)


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """os.waitpid(), of children that are watched as well."""
    if pid == -1 and _ended:
        pid = next(iter(_ended))
    if pid in _watched:
        if options & os.WNOHANG:
            return 0, 0
        hub = get_hub()
        hub.ref()  # for the watcher, which may be one that the hub does not wait for
        try:
            _watched[pid].wait()
        finally:
            hub.unref()
    return (pid, _ended.pop(pid)[0]) if pid in _ended else _waitpid(pid, options)


def _after_fork_in_child() -> None:
    _watched.clear()
    _ended.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
