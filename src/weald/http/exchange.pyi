from typing import Any, ClassVar

from weald.http.channel import Channel
from weald.http.protocol import Request

class Exchange:
    """Serves requests that come through `channel`, one after the other.

    `server` is asked for `log` and `error_log`, whose `write` takes lines.
    """

    ApplicationError: ClassVar[type[Exception]]
    ignored_socket_errors: ClassVar[tuple[int, ...]]
    server: Any
    client_address: Any
    close_connection: Any
    requestline: Any
    command: Any
    path: Any
    request_version: Any
    time_start: Any
    time_finish: Any
    status: Any
    code: Any
    response_headers: Any
    provided_date: Any
    provided_content_length: Any
    headers_sent: Any
    response_use_chunked: Any
    def __init__(self, channel: Channel, server: Any, client_address: Any) -> None: ...
    @property
    def socket(self) -> Any:
        """The client's socket; None once the connection has ended."""
    @socket.setter
    def socket(self, value: Any) -> None: ...
    @property
    def response_length(self) -> int:
        """How many bytes of the response have been sent, with its head."""
    @response_length.setter
    def response_length(self, value: int) -> None: ...
    @property
    def parsed_request(self) -> Request | None:
        """The `Request` being served; None if what the client sent could not be read as one."""
    def format_request(self) -> str:
        """Return the access log's line, without a newline."""
    def log_error(self, msg: str, *args: Any) -> None:
        """Write `msg % args` to the server's error log."""
    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        """Report that the application, or the server, failed, and answer 500 if nothing was sent yet."""
    def _print_unexpected_exc(self) -> None: ...
    def _error_context(self) -> Any: ...
    def _log_error(self, t: Any, v: Any, tb: Any) -> None: ...
    def _send_error_response_if_possible(self, error_code: int) -> None: ...
    def _handle_client_error(self, error: Exception) -> tuple[str, bytes]: ...
