"""Random runs on connected sockets: no byte is lost, doubled or swapped, and no wake-up is lost.

Greenlets read and write in many ways on both ends of a connection (a Unix socket pair, TCP, TLS).  Others kill them,
time out, set the sockets' timeouts, take their turns, shut a direction down or have the loop wait.  The model knows
what was sent: the bytes that readers got, one after the other, must be the beginning of it.  Whenever all greenlets
are parked (`rest`), nobody may wait for something that the system would give at once.

The runs are the same each time; WEALD_MODELS=20000 makes that many, random ones.
"""

import os
import select
import ssl as stdlib_ssl

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

import weald
from weald import Timeout, socket, ssl
from weald.testing import blocked

RUNS = int(os.environ.get("WEALD_MODELS", "0"))
SETTINGS = settings(max_examples=RUNS or 100, stateful_step_count=40, deadline=None, derandomize=not RUNS)

SIDES = st.integers(0, 1)
SIZES = st.sampled_from([1, 100, 5000, 70_000, 1_000_000, 1_000_000])
LIMITS = st.sampled_from([None, None, None, 0, 0.0005])
ANYBODY = st.integers(0, 19)


class Direction:
    """What goes from one end to the other."""

    def __init__(self, sock, peer):
        self.sock, self.peer = sock, peer
        self.next = 0  # bytes are numbered; each has its number's lowest bits, but for one in 251
        self.begun = bytearray()  # what a send has begun to send, or has sent
        self.sure = 0  # how much of that was sent for certain
        self.got = bytearray()
        self.sender = None
        self.readers = []
        self.shut = self.broken = False


class StreamMachine(RuleBasedStateMachine):
    kind = "unix"
    contexts = None

    @initialize(small=st.booleans())
    def make(self, small):
        if self.kind == "unix":
            ends = socket.socketpair()
        else:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                # Else TCP waits 200 ms and more until the buffer has room for one of loopback's big segments.
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
                near = socket.create_connection(listener.getsockname())
                ends = near, listener.accept()[0]
        if small:
            for end in ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
        if self.contexts:
            server, client = self.contexts
            shaking = weald.spawn(server.wrap_socket, ends[1], server_side=True)
            ends = client.wrap_socket(ends[0], server_hostname="localhost"), shaking.get()
        self.ends = ends
        self.directions = [Direction(*ends), Direction(*reversed(ends))]

    # ---------------------------------------------------------------- greenlets

    @rule(side=SIDES, size=SIZES, how=st.sampled_from(["sendall", "send", "file", "sendmsg"]), limit=LIMITS)
    def send(self, side, size, how, limit):
        to = self.directions[side]
        if to.shut or to.broken or to.sender is not None and not to.sender.ready():
            return
        data = bytes((to.next + i) % 251 for i in range(min(size, 251))) * (size // 251 + 1)
        data = data[:size]

        def work():
            begin = len(to.begun)
            to.begun += data
            sent = None
            try:
                with Timeout(limit, False):
                    if how == "sendall":
                        to.sock.sendall(data)
                        sent = size
                    elif how == "file":
                        with to.sock.makefile("wb", 0) as file:
                            sent = file.write(data)
                    elif how == "send" or self.contexts:
                        sent = to.sock.send(data)
                    else:
                        sent = to.sock.sendmsg([data[: size // 2], data[size // 2 :]])
            finally:
                if sent is None:  # how much is not known: this ends the direction
                    to.broken = True
                else:
                    del to.begun[begin + sent :]
                    to.sure = len(to.begun)
                    to.next = to.sure % 251

        to.sender = weald.spawn(work)

    @rule(
        side=SIDES,
        size=SIZES,
        how=st.sampled_from(["recv", "recv_into", "recvmsg", "select", "file", "peek"]),
        limit=LIMITS,
    )
    def receive(self, side, size, how, limit):
        of = self.directions[side]
        sock = of.peer

        def work():
            with Timeout(limit, False):
                if how == "select":
                    weald.socket.wait_read(sock.fileno()) if not self.contexts else None
                    data = sock.recv(size)
                elif how == "recv_into":
                    buffer = bytearray(size)
                    data = buffer[: sock.recv_into(buffer)]
                elif how == "file":
                    with sock.makefile("rb", 0) as file:
                        data = file.read(size)
                elif how == "recv" or self.contexts:
                    data = sock.recv(size)
                elif how == "peek":
                    seen = sock.recv(size, socket.MSG_PEEK)
                    assert of.begun[len(of.got) :].startswith(seen), "what a peek saw was not sent"
                    return
                else:
                    data = sock.recvmsg(size)[0]
                of.got += data
                assert data or of.shut, "an end that nobody has made"

        of.readers = [reader for reader in of.readers if not reader.ready()]
        of.readers.append(weald.spawn(work))

    @rule(side=SIDES, victim=ANYBODY, how=st.sampled_from(["kill", "throw", "both"]))
    def end_a_reader(self, side, victim, how):
        alive = [reader for reader in self.directions[side].readers if not reader.ready()]
        if alive:
            reader = alive[victim % len(alive)]
            if how != "kill":
                weald.get_hub().run_callback(reader.throw)
            if how != "throw":
                reader.kill(block=False)

    @precondition(lambda self: not self.contexts)
    @rule(side=SIDES)
    def end_the_sender(self, side):
        if self.directions[side].sender is not None:
            self.directions[side].sender.kill(block=False)

    @rule(side=SIDES, seconds=st.sampled_from([None, 100]))
    def set_timeout(self, side, seconds):
        self.ends[side].settimeout(seconds)

    @rule()
    def turn(self):
        weald.sleep(0)

    @rule()
    def poll(self):
        weald.sleep(0.0006)

    @rule(side=SIDES)
    def shut_down(self, side):
        to = self.directions[side]
        if (to.sender is None or to.sender.ready()) and not to.shut:
            to.shut = True
            if self.contexts:
                return  # the end comes with `close` at the end of the run
            to.sock.shutdown(socket.SHUT_WR)

    # ---------------------------------------------------------------- promises

    @rule()
    def rest(self):
        blocked()
        for of in self.directions:
            self.check(of)

    def check(self, of):
        for greenlet in [*of.readers, of.sender]:
            if greenlet is not None and greenlet.ready():
                greenlet.get(block=False)
        assert of.begun.startswith(of.got), f"at {len(of.got)} bytes others were received than were sent"
        if not self.contexts:
            readers = [reader for reader in of.readers if not reader.ready()]
            readable = bool(select.select([of.peer.fileno()], [], [], 0)[0])
            assert not (readers and readable), "a reader waits though there is something to read"
            writable = bool(select.select([], [of.sock.fileno()], [], 0)[1])
            waits = of.sender is not None and not of.sender.ready()
            assert not (waits and writable), "a sender waits though there is room"

    def teardown(self):
        if not hasattr(self, "directions"):
            return
        try:
            blocked()  # all have begun
            weald.sleep(0.001)  # and their limits have passed
            self.rest()
            for of in self.directions:
                self.finish(of)
        finally:
            for end in self.ends:
                end.close()
            weald.killall([g for of in self.directions for g in [*of.readers, of.sender] if g is not None])

    def finish(self, of):
        """Read what is left."""
        weald.killall(of.readers)
        if of.broken:
            with Timeout(0.001, False):
                while data := of.peer.recv(1_000_000):
                    of.got += data
            assert of.begun.startswith(of.got)
            return
        of.peer.settimeout(100)
        while (of.sender is not None and not of.sender.ready()) or len(of.got) < of.sure:
            data = of.peer.recv(1_000_000)
            assert data, "an end before everything had come"
            of.got += data
        assert of.got == of.begun


class TCPMachine(StreamMachine):
    kind = "tcp"


class TLSMachine(StreamMachine):
    kind = "tls"


@pytest.mark.parametrize("machine", [StreamMachine, TCPMachine, TLSMachine], ids=lambda machine: machine.kind)
def test_streams(machine, certificate):
    if machine is TLSMachine:
        server = ssl.SSLContext(stdlib_ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(certificate.cert, certificate.key)
        client = ssl.SSLContext(stdlib_ssl.PROTOCOL_TLS_CLIENT)
        client.load_verify_locations(certificate.cert)
        machine.contexts = server, client
    run_state_machine_as_test(machine, settings=SETTINGS)
