"""HTTP/1.1 requests without I/O: bytes in, requests and pieces of bodies out.

Called by: handler.py; compat/_pywsgi.py.

`HeadParser` turns one complete head into a `Request`; it keeps nothing between two heads, so one serves all
connections of a server.  `RequestStream` is one connection's side: `feed` it what came, ask it for the `next_request`,
then for that one's `body` until that ends.

Invariants:
- A head is handed to llhttp (through httptools) only when it is complete and has matched the grammar of RFC 9112 as
  a whole.  llhttp by itself lets pass: empty lines and bare LF in front of a request line, further spaces in it,
  other protocols and versions, unknown transfer codings, any number of Host fields, bodies of any length.
- Nothing is repaired.  What two implementations could read in two ways is an error, and after an error
  a stream gives nothing more: bytes behind a bad message are never read as a request.
- Chunks are taken apart here, as httptools does not tell where in its input a message ended.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from weald.http.limits import Limits

try:
    import httptools
except ModuleNotFoundError as error:
    if error.name != "httptools":
        raise
    raise ModuleNotFoundError(
        "weald's HTTP server needs httptools: pip install 'weald[http]'", name="httptools"
    ) from None

__all__ = ["HeadParser", "ProtocolError", "Request", "RequestStream", "cgi_name", "tokens"]

_Field = tuple[bytes, bytes]

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 section 5.6.2
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 section 5.5: field-vchar, SP, HTAB; obs-text
_FIELD = TOKEN + rb"++:" + _TEXT + rb"*+\r\n"
# RFC 9112 section 2.1: no white space before the first field, none before a colon, no obs-fold, CRLF only.
_head: Callable[[str], "re.Match[str] | None"] = re.compile(
    (rb"(%b++) ([!-~]++) (HTTP/1\.[01])\r\n(?:%b)*+\r\n" % (TOKEN, _FIELD)).decode("latin-1")
).fullmatch
_line = re.compile(rb"%b++ [!-~]++ HTTP/1\.[01]\r\n" % TOKEN).fullmatch
_PREFACE_LINE = b"PRI * HTTP/2.0\r\n"  # RFC 9113 section 3.4
_any_version = re.compile(rb"%b++ [!-~]++ HTTP/[0-9]\.[0-9]\r\n" % TOKEN).match
# What makes an incomplete head hopeless: a bare LF or CR, NUL, other control bytes.
_hopeless = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_trailers = re.compile(rb"(?:%b)*+\r\n" % _FIELD).fullmatch
# RFC 9112 section 7.1; sixteen digits are 64 bits.
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_chunk_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*%b+(?:[ \t]*=[ \t]*(?:%b+|%b))?)*\r\n" % (TOKEN, TOKEN, _QUOTED)
).fullmatch
# RFC 3986 section 3.2.2 and 3.2.3: what Host and the authority of a target may be.
_authority = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?").fullmatch
_absolute = re.compile(r"https?://([^/?#]+)((?:[/?][^#]*)?)", re.IGNORECASE).fullmatch

# Framing, routing and the like: RFC 9110 section 6.5.1 forbids them in trailers.
_NOT_IN_TRAILERS = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type cookie expect "
    b"host if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive max-forwards pragma "
    b"proxy-authorization proxy-connection range set-cookie te trailer transfer-encoding upgrade".split()
)
# These decide about framing and routing: twice, they could be read in two ways.
_ONCE = frozenset(("CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT"))

# These change how the connection goes on; most requests have none of them.
SPECIAL: Final = frozenset(
    ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_UPGRADE", "HTTP_TE")
)

_is_plain = SPECIAL.isdisjoint

CHUNKED: Final = -1  # Request.length of a body whose length is not known beforehand


class ProtocolError(ValueError):
    """The client broke the protocol or a limit: answer `status` (an int) and close."""

    preface = False  # did the client begin to speak HTTP/2?

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request:
    """One request's head.  The class's values are the usual request's."""

    line: str  # method, target and version
    method: str
    target: str  # origin form, or "*"
    version: str  # "HTTP/1.1" or "HTTP/1.0"
    raw: list[_Field]  # the fields as they came
    fields: dict[str, str]  # the same by their CGI names (RFC 3875 section 4.1.18), repeated ones joined
    special: bool = False  # has it any of the fields in SPECIAL?
    length: int = 0  # bytes of body, or CHUNKED
    keep_alive: bool = True  # may another request follow?
    expect_continue: bool = False  # does the client wait for 100 Continue?

    @property
    def has_body(self) -> bool:
        return self.length != 0


def cgi_name(name: bytes) -> str | None:
    """`X-Real-IP` to `HTTP_X_REAL_IP`; None for a field that an application must not see.

    Those are names with an underscore, which could pass for the one with a dash that a proxy vouches for, and
    Proxy, which would become what many programs take for the address of their proxy.
    """
    if b"_" in name:
        return None
    key = name.decode("ascii").upper().replace("-", "_")
    if key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        return key
    return None if key == "PROXY" else "HTTP_" + key


# The usual spellings, so that the usual field costs one look-up.  Nothing is added to it at run time.
_COMMON = (
    "Accept Accept-Charset Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Encoding "
    "Content-Length Content-Type Cookie DNT Date Expect Forwarded Host If-Match If-Modified-Since If-None-Match "
    "If-Range If-Unmodified-Since Keep-Alive Origin Pragma Priority Range Referer Sec-Fetch-Dest "
    "Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform TE Trailer "
    "Transfer-Encoding Upgrade "
    "Upgrade-Insecure-Requests User-Agent Via X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto "
    "X-Real-IP X-Request-ID X-Requested-With traceparent tracestate"
).split()
_NAMES: Final[dict[bytes, str]] = {
    spelling.encode(): name
    for common in _COMMON
    if (name := cgi_name(common.encode()))
    for spelling in (common, common.lower())
}


def tokens(value: str) -> list[str]:
    """The members of a comma-separated field value, in lower case (RFC 9110 section 5.6.1)."""
    return [member for part in value.lower().split(",") if (member := part.strip(" \t"))]


class HeadParser:
    """Turns complete heads into requests.  May be shared by any number of connections of one thread."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._raw: list[_Field] = []
        self._http: Any = None  # one that waits for a head
        self._good_host = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools calls it for each field."""
        self._raw.append((name, value))

    def parse(self, head: bytes) -> Request:
        """The request of `head`, which ends with its empty line.  Raises ProtocolError."""
        text = head.decode("latin-1")
        matched = _head(text)
        if matched is None:
            raise self.refusal(head)
        request = Request()
        request.method, request.target, request.version = matched.groups()
        request.line = line = text[: matched.end(3)]
        if len(line) > self.limits.request_line:
            raise self.refusal(head)
        self._raw = request.raw = []
        try:
            (self._http or self._new()).feed_data(head)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            request.raw = self._split_anew(head)
        fields: dict[str, str] = {}
        request.fields = fields
        dropped = False
        try:
            for name, value in request.raw:
                key = _NAMES.get(name) or cgi_name(name)
                if key is None:
                    dropped = True
                elif key in fields:
                    fields[key] = _joined(key, fields[key], value)
                else:
                    fields[key] = value.decode("latin-1").rstrip(" \t")
            if len(request.raw) > self.limits.fields:
                raise ProtocolError(431, f"more than {self.limits.fields} fields")
            if dropped:
                _refuse_collisions(request)
            host = fields.get("HTTP_HOST")
            if host != self._good_host:
                if host is None:
                    if request.version == "HTTP/1.1":  # RFC 9112 section 3.2
                        raise ProtocolError(400, "no Host field")
                elif not _authority(host):
                    raise ProtocolError(400, "malformed Host field")
                else:
                    self._good_host = host
            if request.target[0] != "/":
                _judge_target(request)
            if request.version == "HTTP/1.0" or not _is_plain(fields):
                self._judge(request)
        except ProtocolError:
            self._http = None  # it may be waiting for the refused request's body
            raise
        return request

    def _new(self) -> Any:
        self._http = http = httptools.HttpRequestParser(self)
        return http

    def _split_anew(self, head: bytes) -> list[_Field]:
        """llhttp did not just take `head`: its fields, or ProtocolError.

        A parser may think that the connection it last served has ended, which says nothing about this one.
        """
        self._raw = []
        try:
            self._new().feed_data(head)
        except httptools.HttpParserUpgrade:
            self._http = None  # it would take what follows for another protocol
        except httptools.HttpParserInvalidMethodError:
            self._http = None
            # RFC 9110 section 9.1: 501 for a method nobody here knows.
            raise ProtocolError(501, "unknown method") from None
        except httptools.HttpParserError as error:
            self._http = None
            self._judge_framing(head)  # our own rules give the more exact status
            raise ProtocolError(400, str(error)) from None
        return self._raw

    def _judge(self, request: Request) -> None:
        """Set what follows from the special fields; raises ProtocolError where RFC 9110 and 9112 want that."""
        fields = request.fields
        request.special = True
        modern = request.version == "HTTP/1.1"
        length, coding = fields.get("CONTENT_LENGTH"), fields.get("HTTP_TRANSFER_ENCODING")
        if length is not None or coding is not None:
            request.length = body_length(length, coding, modern)
            if request.length > self.limits.body:
                raise ProtocolError(413, f"a body of {request.length} bytes, more than {self.limits.body}")
        request.keep_alive = modern
        connection = fields.get("HTTP_CONNECTION")
        if connection is not None:  # RFC 9112 section 9.3
            options = tokens(connection)
            request.keep_alive = "close" not in options and (modern or "keep-alive" in options)
        expect = fields.get("HTTP_EXPECT")
        if expect is not None and modern:  # RFC 9110 section 10.1.1
            if expect.lower() != "100-continue":
                raise ProtocolError(417, "unknown expectation")
            request.expect_continue = request.length != 0
        if request.length or not request.keep_alive:
            self._http = None  # it waits for the body, or for nothing any more

    def _judge_framing(self, head: bytes) -> None:
        """For a head that llhttp refused: raise what our rules say of its framing fields, if they mind them."""
        length = coding = None
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            key = cgi_name(name)
            text = value.decode("latin-1").strip(" \t")
            if key == "CONTENT_LENGTH":
                length = text if length is None else _joined(key, length, value)
            elif key == "HTTP_TRANSFER_ENCODING":
                coding = text if coding is None else _joined(key, coding, value)
        if length is not None or coding is not None:
            body_length(length, coding, head.partition(b"\r\n")[0].endswith(b"1.1"))

    def refusal(self, head: bytes) -> ProtocolError:
        """Why `head` is no head."""
        line = head.partition(b"\r\n")[0]
        if head == b"PRI * HTTP/2.0\r\n\r\n":  # RFC 9113 section 3.4
            error = ProtocolError(505, "HTTP/2 is not spoken here")
            error.preface = True
            return error
        if len(line) > self.limits.request_line:
            return ProtocolError(414, "the request line is too long")
        if _any_version(head) and not line.endswith((b"HTTP/1.1", b"HTTP/1.0")):
            return ProtocolError(505, "not HTTP/1.0 or 1.1")  # RFC 9110 section 15.6.6
        return ProtocolError(400, "malformed head")


def _joined(key: str, first: str, value: bytes) -> str:
    """The value of a field that came again (RFC 9110 section 5.3)."""
    if key in _ONCE:
        raise ProtocolError(400, f"{key.removeprefix('HTTP_')} came twice")
    # Cookie2 is long gone; gevent's programs may know it.
    return first + ("; " if key in ("HTTP_COOKIE", "HTTP_COOKIE2") else ", ") + value.decode("latin-1").strip(" \t")


def _refuse_collisions(request: Request) -> None:
    """Fields with an underscore are not shown to applications; one that stands in for another is an attack."""
    for name, _ in request.raw:
        if b"_" in name:
            other = name.replace(b"_", b"-")
            key = cgi_name(other)
            if key in request.fields or key in _ONCE or other.lower() in _NOT_IN_TRAILERS:
                raise ProtocolError(400, f"a field {name.decode()} in place of {other.decode()}")


def _judge_target(request: Request) -> None:
    """RFC 9112 section 3.2: a target in absolute or asterisk form."""
    if request.method == "CONNECT":
        raise ProtocolError(501, "this is no proxy")
    if request.target == "*" and request.method == "OPTIONS":
        return
    absolute = _absolute(request.target)
    if absolute is None or not _authority(absolute[1]):
        raise ProtocolError(400, "malformed request target")
    # Section 3.2.2: the target's authority counts, whatever Host says.
    request.fields["HTTP_HOST"] = absolute[1]
    rest = absolute[2]
    request.target = rest if rest.startswith("/") else "/" + rest


def body_length(length: str | None, coding: str | None, modern: bool) -> int:
    """The length of a body with these Content-Length and Transfer-Encoding values (RFC 9112 section 6)."""
    if coding is None:
        assert length is not None
        # 18 digits are less than 2**63.
        if not (length.isascii() and length.isdigit() and len(length) <= 18):
            raise ProtocolError(400, "malformed Content-Length")
        return int(length)
    if length is not None:  # section 6.1: how requests are smuggled
        raise ProtocolError(400, "both Transfer-Encoding and Content-Length")
    if not modern:  # section 6.1
        raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
    codings = tokens(coding)
    if not codings or codings[-1] != "chunked" or codings.count("chunked") != 1:  # section 6.3
        raise ProtocolError(400, "a transfer coding whose end cannot be told")
    if len(codings) > 1:  # section 6.1
        raise ProtocolError(501, "unknown transfer coding")
    return CHUNKED


class RequestStream:
    """One connection: `feed`, then `next_request`, then `body` until it returns None, then the next request.

    After a ProtocolError, and when the connection changes its protocol, it must not be used any more; `rest` then
    is what nobody has read.
    """

    __slots__ = (
        "_buffer",
        "_excess",
        "_left",
        "_parser",
        "_read",
        "_scanned",
        "_start",
        "_state",
        "limits",
        "trailers",
    )

    _state: "Callable[[RequestStream], bytes | None] | None"

    def __init__(self, parser: HeadParser) -> None:
        self._parser = parser
        self.limits = parser.limits
        self._buffer = b""
        self._start = 0  # where in the buffer the unread begins
        self._state = None  # how to get the next piece of the body; None: there is no more of it
        self._left = 0  # bytes of the body, or of the chunk
        self._read = 0  # bytes of the body so far
        self._excess = 0  # bytes of chunk lines beyond what the chunks they announced excuse
        self._scanned = 0  # up to where an incomplete head has been looked at: dribbled bytes are looked at once
        self.trailers: list[_Field] = []

    def feed(self, data: bytes) -> None:
        if self._start == len(self._buffer):
            self._buffer = data
            self._scanned = 0
        else:
            self._buffer = self._buffer[self._start :] + data
            self._scanned = max(self._scanned - self._start, 0)
        self._start = 0

    @property
    def pending(self) -> int:
        """How many bytes are unread."""
        return len(self._buffer) - self._start

    def rest(self, limit: int | None = None) -> bytes:
        """Take what is unread (`limit` bytes at most), for whoever reads the connection from now on."""
        return self._take(self.pending if limit is None else limit)

    def next_request(self) -> Request | None:
        """The next request's head, None if more bytes are needed.  Raises ProtocolError."""
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\r\n\r\n", self._scanned - 3 if self._scanned > start + 3 else start) + 4
        if end == 3:
            if start < len(buffer):
                self._check_incomplete()
            return None
        self._scanned = 0
        if buffer[start] == 13:  # RFC 9112 section 2.2: one empty line in front is forgiven
            self._start = start + 2
            return self._next_after_empty_line()
        if end - start > self.limits.head:
            raise self._too_large()
        if end == len(buffer):
            # Nothing of it is kept while the connection waits for the next.
            self._buffer, self._start = b"", 0
            request = self._parser.parse(buffer[start:] if start else buffer)
        else:
            self._start = end
            request = self._parser.parse(buffer[start:end])
        if request.length:
            self.expect(request.length)
        return request

    def expect(self, length: int) -> None:
        """What follows is a body of `length` bytes, or CHUNKED."""
        self._read = self._excess = 0
        self.trailers = []
        self._left = max(length, 0)
        self._state = None if not length else RequestStream._known if length > 0 else RequestStream._chunk_size

    def _next_after_empty_line(self) -> Request | None:
        if self._buffer.startswith(b"\r", self._start) or self._buffer[self._start - 1] != 10:
            raise ProtocolError(400, "empty lines")
        return self.next_request()

    def _check_incomplete(self) -> None:
        """Refuse what cannot become a head, so that nobody waits for its end."""
        start = self._start
        if len(self._buffer) - start > self.limits.head:
            raise self._too_large()
        if _hopeless(self._buffer, max(start, self._scanned - 1)):
            raise ProtocolError(400, "malformed head")
        scanned, self._scanned = self._scanned, len(self._buffer)
        begin = start + 2 if self._buffer.startswith(b"\r\n", start) else start
        end = self._buffer.find(b"\r\n", begin, begin + self.limits.request_line + 2) + 2
        if end > max(scanned, 1) and not _line(line := self._buffer[begin:end]) and line != _PREFACE_LINE:
            raise self._parser.refusal(line + b"\r\n")  # whatever may follow
        if (
            self._buffer.find(b"\r\n", start + 2, start + self.limits.request_line + 4) < 0
            and len(self._buffer) - start > self.limits.request_line + 2
        ):
            raise ProtocolError(414, "the request line is too long")

    def _too_large(self) -> ProtocolError:
        line = self._buffer.find(b"\r\n", self._start + 2) - self._start
        if not 0 <= line <= self.limits.request_line:
            return ProtocolError(414, "the request line is too long")
        return ProtocolError(431, f"a head of more than {self.limits.head} bytes")

    # ---------------------------------------------------------------- bodies

    @property
    def in_body(self) -> bool:
        """Is some of the body unread?"""
        return self._state is not None

    @property
    def wanted(self) -> int:
        """How many bytes of content are to come for certain; 0 where a line is next."""
        return self._left if self._state in (RequestStream._known, RequestStream._chunk_data) else 0

    def body(self) -> bytes | None:
        """The next piece of the body; b"" if more bytes are needed, None at its end.  Raises ProtocolError."""
        while self._state is not None:
            piece = self._state(self)
            if piece is not None:
                return piece
        return None

    def _known(self) -> bytes | None:
        piece = self._take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._state = None
        return piece

    def _take(self, limit: int) -> bytes:
        """Up to `limit` bytes of the buffer."""
        buffer, start = self._buffer, self._start
        if len(buffer) - start <= limit:
            self._buffer, self._start = b"", 0
            return buffer[start:] if start else buffer
        self._start = start + limit
        return buffer[start : self._start]

    def _line(self, limit: int) -> bytes:
        """A line with its CRLF, b"" if more bytes are needed."""
        buffer, start = self._buffer, self._start
        end = buffer.find(b"\n", start, start + limit)
        if end < 0:
            if len(buffer) - start >= limit:
                raise ProtocolError(400, "a line that is too long")
            return b""
        self._start = end + 1
        return buffer[start : end + 1]

    def _chunk_size(self) -> bytes | None:
        line = self._line(self.limits.chunk_line)
        if not line:
            if self.pending and _hopeless(self._buffer, self._start):
                raise ProtocolError(400, "malformed chunk")
            return b""
        matched = _chunk_line(line)
        if matched is None:
            raise ProtocolError(400, "malformed chunk")
        self._left = size = int(matched[1], 16)
        # Lines of many times the size of their chunks are there to keep us busy.
        self._excess = max(self._excess + len(line) - 16 - 2 * size, 0)
        if self._excess > 16384:
            raise ProtocolError(400, "chunk extensions without end")
        if not size:
            self._state = RequestStream._trailer_section
            return None
        self._read += size
        if self._read > self.limits.body:
            raise ProtocolError(413, f"a body of more than {self.limits.body} bytes")
        self._state = RequestStream._chunk_data
        return None

    def _chunk_data(self) -> bytes | None:
        piece = self._take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._state = RequestStream._chunk_end
        return piece

    def _chunk_end(self) -> bytes | None:
        buffer, start = self._buffer, self._start
        if not buffer.startswith(b"\r\n", start):
            if b"\r\n".startswith(buffer[start:]):  # it holds one byte of them at most
                return b""
            raise ProtocolError(400, "a chunk longer than it says")
        self._start = start + 2
        self._state = RequestStream._chunk_size
        return None

    def _trailer_section(self) -> bytes | None:
        """RFC 9112 section 7.1.2: the trailers and the empty line that ends the message."""
        buffer, start, limit = self._buffer, self._start, self.limits.trailers
        end = start + 2 if buffer.startswith(b"\r\n", start) else buffer.find(b"\r\n\r\n", start) + 4
        if end == 3:
            if len(buffer) - start > limit:
                raise ProtocolError(431, f"trailers of more than {limit} bytes")
            if _hopeless(buffer, start):
                raise ProtocolError(400, "malformed trailers")
            return b""
        if end - start > limit:
            raise ProtocolError(431, f"trailers of more than {limit} bytes")
        section = buffer[start:end]
        if not _trailers(section):
            raise ProtocolError(400, "malformed trailers")
        lines = section.split(b"\r\n")[:-2]
        if len(lines) > self.limits.fields:
            raise ProtocolError(431, f"more than {self.limits.fields} trailers")
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower().replace(b"_", b"-") in _NOT_IN_TRAILERS:
                raise ProtocolError(400, f"{name.decode()} in trailers")
            self.trailers.append((name, value.strip(b" \t")))
        self._start = end
        self._state = None
        return None
