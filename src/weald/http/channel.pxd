# The classes of channel.pyx, for the other compiled modules of weald.http.

from cpython.bytes cimport PyBytes_GET_SIZE

from weald._core.descriptor cimport Descriptor
from weald.http.protocol cimport Request, RequestStream
from weald.http.state cimport ServerState


cdef Py_ssize_t size_of_other(data) except -1


cdef inline Py_ssize_t size_of(data) except -1:
    """Return how many bytes `data` has, which is len(data) for a bytes object."""
    return PyBytes_GET_SIZE(data) if type(data) is bytes else size_of_other(data)


cdef object octets(data)


cdef class Channel:
    cdef readonly ServerState state
    cdef public object socket  # None once the connection has ended
    cdef public Py_ssize_t sent  # bytes of the response, with its head
    cdef public object broken  # the OSError that sending failed with
    cdef public bint linger  # whether the client may still be sending when the connection is closed
    cdef public bint awaits_continue  # whether the client waits for "100 Continue" before it sends the body
    cdef public bint framed  # whether the protocol itself marks where a response ends, as HTTP/2 does
    cdef double body_waited  # seconds spent waiting for the request's body
    cdef readonly Py_ssize_t body_received  # bytes of it

    cpdef double body_patience(self) except -1.0
    cpdef int body_came(self, Py_ssize_t size, double seconds) except -1
    cdef int expect_body(self, Request request) except -1
    cdef bytes body_at_hand(self, Py_ssize_t length)
    cdef bytes part_at_hand(self)
    cpdef bytes read_body(self, bint invite, Py_ssize_t size)
    cpdef bint discard_body(self, Py_ssize_t length) except -1
    cpdef bint body_is_over(self) except -1
    cpdef object request_trailers(self)
    cpdef object watch_client(self)
    cpdef object send_interim(self, bytes status, long code, list fields)
    cpdef object send_head(self, bytes status, long code, list fields, data, bint chunked, bint last)
    cpdef object send_data(self, data, bint chunked, bint last)
    cpdef object send_end(self, trailers, bint chunked)
    cpdef bint can_send_files(self) except -1
    cpdef Py_ssize_t send_file(
        self, bytes status, list fields, int fd, Py_ssize_t offset, Py_ssize_t count) except -1


cdef class Http1Channel(Channel):
    cdef readonly RequestStream stream
    cdef readonly object descriptor  # the socket's
    cdef readonly bint tls

    cdef bint receive(self, double timeout) except -1
    cdef Py_ssize_t further_records(self, Descriptor descriptor, Py_ssize_t count) except -1
    cdef bytes long_piece(self, Py_ssize_t size)
    cdef object client_left(self)
    cdef int send(self, data) except -1
    cdef int send_parts(self, list parts) except -1
    cdef int transmit(self, data, int flags) except -1
