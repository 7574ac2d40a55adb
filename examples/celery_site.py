"""A generated web site on weald, for the Celery examples: nothing leaves this machine.

`python celery_site.py [PAGES [DELAY]]` prints its URL and serves until it is terminated.  Page N links to pages
2N+1 and 2N+2, so that page 0 leads to all; each answers after DELAY seconds (0.05).
"""

import sys
from typing import Any

import weald
from weald.server import StreamServer

PAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 200
DELAY = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05


def page(path: str) -> tuple[str, str]:
    """Status line and body for a path."""
    name = path.rpartition("/")[2] or "0"
    if not name.isdigit() or int(name) >= PAGES:
        return "404 Not Found", "<p>no such page"
    number = int(name)
    links = [f'<a href="/page/{other}">{other}</a>' for other in (2 * number + 1, 2 * number + 2) if other < PAGES]
    return "200 OK", f"<title>page {number}</title>{' '.join(links)} <a href='#top'>up</a>"


def answer(sock: Any, address: Any) -> None:
    """One request, one answer."""
    request = b""
    while b"\r\n\r\n" not in request:
        piece = sock.recv(4096)
        if not piece:
            return
        request += piece
    weald.sleep(DELAY)
    status, body = page(request.split(b" ", 2)[1].decode())
    sock.sendall(
        f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        f"{body}".encode()
    )


server = StreamServer(("127.0.0.1", 0), answer, backlog=1024)
server.start()
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
try:
    server.serve_forever()
except KeyboardInterrupt:
    pass
