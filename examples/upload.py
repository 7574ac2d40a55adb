"""Uploads of any size, straight to a file, with progress that any client can watch.

python examples/upload.py [HOST:PORT [FOLDER]]    then open http://127.0.0.1:7006/
                                                  or: curl -T big.iso http://127.0.0.1:7006/big.iso
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import weald
from weald.pywsgi import WSGIServer

PAGE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Upload</title>
<style>
body { font: 16px/1.4 system-ui, sans-serif; color: #222; max-width: 40rem; margin: auto; padding: 1rem }
h1 { font-size: 1.4rem; font-weight: 600 } h2 { font-size: 1rem; font-weight: 600; margin-top: 2rem }
progress { width: 100% } #said { min-height: 1.4em; color: #667 }
ul { list-style: none; padding: 0 } li { display: flex; gap: 1rem; align-items: center; margin: .4rem 0 }
li span { flex: 2; overflow-wrap: anywhere } li progress { flex: 2 } li small { flex: 1; text-align: right }
</style>
<h1>Upload</h1>
<input id="file" type="file" aria-label="File to upload">
<progress id="bar" max="1" value="0" aria-label="Progress"></progress>
<p id="said" role="status"></p>
<h2>What the server has got</h2>
<ul id="all"></ul>
<script>
const bar = document.getElementById("bar"), said = document.getElementById("said")
document.getElementById("file").onchange = event => {
  const file = event.target.files[0], request = new XMLHttpRequest()
  if (!file) return
  said.textContent = file.name + " is on its way."
  request.upload.onprogress = state => bar.value = state.loaded / state.total
  request.onload = () => said.textContent = request.responseText
  request.onerror = () => said.textContent = "The connection broke."
  request.open("PUT", "/" + encodeURIComponent(file.name))
  request.send(file)
}
// Everybody's uploads: server-sent events.
new EventSource("/progress").onmessage = event => {
  const items = Object.entries(JSON.parse(event.data)).map(([name, state]) => {
    const item = document.createElement("li")
    const parts = ["span", "progress", "small"].map(tag => document.createElement(tag))
    parts[0].textContent = name
    parts[1].max = 1
    if (state.done) parts[1].value = 1
    else if (state.of > 0) parts[1].value = state.received / state.of
    parts[2].textContent = state.received.toLocaleString("en") + " bytes"
    item.append(...parts)
    return item
  })
  document.getElementById("all").replaceChildren(...items)
}
</script>
"""

folder = Path(".")
progress: dict[str, dict[str, Any]] = {}


def put(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The body, in pieces, to a file that gets its name when it is complete."""
    name = environ["PATH_INFO"].removeprefix("/").encode("latin-1").decode("utf-8", "replace")
    if not re.fullmatch(r"[\w][\w .+-]{0,200}", name):
        start_response("400 Bad Request", [("Content-Type", "text/plain")])
        return [b"what a name\n"]
    state = progress[name] = {"received": 0, "of": environ.get("CONTENT_LENGTH"), "done": False}
    partial = folder / f".{name}.part"
    try:
        with partial.open("wb") as file:
            while piece := environ["wsgi.input"].read(65536):
                file.write(piece)
                state["received"] += len(piece)
        partial.rename(folder / name)
    except OSError:
        partial.unlink(missing_ok=True)
        del progress[name]
        raise
    state["done"] = True
    start_response("201 Created", [("Content-Type", "text/plain")])
    return [f"{name}: {state['received']} bytes\n".encode()]


def watch(start_response: Any) -> Any:
    """The state of all uploads, each time it has changed."""
    start_response("200 OK", [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")])
    said = None
    while True:
        state = json.dumps(progress)
        # An empty comment finds out whether the client is still there.
        yield (f"data: {state}\n\n" if state != said else ":\n\n").encode()
        said = state
        weald.sleep(0.2)


def app(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["REQUEST_METHOD"] == "PUT":
        return put(environ, start_response)
    if environ["PATH_INFO"] == "/progress":
        return watch(start_response)
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [PAGE]


if __name__ == "__main__":
    address, *where = sys.argv[1:] or ["127.0.0.1:7006"]
    folder = Path(where[0] if where else tempfile.mkdtemp(prefix="upload-"))
    server = WSGIServer(address, app, log=None)
    server.start()
    print(f"files go to {folder}", flush=True)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
