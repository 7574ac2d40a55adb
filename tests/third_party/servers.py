"""Real servers for the tests of real clients, each on a free port of 127.0.0.1, ended with its `with` block.

Called by: the tests beside it; `postgresql` by a fixture of tests/conftest.py.  Missing servers are installed from
Debian packages if possible.
"""

import asyncio
import getpass
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from conftest import require_program
from helpers import PATIENCE

_PLACES = ["/usr/sbin", "/usr/lib/postgresql/*/bin"]  # besides those in PATH


def program(name, package):
    """The path of `name`; installs its Debian package if need be and if this is root.  Else as `require_program`."""
    found = _find(name)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        # RUNLEVEL: packages of servers start none.
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update", "-q"], ["install", "-q", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", *command], env=environ, capture_output=True, timeout=600)
        found = _find(name)
    return found or require_program(name)


def _find(name):
    path = os.pathsep.join([os.environ.get("PATH", ""), *(place for one in _PLACES for place in glob.glob(one))])
    return shutil.which(name, path=path)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        return port


@contextmanager
def folder(owner=None):
    """A folder that goes with all it holds; `owner` can use it, which pytest's are not for."""
    made = Path(tempfile.mkdtemp(prefix="weald-test-"))
    try:
        if owner is not None:
            shutil.chown(made, owner)
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def running(command, port, log, end=signal.SIGTERM, ready=lambda: True, **options):
    """The server that `command` starts, once it accepts connections on `port` and is `ready`; `options` are Popen's."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options)
    try:
        deadline = time.monotonic() + PATIENCE
        while not (_accepts(port) and ready()):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(end)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class GatedHttp:
    """An HTTP/1.1 server that answers only when `count` requests wait at the same time."""

    def __init__(self, count):
        self.count = count
        self.port = 0
        self._started = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self._thread.start()
        assert self._started.wait(PATIENCE)
        return self

    def __exit__(self, *args):
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE)

    async def _serve(self):
        self._loop, self._ended, self._gate = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._waiting = 0
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0, backlog=500)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._ended.wait()
        server.close()

    async def _answer(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        self._waiting += 1
        if self._waiting == self.count:
            self._gate.set()
        await self._gate.wait()
        body = head.split()[1]  # the target that was asked for
        writer.write(b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: %d\r\nConnection: close\r\n\r\n' % len(body))
        writer.write(body)
        writer.close()


@contextmanager
def redis():
    command = program("redis-server", "redis-server")
    port = free_port()
    with folder() as place:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(place)]
        with running([command, *options], port, place / "log"):
            yield port


@contextmanager
def postgresql():
    """User postgres needs no password."""
    command, initdb = program("postgres", "postgresql"), program("initdb", "postgresql")
    real = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    command = real[-1] if real else command  # Debian has no other in PATH
    owner, become = None, {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        owner = "postgres"
        become = {"user": owner, "group": pwd.getpwnam(owner).pw_gid, "extra_groups": []}
    port = free_port()
    with folder(owner) as place:
        data = place / "data"
        initialize = [initdb, "-D", str(data), "-A", "trust", "-U", "postgres", "-N"]
        made = subprocess.run(initialize, capture_output=True, timeout=PATIENCE, cwd=place, **become)
        assert made.returncode == 0, made.stderr
        settings = [f"port={port}", f"unix_socket_directories={place}", "max_connections=600", "fsync=off"]
        options = [word for setting in settings for word in ("-c", setting)]

        def ready():
            """It accepts connections, and refuses them, before that."""
            status = (data / "postmaster.pid").read_text().splitlines()[7:8]
            return [word.strip() for word in status] == ["ready"]

        # SIGINT: at once, whatever queries run still.
        start = [command, "-D", str(data), *options]
        with running(start, port, place / "log", signal.SIGINT, ready, cwd=place, **become):
            yield port


@contextmanager
def mariadb():
    """User root needs no password."""
    command = program("mariadbd", "mariadb-server")
    install = program("mariadb-install-db", "mariadb-server")
    port = free_port()
    with folder() as place:
        data, user = place / "data", getpass.getuser()
        common = ["--no-defaults", f"--datadir={data}", f"--user={user}"]
        made = subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True,
            timeout=PATIENCE,
        )
        assert made.returncode == 0, made.stderr
        options = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={place}/socket", "--max-connections=300"]
        options.append("--back-log=300")
        with running([command, *common, *options, "--skip-grant-tables"], port, place / "log"):
            yield port


@contextmanager
def sshd():
    """(port, the file of a key with which this user is let in)"""
    command, keygen = program("sshd", "openssh-server"), program("ssh-keygen", "openssh-client")
    port = free_port()
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # the folder of its chroot
    with folder() as place:
        for key in ("host", "user"):
            options = ["-q", "-t", "ed25519", "-N", "", "-f", str(place / key)]
            subprocess.run([keygen, *options], check=True, timeout=PATIENCE)
        (place / "config").write_text(
            f"""
            ListenAddress 127.0.0.1
            Port {port}
            HostKey {place}/host
            AuthorizedKeysFile {place}/user.pub
            PidFile none
            StrictModes no
            PermitRootLogin yes
            MaxStartups 300
            MaxSessions 20
            SetEnv SHLVL=1
            """  # SHLVL: else bash, if that is this user's shell, would read its .bashrc each time
        )
        with running([command, "-D", "-e", "-f", str(place / "config")], port, place / "log"):
            yield port, place / "user"
