"""The hot part of stream transports."""

from collections.abc import Iterable
from contextvars import Context
from typing import Any

from typing_extensions import disjoint_base

from weald.aio.core import Core

@disjoint_base
class OfStream:
    """OfStream(name): an attribute of a transport that its Stream keeps."""

    def __init__(self, name: str) -> None: ...
    def __get__(self, transport: Any, cls: Any = None, /) -> Any: ...
    def __set__(self, transport: Any, value: Any, /) -> None: ...

@disjoint_base
class Stream:
    """Stream(transport, fd): reads and writes for a transport."""

    buffered: bool
    protocol: Any
    buffer: Any
    empty_waiter: Any
    conn_lost: int
    closing: bool
    paused: bool
    eof: bool
    def __init__(self, transport: Any, fd: int) -> None: ...
    def start(self, loop: Core, context: Context | None) -> None:
        """Pass received data to the protocol, in the contextvars.Context `context` (None: a copy of the current)."""
    def release(self) -> None:
        """Drop all references: the connection is over."""
    def is_closing(self) -> bool:
        """Whether the transport is closed or being closed."""
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send `data`, bytes-like; what cannot be sent at once is kept and sent later.

        TypeError for other objects, RuntimeError after `write_eof` and while a file is being sent.
        """
    def writelines(self, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all `pieces`, an iterable of bytes-like objects; what cannot be sent at once is kept and sent later.

        Raises what `write` does.
        """
