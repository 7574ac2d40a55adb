# The class of connection.pyx, for steps.pyx.

from weald.http.channel cimport Http1Channel
from weald.http.exchange cimport Exchange
from weald.http.protocol cimport Request


cdef class Connection:
    cdef readonly Http1Channel channel
    cdef readonly Exchange exchange  # None once the connection has ended
    cdef readonly long served  # requests so far
    cdef readonly bint idle  # has nothing of the next request come yet?
    cdef readonly object http2_start  # (socket, bytes read): the client has begun to speak HTTP/2

    # Steps that a derived class may do otherwise
    cdef object serve_one(self)
    cdef object read_head(self)

    cdef Request next_request(self)
    cdef Request wait_for_rest(self)
