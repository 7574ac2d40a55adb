"""`weald serve` when what it lives on is taken away or wrong: files, sockets, certificates, signals in odd order."""

import os
import signal
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from conftest import require_program
from helpers import PATIENCE, wait_until
from serving import APP, command, serving


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    return tmp_path


def asked(path):
    """The answer to a request by the Unix socket `path`."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: sock.recv(65536), b""))


def workers_of(served):
    return {child.pid for child in psutil.Process(served.process.pid).children()}


# ---------------------------------------------------------------- signals


SLOW = """
import os, time, weald.monkey
sleep = weald.monkey.get_original("time", "sleep")
open("loading.%d" % os.getpid(), "w").close()
while os.path.exists("hold"):
    sleep(0.01)
"""


def loading(folder, count=1):
    wait_until(lambda: len(list(folder.glob("loading.*"))) >= count)


def test_signals_while_the_application_is_preloaded(folder):
    """A rotation of the logs, or an impatient operator, does not end a service that starts."""
    (folder / "site_app.py").write_text(SLOW + APP.format(version=1))
    (folder / "hold").touch()
    process = subprocess.Popen(
        command("site_app:app", "--app-dir", str(folder), "--bind", "127.0.0.1:0", "--workers", "1", "--preload"),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        loading(folder)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN, signal.SIGTTOU, signal.SIGALRM, signal.SIGWINCH):
            process.send_signal(number)
        (folder / "hold").unlink()
        said = ""
        for line in process.stderr:
            said += line
            if "reloaded in" in line:
                break
        assert "new workers, with the application that was preloaded" in said, said
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_service_that_starts_can_be_stopped(folder, how):
    (folder / "site_app.py").write_text(SLOW + APP.format(version=1))
    (folder / "hold").touch()
    process = subprocess.Popen(
        command("site_app:app", "--app-dir", str(folder), "--bind", "127.0.0.1:0", "--workers", "2")
    )
    try:
        loading(folder, 2)
        process.send_signal(how)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_signals_in_odd_order(folder):
    """More HUPs while one is under way, more and fewer workers, logs: in the end it serves as it should."""
    with serving(folder, "--workers", "2") as served:
        for number in (
            *(signal.SIGHUP, signal.SIGHUP, signal.SIGTTIN, signal.SIGHUP, signal.SIGUSR1, signal.SIGTTOU),
            *(signal.SIGTTOU, signal.SIGHUP, signal.SIGTTOU, signal.SIGTTOU, signal.SIGWINCH, signal.SIGALRM),
        ):
            served.signal(number)
            time.sleep(0.02)  # so that they are not merged; whatever order comes about
        served.wait_for("1 workers it stays")
        (folder / "site_app.py").write_text(APP.format(version=2))
        served.signal(signal.SIGHUP)
        wait_until(lambda: served.get().startswith("2 "))
        wait_until(lambda: len(workers_of(served)) == 1)
        served.signal(signal.SIGTTIN)
        wait_until(lambda: len(workers_of(served)) == 2)


def test_hup_and_a_worker_that_dies_while_it_loads(folder):
    with serving(folder, "--workers", "2") as served:
        before = workers_of(served)
        (folder / "site_app.py").write_text(
            SLOW.replace("loading.%d", str(folder) + "/loading.%d") + APP.format(version=2)
        )
        (folder / "hold").touch()
        served.signal(signal.SIGHUP)
        loading(folder, 2)
        for path in folder.glob("loading.*"):
            os.kill(int(path.suffix[1:]), signal.SIGKILL)
        served.wait_for("2 go on with the code of before")
        assert workers_of(served) == before
        (folder / "hold").unlink()
        served.signal(signal.SIGHUP)
        served.wait_for("reloaded in", 2)
        wait_until(lambda: served.get().startswith("2 "))  # the old ones may take one more


def test_logs_that_are_renamed_while_a_worker_starts(folder):
    """It has opened the old file, and has no handler yet: it opens the new one once it is ready."""
    (folder / "site_app.py").write_text(
        "import asyncio, os\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        await receive()\n"
        f"        open({str(folder)!r} + '/loading.' + str(os.getpid()), 'w').close()\n"
        f"        while os.path.exists({str(folder / 'hold')!r}):\n"
        "            await asyncio.sleep(0.01)\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        await receive()\n"
        "        return await send({'type': 'lifespan.shutdown.complete'})\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'0')]})\n"
        "    await send({'type': 'http.response.body'})\n"
    )
    log = folder / "access.log"
    with serving(folder, "--workers", "1", "--access-log", "common", "--access-log-file", str(log)) as served:
        (folder / "hold").touch()
        served.signal(signal.SIGHUP)
        loading(folder, 2)
        log.rename(folder / "old.log")
        served.signal(signal.SIGUSR1)
        wait_until(log.exists)  # the old worker's
        (folder / "hold").unlink()
        served.wait_for("reloaded in")
        served.get("/late")
        wait_until(lambda: "/late" in log.read_text())
        assert "/late" not in (folder / "old.log").read_text()


# ---------------------------------------------------------------- sockets


def test_a_program_that_cannot_take_over_leaves_the_socket_alone(folder):
    """With --preload it fails early; the old one's clients still find it."""
    path = folder / "socket"
    with serving(folder, "--workers", "1", "--preload", bind=f"unix:{path}") as served:
        (folder / "site_app.py").write_text("raise ValueError('broken')\n")
        served.signal(signal.SIGUSR2)
        served.wait_for(r"process \d+ has ended \(status 1\); this one goes on")
        assert asked(path).startswith(b"HTTP/1.1 200")
        assert served.end() == 0
    assert not path.exists()


@pytest.mark.parametrize(
    "more",
    [
        ("--bind", "192.0.2.1:80"),
        ("--pid", "/no/folder/pid"),
        ("--pid", "/dev/full"),
        ("--error-log", "/no/folder/log"),
        ("--metrics", "192.0.2.1:80"),
    ],
)
def test_a_start_that_fails_leaves_no_socket(folder, more):
    path = folder / "socket"
    done = subprocess.run(
        command("site_app:app", "--app-dir", str(folder), "--bind", f"unix:{path}", *more),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot" in done.stderr
    assert not path.exists()


def test_a_socket_that_somebody_has_replaced_is_theirs(folder):
    path = folder / "socket"
    with serving(folder, "--workers", "1", bind=f"unix:{path}") as served:
        path.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(path))
            served.signal(signal.SIGHUP)
            served.wait_for("reloaded in")
            assert served.end() == 0
            assert path.exists()


# ---------------------------------------------------------------- files


def test_a_configuration_that_is_gone_at_a_reload(folder):
    file = folder / "my.toml"
    file.write_text('[serve]\napplication = "site_app:app"\nroot-path = "/site"\n')
    with serving(folder, "-c", str(file), "--workers", "1") as served:
        file.unlink()
        (folder / "site_app.py").write_text(APP.format(version=2))
        served.signal(signal.SIGHUP)
        served.wait_for("reloaded in")
        wait_until(lambda: served.get("/site/").startswith("2 "))  # the old worker may take one more
        served.signal(signal.SIGUSR2)  # this reads it again
        served.wait_for(r"process \d+ has ended \(status 1\); this one goes on")
        served.wait_for("cannot read .*my.toml: No such file")
        assert served.get().startswith("2 ")


def test_a_folder_that_is_gone_at_a_reload(folder):
    with serving(folder, "--workers", "1") as served:
        folder.rename(folder.with_name("away"))
        served.signal(signal.SIGHUP)
        served.wait_for("the old one goes on")
        assert served.get().startswith("1 ")
        folder.with_name("away").rename(folder)
        served.signal(signal.SIGHUP)
        served.wait_for("worker .* takes over from")


@pytest.mark.parametrize("broken", ["empty", "no PEM", "another key", "gone"])
def test_a_renewed_certificate_that_is_broken(folder, certificate, broken):
    cert, key = folder / "cert.pem", folder / "key.pem"
    good = Path(certificate.cert).read_bytes(), Path(certificate.key).read_bytes()
    cert.write_bytes(good[0])
    key.write_bytes(good[1])

    def handshakes(served):
        context = certificate.client_context()
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                return sock.version()

    with serving(folder, "--workers", "1", "--certfile", str(cert), "--keyfile", str(key)) as served:
        if broken == "gone":
            cert.unlink()
        elif broken == "another key":
            subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        else:
            cert.write_bytes(b"" if broken == "empty" else b"not a certificate\n")
        served.signal(signal.SIGHUP)
        served.wait_for(r"the certificate .* and its key cannot be used")
        served.wait_for("the old one goes on")
        assert handshakes(served).startswith("TLS")
        cert.write_bytes(good[0])
        key.write_bytes(good[1])
        served.signal(signal.SIGHUP)
        served.wait_for("takes over from")
        assert handshakes(served).startswith("TLS")


def test_logs_on_a_full_disk_and_one_that_comes_back(folder):
    """/dev/full takes nothing; the requests are answered all the same, and the log goes on where there is room."""
    log = folder / "access.log"
    log.symlink_to("/dev/full")
    options = ("--access-log", "common", "--access-log-file", str(log), "--workers", "1")
    with serving(folder, *options) as served:
        for _ in range(20):
            served.get("/full")
        served.wait_for("cannot write the access log")
        log.unlink()
        served.signal(signal.SIGUSR1)
        served.get("/room")
        wait_until(lambda: log.exists() and "/room" in log.read_text())


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_logs_that_the_user_may_not_open_again(folder):
    """After --user, a rotation that makes files for root alone: the old files go on, and a line says so."""
    folder.chmod(0o755)
    for parent in folder.parents:
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            pytest.skip(f"{parent} is closed to other users")
    log = folder / "access.log"
    options = ("--access-log", "common", "--access-log-file", str(log), "--workers", "1", "--user", "nobody")
    log.touch()
    os.chown(log, 65534, -1)
    with serving(folder, *options) as served:
        log.rename(folder / "old.log")
        log.touch(0o600)
        served.signal(signal.SIGUSR1)
        served.wait_for("cannot open the log anew: .*Permission denied")
        served.get("/on")
        wait_until(lambda: "/on" in (folder / "old.log").read_text())


# ---------------------------------------------------------------- the environment


@pytest.mark.parametrize(
    "environment",
    [
        {"NOTIFY_SOCKET": "/no/such/socket"},
        {"NOTIFY_SOCKET": "@"},
        {"NOTIFY_SOCKET": "/" + "x" * 200},
        {"NOTIFY_SOCKET": "vsock:2:1"},
        {"NOTIFY_SOCKET": "ü\udcff"},
        {"WATCHDOG_USEC": "-5"},
        {"WATCHDOG_USEC": "1"},
        {"WATCHDOG_USEC": "9" * 400},
        {"WATCHDOG_USEC": "soon", "WATCHDOG_PID": "x"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "3"},
        {"LISTEN_FDS": "x"},
        {"WEALD_SERVE_CERTFILE": ""},
        {"WEALD_SERVE_WORKERS": "", "WEB_CONCURRENCY": ""},
    ],
    ids=str,
)
def test_an_odd_environment(folder, environment):
    with serving(folder, "--workers", "1", env=environment) as served:
        assert served.get().startswith("1 ")
        served.signal(signal.SIGHUP)
        served.wait_for("reloaded in")
        process = psutil.Process(served.process.pid)
        before = sum(process.cpu_times()[:2])
        served.get()
        time.sleep(0.3)
        assert sum(process.cpu_times()[:2]) - before < 0.2  # it does not turn without end


@pytest.mark.parametrize("variable", ["LISTEN_FDS", "WEALD_HANDOVER"])
def test_sockets_that_are_not_there(folder, variable):
    """Of another program's making, and broken: a sentence."""
    code = (
        "import os, sys\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        f"os.environ[{variable!r}] = sys.argv[1]\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'weald', 'serve', *sys.argv[2:]])\n"
    )
    values = {
        "LISTEN_FDS": ("x", "5000", "99999999999999999999"),
        "WEALD_HANDOVER": ("x", "[]", '{"sockets": {"a": [999]}}'),
    }
    for value in values[variable]:
        done = subprocess.run(
            [command()[0], "-c", code, value, "site_app:app", "--app-dir", str(folder), "--bind", "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 1, done
        assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- PROXY protocol

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TCP4 = b"\x7f\0\0\x01\x7f\0\0\x02\x12\x34\0\x50"


@pytest.mark.parametrize(
    "header",
    [
        SIGNATURE + b"\x11\x11\0\x0c" + TCP4,
        SIGNATURE + b"\x31\x11\0\x0c" + TCP4,
        SIGNATURE + b"\x22\x11\0\x0c" + TCP4,
        SIGNATURE + b"\x21\x11\0\x0b" + TCP4,
        SIGNATURE + b"\x21\x11\0\0",
        SIGNATURE + b"\x21\x21\0\x0c" + TCP4,
        SIGNATURE + b"\x21\x11\xff\xff" + TCP4,
        SIGNATURE[:-1] + b"\r" + b"\x21\x11\0\x0c" + TCP4,
        SIGNATURE,
        b"PROXY",
        b"PROXY TCP4\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
        b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 1.2.3.4 1 \xb2\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        bytes(range(256)),
        b"\xff" * 5000,
    ],
)
def test_garbage_for_a_proxy_header(proxied, header):
    """It is closed without an answer, and whoever comes next is served."""
    with socket.create_connection(("127.0.0.1", proxied.port), PATIENCE) as sock:
        answer = b""
        with suppress(OSError):  # it may be closed before all is sent
            sock.sendall(header + b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            sock.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: sock.recv(65536), b""))
        assert answer == b""
    with socket.create_connection(("127.0.0.1", proxied.port), PATIENCE) as sock:
        sock.sendall(b"PROXY UNKNOWN\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: sock.recv(65536), b"")).startswith(b"HTTP/1.1 200")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proxied")
    (folder / "site_app.py").write_text(APP.format(version=1))
    with serving(folder, "--workers", "1", "--proxy-protocol", "127.0.0.1") as served:
        yield served


def test_no_renegotiation(folder, certificate):
    """A TLS 1.2 client that asks for new handshakes without end would cost more than it pays."""
    options = ("--certfile", certificate.cert, "--keyfile", certificate.key, "--workers", "1")
    with serving(folder, *options) as served:
        done = subprocess.run(
            ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{served.port}"],
            input="R\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert "RENEGOTIATING" in done.stdout + done.stderr
        assert "no renegotiation" in done.stdout + done.stderr or done.returncode
    assert ssl.OPENSSL_VERSION


@pytest.fixture
def without_proc():
    """A command's beginning by which it runs where /proc is empty."""
    unshare = require_program("unshare")
    as_root = [unshare, "-m"] if os.getuid() == 0 else [unshare, "-r", "-m"]
    inside = [*as_root, "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh"]
    if subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("no namespace for mounts is to be had")
    return inside


@pytest.mark.parametrize("preload", [(), ("--preload",)])
def test_a_system_without_proc(folder, preload, without_proc):
    """As in a bare chroot: workers live, and are not taken for dead."""
    with serving(folder, "--workers", "1", *preload, inside=without_proc) as served:
        assert served.get("/version") == served.get("/version")
        assert not any("Error" in line for line in served.lines)


def test_max_memory_on_a_system_without_proc(folder, without_proc):
    with serving(folder, "--workers", "1", "--max-memory", "1", inside=without_proc) as served:
        served.wait_for("has served its time", count=2)
