"""Runs README's first example and more in an environment that has the package, but not the checkout.

Called by: scripts/test-packages, as `smoke.py README`: inside a bare Debian folder, with a wheel installed.
"""

import re
import subprocess
import sys
from pathlib import Path

# Both loops, sockets, a pool of native threads, a child, an HTTP server with HTTP/2 and WebSockets, and patching.
PARTS = """
from weald import monkey
monkey.patch_all()
import socket, subprocess, sys, threading, time, urllib.request
import weald
from weald.http.websocket import WebSocket
from weald import http, pool, pywsgi, queue, server, threadpool

def echo(connection, address):
    while data := connection.recv(1000):
        connection.sendall(data)

listener = server.StreamServer(("127.0.0.1", 0), echo)
listener.start()
clients = [socket.create_connection(listener.address[:2], timeout=30) for _ in range(50)]
for number, client in enumerate(clients):
    client.sendall(b"%d" % number)
assert [int(client.recv(10)) for client in clients] == list(range(50))

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]

web = pywsgi.WSGIServer(("127.0.0.1", 0), application, log=None)
web.start()
assert urllib.request.urlopen(f"http://127.0.0.1:{web.server_port}/path", timeout=30).read() == b"/path"
assert subprocess.run([sys.executable, "-c", "print(7)"], capture_output=True).stdout == b"7\\n"
assert threadpool.ThreadPool(2).apply(sum, ([1, 2],)) == 3
thread = threading.Thread(target=time.sleep, args=(0.01,))
thread.start()
thread.join()
assert pool.Pool(10).map(abs, range(-3, 3)) == [3, 2, 1, 0, 1, 2]
print(weald.get_hub().loop.name)
"""


def run(code: str, **environ: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", f"{code}\n{done.stdout}{done.stderr}"
    return done.stdout


def main(readme: Path) -> None:
    for loop in ("libuv", "libev"):
        assert run(PARTS, WEALD_LOOP=loop) == f"{loop}\n"
    assert run("import gevent.pywsgi, weald.pywsgi; print(gevent.pywsgi is weald.pywsgi)") == "True\n"
    examples = re.findall(r"^```python\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert examples, "README shows no Python"
    print(run(examples[0]), end="")
    print(f"smoke test passed: {len(PARTS.splitlines())} lines on two loops, and README's first example")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
