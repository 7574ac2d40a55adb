"""HAProxy's PROXY protocol, versions 1 and 2: the header in which a load balancer names the client of a connection.

Called by: weald.serve.fair.

The rules are those of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.  A header is expected of
known peers, and only of those: guessing whether there is one would let any client claim any address.
"""

import ipaddress
from typing import Any

__all__ = ["read_address"]

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_LONGEST_LINE = 107  # bytes, of version 1 with its end
_MOST = 4096  # bytes of a header of version 2; what load balancers add to the addresses is far less
_LENGTHS = {0x11: 4, 0x21: 16}  # TCP over IPv4 and IPv6: bytes of an address


def read_address(sock: Any) -> tuple[str, int] | None:
    """Read the header, and not a byte more, from `sock`; returns the client's (address, port), None if it names none.

    Raises ValueError for what is no header, OSError if reading fails.
    """
    start = _exactly(sock, len(_SIGNATURE))
    if start == _SIGNATURE:
        return _version_2(sock)
    if start.startswith(b"PROXY "):
        line = bytearray(start)
        while not line.endswith(b"\r\n"):
            if len(line) >= _LONGEST_LINE:
                raise ValueError("the line does not end")
            line += _exactly(sock, 1)
        return _version_1(bytes(line[:-2]))
    raise ValueError("there is none")


def _exactly(sock: Any, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise ValueError("the connection ended in it")
        data += part
    return data


def _version_1(line: bytes) -> tuple[str, int] | None:
    parts = line.decode("ascii").split(" ")
    if parts[1] == "UNKNOWN":
        return None
    if len(parts) != 6 or parts[1] not in ("TCP4", "TCP6"):
        raise ValueError("the line is malformed")
    kind = ipaddress.IPv4Address if parts[1] == "TCP4" else ipaddress.IPv6Address
    source, _ = kind(parts[2]), kind(parts[3])
    ports = [int(part) for part in parts[4:] if part.isdigit() and len(part) <= 5 and int(part) < 65536]
    if len(ports) != 2:
        raise ValueError("a port is malformed")
    return str(source), ports[0]


def _version_2(sock: Any) -> tuple[str, int] | None:
    version, family, high, low = _exactly(sock, 4)
    length = high << 8 | low
    if version >> 4 != 2 or version & 15 > 1 or length > _MOST:
        raise ValueError("the header is malformed")
    data = _exactly(sock, length)
    size = _LENGTHS.get(family)
    if version & 15 == 0 or size is None:  # LOCAL: a check of the balancer's own; or another protocol
        return None
    if length < 2 * size + 4:
        raise ValueError("the addresses are cut short")
    return str(ipaddress.ip_address(data[:size])), int.from_bytes(data[2 * size : 2 * size + 2], "big")
