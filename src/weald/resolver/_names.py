"""Checks host names and converts them to ASCII.  Called by: thread.py, _dns.py, _files.py; weald.aio.loop."""

import _socket
import re
from typing import Any

from weald.resolver import Host

__all__ = ["is_numeric", "is_usual", "refuse_cut_name", "to_name"]


# Names of up to 253 characters that are as they should be, which most are.
_USUAL = re.compile(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")


def is_usual(host: Any) -> bool:
    """Whether `host` is a name in ASCII that `to_name` leaves as it is, and certainly no address."""
    return isinstance(host, str) and len(host) < 254 and not host[:1].isdigit() and _USUAL.fullmatch(host) is not None


def is_numeric(host: Host) -> bool:
    """Is it an IPv4 or IPv6 address?"""
    if not isinstance(host, str) or not host or not (host[0].isdigit() or ":" in host):
        return False
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return True
    return False


def refuse_cut_name(host: Any) -> None:
    """Raise gaierror for a name with a NUL: the C library would read it up to there, and find another host."""
    if (isinstance(host, str) and "\0" in host) or (isinstance(host, bytes | bytearray) and b"\0" in host):
        raise _unknown()


def to_name(host: Host) -> str:
    """Return `host` in ASCII, with non-ASCII labels encoded by IDNA.

    Raises gaierror(EAI_NONAME) for an invalid name: RFC 1035 section 2.3.4 allows labels of 1 to 63 octets and 255
    octets in all, length bytes included.
    """
    if isinstance(host, str) and len(host) < 254 and _USUAL.fullmatch(host):
        return host
    try:
        name = bytes(host).decode("ascii") if not isinstance(host, str) else host
        if not name.isascii():
            name = name.encode("idna").decode("ascii")
    except UnicodeDecodeError:
        raise _unknown() from None
    labels = name.removesuffix(".").split(".")
    if not all(0 < len(label) < 64 for label in labels) or sum(len(label) + 1 for label in labels) > 254:
        raise _unknown()
    if not name.isprintable() or " " in name or "\\" in name:
        raise _unknown()
    return name


def _unknown() -> _socket.gaierror:
    return _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
