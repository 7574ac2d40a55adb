"""weald's worker under a real gunicorn."""

import ast
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from helpers import PATIENCE
from test_serve import Load

APP = """
import os, socket

def app(environ, start_response):
    assert socket.socket.__module__ == "weald.socket"
    if environ["PATH_INFO"] == "/fail":
        raise KeyError("a bug")
    start_response("200 OK", [("X-Method", environ["REQUEST_METHOD"])])
    if environ["PATH_INFO"] == "/environ":
        names = ("SCRIPT_NAME", "PATH_INFO", "wsgi.url_scheme", "HTTP_PATH_INFO", "HTTP_X_A")
        return [repr({name: environ[name] for name in names if name in environ}).encode()]
    return [f"{VERSION} {os.getpid()} {environ['wsgi.url_scheme']}".encode()]

VERSION = %d
"""


class Gunicorn:
    def __init__(self, process, port, log):
        self.process, self.port, self.log = process, port, log

    def get(self, path="/", **headers):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            body = response.read()
        return body.decode()

    def wait_for(self, pattern, count=1):
        deadline = time.monotonic() + PATIENCE
        while len(re.findall(pattern, self.log.read_text())) < count:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)


@contextmanager
def gunicorn(folder, *arguments, worker="weald.integrations.gunicorn.Worker"):
    (folder / "site_app.py").write_text(APP % 1)
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gunicorn", "-k", worker),
                *("--bind", f"fd://{listener.fileno()}", "--graceful-timeout", "10", *arguments, "site_app:app"),
            ],
            cwd=folder,
            stdout=file,
            stderr=file,
            pass_fds=[listener.fileno()],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        port = listener.getsockname()[1]
    running = Gunicorn(process, port, log)
    try:
        running.wait_for("Booting worker")
        yield running
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)


def test_it_serves_and_logs(tmp_path):
    with gunicorn(tmp_path, "--workers", "2", "--access-logfile", "-") as running:
        assert running.get().split()[0] == "1"
        assert running.get(**{"X-Forwarded-Proto": "https"}).split()[2] == "https"
        with pytest.raises(urllib.error.HTTPError, match="500"):
            running.get("/fail")
        with socket.create_connection(("127.0.0.1", running.port), timeout=PATIENCE) as sock:
            sock.sendall(b"nonsense\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 400 ")
        running.wait_for(r'"GET / HTTP/1\.1" 200 \d+ "-" "Python-urllib')
        running.wait_for(r'"GET /fail HTTP/1\.1" 500')
        running.wait_for("KeyError: 'a bug'")
        running.wait_for('"- - -" 400')


TOLD_TO_STOP = """
import os, signal
from weald import monkey
from weald.integrations.gunicorn import Worker

patch_all = monkey.patch_all

def told_to_stop():
    if not os.path.exists("told"):
        open("told", "w").close()
        os.kill(os.getpid(), signal.SIGTERM)
    patch_all()

monkey.patch_all = told_to_stop
"""


def test_a_worker_that_is_told_to_stop_while_it_begins_does(tmp_path):
    (tmp_path / "worker.py").write_text(TOLD_TO_STOP)
    with gunicorn(tmp_path, worker="worker.Worker") as running:
        running.wait_for("Worker exiting")
        assert running.get()


def test_limits_and_an_untrusted_client(tmp_path):
    options = ("--limit-request-line", "100", "--forwarded-allow-ips", "192.0.2.1")
    with gunicorn(tmp_path, *options) as running:
        assert running.get(**{"X-Forwarded-Proto": "https"}).split()[2] == "http"
        with pytest.raises(urllib.error.HTTPError, match="414"):
            running.get("/" + "a" * 200)


def environ_of(running, path="/environ", **headers):
    return ast.literal_eval(running.get(path, **headers))


def test_what_the_proxy_in_front_says(tmp_path):
    with gunicorn(tmp_path, "--forwarded-allow-ips", "127.0.0.0/8") as running:
        plain = {"SCRIPT_NAME": "", "PATH_INFO": "/environ", "wsgi.url_scheme": "http"}
        assert environ_of(running) == plain
        assert environ_of(running, "/app/environ", SCRIPT_NAME="/app") == {**plain, "SCRIPT_NAME": "/app"}
        assert environ_of(running, PATH_INFO="/x", X_A="1") == {**plain, "HTTP_PATH_INFO": "/x"}
        secure = {"X-Forwarded-Proto": "https", "X-Forwarded-Ssl": "on"}
        assert environ_of(running, **secure)["wsgi.url_scheme"] == "https"
        with pytest.raises(urllib.error.HTTPError, match="400"):
            running.get(**{**secure, "X-Forwarded-Ssl": "off"})
        with pytest.raises(urllib.error.HTTPError, match="500"):
            running.get("/environ", SCRIPT_NAME="/app")
        running.wait_for("contradict each other about the scheme")


def test_nobody_else_says_it(tmp_path):
    with gunicorn(tmp_path, "--forwarded-allow-ips", "192.0.2.0/24") as running:
        found = environ_of(running, SCRIPT_NAME="/app", PATH_INFO="/x", **{"X-Forwarded-Proto": "https"})
        assert found == {"SCRIPT_NAME": "", "PATH_INFO": "/environ", "wsgi.url_scheme": "http"}


def test_the_script_name_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SCRIPT_NAME", "/app")
    with gunicorn(tmp_path) as running:
        found = environ_of(running, "/app/environ")
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/app", "/environ")
        with pytest.raises(urllib.error.HTTPError, match="500"):
            running.get("/environ")


def test_the_size_of_a_field(tmp_path):
    with gunicorn(tmp_path, "--limit-request-field_size", "100") as running:
        assert running.get(**{"X-A": "a" * 90})
        with pytest.raises(urllib.error.HTTPError, match="431"):
            running.get(**{"X-A": "a" * 100})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("proxy_protocol", ["--proxy-protocol", "auto"]),
        ("permit_unconventional_http_method", ["--permit-unconventional-http-method"]),
        ("permit_obsolete_folding", ["--permit-obsolete-folding"]),
        ("header_map", ["--header-map", "dangerous"]),
    ],
)
def test_a_setting_that_is_not_followed_is_refused(name, arguments, tmp_path):
    (tmp_path / "site_app.py").write_text(APP % 1)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "gunicorn", "-k", "weald.integrations.gunicorn.Worker", "--bind", "127.0.0.1:0"),
            *(*arguments, "site_app:app"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert f"weald's worker does not follow {name} = " in done.stderr


def test_a_reload_under_load_fails_no_request(tmp_path):
    with gunicorn(tmp_path, "--workers", "2") as running:
        load = Load(running.port)
        load.wait_for(50)
        (tmp_path / "site_app.py").write_text(APP % 2)
        running.process.send_signal(signal.SIGHUP)
        load.wait_for(50, lambda body: body.startswith("2 "))
        load.end()


def test_workers_are_replaced_after_max_requests(tmp_path):
    with gunicorn(tmp_path, "--workers", "1", "--max-requests", "30") as running:
        load = Load(running.port, threads=2)
        running.wait_for("Autorestarting worker", 2)
        load.end()
        assert len({body.split()[1] for body in load.bodies}) >= 2
