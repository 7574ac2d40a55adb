"""The applications of `http`, which every side serves.  WSGI callables by name; flask's is made on demand."""

import json
from collections.abc import Callable, Iterable
from typing import Any

BODY = b"x" * 65536


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = b"Hello, world!\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A body of 64 KiB."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]


def post(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Reads a JSON body and answers with one."""
    data = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    body = json.dumps({"sum": sum(data["numbers"])}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


def upload(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Reads a body of 1 MB."""
    body = str(len(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)))).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def drain(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Reads a body of any size in pieces."""
    read, size = environ["wsgi.input"].read, 0
    while piece := read(65536):
        size += len(piece)
    body = str(size).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def download(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """A body of so many bytes as the path says, in pieces."""
    left = int(environ["PATH_INFO"][1:] or 0)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(left))])
    while left > 0:
        yield BODY[:left]
        left -= len(BODY)


def __getattr__(name: str) -> Any:
    if name != "flask":
        raise AttributeError(name)
    from flask import Flask

    app = Flask(__name__)
    app.route("/")(lambda: "Hello, world!\n")
    return app
