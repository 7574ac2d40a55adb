"""Sockets whose every wait has a limit: receiving, sending, and the end of a connection that loses no response.

Called by: channel.pyx, http2.py, http2_stream.py, websocket.py.
"""

from socket import SHUT_WR
from typing import Any

from weald._core import monotonic

__all__ = ["end_connection", "receive", "send"]

_SIZE = 65536  # bytes that one call receives at most


def receive(sock: Any, timeout: float | None) -> bytes:
    """Return the bytes that come next, b"" at the end of the stream.

    Raises TimeoutError if none come within `timeout` seconds (None: wait without limit), OSError if receiving fails.
    """
    sock._descriptor.timeout = timeout
    data: bytes = sock.recv(_SIZE)
    return data


def send(sock: Any, data: bytes, timeout: float) -> None:
    """Send all of `data`.  Raises TimeoutError if that takes longer than `timeout` seconds, OSError if it fails."""
    sock._descriptor.timeout = timeout
    sock.sendall(data)


def end_connection(sock: Any, tls: bool, linger: float | None) -> None:
    """End a connection so that the client can read what was sent last.  The socket stays open.

    If the client is still sending when the socket is closed, its system may discard the last response (RFC 9112
    section 9.6).  So this end stops sending and reads on until the client closes as well, for `linger` seconds at
    most; None: it does neither.  With `tls`, TLS's own end is sent first.
    """
    try:
        if tls:
            sock._descriptor.timeout = 0.0
            try:
                sock.unwrap()  # sends TLS's end; the client's is not waited for
            except (OSError, ValueError):
                pass
        if linger is not None:
            end = monotonic() + linger
            sock.shutdown(SHUT_WR)
            while (left := end - monotonic()) > 0 and receive(sock, left):
                pass
    except (OSError, ValueError):
        pass
