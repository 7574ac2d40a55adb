"""io's buffers and text for several greenlets: one waits for its turn where io's own would raise or mix lines up."""

import io
from collections.abc import Callable
from socket import SocketIO
from typing import Any, TypeVar

_T = TypeVar("_T")

OPERATIONS: frozenset[str]

class Turns:
    """The greenlets inside a call of a raw file, and those that wait for their turn."""

    fd: int

    def call(self, function: Callable[..., _T], *args: object) -> _T:
        """Return `function(*args)`, a call of the raw file in which greenlets may park."""

class SocketFile(SocketIO):
    """socket.SocketIO, the raw file of `makefile`."""

class BufferedReader(io.BufferedReader):
    """io.BufferedReader, in turns."""

class BufferedWriter(io.BufferedWriter):
    """io.BufferedWriter, in turns."""

class BufferedRandom(io.BufferedRandom):
    """io.BufferedRandom, in turns."""

class BufferedRWPair(io.BufferedRWPair):
    """io.BufferedRWPair; readers and writers take turns each."""

class TextIOWrapper(io.TextIOWrapper):
    """io.TextIOWrapper, in turns."""

def text_wrapper(buffer: Any, *args: Any, **kwargs: Any) -> io.TextIOWrapper:
    """Return io.TextIOWrapper(buffer, …) for several greenlets; readers of a pair do not keep its writers waiting."""

def layers(
    raw: io.RawIOBase,
    mode: str,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    size: int = ...,
) -> Any:
    """Return what `open` builds over raw file `raw`, for several greenlets; `size`: the buffer's bytes by default."""
