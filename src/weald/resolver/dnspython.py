"""A resolver on dnspython (WEALD_RESOLVER=dnspython; install weald[dnspython]).

Called by: weald._base.config, when the resolver is chosen.

Name servers, retries, truncated answers and what makes an answer one to the question are dnspython's.  Its
asynchronous resolver is given a `Backend` whose coroutines never suspend: where asyncio's would, the greenlet
parks.  So one step runs each of them to its end.

That costs half a millisecond a look-up.  So the first question is asked from here, and an answer of addresses and
nothing else is read here.  Any other answer, an error or silence is handed to dnspython, as if it had asked.

Invariants:
- What is read here is what dnspython would take, and says the same.
- Many questions share a UDP socket, so that a thousand look-ups do not take a thousand descriptors; it is
  connected, so that the kernel drops what others send and reports a server that is not there.
- A socket with nothing to wait for is closed: the next question comes from another port.
"""

import copy
import os
import random
import re
import socket as _stdlib
from collections.abc import Coroutine
from functools import cached_property
from io import StringIO
from struct import Struct
from typing import Any

import dns._asyncbackend
import dns.asyncresolver
import dns.exception
import dns.inet
import dns.message
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from weald._base.config import config
from weald._core import Empty, Hub, SimpleQueue, monotonic, sleep, spawn
from weald.resolver._dns import Answer, DnsFailure, DnsResolver, parse_nameservers
from weald.socket import socket

__all__ = ["Resolver"]

_MOST_QUESTIONS = 64  # a socket waits for at once

_HEADER = Struct("!HHHHHH")  # id, flags, how many questions, answers, authorities, additional records
_WHOLE_ANSWER, _OF_FLAGS = 0x8000, 0xFA0F  # QR; not TC; opcode and rcode 0
# Records whose name is the question's: pointer, type, class, TTL, size, address.
_RECORDS = {
    "A": (Struct("!HHHIH4s"), (0xC00C, 1, 1, 4), _stdlib.AF_INET),
    "AAAA": (Struct("!HHHIH16s"), (0xC00C, 28, 1, 16), _stdlib.AF_INET6),
}
_PLAIN_EDNS = re.compile(rb"\0\0\x29..\0\0..\0\0", re.DOTALL)  # no error, no options


class Resolver(DnsResolver):
    """Asks the name servers of resolv.conf, or those of `config.resolver_nameservers`."""

    def __init__(
        self, hub: Hub | None = None, hosts: str = "/etc/hosts", resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        super().__init__(hub, hosts, resolv_conf)
        self._ports: list[_Port] = []
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        try:
            self._resolver.read_resolv_conf(_usable(resolv_conf))
        except dns.resolver.NoResolverConfiguration:
            self._resolver.nameservers = ["127.0.0.1"]  # as the C library has it
        servers = parse_nameservers(config.resolver_nameservers)
        self._servers = [_Server(*server) for server in servers or [(str(a), 53) for a in self._resolver.nameservers]]
        if config.resolver_timeout is not None:
            self._resolver.lifetime = config.resolver_timeout
            self._resolver.timeout = min(self._resolver.timeout, config.resolver_timeout / 2)
        self._requests = {kind: self._request(kind) for kind in ("A", "AAAA", "PTR")}

    def _request(self, kind: str) -> bytes:
        """What dnspython asks when it wants the root's records of this kind."""
        own = self._resolver
        request = dns.message.make_query(".", kind)
        request.use_edns(own.edns, own.ednsflags, own.payload, options=own.ednsoptions)
        return bytes(request.to_wire())

    def query(self, name: str, kind: str) -> Answer:
        """Ask the first server from here, then let dnspython ask; see DnsResolver."""
        start, own, request = monotonic(), self._resolver, self._requests[kind]
        labels = [bytes((len(label),)) + label for label in name.encode().split(b".")]
        wire = b"".join((os.urandom(2), request[2:12], *labels, request[12:]))
        servers = random.sample(self._servers, len(self._servers)) if own.rotate else self._servers
        question = _Question(self._ports, servers[0].family)
        try:
            try:
                question.ask(wire, servers[0].destination)
                heard: Any = question.hear(min(own.timeout, own.lifetime))
            except (OSError, dns.exception.Timeout) as error:
                heard = error
            else:
                if addresses := _addresses(heard, wire, kind):
                    return Answer([name], addresses)
            question.heard.append(heard)
            own = copy.copy(own)
            own.nameservers, own.rotate, own.lifetime = servers, False, own.lifetime - (monotonic() - start)
            return _resolve(own, _Backend(self._ports, question), name, kind)
        finally:
            question.forget()


def _usable(resolv_conf: str) -> StringIO:
    """What a resolv.conf says of servers and how to ask them, without what dnspython raises for."""
    try:
        with open(resolv_conf, encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        lines = []
    kept = [
        words[:2] if words[0] == "nameserver" else words
        for words in lines
        if words[:1] == ["options"] or (words[:1] == ["nameserver"] and dns.inet.is_address("".join(words[1:2])))
    ]
    return StringIO("\n".join(map(" ".join, kept)))


def _addresses(answer: bytes, question: bytes, kind: str) -> list[str]:
    """The addresses in an answer to `question` that holds nothing else; none, if it is any other."""
    if kind not in _RECORDS or len(answer) < _HEADER.size:
        return []
    record, wanted, family = _RECORDS[kind]
    _, flags, questions, answers, authorities, others = _HEADER.unpack_from(answer)
    begin = question.index(0, _HEADER.size) + 5  # behind the root's label, type and class
    end = begin + answers * record.size
    if (flags & _OF_FLAGS, questions, authorities) != (_WHOLE_ANSWER, 1, 0):
        return []
    if answer[:2] != question[:2] or answer[_HEADER.size : begin] != question[_HEADER.size : begin]:
        return []
    if not (len(answer) == end if others == 0 else others == 1 and _PLAIN_EDNS.fullmatch(answer, end)):
        return []
    found: dict[str, None] = {}
    for name, type, rdclass, _, size, address in record.iter_unpack(answer[begin:end]):
        if (name, type, rdclass, size) != wanted:
            return []
        found[_stdlib.inet_ntop(family, address)] = None  # each is told once
    return list(found)


def _resolve(resolver: dns.asyncresolver.Resolver, backend: "_Backend", name: str, kind: str) -> Answer:
    """The whole of what dnspython does."""
    try:
        answer = _run(resolver.resolve(f"{name}.", kind, search=False, backend=backend))
    except dns.resolver.NXDOMAIN:
        raise DnsFailure(DnsFailure.NOT_FOUND) from None
    except (dns.resolver.NoAnswer, dns.resolver.YXDOMAIN):
        raise DnsFailure(DnsFailure.NO_DATA) from None
    except dns.resolver.NoNameservers as error:
        raise DnsFailure(_reason(error)) from None
    except (dns.exception.Timeout, OSError):
        raise DnsFailure(DnsFailure.TRY_AGAIN) from None
    except dns.exception.DNSException:
        raise DnsFailure(DnsFailure.FAILED) from None
    names = [_text(cname.name) for cname in answer.chaining_result.cnames]
    values = [_text(record.target) if kind == "PTR" else record.address for record in answer]
    return Answer([*names, _text(answer.canonical_name)], values)


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True))


def _reason(error: Any) -> int:
    """Why no server has answered, by what the last one said."""
    response = error.kwargs["errors"][-1][4] if error.kwargs.get("errors") else None
    refusals = (dns.rcode.REFUSED, dns.rcode.NOTIMP, dns.rcode.FORMERR)
    return DnsFailure.FAILED if response is not None and response.rcode() in refusals else DnsFailure.TRY_AGAIN


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never suspends."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("dnspython waits for something that is not weald's")


class _Server(dns.nameserver.Do53Nameserver):
    """A name server, and where its socket is."""

    @cached_property
    def family(self) -> int:
        return dns.inet.af_for_address(self.address)

    @cached_property
    def destination(self) -> Any:
        return dns.inet.low_level_address_tuple((self.address, self.port), self.family)


class _Port:
    """A UDP socket connected to one server, and the questions it waits for an answer to."""

    def __init__(self, ports: list["_Port"], family: int, destination: Any) -> None:
        self.destination = destination
        self.questions: dict[bytes, SimpleQueue[Any]] = {}  # by message id
        self._ports = ports
        self._socket = socket(family, _stdlib.SOCK_DGRAM)
        try:
            self._socket.connect(destination)
        except BaseException:
            self._socket.close()
            raise
        ports.append(self)
        self._reader = spawn(self._read)

    def ask(self, wire: bytes, answers: SimpleQueue[Any]) -> None:
        self.questions[wire[:2]] = answers
        self._socket.send(wire)

    def _read(self) -> None:
        while True:
            try:
                data: Any = self._socket.recv(65535)
            except OSError as error:
                if self not in self._ports:
                    return
                for answers in self.questions.values():
                    answers.put(error)
                continue
            found = self.questions.get(data[:2])
            if found is not None:
                found.put(data)

    def forget(self, id: bytes) -> None:
        self.questions.pop(id, None)
        if not self.questions and self in self._ports:
            self._ports.remove(self)
            self._socket.close()


class _Question(dns._asyncbackend.DatagramSocket):
    """One question's part in a `_Port`, and what dnspython takes for a UDP socket.

    If dnspython sends what has been asked already, to the same server, nothing is sent: it hears the answers to
    that, under its own id.
    """

    def __init__(self, ports: list[_Port], family: int) -> None:
        super().__init__(family, _stdlib.SOCK_DGRAM)
        self.heard: list[Any] = []  # bytes or exceptions, to be heard again
        self._ports = ports
        self._port: _Port | None = None
        self._asked = b""
        self._answers: SimpleQueue[Any] = SimpleQueue()

    def ask(self, wire: bytes, destination: Any) -> None:
        for port in self._ports:
            if port.destination == destination and len(port.questions) < _MOST_QUESTIONS:
                if wire[:2] not in port.questions:
                    break
        else:
            port = _Port(self._ports, self.family, destination)
        self._port, self._asked = port, wire
        port.ask(wire, self._answers)

    def hear(self, timeout: float | None) -> bytes:
        try:
            answer = self._answers.get(timeout=timeout)
        except Empty:
            raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[no-any-return]

    def forget(self) -> None:
        if self._port is not None:
            self._port.forget(self._asked[:2])
            self._port = None

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        if self._port is None or self._port.destination != destination or self._asked[2:] != what[2:]:
            self.forget()
            self.heard.clear()
            self.ask(what, destination)
        self._id = what[:2]
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        answer = self.heard.pop() if self.heard else self.hear(timeout)
        if isinstance(answer, Exception):
            raise answer
        return self._id + answer[2:], self._port and self._port.destination

    async def close(self) -> None:
        self.forget()


class _Stream(dns._asyncbackend.StreamSocket):
    """A TCP connection."""

    def __init__(self, sock: socket) -> None:
        super().__init__(sock.family, _stdlib.SOCK_STREAM)
        self._socket = sock

    async def sendall(self, what: bytes, timeout: float | None) -> None:
        self._socket.settimeout(timeout)
        self._socket.sendall(what)

    async def recv(self, size: int, timeout: float | None) -> bytes:
        self._socket.settimeout(timeout)
        return self._socket.recv(size)

    async def close(self) -> None:
        self._socket.close()

    async def getpeername(self) -> Any:
        return self._socket.getpeername()


class _Backend(dns._asyncbackend.Backend):
    """dnspython's I/O on greenlets."""

    def __init__(self, ports: list[_Port], question: _Question) -> None:
        self._ports = ports
        self._questions = [question]  # asked already

    def name(self) -> str:
        return "weald"

    async def make_socket(
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: Any = None,
        destination: Any = None,
        timeout: float | None = None,
        ssl_context: Any = None,
        server_hostname: str | None = None,
    ) -> _Question | _Stream:
        if socktype == _stdlib.SOCK_DGRAM:
            return self._questions.pop() if self._questions else _Question(self._ports, af)
        sock = socket(af, socktype, proto)
        try:
            sock.settimeout(timeout)
            sock.connect(destination)
        except BaseException:
            sock.close()
            raise
        return _Stream(sock)

    async def sleep(self, interval: float) -> None:
        sleep(interval)
