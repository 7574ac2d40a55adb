"""Transports of connected stream sockets."""

import asyncio
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
    ) -> None: ...
