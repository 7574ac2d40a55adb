"""Runs other projects' test suites, patched by weald, plain, and patched by gevent; those of asyncio on three loops.

    scripts/gauntlet [--short] [--fresh] [--side SIDE] [--only TEST] [--table] [-v] [SUITE ...]

Called by: scripts/gauntlet, .ci/run.  gauntlet_suites.py has the suites.  Each gets an environment of its own below
build/gauntlet (or WEALD_GAUNTLET), with pinned versions and the real gevent, and its tests from its source
distribution; downloads are kept there.  A side's tests run in one process.  On weald's side weald has gevent's name,
too: a test that imports gevent gets weald.  A test that exceeds its time limit ends the process,
counts as failed, and is named; a new process goes on with the others.  Tests that fail are run once more alone, because
the machine may have been busy.

The suites of asyncio's programs have other sides: nothing is patched, and the tests run on uvloop, on weald's loop
("aio") and on asyncio's own.  There uvloop's side takes the place of the plain one below.

Tests that pass plain must pass with weald, unless gauntlet.expected lists them, one per line, with two blanks between:

    SUITE  TEST-ID  REASON

`*` in an id matches anything.  If a reason begins with "sometimes", the test may also pass.  A hang is never an
expected failure.
Exit status: 1 if a test differs without being listed, or is listed though it passes; else 0.  A suite that cannot be
fetched is skipped, with what pip says, and fails where CI=true.
The results of the other two sides are kept until `--fresh` is given or the suite's entry changes.
"""

import argparse
import contextlib
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import types
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apart import Reports, Results, counts, differing, in_process, in_processes, kind_of

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("WEALD_GAUNTLET") or ROOT / "build/gauntlet")
EXPECTED = Path(__file__).with_name("gauntlet.expected")
CONSTRAINTS = Path(__file__).with_name("gauntlet.constraints")
SIDES = ["plain", "weald", "gevent"]
LOOPS = ["uvloop", "aio", "asyncio"]  # the sides of asyncio's suites, in the same order
COMMON = ["gevent==26.9.0", *tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]]
PYTEST = "pytest==9.1.1"  # where a suite does not ask for another
PROCESS_SECONDS = 900.0  # for one process, however many tests it runs


# ------------------------------------------------------------------ in the process that runs the tests


def run_tests(side: str, arguments: list[str], seconds: float, only: set[str], done: set[str], out: int) -> None:
    """Run pytest on `arguments`, but for what is `done`, or just `only`."""
    reports = Reports(out, seconds)
    reports.begin("start")
    if side == "weald":
        import weald
        import weald.monkey

        weald.install_as_gevent()
        weald.monkey.patch_all()
    elif side == "gevent":
        import gevent.monkey

        gevent.monkey.patch_all()
    elif side in LOOPS:
        take_loop(side)
    # As `python -m pytest` has it.
    sys.path[0] = os.getcwd()
    del sys.modules["__main__"].__file__  # or processes that the tests spawn would run this file
    import pytest

    class Plugin:
        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                reports.begin(report.nodeid)
                reports.end(report.nodeid, f"failed: {report.longrepr}")
            elif report.skipped:
                reports.begin(report.nodeid)
                reports.end(report.nodeid, f"skipped: {report.longrepr}")

        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
            chosen = [item for item in items if item.nodeid not in done and (not only or item.nodeid in only)]
            items[:] = chosen

        def pytest_runtest_logstart(self, nodeid: str) -> None:
            self.verdict = "passed"
            reports.begin(nodeid)

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                self.verdict = f"failed: {report.longrepr}"[-6000:]
                if not self.verdict.startswith("failed"):
                    self.verdict = "failed: …" + self.verdict
            elif report.skipped and not hasattr(report, "wasxfail") and self.verdict == "passed":
                self.verdict = f"skipped: {report.longrepr}"

        def pytest_runtest_logfinish(self, nodeid: str) -> None:
            reports.end(nodeid, self.verdict)

    options = ["-q", "--rootdir=.", "-o", "addopts=", "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    # pytest's faulthandler would cancel the time limit.  Options and marks of missing plugins are only warnings.
    options += ["-p", "no:faulthandler", "-W", "ignore::pytest.PytestConfigWarning"]
    options += ["-W", "ignore::pytest.PytestUnknownMarkWarning"]
    status = pytest.main([*options, *arguments], plugins=[Plugin()])
    if status not in (0, 1, 5):
        reports.end("pytest", f"failed: exit status {status}")
    reports.begin("exit")


def take_loop(side: str) -> None:
    """Make this side's loop asyncio's default, and uvloop's, which tests ask for by name."""
    import asyncio

    if side == "uvloop":
        make = importlib.import_module("uvloop").new_event_loop
    elif side == "aio":
        make = importlib.import_module("weald.aio").new_event_loop
    else:
        make = asyncio.SelectorEventLoop
    # Where asyncio.new_event_loop() looks, on every Python, and without a policy, which Python 3.14 deprecates.
    policy: Any = asyncio.unix_events._UnixDefaultEventLoopPolicy
    policy._loop_factory = staticmethod(make)
    if side != "uvloop":
        loop = make()
        loop.close()
        uvloop: Any = types.ModuleType("uvloop")
        uvloop.loop = uvloop
        uvloop.Loop, uvloop.new_event_loop, uvloop.EventLoopPolicy = type(loop), make, policy
        uvloop.__version__ = "0.23.0"
        sys.modules["uvloop"] = uvloop


# ------------------------------------------------------------------ in the process that is called


class CannotBeFetched(Exception):
    """No network, or no such version."""


class Runner:
    """A suite and its environment."""

    def __init__(self, name: str) -> None:
        from gauntlet_suites import SUITES

        self.name, self.suite = name, SUITES[name]
        self.sides = LOOPS if self.suite.loop else SIDES
        self.folder = HOME / f"{sys.version_info[0]}.{sys.version_info[1]}" / name
        self.python = self.folder / "venv/bin/python"
        self.source = self.folder / "source"
        self.kept = self.folder / "results"
        self.requires = [*self.suite.requires, *COMMON]
        if not any(requirement.startswith("pytest==") for requirement in self.requires):
            self.requires.append(PYTEST)
        self.key = repr((self.suite, self.requires, CONSTRAINTS.read_text()))

    def prepare(self) -> None:
        """Make the environment and unpack the source, unless that is done."""
        complete = self.folder / "complete"
        if complete.exists() and complete.read_text() == self.key:
            return
        complete.unlink(missing_ok=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        archive = self.fetch()
        base = getattr(sys, "_base_executable", sys.executable)
        self._call(base, "-m", "venv", "--clear", "--without-pip", str(self.folder / "venv"))
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(self.python))
        self._call(*pip, "install", "-q", "-c", str(CONSTRAINTS), *self.requires)
        with tempfile.TemporaryDirectory(dir=self.folder) as unpacked:
            with tarfile.open(archive) as opened:
                opened.extractall(unpacked, filter="data")
            subprocess.run(["rm", "-rf", str(self.source)], check=True)
            next(Path(unpacked).iterdir()).rename(self.source)
        for package in self.suite.aside:
            (self.source / package).rename(self.source / f"{package}-as-shipped")
        complete.write_text(self.key)

    def fetch(self) -> Path:
        """The archive with the source."""
        package, _, version = self.suite.requires[0].partition("==")
        folder = HOME / "sources" / f"{package.partition('[')[0]}-{version}"
        folder.mkdir(parents=True, exist_ok=True)
        if not list(folder.glob("*.tar.gz")):
            if self.suite.source == "pypi":
                download = (sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps")
                name = package.partition("[")[0]
                self._call(*download, "--no-binary", name, "-d", str(folder), f"{name}=={version}")
            else:
                repository, _, tag = self.suite.source.partition("@")
                url = f"https://github.com/{repository}/archive/refs/tags/{tag}.tar.gz"
                try:
                    with urllib.request.urlopen(url, timeout=60) as answer:
                        content = answer.read()
                except OSError as error:
                    raise CannotBeFetched(f"{url}: {error}") from None
                (folder / f"{tag}.part").write_bytes(content)
                (folder / f"{tag}.part").rename(folder / f"{tag}.tar.gz")
        return next(folder.glob("*.tar.gz"))

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stdout.splitlines() if not line.startswith("WARNING")]
            raise CannotBeFetched((errors or ["no word"])[-1])

    def run(self, side: str, only: list[str], port: int) -> Results:
        """One side's results."""
        arguments = [argument.format(port=port) for argument in [*self.suite.arguments, *self.suite.tests]]
        command = [str(self.python), __file__, "--run", side, "--seconds", str(self.suite.seconds), "--arguments"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
        environment |= {key: value.format(port=port) for key, value in self.suite.environment.items()}
        environment |= self.suite.plain if side == "plain" else {}
        # Tests that add to it (paho-mqtt's) leave a separator at its end, which stands for the current folder.
        environment["PYTHONPATH"] = f"{ROOT / 'src'}{os.pathsep}" if side in ("weald", "aio") else ""
        for start in self.suite.left_out:
            arguments.append(f"--deselect={start}" if "::" in start else f"--ignore={start}")
        for file, text in self.suite.files.items():
            (self.source / file).write_text(text.replace("{port}", str(port)))
        command.append(json.dumps(arguments))

        def run_left(results: Results) -> bool:
            return in_process(command, only, results, environment, PROCESS_SECONDS, self.source)

        return in_processes(run_left)

    def results(self, side: str, fresh: bool, port: int) -> Results:
        """One side's results, with what failed run once more; kept ones for any side but weald's and aio."""
        file = self.kept / f"{side}.json"
        if side not in ("weald", "aio") and not fresh and file.exists():
            kept = json.loads(file.read_text())
            if kept["key"] == self.key:
                return dict(kept["results"])
        begin = time.monotonic()
        results = self.run(side, [], port)
        again = [test for test, verdict in results.items() if kind_of(verdict) == "failed"]
        if again:
            second = self.run(side, again, port)
            results.update({test: second[test] for test in again if test in second})
        self.kept.mkdir(exist_ok=True)
        took = round(time.monotonic() - begin, 1)
        file.write_text(json.dumps({"key": self.key, "seconds": took, "results": results}, indent=1))
        return results

    def cells(self) -> str:
        """The suite's line in the table, from what is kept."""
        found = []
        for side in self.sides:
            kept = self.kept / f"{side}.json"
            numbers = counts(json.loads(kept.read_text())["results"]) if kept.exists() else ("?", "?", "?")
            found.append(" / ".join(map(str, numbers)))
        return f"| {self.suite.requires[0].replace('==', ' ')} | {' | '.join(found)} |"


@contextlib.contextmanager
def server(kind: str) -> Iterator[int]:
    """The port of a server for the tests, started as weald's own tests do it."""
    if not kind:
        yield 0
        return
    sys.path[1:1] = [str(ROOT / "tests"), str(ROOT / "tests/third_party")]
    try:
        if kind == "rabbitmq":
            rabbitmq = importlib.import_module("celery_worker").RabbitMQ
            importlib.import_module("conftest").require_program(rabbitmq.name, rabbitmq.name)
            with tempfile.TemporaryDirectory() as folder:
                broker = rabbitmq(Path(folder))
                broker.start()
                try:
                    broker.wait()
                    yield broker.port
                finally:
                    broker.kill()
        else:
            with getattr(importlib.import_module("servers"), kind)() as port:
                if kind == "mariadb":
                    connect = importlib.import_module("pymysql").connect
                    with connect(host="127.0.0.1", port=port, user="root") as connection:
                        for name in ("test1", "test2"):
                            connection.cursor().execute(f"create database {name}")
                yield port
    finally:
        del sys.path[1:3]


class Expected:
    """gauntlet.expected, of one suite."""

    def __init__(self, suite: str) -> None:
        self.lines: dict[str, str] = {}
        for line in EXPECTED.read_text().splitlines():
            if line and not line.startswith("#"):
                name, test, reason = line.split("  ", 2)
                if name == suite:
                    self.lines[test] = reason
        self.unseen = {test for test, reason in self.lines.items() if not reason.startswith("sometimes")}

    def lists(self, test: str) -> bool:
        """Whether this test may fail."""
        for listed in self.lines:
            if re.fullmatch(".*".join(map(re.escape, listed.split("*"))), test, re.DOTALL):
                self.unseen.discard(listed)
                return True
        return False


def judge(runner: Runner, options: argparse.Namespace) -> int:
    """Run a suite on every side and print it; how many tests are wrong."""
    runner.prepare()
    wanted = [side for side in runner.sides if side in (options.side or runner.sides)]
    with server(runner.suite.server) as port:
        if options.only:
            for side in wanted:
                for test, verdict in runner.run(side, options.only, port).items():
                    print(f"{side}: {test}: {verdict}")
            return 0
        sides = {side: runner.results(side, options.fresh, port) for side in wanted}
    print(runner.cells(), flush=True)
    other = runner.sides[2]
    plain, weald = (sides.get(side, {}) for side in runner.sides[:2])
    listed = Expected(runner.name)
    wrong = 0
    if plain and "passed" not in plain.values():
        wrong += 1
        print(f"    nothing passes with {runner.sides[0]}: {next(iter(plain.values()))[-500:]}")
    for test in differing(plain, weald) if plain and weald else []:
        verdict = weald.get(test, "missing")
        if not listed.lists(test) or kind_of(verdict) == "hung":
            wrong += 1
            lines = verdict.strip().splitlines()
            print(f"    {test}: {verdict if options.verbose else lines[0][:40] + ' … ' + lines[-1][:160]}")
            print(f"        with {other}: {kind_of(sides.get(other, {}).get(test))}", flush=True)
    for test in sorted(listed.unseen) if plain and weald else []:
        wrong += 1
        print(f"    {test}: listed as an expected failure, but does not differ", flush=True)
    return wrong


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description="Test suites of others: plain, patched by weald, patched by gevent.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="of gauntlet_suites.py; all of them by default")
    parser.add_argument("--short", action="store_true", help="the three that CI runs")
    parser.add_argument("--fresh", action="store_true", help="run the other two sides again, too")
    parser.add_argument("--side", action="append", choices=SIDES + LOOPS, help="run just this side")
    parser.add_argument("--only", action="append", default=[], metavar="TEST", help="run just this test; prints all")
    parser.add_argument("--table", action="store_true", help="run nothing, print what the last runs gave")
    parser.add_argument("-v", "--verbose", action="store_true", help="print tracebacks")
    for hidden in ("--run", "--choice", "--out", "--arguments", "--seconds"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        choice = json.loads(Path(options.choice).read_text())
        sys.argv = sys.argv[:1]
        chosen = (set(choice["only"]), set(choice["done"]), int(options.out))
        run_tests(options.run, json.loads(options.arguments), float(options.seconds), *chosen)
        return 0

    from gauntlet_suites import SHORT, SUITES

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers are ended, too
    unknown = set(options.suites) - SUITES.keys()
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(sorted(SUITES))}")
    wrong = skipped = 0
    names = options.suites or (SHORT if options.short else SUITES)
    heads = None
    for runner in sorted(map(Runner, names), key=lambda runner: (runner.sides is LOOPS, runner.name)):
        if heads is not runner.sides:
            heads = runner.sides
            print(f"| passed / failed / skipped | {' | '.join(heads)} |\n| --- | --- | --- | --- |")
        if options.table:
            print(runner.cells())
            continue
        try:
            wrong += judge(runner, options)
        except CannotBeFetched as error:
            skipped += 1
            print(f"{runner.name}: cannot be fetched (is there a network?), so it is not run: {error}", flush=True)
    if not options.table:
        print(f"{wrong} unexpected" + (f", {skipped} suites not run" if skipped else ""))
    return bool(wrong or (skipped and os.environ.get("CI") in ("true", "1")))


if __name__ == "__main__":
    sys.exit(main())
