"""Logs to syslog by datagrams: in the format of syslog(3) on a Unix socket, in that of RFC 5424 by UDP.

Called by: errorlog.py, accesslog.py, config.py; supervisor.py and worker.py by way of these.

logging.handlers.SysLogHandler waits for a daemon whose queue is full, and loses what it cannot send.

Invariants:
- Sending never waits and never raises.  Lines that cannot be sent now (no daemon runs, its queue is full) are kept, up
  to a limit, and tried again with the next line or `retry`.  A line says how many lines were lost.
- A datagram is one line, because daemons differ in how they show a newline.
"""

import errno
import os
import socket
import time
from collections import deque
from logging.handlers import SysLogHandler
from typing import Any

from weald._base.originals import get_original
from weald.serve.errors import ConfigError
from weald.serve.numbers import parse_port

__all__ = ["FACILITIES", "Syslog", "parse_syslog"]

FACILITIES = SysLogHandler.facility_names
_LEVELS = {"info": SysLogHandler.LOG_INFO, "warning": SysLogHandler.LOG_WARNING, "error": SysLogHandler.LOG_ERR}
_LONGEST = 8000  # bytes of text in a datagram: rsyslog takes 8 KiB
_allocate_lock = get_original("_thread", "allocate_lock")
_socket: Any = get_original("socket", "socket")  # the patched one would wait

Address = str | tuple[str, int]


def parse_syslog(target: str) -> Address:
    """Parse `target`: the path of "unix:PATH", or host and port of "udp:HOST:PORT".  Raises ConfigError."""
    kind, _, rest = target.partition(":")
    if kind == "unix" and rest:
        return rest
    host, _, port = rest.rpartition(":")
    number = parse_port(port)
    if kind != "udp" or not host or number is None:
        raise ConfigError(f"--log-syslog must be like unix:/dev/log or udp:HOST:514, not {target!r}")
    return host.removeprefix("[").removesuffix("]"), number


class Syslog:
    """Syslog(target, facility, tag): sends lines to a daemon; up to `limit` bytes are kept while it takes none.

    Raises ConfigError if the target's host has no address.
    """

    def __init__(self, target: str, facility: str, tag: str, limit: int = 1 << 20) -> None:
        address = parse_syslog(target)
        self._facility = FACILITIES[facility] << 3
        self._tag = tag
        self._limit = limit
        self._family = socket.AF_UNIX
        self._address: Any = address
        if not isinstance(address, str):
            try:
                found = socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)[0]
            except OSError as error:
                raise ConfigError(f"--log-syslog: {address[0]}: {error.strerror}") from None
            self._family, self._address = found[0], found[4]
        self._sock: Any = None
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._lost = 0
        self._pid = os.getpid()
        self._busy = _allocate_lock()

    def send(self, level: str, text: str) -> None:
        """Send the lines of `text`, now or later."""
        if self._pid != os.getpid():  # a fork's child: the parent sends what was kept
            self._pid = os.getpid()
            self._kept.clear()
            self._size = self._lost = 0
            self._busy = _allocate_lock()
        for line in text.splitlines():
            datagram = self._datagram(level, line)
            if self._size + len(datagram) > self._limit or (self._lost and self._kept):
                self._lost += 1
                continue
            self._kept.append(datagram)
            self._size += len(datagram)
        self.retry()

    def pending(self) -> bool:
        """Whether there is something that was not sent."""
        return bool(self._kept)

    def retry(self) -> bool:
        """Send the kept lines, as far as possible now; returns whether nothing is left."""
        # If another thread is sending, it sends these lines as well: it checks again after it has released the lock.
        while self._kept and self._busy.acquire(False):
            try:
                # A restarted daemon has a new socket.
                if not (self._flush() or self._connect() and self._flush()):
                    return False
            finally:
                self._busy.release()
        return not self._kept

    def _connect(self) -> bool:
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        sock = None
        try:
            sock = _socket(self._family, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(self._address)
        except OSError:
            if sock is not None:
                sock.close()
            return False
        self._sock = sock
        return True

    def _flush(self) -> bool:
        """Send what is kept.  Return False if the system takes no more."""
        while self._kept:
            try:
                if self._sock is None:
                    return False
                self._sock.send(self._kept[0])
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    return False
                self._lost += 1
            self._size -= len(self._kept.popleft())
            if not self._kept and self._lost:
                notice = self._datagram("warning", f"{self._lost} lines of this log were lost")
                self._lost = 0
                self._kept.append(notice)
                self._size += len(notice)
        return True

    def _datagram(self, level: str, line: str) -> bytes:
        priority = self._facility | _LEVELS[level]
        if self._family == socket.AF_UNIX:
            when = time.strftime("%b %e %H:%M:%S")
            head = f"<{priority}>{when} {self._tag}[{self._pid}]: "
        else:
            when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            head = f"<{priority}>1 {when} {socket.gethostname()} {self._tag} {self._pid} - - "
        return (head + line).encode("utf-8", "backslashreplace")[:_LONGEST]
