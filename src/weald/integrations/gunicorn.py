"""A gunicorn worker on weald: `gunicorn -k weald.integrations.gunicorn.Worker MODULE:APP`.

Called by: gunicorn, once in each forked worker.  The standard library is patched before the application is loaded.
gunicorn's settings that have a counterpart in weald.http.Limits are followed; so are max_requests, graceful_timeout,
the access log, TLS, and what the proxy in front says of the scheme (forwarded_allow_ips, secure_scheme_headers).
"""

import os
import signal
from dataclasses import replace
from datetime import timedelta
from typing import Any

from gunicorn.sock import ssl_context
from gunicorn.workers.base import Worker as _Base

from weald.http.limits import Limits
from weald.pywsgi import WSGIHandler, WSGIServer

__all__ = ["Worker"]


class _Response:
    """What gunicorn's access log wants to know of a response."""

    def __init__(self, status: str, headers: list[Any], sent: int) -> None:
        self.status = status
        self.headers = headers
        self.sent = sent


class Handler(WSGIHandler):
    """Logs through gunicorn, and believes the proxies that gunicorn is told to believe."""

    worker: "Worker"  # set in a subclass for each worker

    def get_environ(self) -> Any:
        """Return the WSGI environment, with gunicorn's names and the scheme that a trusted proxy tells."""
        env = super().get_environ()
        env["RAW_URI"] = self.path
        env["gunicorn.socket"] = self.socket
        trusted = self.worker.cfg.forwarded_allow_ips
        if "*" in trusted or env.get("REMOTE_ADDR", "") in (*trusted, ""):  # "" is a Unix socket's client
            for name, value in self.worker.cfg.secure_scheme_headers.items():
                if env.get("HTTP_" + name.upper().replace("-", "_")) == value:
                    env["wsgi.url_scheme"] = "https"
        return env

    def log_request(self) -> None:
        """Write to gunicorn's access log."""
        worker = self.worker
        worker.count()
        environ = self.environ
        if environ is None:  # nothing that could be read as a request
            environ = {"REQUEST_METHOD": "-", "RAW_URI": "-", "SERVER_PROTOCOL": "-"}
        status = self.status.decode("latin-1") if isinstance(self.status, bytes) else str(self.status or "000")
        response = _Response(status, self.response_headers or [], self.response_length)
        seconds = max(self.time_finish - self.time_start, 0) if self.time_finish else 0
        request = self.parsed_request
        raw = request.raw if request is not None else []
        asked = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        worker.log.access(response, asked, environ, timedelta(seconds=seconds))


class Worker(_Base):  # type: ignore[misc]
    """Serves gunicorn's listeners with weald's WSGIServer, a greenlet for each connection."""

    alive: bool

    def init_process(self) -> None:
        """Patch the standard library, then do what gunicorn does in each worker."""
        from weald import monkey

        # Until gunicorn sets its handlers anew, which is after the patching, those of its main process are in place,
        # and would only take note of the signal.
        signal.signal(signal.SIGTERM, self.handle_exit)
        monkey.patch_all()
        super().init_process()

    def count(self) -> None:
        """One more request has been served."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False

    def limits(self) -> Limits:
        """gunicorn's limits; 0 is what it calls unlimited."""
        cfg = self.cfg
        line = cfg.limit_request_line or 1 << 20
        fields = cfg.limit_request_fields
        return replace(
            Limits(),
            request_line=line,
            fields=fields,
            head=max(line + fields * (cfg.limit_request_field_size or 8190), 8192),
            keep_alive_timeout=float(cfg.keepalive or 0.001),
            connections=cfg.worker_connections,
            requests=Limits().requests if cfg.keepalive else 1,
        )

    def run(self) -> None:
        """Serve until gunicorn ends this worker; requests under way get graceful_timeout seconds."""
        from weald._core import sleep, spawn

        cfg = self.cfg
        options: dict[str, Any] = {"ssl_context": ssl_context(cfg)} if cfg.is_ssl else {}
        environ = {"wsgi.multiprocess": cfg.workers > 1, "wsgi.multithread": True}
        handler = type("Handler", (Handler,), {"worker": self})
        servers = []
        for listener in self.sockets:
            server = WSGIServer(
                getattr(listener, "sock", listener),
                self.wsgi,
                log=None,
                error_log=self.log.error_log,
                handler_class=handler,
                environ=dict(environ),
                limits=self.limits(),
                **options,
            )
            server.start()
            servers.append(server)
        while self.alive:
            self.notify()
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                break
            sleep(0.5)
        self.notify()
        drained = [spawn(server.drain, cfg.graceful_timeout) for server in servers]
        if not all(draining.get() for draining in drained):
            self.log.warning("Worker graceful timeout (pid:%s)", self.pid)
