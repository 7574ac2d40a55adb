from typing import Any

from weald.http.connection import Connection
from weald.http.exchange import Exchange

LOOK: float

class Call:
    """One request as its application sees it: `receive` and `send`."""

    task: Any
    left: bool
    line: str
    def receive(self) -> Any:
        """Return an awaitable of the next event: a piece of the body, or that the client has left."""
    def send(self, message: Any) -> Any:
        """Send what `message` says to the client, and return an awaitable that is done.

        Raises OSError if the client has left, RuntimeError, TypeError or ValueError if the message may not be sent.
        """

class ASGIExchange(Exchange):
    """Exchanges that the ASGI application `server.application` answers.

    `server` also has `loop_of_applications`, `lifespans`, `mounts`, `patience`, `root_path`, `local_of(sock)` and
    `detached`; see asgi_server.py.
    """

    call: Call | None
    def __init__(self, sock: Any, address: Any, server: Any) -> None: ...
    @property
    def http_connection(self) -> Connection | None:
        """The `Connection` whose requests are served here; None for a stream of HTTP/2."""
    def handle(self) -> None:
        """Serve requests until the connection ends, and close the socket."""
