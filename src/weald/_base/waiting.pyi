"""Waiting for a descriptor: the one loop "wait, try again, until a deadline"."""

from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_Wait = Callable[[float | None], object]

POLLIN: int
POLLOUT: int

def until(wait: _Wait, timeout: float | None, call: Callable[..., _T | None], *args: object) -> _T | None:
    """Wait, then return `call(*args)`; for callers whose own first try would have blocked.

    While the call would block still (it raises BlockingIOError, or returns None or []) it is tried again, each time
    after `wait(seconds)`.  The seconds are what is left of `timeout`; None: no limit.  Returns None when `timeout`
    seconds have passed.  Raises what `wait` and `call` raise.
    """

def retry(wait: _Wait, timeout: float | None, call: Callable[..., _T | None], *args: object) -> _T:
    """As `until`, but raises TimeoutError("timed out") when `timeout` seconds have passed."""

def retry_as_wanted(
    choose: Callable[[Exception], _Wait], wait: _Wait, timeout: float | None, call: Callable[..., _T], *args: object
) -> _T:
    """As `retry`, for a call that says by its exceptions what it has to wait for.

    `choose(exception)` returns the wait for it, or raises it if it is no such exception.  `wait` is the one for the
    first try, which has failed.  None is a result like any other.
    """

def is_ready(fd: int, event: int) -> bool:
    """Return whether a call on descriptor `fd` would not block; `event` is POLLIN or POLLOUT.

    An error or the other side's end counts as ready, and so does what is no open descriptor: the call will say so.
    """

def wait_until_ready(fd: int, event: int, wait: _Wait) -> None:
    """Call `wait(None)` until descriptor `fd` is ready for `event` (POLLIN or POLLOUT).

    For blocking descriptors.  The system is asked anew after each wait: another greenlet may have been faster.
    """

def read_file_at_once(fd: int, buffer: Any) -> int | None:
    """Read into `buffer` what the system has in memory of regular file `fd`: the number of bytes, 0 at the end.

    None if the call would wait for the disk.  Raises OSError(EOPNOTSUPP) where the system cannot tell.
    """
