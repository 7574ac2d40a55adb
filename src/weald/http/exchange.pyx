# cython: nonecheck=True
"""One request and its response, compiled; for any protocol and any kind of application.

Called by: connection.pyx, which has one exchange and serves each request with it; wsgi.pyx and asgi.pyx derive
the exchanges with a WSGI and an ASGI application from it; steps.pyx.

An exchange reads the request's body from its channel and sends the response through it.  Derived classes know how to
call an application: `prepare`, `run` and `body_size`.

Invariants:
- No more of a body is sent than its Content-Length promised.  If it is less, the connection ends.
- A response of unknown length is sent in chunks, or for HTTP/1.0 ends with the connection; HTTP/2 needs neither.
- No Exception of an application leaves `respond`: it is reported, and the client is answered if nothing was sent yet.
"""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.bytes cimport PyBytes_FromFormat
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from weald.http.channel cimport Channel, Http1Channel, octets, size_of
from weald.http.protocol cimport Request, number_in

import errno
import sys
import traceback

from weald import get_hub
from weald._core import GreenletExit, report
from weald.http import fields, logs
from weald.http.body import InvalidClientInput
from weald.http.fields import date, field_name, field_value, status_line
from weald.http.protocol import tokens

cdef dict STATUSES = fields.statuses
cdef dict NAMES = fields.names
cdef dict VALUES = fields.values
cdef int CONTENT_LENGTH = fields.CONTENT_LENGTH
cdef int DATE = fields.DATE
cdef int CONNECTION = fields.CONNECTION
cdef int TRANSFER_ENCODING = fields.TRANSFER_ENCODING
cdef object NO_LOG = logs.NoopLog
cdef tuple date_field = None
cdef double date_start = 0.0
cdef double date_end = 0.0  # until when `date_field` is right


cdef double time() noexcept nogil:
    """Return seconds since 1970."""
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef tuple current_date(double now):
    """Return the Date field for the time `now`."""
    global date_field, date_start, date_end
    if not date_start <= now < date_end:
        date_field = date.at(now)
        date_start, date_end = date.start, date.end
    return date_field


cdef class Exchange:
    """Exchange(channel, server, client_address): serves requests that come through `channel`, one after the other.

    `server` is asked for `log` and `error_log`, whose `write` takes lines.
    """

    ApplicationError = AssertionError  # raised when an application breaks the rules
    ignored_socket_errors = (errno.EPIPE, errno.ECONNRESET)  # the client has left, which is not the server's error

    def __cinit__(self):
        self.close_connection = self.headers_sent = self.response_use_chunked = False
        self.time_start = self.time_finish = 0
        self.left = -1

    def __init__(self, Channel channel, server, client_address):
        self.channel = channel
        self.server = server
        self.client_address = client_address

    # ---------------------------------------------------------------- what Python code sees

    @property
    def socket(self):
        """The client's socket; None once the connection has ended."""
        return None if self.channel is None else self.channel.socket

    @socket.setter
    def socket(self, value):
        self.channel.socket = value

    @property
    def response_length(self):
        """How many bytes of the response have been sent, with its head."""
        return 0 if self.channel is None else self.channel.sent

    @response_length.setter
    def response_length(self, value):
        self.channel.sent = value

    @property
    def parsed_request(self):
        """The `Request` being served; None if what the client sent could not be read as one."""
        return self.request

    # ---------------------------------------------------------------- the request

    cdef object serve(self, line):
        """Serve the request whose first line is `line`.

        Returns True if the connection may serve another one, None if it must end, or a status and the response that is
        still to be sent before the end.
        """
        self.channel.sent = 0
        try:
            if not self.take_request(line):
                return fields.empty_response(400)
        except Exception as error:
            return self._handle_client_error(error)
        self.prepare()
        self.respond()
        return None if self.close_connection or self.channel.socket is None else True

    cdef bint take_request(self, line) except -1:
        """Set the attributes that describe the request.  Return False, or raise an Exception, to refuse it."""
        cdef Request request = self.request
        self.command = request.method
        self.path = request.target
        self.request_version = request.version
        self.close_connection = not request.keep_alive or self.is_last or self.channel.state.draining
        return True

    cdef int prepare(self) except -1:
        """Prepare the call of the application."""

    cdef bytes read_body(self, Py_ssize_t size):
        """Return the next piece of the request's body, b"" at its end; raises as `Channel.read_body` does."""
        try:
            return self.channel.read_body(not self.headers_sent, size)
        except InvalidClientInput:
            self.close_connection = True
            raise

    cdef int discard_body(self) except -1:
        """After the response: read what the application left of the body, or decide to end the connection."""
        if self.close_connection:
            return 0
        try:
            if not self.channel.discard_body(self.request.length):
                self.close_connection = True
        except OSError as error:
            self.close_connection = True
            if isinstance(error, InvalidClientInput):
                self._handle_client_error(error)
        return 0

    # ---------------------------------------------------------------- the application

    cdef int respond(self) except -1:
        """Run the application, and log the request.  No Exception leaves here."""
        cdef Request request
        self.time_start = time()
        self.status = None
        self.headers_sent = False
        self.response_use_chunked = False
        try:
            try:
                self.run()
            finally:
                self.seal()
            request = self.request
            if request is not None and (request.special or request.length):
                self.discard_body()
                if request.special and self.code == 101:
                    self.close_connection = True
        except InvalidClientInput as error:
            self._handle_client_error(error)
            self.close_connection = True
            self._send_error_response_if_possible(error.status)
        except OSError as error:
            self.close_connection = True
            if isinstance(error, TimeoutError) or error.errno in self.ignored_socket_errors:
                self.channel.linger = False
            else:
                self.handle_error(*sys.exc_info())
        except Exception:
            self.handle_error(*sys.exc_info())
            if self.request is not None:
                self.discard_body()
        except BaseException:
            self.handle_error(*sys.exc_info())
            self.close_connection = True
            self.channel.linger = False
            raise
        finally:
            self.time_finish = time()
            if self.channel.broken is not None:
                self.close_connection = True
                self.status = f"socket error: {self.channel.broken}"
                if self.code and self.code > 0:
                    self.code = -self.code
            self.finish()
        return 0

    cdef int run(self) except -1:
        """Call the application and send its response."""

    cdef int seal(self) except -1:
        """Detach the application, which has ended, from the connection: it must not affect the next request."""
        return 0

    cdef int finish(self) except -1:
        """Count the response and log it, whether it was sent or not."""
        if self.channel.state.counters != NULL:
            self.channel.state.count(self.code or 0, self.time_finish - self.time_start if self.time_finish else 0.0)
        self.log()
        return 0

    cdef int log(self) except -1:
        """Write a line to the access log."""
        log = self.server.log
        if type(log) is not NO_LOG:
            try:
                log.write(self.format_request() + "\n")
            except Exception:  # the response is sent; a log that fails must not end the connection
                self._print_unexpected_exc()
        return 0

    cdef int clear(self) except -1:
        """Forget the request: a connection that waits for the next one holds nothing of the last."""
        self.request = self.response_headers = self.trailers = None
        return 0

    cdef int end(self) except -1:
        """Drop what belongs to the connection, which has ended, so that no cycle is left for the garbage collector."""
        self.clear()
        self.go_away = None
        return 0

    cdef int move_to(self, Channel channel) except -1:
        """Serve the requests of another `channel` from now on, such as a stream of HTTP/2."""
        self.channel = channel
        return 0

    # ---------------------------------------------------------------- the response's head

    cdef int begin_response(self, status, headers) except -1:
        """Check and keep the status and fields of the response.  They are sent with the first piece of the body.

        `status` is a str like "200 OK", `headers` yields pairs of strs.  Raises UnicodeError, TypeError or ValueError
        for a bad status or field.
        """
        cdef tuple known
        cdef tuple checked = STATUSES.get(status)
        if checked is None:
            checked = status_line(status)
        cdef long code = checked[1]
        given_date = length = None
        cdef bint connection = False
        cdef bint close = False  # kept until all of it has been found right
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
            if kind == TRANSFER_ENCODING:  # the server's to decide (PEP 3333, "Other HTTP Features")
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
                    close = True
        if code < 200:
            self.check_informational(status, code)
        if length is not None and (code == 204 or code == 205):
            self.check_no_length(code, length)
            if code == 204:  # RFC 9110 section 8.6
                length = None
                response_headers = [field for field in response_headers if field[0].lower() != b"content-length"]
        self.status = checked[0]
        self.code = checked[1]
        self.response_headers = response_headers
        self.provided_date = given_date
        self.provided_content_length = length
        if close or self.channel.state.draining:
            self.close_connection = True
        if not connection:
            if self.close_connection:
                response_headers.append((b"Connection", b"close"))
            elif self.request_version == "HTTP/1.0":
                response_headers.append((b"Connection", b"keep-alive"))
        return 0

    cdef int check_informational(self, status, long code) except -1:
        """Raise ValueError unless `status` is 101 and the client has asked for another protocol.

        The other informational statuses are not the final response (RFC 9110 section 15.2); the server itself sends
        "100 Continue".
        """
        cdef Request request = self.request
        if code == 101 and not self.channel.framed:
            if request is None or "HTTP_UPGRADE" in request.fields:
                return 0
            if "upgrade" in tokens(request.fields.get("HTTP_CONNECTION", "")):
                return 0
        raise ValueError("a response needs a final status, not an informational one", status)

    cdef int check_no_length(self, long code, length) except -1:
        """Raise ApplicationError if the Content-Length of a response that has no body is not 0."""
        if length != "0":
            # Bytes: some applications send the exception's arguments.
            text = f"Invalid Content-Length for {code} response: {length!r} (must be absent or zero)"
            raise self.ApplicationError(text.encode("latin-1"))
        return 0

    cdef int complete_head(self) except -1:
        """Add the fields that the application left to the server, just before the head is sent."""
        cdef Py_ssize_t size
        cdef list headers = self.response_headers
        cdef long code = self.code
        if self.provided_date is None:
            headers.append(current_date(self.time_start))
        length = self.provided_content_length
        self.left = -1
        if code == 204 or code == 304 or code < 200:
            return 0
        if length is not None:
            self.left = number_in(length)
            if self.left < 0:  # set by other code than `begin_response`
                self.left = min(int(length), sys.maxsize)
            return 0
        size = self.body_size() if code != 205 else 0  # RFC 9110 section 15.3.6
        if size >= 0:
            self.left = size
            headers.append((b"Content-Length", PyBytes_FromFormat(b"%zd", size)))
        elif self.channel.framed:
            pass
        elif self.request_version == "HTTP/1.0":
            # The connection's end is the body's (RFC 9112 section 6.3).
            self.close_connection = True
            headers[:] = [field for field in headers if field != (b"Connection", b"keep-alive")]
        else:
            self.response_use_chunked = True
            headers.append((b"Transfer-Encoding", b"chunked"))
        return 0

    cdef Py_ssize_t body_size(self) except? -2:
        """Return the length of the whole body in bytes, -1 if it is not known yet."""
        return -1

    cdef int finish_head(self) except -1:
        """Complete the head, which counts as sent from here on."""
        self.complete_head()
        self.headers_sent = True
        return 0

    # ---------------------------------------------------------------- the response's body

    cdef int send_body(self, data) except -1:
        """Send a piece of the body, with the head in front if that was not sent yet."""
        if self.headers_sent:
            if not self.given_away:
                self.send_more(data)
        elif not self.status:
            raise self.ApplicationError("The application did not call start_response()")
        else:
            self.send_first(data)
        return 0

    cdef int send_first(self, data) except -1:
        """Send the head with the first piece of the body."""
        cdef Py_ssize_t size
        if type(data) is not bytes and not PyObject_CheckBuffer(data):
            if not data:
                data = b""  # some programs send the head alone by write("")
            elif not self.is_bodiless():
                # Raised here, while the client can still be sent an error.
                raise TypeError(f"a response's body must be bytes, not {type(data).__name__}")
        elif type(data) is not bytes:
            data = octets(data)
        self.finish_head()
        size = size_of(data)
        if size:
            if size <= self.left and self.command != "HEAD":
                self.left -= size
            else:
                try:
                    if not self.admit(data):
                        data = b""
                except Exception:
                    self.channel.send_head(self.status, self.code, self.response_headers, b"", False, False)
                    raise
        self.channel.send_head(
            self.status,
            self.code,
            self.response_headers,
            data,
            self.response_use_chunked,
            self.channel.framed and self.is_over(),
        )
        return 0

    cdef int send_more(self, data) except -1:
        """Send a further piece of the body."""
        if type(data) is not bytes:
            data = octets(data)
        if data and self.admit(data):
            self.channel.send_data(data, self.response_use_chunked, self.channel.framed and self.is_over())
        return 0

    cdef bint admit(self, data) except -1:
        """Return whether `data` is to be sent: the response to HEAD has no body.

        Raises ApplicationError if it is more than the Content-Length promised, or if the response must have no body.
        """
        cdef Py_ssize_t size
        if self.command == "HEAD":
            return False
        if self.is_bodiless():
            raise self.ApplicationError(f"The {self.code} response must have no body")
        if self.left >= 0:
            size = size_of(data)
            if size > self.left:
                self.close_connection = True
                raise self.ApplicationError(f"the body is longer than its Content-Length, by {size - self.left} bytes")
            self.left -= size
        return True

    cdef bint is_bodiless(self) except -1:
        """Return whether the response has no body because of its status."""
        return self.code == 204 or self.code == 205 or self.code == 304

    cdef bint is_over(self) except -1:
        """Return whether nothing can follow the pieces that have been admitted."""
        if self.command == "HEAD" or self.is_bodiless():
            return True
        return self.left == 0 and self.trailers is None

    cdef int end_body(self) except -1:
        """Send what ends the response."""
        if self.command == "HEAD":
            return 0
        if self.left > 0:
            # The client would take the next response for the rest of this one.
            self.close_connection = True
            self.log_error("the application sent %d bytes less than its Content-Length", self.left)
        else:
            self.channel.send_end(self.trailers, self.response_use_chunked)
        return 0

    # ---------------------------------------------------------------- other protocols on the connection

    def take_over(self, go_away=None):
        """Return the socket, and the bytes already read from it, for another protocol.

        From now on the application writes to the socket itself; what it returns is dropped.  `go_away` is called, in a
        greenlet of its own, if the server ends before the application does.
        """
        cdef Http1Channel channel = self.channel
        self.go_away = go_away
        self.given_away = True
        self.headers_sent = self.close_connection = True
        self.status, self.code = b"101 Switching Protocols", 101
        return channel.socket, channel.stream.rest()

    cdef bint upgraded(self):
        """Return whether the client has been told that the connection changes its protocol."""
        return bool(self.code == 101 and self.headers_sent)

    # ---------------------------------------------------------------- errors and logs

    cdef int log_refusal(self, status) except -1:
        """Log a request that was answered with `status` without calling an application."""
        self.status = status
        self.code = int(status[:3])
        if self.request is None:  # the input was not a request; the attributes are those of the previous one
            self.requestline = self.refused_line
            self.command = self.path = self.request_version = None
            self.time_start = time()
        self.time_finish = time()
        self.finish()
        return 0

    cdef int begin_error(self, str status, list headers) except -1:
        """`begin_response` for a response of the server's own."""
        return self.begin_response(status, headers)

    def format_request(self):
        """Return the access log's line, without a newline."""
        return logs.access_line(self)

    # Called when writing to the error log fails.
    @staticmethod
    def _print_unexpected_exc():
        report(traceback.format_exc())

    def log_error(self, msg, *args):
        """Write `msg % args` to the server's error log."""
        try:
            message = msg % args if args else msg
        except Exception:
            self._print_unexpected_exc()
            message = f"{msg!r} {args!r}"
        try:
            self.server.error_log.write(f"{self.socket}: {message}\n")
        except Exception:
            self._print_unexpected_exc()

    def _error_context(self):
        """Return the context of an error report: the request's first line."""
        return self.requestline

    def _log_error(self, t, v, tb):
        if not issubclass(t, GreenletExit):
            get_hub().handle_error(self._error_context(), t, v, tb)

    def handle_error(self, t, v, tb):
        """Report that the application, or the server, failed, and answer 500 if nothing was sent yet."""
        self._log_error(t, v, tb)
        t = v = tb = None
        self._send_error_response_if_possible(500)

    def _send_error_response_if_possible(self, error_code):
        """Answer with the status `error_code`; if a head was sent, end the connection instead."""
        if self.headers_sent:
            self.close_connection = True
            return
        reason = fields.REASONS.get(error_code, "Error")
        self.status = None
        self.response_use_chunked = False
        body = reason.encode()
        if error_code != 500:
            self.close_connection = True
        try:
            self.begin_error(
                f"{error_code} {reason}", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
            )
            self.send_body(body)
        except OSError:
            self.close_connection = True

    def _handle_client_error(self, error):
        """Log that the client sent something invalid.  Return the status and the response that say so."""
        if not isinstance(error, (ValueError, InvalidClientInput)):
            report("".join(traceback.format_exception(error)))
        # A refusal may bring its own text, which is logged as it is.
        message = getattr(error, "formatted_message", None)
        if message is not None:
            self.log_error("(from %s) %s", self.client_address, message)
        else:
            text = str(error) or type(error).__name__
            self.log_error("Invalid request (from %s): %s", self.client_address, text)
        return fields.empty_response(getattr(error, "status", 400))
