"""HTTP/1.1 requests without I/O, compiled: bytes in, requests and pieces of bodies out.

Called by: exchange.pyx, handler.py, http2.py, compat/_pywsgi.py.

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

from cpython.unicode cimport PyUnicode_DecodeLatin1

import re
from importlib import import_module

try:
    httptools = import_module("httptools")
except ModuleNotFoundError as error:
    if error.name != "httptools":
        raise
    raise ModuleNotFoundError(
        "weald's HTTP server needs httptools: pip install 'weald[http]'", name="httptools"
    ) from None

__all__ = ["HeadParser", "ProtocolError", "Request", "RequestStream", "cgi_name", "tokens"]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 section 5.6.2
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 section 5.5: field-vchar, SP, HTAB; obs-text
_FIELD = TOKEN + rb"++:" + _TEXT + rb"*+\r\n"
# RFC 9112 section 2.1: no white space before the first field, none before a colon, no obs-fold, CRLF only.
_head = re.compile(
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
SPECIAL = frozenset(
    ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_UPGRADE", "HTTP_TE")
)

_is_plain = SPECIAL.isdisjoint

CHUNKED = -1  # Request.length of a body whose length is not known beforehand


class ProtocolError(ValueError):
    """The client broke the protocol or a limit: answer `status` (an int) and close."""

    preface = False  # did the client begin to speak HTTP/2?

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


cdef class Request:
    """One request's head."""

    def __cinit__(self):
        self.length = 0
        self.keep_alive = True

    @property
    def has_body(self):
        return self.length != 0


cdef inline str latin1(bytes value):
    return PyUnicode_DecodeLatin1(value, len(value), NULL)


def cgi_name(bytes name):
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
_NAMES = {
    spelling.encode(): name
    for common in _COMMON
    if (name := cgi_name(common.encode()))
    for spelling in (common, common.lower())
}


def tokens(str value):
    """The members of a comma-separated field value, in lower case (RFC 9110 section 5.6.1)."""
    return [member for part in value.lower().split(",") if (member := part.strip(" \t"))]


cdef class HeadParser:
    """HeadParser(limits): turns complete heads into requests.

    May be shared by any number of connections of one thread.
    """

    def __init__(self, limits):
        self.limits = limits
        self.longest_line = limits.request_line
        self.longest_head = limits.head
        self.most_fields = limits.fields
        self.good_host = ""

    def on_header(self, bytes name, bytes value):
        """httptools calls it for each field."""
        self.fields.append((name, value))

    cpdef Request parse(self, bytes head):
        """The request of `head`, which ends with its empty line.  Raises ProtocolError."""
        cdef Request request
        cdef dict fields
        cdef bint dropped = False
        cdef Py_ssize_t end
        cdef str text = latin1(head)
        matched = _head(text)
        if matched is None:
            raise self.refusal(head)
        request = Request.__new__(Request)
        method, target, version = matched.groups()
        request.method, request.target, request.version = method, target, version
        end = len(<str>method) + len(<str>target) + len(<str>version) + 2
        request.line = text[:end]
        if end > self.longest_line:
            raise self.refusal(head)
        self.fields = request.raw = []
        try:
            (self.http or self.new()).feed_data(head)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            request.raw = self.split_anew(head)
        request.fields = fields = {}
        try:
            for name, value in request.raw:
                key = _NAMES.get(name) or cgi_name(name)
                if key is None:
                    dropped = True
                elif key in fields:
                    fields[key] = _joined(key, fields[key], value)
                else:
                    fields[key] = latin1(value).rstrip(" \t")
            if len(request.raw) > self.most_fields:
                raise ProtocolError(431, f"more than {self.limits.fields} fields")
            if dropped:
                _refuse_collisions(request)
            host = fields.get("HTTP_HOST")
            if host != self.good_host:
                if host is None:
                    if request.version == "HTTP/1.1":  # RFC 9112 section 3.2
                        raise ProtocolError(400, "no Host field")
                elif not _authority(host):
                    raise ProtocolError(400, "malformed Host field")
                else:
                    self.good_host = host
            if request.target[0] != "/":
                _judge_target(request)
            if request.version == "HTTP/1.0" or not _is_plain(fields):
                self.judge(request)
        except ProtocolError:
            self.http = None  # it may be waiting for the refused request's body
            raise
        return request

    cdef object new(self):
        self.http = http = httptools.HttpRequestParser(self)
        return http

    cdef list split_anew(self, bytes head):
        """llhttp did not just take `head`: its fields, or ProtocolError.

        A parser may think that the connection it last served has ended, which says nothing about this one.
        """
        self.fields = []
        try:
            self.new().feed_data(head)
        except httptools.HttpParserUpgrade:
            self.http = None  # it would take what follows for another protocol
        except httptools.HttpParserInvalidMethodError:
            self.http = None
            # RFC 9110 section 9.1: 501 for a method nobody here knows.
            raise ProtocolError(501, "unknown method") from None
        except httptools.HttpParserError as error:
            self.http = None
            self.judge_framing(head)  # our own rules give the more exact status
            raise ProtocolError(400, str(error)) from None
        return self.fields

    cdef int judge(self, Request request) except -1:
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
            self.http = None  # it waits for the body, or for nothing any more

    cdef int judge_framing(self, bytes head) except -1:
        """For a head that llhttp refused: raise what our rules say of its framing fields, if they mind them."""
        length = coding = None
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            key = cgi_name(name)
            text = latin1(value).strip(" \t")
            if key == "CONTENT_LENGTH":
                length = text if length is None else _joined(key, length, value)
            elif key == "HTTP_TRANSFER_ENCODING":
                coding = text if coding is None else _joined(key, coding, value)
        if length is not None or coding is not None:
            body_length(length, coding, head.partition(b"\r\n")[0].endswith(b"1.1"))

    cdef object refusal(self, bytes head):
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


def _joined(key, first, bytes value):
    """The value of a field that came again (RFC 9110 section 5.3)."""
    if key in _ONCE:
        raise ProtocolError(400, f"{key.removeprefix('HTTP_')} came twice")
    # Cookie2 is long gone; gevent's programs may know it.
    return first + ("; " if key in ("HTTP_COOKIE", "HTTP_COOKIE2") else ", ") + latin1(value).strip(" \t")


def _refuse_collisions(Request request):
    """Fields with an underscore are not shown to applications; one that stands in for another is an attack."""
    for name, _ in request.raw:
        if b"_" in name:
            other = name.replace(b"_", b"-")
            key = cgi_name(other)
            if key in request.fields or key in _ONCE or other.lower() in _NOT_IN_TRAILERS:
                raise ProtocolError(400, f"a field {name.decode()} in place of {other.decode()}")


def _judge_target(Request request):
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


def body_length(length, coding, modern):
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


cdef class RequestStream:
    """RequestStream(parser): one connection's side.

    `feed`, then `next_request`, then `body` until it returns None, then the next request.  After a ProtocolError, and
    when the connection changes its protocol, it must not be used any more; `rest` then is what nobody has read.
    """

    def __init__(self, HeadParser parser):
        self.parser = parser
        self.limits = parser.limits
        self.buffer = b""
        self.state = NO_BODY
        self.left = self.seen = self.excess = 0
        self.trailers = []

    cpdef int feed(self, bytes data) except -1:
        if self.start == len(self.buffer):
            self.buffer = data
            self.scanned = 0
        else:
            self.buffer = self.buffer[self.start :] + data
            self.scanned = max(self.scanned - self.start, 0)
        self.start = 0

    cdef Py_ssize_t unread(self):
        return len(self.buffer) - self.start

    @property
    def pending(self):
        """How many bytes are unread."""
        return self.unread()

    def rest(self, limit=None):
        """Take what is unread (`limit` bytes at most), for whoever reads the connection from now on."""
        return self.take(self.pending if limit is None else limit)

    cpdef Request next_request(self):
        """The next request's head, None if more bytes are needed.  Raises ProtocolError."""
        cdef bytes buffer = self.buffer
        cdef Py_ssize_t start = self.start
        cdef Py_ssize_t end = buffer.find(b"\r\n\r\n", self.scanned - 3 if self.scanned > start + 3 else start) + 4
        cdef Request request
        if end == 3:
            if start < len(buffer):
                self.check_incomplete()
            return None
        self.scanned = 0
        if buffer[start] == 13:  # RFC 9112 section 2.2: one empty line in front is forgiven
            self.start = start + 2
            return self.after_empty_line()
        if end - start > self.parser.longest_head:
            raise self.too_large()
        if end == len(buffer):
            # Nothing of it is kept while the connection waits for the next.
            self.buffer, self.start = b"", 0
            request = self.parser.parse(buffer[start:] if start else buffer)
        else:
            self.start = end
            request = self.parser.parse(buffer[start:end])
        if request.length:
            self.expect(request.length)
        return request

    cpdef int expect(self, length) except -1:
        """What follows is a body of `length` bytes, or CHUNKED."""
        self.seen = self.excess = 0
        self.trailers = []
        self.left = max(length, 0)
        self.state = NO_BODY if not length else KNOWN if length > 0 else CHUNK_SIZE

    cdef Request after_empty_line(self):
        if self.buffer.startswith(b"\r", self.start) or self.buffer[self.start - 1] != 10:
            raise ProtocolError(400, "empty lines")
        return self.next_request()

    cdef int check_incomplete(self) except -1:
        """Refuse what cannot become a head, so that nobody waits for its end."""
        start = self.start
        if len(self.buffer) - start > self.limits.head:
            raise self.too_large()
        if _hopeless(self.buffer, max(start, self.scanned - 1)):
            raise ProtocolError(400, "malformed head")
        scanned, self.scanned = self.scanned, len(self.buffer)
        begin = start + 2 if self.buffer.startswith(b"\r\n", start) else start
        end = self.buffer.find(b"\r\n", begin, begin + self.limits.request_line + 2) + 2
        if end > max(scanned, 1) and not _line(line := self.buffer[begin:end]) and line != _PREFACE_LINE:
            raise self.parser.refusal(line + b"\r\n")  # whatever may follow
        if (
            self.buffer.find(b"\r\n", start + 2, start + self.limits.request_line + 4) < 0
            and len(self.buffer) - start > self.limits.request_line + 2
        ):
            raise ProtocolError(414, "the request line is too long")

    cdef object too_large(self):
        line = self.buffer.find(b"\r\n", self.start + 2) - self.start
        if not 0 <= line <= self.limits.request_line:
            return ProtocolError(414, "the request line is too long")
        return ProtocolError(431, f"a head of more than {self.limits.head} bytes")

    # ---------------------------------------------------------------- bodies

    @property
    def in_body(self):
        """Is some of the body unread?"""
        return self.state != NO_BODY

    @property
    def wanted(self):
        """How many bytes of content are to come for certain; 0 where a line is next."""
        return self.left if self.state == KNOWN or self.state == CHUNK_DATA else 0

    def body(self):
        """The next piece of the body; b"" if more bytes are needed, None at its end.  Raises ProtocolError."""
        while self.state != NO_BODY:
            piece = self.piece()
            if piece is not None:
                return piece
        return None

    cdef object piece(self):
        """One step: bytes, or None if the next step has to tell."""
        if self.state == KNOWN:
            return self.known()
        if self.state == CHUNK_SIZE:
            return self.chunk_size()
        if self.state == CHUNK_DATA:
            return self.chunk_data()
        if self.state == CHUNK_END:
            return self.chunk_end()
        return self.trailer_section()

    cdef object known(self):
        piece = self.take(self.left)
        self.left -= len(piece)
        if not self.left:
            self.state = NO_BODY
        return piece

    cdef bytes take(self, limit):
        """Up to `limit` bytes of the buffer."""
        buffer, start = self.buffer, self.start
        if len(buffer) - start <= limit:
            self.buffer, self.start = b"", 0
            return buffer[start:] if start else buffer
        self.start = start + limit
        return buffer[start : self.start]

    cdef bytes line(self, Py_ssize_t limit):
        """A line with its CRLF, b"" if more bytes are needed."""
        buffer, start = self.buffer, self.start
        end = buffer.find(b"\n", start, start + limit)
        if end < 0:
            if len(buffer) - start >= limit:
                raise ProtocolError(400, "a line that is too long")
            return b""
        self.start = end + 1
        return buffer[start : end + 1]

    cdef object chunk_size(self):
        line = self.line(self.limits.chunk_line)
        if not line:
            if self.pending and _hopeless(self.buffer, self.start):
                raise ProtocolError(400, "malformed chunk")
            return b""
        matched = _chunk_line(line)
        if matched is None:
            raise ProtocolError(400, "malformed chunk")
        self.left = size = int(matched[1], 16)
        # Lines of many times the size of their chunks are there to keep us busy.
        self.excess = max(self.excess + len(line) - 16 - 2 * size, 0)
        if self.excess > 16384:
            raise ProtocolError(400, "chunk extensions without end")
        if not size:
            self.state = TRAILERS
            return None
        self.seen += size
        if self.seen > self.limits.body:
            raise ProtocolError(413, f"a body of more than {self.limits.body} bytes")
        self.state = CHUNK_DATA
        return None

    cdef object chunk_data(self):
        piece = self.take(self.left)
        self.left -= len(piece)
        if not self.left:
            self.state = CHUNK_END
        return piece

    cdef object chunk_end(self):
        buffer, start = self.buffer, self.start
        if not buffer.startswith(b"\r\n", start):
            if b"\r\n".startswith(buffer[start:]):  # it holds one byte of them at most
                return b""
            raise ProtocolError(400, "a chunk longer than it says")
        self.start = start + 2
        self.state = CHUNK_SIZE
        return None

    cdef object trailer_section(self):
        """RFC 9112 section 7.1.2: the trailers and the empty line that ends the message."""
        buffer, start, limit = self.buffer, self.start, self.limits.trailers
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
        self.start = end
        self.state = NO_BODY
        return None
