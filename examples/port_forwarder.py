"""Passes TCP connections on to another address, both ways at once.

python examples/port_forwarder.py LISTEN TARGET          say: 127.0.0.1:7003 example.org:80
"""

import sys
from functools import partial
from socket import SHUT_WR
from typing import Any

import weald
from weald.server import StreamServer
from weald.socket import create_connection


def copy(source: Any, target: Any) -> None:
    """Copy until `source` has ended; then end `target`, too."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(SHUT_WR)
    except OSError:
        # One side is gone: wake the other direction, too.
        source.close()
        target.close()


def forward(target: tuple[str, int], client: Any, address: Any) -> None:
    with create_connection(target, timeout=10) as server:
        server.settimeout(None)
        weald.joinall([weald.spawn(copy, client, server), weald.spawn(copy, server, client)])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    host, _, port = sys.argv[2].rpartition(":")
    server = StreamServer(sys.argv[1], partial(forward, (host, int(port))))
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
