"""The part that the two DNS resolvers share: the standard library's look-up functions, built on DNS queries.

Called by: dnspython.py, ares.py, which derive from `DnsResolver`.

A derived class sends a query to one name server and reads the replies.  This module does the rest: hosts file, search
list, order of servers, timeouts, IDNA, services, flags, results and errors.  It behaves as the GNU C library does;
docs/dns.md lists the exceptions.

Invariants:
- Numeric addresses and services are handed to the C library.  It checks the arguments, raises the usual errors and
  builds the results; for numeric addresses it never blocks.
- Equal queries that are under way at the same time are sent once (_queries.py).
- A late reply still counts, whichever server it comes from, as long as a caller is waiting for it.
- In a fork's child every resolver begins afresh (`begin`): the queries under way and their sockets are the parent's.
"""

import _socket
import os
import random
import re
import weakref
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Any

from weald._base.config import config
from weald._core import Hub
from weald.resolver import AddressInfo, Host, HostEntry
from weald.resolver._answers import Answer, DnsFailure, Question, Rejection, Server
from weald.resolver._files import HostsFile, ResolvConf
from weald.resolver._names import is_numeric, is_usual, refuse_cut_name, to_name
from weald.resolver._order import in_order
from weald.resolver._queries import Queries, Query

__all__ = ["Answer", "DnsFailure", "DnsResolver", "Question", "Rejection", "Server", "parse_nameservers", "read_answer"]

# If A and AAAA fail for different reasons, the first of these is raised: a reply outranks silence.
_FIRST_RAISED = (DnsFailure.NO_DATA, DnsFailure.NOT_FOUND, DnsFailure.FAILED, DnsFailure.TRY_AGAIN)

_KINDS = {_socket.AF_INET: ("A",), _socket.AF_INET6: ("AAAA",), _socket.AF_UNSPEC: ("A", "AAAA")}
_DIGITS_AND_DOTS = re.compile(r"[0-9]([0-9.]*[0-9])?")  # an IPv4 address or none: not a name, if only IPv4 is wanted
_LOOPBACKS = {_socket.AF_INET: "127.0.0.1", _socket.AF_INET6: "::1"}


class DnsResolver:
    """Implements `weald.resolver.Resolver`.  Derived classes define `open`, maybe `begin` and `close`."""

    def __init__(
        self, hub: Hub | None = None, hosts: str = "/etc/hosts", resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        self._hosts = HostsFile(hosts)
        self._conf = ResolvConf(resolv_conf)
        self._conf.refresh()
        self.begin()
        _all.add(self)
        # What the C library makes of an IPv4 address: families, types and protocols by the arguments.
        self._shapes: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
        self._servers = parse_nameservers(config.resolver_nameservers)  # none: those of the file
        self._lifetime: float | None = config.resolver_timeout

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} lookups={len(self._queries)}>"

    def begin(self) -> None:
        """Have no queries under way, and no sockets: at the start and in a fork's child."""
        self._queries = Queries(self._query)

    def open(self, name: str, kind: str) -> Question:
        """Make the query for records of type `kind` ("A", "AAAA", "PTR") of exactly this name, without sending it."""
        raise NotImplementedError

    def close(self) -> None:
        """Free all resources."""

    # ---------------------------------------------------------------- servers

    def query(self, name: str, kind: str) -> Answer:
        """Ask the name servers for exactly this name; raises DnsFailure."""
        outcome = self._queries.ask(name, (kind,))[0]
        if isinstance(outcome, DnsFailure):
            raise outcome
        return outcome

    def _query(self, name: str, kind: str) -> Query:
        return Query(self.open(name, kind), self._tries(), self._lifetime)

    def servers(self) -> list[Server]:
        """Return the servers to ask, in order."""
        self._conf.refresh()
        return self._known_servers()

    def _known_servers(self) -> list[Server]:
        """As `servers`, when the file has just been read."""
        return list(self._servers or self._conf.servers)

    def _tries(self) -> Iterator[tuple[Server, float]]:
        """Yield each server to ask and the seconds to wait for it, as the C library's res_send does."""
        servers = self._known_servers()
        timeout = self.patience
        for _ in range(self.attempts):
            if self._conf.rotate:
                first = random.randrange(len(servers))
                servers = servers[first:] + servers[:first]
            for place, server in enumerate(servers):
                yield server, max(timeout * 2**place / len(servers), min(timeout, 1)) if place else timeout

    @property
    def patience(self) -> float:
        """Seconds for the first server's answer."""
        return self._conf.timeout if self._lifetime is None else min(self._conf.timeout, self._lifetime / 2)

    @property
    def attempts(self) -> int:
        """How often each server is asked."""
        return self._conf.attempts

    # ---------------------------------------------------------------- names to addresses

    def getaddrinfo(
        self,
        host: Host | None,
        port: bytes | str | int | None,
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
        *,
        type: int = 0,
    ) -> list[AddressInfo]:
        """socket.getaddrinfo(), with plain numbers for families and kinds; `type` is its name for `socktype`."""
        socktype = type or socktype
        usual = _is_usual(host, port, family, socktype, proto, flags)
        shape = self._shapes.get(key := (port is None, family, socktype, proto, flags)) if usual else None
        if shape is None:
            refuse_cut_name(host)
            try:
                return _socket.getaddrinfo(host, port, family, socktype, proto, flags | _socket.AI_NUMERICHOST)  # type: ignore[arg-type]
            except _socket.gaierror as error:
                if error.errno != _socket.EAI_NONAME or flags & _socket.AI_NUMERICHOST or not host:
                    raise
        assert host is not None  # which is the C library's to answer
        if flags & _socket.AI_ADDRCONFIG:
            family = _family_of_this_host(family)
        self._queries.pace.wait()
        try:
            names, addresses = self._addresses(to_name(host), family, flags)
        except DnsFailure as failure:
            raise failure.gaierror() from None
        numeric = (flags | _socket.AI_NUMERICHOST) & ~_socket.AI_CANONNAME
        results: list[AddressInfo] = []
        failed: _socket.gaierror | None = None
        for address in in_order(addresses):
            if shape is not None and ":" not in address:
                results += [(*each, "", (address, port or 0)) for each in shape]
                continue
            try:
                results += _socket.getaddrinfo(address.encode(), port, family, socktype, proto, numeric)
            except _socket.gaierror as error:  # not of a family this host has (AI_ADDRCONFIG)
                failed = error
        if not results:
            raise failed or DnsFailure(DnsFailure.NO_DATA).gaierror()
        if usual and shape is None and len(addresses) == 1 and results[0][4] == (addresses[0], port or 0):
            self._shapes[key] = [each[:3] for each in results]
        if flags & _socket.AI_CANONNAME:
            results[0] = (*results[0][:3], names[-1], results[0][4])
        return results

    def _addresses(self, name: str, family: int, flags: int) -> Answer:
        """Return the names and addresses of `name` from the hosts file or DNS; raises DnsFailure."""
        if family == _socket.AF_INET and not flags & _socket.AI_CANONNAME and _DIGITS_AND_DOTS.fullmatch(name):
            raise DnsFailure(DnsFailure.NOT_FOUND)
        mapped = family == _socket.AF_INET6 and flags & _socket.AI_V4MAPPED
        if mapped and flags & _socket.AI_ALL:
            family = _socket.AF_UNSPEC
        try:
            return self._in_hosts(name, family) or self._search(name, _KINDS[family])
        except DnsFailure:
            if not mapped or family == _socket.AF_UNSPEC:
                raise
            return self._in_hosts(name, _socket.AF_INET) or self._search(name, ("A",))

    def _in_hosts(self, name: str, family: int) -> Answer | None:
        found = self._hosts.by_name(name, family)
        if not found:
            return None
        canonical, *others = found[0].names
        for entry in found[1:]:
            others += entry.names[1:]
            others += entry.names[:1] if entry.names[0] != canonical else []
        aliases, addresses = dict.fromkeys(others), dict.fromkeys(entry.address for entry in found)
        return Answer([*aliases, canonical], list(addresses))

    def _search(self, name: str, kinds: Sequence[str]) -> Answer:
        """Try `name` with each domain of the search list, as res_search does; return the first answer."""
        self._conf.refresh()
        if self._conf.no_aaaa and "AAAA" in kinds:
            answer = self._search(name, ("A",))  # whether the name exists counts all the same
            if "A" in kinds:
                return answer
            raise DnsFailure(DnsFailure.NO_DATA)
        if name.endswith("."):
            return self._ask(name[:-1], kinds)
        conf, dots, first = self._conf, name.count("."), None
        if dots >= conf.ndots:
            try:
                return self._ask(name, kinds)
            except DnsFailure as failure:
                first = failure
        failures: list[DnsFailure] = []
        candidates = [f"{name}.{domain}" if domain else name for domain in conf.search]
        for candidate in candidates:
            if len(candidate) > 253 or (candidate == name and first):
                continue
            try:
                return self._ask(candidate, kinds)
            except DnsFailure as failure:
                failures.append(failure)
                if failure.reason == DnsFailure.FAILED or (isinstance(failure, Rejection) and not failure.servfail):
                    break  # no reply, or an unreadable one: the next domain would only take as long again
        if first:
            raise first
        if name not in candidates and (dots or conf.tld_query or not candidates):
            try:
                return self._ask(name, kinds)
            except DnsFailure as failure:
                failures.append(failure)
        reasons = {failure.reason for failure in failures}
        if DnsFailure.NO_DATA in reasons:
            raise DnsFailure(DnsFailure.NO_DATA)
        raise next((failure for failure in failures if isinstance(failure, Rejection)), failures[-1])

    def _ask(self, name: str, kinds: Sequence[str]) -> Answer:
        """Query all these kinds for exactly this name at the same time, and join the answers."""
        if not _HOST_NAME.fullmatch(name):
            raise DnsFailure(DnsFailure.NOT_FOUND)
        outcomes = self._queries.ask(name.lower(), kinds)
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        if answers:
            names, values = answers[0].names, [value for answer in answers for value in answer.values]
            return Answer([name, *names[1:]], values)
        failures = [outcome for outcome in outcomes if isinstance(outcome, DnsFailure)]
        raise min(failures, key=lambda failure: _FIRST_RAISED.index(failure.reason))

    def gethostbyname(self, hostname: Host, family: int = _socket.AF_INET) -> str:
        """socket.gethostbyname(); with another `family`, the first address of that."""
        hostname = _unchanging(hostname)
        if family != _socket.AF_INET:
            return str(self.getaddrinfo(hostname, None, family, _socket.SOCK_STREAM)[0][4][0])
        if _needs_no_server(hostname):
            return _socket.gethostbyname(hostname)  # type: ignore[arg-type]
        return str(self.getaddrinfo(hostname, None, _socket.AF_INET, _socket.SOCK_STREAM)[0][4][0])

    def gethostbyname_ex(self, hostname: Host, family: int = _socket.AF_INET) -> HostEntry:
        """socket.gethostbyname_ex(); with another `family`, the addresses of that."""
        hostname = _unchanging(hostname)
        if family == _socket.AF_INET6 and is_numeric(hostname):
            return str(hostname), [], [self.gethostbyname(hostname, family)]
        if family == _socket.AF_INET and _needs_no_server(hostname):
            return _socket.gethostbyname_ex(hostname)  # type: ignore[arg-type]
        refuse_cut_name(hostname)
        self._queries.pace.wait()
        try:
            names, addresses = self._addresses(to_name(hostname), family, 0)
        except DnsFailure as failure:
            raise failure.gaierror() from None
        return names[-1], names[:-1], addresses

    # ---------------------------------------------------------------- addresses to names

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        """socket.gethostbyaddr()"""
        if not isinstance(ip_address, str | bytes | bytearray):
            return _socket.gethostbyaddr(ip_address)  # raises the usual TypeError
        host = _unchanging(ip_address)
        if host in ("", b""):
            raise OSError("wildcard resolved to multiple address")  # the words of `_socket`
        if host in ("<broadcast>", b"<broadcast>"):
            host = "255.255.255.255"
        address = self.getaddrinfo(host, None, 0, _socket.SOCK_STREAM)[0][4][0]
        try:
            name, *aliases = self._names(address)
        except DnsFailure as failure:
            raise failure.herror() from None
        return name, aliases, [address]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """socket.getnameinfo()"""
        wanted = isinstance(flags, int) and not flags & _socket.NI_NUMERICHOST
        if not wanted:
            return _socket.getnameinfo(sockaddr, flags)
        host, service = _socket.getnameinfo(sockaddr, (flags | _socket.NI_NUMERICHOST) & ~_socket.NI_NAMEREQD)
        try:
            name = self._names(host)[0]
        except DnsFailure as failure:
            if failure.reason == DnsFailure.TRY_AGAIN:
                raise failure.gaierror() from None
            if flags & _socket.NI_NAMEREQD:
                raise DnsFailure(DnsFailure.NOT_FOUND).gaierror() from None
            return host, service
        if flags & _socket.NI_NOFQDN:
            domain = _socket.gethostname().partition(".")[2]
            name = name.removesuffix(f".{domain}") if domain else name
        return name, service

    def _names(self, address: str) -> list[str]:
        """Names of a numeric address, the canonical one first; raises DnsFailure."""
        number = ip_address(address.partition("%")[0])
        entry = self._hosts.by_address(str(number))
        if entry is None and isinstance(number, IPv6Address) and number.ipv4_mapped:
            entry = self._hosts.by_address(str(number.ipv4_mapped))
        if entry is not None:
            return entry.names
        if isinstance(number, IPv6Address):
            number = _inner(number) or number
        self._conf.refresh()
        return list(self.query(number.reverse_pointer, "PTR").values)


def _is_usual(host: Any, port: Any, family: Any, socktype: Any, proto: Any, flags: Any) -> bool:
    """Whether the C library does the same for every IPv4 address of `host`, whatever host and port."""
    return (
        is_usual(host)
        and (port is None or (type(port) is int and 0 <= port < 65536))
        and not flags
        and isinstance(family, int)
        and isinstance(socktype, int)
        and isinstance(proto, int)
        and isinstance(flags, int)
    )


def _inner(number: IPv6Address) -> Any:
    """The IPv4 address inside ::ffff:a.b.c.d or ::a.b.c.d: the C library looks those up as IPv4."""
    packed = number.packed
    if packed[:12] == bytes(12) and packed[12:] != b"\0\0\0\1":
        return ip_address(packed[12:])
    return number.ipv4_mapped


def _family_of_this_host(family: int) -> int:
    """Narrow `family` to what this host has addresses of (AI_ADDRCONFIG); gaierror if it has none."""
    refused = None
    has = []
    for each in (_socket.AF_INET, _socket.AF_INET6) if family == _socket.AF_UNSPEC else (family,):
        try:
            flags = _socket.AI_NUMERICHOST | _socket.AI_ADDRCONFIG
            _socket.getaddrinfo(_LOOPBACKS[each], None, each, _socket.SOCK_STREAM, 0, flags)
            has.append(each)
        except _socket.gaierror as error:
            refused = error
    if family != _socket.AF_UNSPEC and refused is not None:
        raise refused
    return has[0] if len(has) == 1 else family


# What the C library accepts as a host name in an answer (res_hnok).
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.?")


def read_answer(name: str, kind: str, records: Iterable[tuple[str, str, str]]) -> Answer:
    """Read the answer for `name` from records (owner, type, value) in any order.

    Follows aliases from `name` and ignores records of other owners, which may be an attempt at cache poisoning.
    Raises DnsFailure(NO_DATA) if no record of the wanted kind is found.
    """
    aliases: dict[str, set[str]] = {}
    values: dict[str, dict[str, None]] = {}
    for owner, type, value in records:
        if type == "CNAME":
            aliases.setdefault(owner.lower(), set()).add(value)
        elif type == kind and (kind != "PTR" or _HOST_NAME.fullmatch(value)):
            values.setdefault(owner.lower(), {})[value] = None
    names = [name]
    while (last := names[-1].lower()) not in values:
        targets = aliases.pop(last, set())
        if len(targets) != 1:  # 0: no record, or a loop
            raise DnsFailure(DnsFailure.NO_DATA)
        names += targets
    return Answer([name, *filter(_HOST_NAME.fullmatch, names[1:])], list(values[last]))


def _unchanging(host: Host) -> str | bytes:
    """A bytearray as bytes: getaddrinfo, unlike gethostbyname, takes no bytearray."""
    return bytes(host) if isinstance(host, bytearray) else host


def _needs_no_server(host: Host) -> bool:
    """Whether the C library handles `host` without a name server: an IPv4 address, or an invalid argument."""
    if not isinstance(host, str | bytes | bytearray) or host in ("", b"", "<broadcast>", b"<broadcast>"):
        return True
    refuse_cut_name(host)
    try:
        _socket.getaddrinfo(host, None, _socket.AF_INET, _socket.SOCK_STREAM, 0, _socket.AI_NUMERICHOST)  # type: ignore[arg-type]
    except _socket.gaierror as error:
        return error.errno != _socket.EAI_NONAME
    return True


def parse_nameservers(texts: Iterable[str] | str | None, usual_port: int = 53) -> list[Server]:
    """Parse each text into (address, port); ValueError unless it is ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT.

    A single text has them with commas in between.
    """
    found = []
    if isinstance(texts, str):
        texts = texts.split(",") if texts.strip() else None
    for text in texts or ():
        address, port = text.strip(), ""
        if address.startswith("["):
            address, _, port = address[1:].partition("]")
        elif address.count(":") == 1:
            address, _, port = address.partition(":")
        try:
            found.append((str(ip_address(address)), int(port.removeprefix(":") or usual_port)))
        except ValueError:
            raise ValueError(f"a name server must be ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT, not {text!r}") from None
    return found


_all: "weakref.WeakSet[DnsResolver]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for resolver in list(_all):
        resolver.begin()


os.register_at_fork(after_in_child=_after_fork_in_child)
