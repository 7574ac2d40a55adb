"""The files that say how names are looked up: hosts(5) and resolv.conf(5), as the GNU C library reads them.

Called by: thread.py, _dns.py, ares.py.

Invariant: a look-up uses the files as they are when it begins.
"""

import _socket
import errno
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from weald.resolver._names import to_name

__all__ = ["HostEntry", "HostsFile", "ResolvConf", "domains_of"]


# These errors say that there is no such file for this process.  It then counts as empty, as in the C library.
_NO_FILE = {errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EPERM}


class _File:
    """A file that is read again whenever it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: object = ()

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises OSError if it has never been read and cannot be now although it may exist: no descriptor is left, say.
        """
        try:
            found = os.stat(self._path)
            stamp: object = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            with open(self._path, "rb") as file:
                text = file.read()
        except OSError as error:
            if error.errno not in _NO_FILE:
                if self._stamp == ():
                    raise
                return  # what it said before may be old, but "empty" would be wrong
            stamp, text = None, b""
            if stamp == self._stamp:
                return
        self._stamp = stamp
        self.parse(text)

    def parse(self, text: bytes) -> None:
        """Parse the file's new content."""
        raise NotImplementedError


class HostEntry(NamedTuple):
    """A line of the hosts file."""

    address: str
    names: list[str]  # the canonical one first


# Keeps the length: letters become lower case, all separators become spaces.
_FOLDED = bytes(0x20 if c in b"\t\r\v\f" else c + 0x20 if 0x41 <= c <= 0x5A else c for c in range(256))
_ADDRESS_6 = re.compile(rb"^ *([0-9a-f.]*:[0-9a-f.:]*) ", re.MULTILINE)


class HostsFile(_File):
    """hosts(5): names to addresses and back.

    Ad-blocking hosts files have 150,000 names, and parsing one would block the loop for a second.  So a look-up
    searches the text for the name, and parses only the lines that contain it.
    """

    def __init__(self, path: str = "/etc/hosts") -> None:
        super().__init__(path)
        self._text = self._folded = b""
        self._lines_6: dict[str, list[int]] | None = None  # where lines of an IPv6 address are

    def parse(self, text: bytes) -> None:
        """Keep the file's text for searching."""
        self._text, self._folded = b"\n%b\n" % text, b"\n%b\n" % text.translate(_FOLDED)
        self._lines_6 = None

    def by_name(self, name: str, family: int = _socket.AF_UNSPEC) -> list[HostEntry]:
        """Return the lines with `name` and an address of `family` (AF_UNSPEC: of either)."""
        self.refresh()
        name = name.lower().removesuffix(".")
        entries = [self._entry(place, family) for place in self._places(name.encode())]
        return [entry for entry in entries if entry is not None and name in map(str.lower, entry.names)]

    def by_address(self, address: str) -> HostEntry | None:
        """Return the first line with this numeric address."""
        self.refresh()
        wanted = ip_address(address)
        family = _socket.AF_INET if wanted.version == 4 else _socket.AF_INET6
        for place in self._places_of(wanted):
            entry = self._entry(place, family)
            if entry is not None and entry.address == str(wanted):
                return entry
        return None

    def _places_of(self, wanted: IPv4Address | IPv6Address) -> list[int]:
        """Offsets of the lines that may have this address; the caller must check each."""
        if self._lines_6 is None:
            self._lines_6 = {}
            for match in _ADDRESS_6.finditer(self._folded):
                with suppress(ValueError):
                    self._lines_6.setdefault(str(IPv6Address(match[1].decode())), []).append(match.start(1))
        if isinstance(wanted, IPv6Address):
            return self._lines_6.get(str(wanted), [])
        mapped = self._lines_6.get(str(IPv6Address(f"::ffff:{wanted}")), [])
        loopback = self._lines_6.get("::1", []) if str(wanted) == "127.0.0.1" else []
        return sorted([*self._places(str(wanted).encode()), *mapped, *loopback])

    def _places(self, word: bytes) -> list[int]:
        """Offsets of `word`, one for each line that contains it."""
        if word not in self._folded:
            return []
        lines = {}
        for before in (b" ", b"\n"):
            for behind in (b" ", b"\n", b"#"):
                sought, place = before + word + behind, -1
                while (place := self._folded.find(sought, place + 1)) >= 0:
                    lines[self._folded.rfind(b"\n", 0, place + 1)] = place + 1
        return [lines[begin] for begin in sorted(lines)]

    def _entry(self, place: int, family: int) -> HostEntry | None:
        """Parse the line at offset `place`; None if it has no address of `family`."""
        begin, end = self._text.rfind(b"\n", 0, place), self._text.find(b"\n", place)
        address, *names = self._text[begin:end].partition(b"#")[0].decode(errors="replace").split() or [""]
        try:
            number: IPv4Address | IPv6Address = ip_address(address)
        except ValueError:
            return None
        if family == _socket.AF_INET and isinstance(number, IPv6Address):
            number = number.ipv4_mapped or (IPv4Address("127.0.0.1") if number.is_loopback else number)
        own = _socket.AF_INET if number.version == 4 else _socket.AF_INET6
        return HostEntry(str(number), names) if names and family in (_socket.AF_UNSPEC, own) else None


class ResolvConf(_File):
    """resolv.conf(5) with its `options`, and the environment's LOCALDOMAIN and RES_OPTIONS.

    The resolvers obey `edns0` and `use_vc` themselves.  Not read are `sortlist` and the options that concern only the
    C library's way of sending queries (`single-request`, `inet6`, `trust-ad`, …).
    """

    servers: list[tuple[str, int]]  # (address, port), at most three
    search: list[str]  # domains; "" is the root
    ndots: int
    timeout: int  # seconds for the first server's answer
    attempts: int  # how often each server is asked
    rotate: bool  # do not begin with the same server each time
    edns0: bool
    use_vc: bool  # TCP only
    no_aaaa: bool  # no IPv6 addresses from DNS
    tld_query: bool  # a name without a dot may also be queried as it is, after the search list

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        super().__init__(path)
        self._fixed = False
        self._overrides: dict[str, Any] = {}

    def override(self, **values: Any) -> None:
        """Set these attributes whatever the file says; those that are None are left to the file."""
        self._overrides |= {name: value for name, value in values.items() if value is not None}
        vars(self).update(self._overrides)

    def refresh(self) -> None:
        """Read the file again if it has changed, unless `options no-reload` forbids it."""
        if not self._fixed:
            super().refresh()

    def parse(self, text: bytes) -> None:
        """Parse the file's text and the environment's variables."""
        hostname = _socket.gethostname()
        self.servers, self.search = [], _domains([hostname.partition(".")[2]])
        options: list[str] = []
        for line in text.decode(errors="replace").splitlines():
            keyword, *values = line.partition("\0")[0].split() or [""]
            if not line.startswith(keyword or ";") or not values:  # a line that is indented
                continue
            if keyword == "nameserver":
                self.servers += _server(values[0].partition("#")[0])
            elif keyword in ("search", "domain"):
                self.search = _domains(values if keyword == "search" else values[:1])
            elif keyword == "options":
                options += values
        if (domains := os.environ.get("LOCALDOMAIN")) is not None:
            self.search = _domains(domains.partition("\n")[0].split())
        self._set([*options, *os.environ.get("RES_OPTIONS", "").split()])
        self.servers = self.servers[:3] or [("127.0.0.1", 53)]
        vars(self).update(self._overrides)

    def _set(self, options: list[str]) -> None:
        numbers = {"ndots": (1, 15), "timeout": (5, 30), "attempts": (2, 5)}  # default, maximum
        found = {name: usual for name, (usual, _) in numbers.items()}
        for option in options:
            name, _, value = option.partition(":")
            if name in numbers and option != name:
                digits = re.match(r"[-+]?[0-9]+", value)  # as C's atoi: what follows the digits does not count
                found[name] = min(int(digits[0]) if digits else 0, numbers[name][1])
        found["ndots"] &= 15  # the C library keeps four bits
        self.ndots, self.timeout, self.attempts = found["ndots"], max(found["timeout"], 1), max(found["attempts"], 1)
        self.rotate, self.edns0, self.use_vc = (word in options for word in ("rotate", "edns0", "use-vc"))
        self.no_aaaa = "no-aaaa" in options
        self.tld_query = not {"no-tld-query", "no_tld_query"} & set(options)
        self._fixed = "no-reload" in options


def _server(text: str) -> list[tuple[str, int]]:
    """The server of a `nameserver` line, in a list; empty if the text is no address."""
    with suppress(OSError):
        return [(_socket.inet_ntoa(_socket.inet_aton(text)), 53)]
    with suppress(ValueError):
        return [(str(ip_address(text)), 53)]
    return []


def domains_of(values: Iterable[str] | None) -> list[str] | None:
    """Return the valid domain names of `values`, "" for the root; None for None."""
    return None if values is None else _domains(list(values))


def _domains(values: list[str]) -> list[str]:
    """The valid domain names of `values`; "" is the root."""
    found = []
    for value in values:
        if value == ".":
            found.append("")
        with suppress(OSError, UnicodeError):
            found.append(to_name(value.strip(".")))
    return found
