"""Parking inside GNU readline, which calls a hook before each key."""

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

def reading(read: Callable[[], _T], wait: Callable[[], object], end: Callable[[], object], /) -> _T:
    """Return `read()`, which reads a line by readline.  Readline calls `wait()`, which may park, before each key.

    If `wait` raises an exception, `end()` is called, which must make readline end its line, and the exception is
    raised here.  One call at a time in a process.
    """
