"""A vote that all pages see at once: Starlette, and a WebSocket for each page.

python examples/asgi_vote.py [HOST:PORT]     then open http://127.0.0.1:7008/ in two windows
"""

import sys
from collections import Counter

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from weald.asgi import ASGIServer

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Vote</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; color: #222; max-width: 30rem; margin: auto; padding: 1rem }
h1 { font-size: 1.4rem; font-weight: 600 }
button { display: flex; gap: 1rem; width: 100%; margin: .6rem 0; padding: .8rem 1rem; font: inherit; text-align: left;
         border: 1px solid #aab; border-radius: .6rem;
         background: linear-gradient(#cfe3f3 0 0) 0 / var(--part, 0%) no-repeat }
button span { flex: 1 } p { color: #667 } :disabled { opacity: .5 }
</style>
<h1>What shall we have?</h1>
<main></main>
<p role="status">Connecting</p>
<script>
const main = document.querySelector("main"), status = document.querySelector("p")
const socket = new WebSocket(location.origin.replace("http", "ws") + "/votes")
socket.onmessage = event => {
  const {votes, pages} = JSON.parse(event.data)
  const all = Object.values(votes).reduce((a, b) => a + b, 0)
  for (const [name, count] of Object.entries(votes)) {
    let button = document.getElementById(name)
    if (!button) {
      button = main.appendChild(document.createElement("button"))
      button.id = name
      button.onclick = () => socket.send(name)
      button.append(document.createElement("span"), document.createElement("b"))
      button.firstChild.textContent = name
    }
    button.lastChild.textContent = count
    button.style.setProperty("--part", all ? 100 * count / all + "%" : "0%")
  }
  status.textContent = `${all} votes, ${pages} pages`
}
socket.onclose = () => {
  status.textContent = "The connection has ended. Reload the page to come back."
  for (const button of document.querySelectorAll("button")) button.disabled = true
}
</script>
"""

votes = Counter({"Pizza": 0, "Soup": 0, "Salad": 0})
pages: set[WebSocket] = set()


async def tell_all() -> None:
    news = {"votes": votes, "pages": len(pages)}
    for page in list(pages):
        try:
            await page.send_json(news)
        except Exception:  # it leaves; its own loop finds out
            pages.discard(page)


async def page(request: Request) -> HTMLResponse:
    return HTMLResponse(PAGE)


async def vote(websocket: WebSocket) -> None:
    """One task per page."""
    own = f"{'https' if websocket.url.scheme == 'wss' else 'http'}://{websocket.url.netloc}"
    if websocket.headers.get("origin", own) != own:  # a browser connects from any page
        await websocket.close()
        return
    await websocket.accept()
    pages.add(websocket)
    try:
        await tell_all()
        async for name in websocket.iter_text():
            if name in votes:
                votes[name] += 1
                await tell_all()
    finally:
        pages.discard(websocket)
        await tell_all()


app = Starlette(routes=[Route("/", page), WebSocketRoute("/votes", vote)])

if __name__ == "__main__":
    server = ASGIServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7008", app, log=None)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
