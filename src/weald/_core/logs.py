"""Logs that decide about nothing: writing to one never waits for its reader and never raises.

Called by: hub.pyx, threads.pyx, reports.pyx, compat.hub, weald.server, weald.thread, _base.workers and http.exchange
(`report`), http.logs (`steady`),
weald.serve.

What cannot be written now (a pipe that nobody reads, a full disk, a closed descriptor) is kept, up to a limit, and
tried again with the next write or `retry`.  What comes beyond the limit is dropped; how many lines that was is told
in their place.

Invariants:
- No call of the system here can block: pipes and terminals are opened once more, with O_NONBLOCK, because that flag
  belongs to what is open and not to the descriptor, and other programs share it; sockets have MSG_DONTWAIT.  A file on
  a network's disk may still hold a write up, as it holds up everything else.
- A descriptor of our own is used only while it is the same file as the one it stands for: somebody may have put another
  there, or have closed ours behind our back.
"""

import io
import os
import select
import stat
import sys
from _socket import MSG_DONTWAIT
from _socket import socket as _Socket
from _thread import allocate_lock
from collections import deque
from contextlib import suppress
from typing import Any
from weakref import WeakSet

__all__ = ["Steady", "report", "retry_logs", "steady"]

_PART = 4096  # bytes: a pipe takes so many at once, or none (PIPE_BUF)
_LIMIT = 1 << 20  # bytes kept
_poll: Any = select.poll  # the system's: patching replaces the name in the module


class Steady(io.RawIOBase):
    """The raw end of a log on descriptor `fd`, which stays its owner's."""

    def __init__(self, fd: int, limit: int = _LIMIT) -> None:
        self._fd = fd
        self._limit = limit
        self._own: Any = None  # the same file, opened again: a descriptor or a socket
        self._file: Any = None  # which file that is
        self._poll = False
        self._pending: deque[bytes] = deque()
        self._size = 0
        self._lost = 0  # lines
        self.error: OSError | None = None  # why the last write failed, unless it was merely too early
        self._pid = os.getpid()
        self._busy = allocate_lock()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<Steady log on descriptor {self._fd}>"

    def fileno(self) -> int:
        """The descriptor that is written to, its owner's."""
        return self._fd

    def writable(self) -> bool:
        """Always True: what cannot be written is kept."""
        return True

    def isatty(self) -> bool:
        """Is it a terminal?"""
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        """Write `data`, bytes, now or later; how many these are."""
        data = bytes(data)
        if self._pid != os.getpid():  # what was kept is the parent's to write
            self._pid = os.getpid()
            self._pending.clear()
            self._size = self._lost = 0
            self._busy = allocate_lock()
        if self._size >= self._limit or (self._lost and self._pending):
            self._lost += data.count(b"\n") or 1
        else:
            self._pending.append(data)
            self._size += len(data)
        self.retry()
        return len(data)

    def pending(self) -> int:
        """Bytes kept."""
        return self._size

    def retry(self) -> bool:
        """Write what is kept, if that is possible now.  Is nothing left?"""
        # Whoever finds another thread at it leaves its data to that one, which looks again after it has let go.
        while self._pending and self._busy.acquire(False):
            try:
                self.error = None
                done = self._flush()
            except OSError as error:
                self.error, done = error, False
            finally:
                self._busy.release()
            if not done:
                return False
        return not self._pending

    def _flush(self) -> bool:
        pending = self._pending
        while pending:
            data = pending[0]
            sent = self._write(data)
            self._size -= sent
            if sent == len(data):
                pending.popleft()
            else:
                pending[0] = data[sent:]
                if not sent:
                    return False
            if not pending and self._lost:
                notice = f"weald: {self._lost} lines of this log were lost\n".encode()
                self._lost = 0
                self._size += len(notice)
                pending.append(notice)
        return True

    def _write(self, data: bytes) -> int:
        """How much of `data` has been written."""
        now = os.fstat(self._fd)
        file = (now.st_dev, now.st_ino)
        if file != self._file or (self._own is not None and not self._still_ours()):
            self._open(now.st_mode)
            self._file = file
        own = self._own
        try:
            if isinstance(own, int):
                return os.write(own, data)
            if own is not None:
                return int(own.send(data, MSG_DONTWAIT))
            if self._poll:
                ready = _poll()
                ready.register(self._fd, select.POLLOUT)
                if not ready.poll(0):
                    return 0
                data = data[:_PART]
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def _open(self, mode: int) -> None:
        """Find out how to write there without waiting."""
        self.release()
        self._poll = False
        try:
            if stat.S_ISSOCK(mode):
                self._own = _Socket(fileno=os.dup(self._fd))
            elif stat.S_ISFIFO(mode) or (stat.S_ISCHR(mode) and os.isatty(self._fd)):
                self._own = os.open(
                    f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
                )
        except OSError:
            # Another user's terminal, say, or no descriptor is left: ask before each write.  With several writers
            # another may come between.
            self._poll = True

    def release(self) -> None:
        """Close what was opened here."""
        if self._own is None or not self._still_ours():
            return
        own, self._own = self._own, None
        with suppress(OSError):
            if isinstance(own, int):
                os.close(own)
            else:
                own.close()

    def _still_ours(self) -> bool:
        """Whether what was opened here is that file still; if not, it is let go of.

        Somebody may have closed it, and the number may be another file's by now.
        """
        own = self._own
        with suppress(OSError):
            mine = os.fstat(own if isinstance(own, int) else own.fileno())
            if (mine.st_dev, mine.st_ino) == self._file:
                return True
        if not isinstance(own, int):
            own.detach()
        self._own = None
        return False

    def close(self) -> None:
        """Give up what is kept.  The descriptor stays open."""
        if not self.closed:
            self.release()
        super().close()


_all: "WeakSet[Steady]" = WeakSet()
_reports: dict[int, Steady] = {}


def _descriptor(stream: Any) -> int | None:
    """The descriptor of a text file as Python makes them for standard output and error; None for any other."""
    if type(stream) is not io.TextIOWrapper:
        return None
    try:
        raw = getattr(stream.buffer, "raw", stream.buffer)
        return raw.fileno() if type(raw) is io.FileIO else None
    except (OSError, ValueError):  # closed
        return None


def steady(stream: Any) -> Any:
    """A steady text file for `stream`; `stream` itself if it is not Python's own file on a descriptor.

    None, which is what Python has for a standard error that was closed at the start, gives one that keeps nothing.
    """
    if stream is None:
        return io.TextIOWrapper(_Nowhere(), encoding="utf-8", errors="backslashreplace", write_through=True)
    fd = _descriptor(stream)
    if fd is None:
        return stream
    buffer = io.BufferedWriter(Steady(fd))
    text = io.TextIOWrapper(buffer, encoding=stream.encoding, errors="backslashreplace", line_buffering=True)
    text.mode = "w"  # type: ignore[misc]
    return text


class _Nowhere(io.BufferedIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


def report(text: str, stream: Any = None) -> None:
    """Write `text` to sys.stderr, or to `stream`: an error report must not fail or hold up what it is about."""
    try:
        if stream is None:
            stream = sys.stderr
        if stream is None:
            return
        fd = _descriptor(stream)
        if fd is None:
            stream.write(text)
            return
        if fd not in _reports:
            _reports[fd] = Steady(fd)
        _reports[fd].write(text.encode(stream.encoding, "backslashreplace"))
    except Exception:
        pass  # somebody's own stream, and it is broken: there is nobody left to tell


def retry_logs() -> bool:
    """Write what logs have kept, as far as that is possible now.  Is nothing left?"""
    return all([log.retry() for log in list(_all)])
