"""A resolver with its own sockets; dnspython reads the messages (WEALD_RESOLVER=dnspython; install weald[dnspython]).

Called by: weald._base.config, when the resolver is chosen.

`_dns` decides which server is asked and for how long.  dnspython parses each message and checks that it answers the
query, which takes half a millisecond.  So a reply that holds nothing but addresses is read here instead.

Invariants:
- The quick reader accepts only messages that dnspython would accept, with the same result.
- Many queries share a UDP socket, so that a thousand look-ups do not need a thousand descriptors.  The socket is
  connected, so that the kernel drops datagrams of other senders and reports a server that is not there.
- A socket without open queries is closed, so that the next query comes from another port.
- A query keeps its id and its sockets until it is closed, so that the reply to an earlier try still counts.
"""

import os
import re
import socket as _stdlib
from collections.abc import Iterator
from struct import Struct
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from weald._core import Empty, Hub, SimpleQueue, Timeout, monotonic, spawn_raw
from weald.resolver._dns import Answer, DnsFailure, DnsResolver, Rejection, Server, read_answer
from weald.socket import socket

__all__ = ["Resolver"]

_MAX_QUERIES = 64  # that a socket waits for at the same time

_HEADER = Struct("!HHHHHH")  # id, flags, how many questions, answers, authorities, additional records
_WHOLE_ANSWER, _FLAGS_CHECKED = 0x8000, 0xFA0F  # QR; not TC; opcode and rcode 0
# Records whose name is the question's: pointer, type, class, TTL, size, address.
_RECORDS = {
    "A": (Struct("!HHHIH4s"), (0xC00C, 1, 1, 4), _stdlib.AF_INET),
    "AAAA": (Struct("!HHHIH16s"), (0xC00C, 28, 1, 16), _stdlib.AF_INET6),
}
_PLAIN_EDNS = re.compile(rb"\0\0\x29..\0\0..\0\0", re.DOTALL)  # no error, no options
_REJECTIONS = (dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)
_READ = ("A", "AAAA", "PTR", "CNAME")

# dnspython loads the class of a type when it first reads a record of it, and if that is a record of DNS class ANY, it
# takes a general one for all classes, for ever: a single forged answer would break every later look-up.
for _type in _READ:
    dns.rdata.get_rdata_class(dns.rdataclass.IN, dns.rdatatype.from_text(_type))  # type: ignore[no-untyped-call]

_Replies = SimpleQueue[tuple[Server, bytes | Answer | DnsFailure]]  # server, its datagram or what is known without one


class Resolver(DnsResolver):
    """Asks the name servers of resolv.conf, or those of `config.resolver_nameservers`."""

    def __init__(
        self, hub: Hub | None = None, hosts: str = "/etc/hosts", resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        super().__init__(hub, hosts, resolv_conf)
        self._requests: dict[tuple[str, bool], bytes] = {}

    def begin(self) -> None:
        """See DnsResolver."""
        super().begin()
        self._ports: list[_Port] = []

    def open(self, name: str, kind: str) -> "_Question":
        """Make the query without sending it; see DnsResolver."""
        self._conf.refresh()
        return _Question(self, name, kind, self._conf.edns0, self._conf.use_vc)

    def wire(self, name: str, kind: str, edns: bool) -> bytes:
        """Build the query's message.  Only the id and the name differ from the template of its kind."""
        request = self._requests.get((kind, edns))
        if request is None:
            request = dns.message.make_query(".", kind, use_edns=0 if edns else -1, payload=1232).to_wire()
            self._requests[kind, edns] = request
        labels = [bytes((len(label),)) + label for label in name.encode().split(b".")]
        return b"".join((os.urandom(2), request[2:12], *labels, request[12:]))

    def port(self, server: Server, id: bytes) -> "_Port":
        """Return a socket that can take a query with this id; make one if there is none."""
        for port in self._ports:
            if port.server == server and len(port.questions) < _MAX_QUERIES and id not in port.questions:
                return port
        return _Port(self._ports, server)


class _Question:
    """See `weald.resolver._dns.Question`."""

    __slots__ = ("_edns", "_kind", "_name", "_patience", "_ports", "_replies", "_resolver", "_tcp", "_wire")

    def __init__(self, resolver: Resolver, name: str, kind: str, edns: bool, tcp: bool) -> None:
        self._resolver, self._name, self._kind = resolver, name, kind
        self._edns, self._tcp = edns, tcp
        self._wire = resolver.wire(name, kind, edns)
        self._ports: dict[Server, _Port] = {}
        self._replies: _Replies = SimpleQueue()
        self._patience = 0.0

    def ask(self, server: Server, patience: float) -> None:
        self._patience = patience
        if self._tcp:
            self._replies.put((server, self._by_tcp(server)))
            return
        try:
            port = self._ports.get(server)
            if port is None:
                port = self._ports[server] = self._resolver.port(server, self._wire[:2])
        except OSError:  # no route, no descriptor
            self._replies.put((server, Rejection()))
        else:
            port.ask(self._wire, self._replies)

    def next_reply(self, timeout: float) -> tuple[Server, Answer | DnsFailure] | None:
        end = monotonic() + timeout
        while True:
            try:
                server, message = self._replies.get(timeout=max(end - monotonic(), 0))
            except Empty:
                return None
            if not isinstance(message, bytes):
                return server, message
            try:
                reply = self._read(server, message)
            except BaseException:  # cut short while it fetched the answer by TCP: the next caller reads it again
                self._replies.put((server, message))
                raise
            if reply is not None:
                return server, reply
            if monotonic() >= end:
                return None

    def close(self) -> None:
        for port in self._ports.values():
            port.forget(self._wire[:2])

    def _read(self, server: Server, message: bytes, by_tcp: bool = False) -> Answer | DnsFailure | None:
        """Read a server's message.  None if it does not answer this query, or if the answer is yet to come."""
        if addresses := _addresses(message, self._wire, self._kind):
            return Answer([self._name], addresses)
        try:
            answer = dns.message.from_wire(message, one_rr_per_rrset=True, ignore_trailing=True)
            if not dns.message.from_wire(self._wire).is_response(answer):
                return None
        except dns.exception.DNSException:
            question = slice(_HEADER.size, self._wire.index(0, _HEADER.size) + 5)
            return Rejection() if message[question] == self._wire[question] else None
        if answer.flags & dns.flags.TC and not by_tcp:
            return self._by_tcp(server)
        code = answer.rcode()
        if code in _REJECTIONS or _is_referral(answer):
            return Rejection(servfail=code == dns.rcode.SERVFAIL)
        if code in (dns.rcode.FORMERR, dns.rcode.BADVERS) and self._edns:  # an old server
            self.close()
            self._ports.clear()
            self._edns, self._wire = False, self._resolver.wire(self._name, self._kind, False)
            if by_tcp:
                return self._by_tcp(server)
            self.ask(server, self._patience)
            return None
        if code == dns.rcode.FORMERR and not answer.question:
            return Rejection()  # it could not even read the question
        if code != dns.rcode.NOERROR:
            return DnsFailure(DnsFailure.NOT_FOUND if code == dns.rcode.NXDOMAIN else DnsFailure.FAILED)
        try:
            return read_answer(self._name, self._kind, _records(answer))
        except DnsFailure as failure:
            return failure

    def _by_tcp(self, server: Server) -> Answer | DnsFailure:
        """Send the query to `server` over TCP; return its reply, or a Rejection."""
        try:
            family, address = _address(server)
            with Timeout(self._patience, TimeoutError("the name server takes too long")), socket(family) as sock:
                sock.connect(address)
                sock.sendall(len(self._wire).to_bytes(2) + self._wire)
                with sock.makefile("rb") as stream:
                    size = int.from_bytes(stream.read(2))
                    answer = stream.read(size)
        except OSError:
            return Rejection()
        return (self._read(server, answer, by_tcp=True) if len(answer) == size else None) or Rejection()


def _is_referral(answer: Any) -> bool:
    """Does the server only point to other servers, without asking them itself?"""
    return not (answer.rcode() or answer.answer or answer.additional or answer.flags & (dns.flags.AA | dns.flags.RA))


def _records(answer: Any) -> Iterator[tuple[str, str, str]]:
    for rrset in answer.answer:
        if rrset.rdclass == 1 and (type := dns.rdatatype.to_text(rrset.rdtype)) in _READ:
            for record in rrset:
                yield _text(rrset.name), type, record.address if type in _RECORDS else _text(record.target)


def _text(name: Any) -> str:
    return str(name.to_text(omit_final_dot=True))


def _address(server: Server) -> tuple[int, Any]:
    """The family and the address for a socket to `server`."""
    found = _stdlib.getaddrinfo(*server, 0, _stdlib.SOCK_DGRAM, 0, _stdlib.AI_NUMERICHOST | _stdlib.AI_NUMERICSERV)
    return found[0][0], found[0][4]


def _addresses(answer: bytes, question: bytes, kind: str) -> list[str]:
    """Return the addresses of an answer to `question` that holds nothing else; [] for any other message."""
    if kind not in _RECORDS or len(answer) < _HEADER.size:
        return []
    record, wanted, family = _RECORDS[kind]
    _, flags, questions, answers, authorities, others = _HEADER.unpack_from(answer)
    begin = question.index(0, _HEADER.size) + 5  # behind the root's label, type and class
    end = begin + answers * record.size
    if (flags & _FLAGS_CHECKED, questions, authorities) != (_WHOLE_ANSWER, 1, 0):
        return []
    if answer[:2] != question[:2] or answer[_HEADER.size : begin] != question[_HEADER.size : begin]:
        return []
    if not (len(answer) == end if others == 0 else others == 1 and _PLAIN_EDNS.fullmatch(answer, end)):
        return []
    found: dict[str, None] = {}
    for name, type, rdclass, _, size, address in record.iter_unpack(answer[begin:end]):
        if (name, type, rdclass, size) != wanted:
            return []
        found[_stdlib.inet_ntop(family, address)] = None  # without duplicates
    return list(found)


class _Port:
    """A UDP socket connected to one server, and the queries that wait for a reply on it."""

    def __init__(self, ports: list["_Port"], server: Server) -> None:
        self.server = server
        self.questions: dict[bytes, _Replies] = {}  # by message id
        self._ports = ports
        family, address = _address(server)
        self._socket = socket(family, _stdlib.SOCK_DGRAM)
        try:
            self._socket.connect(address)
        except BaseException:
            self._socket.close()
            raise
        ports.append(self)
        spawn_raw(self._read)

    def ask(self, wire: bytes, replies: _Replies) -> None:
        self.questions[wire[:2]] = replies
        try:
            self._socket.send(wire)
        except OSError:  # perhaps an ICMP error for an earlier query: send takes it away from recv
            self._fail()

    def _read(self) -> None:
        while self in self._ports:
            try:
                message = self._socket.recv(65535)
            except OSError:
                self._fail()
            else:
                found = self.questions.get(message[:2])
                if found is not None:
                    found.put((self.server, message))

    def _fail(self) -> None:
        for replies in self.questions.values():
            replies.put((self.server, Rejection()))

    def forget(self, id: bytes) -> None:
        self.questions.pop(id, None)
        if not self.questions and self in self._ports:
            self._ports.remove(self)
            self._socket.close()
