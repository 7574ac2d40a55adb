"""The suites that scripts/gauntlet runs: what each needs, where its tests are, what is left out and why.

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
    left_out: dict[str, str] = field(default_factory=dict)  # files, folders or beginnings of test ids: the reason
    seconds: float = 60.0  # that a test may take


SUITES = {
    "flask-socketio": Suite(["flask-socketio==5.7.0", "redis"], ["test_socketio.py"]),
    "python-engineio": Suite(
        ["python-engineio==4.15.1", "aiohttp", "pytest-asyncio", "requests", "tornado", "websocket-client"],
        ["tests"],
    ),
    "websocket-client": Suite(["websocket-client==1.9.2", "python-socks", "wsaccel"], ["websocket/tests"]),
}
# Those that CI runs.
SHORT = ["flask-socketio", "python-engineio", "websocket-client"]
