"""Logs that cannot stop a program: writing to one never waits for its reader and never raises.

Called by: hub.pyx, threads.pyx, reports.pyx, compat.hub, weald.server, weald.thread, _base.workers and http.exchange
(`report`), http.logs (`steady`),
weald.serve.

Text that cannot be written now (to a pipe without a reader, a full disk, a closed descriptor) is kept, up to a limit,
and tried again with the next write or `retry`.  Beyond the limit it is dropped; a line says how many lines were lost.

Invariants:
- No system call here can block.  Pipes and terminals are opened once more, with O_NONBLOCK, because that flag belongs
  to the open file description, which other programs share.  Sockets have MSG_DONTWAIT.  A write to a file on a network
  file system may still block.
- A descriptor opened here is used only while it is the same file as the original one.  The program may have put
  another file there, or may have closed the descriptor opened here.
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

_PART = 4096  # bytes: a pipe takes all of them at once, or none (PIPE_BUF)
_LIMIT = 1 << 20  # bytes kept
_poll: Any = select.poll  # the system's: patching replaces the name in the module


class Steady(io.RawIOBase):
    """The raw file under a log on descriptor `fd`, which it never closes."""

    def __init__(self, fd: int, limit: int = _LIMIT) -> None:
        self._fd = fd
        self._limit = limit
        self._own: Any = None  # the same file, opened again: a descriptor or a socket
        self._file: Any = None  # which file that is
        self._poll = False
        self._pending: deque[bytes] = deque()
        self._size = 0
        self._lost = 0  # lines
        self.error: OSError | None = None  # why the last write failed, unless it would have blocked
        self._pid = os.getpid()
        self._busy = allocate_lock()
        _all.add(self)

    def __repr__(self) -> str:
        return f"<Steady log on descriptor {self._fd}>"

    def fileno(self) -> int:
        """The descriptor of the log."""
        return self._fd

    def writable(self) -> bool:
        """Always True: what cannot be written is kept."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._fd)

    def write(self, data: Any) -> int:
        """Write `data` (bytes) now, or keep it for later; returns its length."""
        data = bytes(data)
        if self._pid != os.getpid():  # a fork's child: the parent writes what was kept
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
        """How many bytes are kept."""
        return self._size

    def retry(self) -> bool:
        """Write what is kept, if that is possible now; returns whether nothing is left."""
        # If another thread is writing, it writes this data as well: it checks again after it has released the lock.
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
        """Write some of `data`, without waiting; returns how many bytes."""
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
        """Choose how to write to the file without waiting: open it again, or poll before each write."""
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
            # Another user's terminal, say, or no descriptor is left: poll before each write.  If several programs write
            # there, one may fill it after the poll.
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
        """Whether the descriptor opened here still is that file; if not, forget it.

        The program may have closed it, and the number may be another file by now.
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
        """Drop what is kept.  The descriptor stays open."""
        if not self.closed:
            self.release()
        super().close()


_all: "WeakSet[Steady]" = WeakSet()
_reports: dict[int, Steady] = {}


def _descriptor(stream: Any) -> int | None:
    """The descriptor of a text file such as Python's standard output and error; None for any other object."""
    if type(stream) is not io.TextIOWrapper:
        return None
    try:
        raw = getattr(stream.buffer, "raw", stream.buffer)
        return raw.fileno() if type(raw) is io.FileIO else None
    except (OSError, ValueError):  # closed
        return None


def steady(stream: Any) -> Any:
    """Return a text file for `stream` that never waits or raises; `stream` itself, if it is no text file of Python's.

    For None, which sys.stderr is if it was closed at the start, a file that drops all that is written.
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
    """Write `text` to sys.stderr, or to `stream`, without waiting and without raising."""
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
        pass  # a program's own stream, which is broken: there is nowhere else to report that


def retry_logs() -> bool:
    """Write what the logs have kept, as far as that is possible now; returns whether nothing is left."""
    return all([log.retry() for log in list(_all)])
