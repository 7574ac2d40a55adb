"""Other people's programs at both ends of weald's HTTP server: nginx in front of it, curl, httpx, requests and wrk
as clients, Flask, Django and Bottle as applications.  The server is a process of its own, as in production.
"""

import hashlib
import os
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
import requests
import servers
from helpers import PATIENCE, wait_until
from servers import free_port, program, running
from test_serve import serving
from websockets.sync.client import connect

pytestmark = pytest.mark.timeout(300)  # a program's package may have to be installed first

SITE = """
import hashlib, json, os
from pathlib import Path
from weald.http import websocket

HERE = Path(__file__).parent

class Endless:
    def __iter__(self):
        while True:
            yield b"x" * 100_000

    def close(self):
        (HERE / "left").touch()

def echo(environ, start_response):
    (HERE / "begun").touch()
    digest, size = hashlib.sha256(), 0
    try:
        while piece := environ["wsgi.input"].read(65536):
            digest.update(piece)
            size += len(piece)
    except OSError:
        (HERE / "cut").touch()
        raise
    names = ("REQUEST_METHOD", "SERVER_PROTOCOL", "HTTP_TRANSFER_ENCODING", "HTTP_EXPECT", "REMOTE_PORT")
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([size, digest.hexdigest(), *(environ.get(name) for name in names)]).encode()]

@websocket.application(origins="*")
def chat(ws):
    for message in ws:
        ws.send(message)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/chat":
        return chat(environ, start_response)
    if path == "/endless":
        start_response("200 OK", [])
        return Endless()
    if path == "/hello":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]
    return echo(environ, start_response)
"""

FLASK = """
from flask import Flask, Response, request, send_file
app = Flask(__name__)

@app.get("/hello")
def hello():
    return "hello"

@app.post("/json")
def json():
    return {"twice": request.json["number"] * 2}

@app.post("/upload")
def upload():
    return str(len(request.files["file"].read()))

@app.get("/stream")
def stream():
    return Response(f"{i} " for i in range(1000))

@app.get("/file")
def file():
    return send_file(__file__.replace("site_app.py", "data"), mimetype="text/plain")
"""

DJANGO = """
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
import json

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="x", DATA_UPLOAD_MAX_MEMORY_SIZE=None)

urlpatterns = [
    path("hello", lambda request: HttpResponse("hello")),
    path("json", lambda request: JsonResponse({"twice": json.loads(request.body)["number"] * 2})),
    path("upload", lambda request: HttpResponse(str(request.FILES["file"].size))),
    path("stream", lambda request: StreamingHttpResponse(f"{i} " for i in range(1000))),
    path("file", lambda request: FileResponse(open(__file__.replace("site_app.py", "data"), "rb"))),
]
app = get_wsgi_application()
"""

BOTTLE = """
import bottle
app = bottle.Bottle()

@app.get("/hello")
def hello():
    return "hello"

@app.post("/json")
def json():
    return {"twice": bottle.request.json["number"] * 2}

@app.post("/upload")
def upload():
    return str(len(bottle.request.files.get("file").file.read()))

@app.get("/stream")
def stream():
    return (f"{i} " for i in range(1000))

@app.get("/file")
def file():
    return bottle.static_file("data", root=__file__.replace("site_app.py", ""))
"""

PYWSGI = """
import weald.monkey; weald.monkey.patch_all()
from weald.pywsgi import WSGIServer
from site_app import app
server = WSGIServer(("127.0.0.1", 0), app, log=None)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture
def site(tmp_path):
    """SITE under `weald serve`: its port."""
    (tmp_path / "site_app.py").write_text(SITE)
    with serving(tmp_path, "--workers", "1") as served:
        yield served.port


@contextmanager
def pywsgi(folder):
    """site_app in a patched program."""
    process = subprocess.Popen(
        [sys.executable, "-c", PYWSGI], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield int(line)
        assert process.poll() is None
    finally:
        process.kill()
        _, said = process.communicate(timeout=PATIENCE)
    assert said == ""


def curl(*arguments, stdin=b""):
    command = [program("curl", "curl"), "-sS", "--noproxy", "*", "--max-time", "60", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_for(path):
    wait_until(path.exists)


def sha(data):
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------- behind nginx

NGINX = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/errors info;
events {{ worker_connections 200; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/a;
    proxy_temp_path {folder}/b;
    fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d;
    scgi_temp_path {folder}/e;
    upstream weald {{
        server 127.0.0.1:{upstream};
        keepalive 4;
    }}
    map $http_upgrade $connection_field {{
        default upgrade;
        "" "";
    }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_field;
        location / {{ proxy_pass http://weald; }}
        location /unbuffered/ {{
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_pass http://weald/;
        }}
    }}
}}
"""


@pytest.fixture
def nginx(site):
    """nginx in front of SITE: its port."""
    command, port = program("nginx", "nginx-light"), free_port()
    with servers.folder() as folder:
        (folder / "config").write_text(NGINX.format(folder=folder, upstream=site, port=port))
        errors = str(folder / "start")
        with running([command, "-e", errors, "-c", str(folder / "config")], port, folder / "log"):
            yield port
        said = (folder / "errors").read_text()
    assert "upstream prematurely closed" not in said


def test_nginx_keeps_its_connections(nginx):
    ports = set()
    for _ in range(50):
        answer = requests.post(f"http://127.0.0.1:{nginx}/", data=b"body", timeout=PATIENCE).json()
        assert answer[:4] == [4, sha(b"body"), "POST", "HTTP/1.1"]
        ports.add(answer[-1])
    assert len(ports) <= 4


def test_a_websocket_through_nginx(nginx):
    with connect(f"ws://127.0.0.1:{nginx}/chat", proxy=None) as one, connect(f"ws://127.0.0.1:{nginx}/chat") as two:
        for message in ("hello", b"\0\1", "ä" * 100_000):
            for client in (one, two):
                client.send(message)
                assert client.recv(timeout=PATIENCE) == message
        one.close(4001, "enough")
        assert one.protocol.close_code == 4001


@pytest.mark.parametrize("path", ["", "unbuffered/"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_large_upload_through_nginx(nginx, path, chunked):
    data = os.urandom(1 << 20) * 20
    pieces = (data[at : at + 100_000] for at in range(0, len(data), 100_000))
    answer = requests.put(f"http://127.0.0.1:{nginx}/{path}", data=pieces if chunked else data, timeout=PATIENCE).json()
    assert answer[:3] == [len(data), sha(data), "PUT"]
    assert answer[4] == ("chunked" if chunked and path else None)


def test_a_client_of_nginx_that_leaves(nginx, tmp_path):
    with socket.create_connection(("127.0.0.1", nginx), timeout=PATIENCE) as sock:
        sock.sendall(b"GET /unbuffered/endless HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(1000)
    wait_for(tmp_path / "left")
    with socket.create_connection(("127.0.0.1", nginx), timeout=PATIENCE) as sock:
        sock.sendall(b"PUT /unbuffered/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf of it")
        wait_for(tmp_path / "begun")  # nginx connects only for a client that is still there
    wait_for(tmp_path / "cut")
    assert requests.get(f"http://127.0.0.1:{nginx}/hello", timeout=PATIENCE).text == "hello"


# ---------------------------------------------------------------- clients


def test_curl(site):
    url = f"http://127.0.0.1:{site}/"
    for option, protocol in (
        ("--http1.0", "HTTP/1.0"),
        ("--http1.1", "HTTP/1.1"),
        ("--http2-prior-knowledge", "HTTP/2"),
    ):
        assert f'"{protocol}"'.encode() in curl(option, url)
        data = os.urandom(500_000)
        answer = curl(option, "--data-binary", "@-", url, stdin=data)
        assert answer.startswith(f'[500000, "{sha(data)}", "POST", "{protocol}", null'.encode())
    # An upgrade to HTTP/2, which may be ignored (RFC 9113 has removed it)
    assert b'"HTTP/1.1"' in curl("--http2", url)
    chunks = curl("-T", "-", "-H", "Expect: 100-continue", url, stdin=b"z" * 300_000)
    assert chunks.startswith(f'[300000, "{sha(b"z" * 300_000)}", "PUT", "HTTP/1.1", "chunked", "100-continue"'.encode())
    times = curl("-w", "%{num_connects}\n", *(["-o", "/dev/null", url] * 3))
    assert times.split() == [b"1", b"0", b"0"]


def test_ranges(tmp_path):
    data = bytes(range(256)) * 2000
    (tmp_path / "site_app.py").write_text(FLASK)
    (tmp_path / "data").write_bytes(data)
    with serving(tmp_path, "--workers", "1") as served:
        url = f"http://127.0.0.1:{served.port}/file"
        assert curl(url) == data
        assert curl("-r", "100-199", url) == data[100:200]
        assert curl("-r", "-500", url) == data[-500:]
        assert curl("-r", "500000-", "--http2-prior-knowledge", url) == data[500_000:]
        assert curl("-r", "900000-", "-o", "/dev/null", "-w", "%{http_code}", url) == b"416"
        part = tmp_path / "part"
        part.write_bytes(data[:1000])
        curl("-C", "-", "-o", str(part), url)
        assert part.read_bytes() == data
        head = curl("-I", url).lower()
        assert b"content-length: 512000\r\n" in head
        etag = next(line for line in head.split(b"\r\n") if line.startswith(b"etag: "))[6:].decode()
        assert curl("-H", f"If-None-Match: {etag}", "-o", "/dev/null", "-w", "%{http_code}", url) == b"304"


@pytest.mark.parametrize("http2", [False, True])
def test_httpx(tmp_path, certificate, http2):
    (tmp_path / "site_app.py").write_text(SITE)
    files = ("--certfile", certificate.cert, "--keyfile", certificate.key)
    with serving(tmp_path, "--workers", "1", *files) as served:
        url = f"https://127.0.0.1:{served.port}/"
        verify = certificate.client_context()
        with httpx.Client(http2=http2, verify=verify, timeout=PATIENCE, trust_env=False) as client:
            data = os.urandom(2_000_000)
            answer = client.post(url, content=data)
            assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            assert answer.json()[:2] == [len(data), sha(data)]
            assert client.put(url, content=iter([b"a", b"b" * 70_000])).json()[0] == 70_001
            with client.stream("GET", url + "endless") as endless:
                assert next(endless.iter_raw(1000)) == b"x" * 1000
            assert client.get(url + "hello").text == "hello"
        wait_for(tmp_path / "left")


def test_requests(site):
    url = f"http://127.0.0.1:{site}/"
    with requests.Session() as session:
        session.trust_env = False
        ports = {session.get(url, timeout=PATIENCE).json()[-1] for _ in range(5)}
        assert len(ports) == 1
        assert session.put(url, data=iter([b"a" * 1000] * 5), timeout=PATIENCE).json()[4] == "chunked"
        assert session.head(url, timeout=PATIENCE).headers["Content-Length"]
        with session.get(url + "endless", stream=True, timeout=PATIENCE) as endless:
            assert next(endless.iter_content(10)) == b"x" * 10


def test_wrk(site):
    command = [program("wrk", "wrk"), "-t1", "-c50", "-d1s", f"http://127.0.0.1:{site}/hello"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE).stdout
    assert "requests in" in said
    assert "Socket errors" not in said
    assert "Non-2xx" not in said


# ---------------------------------------------------------------- frameworks


@pytest.mark.parametrize("how", ["pywsgi", "weald serve"])
@pytest.mark.parametrize("source", [FLASK, DJANGO, BOTTLE], ids=["Flask", "Django", "Bottle"])
def test_a_framework(tmp_path, source, how):
    data = bytes(range(256)) * 2000
    (tmp_path / "site_app.py").write_text(source)
    (tmp_path / "data").write_bytes(data)
    with serving(tmp_path, "--workers", "1") if how == "weald serve" else pywsgi(tmp_path) as server:
        url = f"http://127.0.0.1:{getattr(server, 'port', server)}/"
        with requests.Session() as session:
            session.trust_env = False
            assert session.get(url + "hello", timeout=PATIENCE).text == "hello"
            assert session.post(url + "json", json={"number": 21}, timeout=PATIENCE).json() == {"twice": 42}
            assert session.post(url + "upload", files={"file": b"y" * 300_000}, timeout=PATIENCE).text == "300000"
            assert session.get(url + "stream", timeout=PATIENCE).text == "".join(f"{i} " for i in range(1000))
            assert session.get(url + "file", timeout=PATIENCE).content == data
            assert session.get(url + "none", timeout=PATIENCE).status_code == 404
