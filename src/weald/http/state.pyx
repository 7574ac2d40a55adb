"""State that all connections of one HTTP server share: its limits, one parser, one receive buffer, its counters.

Called by: channel.pyx, connection.pyx and http2_stream.py, which read it; server.py, which
makes one for each server.

Invariants:
- All connections of a server run in one thread, so they can share a parser and a buffer.
- Counting a response costs a few additions; it takes no lock and makes no object.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer)
from weald.http.protocol cimport HeadParser

cdef enum:
    STATUS_CLASSES = 6  # 0xx (no response was sent), 1xx, …, 5xx

cdef Py_ssize_t BUFFER_SIZE = 262144  # bytes that one call receives at most


cdef class ServerState:
    """ServerState(limits): state that the connections of a server share.

    `draining` is true while the server stops: clients are told to connect again.  `served` is the number of responses
    that were counted.
    """

    def __init__(self, limits):
        self.limits = limits
        self.parser = HeadParser(limits)
        self.buffer = bytearray(BUFFER_SIZE)
        self.most_requests = limits.requests
        self.head_timeout = limits.head_timeout
        self.keep_alive_timeout = limits.keep_alive_timeout
        self.body_timeout = limits.body_timeout
        self.body_grace = limits.body_grace
        self.body_rate = limits.body_rate
        self.write_timeout = limits.write_timeout

    def __dealloc__(self):
        if self.counters != NULL:
            PyBuffer_Release(&self.counted_in)

    def count_in(self, buffer, bounds):
        """Count responses in `buffer` from now on, a writable buffer of doubles.

        Its doubles are: the numbers of responses with a status of 0xx (none was sent) to 5xx; the seconds that all
        responses took together; the numbers of those that took up to bounds[0] seconds, up to bounds[1], …, and longer
        than the last bound.  Raises ValueError if the buffer is too small or not of doubles, or if responses are being
        counted already, BufferError if it cannot be written to.
        """
        cdef list numbers = [float(bound) for bound in bounds]
        if self.counters != NULL:
            raise ValueError("responses are counted already")
        PyObject_GetBuffer(buffer, &self.counted_in, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        wanted = STATUS_CLASSES + 2 + len(numbers)
        if self.counted_in.format == NULL or self.counted_in.format != b"d" or self.counted_in.len < 8 * wanted:
            PyBuffer_Release(&self.counted_in)
            raise ValueError(f"to count in, a buffer of at least {wanted} doubles is needed")
        self.bounds = numbers
        self.counters = <double *>self.counted_in.buf

    cpdef int count(self, long code, double seconds) except -1:
        """Count a response of the status `code` (negative: sending it failed; 0: none was sent) that took `seconds`."""
        cdef Py_ssize_t kind = abs(code) // 100
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t last
        if self.counters == NULL:
            raise ValueError("there is nothing to count in: call count_in first")
        last = len(self.bounds)
        self.served += 1
        self.counters[kind if kind < STATUS_CLASSES else 0] += 1
        self.counters[STATUS_CLASSES] += max(seconds, 0.0)  # the system's clock may have been set back
        while i < last and seconds > <double>self.bounds[i]:
            i += 1
        self.counters[STATUS_CLASSES + 1 + i] += 1
        return 0
