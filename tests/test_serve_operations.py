"""`weald serve` while what it runs on fails: logs that nobody takes, workers that are stuck, forks that are refused."""

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import python
from serving import APP, command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    return tmp_path


def ask(path: Path, request: bytes = b"GET / HTTP/1.0\r\n\r\n") -> str:
    """What the server on the Unix socket answers, the whole connection."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        sock.sendall(request)
        parts = []
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def until_answer(path: Path, pattern: str) -> Any:
    """Asks until an answer has `pattern`."""
    deadline = time.monotonic() + 60
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
def unread(kind: str) -> Iterator[Any]:
    """A standard error, or output, that takes nothing."""
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
def serving_unread(folder: Path, kind: str, *arguments: str) -> Iterator[Any]:
    """`weald serve` at folder/sock whose standard error takes nothing, and neither does its output."""
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
            process.wait(20)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_log_that_takes_nothing_does_not_decide_about_service(folder: Path, kind: str) -> None:
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
        (folder / "site_app.py").write_text("raise ValueError")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        until_answer(sock, r"\n2 ")
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


def test_what_a_stalled_log_could_not_take_comes_later(folder: Path) -> None:
    """Up to a limit; what came beyond that is counted."""
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
def test_an_error_report_does_not_wait_for_who_reads_it(kind: str) -> None:
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
def test_a_wsgi_server_whose_logs_take_nothing(kind: str) -> None:
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


def run_unread(code: str, kind: str) -> None:
    """Run `code`, which writes "done" to the file of its argument, with logs that take nothing."""
    import sys
    import tempfile
    import textwrap

    with tempfile.NamedTemporaryFile("r") as result, unread(kind) as stream:
        closing = "exec \"$@\" 2>&- >&-" if kind == "closed" else 'exec "$@"'
        program = ["sh", "-c", closing, "sh", sys.executable, "-c", textwrap.dedent(code), result.name]
        process = subprocess.Popen(program, stdout=stream, stderr=stream)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait(20)
        assert result.read() == "done"
