"""`weald serve` under failures: logs that are not read, workers that are stuck, forks that are refused."""

import http.client
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import require_program
from helpers import PATIENCE, python, wait_until
from serving import APP, command, has_ended, serving


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    return tmp_path


def ask(path, request=b"GET / HTTP/1.0\r\n\r\n"):
    """All that the server on the Unix socket sends on one connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(request)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def until_answer(path, pattern):
    """Send requests until a response has `pattern`."""
    deadline = time.monotonic() + PATIENCE
    said = ""
    while time.monotonic() < deadline:
        try:
            said = ask(path)
        except OSError as error:
            said = repr(error)
        if found := re.search(pattern, said):
            return found
        time.sleep(0.02)
    raise AssertionError(f"no {pattern!r} in {said!r}")


@contextmanager
def unread(kind):
    """A standard error, or output, that accepts nothing."""
    if kind == "full disk":
        with open("/dev/full", "wb") as file:
            yield file
        return
    reader, writer = os.pipe()
    if kind == "stalled":
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(writer, True)
    elif kind == "reader gone":
        os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)
        if kind == "stalled":
            os.close(reader)


KINDS = ["closed", "full disk", "reader gone", "stalled"]


@contextmanager
def serving_unread(folder, kind, *arguments):
    """`weald serve` at folder/sock, whose standard error and output accept nothing."""
    with unread(kind) as stream:
        closing = "exec \"$@\" 2>&- >&-" if kind == "closed" else 'exec "$@"'
        process = subprocess.Popen(
            ["sh", "-c", closing, "sh", *command("site_app:app", "--app-dir", str(folder), "--workers", "1")]
            + ["--bind", f"unix:{folder / 'sock'}", *arguments],
            stdout=stream,
            stderr=stream,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_log_that_takes_nothing_does_not_decide_about_service(folder, kind):
    sock = folder / "sock"
    with serving_unread(folder, kind, "--access-log", "common", "--graceful-timeout", "5") as process:
        first = until_answer(sock, r"\n1 (\d+) ")[1]
        for _ in range(1500):  # each is a line in the error log
            assert ask(sock, b"GET / HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 400 ")
        assert ask(sock, b"GET /fail HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 500 ")
        assert ask(sock, b"GET /print HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 200 ")
        (folder / "site_app.py").write_text(APP.format(version=2))
        process.send_signal(signal.SIGHUP)
        second = until_answer(sock, r"\n2 (\d+) ")[1]
        assert second != first
        os.kill(int(second), signal.SIGKILL)
        until_answer(sock, rf"\n2 (?!{second} )")
        broken = folder / "broken"
        (folder / "site_app.py").write_text(f"open({str(broken)!r}, 'w').close()\nraise ValueError")
        process.send_signal(signal.SIGHUP)
        wait_until(broken.exists, PATIENCE)
        until_answer(sock, r"\n2 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    "between", ["os.closerange(3, 1000)", "[os.dup2(os.open(os.devnull, os.O_WRONLY), fd) for fd in own]"]
)
def test_a_log_outlives_who_closes_its_descriptor(between):
    """The log opens its own descriptor again; the next owner of the closed number gets no line of the log."""
    said = python(
        f"""
        import os, sys
        from weald._core.logs import Steady

        reader, writer = os.pipe()
        os.dup2(writer, 2)
        def opened():
            return {{int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + fd)}}
        before = opened()
        log = Steady(2)
        log.write(b"first\\n")
        print(os.read(reader, 100))
        own = opened() - before
        assert own
        os.dup2(reader, 1003)
        {between}
        log.write(b"second\\n")
        print(os.read(1003, 100))
        """
    )
    assert said == "b'first\\n'\nb'second\\n'\n"


def test_what_a_stalled_log_could_not_take_comes_later(folder):
    """Up to a limit; lines beyond that are counted."""
    said = python(
        """
        import os, sys
        from weald._core.logs import Steady

        reader, writer = os.pipe()
        log = Steady(writer, limit=100_000)
        for i in range(20_000):
            log.write(b"line %d\\n" % i)
        os.set_blocking(reader, False)
        got = b""
        while True:
            try:
                got += os.read(reader, 65536)
            except BlockingIOError:
                log.retry()
                try:
                    got += os.read(reader, 65536)
                except BlockingIOError:
                    break
        lines = got.decode().splitlines()
        kept = [line for line in lines if line.startswith("line")]
        assert kept == [f"line {i}" for i in range(len(kept))], kept[:10]
        assert lines[-1] == f"weald: {20_000 - len(kept)} lines of this log were lost", lines[-1]
        print("ok")
        """
    )
    assert said == "ok\n"


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_report_does_not_wait_for_who_reads_it(kind):
    code = """
    import sys, weald
    def fail():
        raise ValueError("x" * 1000)
    for _ in range(300):
        weald.spawn(fail)
    weald.sleep(0.01)
    weald.sleep(0.01)
    open(sys.argv[1], "w").write("done")
    """
    run_unread(code, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wsgi_server_whose_logs_take_nothing(kind):
    code = """
    import sys, weald
    from weald.pywsgi import WSGIServer
    from weald import socket
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/fail":
            raise ValueError("x" * 1000)
        print("y" * 1000, file=environ["wsgi.errors"])
        environ["wsgi.errors"].flush()
        start_response("200 OK", [])
        return [b"hello"]
    server = WSGIServer(("127.0.0.1", 0), app)
    server.start()
    def ask(path):
        with socket.create_connection(server.address) as sock:
            sock.sendall(b"GET %s HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n" % path)
            got = b""
            while part := sock.recv(1000):
                got += part
            return got.split()[1]
    for _ in range(200):
        assert ask(b"/") == b"200"
        assert ask(b"/fail") == b"500"
        assert ask(b"/ bad") == b"400"
    open(sys.argv[1], "w").write("done")
    """
    run_unread(code, kind)


def run_unread(code, kind):
    """Run `code`, which writes "done" to the file of its argument, with logs that accept nothing."""
    import sys
    import tempfile
    import textwrap

    with tempfile.NamedTemporaryFile("r") as result, unread(kind) as stream:
        closing = "exec \"$@\" 2>&- >&-" if kind == "closed" else 'exec "$@"'
        program = ["sh", "-c", closing, "sh", sys.executable, "-c", textwrap.dedent(code), result.name]
        process = subprocess.Popen(program, stdout=stream, stderr=stream)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait(PATIENCE)
        assert result.read() == "done"


# ---------------------------------------------------------------- one bad worker


@contextmanager
def stuck(served, folder):
    """One worker serves a request that keeps its other connections from running until the block ends."""
    latch = folder / "latch"
    latch.touch()
    thread = threading.Thread(target=served.get, args=(f"/stuck?{latch}",))
    thread.start()
    wait_until((folder / "latch.begun").exists)
    try:
        yield
    finally:
        latch.unlink()
        thread.join(PATIENCE)


def new_connections_are_answered(served, count=200):
    """The processes that serve the connections, all open at the same time."""
    connections = [socket.create_connection(("127.0.0.1", served.port), PATIENCE) for _ in range(count)]
    pids = set()
    for sock in connections:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
    for sock in connections:
        with sock, sock.makefile("rb") as file:
            answer = file.read().decode()
        assert answer.startswith("HTTP/1.1 200 OK")
        pids.add(answer.split("\r\n\r\n")[1].split()[1])
    return pids


def test_a_stuck_worker_holds_up_no_new_connection(folder):
    with serving(folder, "--workers", "2") as served, stuck(served, folder):
        assert len(new_connections_are_answered(served)) == 1


def test_a_worker_that_computes_holds_up_no_new_connection(folder):
    latch = folder / "computing"
    latch.touch()
    (folder / "site_app.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/compute':\n"
        f"        open({str(latch)!r} + '.begun', 'w').close()\n"
        f"        while os.path.exists({str(latch)!r}): pass\n"
        "    start_response('200 OK', [])\n"
        "    return [b'1 %d' % os.getpid()]\n"
    )
    with serving(folder, "--workers", "2") as served:
        thread = threading.Thread(target=served.get, args=("/compute",))
        thread.start()
        wait_until((folder / "computing.begun").exists)
        assert len(new_connections_are_answered(served)) == 1
        assert thread.is_alive()
        latch.unlink()
        thread.join(PATIENCE)


def test_a_worker_that_is_stopped_holds_up_no_new_connection(folder):
    with serving(folder, "--workers", "2") as served:
        pid = served.get().split()[1]
        os.kill(int(pid), signal.SIGSTOP)
        try:
            wait_until(lambda: psutil.Process(int(pid)).status() == psutil.STATUS_STOPPED)
            others = new_connections_are_answered(served)
            assert len(others) == 1
            assert pid not in others
        finally:
            os.kill(int(pid), signal.SIGCONT)


def test_a_worker_that_cannot_be_replaced_holds_up_no_new_connection(folder):
    with serving(folder, "--workers", "2") as served:
        (folder / "site_app.py").write_text("raise ValueError('broken')")
        pid = served.get().split()[1]
        os.kill(int(pid), signal.SIGKILL)
        served.wait_for("ValueError: broken")
        others = new_connections_are_answered(served)
        assert len(others) == 1
        assert pid not in others


def test_a_worker_that_takes_long_to_load_holds_up_no_new_connection(folder):
    with serving(folder, "--workers", "2") as served:
        latch = folder / "loading"
        latch.touch()
        code = f"import os, time\nwhile os.path.exists({str(latch)!r}): time.sleep(0.01)\n"
        (folder / "site_app.py").write_text(code + APP.format(version=2))
        os.kill(int(served.get().split()[1]), signal.SIGKILL)
        served.wait_for("died")
        assert len(new_connections_are_answered(served)) == 1
        latch.unlink()
        wait_until(lambda: served.get().startswith("2 "))


def test_connections_that_stay_are_spread_evenly(folder):
    with serving(folder, "--workers", "2") as served:
        pids = []
        connections = []
        for _ in range(100):
            sock = socket.create_connection(("127.0.0.1", served.port), PATIENCE)
            connections.append(sock)
            sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            pids.append(sock.recv(4096).split(b"\r\n\r\n")[1].split()[1])
        for sock in connections:
            sock.close()
        assert 30 <= pids.count(pids[0]) <= 70


# ---------------------------------------------------------------- processes


def test_a_fork_that_fails_is_tried_again(folder):
    """The limit of processes is a user's, and root has none: here fork() itself is replaced."""
    (folder / "sitecustomize.py").write_text(
        "import os, errno\n"
        "fork, me = os.fork, os.getpid()\n"
        "def failing():\n"
        f"    if os.path.exists({str(folder / 'no_forks')!r}):\n"
        "        raise BlockingIOError(errno.EAGAIN, 'Resource temporarily unavailable')\n"
        "    return fork()\n"
        "os.fork = failing\n"
    )
    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    with serving(folder, "--workers", "2", env=env) as served:
        pid = int(served.get().split()[1])
        (folder / "no_forks").touch()
        os.kill(pid, signal.SIGKILL)
        served.wait_for("cannot start a worker.*Resource temporarily unavailable")
        (folder / "site_app.py").write_text(APP.format(version=2))
        served.signal(signal.SIGHUP)
        served.wait_for("cannot start a worker.*Resource temporarily unavailable", 2)
        assert served.get().startswith("1 ")
        (folder / "no_forks").unlink()
        wait_until(lambda: len({served.get() for _ in range(20)}) == 2 and served.get().startswith("2 "))


@pytest.mark.parametrize("number", [signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGALRM])
def test_a_signal_that_means_nothing_here_ends_nothing(folder, number):
    with serving(folder, "--workers", "2") as served:
        served.signal(number)
        os.kill(int(served.get().split()[1]), signal.SIGUSR2)
        served.signal(signal.SIGHUP)
        served.wait_for("reloading")
        assert served.get()


def test_a_worker_that_is_told_to_stop_as_it_is_forked_stops(folder):
    """A signal that is sent before it has handlers of its own is not handled by those of its parent."""
    latch = folder / "forking"
    (folder / "sitecustomize.py").write_text(
        "import os, time\n"
        "def stay():\n"
        f"    while os.path.exists({str(latch)!r}): time.sleep(0.01)\n"
        "os.register_at_fork(after_in_child=stay)\n"
    )
    env = {"PYTHONPATH": str(folder)}
    with serving(folder, "--workers", "1", "--graceful-timeout", str(10 * PATIENCE), env=env) as served:
        old = int(served.get().split()[1])
        latch.touch()
        served.signal(signal.SIGHUP)
        parent = psutil.Process(served.process.pid)
        wait_until(lambda: len(parent.children()) == 2)
        served.signal(signal.SIGTERM)
        wait_until(lambda: not psutil.pid_exists(old))  # it is reaped after both have got the signal
        latch.unlink()
        assert served.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("how", ["stop", "reload", "served its time", "parent killed"])
def test_exit_functions_run_in_workers(folder, how):
    (folder / "site_app.py").write_text(
        "import atexit, os\n"
        f"atexit.register(lambda: open(os.path.join({str(folder)!r}, f'{{os.getpid()}}.flushed'), 'w').close())\n"
        + APP.format(version=1)
    )
    options = ("--max-requests", "1") if how == "served its time" else ()
    with serving(folder, "--workers", "1", *options) as served:
        pid = served.get().split()[1]
        if how == "stop":
            assert served.end() == 0
        elif how == "reload":
            served.signal(signal.SIGHUP)
        elif how == "parent killed":
            served.process.kill()
            served.process.wait(PATIENCE)
        wait_until((folder / f"{pid}.flushed").exists, PATIENCE)


def test_how_long_loading_may_take_is_an_option(folder):
    (folder / "site_app.py").write_text(
        "import weald.monkey\nweald.monkey.get_original('time', 'sleep')(1000)"
    )
    for seconds in ("1", "10", "60"):  # again if the machine was so slow that it did not reach the application
        done = subprocess.run(
            command("site_app:app", "--app-dir", str(folder), "--bind", "127.0.0.1:0", "--workers", "1")
            + ["--boot-timeout", seconds],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 1
        assert "does not get ready" in done.stderr
        if "site_app.py" in done.stderr:  # where it hung
            break
    else:
        pytest.fail(done.stderr)


def test_a_stuck_worker_does_not_outlive_a_killed_parent(folder):
    with serving(folder, "--workers", "1", "--timeout", "2") as served:
        pid, port = int(served.get().split()[1]), served.port
        connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        latch = folder / "latch"  # never released
        latch.touch()
        connection.sendall(f"GET /stuck?{latch} HTTP/1.0\r\n\r\n".encode())
        wait_until(Path(f"{latch}.begun").exists, PATIENCE)
        served.process.kill()
        served.process.wait(PATIENCE)

        def free():
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                return False
            return True

        wait_until(free, PATIENCE)
        connection.close()
        wait_until(lambda: has_ended(pid), PATIENCE)


def test_where_a_worker_hung_is_told(folder):
    with serving(folder, "--workers", "1", "--timeout", "2") as served:
        with pytest.raises((OSError, http.client.HTTPException)):
            served.get("/hang")
        served.wait_for("hangs")
        served.wait_for(r"site_app\.py")


def test_no_start_waits_for_the_name_of_an_address(folder):
    """Reverse DNS takes 10 s when the resolver is silent."""
    (folder / "sitecustomize.py").write_text(
        "import socket\n"
        "def refuse(*args): open(" + repr(str(folder / "asked")) + ", 'w').close(); return ('a', [], [])\n"
        "socket.gethostbyaddr = socket.getnameinfo = refuse\n"
        "import _socket; _socket.gethostbyaddr = _socket.getnameinfo = refuse\n"
    )
    env = {**os.environ, "PYTHONPATH": str(folder)}
    with serving(folder, "--workers", "1", env=env) as served:
        assert served.get("/name") == "127.0.0.1"
        served.signal(signal.SIGHUP)
        assert served.get("/name") == "127.0.0.1"
    assert not (folder / "asked").exists()


# ---------------------------------------------------------------- values


def run_once(folder, *arguments, **options):
    return subprocess.run(
        command("site_app:app", "--app-dir", str(folder), "--workers", "1", *arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


@pytest.mark.parametrize(
    "option",
    ["--timeout", "--graceful-timeout", "--boot-timeout", "--max-requests", "--max-requests-jitter", "--max-memory"],
)
@pytest.mark.parametrize("value", ["-1", "nan", "inf", "x"])
def test_values_are_checked(folder, option, value):
    done = run_once(folder, "--bind", "127.0.0.1:0", "--check", option, value)
    assert done.returncode in (1, 2)
    assert option in done.stderr
    assert "Traceback" not in done.stderr


def test_check_binds(folder):
    done = run_once(folder, "--bind", "192.0.2.1:8000", "--check")
    assert done.returncode == 1
    assert "cannot bind to 192.0.2.1:8000" in done.stderr
    done = run_once(folder, "--bind", f"unix:{folder}/no/folder/sock", "--check")
    assert done.returncode == 1
    done = run_once(folder, "--bind", f"unix:{folder}/sock", "--check")
    assert done.returncode == 0
    assert not (folder / "sock").exists()


def test_check_passes_while_the_service_itself_runs(folder):
    with serving(folder, "--workers", "1") as served:
        done = run_once(folder, "--bind", f"127.0.0.1:{served.port}", "--check")
        assert done.returncode == 0
        assert "is in use" in done.stderr


def test_check_leaves_no_log_behind(folder):
    log = folder / "access.log"
    options = ("--access-log", "json", "--access-log-file", str(log), "--check", "--bind", "127.0.0.1:0")
    assert run_once(folder, *options).returncode == 0
    assert not log.exists()


def test_a_key_with_a_password(folder, certificate):
    openssl = require_program("openssl")
    key = folder / "key.pem"
    subprocess.run(
        [openssl, "rsa", "-aes256", "-passout", "pass:secret", "-in", certificate.key, "-out", str(key)],
        check=True,
        capture_output=True,
    )
    options = ("--certfile", certificate.cert, "--keyfile", str(key))
    done = run_once(folder, *options, "--bind", "127.0.0.1:0", stdin=subprocess.DEVNULL)
    assert done.returncode == 1
    assert "has a password: give it in --key-password-file" in done.stderr
    password = folder / "password"
    password.write_text("wrong\n")
    done = run_once(folder, *options, "--bind", "127.0.0.1:0", "--key-password-file", str(password))
    assert done.returncode == 1
    assert "cannot be used" in done.stderr
    password.write_text("secret\n")
    with serving(folder, *options, "--key-password-file", str(password), "--workers", "1") as served:
        url = f"https://127.0.0.1:{served.port}/"
        with urllib.request.urlopen(url, timeout=PATIENCE, context=certificate.client_context()) as response:
            assert response.read()
