"""What the resolvers that speak DNS themselves share: the stdlib's functions over questions to one name server.

Called by: dnspython.py, ares.py, which derive from `DnsResolver`.

A derived class sends questions and reads what comes; from here come hosts file, search list, the order of servers,
patience, IDNA, services, flags, results and errors.  The GNU C library says what is right; docs/dns.md, where that
is not so.

Invariants:
- What needs no name server is left to the C library, which so says itself what is wrong with an argument, and
  which makes the results, too: it is asked about numeric addresses only, and never blocks on these.
- Equal questions at the same time are asked once.
- Whatever server an answer comes from and however late, it counts while there is somebody who waits for it.
"""

import _socket
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from ipaddress import IPv6Address, ip_address
from typing import Any, NamedTuple, Protocol

from weald._base.config import config
from weald._core import Hub, monotonic
from weald.resolver import AddressInfo, Host, HostEntry
from weald.resolver._files import HostsFile, ResolvConf
from weald.resolver._lookups import Lookups
from weald.resolver._names import is_numeric, refuse_cut_name, to_name
from weald.resolver._order import in_order

__all__ = ["Answer", "DnsFailure", "DnsResolver", "Question", "Rejection", "Server", "parse_nameservers", "read_answer"]

Server = tuple[str, int]  # address, port


class Answer(NamedTuple):
    """What a name server said."""

    names: list[str]  # the one asked for, then where its aliases (CNAME) lead; the last is the canonical one
    values: list[str]  # addresses, or names for PTR


class DnsFailure(Exception):
    """A question without an answer; `reason` is one of those below, and the errno of socket.herror."""

    NOT_FOUND, TRY_AGAIN, FAILED, NO_DATA = 1, 2, 3, 4

    # errno of socket.gaierror and both texts, as the GNU C library has them.
    _ERRORS = {
        NOT_FOUND: (_socket.EAI_NONAME, "Name or service not known", "Unknown host"),
        TRY_AGAIN: (_socket.EAI_AGAIN, "Temporary failure in name resolution", "Host name lookup failure"),
        FAILED: (_socket.EAI_NONAME, "Name or service not known", "Unknown server error"),
        NO_DATA: (_socket.EAI_NODATA, "No address associated with hostname", "No address associated with name"),
    }

    def __init__(self, reason: int) -> None:
        super().__init__(reason)
        self.reason = reason

    def gaierror(self) -> _socket.gaierror:
        """Return the error of getaddrinfo and gethostbyname that says this."""
        number, text, _ = self._ERRORS[self.reason]
        return _socket.gaierror(number, text)

    def herror(self) -> _socket.herror:
        """Return the error of gethostbyaddr that says this."""
        return _socket.herror(self.reason, self._ERRORS[self.reason][2])


class Rejection(DnsFailure):
    """A server that will not or cannot answer: the next one is asked.  `servfail`: it has tried."""

    def __init__(self, servfail: bool = False) -> None:
        super().__init__(DnsFailure.TRY_AGAIN)
        self.args = (servfail,)
        self.servfail = servfail


class Question(Protocol):
    """One question, asked of one server after the other; what each says is heard until it is closed."""

    def ask(self, server: Server, patience: float) -> None:
        """Ask `server`, which has been asked before if it has not answered in time; `patience` seconds are left."""

    def hear(self, timeout: float) -> tuple[Server, Answer | DnsFailure] | None:
        """What came next, and whence; None after `timeout` seconds of silence."""

    def close(self) -> None:
        """Nobody waits for an answer any more."""


# If the questions for two families fail differently, the first of these is told: what a server has said counts.
_TOLD = (DnsFailure.NO_DATA, DnsFailure.NOT_FOUND, DnsFailure.FAILED, DnsFailure.TRY_AGAIN)

_KINDS = {_socket.AF_INET: ("A",), _socket.AF_INET6: ("AAAA",), _socket.AF_UNSPEC: ("A", "AAAA")}
_LOOPBACKS = {_socket.AF_INET: "127.0.0.1", _socket.AF_INET6: "::1"}


class DnsResolver:
    """The contract of `weald.resolver.Resolver`; derived classes define `open` and, if need be, `close`."""

    def __init__(
        self, hub: Hub | None = None, hosts: str = "/etc/hosts", resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        self._hosts = HostsFile(hosts)
        self._conf = ResolvConf(resolv_conf)
        self._lookups = Lookups()
        self._servers = parse_nameservers(config.resolver_nameservers)  # none: those of the file
        self._lifetime: float | None = config.resolver_timeout

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} lookups={len(self._lookups)}>"

    def open(self, name: str, kind: str) -> Question:
        """The question for the records of type `kind` ("A", "AAAA", "PTR") of exactly this name, not asked yet."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what is held."""

    # ---------------------------------------------------------------- servers

    def query(self, name: str, kind: str) -> Answer:
        """What the name servers say of exactly this name; raises DnsFailure."""
        end = monotonic() + self._lifetime if self._lifetime is not None else float("inf")
        failure: DnsFailure = Rejection()
        with closing(self.open(name, kind)) as question:
            for server, patience in self._tries():
                until = min(monotonic() + patience, end)
                question.ask(server, max(until - monotonic(), 0))
                failure = Rejection()
                while (left := until - monotonic()) > 0 and (heard := question.hear(left)) is not None:
                    whence, said = heard
                    if isinstance(said, Answer):
                        return said
                    if not isinstance(said, Rejection):
                        raise said
                    if whence == server:
                        failure = said
                        break
                if monotonic() >= end:
                    break
        raise failure

    def servers(self) -> list[Server]:
        """Those to be asked, in this order."""
        self._conf.refresh()
        return list(self._servers or self._conf.servers)

    def _tries(self) -> Iterator[tuple[Server, float]]:
        """Whom to ask, and for how many seconds to wait, in turn: as res_send of the C library does."""
        servers = self.servers()
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
    ) -> list[AddressInfo]:
        """socket.getaddrinfo(), with plain numbers for families and kinds."""
        refuse_cut_name(host)
        numeric = (flags | _socket.AI_NUMERICHOST) & ~_socket.AI_CANONNAME
        try:
            return _socket.getaddrinfo(host, port, family, socktype, proto, flags | _socket.AI_NUMERICHOST)  # type: ignore[arg-type]
        except _socket.gaierror as error:
            if error.errno != _socket.EAI_NONAME or flags & _socket.AI_NUMERICHOST or not host:
                raise
        if flags & _socket.AI_ADDRCONFIG:
            family = _family_of_this_host(family)
        try:
            names, addresses = self._addresses(to_name(host), family, flags)
        except DnsFailure as failure:
            raise failure.gaierror() from None
        results: list[AddressInfo] = []
        failed: _socket.gaierror | None = None
        for address in in_order(addresses):
            try:
                results += _socket.getaddrinfo(address.encode(), port, family, socktype, proto, numeric)
            except _socket.gaierror as error:  # not of a family this host has (AI_ADDRCONFIG)
                failed = error
        if not results:
            raise failed or DnsFailure(DnsFailure.NO_DATA).gaierror()
        if flags & _socket.AI_CANONNAME:
            results[0] = (*results[0][:3], names[-1], results[0][4])
        return results

    def _addresses(self, name: str, family: int, flags: int) -> Answer:
        """(names, the last is the canonical one; addresses) of `name`; raises DnsFailure."""
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
        """The answer for the first name made of `name` and the search list that has one: as res_search does it."""
        self._conf.refresh()
        if name.endswith("."):
            return self._ask(name[:-1], kinds)
        conf, failures, dots, first = self._conf, list[DnsFailure](), name.count("."), None
        candidates = [f"{name}.{domain}" if domain else name for domain in conf.search]
        if dots >= conf.ndots:
            try:
                return self._ask(name, kinds)
            except DnsFailure as failure:
                first = failure
        for candidate in candidates:
            if len(candidate) > 253 or (candidate == name and first):
                continue
            try:
                return self._ask(candidate, kinds)
            except DnsFailure as failure:
                failures.append(failure)
                if failure.reason == DnsFailure.FAILED or (isinstance(failure, Rejection) and not failure.servfail):
                    break  # nobody answers, or nonsense: another domain would have one wait as long again
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
        """What servers have of these kinds for exactly this name."""
        if not _HOST_NAME.fullmatch(name):
            raise DnsFailure(DnsFailure.NOT_FOUND)
        outcomes = self._lookups.ask(*((self.query, name.lower(), kind) for kind in kinds))
        answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
        if answers:
            names, values = answers[0].names, [value for answer in answers for value in answer.values]
            return Answer([name, *names[1:]], values)
        for outcome in outcomes:
            if not isinstance(outcome, DnsFailure):
                raise outcome
        raise min(outcomes, key=lambda failure: _TOLD.index(failure.reason))

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
        try:
            names, addresses = self._addresses(to_name(hostname), family, 0)
        except DnsFailure as failure:
            raise failure.gaierror() from None
        return names[-1], names[:-1], addresses

    # ---------------------------------------------------------------- addresses to names

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        """socket.gethostbyaddr()"""
        if not isinstance(ip_address, str | bytes | bytearray):
            return _socket.gethostbyaddr(ip_address)  # which says what is wrong
        address = self.getaddrinfo(_unchanging(ip_address), None, 0, _socket.SOCK_STREAM)[0][4][0]
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
        [outcome] = self._lookups.ask((self.query, number.reverse_pointer, "PTR"))
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome.values  # type: ignore[no-any-return]


def _inner(number: IPv6Address) -> Any:
    """The IPv4 address in ::ffff:a.b.c.d or ::a.b.c.d, under which the C library looks those up."""
    packed = number.packed
    if packed[:12] == bytes(12) and packed[12:] != b"\0\0\0\1":
        return ip_address(packed[12:])
    return number.ipv4_mapped


def _family_of_this_host(family: int) -> int:
    """`family` without the one that this host has no address of (AI_ADDRCONFIG); gaierror if none is left."""
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


# What the C library takes for the name of a host, when it is told one (res_hnok).
_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*\.?")


def read_answer(name: str, kind: str, records: Iterable[tuple[str, str, str]]) -> Answer:
    """What an answer says of `name`, by its records (owner, type, value), in whatever order they are.

    Only what aliases lead to counts: a record of another owner is nobody's business, and may be an attempt to have it
    believed.  Raises DnsFailure(NO_DATA) if there is nothing.
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
        if len(targets) != 1:  # 0: nothing, or a loop
            raise DnsFailure(DnsFailure.NO_DATA)
        names += targets
    return Answer([name, *filter(_HOST_NAME.fullmatch, names[1:])], list(values[last]))


def _unchanging(host: Host) -> str | bytes:
    """`host`, of which getaddrinfo, other than its kin, takes no bytearray."""
    return bytes(host) if isinstance(host, bytearray) else host


def _needs_no_server(host: Host) -> bool:
    """Is it no name but something the C library makes an IPv4 address of, or complains about?"""
    if not isinstance(host, str | bytes | bytearray) or host in ("", b"", "<broadcast>", b"<broadcast>"):
        return True
    refuse_cut_name(host)
    try:
        _socket.getaddrinfo(host, None, _socket.AF_INET, _socket.SOCK_STREAM, 0, _socket.AI_NUMERICHOST)  # type: ignore[arg-type]
    except _socket.gaierror as error:
        return error.errno != _socket.EAI_NONAME
    return True


def parse_nameservers(texts: Iterable[str] | None, usual_port: int = 53) -> list[Server]:
    """(address, port) of each; ValueError for one that is not ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    found = []
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
