"""Crawls a site from a URL and shows the progress: `python crawl.py URL`."""

import sys
import time
import uuid

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tasks import store, visit


def main() -> int:
    """0 if every page found could be fetched."""
    crawl = f"crawl:{uuid.uuid4()}"
    visit(crawl, sys.argv[1])
    deadline = time.monotonic() + 120
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()) as progress:
        bar = progress.add_task("pages", total=1)
        while int(store.get(f"{crawl}:open") or 0) > 0 and time.monotonic() < deadline:
            done, seen = store.scard(f"{crawl}:done"), store.scard(f"{crawl}:seen")
            progress.update(bar, completed=done, total=seen)
            time.sleep(0.1)
        done, seen = store.scard(f"{crawl}:done"), store.scard(f"{crawl}:seen")
        progress.update(bar, completed=done, total=seen)
    print(f"{done} of {seen} pages")
    return 0 if done == seen else 1


if __name__ == "__main__":
    sys.exit(main())
