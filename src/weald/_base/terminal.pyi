"""Waiting inside of GNU readline: it asks a function before each key, and that one may park."""

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

def reading(read: Callable[[], _T], wait: Callable[[], object], end: Callable[[], object], /) -> _T:
    """Return `read()`, which reads a line by readline; meanwhile readline calls `wait()` before each key.

    When `wait` raises something, `end()` is called, which must have readline find the end of its line, and what `wait`
    has raised is raised here.  One call at a time in a process.
    """
