"""gevent._socketcommon: the names that gevent's socket modules shared; here they are all in weald.socket.

Called by: users, as gevent._socketcommon; _names.py, for names of gevent.socket; _surface.py.
"""

from errno import EAGAIN, EALREADY, EBADF, ECONNREFUSED, EHOSTUNREACH, EINPROGRESS, EINVAL, EISCONN, EWOULDBLOCK
from typing import TYPE_CHECKING, Any

from weald import socket as _socket
from weald._base.names import more_names
from weald._core import Timeout, get_hub
from weald.exceptions import ConcurrentObjectUseError
from weald.socket import *
from weald.socket import __dns__, __extensions__, __implements__, __imports__, cancel_wait
from weald.socket import socket as SocketMixin

GSENDAGAIN = EWOULDBLOCK
timeout_default: Any = object()


class cancel_wait_ex(OSError):  # noqa: N801, N818 - gevent's name
    """The exception that `cancel_wait` raises by default in the greenlet that waits for a watcher: EBADF."""

    def __init__(self) -> None:
        super().__init__(EBADF, "File descriptor was closed in another greenlet")


def wait(io: Any, timeout: float | None = None, timeout_exc: Any = None) -> None:
    """Wait until the watcher `io` is ready; `timeout_exc`, or TimeoutError, after `timeout` seconds."""
    if io.callback is not None:
        raise ConcurrentObjectUseError(f"This socket is already used by another greenlet: {io.callback!r}")
    with Timeout.start_new(timeout, TimeoutError("timed out") if timeout_exc is None else timeout_exc):
        get_hub().wait(io)  # type: ignore[attr-defined]


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._socketcommon")
