"""A chat in the browser: a page, and a WebSocket that passes everybody's words to everybody.

python examples/websocket_chat.py [HOST:PORT]     then open http://127.0.0.1:7005/ in two windows
"""

import sys
from typing import Any

from weald.http import websocket
from weald.http.websocket import Closed, WebSocket
from weald.pywsgi import WSGIServer

PAGE = b"""<!doctype html>
<meta charset="utf-8"><title>Chat</title>
<style>
body { font: 16px sans-serif; max-width: 40em; margin: 2em auto }
li { list-style: none } input { width: 100% }
</style>
<h1>Chat</h1>
<ul id="words"></ul>
<form id="form"><input id="word" autofocus autocomplete="off" placeholder="Say something"></form>
<script>
const socket = new WebSocket(location.origin.replace("http", "ws") + "/chat")
const show = text => {
  const item = document.createElement("li")
  item.textContent = text
  document.getElementById("words").append(item)
}
socket.onopen = () => show("You are in.")
socket.onmessage = event => show(event.data)
socket.onclose = () => show("The connection has ended.")
document.getElementById("form").onsubmit = event => {
  event.preventDefault()
  const word = document.getElementById("word")
  if (word.value) socket.send(word.value)
  word.value = ""
}
</script>
"""

people: set[WebSocket] = set()
options = websocket.Options(max_message=10_000)


def chat(ws: WebSocket) -> None:
    """One greenlet a person."""
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
