# The class of wsgi.pyx, for steps.pyx.

from weald.http.exchange cimport Exchange


cdef class WSGIExchange(Exchange):
    cdef public object environ
    cdef public object application
    cdef public object wsgi_input
    cdef public object result  # what the application has returned
    cdef object no_body  # wsgi.input of requests without a body
    cdef object disconnected  # weald.disconnected
    cdef tuple remote  # the client's address and port, if it has any
    cdef bint copies_environ  # whether server.get_environ() just returns a copy of server.environ
    cdef object reader  # the connection as a file
    cdef object raw  # what `reader` reads from
    cdef unsigned long number  # counts requests, to tell late calls of an earlier one
    cdef object streamed  # wsgi.input of a body that had not come with its head
    cdef bint lent  # whether `reader` is wsgi.input
    cdef int reading  # how many greenlets are reading the body

    # Steps that a derived class may do otherwise
    cdef object start(self, status, headers, exc_info)
    cdef object make_environ(self)
    cdef int send_result(self) except -1

    cdef int begin(self, status, headers, exc_info) except -1
    cdef int add_special(self, env) except -1
    cdef bint sends_file(self, wrapper) except -1
    cdef object connection_file(self)
