from typing import Any, Final

from weald.http.limits import Limits

_Field = tuple[bytes, bytes]

CHUNKED: Final[int]
SPECIAL: Final[frozenset[str]]
TOKEN: Final[bytes]

class ProtocolError(ValueError):
    preface: bool
    status: int
    def __init__(self, status: int, text: str) -> None: ...

class Request:
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
    def has_body(self) -> bool: ...

class HeadParser:
    limits: Limits
    def __init__(self, limits: Limits) -> None: ...
    def parse(self, head: bytes) -> Request: ...

class RequestStream:
    limits: Limits
    scanned: int
    buffer: bytes
    trailers: list[_Field]
    def __init__(self, parser: HeadParser) -> None: ...
    def feed(self, data: bytes) -> Any: ...
    @property
    def pending(self) -> int: ...
    def rest(self, limit: int | None = None) -> bytes: ...
    def next_request(self) -> Request | None: ...
    def expect(self, length: int) -> Any: ...
    @property
    def in_body(self) -> bool: ...
    @property
    def wanted(self) -> int: ...
    def body(self) -> bytes | None: ...

def cgi_name(name: bytes) -> str | None: ...
def tokens(value: str) -> list[str]: ...
def body_length(length: str | None, coding: str | None, modern: bool) -> int: ...
