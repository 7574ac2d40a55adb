"""`weald.disconnected` in a request's environment: whether the client has left while the application is at work.

Called by: channel.pyx and http2_stream.py, which make one for each connection or stream; applications.

A connection is not watched until the application asks, so a request that does not ask costs nothing more.  A client
counts as gone when its side of the connection has ended, even in an orderly way, because HTTP clients close both
directions at once.  A client that has closed only its own direction can still be sent a response.
"""

import errno
from select import POLLERR, POLLHUP, POLLIN, POLLNVAL
from typing import Any

from greenlet import getcurrent

from weald._base.resident import Resident
from weald._core import get_hub, monotonic, sleep
from weald.select import _poll

__all__ = ["Disconnected"]

_POLLRDHUP = 0x2000  # Linux: the peer has ended its direction, whatever of its bytes is still unread
_GONE = POLLERR | POLLHUP | POLLNVAL | _POLLRDHUP
_PATIENCE = 1.0  # seconds at most between two checks, where no event reports the end


class Disconnected:
    """An event that is set once the client has left.  It stays set."""

    __slots__ = ("_sock",)

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def is_set(self) -> bool:
        """Return whether the client has left.  Asks the system; never waits."""
        return bool(self._state() & _GONE)

    def wait(self, timeout: float | None = None) -> bool:
        """Park until the client has left, and return True; False after `timeout` seconds (None: wait without limit)."""
        end = None if timeout is None else monotonic() + timeout
        pause = 0.01
        while not (state := self._state()) & _GONE:
            left = None if end is None else end - monotonic()
            if left is not None and left <= 0:
                return False
            if state & POLLIN:
                # Unread bytes, such as another request, make the socket readable, just as its end does.
                sleep(pause if left is None else min(pause, left))
                pause = min(pause * 2, _PATIENCE)
            else:
                try:
                    self._park(left)
                except TimeoutError:
                    return False
                except OSError:  # closed meanwhile
                    return True
        return True

    def interrupt(self) -> "_Interrupt":
        """Return a context manager in whose block ConnectionResetError is raised once the client has left.

        It is raised while the block waits for something.  Uncaught, it ends the request, and no error is logged.
        """
        return _Interrupt(self)

    def _state(self) -> int:
        """Return the events that poll(2) reports for the connection."""
        fd = self._sock.fileno()
        if fd < 0:
            return POLLNVAL
        poller = _poll()
        poller.register(fd, POLLIN | _POLLRDHUP)
        ready = poller.poll(0)
        return ready[0][1] if ready else 0

    def _park(self, timeout: float | None) -> None:
        """Park until there is something to read, or the end.

        Raises TimeoutError after `timeout` seconds, OSError if the connection is closed meanwhile.
        """
        self._sock._descriptor.wait_read(timeout)


class _Interrupt:
    """A greenlet that watches while the block runs."""

    def __init__(self, disconnected: Disconnected) -> None:
        self._disconnected = disconnected
        self._inside: Any = None  # the block's greenlet

    def __enter__(self) -> None:
        if self._inside is not None:
            raise RuntimeError("this block has been entered already; interrupt() makes another")
        self._inside = getcurrent()
        self._watcher = Resident(self._watch)

    def __exit__(self, *_: object) -> None:
        self._inside = None
        self._watcher.stop()

    def _watch(self) -> None:
        if self._disconnected.wait():
            get_hub().run_callback(self._throw)

    def _throw(self) -> None:
        # In the hub: the block's greenlet is parked, and has not left the block.
        inside = self._inside
        if inside is not None and not inside.dead:
            inside.throw(ConnectionResetError(errno.ECONNRESET, "the client has left"))
