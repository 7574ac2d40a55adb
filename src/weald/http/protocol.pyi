from typing import Any, Final

from weald.http.limits import Limits

_Field = tuple[bytes, bytes]

CHUNKED: Final[int]
SPECIAL: Final[frozenset[str]]
TOKEN: Final[bytes]

class ProtocolError(ValueError):
    """The client broke the protocol or a limit: answer with `status`, and close the connection.

    `preface`: the client has begun to speak HTTP/2.
    """

    preface: bool
    status: int
    def __init__(self, status: int, text: str) -> None: ...

class Request:
    """The head of a request.

    `line` is its first line, of `method`, `target` and `version`; `raw` its fields as they came; `fields` those by
    their CGI names, repeated ones joined.  `length` is the number of bytes of the body, or CHUNKED.  `special`: its
    fields may ask for trailers, another protocol, or "100 Continue" (`expect_continue`).  `keep_alive`: another request
    may follow.
    """

    line: str
    method: str
    target: str
    version: str
    raw: list[_Field]
    fields: dict[str, str]
    special: bool
    length: int
    keep_alive: bool
    expect_continue: bool
    @property
    def has_body(self) -> bool:
        """Whether a body follows the head."""

class HeadParser:
    """Turns complete heads into requests.  The connections of one thread may share it."""

    limits: Limits
    def __init__(self, limits: Limits) -> None: ...
    def parse(self, head: bytes) -> Request:
        """Return the request of `head`, which ends with its empty line.  Raises ProtocolError."""

class RequestStream:
    """The requests of one connection: `feed` received bytes, call `next_request`, then `body` until that is None.

    After a ProtocolError, or a change of the protocol, only `rest` may be called.
    """

    limits: Limits
    scanned: int
    buffer: bytes
    trailers: list[_Field]
    def __init__(self, parser: HeadParser) -> None: ...
    def feed(self, data: bytes) -> Any:
        """Add received `data`."""
    @property
    def pending(self) -> int:
        """How many bytes are unread."""
    def rest(self, limit: int | None = None) -> bytes:
        """Return the unread bytes, `limit` at most: another protocol reads the connection from now on."""
    def next_request(self) -> Request | None:
        """Return the next request, None if more bytes are needed.  Raises ProtocolError."""
    def expect(self, length: int) -> Any:
        """Declare that a body of `length` bytes, or CHUNKED, follows."""
    @property
    def wanted(self) -> int:
        """How many bytes of content are certain to come; 0 if a line is next."""
    def body(self) -> bytes | None:
        """Return the next piece of the body; b"" if more bytes are needed, None at its end.  Raises ProtocolError."""

def cgi_name(name: bytes) -> str | None:
    """Return a field's CGI name ("HTTP_X_REAL_IP"), None for a field that an application must not see."""

def is_authority(text: str) -> bool:
    """Return whether `text` may be the value of Host, or the authority of a target: a host, and maybe a port."""

def judge_trailers(section: bytes, limits: Limits) -> list[_Field]:
    """Return the fields of a trailer section with its empty line (RFC 9110 section 6.5).  Raises ProtocolError."""

def tokens(value: str) -> list[str]:
    """Return the members of a comma-separated field value, in lower case (RFC 9110 section 5.6.1)."""
