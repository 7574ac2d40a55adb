from typing import Any, Final

from weald.http.channel import Channel
from weald.http.connection import Connection
from weald.http.exchange import Exchange
from weald.http.protocol import ProtocolError, Request
from weald.http.wsgi import WSGIExchange

STEPS: Final[tuple[str, ...]]
ORIGINALS: Final[list[Any]]

class Steps(WSGIExchange):
    """An exchange, and its connection, whose steps may be replaced.

    `sock` is the client's socket, `address` its address; `rfile`, if given, is the connection as a file.
    """

    rfile: Any
    def __init__(self, sock: Any, address: Any, server: Any, rfile: Any = None) -> None: ...
    @property
    def http_connection(self) -> Connection | None:
        """The `Connection` whose requests are served here; None for a stream of HTTP/2."""
    def handle_one_request(self) -> Any:
        """Wait for a request and serve it.

        Returns True if more may follow, None if the connection must end, or (status, response): the response is sent,
        then the connection ends.
        """
    def read_requestline(self) -> Any:
        """Wait for the next request.  Return its first line, "" if there is none.  Raises ValueError for a bad one."""
    def read_request(self, raw_requestline: str) -> bool:
        """Set the attributes that describe the request.  Return False, or raise ValueError, to refuse it."""
    def get_environ(self) -> Any:
        """Return the environment of the request: the server's, and what the request adds."""
    def handle_one_response(self) -> None:
        """Run the application for the request, and log it.  No Exception leaves here."""
    def run_application(self) -> None:
        """Call the application and send what it returns."""
    def process_result(self) -> None:
        """Send what the application has returned (`result`), and the end of the response."""
    def _write_with_headers(self, data: bytes) -> None:
        """Send the head with the first piece of the body."""
    def finalize_headers(self) -> None:
        """Add the fields that the application left to the server, just before the head is sent."""
    def _sendall(self, data: Any) -> None:
        """Send bytes of the response to the socket."""
    def log_request(self) -> None:
        """Write a line to the access log."""

def serve_stream(handler: Exchange, channel: Channel, request: Request) -> None:
    """Serve the one request of a stream of HTTP/2, which `channel` carries, with `handler`."""

def log_refused_stream(handler: Exchange, channel: Channel, error: ProtocolError) -> None:
    """Log a stream of HTTP/2 whose request is refused with `error`, a ProtocolError."""
