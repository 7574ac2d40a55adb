"""A TCP server that sends every line back.

python examples/echo_server.py [HOST:PORT]        then: nc 127.0.0.1 7000
"""

import sys
from typing import Any

from weald.server import StreamServer


def echo(sock: Any, address: Any) -> None:
    """Runs in a greenlet of its own for each connection."""
    print(f"{address} is here", flush=True)
    with sock.makefile("rb") as lines:
        for line in lines:
            sock.sendall(line)
    print(f"{address} has left", flush=True)


if __name__ == "__main__":
    server = StreamServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7000", echo)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
