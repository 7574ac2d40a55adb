"""The resolver that blocks the loop: the C library's functions, called where they are asked for.

For tests and for programs with a hosts file; `config.resolver = "block"` chooses it.
"""

import _socket
from typing import Any

from weald._core import Hub
from weald.resolver import AddressInfo, Host, HostEntry

__all__ = ["Resolver"]


class Resolver:
    """`_socket`'s look-ups as they are."""

    def __init__(self, hub: Hub | None = None) -> None:
        pass

    def close(self) -> None:
        """Nothing to free."""

    def getaddrinfo(self, *args: Any, **kwargs: Any) -> list[AddressInfo]:
        return _socket.getaddrinfo(*args, **kwargs)

    def gethostbyname(self, hostname: Host) -> str:
        return _socket.gethostbyname(hostname)  # type: ignore[arg-type]

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        return _socket.gethostbyname_ex(hostname)  # type: ignore[arg-type]

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        return _socket.gethostbyaddr(ip_address)  # type: ignore[arg-type]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        return _socket.getnameinfo(sockaddr, flags)
