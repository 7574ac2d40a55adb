# cython: nonecheck=True
"""A WebSocket as its ASGI application sees it (ASGI's WebSocket spec 2.5), compiled.

Called by: asgi_server.py, which makes a call for each request that opens one.

The protocol is websocket.py's.  The connection's greenlet reads: it answers pings, and holds one message that the
application has not asked for yet, so that a client that leaves is noticed.

Invariants:
- One greenlet reads, the connection's; what the application sends is sent by the greenlet that it runs in.
- The client gets a close code: the application's, 1000 if it just returns, 1011 if it fails.
"""

from cpython.buffer cimport PyObject_CheckBuffer

from weald._core.hub cimport current_greenlet
from weald.http.asgi cimport COMPLETE, ASGIExchange, Call
from weald.http.asgi_parts cimport checked, known_name, result_of

import errno

from weald.http.asgi import Interrupted
from weald.http.websocket import Closed, Handshake, HandshakeError, check_close

cdef enum Phase:
    CONNECTING
    DENYING  # the application answers with a response instead
    OPEN
    CLOSING


cdef class WebSocketCall(Call):
    """WebSocketCall(options): one WebSocket; `options` are a websocket.Options."""

    cdef object options
    cdef object handshake
    cdef object websocket  # None before it is accepted
    cdef Phase phase
    cdef bint connected  # whether the application has received websocket.connect
    cdef object code  # the close code
    cdef object reason

    def __init__(self, options):
        self.options = options
        self.code = 1006
        self.reason = ""

    cdef int prepare(self, dict scope) except -1:
        cdef ASGIExchange exchange = self.exchange
        environ = {
            **exchange.request.fields,
            "REQUEST_METHOD": exchange.request.method,
            "SERVER_PROTOCOL": exchange.request.version,
            "REQUEST_URI": exchange.request.target,
            "wsgi.url_scheme": exchange.scheme,
            "weald.upgrade": exchange.take_over,
        }
        try:
            # The application itself checks from whose pages browsers may connect.
            self.handshake = Handshake(environ, "*")
        except HandshakeError as error:
            self.refuse(error.status, str(error), error.headers)
            return 1
        self.body_given = True
        scope["type"] = "websocket"
        scope["scheme"] = "wss" if exchange.scheme == "https" else "ws"
        scope["subprotocols"] = list(self.handshake.subprotocols)
        scope["extensions"] = {"websocket.http.response": {}}
        del scope["method"]
        return 0

    def refuse(self, str status, str text, headers):
        """Answer with an error instead of opening a WebSocket."""
        cdef ASGIExchange exchange = self.exchange
        body = text.encode()
        exchange.begin_response(status, [("Content-Type", "text/plain"), *headers])
        exchange.whole = len(body)
        exchange.send_body(body)
        exchange.end_body()

    cdef dict disconnect(self):
        return {"type": "websocket.disconnect", "code": self.code, "reason": self.reason}

    # ---------------------------------------------------------------- from the client

    def receive(self):
        """Return an awaitable of the next event: websocket.connect, a message, or the end."""
        if not self.connected:
            self.connected = True
            return result_of({"type": "websocket.connect"})
        if self.kept is not None:
            kept, self.kept = self.kept, None
            self.wake()  # the next may be read
            return result_of(kept)
        if self.exchange is None or self.left or self.stage == COMPLETE:
            return result_of(self.disconnect())
        return self.ask()

    cdef bint wants(self) except -1:
        return self.kept is None if self.phase == OPEN else bool(self.asking)

    cdef int fetch(self) except -1:
        """Wait for the next message, or the end."""
        if self.phase != OPEN:
            return Call.fetch(self)
        self.fetching = True
        try:
            message = self.websocket.receive()
            self.fetching = False
        except Interrupted:
            return 0
        except Closed as closed:
            self.fetching = False
            self.code, self.reason = closed.code, closed.reason
            self.give(self.disconnect())
            return 0
        finally:
            self.fetching = False
        if type(message) is str:
            self.give({"type": "websocket.receive", "text": message})
        else:
            self.give({"type": "websocket.receive", "bytes": message})
        return 0

    # ---------------------------------------------------------------- to the client

    cdef int take(self, message) except -1:
        kind = message["type"]
        if self.phase == OPEN:
            if kind == "websocket.send":
                return self.send_message(message)
            if kind == "websocket.close":
                code, reason = message.get("code"), message.get("reason")
                code, reason = 1000 if code is None else code, "" if reason is None else reason
                check_close(code, reason)
                self.phase = CLOSING
                self.code, self.reason = code, reason
                self.complete()
                return 0
        elif self.phase == CONNECTING:
            if kind == "websocket.accept":
                return self.accept(message)
            if kind == "websocket.close":
                self.refuse("403 Forbidden", "Forbidden", [])
                self.complete()
                return 0
            if kind == "websocket.http.response.start":
                self.exchange.begin_from(message)
                self.phase = DENYING
                return 0
        elif kind == "websocket.http.response.body":
            self.exchange.send_piece(self, message.get("body", b""), not message.get("more_body", False))
            return 0
        raise RuntimeError(f"an event that may not be sent here: {kind!r}")

    cdef int send_message(self, message) except -1:
        data = message.get("text")
        if data is None:
            data = message.get("bytes")
            if data is None:
                raise ValueError("websocket.send needs text or bytes")
            if not PyObject_CheckBuffer(data):
                raise TypeError(f"the bytes of websocket.send must be bytes, not {type(data).__name__}")
        elif not isinstance(data, str):
            raise TypeError(f"the text of websocket.send must be a str, not {type(data).__name__}")
        try:
            self.websocket.send(data)
        except Closed as closed:
            raise ConnectionResetError(errno.ECONNRESET, f"the WebSocket has ended: {closed}") from None
        return 0

    cdef int accept(self, message) except -1:
        headers = []
        for name, value in message.get("headers", ()):
            known = known_name(name)
            if known[0].lower() == b"sec-websocket-protocol":
                raise ValueError("the subprotocol of websocket.accept is its `subprotocol`, no header")
            headers.append((known[0], checked(name, value)))
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self.handshake.subprotocols:
            raise ValueError(f"the client has not offered the subprotocol {subprotocol!r}")
        self.websocket = self.handshake.accept(subprotocol, self.options, headers)
        self.phase = OPEN
        if current_greenlet() is not self.home:
            self.wake()
        return 0

    # ---------------------------------------------------------------- the end

    cdef int conclude(self) except -1:
        cdef ASGIExchange exchange = self.exchange
        task = self.task
        if self.websocket is None:
            return Call.conclude(self)
        exchange.close_connection = True
        error = None
        if task.done():
            self.server = None
            error = None if task.cancelled() else task.exception()
            if error is not None and not (isinstance(error, OSError) and (self.left or self.websocket.closed)):
                exchange._log_error(type(error), error, error.__traceback__)
        else:
            self.detach()
        if not self.left:
            if self.phase != CLOSING:
                self.code = 1000 if error is None else 1011
            self.websocket.close(self.code, self.reason)
        return 0
