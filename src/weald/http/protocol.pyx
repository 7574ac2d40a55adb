# cython: nonecheck=True
"""HTTP/1.1 requests without I/O, compiled: bytes in, requests and pieces of bodies out.

Called by: every module of weald.http that handles a request, weald.compat.

`HeadParser` turns one complete head into a `Request`; it keeps nothing between two heads, so one parser serves all
connections of a server.  `RequestStream` is one connection's side: `feed` it received bytes, call `next_request`,
then `body` until the body ends.

Invariants:
- A head is checked twice.  When it is complete and `well_formed` by the grammar of RFC 9112 as a whole, llhttp (through
  httptools) checks it again, and may refuse it, too.  llhttp by itself accepts: empty lines and bare LF in front of a
  request line, further spaces in it, other protocols and versions, unknown transfer codings, any number of Host fields,
  bodies of any length.
- The fields are extracted here, where the grammar has found them: through httptools each would cost a call into Python.
- Nothing is repaired.  Input that two implementations could read in two ways is an error.  After an error a stream
  returns nothing more: bytes that follow a bad message are never read as a request.
- Chunks are parsed here, because httptools does not report where in its input a message ends.

Long because heads and bodies are read from one buffer, with one set of rules for what is refused.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.string cimport memchr, strncmp

import re
from _socket import AF_INET6, inet_pton
from importlib import import_module

from weald.http.extras import required

with required("HTTP server", "httptools"):
    httptools = import_module("httptools")

__all__ = [
    "HeadParser", "ProtocolError", "Request", "RequestStream", "cgi_name", "is_authority", "judge_trailers", "tokens",
]

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"  # RFC 9110 section 5.6.2
_TEXT = rb"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 section 5.5: field-vchar, SP, HTAB; obs-text
_FIELD = TOKEN + rb"++:" + _TEXT + rb"*+\r\n"
_PREFACE_LINE = b"PRI * HTTP/2.0\r\n"  # RFC 9113 section 3.4
_any_version = re.compile(rb"%b++ [!-~]++ HTTP/[0-9]\.[0-9]\r\n" % TOKEN).match
_trailers = re.compile(rb"(?:%b)*+\r\n" % _FIELD).fullmatch
# RFC 9112 section 7.1; sixteen digits are 64 bits.
_QUOTED = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_chunk_line = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*%b+(?:[ \t]*=[ \t]*(?:%b+|%b))?)*\r\n" % (TOKEN, TOKEN, _QUOTED)
).fullmatch
# RFC 3986 section 3.2.2 and 3.2.3: a host and its port.
_authority = re.compile(
    r"(?:(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\])(?::0*([0-9]{0,5}))?|"
).fullmatch
_absolute = re.compile(r"https?://([^/?#]+)((?:[/?][^#]*)?)", re.IGNORECASE).fullmatch

# Framing, routing and the like: RFC 9110 section 6.5.1 forbids them in trailers.
_NOT_IN_TRAILERS = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type cookie expect "
    b"host if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive max-forwards pragma "
    b"proxy-authorization proxy-connection range set-cookie te trailer transfer-encoding upgrade".split()
)
# These decide about framing and routing.  If one came twice, it could be read in two ways.
_ONCE = frozenset(("CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT"))

# These may change how the connection goes on.
SPECIAL = frozenset(
    ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "HTTP_CONNECTION", "HTTP_EXPECT", "HTTP_UPGRADE", "HTTP_TE")
)

cdef Py_ssize_t SMALL_CHUNK = 4096  # bytes; smaller ones are joined with those behind them

CHUNKED = -1  # Request.length of a body whose length is not known beforehand

cdef extern from "<string.h>" nogil:
    void *memmem(const void *, size_t, const void *, size_t)

cdef enum:  # kinds of bytes
    OF_TOKEN = 1
    OF_TARGET = 2
    OF_TEXT = 4  # of a field's value, and of lines altogether: no control bytes

cdef unsigned char[256] KINDS

for _kind, _class in ((OF_TOKEN, TOKEN), (OF_TARGET, rb'[!"$-\[\]-~]'), (OF_TEXT, _TEXT)):
    for _byte in re.findall(_class, bytes(range(256))):
        KINDS[_byte[0]] |= _kind


class ProtocolError(ValueError):
    """The client broke the protocol or a limit: answer `status` (an int) and close."""

    preface = False  # did the client begin to speak HTTP/2?

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


@cython.no_gc  # it cannot be part of a cycle; nor can the next
cdef class Request:
    """One request's head."""

    def __cinit__(self):
        self.length = 0
        self.keep_alive = True

    @property
    def has_body(self):
        """Whether a body follows the head."""
        return self.length != 0

    @property
    def raw(self):
        """The fields as they came: (name, value), bytes."""
        if self.given is None:
            self.given = []
            for line in self.head[self.first : -4].split(b"\r\n") if len(self.head) - self.first > 4 else ():
                name, _, value = line.partition(b":")
                self.given.append((name, value.strip(b" \t")))
        return self.given

    @raw.setter
    def raw(self, list value):
        self.given = value


cdef inline str latin1(bytes value):
    return PyUnicode_DecodeLatin1(value, len(value), NULL)


cdef inline Py_ssize_t run(const unsigned char *text, Py_ssize_t at, int kind) noexcept nogil:
    """The end of the run of bytes of that kind that begins at `at`; `text` ends with a NUL, which is of no kind."""
    while KINDS[text[at]] & kind:
        at += 1
    return at


cdef Py_ssize_t request_line(const unsigned char *text, Py_ssize_t *method, Py_ssize_t *target) noexcept nogil:
    """The end of the well-formed request line in front of `text`, and of its parts; 0: there is none."""
    cdef Py_ssize_t end = run(text, 0, OF_TOKEN)
    if not end or text[end] != c" ":
        return 0
    method[0] = end
    end = run(text, end + 1, OF_TARGET)
    # No URI has a backslash (RFC 3986), and some take it for a slash; but browsers send it in queries.
    while text[end] == c"\\" and memchr(text + method[0], c"?", end - method[0]) != NULL:
        end = run(text, end + 1, OF_TARGET)
    if end == method[0] + 1 or strncmp(<const char *>text + end, b" HTTP/1.", 8):
        return 0
    target[0] = end
    end += 8
    if (text[end] != c"0" and text[end] != c"1") or text[end + 1] != c"\r" or text[end + 2] != c"\n":
        return 0
    return end + 3


cdef Py_ssize_t well_formed(bytes head, Py_ssize_t *method, Py_ssize_t *target) noexcept:
    """The end of the request line of `head`; 0 if `head` as a whole does not match the grammar of RFC 9112.

    Section 2.1: no white space before the first field, none before a colon, no obs-fold, CRLF only.
    """
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(head)
    cdef Py_ssize_t first = request_line(text, method, target)
    cdef Py_ssize_t at = first
    cdef Py_ssize_t end
    if not first:
        return 0
    while text[at] != c"\r":
        end = run(text, at, OF_TOKEN)
        if end == at or text[end] != c":":
            return 0
        at = run(text, end + 1, OF_TEXT)
        if text[at] != c"\r" or text[at + 1] != c"\n":
            return 0
        at += 2
    return first if text[at + 1] == c"\n" and at + 2 == len(head) else 0


cdef bint hopeless(bytes buffer, Py_ssize_t start, Py_ssize_t at) noexcept:
    """Whether the incomplete head has, from `at` on, a byte that no head may have: a bare LF or CR, NUL, a control.

    The bytes before `at` have been checked; the buffer's unread part begins at `start`.
    """
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(buffer)
    cdef Py_ssize_t size = len(buffer)
    while True:
        at = run(text, at, OF_TEXT)
        if at == size:
            return False
        if text[at] == c"\r":
            if at + 1 < size and text[at + 1] != c"\n":
                return True
        elif text[at] != c"\n" or at == start or text[at - 1] != c"\r":
            return True
        at += 1


cdef Py_ssize_t find(bytes buffer, const char *what, Py_ssize_t size, Py_ssize_t start, Py_ssize_t end) noexcept:
    """As bytes.find()."""
    cdef char *text = PyBytes_AS_STRING(buffer)
    cdef char *found
    end = min(end, len(buffer))
    if start >= end:
        return -1
    found = <char *>memmem(text + start, end - start, what, size)
    return -1 if found == NULL else found - text


cdef Py_ssize_t plain_chunk_line(bytes buffer, Py_ssize_t start, Py_ssize_t *number) noexcept:
    """The end of the line at `start` if it is up to 8 hexadecimal digits (their value is `number`) and CRLF; else 0."""
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(buffer)  # a NUL ends it
    cdef Py_ssize_t at = start
    cdef int digit
    while at < start + 8:
        digit = text[at]
        if c"0" <= digit <= c"9":
            digit -= c"0"
        else:
            digit |= 32
            if not c"a" <= digit <= c"f":
                break
            digit -= c"a" - 10
        number[0] = number[0] * 16 + digit
        at += 1
    return at + 2 if at > start and text[at] == c"\r" and text[at + 1] == c"\n" else 0


def cgi_name(bytes name):
    """`X-Real-IP` to `HTTP_X_REAL_IP`; None for a field that an application must not see.

    Those are names with an underscore, which could be mistaken for the name with a dash that a proxy vouches for, and
    Proxy, because HTTP_PROXY is where many programs look for the address of their proxy.
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
cdef dict NAMES = {
    spelling.encode(): (name, name in SPECIAL)
    for common in _COMMON
    if (name := cgi_name(common.encode()))
    for spelling in (common, common.lower())
}


def tokens(str value):
    """The members of a comma-separated field value, in lower case (RFC 9110 section 5.6.1)."""
    return [member for part in value.lower().split(",") if (member := part.strip(" \t"))]


cpdef bint is_authority(str text) except -1:
    """Return whether `text` may be the value of Host, or the authority of a target: a host, and maybe a port.

    It may be empty, as Host is for targets without an authority.  A port alone is refused.
    """
    found = _authority(text)
    if found is None or found[2] and int(found[2]) > 65535:
        return False
    if found[1] is not None:
        try:
            inet_pton(AF_INET6, found[1])
        except OSError:
            return False
    return True


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

    cpdef Request parse(self, bytes head):
        """The request of `head`, which ends with its empty line.  Raises ProtocolError."""
        cdef Request request
        cdef Py_ssize_t method = 0
        cdef Py_ssize_t target = 0
        cdef Py_ssize_t first = well_formed(head, &method, &target)
        cdef char *text = PyBytes_AS_STRING(head)
        if not first or first - 2 > self.longest_line:
            raise self.refusal(head)
        request = Request.__new__(Request)
        request.head, request.first = head, first
        request.line = PyUnicode_DecodeLatin1(text, first - 2, NULL)
        request.method = PyUnicode_DecodeLatin1(text, method, NULL)
        request.target = PyUnicode_DecodeLatin1(text + method + 1, target - method - 1, NULL)
        request.version = "HTTP/1.1" if text[first - 3] == c"1" else "HTTP/1.0"
        try:
            (self.http or self.new()).feed_data(head)
        except (httptools.HttpParserUpgrade, httptools.HttpParserError):
            self.judge_anew(head)
        try:
            self.read_fields(request)
        except ProtocolError:
            self.http = None  # it may be waiting for the refused request's body
            raise
        return request

    cdef int read_fields(self, Request request) except -1:
        """Set `fields` and what follows from them; raises ProtocolError."""
        cdef dict fields = {}
        cdef char *text = PyBytes_AS_STRING(request.head)
        cdef char *at = text + request.first
        cdef char *name_at
        cdef char *colon
        cdef char *value_at
        cdef char *end
        cdef Py_ssize_t count = 0
        cdef bint special = False
        cdef bint dropped = False
        cdef tuple known
        cdef bytes name
        request.fields = fields
        # The grammar has seen to it that there is what is looked for.
        while at[0] != c"\r":
            count += 1
            name_at = at
            at = split_field(at, &colon, &value_at, &end)
            name = PyBytes_FromStringAndSize(name_at, colon - name_at)
            value = PyUnicode_DecodeLatin1(value_at, end - value_at, NULL)
            known = NAMES.get(name)
            if known is not None:
                key = known[0]
                if known[1]:
                    special = True
            else:
                key = cgi_name(name)
                if key is None:
                    dropped = True
                    continue
                if key in SPECIAL:
                    special = True
            fields[key] = _joined(key, fields[key], value) if key in fields else value
        if count > self.most_fields:
            raise ProtocolError(431, f"more than {self.limits.fields} fields")
        if dropped:
            _refuse_collisions(request)
        host = fields.get("HTTP_HOST")
        if host is None:
            if request.version == "HTTP/1.1":  # RFC 9112 section 3.2
                raise ProtocolError(400, "no Host field")
        elif host != self.good_host:
            if not is_authority(host):
                raise ProtocolError(400, "malformed Host field")
            self.good_host = host
        if request.target[0] != "/":
            _judge_target(request)
        if special or request.version == "HTTP/1.0":
            self.judge(request)
        return 0

    cdef object new(self):
        self.http = http = httptools.HttpRequestParser(None)  # no callbacks: only whether it raises counts
        return http

    cdef int judge_anew(self, bytes head) except -1:
        """Ask a new parser of llhttp's about `head`, which the old one has refused.  Raises ProtocolError.

        The old one may have refused it because the connection that it served before has ended.
        """
        try:
            self.new().feed_data(head)
        except httptools.HttpParserUpgrade:
            self.http = None  # it would take what follows for another protocol
            if head.startswith(b"CONNECT "):
                raise ProtocolError(501, "this is no proxy") from None
        except httptools.HttpParserInvalidMethodError:
            self.http = None
            # RFC 9110 section 9.1: 501 for an unknown method.
            raise ProtocolError(501, "unknown method") from None
        except httptools.HttpParserError as error:
            self.http = None
            self.judge_framing(head)  # our own rules give the more exact status
            raise ProtocolError(400, str(error)) from None
        return 0

    cdef int judge(self, Request request) except -1:
        """Set what follows from the special fields; raises ProtocolError where RFC 9110 and 9112 want that."""
        cdef dict fields = request.fields
        cdef bint modern = request.version == "HTTP/1.1"
        request.special = "HTTP_TE" in fields or "HTTP_UPGRADE" in fields
        length, coding = fields.get("CONTENT_LENGTH"), fields.get("HTTP_TRANSFER_ENCODING")
        if length is not None or coding is not None:
            request.length = body_length(length, coding, modern)
            if request.length > self.limits.body:
                raise ProtocolError(413, f"a body of {request.length} bytes, more than {self.limits.body}")
        request.keep_alive = modern
        connection = fields.get("HTTP_CONNECTION")
        if connection == "keep-alive":  # as most have it
            request.keep_alive = True
        elif connection is not None:  # RFC 9112 section 9.3
            options = tokens(connection)
            request.keep_alive = "close" not in options and (modern or "keep-alive" in options)
            if "upgrade" in options:
                request.special = True
        expect = fields.get("HTTP_EXPECT")
        if expect is not None and modern:  # RFC 9110 section 10.1.1
            if expect.lower() != "100-continue":
                raise ProtocolError(417, "unknown expectation")
            request.expect_continue = request.length != 0
            request.special = True
        if request.length or not request.keep_alive:
            self.http = None  # it waits for the body, or for nothing any more

    cdef int judge_framing(self, bytes head) except -1:
        """For a head that llhttp refused: raise the error that the rules here have for its framing fields, if any."""
        length = coding = None
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            key = cgi_name(name)
            text = latin1(value).strip(" \t")
            if key == "CONTENT_LENGTH":
                length = text if length is None else _joined(key, length, text)
            elif key == "HTTP_TRANSFER_ENCODING":
                coding = text if coding is None else _joined(key, coding, text)
        if length is not None or coding is not None:
            body_length(length, coding, head.partition(b"\r\n")[0].endswith(b"1.1"))

    cdef object refusal(self, bytes head):
        """The ProtocolError that says what is wrong with `head`."""
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


def _joined(key, first, value):
    """The value of a field that came again (RFC 9110 section 5.3)."""
    if key in _ONCE:
        raise ProtocolError(400, f"{key.removeprefix('HTTP_')} came twice")
    # Cookie2 is long gone; old programs may know it.
    return first + ("; " if key in ("HTTP_COOKIE", "HTTP_COOKIE2") else ", ") + value


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
    if request.target == "*" and request.method == "OPTIONS":
        return
    absolute = _absolute(request.target)
    if absolute is None or not is_authority(absolute[1]):
        raise ProtocolError(400, "malformed request target")
    # Section 3.2.2: the target's authority counts, whatever Host says.
    request.fields["HTTP_HOST"] = absolute[1]
    rest = absolute[2]
    request.target = rest if rest.startswith("/") else "/" + rest


cdef Py_ssize_t body_length(length, coding, bint modern) except? -1:
    """The length of a body with these Content-Length and Transfer-Encoding values (RFC 9112 section 6)."""
    if coding is None:
        number = number_in(length)
        if number < 0:
            raise ProtocolError(400, "malformed Content-Length")
        return number
    if length is not None:  # section 6.1: how requests are smuggled
        raise ProtocolError(400, "both Transfer-Encoding and Content-Length")
    if not modern:  # section 6.1
        raise ProtocolError(400, "Transfer-Encoding in HTTP/1.0")
    codings = [member.strip(" \t") for member in coding.lower().split(",")]
    if "" in codings:  # to be ignored, says RFC 9110 section 5.6.1; but not all do, and then the body has another end
        raise ProtocolError(400, "a transfer coding without a name")
    if codings[-1] != "chunked" or codings.count("chunked") != 1:  # section 6.3
        raise ProtocolError(400, "a transfer coding whose end cannot be told")
    if len(codings) > 1:  # section 6.1
        raise ProtocolError(501, "unknown transfer coding")
    return CHUNKED


def judge_trailers(bytes section, limits):
    """The fields of a trailer section with its empty line (RFC 9110 section 6.5); raises ProtocolError."""
    if len(section) > limits.trailers:
        raise ProtocolError(431, f"trailers of more than {limits.trailers} bytes")
    if not _trailers(section):
        raise ProtocolError(400, "malformed trailers")
    fields = []
    for line in section.split(b"\r\n")[:-2]:
        name, _, value = line.partition(b":")
        if name.lower().replace(b"_", b"-") in _NOT_IN_TRAILERS:
            raise ProtocolError(400, f"{name.decode()} in trailers")
        fields.append((name, value.strip(b" \t")))
    if len(fields) > limits.fields:
        raise ProtocolError(431, f"more than {limits.fields} trailers")
    return fields


@cython.no_gc
cdef class RequestStream:
    """RequestStream(parser): one connection's side.

    `feed`, then `next_request`, then `body` until it returns None, then the next request.  After a ProtocolError, and
    when the connection changes its protocol, it must not be used any more; `rest` then returns the unread bytes.
    """

    def __init__(self, HeadParser parser):
        self.parser = parser
        self.limits = parser.limits
        self.buffer = b""
        self.state = NO_BODY
        self.left = self.seen = self.excess = 0

    cpdef int feed(self, bytes data) except -1:
        if self.start == len(self.buffer):
            self.buffer = data
            self.scanned = 0
        else:
            self.buffer = (self.buffer[self.start :] if self.start else self.buffer) + data
            self.scanned = max(self.scanned - self.start, 0)
        self.start = 0

    cdef Py_ssize_t unread(self):
        return len(self.buffer) - self.start

    @property
    def pending(self):
        """How many bytes are unread."""
        return self.unread()

    def rest(self, limit=None):
        """Take the unread bytes (`limit` at most), for other code that reads the connection from now on."""
        return self.take(self.pending if limit is None else limit)

    cpdef Request next_request(self):
        """The next request's head, None if more bytes are needed.  Raises ProtocolError."""
        cdef bytes buffer = self.buffer
        cdef Py_ssize_t start = self.start
        cdef Py_ssize_t end = self.scanned - 3 if self.scanned > start + 3 else start
        cdef Request request
        cdef bytes head
        end = find(buffer, b"\r\n\r\n", 4, end, len(buffer)) + 4
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
            head = buffer[start:] if start else buffer
        else:
            self.start = end
            head = buffer[start:end]
        try:
            request = self.parser.parse(head)
        except ProtocolError:
            self.refused = head
            raise
        if request.length:
            self.expect(request.length)
        return request

    cpdef int expect(self, length) except -1:
        """Declare that a body of `length` bytes, or CHUNKED, follows."""
        self.seen = self.excess = 0
        self.trailers = []
        self.left = max(length, 0)
        self.state = NO_BODY if not length else KNOWN if length > 0 else CHUNK_SIZE

    cdef str refused_line(self):
        """The first line of what is no request, for logs; no longer than the longest that is allowed."""
        cdef bytes came = self.buffer[self.start :] if self.refused is None else self.refused
        return latin1(came.lstrip(b"\r\n").partition(b"\r\n")[0][: self.limits.request_line])

    cdef Request after_empty_line(self):
        if self.buffer.startswith(b"\r", self.start) or self.buffer[self.start - 1] != 10:
            raise ProtocolError(400, "empty lines")
        return self.next_request()

    cdef int check_incomplete(self) except -1:
        """Refuse bytes that cannot become a head, instead of waiting for their end."""
        cdef bytes buffer = self.buffer
        cdef Py_ssize_t size = len(buffer)
        cdef Py_ssize_t start = self.start
        cdef Py_ssize_t scanned = self.scanned
        cdef Py_ssize_t longest = self.parser.longest_line
        cdef Py_ssize_t begin, end, method, target
        cdef char *text = PyBytes_AS_STRING(buffer)
        if size - start > self.parser.longest_head:
            raise self.too_large()
        if hopeless(buffer, start, max(start, scanned - 1)):
            raise ProtocolError(400, "malformed head")
        self.scanned = size
        begin = start + 2 if text[start] == c"\r" and text[start + 1] == c"\n" else start
        end = find(buffer, b"\r\n", 2, begin, begin + longest + 2) + 2
        if end > max(scanned, 1) and request_line(<unsigned char *>text + begin, &method, &target) != end - begin:
            line = buffer[begin:end]
            if line != _PREFACE_LINE:
                raise self.parser.refusal(line + b"\r\n")  # whatever may follow
        if end == 1 and size - begin > longest + 2:
            raise ProtocolError(414, "the request line is too long")
        return 0

    cdef object too_large(self):
        line = self.buffer.find(b"\r\n", self.start + 2) - self.start
        if not 0 <= line <= self.limits.request_line:
            return ProtocolError(414, "the request line is too long")
        return ProtocolError(431, f"a head of more than {self.limits.head} bytes")

    # ---------------------------------------------------------------- bodies

    @property
    def wanted(self):
        """How many bytes of content are certain to come; 0 if a line is next."""
        return self.left if self.state == KNOWN or self.state == CHUNK_DATA else 0

    def body(self):
        """The next piece of the body; b"" if more bytes are needed, None at its end.  Raises ProtocolError."""
        if self.failure is not None:
            # A new one, since the traceback of one that is kept would lead back here.
            raise ProtocolError(self.failure.status, str(self.failure))
        while self.state != NO_BODY:
            piece = self.piece()
            if piece is not None:
                if self.state == CHUNK_END and self.start < len(self.buffer):
                    if len(piece) < SMALL_CHUNK:
                        return self.with_further_chunks(piece)
                    self.look_for_end()
                return piece
        return None

    cdef bytes with_further_chunks(self, bytes first):
        """Return `first` joined with the chunks that have come behind it: so tiny chunks cost about what others do."""
        cdef bytearray joined = bytearray(first)
        try:
            while self.state != NO_BODY:
                piece = self.piece()
                if piece is not None:
                    if not piece:
                        break
                    joined += piece
        except ProtocolError as error:
            self.failure = error
        return bytes(joined)

    cdef int look_for_end(self) except -1:
        """Parse what has come behind a chunk, up to the next one's content.

        So the body's end is known with its last piece.
        """
        try:
            while self.state != NO_BODY and self.state != CHUNK_DATA and self.piece() is None:
                pass
        except ProtocolError as error:
            self.failure = error
        return 0

    cdef object piece(self):
        """One step of parsing; returns bytes, or None if a further step is needed."""
        if self.state == KNOWN:
            return self.content(NO_BODY)
        if self.state == CHUNK_SIZE:
            return self.chunk_size()
        if self.state == CHUNK_DATA:
            return self.content(CHUNK_END)
        if self.state == CHUNK_END:
            return self.chunk_end()
        return self.trailer_section()

    cdef bytes content(self, State then):
        """Return the part that has come; `then` is the state after its end."""
        cdef bytes piece = self.take(self.left)
        self.came(len(piece), then)
        return piece

    cdef int came(self, Py_ssize_t size, State then) except -1:
        """`size` bytes of content have been taken; `then` is the state after its end."""
        self.left -= size
        if not self.left:
            self.state = then
        return 0

    cdef bytes take(self, limit):
        """Up to `limit` bytes of the buffer."""
        cdef bytes buffer = self.buffer
        cdef Py_ssize_t start = self.start
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
        cdef Py_ssize_t number = 0
        cdef Py_ssize_t end = plain_chunk_line(self.buffer, self.start, &number)
        if end and number:  # as most are: without an extension
            self.excess = max(self.excess + end - self.start - 16 - 2 * number, 0)
            self.start = end
            self.left = number
            self.seen += number
            if self.seen > self.limits.body:
                raise ProtocolError(413, f"a body of more than {self.limits.body} bytes")
            self.state = CHUNK_DATA
            return None
        if end:
            self.start = end
            self.left = 0
            self.state = TRAILERS
            return None
        line = self.line(self.limits.chunk_line)
        if not line:
            if hopeless(self.buffer, self.start, self.start):
                raise ProtocolError(400, "malformed chunk")
            return b""
        matched = _chunk_line(line)
        if matched is None:
            raise ProtocolError(400, "malformed chunk")
        self.left = size = int(matched[1], 16)
        # Lines of many times the size of their chunks only keep the server busy.
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

    cdef object chunk_end(self):
        cdef bytes buffer = self.buffer
        cdef Py_ssize_t start = self.start
        cdef const char *text = PyBytes_AS_STRING(buffer) + start  # a NUL ends it
        if text[0] != c"\r" or text[1] != c"\n":
            if b"\r\n".startswith(buffer[start:]):  # it holds one byte of them at most
                return b""
            raise ProtocolError(400, "a chunk longer than it says")
        self.start = start + 2
        self.state = CHUNK_SIZE
        return None

    cdef object trailer_section(self):
        """RFC 9112 section 7.1.2: the trailers and the empty line that ends the message."""
        cdef bytes buffer = self.buffer
        cdef Py_ssize_t start = self.start
        cdef const char *text = PyBytes_AS_STRING(buffer) + start  # a NUL ends it
        if text[0] == c"\r" and text[1] == c"\n":  # no trailers, as with most bodies
            self.start = start + 2
            self.state = NO_BODY
            return None
        end = buffer.find(b"\r\n\r\n", start) + 4
        limit = self.limits.trailers
        if end == 3:
            if len(buffer) - start > limit:
                raise ProtocolError(431, f"trailers of more than {limit} bytes")
            if hopeless(buffer, start, start):
                raise ProtocolError(400, "malformed trailers")
            return b""
        self.trailers.extend(judge_trailers(buffer[start:end], self.limits))
        self.start = end
        self.state = NO_BODY
        return None
