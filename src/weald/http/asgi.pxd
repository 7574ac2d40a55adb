# The classes of asgi.pyx.

from weald._core.c_greenlet cimport greenlet
from weald._core.hub cimport Hub, Runnable, Waiter
from weald.http.connection cimport Connection
from weald.http.exchange cimport Exchange


cdef enum Stage:  # of a response
    HEAD_NEXT
    BODY_NEXT
    TRAILERS_NEXT
    COMPLETE


cdef class Call:
    cdef ASGIExchange exchange  # None once it serves another request
    cdef Stage stage
    cdef readonly object task
    cdef object server
    cdef readonly str line  # of the request, for reports
    cdef readonly bint left  # whether the client has left
    cdef bint body_given  # whether the application has received the whole body
    cdef list asking  # Futures of `receive` calls that wait for an event
    cdef object kept  # an event for the next `receive`: the one that waited for it was cancelled
    cdef greenlet home  # the exchange's greenlet
    cdef Waiter waiter  # of `home`, while it waits for the application
    cdef bint fetching  # whether `home` waits for the client on the application's behalf
    cdef bint sending
    cdef list turns  # Waiters of greenlets that want to send meanwhile

    cdef int prepare(self, dict scope) except -1
    cdef dict disconnect(self)
    cdef bint wants(self) except -1
    cdef int fetch(self) except -1
    cdef int conclude(self) except -1
    cdef object take_body(self)
    cdef object ask(self)
    cdef int give(self, dict message) except -1
    cdef int wake(self) except -1
    cdef int take(self, message) except -1


cdef class ASGIExchange(Exchange):
    cdef Connection connection
    cdef readonly object application
    cdef str prefix  # of the paths that `application` answers
    cdef dict handlers  # of this connection: WSGI handlers by the server that each belongs to
    cdef object loop
    cdef tuple loop_state  # the loop's state in the native thread, while a step of an application runs
    cdef readonly Call call  # the call of the request that is being served
    cdef object remote  # scope["client"]
    cdef object local  # scope["server"]
    cdef str scheme
    cdef Py_ssize_t whole  # the body's length in bytes, if all of it is known; else -1
    cdef bint wants_trailers  # whether the application has said that it will send trailers

    cdef object hand_over(self, object server, line)
    cdef bint asks_for_websocket(self) except -1
    cdef dict make_scope(self)
    cdef object step(self, Call call, dict scope)
    cdef int attend(self, Call call) except -1
    cdef int begin_from(self, dict message) except -1
    cdef int send_piece(self, Call call, data, bint last) except -1
    cdef int send_path(self, Call call, path) except -1
