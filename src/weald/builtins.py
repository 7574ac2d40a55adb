"""`builtins` on greenlets: `input` parks the calling greenlet; everything else is Python's own.

Called by: users, weald.monkey.
"""

import builtins as _stdlib
import os
import sys
from builtins import *  # noqa: F403, UP029
from builtins import __import__ as __import__
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from os import openpty
from stat import S_ISFIFO
from termios import TCSADRAIN, tcgetattr, tcsetattr
from typing import TYPE_CHECKING, Any, TypeVar

from weald._base.builtin import as_builtins
from weald._base.names import more_names
from weald._base.originals import get_original
from weald._base.terminal import reading
from weald._base.waiting import POLLIN, is_ready, wait_until_ready
from weald._core import Semaphore, wait_read

__target__ = "builtins"
__implements__ = ["input"]
__imports__: list[str] = []
__all__: list[Any] = ["input"]

_input = _stdlib.input
_dup2 = get_original("os", "dup2")  # the patched one would end other greenlets' waits
_turn = Semaphore()
_Line = TypeVar("_Line", str, bytes)


def input(prompt: object = "", /) -> str:  # type: ignore[no-redef]
    """builtins.input(); others run until there is a line to read.

    With `readline` loaded the line is edited by GNU readline, as usual.  An exception that ends the wait
    (KeyboardInterrupt, a Timeout, a kill) is raised here, and the unfinished line is lost.
    """
    try:
        fd = sys.stdin.fileno()
        terminal = os.isatty(fd) and os.isatty(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # None, or a file without a descriptor
        return _input(prompt)
    with _turn:
        if not terminal:
            return _line(fd, prompt)
        if "readline" in sys.modules and (fd, sys.stdout.fileno()) == (0, 1):  # else CPython does not use it
            return _edited_line(prompt)
        sys.stdout.write(str(prompt))
        sys.stdout.flush()
        wait_until_ready(fd, POLLIN, partial(wait_read, fd))  # a terminal is ready when a line is complete
        return _input()


def _edited_line(prompt: object) -> str:
    """Return the next line of the terminal, which GNU readline edits; others run while there is no key to read.

    readline returns only at the end of a line.  So if an exception ends the wait, readline gets another terminal, with
    lines to read, on which it can set the modes that it always sets at the end.
    """
    readline: Any = sys.modules["readline"]
    before = readline.get_current_history_length()
    modes = tcgetattr(0)
    ended = False
    with ExitStack() as undo:

        def end() -> None:
            nonlocal ended
            ended = True
            undo.callback(tcsetattr, 0, TCSADRAIN, modes)
            _end_line(undo)

        wait = partial(wait_until_ready, 0, POLLIN, partial(wait_read, 0))
        try:
            return reading(partial(_input, prompt), wait, end)
        finally:
            if ended and readline.get_current_history_length() > before:
                readline.remove_history_item(before)


def _end_line(undo: ExitStack) -> None:
    """Put a terminal with empty lines in the place of descriptor 0, until `undo` is closed."""
    shared = os.dup(0)
    undo.callback(os.close, shared)
    writer, reader = openpty()
    undo.callback(os.close, writer)
    os.write(writer, b"\n\n\n")  # the first may be an argument of a key typed before
    undo.callback(_dup2, shared, 0, os.get_inheritable(0))
    _dup2(reader, 0)
    os.close(reader)


def _line(fd: int, prompt: object) -> str:
    """Return the next line of sys.stdin, a pipe, a socket or a file; its buffers may hold a part of it."""
    sys.audit("builtins.input", prompt)
    sys.stderr.flush()
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    stdin: Any = sys.stdin
    line = ""
    if not isinstance(stdin, TextIOWrapper):  # a program's own
        line = _by_lines(fd, stdin.readline, "")
    else:
        with _nothing_to_read(fd):
            if not _ends_within_character(stdin.buffer.peek(1), stdin.encoding):
                line = stdin.readline()
        if not line.endswith("\n"):
            # By bytes: to the text layer "nothing yet" would be the end of the file, and part of a character an error.
            rest = _by_lines(fd, stdin.buffer.readline, b"")
            line += rest.decode(stdin.encoding, stdin.errors or "strict").replace("\r\n", "\n")
    sys.audit("builtins.input/result", line)
    if not line:
        raise EOFError("EOF when reading a line")
    return line.removesuffix("\n")


def _by_lines(fd: int, readline: Callable[[], _Line | None], line: _Line) -> _Line:
    """Read the next line from `fd`, newline included; at the end of the file, what is left.  `line` is empty."""
    end = "\n" if isinstance(line, str) else b"\n"
    while True:
        was_ready = is_ready(fd, POLLIN)
        with _reads_do_not_wait(fd):
            part = readline()
        if part:
            line += part
        if line.endswith(end) or (was_ready and not part):
            return line
        wait_read(fd)


def _ends_within_character(data: bytes, encoding: str) -> bool:
    decoder = getincrementaldecoder(encoding)("replace")
    decoder.decode(data)
    return bool(decoder.getstate()[0])


@contextmanager
def _nothing_to_read(fd: int) -> Iterator[None]:
    """Make `fd` an empty pipe, for a block that does not park."""
    empty, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    inheritable = os.get_inheritable(fd)
    shared = os.dup(fd)
    try:
        _dup2(empty, fd, inheritable)
        try:
            yield
        finally:
            _dup2(shared, fd, inheritable)
    finally:
        for other in (empty, writer, shared):
            os.close(other)


@contextmanager
def _reads_do_not_wait(fd: int) -> Iterator[None]:
    """Make reads of `fd` return at once, for a block that does not park.

    Other processes may have the same pipe as standard input, and a flag on the description that they share would affect
    them.  So meanwhile `fd` is another description of the pipe.
    """
    own = -1
    if S_ISFIFO(os.fstat(fd).st_mode):
        with suppress(OSError):  # there is no /proc, or the pipe belongs to another user
            own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
    if own < 0:
        was_blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)
        try:
            yield
        finally:
            os.set_blocking(fd, was_blocking)
        return
    inheritable = os.get_inheritable(fd)
    shared = os.dup(fd)
    try:
        _dup2(own, fd, inheritable)
        try:
            yield
        finally:
            _dup2(shared, fd, inheritable)
    finally:
        os.close(shared)
        os.close(own)


as_builtins(globals(), _stdlib)

if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
