"""weald's resolvers next to the C library: hosts files, resolv.confs, interfaces, and name servers with odd answers.

Each world (`dns_worlds.py`) is a process in network and mount namespaces of its own, so that the C library reads
the tests' files and asks the tests' servers.  If the system does not allow such namespaces, all this is skipped, and
fails if CI=true.

A difference is an error, unless `KEPT` lists it; docs/dns.md has the reasons.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dns_worlds import RESOLVERS, WORLDS
from helpers import PATIENCE

DRIVER = Path(__file__).with_name("dns_worlds.py")
OWN = ("dnspython", "ares")  # the resolvers that parse answers themselves

NO_DATA, TRY_AGAIN = "gaierror -5", "gaierror -3"
RIGHT = "10.9.0.1"

# A pattern for the call, the resolvers whose answer differs, and that answer, or a pattern for it.
KEPT = [
    # Records that do not belong to the question, and aliases that lead nowhere.
    (r"getaddrinfo\('(dangling|loop|self|foreign-only|two-aliases|wrong-size)\.test', 80, 0", OWN, NO_DATA),
    (r"gethostbyname_ex\('(loop|self|foreign-only|two-aliases)\.test'", OWN, NO_DATA),
    (r"'foreign(-first)?\.test'", OWN, RIGHT),
    (r"gethostbyname_ex\('foreign-alias\.test'", OWN, "('foreign-alias.test', [], ['10.9.0.1'])"),
    (r"'shuffled\.test'", OWN, "10.9.0.2"),
    (r"'odd-alias\.test'", OWN, "10.9.0.4"),
    (r"'(chaos|any-class)\.test'", OWN, "gaierror -[35]"),
    # Messages that dnspython or c-ares cannot read are no answers.
    (r"gethostbyname_ex\('wrong-size\.test'", OWN, TRY_AGAIN),
    (r"'(empty|short)-first\.", OWN, RIGHT),
    (r"'echo-first\.", ("dnspython",), RIGHT),
    (r"'echo-first\.", ("ares",), "gaierror -[35]"),
    (r"'(hangs-up|cut-short)\.test'", OWN, TRY_AGAIN),
    # c-ares does not distinguish these from an empty answer.
    (r"'(yxdomain|notauth|referral)\.test'", ("ares",), NO_DATA),
    # Each is reported once.
    (r"getaddrinfo\('twice\.test'", OWN, "[(2, 1, 6, '', ('10.9.0.1', 80))]"),
    (r"gethostbyname_ex\('twice\.test'", OWN, "('twice.test', [], ['10.9.0.1'])"),
    (r"getaddrinfo\('nick', 80", OWN, "'10.9.0.1', 80.*'10.9.0.2', 80.*'10.9.0.3', 80"),
    (r"getaddrinfo\('NICK', 80", OWN, "'10.9.0.1', 80.*'10.9.0.2', 80.*'10.9.0.3', 80"),
    (
        r"gethostbyname_ex\('(nick|NICK)'",
        OWN,
        "('canonical.example', ['nick', 'other', 'third'], ['10.9.0.1', '10.9.0.2', '10.9.0.3'])",
    ),
    # All names of an address, without those that are not host names.
    (r"gethostbyaddr\('10\.0\.0\.1'", OWN, "('both.test', ['second.test', 'third.test'], ['10.0.0.1'])"),
    (r"gethostbyaddr\('10\.0\.0\.[568]'", RESOLVERS, "herror [0-4]"),
    (r"gethostbyaddr\('10\.0\.0\.6'", OWN, "('good.test', [], ['10.0.0.6'])"),
    # The C library finds this since 2.37 or so.
    (r"gethostbyaddr\('::ffff:10\.9\.0\.1'", OWN, "('canonical.example', ['nick'], ['::ffff:10.9.0.1'])"),
    # The C library looks these up under a.b.c.d, and `socket` does not accept that as an answer.
    (r"gethostbyaddr\('::(ffff:)?10\.0\.0\.4'", OWN, r"\('four.test', \[\], \['::(ffff:)?10.0.0.4'\]\)"),
]


def is_kept(call, who, told):
    return any(
        re.search(pattern, call) and who in whose and (what in told or re.search(what, told))
        for pattern, whose, what in KEPT
    )


def namespaces():
    """The command prefix that runs a command in namespaces of its own; skips the test if there are none."""
    why = "needs Linux and its program unshare"
    program = shutil.which("unshare")
    if program:
        for command in ([program, "-m", "-n"], [program, "-r", "-m", "-n"]):
            done = subprocess.run([*command, "true"], capture_output=True, text=True)
            if not done.returncode:
                return command
            why = f"no namespaces for tests of look-ups next to the C library: {done.stderr.strip()}"
    if os.environ.get("CI") in ("true", "1"):
        pytest.fail(f"{why}; CI must have it")
    pytest.skip(why)


class Worlds:
    """Their processes, which run at the same time."""

    def __init__(self, folder):
        command = namespaces()
        self._processes = {}
        for number, name in enumerate(WORLDS):
            files = folder / str(number)
            files.mkdir()
            self._processes[name] = subprocess.Popen(
                [*command, sys.executable, str(DRIVER), name, str(files)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        self._told = {}

    def told(self, name):
        if name not in self._told:
            out, errors = self._processes[name].communicate(timeout=PATIENCE)
            assert self._processes[name].returncode == 0, errors
            assert not errors
            self._told[name] = json.loads(out)
        return self._told[name]

    def end(self):
        for process in self._processes.values():
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    made = Worlds(tmp_path_factory.mktemp("worlds"))
    yield made
    made.end()


@pytest.mark.parametrize("name", WORLDS)
def test_the_answers_are_the_c_librarys(worlds, name):
    wrong = []
    for line in worlds.told(name):
        for who in RESOLVERS[1:]:
            if line[who] != line["libc"] and not is_kept(line["call"], who, line[who]):
                wrong.append(f"{line['call']}\n    the C library: {line['libc']}\n    {who}: {line[who]}")
    assert not wrong, "\n".join(wrong)


def test_there_are_enough_calls(worlds):
    assert sum(len(worlds.told(name)) for name in WORLDS) >= 150


def test_what_each_world_is_for(worlds):
    """The C library's answers in cases where all resolvers could be wrong in the same way."""

    def libc(name, call):
        return next(line["libc"] for line in reversed(worlds.told(name)) if line["call"] == call)

    who = "gethostbyname_ex('who.test')"
    for name in ("a silent server", "a closed port", "four servers"):
        expected = "gaierror -3" if name == "four servers" else "('who.test', [], ['10.8.0.1'])"
        assert libc(name, who) == expected
    for name in ("servers that refuse", "timeout:5", "other servers"):
        assert libc(name, who) == "('who.test', [], ['10.8.0.2'])"
    for name in ("servers that fail", "nowhere to ask", "no server named"):
        assert libc(name, who) == "gaierror -3"
    assert libc("a slow server", "gethostbyname_ex('slow.WHO.test')") == "('slow.who.test', [], ['10.7.0.1'])"
    assert libc("environment", "gethostbyname_ex('word')") == "('word.two.test', [], ['10.4.0.2'])"
    assert "fd00" not in libc("IPv4 only", "getaddrinfo('both.test', 80, 0, 1, 0, 32)")
    assert libc("hosts", "gethostbyname_ex('blocked149999.example')").endswith("['0.0.0.0'])")
