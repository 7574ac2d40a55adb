"""The head and the trailers of a request of HTTP/2 (RFC 9113 section 8): its rules beyond those of HTTP/1.

Called by: http2.py, http2_stream.py.

A head that passes the checks here is written in the form of HTTP/1 and checked by protocol.pyx.  So the same fields,
methods and targets are valid in both protocols.

Invariants:
- Nothing is written that could be read as more than one line, field or part of a line.
"""

import re
from collections.abc import Iterable

from weald.http.limits import Limits
from weald.http.protocol import CHUNKED, TOKEN, HeadParser, ProtocolError, Request, judge_trailers

__all__ = ["HOP_BY_HOP", "request_of", "trailers_of"]

# What a response of HTTP/2 has not, and a request neither but for "te: trailers".
HOP_BY_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade"))

_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_good_method = re.compile(TOKEN + b"+").fullmatch
_good_name = re.compile(TOKEN.replace(b"A-Z", b"") + b"+").fullmatch
_good_path = re.compile(rb'/[!"$-~]*').fullmatch
_good_value = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch

_Fields = Iterable[tuple[bytes, bytes]]


def _check_field(name: bytes, value: bytes) -> None:
    """Raise ProtocolError unless sections 8.2.1 and 8.2.2 allow for a field."""
    if not _good_name(name):
        raise ProtocolError(400, "malformed name of a field")
    if not _good_value(value) or value.strip(b" \t") != value:
        raise ProtocolError(400, "control characters in a field, or white space around it")
    if name in HOP_BY_HOP and not (name == b"te" and value.lower() == b"trailers"):
        raise ProtocolError(400, f"a field {name.decode()} in HTTP/2")


def _put_down(fields: _Fields) -> bytes:
    return b"".join(b"%b: %b\r\n" % field for field in fields)


def _split(headers: _Fields) -> tuple[dict[bytes, bytes], list[tuple[bytes, bytes]]]:
    """Return the pseudo-fields, as section 8.3 wants them, and the others, with cookies in one.  Raises ProtocolError.

    Browsers send each cookie in a field of its own; section 8.2.3 has them joined for what is not HTTP/2.
    """
    pseudo: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = []
    cookies: list[bytes] = []
    for name, value in headers:
        name, value = bytes(name), bytes(value)
        if not name.startswith(b":"):
            _check_field(name, value)
            if name != b"cookie":
                fields.append((name, value))
                continue
            if not cookies:
                cookies_at = len(fields)
                fields.append((name, value))
            cookies.append(value)
        elif fields or name in pseudo or name not in _PSEUDO:
            raise ProtocolError(400, "a pseudo-field that is unknown, came twice or is not in front")
        else:
            pseudo[name] = value
    if len(cookies) > 1:
        fields[cookies_at] = (b"cookie", b"; ".join(cookies))
    return pseudo, fields


def _with_host(pseudo: dict[bytes, bytes], fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return `fields` with :authority as Host (section 8.3.1).  Raises ProtocolError."""
    authority = pseudo.get(b":authority")
    if authority is None:
        authority = dict(fields).get(b"host", b"")
    else:
        if any(name == b"host" and value != authority for name, value in fields):
            raise ProtocolError(400, "two hosts")
        if b"host" not in dict(fields):
            fields = [(b"host", authority), *fields]
    if not authority or not _good_value(authority):
        raise ProtocolError(400, "no host")
    return fields


def request_of(parser: HeadParser, headers: _Fields, ended: bool) -> Request:
    """Return the request of a field section, which with `ended` is all of it.

    Raises ProtocolError for a request that is malformed by section 8, or refused in HTTP/1.
    """
    pseudo, fields = _split(headers)
    method, path = pseudo.get(b":method", b""), pseudo.get(b":path", b"")
    if method == b"CONNECT":
        raise ProtocolError(501, "this is no proxy")
    if not _good_method(method):
        raise ProtocolError(400, "malformed method")
    if not _good_path(path) and not (path == b"*" and method == b"OPTIONS"):
        raise ProtocolError(400, "malformed path")
    if pseudo.get(b":scheme", b"").lower() not in (b"http", b"https"):
        raise ProtocolError(400, "neither http nor https")
    request = parser.parse(
        b"%b %b HTTP/1.1\r\n%b\r\n" % (method, path, _put_down(_with_host(pseudo, fields))),
    )
    request.version = "HTTP/2"
    request.line = f"{request.method} {request.target} HTTP/2"
    request.special = True
    if "CONTENT_LENGTH" not in request.fields:
        request.length = 0 if ended else CHUNKED
    elif request.length and ended:
        raise ProtocolError(400, "a content-length without a body")
    request.expect_continue = "HTTP_EXPECT" in request.fields and request.has_body
    return request


def trailers_of(headers: _Fields | None, limits: Limits) -> list[tuple[bytes, bytes]]:
    """Return the trailers of a field section; None: it does not end its stream.  Raises ProtocolError."""
    if headers is None:
        raise ProtocolError(400, "fields in the middle of a body")
    fields = [(bytes(name), bytes(value)) for name, value in headers]
    for name, value in fields:
        _check_field(name, value)
    return judge_trailers(_put_down(fields) + b"\r\n", limits)
