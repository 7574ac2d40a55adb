"""The applications of `http --asgi`, which every side serves.  fastapi's is made on demand."""

import json
from typing import Any

BODY = b"x" * 65536


async def lifespan(receive: Any, send: Any) -> None:
    for word in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{word}.complete"})


async def answer(send: Any, body: bytes, kind: bytes = b"text/plain") -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await answer(send, b"Hello, world!\n")


async def large(scope: Any, receive: Any, send: Any) -> None:
    """A body of 64 KiB."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    await answer(send, BODY)


async def post(scope: Any, receive: Any, send: Any) -> None:
    """Reads a JSON body and answers with one."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    body, more = b"", True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    total = sum(json.loads(body)["numbers"]) if body else 0
    await answer(send, json.dumps({"sum": total}).encode(), b"application/json")


async def upload(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body of 1 MB."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    pieces, more = [], True
    while more:
        event = await receive()
        pieces.append(event.get("body", b""))
        more = event.get("more_body", False)
    await answer(send, str(len(b"".join(pieces))).encode())


async def drain(scope: Any, receive: Any, send: Any) -> None:
    """Reads a body of any size."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    size, more = 0, True
    while more:
        event = await receive()
        size += len(event.get("body", b""))
        more = event.get("more_body", False)
    await answer(send, str(size).encode())


async def download(scope: Any, receive: Any, send: Any) -> None:
    """A body of so many bytes as the path says, in pieces."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    left = int(scope["path"][1:] or 0)
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % left)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    while left > 0:
        await send({"type": "http.response.body", "body": BODY[:left], "more_body": True})
        left -= len(BODY)
    await send({"type": "http.response.body", "body": b""})


async def websocket(scope: Any, receive: Any, send: Any) -> None:
    """An echo."""
    if scope["type"] != "websocket":
        return await hello(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


def __getattr__(name: str) -> Any:
    if name != "fastapi":
        raise AttributeError(name)
    from fastapi import FastAPI

    app = FastAPI()

    @app.get("/")
    async def root() -> dict[str, Any]:
        return {"hello": "world", "numbers": [1, 2, 3]}

    return app
