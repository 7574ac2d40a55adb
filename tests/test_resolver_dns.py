"""The resolvers that speak DNS: the stdlib's results and errors, whatever the server does."""

import gc
import os
import socket as stdlib
from typing import Any

import dns.exception
import dns.message
import dns.resolver
import pytest
from dns_server import Server
from helpers import PATIENCE, most_at_once, no_descriptors, python, service, settle, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

import weald
from weald import config, socket
from weald._core import SimpleQueue, joinall, spawn
from weald.resolver import _dns, _files, _order, ares, dnspython
from weald.resolver._dns import parse_nameservers
from weald.resolver._queries import Queries, Query

RESOLVERS = {"dnspython": dnspython.Resolver, "ares": ares.Resolver}


@pytest.fixture
def server():
    with Server() as running:
        yield running


class Files:
    """The system's files as these tests have them."""

    def __init__(self, folder):
        self.hosts, self.resolv_conf = folder / "hosts", folder / "resolv.conf"
        self.hosts.write_text("")
        self.resolv_conf.write_text("nameserver 127.0.0.1\nsearch search.test\n")


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


@pytest.fixture(params=list(RESOLVERS))
def lookups(request, server, files, monkeypatch):
    """A resolver that asks `server`, set as this hub's during the test.  `impatient`: answers will be lost."""
    monkeypatch.setattr(config, "resolver_nameservers", [server.address])
    impatient = request.node.get_closest_marker("impatient")
    monkeypatch.setattr(config, "resolver_timeout", 3.0 if impatient else PATIENCE)
    hub = weald.get_hub()
    made = RESOLVERS[request.param](hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    before, hub.resolver = hub.resolver, made
    yield made
    hub.resolver = before
    made.close()


def addresses(found):
    return [entry[4][0] for entry in found]


def fails(number, *args):
    with pytest.raises(stdlib.gaierror) as caught:
        socket.getaddrinfo(*args)
    assert caught.value.errno == number
    assert caught.value.strerror


# ---------------------------------------------------------------- getaddrinfo


def test_getaddrinfo(lookups):
    assert socket.getaddrinfo("four.test", 80, stdlib.AF_INET) == [
        (stdlib.AF_INET, stdlib.SOCK_STREAM, 6, "", ("10.0.0.4", 80)),
        (stdlib.AF_INET, stdlib.SOCK_DGRAM, 17, "", ("10.0.0.4", 80)),
        (stdlib.AF_INET, stdlib.SOCK_RAW, 0, "", ("10.0.0.4", 80)),
    ]
    assert socket.getaddrinfo("six.test", 80, 0, stdlib.SOCK_STREAM) == [
        (stdlib.AF_INET6, stdlib.SOCK_STREAM, 6, "", ("fd00::6", 80, 0, 0)),
    ]
    both = addresses(socket.getaddrinfo("plain.test", None, 0, stdlib.SOCK_STREAM))
    assert sorted(both) == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert addresses(socket.getaddrinfo("plain.test.", service(80), stdlib.AF_INET6, stdlib.SOCK_STREAM)) == ["fd00::1"]
    assert addresses(socket.getaddrinfo(b"PLAIN.test", b"80", stdlib.AF_INET6, stdlib.SOCK_STREAM)) == ["fd00::1"]


def test_services_and_flags(lookups):
    found = socket.getaddrinfo("alias.test", service(443), stdlib.AF_INET, stdlib.SOCK_STREAM, 0, stdlib.AI_CANONNAME)
    assert [entry[3] for entry in found] == ["plain.test", ""]
    assert sorted(entry[4] for entry in found) == [("10.0.0.1", 443), ("10.0.0.2", 443)]
    mapped = stdlib.AI_V4MAPPED
    found = socket.getaddrinfo("four.test", 1, stdlib.AF_INET6, stdlib.SOCK_STREAM, 0, mapped)
    assert addresses(found) == ["::ffff:10.0.0.4"]
    found = socket.getaddrinfo("plain.test", 1, stdlib.AF_INET6, stdlib.SOCK_STREAM, 0, mapped)
    assert addresses(found) == ["fd00::1"]
    found = socket.getaddrinfo("plain.test", 1, stdlib.AF_INET6, stdlib.SOCK_STREAM, 0, mapped | stdlib.AI_ALL)
    assert sorted(addresses(found)) == ["::ffff:10.0.0.1", "::ffff:10.0.0.2", "fd00::1"]
    fails(stdlib.EAI_NONAME, "four.test", 80, 0, 0, 0, stdlib.AI_NUMERICHOST)
    fails(stdlib.EAI_SERVICE, "four.test", "no-such-service")
    fails(stdlib.EAI_FAMILY, "four.test", 80, 12345)
    fails(stdlib.EAI_SOCKTYPE, "four.test", 80, 0, 77)


def test_numeric_names_need_no_server(lookups, server):
    for host in ("127.0.0.1", "127.1", "0x7f000001", "::1", None, b"10.0.0.1"):
        assert socket.getaddrinfo(host, 80) == stdlib.getaddrinfo(host, 80)
    assert socket.gethostbyname("127.1") == "127.0.0.1"
    assert socket.gethostbyname("") == "0.0.0.0"
    assert socket.gethostbyname("<broadcast>") == "255.255.255.255"
    assert socket.gethostbyname_ex("127.0.0.1") == ("127.0.0.1", [], ["127.0.0.1"])
    assert not server.asked


def test_idna_and_odd_names(lookups):
    assert socket.gethostbyname("bücher.test") == "10.0.0.5"
    assert socket.gethostbyname("xn--bcher-kva.test") == "10.0.0.5"
    assert socket.gethostbyname("under_score.test") == "10.0.0.6"


@pytest.mark.parametrize(
    "name",
    [
        "a" * 63 + ".b" * 96,
        b"a" * 64,
        b"a." * 127 + b"aa",
        "with space.test",
        "back\\slash.test",
        b"\xff.test",
        b"a..b",
    ],
)
def test_what_is_no_name_is_refused_and_not_asked_for(lookups, server, name):
    fails(stdlib.EAI_NONAME, name, 80)
    assert not server.asked


def test_a_label_too_long_is_an_error_of_idna(lookups):
    for name in ("a" * 64, "a" * 64 + ".test"):
        with pytest.raises(UnicodeError):
            socket.getaddrinfo(name, 80)
        with pytest.raises(UnicodeError):
            stdlib.getaddrinfo(name, 80)


def test_names_of_the_greatest_length_are_asked_for(lookups, server):
    name = ".".join(["a" * 63] * 3 + ["b" * 61])
    assert len(name) == 253
    fails(stdlib.EAI_NONAME, f"{name}.", 80, stdlib.AF_INET)
    assert server.asked[f"{name}.", "A"] == 1


@pytest.mark.parametrize("host", ["four.test\0.example", b"four.test\0"])
def test_a_name_with_a_nul_is_refused(lookups, server, host):
    fails(stdlib.EAI_NONAME, host, 80)
    for function in (socket.gethostbyname, socket.gethostbyname_ex, socket.gethostbyaddr):
        with pytest.raises(stdlib.gaierror):
            function(host)
    assert not server.asked


def test_names_in_a_bytearray(lookups):
    for host in (b"four.test", b"127.0.0.1"):
        for call in (lookups.gethostbyname, lookups.gethostbyname_ex):
            assert call(bytearray(host)) == call(host)
    assert lookups.gethostbyaddr(bytearray(b"10.0.0.4")) == lookups.gethostbyaddr(b"10.0.0.4")


@pytest.mark.parametrize("host", [None, 5, memoryview(b"127.0.0.1")])
@pytest.mark.parametrize("name", ["gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
def test_a_host_of_another_type(lookups, name, host):
    with pytest.raises(TypeError):
        getattr(lookups, name)(host)


def test_wrong_types(lookups):
    for args in [(1, 80), (("x",), 80), ("four.test", 1.5), ("four.test", 80, "x")]:
        with pytest.raises((TypeError, OSError)) as caught:
            socket.getaddrinfo(*args)
        with pytest.raises(type(caught.value)):
            stdlib.getaddrinfo(*args)
    for function in (socket.gethostbyname, socket.gethostbyname_ex):
        with pytest.raises(TypeError):
            function(1)
    with pytest.raises(TypeError):
        socket.getnameinfo("x", 0)


# ---------------------------------------------------------------- errors of servers


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("missing.test", stdlib.EAI_NONAME),
        ("empty.test", stdlib.EAI_NODATA),
        ("servfail.test", stdlib.EAI_AGAIN),
        ("refused.test", stdlib.EAI_AGAIN),
    ],
)
def test_what_the_server_refuses(lookups, name, number):
    fails(number, f"{name}.", 80)
    fails(number, f"{name}.", 80, stdlib.AF_INET6)
    with pytest.raises(stdlib.gaierror) as caught:
        socket.gethostbyname_ex(f"{name}.")
    assert caught.value.errno == number


def test_each_failure_is_an_exception_of_its_own(lookups):
    """An exception that is raised again keeps the frames of all callers that have raised it."""
    found = []
    for name in ("missing.test", "servfail.test") * 2:
        with pytest.raises(_dns.DnsFailure) as caught:
            lookups.query(name, "A")
        found.append(caught.value)
    assert len(set(map(id, found))) == 4


def test_one_family_is_enough(lookups):
    assert addresses(socket.getaddrinfo("four.test", 80, 0, stdlib.SOCK_STREAM)) == ["10.0.0.4"]
    fails(stdlib.EAI_NODATA, "four.test", 80, stdlib.AF_INET6)


@pytest.mark.impatient
def test_silence_ends_in_a_timeout(lookups, server):
    fails(stdlib.EAI_AGAIN, "silent.test.", 80, stdlib.AF_INET)
    # c-ares does not wait long for a server that has been fast: it may query it once more than the C library does.
    most = 3 if isinstance(lookups, ares.Resolver) else 2
    assert 2 <= server.asked["silent.test.", "A"] <= most, "it was not asked again, or for longer than it should"


@pytest.mark.impatient
def test_a_lost_answer_is_asked_for_again(lookups, server):
    assert socket.gethostbyname("lost.test") == "10.0.0.11"
    assert server.asked["lost.test.", "A"] == 2


@pytest.mark.parametrize("lookups", ["dnspython"], indirect=True)  # c-ares has closed that socket
@pytest.mark.impatient
def test_a_late_answer_to_an_earlier_try_counts(lookups, server):
    late = spawn(socket.gethostbyname, "late.test")
    wait_until(lambda: server.asked["late.test.", "A"] == 2 or late.ready())
    server.gate.set()
    assert late.get() == "10.0.0.14"


@pytest.mark.parametrize("lookups", ["ares"], indirect=True)
def test_a_server_that_is_known_as_fast_may_be_slow(lookups, server, monkeypatch):
    """c-ares gives it little time after its third answer; otherwise the usual time."""
    for i in range(5):
        assert socket.gethostbyname(f"host{i}.test") == "10.2.0.1"
    slow = [spawn(socket.gethostbyname_ex, "slow.test"), spawn(socket.getaddrinfo, "silent.test", 80, stdlib.AF_INET)]
    wait_until(lambda: server.asked["slow.test.", "A"] == 2 and server.asked["silent.test.", "A"] == 2)
    purposes = [channel.key[-1] for channel in lookups._channels]
    assert purposes == [ares.FAST, ares.PATIENT]
    server.gate.set()
    assert slow[0].get() == ("slow.test", [], ["10.0.0.10"])
    slow[1].kill()
    settle()
    assert [channel.key[-1] for channel in lookups._channels] == [ares.FAST]


def test_all_questions_hear_that_a_port_is_closed():
    """The system reports it only once: here to the second caller."""
    with stdlib.socket(type=stdlib.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    port = dnspython._Port([], address)
    heard = [SimpleQueue[Any](), SimpleQueue[Any]()]
    for number, queue in enumerate(heard):
        port.ask(bytes([number] * 12), queue)
    for queue in heard:
        assert isinstance(queue.get(timeout=PATIENCE)[1], _dns.Rejection)
    for number in range(2):
        port.forget(bytes([number] * 2))


def test_questions_that_nobody_waits_for_are_given_up(lookups, server):
    callers = [spawn(socket.gethostbyname, "silent.test") for _ in range(3)]
    callers.append(spawn(socket.getaddrinfo, "silent.test", 80))
    wait_until(lambda: server.asked["silent.test.", "A"] and server.asked["silent.test.", "AAAA"])
    weald.killall(callers[:3])
    assert "lookups=2" in repr(lookups), "somebody waits yet"
    weald.killall(callers[3:])
    settle()
    assert "lookups=0" in repr(lookups)
    if isinstance(lookups, ares.Resolver):
        assert not any(channel._open for channel in lookups._channels)
    else:
        assert not lookups._ports


def test_a_resolver_is_closed_during_a_look_up(lookups, server):
    """With dnspython the look-up goes on; c-ares ends it, and what is asked for later."""
    caller = spawn(socket.gethostbyname_ex, "slow.test")
    wait_until(lambda: server.asked["slow.test.", "A"])
    lookups.close()
    server.gate.set()
    if isinstance(lookups, ares.Resolver):
        with pytest.raises(stdlib.gaierror) as caught:
            caller.get()
        assert caught.value.errno == stdlib.EAI_AGAIN
        fails(stdlib.EAI_AGAIN, "four.test", 80)
    else:
        assert caller.get() == ("slow.test", [], ["10.0.0.10"])


def test_no_other_domain_is_searched_when_nobody_answers(lookups, server, files, monkeypatch):
    files.resolv_conf.write_text("search search.test other.test third.test\n")
    monkeypatch.setattr(lookups, "_lifetime", 0.1)
    fails(stdlib.EAI_AGAIN, "silent", 80, stdlib.AF_INET)
    assert set(server.asked) == {("silent.search.test.", "A"), ("silent.", "A")}


def test_no_address_is_asked_for_of_a_family_that_this_host_has_not(lookups, server, monkeypatch):
    monkeypatch.setattr(_dns, "_family_of_this_host", lambda family: stdlib.AF_INET)
    found = socket.getaddrinfo("plain.test", 80, 0, stdlib.SOCK_STREAM, 0, stdlib.AI_ADDRCONFIG)
    assert sorted(addresses(found)) == ["10.0.0.1", "10.0.0.2"]
    assert set(server.asked) == {("plain.test.", "A")}


@pytest.mark.parametrize("name", RESOLVERS)
def test_servers_are_those_that_resolv_conf_has_now(name, files, monkeypatch):
    resolver = RESOLVERS[name](hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    assert resolver.servers() == [("127.0.0.1", 53)]
    files.resolv_conf.write_text("nameserver 127.77.0.1\nnameserver ::1\nnameserver fe80::1%lo\nnameserver 1.1.1.1\n")
    assert resolver.servers() == [("127.77.0.1", 53), ("::1", 53), ("fe80::1%lo", 53)]
    files.resolv_conf.write_text("options no-reload\n")
    assert resolver.servers() == [("127.0.0.1", 53)]
    files.resolv_conf.write_text("nameserver 127.77.0.1\n")
    assert resolver.servers() == [("127.0.0.1", 53)]
    resolver.close()


@pytest.mark.parametrize("name", RESOLVERS)
def test_patience(name, files, monkeypatch):
    """The servers that are asked, and for how long, as in res_send of the C library."""
    files.resolv_conf.write_text(
        "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\noptions timeout:6 attempts:2\n"
    )
    resolver = RESOLVERS[name](hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    tries = [(server[0], patience) for server, patience in resolver._tries()]
    assert tries == [("10.0.0.1", 6), ("10.0.0.2", 4), ("10.0.0.3", 8)] * 2
    resolver.close()
    monkeypatch.setenv("RES_OPTIONS", "timeout:99 attempts:1")
    resolver = RESOLVERS[name](hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    assert [patience for _, patience in resolver._tries()] == [30, 20, 40]
    resolver.close()


def test_patience_of_c_ares_own_settings(files, monkeypatch):
    for setting, value in (
        ("ares_timeout", "7"),
        ("ares_tries", "3"),
        ("ares_ndots", "2"),
        ("ares_servers", ["10.0.0.9"]),
    ):
        monkeypatch.setattr(config, setting, value)
    resolver = ares.Resolver(hosts=str(files.hosts), resolv_conf=str(files.resolv_conf), domains=["a.test", "b.test"])
    assert list(resolver._tries()) == [(("10.0.0.9", 53), 7)] * 3
    assert (resolver._conf.ndots, resolver._conf.search) == (2, ["a.test", "b.test"])
    resolver.close()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"timeout": "soon"}, ValueError, "timeout cannot be 'soon': could not convert"),
        ({"timeout": -1}, ValueError, "timeout cannot be -1: must be a positive number"),
        ({"ndots": "two"}, ValueError, "ndots cannot be 'two': invalid literal"),
        ({"udp_port": []}, ValueError, r"udp_port cannot be \[\]: int"),
        ({"server": "10.0.0.9"}, TypeError, "unexpected keyword argument 'server'"),
        ({"servers": "ns.test"}, ValueError, "a name server must be ADDRESS, .*, not 'ns.test'"),
    ],
)
def test_wrong_options_of_c_ares_are_named(options, error, text, files, recwarn):
    with pytest.raises(error, match=text):
        ares.Resolver(resolv_conf=str(files.resolv_conf), **options)
    gc.collect()
    assert not recwarn.list  # of a channel that was begun only


def test_servers_and_tries_of_c_ares_as_others_write_them(files):
    """A text with commas, as in the environment; None for what is not given."""
    options = {"servers": "10.0.0.8, [::1]:5353", "tries": 0, "timeout": None, "ndots": "3"}
    resolver = ares.Resolver(resolv_conf=str(files.resolv_conf), **options)
    assert [server for server, _ in resolver._tries()] == [("10.0.0.8", 53), ("::1", 5353)]
    assert resolver._conf.ndots == 3
    resolver.close()


@pytest.mark.impatient
def test_no_server_at_all(lookups, server):
    server.__exit__()
    fails(stdlib.EAI_AGAIN, "four.test.", 80, stdlib.AF_INET)


@pytest.mark.parametrize("name", RESOLVERS)
def test_another_server_is_asked(name, server, files, monkeypatch):
    """The first is silent, the second does not exist."""
    monkeypatch.setattr(config, "resolver_timeout", 3.0)
    with stdlib.socket(type=stdlib.SOCK_DGRAM) as silent, stdlib.socket(type=stdlib.SOCK_DGRAM) as gone:
        for sock in (silent, gone):
            sock.bind(("127.0.0.1", 0))
        ports = [sock.getsockname()[1] for sock in (silent, gone)]
        gone.close()
        addresses = [*(f"127.0.0.1:{port}" for port in ports), server.address]
        monkeypatch.setattr(config, "resolver_nameservers", addresses)
        resolver = RESOLVERS[name](hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
        assert resolver.gethostbyname("four.test") == "10.0.0.4"
        assert server.asked == {("four.test.", "A"): 1}
        resolver.close()


def test_truncated_answers_come_by_tcp(lookups, server):
    _, _, found = socket.gethostbyname_ex("big.test")
    assert len(set(found)) == 500
    assert server.asked["tcp"] == 1


def test_lies_are_not_believed(lookups):
    """Answers with another id, to another question, from another port."""
    assert socket.gethostbyname("liar.test") == "10.0.0.9"


@pytest.mark.impatient
def test_garbage_is_not_the_end(lookups):
    assert socket.gethostbyname("garbage.test") == "10.0.0.13"


# ---------------------------------------------------------------- the system's files


def test_search_list(lookups, server):
    assert socket.gethostbyname("short") == "10.0.0.7"
    assert server.asked == {("short.search.test.", "A"): 1}
    server.asked.clear()
    assert socket.gethostbyname_ex("a.b") == ("a.b.search.test", [], ["10.0.0.8"])
    assert list(server.asked) == [("a.b.", "A"), ("a.b.search.test.", "A")]
    server.asked.clear()
    fails(stdlib.EAI_NONAME, "short.", 80, stdlib.AF_INET)
    assert list(server.asked) == [("short.", "A")]


def test_ndots(lookups, server, files):
    files.resolv_conf.write_text("# nothing\nsearch other.test search.test.\noptions rotate ndots:2\n")
    assert socket.gethostbyname("a.b") == "10.0.0.8"
    assert list(server.asked) == [("a.b.other.test.", "A"), ("a.b.search.test.", "A")]


@pytest.mark.parametrize("name", RESOLVERS)
def test_nonsense_in_resolv_conf_is_passed_over(name, server, files, monkeypatch):
    monkeypatch.setattr(config, "resolver_nameservers", [server.address])
    files.resolv_conf.write_bytes(
        b"nameserver\nnameserver name\nnameserver 10.0.0.1 more\noptions\noptions ndots:x timeout:x what:1\n"
        b"search " + b"a" * 64 + b".test " + b"\xff.test a..b " + b"\xc3\xbc" * 60 + b".test . search.test\nsearch\n"
    )
    resolver = RESOLVERS[name](hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    assert resolver.gethostbyname("short") == "10.0.0.7"
    assert server.asked == {("short.", "A"): 1, ("short.search.test.", "A"): 1}, "the root is a domain, too"
    resolver.close()


def test_hosts_file(lookups, server, files):
    files.hosts.write_text(
        """
        10.9.0.1  Canonical.example  nick  # a remark
        10.9.0.2  nick
        fd00::99  six-only
        nonsense  name
        10.9.0.3
        """
    )
    assert socket.gethostbyname_ex("NICK") == ("Canonical.example", ["nick"], ["10.9.0.1", "10.9.0.2"])
    assert addresses(socket.getaddrinfo("six-only.", 80, 0, stdlib.SOCK_STREAM)) == ["fd00::99"]
    found = socket.getaddrinfo("nick", 80, 0, stdlib.SOCK_STREAM, 0, stdlib.AI_CANONNAME)
    assert found[0][3:] == ("Canonical.example", ("10.9.0.1", 80))
    assert socket.gethostbyaddr("10.9.0.1") == ("Canonical.example", ["nick"], ["10.9.0.1"])
    assert socket.gethostbyaddr("six-only") == ("six-only", [], ["fd00::99"])
    assert socket.getnameinfo(("fd00::99", 80), stdlib.NI_NUMERICSERV) == ("six-only", "80")
    assert not server.asked
    files.hosts.write_text("10.9.0.200 nick # a change is seen\n")
    assert socket.gethostbyname("nick") == "10.9.0.200"
    files.hosts.unlink()
    fails(stdlib.EAI_NONAME, "nick", 80)


def test_a_large_hosts_file_is_not_parsed_as_a_whole(files, monkeypatch):
    """Parsing it would block the loop for a second."""
    files.hosts.write_text("".join(f"0.0.0.0 host{i}.example\n" for i in range(150_000)) + "::1 last\n10.1.1.1 last\n")
    parsed = list[int]()
    whole = _files.HostsFile._entry
    monkeypatch.setattr(_files.HostsFile, "_entry", lambda *args: parsed.append(1) or whole(*args))
    hosts = _files.HostsFile(str(files.hosts))
    assert [entry.address for entry in hosts.by_name("last")] == ["::1", "10.1.1.1"]
    assert hosts.by_name("host149999.example") == [("0.0.0.0", ["host149999.example"])]
    assert hosts.by_name("host") == []
    assert hosts.by_address("10.1.1.1") == ("10.1.1.1", ["last"])
    assert hosts.by_address("::1") == ("::1", ["last"])
    assert hosts.by_address("10.1.1.2") is None
    assert len(parsed) == 5


# ---------------------------------------------------------------- gethostbyname_ex and back


def test_gethostbyname_ex_and_aliases(lookups):
    for name, aliases in (("plain.test", []), ("alias.test", ["alias.test", "other.test"])):
        canonical, others, found = socket.gethostbyname_ex(name)
        assert (canonical, others, sorted(found)) == ("plain.test", aliases, ["10.0.0.1", "10.0.0.2"])


def test_gethostbyaddr(lookups):
    name, aliases, found = socket.gethostbyaddr("10.0.0.1")
    assert (sorted([name, *aliases]), found) == (["plain.test", "second.test"], ["10.0.0.1"])
    assert socket.gethostbyaddr("four.test") == ("four.test", [], ["10.0.0.4"])
    assert socket.gethostbyaddr("fd00::6") == ("six.test", [], ["fd00::6"])
    assert socket.gethostbyaddr("10.0.0.12")[0] == "delegated.test"
    with pytest.raises(stdlib.herror) as caught:
        socket.gethostbyaddr("10.77.0.1")
    assert caught.value.args == (1, "Unknown host")
    with pytest.raises(stdlib.gaierror):
        socket.gethostbyaddr("missing.test")
    assert socket.getfqdn("10.0.0.4") == "four.test"


def test_getnameinfo(lookups):
    assert socket.getnameinfo(("10.0.0.4", 80), 0) == ("four.test", service(80))
    assert socket.getnameinfo(("10.0.0.4", 80), stdlib.NI_NUMERICHOST) == ("10.0.0.4", service(80))
    assert socket.getnameinfo(("fd00::6", 80, 0, 0), stdlib.NI_NUMERICSERV) == ("six.test", "80")
    assert socket.getnameinfo(("10.77.0.1", 53), stdlib.NI_DGRAM) == ("10.77.0.1", service(53, "udp"))
    for sockaddr, flags in [(("10.77.0.1", 80), stdlib.NI_NAMEREQD), (("four.test", 80), 0)]:
        with pytest.raises(stdlib.gaierror) as caught:
            socket.getnameinfo(sockaddr, flags)
        assert caught.value.errno == stdlib.EAI_NONAME


# ---------------------------------------------------------------- many at once


def test_others_run_and_equal_look_ups_are_coalesced(lookups, server):
    same = [spawn(socket.gethostbyname_ex, "slow.test") for _ in range(20)]
    ports = [spawn(socket.getaddrinfo, "slow.test", port, stdlib.AF_INET) for port in range(1, 6)]
    wait_until(lambda: server.asked["slow.test.", "A"])
    settle()
    assert not any(lookup.ready() for lookup in [*same, *ports])
    same[0].kill()
    assert socket.gethostbyname("four.test") == "10.0.0.4", "one slow answer holds up the others"
    server.gate.set()
    joinall([*same, *ports])
    results = [lookup.get() for lookup in same[1:]]
    assert results == [("slow.test", [], ["10.0.0.10"])] * 19
    assert len({id(result[2]) for result in results}) == 19, "a caller's list is somebody else's, too"
    assert [addresses(lookup.get())[0] for lookup in ports] == ["10.0.0.10"] * 5
    assert server.asked["slow.test.", "A"] == 1
    assert socket.gethostbyname("slow.test") == "10.0.0.10"
    assert server.asked["slow.test.", "A"] >= 1


def test_an_error_reaches_everyone_who_asked(lookups, server):
    same = [spawn(socket.gethostbyname, "missing.test.") for _ in range(3)]
    joinall(same)
    assert [getattr(lookup.exception, "errno", None) for lookup in same] == [stdlib.EAI_NONAME] * 3
    assert len({id(lookup.exception) for lookup in same}) == 3
    assert server.asked["missing.test.", "A"] == 1


def test_many_at_once_take_few_descriptors(lookups):
    before = len(os.listdir("/proc/self/fd"))
    many = [spawn(socket.gethostbyname, f"host{i}.test") for i in range(400)]
    most = 0
    while not all(lookup.ready() for lookup in many):
        most = max(most, len(os.listdir("/proc/self/fd")))
        weald.sleep(0.001)
    assert {lookup.get() for lookup in many} == {"10.2.0.1"}
    assert most - before < 100
    settle()
    lookups.close()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)  # a thread pool's waking pipe, say


def test_others_run_while_many_look_ups_begin(lookups, monkeypatch):
    """The most that begin between two turns of another greenlet."""
    begun = []
    open_question = lookups.open
    monkeypatch.setattr(lookups, "open", lambda *args: begun.append(args) or open_question(*args))
    many = [spawn(socket.gethostbyname, f"host{i}.test") for i in range(150)]
    assert most_at_once(begun, len(many)) <= 50
    joinall(many)
    assert {lookup.get() for lookup in many} == {"10.2.0.1"}


def test_callers_who_leave_while_they_wait_for_their_turn(lookups, server):
    callers = [spawn(socket.gethostbyname, f"host{i}.test") for i in range(100)]
    weald.sleep(0)
    weald.killall(callers[::2])
    joinall(callers)
    assert {lookup.get() for lookup in callers[1::2]} == {"10.2.0.1"}
    settle()
    places = lookups._queries.pace._places
    assert places.counter == 20, "a caller has kept a place, or brought one"
    assert {socket.gethostbyname(f"host{i}.test") for i in range(50)} == {"10.2.0.1"}


def test_names_of_the_hosts_file_among_many_look_ups(lookups, files):
    """They take no server's time, and must not upset the counting: later look-ups would wait for ever."""
    files.hosts.write_text("10.9.9.9 known.test\n")
    many = [spawn(socket.gethostbyname, f"host{i}.test") for i in range(30)]
    many += [spawn(socket.gethostbyname, "known.test") for _ in range(100)]
    many += [spawn(socket.gethostbyname, f"host{i}.test") for i in range(30, 60)]
    joinall(many, timeout=PATIENCE)
    assert [lookup.value for lookup in many] == ["10.2.0.1"] * 30 + ["10.9.9.9"] * 100 + ["10.2.0.1"] * 30


def test_the_hub_looks_up_names_of_the_hosts_file_when_many_look_ups_have_begun(lookups, files):
    files.hosts.write_text("10.9.9.9 known.test\n")
    callers = [spawn(socket.gethostbyname, "slow.test") for _ in range(3)]
    callers += [spawn(socket.gethostbyname, f"host{i}.test") for i in range(100)]
    found = []
    hub = weald.get_hub()
    weald.sleep(0)  # they have come to their turns
    assert lookups._queries.pace._places.counter <= 0
    hub.run_callback(lambda: found.append(socket.gethostbyname("known.test")))
    wait_until(lambda: found)
    assert found == ["10.9.9.9"]
    weald.killall(callers)


class Scripted:
    """A question to a server; `replies` says what each call of `next_reply` does."""

    def __init__(self, *replies):
        self.replies, self.asked, self.closed = list(replies), [], 0

    def ask(self, server, patience):
        self.asked.append(server)

    def next_reply(self, timeout):
        reply = self.replies.pop(0)
        return reply() if callable(reply) else reply

    def close(self):
        self.closed += 1


def test_who_asks_is_killed_and_the_next_one_goes_on():
    """With the same question: it is not sent again, and what had failed before counts."""
    gate, answer = weald.event.Event(), _dns.Answer(["x.test"], ["10.0.0.1"])
    one, two = ("10.0.0.1", 53), ("10.0.0.2", 53)
    question = Scripted((one, _dns.Rejection()), gate.wait, lambda: gate.wait() and (two, answer))
    queries = Queries(lambda name, kind: Query(question, iter([(one, 5.0), (two, 5.0)]), None))
    callers = [spawn(queries.ask, "x.test", ("A",)) for _ in range(3)]
    weald.sleep(0)
    assert question.asked == [one, two]
    callers[0].kill()
    weald.sleep(0)
    assert not question.closed
    assert len(queries) == 1
    gate.set()
    assert [caller.get() for caller in callers[1:]] == [[answer]] * 2
    assert question.asked == [one, two]
    assert question.closed == 1
    assert len(queries) == 0


def test_a_question_is_closed_when_its_last_caller_leaves():
    question = Scripted(weald.event.Event().wait)
    queries = Queries(lambda name, kind: Query(question, iter([(("10.0.0.1", 53), 5.0)]), None))
    callers = [spawn(queries.ask, "x.test", ("A", "AAAA")) for _ in range(2)]
    weald.sleep(0)
    callers[0].kill()
    assert not question.closed
    callers[1].kill()
    assert question.closed == 2, "one for each kind"
    assert len(queries) == 0


def test_an_unexpected_error_reaches_everyone_who_asked():
    def fail():
        raise ZeroDivisionError

    def outcome():
        with pytest.raises(ZeroDivisionError):
            queries.ask("x.test", ("A", "AAAA"))
        return True

    queries = Queries(lambda name, kind: Query(Scripted(fail, fail), iter([(("10.0.0.1", 53), 5.0)]), None))
    callers = [spawn(outcome) for _ in range(2)]
    assert all(caller.get() for caller in callers)
    assert len(queries) == 0


@pytest.mark.parametrize("place", ["next_reply", "ask"])
def test_who_fetches_an_answer_by_tcp_is_killed(place, files, server, monkeypatch):
    monkeypatch.setattr(config, "resolver_nameservers", [server.address])
    files.resolv_conf.write_text("options use-vc\n" if place == "ask" else "")
    lookups = dnspython.Resolver(hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    by_tcp, calls = dnspython._Question._by_tcp, []

    def first_time_never(self, server):
        calls.append(server)
        if len(calls) == 1:
            weald.event.Event().wait()
        return by_tcp(self, server)

    monkeypatch.setattr(dnspython._Question, "_by_tcp", first_time_never)
    callers = [spawn(lookups.gethostbyname_ex, "big.test") for _ in range(2)]
    wait_until(lambda: calls)
    callers[0].kill()
    assert callers[1].get()[2][0].startswith("10.")
    assert server.asked["big.test.", "A"] == (1 if place == "ask" else 2)


def test_nothing_is_waited_for_afterwards(lookups):
    """After a look-up, no greenlet and no timer keeps the hub from noticing that nothing is left to do."""
    socket.gethostbyname("four.test")
    assert weald.get_hub().join(PATIENCE)


# ---------------------------------------------------------------- dnspython's answers that are read without it


@pytest.mark.parametrize("options", ["", "options edns0", "options rotate edns0"])
def test_plain_answers_are_read_without_dnspython_and_others_by_it(server, files, monkeypatch, options):
    """In either case each question is asked once, whatever resolv.conf says."""
    monkeypatch.setattr(config, "resolver_nameservers", [server.address])
    files.resolv_conf.write_text(f"{options}\n")
    resolver = dnspython.Resolver(hosts=str(files.hosts), resolv_conf=str(files.resolv_conf))
    assert addresses(resolver.getaddrinfo("six.test", 1, stdlib.AF_INET6, stdlib.SOCK_STREAM)) == ["fd00::6"]
    assert resolver.gethostbyname_ex("alias.test")[0] == "plain.test"
    for missing in ("missing.test", "servfail.test", "empty.test"):
        with pytest.raises(stdlib.gaierror):
            resolver.gethostbyname(missing)
    assert server.asked.pop(("servfail.test.", "A")) == 2, "as often as `attempts` says"
    assert set(server.asked.values()) == {1}
    monkeypatch.setattr(dnspython, "_records", None)
    assert sorted(resolver.gethostbyname_ex("plain.test")[2]) == ["10.0.0.1", "10.0.0.2"]
    assert addresses(resolver.getaddrinfo("plain.test", 1, stdlib.AF_INET6, stdlib.SOCK_STREAM)) == ["fd00::1"]


def by_dnspython(answer, question):
    """The addresses, if it accepts this as an answer to the question without aliases; else none."""
    query = dns.message.from_wire(question)
    name, kind = query.question[0].name, query.question[0].rdtype
    try:
        message = dns.message.from_wire(answer, raise_on_truncation=True)
        if not query.is_response(message) or message.rcode():
            return []
        found = dns.resolver.Answer(name, kind, query.question[0].rdclass, message)
    except dns.exception.DNSException:
        return []
    return [record.address for record in found] if found.canonical_name == name and found.rrset else []


RECORDS = {
    "A": b"\xc0\x0c\0\x01\0\1\0\0\0\x3c\0\x04\x0a\0\0\1",
    "AAAA": b"\xc0\x0c\0\x1c\0\1\0\0\0\x3c\0\x10\xfd" + bytes(14) + b"\1",
    "PTR": b"\xc0\x0c\0\x0c\0\1\0\0\0\x3c\0\x02\xc0\x0c",
}
OPT = b"\0\0\x29\x04\xd0\0\0\x80\0\0\0"


def exchange(kind, count, edns):
    """A question, and an answer with `count` records of this kind."""
    section = b"\4name\7Example\0" + RECORDS[kind][2:6]
    tail = OPT if edns else b""
    question = b"\x12\x34\1\0\0\1\0\0\0\0\0" + bytes([edns]) + section + tail
    records = b"".join(RECORDS[kind][:-1] + bytes([i]) for i in range(count))
    return question, b"\x12\x34\x81\x80\0\1\0" + bytes([count, 0, 0, 0, edns]) + section + records + tail


EXCHANGES = [(kind, count, edns) for kind in RECORDS for count in (0, 1, 2) for edns in (False, True)]


@pytest.mark.parametrize(("kind", "count", "edns"), EXCHANGES)
def test_no_changed_bit_is_believed_that_dnspython_would_not_believe(kind, count, edns):
    question, answer = exchange(kind, count, edns)
    assert len(dnspython._addresses(answer, question, kind)) == (count if kind != "PTR" else 0)
    for place, value in enumerate(answer):
        for bit in range(8):
            changed = answer[:place] + bytes([value ^ 1 << bit]) + answer[place + 1 :]
            if found := dnspython._addresses(changed, question, kind):
                assert found == by_dnspython(changed, question)


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(EXCHANGES), st.data())
def test_nothing_is_believed_that_dnspython_would_not_believe(kept, data):
    """Pieces are cut out of an answer, put in, and put behind it."""
    question, answer = exchange(*kept)
    pieces = st.sampled_from([*RECORDS.values(), OPT, b"\0", b"\xc0\x0c", answer]) | st.binary(max_size=5)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(answer)))
        answer = answer[:place] + data.draw(pieces) + answer[place + data.draw(st.integers(0, 20)) :]
    if found := dnspython._addresses(answer, question, kept[0]):
        assert found == by_dnspython(answer, question)


# ---------------------------------------------------------------- choice, threads, forks, patching

CHOSEN = """
import os, sys, weald
os.environ["WEALD_RESOLVER"], os.environ["WEALD_RESOLVER_NAMESERVERS"] = {name!r}, {address!r}
"""


@pytest.mark.parametrize("name", RESOLVERS)
def test_chosen_by_the_environment_and_patched(name, server):
    out = python(
        CHOSEN.format(name=name, address=server.address)
        + """
import weald.monkey; weald.monkey.patch_all()
import socket
print(socket.gethostbyname("four.test"), weald.get_hub().resolver)
""",
    )
    assert out.startswith(f"10.0.0.4 <weald.resolver.{name}.Resolver at ")


@pytest.mark.parametrize("name", RESOLVERS)
def test_in_threads_and_in_a_forks_child(name, server):
    """Each has its own resolver, and the parent's queries stay in the parent."""
    out = python(
        CHOSEN.format(name=name, address=server.address)
        + """
import threading, warnings
from weald import socket
import weald.os
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads
slow = weald.spawn(socket.gethostbyname, "slow.test")
print(socket.gethostbyname("four.test"))
thread = threading.Thread(target=lambda: print(socket.gethostbyname("four.test"), flush=True))
thread.start()
thread.join()
pid = os.fork()
if not pid:
    print(socket.gethostbyname("four.test"), flush=True)
    os._exit(0)
print(weald.os.waitpid(pid, 0)[1])
slow.kill()
""",
    )
    assert out.split() == ["10.0.0.4"] * 3 + ["0"]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the server's threads
def test_a_resolver_kept_over_a_fork_begins_afresh(lookups, server):
    """The child does not join a look-up of the parent's, and its own replies do not go to the parent."""
    busy = spawn(lookups.gethostbyname, "slow.test")
    wait_until(lambda: server.asked["slow.test.", "A"])
    child = weald.os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if lookups.gethostbyname("slow.test") == "10.0.0.10" else 2
        finally:
            os._exit(code)
    wait_until(lambda: server.asked["slow.test.", "A"] >= 2)
    server.gate.set()
    assert os.waitstatus_to_exitcode(weald.os.waitpid(child, 0)[1]) == 0
    assert busy.get() == "10.0.0.10"


def test_a_missing_package_is_named():
    out = python(
        """
        import sys
        sys.modules["pycares"] = None
        import weald
        for value in ("ares", "ares,thread"):
            try:
                weald.config.resolver = value
            except ValueError as error:
                print(error)
        print(weald.config.resolver)
        """
    )
    assert "pip install weald[ares]" in out.splitlines()[0]
    assert out.splitlines()[1] == "<class 'weald.resolver.thread.Resolver'>"


def test_nameservers_setting():
    assert parse_nameservers(["10.0.0.1", "10.0.0.1:5353", "[::1]:5353", "::1", "[::1]"]) == [
        ("10.0.0.1", 53),
        ("10.0.0.1", 5353),
        ("::1", 5353),
        ("::1", 53),
        ("::1", 53),
    ]
    for bad in ("name", "10.0.0.1:x", "[::1]x", "[name]:53"):
        with pytest.raises(ValueError, match="name server"):
            parse_nameservers([bad, bad])


# ---------------------------------------------------------------- the order of addresses


def order(monkeypatch, sources, *found):
    monkeypatch.setattr(_order, "_source", sources.get)
    return _order.in_order(found)


def test_order(monkeypatch):
    """RFC 6724, section 10.2, as far as it does not need scopes."""
    both = {"2001:db8:1::1": "2001:db8:1::2", "198.51.100.121": "198.51.100.117"}
    assert order(monkeypatch, both, "198.51.100.121", "2001:db8:1::1") == ["2001:db8:1::1", "198.51.100.121"]
    no_six = {"198.51.100.121": "198.51.100.117"}
    assert order(monkeypatch, no_six, "2001:db8:1::1", "198.51.100.121") == ["198.51.100.121", "2001:db8:1::1"]
    only_unique_local = {"2001:db8:1::1": "fd00::2", "198.51.100.121": "10.0.0.2"}
    assert order(monkeypatch, only_unique_local, "2001:db8:1::1", "198.51.100.121")[0] == "198.51.100.121"
    assert order(monkeypatch, {}, "10.0.0.2", "10.0.0.1") == ["10.0.0.2", "10.0.0.1"], "the server's order stays"
    loopback = {"::1": "::1", "127.0.0.1": "127.0.0.1"}
    assert order(monkeypatch, loopback, "127.0.0.1", "::1") == ["::1", "127.0.0.1"]


@pytest.mark.parametrize("options", [{}, {"lookups": "fb"}, {"domains": ["a.test"]}, {"resolvconf_path": "/dev/null"}])
def test_ares_is_given_no_text_that_it_could_find_freed(options, files, monkeypatch):
    """pycares may free the texts of these options before c-ares reads them, and c-ares then asks 127.0.0.1."""
    given = []
    channel = ares.pycares.Channel

    def make(**options):
        given.append(options)
        return channel(**options)

    monkeypatch.setattr(ares.pycares, "Channel", make)
    ares.Resolver(resolv_conf=str(files.resolv_conf), **options).close()
    assert given
    assert not any({"lookups", "domains", "resolvconf_path"} & set(options) for options in given)


RECORDS_OF_ODD_ANSWERS = {
    "of another owner": ([("evil.test", "A", "6.6.6.6")], None),
    "of another owner, too": ([("x.test", "A", "10.0.0.1"), ("evil.test", "A", "6.6.6.6")], (["x.test"], ["10.0.0.1"])),
    "aliases in the wrong order": (
        [("c.test", "A", "10.0.0.1"), ("b.test", "CNAME", "c.test"), ("X.test", "CNAME", "B.test")],
        (["x.test", "B.test", "c.test"], ["10.0.0.1"]),
    ),
    "a loop": ([("x.test", "CNAME", "y.test"), ("y.test", "CNAME", "x.test")], None),
    "a chain": (
        [
            ("x.test", "CNAME", "0.test"),
            *((f"{i}.test", "CNAME", f"{i + 1}.test") for i in range(30)),
            ("30.test", "A", "::"),
        ],
        (["x.test", *(f"{i}.test" for i in range(31))], ["::"]),
    ),
    "two aliases": ([("x.test", "CNAME", "y.test"), ("x.test", "CNAME", "z.test"), ("y.test", "A", "::")], None),
}


@pytest.mark.parametrize("what", RECORDS_OF_ODD_ANSWERS)
def test_which_records_count(what):
    records, expected = RECORDS_OF_ODD_ANSWERS[what]
    if expected is None:
        with pytest.raises(_dns.DnsFailure) as caught:
            _dns.read_answer("x.test", "A", records)
        assert caught.value.reason == _dns.DnsFailure.NO_DATA
    else:
        assert _dns.read_answer("x.test", "A", records) == expected


def test_a_second_look_up_with_the_same_arguments_is_the_c_librarys_as_well(lookups):
    """What the C library makes of an address is remembered by the arguments; other arguments are still its to judge."""
    for port in (80, None, 0, 65535):
        for args in ((), (stdlib.AF_INET,), (stdlib.AF_INET, stdlib.SOCK_STREAM), (0, stdlib.SOCK_DGRAM, 17)):
            wanted = stdlib.getaddrinfo("10.0.0.4", port, *args)
            assert [lookups.getaddrinfo("four.test", port, *args) for _ in range(3)] == [wanted] * 3
    for wrong in ((80, 2.0), (80, 0, 1.0), (80.0,)):
        with pytest.raises((TypeError, OSError)):
            lookups.getaddrinfo("four.test", *wrong)


def test_a_file_that_cannot_be_read_now_is_not_empty(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("10.9.9.9 nick\n")
    hosts = _files.HostsFile(str(path))
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        hosts.by_name("nick")
    assert [entry.address for entry in hosts.by_name("nick")] == ["10.9.9.9"]
    path.write_text("10.9.9.8 nick\n10.9.9.7 other\n")
    with no_descriptors():
        assert [entry.address for entry in hosts.by_name("nick")] == ["10.9.9.9"]  # not yet
    assert [entry.address for entry in hosts.by_name("nick")] == ["10.9.9.8"]
    path.unlink()
    assert hosts.by_name("nick") == []
