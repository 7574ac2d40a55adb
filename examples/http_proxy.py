"""A forward proxy for HTTP and, by CONNECT, for tunnels: about the smallest that browsers can use.

    python examples/http_proxy.py [HOST:PORT]         then: curl -x 127.0.0.1:7004 http://example.org/

Only for your own machine: every client that can reach it may connect anywhere.
"""

import sys
from typing import Any
from urllib.parse import urlsplit

from port_forwarder import copy

import weald
from weald.server import StreamServer
from weald.socket import create_connection


def read_head(client: Any) -> tuple[bytes, bytes]:
    """A request's head, and the bytes that came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece or len(data) > 65536:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def proxy(client: Any, address: Any) -> None:
    client.settimeout(30)
    head, rest = read_head(client)
    if not head:
        return
    line, *fields = head.split(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
        url = urlsplit("//" + target if method == "CONNECT" else target)
        host, port = url.hostname, url.port or 80
        if not host:
            raise ValueError("no host")
    except ValueError:
        client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return
    try:
        server = create_connection((host, port), timeout=10)
    except OSError:
        client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        return
    with server:
        if method == "CONNECT":
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            first = rest
        else:
            path = (url.path or "/") + ("?" + url.query if url.query else "")
            kept = [f for f in fields if not f.lower().startswith((b"proxy-", b"connection:", b"keep-alive:"))]
            # One request per connection keeps the program small.
            start = f"{method} {path} {version}".encode()
            first = b"\r\n".join([start, *kept, b"Connection: close"]) + b"\r\n\r\n" + rest
        server.sendall(first)
        for sock in (client, server):
            sock.settimeout(None)
        weald.joinall([weald.spawn(copy, client, server), weald.spawn(copy, server, client)])


if __name__ == "__main__":
    listening = StreamServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7004", proxy)
    listening.start()
    print(f"listening on 127.0.0.1:{listening.server_port}", flush=True)
    listening.serve_forever()
