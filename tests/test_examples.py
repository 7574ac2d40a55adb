"""Runs each example of examples/ as its first lines say, and uses it."""

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import BODY, chromium
from conftest import require_program
from helpers import PATIENCE
from websockets.sync.client import connect as websocket_connect

EXAMPLES = Path(__file__).parent.parent / "examples"


# Runs an example that imports gevent, which is weald.
AS_GEVENT = """
import re, sys, types, weald
weald.install_as_gevent()
sys.argv = sys.argv[1:]
sys.modules["__main__"] = module = types.ModuleType("__main__")
source, count = re.subn(r"\\bweald\\b", "gevent", open(sys.argv[0]).read())
assert count
exec(compile(source, sys.argv[0], "exec"), vars(module))
"""


def command(name, gevent=False):
    return [sys.executable, *(("-c", AS_GEVENT) if gevent else ()), str(EXAMPLES / name)]


@contextmanager
def running(name, *arguments, gevent=False):
    """The port of a running example, which prints its address."""
    process = subprocess.Popen(
        [*command(name, gevent), *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        for line in process.stdout:
            if line.startswith("listening on "):
                break
        else:
            raise AssertionError(process.stderr.read())
        yield int(line.rpartition(":")[2])
        assert process.poll() is None
    finally:
        process.kill()
        _, errors = process.communicate(timeout=PATIENCE)
    assert errors == ""


def connect(port):
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def read_all(sock):
    return b"".join(iter(lambda: sock.recv(65536), b""))


@pytest.fixture
def web(tmp_path):
    """A web server with a file, `page`: its address."""
    (tmp_path / "page").write_bytes(b"page" * 100_000)
    code = (
        "import http.server, functools, sys; h = functools.partial(http.server.SimpleHTTPRequestHandler, directory="
        "sys.argv[1]); s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), h); print(s.server_port, flush=True);"
        "s.serve_forever()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    yield f"127.0.0.1:{int(process.stdout.readline())}"
    process.kill()
    process.wait(PATIENCE)
    process.stdout.close()


@pytest.mark.parametrize("gevent", [False, True])
def test_echo_server(gevent):
    with running("echo_server.py", "127.0.0.1:0", gevent=gevent) as port, connect(port) as one, connect(port) as two:
        for sock in (one, two, one):
            sock.sendall(b"hello\n")
            assert sock.recv(100) == b"hello\n"


@pytest.mark.parametrize("gevent", [False, True])
def test_udp_server(gevent):
    with running("udp_server.py", "127.0.0.1:0", gevent=gevent) as port, socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(b"hello", ("127.0.0.1", port))
        assert sock.recv(100) == b"5 bytes\n"


@pytest.mark.parametrize("own", [True, False])
def test_tls_server(certificate, own):
    files = (certificate.cert, certificate.key) if own else ()
    context = certificate.client_context()
    if not own:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    with running("tls_server.py", "127.0.0.1:0", *files) as port, connect(port) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as sock:
            assert sock.recv(100) == b"What is your name? "
            sock.sendall(b"Ada\n")
            assert read_all(sock) == b"Hello, Ada; we speak TLSv1.3.\n"


@pytest.mark.parametrize("gevent", [False, True])
def test_port_forwarder(web, gevent):
    with running("port_forwarder.py", "127.0.0.1:0", web, gevent=gevent) as port:
        for _ in range(3):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/page", timeout=PATIENCE) as response:
                assert response.read() == b"page" * 100_000


@pytest.mark.parametrize("gevent", [False, True])
def test_fetch_many(web, gevent):
    urls = [f"http://{web}/page?{number}" for number in range(5)] + [f"http://{web}/none", "http://127.0.0.1:1/"]
    done = subprocess.run([*command("fetch_many.py", gevent), *urls], capture_output=True, text=True, timeout=PATIENCE)
    assert done.stderr == ""
    lines = sorted(done.stdout.splitlines())
    assert lines[:5] == [f"200 400000 {url}" for url in urls[:5]]
    assert "failed: <urlopen error [Errno 111]" in lines[5] and "failed: HTTP Error 404" in lines[6]


@pytest.mark.parametrize("gevent", [False, True])
def test_run_many(tmp_path, gevent):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The first ends only once the second has begun.
    commands = [f"read line <{fifo}; echo $line", f"echo told >{fifo}; exit 3"]
    run = [*command("run_many.py", gevent), "2", *commands]
    done = subprocess.run(run, capture_output=True, text=True, timeout=PATIENCE)
    expected = f"$ {commands[0]}\ntold\n$ {commands[1]}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, expected, "")


def test_http_proxy(web):
    curl = require_program("curl")
    with running("http_proxy.py", "127.0.0.1:0") as port:
        for tunnel in ((), ("--proxytunnel",)):
            command = [curl, "-sS", "--max-time", "30", "--noproxy", "", "-x", f"127.0.0.1:{port}", *tunnel]
            done = subprocess.run([*command, f"http://{web}/page"], capture_output=True, timeout=PATIENCE)
            assert done.stdout == b"page" * 100_000, done.stderr
        with connect(port) as sock:
            sock.sendall(b"GET http:// HTTP/1.1\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 400")
        with connect(port) as sock:
            sock.sendall(b"GET http://127.0.0.1:1/ HTTP/1.1\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 502")


def test_websocket_chat():
    with running("websocket_chat.py", "127.0.0.1:0") as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=PATIENCE) as response:
            assert b"new WebSocket" in response.read()
        url, origin = f"ws://127.0.0.1:{port}/chat", f"http://127.0.0.1:{port}"
        with websocket_connect(url, origin=origin) as one, websocket_connect(url, origin=origin) as two:
            one.send("first")  # comes back only once it is in
            assert one.recv(timeout=PATIENCE) == "first"
            two.send("hello ä")
            assert two.recv(timeout=PATIENCE) in ("first", "hello ä")
            assert one.recv(timeout=PATIENCE) == "hello ä"


@pytest.mark.timeout(600)  # the browser may have to be installed first
def test_websocket_chat_in_a_browser():
    """Two pages, and one that loses its server."""
    with chromium() as browser:
        with running("websocket_chat.py", "127.0.0.1:0") as port:
            pages = [browser.open(f"http://127.0.0.1:{port}/") for _ in range(2)]
            for page in pages:
                page.wait_for(f"{BODY}.includes('You are in.')")
            for page, word in zip(pages, ("Hello", "\u00e4\u20ac\U0001d11e <b>"), strict=True):
                page.run("document.getElementById('word').focus()")
                page.type(word)
                for reader in pages:
                    reader.wait_for(f"{BODY}.includes({json.dumps(word)})")
        for page in pages:
            words = page.wait_for(
                "document.forms[0].elements[0].disabled && [...document.querySelectorAll('li')].map(e => e.textContent)"
            )
            assert words[:3] == ["You are in.", "Hello", "\u00e4\u20ac\U0001d11e <b>"]


@pytest.mark.timeout(600)
def test_upload_in_a_browser(tmp_path):
    data = os.urandom(3_000_000)
    source = tmp_path / "some file.bin"
    source.write_bytes(data)
    (tmp_path / "stored").mkdir()
    with running("upload.py", "127.0.0.1:0", str(tmp_path / "stored")) as port, chromium() as browser:
        page = browser.open(f"http://127.0.0.1:{port}/")
        root = page.call("DOM.getDocument")["root"]["nodeId"]
        field = page.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        page.call("DOM.setFileInputFiles", nodeId=field, files=[str(source)])
        page.wait_for("document.getElementById('said').textContent == 'some file.bin: 3000000 bytes\\n'")
        page.wait_for("document.getElementById('all').textContent.includes('3,000,000 bytes')")
        assert page.run("document.getElementById('bar').value") == 1
        assert (tmp_path / "stored" / source.name).read_bytes() == data


def test_upload(tmp_path):
    data = os.urandom(5_000_000)
    with running("upload.py", "127.0.0.1:0", str(tmp_path)) as port:
        base = f"http://127.0.0.1:{port}/"
        with urllib.request.urlopen(base + "progress", timeout=PATIENCE) as events:
            assert events.readline() == b"data: {}\n"
            request = urllib.request.Request(base + "big.bin", data=data, method="PUT")
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                assert (response.status, response.read()) == (201, b"big.bin: 5000000 bytes\n")
            state = {}
            while not state.get("big.bin", {}).get("done"):
                line = events.readline()
                state = json.loads(line[6:]) if line.startswith(b"data: ") else state
            assert state["big.bin"]["received"] == 5_000_000
        stored = (tmp_path / "big.bin").read_bytes()
        assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()
        with connect(port) as sock:
            sock.sendall(b"PUT /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            evil = urllib.request.Request(base + "..%2Fevil", data=b"x", method="PUT")
            urllib.request.urlopen(evil, timeout=PATIENCE)
        while (tmp_path / ".cut.part").exists():
            pass
        assert sorted(path.name for path in tmp_path.iterdir()) == ["big.bin"]


def test_asgi_notes(tmp_path):
    pytest.importorskip("fastapi")
    file = str(tmp_path / "notes.sqlite")

    def ask(port, path, method, data=None):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            data=json.dumps(data).encode() if data is not None else None,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            body = response.read()
            return response.status, json.loads(body) if body else None

    with running("asgi_notes.py", "127.0.0.1:0", file) as port:
        assert ask(port, "/notes", "GET") == (200, [])
        assert ask(port, "/notes", "POST", {"text": "milk ä"}) == (201, {"id": 1, "text": "milk ä"})
        assert ask(port, "/notes", "POST", {"text": "bread"}) == (201, {"id": 2, "text": "bread"})
        with pytest.raises(urllib.error.HTTPError, match="422"):
            ask(port, "/notes", "POST", {"text": ""})
        assert ask(port, "/notes/1", "DELETE") == (204, None)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            ask(port, "/notes/1", "DELETE")
    with running("asgi_notes.py", "127.0.0.1:0", file) as port:
        assert ask(port, "/notes", "GET") == (200, [{"id": 2, "text": "bread"}])


@pytest.mark.timeout(600)
def test_asgi_vote_in_a_browser():
    pytest.importorskip("starlette")
    with chromium() as browser:
        with running("asgi_vote.py", "127.0.0.1:0") as port:
            one, two = (browser.open(f"http://127.0.0.1:{port}/") for _ in range(2))
            for page in (one, two):
                page.wait_for(f"{BODY}.includes('0 votes, 2 pages')")
            one.run("document.getElementById('Soup').click()")
            two.wait_for("document.getElementById('Soup')?.lastChild.textContent == '1'")
            two.run("document.getElementById('Soup').click()")
            two.run("document.getElementById('Pizza').click()")
            one.wait_for(f"{BODY}.includes('3 votes, 2 pages')")
            two.wait_for(f"{BODY}.includes('3 votes, 2 pages')")
        for page in (one, two):
            page.wait_for(f"{BODY}.includes('The connection has ended')")


@pytest.mark.timeout(600)
def test_asgi_events_in_a_browser():
    with running("asgi_events.py", "127.0.0.1:0") as port, chromium() as browser:
        base = f"http://127.0.0.1:{port}/"
        page = browser.open(base)
        page.wait_for(f"{BODY}.includes('1 connected')")
        with urllib.request.urlopen(base + "events", timeout=PATIENCE) as events:
            assert events.headers["Content-Type"] == "text/event-stream"
            assert events.readline() == b"event: readers\n"
            page.wait_for(f"{BODY}.includes('2 connected')")
            with urllib.request.urlopen(base, data="hello ä\n<b>".encode(), timeout=PATIENCE) as response:
                assert response.read() == b"told 2\n"
            assert [events.readline() for _ in range(3)][1:] == [b"\n", b'data: "hello \\u00e4\\n<b>"\n']
            page.wait_for("document.querySelector('li')?.textContent == 'hello \\u00e4\\n<b>'")
        page.wait_for(f"{BODY}.includes('1 connected')")
