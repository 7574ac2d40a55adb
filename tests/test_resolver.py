"""weald.resolver: the stdlib's answers and errors, without blocking; equal look-ups share one job."""

import _socket
import os
import socket as stdlib
import threading

import pytest
from helpers import PATIENCE, most_at_once, service, settle, wait_until

import weald
import weald.fileobject
import weald.os
from weald import resolver, socket
from weald._core import joinall, spawn
from weald.resolver import thread
from weald.resolver._files import HostsFile


@pytest.fixture
def lookups():
    """A new resolver for this hub."""
    hub = weald.get_hub()
    hub.resolver = None
    made = resolver.current()
    assert isinstance(made, thread.Resolver)
    yield made
    hub.resolver = None


class Gate:
    """Stands in for a function of `_socket`: each call waits in its thread until the test lets it return or raise."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.calls = []
        self.open = threading.Event()

    @property
    def __name__(self):
        return "gate"

    def __call__(self, *args):
        self.calls.append(args)
        assert self.open.wait(PATIENCE)
        return self.outcome()


def outcome_of(function, *args):
    try:
        return function(*args)
    except Exception as error:
        return type(error), error.args


CALLS = [
    ("getaddrinfo", ("localhost", 80)),
    ("getaddrinfo", ("localhost", "http", stdlib.AF_INET, stdlib.SOCK_STREAM)),
    ("getaddrinfo", (b"localhost", None)),
    ("getaddrinfo", (None, 80, 0, stdlib.SOCK_STREAM, 0, stdlib.AI_PASSIVE)),
    ("getaddrinfo", ("127.0.0.1", 80)),
    ("getaddrinfo", ("127.1", 80)),
    ("getaddrinfo", ("::1", 80)),
    ("getaddrinfo", ("::1", "nonsense-service")),
    ("getaddrinfo", ("", 80)),
    ("getaddrinfo", ("localhost", 80, stdlib.AF_UNIX)),
    ("getaddrinfo", ("a" * 64, 80)),
    ("getaddrinfo", ("a." * 200 + "example", 80)),
    ("getaddrinfo", (b"a" * 300, 80)),
    ("getaddrinfo", (80, 80)),
    ("gethostbyname", ("localhost",)),
    ("gethostbyname", ("127.0.0.1",)),
    ("gethostbyname", ("",)),
    ("gethostbyname", ("a" * 64,)),
    ("gethostbyname", (1,)),
    ("gethostbyname_ex", ("localhost",)),
    ("gethostbyaddr", ("127.0.0.1",)),
    ("getnameinfo", (("127.0.0.1", 80), stdlib.NI_NUMERICHOST | stdlib.NI_NUMERICSERV)),
    ("getnameinfo", (("127.0.0.1", 80), 0)),
    ("getnameinfo", (("::1", 80, 0, 0), stdlib.NI_NUMERICHOST)),
    ("getnameinfo", (("localhost", 80), 0)),
    ("getnameinfo", (("127.0.0.1", 10**6), 0)),
    ("getnameinfo", ("127.0.0.1", 0)),
    ("getnameinfo", (("127.0.0.1", 80), "x")),
]


@pytest.mark.parametrize(("name", "args"), CALLS)
def test_results_and_errors_are_the_stdlibs(name, args):
    assert outcome_of(getattr(socket, name), *args) == outcome_of(getattr(stdlib, name), *args)


def test_getaddrinfo_returns_enums():
    family, kind, *_ = socket.getaddrinfo("127.0.0.1", 80)[0]
    assert isinstance(family, stdlib.AddressFamily)
    assert isinstance(kind, stdlib.SocketKind)


@pytest.mark.parametrize("name", ["getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr"])
@pytest.mark.parametrize("host", ["localhost\0.example", b"localhost\0.example"])
def test_a_name_with_a_nul_is_refused_not_cut(name, host):
    args = (host, 80) if name == "getaddrinfo" else (host,)
    with pytest.raises(stdlib.gaierror) as caught:
        getattr(socket, name)(*args)
    assert caught.value.errno == stdlib.EAI_NONAME


def test_getfqdn():
    assert socket.getfqdn() == stdlib.getfqdn()
    assert socket.getfqdn("127.0.0.1") == stdlib.getfqdn("127.0.0.1")
    assert socket.getfqdn("no such name") == "no such name"


def test_getfqdn_prefers_a_name_with_a_dot(monkeypatch):
    class Fake:
        def gethostbyaddr(self, name):
            return "short", ["alias", "full.example", "other.example"], []

    monkeypatch.setattr(resolver, "current", Fake)
    assert socket.getfqdn("x") == "full.example"


def test_others_run_during_a_look_up(lookups, monkeypatch):
    gate = Gate(lambda: "10.0.0.1")
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    lookup = spawn(socket.gethostbyname, "some.name")
    wait_until(lambda: gate.calls)
    assert not lookup.ready()
    gate.open.set()
    assert lookup.get() == "10.0.0.1"


def test_equal_look_ups_share_one_job(lookups, monkeypatch):
    gate = Gate(lambda: ("name", ["alias"], ["10.0.0.1"]))
    monkeypatch.setattr(_socket, "gethostbyaddr", gate)
    same = [spawn(socket.gethostbyaddr, "some.name") for _ in range(20)]
    other = spawn(socket.gethostbyaddr, "other.name")
    wait_until(lambda: len(gate.calls) == 2)
    settle()
    gate.open.set()
    joinall([*same, other])
    assert sorted(gate.calls) == [("other.name",), ("some.name",)]
    results = [lookup.get() for lookup in same]
    assert results == [("name", ["alias"], ["10.0.0.1"])] * 20
    assert len({id(result[1]) for result in results}) == 20, "a caller's list is somebody else's, too"
    assert socket.gethostbyaddr("some.name") == results[0]
    assert len(gate.calls) == 3


def test_an_error_reaches_everyone_who_asked(lookups, monkeypatch):
    def fail():
        raise stdlib.gaierror(stdlib.EAI_AGAIN, "try again")

    gate = Gate(fail)
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    same = [spawn(socket.gethostbyname, "some.name") for _ in range(3)]
    wait_until(lambda: gate.calls)
    settle()
    gate.open.set()
    joinall(same)
    errors = [lookup.exception for lookup in same]
    assert [error.args for error in errors if error] == [(stdlib.EAI_AGAIN, "try again")] * 3
    assert len(set(map(id, errors))) == 3
    assert len(gate.calls) == 1


def test_killing_who_asked_first_leaves_the_others_their_answer(lookups, monkeypatch):
    gate = Gate(lambda: "10.0.0.1")
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    first, second = spawn(socket.gethostbyname, "some.name"), spawn(socket.gethostbyname, "some.name")
    wait_until(lambda: gate.calls)
    settle()
    first.kill()
    gate.open.set()
    assert second.get() == "10.0.0.1"


def test_a_look_up_whose_callers_have_all_left_does_not_begin(lookups, monkeypatch):
    """Look-ups that have begun end in their threads; a hundred others wait for a thread, and are dropped."""
    gate = Gate(lambda: "10.0.0.1")
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    callers = [spawn(socket.gethostbyname, f"host{i}.name") for i in range(100)]
    wait_until(lambda: len(gate.calls) == weald.config.threadpool_size)
    begun = list(gate.calls)
    weald.killall(callers)
    assert "lookups=0" in repr(lookups)
    healthy = spawn(socket.gethostbyname, "healthy.name")
    settle()
    gate.open.set()
    assert healthy.get() == "10.0.0.1"
    assert gate.calls == [*begun, ("healthy.name",)]


def test_others_run_while_many_look_ups_begin(lookups, monkeypatch):
    """The most that begin between two turns of another greenlet."""
    gate = Gate(lambda: "10.0.0.1")
    gate.open.set()
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    begun = []
    call = lookups._call
    monkeypatch.setattr(lookups, "_call", lambda *args: begun.append(args) or call(*args))
    many = [spawn(socket.gethostbyname, f"host{i}.name") for i in range(400)]
    assert most_at_once(begun, len(many)) <= 50
    joinall(many)
    assert {lookup.get() for lookup in many} == {"10.0.0.1"}


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the thread that looks up
def test_a_resolver_kept_over_a_fork_begins_afresh(monkeypatch):
    """The child neither joins a look-up of the parent's nor waits for the parent's threads."""
    kept = thread.Resolver()
    gate = Gate(lambda: "10.0.0.1")
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    busy = [spawn(kept.gethostbyname, f"host{i}.name") for i in range(weald.config.threadpool_size)]
    wait_until(lambda: len(gate.calls) == len(busy))
    child = weald.os.fork()
    if child == 0:
        code = 1
        try:
            gate.open = threading.Event()
            gate.open.set()
            code = 0 if kept.gethostbyname("host0.name") == "10.0.0.1" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(weald.os.waitpid(child, 0)[1]) == 0
    gate.open.set()
    joinall(busy)
    assert {lookup.get() for lookup in busy} == {"10.0.0.1"}


def test_in_another_thread_a_resolver_looks_up_directly(lookups, monkeypatch):
    idents = []
    monkeypatch.setattr(_socket, "gethostbyname", lambda host: idents.append(threading.get_ident()))
    other = threading.Thread(target=lookups.gethostbyname, args=("some.name",))
    other.start()
    other.join()
    lookups.gethostbyname("some.name")
    assert idents[0] == other.ident
    assert idents[1] != threading.get_ident()  # may be that of `other`, which has ended


def test_one_caller_of_two_leaves(lookups, monkeypatch):
    gate = Gate(lambda: "10.0.0.1")
    monkeypatch.setattr(_socket, "gethostbyname", gate)
    busy = [spawn(socket.gethostbyname, f"host{i}.name") for i in range(weald.config.threadpool_size)]
    same = [spawn(socket.gethostbyname, "some.name") for _ in range(2)]
    wait_until(lambda: len(gate.calls) == len(busy))
    settle()
    same[0].kill()
    gate.open.set()
    assert same[1].get() == "10.0.0.1"
    joinall(busy)


def test_what_needs_no_server_does_not_wait_for_those_that_do(lookups, monkeypatch, tmp_path):
    """Names of the hosts file, numeric addresses and files work while more look-ups hang than there are threads."""
    (tmp_path / "hosts").write_text("10.9.9.9 nick\n127.0.0.1 localhost\n")
    monkeypatch.setattr(lookups, "_hosts", HostsFile(str(tmp_path / "hosts")))
    gate = Gate(lambda: [])
    monkeypatch.setattr(_socket, "getaddrinfo", gate)
    monkeypatch.setattr(_socket, "gethostbyaddr", gate)
    slow = [spawn(lookups.getaddrinfo, f"host{i}.name", 80) for i in range(2 * weald.config.threadpool_size)]
    wait_until(lambda: len(gate.calls) == weald.config.threadpool_size)
    known = spawn(lookups.getaddrinfo, "NICK", 80)
    by_address = spawn(lookups.gethostbyaddr, "10.9.9.9")
    wait_until(lambda: len(gate.calls) == weald.config.threadpool_size + 2)
    assert socket.gethostbyname("localhost") == "127.0.0.1"
    assert socket.getnameinfo(("10.1.2.3", 80), stdlib.NI_NUMERICHOST) == ("10.1.2.3", service(80))
    with weald.fileobject.FileObjectThread(open(tmp_path / "hosts", "rb")) as file:
        assert file.readline() == b"10.9.9.9 nick\n"
    gate.open.set()
    joinall([*slow, known, by_address])


class Odd(str):
    """A host with the repr of another one."""

    def __repr__(self):
        return "'some.name'"


def test_only_look_ups_of_the_same_are_shared(lookups, monkeypatch):
    gate = Gate(lambda: [])
    monkeypatch.setattr(_socket, "getaddrinfo", gate)
    families = (stdlib.AF_INET, int(stdlib.AF_INET))
    same = [spawn(lookups.getaddrinfo, "some.name", 80, family) for family in families]
    others = [spawn(lookups.getaddrinfo, host, 80, 2) for host in (Odd("other.name"), Odd("third.name"), b"some.name")]
    others.append(spawn(lookups.getaddrinfo, "some.name", "80", 2))
    wait_until(lambda: len(gate.calls) == 5)
    settle()
    gate.open.set()
    joinall([*same, *others])
    assert len(gate.calls) == 5
    assert {str(call[0]) for call in gate.calls} == {"some.name", "other.name", "third.name", "b'some.name'"}


def test_numeric_hosts_need_no_thread(lookups, monkeypatch):
    monkeypatch.setattr(lookups, "_look_up", None)
    assert socket.getaddrinfo("127.0.0.1", 80, 0, stdlib.SOCK_STREAM)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo("::1", 80, 0, stdlib.SOCK_STREAM)[0][4] == ("::1", 80, 0, 0)
    assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"


def test_each_hub_has_its_resolver(lookups):
    assert resolver.current() is lookups
    assert weald.get_hub().resolver is lookups
    found = []
    other = threading.Thread(target=lambda: found.append((resolver.current(), socket.gethostbyname("localhost"))))
    other.start()
    wait_until(lambda: not other.is_alive())
    assert found[0][0] is not lookups
    assert found[0][1] == stdlib.gethostbyname("localhost")


def test_unknown_resolver_is_refused(monkeypatch, lookups):
    with pytest.raises(ValueError, match="crystal-ball"):
        weald.config.resolver = "crystal-ball"
    monkeypatch.delattr(weald.config, "resolver", raising=False)
    monkeypatch.setitem(weald.config.__dict__, "_environ", {"WEALD_RESOLVER": "crystal-ball"})
    weald.get_hub().resolver = None
    with pytest.raises(ValueError, match="WEALD_RESOLVER.*crystal-ball"):
        socket.gethostbyname("localhost")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", None])
@pytest.mark.parametrize("name", ["thread", "dnspython", "ares", "block"])
def test_the_resolvers_have_the_stdlibs_names_for_arguments(name, host, monkeypatch):
    monkeypatch.setattr(weald.config, "resolver", name)
    made = weald.config.resolver(weald.get_hub())
    try:
        expected = stdlib.getaddrinfo(host, 80, stdlib.AF_INET, stdlib.SOCK_STREAM)
        for kind in ("type", "socktype"):
            kinds = {"family": stdlib.AF_INET, kind: stdlib.SOCK_STREAM, "proto": 0, "flags": 0}
            assert made.getaddrinfo(host=host, port=80, **kinds) == expected
    finally:
        made.close()
