# cython: nonecheck=True
"""What every request costs, compiled: waiting for it, its environment, the application, the response's head and body.

Called by: handler.py, whose WSGIHandler is derived from `Exchange`; http2.py replaces how a stream sends.

Invariants:
- Each step is a method that subclasses may replace: `STEPS` lists them.  A step that nobody has replaced is called
  in C, as `do_…`; another through the object, as Python does it.  Who has replaced what is looked up for a
  connection's first request, and for a later one if the class has changed.  Attributes hold any object, for
  subclasses set them.
- A response whose head and body are known together leaves in one system call.
- Never more of a body than its Content-Length promised; less of it closes the connection.
- A response without a length is chunked, or ended by the connection's end for HTTP/1.0.

Long because each step of a request stands here twice: as a method, and in C.
"""

from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBUF_WRITABLE, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer)
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromFormat, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_Update
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_FindChar
from libc.string cimport memcpy
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from weald._core.descriptor cimport Descriptor, descriptor_of
from weald.http.protocol cimport HeadParser, NO_BODY, Request, RequestStream, number_in

import sys
from urllib.parse import unquote_to_bytes

from weald._core import Timeout
from weald.http.body import FileWrapper, Input, InvalidClientInput
from weald.http.disconnected import Disconnected
from weald.http.environ import NoopLog
from weald.http.fields import date, field_name, field_value, names, status_line, statuses, values
from weald.http.protocol import ProtocolError, tokens
from weald.socket import socket as plain_socket

cdef enum:
    CLASSES = 6  # of statuses: 0xx, 1xx, …, 5xx

cdef Py_ssize_t BUFFER = 65536  # bytes that are received at once
cdef Py_ssize_t JOIN_BELOW = 65536  # bytes: copying less than this into one buffer is cheaper than a vector
cdef bytes LAST_CHUNK = b"0\r\n\r\n"
cdef enum:  # fields that matter here, by their numbers in fields.py
    CONTENT_LENGTH = 1
    DATE = 2
    CONNECTION = 3
    TRANSFER_ENCODING = 4

cdef dict STATUSES = statuses
cdef dict NAMES = names
cdef dict VALUES = values
cdef object PLAIN = plain_socket
cdef tuple date_field = None
cdef double date_start = 0.0
cdef double date_end = 0.0  # until when `date_field` is right


cdef extern from *:
    """
    /* Changes whenever the type or a base of it does (PEP 659's caches live by it); 0: nothing can be told. */
    static unsigned int weald_version(PyObject *object) { return Py_TYPE(object)->tp_version_tag; }
    """
    unsigned int version_of "weald_version"(PyObject *)

# Bits of `Exchange.replaced`, in this order.
STEPS = (
    "handle_one_request", "read_requestline", "read_request", "get_environ", "handle_one_response", "run_application",
    "process_result", "log_request", "write", "_write_with_headers", "finalize_headers", "_sendall",
)
cdef enum:
    HANDLE_ONE_REQUEST = 1 << 0
    READ_REQUESTLINE = 1 << 1
    READ_REQUEST = 1 << 2
    GET_ENVIRON = 1 << 3
    HANDLE_ONE_RESPONSE = 1 << 4
    RUN_APPLICATION = 1 << 5
    PROCESS_RESULT = 1 << 6
    LOG_REQUEST = 1 << 7
    WRITE = 1 << 8
    WRITE_WITH_HEADERS = 1 << 9
    FINALIZE_HEADERS = 1 << 10
    SENDALL = 1 << 11
    ALL_STEPS = (1 << 12) - 1


cdef double time() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef tuple current_date(double now):
    """The Date field."""
    global date_field, date_start, date_end
    if not date_start <= now < date_end:
        date_field = date.at(now)
        date_start, date_end = date.start, date.end
    return date_field


cdef inline char *put(char *to, bytes what) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(what)
    memcpy(to, PyBytes_AS_STRING(what), size)
    return to + size


cdef bytes assemble(bytes status, list headers, bytes body):
    """A response's head with `body` behind it."""
    cdef bytes name, value, made
    cdef char *to
    cdef Py_ssize_t size = 13 + len(status) + len(body)
    for name, value in headers:
        size += 4 + len(name) + len(value)
    made = PyBytes_FromStringAndSize(NULL, size)
    to = PyBytes_AS_STRING(made)
    memcpy(to, b"HTTP/1.1 ", 9)
    to = put(to + 9, status)
    for name, value in headers:
        to[0], to[1] = c"\r", c"\n"
        to = put(to + 2, name)
        to[0], to[1] = c":", c" "
        to = put(to + 2, value)
    memcpy(to, b"\r\n\r\n", 4)
    put(to + 4, body)
    return made


cdef bint has_length(object result):
    """Is the whole of `result` there, so that its length can be told?"""
    return isinstance(result, (list, tuple))


cdef class Common:
    """Common(limits): what the connections of a server share."""

    cdef readonly HeadParser parser
    cdef readonly bytearray buffer  # what comes is received into it, and copied before anything else runs
    cdef public bint draining  # is whoever is served told to connect anew?
    cdef readonly long served  # responses that were counted
    cdef long requests
    cdef double head_timeout, keep_alive_timeout, write_timeout
    cdef Py_buffer row
    cdef double *counters  # what is in `row`; NULL: nobody counts
    cdef list edges

    def __init__(self, limits):
        self.parser = HeadParser(limits)
        self.buffer = bytearray(BUFFER)
        self.requests = limits.requests
        self.head_timeout = limits.head_timeout
        self.keep_alive_timeout = limits.keep_alive_timeout
        self.write_timeout = limits.write_timeout

    def __dealloc__(self):
        if self.counters != NULL:
            PyBuffer_Release(&self.row)

    def count_in(self, row, edges):
        """Count responses in `row`, a writable buffer of doubles.

        These are: how many there were of the classes 0xx (none was sent) to 5xx, their seconds, and how many took up to
        edges[0], edges[1], …, and more than the last.
        """
        cdef list numbers = [float(edge) for edge in edges]
        if self.counters != NULL:
            raise ValueError("responses are counted already")
        PyObject_GetBuffer(row, &self.row, PyBUF_WRITABLE | PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        if self.row.format == NULL or self.row.format != b"d" or self.row.len < 8 * (CLASSES + 2 + len(numbers)):
            PyBuffer_Release(&self.row)
            raise ValueError(f"to count, a buffer of at least {CLASSES + 2 + len(numbers)} doubles is needed")
        self.edges = numbers
        self.counters = <double *>self.row.buf

    cdef int count(self, long code, double seconds) except -1:
        cdef Py_ssize_t kind = abs(code) // 100
        cdef Py_ssize_t i = 0
        cdef Py_ssize_t last = len(self.edges)
        self.served += 1
        self.counters[kind if kind < CLASSES else 0] += 1
        self.counters[CLASSES] += max(seconds, 0.0)  # clocks are set back now and then
        while i < last and seconds > <double>self.edges[i]:
            i += 1
        self.counters[CLASSES + 1 + i] += 1
        return 0


cdef class Exchange:
    """The half of a handler that each request goes through."""

    # The connection
    cdef public object socket
    cdef public object client_address
    cdef public object server
    cdef public object close_connection
    cdef public Common _common  # the server's
    cdef public object _stream  # RequestStream, or http2's
    cdef public object _descriptor  # the socket's
    cdef public object _disconnected
    cdef public object _remote  # the client's address and port, if it has any
    cdef public long _served  # requests so far
    cdef public object _idle  # has nothing of the next request come yet?
    cdef public object _linger  # may the client be sending yet when we close?
    cdef public object _given_away  # does somebody else speak to the client by now?
    # The request
    cdef public object environ
    cdef public object application
    cdef public object requestline
    cdef public object command
    cdef public object path
    cdef public object request_version
    cdef public object wsgi_input
    cdef public object time_start
    cdef public object time_finish
    cdef public Request _request
    cdef public object _headers
    cdef public object _rfile
    cdef public object _raw  # what `_rfile` reads from
    cdef public object _continue  # does the client wait for 100 Continue?
    cdef public object _waited  # seconds spent waiting for the body
    cdef public object _received  # bytes of it
    cdef object no_body  # wsgi.input of requests without one
    cdef public object _copies_environ  # is a copy of the server's dict what its get_environ() would give?
    cdef int replaced  # the steps that are not ours
    cdef unsigned int version  # the class's, when that was looked up
    # The response
    cdef public object status  # bytes: b"200 OK"
    cdef public object code
    cdef public object response_headers  # [(b"name", b"value")]
    cdef public object provided_date
    cdef public object provided_content_length
    cdef public object headers_sent
    cdef public object response_use_chunked
    cdef public object response_length  # bytes sent, with the head
    cdef public object result
    cdef public object _left  # bytes of body that the Content-Length still promises
    cdef public object _trailers

    def __cinit__(self):
        self.close_connection = self._idle = self._given_away = self._continue = False
        self.headers_sent = self.response_use_chunked = False
        self._linger = True
        self._served = self._received = self.response_length = self.time_start = self.time_finish = 0
        self._waited = 0.0
        self._copies_environ = False
        self.replaced = ALL_STEPS

    cdef int look_up_steps(self) except -1:
        """Find out which steps have been replaced, unless nothing has changed."""
        if self.version == version_of(<PyObject *>self) and self.version:
            return 0
        own = getattr(self, "__dict__", ())
        self.replaced = 0
        for i, name in enumerate(STEPS):
            if getattr(type(self), name) is not ORIGINALS[i] or name in own:
                self.replaced |= 1 << i
        self.version = version_of(<PyObject *>self)

    # ---------------------------------------------------------------- the request

    def _handle_requests(self):
        """Serve requests until one is the last; what it gave."""
        while self.socket is not None:
            self.time_start = time()
            self.time_finish = 0
            self.look_up_steps()
            result = self.handle_one_request() if self.replaced & HANDLE_ONE_REQUEST else self.do_handle_one_request()
            if result is not True:
                return result
        return None

    def handle_one_request(self):
        """Serve one request.

        True: more may follow.  None: close the connection.  A tuple (status, response): send the response, close.
        """
        self.look_up_steps()
        return self.do_handle_one_request()

    cdef object do_handle_one_request(self):
        try:
            # While it waits, a connection keeps nothing of its last request.
            self._request = self.environ = self.wsgi_input = self.response_headers = self._trailers = None
            if self.replaced & READ_REQUESTLINE:
                line = self.read_requestline()
                if isinstance(line, bytes):  # an old subclass's
                    line = line.decode("latin-1")
            else:
                line = self.do_read_requestline()
            self.requestline = line
        except ProtocolError as error:
            if error.preface and self.server.http2 and not self._served:
                self._speak_http2()
                return None
            return self._handle_client_error(error)
        except OSError:
            self._linger = False
            return None
        if not line:
            return None
        self.look_up_steps()  # it may have waited for long
        self.response_length = 0
        try:
            if not (self.read_request(line) if self.replaced & READ_REQUEST else self.do_read_request(line)):
                return self._error_response(400)
        except Exception as error:
            return self._handle_client_error(error)
        self.environ = self.get_environ() if self.replaced & GET_ENVIRON else self.do_get_environ()
        self.application = self.server.application
        if self.replaced & HANDLE_ONE_RESPONSE:
            self.handle_one_response()
        else:
            self.do_handle_one_response()
        return None if self.close_connection or self.socket is None else True

    def _next_request(self):
        """The next request; None when the client closes or lets the connection idle.  Raises ProtocolError."""
        return self.wait_for_request()

    cdef Request wait_for_request(self):
        cdef RequestStream stream = self._stream
        cdef Request request
        cdef bint pending = stream.unread()
        if pending and (request := stream.next_request()) is not None:
            return request
        self._idle = not pending
        try:
            if not self.receive(
                stream,
                self._common.keep_alive_timeout if self._served and not pending else self._common.head_timeout,
            ):
                return None
        except TimeoutError:
            if pending:
                raise ProtocolError(408, "no complete head in time") from None
            return None
        self._idle = False
        request = stream.next_request()
        return self.wait_for_rest(stream) if request is None else request

    cdef Request wait_for_rest(self, RequestStream stream):
        """A head that comes in pieces: one timer for all, as there may be as many as bytes."""
        cdef Request request
        timer = Timeout.start_new(self._common.head_timeout)
        try:
            while self.receive(stream, -1.0):
                request = stream.next_request()
                if request is not None:
                    return request
        except Timeout as error:
            if error is timer:
                raise ProtocolError(408, "no complete head in time") from None
            raise
        finally:
            timer.close()
        return None

    cdef bint receive(self, RequestStream stream, double timeout) except -1:
        """Feed `stream` with what comes next, within `timeout` seconds (negative: for ever).  False at the end."""
        cdef char *buffer = PyByteArray_AS_STRING(self._common.buffer)
        cdef Py_ssize_t count
        cdef Descriptor descriptor
        if type(self.socket) is PLAIN:
            # recv_into() without what Python's calling convention costs.
            descriptor = descriptor_of(self.socket)
            descriptor.limit = timeout
            count = descriptor.receive(self.socket, buffer, BUFFER, 0)
        else:
            self._descriptor.timeout = None if timeout < 0.0 else timeout
            count = self.socket.recv_into(self._common.buffer, BUFFER)
        if not count:
            # When the server has woken us to end an idle connection, the client's end is yet to come.
            self._linger = self._common.draining
            return False
        stream.feed(PyBytes_FromStringAndSize(buffer, count))
        return True

    def read_requestline(self):
        """Wait for the next request; its first line, "" when there is none.  Raises ValueError for a bad one."""
        return self.do_read_requestline()

    cdef str do_read_requestline(self):
        cdef Request request = self.wait_for_request()
        self._request = request
        return "" if request is None else request.line

    def read_request(self, raw_requestline):
        """Set the attributes that describe the request.  Raises ValueError if the request is invalid."""
        return self.do_read_request(raw_requestline)

    cdef bint do_read_request(self, raw_requestline) except -1:
        cdef Request request = self._request
        if request is None:
            request = self._request = self._read_behind(raw_requestline)
        self.command = request.method
        self.path = request.target
        self.request_version = request.version
        self._headers = None
        self._served += 1
        self.close_connection = (
            not request.keep_alive or self._common.draining or self._served >= self._common.requests
        )
        return True

    def get_environ(self):
        """The environment of the request: the server's, and what the request adds."""
        return self.do_get_environ()

    cdef object do_get_environ(self):
        cdef Request request = self._request
        cdef dict own
        cdef Py_ssize_t mark
        server = self.server
        env = PyDict_Copy(server.environ) if self._copies_environ else server.get_environ()
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
        if self._remote is not None:
            own["REMOTE_ADDR"], own["REMOTE_PORT"] = self._remote
        if self._disconnected is None:
            self._disconnected = Disconnected(self.socket)
        own["weald.disconnected"] = self._disconnected
        cdef bint special = request.special
        if not special:
            if not request.length:
                if self.no_body is None:
                    self.no_body = Input(None)
                self.wsgi_input = own["wsgi.input"] = self.no_body
            elif 0 < request.length <= (<RequestStream>self._stream).unread():
                self.wsgi_input = own["wsgi.input"] = Input(None, (<RequestStream>self._stream).body())
            else:
                special = True
        if own is not env:
            env.update(own)
        if special:
            self._special_environ(request, env)
        return env

    # ---------------------------------------------------------------- the application

    def handle_one_response(self):
        """Run the application for the request, and log it.  No Exception leaves here."""
        self.do_handle_one_response()

    cdef int do_handle_one_response(self) except -1:
        cdef Request request
        self.time_start = time()
        self.status = None
        self.headers_sent = False
        self.response_use_chunked = False
        try:
            if self.replaced & RUN_APPLICATION:
                self.run_application()
            else:
                self.do_run_application()
            request = self._request
            if request is None:
                pass
            elif request.special:
                self._discard_body()
                if self.code == 101:
                    self.close_connection = True
            elif request.length and (<RequestStream>self._stream).state != NO_BODY:
                self._discard_body()
        except InvalidClientInput as error:
            self._handle_client_error(error)
            self.close_connection = True
            self._send_error_response_if_possible(error.status)
        except OSError as error:
            self.close_connection = True
            if isinstance(error, TimeoutError) or error.errno in self.ignored_socket_errors:
                self._linger = False
            else:
                self.handle_error(*sys.exc_info())
        except Exception:
            self.handle_error(*sys.exc_info())
            if self._stream.in_body:
                self._discard_body()
        except BaseException:
            self.handle_error(*sys.exc_info())
            self.close_connection = True
            self._linger = False
            raise
        finally:
            self.time_finish = time()
            self.finish()
        return 0

    def run_application(self):
        """Call the application and send what it returns."""
        self.do_run_application()

    cdef int do_run_application(self) except -1:
        result = None
        try:
            self.result = result = self.application(self.environ, self.start_response)
            if self.replaced & PROCESS_RESULT:
                self.process_result()
            else:
                self.do_process_result()
        finally:
            self.result = None
            # The usual results have none.
            if type(result) is not list:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
        return 0

    def process_result(self):
        """Send the application's result and what ends the response."""
        self.do_process_result()

    cdef int do_process_result(self) except -1:
        result = self.result
        if self._given_away:
            for _ in result:
                pass
            return 0
        if has_length(result):
            data = result[0] if len(result) == 1 else b"".join(result)
            if data:
                self.put_out(data)
        elif isinstance(result, FileWrapper) and self._send_file(result):
            pass
        else:
            for data in result:
                if data:
                    self.put_out(data)
        if not self.headers_sent:
            if not self.status:
                # Or start_response() has raised, and the application has dealt with that.
                self.log_error("the application did not call start_response()")
                self._send_error_response_if_possible(500)
                return 0
            self.put_out(b"")
        if self.command == "HEAD":
            return 0
        if self.response_use_chunked:
            self.send_all(self._last_chunk() if self._trailers else LAST_CHUNK)
        elif self._left:
            # The client would take the next response for the rest of this one.
            self.close_connection = True
            self.log_error("the application sent %d bytes less than its Content-Length", self._left)
        return 0

    def _finish(self):
        """The response has gone, or will not: count and log it."""
        self.finish()

    cdef int finish(self) except -1:
        if self._common.counters != NULL:
            self._common.count(self.code or 0, self.time_finish - self.time_start if self.time_finish else 0.0)
        if self.replaced & LOG_REQUEST:
            self.log_request()
        else:
            self.do_log_request()
        return 0

    def log_request(self):
        """Write the access log's line."""
        self.do_log_request()

    cdef int do_log_request(self) except -1:
        log = self.server.log
        if type(log) is not NoopLog:
            try:
                log.write(self.format_request() + "\n")
            except Exception:  # the response has gone; a log that fails is no reason to give up the connection
                self._print_unexpected_exc()

    # ---------------------------------------------------------------- the response

    def start_response(self, status, headers, exc_info=None):
        """PEP 3333's start_response().  Raises UnicodeError, TypeError or ValueError for a bad status or field."""
        if self._given_away:
            return self.write
        if exc_info:
            try:
                if self.headers_sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self.status is not None:
            raise self.ApplicationError("start_response() was called before; a second call needs exc_info")
        cdef tuple known = STATUSES.get(status)
        line, code = status_line(status) if known is None else known
        given_date = length = None
        cdef bint connection = False
        cdef int kind
        cdef list response_headers = []
        for item in headers:
            name, value = item
            known = NAMES.get(name)
            if known is None:
                known = field_name(name)
            encoded = VALUES.get(value)
            if encoded is None:
                encoded = field_value(name, value)
            kind = known[1]
            if kind == TRANSFER_ENCODING:  # ours to decide: PEP 3333, "Other HTTP Features"
                continue
            response_headers.append((known[0], encoded))
            if kind == CONTENT_LENGTH:
                if number_in(value) < 0:
                    raise ValueError("Content-Length must be a number", value)
                if length is not None:
                    raise ValueError("Content-Length was given twice", value)
                length = value
            elif kind == DATE:
                given_date = value
            elif kind == CONNECTION:
                connection = True
                if "close" in tokens(value):
                    self.close_connection = True
        if length is not None and (code == 204 or code == 304) and length != "0":
            # Bytes, as gevent has it: some applications send the exception's arguments.
            text = f"Invalid Content-Length for {code} response: {length!r} (must be absent or zero)"
            raise self.ApplicationError(text.encode("latin-1"))
        self.status = line
        self.code = code
        self.response_headers = response_headers
        self.provided_date = given_date
        self.provided_content_length = length
        if self._common.draining:
            self.close_connection = True
        if not connection:
            if self.close_connection:
                response_headers.append((b"Connection", b"close"))
            elif self.request_version == "HTTP/1.0":
                response_headers.append((b"Connection", b"keep-alive"))
        return self.write

    def finalize_headers(self):
        """Add the fields that the application left to the server, just before the head is sent."""
        self.do_finalize_headers()

    cdef int do_finalize_headers(self) except -1:
        cdef Py_ssize_t total
        cdef list headers = self.response_headers
        if self.provided_date is None:
            headers.append(current_date(self.time_start))
        code = self.code
        length = self.provided_content_length
        self._left = None
        if code == 204 or code == 304 or code < 200:
            return 0
        if length is not None:
            total = number_in(length)
            self._left = total if total >= 0 else int(length)
            return 0
        result = self.result
        if has_length(result):
            total = 0
            for piece in result:
                total += len(piece)
            self._left = total
            headers.append((b"Content-Length", PyBytes_FromFormat(b"%zd", total)))
        elif self.request_version == "HTTP/1.0":
            # The connection's end is the body's (RFC 9112 section 6.3).
            self.close_connection = True
            headers[:] = [field for field in headers if field != (b"Connection", b"keep-alive")]
        else:
            self.response_use_chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        return 0

    def write(self, data):
        """Send `data` of the body, after the head if that has not gone; start_response() returns it."""
        self.do_write(data)

    cdef int put_out(self, data) except -1:
        if self.replaced & WRITE:
            self.write(data)
        else:
            self.do_write(data)
        return 0

    cdef int do_write(self, data) except -1:
        if self.headers_sent:
            if not self._given_away:
                self._write(data)
        elif not self.status:
            raise self.ApplicationError("The application did not call start_response()")
        elif self.replaced & WRITE_WITH_HEADERS:
            self._write_with_headers(data)
        else:
            self.do_write_with_headers(data)
        return 0

    cdef int finish_head(self) except -1:
        """From here on it counts as sent."""
        if self.replaced & FINALIZE_HEADERS:
            self.finalize_headers()
        else:
            self.do_finalize_headers()
        self.headers_sent = True
        return 0

    def _head(self, bytes body=b""):
        """The response's head with `body` behind it; it counts as sent."""
        self.finish_head()
        return assemble(self.status, self.response_headers, body)

    def _write_with_headers(self, data):
        self.do_write_with_headers(data)

    cdef int do_write_with_headers(self, data) except -1:
        if type(data) is not bytes and not PyObject_CheckBuffer(data):
            if not data:
                data = b""  # gevent-websocket sends the head by write("")
            elif self.code != 204 and self.code != 304:
                # While the client can still be told that something went wrong.
                raise TypeError(f"a response's body must be bytes, not {type(data).__name__}")
        self.finish_head()
        cdef Py_ssize_t size = len(data)
        left = self._left
        if left is not None and size <= left and size <= JOIN_BELOW and self.command != "HEAD":
            # As `_framed` does it, without the call.
            self._left = left - size
            self.send_all(assemble(self.status, self.response_headers, data if type(data) is bytes else bytes(data)))
            return 0
        cdef list parts = [assemble(self.status, self.response_headers, b"")]
        if size:
            try:
                parts += self._framed(data)
            except Exception:
                self.send_all(parts[0])
                raise
            if size > JOIN_BELOW:
                self._sendmsg(parts)
                return 0
        self.send_all(b"".join(parts))
        return 0

    def _write(self, data):
        parts = self._framed(data) if data else ()
        if len(parts) == 1:
            self.send_all(parts[0])
        elif len(data) > JOIN_BELOW:
            self._sendmsg(list(parts))
        elif parts:
            self.send_all(b"".join(parts))

    def _framed(self, data):
        """`data` as it goes out: as a chunk, nothing for HEAD.  Never more than Content-Length promised."""
        if self.command == "HEAD":
            return ()
        left = self._left
        if left is not None:
            if len(data) > left:
                self.close_connection = True
                raise self.ApplicationError(f"the body is longer than its Content-Length, by {len(data) - left} bytes")
            self._left = left - len(data)
            return (data,)
        if self.code in (204, 304):
            raise self.ApplicationError(f"The {self.code} response must have no body")
        if self.response_use_chunked:
            return (b"%x\r\n" % len(data), data, b"\r\n")
        return (data,)

    def _sendall(self, data):
        self.do_sendall(data)

    cdef int send_all(self, data) except -1:
        if self.replaced & SENDALL:
            self._sendall(data)
        else:
            self.do_sendall(data)
        return 0

    cdef int do_sendall(self, data) except -1:
        cdef Py_ssize_t size = len(data)
        cdef Descriptor descriptor
        try:
            if type(data) is bytes and size <= JOIN_BELOW and type(self.socket) is PLAIN:
                descriptor = descriptor_of(self.socket)
                descriptor.limit = self._common.write_timeout
                descriptor.transmit_all(PyBytes_AS_STRING(data), size, 0)
            elif size <= JOIN_BELOW:
                self._descriptor.timeout = self._common.write_timeout
                self.socket.sendall(data)
            else:
                self._send(data)
        except OSError as error:
            self._failed_to_send(error)
            raise
        self.response_length += size
        return 0


ORIGINALS = [vars(Exchange)[name] for name in STEPS]
