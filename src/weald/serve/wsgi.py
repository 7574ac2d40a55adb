"""The servers of a worker with a WSGI application, and the middleware that `weald serve` puts around it.

Called by: worker.py, by name; asgi.py, which serves WSGI applications below a prefix.
"""

import socket
from typing import Any

from weald.http.forwarded import Forwarded, Trusted
from weald.http.logs import make_log
from weald.pywsgi import WSGIHandler
from weald.serve.accesslog import AccessLog, line_maker
from weald.serve.config import Config
from weald.serve.errorlog import Warnings
from weald.serve.fair import FairServer
from weald.serve.static import Static, parse_static
from weald.serve.threads import threaded
from weald.threadpool import ThreadPool

__all__ = ["added_environ", "completed", "dressed", "handler_class", "lifespans", "servers", "static_folders"]


def lifespans(applications: dict[str, tuple[Any, str]], config: Config) -> None:
    """Return None: WSGI applications have no lifespan."""


def servers(
    applications: dict[str, tuple[Any, str]],
    config: Config,
    log: AccessLog | None,
    lifespans: None,
    listeners: list[socket.socket],
    fair: tuple[Any, Any],
    **options: Any,
) -> list[FairServer]:
    """Return the servers of `listeners`; `fair` are the first arguments of FairServer."""
    pool = ThreadPool(config.threads) if config.threads else None
    application = dressed(with_static(threaded(applications[""][0], pool), config), config)
    environ = {**added_environ(config), "SCRIPT_NAME": config.root_path}
    return [
        FairServer(
            *fair,
            listener,
            application,
            log=None,
            error_log=Warnings(),
            handler_class=handler_class(config, log),
            environ=dict(environ),
            limits=config.limits,
            **options,
        )
        for listener in listeners
    ]


def with_static(application: Any, config: Config) -> Any:
    """`application`, and the files of --static below their prefixes."""
    if not config.static:
        return application
    folders = static_folders(config)
    prefixes = sorted(folders, key=len, reverse=True)
    beginnings = tuple(prefix + "/" for prefix in prefixes)

    def files_or(environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith(beginnings):
            prefix = next(prefix for prefix in prefixes if path.startswith(prefix + "/"))
            environ["SCRIPT_NAME"] += prefix
            environ["PATH_INFO"] = path[len(prefix) :]
            return folders[prefix](environ, start_response)
        return application(environ, start_response)

    return files_or


def static_folders(config: Config) -> dict[str, Static]:
    """The applications that serve the files of --static, by prefix."""
    return {prefix: Static(folder, config.static_max_age) for prefix, folder in map(parse_static, config.static)}


def added_environ(config: Config) -> dict[str, Any]:
    """The keys that `config` adds to the environments of WSGI applications."""
    added: dict[str, Any] = {"wsgi.multiprocess": config.workers > 1, "wsgi.errors": make_log("default", 40)}
    if config.websocket:
        from weald.http.websocket import Options  # which needs wsproto

        added["weald.websocket_options"] = Options(**config.websocket)
    return added


def handler_class(config: Config, log: AccessLog | None) -> type[WSGIHandler]:
    """The handler that logs as `config` says."""
    if log is None:
        return WSGIHandler
    line, write = line_maker(config.access_log), log.write

    class Logging(WSGIHandler):
        def log_request(self) -> None:
            write(line(self))

    return Logging


def completed(fields: list[Any], added: list[Any]) -> list[Any]:
    """Return `fields`, and those of `added` whose names are not among them: (name, value) of one type of strings."""
    have = {name.lower() for name, _ in fields}
    return [*fields, *(field for field in added if field[0].lower() not in have)]


def dressed(application: Any, config: Config, root: str | None = None) -> Any:
    """`application` with the middleware that `config` asks for; `root` replaces `config.root_path`."""
    root = config.root_path if root is None else root
    if root:
        inner = application

        def below(environ: dict[str, Any], start_response: Any) -> Any:
            # A proxy may or may not have taken the prefix off.
            path = environ["PATH_INFO"]
            if path == root or path.startswith(root + "/"):
                environ["PATH_INFO"] = path[len(root) :]
            return inner(environ, start_response)

        application = below
    methods = config.allowed_methods()
    if methods:
        allowed, (names, body) = application, config.refusal()

        def for_methods(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] in methods:
                return allowed(environ, start_response)
            start_response("405 Method Not Allowed", [("Allow", names), ("Content-Type", "text/plain")])
            return [body]

        application = for_methods
    if config.headers:
        served, added = application, config.fields()

        def with_fields(environ: dict[str, Any], start_response: Any) -> Any:
            def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                return start_response(status, completed(headers, added), *rest)

            return served(environ, start)

        application = with_fields
    if config.forwarded_allow_ips is not None:
        application = Forwarded(application, Trusted(config.forwarded_allow_ips))
    return application
