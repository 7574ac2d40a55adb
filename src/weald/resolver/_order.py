"""Sorts a host's addresses into the order in which a client should try them.  Called by: _dns.py."""

import _socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

__all__ = ["in_order"]

# Prefix, precedence, label; the longest matching prefix counts.  The values are the GNU C library's (gai.c).  RFC 6724
# would sort fc00::/7 behind IPv4, so that private IPv6 networks would never be used.
_POLICY = [
    (IPv6Network(prefix), precedence, label)
    for prefix, precedence, label in [
        ("::1/128", 50, 0),
        ("::ffff:0:0/96", 10, 4),
        ("::/96", 20, 3),
        ("2001::/32", 40, 7),
        ("2002::/16", 30, 2),
        ("fec0::/10", 40, 5),
        ("fc00::/7", 40, 6),
        ("::/0", 40, 1),
    ]
]
_LINK, _SITE, _GLOBAL = 2, 5, 14  # scopes


def in_order(addresses: Sequence[str]) -> list[str]:
    """Return IPv4 and IPv6 addresses, the best destination first.

    RFC 6724 section 6, rules 1, 2, 5, 6, 8 and 9: reachable addresses come first, then those whose source address has
    the same scope, the same label, then higher precedence, smaller scope, and more leading bits in common with the
    source.  The sort is stable.  A list of IPv4 addresses alone is left as it is.
    """
    if len(addresses) < 2 or not any(":" in address for address in addresses):
        return list(addresses)
    return sorted(addresses, key=_rank)


def _rank(address: str) -> tuple[bool, bool, bool, int, int, int]:
    number = _as_six(address)
    precedence, label = _policy(number)
    found = _source(address)
    if found is None:
        return True, False, False, -precedence, _scope(number), 0
    source = _as_six(found)
    alike = 128 - (int(number) ^ int(source)).bit_length() if number.ipv4_mapped is None else 0
    strange = _policy(source)[1] != label
    return False, _scope(source) != _scope(number), strange, -precedence, _scope(number), -alike


def _as_six(address: str) -> IPv6Address:
    number = ip_address(address.partition("%")[0])
    return IPv6Address(f"::ffff:{number}") if isinstance(number, IPv4Address) else number


def _policy(number: IPv6Address) -> tuple[int, int]:
    return next((precedence, label) for network, precedence, label in _POLICY if number in network)


def _scope(number: IPv6Address) -> int:
    inner = number.ipv4_mapped or number
    if inner.is_multicast and isinstance(inner, IPv6Address):
        return inner.packed[1] & 15
    if inner.is_loopback or inner.is_link_local:
        return _LINK
    return _SITE if number.is_site_local else _GLOBAL


def _source(address: str) -> str | None:
    """The address this host would send from; None if it cannot reach `address`.  Sends nothing."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    try:
        probe = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
    except OSError:
        return None
    try:
        probe.connect((address, 53))
        return str(probe.getsockname()[0])
    except OSError:
        return None
    finally:
        probe.close()
