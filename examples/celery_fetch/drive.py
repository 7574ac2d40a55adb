"""The main job: a Celery worker with a thousand greenlets fetches URLs that take half a second each.

Called by: `make run`.  Starts server.py and `celery -A proj worker -P gevent -c 1000`, sends TASKS tasks
(1,000) for URLs with a delay of DELAY seconds (0.5), shows their progress, and ends with what was measured.
Ctrl-C stops worker and server and ends with status 130.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TASKS = int(os.environ.get("TASKS", "1000"))
DELAY = float(os.environ.get("DELAY", "0.5"))
PATIENCE = 60 + TASKS * (DELAY + 0.05)  # seconds, even if all ran one by one
WORKER = ["celery", "-A", "proj", "worker", "-P", "gevent", "-c", "1000"]


children: list["subprocess.Popen[str]"] = []


def start(command: list[str], **options: Any) -> "subprocess.Popen[str]":
    """A child in this folder, with this environment's programs first and a process group of its own.

    A Ctrl-C meanwhile is kept until the child is on the list of those to stop.
    """
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: interrupts.append(number))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    child = subprocess.Popen(
        command, cwd=HERE, text=True, start_new_session=True, env={**os.environ, "PATH": path}, **options
    )
    children.append(child)
    signal.signal(signal.SIGINT, before)
    if interrupts:
        raise KeyboardInterrupt
    return child


def stop(child: "subprocess.Popen[str]") -> None:
    """SIGTERM, and SIGKILL if that does not help."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def collect(results: list[Any], worker: "subprocess.Popen[str]", log: Path) -> list[Any]:
    """Wait for every result, showing how many there are; return the values, exceptions of failed tasks included."""
    from celery.exceptions import CeleryError
    from rich.progress import Progress

    done: dict[str, Any] = {}
    waiting = list(results)
    deadline = time.monotonic() + PATIENCE
    with Progress() as progress:
        bar = progress.add_task("tasks", total=len(results))
        while waiting:
            if worker.poll() is not None:
                sys.exit(f"the worker ended with status {worker.returncode}:\n{log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                sys.exit(f"{len(waiting)} tasks are not done after {PATIENCE:.0f} s:\n{log.read_text()[-3000:]}")
            still = []
            for result in waiting:
                if result.ready():
                    try:
                        done[result.id] = result.get(propagate=False)
                    except CeleryError as error:
                        done[result.id] = error
                    progress.advance(bar)
                else:
                    still.append(result)
            if len(still) == len(waiting):
                time.sleep(0.05)
            waiting = still
    return list(done.values())


def in_flight(spans: list[tuple[float, float]]) -> int:
    """The largest number of tasks that ran at the same time."""
    now = most = 0
    for _, change in sorted([(began, 1) for began, _ in spans] + [(ended, -1) for _, ended in spans]):
        now += change
        most = max(most, now)
    return most


def report(values: list[Any], wall: float) -> bool:
    """Print the closing table; return whether every task succeeded."""
    from rich.console import Console
    from rich.table import Table

    good = [value for value in values if isinstance(value, dict)]
    spans = [(value["began"], value["ended"]) for value in good]
    own = sum(ended - began for began, ended in spans)
    table = Table(show_header=False)
    for name, value in [
        ("tasks", f"{len(values):,}"),
        ("failures", f"{len(values) - len(good):,}"),
        ("wall time", f"{wall:.2f} s"),
        ("sum of the tasks' own times", f"{own:.1f} s"),
        ("sum of the delays alone", f"{len(good) * DELAY:.1f} s"),
        ("largest number in flight", f"{in_flight(spans):,}"),
    ]:
        table.add_row(name, value)
    Console().print(table)
    return len(good) == len(values)


def main() -> int:
    """Run the job; 0 if every task succeeded."""
    folder = Path(tempfile.mkdtemp(prefix="weald-fetch-"))
    os.environ["FETCH_DIR"] = str(folder)
    log = folder / "worker.log"
    try:
        server = start([sys.executable, "server.py", str(DELAY)], stdout=subprocess.PIPE)
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        if not url:
            sys.exit("the server did not start")
        print(f"server: {url} answers after {DELAY} s\nworker: {' '.join(WORKER)}")
        with log.open("w") as out:
            worker = start(WORKER, stdout=out, stderr=subprocess.STDOUT)
        sys.path.insert(0, str(HERE))
        import proj

        deadline = time.monotonic() + 60
        while not (folder / "ready").exists():
            if worker.poll() is not None:
                sys.exit(f"the worker ended with status {worker.returncode}:\n{log.read_text()[-3000:]}")
            if time.monotonic() > deadline:
                sys.exit(f"the worker is not ready after a minute:\n{log.read_text()[-3000:]}")
            time.sleep(0.05)
        began = time.monotonic()
        results = [proj.submit(url) for _ in range(TASKS)]
        values = collect(results, worker, log)
        return 0 if report(values, time.monotonic() - began) else 1
    except KeyboardInterrupt:
        print("interrupted: stopping the worker and the server")
        return 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not leave orphans
        for child in reversed(children):
            stop(child)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
