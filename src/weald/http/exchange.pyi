from collections.abc import Callable, Iterable
from typing import Any, Final

from weald.http.environ import Headers
from weald.http.limits import Limits
from weald.http.protocol import HeadParser, Request, RequestStream

STEPS: Final[tuple[str, ...]]
ORIGINALS: Final[list[Any]]

class Common:
    parser: HeadParser
    buffer: bytearray
    draining: bool
    served: int
    def __init__(self, limits: Limits) -> None: ...
    def count_in(self, row: Any, edges: Iterable[float]) -> None: ...

class Exchange:
    ApplicationError: Any
    socket: Any
    client_address: Any
    server: Any
    close_connection: bool
    environ: Any
    application: Any
    requestline: str | None
    command: str | None
    path: str | None
    request_version: str | None
    wsgi_input: Any
    time_start: float
    time_finish: float
    status: Any
    code: Any
    response_headers: Any
    provided_date: str | None
    provided_content_length: str | None
    headers_sent: bool
    response_use_chunked: bool
    response_length: int
    result: Any
    _common: Common
    _stream: RequestStream
    _descriptor: Any
    _disconnected: Any
    _remote: tuple[str, str] | None
    _served: int
    _idle: bool
    _linger: bool
    _given_away: bool
    _request: Request | None
    _headers: Headers | None
    _rfile: Any
    _raw: Any
    _continue: bool
    _waited: float
    _received: int
    _left: int | None
    _trailers: list[tuple[str, str]] | None
    _copies_environ: bool
    def _handle_requests(self) -> Any: ...
    def handle_one_request(self) -> Any: ...
    def _next_request(self) -> Request | None: ...
    def read_requestline(self) -> Any: ...
    def read_request(self, raw_requestline: str) -> bool: ...
    def get_environ(self) -> Any: ...
    def handle_one_response(self) -> None: ...
    def run_application(self) -> None: ...
    def process_result(self) -> None: ...
    def _finish(self) -> None: ...
    def log_request(self) -> None: ...
    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]: ...
    def finalize_headers(self) -> None: ...
    def write(self, data: bytes) -> None: ...
    def _head(self, body: bytes = b"") -> bytes: ...
    def _write_with_headers(self, data: bytes) -> None: ...
    def _write(self, data: bytes) -> None: ...
    def _framed(self, data: bytes) -> tuple[bytes, ...]: ...
    def _sendall(self, data: Any) -> None: ...
