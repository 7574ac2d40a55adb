"""Answers of the C library and of weald's three resolvers, in worlds of files, variables and interfaces.

`python dns_worlds.py WORLD FOLDER` runs as root of network and mount namespaces of its own: it makes the interfaces,
puts its files in place of the system's, starts `dns_hostile.py`, makes the calls with each resolver, many at the same
time, and prints as JSON a list of {"call": text, resolver: outcome, …}.

"WHO" in a name is replaced by the resolver's name, so that each resolver has its own name at a server that does
something once.
"""

import _socket
import concurrent.futures
import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

INET, INET6, UNSPEC = _socket.AF_INET, _socket.AF_INET6, _socket.AF_UNSPEC
STREAM = _socket.SOCK_STREAM
CANON, MAPPED, ALL, ADDRCONFIG = (
    _socket.AI_CANONNAME,
    _socket.AI_V4MAPPED,
    _socket.AI_ALL,
    _socket.AI_ADDRCONFIG,
)
HOSTS = "127.0.0.1 localhost\n::1 localhost\n"
AT_ONCE = 50  # calls: with a thousand queries at once a server might answer late
RESOLVERS = ("libc", "thread", "dnspython", "ares")

Call = tuple[Any, ...]  # the function's name, its arguments


def both(*names):
    """getaddrinfo for any family, and gethostbyname_ex."""
    return [call for name in names for call in (("getaddrinfo", name, 80, UNSPEC, STREAM), ("gethostbyname_ex", name))]


def each(function, *firsts, rest=()):
    return [(function, first, *rest) for first in firsts]


class World(NamedTuple):
    """`calls`, and after resolv.conf has become `later_conf`, `later_calls`."""

    conf: str
    calls: list[Call]
    hosts: str = HOSTS
    environ: dict[str, str] = {}  # noqa: RUF012
    addresses: tuple[str, ...] = ("192.0.2.5", "fd00::5")
    later_conf: str = ""
    later_calls: list[Call] = []  # noqa: RUF012


ODD = (
    "foreign foreign-only foreign-first foreign-alias shuffled two-aliases odd-alias chaos twice other-type "
    "upper servfail-six refused-six nowhere-six servfail-both referral authority truncated truncated-part"
).split()
ONCE = ["empty-first", "short-first", "wrong-id-first", "wrong-question-first", "echo-first", "stranger-first"]

ANSWERS = [
    *both("any-class.test"),
    *both(*(f"{name}.test" for name in ("four", "six", "both", "text", "nowhere", "alias", "alias-both", "alias-far"))),
    *both("dangling.test", "dangling-nowhere.test", "loop.test", "self.test", "chain0.test", "chain35.test"),
    *both(
        "under_score.test", "-hyphen.test", "mid.-hyphen.test", "xn--bcher-kva.test", "bücher.test", f"{'l' * 63}.test"
    ),
    *both("FOUR.test", "four.test.", "Alias.Test", "nothing-like.this.example"),
    *both(*(f"{name}.test" for name in ("servfail", "refused", "notimp", "formerr", "yxdomain", "notauth"))),
    *both(*(f"{name}.test" for name in ODD)),
    *both("servfail-once.WHO.test"),
    ("gethostbyname_ex", "big.test"),
    *each("gethostbyname_ex", "hangs-up.test", "cut-short.test", "truncated-whole.test"),
    *each("gethostbyname_ex", *(f"ends{i}.test" for i in range(20))),
    *each("gethostbyname", "four.test", "alias.test", "six.test", "nowhere.test", "text.test", "servfail.test"),
    *each("getaddrinfo", "four.test", "six.test", "both.test", "text.test", "nowhere.test", rest=(80, INET, STREAM)),
    *each("getaddrinfo", "four.test", "six.test", "both.test", "text.test", "nowhere.test", rest=(80, INET6, STREAM)),
    *each("getaddrinfo", "alias.test", "alias-both.test", "chain0.test", "four.test", rest=(80, 0, STREAM, 0, CANON)),
    *each("getaddrinfo", "four.test", "both.test", "six.test", "text.test", rest=(80, INET6, STREAM, 0, MAPPED)),
    *each("getaddrinfo", "four.test", "both.test", "six.test", "text.test", rest=(80, INET6, STREAM, 0, MAPPED | ALL)),
    *each("getaddrinfo", "four.test", "both.test", "six.test", rest=(80, UNSPEC, STREAM, 0, ADDRCONFIG)),
    ("getaddrinfo", "near.test", 80, UNSPEC, STREAM),
    ("getaddrinfo", "scopes.test", 80, UNSPEC, STREAM),
    ("getaddrinfo", "four.test", "https", UNSPEC, STREAM),
    ("getaddrinfo", "four.test", "domain", UNSPEC, _socket.SOCK_DGRAM),
    ("getaddrinfo", "four.test", "no-such-service", UNSPEC, STREAM),
    ("getaddrinfo", "four.test", None, UNSPEC, STREAM),
    ("getaddrinfo", "four.test", 80),
    ("getaddrinfo", "four.test", 80, 77),
    ("getaddrinfo", "four.test", 80, 0, 77),
    ("getaddrinfo", "four.test", 80, 0, 0, 77),
    ("getaddrinfo", "four.test", 80, 0, 0, 0, _socket.AI_NUMERICHOST),
    ("getaddrinfo", "four.test", "http", 0, STREAM, 0, _socket.AI_NUMERICSERV),
    ("getaddrinfo", None, 80, 0, STREAM, 0, _socket.AI_PASSIVE),
    ("getaddrinfo", None, 80, 0, STREAM),
    *each(
        "getaddrinfo",
        "",
        "localhost",
        "127.1",
        "0x7f.1",
        "1.2.3",
        "::1",
        "fe80::1%lo",
        "::ffff:10.0.0.1",
        rest=(80, 0, STREAM),
    ),
    *each(
        "getaddrinfo", "256.1.1.1", "1.2.3.4.5", "::g", "[::1]", "a..b", ".", "a" * 64 + ".test", rest=(80, 0, STREAM)
    ),
    *each(
        "getaddrinfo", "with space.test", "star*.test", "slash/.test", "semi;.test", "at@.test", rest=(80, 0, STREAM)
    ),
    *each("getaddrinfo", b"four.test", b"\xff.test", b"four.test.", ".".join(["x" * 60] * 5), rest=(80, 0, STREAM)),
    *each("gethostbyname", "", "127.1", "<broadcast>", "1.2.3.4.5", "a..b"),
    *each("gethostbyaddr", "10.0.0.4", "10.0.0.1", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8", "10.0.0.9"),
    *each("gethostbyaddr", "10.0.0.10", "10.0.0.12", "10.77.0.1", "fd00::6", "fd00::77", "127.0.0.1", "::1"),
    *each(
        "gethostbyaddr", "::ffff:10.0.0.4", "::10.0.0.4", "::ffff:10.77.0.1", "four.test", "nowhere.test", "alias.test"
    ),
    *each("getnameinfo", ("10.0.0.4", 80), ("10.0.0.1", 80), ("10.0.0.5", 80), ("10.77.0.1", 80), rest=(0,)),
    *each("getnameinfo", ("fd00::6", 80), ("::ffff:10.0.0.4", 80), ("127.0.0.1", 80), ("four.test", 80), rest=(0,)),
    *each("getnameinfo", ("10.77.0.1", 80), ("10.0.0.9", 80), ("10.0.0.4", 53), rest=(_socket.NI_NAMEREQD,)),
    ("getnameinfo", ("10.0.0.4", 53), _socket.NI_DGRAM | _socket.NI_NUMERICHOST),
    ("getnameinfo", ("10.0.0.4", 53), _socket.NI_NUMERICSERV),
    *both(*(f"{name}.WHO.test" for name in ONCE)),
    *both("wrong-size.test"),
    *both(*(f"{name}.test" for name in ("trailing", "edns-silent", "edns-servfail", "edns-notimp"))),
    *both("1.2.3.4.5", "99999999999"),
    *each("getaddrinfo", "1.2.3.4.5", "1.2.3.4.", "256.1", rest=(80, INET, STREAM)),
    *each("getaddrinfo", "1.2.3.4.5", rest=(80, INET, STREAM, 0, CANON)),
    *each("gethostbyaddr", "", "<broadcast>", b"<broadcast>"),
]

SEARCHED = [
    *both(
        "word", "second", "empty", "only-empty", "servfail", "refused", "single", "single.", "nowhere", "a.b", "a.b.c"
    ),
    *both("word.one.test", "four.test", "nowhere.test", "a.b.two.test."),
]

WHO = [*both("who.test", "who.test.", "alias.test", "nowhere.test"), ("gethostbyaddr", "10.0.0.4")]

HOSTS_CALLS = [
    *both(
        "nick",
        "NICK",
        "canonical.example",
        "third",
        "six-loop",
        "six-only",
        "mapped",
        "indented",
        "behind",
        "nowhere.test",
    ),
    *each("getaddrinfo", "nick", "six-loop", "six-only", "mapped", rest=(80, INET, STREAM)),
    *each("getaddrinfo", "nick", "six-loop", "six-only", "mapped", rest=(80, INET6, STREAM)),
    *each("getaddrinfo", "nick", "third", rest=(80, 0, STREAM, 0, CANON)),
    *each("gethostbyaddr", "10.9.0.1", "10.9.0.7", "127.0.0.1", "::1", "fd00::99", "fd00:0::99", "nick", "six-loop"),
    *each("gethostbyaddr", "::ffff:10.9.0.7", "::ffff:10.9.0.1", "10.9.0.3"),
    *each("getnameinfo", ("10.9.0.1", 80), ("fd00::99", 80), rest=(0,)),
    *both("four.test", "commented", "name", "blocked149999.example"),
]
HOSTS_TEXT = """
10.9.0.1  Canonical.example  nick  # a remark
10.9.0.2\tnick
10.9.0.3 third nick other#behind
10.9.0.1 nick
fd00:0:0::99  six-only
::1 six-loop
::ffff:10.9.0.7 mapped
  10.9.0.8 indented
nonsense name
10.9.0.10
#10.9.0.11 commented
""" + "".join(f"0.0.0.0 blocked{i}.example\n" for i in range(150_000))

# As long as the C library's: no answer is late on a slow machine, and no call waits for an answer that never comes.
MAIN = "nameserver 127.77.0.1\noptions timeout:30 attempts:2\n"

WORLDS = {
    "answers": World(MAIN, ANSWERS),
    "answers that do not come": World(
        "nameserver 127.77.0.1\noptions timeout:3 attempts:2\n",
        both("lost.WHO.test", "silent-six.test", "headless.test"),
    ),
    "search": World(f"{MAIN}search one.test two.test\n", SEARCHED),
    "ndots": World(f"{MAIN}search one.test two.test\noptions ndots:3 no-tld-query\n", SEARCHED),
    "root": World(f"{MAIN}search . two.test\n", SEARCHED),
    "domain": World(f"# remark\n domain bad.test\n{MAIN}search one.test\ndomain two.test one.test\n", SEARCHED),
    "odd words": World("nameserver 127.77.0.1\0 x\nsearch one.test # two.test\noptions ndots:x attempts:2\n", SEARCHED),
    "a negative number": World(f"{MAIN}search one.test two.test\noptions ndots:-1\n", SEARCHED),
    "no-aaaa": World(
        f"{MAIN}search one.test\noptions no-aaaa\n",
        [
            *both("both.test", "six.test", "four.test", "nowhere.test", "empty", "nowhere"),
            *each("getaddrinfo", "both.test", "six.test", "nowhere.test", "localhost", rest=(80, INET6, STREAM)),
            *each("getaddrinfo", "both.test", "nowhere.test", rest=(80, INET6, STREAM, 0, MAPPED | ALL)),
        ],
    ),
    "servers with a scope": World(
        "nameserver fe80::53%no-such\nnameserver fe80::53%1\nnameserver 127.77.0.2\noptions timeout:2\n",
        WHO,
        addresses=("192.0.2.5", "fd00::5", "fe80::53"),
    ),
    "environment": World(
        f"{MAIN}search one.test\n",
        SEARCHED,
        environ={"LOCALDOMAIN": "two.test", "RES_OPTIONS": "ndots:2 attempts:1"},
    ),
    "a silent search": World(
        "nameserver 127.77.0.1\nsearch one.test two.test three.test\noptions timeout:1 attempts:1\n",
        both("silent", "silent.test"),
    ),
    "a silent server": World("nameserver 127.77.0.3\nnameserver 127.77.0.1\noptions timeout:3\n", WHO),
    "a closed port": World("nameserver 127.77.0.4\nnameserver 127.77.0.1\noptions timeout:30\n", WHO),
    "servers that refuse": World("nameserver 127.77.0.5\nnameserver 127.77.0.6\nnameserver 127.77.0.2\n", WHO),
    "servers that fail": World("nameserver 127.77.0.6\nnameserver 127.77.0.5\n", WHO),
    "four servers": World("".join(f"nameserver 127.77.0.{n}\n" for n in (5, 6, 5, 1)), WHO),
    "timeout:5": World("nameserver 127.77.0.3\nnameserver 127.77.0.2\noptions timeout:5 attempts:1\n", WHO),
    "a slow server": World(
        "nameserver 127.77.0.7\n",
        [("getaddrinfo", f"fast{i}.test", 80, INET, STREAM) for i in range(10)],
        later_conf="nameserver 127.77.0.7\n",
        later_calls=both("slow.WHO.test"),
    ),
    "nowhere to ask": World("nameserver 127.77.0.4\n", WHO),
    "no server named": World("# nothing\n", WHO),
    "TCP only": World("nameserver 127.77.0.8\n", [*WHO, *both("four.test")]),
    "use-vc": World("nameserver 127.77.0.8\noptions use-vc\n", both("four.test", "both.test", "nowhere.test")),
    "edns0": World(f"{MAIN}options edns0\n", both("four.test", "both.test", "alias.test", "text.test", "nowhere.test")),
    "other servers": World("nameserver 127.77.0.1\n", WHO, later_conf="nameserver 127.77.0.2\n", later_calls=WHO),
    "no addresses": World(
        MAIN,
        each(
            "getaddrinfo",
            "both.test",
            "four.test",
            "localhost",
            "127.0.0.1",
            "::1",
            rest=(80, 0, STREAM, 0, ADDRCONFIG),
        ),
        addresses=(),
    ),
    "IPv4 only": World(
        MAIN,
        [
            *each("getaddrinfo", "both.test", "six.test", "silent-six.test", rest=(80, 0, STREAM, 0, ADDRCONFIG)),
            *each("getaddrinfo", "both.test", "::1", rest=(80, INET6, STREAM, 0, ADDRCONFIG)),
            *each("getaddrinfo", "near.test", "both.test", "localhost", rest=(80, 0, STREAM)),
        ],
        addresses=("192.0.2.5",),
    ),
    "hosts": World(MAIN, HOSTS_CALLS, hosts=HOSTS_TEXT),
}


def outcome(function, call, who):
    args = [arg.replace("WHO", who) if isinstance(arg, str) else arg for arg in call[1:]]
    try:
        told = repr(function(*args))
    except OSError as error:
        told = f"{type(error).__name__} {error.errno}"
    except Exception as error:
        told = type(error).__name__
    return told.replace(f".{who}.", ".WHO.").lower()


def by_libc(calls):
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: outcome(getattr(_socket, call[0]), call, "libc"), calls))


def by_resolvers(resolvers, calls):
    import weald

    jobs = {
        who: [weald.spawn(outcome, getattr(resolver, call[0]), call, who) for call in calls]
        for who, resolver in resolvers.items()
    }
    return {who: [job.get() for job in made] for who, made in jobs.items()}


def run(world, folder):
    import weald.threadpool
    from weald.resolver import ares, dnspython, thread

    weald.config.threadpool_size = 100
    resolvers = {"thread": thread.Resolver(), "dnspython": dnspython.Resolver(), "ares": ares.Resolver()}
    libc = weald.threadpool.ThreadPool(1)
    lines = []
    for calls, conf in ((world.calls, ""), (world.later_calls, world.later_conf)):
        if conf:
            time.sleep(0.02)  # so that the file's time is another
            (folder / "resolv.conf").write_text(conf)
        for first in range(0, len(calls), AT_ONCE):
            part = calls[first : first + AT_ONCE]
            job = libc.spawn(by_libc, part)
            found = by_resolvers(resolvers, part)
            found["libc"] = job.get()
            for place, call in enumerate(part):
                text = f"{call[0]}({', '.join(map(repr, call[1:]))})"
                lines.append({"call": text, **{who: found[who][place] for who in RESOLVERS}})
    return lines


def make_world(world, folder):
    """Set up interfaces and files; raises OSError if the system forbids it."""
    with socket.socket(INET, _socket.SOCK_DGRAM) as control:
        up = struct.pack("16sH14x", b"lo", 0x49)  # IFF_UP | IFF_LOOPBACK | IFF_RUNNING
        fcntl.ioctl(control, 0x8914, up)  # SIOCSIFFLAGS
        for address in world.addresses:
            if ":" in address:
                with socket.socket(INET6, _socket.SOCK_DGRAM) as control6:
                    request = _socket.inet_pton(INET6, address) + struct.pack("Ii", 64, _socket.if_nametoindex("lo"))
                    fcntl.ioctl(control6, 0x8916, request)  # SIOCSIFADDR
            else:
                for number, value in ((0x8916, address), (0x891C, "255.255.255.0")):  # SIOCSIFADDR, SIOCSIFNETMASK
                    told = struct.pack("16sHH4s8x", b"lo:1", INET, 0, _socket.inet_aton(value))
                    fcntl.ioctl(control, number, told)
    files = {"resolv.conf": world.conf, "hosts": world.hosts, "nsswitch.conf": "hosts: files dns\nservices: files\n"}
    libc = ctypes.CDLL(None, use_errno=True)
    for name, text in files.items():
        (folder / name).write_text(text)
        if libc.mount(bytes(folder / name), f"/etc/{name}".encode(), None, 4096, None):  # MS_BIND
            number = ctypes.get_errno()
            raise OSError(number, f"cannot put a file in the place of /etc/{name}: {os.strerror(number)}")


def main():
    world, folder = WORLDS[sys.argv[1]], Path(sys.argv[2])
    for name in list(os.environ):
        if name in ("LOCALDOMAIN", "RES_OPTIONS", "HOSTALIASES") or name.startswith(("WEALD_", "GEVENT")):
            del os.environ[name]
    os.environ.update(world.environ)
    make_world(world, folder)
    command = [sys.executable, str(Path(__file__).with_name("dns_hostile.py"))]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin
    assert server.stdout
    try:
        assert server.stdout.readline() == "ready\n"
        print(json.dumps(run(world, folder)))
    finally:
        server.stdin.close()
        server.wait()


if __name__ == "__main__":
    main()
