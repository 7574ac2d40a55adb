"""A resolver on dnspython (WEALD_RESOLVER=dnspython; install weald[dnspython]).

Name servers, retries, truncated answers and what makes an answer one to the question are dnspython's.  Its
asynchronous resolver is given a `Backend` whose coroutines never suspend: where asyncio's would, the greenlet
parks.  So one step runs each of them to its end.

Invariants:
- Many questions share a UDP socket, so that a thousand look-ups do not take a thousand descriptors; it is
  connected, so that the kernel drops what others send and reports a server that is not there.
- A socket with nothing to wait for is closed: the next question comes from another port.
"""

import socket as _stdlib
from collections.abc import Coroutine
from typing import Any

import dns._asyncbackend
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from weald._config import config
from weald._core import Empty, Hub, SimpleQueue, sleep, spawn
from weald.resolver._dns import Answer, DnsFailure, DnsResolver, parse_nameservers
from weald.socket import socket

__all__ = ["Resolver"]

_MOST_QUESTIONS = 64  # a socket waits for at once


class Resolver(DnsResolver):
    """Asks the name servers of resolv.conf, or those of `config.resolver_nameservers`."""

    def __init__(
        self, hub: Hub | None = None, hosts: str = "/etc/hosts", resolv_conf: str = "/etc/resolv.conf"
    ) -> None:
        super().__init__(hub, hosts, resolv_conf)
        self._backend = _Backend()
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        try:
            self._resolver.read_resolv_conf(resolv_conf)
        except dns.resolver.NoResolverConfiguration:
            self._resolver.nameservers = ["127.0.0.1"]  # as the C library has it
        if servers := parse_nameservers(config.resolver_nameservers):
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(address, port) for address, port in servers]
        if config.resolver_timeout is not None:
            self._resolver.lifetime = config.resolver_timeout
            self._resolver.timeout = min(self._resolver.timeout, config.resolver_timeout / 2)

    def query(self, name: str, kind: str) -> Answer:
        try:
            answer = _run(self._resolver.resolve(f"{name}.", kind, search=False, backend=self._backend))
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
                found.put((data, self.destination))

    def forget(self, id: bytes) -> None:
        self.questions.pop(id, None)
        if not self.questions and self in self._ports:
            self._ports.remove(self)
            self._socket.close()


class _Datagrams(dns._asyncbackend.DatagramSocket):
    """What dnspython takes for a UDP socket: one question's part in a `_Port`."""

    def __init__(self, ports: list[_Port], family: int) -> None:
        super().__init__(family, _stdlib.SOCK_DGRAM)
        self._ports = ports
        self._port: _Port | None = None
        self._id = b""
        self._answers: SimpleQueue[Any] = SimpleQueue()

    async def sendto(self, what: bytes, destination: Any, timeout: float | None) -> int:
        for port in self._ports:
            if port.destination == destination and len(port.questions) < _MOST_QUESTIONS:
                if what[:2] not in port.questions:
                    break
        else:
            port = _Port(self._ports, self.family, destination)
        self._port, self._id = port, what[:2]
        port.ask(what, self._answers)
        return len(what)

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, Any]:
        try:
            answer = self._answers.get(timeout=timeout)
        except Empty:
            raise dns.exception.Timeout(timeout=timeout) from None  # type: ignore[no-untyped-call]
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[no-any-return]

    async def close(self) -> None:
        if self._port is not None:
            self._port.forget(self._id)


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

    def __init__(self) -> None:
        self._ports: list[_Port] = []

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
    ) -> _Datagrams | _Stream:
        if socktype == _stdlib.SOCK_DGRAM:
            return _Datagrams(self._ports, af)
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
