"""10,000 pages by a thousand greenlets in two processes: how to use more than one process, with Celery.

    python many.py [--pages 10000] [--workers 2] [--greenlets 500] [--delay 0.5]

Starts a site that answers each request after the delay, and the workers, which share a broker: the Redis that BROKER
and BACKEND name, or one on this machine.  More workers on other machines can join with the same broker.
"""

import argparse
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from tasks import app, store, visit

HERE = Path(__file__).resolve().parent


def main() -> int:
    """0 if all pages were fetched."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--greenlets", type=int, default=500, help="of each worker")
    parser.add_argument("--delay", type=float, default=0.5, help="seconds until the site answers")
    parser.add_argument("--patience", type=float, default=600, help="seconds until it gives up")
    options = parser.parse_args()
    crawl = f"crawl:{uuid.uuid4()}"
    site = subprocess.Popen(
        [sys.executable, str(HERE.parent / "celery_site.py"), str(options.pages), str(options.delay)],
        stdout=subprocess.PIPE, text=True,
    )
    workers = [start_worker(f"crawler{number}", options.greenlets) for number in range(options.workers)]
    try:
        assert site.stdout is not None
        url = site.stdout.readline().strip()
        await_workers(len(workers), options.patience)
        began = time.monotonic()
        visit(crawl, f"{url}page/0")
        done = watch(crawl, options.pages, began + options.patience)
        show(crawl, done, time.monotonic() - began)
    finally:
        for child in (*workers, site):
            child.terminate()
        statuses = [child.wait() for child in workers]
        site.wait()
    return 0 if done == options.pages and not any(statuses) else 1


def start_worker(name: str, greenlets: int) -> subprocess.Popen[bytes]:
    """A worker process of that name."""
    command = [sys.executable, "-m", "weald", "celery", "-q", "-A", "tasks", "worker", "-n", f"{name}@%h", "-c",
               str(greenlets), "--without-gossip", "--without-mingle"]
    return subprocess.Popen(command, cwd=HERE, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def await_workers(count: int, seconds: float) -> None:
    """Wait until so many workers answer."""
    deadline = time.monotonic() + seconds
    while len(app.control.ping(timeout=0.5)) < count:
        if time.monotonic() > deadline:
            sys.exit("the workers do not answer: is there a Redis?")


def watch(crawl: str, pages: int, deadline: float) -> int:
    """Show how many pages are done, until all are or none is left; return how many are."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
               TimeElapsedColumn())
    with Progress(*columns) as progress:
        bar = progress.add_task("pages", total=pages, rate="")
        began, done = time.monotonic(), 0
        while done < pages and int(store.get(f"{crawl}:open") or 0) > 0 and time.monotonic() < deadline:
            time.sleep(0.1)
            done = store.scard(f"{crawl}:done")
            progress.update(bar, completed=done, rate=f"{done / (time.monotonic() - began):.0f} pages/s")
        done = store.scard(f"{crawl}:done")
        progress.update(bar, completed=done)
    return done


def show(crawl: str, done: int, seconds: float) -> None:
    """The summary: what each worker has fetched."""
    table = Table("worker", "pages", "pages/s", "kB")
    sizes = {name: int(value) for name, value in store.hgetall(f"{crawl}:bytes").items()}
    for name, pages in sorted(store.hgetall(f"{crawl}:pages").items()):
        table.add_row(name.decode(), str(int(pages)), f"{int(pages) / seconds:.0f}", f"{sizes[name] / 1000:.0f}")
    Console().print(table)
    print(f"{done} pages in {seconds:.1f} s: {done / seconds:.0f} pages/s")


if __name__ == "__main__":
    sys.exit(main())
