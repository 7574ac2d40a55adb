"""WSGIServer: WSGI applications over HTTP/1.1 and HTTP/2, one greenlet a connection, fit to face the internet.

Called by: users, weald.serve, the gunicorn worker.  The interface is gevent.pywsgi's; what of it exists for gevent's
sake alone is in compat/_pywsgi.py.

Invariants: http/handler.py serves a connection; this module listens, keeps account of the connections, and ends them in
order.
"""

import sys
from functools import cached_property
from socket import AF_UNIX, IPPROTO_TCP, SHUT_RD, TCP_NODELAY, gethostname
from typing import TYPE_CHECKING, Any, ClassVar

from weald import __version__
from weald._base.names import more_names
from weald._core import monotonic, sleep, spawn, steady
from weald.http.body import FileWrapper
from weald.http.environ import Environ, LoggingLogAdapter, NoopLog, SecureEnviron, WSGISecureEnviron
from weald.http.exchange import Common
from weald.http.handler import WSGIHandler
from weald.http.limits import Limits
from weald.server import StreamServer

__all__ = ["Environ", "LoggingLogAdapter", "SecureEnviron", "WSGIHandler", "WSGIServer", "WSGISecureEnviron"]


class WSGIServer(StreamServer):
    """WSGIServer(listener, application): serve a WSGI application over HTTP/1.1, with keyword arguments for TLS.

    `log` is where requests are logged to: an object with `write`, a logging.Logger, None for nowhere
    (default: sys.stderr).  `error_log`, the same for errors, is `wsgi.errors` as well.  `handler_class` replaces
    WSGIHandler; `environ` is added to each request's environment; `limits` says what a client may cost; `http2` serves
    HTTP/2 as well, to who asks for it in TLS (ALPN; give an `ssl_context`) or just begins with it.
    """

    handler_class: Any = WSGIHandler
    log: Any = None
    error_log: Any = None
    environ_class: Any = dict
    secure_environ_class = WSGISecureEnviron
    limits = Limits()
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
        limits: Limits | None = None,
        http2: bool = False,
        **ssl_args: Any,
    ) -> None:
        if limits is not None:
            self.limits = limits
        self._common = Common(self.limits)
        self._connections: set[Any] = set()
        self.http2 = http2
        if http2 and "ssl_context" in ssl_args:
            ssl_args["ssl_context"].set_alpn_protocols(["h2", "http/1.1"])
        super().__init__(listener, backlog=backlog, spawn=spawn, **ssl_args)
        if application is not None:
            self.application = application
        if handler_class is not None:
            self.handler_class = handler_class
        self.log = _make_log(log, 20)
        self.error_log = _make_log(error_log, 40)
        self.set_environ(environ)
        self.set_max_accept()

    def set_environ(self, environ: Any = None) -> None:
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
        if self.environ.get("wsgi.multiprocess"):
            self.max_accept = 1

    def get_environ(self) -> Any:
        """A fresh environment for a request."""
        return self.environ_class(self.environ)

    def _copies_environ(self) -> bool:
        """Does `get_environ` just copy a dict, so that a connection need not call it for each request?"""
        return (
            type(self).get_environ is WSGIServer.get_environ
            and "get_environ" not in vars(self)
            and self.environ_class is dict
            and type(self.environ) is dict
        )

    def init_socket(self) -> None:
        super().init_socket()
        self.update_environ()

    def update_environ(self) -> None:
        """Fill in the server's name and port, known once it is bound."""
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

    def full(self) -> bool:
        return len(self._connections) + self._unbegun >= self.limits.connections or super().full()

    def start(self) -> None:
        self._common.draining = False
        super().start()

    def close(self) -> None:
        self._common.draining = True  # whoever is served now is told to connect anew
        super().close()

    def stop(self, timeout: float | None = None) -> None:
        """As StreamServer's; idle connections are closed at once."""
        self.close()
        self._close_idle()
        super().stop(timeout)

    def drain(self, timeout: float, patience: float = 1.0) -> bool:
        """Stop without failing a request: True if all connections have ended within `timeout` seconds.

        Connections in the listener's backlog are served; those that ask once more are answered, and told to connect
        anew; those still idle after `patience` seconds are closed.  What is left in the end is cut off.
        """
        start = monotonic()
        self._common.draining = True
        for _ in range(10):
            if self._accept_all() and not self._unbegun:
                break
            sleep(0)  # they begin
        self._accept_all()
        # Nothing runs in between: who connects now would be lost with the listener.
        self.stop_accepting()
        self._close_listener()
        self.close()
        sleep(0)
        while self._connections and (passed := monotonic() - start) < timeout:
            if passed >= patience:
                self._close_idle()
            sleep(0.02)
        done = not self._connections
        for handler in list(self._connections):
            if handler.socket is not None:
                handler.socket.close()
        return done

    def _accept_all(self) -> bool:
        """Who is in the listener's backlog.  False if accepting failed, and may not the next time."""
        try:
            while self._acceptor is not None and (args := self.do_read()) is not None:
                self.do_handle(*args)
        except OSError:  # of one connection, or no descriptor is left: those that are served free some
            sleep(self.min_delay)
            return False
        return True

    def _replace_connection(self, old: Any, new: Any) -> None:
        self._connections.discard(old)
        self._connections.add(new)

    @cached_property
    def _http2_handler_class(self) -> Any:
        from weald.http.http2 import handler_class

        return handler_class(self.handler_class)

    def _close_idle(self) -> None:
        """End the connections on which nothing happens, and those that may go on for ever."""
        for handler in list(self._connections):
            if handler._go_away is not None:
                spawn(handler._go_away)
                handler._go_away = None
            if handler._idle and handler.socket is not None:
                try:
                    handler.socket.shutdown(SHUT_RD)  # it finds the end of the stream, unless a request has come
                except OSError:
                    pass

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        client_socket.settimeout(self.limits.head_timeout)
        handshake = _Handshake(client_socket)
        self._connections.add(handshake)
        try:
            try:
                options = {**self.ssl_args, "do_handshake_on_connect": False}
                wrapped = handshake.socket = self.wrap_socket(client_socket, **options)
                wrapped.do_handshake()
            except OSError as error:  # the client's trouble: no traceback
                self.error_log.write(f"no TLS with {address}: {error}\n")
                return
            finally:
                self._connections.discard(handshake)
            self.handle(wrapped, address)
        finally:
            handshake.socket.close()

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection until it ends."""
        if self.family != AF_UNIX:
            sock.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        if self.http2 and self.ssl_enabled and sock.selected_alpn_protocol() == "h2":
            from weald.http.http2 import Http2Connection

            connection = Http2Connection(self, sock, address)
            self._connections.add(connection)
            try:
                connection.run()
            finally:
                self._connections.discard(connection)
            return
        handler = self.handler_class(sock, address, self)
        self._connections.add(handler)
        try:
            handler.handle()
        finally:
            self._connections.discard(handler)


class _Handshake:
    """A connection whose TLS handshake is under way, as the server keeps account of it."""

    __slots__ = ("socket",)
    _idle = True
    _go_away = None

    def __init__(self, sock: Any) -> None:
        self.socket = sock


def _make_log(log: Any, level: int) -> Any:
    if isinstance(log, str) and log == "default":
        return steady(sys.stderr)
    if log is None:
        return NoopLog()
    if not hasattr(log, "write") and hasattr(log, "log"):
        return LoggingLogAdapter(log, level)
    return log


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
