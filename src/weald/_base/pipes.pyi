"""File objects on pipes, terminals and sockets, for descriptors that stay blocking and for non-blocking ones."""

import io
from typing import Any

PIPE_BUF: int

def is_stream(fd: int) -> bool:
    """Return whether `fd` is a pipe, a terminal or a stream socket, to which bytes may be written in parts."""

def make_nonblocking(fd: int) -> bool:
    """Make `fd` non-blocking, for all that share its description.  Return True if it was blocking before."""

def read_shared(fd: int, size: int) -> bytes:
    """os.read(fd, size) of a descriptor that may be blocking; parks until there is something to read."""

def write_shared(fd: int, data: memoryview) -> int:
    """os.write(fd, data) of as much as there is room for, to a pipe that is ready for writing and may be blocking."""

class SharedIO(io.FileIO):
    """FileIO on a pipe's end that stays blocking, or a socket: each call first waits until it would not block."""

    def __init__(self, fd: int, mode: str, closefd: bool = True) -> None: ...

class LoopIO(io.FileIO):
    """FileIO on a descriptor that is non-blocking until `close` or `share`.  Calls park where FileIO's return None."""

    def __init__(self, fd: int, mode: str, closefd: bool) -> None: ...
    def share(self) -> None:
        """Make the descriptor blocking, for another process that gets it.

        Each call here then first checks whether it would block.
        """

def open_shared(fd: int, mode: str, buffering: int = -1, closefd: bool = True) -> io.IOBase:
    """io.open(fd, "rb" or "wb", buffering, closefd=closefd) for a pipe's end, which stays blocking."""

def fdopen(
    fd: int,
    mode: str = "r",
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    closefd: bool = True,
    opener: Any = None,
) -> Any:
    """os.fdopen().  The file of a blocking pipe, socket or terminal parks its caller where it would block."""
