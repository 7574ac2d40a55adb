# cython: nonecheck=True
"""How a WSGI application answers a request (PEP 3333), compiled: its environ, start_response, write, its result.

Called by: steps.pyx, whose handlers are derived from `WSGIExchange`.

Invariants:
- A body that arrives together with its head is in `wsgi.input` at once: nothing waits, nothing is left to discard.
- An application that takes the connection over (`weald.upgrade`) is the only one to write to it from then on.
"""

from cpython.dict cimport PyDict_Copy, PyDict_Update
from cpython.unicode cimport PyUnicode_FindChar

from weald.http.channel cimport Http1Channel, size_of
from weald.http.exchange cimport Exchange
from weald.http.protocol cimport Request

import io
import os
from tempfile import _TemporaryFileWrapper
from urllib.parse import unquote_to_bytes

from weald.http.body import FileWrapper, Input
from weald.http.protocol import tokens

cdef int READER_SIZE = io.DEFAULT_BUFFER_SIZE  # bytes


cdef bint is_whole(object result):
    """Return whether `result` is complete, so that its length is known."""
    return isinstance(result, (list, tuple))


cdef class Response:
    """`start_response` and `write` for one request.  They refuse calls after its end, which could hit the next one."""

    cdef WSGIExchange exchange
    cdef unsigned long number

    cdef int check(self) except -1:
        if self.exchange.number != self.number:
            raise self.exchange.ApplicationError("the request has ended")
        return 0

    def start_response(self, status, headers, exc_info=None):
        """As WSGIExchange.start_response."""
        self.check()
        write = self.exchange.start(status, headers, exc_info)
        return self.write if write is None else write

    def write(self, data):
        """As WSGIExchange.write."""
        self.check()
        self.exchange.send_body(data)

    def take_over(self, go_away=None):
        """As Exchange.take_over."""
        self.check()
        return self.exchange.take_over(go_away)


cdef Response response_of(WSGIExchange exchange):
    """Return what the exchange's current request is answered with."""
    cdef Response made = Response.__new__(Response)
    made.exchange = exchange
    made.number = exchange.number
    return made


cdef class WSGIExchange(Exchange):
    """WSGIExchange(channel, server, client_address): exchanges that the WSGI application `server.application` answers.

    `server` also has the environment: `environ`, or `get_environ()` if that does more than copy it.
    """

    def __init__(self, channel, server, client_address):
        Exchange.__init__(self, channel, server, client_address)
        self.copies_environ = server.copies_environ()
        if isinstance(client_address, tuple):
            self.remote = (client_address[0], str(client_address[1]))

    cdef int clear(self) except -1:
        Exchange.clear(self)
        self.environ = self.wsgi_input = None
        return 0

    cdef int end(self) except -1:
        Exchange.end(self)
        self.reader = self.raw = None
        return 0

    def _error_context(self):
        environ = self.environ
        # It may hold secrets, which the report must not show.
        if not isinstance(environ, self.server.secure_environ_class):
            environ = self.server.secure_environ_class(environ or {})
        return environ

    # ---------------------------------------------------------------- the environment

    cdef int prepare(self) except -1:
        self.environ = self.make_environ()
        self.application = self.server.application
        return 0

    cdef object make_environ(self):
        """Return the environment of the request: the server's, and what the request adds."""
        cdef Request request = self.request
        cdef dict own
        cdef Py_ssize_t mark
        cdef bytes body
        server = self.server
        env = PyDict_Copy(server.environ) if self.copies_environ else server.get_environ()
        own = env if type(env) is dict else {}
        PyDict_Update(own, request.fields)
        own["REQUEST_METHOD"] = self.command
        target = self.path or ""
        mark = PyUnicode_FindChar(target, c"?", 0, len(target), 1)
        path = target if mark < 0 else target[:mark]
        own["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
        own["QUERY_STRING"] = "" if mark < 0 else target[mark + 1:]
        own["REQUEST_URI"] = target
        own["SERVER_PROTOCOL"] = self.request_version
        if self.remote is not None:
            own["REMOTE_ADDR"], own["REMOTE_PORT"] = self.remote
        if self.disconnected is None:
            self.disconnected = self.channel.watch_client()
        own["weald.disconnected"] = self.disconnected
        cdef bint special = request.special
        if not special:
            if not request.length:
                if self.no_body is None:
                    self.no_body = Input(None)
                self.wsgi_input = own["wsgi.input"] = self.no_body
            else:
                body = self.channel.body_at_hand(request.length) if request.length > 0 else None
                if body is not None:
                    self.wsgi_input = own["wsgi.input"] = Input(None, body)
                else:
                    special = True
        if own is not env:
            env.update(own)
        if special:
            self.add_special(env)
        return env

    cdef int add_special(self, env) except -1:
        """Add the keys to `env` that the application needs for a body, a change of protocol, or trailers."""
        cdef Request request = self.request
        self.wsgi_input = self.streamed = env["wsgi.input"] = Input(self._next_piece if request.length else None)
        self.channel.expect_body(request)
        # Whether the client asks for another protocol (RFC 9110 section 7.8).
        asked = "upgrade" in tokens(request.fields.get("HTTP_CONNECTION", ""))
        if not request.length and (asked or request.fields.get("HTTP_UPGRADE", "").lower() == "websocket"):
            env["wsgi.input"] = self.connection_file()
            self.lent = True
            env["wsgi.input_terminated"] = False
            if asked and "HTTP_UPGRADE" in request.fields:
                env["werkzeug.socket"] = self.channel.socket  # where libraries for WebSockets look for it
                env["weald.upgrade"] = response_of(self).take_over
        self.trailers = None
        if "trailers" in tokens(request.fields.get("HTTP_TE", "")):
            env["weald.trailers"] = self.trailers = []
        return 0

    def _next_piece(self, size):
        """Return the next piece of the request's body, `size` bytes if it can, b"" at its end, for `wsgi.input`."""
        self.reading += 1
        try:
            piece = self.read_body(size)
        finally:
            self.reading -= 1
        if not piece:
            self.wsgi_input.trailers = self.channel.request_trailers()
        return piece

    # ---------------------------------------------------------------- the application

    cdef int run(self) except -1:
        """Call the application and send what it returns."""
        result = None
        try:
            self.result = result = self.application(self.environ, response_of(self).start_response)
            self.send_result()
        finally:
            self.result = None
            if type(result) is not list:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        return 0

    cdef int send_result(self) except -1:
        """Send what the application has returned, and the end of the response."""
        result = self.result
        if self.lent and self.channel.socket is not None and self.channel.socket.fileno() < 0:
            self.given_away = self.close_connection = True  # a library for WebSockets has closed it
        if self.given_away:
            for _ in result:
                pass
            return 0
        if is_whole(result):
            data = result[0] if len(result) == 1 else b"".join(result)
            if data:
                self.send_body(data)
        elif isinstance(result, FileWrapper) and self.sends_file(result):
            pass
        else:
            for data in result:
                if data:
                    self.send_body(data)
        if not self.headers_sent:
            if not self.status:
                if self.lent:
                    # A library for WebSockets has answered on the connection's socket itself (simple-websocket).
                    self.close_connection = True
                    return 0
                # Also if start_response() has raised, and the application has caught that.
                self.log_error("the application did not call start_response()")
                self._send_error_response_if_possible(500)
                return 0
            self.send_body(b"")
        self.end_body()
        return 0

    cdef Py_ssize_t body_size(self) except? -2:
        cdef Py_ssize_t size = 0
        result = self.result
        if not is_whole(result):
            return -1
        for piece in result:
            size += size_of(piece)
        return size

    cdef int seal(self) except -1:
        self.number += 1
        if self.streamed is not None:
            if self.reading:
                self.close_connection = True  # a reader still waits, and would get the next request's bytes
            self.streamed.seal()
            self.streamed = None
        if self.lent:
            self.lent = False
            if not self.upgraded():
                self.raw.seal()
                self.reader = self.raw = None
        return 0

    cdef object start(self, status, headers, exc_info):
        """`start_response`; returns None instead of the usual `write`."""
        self.begin(status, headers, exc_info)

    def start_response(self, status, headers, exc_info=None):
        """Take the response's status and fields, as PEP 3333 says.  Return `write`.

        Raises UnicodeError, TypeError or ValueError for a bad status or field, ApplicationError if it was called
        before and `exc_info` is not given, and the exception in `exc_info` if the head was sent already.
        """
        self.begin(status, headers, exc_info)
        return self.write

    cdef int begin(self, status, headers, exc_info) except -1:
        """The work of `start_response`."""
        if self.given_away:
            return 0
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise self.ApplicationError("start_response() was called before; a second call needs exc_info")
        self.begin_response(status, headers)
        return 0

    cdef int begin_error(self, str status, list headers) except -1:
        self.start_response(status, headers)  # which subclasses may have replaced
        return 0

    def write(self, data):
        """Send `data`, bytes of the body, with the head in front if that was not sent yet.

        Raises ApplicationError if it is more than the Content-Length promised, OSError if the client does not take it.
        """
        Exchange.send_body(self, data)

    cdef bint sends_file(self, wrapper) except -1:
        """Send a file by sendfile(2).  Return False if it has to be read instead."""
        cdef Py_ssize_t size, count, sent
        file = wrapper.filelike
        if type(file) is _TemporaryFileWrapper:
            file = file.file
        # Others may have a descriptor, and give other bytes than are behind it: GzipFile, say.
        raw = file.raw if type(file) in (io.BufferedReader, io.BufferedRandom) else file
        if type(raw) is not io.FileIO:
            return False
        try:
            fd = file.fileno()
            offset = file.tell()
            size = os.fstat(fd).st_size - offset
        except (AttributeError, OSError, ValueError):
            return False
        if size <= 0 or self.headers_sent or not self.status or self.is_bodiless():
            return False
        if not self.channel.can_send_files():
            return False
        if self.provided_content_length is None:
            self.response_headers.append((b"Content-Length", b"%d" % size))
            self.provided_content_length = str(size)
        count = min(size, int(self.provided_content_length))
        self.finish_head()
        if self.command == "HEAD":
            self.channel.send_head(self.status, self.code, self.response_headers, b"", False, True)
            return True
        sent = self.channel.send_file(self.status, self.response_headers, fd, offset, count)
        if self.left >= 0:
            self.left -= sent
        return True

    # ---------------------------------------------------------------- other protocols on the connection

    cdef object connection_file(self):
        """Return the connection as a file that another protocol is read from; None once the connection has ended."""
        if self.reader is None and self.channel.socket is not None:
            self.raw = _ConnectionFile(self)
            self.reader = io.BufferedReader(self.raw)
        return self.reader


class _ConnectionFile(io.RawIOBase):
    """The bytes of a connection that changes its protocol: those that were read already, then the socket's.

    There are none before the response says that the protocol changes: a request that asks for another protocol has no
    body, and reading one must not wait.  Once bytes were read here, the connection serves no further request.
    """

    def __init__(self, WSGIExchange exchange):
        self._exchange = exchange
        self._sock = exchange.channel.socket
        self._dry = False

    def seal(self):
        """Read nothing from now on: the request has ended without a change of protocol."""
        self._dry = True

    def readable(self):
        return True

    def readinto(self, buffer):
        cdef WSGIExchange exchange = self._exchange
        cdef Http1Channel channel = exchange.channel
        # Without a request, it is a subclass of the handler that reads the request line by itself.
        if self._dry or (exchange.request is not None and not exchange.upgraded()):
            return 0
        exchange.close_connection = True
        if channel.stream.unread():
            data = channel.stream.rest(len(buffer))
            buffer[:len(data)] = data
            return len(data)
        channel.descriptor.timeout = None
        return self._sock.recv_into(buffer)

    def unread(self, reader):
        """Return what `reader`, which reads from here, has buffered."""
        self._dry = True
        try:
            return reader.read1(READER_SIZE)
        finally:
            self._dry = False
