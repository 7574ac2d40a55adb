# cython: nonecheck=True
"""The steps of serving a request that subclasses of WSGIHandler may replace, in one place.

Called by: handler.py, whose WSGIHandler is derived from `Steps`; http2.py.

A step is done in C by the class that it belongs to (`Connection`, `Exchange`, `WSGIExchange`, `Http1Channel`): see the
table below.  Here each has two methods.  The Python method has the name that subclasses know, and does what that class
does.  The C method, which the others call, calls the Python method if that was replaced, else the class's own.

    step                  done by                        called from
    handle_one_request    Connection.serve_one           Connection.run
    read_requestline      Connection.read_head           handle_one_request
    read_request          Exchange.take_request          handle_one_request
    get_environ           WSGIExchange.make_environ      handle_one_request
    handle_one_response   Exchange.respond               handle_one_request
    run_application       WSGIExchange.run               handle_one_response
    process_result        WSGIExchange.send_result       run_application
    start_response        WSGIExchange.begin             applications
    write                 Exchange.send_body             process_result, applications
    _write_with_headers   Exchange.send_first            write
    finalize_headers      Exchange.complete_head         _write_with_headers
    _sendall              Http1Channel.send              _write_with_headers, write, process_result
    log_request           Exchange.log                   handle_one_response

`handle`, `format_request`, `log_error` and `handle_error` may be replaced as well: these are Python
methods and nothing else.

Invariants:
- Which steps have been replaced is looked up for a connection's first request, and for a later one if the class has
  changed since.  A step set on the object itself counts if it is set before the first request.
- Attributes that subclasses know hold any object, for subclasses set them.
"""

from cpython.object cimport PyObject

from weald._core.c_python cimport version_of
from weald.http.channel cimport Channel, Http1Channel
from weald.http.connection cimport Connection
from weald.http.exchange cimport Exchange
from weald.http.protocol cimport Request
from weald.http.wsgi cimport WSGIExchange

# Bits of `Steps.replaced`, in this order.
STEPS = (
    "handle_one_request", "read_requestline", "read_request", "get_environ", "handle_one_response", "run_application",
    "process_result", "log_request", "write", "_write_with_headers", "finalize_headers", "_sendall", "start_response",
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
    START_RESPONSE = 1 << 12
    ALL_STEPS = (1 << 13) - 1


cdef class SteppedConnection(Connection):
    """A connection whose exchange is a `Steps`."""

    cdef object serve_one(self):
        cdef Steps handler = <Steps>self.exchange
        handler.look_up_steps()
        return handler.handle_one_request() if handler.replaced & HANDLE_ONE_REQUEST else Connection.serve_one(self)

    cdef object read_head(self):
        cdef Steps handler = <Steps>self.exchange
        if handler.replaced & READ_REQUESTLINE:
            line = handler.read_requestline()
            if isinstance(line, bytes):  # an old subclass's
                line = line.decode("latin-1")
        else:
            line = Connection.read_head(self)
        handler.look_up_steps()  # it may have waited for long
        return line


cdef class SteppedChannel(Http1Channel):
    """A channel that sends by the step `_sendall`."""

    cdef Steps handler  # None once the connection has ended

    cdef int send(self, data) except -1:
        if self.handler is not None and self.handler.replaced & SENDALL:
            self.handler._sendall(data)
            return 0
        return Http1Channel.send(self, data)


cdef class Steps(WSGIExchange):
    """Steps(sock, address, server, rfile=None): an exchange, and its connection, whose steps may be replaced.

    `sock` is the client's socket, `address` its address; `rfile`, if given, is the connection as a file.
    """

    cdef SteppedConnection connection
    cdef int replaced  # bits of the steps that are not done here
    cdef unsigned int version  # the class's, when that was looked up

    def __cinit__(self):
        self.replaced = ALL_STEPS

    def __init__(self, sock, address, server, rfile=None):
        cdef SteppedChannel channel = SteppedChannel(sock, server.http_state, server.ssl_enabled)
        WSGIExchange.__init__(self, channel, server, address)
        channel.handler = self
        self.connection = SteppedConnection(channel, self)
        self.reader = rfile

    @property
    def http_connection(self):
        """The `Connection` whose requests are served here; None for a stream of HTTP/2."""
        return self.connection

    @property
    def rfile(self):
        """The connection as a file, for subclasses and applications that speak another protocol on it."""
        return self.connection_file()

    @rfile.setter
    def rfile(self, value):
        self.reader = value

    cdef int look_up_steps(self) except -1:
        """Find out which steps have been replaced, unless the class is unchanged."""
        if self.version == version_of(<PyObject *>self) and self.version:
            return 0
        own = getattr(self, "__dict__", ())
        self.replaced = 0
        for i, name in enumerate(STEPS):
            if getattr(type(self), name) is not ORIGINALS[i] or name in own:
                self.replaced |= 1 << i
        self.version = version_of(<PyObject *>self)
        return 0

    cdef int end(self) except -1:
        WSGIExchange.end(self)
        if isinstance(self.channel, SteppedChannel):
            (<SteppedChannel>self.channel).handler = None
        return 0

    cdef int move_to(self, Channel channel) except -1:
        """Serve a stream of HTTP/2 from now on, by its channel."""
        (<SteppedChannel?>self.channel).handler = None
        self.channel = channel
        self.connection = None
        self.look_up_steps()
        return 0

    cdef int find_request(self, line) except -1:
        """If a subclass has read the request's first line by itself, through `rfile`: read the rest of the head."""
        cdef Http1Channel channel
        cdef Request request
        if self.request is not None:
            return 0
        data = line.encode("latin-1")
        if not data.endswith(b"\n"):
            data += b"\r\n"
        if self.raw is not None:
            data += self.raw.unread(self.reader)
        channel = self.connection.channel
        channel.stream.feed(data + channel.stream.rest())
        request = self.connection.next_request()
        if request is None:
            raise ValueError("the client left in the middle of a head")
        self.request = request
        self.requestline = request.line
        return 0

    # ---------------------------------------------------------------- the steps

    def handle_one_request(self):
        """Wait for a request and serve it.

        Returns True if more may follow, None if the connection must end, or (status, response): the response is sent,
        then the connection ends.
        """
        self.look_up_steps()
        return Connection.serve_one(self.connection)

    def read_requestline(self):
        """Wait for the next request.  Return its first line, "" if there is none.  Raises ValueError for a bad one."""
        return Connection.read_head(self.connection)

    def read_request(self, raw_requestline):
        """Set the attributes that describe the request.  Return False, or raise ValueError, to refuse it."""
        self.find_request(raw_requestline)
        return Exchange.take_request(self, raw_requestline)

    cdef bint take_request(self, line) except -1:
        if self.replaced & READ_REQUEST:
            return bool(self.read_request(line))
        self.find_request(line)
        return Exchange.take_request(self, line)

    def get_environ(self):
        """Return the environment of the request: the server's, and what the request adds."""
        return WSGIExchange.make_environ(self)

    cdef object make_environ(self):
        return self.get_environ() if self.replaced & GET_ENVIRON else WSGIExchange.make_environ(self)

    def handle_one_response(self):
        """Run the application for the request, and log it.  No Exception leaves here."""
        Exchange.respond(self)

    cdef int respond(self) except -1:
        if self.replaced & HANDLE_ONE_RESPONSE:
            self.handle_one_response()
            return 0
        return Exchange.respond(self)

    def run_application(self):
        """Call the application and send what it returns."""
        WSGIExchange.run(self)

    cdef int run(self) except -1:
        if self.replaced & RUN_APPLICATION:
            self.run_application()
            return 0
        return WSGIExchange.run(self)

    def process_result(self):
        """Send what the application has returned (`result`), and the end of the response."""
        WSGIExchange.send_result(self)

    cdef int send_result(self) except -1:
        if self.replaced & PROCESS_RESULT:
            self.process_result()
            return 0
        return WSGIExchange.send_result(self)

    # `start_response` and `write` are WSGIExchange's.

    cdef object start(self, status, headers, exc_info):
        if self.replaced & START_RESPONSE:
            if exc_info is None:
                return self.start_response(status, headers)
            return self.start_response(status, headers, exc_info)
        return WSGIExchange.start(self, status, headers, exc_info)

    cdef int send_body(self, data) except -1:
        if self.replaced & WRITE:
            self.write(data)
            return 0
        return Exchange.send_body(self, data)

    def _write_with_headers(self, data):
        """Send the head with the first piece of the body."""
        Exchange.send_first(self, data)

    cdef int send_first(self, data) except -1:
        if self.replaced & WRITE_WITH_HEADERS:
            self._write_with_headers(data)
            return 0
        return Exchange.send_first(self, data)

    def finalize_headers(self):
        """Add the fields that the application left to the server, just before the head is sent."""
        Exchange.complete_head(self)

    cdef int complete_head(self) except -1:
        if self.replaced & FINALIZE_HEADERS:
            self.finalize_headers()
            return 0
        return Exchange.complete_head(self)

    def _sendall(self, data):
        """Send bytes of the response to the socket."""
        Http1Channel.send(<Http1Channel?>self.channel, data)

    def log_request(self):
        """Write a line to the access log."""
        Exchange.log(self)

    cdef int log(self) except -1:
        if self.replaced & LOG_REQUEST:
            self.log_request()
            return 0
        return Exchange.log(self)


ORIGINALS = [getattr(Steps, name) for name in STEPS]


# -------------------------------------------------------------------- streams of HTTP/2


def serve_stream(Exchange handler, Channel channel, Request request):
    """Serve the one request of a stream of HTTP/2, which `channel` carries, with `handler`."""
    handler.move_to(channel)
    handler.request = request
    handler.requestline = request.line
    try:
        result = handler.serve(request.line)
        if result is not None and result is not True:
            handler._send_error_response_if_possible(int(result[0][:3]))
    finally:
        handler.end()


def log_refused_stream(Exchange handler, Channel channel, error):
    """Log a stream of HTTP/2 whose request is refused with `error`, a ProtocolError."""
    handler.move_to(channel)
    handler.log_refusal(handler._handle_client_error(error)[0])
