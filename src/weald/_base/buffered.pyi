"""io's buffers and text files for several greenlets: they take turns where io's own would raise or mix lines up."""

import io
from collections.abc import Callable
from socket import SocketIO
from typing import Any, TypeVar

_T = TypeVar("_T")

OPERATIONS: frozenset[str]

class Turns:
    """The greenlets inside a call of a raw file, and those that wait for their turn."""

    fd: int
    used: bool

    def call(self, function: Callable[..., _T], *args: object) -> _T:
        """Return `function(*args)`, a call of the raw file in which greenlets may park."""

class SocketFile(SocketIO):
    """socket.SocketIO, the raw file of `makefile`."""

class BufferedReader(io.BufferedReader):
    """io.BufferedReader whose callers take turns."""

class BufferedWriter(io.BufferedWriter):
    """io.BufferedWriter whose callers take turns."""

class BufferedRandom(io.BufferedRandom):
    """io.BufferedRandom whose callers take turns."""

class BufferedRWPair(io.BufferedRWPair):
    """io.BufferedRWPair; its readers take turns, and so do its writers."""

class TextIOWrapper(io.TextIOWrapper):
    """io.TextIOWrapper whose callers take turns."""

def text_wrapper(buffer: Any, *args: Any, **kwargs: Any) -> io.TextIOWrapper:
    """Return io.TextIOWrapper(buffer, …) for several greenlets; writers of a pair do not wait for its readers."""

def layers(
    raw: io.RawIOBase,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    size: int = ...,
) -> Any:
    """Return what `open` builds over raw file `raw`, for several greenlets; `size`: default size of the buffer."""
