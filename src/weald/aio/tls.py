"""asyncio's TLS, with what differs for a callback that blocks.

Called by: weald.aio.transport, for the protocols of connections.
Invariant: an SSLProtocol is one of asyncio's: only its class is changed.
"""

from asyncio import sslproto
from typing import Any

__all__ = ["mended"]


class _TLSProtocol(sslproto.SSLProtocol):
    """asyncio's TLS.  `close` passes on what has been received: after a callback of the connection that is parked."""

    _loop: Any
    _state: Any

    def _do_flush(self) -> None:
        if self._loop._is_busy(self._transport):
            self._loop.call_soon(self._do_flush)  # held until then
        elif self._state is sslproto.SSLProtocolState.FLUSHING:  # not aborted meanwhile
            super()._do_flush()  # type: ignore[misc]

    def _set_app_protocol(self, protocol: Any) -> None:
        super()._set_app_protocol(mended(protocol))


def mended(protocol: Any) -> Any:
    """`protocol`, which a connection is given, as a _TLSProtocol if it is asyncio's own."""
    if type(protocol) is sslproto.SSLProtocol:
        protocol.__class__ = _TLSProtocol
    return protocol
