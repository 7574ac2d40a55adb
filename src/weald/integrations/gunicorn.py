"""A gunicorn worker on weald: `gunicorn -k weald.integrations.gunicorn.Worker MODULE:APP`.

Called by: gunicorn, once in each forked worker.  The standard library is patched before the application is loaded.
gunicorn's settings that have a counterpart in weald.http.Limits are followed; so are limit_request_field_size,
max_requests, graceful_timeout, the access log, TLS, SCRIPT_NAME, and the fields of a proxy in front
(forwarded_allow_ips, secure_scheme_headers, forwarder_headers).

Invariants:
- A setting that would change what a request is, and cannot be followed, ends gunicorn at its start with a sentence.
"""

import ipaddress
import os
import signal
from dataclasses import replace
from datetime import timedelta
from typing import Any

from gunicorn.sock import ssl_context
from gunicorn.workers.base import Worker as _Base

from weald.http.limits import Limits
from weald.http.protocol import ProtocolError
from weald.pywsgi import WSGIHandler, WSGIServer

__all__ = ["Worker"]

# Settings that this worker cannot follow: with which values they change nothing, and why.
_REFUSED = {
    "proxy_protocol": ((None, False, "off"), "weald serve --proxy-protocol speaks the PROXY protocol"),
    "permit_unconventional_http_method": ((None, False), "methods that are not registered are refused"),
    "permit_unconventional_http_version": ((None, False), "HTTP/1.0, 1.1 and 2 are spoken"),
    "permit_obsolete_folding": ((None, False), "a folded field could be read as two"),
    "strip_header_spaces": ((None, False), "a name with a space behind it could be read as another one"),
    "casefold_http_method": ((None, False), "methods are case-sensitive"),
    "header_map": ((None, "drop", "refuse"), "a name with an underscore could pass for the one with a dash"),
}


class _Peers:
    """The proxies of forwarded_allow_ips: addresses, networks, or "*" for all."""

    def __init__(self, allowed: Any) -> None:
        texts = [str(text) for text in allowed]
        self._all = "*" in texts
        self._networks = [ipaddress.ip_network(text, strict=False) for text in texts if text and text != "*"]
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """Return whether the client `address` is one; "" is a Unix socket's client, which is."""
        if self._all or not address:
            return True
        known = self._known.get(address)
        if known is None:
            try:
                found = ipaddress.ip_address(address.partition("%")[0])
            except ValueError:
                return False
            known = any(found in network for network in self._networks)
            if len(self._known) < 1024:
                self._known[address] = known
        return known


class _Response:
    """The attributes of a response that gunicorn's access log reads."""

    def __init__(self, status: str, headers: list[Any], sent: int) -> None:
        self.status = status
        self.headers = headers
        self.sent = sent


class Handler(WSGIHandler):
    """Logs through gunicorn, and trusts the proxies that gunicorn is configured to trust."""

    worker: "Worker"  # set in a subclass for each worker

    scheme: str | None = None
    script_name = ""
    trusted = False

    def read_request(self, raw_requestline: Any) -> bool:
        """Refuse what gunicorn refuses as well.  Raises ProtocolError for that, with the status of the answer."""
        if not super().read_request(raw_requestline):
            return False
        request: Any = self.parsed_request
        worker = self.worker
        limit = worker.cfg.limit_request_field_size
        # Repeated fields are joined in `fields`: so a long one may be several.
        if limit and any(len(value) > limit - 40 for value in request.fields.values()):
            if any(len(name) + len(value) + 4 > limit for name, value in request.raw):
                raise ProtocolError(431, f"a field of more than {limit} bytes")
        address = self.client_address
        self.trusted = worker.peers.trusts(address[0] if isinstance(address, tuple) else "")
        self.scheme, self.script_name = None, worker.script_name
        if self.trusted:
            self._read_proxy(request)
        if self.script_name and not self.path.startswith(self.script_name):
            raise ProtocolError(500, f"the path {self.path} does not begin with SCRIPT_NAME {self.script_name}")
        return True

    def _read_proxy(self, request: Any) -> None:
        """Apply the fields that a proxy has set.  Raises ProtocolError if they contradict each other."""
        for name, secure in self.worker.cfg.secure_scheme_headers.items():
            value = request.fields.get("HTTP_" + name.upper().replace("-", "_"))
            if value is not None:
                scheme = "https" if value == secure else "http"
                if self.scheme not in (None, scheme):
                    raise ProtocolError(400, "fields that contradict each other about the scheme")
                self.scheme = scheme
        for name, value in self._forwarded(request):
            if name == "SCRIPT_NAME":
                self.script_name = value

    def _forwarded(self, request: Any) -> list[tuple[str, str]]:
        """Return the fields with an underscore that forwarder_headers lets a proxy send."""
        allowed = self.worker.forwarder_headers
        return [
            (key, value.decode("latin-1"))
            for name, value in request.raw
            if b"_" in name and ((key := name.decode("latin-1").upper()) in allowed or "*" in allowed)
        ]

    def get_environ(self) -> Any:
        """Return the WSGI environment, with gunicorn's names and what a trusted proxy tells."""
        env = super().get_environ()
        env["RAW_URI"] = self.path
        env["gunicorn.socket"] = self.socket
        if self.scheme is not None:
            env["wsgi.url_scheme"] = self.scheme
        if self.trusted:
            for name, value in self._forwarded(self.parsed_request):
                env["HTTP_" + name.replace("-", "_")] = value
        if self.script_name:
            env["SCRIPT_NAME"] = self.script_name
            env["PATH_INFO"] = env["PATH_INFO"].removeprefix(self.script_name)
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
    peers: _Peers
    script_name = ""
    forwarder_headers: frozenset[str] = frozenset()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """gunicorn calls this at its start.  Raises RuntimeError for a setting that this worker cannot follow."""
        for name, (unset, why) in _REFUSED.items():
            value = getattr(cfg, name, None)
            if value not in unset:
                raise RuntimeError(f"weald's worker does not follow {name} = {value!r}: {why}")

    def init_process(self) -> None:
        """Patch the standard library, then do what gunicorn does in each worker."""
        from weald import monkey

        # Until gunicorn sets its handlers again, which is after the patching, those of its main process are in place,
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
        """gunicorn's limits; to gunicorn 0 means unlimited."""
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
        self.peers = _Peers(cfg.forwarded_allow_ips)
        self.script_name = os.environ.get("SCRIPT_NAME", "")
        self.forwarder_headers = frozenset(name.upper() for name in getattr(cfg, "forwarder_headers", ()))
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
