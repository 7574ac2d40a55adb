"""The resolver that blocks the loop: the C library's functions, called directly.

Called by: weald._base.config, when the resolver is chosen.

For tests and for programs with a hosts file; `config.resolver = "block"` chooses it.
"""

import _socket
from typing import Any

from weald._core import Hub
from weald.resolver import AddressInfo, Host, HostEntry

__all__ = ["Resolver"]


class Resolver:
    """`_socket`'s look-up functions, unchanged."""

    def __init__(self, hub: Hub | None = None) -> None:
        pass

    def close(self) -> None:
        """Nothing to free."""

    def getaddrinfo(
        self,
        host: Host | None,
        port: bytes | str | int | None,
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
        *,
        type: int = 0,
    ) -> list[AddressInfo]:
        """_socket.getaddrinfo(); `type` is its name for `socktype`."""
        return _socket.getaddrinfo(host, port, family, type or socktype, proto, flags)  # type: ignore[arg-type]

    def gethostbyname(self, hostname: Host) -> str:
        """_socket.gethostbyname()"""
        return _socket.gethostbyname(hostname)  # type: ignore[arg-type]

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        """_socket.gethostbyname_ex()"""
        return _socket.gethostbyname_ex(hostname)  # type: ignore[arg-type]

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        """_socket.gethostbyaddr()"""
        return _socket.gethostbyaddr(ip_address)  # type: ignore[arg-type]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """_socket.getnameinfo()"""
        return _socket.getnameinfo(sockaddr, flags)
