"""A DNS server for tests, on loopback, whose misbehaviour depends on the name asked for.  Built on dnspython."""

import socket
import threading
from collections import Counter
from contextlib import suppress

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from helpers import PATIENCE

# Records by name and type.  TTL 0: they must not be cached.
ZONE = {
    "plain.test.": {"A": ["10.0.0.1", "10.0.0.2"], "AAAA": ["fd00::1"]},
    "four.test.": {"A": ["10.0.0.4"]},
    "six.test.": {"AAAA": ["fd00::6"]},
    "alias.test.": {"CNAME": ["other.test."]},
    "other.test.": {"CNAME": ["plain.test."]},
    "empty.test.": {"TXT": ["nothing"]},
    "xn--bcher-kva.test.": {"A": ["10.0.0.5"]},
    "under_score.test.": {"A": ["10.0.0.6"]},
    "big.test.": {"A": [f"10.1.{i // 250}.{i % 250 + 1}" for i in range(500)]},
    "short.search.test.": {"A": ["10.0.0.7"]},
    "a.b.search.test.": {"A": ["10.0.0.8"]},
    "liar.test.": {"A": ["10.0.0.9"]},
    "slow.test.": {"A": ["10.0.0.10"]},
    "lost.test.": {"A": ["10.0.0.11"]},
    "garbage.test.": {"A": ["10.0.0.13"]},
    "late.test.": {"A": ["10.0.0.14"]},
    "1.0.0.10.in-addr.arpa.": {"PTR": ["plain.test.", "second.test."]},
    "4.0.0.10.in-addr.arpa.": {"PTR": ["four.test."]},
    f"{'6' + '.0' * 29}.d.f.ip6.arpa.": {"PTR": ["six.test."]},
    "12.0.0.10.in-addr.arpa.": {"CNAME": ["12.delegated.test."]},
    "12.delegated.test.": {"PTR": ["delegated.test."]},
}

_RCODES = {"servfail.test.": dns.rcode.SERVFAIL, "refused.test.": dns.rcode.REFUSED}


class Server:
    """Answers on UDP and TCP `port` of 127.0.0.1 in native threads, while in its `with` block.

    `asked` counts questions by (name, type), "tcp" those by TCP.  slow.test waits for `gate`; late.test, too,
    but only the first time; silent.test is never answered, lost.test not the first time; the rest of the misbehaviour
    is in `_udp_answers`.
    """

    def __init__(self):
        self.asked = Counter()
        self.gate = threading.Event()
        while True:
            self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._udp.bind(("127.0.0.1", 0))
            self.port = self._udp.getsockname()[1]
            self._tcp = socket.socket()
            self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                self._tcp.bind(("127.0.0.1", self.port))
            except OSError:  # taken for TCP: another one
                self._udp.close()
                self._tcp.close()
                continue
            break
        self._tcp.listen(100)
        self._other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # sends answers that were not asked for

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def __enter__(self):
        for serve in (self._serve_udp, self._serve_tcp):
            threading.Thread(target=self._until_closed, args=(serve,), daemon=True).start()
        return self

    def __exit__(self, *args):
        self.gate.set()
        for sock in (self._udp, self._tcp):
            with suppress(OSError):  # a datagram socket is not connected, but woken all the same
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        self._other.close()

    def _until_closed(self, serve):
        with suppress(OSError):
            while True:
                serve()

    def _serve_udp(self):
        wire, peer = self._udp.recvfrom(65535)
        if not wire:
            raise OSError("shut down")
        query = dns.message.from_wire(wire)
        name = query.question[0].name.to_text().lower()
        if name == "late.test." and self.asked[name, "A"]:  # again
            self.respond(query)
            return
        if name in ("slow.test.", "late.test."):
            threading.Thread(target=self._later, args=(query, peer), daemon=True).start()
            return
        for answer, sock in self._udp_answers(query, name):
            sock.sendto(answer, peer)

    def _later(self, query, peer):
        response = self.respond(query)
        self.gate.wait(PATIENCE)
        with suppress(OSError):  # the test is over
            self._udp.sendto(response.to_wire(), peer)

    def _udp_answers(self, query, name):
        response = self.respond(query)
        if name in ("silent.test.", "silent.search.test."):
            return []
        if name == "lost.test." and self.asked[name, dns.rdatatype.to_text(query.question[0].rdtype)] == 1:
            return []
        if name == "big.test.":
            response = dns.message.make_response(query)
            response.flags |= dns.flags.TC
        if name == "garbage.test." and self.asked[name, "A"] == 1:
            return [(b"", self._udp), (query.to_wire()[:2] + b"\0", self._udp)]
        if name == "liar.test.":
            lie = self.respond(query)
            if lie.answer:
                lie.answer[0] = dns.rrset.from_text(name, 0, "IN", "A", "6.6.6.6")
            wrong_id = bytes([lie.to_wire()[0] ^ 0xFF]) + lie.to_wire()[1:]
            question = dns.message.make_query("else.test.", query.question[0].rdtype, id=query.id)
            wrong_question = dns.message.make_response(question)
            wrong_question.answer.append(dns.rrset.from_text("else.test.", 0, "IN", "A", "6.6.6.6"))
            return [
                (wrong_id, self._udp),
                (wrong_question.to_wire(), self._udp),
                (lie.to_wire(), self._other),
                (response.to_wire(), self._udp),
            ]
        return [(response.to_wire(), self._udp)]

    def _serve_tcp(self):
        connection, _ = self._tcp.accept()
        threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection):
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while size := stream.read(2):
                query = dns.message.from_wire(stream.read(int.from_bytes(size, "big")))
                self.asked["tcp"] += 1
                wire = self.respond(query).to_wire(max_size=65535)
                for piece in (len(wire).to_bytes(2, "big") + wire[:7], wire[7:]):
                    connection.sendall(piece)

    def respond(self, query):
        """The answer of a well-behaved server."""
        question = query.question[0]
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if name in _RCODES:
            response.set_rcode(_RCODES[name])
            return response
        if name not in ZONE and not name.startswith("host"):
            response.set_rcode(dns.rcode.NXDOMAIN)
            return response
        while "CNAME" in (records := ZONE.get(name, {"A": ["10.2.0.1"]})):
            response.answer.append(dns.rrset.from_text(name, 0, "IN", "CNAME", *records["CNAME"]))
            name = records["CNAME"][0]
        if kind in records:
            response.answer.append(dns.rrset.from_text(name, 0, "IN", kind, *records[kind]))
        return response
