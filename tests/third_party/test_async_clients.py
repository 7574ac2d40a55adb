"""Blocking clients in coroutines, and async clients in coroutines and greenlets: patched, against real servers.

No test measures time.  Each server's answers are held back until all calls wait for them: if one that blocks stalled
the others, none would ever get an answer.
"""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import servers
from helpers import PATIENCE, run_patched

pytestmark = pytest.mark.timeout(900)  # a server's package may have to be installed first

COUNT = 100

PRELUDE = f"""
import asyncio, contextvars, weald, weald.aio
from weald.aio import await_
COUNT = {COUNT}
variable = contextvars.ContextVar("variable")

async def watched(call, number):
    "What is each coroutine's own is so while it blocks, and its timeout does not come early."
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    variable.set(number)
    async with asyncio.timeout(100):
        answer = call(number)
        if asyncio.iscoroutine(answer):
            answer = await answer
        assert asyncio.current_task() is task and asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
    assert asyncio.current_task() is task and variable.get() == number
    return answer

async def at_once(call):
    return await asyncio.gather(*[watched(call, number) for number in range(COUNT)])

async def wait_for(count):
    while await count() < COUNT:
        await asyncio.sleep(0.02)
"""


def check(code, **values):
    """Run `code` patched, with `values` as its globals; it prints 0, 1, … COUNT - 1."""
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    out = run_patched(PRELUDE + given + code)
    assert out.split() == [str(number) for number in range(COUNT)]


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# ------------------------------------------------------------------ blocking code in coroutines

BLOCKING = {
    "queue.get": """
import queue
asked, answers = queue.Queue(), [queue.Queue() for _ in range(COUNT)]
def call(number):
    asked.put(number)
    return answers[number].get()
def answer():
    for number in [asked.get() for _ in range(COUNT)]:
        answers[number].put(number)
weald.spawn(answer)
""",
    "Barrier.wait": """
import threading
barrier = threading.Barrier(COUNT)
def call(number):
    barrier.wait()
    return number
""",
    "Condition.wait": """
import threading
condition, waiting = threading.Condition(), []
def call(number):
    with condition:
        waiting.append(number)
        condition.notify_all()
        assert condition.wait_for(lambda: len(waiting) == COUNT)
    return number
""",
    "a child's pipe": """
import os, subprocess
ends = os.pipe()
def call(number):
    # Each child ends when all have begun and the last copy of the other end is closed.
    child = subprocess.Popen(["sh", "-c", f"read line; echo {number}"], stdin=ends[0], stdout=subprocess.PIPE)
    begun.append(number)
    if len(begun) == COUNT:
        os.close(ends[1])
    return int(child.communicate()[0])
begun = []
""",
    "to_thread": """
import threading
barrier = threading.Barrier(COUNT)
async def call(number):
    asyncio.get_running_loop().set_default_executor(executor)
    return await asyncio.to_thread(number.__add__, 0)
import concurrent.futures
executor = concurrent.futures.ThreadPoolExecutor(4)
""",
}


@pytest.mark.parametrize("what", BLOCKING)
def test_of_the_standard_library(what):
    check(BLOCKING[what] + "for number in asyncio.run(at_once(call)): print(number)")


def test_sleep_on_a_clock_that_jumps():
    """100 sleeps of 0.1 s take 0.1 s together."""
    out = run_patched(
        PRELUDE
        + """
import time
from weald.testing import virtual_clock
async def main():
    loop = asyncio.get_running_loop()
    before = loop.time()
    await at_once(lambda number: time.sleep(0.1))
    return loop.time() - before
with virtual_clock():
    print(f"{asyncio.run(main()):.6f}")
"""
    )
    assert out == "0.100000\n"


def test_requests():
    with servers.GatedHttp(COUNT) as server:
        check(
            """
import requests
for answer in asyncio.run(at_once(lambda number: requests.get(f"{url}/{number}", timeout=100))):
    print(answer.text[1:])
""",
            url=f"http://127.0.0.1:{server.port}",
        )


LOCKS = """
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
LOCK, SHARED, UNLOCK = [f"SELECT 1 FROM pg_advisory_{name}(1)" for name in ("lock", "lock_shared", "unlock")]
address = dict(host="127.0.0.1", port=port, user="postgres")
"""

PSYCOPG = """
import psycopg
def connect():
    return psycopg.connect(**address, dbname="postgres", autocommit=True)
def call(number):
    with connect() as connection:
        connection.execute(SHARED)
        return connection.execute("SELECT %s::int", [number]).fetchone()[0]
def ask(connection, query):
    return connection.execute(query).fetchone()[0]
"""

PSYCOPG2 = """
import psycopg2
def connect():
    made = psycopg2.connect(**address, dbname="postgres")
    made.autocommit = True
    return made
def ask(connection, query):
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0]
def call(number):
    connection = connect()
    ask(connection, SHARED)
    return ask(connection, f"SELECT {number}")
"""


@pytest.mark.parametrize("client", ["psycopg", "psycopg2"])
def test_blocking_postgresql(client, postgresql):
    """All wait for a lock, until its owner lets go."""
    check(
        LOCKS
        + (PSYCOPG if client == "psycopg" else PSYCOPG2)
        + """
async def main():
    owner = connect()
    ask(owner, LOCK)
    async def waiting():
        return ask(owner, WAITING)
    async def release():
        await wait_for(waiting)
        ask(owner, UNLOCK)
    _, answers = await asyncio.gather(release(), at_once(call))
    owner.close()
    return answers
for number in asyncio.run(main()):
    print(number)
""",
        port=postgresql,
    )


# ------------------------------------------------------------------ async clients

# Each has `calls()`, an asynchronous context manager of a function `call(number)`.
HTTP = {
    "httpx": """
import contextlib, httpx
@contextlib.asynccontextmanager
async def calls():
    limits = httpx.Limits(max_connections=COUNT)
    async with httpx.AsyncClient(limits=limits, timeout=100, trust_env=False) as client:
        async def call(number):
            return int((await client.get(f"{url}/{number}")).text[1:])
        yield call
""",
    "aiohttp": """
import contextlib, aiohttp
@contextlib.asynccontextmanager
async def calls():
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=COUNT)) as client:
        async def call(number):
            async with client.get(f"{url}/{number}") as answer:
                return int((await answer.text())[1:])
        yield call
""",
    "urllib": """
import contextlib, urllib.request
@contextlib.asynccontextmanager
async def calls():
    async def call(number):
        "Blocking code in greenlets of its own."
        answer = await weald.aio.to_greenlet(urllib.request.urlopen, f"{url}/{number}", timeout=100)
        return int(answer.read()[1:])
    yield call
""",
}

# In coroutines; in greenlets that share an async client; in threads, which are greenlets.
STYLES = {
    "coroutines": """
async def main():
    async with calls() as call:
        return await at_once(call)
answers = asyncio.run(main())
""",
    "greenlets": """
manager = calls()
call = await_(manager.__aenter__())
greenlets = [weald.spawn(await_, watched(call, number)) for number in range(COUNT)]
answers = [greenlet.get() for greenlet in greenlets]
await_(manager.__aexit__(None, None, None))
""",
    "threads": """
from concurrent.futures import ThreadPoolExecutor
manager = calls()
call = await_(manager.__aenter__())
with ThreadPoolExecutor(COUNT) as pool:
    answers = list(pool.map(lambda number: await_(watched(call, number)), range(COUNT)))
await_(manager.__aexit__(None, None, None))
""",
}
PRINT = "for number in answers: print(number)"


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("client", HTTP)
def test_http(client, style):
    with servers.GatedHttp(COUNT) as server:
        check(HTTP[client] + STYLES[style] + PRINT, url=f"http://127.0.0.1:{server.port}")


ASYNCPG = """
import asyncpg, contextlib
@contextlib.asynccontextmanager
async def calls():
    pool = asyncpg.create_pool(**address, database="postgres", min_size=1, max_size=COUNT)
    async with pool, asyncpg.create_pool(**address, database="postgres", min_size=1, max_size=1) as owners:
        owner = await owners.acquire()
        await owner.fetchval(LOCK)
        async def release():
            await wait_for(lambda: owner.fetchval(WAITING))
            await owner.fetchval(UNLOCK)
            await owners.release(owner)
        releasing = asyncio.create_task(release())
        async def call(number):
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetchval(SHARED)
                assert await connection.fetchval("SELECT 1 FROM pg_advisory_unlock_shared(1)")
                return await connection.fetchval("SELECT $1::int", number)
        yield call
        await releasing
"""

PSYCOPG_ASYNC = """
import psycopg, contextlib
@contextlib.asynccontextmanager
async def calls():
    async def connect():
        return await psycopg.AsyncConnection.connect(**address, dbname="postgres", autocommit=True)
    async def ask(connection, query):
        return (await (await connection.execute(query)).fetchone())[0]
    owner = await connect()
    await ask(owner, LOCK)
    async def release():
        await wait_for(lambda: ask(owner, WAITING))
        await ask(owner, UNLOCK)
        await owner.close()
    releasing = asyncio.create_task(release())
    async def call(number):
        async with await connect() as connection:
            await ask(connection, SHARED)
            return await ask(connection, f"SELECT {number}")
    yield call
    await releasing
"""


# Its functions run in greenlets of its own, which switch to the coroutine's.
SQLALCHEMY = """
import contextlib, sqlalchemy
from sqlalchemy.ext.asyncio import create_async_engine
@contextlib.asynccontextmanager
async def calls():
    engine = create_async_engine(f"postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres", pool_size=COUNT + 1)
    async def ask(connection, query):
        return (await connection.execute(sqlalchemy.text(query))).scalar()
    async with engine.connect() as owner:
        await ask(owner, LOCK)
        async def release():
            await wait_for(lambda: ask(owner, WAITING))
            await ask(owner, UNLOCK)
        releasing = asyncio.create_task(release())
        async def call(number):
            async with engine.connect() as connection:
                await ask(connection, SHARED)
                assert await ask(connection, "SELECT pg_advisory_unlock_shared(1)")
                return await ask(connection, f"SELECT {number}")
        yield call
        await releasing
    await engine.dispose()
"""

POSTGRESQL = {"asyncpg": ASYNCPG, "psycopg": PSYCOPG_ASYNC, "sqlalchemy": SQLALCHEMY}


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("client", POSTGRESQL)
def test_postgresql(client, style, postgresql):
    """All wait for a lock, until its owner lets go."""
    check(LOCKS + POSTGRESQL[client] + STYLES[style] + PRINT, port=postgresql)


REDIS = """
import contextlib, redis.asyncio
@contextlib.asynccontextmanager
async def calls():
    async with redis.asyncio.Redis(port=port, socket_timeout=100, max_connections=COUNT + 1) as client:
        async def waiting():
            return (await client.info("clients"))["blocked_clients"]
        async def push():
            await wait_for(waiting)
            async with client.pipeline() as pipeline:
                for number in range(COUNT):
                    pipeline.rpush(f"list{number}", number)
                await pipeline.execute()
        pushing = asyncio.create_task(push())
        async def call(number):
            return int((await client.blpop([f"list{number}"], timeout=100))[1])
        yield call
        await pushing
"""


@pytest.mark.parametrize("style", STYLES)
def test_redis(style):
    """Each waits for an item of its own list, until these items are pushed."""
    with servers.redis() as port:
        check(REDIS + STYLES[style] + PRINT, port=port)


# ------------------------------------------------------------------ async servers, with clients of both kinds

WEBSOCKETS = """
import contextlib, websockets.asyncio.client, websockets.asyncio.server
@contextlib.asynccontextmanager
async def calls():
    begun, gate = 0, asyncio.Event()
    async def echo(socket):
        nonlocal begun
        async for message in socket:
            begun += 1
            if begun == COUNT:
                gate.set()
            await gate.wait()
            await socket.send(message)
    async with websockets.asyncio.server.serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async def call(number):
            async with websockets.asyncio.client.connect(f"ws://127.0.0.1:{port}", proxy=None) as socket:
                await socket.send(str(number))
                return int(await socket.recv())
        yield call
"""

BLOCKING_WEBSOCKETS = "import websockets.sync.client" + WEBSOCKETS.replace(
    "        yield call",
    """
        def call(number):
            with websockets.sync.client.connect(f"ws://127.0.0.1:{port}", proxy=None, open_timeout=100) as socket:
                socket.send(str(number))
                return int(socket.recv())
        yield call""",
)

AIOHTTP_SERVER = """
import aiohttp, contextlib
from aiohttp import web
@contextlib.asynccontextmanager
async def calls():
    begun, gate = 0, asyncio.Event()
    async def answer(request):
        nonlocal begun
        begun += 1
        if begun == COUNT:
            gate.set()
        await gate.wait()
        return web.Response(text=request.match_info["number"])
    application = web.Application()
    application.add_routes([web.get("/{number}", answer)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = "http://%s:%d" % runner.addresses[0]
    CALL
    await runner.cleanup()
"""

AIOHTTP_CLIENT = """
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=COUNT)) as client:
        async def call(number):
            async with client.get(f"{url}/{number}") as answer:
                return int(await answer.text())
        yield call"""

REQUESTS_CLIENT = """
    import requests
    def call(number):
        return int(requests.get(f"{url}/{number}", timeout=100).text)
    yield call"""

SERVERS = {
    "websockets": WEBSOCKETS,
    "websockets, blocking clients": BLOCKING_WEBSOCKETS,
    "aiohttp": AIOHTTP_SERVER.replace("    CALL", AIOHTTP_CLIENT),
    "aiohttp, requests": AIOHTTP_SERVER.replace("    CALL", REQUESTS_CLIENT),
}


@pytest.mark.parametrize("server", SERVERS)
def test_servers(server):
    """Server and clients share a loop, the blocking clients included."""
    check(SERVERS[server] + STYLES["coroutines"] + PRINT)


def test_what_several_of_them_do_together(postgresql):
    """A greenlet, a blocking client and an async one take part in one conversation, on one loop."""
    with servers.redis() as port:
        out = run_patched(
            f"""
            import asyncio, queue, asyncpg, psycopg, redis, redis.asyncio, weald
            from weald.aio import await_, to_greenlet
            address = dict(host="127.0.0.1", port={postgresql}, user="postgres")
            numbers = queue.Queue()

            def greenlet():
                "Blocking style, with an async driver."
                connection = await_(asyncpg.connect(**address, database="postgres"))
                for number in iter(numbers.get, None):
                    doubled = await_(connection.fetchval("SELECT $1::int * 2", number))
                    redis.Redis(port={port}).rpush("doubled", doubled)
                await_(connection.close())

            async def main():
                worker = weald.spawn(greenlet)
                with psycopg.connect(**address, dbname="postgres") as blocking:  # in a coroutine
                    rows = blocking.execute("SELECT generate_series(1, 5)").fetchall()
                for (number,) in rows:
                    numbers.put(number)
                async with redis.asyncio.Redis(port={port}) as client:
                    doubled = [int((await client.blpop("doubled"))[1]) for _ in rows]
                numbers.put(None)
                await worker
                return doubled

            print(asyncio.run(main()))
            """
        )
    assert out == "[2, 4, 6, 8, 10]\n"


# ------------------------------------------------------------------ gRPC


def test_grpc():
    """Its C core waits in a thread, which must be native.  The server answers when it has all requests."""
    pytest.importorskip("grpc", reason="no grpcio for this Python")
    check(
        """
import os
os.environ["GRPC_VERBOSITY"] = "ERROR"  # sometimes it logs how the connection ends
import grpc
class Handler(grpc.GenericRpcHandler):
    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(answer)
barrier = asyncio.Barrier(COUNT)
async def answer(request, context):
    await barrier.wait()
    return request
async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        say = channel.unary_unary("/test/say")
        async def call(number):
            return int(await say(str(number).encode()))
        answers = await at_once(call)
    await server.stop(None)
    return answers
for number in asyncio.run(main()):
    print(number)
"""
    )


# ------------------------------------------------------------------ examples

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize("example", ["async_clients.py", "blocking_clients.py"])
def test_examples(example, postgresql):
    """All pages are fetched at once: none is sent before all are requested.  One server does not exist."""
    count = 50
    with servers.GatedHttp(count) as server:
        dsn = f"postgresql://postgres@127.0.0.1:{postgresql}/postgres"
        urls = [f"http://127.0.0.1:{server.port}/{number}" for number in range(count)]
        nobody = f"http://127.0.0.1:{servers.free_port()}/"
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / example), dsn, *urls, nobody],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        lines = [line for line in done.stdout.splitlines() if "http://" in line]
        assert sorted(line for line in lines if not line.startswith("failed")) == sorted(
            f"200 {len(str(number)) + 1} {url}" for number, url in enumerate(urls)
        )
        assert [line.split()[-1] for line in lines if line.startswith("failed")] == [nobody]
        assert "fetching" in done.stdout and "100%" in done.stdout  # the bar
        with psycopg.connect(dsn) as connection:
            rows = connection.execute("SELECT url, status, size FROM pages").fetchall()
            connection.execute("DROP TABLE pages")
        assert sorted(rows) == sorted((url, 200, len(str(number)) + 1) for number, url in enumerate(urls))
