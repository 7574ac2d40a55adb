"""Blocking style with async clients: greenlets fetch pages by aiohttp and store them by asyncpg.

python examples/async_clients.py DSN URL…        one row a page in the table `pages` of the PostgreSQL database DSN

All greenlets share a session and a pool, which run on one loop beside them, in the same thread.
"""

import sys

import aiohttp
import asyncpg
from rich.progress import track

import weald
from weald.aio import await_
from weald.pool import Pool

AT_A_TIME = 100
LIMIT = 10  # seconds for each page
TABLE = "CREATE TABLE IF NOT EXISTS pages (url text PRIMARY KEY, status int, size int)"
STORE = "INSERT INTO pages VALUES ($1, $2, $3) ON CONFLICT (url) DO UPDATE SET status = $2, size = $3"


async def fetch(session: aiohttp.ClientSession, url: str) -> tuple[int, int]:
    async with session.get(url) as response:
        return response.status, len(await response.read())


async def connect(dsn: str) -> tuple[aiohttp.ClientSession, asyncpg.Pool]:
    """Objects that belong to a loop must be made on it."""
    database = await asyncpg.create_pool(dsn, min_size=1, max_size=10)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_A_TIME)), database


def main(dsn: str, urls: list[str]) -> None:
    session, database = await_(connect(dsn))
    await_(database.execute(TABLE))

    def store(url: str) -> str:
        try:
            status, size = await_(fetch(session, url), timeout=LIMIT)
        except (aiohttp.ClientError, TimeoutError) as error:
            return f"failed: {error!r} {url}"
        await_(database.execute(STORE, url, status, size))
        return f"{status} {size} {url}"

    lines = Pool(AT_A_TIME).imap_unordered(store, urls)
    for line in track(lines, "fetching", total=len(urls)):
        print(line, flush=True)
    await_(session.close())
    await_(database.close())
    weald.sleep(0)  # aiohttp closes its connections in the loop's next round


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
