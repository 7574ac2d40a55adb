"""`builtins` on greenlets: `input` parks the calling greenlet; everything else is Python's own.

Called by: users, `weald.monkey`.
"""

import builtins as _stdlib
import os
import select
import sys
from builtins import *  # noqa: F403, UP029
from builtins import __import__ as __import__
from typing import Any

from weald._core import Semaphore, wait_read
from weald.monkey import get_original

__target__ = "builtins"
__implements__ = ["input"]
__imports__: list[str] = []
__all__: list[Any] = ["input"]

_input = _stdlib.input
_poll = get_original("select", "poll")
_turn = Semaphore()


def input(prompt: object = "", /) -> str:  # type: ignore[no-redef]
    """builtins.input(); others run until there is a line to read.

    On a terminal the line is edited by the terminal itself, without GNU readline: that would block.
    """
    try:
        fd = sys.stdin.fileno()
        terminal = os.isatty(fd) and os.isatty(sys.stdout.fileno())
    except (AttributeError, OSError, ValueError):  # no file at all, or none of the system's
        return _input(prompt)
    with _turn:
        if not terminal:
            return _line(fd, prompt)
        sys.stdout.write(str(prompt))
        sys.stdout.flush()
        while not _is_ready(fd):  # a terminal is when a line is complete
            wait_read(fd)
        return _input()


def _is_ready(fd: int) -> bool:
    poller = _poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(0))


def _line(fd: int, prompt: object) -> str:
    """The next line of sys.stdin, which may have some of it in its buffers, from a pipe, a socket or a file."""
    sys.audit("builtins.input", prompt)
    sys.stderr.flush()
    sys.stdout.write(str(prompt))
    sys.stdout.flush()
    line = ""
    while True:
        was_ready = _is_ready(fd)
        was_blocking = os.get_blocking(fd)
        os.set_blocking(fd, False)  # only as long as this reads: it may be other processes' standard input, too
        try:
            part = sys.stdin.readline()
        finally:
            os.set_blocking(fd, was_blocking)
        line += part
        if line.endswith("\n") or (was_ready and not part):
            break
        wait_read(fd)
    sys.audit("builtins.input/result", line)
    if not line:
        raise EOFError("EOF when reading a line")
    return line.removesuffix("\n")
