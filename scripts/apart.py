"""Runs tests in processes that report the begin and end of each test, so that none is lost if one hangs or dies.

Called by: scripts/stdlib_tests.py, scripts/gauntlet.py, in the tests' process and in the one that starts it.
It needs nothing but the standard library: the tests' process may have any environment.

Every test has a time limit: after `seconds` faulthandler prints the traceback and ends the process.
"""

import fcntl
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

Results = dict[str, str]  # test id: "passed", or "skipped", "failed", "hung", "died", then ": " and why


# ------------------------------------------------------------------ in the process that runs the tests


class Reports:
    """Reports the tests' progress; made before anything is patched."""

    def __init__(self, out: int, seconds: float) -> None:
        # A high number, because tests rely on low ones, and closed in children: a daemon of a test must not
        # keep the pipe open.
        self.out = fcntl.fcntl(out, fcntl.F_DUPFD_CLOEXEC, 200)
        os.close(out)
        # Tests replace descriptor 2.
        self._errors = fcntl.fcntl(2, fcntl.F_DUPFD_CLOEXEC, 200)
        self._seconds, self._write, self._getpid = seconds, os.write, os.getpid
        self._pid = os.getpid()

    def begin(self, test: str) -> None:
        """Report that the test begins, and start its time limit."""
        import faulthandler

        self._report("begin", test)
        if self._getpid() == self._pid:
            faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._errors)

    def end(self, test: str, verdict: str) -> None:
        """Report the test's verdict.  The code that runs before the next test has the same time limit."""
        self._report("end", test, verdict)

    def _report(self, *fields: str) -> None:
        if self._getpid() == self._pid:
            self._write(self.out, (json.dumps(fields) + "\n").encode())


# ------------------------------------------------------------------ in the process that is called


def in_processes(run: Callable[[Results], bool]) -> Results:
    """The results of `run`, called until it returns true or adds nothing; each call starts a process for the rest."""
    results: Results = {}
    while True:
        before = len(results)
        if run(results) or len(results) == before:
            return results


def in_process(
    command: Sequence[str], only: Sequence[str], results: Results, environment: Mapping[str, str], seconds: float,
    cwd: Path | None = None,
) -> bool:
    """Run `command --choice FILE --out FD`, and add its reports to `results`; true if it reached its end.

    FILE contains the tests to run (all, if the list is empty) and those that are done.  After `seconds` the process and
    its children are killed.
    """  # fmt: skip
    read, write = os.pipe()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        choice = Path(folder, "choice.json")
        choice.write_text(json.dumps({"only": list(only), "done": list(results)}))
        os.mkdir(Path(folder, "work"))
        process = subprocess.Popen(
            [*command, "--choice", str(choice), "--out", str(write)],
            cwd=cwd or Path(folder, "work"),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[write],
            start_new_session=True,
        )
        os.close(write)
        late: list[float] = []
        ending = threading.Thread(target=_end, args=(process, seconds, late))
        ending.start()
        running = ""
        reached_end = False
        try:
            with open(read) as reports:
                for line in reports:
                    kind, test, *verdict = json.loads(line)
                    running = test if kind == "begin" else ""
                    reached_end = reached_end or running == "exit"
                    if verdict:
                        results[test] = verdict[0]
        except BaseException:  # ended by a signal
            os.killpg(process.pid, signal.SIGKILL)
            raise
        ending.join()
        status = process.returncode
        output.seek(0)
        printed = output.read().decode(errors="replace")
    if status and (running or not reached_end):
        hung = late or ("Timeout (" in printed[-30000:] and status == 1)
        verdict = "hung" if hung else f"died: exit status {status}"
        results[running or "start"] = f"{verdict}: {printed[-6000:]}"
        return reached_end
    return True


def _end(process: "subprocess.Popen[bytes]", seconds: float, late: list[float]) -> None:
    """Wait for a process, then kill the children that its tests left behind, which may keep the pipe open."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        late.append(seconds)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kind_of(verdict: str | None) -> str:
    """passed, skipped, failed, hung, died or missing"""
    return "missing" if verdict is None else verdict.partition(":")[0]


def counts(results: Results) -> tuple[int, int, int]:
    """How many passed, failed and were skipped."""
    kinds = Counter(kind_of(verdict) for verdict in results.values())
    return kinds["passed"], sum(kinds.values()) - kinds["passed"] - kinds["skipped"], kinds["skipped"]


def differing(unpatched: Results, patched: Results) -> list[str]:
    """Tests that pass unpatched and do not patched, and those that are there only patched and fail."""
    found = [test for test, verdict in unpatched.items() if verdict == "passed" and patched.get(test) != "passed"]
    extra = [test for test in patched if test not in unpatched and kind_of(patched[test]) not in ("passed", "skipped")]
    # A process that did not even begin is reported once, not for each test.
    return extra if "start" in extra else found + extra
