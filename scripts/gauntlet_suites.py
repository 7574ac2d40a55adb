"""The suites that scripts/gauntlet runs: their requirements, the places of their tests, and the tests left out.

Called by: scripts/gauntlet.py.

What is installed is pinned here and, for all that these need in turn, in gauntlet.constraints.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Suite:
    """One package's tests."""

    requires: list[str]  # requirements; the first one is the package itself, with its version
    tests: list[str]  # files and folders in its source
    # Of the source: "pypi" for its source distribution, else "OWNER/REPOSITORY@TAG" of GitHub, for those whose source
    # distribution has no tests.
    source: str = "pypi"
    # The source's packages that are put aside, since what is installed is to be tested: it is compiled.
    aside: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)  # pytest's; {port} is the server's
    environment: dict[str, str] = field(default_factory=dict)
    plain: dict[str, str] = field(default_factory=dict)  # the same, for the plain side alone
    files: dict[str, str] = field(default_factory=dict)  # files that the tests read: their text; {port} is the server's
    server: str = ""  # "redis", "mariadb" or "rabbitmq"
    loop: bool = False  # whether the tests are asyncio's, run on weald's loop, uvloop and asyncio's; nothing is patched
    left_out: dict[str, str] = field(default_factory=dict)  # files, folders or beginnings of test ids: the reason
    seconds: float = 60.0  # that a test may take


SUITES = {
    "aiohttp": Suite(
        [
            *("aiohttp==3.14.5", "uvloop", "aiodns", "blockbuster", "brotli", "coverage", "freezegun", "gunicorn"),
            *("isal", "proxy.py", "pytest-codspeed", "pytest-mock", "pytest-timeout", "python-on-whales"),
            *("re-assert", "trustme", "zlib-ng"),
        ],
        ["tests"],
        aside=["aiohttp"],
        arguments=["--aiohttp-loop=uvloop", "-m", "not dev_mode and not autobahn and not internal"],
        loop=True,
        seconds=130.0,
    ),
    "amqp": Suite(
        ["amqp==5.4.2", "pytest-rerunfailures"],
        ["t"],
        arguments=["-k", "not tls"],  # which wants a second port of the broker
        environment={"RABBITMQ_5672_TCP": "{port}"},
        server="rabbitmq",
    ),
    "anyio": Suite(
        [
            *("anyio==4.16.0", "uvloop", "blockbuster", "hypothesis", "psutil", "pytest-mock", "pytest-timeout"),
            *("trio", "trustme", "truststore"),
        ],
        ["tests"],
        # Its configuration is in pyproject.toml.  The tests that ask for asyncio get the same loop as those for uvloop.
        arguments=["-p", "anyio", "-m", "not network", "-k", "not trio"],
        loop=True,
        left_out={"tests/test_pytest_plugin.py": "runs pytest in processes of its own, on asyncio's loop"},
    ),
    "apscheduler": Suite(
        ["apscheduler==3.11.3", "anyio", "pytz", "sqlalchemy", "tornado", "twisted"],
        ["tests"],
        arguments=["-m", "not external_service"],  # databases of five kinds
    ),
    "cheroot": Suite(
        [
            *("cheroot==11.1.2", "jaraco.context", "jaraco.text", "portend", "pyopenssl", "pypytools", "pytest-mock"),
            *("requests", "requests-toolbelt", "requests-unixsocket", "trustme", "setuptools", "chardet"),
            *("pytest-rerunfailures",),
        ],
        ["cheroot/test"],
        arguments=["-p", "cheroot.test._pytest_plugin", "-p", "no:rerunfailures", "-W", "ignore"],
        left_out={
            # Loops that read an attribute and do nothing else let no other greenlet run.
            "cheroot/test/test_conn.py::test_unhandled_exception_in_request_handler": "waits in such a loop",
            "cheroot/test/test_conn.py::test_remains_alive_post_unhandled_exception": "the same",
        },
    ),
    "dnspython": Suite(
        ["dnspython==2.9.2", "cryptography", "httpx", "idna", "trio"], ["tests"], environment={"NO_INTERNET": "1"}
    ),
    "flask-socketio": Suite(["flask-socketio==5.7.0", "redis"], ["test_socketio.py"]),
    "geventhttpclient": Suite(
        ["geventhttpclient==2.6.1", "dpkt", "httplib2", "pytest-rerunfailures", "requests"],
        ["tests"],
        # Its tests patch by themselves unless they are told not to.
        plain={"NON_GEVENT": "1"},
    ),
    "gipc": Suite(["gipc==1.8.0", "pytest==7.4.4"], ["test"]),  # a later pytest does not call its setup()
    "huey": Suite(["huey==3.5.4", "peewee", "redis", "django"], ["huey/tests"]),
    "kombu": Suite(
        ["kombu==5.7.0", "hypothesis", "pytest-freezer", "redis", "sqlalchemy", "msgpack", "PyYAML"],
        ["t/unit"],
        left_out={
            "t/unit/asynchronous/aws": "wants Amazon's client",
            "t/unit/transport/SQS": "the same",
            "t/unit/transport/test_azurestoragequeues.py": "wants Microsoft's client",
            "t/unit/transport/test_gcpubsub.py": "wants Google's client",
        },
    ),
    # Without the same tests of its executor on two other ways to start processes, which take long plainly.
    "loky": Suite(
        ["loky==3.7.0", "psutil", "packaging", "pytest-timeout"],
        [
            *(f"tests/test_{name}.py" for name in ("cloudpickle_wrapper", "futures", "loky_backend", "loky_module")),
            *(f"tests/test_{name}.py" for name in ("process_executor_loky", "resource_tracker", "synchronize")),
        ],
    ),
    "paho-mqtt": Suite(["paho-mqtt==2.2.0", "PySocks"], ["tests"]),
    "paramiko": Suite(["paramiko==5.1.0", "icecream", "invoke", "pytest-relaxed"], ["tests"]),
    "pebble": Suite(["pebble==5.2.3"], ["test"]),
    "pexpect": Suite(["pexpect==4.9.0", "ptyprocess"], ["tests"]),
    "portalocker": Suite(
        [
            *("portalocker==4.4.2", "fakeredis", "pytest-rerunfailures", "pytest-timeout", "redis"),
            "typing-extensions",
        ],
        ["portalocker_tests"],
    ),
    "pymysql": Suite(
        ["pymysql==1.2.0", "cryptography"],
        ["pymysql/tests"],
        source="PyMySQL/PyMySQL@v1.2.0",
        files={
            "pymysql/tests/databases.json": """[
                {"host": "127.0.0.1", "port": {port}, "user": "root", "passwd": "", "database": "test1",
                 "use_unicode": true, "local_infile": true},
                {"host": "127.0.0.1", "port": {port}, "user": "root", "passwd": "", "database": "test2"}
            ]"""
        },
        server="mariadb",
    ),
    "pyro5": Suite(["pyro5==5.17", "cloudpickle", "msgpack", "serpent"], ["tests"]),
    "python-engineio": Suite(
        ["python-engineio==4.15.1", "aiohttp", "pytest-asyncio", "requests", "tornado", "websocket-client"],
        ["tests"],
    ),
    "python-socketio": Suite(
        [
            *("python-socketio==5.18.1", "aiohttp", "msgpack", "pytest-asyncio", "redis", "requests"),
            *("simple-websocket", "uvicorn", "valkey", "websocket-client"),
        ],
        ["tests/common"],  # the rest is asyncio's half
    ),
    # Those with zmq.green: the others wait in libzmq, which no patching reaches.
    "pyzmq": Suite(
        ["pyzmq==27.3.0", "pytest-asyncio", "tornado"],
        [f"tests/test_{name}.py" for name in ("device", "multipart", "pair", "poll", "pubsub", "reqrep", "socket")],
        aside=["zmq"],
        arguments=["-k", "Green"],
    ),
    "redis-py": Suite(
        [
            *("redis==8.1.0", "cryptography", "numpy", "pytest-asyncio", "pybreaker", "requests", "xxhash"),
            *("opentelemetry-sdk", "packaging"),
        ],
        ["tests"],
        arguments=["--redis-url=redis://127.0.0.1:{port}/0", "-m", "not onlycluster and not redismod and not ssl"],
        server="redis",
        left_out={
            "tests/test_asyncio": "the asyncio client",
            "tests/test_scenario": "wants a service that injects faults",
        },
    ),
    "tornado": Suite(
        ["tornado==6.6.1"],
        ["tornado/test"],
        arguments=["-o", "python_files=*_test.py"],
        # As its own runner does: unexpected log entries fail a test.
        files={"conftest.py": 'import logging\n\nlogging.getLogger("tornado.access").setLevel(logging.CRITICAL)\n'},
    ),
    "urllib3": Suite(
        [
            *("urllib3==2.8.0", "cryptography", "h2", "httpx", "hypercorn", "idna", "pyopenssl", "pysocks"),
            *("pytest-socket", "quart", "quart-trio", "trio", "trustme"),
        ],
        ["test"],
    ),
    "uvicorn": Suite(
        [
            *("uvicorn==0.54.0", "uvloop", "a2wsgi", "cryptography", "httptools", "httpx2", "pytest-codspeed"),
            *("pytest-mock", "python-dotenv", "PyYAML", "trustme", "watchfiles", "websockets", "wsproto", "zttp"),
        ],
        ["tests"],
        aside=["uvicorn"],
        loop=True,
    ),
    "waitress": Suite(["waitress==3.0.2"], ["tests"]),
    "watchdog": Suite(["watchdog==7.1.0", "PyYAML", "flaky", "pytest-timeout"], ["tests"]),
    "websocket-client": Suite(["websocket-client==1.9.2", "python-socks", "wsaccel"], ["websocket/tests"]),
    "websockets": Suite(
        ["websockets==17.0.1", "cryptography", "python-socks", "werkzeug"],
        ["tests/sync"],
        source="python-websockets/websockets@17.0.1",
    ),
    "werkzeug": Suite(
        ["werkzeug==3.1.9", "cryptography", "ephemeral-port-reserve", "pytest-timeout", "watchdog"],
        ["tests"],
    ),
}
# The suites that CI runs.
SHORT = ["flask-socketio", "python-engineio", "websocket-client"]
