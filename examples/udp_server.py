"""A UDP server that answers each datagram with its length.

python examples/udp_server.py [HOST:PORT]         then: nc -u 127.0.0.1 7001
"""

import sys
from typing import Any

from weald.server import DatagramServer


class LengthServer(DatagramServer):
    def handle(self, data: bytes, address: Any) -> None:
        self.sendto(f"{len(data)} bytes\n".encode(), address)


if __name__ == "__main__":
    server = LengthServer(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7001")
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
