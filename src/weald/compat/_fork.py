"""gevent.os's forks, written in Python and able to watch the child they make.

Called by: _drop_in.py; _names.py, for names of gevent.os.

They return at once in parent and child, as os.fork does: a child's hub begins afresh by itself.  Watching takes the
child's status when it ends; weald.os.waitpid asks the system itself and needs no watching.
"""

import os
from collections.abc import Callable
from typing import Any

from weald._core import get_hub

__all__ = ["fork", "fork_and_watch", "fork_gevent", "forkpty", "forkpty_and_watch", "forkpty_gevent"]

_fork, _forkpty = os.fork, os.forkpty


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
    watcher.start(callback, watcher)
