"""Runs CPython's own tests, patched by weald and unpatched.

    scripts/stdlib-tests [--jobs N] [--seconds S] [--fresh] [-v] [MODULE ...]

Called by: scripts/stdlib-tests.  It runs the interpreter's installed `test` package, not a copy.
Each module runs in a process of its own, after `weald.monkey.patch_all()`.  A test that takes longer than
`--seconds` ends that process, with a traceback and the test's name; a new one goes on with the module's other
tests.  Tests that fail are run once more alone, as with CPython's own `-w`, because the machine may have been busy.

Tests that pass unpatched must pass patched, unless stdlib_tests.expected lists them, one per line:

    INTERPRETER[,INTERPRETER...] TEST-ID REASON

If a reason begins with "sometimes", the test may also pass.  A hang is never an expected failure.
Exit status: 1 if a test differs without being listed, or is listed though it passes; else 0.
The unpatched results are kept in build/stdlib-tests until `--fresh` is given.
"""

import argparse
import concurrent.futures
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from apart import Reports, Results, counts, differing, in_process, in_processes, kind_of

MODULES = [
    *("socket", "ssl", "select", "selectors", "poll", "epoll", "socketserver", "ftplib", "smtplib", "imaplib"),
    *("poplib", "httplib", "httpservers", "urllib2_localnet", "xmlrpc", "queue", "threading", "thread"),
    *("threading_local", "threadedtempfile", "subprocess", "signal", "os", "wsgiref", "concurrent_futures"),
    *("asyncio.test_base_events", "asyncio.test_buffered_proto", "asyncio.test_events"),
    *("asyncio.test_selector_events", "asyncio.test_sendfile", "asyncio.test_server"),
    *("asyncio.test_sock_lowlevel", "asyncio.test_ssl", "asyncio.test_sslproto", "asyncio.test_streams"),
    *("asyncio.test_subprocess", "asyncio.test_threads", "asyncio.test_unix_events"),
    *("logging", "contextlib", "context"),
]
# They hang, or leave a thread behind that never ends.  stdlib_tests.expected has the reasons.
LEFT_OUT = {
    "test.test_threading.ThreadTests.test_PyThreadState_SetAsyncExc_interrupts_sleep",
    "test.test_logging.RotatingFileHandlerTest.test_should_not_rollover_named_pipe",
}
# Watchers of children (until Python 3.13), which weald's loop does not use.  Some reap all children, so whether the
# loop gets a status depends on timing.  They do not test a loop, so neither side runs them.
NO_TESTS_OF_OURS = (
    "test.test_asyncio.test_subprocess.SubprocessFastWatcherTests.",
    "test.test_asyncio.test_subprocess.SubprocessSafeWatcherTests.",
    "test.test_asyncio.test_subprocess.GenericWatcherTests.",
)
INTERPRETER = f"{sys.version_info[0]}.{sys.version_info[1]}"
EXPECTED = Path(__file__).with_name("stdlib_tests.expected")
MOST_EXPECTED = 60
KEPT = Path(__file__).parent.parent / "build/stdlib-tests" / sys.version.split()[0]
SOURCE = Path(__file__).parent.parent / "src"
MODULE_SECONDS = 3600.0  # for one process, however many tests it runs


# ------------------------------------------------------------------ in the process that runs the tests


def run_tests(patched: bool, name: str, seconds: float, only: list[str], done: set[str], out: int) -> None:
    """Run module `name` but for `done`, or just `only`; a JSON line for each test's begin and end goes to `out`."""
    reports = Reports(out, seconds)
    if patched:
        import weald.monkey

        weald.monkey.patch_all()
        # The loop leaves a gap below its descriptors, and some tests need two numbers in a row.
        weald.get_hub()
        top = max(fd for fd in map(int, os.listdir("/proc/self/fd")) if fd < 200)
        while os.dup(2) < top:
            pass
    import faulthandler
    import traceback
    import unittest

    from test import support

    class Result(unittest.TestResult):
        verdict = "passed"

        def startTest(self, test: unittest.TestCase) -> None:
            super().startTest(test)
            reports.begin(test.id())

        def stopTest(self, test: unittest.TestCase) -> None:
            faulthandler.cancel_dump_traceback_later()
            reports.end(test.id(), self.verdict)
            self.verdict = "passed"
            super().stopTest(test)

        def addSkip(self, test: unittest.TestCase, reason: str) -> None:
            self._verdict(test, f"skipped: {reason}")

        def addExpectedFailure(self, test: unittest.TestCase, err: object) -> None:
            self.verdict = "passed"

        def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
            self.verdict = "failed: unexpected success"

        def addFailure(self, test: unittest.TestCase, err: object) -> None:
            self._verdict(test, "failed: " + "".join(traceback.format_exception(*err)))  # type: ignore[misc]

        def addError(self, test: unittest.TestCase, err: object) -> None:
            self.addFailure(test, err)

        def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: object) -> None:
            if err is not None:
                self.addFailure(test, err)

        def _verdict(self, test: unittest.TestCase, verdict: str) -> None:
            if isinstance(test, unittest.TestCase):
                if not (verdict.startswith("skipped") and self.verdict.startswith("failed")):  # of a subtest
                    self.verdict = verdict
            else:  # a class's or module's fixture
                reports.begin(test.id())
                reports.end(test.id(), verdict)

    def chosen(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
        for test in suite:
            if isinstance(test, unittest.TestSuite):
                yield from chosen(test)
            elif (
                test.id() not in done and (not only or test.id() in only) and not test.id().startswith(NO_TESTS_OF_OURS)
            ):
                if patched and test.id() in LEFT_OUT:
                    reports.begin(test.id())
                    reports.end(test.id(), "failed: left out")
                else:
                    yield test

    faulthandler.enable()
    # Without "network", which means the Internet; but test_socketserver asks for it to use the loopback.
    resources = ["cpu", "subprocess", "walltime", *(["network"] if name == "socketserver" else [])]
    support.use_resources = dict.fromkeys(resources)
    support.verbose = False
    suite = None
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName("test.test_" + name)
    except unittest.SkipTest as skip:
        reports.begin(name)
        reports.end(name, f"skipped: {skip}")
    if suite is not None:
        unittest.TestSuite(chosen(suite)).run(Result())
    reports.begin("exit")


# ------------------------------------------------------------------ in the process that is called


def run_module(patched: bool, name: str, seconds: float, only: Sequence[str] = ()) -> Results:
    """The results of all tests of a module, or of `only`, in as many processes as it takes."""
    command = [sys.executable, __file__, "--run", name, "--seconds", str(seconds), *(["--patched"] if patched else [])]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return in_processes(lambda results: in_process(command, only, results, environment, MODULE_SECONDS))


def compare(name: str, seconds: float, fresh: bool) -> tuple[Results, Results, float]:
    """Unpatched and patched results of module `name`, and how long the patched run took."""
    kept = KEPT / f"{name}.json"
    if fresh or not kept.exists():
        unpatched = run_module(False, name, seconds)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(unpatched, indent=1))
    unpatched = json.loads(kept.read_text())
    begin = time.monotonic()
    patched = run_module(True, name, seconds)
    took = time.monotonic() - begin
    again = [test for test in differing(unpatched, patched) if kind_of(patched.get(test)) == "failed"]
    if again:
        second = run_module(True, name, seconds, again)
        patched.update({test: second[test] for test in again if test in second})
    return unpatched, patched, took


def _counts(results: Results) -> str:
    passed, failed, skipped = counts(results)
    return f"{passed:5} {failed:4} {skipped:4}"


def expected() -> dict[str, str]:
    """The listed differences of this interpreter: test id to reason."""
    found: dict[str, str] = {}
    for line in EXPECTED.read_text().splitlines():
        if line and not line.startswith("#"):
            interpreters, test, reason = line.split(None, 2)
            if INTERPRETER in interpreters.split(","):
                if test in found:
                    sys.exit(f"{EXPECTED.name}: {test} is listed twice")
                found[test] = reason
    if len(found) > MOST_EXPECTED:
        sys.exit(f"{EXPECTED.name}: {len(found)} tests for {INTERPRETER}, at most {MOST_EXPECTED} may be listed")
    return found


def main() -> int:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description="CPython's own tests, patched and unpatched, side by side.")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="test_socket, test_asyncio.test_streams, ...")
    parser.add_argument("--jobs", type=int, default=2, help="modules at a time (2)")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a test may take (60)")
    parser.add_argument("--fresh", action="store_true", help="run the unpatched tests again, too")
    parser.add_argument("-v", "--verbose", action="store_true", help="print tracebacks")
    for hidden in ("--run", "--choice", "--out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--patched", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        choice = json.loads(Path(options.choice).read_text())
        sys.argv = sys.argv[:1]
        chosen = (choice["only"], set(choice["done"]), int(options.out))
        run_tests(options.patched, options.run, options.seconds, *chosen)
        return 0

    listed = expected()
    names = [module.removeprefix("test.").removeprefix("test_") for module in options.modules] or MODULES
    if "concurrent_futures" in names:
        spec = find_spec("test.test_concurrent_futures")
        if spec is not None and spec.submodule_search_locations:
            folder = Path(spec.submodule_search_locations[0])
            names.remove("concurrent_futures")
            names += sorted(f"concurrent_futures.{path.stem}" for path in folder.glob("test_*.py"))
    wrong = []
    print(f"CPython {sys.version.split()[0]}: passed, failed, skipped unpatched; patched; time patched")
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = {}
        for name in names:
            if find_spec("test.test_" + name) is None:
                print(f"test_{name}: not installed with this interpreter")
            else:
                runs[pool.submit(compare, name, options.seconds, options.fresh)] = name
        for run in concurrent.futures.as_completed(runs):
            unpatched, patched, took = run.result()
            print(f"test_{runs[run]:32} {_counts(unpatched)}    {_counts(patched)}   {took:6.1f} s", flush=True)
            differ = differing(unpatched, patched)
            for test in differ:
                verdict = patched.get(test, "missing")
                if test not in listed or kind_of(verdict) == "hung":
                    wrong.append(test)
                    lines = verdict.strip().splitlines()
                    print(f"    {test}: {verdict if options.verbose else lines[0][:40] + ' ' + lines[-1][:160]}")
            always = {test for test, reason in listed.items() if not reason.startswith("sometimes")}
            for test in sorted(always & unpatched.keys() - set(differ)):
                wrong.append(test)
                print(f"    {test}: listed as an expected failure, but does not differ")
    print(f"{len(wrong)} unexpected, {len(listed)} expected failures for {INTERPRETER}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
