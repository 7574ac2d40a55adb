"""What the resolvers that speak DNS themselves share: the stdlib's functions over `query`.

Called by: dnspython.py, ares.py, which derive from `DnsResolver`.

A derived class asks a name server one question; from here come hosts file, search list, IDNA, services,
flags, results and errors.

Invariants:
- What needs no name server is left to the C library, which so says itself what is wrong with an argument, and
  which makes the results, too: it is asked about numeric addresses only, and never blocks on these.
- Equal questions at the same time are asked once.
"""

import _socket
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, NamedTuple

from weald._core import Hub
from weald.resolver import AddressInfo, Host, HostEntry
from weald.resolver._shared import HostsFile, Lookups, ResolvConf, in_order, refuse_cut_name, to_name

__all__ = ["Answer", "DnsFailure", "DnsResolver", "parse_nameservers"]


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
        FAILED: (_socket.EAI_FAIL, "Non-recoverable failure in name resolution", "Unknown server error"),
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


# If questions fail differently, this one is told: what may yet be found, before what exists without an address.
_TOLD = (DnsFailure.TRY_AGAIN, DnsFailure.NO_DATA, DnsFailure.FAILED, DnsFailure.NOT_FOUND)

_KINDS = {_socket.AF_INET: ("A",), _socket.AF_INET6: ("AAAA",), _socket.AF_UNSPEC: ("A", "AAAA")}


class DnsResolver:
    """The contract of `weald.resolver.Resolver`; derived classes define `query` and, if need be, `close`."""

    def __init__(
        self, hub: Hub | None = None, hosts: str = "/etc/hosts", resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        self._hosts = HostsFile(hosts)
        self._resolv_conf = ResolvConf(resolv_conf)
        self._lookups = Lookups()

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} lookups={len(self._lookups)}>"

    def query(self, name: str, kind: str) -> Answer:
        """Ask for the records of type `kind` ("A", "AAAA", "PTR") of exactly this name; raises DnsFailure."""
        raise NotImplementedError

    def close(self) -> None:
        """Free what is held."""

    # ---------------------------------------------------------------- names to addresses

    def getaddrinfo(
        self,
        host: Host | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[AddressInfo]:
        """socket.getaddrinfo(), with plain numbers for families and kinds."""
        refuse_cut_name(host)
        numeric = (flags | _socket.AI_NUMERICHOST) & ~_socket.AI_CANONNAME
        try:
            return _socket.getaddrinfo(host, port, family, type, proto, flags | _socket.AI_NUMERICHOST)  # type: ignore[arg-type]
        except _socket.gaierror as error:
            if error.errno != _socket.EAI_NONAME or flags & _socket.AI_NUMERICHOST or not host:
                raise
        try:
            names, addresses = self._addresses(to_name(host), family, flags)
        except DnsFailure as failure:
            raise failure.gaierror() from None
        results: list[AddressInfo] = []
        failed: _socket.gaierror | None = None
        for address in in_order(addresses):
            try:
                results += _socket.getaddrinfo(address.encode(), port, family, type, proto, numeric)
            except _socket.gaierror as error:  # not of a family this host has (AI_ADDRCONFIG)
                failed = error
        if not results:
            raise failed or DnsFailure(DnsFailure.NO_DATA).gaierror()
        if flags & _socket.AI_CANONNAME:
            results[0] = (*results[0][:3], names[-1], results[0][4])
        return results

    def _addresses(self, name: str, family: int, flags: int) -> tuple[list[str], list[str]]:
        """(names, the last is the canonical one; addresses) of `name`; raises DnsFailure."""
        mapped = family == _socket.AF_INET6 and flags & _socket.AI_V4MAPPED
        kinds = ("AAAA", "A") if mapped and flags & _socket.AI_ALL else _KINDS[family]
        answer = self._in_hosts(name, kinds)
        if answer is None:
            try:
                answer = self._search(name, kinds)
            except DnsFailure:
                if not mapped:
                    raise
                answer = self._in_hosts(name, ("A",)) or self._search(name, ("A",))
        return answer

    def _in_hosts(self, name: str, kinds: tuple[str, ...]) -> Answer | None:
        found = [entry for entry in self._hosts.by_name(name) if ("AAAA" if ":" in entry.address else "A") in kinds]
        if not found:
            return None
        canonical, *others = found[0].names
        addresses = list(dict.fromkeys(entry.address for entry in found))
        return Answer([*others, canonical], addresses)

    def _search(self, name: str, kinds: tuple[str, ...]) -> Answer:
        """The first of the candidates for `name` that has any record of these kinds."""
        failures = set()
        for candidate in self._resolv_conf.candidates(name):
            jobs = [self._start(candidate, kind) for kind in kinds]
            answers = []
            for job in jobs:
                try:
                    answers.append(self._lookups.outcome(job))
                except DnsFailure as failure:
                    failures.add(failure.reason)
            if answers:
                return Answer(answers[0].names, [value for answer in answers for value in answer.values])
        raise DnsFailure(next(reason for reason in _TOLD if reason in failures))

    def _start(self, name: str, kind: str) -> Any:
        return self._lookups.start((name.lower(), kind), self.query, name, kind)

    def gethostbyname(self, hostname: Host) -> str:
        """socket.gethostbyname()"""
        hostname = _unchanging(hostname)
        if _needs_no_server(hostname):
            return _socket.gethostbyname(hostname)  # type: ignore[arg-type]
        return str(self.getaddrinfo(hostname, None, _socket.AF_INET, _socket.SOCK_STREAM)[0][4][0])

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        """socket.gethostbyname_ex()"""
        hostname = _unchanging(hostname)
        if _needs_no_server(hostname):
            return _socket.gethostbyname_ex(hostname)  # type: ignore[arg-type]
        refuse_cut_name(hostname)
        try:
            names, addresses = self._addresses(to_name(hostname), _socket.AF_INET, 0)
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
            if flags & _socket.NI_NAMEREQD:
                again = failure.reason == DnsFailure.TRY_AGAIN
                raise (failure if again else DnsFailure(DnsFailure.NOT_FOUND)).gaierror() from None
            return host, service
        if flags & _socket.NI_NOFQDN:
            domain = _socket.gethostname().partition(".")[2]
            name = name.removesuffix(f".{domain}") if domain else name
        return name, service

    def _names(self, address: str) -> list[str]:
        """Names of a numeric address, the canonical one first; raises DnsFailure."""
        address = address.partition("%")[0]
        entry = self._hosts.by_address(address)
        if entry is not None:
            return entry.names
        answer: Answer = self._lookups.outcome(self._start(ip_address(address).reverse_pointer, "PTR"))
        return answer.values


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


def parse_nameservers(texts: Iterable[str] | None) -> list[tuple[str, int]]:
    """(address, port) of each; ValueError for one that is not ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT."""
    found = []
    for text in texts or ():
        address, port = text.strip(), ""
        if address.startswith("["):
            address, _, port = address[1:].partition("]")
        elif address.count(":") == 1:
            address, _, port = address.partition(":")
        try:
            found.append((str(ip_address(address)), int(port.removeprefix(":") or 53)))
        except ValueError:
            raise ValueError(f"a name server must be ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT, not {text!r}") from None
    return found
