"""A file object that a program passes to FileObjectThread or FileObjectBlock, in the mode that it asks for.

Called by: _surface.py.

weald itself uses such an object as it is.  gevent, since its release 1.5, gives text over a file of bytes unless the
mode has a "b".  Bytes over a file of text are refused, but for FileObject itself, which goes by the descriptor.
"""

import io
from typing import Any

__all__ = ["in_mode"]


class _Text(io.TextIOWrapper):
    """Text over a file that stays its owner's, unless `close` is called."""

    def __del__(self) -> None:  # io's own closes the file
        if not self.closed and not self.buffer.closed:
            self.flush()


def in_mode(
    fobj: Any, mode: str, buffering: int, closefd: bool, encoding: str | None, errors: str | None, newline: str | None
) -> Any:
    """`fobj`, or text over it.  Raises ValueError if `fobj` is text and `mode` is for bytes."""
    if isinstance(fobj, io.TextIOBase):
        if "b" in mode:
            raise ValueError("Unable to perform binary IO on top of text IO stream")
        return fobj
    file = getattr(fobj, "file", fobj)  # the files of tempfile stand for another one
    if "b" in mode or not isinstance(file, (io.BufferedIOBase, io.RawIOBase)):
        return fobj
    lines = buffering == 1 or (buffering < 0 and fobj.isatty())
    buffered: Any = fobj
    if isinstance(file, io.RawIOBase):
        layer = io.BufferedRandom if "+" in mode else io.BufferedReader if "r" in mode else io.BufferedWriter
        buffered = layer(fobj, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
    return (io.TextIOWrapper if closefd else _Text)(buffered, encoding, errors, newline, lines)
