"""`weald serve --static`: files of a folder, requested by curl and by clients that try to get other files."""

import gzip
import http.client
import os
import subprocess
from contextlib import contextmanager

import pytest
from conftest import require_program
from helpers import PATIENCE, no_descriptors, wait_until
from serving import APP, command, serving

from weald.serve.errors import ConfigError
from weald.serve.static import Static, parse_static

BIG = bytes(range(256)) * 4096  # 1 MiB
ASGI = """
async def app(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'the application'})
"""
OLD = 1_000_000_000  # Sun, 09 Sep 2001 01:46:40 GMT
DATE = "Sun, 09 Sep 2001 01:46:40 GMT"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP.format(version=1))
    files = tmp_path / "files"
    (files / "deep" / "er").mkdir(parents=True)
    (files / ".well-known").mkdir()
    (files / ".git").mkdir()
    for name, data in (
        ("a.css", b"body {}"),
        ("a.css.gz", gzip.compress(b"body {}")),
        ("a.css.br", b"not really brotli"),
        ("big", BIG),
        ("empty", b""),
        ("deep/index.html", b"<p>index"),
        ("deep/er/ü b%.txt", b"odd"),
        (".well-known/x", b"known"),
        (".git/config", b"secret"),
        (".env", b"secret"),
    ):
        (files / name).write_bytes(data)
        os.utime(files / name, (OLD, OLD))
    (tmp_path / "secret").write_text("secret")
    (files / "out").symlink_to(tmp_path / "secret")
    (files / "way").symlink_to(tmp_path)
    (files / "inner").symlink_to("deep/index.html")
    os.mkfifo(files / "fifo")
    return tmp_path


def ask(served, path, method="GET", **fields):
    """Status, fields and body."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request(method, path, headers={name.replace("_", "-"): value for name, value in fields.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, response.headers, body


@contextmanager
def files(folder, *arguments):
    with serving(folder, "--workers", "1", "--static", f"/s={folder / 'files'}", *arguments) as served:
        yield served


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_files_of_a_folder(folder, kind):
    if kind == "asgi":
        (folder / "site_app.py").write_text(ASGI)
    with files(folder, "--header", "X-All: yes") as served:
        status, fields, body = ask(served, "/s/a.css")
        assert (status, body, fields["X-All"]) == (200, b"body {}", "yes")
        assert fields["Content-Type"] == "text/css; charset=utf-8"
        assert (fields["Last-Modified"], fields["Vary"]) == (DATE, "Accept-Encoding")
        assert (fields["Cache-Control"], fields["X-Content-Type-Options"]) == ("public, max-age=60", "nosniff")
        assert ask(served, "/s/big")[2] == BIG
        assert ask(served, "/s/empty")[::2] == (200, b"")
        assert ask(served, "/s/deep/er/%C3%BC%20b%25.txt")[2] == b"odd"
        assert ask(served, "/s/deep/")[2] == b"<p>index"
        assert ask(served, "/s/inner")[2] == b"<p>index"
        assert ask(served, "/s/.well-known/x")[2] == b"known"
        status, fields, _ = ask(served, "/s/deep?a=b")
        assert (status, fields["Location"]) == (301, "/s/deep/?a=b")
        status, fields, body = ask(served, "/s/big", "HEAD")
        assert (status, fields["Content-Length"], body) == (200, str(len(BIG)), b"")
        status, fields, _ = ask(served, "/s/big", "POST")
        assert (status, fields["Allow"]) == (405, "GET, HEAD")
        assert ask(served, "/sx")[0] == 200  # the application's
        assert ask(served, "/")[0] == 200
        (folder / "files" / "new").write_text("new")
        assert ask(served, "/s/new")[2] == b"new"


@pytest.mark.parametrize(
    "path",
    [
        *("/s/../secret", "/s/..%2fsecret", "/s/%2e%2e/secret", "/s/deep/../../secret", "/s//etc/passwd", "/s/%00"),
        *("/s/out", "/s/way/secret", "/s/way", "/s/way/", "/s/way/files/a.css/../../secret"),
        *("/s/.env", "/s/.git/config", "/s/fifo", "/s/none", "/s/a.css/", "/s/deep/er", "/s/./a.css", "/s/x%ff"),
        "/s//evil.example/deep",
    ],
)
def test_what_is_not_to_be_had(folder, path):
    app = Static(str(folder / "files"))
    said = []
    from urllib.parse import unquote_to_bytes

    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/s", "QUERY_STRING": ""}
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")[2:]
    body = b"".join(app(environ, lambda status, fields: said.append((status, dict(fields)))))
    assert b"secret" not in body
    if path == "/s/deep/er":
        assert said == [("301 Moved Permanently", {"Location": "/s/deep/er/", "Content-Type": "text/plain"})]
    else:
        assert said[0][0] == "404 Not Found"


def test_a_file_that_cannot_be_opened_now_is_not_missing(folder):
    """A cache would keep a 404."""
    app = Static(str(folder / "files"))
    environ = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/s", "QUERY_STRING": "", "PATH_INFO": "/big"}
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        app(environ, None)
    environ["PATH_INFO"] = "/a.css"
    environ["HTTP_ACCEPT_ENCODING"] = "br, gzip"
    app._open = lambda path, coding="", of=app._open: of(path) if not coding else os.open("/", os.O_WRONLY)
    said = []
    answer = app(environ, lambda status, fields: said.append((status, dict(fields))))
    assert said[0][0] == "200 OK" and "Content-Encoding" not in said[0][1] and b"".join(answer) == b"body {}"


def test_traversal_over_the_wire(folder):
    with files(folder) as served:
        for path in ("/s/../secret", "/s/..%2fsecret", "/s/%2e%2e/secret", "/s/out", "/s/.env"):
            status, _, body = ask(served, path)
            assert (status, b"secret" in body) == (404, False)


def test_compressed_files(folder):
    with files(folder) as served:
        for accepted, coding in (
            ("gzip", "gzip"),
            ("gzip, br", "br"),
            ("br;q=0, gzip;q=0.5", "gzip"),
            ("*", "br"),
            ("identity", None),
            ("GZIP;q=1.000", "gzip"),
            ("gzip;q=0", None),
            ("gzip;q=x", None),
            ("", None),
        ):
            _, fields, body = ask(served, "/s/a.css", accept_encoding=accepted)
            assert (fields["Content-Encoding"], fields["Content-Type"]) == (coding, "text/css; charset=utf-8")
            assert fields["Vary"] == "Accept-Encoding"
            if coding == "gzip":
                assert gzip.decompress(body) == b"body {}"
        tags = {ask(served, "/s/a.css", accept_encoding=name)[1]["ETag"] for name in ("gzip", "br", "identity")}
        assert len(tags) == 3
        os.utime(folder / "files" / "a.css", (OLD + 5, OLD + 5))  # what was compressed is another file
        assert ask(served, "/s/a.css", accept_encoding="gzip, br")[2] == b"body {}"


def test_conditional_requests(folder):
    later, sooner = "Sun, 09 Sep 2001 01:46:41 GMT", "Sun, 09 Sep 2001 01:46:39 GMT"
    with files(folder) as served:
        tag = ask(served, "/s/big")[1]["ETag"]
        for fields, status in (
            ({"if_none_match": tag}, 304),
            ({"if_none_match": f'"x", W/{tag}'}, 304),
            ({"if_none_match": "*"}, 304),
            ({"if_none_match": '"x"', "if_modified_since": later}, 200),
            ({"if_modified_since": DATE}, 304),
            ({"if_modified_since": later}, 304),
            ({"if_modified_since": sooner}, 200),
            ({"if_modified_since": "rubbish"}, 200),
            ({"if_match": tag}, 200),
            ({"if_match": f"W/{tag}"}, 412),
            ({"if_match": '"x"'}, 412),
            ({"if_unmodified_since": DATE}, 200),
            ({"if_unmodified_since": sooner}, 412),
            ({"if_match": tag, "if_unmodified_since": sooner}, 200),
        ):
            answer, said, body = ask(served, "/s/big", **fields)
            assert (answer, said["ETag"], len(body)) == (status, tag, len(BIG) if status == 200 else 0), fields


@pytest.mark.parametrize("tls", [False, True])
def test_ranges(folder, certificate, tls):
    with files(folder) as served:
        tag = ask(served, "/s/big")[1]["ETag"]
        size = len(BIG)
        for field, more, expected in (
            ("bytes=0-0", {}, (0, 1)),
            ("bytes=100-199", {}, (100, 200)),
            ("bytes=1000000-", {}, (1000000, size)),
            ("bytes=-10", {}, (size - 10, size)),
            ("bytes=-99999999", {}, (0, size)),
            ("bytes=5-99999999", {}, (5, size)),
            ("bytes=5-9", {"if_range": tag}, (5, 10)),
            ("bytes=5-9", {"if_range": DATE}, (5, 10)),
            ("bytes=5-9", {"if_range": '"x"'}, None),
            ("bytes=5-9", {"if_range": "W/" + tag}, None),
            ("bytes=0-1,5-6", {}, None),
            ("bytes=5-3", {}, None),
            ("bytes=-", {}, None),
            ("lines=1-2", {}, None),
            ("bytes=" + "9" * 5000 + "-", {}, None),
            (f"bytes={size}-", {}, 416),
            ("bytes=-0", {}, 416),
        ):
            status, fields, body = ask(served, "/s/big", range=field, **more)
            if expected == 416:
                assert (status, fields["Content-Range"]) == (416, f"bytes */{size}")
            elif expected is None:
                assert (status, body) == (200, BIG)
            else:
                begin, end = expected
                assert (status, fields["Content-Range"]) == (206, f"bytes {begin}-{end - 1}/{size}")
                assert body == BIG[begin:end]


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl_by_tls(folder, certificate, version):
    curl = require_program("curl")
    tls = ("--certfile", str(certificate.cert), "--keyfile", str(certificate.key))
    with files(folder, *tls) as served:
        url = f"https://127.0.0.1:{served.port}/s/big"
        for option, expected in ((), BIG), (("-r", "1000-600000"), BIG[1000:600001]):
            done = subprocess.run(
                [curl, "-sS", version, "-k", *option, url], capture_output=True, timeout=PATIENCE, check=True
            )
            assert done.stdout == expected
        done = subprocess.run([curl, "-sSI", version, "-k", url], capture_output=True, timeout=PATIENCE, check=True)
        assert f"content-length: {len(BIG)}".encode() in done.stdout.lower()


def test_files_are_sent_by_the_system(folder):
    strace = require_program("strace")
    trace = folder / "trace"
    with files(folder) as served:
        pid = served.get().split()[1]
        tracer = subprocess.Popen([strace, "-f", "-o", str(trace), "-e", "trace=sendfile", "-p", pid], stderr=-1)
        try:
            assert tracer.stderr is not None
            tracer.stderr.readline()  # it is attached
            assert ask(served, "/s/big")[2] == BIG
            wait_until(lambda: "sendfile(" in trace.read_text(), PATIENCE)
        finally:
            tracer.terminate()
            tracer.wait(PATIENCE)
            tracer.stderr.close()


def test_the_folder_itself_may_be_a_link_that_is_switched(folder):
    for version in "12":
        (folder / version).mkdir()
        (folder / version / "file").write_text(version)
    (folder / "current").symlink_to("1")
    with serving(folder, "--workers", "1", "--static", f"/s={folder / 'current'}") as served:
        assert ask(served, "/s/file")[2] == b"1"
        (folder / "next").symlink_to("2")
        (folder / "next").rename(folder / "current")
        assert ask(served, "/s/file")[2] == b"2"


@pytest.mark.parametrize("setting", ["/s", "s=files", "/s/=files", "/s=", "/s=none", "/=files"])
def test_bad_settings(folder, setting):
    done = subprocess.run(
        command("site_app:app", "--static", setting, "--check", "--bind", "127.0.0.1:0"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=folder,
    )
    assert done.returncode == 1
    assert "--static" in done.stderr


def test_parse_static():
    assert parse_static("/a/b=c=d") == ("/a/b", "c=d")
    with pytest.raises(ConfigError):
        Static("/none/such")
