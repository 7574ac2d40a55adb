"""`weald serve` with ASGI applications: detection, lifespan, reload and stop under load, options, mounts."""

import asyncio
import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
from helpers import PATIENCE, python, wait_until
from serving import Load, command, serving

from weald.http.forwarded import ForwardedASGI, Trusted

APP = """
import asyncio, os, sys, weald.monkey
VERSION = {version!r}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        print("startup", VERSION, os.getpid(), file=sys.stderr)
        scope["state"]["pid"] = os.getpid()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await asyncio.sleep(0.01)
        print("shutdown", VERSION, os.getpid(), file=sys.stderr)
        await send({{"type": "lifespan.shutdown.complete"}})
        return
    path = scope["path"]
    if path == "/slow":
        await asyncio.sleep(0.5)
    if path == "/fail":
        raise KeyError("a bug")
    if path == "/late":
        open("begun", "w").close()
        while os.path.exists("late"):
            await asyncio.sleep(0.01)
    state = scope.get("state") or {{}}
    body = f"{{VERSION}} {{os.getpid()}} {{scope['scheme']}} {{state.get('pid')}} {{scope['client'][0]}}".encode()
    await send({{"type": "http.response.start", "status": 200, "headers": [(b"X-A", b"app")]}})
    await send({{"type": "http.response.body", "body": body}})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [f"wsgi {{environ['SCRIPT_NAME']}} {{environ['PATH_INFO']}} {{environ['wsgi.multiprocess']}}".encode()]

def make():
    return app

async def failing(scope, receive, send):
    await receive()
    await send({{"type": "lifespan.startup.failed", "message": "no database here"}})

async def without(scope, receive, send):
    assert scope["type"] == "http", "only http"
    await app(scope, receive, send)

def hidden(scope, receive, send):
    return app(scope, receive, send)
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    return tmp_path


def test_an_asgi_application_is_found_out(folder):
    """One startup and one shutdown a worker, however many listeners there are."""
    path = str(folder / "sock")
    with serving(folder, "--workers", "2", "--bind", f"unix:{path}") as served:
        for _ in range(20):
            version, pid, scheme, state_pid, client = served.get().split()
            assert (version, scheme, client) == ("1", "http", "127.0.0.1")
            assert pid == state_pid != str(served.process.pid)
    lines = [line for line in served.lines if "startup 1" in line or "shutdown 1" in line]
    assert [line.split()[0] for line in sorted(lines, key=lambda line: line.split()[0] == "shutdown")] == [
        *["startup"] * 2,
        *["shutdown"] * 2,
    ]


def test_reload_and_stop_under_load_lose_no_request(folder):
    with serving(folder, "--workers", "2") as served:
        load = Load(served.port)
        slow = Load(served.port, 2, "/slow")
        load.wait_for(20)
        (folder / "site_app.py").write_text(APP.format(version=2))
        served.signal(signal.SIGHUP)
        served.wait_for("reloaded in")
        load.wait_for(20, lambda body: body.startswith("2 "))
        slow.wait_for(2)
        served.signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE) == 0
        load.end()
        slow.end()
    for word, version in (("startup", 1), ("shutdown", 1), ("startup", 2), ("shutdown", 2)):
        assert sum(line.startswith(f"{word} {version} ") for line in served.lines) == 2


def test_files_are_watched(folder):
    with serving(folder, "--workers", "1", "--reload") as served:
        served.get()
        (folder / "site_app.py").write_text(APP.format(version=22))
        served.wait_for("reloaded in")
        wait_until(lambda: served.get().startswith("22 "))  # the old worker takes what is in its backlog


def test_a_request_that_is_under_way_at_the_stop_is_answered(folder):
    (folder / "late").touch()
    with serving(folder, "--workers", "1") as served:
        load = Load(served.port, 1, "/late")
        wait_until((folder / "begun").exists)
        served.signal(signal.SIGTERM)
        (folder / "late").unlink()
        assert served.process.wait(PATIENCE) == 0
        load.end()


def test_an_application_that_never_answers_does_not_keep_the_worker(folder):
    (folder / "late").touch()
    with serving(folder, "--workers", "1", "--graceful-timeout", "0.5") as served:
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as sock:
            sock.sendall(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
            wait_until((folder / "begun").exists)
            served.signal(signal.SIGTERM)
            assert served.process.wait(PATIENCE) == 0
            assert sock.recv(100) == b""
    served.wait_for("GET /late HTTP/1.1: the application had not ended when the server did: cancelled")
    served.wait_for("shutdown 1")


@pytest.mark.parametrize(
    ("application", "options", "lifespan"),
    [
        ("site_app:make()", (), True),
        ("site_app:without", (), False),
        ("site_app:app", ("--lifespan", "off"), False),
        ("site_app:hidden", ("--interface", "asgi"), True),
    ],
)
def test_kinds_of_applications(folder, application, options, lifespan):
    process = subprocess.Popen(
        command(application, "--app-dir", str(folder), "--bind", "127.0.0.1:0", "--workers", "1", *options),
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if " at http" in line:
            break
    port = lines[-1].partition("127.0.0.1:")[2].split()[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as response:
        body = response.read().decode()
    process.terminate()
    lines += process.stderr.readlines()
    process.stderr.close()
    assert process.wait(PATIENCE) == 0
    assert body.split()[3] == (body.split()[1] if lifespan else "None")
    assert any(line.startswith("shutdown") for line in lines) is lifespan
    assert any("takes no lifespan" in line for line in lines) is (application == "site_app:without")


@pytest.mark.parametrize(
    ("application", "options", "says"),
    [
        ("site_app:failing", (), "weald: the application's startup failed: no database here"),
        ("site_app:without", ("--lifespan", "on"), "the application takes no lifespan: AssertionError: only http"),
        ("site_app:app", ("--interface", "fastcgi"), "is not one of 'auto', 'wsgi', 'asgi'"),
        ("site_app:app", ("--mount", "old=site_app:wsgi"), "--mount must be like /prefix=MODULE:APP, not 'old="),
        ("site_app:app", ("--mount", "/old=site_app:nobody"), "site_app has no 'nobody'"),
    ],
)
def test_what_cannot_be_served(folder, application, options, says):
    done = subprocess.run(
        command(application, "--app-dir", str(folder), "--bind", "127.0.0.1:0", "--workers", "1", *options),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode != 0
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_check(folder):
    done = subprocess.run(
        command("site_app:app", "--app-dir", str(folder), "--check", "--mount", "/w=site_app:wsgi"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "site_app:app can be served\n"), done.stderr


def test_mounts(folder):
    options = ("--mount", "/old=site_app:wsgi", "--mount", "/new=site_app:make()", "--root-path", "/root")
    with serving(folder, "--workers", "2", *options) as served:
        assert served.get("/x").startswith("1 ")
        assert served.get("/old/x") == "wsgi /root/old /x True"
        assert served.get("/root/old/x") == "wsgi /root/old /x True"
        assert served.get("/new/x").split()[3] != "None"
    assert sum("startup 1" in line for line in served.lines) == 4


def test_logs_metrics_and_fields(folder):
    log = folder / "access.log"
    options = (
        *("--access-log", "json", "--access-log-file", str(log), "--header", "X-A: other", "--header", "X-B: b"),
        *("--metrics", "127.0.0.1:0", "--mount", "/old=site_app:wsgi", "--max-requests", "1000"),
    )
    with serving(folder, "--workers", "1", *options) as served:
        request = urllib.request.Request(
            f"http://127.0.0.1:{served.port}/x?y", headers={"Referer": "there", "User-Agent": "me"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            fields = response.headers
        assert fields.get_all("X-A") == ["app"]
        assert fields.get_all("X-B") == ["b"]
        with pytest.raises(urllib.error.HTTPError, match="500"):
            served.get("/fail")
        served.get("/old")
        metrics = served.wait_for(r"metrics at (http://[^ ]+/metrics)")[1]

        def counted():
            with urllib.request.urlopen(metrics, timeout=PATIENCE) as response:
                text = response.read().decode()
            return text

        wait_until(lambda: all(f'code="{kind}"}} {count}\n' in counted() for kind, count in (("2xx", 2), ("5xx", 1))))
    served.wait_for("KeyError: 'a bug'")
    first, second, third = map(json.loads, log.read_text().splitlines())
    assert (first["method"], first["target"], first["status"]) == ("GET", "/x?y", 200)
    assert (first["referer"], first["agent"], first["remote"]) == ("there", "me", "127.0.0.1")
    assert (second["target"], second["status"], third["target"], third["status"]) == ("/fail", 500, "/old", 200)


def test_behind_a_proxy(folder):
    def ask(served, **fields):
        request = urllib.request.Request(f"http://127.0.0.1:{served.port}/", headers=fields)
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            words = response.read().decode().split()
        return words

    fields = {"X-Forwarded-For": "6.6.6.6, 1.2.3.4", "X-Forwarded-Proto": "https"}
    with serving(folder, "--workers", "1", "--forwarded-allow-ips", "127.0.0.1") as served:
        assert ask(served, **fields)[2:5:2] == ["https", "1.2.3.4"]
        with pytest.raises(urllib.error.HTTPError, match="400"):
            ask(served, **{"X-Forwarded-For": "nobody knows"})
    with serving(folder, "--workers", "1", "--forwarded-allow-ips", "10.0.0.1") as served:
        assert ask(served, **fields)[2:5:2] == ["http", "127.0.0.1"]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_forwarded_fields(kind):
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)

    async def send(message):
        seen.append(message)

    def scope(client, *fields):
        scheme = "http" if kind == "http" else "ws"
        return {"type": kind, "scheme": scheme, "client": client, "headers": [(b"host", b"inner"), *fields]}

    made = ForwardedASGI(app, Trusted("127.0.0.1,unix"))
    believed = ((b"forwarded", b'for="[2001:db8::1]:80";proto=https;host=outer'),)
    for client in (("127.0.0.1", 9), None):
        asyncio.run(made(scope(client, *believed), None, send))
        found = seen.pop()
        assert (found["client"], found["scheme"]) == (("2001:db8::1", 0), "https" if kind == "http" else "wss")
        assert [field for field in found["headers"] if field[0] == b"host"] == [(b"host", b"outer")]
    asyncio.run(made(scope(("9.9.9.9", 9), *believed), None, send))
    found = seen.pop()
    assert (found["client"], found["headers"]) == (("9.9.9.9", 9), [(b"host", b"inner")])
    asyncio.run(made(scope(None, (b"x-forwarded-proto", b"gopher")), None, send))
    assert seen[0]["type"] == ("http.response.start" if kind == "http" else "websocket.close")
    asyncio.run(made({"type": "lifespan"}, None, send))
    assert seen[-1] == {"type": "lifespan"}


def test_an_application_of_wsgi_loads_no_asyncio(folder):
    out = python("import sys; from weald.serve import worker, wsgi; print('asyncio' in sys.modules)")
    assert out == "False\n"
