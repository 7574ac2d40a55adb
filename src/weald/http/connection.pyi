from collections.abc import Callable
from typing import Any

from weald.http.channel import Http1Channel
from weald.http.exchange import Exchange

class Connection:
    """Serves the requests that come through `channel` with `exchange`.

    `idle` is true while no byte of the next request has come.  `http2_start` is None, or, if `run` has ended because
    the client has begun to speak HTTP/2, the socket, which is still open, and the bytes read so far.
    """

    channel: Http1Channel
    exchange: Exchange | None
    served: int
    idle: bool
    http2_start: tuple[Any, bytes] | None
    def __init__(self, channel: Http1Channel, exchange: Exchange) -> None: ...
    @property
    def socket(self) -> Any:
        """The client's socket; None once the connection has ended."""
    @property
    def go_away(self) -> Callable[[], None] | None:
        """A function that ends an application which has taken the connection over, in its own time; else None."""
    def run(self) -> None:
        """Serve requests until one is the last, and close the socket.

        Running it again does nothing.  Raises the OSError of a connection that failed in an unusual way.
        """
