"""A TLS server that sends a greeting; it makes a certificate unless one is given.

python examples/tls_server.py [HOST:PORT [CERT KEY]]     then: openssl s_client -quiet -connect 127.0.0.1:7002
"""

import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from weald.server import StreamServer


def make_certificate(folder: str) -> tuple[str, str]:
    """A self-signed certificate for localhost and its key: the paths of two files in `folder`."""
    cert, key = str(Path(folder, "cert.pem")), str(Path(folder, "key.pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out", cert),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def greet(sock: Any, address: Any) -> None:
    sock.sendall(b"What is your name? ")
    name = sock.recv(100).strip()
    sock.sendall(b"Hello, " + name + b"; we speak " + sock.version().encode() + b".\n")


if __name__ == "__main__":
    address, *files = sys.argv[1:] or ["127.0.0.1:7002"]
    with tempfile.TemporaryDirectory() as folder:
        cert, key = files or make_certificate(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
    server = StreamServer(address, greet, ssl_context=context)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
