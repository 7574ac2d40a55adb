"""Host names to addresses and back: the interface of a resolver, and the choice of one.

Called by: weald.socket, and the modules of weald.resolver, which implement the interface.  Each hub has its own
resolver, made at first use; `config.resolver` (environment variable WEALD_RESOLVER) chooses its class.
"""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from weald._base.config import config
from weald._base.names import more_names
from weald._core import Hub, get_hub, get_hub_if_exists

__all__ = __extensions__ = ["Resolver", "current"]

Host = str | bytes | bytearray
AddressInfo = tuple[int, int, int, str, Any]
HostEntry = tuple[str, list[str], list[str]]


class Resolver(Protocol):
    """Each method takes, returns and raises what the function of the same name in `_socket` does."""

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
        """socket.getaddrinfo(), with plain numbers for families and kinds; `type` is its name for `socktype`."""

    def gethostbyname(self, hostname: Host) -> str:
        """socket.gethostbyname()"""

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        """socket.gethostbyname_ex()"""

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        """socket.gethostbyaddr()"""

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """socket.getnameinfo()"""

    def close(self) -> None:
        """Free all resources; the hub calls this when it is destroyed."""


def current() -> Resolver:
    """Return the resolver of this thread's hub.  Raises ValueError if `config.resolver` names no resolver."""
    hub = get_hub()
    resolver: Resolver | None = hub.resolver
    if resolver is None:
        made = cast(Callable[[Hub], Resolver], config.resolver)(hub)
        if hub.resolver is None:
            hub.resolver = made
        else:  # a signal handler has made one meanwhile
            made.close()
        resolver = hub.resolver
    return resolver


def _after_fork_in_child() -> None:
    """Make a new resolver in the child: the look-ups under way, and the sockets, are the parent's."""
    hub = get_hub_if_exists()
    if hub is not None:
        hub.resolver = None


os.register_at_fork(after_in_child=_after_fork_in_child)


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
