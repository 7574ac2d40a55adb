"""`weald serve` as its users run it: real processes, signals, logs, metrics, systemd's protocols."""

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import require_program
from helpers import PATIENCE, run_patched, wait_until
from serving import APP, PATIENT, Load, command, has_ended, serving

from weald.http.limits import Limits
from weald.http.state import ServerState
from weald.serve.accesslog import FORMATS
from weald.serve.config import Config, load_application, parse_limits
from weald.serve.errors import ConfigError
from weald.serve.listeners import parse_bind, refuse_newcomers
from weald.serve.metrics import BUCKETS, Metrics


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    return tmp_path


# ---------------------------------------------------------------- serving


def test_workers_share_the_load(folder):
    with serving(folder, "--workers", "2") as served:
        pids = set()
        for _ in range(200):
            version, pid, scheme, many = served.get().split()
            assert (version, scheme, many) == ("1", "http", "True")
            pids.add(pid)
            if len(pids) == 2:
                break
        assert len(pids) == 2
        assert str(served.process.pid) not in pids


def test_several_addresses(folder):
    path = str(folder / "sock")
    with serving(folder, "--workers", "2", "--bind", f"unix:{path}", umask=0o077) as served:
        assert served.get().startswith("1 ")
        assert os.stat(path).st_mode & 0o777 == 0o666  # a proxy runs as another user
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(path)
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert not os.path.exists(path)


def test_tls(folder, certificate):
    options = ("--certfile", certificate.cert, "--keyfile", certificate.key, "--workers", "1")
    with serving(folder, *options) as served:
        url = f"https://127.0.0.1:{served.port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=certificate.client_context()) as response:
            assert b" https " in response.read()
        done = subprocess.run(
            [require_program("curl"), "-sS", "--cacert", certificate.cert, "-w", "|%{http_version}", url],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout.endswith("|2"), done.stderr


def test_a_factory_and_limits(folder):
    process = subprocess.run(command("site_app:make()", "--app-dir", str(folder), "--check"), capture_output=True)
    assert process.returncode == 0, process.stderr
    with serving(folder, "--limit", "request_line=50", "--workers", "1") as served:
        with pytest.raises(urllib.error.HTTPError, match="414"):
            served.get("/" + "a" * 60)


# ---------------------------------------------------------------- reload and stop


def test_a_reload_under_load_fails_no_request(folder):
    with serving(folder, "--workers", "2") as served:
        load = Load(served.port)
        load.wait_for(50)
        for version in (2, 3):  # the second may come while the first is under way
            (folder / "site_app.py").write_text(APP.format(version=version))
            served.signal(signal.SIGHUP)
            load.wait_for(50, lambda body, version=version: body.startswith(f"{version} "))
        load.end()


def test_a_reload_that_does_not_load_changes_nothing(folder):
    with serving(folder, "--workers", "1") as served:
        before = served.get()
        (folder / "site_app.py").write_text("raise ValueError('broken')")
        served.signal(signal.SIGHUP)
        served.wait_for("the old one goes on")
        served.wait_for("ValueError: broken")
        assert served.get() == before


def test_a_stop_under_load_fails_no_request(folder):
    with serving(folder, "--workers", "2") as served:
        load = Load(served.port)
        slow = Load(served.port, threads=2, path="/slow")
        load.wait_for(50)
        assert served.end() == 0
        load.end()
        slow.end()


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_comes_to_a_listener_that_is_about_to_end(family, host):
    """A client is connected before that, or not at all: a connection that is not accepted any more would be reset."""
    with socket.create_server((host, 0), family=family) as listener:
        address = listener.getsockname()[:2]
        with socket.create_connection(address) as early:
            if not refuse_newcomers(listener) and os.geteuid() != 0:
                pytest.skip("this kernel lets only root filter a socket's packets")
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            accepted, _ = listener.accept()
            with accepted:
                early.sendall(b"question")
                assert accepted.recv(100) == b"question"
                accepted.sendall(b"answer")
                assert early.recv(100) == b"answer"


def test_a_stop_ends_idle_connections_and_what_takes_too_long(folder):
    with serving(folder, "--workers", "1", "--graceful-timeout", "2", *PATIENT) as served:
        idle = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
        idle.request("GET", "/")
        assert idle.getresponse().read()
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as stuck:
            stuck.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            assert served.end() == 0
        assert idle.sock.recv(100) == b""
        idle.close()


def test_what_is_under_way_at_one_address_costs_the_others_nothing(folder):
    path = str(folder / "sock")
    with serving(folder, "--workers", "1", "--bind", f"unix:{path}", "--graceful-timeout", "1000", *PATIENT) as served:
        with (
            socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as stuck,
            socket.socket(socket.AF_UNIX) as idle,
        ):
            stuck.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            idle.settimeout(PATIENCE)
            idle.connect(path)
            idle.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert idle.recv(1000).startswith(b"HTTP/1.1 200 OK")
            served.signal(signal.SIGTERM)
            assert idle.recv(1000) == b""
            assert served.process.poll() is None
        assert served.process.wait(PATIENCE) == 0


def refuses(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE).close()
    except ConnectionRefusedError:
        return True
    return False


def test_ctrl_c_twice_does_not_wait(folder):
    with serving(folder, "--workers", "1", "--graceful-timeout", "300") as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as stuck:
            stuck.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n")
            served.signal(signal.SIGINT)
            wait_until(lambda: refuses(served.port))
            served.signal(signal.SIGINT)
            served.process.wait(PATIENCE)


@contextmanager
def wrk(port, path="/"):
    """100 connections that send requests as fast as they can until the block ends; wrk counts the errors."""
    program = require_program("wrk", "wrk")
    command = [program, "-t1", "-c100", "-d120s", "--timeout", "100s", f"http://127.0.0.1:{port}{path}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    said = ""
    try:
        yield process
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE)
    found = re.search(r"(\d+) requests in", said)
    assert found, said
    assert int(found[1]) > 0
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said


def test_a_reload_under_wrk_fails_no_request(folder):
    with serving(folder, "--workers", "2") as served, wrk(served.port):
        for version in (2, 3):
            (folder / "site_app.py").write_text(APP.format(version=version))
            served.signal(signal.SIGHUP)
            wait_until(lambda version=version: served.get().startswith(f"{version} "))


def test_a_stop_under_wrk_fails_no_request(folder):
    """The listener stays open, as systemd's would: a client that connects after the end waits and is not refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as listener:
        with activated(listener, "site_app:app", "--workers", "2", cwd=folder) as process:
            port = listener.getsockname()[1]
            with wrk(port) as load:
                for _ in range(50):
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as response:
                        assert response.read().startswith(b"1 ")
                process.send_signal(signal.SIGTERM)
                assert process.wait(PATIENCE) == 0
                assert load.poll() is None


# ---------------------------------------------------------------- keeping workers


def test_a_worker_that_dies_is_replaced(folder):
    with serving(folder, "--workers", "1") as served:
        pid = int(served.get().split()[1])
        os.kill(pid, signal.SIGKILL)
        served.wait_for(f"worker {pid} died .signal 9")
        assert int(served.get().split()[1]) != pid


def test_a_worker_that_hangs_is_killed(folder):
    with serving(folder, "--workers", "1", "--timeout", "2") as served:
        pid = int(served.get().split()[1])
        with pytest.raises((OSError, http.client.HTTPException)):
            served.get("/hang")
        served.wait_for(f"worker {pid} hangs")
        assert int(served.get().split()[1]) != pid


def test_a_worker_without_descriptors_is_no_worker_that_hangs(folder):
    def few_descriptors():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    with serving(folder, "--workers", "1", "--timeout", "2.5", preexec_fn=few_descriptors) as served:
        before = served.get()
        crowd = [socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) for _ in range(80)]
        served.wait_for("Too many open files")
        time.sleep(5)  # in twice its time nothing must happen
        for sock in crowd:
            sock.close()
        assert served.get() == before


@pytest.mark.parametrize("option", [("--max-requests", "30", "--max-requests-jitter", "5"), ("--max-memory", "1")])
def test_workers_are_replaced_in_time_and_no_request_fails(folder, option):
    with serving(folder, "--workers", "1", *option) as served:
        load = Load(served.port, threads=2)
        served.wait_for("has served its time", count=2)
        load.end()
        assert len({body.split()[1] for body in load.bodies}) >= 2


def test_a_worker_is_replaced_in_the_end_if_its_successor_did_not_start(folder):
    with serving(folder, "--workers", "1", "--max-requests", "1") as served:
        (folder / "site_app.py").write_text("raise ValueError('broken')")
        assert served.get().startswith("1 ")
        served.wait_for("the old one goes on")
        (folder / "site_app.py").write_text(APP.format(version=2))
        wait_until(lambda: served.get().startswith("2 "))


def test_workers_end_with_their_parent(folder):
    with serving(folder, "--workers", "1") as served:
        pid = int(served.get().split()[1])
        served.process.kill()
        served.process.wait(PATIENCE)
        wait_until(lambda: has_ended(pid))


def test_workers_that_die_again_and_again_are_not_replaced_at_once(folder):
    """They note when they begin and when they die."""
    notes = folder / "notes"
    (folder / "site_app.py").write_text(
        "import os, time\n"
        "def note():\n"
        f"    with open({str(notes)!r}, 'a') as file: print(time.monotonic(), file=file)\n"
        "note()\n"
        "def app(environ, start_response): note(); os._exit(7)\n"
    )
    with serving(folder, "--workers", "1") as served:
        for count in range(1, 4):
            with pytest.raises((OSError, http.client.HTTPException)):
                served.get()
            served.wait_for("died", count)
        wait_until(lambda: len(notes.read_text().splitlines()) == 7)
    times = [float(line) for line in notes.read_text().splitlines()]
    assert all(start - death >= 1.0 for death, start in zip(times[1::2], times[2::2], strict=True))


# ---------------------------------------------------------------- what goes wrong at the start


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no_such_module:app"], "there is no module 'no_such_module'"),
        (["site_app:missing"], "site_app has no 'missing'"),
        (["site:app"], "site has no 'app'; it is a module of Python's own, so yours needs another name"),
        (["site_app:nothing"], "cannot be called"),
        (["site_app:app", "--bind", "nowhere"], "no address to bind to"),
        (["site_app:app", "--certfile", "/no/file"], "cannot be used"),
        (["site_app:app", "--limit", "speed=1"], "no limit 'speed'"),
        (["site_app:app", "--limit", "head=x"], "needs a number"),
        (["site_app:app", "--keyfile", "x"], "a key needs a certificate"),
        ([":app"], "no module"),
        ([".site_app:app"], "no module"),
        (["site_app:app", "--bind", "unix:"], "no address to bind to"),
        (["site_app:app", "--limit", "head=-1"], "needs a number"),
        (["site_app:app", "--limit", "body_rate=0"], "needs a number"),
        (["site_app:app", "--app-dir", "/no/folder"], "no folder /no/folder"),
        (["site_app:app", "--access-log", "json", "--access-log-file", "/no/folder/x"], "cannot write to /no/folder/x"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_a_bad_start(folder, arguments, message, check):
    binds = [] if "--bind" in arguments else ["--bind", "127.0.0.1:0"]
    done = subprocess.run(
        command("--app-dir", str(folder), *arguments, "--workers", "1", *binds, *(["--check"] if check else [])),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            command("site_app:app", "--app-dir", str(folder), "--bind", bind),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert done.returncode == 1
    assert f"cannot bind to {bind}" in done.stderr


def test_an_address_that_other_workers_share(folder):
    with serving(folder, "--workers", "2") as served:
        again = command(
            "site_app:app", "--app-dir", str(folder), "--workers", "2", "--bind", f"127.0.0.1:{served.port}"
        )
        done = subprocess.run(again, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert f"cannot bind to 127.0.0.1:{served.port}" in done.stderr


def test_a_file_where_the_socket_is_to_be_is_left_alone(folder):
    file = folder / "precious"
    file.write_text("data")
    done = subprocess.run(
        command("site_app:app", "--app-dir", str(folder), "--bind", f"unix:{file}"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert f"cannot bind to unix:{file}" in done.stderr
    assert file.read_text() == "data"


def test_a_socket_that_somebody_has_left_is_replaced(folder):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "sock"))
    log = folder / "log"
    options = ("--workers", "1", "--access-log", "common", "--access-log-file", str(log))
    with serving(folder, *options, bind=f"unix:{folder / 'sock'}"), socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(folder / "sock"))
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
    assert log.read_text().startswith("- - - [")


def test_files_are_where_the_command_was_given(folder, certificate):
    (folder / "cert").symlink_to(certificate.cert)
    (folder / "key").symlink_to(certificate.key)
    (folder / "site").mkdir()
    (folder / "site_app.py").rename(folder / "site" / "site_app.py")
    options = ("--certfile", "cert", "--keyfile", "key", "--access-log", "json", "--access-log-file", "log")
    with serving(Path("site"), *options, "--workers", "1", cwd=folder) as served:
        url = f"https://127.0.0.1:{served.port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=certificate.client_context()) as response:
            assert response.read()
    assert json.loads((folder / "log").read_text())["status"] == 200


# ---------------------------------------------------------------- logs and metrics


def test_access_log_and_rotation(folder):
    log = folder / "access.log"
    options = ("--workers", "1", "--access-log", "json", "--access-log-file", str(log))

    def lines(path, count):
        def found():
            return path.read_text().splitlines() if path.exists() else []

        wait_until(lambda: len(found()) >= count)
        return [json.loads(line) for line in found()]

    with serving(folder, *options) as served:
        served.get("/one?two")
        (entry,) = lines(log, 1)
        assert (entry["method"], entry["target"], entry["status"]) == ("GET", "/one?two", 200)
        log.rename(folder / "access.log.1")
        served.signal(signal.SIGUSR1)
        wait_until(log.exists)
        served.get("/three")
        assert lines(log, 1)[0]["target"] == "/three"
        served.get("/last")
    assert [entry["target"] for entry in lines(log, 2)] == ["/three", "/last"]


def test_requests_that_were_none_are_logged_and_counted_as_such(folder):
    options = ("--workers", "1", "--access-log", "json", "--metrics", "127.0.0.1:0")
    with serving(folder, *options) as served:
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as sock:
            sock.sendall(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\nGET /bad HTTP/1.1\r\n\r\n")
            while sock.recv(1000):
                pass
        with urllib.request.urlopen(served.wait_for(r"metrics at (\S+)")[1], timeout=PATIENCE) as response:
            text = response.read().decode()
        assert 'weald_requests_total{code="2xx"} 1\n' in text
        assert 'weald_requests_total{code="4xx"} 1\n' in text
        good, bad = (json.loads(served.process.stdout.readline()) for _ in range(2))
    assert (good["target"], good["status"]) == ("/good", 200)
    assert (bad["target"], bad["method"], bad["status"]) == (None, None, 400)


def test_a_full_disk_ends_no_log():
    run_patched(
        """
        import os, time
        from weald.serve.accesslog import LogFile

        reader, writer = os.pipe()
        with open(writer, "wb"):
            log = LogFile("/dev/full")
            log.write("first")
            log.flush()
            log.path = f"/dev/fd/{writer}"
            log.reopen()
            log.write("second")
            while log.pending():
                time.sleep(0.01)
            assert os.read(reader, 100) == b"first\\nsecond\\n"
        """,
        stderr="weald: cannot write the access log /dev/full: [Errno 28] No space left on device\n",
    )


def test_log_formats():
    class Handler:
        client_address = ("192.0.2.1", 5)
        requestline = 'GET /"\\ HTTP/1.1'
        command, path, request_version = "GET", '/"\\', "HTTP/1.1"
        environ = {"HTTP_REFERER": "http://a/", "HTTP_USER_AGENT": 'evil"\nagent', "HTTP_HOST": "b"}
        status, code, response_length = b"200 OK", 200, 321
        time_start, time_finish = 1e9, 1e9 + 0.25

    assert re.fullmatch(
        r'192\.0\.2\.1 - - \[0[89]/Sep/2001:\d\d:46:40 [+-]\d{4}\] "GET /\\x22\\x5c HTTP/1\.1" 200 321',
        FORMATS["common"](Handler),
    )
    assert FORMATS["combined"](Handler).endswith(' 321 "http://a/" "evil\\x22\\x0aagent"')
    entry = json.loads(FORMATS["json"](Handler))
    assert (entry["seconds"], entry["agent"], entry["bytes"]) == (0.25, 'evil"\nagent', 321)


def test_metrics(folder):
    with serving(folder, "--workers", "2", "--metrics", "127.0.0.1:0") as served:
        where = served.wait_for(r"metrics at (http://\S+)")[1]
        for _ in range(3):
            served.get()
        with pytest.raises(urllib.error.HTTPError):
            served.get("/fail")

        def measured():
            text = urllib.request.urlopen(where, timeout=PATIENCE).read().decode()
            return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))

        # A response is counted just after it has been sent.
        wait_until(lambda: measured()["weald_request_duration_seconds_count"] == "4")
        values = measured()
        assert values['weald_requests_total{code="2xx"}'] == "3"
        assert values['weald_requests_total{code="5xx"}'] == "1"
        assert values["weald_request_duration_seconds_count"] == "4"
        assert values['weald_request_duration_seconds_bucket{le="+Inf"}'] == "4"
        assert values['weald_worker_starts_total{worker="1"}'] == "1"
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(where.replace("/metrics", "/"), timeout=PATIENCE)


def test_nobody_keeps_the_port_of_the_metrics(folder):
    options = ("--workers", "1", "--metrics", "127.0.0.1:0", "--graceful-timeout", "1000", *PATIENT)
    with serving(folder, *options) as served:
        address = ("127.0.0.1", int(served.wait_for(r"metrics at http://127.0.0.1:(\d+)")[1]))
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as stuck:
            stuck.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
            served.signal(signal.SIGTERM)
            while True:
                try:
                    socket.create_connection(address, timeout=PATIENCE).close()
                except ConnectionResetError:
                    pass  # just then
                except ConnectionRefusedError:
                    break
                assert served.process.poll() is None
            assert served.process.poll() is None
        assert served.process.wait(PATIENCE) == 0


def test_the_histogram_is_cumulative():
    metrics = Metrics(2)
    states = [ServerState(Limits()) for _ in range(2)]
    for slot, state in enumerate(states):
        state.count_in(metrics.row(slot), BUCKETS)
    codes = [200, -204, 404, None, 999]
    for slot, seconds, code in zip((0, 1, 0, 1, 0), (0.001, 0.002, 99.0, -1.0, 0.0), codes, strict=True):
        states[slot].count(code or 0, seconds)
    assert [state.served for state in states] == [3, 2]
    text = metrics.text()
    assert 'requests_total{code="2xx"} 2\n' in text
    assert 'requests_total{code="4xx"} 1\n' in text
    assert 'bucket{le="0.001"} 3\n' in text
    assert 'bucket{le="0.0025"} 4\n' in text
    assert 'bucket{le="10"} 4\n' in text
    assert 'bucket{le="+Inf"} 5\n' in text
    assert "seconds_sum 99.003000\n" in text


@pytest.mark.parametrize("row", [bytearray(1000), b"x" * 1000, memoryview(bytearray(64)).cast("d")], ids=type)
def test_what_cannot_be_counted_in(row):
    with pytest.raises((ValueError, BufferError)):
        ServerState(Limits()).count_in(row, BUCKETS)


# ---------------------------------------------------------------- systemd


@contextmanager
def activated(listener, *arguments, cwd, **environ):
    """`weald serve` with a listener that was open before, as systemd passes it on."""
    starter = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1');"
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", starter, str(listener.fileno()), *command(*arguments)[1:]],
        cwd=cwd,
        env={**os.environ, **environ},
        pass_fds=[listener.fileno()],
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)


def test_socket_activation_and_notification(folder):
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        notified.bind(str(folder / "notify"))
        notified.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        options = ("site_app:app", "--workers", "2")
        with activated(listener, *options, cwd=folder, NOTIFY_SOCKET=str(folder / "notify")) as process:
            assert notified.recv(1000).decode().split("\n") == ["READY=1", f"MAINPID={process.pid}"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as response:
                assert response.read().startswith(b"1 ")
            process.send_signal(signal.SIGHUP)
            reloading = notified.recv(1000).decode().split("\n")
            assert reloading[0] == "RELOADING=1"
            assert reloading[1].startswith("MONOTONIC_USEC=")
            assert notified.recv(1000).startswith(b"READY=1")
            process.send_signal(signal.SIGTERM)
            while (message := notified.recv(1000)) != b"STOPPING=1":
                assert message.startswith(b"READY=1")
            assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("count", ["x", "9"])
def test_sockets_that_are_none(folder, count):
    starter = (
        "import os, sys; os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[1]);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", starter, count, *command("site_app:app")[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert "the sockets from systemd cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_datagram_socket_is_no_listener(folder):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with activated(sock, "site_app:app", "--workers", "1", cwd=folder) as process:
            assert process.wait(PATIENCE) == 1


# ---------------------------------------------------------------- small things


def test_parse_bind():
    assert parse_bind(":80") == ("", 80)
    assert parse_bind("*:80") == ("", 80)
    assert parse_bind("[::1]:80") == ("::1", 80)
    assert parse_bind("[fe80::1%lo]:80") == ("fe80::1%lo", 80)
    assert parse_bind("unix:@name") == "\0name"
    assert parse_bind("unix:/a:b") == "/a:b"
    for bad in ("80", "a:", "a:b", "a:-1", "a:65536"):
        with pytest.raises(ConfigError):
            parse_bind(bad)


def test_parse_limits():
    limits = parse_limits(["head-timeout=2.5", "body=10"])
    assert (limits.head_timeout, limits.body, limits.fields) == (2.5, 10, Limits().fields)


def test_config():
    assert Config("a:b").workers == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError):
        Config("a:b", workers=0).check()


def test_load_application():
    assert load_application("wsgiref.simple_server:demo_app")
    with pytest.raises(ConfigError, match="has no 'application'"):
        load_application("wsgiref.simple_server")
