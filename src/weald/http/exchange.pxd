# The class of exchange.pyx, for the other compiled modules of weald.http.

from weald.http.channel cimport Channel
from weald.http.protocol cimport Request


cdef double time() noexcept nogil


cdef class Exchange:
    # The connection
    cdef Channel channel
    cdef public object server  # whose settings are read
    cdef public object client_address
    cdef public object close_connection  # whether the connection must end after this exchange
    cdef bint is_last  # whether the server's limits allow no further request on the connection
    # The request
    cdef Request request
    cdef public object requestline
    cdef str refused_line  # of what came instead of a request
    cdef public object command
    cdef public object path
    cdef public object request_version
    cdef public object time_start  # seconds since 1970
    cdef public object time_finish
    # The response
    cdef public object status  # bytes: b"200 OK"
    cdef public object code  # its number; negative if sending failed
    cdef public object response_headers  # [(b"name", b"value")]
    cdef public object provided_date
    cdef public object provided_content_length
    cdef public object headers_sent
    cdef public object response_use_chunked
    cdef Py_ssize_t left  # bytes of the body that the Content-Length still promises; -1: no length is known
    cdef list trailers  # (name, value) that the application sends after the body; None: the client wants none
    cdef bint given_away  # whether the application has taken the connection over
    cdef object go_away  # called when the server ends, for an application that has taken the connection over

    # Steps that a derived class may do otherwise
    cdef bint take_request(self, line) except -1
    cdef int prepare(self) except -1
    cdef int respond(self) except -1
    cdef int run(self) except -1
    cdef int seal(self) except -1
    cdef Py_ssize_t body_size(self) except? -2
    cdef int begin_error(self, str status, list headers) except -1
    cdef int send_body(self, data) except -1
    cdef int send_first(self, data) except -1
    cdef int complete_head(self) except -1
    cdef int log(self) except -1
    cdef int clear(self) except -1
    cdef int end(self) except -1
    cdef int move_to(self, Channel channel) except -1

    cdef object serve(self, line)
    cdef int begin_response(self, status, headers) except -1
    cdef int check_informational(self, status, long code) except -1
    cdef int check_no_length(self, long code, length) except -1
    cdef int finish_head(self) except -1
    cdef int send_more(self, data) except -1
    cdef bint admit(self, data) except -1
    cdef bint is_bodiless(self) except -1
    cdef bint is_over(self) except -1
    cdef int end_body(self) except -1
    cdef int discard_body(self) except -1
    cdef bytes read_body(self, Py_ssize_t size)
    cdef int finish(self) except -1
    cdef int log_refusal(self, status) except -1
    cdef bint upgraded(self)
