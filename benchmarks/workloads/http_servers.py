"""The HTTP servers of `http`, one per process: `http_servers.py KIND CORE APPLICATION [CERTIFICATE KEY]`.

Prints its port on a line of its own once it is about to serve, and serves until standard input ends (its parent closes
it, or dies).  Each server is configured as its documentation recommends for one worker.
"""

import os
import signal
import socket
import ssl
import sys
import threading
from importlib import import_module
from typing import Any


def announce(port: int) -> None:
    """Print the port for the parent, and end with the parent, children included."""
    print(port, flush=True)

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def serve_asgi(kind: str, core: int, name: str, tls: list[str]) -> None:
    """Serve one of the applications of ASGI."""
    if core >= 0:
        os.sched_setaffinity(0, {core})
    app: Any = getattr(import_module("asgi_apps"), name)
    if kind == "weald-asgi":
        options: dict[str, Any] = {"certfile": tls[0], "keyfile": tls[1]} if tls else {}
        if "HTTP2" in os.environ:
            options = {"http2": True}
            if tls:
                options["ssl_context"] = context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                context.load_cert_chain(*tls)
        server = import_module("weald.asgi").ASGIServer(("127.0.0.1", 0), app, backlog=1024, log=None, **options)
        server.start()
        announce(server.server_port)
        server.serve_forever()
        return
    port = free_port()
    announce(port)
    if kind == "uvicorn":
        options = {"ssl_certfile": tls[0], "ssl_keyfile": tls[1]} if tls else {}
        import_module("uvicorn").run(app, port=port, access_log=False, log_level="error", **options)
        return
    if kind == "hypercorn":
        config = import_module("hypercorn.config").Config()
        config.bind, config.worker_class, config.workers = [f"127.0.0.1:{port}"], "uvloop", 0
        config.application_path, config.loglevel = f"asgi_apps:{name}", "ERROR"
        if tls:
            config.certfile, config.keyfile = tls
        import_module("hypercorn.run").run(config)
        return
    from pathlib import Path

    options = {"ssl_cert": Path(tls[0]), "ssl_key": Path(tls[1])} if tls else {}
    import_module("granian").Granian(
        f"asgi_apps:{name}", interface="asgi", address="127.0.0.1", port=port, workers=1, log_enabled=False, **options
    ).serve()


def main() -> None:
    """See the module's docstring."""
    kind, core, name, *tls = sys.argv[1:]
    os.setpgrp()
    if kind in ("weald-asgi", "uvicorn", "hypercorn", "granian-asgi"):
        serve_asgi(kind, int(core), name, tls)
        return
    workers = kind.removeprefix("weald-")
    if core != "-1" and workers == kind:
        os.sched_setaffinity(0, {int(core)})
    app: Any = getattr(import_module("http_apps"), name)
    files: dict[str, Any] = {"certfile": tls[0], "keyfile": tls[1]} if tls else {}
    if kind in ("weald", "gevent"):
        if kind == "weald" and "HEAD_TIMEOUT" in os.environ:
            files["limits"] = import_module("weald.http.limits").Limits(head_timeout=float(os.environ["HEAD_TIMEOUT"]))
        server = import_module(f"{kind}.pywsgi").WSGIServer(("127.0.0.1", 0), app, backlog=1024, log=None, **files)
        server.start()
        announce(server.server_port)
        server.serve_forever()
        return
    port = free_port()
    announce(port)
    if workers != kind:
        certificate = ["--certfile", tls[0], "--keyfile", tls[1]] if tls else []
        sys.argv[1:] = ["serve", f"http_apps:{name}", "-w", workers, "-b", f"127.0.0.1:{port}", *certificate]
        import_module("weald.__main__").main()
    elif kind == "bjoern":
        if tls:
            raise SystemExit("bjoern does not speak TLS")
        import_module("bjoern").run(app, "127.0.0.1", port)
    else:
        from pathlib import Path

        files = {"ssl_cert": Path(tls[0]), "ssl_key": Path(tls[1])} if tls else {}
        granian = import_module("granian")
        granian.Granian(
            f"http_apps:{name}", interface="wsgi", address="127.0.0.1", port=port, workers=1, log_enabled=False, **files
        ).serve()


if __name__ == "__main__":
    main()
