"""Async style with blocking clients: coroutines fetch pages by requests and store them by psycopg.

python examples/blocking_clients.py DSN URL…        one row a page in the table `pages` of the PostgreSQL database DSN

Nothing is run in threads: a coroutine that blocks in requests or psycopg stalls only itself.
"""

from weald import monkey

monkey.patch_all()

import asyncio  # noqa: E402
import sys  # noqa: E402

import psycopg  # noqa: E402
import requests  # noqa: E402
from rich.progress import Progress  # noqa: E402

AT_A_TIME = 100
LIMIT = 10  # seconds for each wait for a server
TABLE = "CREATE TABLE IF NOT EXISTS pages (url text PRIMARY KEY, status int, size int)"
STORE = (
    "INSERT INTO pages VALUES (%(url)s, %(status)s, %(size)s)"
    " ON CONFLICT (url) DO UPDATE SET status = %(status)s, size = %(size)s"
)


async def store(dsn: str, url: str, free: asyncio.Semaphore) -> str:
    async with free:
        try:
            response = requests.get(url, timeout=LIMIT)  # blocks this coroutine
        except requests.RequestException as error:
            return f"failed: {error!r} {url}"
        with psycopg.connect(dsn) as connection:  # and so does this
            connection.execute(STORE, {"url": url, "status": response.status_code, "size": len(response.content)})
    return f"{response.status_code} {len(response.content)} {url}"


async def main(dsn: str, urls: list[str]) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(TABLE)
    free = asyncio.Semaphore(AT_A_TIME)
    with Progress() as progress:
        bar = progress.add_task("fetching", total=len(urls))
        for line in asyncio.as_completed([store(dsn, url, free) for url in urls]):
            print(await line, flush=True)
            progress.advance(bar)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
