"""gevent.server's makers of listeners.

Called by: _names.py, for names of gevent.server.
"""

from typing import Any

from weald.server import DatagramServer, StreamServer

__all__ = ["tcp_listener", "udp_socket"]


def tcp_listener(address: Any, backlog: int = 50, reuse_addr: Any = None, family: int | None = None) -> Any:
    """A listening TCP socket.  Raises OSError, which names the address."""

    class Server(StreamServer):
        pass

    Server.reuse_addr = reuse_addr
    return Server.get_listener(address, backlog, family)


def udp_socket(address: Any, backlog: int | None = None, reuse_addr: Any = None, family: int | None = None) -> Any:
    """A bound UDP socket.  Raises OSError, which names the address."""

    class Server(DatagramServer):
        pass

    Server.reuse_addr = reuse_addr
    return Server.get_listener(address, family)
