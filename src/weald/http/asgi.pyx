# cython: nonecheck=True
"""How an ASGI application answers a request (ASGI 3, HTTP spec 2.5), compiled: its scope, `receive` and `send`.

Called by: asgi_websocket.pyx; asgi_server.py, whose connections are served by an `ASGIExchange` each; weald.serve.

The application's coroutine is an asyncio task on the loop of the server.  It begins in the connection's greenlet: one
that never waits costs no switch and no turn of the loop.  If it waits, the loop goes on with it.  The connection's
greenlet then waits for the end of the response.  Meanwhile it does the work that must wait for the client: it reads the
body, and checks whether the client has left.

`send` sends at once, in the greenlet that the application runs in.  If the client does not read, that greenlet parks,
and another one runs the loop.  So a slow client slows its application down, and nothing is buffered.

Invariants:
- A `Call` is one request.  When its response is complete, or its client has left, it drops its exchange, so that the
  application cannot affect other requests later.  The task goes on; its exceptions are logged.
- A client that has left is noticed when the application sends or receives, and within `LOOK` seconds while it waits.

Long because a call and its exchange call each other: in files of their own they would import each other.
"""

from cpython.buffer cimport PyObject_CheckBuffer
from cpython.unicode cimport PyUnicode_FindChar

from weald._core cimport running_loop
from weald._core.hub cimport Hub, Runnable, Throw, Waiter, current_greenlet
from weald._core.threads cimport current_hub
from weald._core.waiters cimport park_for
from weald.aio.core cimport Core
from weald.http.asgi_parts cimport (
    DONE, SENT_NAMES, STATUSES, Waiting, awaited, checked, fields_of, known_name, line_of, result_of)
from weald.http.channel cimport Channel, Http1Channel, size_of
from weald.http.connection cimport Connection
from weald.http.exchange cimport Exchange
from weald.http.protocol cimport Request

import asyncio
import errno
import os
from types import CoroutineType
from urllib.parse import unquote_to_bytes

from weald.asyncio import _running
from weald.http.protocol import tokens

cdef object Future = asyncio.Future
cdef object RUNNING = _running
LOOK = 5.0  # seconds between two checks whether the client has left, while the application waits
cdef Py_ssize_t FILE_PIECE = 1 << 18  # bytes of a file that is read to be sent


# -------------------------------------------------------------------- one request


class Interrupted(BaseException):
    """Ends a wait for the client: the application has ended."""


cdef class Interrupt(Runnable):
    """Interrupts the exchange's greenlet if it still waits for the client."""

    cdef Call call

    cdef int run(self, Hub hub) except -1:
        cdef Throw throw
        if self.call.fetching:
            throw = Throw.__new__(Throw)
            throw.target = self.call.home
            throw.exception = Interrupted
            throw.run(hub)
        return 0


cdef class Call:
    """One request as its application sees it: `receive` and `send`."""

    def receive(self):
        """Return an awaitable of the next event: a piece of the body, or that the client has left."""
        cdef ASGIExchange exchange = self.exchange
        if self.kept is not None:
            kept, self.kept = self.kept, None
            return result_of(kept)
        if exchange is None or self.left or self.stage == COMPLETE:
            return result_of(self.disconnect())
        if not self.body_given and not self.asking and not self.fetching:
            message = self.take_body()
            if message is not None:
                return result_of(message)
        return self.ask()

    cdef object ask(self):
        """Return an awaitable of an event that has not come yet."""
        cdef ASGIExchange exchange = self.exchange
        cdef Waiting waiting
        future = Future(loop=exchange.loop)
        if self.asking is None:
            self.asking = []
        self.asking.append(future)
        self.wake()
        waiting = Waiting.__new__(Waiting)
        waiting.future = future
        return waiting

    def send(self, message):
        """Send what `message` says to the client, and return an awaitable that is done.

        Raises OSError if the client has left, RuntimeError, TypeError or ValueError if the message may not be sent.
        """
        cdef ASGIExchange exchange = self.exchange
        if self.sending:
            self.wait_for_turn()
            exchange = self.exchange
        if exchange is None or self.stage == COMPLETE:
            if self.left:
                raise ConnectionResetError(errno.ECONNRESET, "the client has left")
            raise RuntimeError(f"{message['type']!r} was sent after the response's end")
        self.sending = True
        try:
            self.take(message)
        finally:
            self.sending = False
            if self.turns:
                self.next_turn()
        return DONE

    def wait_for_turn(self):
        """Another task of the application is sending: wait until that is done."""
        cdef Hub hub = current_hub()
        cdef Waiter waiter
        while self.sending:
            waiter = hub.waiter()
            if self.turns is None:
                self.turns = []
            self.turns.append(waiter)
            hub.park(waiter, self)

    def next_turn(self):
        """Let the next waiting sender send."""
        cdef Waiter waiter
        while self.turns:
            waiter = self.turns.pop(0)
            if waiter.resume(None):
                return

    cdef int take(self, message) except -1:
        """Carry out `message`."""
        cdef ASGIExchange exchange = self.exchange
        cdef bint more
        kind = message["type"]
        if kind == "http.response.body":
            if self.stage != BODY_NEXT:
                raise RuntimeError("http.response.body was sent before http.response.start")
            more = bool(message.get("more_body", False))
            exchange.send_piece(self, message.get("body", b""), not more)
        elif kind == "http.response.start":
            if self.stage != HEAD_NEXT:
                raise RuntimeError("http.response.start was sent twice")
            exchange.begin_from(message)
            self.stage = BODY_NEXT
        elif kind == "http.response.trailers":
            if self.stage != TRAILERS_NEXT:
                raise RuntimeError("http.response.trailers must follow the body, and need trailers=True at the start")
            if exchange.trailers is not None:
                for name, value in message.get("headers", ()):
                    exchange.trailers.append((name.decode("latin-1"), value.decode("latin-1")))
            if not message.get("more_trailers", False):
                exchange.end_body()
                self.complete()
        elif kind == "http.response.pathsend":
            if self.stage != BODY_NEXT or exchange.headers_sent:
                raise RuntimeError("http.response.pathsend must follow http.response.start")
            exchange.send_path(self, message["path"])
        elif kind == "http.response.early_hint":
            if self.stage != HEAD_NEXT:
                raise RuntimeError("http.response.early_hint was sent after http.response.start")
            if exchange.request_version != "HTTP/1.0":
                links = [(b"link", checked(b"link", link)) for link in message.get("links", ())]
                exchange.channel.send_interim(b"103 Early Hints", 103, links)
        else:
            raise RuntimeError(f"an event that may not be sent here: {kind!r}")
        return 0

    def complete(self):
        """Note that the response has been sent."""
        self.stage = COMPLETE
        if current_greenlet() is not self.home:
            self.wake()

    cdef object take_body(self):
        """Return an event with what is there already of the body, None if nothing is."""
        cdef bytes body = b""
        if self.exchange.request.length:
            body = self.exchange.channel.part_at_hand()
            if body is None:
                return None
        self.body_given = not body or self.exchange.channel.body_is_over()
        return {"type": "http.request", "body": body, "more_body": not self.body_given}

    cdef int give(self, dict message) except -1:
        """Give `message` to the first `receive` that waits; keep it for the next one if none does."""
        if message["type"] == "http.disconnect" or message["type"] == "websocket.disconnect":
            self.left = True
        while self.asking:
            future = self.asking.pop(0)
            if not future.done():
                future.set_result(message)
                if self.left:
                    continue  # all get it
                return 0
        if not self.left:
            self.kept = message
        return 0

    cdef int wake(self) except -1:
        """Wake the exchange's greenlet, to check what has changed."""
        cdef Waiter waiter = self.waiter
        cdef Interrupt interrupt
        if waiter is not None:
            self.waiter = None
            waiter.resume(None)
        elif self.fetching and (self.stage == COMPLETE or self.task is not None and self.task.done()):
            interrupt = Interrupt.__new__(Interrupt)
            interrupt.call = self
            current_hub().push(interrupt)
        return 0

    cdef int prepare(self, dict scope) except -1:
        """Make `scope` that of the call.  Return 1 if the request has been answered already."""
        return 0

    cdef dict disconnect(self):
        """Return the event that reports that the client has left."""
        return {"type": "http.disconnect"}

    cdef bint wants(self) except -1:
        """Return whether there is something to wait for on the application's behalf."""
        return bool(self.asking)

    cdef int fetch(self) except -1:
        """Wait for the client: for a piece of the body, or its end."""
        cdef ASGIExchange exchange = self.exchange
        cdef bint over
        self.asking = [future for future in self.asking if not future.done()]
        if not self.asking:
            return 0
        self.fetching = True
        try:
            if self.body_given:
                exchange.channel.watch_client().wait()
                self.fetching = False
                self.give(self.disconnect())
                return 0
            piece = exchange.read_body(0)
            self.fetching = False
        except Interrupted:
            return 0
        except OSError:
            self.fetching = False
            self.give(self.disconnect())
            raise
        finally:
            self.fetching = False
        over = not piece or exchange.channel.body_is_over()
        self.body_given = over
        self.give({"type": "http.request", "body": piece, "more_body": not over})
        return 0

    cdef int conclude(self) except -1:
        """Finish the request: the task has ended, its response is complete, or its client has left."""
        cdef ASGIExchange exchange = self.exchange
        task = self.task
        if not task.done():
            if self.left:
                exchange.close_connection = True
                exchange.channel.linger = False
            self.detach()
            return 0
        self.server = None
        error = None if task.cancelled() else task.exception()
        if self.stage == COMPLETE:
            self.exchange = None
            self.report(task)
        elif self.left or exchange.channel.broken is not None:
            exchange.close_connection = True
            exchange.channel.linger = False
            if error is not None and not isinstance(error, OSError):
                exchange._log_error(type(error), error, error.__traceback__)
        elif error is not None:
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise error
            exchange.handle_error(type(error), error, error.__traceback__)
        else:
            exchange.log_error(
                "%s: the application was cancelled before its response was complete" if task.cancelled() else
                "%s: the application ended in the middle of its response" if exchange.headers_sent else
                "%s: the application ended without a response", self.line)
            exchange._send_error_response_if_possible(500)
        return 0

    def ended(self, task):
        """The task has ended: called by the loop, if that was not in its first step."""
        if self.exchange is not None:
            self.wake()
            return
        server, self.server = self.server, None
        if server is not None:  # else the exchange has done this
            server.detached.discard(self)
            self.report(task)

    def report(self, task):
        """Log what the task has raised after its response was sent."""
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not (self.left and isinstance(error, OSError)):
            current_hub().handle_error(self.line, type(error), error, error.__traceback__)

    def detach(self):
        """Detach the task, which has not ended, from its exchange.

        Pending and later calls of `receive` get the event that the client has left: some applications end only then.
        """
        self.exchange = None
        asking, self.asking = self.asking, None
        for future in asking or ():
            if not future.done():
                future.set_result(self.disconnect())
        self.server.detached.add(self)
        if self.left:
            self.task.get_loop().call_later(self.server.patience, self.complain)

    def complain(self):
        """Log that the application goes on although its client has left."""
        if not self.task.done():
            self.server.error_log.write(
                f"{self.line}: the application goes on, {self.server.patience:g} seconds after its client has left\n")


# -------------------------------------------------------------------- the exchange


cdef class ASGIExchange(Exchange):
    """ASGIExchange(sock, address, server): exchanges that the ASGI application `server.application` answers.

    `server` also has `loop_of_applications`, `lifespans`, `mounts`, `patience`, `root_path`, `local_of(sock)` and
    `detached`; see asgi_server.py.
    """

    def __init__(self, sock, address, server):
        cdef Http1Channel channel = Http1Channel(sock, server.http_state, server.ssl_enabled)
        Exchange.__init__(self, channel, server, address)
        self.connection = Connection(channel, self)
        self.application = server.application
        self.loop = loop = server.loop_of_applications
        self.loop_state = (loop, None, loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook, 0)
        self.remote = (address[0], address[1]) if isinstance(address, tuple) else None
        self.local = server.local_of(sock)
        self.scheme = "https" if server.ssl_enabled else "http"
        self.prefix = ""
        self.whole = -1

    @property
    def http_connection(self):
        """The `Connection` whose requests are served here; None for a stream of HTTP/2."""
        return self.connection

    def handle(self):
        """Serve requests until the connection ends, and close the socket."""
        if self.connection is not None:
            self.connection.run()

    cdef int move_to(self, Channel channel) except -1:
        self.channel = channel
        self.connection = None
        return 0

    cdef int end(self) except -1:
        cdef Exchange handler
        Exchange.end(self)
        self.call = None
        if self.handlers is not None:
            for handler in self.handlers.values():
                handler.end()
            self.handlers = None
        return 0

    # ---------------------------------------------------------------- other applications below a prefix

    cdef object serve(self, line):
        server = self.server
        if server.mounts:
            mount = server.find_mount(self.request.target)
            if mount.wsgi is not None:
                return self.hand_over(mount.wsgi, line)
            self.application, self.prefix = mount.application, mount.prefix
        return Exchange.serve(self, line)

    cdef object hand_over(self, object server, line):
        """Have the request served by a handler of `server`, a WSGIServer."""
        cdef Exchange handler
        cdef Connection connection = self.connection
        if self.handlers is None:
            self.handlers = {}
        handler = self.handlers.get(server)
        if handler is None:
            handler = self.handlers[server] = server.handler_class(self.channel.socket, self.client_address, server)
            handler.move_to(self.channel)
        handler.request = self.request
        handler.requestline = line
        handler.is_last = self.is_last
        if connection is not None:
            connection.exchange = handler  # whose `go_away` the server calls
        try:
            result = handler.serve(line)
        finally:
            if connection is not None:
                connection.exchange = self
            handler.clear()
        self.close_connection = handler.close_connection
        return result

    # ---------------------------------------------------------------- the application

    cdef bint asks_for_websocket(self) except -1:
        """Return whether the request is the opening handshake of a WebSocket, valid or not."""
        cdef dict fields = self.request.fields
        return (
            not self.request.length and isinstance(self.channel, Http1Channel)
            and "websocket" in tokens(fields.get("HTTP_UPGRADE", ""))
            and "upgrade" in tokens(fields.get("HTTP_CONNECTION", "")))

    cdef dict make_scope(self):
        """Return the scope of the request."""
        cdef Request request = self.request
        cdef Py_ssize_t mark
        cdef dict scope, extensions
        cdef str target = request.target
        cdef str path, root
        server = self.server
        mark = PyUnicode_FindChar(target, c"?", 0, len(target), 1)
        path = target if mark < 0 else target[:mark]
        raw = path.encode("latin-1")
        if "%" in path:
            path = unquote_to_bytes(path).decode("utf-8", "replace")
        root = server.root_path
        if root and not (path.startswith(root + "/") or path == root):
            path = root + path  # a proxy has taken it off
            raw = root.encode() + raw
        root += self.prefix
        extensions = {"http.response.pathsend": {}}
        if request.version != "HTTP/1.0":
            extensions["http.response.early_hint"] = {}
        self.trailers = None
        self.wants_trailers = False
        if request.special and "trailers" in tokens(request.fields.get("HTTP_TE", "")):
            extensions["http.response.trailers"] = {}
        version = request.version
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1" if version == "HTTP/1.1" else version[5:],
            "server": self.local,
            "client": self.remote,
            "scheme": self.scheme,
            "method": request.method,
            "root_path": root,
            "path": path,
            "raw_path": raw,
            "query_string": b"" if mark < 0 else target[mark + 1:].encode("latin-1"),
            "headers": fields_of(request),
            "extensions": extensions,
        }
        state = server.lifespans.states.get(self.prefix)
        if state is not None:
            scope["state"] = state.copy()
        return scope

    cdef object step(self, Call call, dict scope):
        """Call the application and return its task, which has ended or waits for something."""
        loop = self.loop
        running_loop.loops += 1
        running_loop.take_back(self.loop_state)
        RUNNING.loop = loop
        try:
            coroutine = self.application(scope, call.receive, call.send)
            if type(coroutine) is not CoroutineType and not asyncio.iscoroutine(coroutine):
                coroutine = awaited(coroutine)
            if loop._task_factory is None:
                return (<Core>loop).begun_task(coroutine, None)
            return loop.create_task(coroutine)
        finally:
            if (<Core>loop).steps:
                (<Core>loop).end_step()
            RUNNING.loop = None
            running_loop.put_aside(loop)
            if running_loop.loops > 0:  # a fork's child has none
                running_loop.loops -= 1

    cdef int run(self) except -1:
        cdef Request request = self.request
        cdef Call call
        cdef dict scope
        if request.special and self.asks_for_websocket():
            call = self.server.websocket_call()
        else:
            call = Call.__new__(Call)
        call.exchange = self
        call.server = self.server
        call.home = current_greenlet()
        call.line = self.requestline
        self.call = call
        self.whole = -1
        if request.length:
            self.channel.expect_body(request)
        try:
            scope = self.make_scope()
            if call.prepare(scope):
                return 0
            call.task = task = self.step(call, scope)
            if not task.done():
                task.add_done_callback(call.ended)
                self.attend(call)
            call.conclude()
        except BaseException as error:
            if call.task is not None and not call.task.done() and call.exchange is not None:
                call.left = True
                call.detach()
                if not isinstance(error, Exception):  # killed
                    call.task.cancel()
            raise
        finally:
            call.exchange = None
            self.call = None
        return 0

    cdef int attend(self, Call call) except -1:
        """Wait until the response is complete, the task has ended, or the client has left."""
        cdef Hub hub = current_hub()
        cdef Waiter waiter
        cdef bint there
        task = call.task
        while call.stage != COMPLETE and not call.left and not task.done():
            if call.wants():
                call.fetch()
                continue
            call.waiter = waiter = hub.waiter()
            try:
                there = park_for(waiter, task, LOOK, False)
            finally:
                call.waiter = None
            if not there and self.channel.watch_client().is_set():
                call.give(call.disconnect())
        return 0

    # ---------------------------------------------------------------- the response

    cdef int begin_from(self, dict message) except -1:
        """Take the status and fields of `http.response.start`, as `begin_response` does."""
        cdef tuple known
        cdef int kind
        cdef list fields = []
        cdef bint connection = False
        cdef bint close = False  # kept until all of the message has been found right
        cdef bytes encoded
        status = message["status"]
        line = STATUSES.get(status)
        if line is None:
            line = line_of(status)
        cdef long code = status
        date = length = None
        for name, value in message.get("headers", ()):
            known = SENT_NAMES.get(name)
            if known is None:
                known = known_name(name)
            kind = known[1]
            encoded = checked(name, value)
            if kind == 4:  # Transfer-Encoding: the server's to decide
                continue
            fields.append((known[0], encoded))
            if kind == 1:
                if length is not None:
                    raise ValueError(f"content-length was given twice: {value!r}")
                length = encoded.decode("latin-1")
                if not (length.isascii() and length.isdigit() and len(length) <= 18):
                    raise ValueError(f"content-length must be a number: {value!r}")
            elif kind == 2:
                date = encoded
            elif kind == 3:
                connection = True
                if "close" in tokens(encoded.decode("latin-1")):
                    close = True
        if length is not None and (code == 204 or code == 205):
            if length != "0":
                raise ValueError(f"a response with status {code} has no content-length, not {length}")
            if code == 204:  # RFC 9110 section 8.6
                fields = [field for field in fields if field[0].lower() != b"content-length"]
                length = None
        self.status = line
        self.code = status
        self.response_headers = fields
        self.provided_date = date
        self.provided_content_length = length
        self.wants_trailers = bool(message.get("trailers", False))
        if self.wants_trailers and "trailers" in tokens(self.request.fields.get("HTTP_TE", "")):
            self.trailers = []
        if close or self.channel.state.draining:
            self.close_connection = True
        if not connection:
            if self.close_connection:
                fields.append((b"connection", b"close"))
            elif self.request_version == "HTTP/1.0":
                fields.append((b"connection", b"keep-alive"))
        return 0

    cdef Py_ssize_t body_size(self) except? -2:
        return self.whole

    cdef int send_piece(self, Call call, data, bint last) except -1:
        """Send a piece of the body; `last`: nothing of it follows."""
        if type(data) is not bytes and not PyObject_CheckBuffer(data):
            raise TypeError(f"a response's body must be bytes, not {type(data).__name__}")
        if not self.headers_sent and last and self.trailers is None and (data or self.command != "HEAD"):
            self.whole = size_of(data)
        if data or not self.headers_sent:
            self.send_body(data)
        if last:
            if self.wants_trailers:
                call.stage = TRAILERS_NEXT
            else:
                self.end_body()
                call.complete()
        return 0

    cdef int send_path(self, Call call, path) except -1:
        """Send the file `path` as the whole body."""
        cdef Py_ssize_t size, count
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if self.provided_content_length is None and self.trailers is None:
                self.response_headers.append((b"content-length", b"%d" % size))
                self.provided_content_length = str(size)
            if self.command == "HEAD" or self.is_bodiless():
                self.send_body(b"")
            elif self.channel.can_send_files() and self.trailers is None:
                count = min(size, int(self.provided_content_length))
                self.finish_head()
                self.left -= self.channel.send_file(self.status, self.response_headers, file.fileno(), 0, count)
            else:
                while piece := file.read(FILE_PIECE):
                    self.send_body(piece)
                if not self.headers_sent:
                    self.send_body(b"")
        if self.wants_trailers:
            call.stage = TRAILERS_NEXT
        else:
            self.end_body()
            call.complete()
        return 0
