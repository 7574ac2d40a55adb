"""The parts of a response's head: status lines and fields, checked and encoded; the Date field; reason phrases.

Called by: asgi_parts.pyx, channel.pyx, exchange.pyx, http2_stream.py, weald.serve.config.

Invariants:
- No value returned here can be read as more than one field or line: it has no CR, LF or other control character.
- Values that applications send repeatedly are checked once and remembered, in tables of limited size.
"""

import re
from email.utils import formatdate
from time import time
from typing import Any

from weald.http.protocol import TOKEN

__all__ = [
    "CONNECTION",
    "CONTENT_LENGTH",
    "DATE",
    "REASONS",
    "TRANSFER_ENCODING",
    "date",
    "empty_response",
    "field_name",
    "field_value",
    "names",
    "status_line",
    "statuses",
    "values",
]

REASONS = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}

_is_token = re.compile(TOKEN.decode() + "+").fullmatch
_has_control = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
_has_newline = re.compile(r"[\r\n]").search

# Numbers of the fields that the server acts on; all others have 0.
CONTENT_LENGTH, DATE, CONNECTION, TRANSFER_ENCODING = 1, 2, 3, 4
_NUMBERS = {
    "content-length": CONTENT_LENGTH,
    "date": DATE,
    "connection": CONNECTION,
    "transfer-encoding": TRANSFER_ENCODING,
}

# Values checked before: a status with its line and code; a field's name with its bytes and number; short values.
statuses: dict[str, tuple[bytes, int]] = {}
names: dict[str, tuple[bytes, int]] = {}
values: dict[str, bytes] = {}
_CACHED = 1024


class _Date:
    """The Date field, which is made once a second."""

    def __init__(self) -> None:
        self.start = self.end = 0.0  # seconds since 1970: `field` is right from `start` until `end`
        self.field = (b"Date", b"")

    def at(self, now: float) -> tuple[bytes, bytes]:
        """Return the field for the time `now`, in seconds since 1970."""
        if not self.start <= now < self.end:
            self.start = int(now)
            self.end = self.start + 1
            self.field = (b"Date", formatdate(self.start, usegmt=True).encode())
        return self.field


date = _Date()


def status_line(status: Any) -> tuple[bytes, int]:
    """Return `status` ("200 OK") as bytes, and its code as a number.

    Raises UnicodeError if it is no str, ValueError if it is malformed.
    """
    if not isinstance(status, str):
        raise UnicodeError("The status string must be a native string")
    if _has_control(status):
        kind = "carriage return or newline" if _has_newline(status) else "control character"
        raise ValueError(f"{kind} in status", status)
    if not (status[:3].isascii() and status[:3].isdigit() and status[3:4] in ("", " ")):
        raise ValueError("a status is three digits, a space and a reason", status)
    checked = (status.encode("latin-1"), int(status[:3]))
    if len(statuses) < _CACHED:
        statuses[status] = checked
    return checked


def field_name(name: Any) -> tuple[bytes, int]:
    """Return the name of a response's field as bytes, and its number.

    Raises UnicodeError if it is no str, ValueError if it is malformed.
    """
    if not isinstance(name, str):
        raise UnicodeError("The header must be a native string", name)
    if not _is_token(name):
        what = "carriage return or newline in header name" if _has_newline(name) else "not a header name"
        raise ValueError(what, name)
    checked = (name.encode("latin-1"), _NUMBERS.get(name.lower(), 0))
    if len(names) < _CACHED:
        names[name] = checked
    return checked


def field_value(name: str, value: Any) -> bytes:
    """Return the value of a response's field as bytes; `name` is for the error.

    Raises UnicodeError if it is no str or not Latin-1, ValueError if it has control characters.
    """
    if not isinstance(value, str):
        raise UnicodeError("The value must be a native string", name, value)
    if _has_control(value):
        kind = "carriage return or newline" if _has_newline(value) else "control character"
        raise ValueError(f"{kind} in header value", name, value)
    try:
        encoded = value.encode("latin-1")
    except UnicodeEncodeError:
        raise UnicodeError("Non-latin1 header", name, value) from None
    if len(value) <= 32 and len(values) < _CACHED and name.lower() not in ("set-cookie", "www-authenticate"):
        values[value] = encoded
    return encoded


def empty_response(status: int) -> tuple[str, bytes]:
    """Return a status ("400 Bad Request"), and a whole response of that status without a body: for bad requests."""
    line = f"{status} {REASONS.get(status, 'Error')}"
    now = date.at(time())[1].decode()
    head = f"HTTP/1.1 {line}\r\nDate: {now}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    return line, head.encode()
