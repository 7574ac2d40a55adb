# cython: nonecheck=True
"""An HTTP/1.1 connection, compiled: waits for its requests, has each served, and ends in order.

Called by: steps.pyx and asgi.pyx, whose handlers have one; the server keeps it in its list.

A connection owns its channel to the client and one exchange, which serves its requests one after the other.
protocol.pyx reads the requests.

Invariants:
- Every wait for a request has a limit.
- No further request is served after an error of the protocol, after a response that was cut short, or if more of a
  request's body is unread than `Limits.discard`.
"""

from weald.http.channel cimport Http1Channel
from weald.http.exchange cimport Exchange, time
from weald.http.protocol cimport Request, RequestStream
from weald.http.state cimport ServerState

from weald._core import Timeout
from weald.http.protocol import ProtocolError


cdef class Connection:
    """Connection(channel, exchange): serves the requests that come through `channel` with `exchange`.

    `idle` is true while no byte of the next request has come.  `http2_start` is None, or, if `run` has ended because
    the client has begun to speak HTTP/2, the socket, which is still open, and the bytes read so far.
    """

    def __init__(self, Http1Channel channel, Exchange exchange):
        self.channel = channel
        self.exchange = exchange

    @property
    def socket(self):
        """The client's socket; None once the connection has ended."""
        return None if self.channel is None else self.channel.socket

    @property
    def go_away(self):
        """A function that ends an application which has taken the connection over, in its own time; else None."""
        return None if self.exchange is None else self.exchange.go_away

    @go_away.setter
    def go_away(self, value):
        if self.exchange is not None:
            self.exchange.go_away = value

    def run(self):
        """Serve requests until one is the last, and close the socket.

        Running it again does nothing.  Raises the OSError of a connection that failed in an unusual way.
        """
        cdef Exchange exchange = self.exchange
        if exchange is None:
            return
        try:
            result = True
            while result is True and self.channel.socket is not None:
                exchange.time_start = time()
                exchange.time_finish = 0
                result = self.serve_one()
            if result is not True and result is not None:
                status, response = result
                self.channel.transmit(response, 0)
                self.channel.sent = len(response)
                exchange.log_refusal(status)
        except OSError as error:
            if error.errno not in exchange.ignored_socket_errors and not isinstance(error, TimeoutError):
                raise
        finally:
            self.exchange = None  # it may refer to this connection
            exchange.end()
            if self.http2_start is None:
                self.channel.close()
            else:
                self.channel.socket = None

    cdef object serve_one(self):
        """Wait for a request and serve it; returns as `Exchange.serve` does."""
        cdef Exchange exchange = self.exchange
        try:
            exchange.clear()
            line = self.read_head()
            exchange.requestline = line
        except ProtocolError as error:
            if error.preface and exchange.server.http2 and not self.served:
                self.http2_start = self.channel.socket, b"PRI * HTTP/2.0\r\n\r\n" + self.channel.stream.rest()
                return None
            exchange.refused_line = self.channel.stream.refused_line()
            return exchange._handle_client_error(error)
        except OSError:
            self.channel.linger = False
            return None
        if not line:
            return None
        return exchange.serve(line)

    cdef object read_head(self):
        """Wait for the next request and give it to the exchange.  Return its first line, "" if there is none.

        Raises ProtocolError for bytes that are not a request.
        """
        cdef Request request = self.next_request()
        self.exchange.request = request
        return "" if request is None else request.line

    cdef Request next_request(self):
        """Return the next request; None if the client closes or lets the connection idle.  Raises ProtocolError."""
        cdef RequestStream stream = self.channel.stream
        cdef ServerState state = self.channel.state
        cdef Request request = None
        cdef bint pending = stream.unread() != 0
        if pending:
            request = stream.next_request()
        if request is None:
            self.idle = not pending
            try:
                if not self.channel.receive(
                        state.keep_alive_timeout if self.served and not pending else state.head_timeout):
                    return None
            except TimeoutError:
                if pending:
                    raise ProtocolError(408, "no complete head in time") from None
                return None
            self.idle = False
            request = stream.next_request()
            if request is None:
                request = self.wait_for_rest()
                if request is None:
                    return None
        self.served += 1
        self.exchange.is_last = self.served >= state.most_requests
        return request

    cdef Request wait_for_rest(self):
        """Return the request whose head comes in pieces.  One timer limits the wait: a piece may be one byte."""
        cdef RequestStream stream = self.channel.stream
        cdef Request request
        timer = Timeout.start_new(self.channel.state.head_timeout)
        try:
            while self.channel.receive(-1.0):
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
