from typing import Any

from weald.http.disconnected import Disconnected
from weald.http.protocol import RequestStream
from weald.http.state import ServerState

_Fields = list[tuple[bytes, bytes]]

class Channel:
    """How an exchange reaches its client.  The methods that return at once here are abstract."""

    state: ServerState
    socket: Any
    sent: int
    broken: OSError | None
    linger: bool
    awaits_continue: bool
    framed: bool
    body_received: int
    def __init__(self, state: ServerState) -> None: ...
    def body_patience(self) -> float:
        """Return for how many seconds to wait for the next bytes of the body.

        That is `Limits.body_timeout`, but less if the body has been slower than `body_rate` for `body_grace` seconds.
        """
    def body_came(self, size: int, seconds: float) -> Any:
        """Note that `size` bytes of the body have come after `seconds` seconds."""
    def read_body(self, invite: bool, size: int) -> bytes:
        """Return the next piece of the body, b"" at its end.

        `invite`: if the client waits for it, send "100 Continue" first.  Raises InvalidClientInput if the bytes are not
        a body, or come too slowly, and ConnectionResetError if the client leaves.
        """
    def discard_body(self, length: int) -> bool:
        """Read what is left of the body, of `length` bytes.  Return False if the client may not be read from after it.

        Raises what `read_body` raises.
        """
    def body_is_over(self) -> bool:
        """Return whether it is known that nothing more of the body comes."""
    def request_trailers(self) -> _Fields:
        """Return the fields that came behind the body: a list of (name, value), bytes."""
    def watch_client(self) -> Disconnected:
        """Return the `Disconnected` that tells whether the client has left."""
    def send_interim(self, status: bytes, code: int, fields: _Fields) -> Any:
        """Send a head of its own in front of the response (RFC 9110 section 15.2); the arguments are `send_head`'s."""
    def send_head(self, status: bytes, code: int, fields: _Fields, data: Any, chunked: bool, last: bool) -> Any:
        """Send the head of the response and the first piece of its body, which may be empty.

        `status` is the line's "200 OK", `code` its number, `fields` a list of (name, value), bytes.  With `chunked` the
        body goes out in chunks.  `last`: nothing follows this piece.
        """
    def send_data(self, data: Any, chunked: bool, last: bool) -> Any:
        """Send a further piece of the body, as in `send_head`."""
    def send_end(self, trailers: list[tuple[str, str]] | None, chunked: bool) -> Any:
        """Send what ends the response, and `trailers`: a list of (name, value), strs, or None."""
    def can_send_files(self) -> bool:
        """Return whether `send_file` may be called."""
    def send_file(self, status: bytes, fields: _Fields, fd: int, offset: int, count: int) -> int:
        """Send a head, then `count` bytes of the file `fd` from `offset` on.

        Returns how many bytes of the file were sent: fewer if the file has become shorter meanwhile.
        """

class Http1Channel(Channel):
    """HTTP/1.1 over the socket `sock`, which with `tls` is a TLS socket."""

    stream: RequestStream
    descriptor: Any
    tls: bool
    def __init__(self, sock: Any, state: ServerState, tls: bool) -> None: ...
    def close(self) -> None:
        """End the connection in order and close the socket.  Closing again does nothing."""
