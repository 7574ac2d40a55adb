"""`fcntl` on greenlets: waiting for a file's lock parks the greenlet.

Called by: users, weald.os (`lock_when_free`), weald.monkey.

The kernel does not report when a file's lock is free, so each call tries again after growing pauses.  A greenlet that
is killed meanwhile does not get the lock.  `fcntl(F_SETLKW)` is not replaced: it blocks the native thread.
"""

import fcntl as _stdlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from weald._base.builtin import as_builtins
from weald._core import can_park, sleep

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from fcntl import *  # noqa: F403

__implements__ = ["flock", "lockf"]
__imports__ = [name for name in vars(_stdlib) if not name.startswith("_") and name not in __implements__]
__all__ = sorted([*__implements__, *__imports__])

FIRST_PAUSE = 0.0005  # seconds between two tries; doubled each time, up to LAST_PAUSE
LAST_PAUSE = 0.02

_flock, _lockf = _stdlib.flock, _stdlib.lockf


def lock_when_free(lock: Callable[[], object], try_to_lock: Callable[[], object]) -> None:
    """Call `lock`, which blocks.  If other greenlets could run meanwhile, try without blocking until it succeeds.

    `try_to_lock` raises BlockingIOError or PermissionError while the lock is held elsewhere (fcntl(2)).
    """
    if not can_park():
        lock()
        return
    pause = FIRST_PAUSE
    while True:
        try:
            try_to_lock()
            return
        except (BlockingIOError, PermissionError):
            sleep(pause)
            pause = min(2.0 * pause, LAST_PAUSE)


def flock(fd: Any, operation: int, /) -> None:
    """fcntl.flock(); while the lock is held elsewhere, other greenlets run."""
    if not isinstance(operation, int) or operation & (_stdlib.LOCK_NB | _stdlib.LOCK_UN):
        _flock(fd, operation)
    else:
        lock_when_free(lambda: _flock(fd, operation), lambda: _flock(fd, operation | _stdlib.LOCK_NB))


def lockf(fd: Any, cmd: int, len: int = 0, start: int = 0, whence: int = 0, /) -> None:
    """fcntl.lockf(); while another process has a lock there, others run."""
    if not isinstance(cmd, int) or cmd & (_stdlib.LOCK_NB | _stdlib.LOCK_UN):
        _lockf(fd, cmd, len, start, whence)
    else:
        lock_when_free(
            lambda: _lockf(fd, cmd, len, start, whence),
            lambda: _lockf(fd, cmd | _stdlib.LOCK_NB, len, start, whence),
        )


as_builtins(globals(), _stdlib)
