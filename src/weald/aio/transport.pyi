"""Transports of connected stream sockets."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any

from typing_extensions import disjoint_base

from weald.aio.core import Core

@disjoint_base
class Transports:
    """Descriptor number to transport, weakly, as asyncio's `loop._transports`."""

    def __setitem__(self, fd: int, transport: Any, /) -> None: ...
    def __getitem__(self, fd: int, /) -> Any: ...
    def __delitem__(self, fd: int, /) -> None: ...
    def get(self, fd: int, default: Any = None) -> Any:
        """The transport of descriptor `fd`; `default` if there is none."""

class SocketTransport(asyncio.Transport):
    """asyncio's transport of a connected stream socket."""

    def __init__(
        self,
        loop: Core,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        extra: dict[str, Any] | None = None,
        server: Any = None,
        context: Context | None = None,
        ends: Any = None,
    ) -> None: ...

def accepts(sock: Any) -> bool:
    """Whether `accept` may be used for the listening socket `sock`: it is one of the standard library's."""

def accept(
    loop: Core, protocol_factory: Callable[[], Any], sock: Any, server: Any, limit: int, context: Context | None
) -> bool:
    """Accept the connections that wait at `sock`, up to `limit`, and have the transport of each made in the loop.

    Returns False if a connection cannot be accepted, and does not handle the error.  `context`: None, or that of which
    each connection gets a copy.
    """

def serve(
    loop: Core,
    protocol_factory: Callable[[], Any],
    conn: Any,
    server: Any,
    context: Context | None,
    extra: dict[str, Any],
    ends: Any,
) -> None:
    """Make the transport of an accepted connection."""
