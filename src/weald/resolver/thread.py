"""The default resolver: the C library's functions in the hub's thread pool.

Called by: weald._base.config, when the resolver is chosen; weald.compat.

It answers exactly as a program without weald would see it (hosts file, nsswitch, search domains).

Invariant: numeric addresses, which need no look-up, never go through the pool.
"""

import _socket
from collections.abc import Callable
from typing import Any

from weald import threadpool
from weald._core import Hub
from weald.resolver import AddressInfo, Host, HostEntry
from weald.resolver._shared import Lookups, is_numeric, refuse_cut_name

__all__ = ["Resolver"]


class Resolver:
    """Looks names up with `_socket` in native threads."""

    def __init__(self, hub: Hub | None = None) -> None:
        self._lookups = Lookups()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} lookups={len(self._lookups)}>"

    def close(self) -> None:
        """Nothing to free: the pool is the hub's."""

    def getaddrinfo(
        self,
        host: Host | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """_socket.getaddrinfo(), in the pool unless `host` is an address."""
        if host is None or is_numeric(host):
            return _socket.getaddrinfo(host, port, family, type, proto, flags)  # type: ignore[arg-type]
        return self._look_up(_socket.getaddrinfo, host, port, family, type, proto, flags)  # type: ignore[no-any-return]

    def gethostbyname(self, hostname: Host) -> str:
        """_socket.gethostbyname(), in the pool unless `hostname` is an address."""
        if is_numeric(hostname):
            return _socket.gethostbyname(hostname)  # type: ignore[arg-type]
        return self._look_up(_socket.gethostbyname, hostname)  # type: ignore[no-any-return]

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        """_socket.gethostbyname_ex(), in the pool."""
        return self._look_up(_socket.gethostbyname_ex, hostname)  # type: ignore[no-any-return]

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        """_socket.gethostbyaddr(), in the pool."""
        return self._look_up(_socket.gethostbyaddr, ip_address)  # type: ignore[no-any-return]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """_socket.getnameinfo(), in the pool."""
        return self._look_up(_socket.getnameinfo, sockaddr, flags)  # type: ignore[no-any-return]

    def _look_up(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` in the pool, or the outcome of the same call that is under way already."""
        refuse_cut_name(args[0])
        job = self._lookups.start(f"{function.__name__}{args!r}", threadpool.default().apply, function, args)
        return self._lookups.outcome(job)
