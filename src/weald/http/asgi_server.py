"""ASGIServer: ASGI applications over HTTP/1.1 and HTTP/2, one greenlet a connection; WSGI ones beside them.

Called by: weald.asgi, which exports it; weald.serve.

Connections are those of HTTPServer; asgi.pyx answers requests, on the hub's resident loop, so that an application and
the coroutines that its greenlets await share a loop.

Invariants:
- The application's startup is complete before a connection is accepted.  Its shutdown begins when all connections have
  ended, or their time is over.
- `detached` holds the requests whose applications go on after their responses; a server that stops waits for them, too.
"""

from collections.abc import Mapping
from socket import AF_UNIX
from typing import Any, NamedTuple

from weald._core import monotonic, sleep
from weald.aio.bridge import get_resident_loop
from weald.http.asgi import ASGIExchange, Call
from weald.http.asgi_websocket import WebSocketCall
from weald.http.interface import interface_of
from weald.http.lifespan import Lifespans
from weald.http.server import HTTPServer, WSGIServer
from weald.http.websocket import Options

__all__ = ["ASGIServer"]


class Mount(NamedTuple):
    """An application, and the prefix of the paths that it answers; `wsgi` is the server that a WSGI one runs in."""

    prefix: str
    application: Any
    wsgi: WSGIServer | None


class ASGIServer(HTTPServer):
    """ASGIServer(listener, application): serve an ASGI 3 application over HTTP/1.1 and, if asked to, HTTP/2.

    `listener` and `options` are HTTPServer's: `log`, `error_log`, `limits`, `http2`, the arguments for TLS and so on.
    `lifespan`: "on", "off" or "auto", which is "on" for applications that take it; or the `Lifespans` of applications
    that several servers share, which the program starts and stops.
    `root_path` is where the application is: `scope["root_path"]`.
    `mounts`: further applications by the prefixes of the paths that they answer, such as {"/old": app}; the longest
    prefix counts.  Each of them, and `application` as well, may be a WSGI application; `interface_of` tells.
    `websockets`, a weald.http.websocket.Options, has the limits of WebSockets, and whether to compress.
    """

    handler_class: Any = ASGIExchange
    patience = 30.0  # seconds that an application may go on after its client has left, before that is logged
    application: Any

    def __init__(
        self,
        listener: Any,
        application: Any = None,
        *,
        lifespan: str | Lifespans = "auto",
        root_path: str = "",
        mounts: Mapping[str, Any] | None = None,
        websockets: Options | None = None,
        **options: Any,
    ) -> None:
        super().__init__(listener, **options)
        if application is not None:
            self.application = application
        self.root_path = root_path
        self.websockets = websockets or Options()
        self.loop_of_applications = get_resident_loop()
        self.detached: set[Call] = set()
        self.mounts = self._make_mounts(mounts or {})
        self._owns_lifespans = isinstance(lifespan, str)
        self.lifespans = lifespan if isinstance(lifespan, Lifespans) else self._make_lifespans(lifespan)

    # ---------------------------------------------------------------- applications

    def _make_mounts(self, mounts: Mapping[str, Any]) -> list[Mount]:
        """Return the applications, longest prefix first; none if there is just one, of ASGI."""
        if not mounts and interface_of(self.application) == "asgi":
            return []
        made = []
        for prefix, application in {**mounts, "": self.application}.items():
            if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
                raise ValueError(f"a prefix must begin with a slash and end with none: {prefix!r}")
            wsgi = None
            if interface_of(application) == "wsgi":
                wsgi = WSGIServer(
                    self.address,
                    _below(application, self.root_path, prefix),
                    log=self.log,
                    error_log=self.error_log,
                    environ={"SCRIPT_NAME": self.root_path + prefix},
                    limits=self.limits,
                )
                wsgi.http_state = self.http_state
            made.append(Mount(prefix, application, wsgi))
        return sorted(made, key=lambda mount: len(mount.prefix), reverse=True)

    def _make_lifespans(self, mode: str) -> Lifespans:
        applications = {mount.prefix: mount.application for mount in reversed(self.mounts) if mount.wsgi is None}
        return Lifespans(applications if self.mounts else {"": self.application}, mode, self.error_log)

    def find_mount(self, target: str) -> Mount:
        """Return the mount whose application answers a request for `target`."""
        path = _without(target.partition("?")[0], self.root_path)
        for mount in self.mounts:
            prefix = mount.prefix
            if path == prefix or path.startswith(prefix + "/"):
                return mount
        return self.mounts[-1]

    def websocket_call(self) -> WebSocketCall:
        """Return a new call, for a request that opens a WebSocket."""
        return WebSocketCall(self.websockets)

    def local_of(self, sock: Any) -> tuple[str, int | None]:
        """Return the address that a client has reached the server at: a host and a port, or a path and None."""
        if self.family == AF_UNIX:
            return str(self.address), None
        host, port = self.address[:2]
        if host in ("0.0.0.0", "::", ""):
            host, port = sock.getsockname()[:2]
        return host, port

    # ---------------------------------------------------------------- starting and stopping

    def init_socket(self) -> None:
        """Bind to `address` unless there is a socket already; `start` calls it."""
        super().init_socket()
        for mount in self.mounts:
            if mount.wsgi is not None:
                mount.wsgi.ssl_enabled = self.ssl_enabled
                mount.wsgi.environ["wsgi.url_scheme"] = "https" if self.ssl_enabled else "http"
                mount.wsgi.address = self.address
                mount.wsgi.update_environ()

    def start(self) -> None:
        """Bind, run the applications' startup, and accept from then on.

        Raises the OSError of binding, and StartupError.
        """
        self.init_socket()
        if self._owns_lifespans:
            try:
                self.lifespans.start()
            except BaseException:
                self.close()
                raise
        super().start()

    def stop(self, timeout: float | None = None) -> None:
        """Stop as StreamServer does, close idle connections at once, and run the applications' shutdown.

        `timeout`: how many seconds requests have to end (default: `stop_timeout`), and then the shutdown.
        """
        patience = self.stop_timeout if timeout is None else timeout
        self.close()
        self._close_idle()
        super().stop(timeout)
        self._wait_for_calls(patience)
        self._stop_lifespans(max(patience, self.stop_timeout))

    def drain(self, timeout: float, patience: float = 1.0) -> bool:
        """Stop without failing a request, as HTTPServer does, and run the applications' shutdown.

        Requests whose application has not answered within `timeout` seconds are logged and cut off.
        """
        end = monotonic() + timeout
        done = super().drain(timeout, patience)
        done = self._wait_for_calls(max(end - monotonic(), 0.0)) and done
        self._stop_lifespans(max(end - monotonic(), self.stop_timeout))
        return done

    def _stop_lifespans(self, timeout: float) -> None:
        if self._owns_lifespans:
            self.lifespans.stop(timeout)

    def _wait_for_calls(self, timeout: float) -> bool:
        """Wait until no request is being served.  Those that are left after `timeout` seconds are cancelled."""
        end = monotonic() + timeout
        while (calls := self._calls()) and monotonic() < end:
            sleep(0.01)
        for call in calls:
            self.error_log.write(f"{call.line}: the application had not ended when the server did: cancelled\n")
            call.task.cancel()
        return not calls

    def _calls(self) -> list[Call]:
        """Return the requests whose applications have not ended."""
        found = list(self.detached)
        for connection in self._connections:
            streams = getattr(connection, "streams", {}).values()  # of HTTP/2
            for exchange in (getattr(connection, "exchange", None), *(stream.handler for stream in streams)):
                call = getattr(exchange, "call", None)
                if call is not None and call.task is not None:
                    found.append(call)
        return found


def _below(application: Any, root: str, prefix: str) -> Any:
    """Return a WSGI application that shows `application` paths without `root` and `prefix`."""

    def below(environ: dict[str, Any], start_response: Any) -> Any:
        environ["PATH_INFO"] = _without(environ["PATH_INFO"], root)[len(prefix) :]
        return application(environ, start_response)

    return below if root or prefix else application


def _without(path: str, root: str) -> str:
    """Return `path` without `root` in front, which a proxy may have taken off already."""
    return path[len(root) :] if root and (path == root or path.startswith(root + "/")) else path
