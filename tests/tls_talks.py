"""A program of test_ssl_talks.py: TLS conversations whose every outcome is printed.

    tls_talks.py plain|patched|native|gevent|list CERT KEY SCENARIO...

Prints a line of JSON for each scenario (all, if none is named); `list` prints their names.  `native` uses weald's
modules in native threads, each with a hub of its own.  Both ends are threads (greenlets if patched) of this process,
so a call that blocks the thread makes the scenario hang.  No outcome depends on how long something takes: what must
come first is waited for (`until_waits`, `until_read`), and where a time-out of LATE is expected nobody ever answers.
The file is long because each scenario is a program.
"""

import fcntl
import io
import json
import os
import re
import subprocess
import sys
import termios
from functools import partial
from pathlib import Path
from typing import Any

mode, CERT, KEY = sys.argv[1:4]
if mode == "patched":
    import weald.monkey
    import weald.testing

    weald.monkey.patch_all()
elif mode == "gevent":
    import gevent.monkey  # type: ignore[import-untyped]

    gevent.monkey.patch_all()

import ftplib  # noqa: E402
import http.client  # noqa: E402
import http.server  # noqa: E402
import imaplib  # noqa: E402
import poplib  # noqa: E402
import smtplib  # noqa: E402
import socketserver  # noqa: E402
import ssl as stdlib_ssl  # noqa: E402
import tempfile  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
import xmlrpc.client  # noqa: E402
import xmlrpc.server  # noqa: E402

if mode == "native":
    from weald import select, socket, ssl, threading, time
else:
    import select
    import socket
    import ssl
    import threading
    import time

LATE = 0.2
PATIENCE = 10
SCENARIOS: dict[str, Any] = {}
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


def both(function):
    """A scenario for each version of TLS."""
    for name, version in VERSIONS.items():
        SCENARIOS[f"{function.__name__}_{name}"] = partial(function, version)
    return function


def outcome(function, *args, **named):
    try:
        value = function(*args, **named)
    except BaseException as error:
        text = re.sub(r"0x[0-9a-f]+|_ssl\.c:\d+|port \d+", "_", str(error))
        text = re.sub(r"<.*SSLSocket.*>|weald\.ssl\.|ssl\.|^_: ", "", text)
        return [type(error).__name__, getattr(error, "errno", None), getattr(error, "reason", None) and text or text]
    if isinstance(value, list):
        return value
    if isinstance(value, (bytes, bytearray)) and len(value) > 100:
        return f"{len(value)} bytes"
    return re.sub(r"<(weald\.|_io\.|)(\w+)", r"<\2", repr(value))


class Go(threading.Thread):
    """A call in a thread of its own."""

    def __init__(self, function, *args, **named):
        super().__init__(daemon=True)
        self.call, self.result = partial(outcome, function, *args, **named), "waits"
        self.start()

    def run(self):
        self.result = self.call()

    def out(self, limit=PATIENCE):
        self.join(limit)
        return self.result


def until_waits(thread):
    """Return when the call of `thread`, which nothing lets go on, waits for its peer."""
    if mode == "patched":
        weald.testing.blocked()
    elif mode == "gevent":
        gevent.idle()
    else:
        call = Path(f"/proc/self/task/{thread.native_id}/syscall")
        # The number of futex(2), by which a thread waits for a lock, the interpreter's own say, not for its peer.
        lock = {"x86_64": "202", "aarch64": "98"}.get(os.uname().machine)
        while call.read_text().split()[0] in ("running", lock):
            time.sleep(0.001)


def until_read(pipe):
    """Return when the reader of `pipe` has taken all that was written to it."""
    while any(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))):
        time.sleep(0.001)


def arrived(sock):
    """How many bytes have arrived at `sock`, read or not."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)[128:], sys.byteorder)


def shaken(sock):
    """How many handshakes clients of this context have done, renegotiations included."""
    return sock.context.session_stats()["connect_good"]


def server_context(version=None, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)
    return fitted(context, version, options)


def client_context(version=None, **options):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(CERT)
    return fitted(context, version, options)


def fitted(context, version, options):
    if version:
        context.minimum_version = context.maximum_version = version
    for name, value in options.items():
        setattr(context, name, value)
    return context


def plain_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far = listener.accept()[0]
    return near, far


def pair(version=None, server=None, client=None, **options):
    """Two ends of a connection after the handshake: client, server."""
    near, far = plain_pair()
    made = []
    server, client = server or server_context(version), client or client_context(version)
    thread = Go(lambda: made.append(server.wrap_socket(far, server_side=True)))
    near = client.wrap_socket(near, server_hostname="localhost", **options)
    thread.out()
    return near, made[0]


def exactly(sock, size):
    """Read `size` bytes, or up to the end."""
    data = bytearray()
    while len(data) < size and (piece := sock.recv(min(size - len(data), 65536))):
        data += piece
    return bytes(data)


def all_of(sock):
    return exactly(sock, 1 << 40)


def handshakes(server, client, **options):
    """What both ends get out of a handshake, and out of a read after it."""
    near, far = plain_pair()

    def serve():
        with server.wrap_socket(far, server_side=True) as wrapped:
            wrapped.settimeout(PATIENCE)
            outcomes.append(outcome(wrapped.sendall, b"answer"))
            outcomes.append(outcome(wrapped.recv, 10))

    def ask():
        with client.wrap_socket(near, **{"server_hostname": "localhost", **options}) as wrapped:
            wrapped.settimeout(PATIENCE)
            # Sends only to a server that has accepted: whether a send still reaches another one is chance.
            got = outcome(wrapped.recv, 10)
            return got, isinstance(got, str) and outcome(wrapped.sendall, b"question")

    outcomes: list[Any] = []
    at_server, at_client = Go(serve), Go(ask)
    return at_server.out(), at_client.out(), outcomes


# Reading, writing, ending


@both
def sizes(version):
    near, far = pair(version)
    results = []
    for size in 0, 1, 16384, 16385, 100_000, 3_000_000:
        sending = Go(near.sendall, b"a" * size), Go(far.sendall, b"b" * size)
        reading = Go(exactly, far, size), Go(exactly, near, size)
        results.append([size, [one.out() for one in sending + reading]])
    return results


@both
def odd_arguments(version):
    near, far = pair(version)
    far.sendall(b"0123456789" * 5)
    return [
        outcome(near.recv, 0),
        outcome(near.recv, -1),
        outcome(near.read, 0),
        outcome(near.read, -1),
        outcome(near.recv, 3, 1),
        outcome(near.recv_into, bytearray()),
        outcome(near.recv_into, bytearray(4)),
        outcome(near.recv_into, bytearray(4), 2),
        outcome(near.recv_into, bytearray(4), 9),
        outcome(near.recv_into, bytearray(4), 0),
        outcome(near.recv_into, b"1234"),
        outcome(near.recv_into, None, 4),
        outcome(near.recv_into, bytearray(4), -1),
        outcome(near.recv_into, bytearray(4), 2, 1),
        outcome(near.read, 4, bytearray(2)),
        outcome(near.read, 0, bytearray(2)),
        outcome(near.read, -1, bytearray(2)),
        outcome(near.read, 5, None),
        outcome(near.read, "5"),
        outcome(near.recvfrom, 5),
        outcome(near.recvfrom_into, bytearray(5)),
        outcome(near.recvmsg, 5),
        outcome(near.recvmsg_into, [bytearray(5)]),
        outcome(near.sendmsg, [b"x"]),
        outcome(near.sendto, b"x", ("127.0.0.1", 1)),
        outcome(near.send, b"x", 1),
        outcome(near.sendall, b"x", 1),
        outcome(near.send, "text"),
        outcome(near.sendall, "text"),
        outcome(near.write, "text"),
        outcome(near.send, b""),
        outcome(near.write, b""),
        outcome(near.sendall, memoryview(b"abcdef")[::2]),
        outcome(near.sendall, memoryview(b"abcd").cast("H")),
        outcome(near.dup),
        outcome(near.connect, ("127.0.0.1", 1)),
        outcome(near.connect_ex, ("127.0.0.1", 1)),
        outcome(near.accept),
        outcome(near.get_channel_binding, "nothing"),
        outcome(near.pending),
        outcome(near.shared_ciphers),
        outcome(near.compression),
        outcome(near.do_handshake),
        outcome(near.getpeercert)[:20],
        outcome(far.getpeercert),
    ]


@both
def before_the_handshake(version):
    near, far = plain_pair()
    near = client_context(version).wrap_socket(near, server_hostname="localhost", do_handshake_on_connect=False)
    results = [
        outcome(near.getpeercert),
        outcome(near.cipher),
        outcome(near.version),
        outcome(near.pending),
        outcome(near.get_channel_binding),
        outcome(near.selected_alpn_protocol),
        outcome(near.unwrap),
        outcome(near.verify_client_post_handshake),
        outcome(lambda: near.session),
        outcome(lambda: near.session_reused),
        outcome(setattr, near, "session", 5),
        outcome(setattr, near, "context", 5),
        outcome(lambda: near.server_side),
        outcome(lambda: near.server_hostname),
    ]
    near.settimeout(LATE)
    results.append(outcome(near.recv, 10))
    results.append(outcome(near.send, b"x"))
    near.settimeout(0)
    results.append(outcome(near.recv, 10))
    results.append(outcome(near.do_handshake))
    far.close()
    results.append(outcome(near.do_handshake, True))
    return results


@scenario
def unconnected():
    sock = client_context().wrap_socket(socket.socket(), server_hostname="localhost")
    listener = server_context().wrap_socket(socket.socket(), server_side=True)
    datagrams = socket.socket(type=socket.SOCK_DGRAM)
    calls = [
        [name, outcome(getattr(one, name), *args)]
        for one in (sock, listener)
        for name, *args in (
            ("recv", 5),
            ("read", 5),
            ("send", b"x"),
            ("sendall", b"x"),
            ("write", b"x"),
            ("unwrap",),
            ("do_handshake",),
            ("pending",),
            ("getpeercert",),
            ("cipher",),
            ("version",),
            ("verify_client_post_handshake",),
            ("recv_into", bytearray(4)),
            ("connect", ("127.0.0.1", 0)),
        )
    ]
    return [
        *calls,
        outcome(client_context().wrap_socket, datagrams),
        outcome(client_context().wrap_socket, socket.socket()),
        outcome(server_context().wrap_socket, socket.socket(), server_side=True, server_hostname="x"),
        outcome(client_context().wrap_socket, socket.socket(), server_hostname=""),
        outcome(client_context().wrap_socket, socket.socket(), server_hostname=".x"),
        outcome(client_context().wrap_socket, socket.socket(), server_hostname="a" * 300),
    ]


@both
def timeouts(version):
    near, far = pair(version)
    near.settimeout(LATE)
    results = [
        outcome(near.recv, 5),
        outcome(near.recv_into, bytearray(5)),
        outcome(near.read, 5),
        outcome(near.sendall, bytes(20_000_000)),
        outcome(near.send, b"x" * 5),
        outcome(near.write, b"x" * 5),
        outcome(near.unwrap),
    ]
    near.settimeout(0)
    results += [outcome(near.recv, 5), outcome(near.sendall, b"x"), outcome(near.send, b"x"), outcome(near.unwrap)]
    reading = Go(lambda: len(all_of(far)) > 100_000)
    near.close()
    return [*results, reading.out()]


@both
def handshake_times_out(version):
    results = []
    for context, options in (
        (client_context(version), {"server_hostname": "localhost"}),
        (
            server_context(version),
            {"server_side": True},
        ),
    ):
        near, _far = plain_pair()
        near.settimeout(LATE)
        results.append(outcome(context.wrap_socket, near, **options))
        results.append(near.fileno())
        near, far = plain_pair()
        near.setblocking(False)
        results.append(outcome(context.wrap_socket, near, **options))
        near, far = plain_pair()
        near.setblocking(False)
        wrapped = context.wrap_socket(near, do_handshake_on_connect=False, **options)
        results.append(outcome(wrapped.do_handshake))
        wrapped.settimeout(LATE)
        results.append(outcome(wrapped.do_handshake))
        far.close()
        results.append(outcome(wrapped.do_handshake))
        results.append(outcome(wrapped.recv, 1))
    return results


@both
def unwrap_with_data_pending(version):
    near, far = pair(version)
    near.sendall(b"x" * 50_000)
    results = [outcome(far.recv, 10)]
    near.settimeout(PATIENCE)
    ending = Go(near.unwrap)
    results.append(outcome(far.unwrap)[:2])
    results.append(outcome(far.unwrap)[:2])
    results.append(outcome(exactly, far, 49_990))
    results.append(outcome(far.recv, 10))
    results.append(outcome(far.unwrap)[:2])
    results.append(ending.out()[:2])
    results.append([outcome(near.send, b"plain"), outcome(far.recv, 10), outcome(far.send, b"PLAIN")])
    near.settimeout(LATE)
    results.append([outcome(near.recv, 10), outcome(near.unwrap), outcome(near.version), outcome(far.pending)])
    near.close()
    results.append([outcome(far.recv, 10), outcome(near.recv, 10), outcome(near.unwrap), outcome(near.send, b"x")])
    return results


@both
def unwrap_by_both_with_data_in_flight(version):
    near, far = pair(version)
    near.settimeout(PATIENCE)
    far.settimeout(PATIENCE)
    near.sendall(b"from near")
    far.sendall(b"from far")
    first, second = Go(near.unwrap), Go(far.unwrap)
    return first.out()[:2], second.out()[:2], outcome(near.recv, 100), outcome(far.recv, 100)


@both
def unwrap_and_the_peer_sends_on(version):
    near, far = pair(version)
    near.settimeout(LATE)
    results = [outcome(near.unwrap)]
    results += [outcome(far.recv, 10), outcome(far.sendall, b"late data"), outcome(near.recv, 20)]
    results += [outcome(near.send, b"more"), outcome(far.unwrap)[:2], outcome(near.unwrap)[:2]]
    return results


@both
def unwrap_when_the_peer_has_closed(version):
    results = []
    for how in "close", "shutdown", "reset":
        near, far = pair(version)
        near.settimeout(PATIENCE)
        if how == "close":
            far.close()
        elif how == "shutdown":
            far.shutdown(socket.SHUT_WR)
        else:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            far.close()
        results.append([how, outcome(near.unwrap), outcome(near.unwrap)])
        if (
            how != "reset"
        ):  # from Python 3.14 on the broken connection's errors come back in later calls; weald drops them
            results.append([outcome(near.recv, 5), near.fileno() == -1])
    return results


@both
def half_close(version):
    near, far = pair(version)
    far.settimeout(LATE)
    results = [outcome(near.shutdown, socket.SHUT_WR), outcome(far.recv, 10), outcome(far.recv, 10)]
    results += [outcome(far.sendall, b"answer")]
    got = near.recv(1000)
    results += [len(got) > 10, outcome(near.send, b"x"), outcome(near.version), outcome(near.pending)]
    far.shutdown(socket.SHUT_RDWR)
    near.recv(1000)  # of TLS 1.3, what cannot be told from random bytes
    return [*results, outcome(near.recv, 10), outcome(far.recv, 10), outcome(far.shutdown, socket.SHUT_WR)]


@both
def ragged_ends(version):
    results = []
    for suppress in True, False:
        near, far = pair(version, suppress_ragged_eofs=suppress)
        reading = Go(near.recv, 10)
        far.sendall(b"data")
        results.append(reading.out())
        far.close()
        results += [outcome(near.recv, 10), outcome(near.recv_into, bytearray(5)), outcome(near.read, 5)]
        results += [outcome(near.read, 5, bytearray(5)), outcome(near.unwrap)[:2]]
    return results


@both
def writes_to_who_has_gone(version):
    near, far = pair(version)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    return [outcome(near.sendall, b"x" * 100_000)[:2], outcome(near.sendall, b"x")[:1], outcome(near.recv, 10)]


@both
def two_threads_on_each_end(version):
    near, far = pair(version)
    calls = [
        Go(exactly, near, 2_000_000),
        Go(exactly, far, 2_000_000),
        Go(near.sendall, b"n" * 2_000_000),
        Go(far.sendall, b"f" * 2_000_000),
    ]
    return [call.out() for call in calls]


@both
def closed_in_the_middle(version):
    results = []
    for call in ("recv", 10), ("recv_into", bytearray(5)), ("unwrap",):
        near, far = pair(version)
        waiting = Go(getattr(near, call[0]), *call[1:])
        until_waits(waiting)
        far.close()
        results.append([call[0], waiting.out()[:2]])
    near.close()
    for name, *args in (
        ("recv", 1),
        ("send", b"x"),
        ("sendall", b"x"),
        ("unwrap",),
        ("do_handshake",),
        ("pending",),
        ("version",),
        ("getpeercert",),
        ("read", 5),
        ("write", b"x"),
        ("shutdown", 2),
        ("recv_into", bytearray(3)),
        ("settimeout", 3),
        ("cipher",),
        ("verify_client_post_handshake",),
        ("makefile", "rb"),
        ("accept",),
        ("getsockname",),
    ):
        results.append([name, outcome(getattr(near, name), *args)])
    return results


# Handshakes


@both
def failing_handshakes(version):
    other = VERSIONS["1.2" if version == VERSIONS["1.3"] else "1.3"]
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    demanding = server_context(version, verify_mode=ssl.CERT_REQUIRED)
    demanding.load_verify_locations(CERT)
    few, few_others = server_context(VERSIONS["1.2"]), client_context(VERSIONS["1.2"])
    few.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    few_others.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
    known = client_context(version)
    known.load_cert_chain(CERT, KEY)
    return [
        handshakes(server_context(version), client_context(other)),
        handshakes(server_context(version), stranger),
        handshakes(server_context(version), client_context(version), server_hostname="wrong.example"),
        handshakes(few, few_others),
        handshakes(demanding, client_context(version)),
        handshakes(demanding, known),
        handshakes(server_context(version), anybody, server_hostname=None),
        handshakes(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_context()),
    ]


@both
def peers_without_tls(version):
    results = []
    for said in b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\0" * 100, b"SSH-2.0-x\r\n", b"":
        for context, options in (
            (server_context(version), {"server_side": True}),
            (client_context(version), {"server_hostname": "localhost"}),
        ):
            near, far = plain_pair()
            far.sendall(said)
            far.shutdown(socket.SHUT_WR)
            results.append([repr(said[:5]), outcome(context.wrap_socket, near, **options)])
    return results


@both
def server_names(version):
    """Callbacks that wait, refuse, raise, and change the context, while another connection goes on."""
    near, far = pair(version)
    asked, answer = threading.Event(), threading.Event()
    chosen = server_context(version)

    def waits(sock, name, context):
        asked.set()
        answer.wait(PATIENCE)
        sock.context = chosen
        seen.append([name, context is server, sock.context is chosen, type(sock).__name__])

    def refuses(sock, name, context):
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

    def sleeps(sock, name, context):
        time.sleep(0.05)

    seen: list[Any] = []
    server = server_context(version)
    server.sni_callback = waits
    shaking = Go(handshakes, server, client_context(version))
    asked.wait(PATIENCE)
    results = [outcome(near.sendall, b"meanwhile"), outcome(far.recv, 10), shaking.result]
    answer.set()
    results += [shaking.out(), seen]
    for callback in refuses, sleeps, None:
        server.sni_callback = callback
        results.append(handshakes(server, client_context(version)))
    results.append(outcome(setattr, server, "sni_callback", 5))
    return results


@both
def protocols(version):
    results = []
    for mine, theirs in ((["h2", "http/1.1"], ["http/1.1"]), (["h2"], ["spdy"]), (["h2"], None), (None, ["h2"])):
        server, client = server_context(version), client_context(version)
        if mine:
            server.set_alpn_protocols(mine)
        if theirs:
            client.set_alpn_protocols(theirs)
        near, far = pair(server=server, client=client)
        results.append([near.selected_alpn_protocol(), far.selected_alpn_protocol(), near.version()])
    results.append(outcome(client.set_alpn_protocols, [""]))
    return results


@both
def sessions(version):
    server, client = server_context(version), client_context(version)
    near, far = pair(server=server, client=client)
    far.sendall(b"x")
    results = [near.recv(1) == b"x", near.session_reused, far.session_reused, outcome(lambda: near.session.has_ticket)]
    session = near.session
    for context in client, client_context(version):
        pairing = Go(lambda context=context: pair(server=server, client=context, session=session))
        results.append(pairing.out()[:2] if isinstance(pairing.out(), list) else "made")
    near, far = pair(server=server, client=client, session=session)
    results += [near.session_reused, far.session_reused, outcome(setattr, near, "session", session)]
    far.sendall(b"y")
    results += [outcome(near.recv, 5), server.session_stats()["hits"] > 0]
    return results


@scenario
def post_handshake_authentication():
    results = []
    for willing in "certificate", "none", "unwilling":
        server = server_context(VERSIONS["1.3"], verify_mode=ssl.CERT_REQUIRED, post_handshake_auth=True)
        server.load_verify_locations(CERT)
        client = client_context(VERSIONS["1.3"], post_handshake_auth=willing != "unwilling")
        if willing == "certificate":
            client.load_cert_chain(CERT, KEY)
        near, far = pair(server=server, client=client)

        def serve(far=far):
            steps = [outcome(far.recv, 10), outcome(far.getpeercert)]
            steps += [outcome(far.verify_client_post_handshake), outcome(far.sendall, b"who?")]
            steps += [outcome(far.recv, 10), outcome(far.getpeercert)[:10], outcome(far.sendall, b"fine")]
            far.close()
            return steps

        serving = Go(serve)
        near.settimeout(PATIENCE)
        near.sendall(b"hello")
        asked = outcome(near.recv, 10)
        if willing != "none":  # whether a send reaches a server that is refusing is chance
            near.sendall(b"me")
        results.append([willing, asked, outcome(near.recv, 10)])
        results.append(serving.out())
        results.append(outcome(near.verify_client_post_handshake))
    return results


@both
def wrapped_listener(version):
    """Accepting: one client is silent, one speaks no TLS, one is right."""
    with server_context(version).wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        address = listener.getsockname()
        results = []
        with socket.create_connection(address) as bad:
            accepting = Go(listener.accept)
            bad.sendall(b"nonsense\r\n\r\n")
            results.append(accepting.out()[:2])
        silent = socket.create_connection(address)
        listener.settimeout(None)
        accepting = Go(lambda: listener.accept()[0])
        until_waits(accepting)
        silent.close()
        results.append(accepting.out()[:2])
        sock = client_context(version).wrap_socket(socket.socket(), server_hostname="localhost")
        accepting = Go(lambda: all_of(listener.accept()[0]))
        sock.connect(address)
        sock.sendall(b"right")
        sock.shutdown(socket.SHUT_WR)  # a close would reset the connection: it has session tickets that nobody reads
        results.append(accepting.out())
        sock.close()
        listener.settimeout(LATE)
        results.append(outcome(listener.accept))
    with server_context(version).wrap_socket(
        socket.create_server(("127.0.0.1", 0)), server_side=True, do_handshake_on_connect=False
    ) as listener:
        near = socket.create_connection(listener.getsockname())
        accepted = listener.accept()[0]
        shaking = Go(accepted.do_handshake)
        near = client_context(version).wrap_socket(near, server_hostname="localhost")
        results.append(shaking.out())
        shaking = Go(accepted.recv, 5)
        near.sendall(b"x")
        results.append(shaking.out())
    sock = client_context(version).wrap_socket(socket.socket(), server_hostname="localhost")
    sock.settimeout(LATE)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        results.append(outcome(sock.connect, mute.getsockname()))
        results.append(outcome(sock.connect, mute.getsockname()))
    results.append(outcome(sock.recv, 1)[:1])
    return results


# Files and memory


@both
def files(version):
    results = []
    for kind, buffering in (
        ("r", None),
        ("w", None),
        ("rw", None),
        ("rb", None),
        ("wb", None),
        ("rwb", None),
        ("rb", 0),
        ("wb", 0),
        ("rwb", 0),
        ("r", 1),
        ("w", 1),
        ("r", 0),
        ("rb", 10),
        ("x", None),
    ):
        near, far = pair(version)
        near.settimeout(PATIENCE)
        far.sendall(b"one\r\ntwo\nthree")
        steps = [kind, buffering]
        try:
            file = near.makefile(kind, buffering)
        except ValueError as error:
            results.append([*steps, str(error)])
            continue
        steps.append([file.readable(), file.writable(), outcome(file.seek, 0)])
        if "r" in kind:
            steps += [outcome(file.readline), outcome(file.read, 2)]
            if "b" in kind:
                steps += [outcome(file.readinto, bytearray(2))]
        if "w" in kind:
            data = b"written\n" if "b" in kind else "written\n"
            steps += [outcome(file.write, data), outcome(file.flush), outcome(far.recv, 100)]
        else:
            steps += [outcome(file.write, b"x")]
        near.close()
        steps += [near.fileno() >= 0, outcome(near.recv, 1)[:1] if "r" not in kind else None]
        far.close()
        if "r" in kind:
            steps += [outcome(file.read)]
        file.close()
        steps += [near.fileno(), outcome(file.fileno), outcome(file.read), outcome(file.write, b"x")]
        results.append(steps)
    near, far = pair(version)
    near.settimeout(LATE)
    file = near.makefile("rb")
    far.sendall(b"part")
    results.append([outcome(file.readline), outcome(file.readline), outcome(file.read, 4)])
    near.settimeout(0)
    file = near.makefile("rb")
    results.append([outcome(file.readline), outcome(file.read, 4), outcome(file.peek)])
    far.sendall(b"abc")
    select.select([near], [], [], PATIENCE)
    results.append([outcome(file.read), outcome(file.read1), outcome(near.makefile("wb", 0).write, b"x" * 10)])
    return results


@both
def sending_files(version):
    near, far = pair(version)
    with tempfile.TemporaryFile() as file, tempfile.TemporaryFile("w+") as text:
        file.write(bytes(range(256)) * 1000)
        file.seek(0)
        results = []
        for offset, count in (0, None), (10, 100_000), (255_000, 10_000), (300_000, 5), (0, 0), (-1, 5), (0, -5):
            sending = Go(near.sendfile, file, offset, count)
            expected = min(256_000 - offset, 256_000 if count is None else count)
            results.append([outcome(exactly, far, expected if 0 < expected <= 256_000 and offset >= 0 else 0)])
            results.append([sending.out(), file.tell()])
        results += [outcome(near.sendfile, text), outcome(near.sendfile, io.BytesIO(b"bytes")), outcome(far.recv, 9)]
        near.settimeout(LATE)
        file.truncate(50_000_000)
        results += [outcome(near.sendfile, file)]
        near.settimeout(0)
        results += [outcome(near.sendfile, file)]
    return results


@both
def in_memory(version):
    """SSLObject: bytes are carried between two of them, and between one and a connection."""
    results: list[Any] = []

    def move(source, sock):
        if data := source.read():
            sock.sendall(data)

    def drive(tls, incoming, outgoing, sock, call, *args):
        while True:
            try:
                value = getattr(tls, call)(*args)
            except ssl.SSLWantReadError:
                move(outgoing, sock)
                if data := sock.recv(65536):
                    incoming.write(data)
                else:
                    incoming.write_eof()
                continue
            move(outgoing, sock)
            return value

    near, far = plain_pair()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(version).wrap_bio(incoming, outgoing, server_hostname="localhost")
    server = server_context(version)
    serving = Go(
        lambda: (
            exactly(wrapped := server.wrap_socket(far, server_side=True), 300_000),
            wrapped.sendall(b"y" * 200_000),
            wrapped.unwrap(),
        )[:2]
    )
    say = partial(drive, tls, incoming, outgoing, near)
    results.append([outcome(tls.read, 5), outcome(tls.write, b"x"), outcome(tls.unwrap)])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(version).wrap_bio(incoming, outgoing, server_hostname="localhost")
    say = partial(drive, tls, incoming, outgoing, near)
    results.append([outcome(say, "do_handshake"), tls.version(), outcome(say, "write", b"x" * 300_000)])
    got = bytearray()
    while len(got) < 200_000:
        got += say("read", 70_000)
    results.append([len(got), outcome(say, "unwrap"), outcome(serving.out)[:20], outcome(say, "read", 5)])
    return results


# OpenSSL's own programs, with the commands that they know


def command(program, *args):
    return subprocess.Popen(
        ["openssl", program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def client_commands(version, *letters):
    """`openssl s_client` sends lines, and renegotiates or changes keys in between."""
    listener = socket.create_server(("127.0.0.1", 0))
    client = command(
        "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-quiet" if not letters else "-no_ign_eof"
    )
    sock = listener.accept()[0]
    sock.settimeout(PATIENCE)
    sock = server_context(version).wrap_socket(sock, server_side=True)
    results = []
    for number, letter in enumerate(letters):
        client.stdin.write(f"line {number}\n".encode())
        client.stdin.flush()
        results.append(outcome(exactly, sock, 7))
        results.append(outcome(sock.sendall, b"answer " * 10_000 + b"end\n"))
        while client.stdout.readline()[-5:] != b" end\n":  # so that none of it arrives in the midst of what follows
            pass
        reading = Go(sock.recv, 100)
        client.stdin.write(f"{letter}\n".encode())
        client.stdin.flush()
        until_read(client.stdin)
        client.stdin.write(b"after\n")
        client.stdin.flush()
        got = reading.out()
        results.append([letter, got if got != repr(b"after\n"[:1]) else got + outcome(exactly, sock, 5)])
        results.append(outcome(sock.sendall, b"x" * 100_000))
        if isinstance(got, list):
            break
    client.kill()
    client.communicate()
    return results


@scenario
def client_changes_keys():
    return client_commands(VERSIONS["1.3"], "k", "K", "k")


@scenario
def client_renegotiates():
    return client_commands(VERSIONS["1.2"], "R", "R")


def server_commands(version, letters, *options):
    """`openssl s_server` sends lines, and renegotiates, changes keys or asks for a certificate in between."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port = chosen.getsockname()[1]
    server = command("s_server", "-accept", f"127.0.0.1:{port}", "-cert", CERT, "-key", KEY, *options)
    while b"ACCEPT" not in server.stdout.readline():
        pass
    client = client_context(version)
    if version == VERSIONS["1.3"]:
        client.post_handshake_auth = True
    client.load_cert_chain(CERT, KEY)
    sock = client.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost")
    sock.settimeout(PATIENCE)
    draining = Go(server.stdout.read)
    results = []
    for letter in letters:
        progress = shaken if letter in "rR" else arrived
        before = progress(sock)
        reading = Go(sock.recv, 100)
        server.stdin.write(f"{letter}\n".encode())
        server.stdin.flush()
        until_read(server.stdin)  # a command counts only at the beginning of what is read at once
        while progress(sock) == before:
            time.sleep(0.001)
        until_waits(reading)  # it has answered; plain Python does not guard a connection against a second thread
        results.append([letter, outcome(sock.sendall, b"x" * 100_000)])
        server.stdin.write(b"after\n")
        server.stdin.flush()
        results.append(reading.out())
    sock.settimeout(LATE)
    results.append(outcome(sock.recv, 10))
    server.stdin.write(b"Q\n")
    server.stdin.flush()
    sock.settimeout(PATIENCE)
    results.append(outcome(sock.recv, 10))
    server.kill()
    server.wait()
    draining.out()
    return results


@scenario
def server_changes_keys():
    return server_commands(VERSIONS["1.3"], "kKkK")


@scenario
def server_asks_for_certificates():
    return server_commands(VERSIONS["1.3"], "cc", "-verify", "1")


@scenario
def server_renegotiates():
    return server_commands(VERSIONS["1.2"], "rR")


# The standard library's protocols


def serve_lines(tls, script, implicit=True):
    """A server for one client; `script(file, sock)` is what it says; the port, and its thread."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        sock = listener.accept()[0]
        sock.settimeout(PATIENCE)
        with listener:
            if implicit:
                sock = tls.wrap_socket(sock, server_side=True)
            with sock, sock.makefile("rwb") as file:
                return script(file, sock)

    return listener.getsockname()[1], Go(serve)


def say(file, *lines):
    for line in lines:
        file.write(line.encode() + b"\r\n")
    file.flush()


def smtp_script(tls, implicit, fault=None):
    def script(file, sock):
        commands = []
        say(file, "220 here")
        while line := file.readline():
            word = line.split()[0].upper()
            commands.append(word.decode())
            if word == b"EHLO":
                say(
                    file,
                    "250-here",
                    *([] if implicit or isinstance(sock, stdlib_ssl.SSLSocket) else ["250-STARTTLS"]),
                    "250 AUTH PLAIN LOGIN",
                )
            elif word == b"STARTTLS":
                if fault == "refused":
                    say(file, "454 no")
                    continue
                if fault == "plain":
                    say(file, "220 go", "250 still in plain text")
                    return commands + [outcome(file.readline)[:2] != ""]
                say(file, "220 go")
                sock = tls.wrap_socket(sock, server_side=True)
                file = sock.makefile("rwb")
            elif word == b"DATA":
                say(file, "354 go on")
                if fault == "drop":
                    sock.close()
                    file.close()
                    return commands
                size = 0
                while (line := file.readline()) not in (b".\r\n", b""):
                    size += len(line)
                commands.append(size)
                say(file, "250 taken")
            elif word == b"AUTH":
                say(file, "235 welcome")
            elif word == b"QUIT":
                say(file, "221 bye")
                return commands
            else:
                say(file, "250 fine")
        return commands

    return script


@both
def smtp(version):
    results = []
    for implicit, fault in (True, None), (False, None), (False, "refused"), (False, "plain"), (True, "drop"):
        tls = server_context(version)
        port, serving = serve_lines(tls, smtp_script(tls, implicit, fault), implicit)

        def talk(implicit=implicit, fault=fault, port=port):
            steps = []
            if implicit:
                client = smtplib.SMTP_SSL("localhost", port, context=client_context(version), timeout=PATIENCE)
            else:
                client = smtplib.SMTP("localhost", port, timeout=PATIENCE)
                steps.append(outcome(client.starttls, context=client_context(version)))
            steps.append(outcome(client.login, "me", "secret"))
            sent = outcome(client.sendmail, "a@x", ["b@x"], "line\r\n" * 50_000)
            steps.append(sent[0] if fault == "drop" else sent)  # sending or reading may be the first to notice
            steps.append(outcome(client.quit))
            client.close()
            return steps

        results.append([implicit, fault, Go(talk).out(), serving.out()])
    return results


def mailbox(version, greeting, answer, talk):
    """A client's conversation with its mailbox, in TLS from the start and in TLS that it asks for.

    `answer(line, file)` answers a command and returns what is to be noted, the command's word first.
    `talk(implicit, port)` is the client.
    """
    results = []
    for implicit in True, False:
        tls = server_context(version)

        def script(file, sock, tls=tls):
            commands: list[Any] = []
            say(file, greeting)
            while line := file.readline():
                word, *more = answer(line, file)
                commands += [word, *more]
                if word in ("STARTTLS", "STLS"):
                    sock = tls.wrap_socket(sock, server_side=True)
                    file = sock.makefile("rwb")
                elif word in ("LOGOUT", "QUIT"):
                    break
            return commands

        port, serving = serve_lines(tls, script, implicit)
        results.append([implicit, Go(talk, implicit, port).out(), serving.out()])
    return results


@both
def imap(version):
    def answer(line, file):
        tag, word = line.decode().split()[:2]
        noted: list[Any] = [word]
        if word == "CAPABILITY":
            say(file, "* CAPABILITY IMAP4REV1 STARTTLS IDLE")
        elif word == "SELECT":
            say(file, "* 3 EXISTS")
        elif word == "FETCH":
            file.write(b"* 1 FETCH (RFC822 {500000}\r\n" + b"m" * 500_000 + b")\r\n")
        elif word == "APPEND":
            size = int(re.findall(rb"{(\d+)}", line)[0])
            say(file, "+ go on")
            noted.append(len(file.read(size)))
            file.readline()
        elif word == "LOGOUT":
            say(file, "* BYE")
        say(file, f"{tag} OK [READ-WRITE] done" if word == "SELECT" else f"{tag} OK done")
        return noted

    def talk(implicit, port):
        if implicit:
            client = imaplib.IMAP4_SSL("localhost", port, ssl_context=client_context(version), timeout=PATIENCE)
            steps = []
        else:
            client = imaplib.IMAP4("localhost", port, timeout=PATIENCE)
            steps = [outcome(client.starttls, client_context(version))]
        steps += [outcome(client.login, "me", "secret"), outcome(client.select)]
        steps += [outcome(lambda: len(client.fetch("1", "(RFC822)")[1][0][1]))]
        steps += [outcome(client.append, "box", None, None, b"x" * 300_000)]
        return [*steps, outcome(client.noop), outcome(client.logout)]

    return mailbox(version, "* OK here", answer, talk)


@both
def pop(version):
    def answer(line, file):
        word = line.decode().split()[0]
        say(file, "+OK")
        if word == "CAPA":
            say(file, "STLS", ".")
        elif word == "RETR":
            say(file, *["line of a message"] * 20_000, ".")
        return [word]

    def talk(implicit, port):
        if implicit:
            client = poplib.POP3_SSL("localhost", port, context=client_context(version), timeout=PATIENCE)
            steps = []
        else:
            client = poplib.POP3("localhost", port, timeout=PATIENCE)
            steps = [outcome(client.stls, client_context(version))]
        steps += [outcome(client.user, "me"), outcome(client.pass_, "secret")]
        return [*steps, outcome(lambda: len(client.retr(1)[1])), outcome(client.quit)]

    return mailbox(version, "+OK here", answer, talk)


@both
def ftp(version):
    """Data connections over TLS, which the client and the server end with unwrap; one that the server just closes."""
    tls = server_context(version)

    def script(file, sock):
        commands: list[Any] = []
        say(file, "220 here")
        passive = None
        abrupt = False

        def transfer(direction):
            data = tls.wrap_socket(passive.accept()[0], server_side=True)
            data.settimeout(PATIENCE)
            with data:
                if direction == "up":
                    commands.append(len(all_of(data)))
                elif direction == "lines":
                    data.sendall(b"a line\r\n" * 10_000)
                else:
                    data.sendall(b"d" * 700_000)
                if not abrupt:
                    commands.append(outcome(data.unwrap)[:2])

        while line := file.readline():
            word = line.decode().split()[0].upper()
            commands.append(word)
            if word == "AUTH":
                say(file, "234 go")
                sock = tls.wrap_socket(sock, server_side=True)
                file = sock.makefile("rwb")
            elif word in ("PASV", "EPSV"):
                passive = socket.create_server(("127.0.0.1", 0))
                port = passive.getsockname()[1]
                say(file, f"227 (127,0,0,1,{port >> 8},{port & 255})")
            elif word in ("RETR", "STOR", "LIST", "NLST"):
                say(file, "150 here it comes")
                transfer({"STOR": "up", "RETR": "down"}.get(word, "lines"))
                say(file, "226 done")
            elif word == "SITE":
                abrupt = True
                say(file, "200 abrupt from now on")
            elif word == "USER":
                say(file, "331 password?")
            elif word == "CCC":
                say(file, "200 go")
                file.flush()
                file.close()
                sock = sock.unwrap()
                file = sock.makefile("rwb")
            elif word == "QUIT":
                say(file, "221 bye")
                return commands
            else:
                say(file, "230 fine" if word == "PASS" else "200 fine")
        return commands

    port, serving = serve_lines(tls, script, implicit=False)

    def talk():
        client = ftplib.FTP_TLS(context=client_context(version), timeout=PATIENCE)
        got: list[Any] = []
        steps = [
            outcome(client.connect, "localhost", port),
            outcome(client.login, "me", "secret"),
            outcome(client.prot_p),
        ]
        steps += [outcome(client.retrbinary, "RETR x", got.append), sum(map(len, got))]
        steps += [outcome(client.storbinary, "STOR x", io.BytesIO(b"u" * 600_000))]
        steps += [outcome(client.storlines, "STOR x", io.BytesIO(b"line\n" * 1000))]
        steps += [outcome(client.retrlines, "LIST", got.append), len(client.nlst())]
        steps += [outcome(client.sendcmd, "SITE abrupt")]
        for call, *args in (
            (client.retrbinary, "RETR x", got.append),
            (client.storbinary, "STOR x", io.BytesIO(b"u" * 600_000)),
            (client.retrlines, "LIST", got.append),
        ):
            steps += [outcome(call, *args), outcome(client.voidresp)]  # no end of TLS, which the client expects
        steps += [outcome(client.ccc), outcome(client.voidcmd, "NOOP"), outcome(client.quit)]
        return steps

    return Go(talk).out(2 * PATIENCE), serving.out()


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            size = 0
            while part := int(self.rfile.readline(), 16):
                size += len(self.rfile.read(part))
                self.rfile.readline()
            self.rfile.readline()
            return size
        return len(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_POST(self):
        size = self.body()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in b"got ", str(size).encode(), b"z" * 100_000:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")

    do_PUT = do_POST

    def do_GET(self):
        if self.path == "/until-closed":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + b"c" * 300_000)
            return
        if self.path == "/short":
            self.close_connection = True
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
            return
        if self.path == "/silent":
            self.close_connection = True
            self.rfile.read(1)  # until the client has left
            return
        self.send_response(200)
        self.send_header("Content-Length", "400000")
        self.end_headers()
        self.wfile.write(b"g" * 400_000)

    def do_CONNECT(self):
        host, port = self.path.split(":")
        self.send_response(200)
        self.end_headers()
        with socket.create_connection((host, int(port))) as onward:
            while True:
                for one in select.select([self.connection, onward], [], [])[0]:
                    if not (data := one.recv(65536)):
                        self.close_connection = True
                        return
                    (onward if one is self.connection else self.connection).sendall(data)

    def log_message(self, *args):
        pass


class WebServer(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, address):
        pass


def web(version, handler=Web):
    server = WebServer(("127.0.0.1", 0), handler)
    if version:
        server.socket = server_context(version).wrap_socket(server.socket, server_side=True)
    Go(server.serve_forever, 0.01)
    return server, server.server_address[1]


def fetched(connection, *args, **named):
    def fetch():
        connection.request(*args, **named)
        answer = connection.getresponse()
        return answer.status, len(answer.read()), answer.will_close

    return outcome(fetch)


@both
def https(version):
    server, port = web(version)

    def talk():
        connection = http.client.HTTPSConnection("localhost", port, context=client_context(version), timeout=PATIENCE)
        steps = [
            fetched(connection, "GET", "/"),
            fetched(connection, "POST", "/", b"x" * 500_000),
            fetched(
                connection,
                "POST",
                "/",
                iter([b"x" * 70_000] * 5),
                encode_chunked=True,
                headers={"Transfer-Encoding": "chunked"},
            ),
            fetched(connection, "PUT", "/", io.BytesIO(b"y" * 200_000), headers={"Content-Length": "200000"}),
            fetched(connection, "PUT", "/", b"z" * 100, headers={"Expect": "100-continue"}),
            fetched(connection, "GET", "/until-closed"),
            fetched(connection, "GET", "/short"),
        ]
        connection.close()
        connection.connect()
        connection.sock.settimeout(LATE)
        steps.append(fetched(connection, "GET", "/silent"))
        connection.close()
        steps.append(fetched(http.client.HTTPSConnection("localhost", port, timeout=PATIENCE), "GET", "/"))
        proxy, proxy_port = web(None)
        connection = http.client.HTTPSConnection("localhost", proxy_port, context=client_context(version))
        connection.set_tunnel("localhost", port)
        steps += [fetched(connection, "GET", "/"), fetched(connection, "POST", "/", b"x" * 500_000)]
        connection.close()
        proxy.shutdown()
        return steps

    result = Go(talk).out(2 * PATIENCE)
    server.shutdown()
    return result


@both
def urls(version):
    server, port = web(version)

    def get(path, data=None, context=None):
        address = f"https://localhost:{port}{path}"
        with urllib.request.urlopen(address, data, PATIENCE, context=context or client_context(version)) as answer:
            return answer.status, len(answer.read())

    class Impatient(http.client.HTTPSConnection):
        def connect(self):
            super().connect()
            self.sock.settimeout(LATE)

    class ImpatientHandler(urllib.request.HTTPSHandler):
        def https_open(self, request):
            return self.do_open(Impatient, request, context=client_context(version))

    def get_impatiently(path):
        return urllib.request.build_opener(ImpatientHandler).open(f"https://localhost:{port}{path}", timeout=PATIENCE)

    calls = [
        Go(get, "/"),
        Go(get, "/", b"d" * 300_000),
        Go(get, "/until-closed"),
        Go(get, "/short"),
        Go(get_impatiently, "/silent"),
        Go(get, "/", context=ssl.create_default_context()),
    ]
    results = [call.out() for call in calls]
    server.shutdown()
    return results


@both
def remote_calls(version):
    class Requests(xmlrpc.server.SimpleXMLRPCRequestHandler):
        timeout = PATIENCE

    server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), Requests, logRequests=False)
    server.socket = server_context(version).wrap_socket(server.socket, server_side=True)
    server.register_function(lambda text: text * 3, "thrice")
    Go(server.serve_forever, 0.01)

    def talk():
        with xmlrpc.client.ServerProxy(
            f"https://localhost:{server.server_address[1]}", context=client_context(version)
        ) as proxy:
            return [len(proxy.thrice("x" * 100_000)), outcome(lambda: proxy.missing(1))]

    result = Go(talk).out()
    server.shutdown()
    return result


def main():
    for name in sys.argv[4:] or SCENARIOS:
        begin = time.monotonic()
        result = Go(SCENARIOS[name]).out(3 * PATIENCE)
        if os.environ.get("SHOW_TIMES"):
            print(name, round(time.monotonic() - begin, 2), file=sys.stderr)
        print(json.dumps([name, result]), flush=True)
    os._exit(0)


if __name__ == "__main__":
    if mode == "list":
        print(*SCENARIOS)
    else:
        main()
