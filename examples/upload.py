"""Uploads of any size, straight to a file, with progress that anybody can watch.

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
<meta charset="utf-8"><title>Upload</title>
<style>body { font: 16px sans-serif; max-width: 40em; margin: 2em auto } progress { width: 100% }</style>
<h1>Upload</h1>
<input id="file" type="file"> <progress id="bar" max="1" value="0"></progress> <pre id="all"></pre>
<script>
const bar = document.getElementById("bar")
document.getElementById("file").onchange = event => {
  const file = event.target.files[0], request = new XMLHttpRequest()
  request.upload.onprogress = state => bar.value = state.loaded / state.total
  request.open("PUT", "/" + encodeURIComponent(file.name))
  request.send(file)
}
// What the server has got, of everybody's uploads: server-sent events.
new EventSource("/progress").onmessage = event => document.getElementById("all").textContent = event.data
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
        # An empty comment finds out whether anybody listens still.
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
