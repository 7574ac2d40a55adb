"""The default resolver: the C library's functions in the hub's thread pool.

It answers exactly as a program without weald would see it (hosts file, nsswitch, search domains).

Invariants:
- Equal look-ups at the same time share one job; each caller gets a result or an exception of its own.
- Numeric addresses, which need no look-up, never go through the pool.
"""

import _socket
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from weald import threadpool
from weald._core import Greenlet, Hub, spawn
from weald.resolver import AddressInfo, Host, HostEntry

__all__ = ["Resolver"]


class Resolver:
    """Looks names up with `_socket` in native threads."""

    def __init__(self, hub: Hub | None = None) -> None:
        self._lookups: dict[str, Greenlet] = {}

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
        if host is None or _is_numeric(host):
            return _socket.getaddrinfo(host, port, family, type, proto, flags)  # type: ignore[arg-type]
        return self._look_up(_socket.getaddrinfo, host, port, family, type, proto, flags)  # type: ignore[no-any-return]

    def gethostbyname(self, hostname: Host) -> str:
        if _is_numeric(hostname):
            return _socket.gethostbyname(hostname)  # type: ignore[arg-type]
        return self._look_up(_socket.gethostbyname, hostname)  # type: ignore[no-any-return]

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        return self._look_up(_socket.gethostbyname_ex, hostname)  # type: ignore[no-any-return]

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        return self._look_up(_socket.gethostbyaddr, ip_address)  # type: ignore[no-any-return]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        return self._look_up(_socket.getnameinfo, sockaddr, flags)  # type: ignore[no-any-return]

    def _look_up(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` in the pool, or the outcome of the same call that is under way already."""
        for arg in args[:1]:
            _refuse_cut_names(arg)
        key = f"{function.__name__}{args!r}"
        lookup = self._lookups.get(key)
        if lookup is None:
            # A greenlet of its own: the caller may be killed while others wait for the same answer.
            lookup = self._lookups[key] = spawn(self._run, key, function, args)
        error, result = lookup.get()
        if error is not None:
            raise type(error)(*error.args)
        return deepcopy(result)

    def _run(self, key: str, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Exception | None, Any]:
        try:
            return None, threadpool.default().apply(function, args)
        except Exception as error:
            return error, None
        finally:
            del self._lookups[key]


def _is_numeric(host: Host) -> bool:
    """Is it an IPv4 or IPv6 address?"""
    if not isinstance(host, str) or not host or not (host[0].isdigit() or ":" in host):
        return False
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def _refuse_cut_names(host: Any) -> None:
    """The C library sees a name up to its first NUL only: that would be another host's address."""
    if (isinstance(host, str) and "\0" in host) or (isinstance(host, bytes | bytearray) and b"\0" in host):
        raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
