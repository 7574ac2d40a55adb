"""Fixtures for all tests: the loop a test runs on, programs and certificates that some need."""

import os
import shutil
import signal
import ssl
import subprocess
from typing import NamedTuple

import pytest
from helpers import PATIENCE

from weald import _core
from weald.testing import virtual_clock

# A shell without job control makes background processes ignore these, and their children inherit that.
for _signal in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, signal.default_int_handler if _signal == signal.SIGINT else signal.SIG_DFL)


def _fresh_hub(name):
    _core.get_hub().destroy()
    _core.set_loop_factory(name)


@pytest.fixture(scope="session", autouse=True)
def _libuvs_own_pipe():
    """libuv opens a pipe for the process with its first loop, for good: not what tests count that look for leaks."""
    _fresh_hub("libuv")
    _core.get_hub()
    _fresh_hub(None)


@pytest.fixture(params=["libuv", "libev", "virtual"])
def loop_name(request):
    """Runs the test once on each loop, with a hub of its own."""
    _fresh_hub(request.param)
    yield request.param
    _fresh_hub(None)


@pytest.fixture(params=["libuv", "libev"])
def io_loop(request):
    """Runs the test once on each loop that can watch descriptors, with a hub of its own."""
    _fresh_hub(request.param)
    yield request.param
    _fresh_hub(None)


@pytest.fixture
def virtual():
    """A hub on the virtual clock: sleeping takes no time, and exactly as long as asked."""
    with virtual_clock() as hub:
        yield hub


def require_program(name, package=None):
    """The path of program `name`, installed from Debian's `package` if that is possible.

    Without it the test is skipped, and fails where CI=true.
    """
    path = shutil.which(name)
    if path is None and package is not None and os.geteuid() == 0 and shutil.which("apt-get"):
        install = f"apt-get install -y --no-install-recommends {package}"
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(f"{install} || (apt-get update && {install})", shell=True, env=environ, capture_output=True)
        path = shutil.which(name)
    if path is None:
        message = f"the program {name!r} is not installed" + (f" (apt-get install {package})" if package else "")
        if os.environ.get("CI") in ("true", "1"):
            pytest.fail(f"{message}; CI must have it")
        pytest.skip(message)
    return path


class Certificate(NamedTuple):
    """A self-signed certificate for localhost and 127.0.0.1, and its key: paths of PEM files."""

    cert: str
    key: str

    def server_context(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context

    def client_context(self):
        """A context that trusts this certificate alone."""
        return ssl.create_default_context(cafile=self.cert)


@pytest.fixture(scope="session")
def postgresql():
    """The port of a PostgreSQL server for all tests that want one: to begin and to end takes it seconds."""
    import servers

    with servers.postgresql() as port:
        yield port


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Made for each run of the tests."""
    openssl = require_program("openssl")
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(str(folder / "cert.pem"), str(folder / "key.pem"))
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", made.key, "-out", made.cert),
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    return made
