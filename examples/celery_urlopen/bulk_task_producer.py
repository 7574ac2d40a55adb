"""Sends a task for each page of a site and shows the progress: `python bulk_task_producer.py BASE_URL [COUNT]`."""

import sys

from rich.progress import track
from tasks import open_url


def main() -> int:
    """0 if every page was opened."""
    base, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    results = [open_url.delay(f"{base}page/{number}") for number in range(count)]
    opened = [result.get(timeout=60, propagate=False) for result in track(results, "pages")]
    good = [value for value in opened if isinstance(value, (list, tuple))]
    print(f"{len(good)} of {count} pages, {sum(size for _, _, size in good)} bytes")
    return 0 if len(good) == count else 1


if __name__ == "__main__":
    sys.exit(main())
