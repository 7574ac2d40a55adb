# cython: nonecheck=True
"""How an exchange reaches its client, compiled: the request's body comes in here, the response goes out.

Called by: connection.pyx, exchange.pyx, wsgi.pyx, asgi.pyx and steps.pyx; http2_stream.py derives the channel of an
HTTP/2 stream from `Channel`.

`Channel` is the interface; `Http1Channel` implements it for HTTP/1.1 over a socket.  A channel knows how heads, pieces
of bodies and their ends are written as bytes.  Their content is up to the exchange.

Invariants:
- Every wait for the client has a limit.  A client that sends its body, or takes the response, too slowly is cut off.
- A response whose head and body are known together is sent by one system call.
"""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.string cimport memcpy

from weald._core.descriptor cimport Descriptor, descriptor_of
from weald._core.tls cimport receive as receive_tls
from weald._core.tls cimport transmit_all as transmit_all_tls
from weald.http.protocol cimport KNOWN, NO_BODY, Request, RequestStream
from weald.http.state cimport ServerState

import errno
import os
from _socket import socket as base_socket
from socket import MSG_MORE
from ssl import SSLWantReadError

from weald._core import monotonic
from weald.http.body import InvalidClientInput
from weald.http.disconnected import Disconnected
from weald.http.fields import field_name, field_value
from weald.http.protocol import ProtocolError
from weald.http.wire import end_connection
from weald.socket import socket as plain_socket
from weald.ssl import SSLSocket

cdef extern from "Python.h":
    PyObject *new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    char *bytes_of "PyBytes_AS_STRING"(PyObject *)
    int resize "_PyBytes_Resize"(PyObject **, Py_ssize_t) except -1

cdef Py_ssize_t JOIN_BELOW = 65536  # bytes: up to this size copying into one buffer is cheaper than sending a vector
cdef Py_ssize_t LONG = 65536  # bytes from which on a read is answered with one piece
cdef Py_ssize_t PART = 1 << 20  # bytes of a large piece that have a time limit of their own
cdef Py_ssize_t FILE_PART = 1 << 24  # bytes requested by one sendfile(2)
cdef Py_ssize_t RECORD = 16384  # bytes of a TLS record, at most
cdef Py_ssize_t RECORDS = 65536  # bytes of records that are passed on together: more would take new memory each time
cdef double SHORTEST_WAIT = 0.001  # seconds
cdef bytes CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
cdef bytes LAST_CHUNK = b"0\r\n\r\n"
cdef object PLAIN = plain_socket
cdef object TLS = SSLSocket
cdef object SENDMSG = getattr(base_socket, "sendmsg", None)


cdef bytes taken(PyObject *made):
    """The bytes object, whose reference the caller gives up."""
    found = <bytes>made
    Py_DECREF(found)
    return found


cdef Py_ssize_t size_of_other(data) except -1:
    """`size_of` for other objects than bytes."""
    return memoryview(data).nbytes if PyObject_CheckBuffer(data) else len(data)


cdef object octets(data):
    """Return `data` as an object whose items are its bytes: those of an array of ints, say, are not."""
    if type(data) is bytearray or not PyObject_CheckBuffer(data):
        return data
    view = memoryview(data)
    return data if view.itemsize == 1 and view.ndim == 1 and view.contiguous else view.tobytes()


cdef inline char *put(char *to, bytes what) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(what)
    memcpy(to, PyBytes_AS_STRING(what), size)
    return to + size


cdef bytes assemble(bytes status, list fields, bytes body):
    """Return a response's head with `body` behind it."""
    cdef bytes name, value, made
    cdef char *to
    cdef Py_ssize_t size = 13 + len(status) + len(body)
    for name, value in fields:
        size += 4 + len(name) + len(value)
    made = PyBytes_FromStringAndSize(NULL, size)
    to = PyBytes_AS_STRING(made)
    memcpy(to, b"HTTP/1.1 ", 9)
    to = put(to + 9, status)
    for name, value in fields:
        to[0], to[1] = c"\r", c"\n"
        to = put(to + 2, name)
        to[0], to[1] = c":", c" "
        to = put(to + 2, value)
    memcpy(to, b"\r\n\r\n", 4)
    put(to + 4, body)
    return made


cdef bytes last_chunk(trailers):
    """Return what ends a chunked body (RFC 9112 section 7.1)."""
    lines = [b"0\r\n"]
    for name, value in trailers:
        lines += (field_name(name)[0], b": ", field_value(name, value), b"\r\n")
    return b"".join((*lines, b"\r\n"))


cdef class Channel:
    """Channel(state): how an exchange reaches its client.  The methods that return at once here are abstract."""

    def __init__(self, ServerState state):
        self.state = state

    # ---------------------------------------------------------------- the request's body

    cpdef double body_patience(self) except -1.0:
        """Return for how many seconds to wait for the next bytes of the body.

        That is `Limits.body_timeout`, but less if the body has been slower than `body_rate` for `body_grace` seconds.
        """
        cdef ServerState state = self.state
        allowed = state.body_grace + self.body_received / state.body_rate - self.body_waited
        return max(min(state.body_timeout, allowed), SHORTEST_WAIT)

    cpdef int body_came(self, Py_ssize_t size, double seconds) except -1:
        """Note that `size` bytes of the body have come after `seconds` seconds."""
        self.body_received += size
        self.body_waited += seconds

    cdef int expect_body(self, Request request) except -1:
        """The body of `request` is what comes next."""
        self.body_received = 0
        self.body_waited = 0.0
        self.awaits_continue = request.expect_continue

    cdef bytes body_at_hand(self, Py_ssize_t length):
        """Return the body of `length` bytes if all of it has come already, else None."""
        return None

    cdef bytes part_at_hand(self):
        """Return a piece of the body that has come already, b"" at the end, None if `read_body` must be called."""
        return None

    cpdef bytes read_body(self, bint invite, Py_ssize_t size):
        """Return the next piece of the body, b"" at its end.

        `size` is how many bytes are wanted: a channel may wait for so many, to return them as one piece.
        `invite`: if the client waits for it, send "100 Continue" first.  Raises InvalidClientInput if the bytes are not
        a body, or come too slowly, and ConnectionResetError if the client leaves.
        """

    cpdef bint discard_body(self, Py_ssize_t length) except -1:
        """Read what is left of the body, of `length` bytes.  Return False if the client may not be read from after it.

        Raises what `read_body` raises.
        """
        return True

    cpdef bint body_is_over(self) except -1:
        """Return whether it is known that nothing more of the body comes."""
        return False

    cpdef object request_trailers(self):
        """Return the fields that came behind the body: a list of (name, value), bytes."""

    cpdef object watch_client(self):
        """Return the `Disconnected` that tells whether the client has left."""
        return Disconnected(self.socket)

    # ---------------------------------------------------------------- the response

    cpdef object send_interim(self, bytes status, long code, list fields):
        """Send a head of its own in front of the response (RFC 9110 section 15.2); the arguments are `send_head`'s."""

    cpdef object send_head(self, bytes status, long code, list fields, data, bint chunked, bint last):
        """Send the head of the response and the first piece of its body, which may be empty.

        `status` is the line's "200 OK", `code` its number, `fields` a list of (name, value), bytes.  With `chunked` the
        body goes out in chunks.  `last`: nothing follows this piece.
        """

    cpdef object send_data(self, data, bint chunked, bint last):
        """Send a further piece of the body, as in `send_head`."""

    cpdef object send_end(self, trailers, bint chunked):
        """Send what ends the response, and `trailers`: a list of (name, value), strs, or None."""

    cpdef bint can_send_files(self) except -1:
        """Return whether `send_file` may be called."""
        return False

    cpdef Py_ssize_t send_file(
            self, bytes status, list fields, int fd, Py_ssize_t offset, Py_ssize_t count) except -1:
        """Send a head, then `count` bytes of the file `fd` from `offset` on.

        Returns how many bytes of the file were sent: fewer if the file has become shorter meanwhile.
        """


cdef class Http1Channel(Channel):
    """Http1Channel(sock, state, tls): HTTP/1.1 over the socket `sock`, which with `tls` is a TLS socket."""

    def __init__(self, sock, ServerState state, bint tls):
        self.state = state
        self.socket = sock
        self.stream = RequestStream(state.parser)
        self.descriptor = sock._descriptor
        self.tls = tls
        self.linger = True

    # ---------------------------------------------------------------- receiving

    cdef bint receive(self, double timeout) except -1:
        """Feed the stream with what comes next.  Return False at the end of the connection.

        Raises TimeoutError if nothing comes within `timeout` seconds (negative: wait without limit).
        """
        cdef bytearray buffer = self.state.buffer
        cdef bytes data = None
        cdef Py_ssize_t count
        cdef Descriptor descriptor
        if type(self.socket) is PLAIN:
            # recv_into() without the cost of Python's calling convention.
            descriptor = descriptor_of(self.socket)
            descriptor.limit = timeout
            if self.stream.left >= PyByteArray_GET_SIZE(buffer):  # of a long body, without the copy
                data = descriptor.receive(self.socket, NULL, PyByteArray_GET_SIZE(buffer), 0)
                count = PyBytes_GET_SIZE(data)
            else:
                count = descriptor.receive(
                    self.socket, PyByteArray_AS_STRING(buffer), PyByteArray_GET_SIZE(buffer), 0)
        elif type(self.socket) is TLS:
            descriptor = descriptor_of(self.socket)
            descriptor.limit = timeout
            count = receive_tls(self.socket, descriptor, PyByteArray_GET_SIZE(buffer), buffer)
            if count == RECORD and self.stream.state != NO_BODY:
                count = self.further_records(descriptor, count)
        else:
            self.descriptor.timeout = None if timeout < 0.0 else timeout
            count = self.socket.recv_into(buffer, PyByteArray_GET_SIZE(buffer))  # given the size, it is quicker
        if not count:
            # A server that stops ends the reading of idle connections: then the client's own end is yet to come.
            self.linger = self.state.draining
            return False
        self.stream.feed(PyBytes_FromStringAndSize(PyByteArray_AS_STRING(buffer), count) if data is None else data)
        return True

    cdef Py_ssize_t further_records(self, Descriptor descriptor, Py_ssize_t count) except -1:
        """Put further records of a body that have come behind the `count` bytes in the buffer; return the new count.

        OpenSSL returns one record at a time.  To wait for each, and to pass each on, takes longer than to decrypt it.
        """
        cdef bytearray buffer = self.state.buffer
        cdef Py_ssize_t got = RECORD
        sslobj = self.socket._sslobj
        with memoryview(buffer) as view:
            try:
                while got == RECORD and count < RECORDS:
                    got = sslobj.read(RECORD, view[count:])
                    count += got
            except SSLWantReadError:  # nothing more for now: the next read waits first
                return count
            except OSError:  # which the next read raises, too
                got = 0
        descriptor.drained = 0 < got < RECORD and not sslobj.pending()
        return count

    cdef bytes body_at_hand(self, Py_ssize_t length):
        return self.stream.body() if length <= self.stream.unread() else None

    cdef bytes part_at_hand(self):
        cdef RequestStream stream = self.stream
        if self.awaits_continue or stream.state != NO_BODY and not stream.unread():
            return None
        try:
            piece = stream.body()
        except ProtocolError as error:
            stream.failure = error  # for `read_body`, which raises it
            return None
        return b"" if piece is None else piece or None

    cpdef bytes read_body(self, bint invite, Py_ssize_t size):
        cdef RequestStream stream = self.stream
        cdef Py_ssize_t unread
        try:
            if self.awaits_continue:
                self.awaits_continue = False
                if invite:
                    self.transmit(CONTINUE, 0)
            if size >= LONG and stream.state == KNOWN and type(self.socket) is PLAIN:
                return self.long_piece(min(size, stream.left))
            while (piece := stream.body()) is not None:
                if piece:
                    return piece
                start = monotonic()
                unread = stream.unread()
                try:
                    if not self.receive(self.body_patience()):
                        raise self.client_left()
                except TimeoutError:
                    raise ProtocolError(408, "the body comes too slowly") from None
                self.body_came(stream.unread() - unread, monotonic() - start)
        except ProtocolError as error:
            raise InvalidClientInput(error.status, str(error)) from None
        return b""

    cdef bytes long_piece(self, Py_ssize_t size):
        """Return the next `size` bytes of a body of known length, received into one object.

        Its memory grows with what has come, whatever length the client has declared.  What had come before an exception
        is kept for the next read.
        """
        cdef RequestStream stream = self.stream
        cdef bytes begin = stream.take(size)
        cdef Py_ssize_t got = PyBytes_GET_SIZE(begin), room = max(min(size, PART), got), count
        cdef Descriptor descriptor = descriptor_of(self.socket)
        cdef PyObject *made
        if got == size:
            stream.came(size, NO_BODY)
            return begin
        made = new_bytes(NULL, room)
        memcpy(bytes_of(made), PyBytes_AS_STRING(begin), got)
        begin = None
        try:
            while got < size:
                if got == room:
                    room = min(size, 2 * room)
                    resize(&made, room)
                start = monotonic()
                descriptor.limit = self.body_patience()
                count = descriptor.receive(self.socket, bytes_of(made) + got, min(room - got, PART), 0)
                if not count:
                    raise self.client_left()
                self.body_came(count, monotonic() - start)
                got += count
        except BaseException as error:
            if made != NULL:
                resize(&made, got)
                stream.feed(taken(made))
            if isinstance(error, TimeoutError):
                raise ProtocolError(408, "the body comes too slowly") from None
            raise
        stream.came(size, NO_BODY)
        return taken(made)

    cdef object client_left(self):
        self.linger = False
        return ConnectionResetError(errno.ECONNRESET, "the client left in the middle of the request's body")

    cpdef bint discard_body(self, Py_ssize_t length) except -1:
        cdef RequestStream stream = self.stream
        cdef Py_ssize_t most
        if stream.state == NO_BODY:
            return True
        most = self.state.limits.discard
        # A client that was not told to continue may send the body or not (RFC 9110 section 10.1.1).  If some of it has
        # come, the client sends it.
        if (self.awaits_continue and not stream.unread()) or length > most + self.body_received:
            return False
        while most >= 0 and (piece := self.read_body(False, 0)):
            most -= len(piece)
        return most >= 0

    cpdef bint body_is_over(self) except -1:
        return self.stream.state == NO_BODY

    cpdef object request_trailers(self):
        return self.stream.trailers

    # ---------------------------------------------------------------- sending

    cdef int transmit(self, data, int flags) except -1:
        """Send all of `data`, any object with a buffer of bytes.

        Raises TimeoutError if the client takes nothing of it for `Limits.write_timeout` seconds, OSError if it fails.
        """
        cdef Py_ssize_t size = size_of(data)
        cdef Py_ssize_t sent = 0
        cdef Descriptor descriptor
        if size <= JOIN_BELOW:
            if type(data) is bytes and type(self.socket) is PLAIN:
                descriptor = descriptor_of(self.socket)
                descriptor.limit = self.state.write_timeout
                descriptor.transmit_all(PyBytes_AS_STRING(data), size, flags)
                return 0
            if type(self.socket) is TLS:
                descriptor = descriptor_of(self.socket)
                descriptor.limit = self.state.write_timeout
                transmit_all_tls(self.socket, data, flags)
                return 0
            self.descriptor.timeout = self.state.write_timeout
            if flags:
                self.socket.sendall(data, flags)
            else:
                self.socket.sendall(data)
            return 0
        self.descriptor.timeout = self.state.write_timeout
        with memoryview(data).cast("B") as view:
            while sent < len(view):
                # Each part has the whole time, so that a slow client may take long for all of it.
                sent += self.socket.send(view[sent:sent + PART])
        return 0

    cdef int send(self, data) except -1:
        """Send all of `data`, which is part of the response."""
        try:
            self.transmit(data, 0)
        except OSError as error:
            self.broken = error
            raise
        self.sent += size_of(data)
        return 0

    cdef int send_parts(self, list parts) except -1:
        """Send the bytes objects in `parts` without copying them together, where the socket can."""
        cdef Py_ssize_t sent = 0
        if SENDMSG is not None and not self.tls:
            try:
                sent = SENDMSG(self.socket, parts)
            except BlockingIOError:
                pass
            except OSError as error:
                self.broken = error
                raise
        self.sent += sent
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
            else:
                self.send(memoryview(part)[sent:] if sent else part)
                sent = 0
        return 0

    cpdef object send_interim(self, bytes status, long code, list fields):
        self.send(assemble(status, fields, b""))

    cpdef object send_head(self, bytes status, long code, list fields, data, bint chunked, bint last):
        cdef Py_ssize_t size = size_of(data)
        if size <= JOIN_BELOW and not (chunked and size):
            self.send(assemble(status, fields, data if type(data) is bytes else bytes(data)))
            return
        head = assemble(status, fields, b"")
        parts = [head, b"%x\r\n" % size, data, b"\r\n"] if chunked else [head, data]
        if size <= JOIN_BELOW:
            self.send(b"".join(parts))
        else:
            self.send_parts(parts)

    cpdef object send_data(self, data, bint chunked, bint last):
        cdef Py_ssize_t size = size_of(data)
        if not chunked:
            self.send(data)
        elif size <= JOIN_BELOW:
            self.send(b"".join((b"%x\r\n" % size, data, b"\r\n")))
        else:
            self.send_parts([b"%x\r\n" % size, data, b"\r\n"])

    cpdef object send_end(self, trailers, bint chunked):
        if chunked:
            self.send(last_chunk(trailers) if trailers else LAST_CHUNK)

    cpdef bint can_send_files(self) except -1:
        return not self.tls

    cpdef Py_ssize_t send_file(
            self, bytes status, list fields, int fd, Py_ssize_t offset, Py_ssize_t count) except -1:
        cdef Py_ssize_t done = 0
        head = assemble(status, fields, b"")
        try:
            self.transmit(head, MSG_MORE)  # the kernel puts the file's beginning behind it
            self.sent += len(head)
            while done < count:
                try:
                    size = os.sendfile(self.socket.fileno(), fd, offset + done, min(count - done, FILE_PART))
                except BlockingIOError:
                    self.descriptor.wait_write(self.state.write_timeout)
                    continue
                if not size:
                    break
                done += size
                self.sent += size
        except OSError as error:
            self.broken = error
            raise
        return done

    # ---------------------------------------------------------------- the end

    def close(self):
        """End the connection in order and close the socket.  Closing again does nothing."""
        if self.socket is None:
            return
        try:
            end_connection(self.socket, self.tls, self.state.limits.linger_timeout if self.linger else None)
        finally:
            self.socket.close()
            self.socket = None
