"""The servers of a worker that has an ASGI application, and the middleware that `weald serve` puts around it.

Called by: worker.py, by name.

Invariant: a worker's servers share the applications, so their lifespans are the worker's.
"""

import socket
from typing import Any

from weald.asgi import ASGIServer, Lifespans, StartupError, interface_of
from weald.http.asgi import ASGIExchange
from weald.http.forwarded import ForwardedASGI, Trusted
from weald.http.logs import make_log
from weald.serve import wsgi
from weald.serve.accesslog import AccessLog, line_maker
from weald.serve.config import Config
from weald.serve.errorlog import Warnings
from weald.serve.errors import ConfigError
from weald.serve.fair import Fair
from weald.serve.threads import threaded
from weald.threadpool import ThreadPool

__all__ = ["FairASGIServer", "WorkerLifespans", "lifespans", "servers"]


class FairASGIServer(Fair, ASGIServer):
    """An ASGIServer that accepts its share of a listener's connections."""


class _Lines:
    """A LogFile as a server's log, whose lines end with a newline."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def write(self, line: str) -> None:
        self._log.write(line[:-1])


class WorkerLifespans(Lifespans):
    """The lifespans of a worker.  If a startup fails, it is a ConfigError: the worker reports it and ends."""

    def start(self) -> None:
        """Run the applications' startup.  Raises ConfigError."""
        try:
            super().start()
        except StartupError as error:
            raise ConfigError(str(error)) from None


def lifespans(applications: dict[str, tuple[Any, str]], config: Config) -> WorkerLifespans:
    """Return the lifespans of the ASGI applications."""
    found = {prefix: application for prefix, (application, interface) in applications.items() if interface == "asgi"}
    return WorkerLifespans(found, config.lifespan, make_log("default", 40))


def servers(
    applications: dict[str, tuple[Any, str]],
    config: Config,
    log: AccessLog | None,
    lifespans: Lifespans,
    listeners: list[socket.socket],
    fair: tuple[Any, Any],
    **options: Any,
) -> list[FairASGIServer]:
    """Return the servers of `listeners`; `fair` are the first arguments of `Fair`."""
    pool = ThreadPool(config.threads) if config.threads else None
    mounts = {
        prefix: _dressed(application, config) if interface == "asgi" else _as_wsgi(threaded(application, pool), config)
        for prefix, (application, interface) in applications.items()
    }
    application = mounts.pop("")
    mounts |= {prefix: _as_wsgi(static, config) for prefix, static in wsgi.static_folders(config).items()}
    handler_class: Any = ASGIExchange
    if log is not None:
        line = line_maker(config.access_log)

        class Logging(ASGIExchange):
            def format_request(self) -> str:
                return line(self)

        handler_class = Logging
    made = [
        FairASGIServer(
            *fair,
            listener,
            application,
            log=None if log is None else _Lines(log),
            handler_class=handler_class,
            error_log=Warnings(),
            lifespan=lifespans,
            root_path=config.root_path,
            mounts=mounts,
            limits=config.limits,
            websockets=wsgi.added_environ(config).get("weald.websocket_options"),
            **options,
        )
        for listener in listeners
    ]
    for server in made:
        for mount in server.mounts:
            if mount.wsgi is not None:
                mount.wsgi.handler_class = wsgi.handler_class(config, log)
                mount.wsgi.environ.update(wsgi.added_environ(config))
    return made


def _as_wsgi(application: Any, config: Config) -> Any:
    """Return a WSGI application with the middleware that `config` asks for; the server takes prefixes off."""
    dressed = wsgi.dressed(application, config, "")
    if interface_of(dressed) == "wsgi":
        return dressed
    return lambda environ, start_response: dressed(environ, start_response)  # --interface says that it is one


def _dressed(application: Any, config: Config) -> Any:
    """Return an ASGI application with the middleware that `config` asks for."""
    methods = config.allowed_methods()
    if methods:
        allowed, (names, body) = application, config.refusal()

        async def for_methods(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["method"] in methods:
                await allowed(scope, receive, send)
                return
            fields = [(b"allow", names.encode()), (b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 405, "headers": fields})
            await send({"type": "http.response.body", "body": body})

        application = for_methods
    if config.headers:
        served = application
        added = [(name.lower().encode(), value.encode("latin-1")) for name, value in config.fields()]

        async def with_fields(scope: Any, receive: Any, send: Any) -> None:
            async def sending(message: Any) -> None:
                if message["type"] in ("http.response.start", "websocket.http.response.start"):
                    message = {**message, "headers": wsgi.completed(list(message.get("headers", ())), added)}
                await send(message)

            await served(scope, receive, sending)

        application = with_fields
    if config.forwarded_allow_ips is not None:
        application = ForwardedASGI(application, Trusted(config.forwarded_allow_ips))
    if interface_of(application) == "asgi":
        return application

    async def awaited(scope: Any, receive: Any, send: Any) -> None:  # --interface says that it is one
        await application(scope, receive, send)

    return awaited
