"""What the resolvers share: one job for equal look-ups, what a host name may be, the system's files, the order
of addresses.

Called by: thread.py, _dns.py.

Invariant: equal look-ups at the same time share one job, which no caller's end ends; each caller gets a result
or an exception of its own.
"""

import _socket
import os
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any, NamedTuple

from weald._core import Greenlet, spawn
from weald.resolver import Host

__all__ = ["HostsFile", "Lookups", "ResolvConf", "in_order", "is_numeric", "refuse_cut_name", "to_name"]


class Lookups:
    """Jobs under way, by what is asked."""

    def __init__(self) -> None:
        self._jobs: dict[Hashable, Greenlet] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def start(self, key: Hashable, function: Callable[..., Any], *args: Any) -> Greenlet:
        """The job for `key`; if there is none, one that calls `function(*args)`.  To be passed to `outcome`."""
        job = self._jobs.get(key)
        if job is None:
            # A greenlet of its own: the caller may be killed while others wait for the same answer.
            job = self._jobs[key] = spawn(self._run, key, function, args)
        return job

    def _run(self, key: Hashable, function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Any]:
        try:
            return None, function(*args)
        except Exception as error:
            return error, None
        finally:
            del self._jobs[key]

    @staticmethod
    def outcome(job: Greenlet) -> Any:
        """Wait for `job`; return a copy of its result or raise a copy of its exception."""
        error, result = job.get()
        if error is not None:
            raise type(error)(*error.args)
        return _copy(result)


def _copy(value: Any) -> Any:
    """A copy of what look-ups return: text and numbers in tuples and lists.  Much faster than copy.deepcopy."""
    if isinstance(value, list):
        return [_copy(item) for item in value]
    if isinstance(value, tuple):
        copies = map(_copy, value)
        return type(value)._make(copies) if hasattr(value, "_make") else tuple(copies)
    return value


# -------------------------------------------------------------------- names


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
    """The C library sees a name up to its first NUL only: that would be another host's address."""
    if (isinstance(host, str) and "\0" in host) or (isinstance(host, bytes | bytearray) and b"\0" in host):
        raise _unknown()


def to_name(host: Host) -> str:
    """`host` in ASCII, non-ASCII labels as IDNA has them.

    gaierror(EAI_NONAME) for what no name can be: RFC 1035 section 2.3.4 allows labels of 1 to 63 octets and, the
    lengths included, 255 octets in all.
    """
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


# -------------------------------------------------------------------- the system's files


class HostEntry(NamedTuple):
    """A line of the hosts file."""

    address: str
    names: list[str]  # the canonical one first


class _File:
    """A file that is parsed again whenever it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: object = None

    def refresh(self) -> None:
        try:
            found = os.stat(self._path)
            stamp: object = (found.st_mtime_ns, found.st_size, found.st_ino)
            if stamp == self._stamp:
                return
            with open(self._path, encoding="utf-8", errors="replace") as file:
                lines = [line.partition("#")[0].split() for line in file]
        except OSError:
            stamp, lines = None, []  # as the C library has it: no file says nothing
        self._stamp = stamp
        self.parse([words for words in lines if words])

    def parse(self, lines: list[list[str]]) -> None:
        raise NotImplementedError


class HostsFile(_File):
    """hosts(5): names to addresses and back."""

    def __init__(self, path: str = "/etc/hosts") -> None:
        super().__init__(path)
        self._by_name: dict[str, list[HostEntry]] = {}
        self._by_address: dict[str, HostEntry] = {}

    def parse(self, lines: list[list[str]]) -> None:
        """Take the file's lines, split into words."""
        self._by_name, self._by_address = {}, {}
        for address, *names in lines:
            try:
                canonical = str(ip_address(address))
            except ValueError:
                continue
            if not names:
                continue
            entry = HostEntry(address, names)
            self._by_address.setdefault(canonical, entry)
            for name in {name.lower() for name in names}:
                self._by_name.setdefault(name, []).append(entry)

    def by_name(self, name: str) -> list[HostEntry]:
        """Return the entries that have this name, in the file's order."""
        self.refresh()
        return self._by_name.get(name.lower().removesuffix("."), [])

    def by_address(self, address: str) -> HostEntry | None:
        """Return the first entry of this address, or None."""
        self.refresh()
        return self._by_address.get(str(ip_address(address)))


class ResolvConf(_File):
    """resolv.conf(5), as far as names are concerned: `search`, `domain` and `options ndots`."""

    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        super().__init__(path)
        self.search: list[str] = []
        self.ndots = 1

    def parse(self, lines: list[list[str]]) -> None:
        """Take the file's lines, split into words."""
        hostname = _socket.gethostname()
        self.search, self.ndots = _domains([hostname.partition(".")[2]]), 1
        for keyword, *values in lines:
            if keyword in ("search", "domain") and values:
                self.search = _domains(values)
            elif keyword == "options":
                for value in values:
                    if value.startswith("ndots:") and value[6:].isdecimal():
                        self.ndots = min(int(value[6:]), 15)

    def candidates(self, name: str) -> list[str]:
        """What to ask for `name`, in turn."""
        self.refresh()
        if name.endswith("."):
            return [name[:-1]]
        searched = [f"{name}.{domain}" for domain in self.search if len(name) + len(domain) < 253]
        return [name, *searched] if name.count(".") >= self.ndots else [*searched, name]


def _domains(values: list[str]) -> list[str]:
    """Those of `values` that are names of domains."""
    found = []
    for value in values:
        with suppress(OSError, UnicodeError):
            found.append(to_name(value.strip(".")))
    return found


# -------------------------------------------------------------------- the order of addresses

# RFC 6724 section 2.1: prefix, precedence, label; the longest prefix that matches counts.
_POLICY = [
    (IPv6Network(prefix), precedence, label)
    for prefix, precedence, label in [
        ("::1/128", 50, 0),
        ("::ffff:0:0/96", 35, 4),
        ("::/96", 1, 3),
        ("2001::/32", 5, 5),
        ("2002::/16", 30, 2),
        ("3ffe::/16", 1, 12),
        ("fec0::/10", 1, 11),
        ("fc00::/7", 3, 13),
        ("::/0", 40, 1),
    ]
]


def in_order(addresses: Sequence[str]) -> list[str]:
    """IPv4 and IPv6 addresses with those first that this host had best try first.

    RFC 6724 section 6, its rules 1, 5 and 6: usable ones, then those with a source address of their kind, then
    those of higher precedence.  The order is otherwise left as it is.
    """
    if len({":" in address for address in addresses}) < 2:
        return list(addresses)
    return sorted(addresses, key=_rank)


def _rank(address: str) -> tuple[bool, bool, int]:
    precedence, label = _policy(address)
    source = _source(address)
    return source is None, source is not None and _policy(source)[1] != label, -precedence


def _policy(address: str) -> tuple[int, int]:
    number = ip_address(address.partition("%")[0])
    mapped = number if isinstance(number, IPv6Address) else IPv6Address(f"::ffff:{IPv4Address(number)}")
    return next((precedence, label) for network, precedence, label in _POLICY if mapped in network)


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
