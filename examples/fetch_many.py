"""Fetch many pages at a time, each within a time limit, with the standard library's own client.

python examples/fetch_many.py URL…        prints status and size of each, in the order in which they come
"""

import sys
import urllib.request

import weald
from weald import monkey, pool

monkey.patch_all()

AT_A_TIME = 100
LIMIT = 10  # seconds for each page


def fetch(url: str) -> str:
    try:
        with weald.Timeout(LIMIT), urllib.request.urlopen(url) as response:
            return f"{response.status} {len(response.read())} {url}"
    except (OSError, ValueError, weald.Timeout) as error:
        return f"failed: {error} {url}"


if __name__ == "__main__":
    for line in pool.Pool(AT_A_TIME).imap_unordered(fetch, sys.argv[1:]):
        print(line, flush=True)
