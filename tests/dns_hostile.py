"""Name servers with odd answers, on the addresses 127.77.0.1 to .8, port 53; run it in a separate network namespace.

`python dns_hostile.py` prints "ready" and serves until its standard input ends.  Built on dnspython.

Names are LABELS.test.  The first label may select an odd behaviour; a server that does something only once does it once
for each name.
"""

import socket
import struct
import sys
import threading
from contextlib import suppress

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Records = dict[str, list[str]]

ZONE = {
    "four.test.": {"A": ["10.0.0.4"]},
    "six.test.": {"AAAA": ["fd00::6"]},
    "both.test.": {"A": ["10.0.0.1", "10.0.0.2"], "AAAA": ["fd00::1"]},
    "near.test.": {"A": ["192.0.2.9"], "AAAA": ["fd00::9", "2001:db8::9"]},
    "scopes.test.": {"A": ["127.0.0.9", "192.0.2.7"], "AAAA": ["::1", "fd00::7"]},
    "text.test.": {"TXT": ["nothing"]},
    "1.2.3.4.5.": {"A": ["10.0.0.9"]},
    "99999999999.": {"A": ["10.0.0.9"]},
    "under_score.test.": {"A": ["10.0.0.6"]},
    "-hyphen.test.": {"A": ["10.0.0.7"]},
    "mid.-hyphen.test.": {"A": ["10.0.0.7"]},
    "star*.test.": {"A": ["10.0.0.7"]},
    "slash/.test.": {"A": ["10.0.0.7"]},
    "at\\@.test.": {"A": ["10.0.0.7"]},
    "xn--bcher-kva.test.": {"A": ["10.0.0.5"]},
    f"{'l' * 63}.test.": {"A": ["10.0.0.8"]},
    "alias.test.": {"CNAME": ["four.test."]},
    "alias-both.test.": {"CNAME": ["both.test."]},
    "alias-far.test.": {"CNAME": ["host.elsewhere.example."]},
    "host.elsewhere.example.": {"A": ["10.3.0.1"]},
    "dangling.test.": {"CNAME": ["text.test."]},
    "dangling-nowhere.test.": {"CNAME": ["nowhere.test."]},
    "loop.test.": {"CNAME": ["loop-back.test."]},
    "loop-back.test.": {"CNAME": ["loop.test."]},
    "self.test.": {"CNAME": ["self.test."]},
    "big.test.": {"A": [f"10.1.{i // 250}.{i % 250 + 1}" for i in range(500)]},
    "word.one.test.": {"A": ["10.4.0.1"]},
    "word.two.test.": {"A": ["10.4.0.2"]},
    "second.two.test.": {"A": ["10.4.0.3"]},
    "empty.one.test.": {"TXT": ["nothing"]},
    "empty.two.test.": {"A": ["10.4.0.4"]},
    "a.b.two.test.": {"A": ["10.4.0.5"]},
    "a.b.c.two.test.": {"A": ["10.4.0.6"]},
    "servfail.two.test.": {"A": ["10.4.0.7"]},
    "refused.two.test.": {"A": ["10.4.0.8"]},
    "silent.two.test.": {"A": ["10.4.0.9"]},
    "single.": {"A": ["10.4.0.10"]},
    "only-empty.one.test.": {"TXT": ["nothing"]},
    "4.0.0.10.in-addr.arpa.": {"PTR": ["four.test."]},
    "1.0.0.10.in-addr.arpa.": {"PTR": ["both.test.", "second.test.", "third.test."]},
    "5.0.0.10.in-addr.arpa.": {"PTR": ["odd\\032name.test."]},
    "6.0.0.10.in-addr.arpa.": {"PTR": ["odd\\;name.test.", "good.test."]},
    "7.0.0.10.in-addr.arpa.": {"PTR": ["under_score.test."]},
    "8.0.0.10.in-addr.arpa.": {"PTR": ["."]},
    "9.0.0.10.in-addr.arpa.": {"TXT": ["nothing"]},
    "10.0.0.10.in-addr.arpa.": {"PTR": ["CamelCase.Test."]},
    "12.0.0.10.in-addr.arpa.": {"CNAME": ["12.delegated.test."]},
    "12.delegated.test.": {"PTR": ["delegated.test."]},
    f"{'6' + '.0' * 29}.d.f.ip6.arpa.": {"PTR": ["six.test."]},
}
for link in range(40):
    ZONE[f"chain{link}.test."] = {"CNAME": [f"chain{link + 1}.test."]}
ZONE["chain40.test."] = {"A": ["10.5.0.1"], "AAAA": ["fd00::5:1"]}

CODES = {
    "servfail": dns.rcode.SERVFAIL,
    "refused": dns.rcode.REFUSED,
    "notimp": dns.rcode.NOTIMP,
    "formerr": dns.rcode.FORMERR,
    "yxdomain": dns.rcode.YXDOMAIN,
    "notauth": dns.rcode.NOTAUTH,
}
OF_SERVERS = {"127.77.0.5": dns.rcode.REFUSED, "127.77.0.6": dns.rcode.SERVFAIL}
SILENT, SLOW, TCP_ONLY = "127.77.0.3", "127.77.0.7", "127.77.0.8"  # nothing listens on 127.77.0.4
LISTENING = [f"127.77.0.{n}" for n in (1, 2, 3, 5, 6, 7, 8)]
SLOWNESS = 2.5  # seconds

seen = set()  # names that were asked for before, for behaviour that happens once


def once(what, name, kind):
    """Whether this is the first time."""
    key = (what, name, kind)
    first = key not in seen
    seen.add(key)
    return first


def add(response, owner, kind, *values, rdclass="IN"):
    response.answer.append(dns.rrset.from_text(owner, 0, rdclass, kind, *values))


def honest(query, zone=ZONE):
    """The answer of a well-behaved server, with the aliases that lead to the records."""
    name, kind = query.question[0].name.to_text(), dns.rdatatype.to_text(query.question[0].rdtype)
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    key, passed = name.lower(), set[str]()
    if key not in zone:
        response.set_rcode(dns.rcode.NXDOMAIN)
        return response
    while key in zone and "CNAME" in zone[key] and key not in passed:
        passed.add(key)
        add(response, name, "CNAME", *zone[key]["CNAME"])
        name = zone[key]["CNAME"][0]
        key = name.lower()
    if key not in zone:
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif kind in zone[key]:
        add(response, name, kind, *zone[key][kind])
    return response


def to_wire(response):
    """As bytes, the records in the order they were added."""
    return bytes(response.to_wire(max_size=65535, want_shuffle=False))


def bare(query):
    response = dns.message.make_response(query)
    response.flags |= dns.flags.RA
    return response


def changed(wire, place, *values):
    return wire[:place] + bytes(values) + wire[place + len(values) :]


class Odd:
    """Answers to names whose first label is the name of a method: messages, or None if nothing is sent."""

    def __init__(self, query, first, name, kind):
        self.query, self.first, self.name, self.kind = query, first, name, kind

    def right(self):
        """The true answer: an address for A, none for others."""
        response = bare(self.query)
        if self.kind == "A":
            add(response, self.name, "A", "10.9.0.1")
        return response

    def plain(self):
        """The same without EDNS: what comes last are the 16 bytes of the A record."""
        response = self.right()
        response.use_edns(False)
        return to_wire(response)

    # ---- records

    def foreign(self):
        """A record of another owner besides."""
        response = self.right()
        add(response, "evil.other.", "A", "6.6.6.6")
        yield response

    def foreign_only(self):
        response = bare(self.query)
        add(response, "evil.other.", "A", "6.6.6.6")
        yield response

    def foreign_first(self):
        response = bare(self.query)
        add(response, "evil.other.", "A", "6.6.6.6")
        if self.kind == "A":
            add(response, self.name, "A", "10.9.0.1")
        yield response

    def foreign_alias(self):
        response = self.right()
        add(response, "evil.other.", "CNAME", "worse.other.")
        yield response

    def shuffled(self):
        """Aliases after their targets."""
        response = bare(self.query)
        if self.kind == "A":
            add(response, "end.test.", "A", "10.9.0.2")
        add(response, "middle.test.", "CNAME", "end.test.")
        add(response, self.name, "CNAME", "middle.test.")
        yield response

    def two_aliases(self):
        response = bare(self.query)
        add(response, self.name, "CNAME", "first.test.")
        response.answer.append(dns.rrset.from_text(self.name, 0, "IN", "CNAME", "other.test."))
        if self.kind == "A":
            add(response, "first.test.", "A", "10.9.0.3")
        yield response

    def odd_alias(self):
        response = bare(self.query)
        add(response, self.name, "CNAME", "odd\\032name.test.")
        if self.kind == "A":
            add(response, "odd\\032name.test.", "A", "10.9.0.4")
        yield response

    def chaos(self):
        """A record of another class."""
        wire = self.plain()
        yield wire[:-12] + b"\0\3" + wire[-10:] if self.kind == "A" else wire

    def any_class(self):
        """A record of class ANY, which dnspython would take as a reason to read no addresses any more."""
        wire = self.plain()
        yield wire[:-12] + b"\0\xff" + wire[-10:] if self.kind == "A" else wire

    def trailing(self):
        """More bytes than the header counts."""
        yield self.plain() + b"more"

    def headless(self):
        """FORMERR without the question."""
        yield struct.pack("!6H", self.query.id, 0x8181, 0, 0, 0, 0)

    def edns_silent(self):
        """A server, or a firewall before it, that drops queries with EDNS."""
        if self.query.edns < 0:
            yield self.right()

    def edns_servfail(self):
        response = self.right()
        if self.query.edns >= 0:
            response.set_rcode(dns.rcode.SERVFAIL)
        yield response

    def edns_notimp(self):
        response = self.right()
        if self.query.edns >= 0:
            response.set_rcode(dns.rcode.NOTIMP)
        yield response

    def twice(self):
        wire = self.plain()
        if self.kind == "A":
            wire = changed(wire, 7, 2) + wire[-16:]
        yield wire

    def other_type(self):
        response = self.right()
        add(response, self.name, "TXT", "more")
        yield response

    def wrong_size(self):
        """An A record of three bytes."""
        wire = self.plain()
        yield wire[:-6] + b"\0\3" + wire[-4:-1] if self.kind == "A" else wire

    def upper(self):
        """The question comes back in other letters."""
        wire = to_wire(self.right())
        yield wire[:12] + wire[12 : 12 + len(self.name)].swapcase() + wire[12 + len(self.name) :]

    # ---- messages before the right one

    def empty_first(self):
        yield b""
        yield self.right()

    def short_first(self):
        yield self.query.to_wire()[:2] + b"\0"
        yield self.right()

    def wrong_id_first(self):
        wire = self.lie()
        yield changed(wire, 0, wire[0] ^ 0xFF)
        yield self.right()

    def wrong_question_first(self):
        query = dns.message.make_query("else.test.", self.kind, id=self.query.id)
        response = bare(query)
        if self.kind == "A":
            add(response, "else.test.", "A", "6.6.6.6")
        yield response
        yield self.right()

    def echo_first(self):
        yield self.query.to_wire()
        yield self.right()

    def stranger_first(self):
        yield "stranger", self.lie()
        yield self.right()

    def lie(self):
        response = bare(self.query)
        if self.kind == "A":
            add(response, self.name, "A", "6.6.6.6")
        return to_wire(response)

    # ---- no answer at first, or none at all

    def lost(self):
        if not once("lost", self.name, self.kind):
            yield self.right()

    def servfail_once(self):
        response = self.right()
        if once("servfail", self.name, self.kind):
            response = bare(self.query)
            response.set_rcode(dns.rcode.SERVFAIL)
        yield response

    def silent(self):
        yield from ()

    def silent_six(self):
        if self.kind == "A":
            yield self.right()

    def servfail_six(self):
        response = self.right()
        if self.kind != "A":
            response.set_rcode(dns.rcode.SERVFAIL)
        yield response

    def refused_six(self):
        response = self.right()
        if self.kind != "A":
            response.set_rcode(dns.rcode.REFUSED)
        yield response

    def nowhere_six(self):
        response = self.right()
        if self.kind != "A":
            response.set_rcode(dns.rcode.NXDOMAIN)
        yield response

    def servfail_both(self):
        """A has no records, AAAA fails."""
        response = bare(self.query)
        if self.kind != "A":
            response.set_rcode(dns.rcode.SERVFAIL)
        yield response

    def referral(self):
        response = dns.message.make_response(self.query)
        response.authority.append(dns.rrset.from_text("test.", 0, "IN", "NS", "ns.test."))
        yield response

    def authority(self):
        """No records, with an SOA record."""
        response = bare(self.query)
        soa = "ns.test. admin.test. 1 2 3 4 5"
        response.authority.append(dns.rrset.from_text("test.", 0, "IN", "SOA", soa))
        yield response

    # ---- truncated

    def truncated(self):
        response = bare(self.query)
        response.flags |= dns.flags.TC
        yield response

    def truncated_part(self):
        response = bare(self.query)
        add(response, self.name, self.kind, "10.9.0.9" if self.kind == "A" else "fd00::9:9")
        response.flags |= dns.flags.TC
        yield response

    big = hangs_up = cut_short = ends = truncated_whole = truncated


def by_tcp(query, name):
    """The answer, or None: the connection ends."""
    first = name.partition(".")[0].rstrip("0123456789")
    if first in ("truncated-whole", "ends"):
        response = Odd(query, first, name, dns.rdatatype.to_text(query.question[0].rdtype)).right()
        if first == "truncated-whole":
            response.flags |= dns.flags.TC
        return response
    if first == "hangs-up":
        return None
    if first == "cut-short":
        return honest(query)
    if first in ("truncated", "truncated-part"):
        response = bare(query)
        kind = dns.rdatatype.to_text(query.question[0].rdtype)
        add(response, query.question[0].name.to_text(), kind, "10.9.0.8" if kind == "A" else "fd00::9:8")
        return response
    return honest(query)


class Server:
    """UDP and TCP port 53 of one address."""

    def __init__(self, address):
        self.address = address
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.udp.bind((address, 53))
        self.stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.tcp = socket.socket()
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.tcp.bind((address, 53))
        self.tcp.listen(100)
        for serve in (self.serve_udp, self.serve_tcp):
            threading.Thread(target=self.for_ever, args=(serve,), daemon=True).start()

    def for_ever(self, serve):
        while True:
            with suppress(OSError, dns.exception.DNSException):
                serve()

    def serve_udp(self):
        wire, peer = self.udp.recvfrom(65535)
        if self.address == SILENT:
            return
        query = dns.message.from_wire(wire)
        for answer in self.answers(query):
            sock = self.udp
            if isinstance(answer, tuple):
                sock, answer = self.stranger, answer[1]
            data = answer if isinstance(answer, bytes) else to_wire(answer)
            if self.address == SLOW and b"\4slow" in wire:
                threading.Timer(SLOWNESS, sock.sendto, (data, peer)).start()
            else:
                sock.sendto(data, peer)

    def answers(self, query):
        name, kind = query.question[0].name.to_text().lower(), dns.rdatatype.to_text(query.question[0].rdtype)
        first = name.partition(".")[0]
        if first.startswith("ends"):
            first = "ends"
        known = name in ZONE
        code = OF_SERVERS.get(self.address, None if known else CODES.get(first))
        if code is not None:
            response = bare(query)
            response.set_rcode(code)
            yield response
        elif self.address == TCP_ONLY:
            yield from Odd(query, first, name, kind).truncated()
        elif self.address == SLOW:
            response = bare(query)
            if kind == "A":
                add(response, name, "A", "10.7.0.1")
            yield response
        elif self.address == "127.77.0.2" and first == "who":
            response = bare(query)
            add(response, name, kind, "10.8.0.2" if kind == "A" else "fd00::8:2")
            yield response
        elif first == "who":
            response = bare(query)
            add(response, name, kind, "10.8.0.1" if kind == "A" else "fd00::8:1")
            yield response
        elif (not known or first == "big") and hasattr(Odd, method := first.replace("-", "_")):
            yield from getattr(Odd(query, first, query.question[0].name.to_text(), kind), method)()
        else:
            yield honest(query)

    def serve_tcp(self):
        connection, _ = self.tcp.accept()
        threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        with suppress(OSError), connection, connection.makefile("rb") as stream:
            while size := stream.read(2):
                query = dns.message.from_wire(stream.read(int.from_bytes(size, "big")))
                answer = by_tcp(query, query.question[0].name.to_text().lower())
                if answer is None:
                    return
                wire = to_wire(answer)
                connection.sendall(struct.pack("!H", len(wire)) + wire[:7])
                first = query.question[0].name.to_text().partition(".")[0]
                if first == "cut-short":
                    return
                connection.sendall(wire[7:])
                if first.startswith("ends"):  # and other queries that have come are not answered
                    return


if __name__ == "__main__":
    servers = [Server(address) for address in LISTENING]
    print("ready", flush=True)
    sys.stdin.read()
