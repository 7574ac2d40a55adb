"""Waiting for a descriptor: the one loop "wait, try again, until a deadline"."""

from collections.abc import Callable
from typing import Any, TypeVar

_T = TypeVar("_T")
_Wait = Callable[[float | None], object]

POLLIN: int
POLLOUT: int

def until(wait: _Wait, timeout: float | None, call: Callable[..., _T | None], *args: object) -> _T | None:
    """Wait, then return `call(*args)`; for callers whose own first try would have blocked.

    The call is tried again as long as it would block (it raises BlockingIOError, or returns None or []), each time
    after `wait(seconds)`.  The seconds are what is left of `timeout`; None: no limit.  Returns None when `timeout`
    seconds have passed.  Raises what `wait` and `call` raise.
    """

def retry(wait: _Wait, timeout: float | None, call: Callable[..., _T | None], *args: object) -> _T:
    """As `until`, but raises TimeoutError("timed out") when `timeout` seconds have passed."""

def retry_as_wanted(
    choose: Callable[[Exception], _Wait], wait: _Wait, timeout: float | None, call: Callable[..., _T], *args: object
) -> _T:
    """As `retry`, for a call whose exceptions say what to wait for, such as SSLWantReadError.

    `choose(exception)` returns the function that waits for it, or raises the exception if it means something else.
    `wait` is the function for the first wait: the caller has tried once already.  None is a result like any other here.
    """

def is_ready(fd: int, event: int) -> bool:
    """Return whether a call on descriptor `fd` would not block; `event` is POLLIN or POLLOUT.

    An error or a hang-up counts as ready, and so does a descriptor that is not open: the call itself will raise.
    OSError if the system cannot tell.
    """

def wait_until_ready(fd: int, event: int, wait: _Wait) -> None:
    """Call `wait(None)` until descriptor `fd` is ready for `event` (POLLIN or POLLOUT).

    For blocking descriptors.  It checks again after each wait, because another greenlet may have been faster.
    """

def read_file_at_once(fd: int, buffer: Any) -> int | None:
    """Read into `buffer` what the page cache has of regular file `fd`.  Return the number of bytes, 0 at the end.

    Returns None if the call would wait for the disk.  OSError(EOPNOTSUPP) where the system cannot tell.
    """
