# The classes of protocol.pyx, for the compiled modules beside it.

from libc.string cimport memchr

cdef extern from *:
    """
    /* The number that a str of 1 to 18 ASCII digits is; -1 for anything else. */
    static inline Py_ssize_t weald_number(PyObject *text)
    {
        Py_ssize_t i, number = 0, length;
        const Py_UCS1 *digits;
        if (!PyUnicode_Check(text) || !PyUnicode_IS_ASCII(text))
            return -1;
        length = PyUnicode_GET_LENGTH(text);
        if (length < 1 || length > 18)
            return -1;
        digits = PyUnicode_1BYTE_DATA(text);
        for (i = 0; i < length; i++) {
            if (digits[i] < '0' || digits[i] > '9')
                return -1;
            number = number * 10 + (digits[i] - '0');
        }
        return number;
    }
    """
    Py_ssize_t number_in "weald_number"(object)


cdef inline char *split_field(char *at, char **colon, char **value, char **end) noexcept:
    """Find the parts of the field that begins at `at`, in a head that is well formed: up to the colon, its value.

    Returns where the next one begins.
    """
    cdef char *start
    cdef char *after
    cdef char *line_end
    colon[0] = <char *>memchr(at, c":", 1 << 30)
    line_end = after = <char *>memchr(colon[0], c"\r", 1 << 30)
    start = colon[0] + 1
    while start < after and (start[0] == c" " or start[0] == c"\t"):
        start += 1
    while after > start and (after[-1] == c" " or after[-1] == c"\t"):
        after -= 1
    value[0], end[0] = start, after
    return line_end + 2


cdef class Request:
    cdef public str line  # method, target and version
    cdef public str method
    cdef public str target  # origin form, or "*"
    cdef public str version  # "HTTP/1.1", "HTTP/1.0" or "HTTP/2"
    cdef bytes head  # `raw` is made of it at the first use
    cdef Py_ssize_t first  # where in it the fields begin
    cdef list given  # `raw`
    cdef public dict fields  # the fields by their CGI names (RFC 3875 section 4.1.18), repeated ones joined
    cdef public bint special  # whether the client may want trailers, another protocol, or a 100 Continue
    cdef public Py_ssize_t length  # bytes of body, or CHUNKED
    cdef public bint keep_alive  # whether another request may follow
    cdef public bint expect_continue  # whether the client waits for 100 Continue


cdef class HeadParser:
    cdef readonly object limits
    cdef Py_ssize_t longest_line, longest_head, most_fields
    cdef object http  # a parser of httptools' that waits for a head
    cdef str good_host

    cpdef Request parse(self, bytes head)
    cdef object new(self)
    cdef int judge_anew(self, bytes head) except -1
    cdef int read_fields(self, Request request) except -1
    cdef int judge(self, Request request) except -1
    cdef int judge_framing(self, bytes head) except -1
    cdef object refusal(self, bytes head)


cdef enum State:
    NO_BODY
    KNOWN
    CHUNK_SIZE
    CHUNK_DATA
    CHUNK_END
    TRAILERS


cdef class RequestStream:
    cdef HeadParser parser
    cdef readonly object limits
    cdef readonly bytes buffer
    cdef Py_ssize_t start  # position in the buffer of the first unread byte
    cdef readonly Py_ssize_t scanned  # up to where an incomplete head has been looked at: each byte once
    cdef State state  # the part of the body that comes next
    cdef object left  # bytes of the body, or of the chunk
    cdef object seen  # bytes of the body so far
    cdef object excess  # bytes of chunk lines beyond what the chunks they announced excuse
    cdef object failure  # the ProtocolError that was found behind what `body` has returned
    cdef public list trailers  # (name, value), bytes
    cdef bytes refused  # the head that `next_request` has refused

    cdef Py_ssize_t unread(self)
    cpdef int feed(self, bytes data) except -1
    cpdef Request next_request(self)
    cpdef int expect(self, length) except -1
    cdef str refused_line(self)
    cdef Request after_empty_line(self)
    cdef int check_incomplete(self) except -1
    cdef object too_large(self)
    cdef int look_for_end(self) except -1
    cdef object piece(self)
    cdef bytes with_further_chunks(self, bytes first)
    cdef bytes content(self, State then)
    cdef int came(self, Py_ssize_t size, State then) except -1
    cdef bytes take(self, limit)
    cdef bytes line(self, Py_ssize_t limit)
    cdef object chunk_size(self)
    cdef object chunk_end(self)
    cdef object trailer_section(self)
