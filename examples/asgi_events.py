"""Server-sent events: a page that shows what others send, as it comes; no framework.

python examples/asgi_events.py [HOST:PORT]     then open http://127.0.0.1:7009/
                                               and: curl -d 'hello' http://127.0.0.1:7009/
"""

import asyncio
import json
import sys
from typing import Any

from weald.asgi import ASGIServer

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Events</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; color: #222; max-width: 40rem; margin: auto; padding: 1rem }
h1 { font-size: 1.4rem; font-weight: 600 } li { overflow-wrap: anywhere } p { color: #667 }
</style>
<h1>Events</h1>
<ul aria-live="polite"></ul>
<p role="status">Nobody is connected</p>
<script>
const events = new EventSource("/events")
events.onmessage = event => {
  const item = document.createElement("li")
  item.textContent = JSON.parse(event.data)
  document.querySelector("ul").append(item)
}
events.addEventListener("readers", event => document.querySelector("p").textContent = `${event.data} connected`)
</script>
"""

readers: set["asyncio.Queue[bytes]"] = set()


def tell_all(event: bytes) -> None:
    for queue in readers:
        queue.put_nowait(event)


async def events(receive: Any, send: Any) -> None:
    """One reader, until it leaves."""
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    readers.add(queue)
    tell_all(b"event: readers\ndata: %d\n\n" % len(readers))

    async def pass_on() -> None:
        while True:
            await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})

    passing = asyncio.create_task(pass_on())
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        passing.cancel()
        readers.discard(queue)
        tell_all(b"event: readers\ndata: %d\n\n" % len(readers))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/events":
        return await events(receive, send)
    answer, kind = PAGE, b"text/html; charset=utf-8"
    if scope["method"] == "POST":
        text, more = b"", True
        while more and len(text) < 10_000:
            message = await receive()
            text += message.get("body", b"")
            more = message.get("more_body", False)
        tell_all(b"data: %s\n\n" % json.dumps(text.decode(errors="replace")).encode())
        answer, kind = b"told %d\n" % len(readers), b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    server = ASGIServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7009", app, log=None, lifespan="off")
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
