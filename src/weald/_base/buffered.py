"""io's buffers for several greenlets: one waits for its turn where io's own would raise "reentrant call".

Called by: weald.socket, for `makefile`.

io's buffers have a lock that is a native thread's: two threads take turns, but two greenlets of one thread are one user
to it, whose second call is refused.  Only a call of the raw file below lets another greenlet in.  So the raw file says
who is inside, and when it is left, whoever was refused tries again.  A lock in Python around each call would cost ten
times as much as reading a line that is in the buffer.

Invariants:
- io refuses a call before it has done anything: it can be made again.  (`readinto` first hands out what is buffered,
  but the buffer is empty while the raw file is being read.)
- A greenlet that comes back while others wait lets those go first.
"""

import io
from errno import EAGAIN
from socket import SocketIO
from typing import Any

from greenlet import getcurrent

from weald._base.pipes import SharedText
from weald._core import Event, Lock, sleep

__all__ = ["BufferedRWPair", "BufferedReader", "BufferedWriter", "SocketFile", "text_wrapper"]


class Turns:
    """Mixed into a raw file: who is inside one of its calls, and who waits for that."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.inside: list[object] = []
        self.waiting = 0
        self._left: Event | None = None

    def leave(self, greenlet: object) -> None:
        """`greenlet` is no longer inside."""
        self.inside.remove(greenlet)
        if self._left is not None:
            self._left.set()
            self._left = None

    def await_turn(self, error: RuntimeError) -> bool:
        """Return True once it is worth trying again; False if `error` is not io's refusal of another greenlet."""
        if not self.inside or getcurrent() in self.inside or not str(error).startswith("reentrant call inside"):
            return False
        if self._left is None:
            self._left = Event()
        self.waiting += 1
        try:
            self._left.wait()
        finally:
            self.waiting -= 1
        return True


class SocketFile(Turns, SocketIO):
    """socket.SocketIO, the raw file of `makefile`."""

    def readinto(self, buffer: Any) -> int | None:
        """Receive into `buffer`: the number of bytes; None if a socket that never waits has none."""
        # As the standard library's; here, because one more frame that parks would cost more than all of this.
        self._checkClosed()
        self._checkReadable()  # type: ignore[attr-defined]
        if self._timeout_occurred:  # type: ignore[has-type]
            raise OSError("cannot read from timed out object")
        greenlet = getcurrent()
        self.inside.append(greenlet)
        try:
            return self._sock.recv_into(buffer)  # type: ignore[attr-defined, no-any-return]
        except TimeoutError:
            self._timeout_occurred = True
            raise
        except OSError as error:
            if error.errno == EAGAIN:
                return None
            raise
        finally:
            self.leave(greenlet)

    def write(self, data: Any) -> int | None:
        """Send some of `data`: the number of bytes; None if a socket that never waits has no room."""
        greenlet = getcurrent()
        self.inside.append(greenlet)
        try:
            return super().write(data)
        finally:
            self.leave(greenlet)


def _in_turn(method: Any) -> Any:
    def call(self: Any, *args: Any) -> Any:
        raw = self._turns
        if raw.waiting:
            sleep(0)
        while True:
            try:
                return method(self, *args)
            except RuntimeError as error:
                if not raw.await_turn(error):
                    raise

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


_readline = io.BufferedReader.readline


class BufferedReader(io.BufferedReader):
    """io.BufferedReader over a file with Turns."""

    def __init__(self, raw: Any, size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        self._turns = raw
        super().__init__(raw, size)

    read, read1, peek, readinto, readinto1, close = map(
        _in_turn,
        (
            io.BufferedReader.read,
            io.BufferedReader.read1,
            io.BufferedReader.peek,
            io.BufferedReader.readinto,
            io.BufferedReader.readinto1,
            io.BufferedReader.close,
        ),
    )

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to the end of a line, of `size` bytes at most."""
        raw = self._turns
        if raw.waiting:
            sleep(0)
        while True:
            try:
                return _readline(self, size)
            except RuntimeError as error:
                if not raw.await_turn(error):
                    raise


class BufferedWriter(io.BufferedWriter):
    """io.BufferedWriter over a file with Turns."""

    def __init__(self, raw: Any, size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        self._turns = raw
        super().__init__(raw, size)

    write, flush, close = map(_in_turn, (io.BufferedWriter.write, io.BufferedWriter.flush, io.BufferedWriter.close))


class BufferedRWPair(io.BufferedRWPair):
    """io.BufferedRWPair over one file with Turns, for reading and writing: readers do not wait for writers."""

    def __init__(self, raw: Any, writer: Any, size: int = io.DEFAULT_BUFFER_SIZE) -> None:
        self._turns = raw
        self._line = Lock()
        super().__init__(raw, writer, size)

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read up to the end of a line, of `size` bytes at most.  io's takes it in pieces, which others could be in."""
        with self._line:
            return super().readline(size)

    read, read1, peek, readinto, readinto1, write, flush, close = map(
        _in_turn,
        (
            io.BufferedRWPair.read,
            io.BufferedRWPair.read1,
            io.BufferedRWPair.peek,
            io.BufferedRWPair.readinto,
            io.BufferedRWPair.readinto1,
            io.BufferedRWPair.write,
            io.BufferedRWPair.flush,
            io.BufferedRWPair.close,
        ),
    )


def text_wrapper(buffer: Any, *args: Any) -> io.TextIOWrapper:
    """io.TextIOWrapper(buffer, …), which several greenlets may use; a pair's reader does not keep writers waiting."""
    return (io.TextIOWrapper if isinstance(buffer, io.BufferedRWPair) else SharedText)(buffer, *args)
