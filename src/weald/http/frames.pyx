"""Plain frames of WebSockets (RFC 6455 section 5.2), compiled: those with a whole message, not compressed.

Called by: websocket.py, which leaves all other frames to wsproto: parts of messages, compressed and control frames,
incomplete frames, and those that break the rules.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef enum:
    TEXT = 1
    BINARY = 2
    FIN = 0x80
    MASKED = 0x80


cdef void unmask(
        const unsigned char *source, unsigned char *to, Py_ssize_t size, const unsigned char *mask) noexcept nogil:
    """Write `size` unmasked bytes of `source` to `to` (section 5.3)."""
    cdef unsigned char[8] twice
    cdef uint64_t key, word
    cdef Py_ssize_t i = 0
    memcpy(twice, mask, 4)
    memcpy(twice + 4, mask, 4)
    memcpy(&key, twice, 8)
    while i + 8 <= size:
        memcpy(&word, source + i, 8)
        word ^= key
        memcpy(to + i, &word, 8)
        i += 8
    while i < size:
        to[i] = source[i] ^ mask[i & 3]
        i += 1


def next_frame(bytes data, Py_ssize_t at, bint alone, Py_ssize_t longest):
    """Parse the client's frame that begins at `at`; returns its end and its message, a str or bytes.

    The message is None if the frame is no whole message, or is compressed, longer than `longest` bytes or incomplete,
    and if `alone` is false.  The end may then lie beyond that of `data`; it is 0 if the frame's head is incomplete.
    Raises UnicodeDecodeError for a text that is not UTF-8.
    """
    cdef const unsigned char *text = <const unsigned char *>PyBytes_AS_STRING(data)
    cdef Py_ssize_t have = PyBytes_GET_SIZE(data) - at
    cdef Py_ssize_t size, head, least, i
    cdef int opcode
    cdef bytes payload
    if have < 2:
        return 0, None
    text += at
    size = text[1] & 0x7f
    head = 2
    least = 0
    if size >= 126:
        head = 4 if size == 126 else 10
        least = 126 if size == 126 else 65536
        if have < head:
            return 0, None
        if head == 10 and text[2] & 0x80:
            return at + head, None  # wsproto refuses it
        size = 0
        for i in range(2, head):
            size = size << 8 | text[i]
    if text[1] & MASKED:
        head += 4
    opcode = text[0] & 0x0f
    if (
        not alone or text[0] != (FIN | opcode) or (opcode != TEXT and opcode != BINARY) or not text[1] & MASKED
        or size > longest or size < least or have < head + size
    ):
        return at + head + min(size, <Py_ssize_t>1 << 62), None
    payload = PyBytes_FromStringAndSize(NULL, size)
    unmask(text + head, <unsigned char *>PyBytes_AS_STRING(payload), size, text + head - 4)
    return at + head + size, (payload.decode() if opcode == TEXT else payload)


def frame_of(message):
    """Return the frame of a server with the whole of `message`, a str or bytes, not compressed."""
    cdef bint text = isinstance(message, str)
    cdef bytes payload = message.encode() if text else bytes(message)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(payload)
    cdef Py_ssize_t head = 2 if size < 126 else 4 if size < 65536 else 10
    cdef Py_ssize_t i
    cdef bytes made = PyBytes_FromStringAndSize(NULL, head + size)
    cdef unsigned char *to = <unsigned char *>PyBytes_AS_STRING(made)
    to[0] = FIN | (TEXT if text else BINARY)
    to[1] = <unsigned char>(size if head == 2 else 126 if head == 4 else 127)
    for i in range(2, head):
        to[i] = <unsigned char>(size >> 8 * (head - 1 - i))
    memcpy(to + head, PyBytes_AS_STRING(payload), size)
    return made
