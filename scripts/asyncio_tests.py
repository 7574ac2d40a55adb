"""CPython's own tests of asyncio (test.test_asyncio), with weald's loop next to asyncio's own.

Called by: scripts/asyncio-tests.

    asyncio_tests.py [-v] [-j N] [--together] [MODULE ...] [-k TEXT]

Each test runs in a process of its own; with --together, those of a class in one, which is quicker.  A test counts as
lost if it passes with asyncio's loop and not with weald's.  asyncio_tests.expected names those that may be lost, each
with its reason; the run fails if others are.
Tests of asyncio's own classes behind the interface (selectors, its event loop's methods, watchers of children) are left
out, because they do not test a loop.
"""

import argparse
import json
import re
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MODULES = [
    "buffered_proto", "context", "eager_task_factory", "events", "free_threading", "futures", "futures2", "graph",
    "locks", "pep492", "protocols", "queues", "runners", "sendfile", "server", "sock_lowlevel", "ssl", "sslproto",
    "staggered", "streams", "subprocess", "taskgroups", "tasks", "threads", "timeouts", "unix_events", "waitfor",
]  # fmt: skip
# Duplicates with other selectors, and tests of classes that are not the loop's.
LEFT_OUT = re.compile(
    r"\.(SelectEventLoopTests|PollEventLoopTests|KqueueEventLoopTests|Proactor\w*|AbstractChildWatcherTests"
    r"|BaseChildWatcherTests|SafeChildWatcherTests|FastChildWatcherTests|SelectorEventLoopSignalTests"
    r"|SelectorEventLoopUnixSockSendfileTests|PolicyTests|Subprocess(Safe|Fast|Threaded)WatcherTests"
    r"|MultiLoopChildWatcherTests|GenericWatcherTests|ThreadedChildWatcherTests|PidfdChildWatcherTests)\."
)
TIMEOUT = 120  # seconds for a process
EXPECTED = Path(__file__).with_suffix(".expected")


def use_weald() -> None:
    """Make weald's loop asyncio's."""
    import asyncio
    import asyncio.unix_events as unix_events

    from weald.aio import EventLoop

    class SelectorEventLoop(EventLoop):
        def __init__(self, selector: Any = None) -> None:
            if selector is not None:
                selector.close()
            super().__init__()

    for module in (asyncio, unix_events):
        module.SelectorEventLoop = SelectorEventLoop  # type: ignore[attr-defined,misc]
        if hasattr(module, "EventLoop"):
            module.EventLoop = SelectorEventLoop  # type: ignore[attr-defined,misc]
    for name in ("DefaultEventLoopPolicy", "_DefaultEventLoopPolicy"):
        if hasattr(unix_events, name):
            getattr(unix_events, name)._loop_factory = SelectorEventLoop


def tests_in(suite: Any) -> list[Any]:
    if isinstance(suite, unittest.TestSuite):
        return [test for each in suite for test in tests_in(each)]
    return [suite]


def child(loop: str, command: str, names: list[str]) -> None:
    """List the tests of modules, or run tests and print their outcomes."""
    if loop == "weald":
        use_weald()
    loader = unittest.TestLoader()
    if command == "list":
        ids = []
        for name in names:
            try:
                found = loader.loadTestsFromName(f"test.test_asyncio.test_{name}")
            except (unittest.SkipTest, ImportError, AttributeError):
                continue
            ids += [test.id() for test in tests_in(found) if "_FailedTest" not in test.id()]
        print(json.dumps(sorted(set(ids))))
        return
    results: dict[str, str] = {}
    for name in names:
        result = unittest.TestResult()
        loader.loadTestsFromName(name).run(result)
        bad = [text for _, text in result.errors + result.failures]
        results[name] = bad[0] if bad else "skipped" if result.skipped else "ok"
        print("\n@" + json.dumps({name: results[name]}), flush=True)


def run_child(loop: str, command: str, names: list[str]) -> tuple[str, str]:
    args = [sys.executable, "-W", "ignore", __file__, "--child", loop, command, *names]
    try:
        done = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    except subprocess.TimeoutExpired as error:
        out = error.stdout or b""
        return out.decode(errors="replace") if isinstance(out, bytes) else out, "timed out"
    return done.stdout, f"exit status {done.returncode}\n{done.stderr[-3000:]}"


def run_tests(loop: str, names: list[str]) -> dict[str, str]:
    """The outcome of each: "ok", "skipped" or the reason of its failure."""
    out, how = run_child(loop, "run", names)
    results: dict[str, str] = {}
    for line in out.splitlines():
        if line.startswith("@{"):
            results.update(json.loads(line[1:]))
    missing = [name for name in names if name not in results]
    if missing and len(names) == 1:
        return {names[0]: how}
    for name in missing:
        results.update(run_tests(loop, [name]))
    return results


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("modules", nargs="*", default=MODULES)
    parser.add_argument("-v", action="store_true", help="why each lost test failed")
    parser.add_argument("-j", type=int, default=2, help="processes at a time")
    parser.add_argument("-k", default="", help="only tests with this in their names")
    parser.add_argument("--together", action="store_true", help="a process a class, not a test")
    options = parser.parse_args()
    listed, how = run_child("asyncio", "list", options.modules)
    if not listed:
        print(f"this Python has no test.test_asyncio, or it cannot be read: {how}")
        return 1
    names = [name for name in json.loads(listed) if not LEFT_OUT.search(name) and options.k in name]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.rpartition(".")[0] if options.together else name, []).append(name)
    lost: dict[str, str] = {}
    passed = 0
    with ThreadPoolExecutor(options.j) as pool:
        for theirs, group in zip(
            pool.map(lambda group: run_tests("weald", group), groups.values()), groups.values(), strict=True
        ):
            bad = [name for name in group if theirs[name] not in ("ok", "skipped")]
            own = run_tests("asyncio", bad) if bad else {}
            passed += sum(theirs[name] == "ok" or own.get(name) == "ok" for name in group)
            lost.update({name: theirs[name] for name in bad if own[name] == "ok"})
    expected = {}
    if EXPECTED.exists():
        for line in EXPECTED.read_text().splitlines():
            if line and not line.startswith("#"):
                name, _, reason = line.partition("  ")
                expected[name] = reason.strip()
    for name, why in sorted(lost.items()):
        short = name.removeprefix("test.test_asyncio.")
        print(f"lost: {short}" + (f"  (expected: {expected[short]})" if short in expected else ""))
        if options.v:
            print("    " + why.replace("\n", "\n    "))
    new = [name for name in lost if name.removeprefix("test.test_asyncio.") not in expected]
    print(f"{passed} of {len(names)} tests pass with asyncio's loop")
    print(f"{len(lost)} of them fail with weald's, {len(new)} unexpected")
    return bool(new)


if __name__ == "__main__":
    sys.exit(main())
