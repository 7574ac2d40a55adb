"""HTTPServer: HTTP/1.1 and HTTP/2 for the open internet, one greenlet per connection; WSGIServer: WSGI applications.

Called by: weald.pywsgi, which exports WSGIServer; asgi_server.py and weald.serve, whose servers are HTTPServers,
too.

The server listens, keeps a list of its connections, and ends them in order.  A connection is served by a handler
(handler.py), or by http2.py.

Invariants:
- `_connections` holds each connection from its TLS handshake to its end.  Each has `socket` (None once it has ended),
  `idle` (no request is being served or received) and `go_away` (None, or a function that ends a WebSocket, say).
- A server that stops resets no connection that its system has accepted.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from socket import AF_UNIX, IPPROTO_TCP, SHUT_RD, TCP_NODELAY, gethostname
from typing import Any, ClassVar

from weald import __version__
from weald._core import monotonic, sleep, spawn
from weald.http.body import FileWrapper
from weald.http.environ import WSGISecureEnviron
from weald.http.handler import WSGIHandler
from weald.http.limits import Limits
from weald.http.logs import make_log
from weald.http.state import ServerState
from weald.server import StreamServer

__all__ = ["HTTPServer", "WSGIServer"]

_INFO, _ERROR = 20, 40  # levels of the logging module


class HTTPServer(StreamServer):
    """HTTPServer(listener): serve HTTP/1.1 and, if asked to, HTTP/2.  Derived classes answer the requests.

    `listener`, `backlog`, `spawn` and the arguments for TLS are StreamServer's.
    `log` is where requests are logged: an object with `write`, a logging.Logger, or None for nowhere (default:
    sys.stderr); `error_log` the same for errors.
    `handler_class(sock, address, server)` makes the object that serves a connection: it has `handle`, and the
    connection is its `http_connection`.
    `limits`, a weald.http.limits.Limits, bounds the cost of a client.
    `http2`: also serve HTTP/2, to clients that choose it in the TLS handshake (ALPN; this needs an `ssl_context`) or
    begin with it.
    """

    handler_class: Any
    log: Any = None
    error_log: Any = None
    limits = Limits()

    def __init__(
        self,
        listener: Any,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: Any = None,
        limits: Limits | None = None,
        http2: bool = False,
        **ssl_args: Any,
    ) -> None:
        if limits is not None:
            self.limits = limits
        self.http_state = ServerState(self.limits)
        self._connections: set[Any] = set()
        self.http2 = http2
        if http2 and "ssl_context" in ssl_args:
            ssl_args["ssl_context"].set_alpn_protocols(["h2", "http/1.1"])
        super().__init__(listener, backlog=backlog, spawn=spawn, **ssl_args)
        if handler_class is not None:
            self.handler_class = handler_class
        self.log = make_log(log, _INFO)
        self.error_log = make_log(error_log, _ERROR)

    # ---------------------------------------------------------------- starting and stopping

    def full(self) -> bool:
        """Return whether there is no room for another connection."""
        return len(self._connections) + self._unbegun >= self.limits.connections or super().full()

    def start(self) -> None:
        """Bind if need be, and accept from now on.  Raises the OSError of binding."""
        self.http_state.draining = False
        super().start()

    def close(self) -> None:
        """Stop accepting and close the listener.  Connections end after their current request."""
        self.http_state.draining = True
        super().close()

    def stop(self, timeout: float | None = None) -> None:
        """Stop as StreamServer does, and close idle connections at once.

        `timeout`: how many seconds handlers in a pool have to end (default: `stop_timeout`).
        """
        self.close()
        self._close_idle()
        super().stop(timeout)

    def drain(self, timeout: float, patience: float = 1.0) -> bool:
        """Stop without failing a request.  Return True if all connections have ended within `timeout` seconds.

        Connections in the listener's backlog are served.  A connection that sends one more request gets its response,
        and `Connection: close`; one that is still idle after `patience` seconds is closed.  Those that are left in
        the end are cut off.
        """
        start = monotonic()
        self.http_state.draining = True
        for _ in range(10):
            if self._accept_all() and not self._unbegun:
                break
            sleep(0)  # they begin
        self._accept_all()
        # Nothing runs in between: a client that connected now would be reset with the listener.
        self.stop_accepting()
        self._close_listener()
        self.close()
        sleep(0)
        while self._connections and (passed := monotonic() - start) < timeout:
            if passed >= patience:
                self._close_idle()
            sleep(0.02)
        done = not self._connections
        for connection in list(self._connections):
            if connection.socket is not None:
                connection.socket.close()
        return done

    def _accept_all(self) -> bool:
        """Serve all connections in the listener's backlog.  Return False if accepting failed and may work later."""
        try:
            while self._acceptor is not None and (args := self.do_read()) is not None:
                self.do_handle(*args)
        except OSError:  # one connection's trouble, or no descriptor is left: connections that end free some
            sleep(self.min_delay)
            return False
        return True

    def _close_idle(self) -> None:
        """End the connections that serve no request, and those that might go on for ever."""
        for connection in list(self._connections):
            if connection.go_away is not None:
                spawn(connection.go_away)
                connection.go_away = None
            if connection.idle and connection.socket is not None:
                try:
                    # The connection finds the end of the stream, unless a request has come meanwhile.
                    connection.socket.shutdown(SHUT_RD)
                except OSError:
                    pass

    # ---------------------------------------------------------------- connections

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Serve one connection over TLS, from its handshake on."""
        client_socket.settimeout(self.limits.head_timeout)
        sock = client_socket
        try:
            try:
                with self.beginning(sock) as beginning:
                    options = {**self.ssl_args, "do_handshake_on_connect": False}
                    sock = beginning.socket = self.wrap_socket(sock, **options)
                    sock.do_handshake()
            except OSError as error:  # the client's trouble: no traceback
                self.error_log.write(f"no TLS with {address}: {error}\n")
                return
            self.handle(sock, address)
        finally:
            sock.close()

    @contextmanager
    def beginning(self, sock: Any) -> Iterator["_Beginning"]:
        """Keep a connection in the list during its TLS handshake or PROXY header; its `socket` may change."""
        beginning = _Beginning(sock)
        self._connections.add(beginning)
        try:
            yield beginning
        finally:
            self._connections.discard(beginning)

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection until it ends; `sock` is its socket, `address` the client's address."""
        if self.family != AF_UNIX:
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if self.http2 and self.ssl_enabled and sock.selected_alpn_protocol() == "h2":
            self._serve_http2(sock, address)
            return
        handler = self.handler_class(sock, address, self)
        connection = handler.http_connection
        self._connections.add(connection)
        try:
            handler.handle()
        finally:
            self._connections.discard(connection)
        if connection.http2_start is not None:
            self._serve_http2(connection.http2_start[0], address, connection.http2_start[1])

    def _serve_http2(self, sock: Any, address: Any, first: bytes = b"") -> None:
        """Serve a connection whose client speaks HTTP/2; `first` was read from it already."""
        from weald.http.http2 import Http2Connection  # which needs h2

        connection = Http2Connection(self, sock, address)
        self._connections.add(connection)
        try:
            connection.run(first)
        finally:
            self._connections.discard(connection)


class WSGIServer(HTTPServer):
    """WSGIServer(listener, application): serve a WSGI application over HTTP/1.1 and, if asked to, HTTP/2.

    `listener`, `backlog`, `spawn` and the arguments for TLS are StreamServer's; `log`, `limits` and `http2` are
    HTTPServer's.
    `error_log`, where errors are logged, is the application's `wsgi.errors`, too.
    `handler_class` replaces WSGIHandler.
    `environ` is added to the environment of each request.
    """

    handler_class: Any = WSGIHandler
    environ_class: Any = dict
    secure_environ_class = WSGISecureEnviron
    application: Any
    environ: Any

    base_env: ClassVar[dict[str, Any]] = {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": f"weald/{__version__} Python/{sys.version_info[0]}.{sys.version_info[1]}",
        "SCRIPT_NAME": "",
        "wsgi.version": (1, 0),
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": FileWrapper,
    }

    def __init__(
        self,
        listener: Any,
        application: Any = None,
        backlog: int | None = None,
        spawn: Any = "default",
        log: Any = "default",
        error_log: Any = "default",
        handler_class: Any = None,
        environ: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(listener, backlog, spawn, log, error_log, handler_class, **options)
        if application is not None:
            self.application = application
        self.set_environ(environ)
        self.set_max_accept()

    # ---------------------------------------------------------------- the environment

    def set_environ(self, environ: Any = None) -> None:
        """Make `environ`, the original of each request's environment, from `base_env` and `environ`."""
        if environ is not None:
            self.environ = environ
        given = getattr(self, "environ", None)
        self.environ = self.environ_class(self.base_env)
        self.environ["wsgi.url_scheme"] = "https" if self.ssl_enabled else "http"
        if given is not None:
            self.environ.update(given)
        if self.environ.get("wsgi.errors") is None:
            self.environ["wsgi.errors"] = self.error_log

    def set_max_accept(self) -> None:
        """Accept one connection at a time if other processes serve the same listener."""
        if self.environ.get("wsgi.multiprocess"):
            self.max_accept = 1

    def get_environ(self) -> Any:
        """Return a fresh environment for a request, of the class `environ_class`."""
        return self.environ_class(self.environ)

    def copies_environ(self) -> bool:
        """Return whether `get_environ` just copies the dict `environ`, so that a connection may do so by itself."""
        return (
            type(self).get_environ is WSGIServer.get_environ
            and "get_environ" not in vars(self)
            and self.environ_class is dict
            and type(self.environ) is dict
        )

    def init_socket(self) -> None:
        """Bind to `address` unless there is a socket already; `start` calls it."""
        super().init_socket()
        self.update_environ()

    def update_environ(self) -> None:
        """Add the server's name and port to `environ`, which are known once it is bound."""
        address = self.address
        if isinstance(address, tuple):
            # Not getfqdn(): that asks DNS, and a start would wait for it.
            anywhere = address[0] in ("0.0.0.0", "::", "")
            self.environ.setdefault("SERVER_NAME", gethostname() if anywhere else str(address[0]))
            self.environ.setdefault("SERVER_PORT", str(address[1]))
        else:
            # PEP 3333 wants both, and neither empty.
            self.environ.setdefault("SERVER_NAME", "localhost")
            self.environ.setdefault("SERVER_PORT", "443" if self.ssl_enabled else "80")


class _Beginning:
    """The entry in the server's list of a connection on which no request can have come yet."""

    __slots__ = ("socket",)
    idle = True
    go_away = None

    def __init__(self, sock: Any) -> None:
        self.socket = sock
