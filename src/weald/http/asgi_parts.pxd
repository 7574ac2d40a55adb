# See asgi_parts.pyx.

from weald.http.protocol cimport Request


cdef class Result:
    cdef object value


cdef class Waiting:
    cdef object future
    cdef object steps

    cdef object iterator(self)


cdef Result DONE  # of None
cdef dict STATUSES  # code: b"200 OK"
cdef dict SENT_NAMES  # of fields that applications send: bytes and number, as `field_name` has them

cdef Result result_of(object value)
cdef object awaited(awaitable)
cdef bytes line_of(status)
cdef tuple known_name(name)
cdef bytes checked(bytes name, value)
cdef list fields_of(Request request)
