"""Widely used clients, patched, 200 calls at a time, against real servers.

No test measures time: each server's answers are held back until all 200 calls wait for them, so that a client
that blocks the loop never gets one.
"""

import os

import pytest
import servers
from helpers import run_patched

pytestmark = pytest.mark.timeout(900)  # a server's package may have to be installed first

COUNT = 200

PRELUDE = f"""
import os, weald
COUNT = {COUNT}

def at_once(call):
    greenlets = [weald.spawn(call, number) for number in range(COUNT)]
    return [greenlet.get() for greenlet in greenlets]

def wait_for(count):
    while count() < COUNT:
        weald.sleep(0.02)
"""


def check(code, before="", **values):
    """Run `code` patched, `before` before that, with `values` as its globals; it prints COUNT lines: 0, 1, …"""
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    out = run_patched(PRELUDE + given + code, before)
    assert out.split() == [str(number) for number in range(COUNT)]


HTTP = {
    "requests": """
import requests
with requests.Session() as session:
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_connections=COUNT, pool_maxsize=COUNT))
    for answer in at_once(lambda number: session.get(f"{url}/{number}", timeout=100)):
        answer.raise_for_status()
        print(answer.text[1:])
""",
    "requests without a session": """
import requests
for answer in at_once(lambda number: requests.get(f"{url}/{number}", timeout=100)):
    print(answer.text[1:])
""",
    "urllib3": """
import urllib3
with urllib3.PoolManager(maxsize=COUNT, block=True, timeout=100, retries=False) as pool:
    for answer in at_once(lambda number: pool.request("GET", f"{url}/{number}")):
        print(answer.data.decode()[1:])
""",
    "urllib": """
import urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for answer in at_once(lambda number: opener.open(f"{url}/{number}", timeout=100).read()):
    print(answer.decode()[1:])
""",
    "httpx": """
import httpx
limits = httpx.Limits(max_connections=COUNT)
with httpx.Client(limits=limits, timeout=100, trust_env=False) as client:
    for answer in at_once(lambda number: client.get(f"{url}/{number}")):
        print(answer.text[1:])
""",
    "boto3": """
import boto3, botocore.config
config = botocore.config.Config(
    max_pool_connections=COUNT, retries={"max_attempts": 0}, read_timeout=100, s3={"addressing_style": "path"},
    proxies={},
)
client = boto3.client(
    "s3", endpoint_url=url, region_name="local", aws_access_key_id="a", aws_secret_access_key="b", config=config
)
for answer in at_once(lambda number: client.get_object(Bucket="bucket", Key=str(number))["Body"].read()):
    print(answer.decode().removeprefix("/bucket/"))
""",
}


@pytest.mark.parametrize("client", HTTP)
def test_http(client, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with servers.GatedHttp(COUNT) as server:
        check(HTTP[client], url=f"http://127.0.0.1:{server.port}")


def test_redis():
    """Each waits for an item of its own list, until these items are pushed."""
    with servers.redis() as port:
        check(
            """
import redis
client = redis.Redis(port=port, socket_timeout=100, max_connections=COUNT + 1)
def push():
    wait_for(lambda: client.info("clients")["blocked_clients"])
    with client.pipeline() as pipeline:
        for number in range(COUNT):
            pipeline.rpush(f"list{number}", number)
        pipeline.execute()
weald.spawn(push)
for _, item in at_once(lambda number: client.blpop([f"list{number}"], timeout=100)):
    print(item.decode())
client.close()
""",
            port=port,
        )


def test_psycopg(postgresql):
    """All wait for a lock, until its owner lets go; the C implementation is in use."""
    check(
        """
import psycopg
assert psycopg.pq.__impl__ == "binary"
def connect():
    return psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", autocommit=True)
def call(number):
    with connect() as connection:
        connection.execute("SELECT pg_advisory_lock_shared(1)")
        return connection.execute("SELECT %s::int", [number]).fetchone()[0]
with connect() as owner:
    owner.execute("SELECT pg_advisory_lock(1)")
    def release():
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        wait_for(lambda: owner.execute(waiting).fetchone()[0])
        owner.execute("SELECT pg_advisory_unlock(1)")
    weald.spawn(release)
    for number in at_once(call):
        print(number)
""",
        port=postgresql,
    )


PSYCOPG2 = """
def connect(**options):
    made = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", **options)
    made.autocommit = True
    return made
def ask(connection, query, *values):
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchone()[0]
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_psycopg2(order, postgresql):
    """As psycopg, imported before or after patching; COPY works; an interrupted query closes its connection."""
    pytest.importorskip("psycopg2")
    code = (
        PSYCOPG2
        + """
def call(number):
    connection = connect()
    ask(connection, "SELECT 1 FROM pg_advisory_lock_shared(1)")
    return ask(connection, "SELECT %s::int", number)
owner = connect()
ask(owner, "SELECT 1 FROM pg_advisory_lock(1)")
def release():
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    wait_for(lambda: ask(owner, waiting))
    ask(owner, "SELECT pg_advisory_unlock(1)")
weald.spawn(release)
for number in at_once(call):
    print(number)

import io
with owner.cursor() as cursor:
    cursor.execute("CREATE TEMPORARY TABLE numbers (number int)")
    cursor.copy_from(io.StringIO("1\\n2\\n"), "numbers")
    text = io.StringIO()
    cursor.copy_expert("COPY numbers TO STDOUT", text)
    assert text.getvalue() == "1\\n2\\n"
    cursor.execute("SELECT sum(number) FROM numbers")
    assert cursor.fetchone() == (3,)
assert psycopg2.extensions.get_wait_callback() is not None

cut = connect()
try:
    with weald.Timeout(0.05):
        ask(cut, "SELECT 1 FROM pg_sleep(100)")
except weald.Timeout:
    pass
assert cut.closed
try:
    ask(owner, "SELECT nothing")
except psycopg2.errors.UndefinedColumn:
    pass
assert ask(owner, "SELECT 7") == 7
"""
    )
    before, after = ("import psycopg2\n", "") if order == "before" else ("", "import psycopg2\n")
    check(after + code, before=before, port=postgresql)


def test_pymysql():
    """All wait for a lock, until its owner lets go."""
    with servers.mariadb() as port:
        check(
            """
import pymysql
def connect():
    # Without TLS, whose context for each connection would take longer than everything else.
    return pymysql.connect(host="127.0.0.1", port=port, user="root", read_timeout=100, ssl_disabled=True)
def ask(connection, *query):
    with connection.cursor() as cursor:
        cursor.execute(*query)
        return cursor.fetchone()[0]
def call(number):
    with connect() as connection:
        assert ask(connection, "SELECT GET_LOCK('gate', 40)") == 1
        ask(connection, "SELECT RELEASE_LOCK('gate')")
        return ask(connection, "SELECT %s", [number])
with connect() as owner:
    ask(owner, "SELECT GET_LOCK('gate', 0)")
    def release():
        waiting = "SELECT count(*) FROM information_schema.processlist WHERE state = 'User lock'"
        wait_for(lambda: ask(owner, waiting))
        ask(owner, "SELECT RELEASE_LOCK('gate')")
    weald.spawn(release)
    for number in at_once(call):
        print(number)
""",
            port=port,
        )


def test_paramiko(tmp_path):
    """10 connections, 20 commands at a time in each, which all wait for a line of a named pipe."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with servers.sshd() as (port, key):
        check(
            """
import getpass, paramiko
def connect(_):
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    client.connect(
        "127.0.0.1", port, getpass.getuser(), key_filename=key, allow_agent=False, look_for_keys=False,
        timeout=100, banner_timeout=100, auth_timeout=100,
    )
    return client
clients = [greenlet.get() for greenlet in [weald.spawn(connect, number) for number in range(10)]]
writer = os.open(gate, os.O_RDWR)  # as long as it is open, opening the other end does not block
started = []
def call(number):
    command = f"echo started; read line <{gate}; echo {number}"
    _, output, errors = clients[number % 10].exec_command(command, timeout=100)
    assert output.readline() == "started\\n", errors.read()
    started.append(number)
    if len(started) == COUNT:
        os.write(writer, b"\\n" * COUNT)
    return output.read().decode().strip()
for text in at_once(call):
    print(text)
for client in clients:
    client.close()
""",
            port=port,
            key=str(key),
            gate=str(gate),
        )
