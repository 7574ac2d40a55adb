"""A chat in the browser: a page, and a WebSocket that passes each message on to all clients.

python examples/websocket_chat.py [HOST:PORT]     then open http://127.0.0.1:7005/ in two windows
"""

import sys
from typing import Any

from weald.http import websocket
from weald.http.websocket import Closed, WebSocket
from weald.pywsgi import WSGIServer

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Chat</title>
<style>
* { box-sizing: border-box; font: inherit }
body { font: 16px/1.4 system-ui, sans-serif; color: #222; max-width: 40rem; height: 100vh; margin: auto; padding: 1rem;
       display: flex; flex-direction: column; gap: 1rem }
h1 { font-size: 1.4rem; font-weight: 600; margin: 0 }
ul { flex: 1; overflow-y: auto; list-style: none; margin: 0; padding: 0 }
li { width: fit-content; max-width: 85%; margin: .4rem 0; padding: .4rem .8rem; border-radius: 1rem;
     background: #eef1f5; overflow-wrap: anywhere }
li.note { background: none; color: #667; font-size: .9rem; margin: .4rem auto }
form { display: flex; gap: .5rem }
input { flex: 1; min-width: 0; padding: .6rem .9rem; border: 1px solid #aab; border-radius: 2rem }
button { padding: .6rem 1.2rem; border: 0; border-radius: 2rem; background: #1b6ca8; color: #fff }
:disabled { opacity: .5 }
</style>
<h1>Chat</h1>
<ul id="words" aria-live="polite"></ul>
<form id="form">
<input id="word" autofocus autocomplete="off" maxlength="2000" aria-label="Message" placeholder="Say something">
<button>Send</button>
</form>
<script>
const words = document.getElementById("words"), form = document.getElementById("form")
const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat")
const show = (text, kind) => {
  const item = document.createElement("li")
  item.textContent = text
  item.className = kind
  words.append(item)
  item.scrollIntoView()
}
socket.onopen = () => show("You are in.", "note")
socket.onmessage = event => show(event.data, "")
socket.onclose = () => {
  show("The connection has ended. Reload the page to come back.", "note")
  for (const element of form.elements) element.disabled = true
}
form.onsubmit = event => {
  event.preventDefault()
  const word = document.getElementById("word")
  if (word.value && socket.readyState == WebSocket.OPEN) {
    socket.send(word.value)
    word.value = ""
  }
}
</script>
"""

people: set[WebSocket] = set()
options = websocket.Options(max_message=10_000)


def chat(ws: WebSocket) -> None:
    """One greenlet per person."""
    people.add(ws)
    try:
        for message in ws:
            for other in list(people):
                try:
                    other.send(str(message))
                except Closed:
                    people.discard(other)
    finally:
        people.discard(ws)


chatting = websocket.application(chat, options=options)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/chat":
        return chatting(environ, start_response)
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [PAGE]


if __name__ == "__main__":
    server = WSGIServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7005", app, log=None)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
