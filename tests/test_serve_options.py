"""The effect of each option of `weald serve`, given on the command line, in the environment or in the file."""

import grp
import http.client
import importlib
import ipaddress
import json
import os
import pwd
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from conftest import require_program
from h2.connection import H2Connection
from helpers import PATIENCE, python, wait_until
from serving import command, serving
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from weald.http.forwarded import Forwarded, Trusted
from weald.http.proxy_protocol import read_address
from weald.serve import changes
from weald.serve.process import usable_cores
from weald.serve.syslog import Syslog

APP = """
import json, os, time

def app(environ, start_response):
    start_response("200 OK", [("X-Own", "app")])
    shown = {key: value for key, value in environ.items() if isinstance(value, str)}
    umask = os.umask(0)
    os.umask(umask)
    shown.update(uid=os.getuid(), gid=os.getgid(), groups=os.getgroups(), umask=umask, cwd=os.getcwd())
    return [json.dumps(shown).encode()]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "site_app.py").write_text(APP)
    return tmp_path


def seen(served, path="/", **fields):
    """The request as the application has seen it."""
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in fields.items()})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    assert response.status == 200, body
    return json.loads(body)


def run_once(*arguments, cwd, env=None):
    return subprocess.run(
        [sys.executable, "-m", "weald", "serve", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=cwd,
        env={**os.environ, **(env or {})},
    )


# ---------------------------------------------------------------- where options come from


@pytest.mark.parametrize("name", ["weald.toml", "pyproject.toml"])
def test_a_configuration_file(folder, name):
    table = "serve" if name == "weald.toml" else "tool.weald.serve"
    (folder / name).write_text(
        f'[{table}]\napplication = "site_app:app"\nbind = "127.0.0.1:0"\nworkers = 1\nroot-path = "/site"\n'
        f"limit = {{ request_line = 60 }}\nhttp2 = false\n"
    )
    done = run_once("--check", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "site_app:app can be served\n"), done.stderr
    with serving(folder, cwd=folder, bind="") as served:
        assert seen(served, "/site/x")["SCRIPT_NAME"] == "/site"
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
        connection.request("GET", "/" + "x" * 100)
        assert connection.getresponse().status == 414
        connection.close()


def test_the_order_of_where_options_come_from(folder):
    (folder / "my.toml").write_text('[serve]\nroot-path = "/file"\nworkers = 1\n')
    env = {"WEALD_SERVE_ROOT_PATH": "/environment"}
    with serving(folder, "-c", str(folder / "my.toml")) as served:
        assert seen(served)["SCRIPT_NAME"] == "/file"
    with serving(folder, "-c", str(folder / "my.toml"), env=env) as served:
        assert seen(served)["SCRIPT_NAME"] == "/environment"
    with serving(folder, "-c", str(folder / "my.toml"), "--root-path", "/command", env=env) as served:
        assert seen(served)["SCRIPT_NAME"] == "/command"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[serve]\nspeed = 1", "there is no option 'speed'"),
        ("[serve", "my.toml: "),
        ("[other]", "has no table"),
        ("[serve]\nworkers = 'x'", "'x' is not a valid integer"),
        ("[serve]\napplication = 'site_app:app'\nsocket-mode = '888'", "--socket-mode must be octal"),
    ],
)
def test_a_bad_configuration_file(folder, text, message):
    (folder / "my.toml").write_text(text)
    done = run_once("-c", "my.toml", "--check", cwd=folder)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# Runs `weald serve` with each list of arguments that it reads, and writes what came of each.
MANY = """
import json, os, sys
from click.testing import CliRunner
from weald.serve.command import serve

found = []
for arguments, environment, files in json.load(sys.stdin):
    for name, text in files.items():
        open(name, "w").write(text)
    done = CliRunner().invoke(serve, arguments, env=environment)
    error = done.exception
    found.append([done.exit_code, done.output, None if isinstance(error, SystemExit) else repr(error)])
    for name in files:
        os.unlink(name)
print(json.dumps(found))
"""


def outcomes(folder, cases):
    """What `weald serve … --check` says to each of `cases`: arguments, environment, files."""
    given = [([*arguments, "--check"], environment, files) for arguments, environment, files in cases]
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


LONG = "9" * 5000  # more digits than int() takes
OF_THE_COMMAND = [
    *(("--backlog", value) for value in ("0", "-1", "99999999999", "1.5", "")),
    *(("--bind", value) for value in ("", ":", "a", "a:", "fd://", "fd://-1", "fd://99999999999", f"fd://{LONG}")),
    *(("--bind", value) for value in (f"127.0.0.1:{LONG}", "127.0.0.1:²", "127.0.0.1:65536", "http://a:1", "unix:")),
    *(("--log-syslog", value) for value in ("", "x", f"udp:a:{LONG}", "udp:a:²", "udp::514", "tcp:a:514", "unix:")),
    *(("--timeout", value) for value in ("0.5", "1.99", "-1", "nan", "1e400", "", "soon")),
    *(("--limit", value) for value in ("", "=", "=5", "head", "head=", "head=1.5", "head=0", f"head={LONG}", "head=²")),
    *(("--limit", f"{name}=99999999999999999999") for name in ("head", "requests", "body", "websocket_max_message")),
    *(("--limit", f"{name}=5000000000") for name in ("head", "http2_streams", "fields", "connections", "request_line")),
    *(("--limit", f"body_timeout={value}") for value in ("inf", "nan", "1e300", "-0.0")),
    *(("--user", value) for value in ("", "²", "no such user", "99999999999", "4294967295", LONG, "-1", "ü")),
    *(("--group", value) for value in ("", "²", "no such group", "99999999999", "4294967295", LONG)),
    *((f"--{name}", "") for name in ("certfile", "keyfile", "key-password-file", "client-ca", "ciphers", "pid")),
    *((f"--{name}", "") for name in ("hooks", "metrics", "error-log", "access-log", "access-log-file", "app-dir")),
    *((f"--{name}", "") for name in ("static", "sni", "header", "methods", "umask", "socket-mode", "log-syslog-tag")),
    *(
        (f"--{name}", "")
        for name in ("mount", "interface", "lifespan", "tls-min", "client-cert", "log-level", "config")
    ),
    *(("--header", value) for value in ("X", "Ä: x", "X: Ж", "X Y: z", ": z", "X: a\nb")),
    *(("--methods", value) for value in (",", "get", "GÉT", "GET POST")),
    *(("--root-path", value) for value in ("/", "a", "/a/", "/a b", "/a?b")),
    *(
        (f"--{name}", value)
        for name in ("forwarded-allow-ips", "proxy-protocol")
        for value in ("ü", "1.2.3.4/99", "a:b")
    ),
    *(("--umask", value) for value in ("8", "0o22", "-1", "77777")),
    *(("--workers", value) for value in ("0", "-1", "1e3", "", "two", LONG)),
    *(("--threads", value) for value in ("-1", "x", "1" + "0" * 12)),
    *(("--static", value) for value in ("/a", "a=.", "/a=", "/a=/no/folder", "/a/=.")),
    *(("--mount", value) for value in ("/a", "a=site_app:app", "/a=", "/a/=site_app:app")),
    *(("--metrics", value) for value in ("8000", "a", f"a:{LONG}")),
    *(("--tls-min", value) for value in ("1.1", "1.4", "x")),
]
OF_THE_ENVIRONMENT = [
    ("WEALD_SERVE_TIMEOUT", "soon"),
    ("WEALD_SERVE_HTTP2", "perhaps"),
    ("WEALD_SERVE_RELOAD", "perhaps"),
    ("WEALD_SERVE_BIND", "nowhere"),
    ("WEALD_SERVE_LIMIT", "head=5 speed=1"),
    ("WEALD_SERVE_TLS_MIN", "1.1"),
    ("WEB_CONCURRENCY", "many"),
    ("WEB_CONCURRENCY", "-1"),
    ("WEB_CONCURRENCY", "1.5"),
]
OF_THE_FILE = [
    *("serve = 5", "serve = []", "[serve]\nspeed = 1", "[serve]\nconfig = 'x'", "[serve", "\0", "[[serve]]"),
    *(f"[serve]\nworkers = {value}" for value in ("true", "1.5", "[1]", "{}", "'two'", "0", "2020-01-01", "nan")),
    *(f"[serve]\nbind = {value}" for value in ("8000", "true", "[[1]]", "{ a = 1 }", "['']", "['a:1', 5]")),
    *(f"[serve]\nlimit = {value}" for value in ("5", "{ speed = 1 }", "{ head = 'x' }", "{ head = [1] }", "true")),
    *(f"[serve]\ntimeout = {value}" for value in ("true", "'soon'", "[]", "inf", "nan", "-1")),
    *(f"[serve]\npreload = {value}" for value in ("'perhaps'", "[]", "{}", "5")),
    *(f"[serve]\npid = {value}" for value in ("''", "[]", '"a\\u0000b"')),
    *(f"[serve]\nheader = {value}" for value in ("{ X = 'y' }", "[1]", "'X'", "[['X: y']]")),
    *(f"[serve]\ncertfile = {value}" for value in ("5", "''", "[]", "true", "'/no/file'")),
]


def test_odd_values_are_refused_with_a_sentence(folder):
    """Whatever the value, and wherever it comes from: no traceback, and nothing that is left out without a word."""
    app = ["site_app:app"]
    cases: list[tuple[list[str], dict[str, str], dict[str, str]]] = [([*app, *pair], {}, {}) for pair in OF_THE_COMMAND]
    cases += [(app, dict([pair]), {}) for pair in OF_THE_ENVIRONMENT]
    cases += [(app, {}, {"weald.toml": text}) for text in OF_THE_FILE]
    cases += [
        (app, {}, {"pyproject.toml": text})
        for text in ("tool.weald.serve = 5", "[[tool.weald.serve]]", "[tool.weald.serve]\nspeed = 1")
    ]
    wrong = []
    for case, (status, said, error) in zip(cases, outcomes(folder, cases), strict=True):
        if error is not None or status not in (1, 2) or "Traceback" in said or len(said.split()) < 4:
            wrong.append((case, status, said, error))
    assert wrong == []


def test_files_of_other_programs_are_no_configuration(folder):
    files = [
        {"pyproject.toml": "tool = 5"},
        {"pyproject.toml": "[tool.other]\nx = 1"},
        {"weald.toml": "[other]\nx = 1"},
    ]
    found = outcomes(folder, [(["site_app:app", "--bind", "127.0.0.1:0"], {}, file) for file in files])
    assert [status for status, _, _ in found] == [0, 0, 0], found


def test_the_environment_has_the_names_of_the_command_line(folder):
    """Also of options that come again, whose values stand with spaces between."""
    (folder / "hooked.py").write_text("def worker_ready(slot): pass\n")
    variables = {
        "WEALD_SERVE_BIND": f"127.0.0.1:0 unix:{folder}/socket",
        "WEALD_SERVE_APP_DIR": str(folder),
        "WEALD_SERVE_LIMIT": "request_line=60 head=5000",
        "WEALD_SERVE_PID": str(folder / "pid"),
        "WEALD_SERVE_HOOKS": "hooked",
        "WEALD_SERVE_HEADER": "X-A:1 X-B:2",
        "WEALD_SERVE_WORKERS": "1",
    }
    with serving(folder, bind="", env=variables) as served:
        assert (folder / "socket").is_socket()
        assert (folder / "pid").read_text() == f"{served.process.pid}\n"
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.getheader("X-A"), response.getheader("X-B")) == ("1", "2")
        response.read()
        connection.request("GET", "/" + "x" * 100)
        assert connection.getresponse().status == 414
        connection.close()


def test_more_workers_than_descriptors(folder):
    few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (100, 100))
    path = folder / "socket"
    done = subprocess.run(
        command("site_app:app", "--app-dir", str(folder), "--bind", f"unix:{path}", "--workers", "1000"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=few,
    )
    assert done.returncode == 1
    assert "1000 workers are too many: Too many open files" in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


def test_which_application(folder):
    done = run_once(cwd=folder)
    assert done.returncode == 2
    assert "which application?" in done.stderr


def test_the_environment_names_the_workers(folder):
    with serving(folder, env={"WEB_CONCURRENCY": "3"}) as served:
        served.wait_for("3 workers at")


def test_help_is_in_groups():
    said = run_once("--help", cwd=Path.cwd()).stdout
    for group in ("General:", "Addresses:", "TLS:", "Processes:", "Logs:", "Protocol:"):
        assert f"\n{group}\n" in said
    assert said.count("[MODULE:APP]") == 1  # in the usage line alone


# ---------------------------------------------------------------- addresses


def test_the_mode_of_a_socket(folder):
    with serving(folder, "--workers", "1", "--socket-mode", "600", "--backlog", "10", bind=f"unix:{folder}/sock"):
        assert os.stat(folder / "sock").st_mode & 0o777 == 0o600


def test_an_abstract_socket_and_one_that_is_open(folder):
    name = f"weald-test-{os.getpid()}"
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        serving(
            folder,
            "--workers",
            "1",
            "--bind",
            f"fd://{listener.fileno()}",
            bind=f"unix:@{name}",
            pass_fds=[listener.fileno()],
        ) as served,
    ):
        served.wait_for(f"unix:@{name}, http://127.0.0.1:{listener.getsockname()[1]}")
        for family, address in ((socket.AF_UNIX, "\0" + name), (socket.AF_INET, listener.getsockname())):
            with socket.socket(family) as sock:
                sock.settimeout(PATIENCE)
                sock.connect(address)
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
        # A descriptor that was open goes on when the service has ended.
        assert served.end() == 0
        with socket.create_connection(listener.getsockname(), PATIENCE), listener.accept()[0]:
            pass


def test_metrics_on_every_interface(folder):
    with serving(folder, "--workers", "1", "--metrics", "*:0") as served:
        port = served.wait_for(r"metrics at http://0\.0\.0\.0:(\d+)/")[1]
        hosts = ["127.0.0.1"]
        if any("[::]" in line for line in served.lines):
            hosts.append("[::1]")
        for host in hosts:
            with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=PATIENCE) as response:
                assert b"weald_worker_starts_total" in response.read()


def test_every_interface_shows_clients_as_they_are(folder):
    with serving(folder, "--workers", "1", bind="*:0") as served:
        assert seen(served)["REMOTE_ADDR"] == "127.0.0.1"
        port = int(served.wait_for(r"http://\[::\]:(\d+)")[1])
        with socket.create_connection(("::1", port), PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            with sock.makefile("rb") as file:
                assert b'"REMOTE_ADDR": "::1"' in file.read()


def test_a_prefix_that_the_proxy_has_taken_off_or_not(folder):
    with serving(folder, "--workers", "1", "--root-path", "/site") as served:
        for path, left in (("/site/x", "/x"), ("/x", "/x"), ("/site", ""), ("/sitex", "/sitex")):
            found = seen(served, path)
            assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/site", left)


def test_fields_of_all_responses(folder):
    with serving(folder, "--workers", "1", "--header", "X-Frame-Options: DENY", "--header", "x-own: server") as served:
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
        connection.request("GET", "/")
        response = connection.getresponse()
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers.get_all("X-Own") == ["app"]
        connection.close()
    for bad in ("X", "X: a\nb", "Connection: close", ": x"):
        done = run_once("site_app:app", "--check", "--bind", "127.0.0.1:0", "--header", bad, cwd=folder)
        assert done.returncode == (0 if bad.startswith("Conn") else 1), done.stderr


# ---------------------------------------------------------------- proxies


def test_what_a_proxy_says_is_believed_of_those_who_are_trusted(folder):
    fields = {"X_Forwarded_For": "192.0.2.7", "X_Forwarded_Proto": "https", "X_Forwarded_Host": "site.example"}
    with serving(folder, "--workers", "1", "--forwarded-allow-ips", "127.0.0.1,10.0.0.0/8") as served:
        found = seen(served, **fields)
        assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"], found["HTTP_HOST"]) == (
            "192.0.2.7",
            "https",
            "site.example",
        )
    with serving(folder, "--workers", "1", "--forwarded-allow-ips", "10.0.0.1") as served:
        found = seen(served, **fields)
        assert (found["REMOTE_ADDR"], found["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert "HTTP_X_FORWARDED_FOR" not in found


def believed(environ, trusted="10.0.0.0/8, unix"):
    """The result of `Forwarded` for a request from 10.0.0.1; the status if it refuses the request."""
    shown = {"REMOTE_ADDR": "10.0.0.1", "REMOTE_PORT": "5", "HTTP_HOST": "in", "wsgi.url_scheme": "http", **environ}
    refused = []
    passed = []
    application = Forwarded(lambda environ, start_response: passed.append(environ) or [], Trusted(trusted))
    application(shown, lambda status, headers: refused.append(status))
    return refused[0] if refused else (shown["REMOTE_ADDR"], shown["wsgi.url_scheme"], shown["HTTP_HOST"])


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ("10.0.0.1", "http", "in")),
        # The client's own invention stands first.
        ({"HTTP_X_FORWARDED_FOR": "1.1.1.1, 192.0.2.7, 10.0.0.9"}, ("192.0.2.7", "http", "in")),
        ({"HTTP_X_FORWARDED_FOR": "10.0.0.8, 10.0.0.9"}, ("10.0.0.8", "http", "in")),
        ({"HTTP_X_FORWARDED_FOR": "192.0.2.7:80"}, ("192.0.2.7", "http", "in")),
        ({"HTTP_X_FORWARDED_FOR": "[2001:db8::1]:80"}, ("2001:db8::1", "http", "in")),
        ({"HTTP_X_FORWARDED_FOR": "unknown"}, ("10.0.0.1", "http", "in")),
        ({"HTTP_X_FORWARDED_FOR": "<script>"}, "400 Bad Request"),
        ({"HTTP_X_FORWARDED_PROTO": "http, https"}, ("10.0.0.1", "https", "in")),
        ({"HTTP_X_FORWARDED_PROTO": "wss"}, ("10.0.0.1", "https", "in")),
        ({"HTTP_X_FORWARDED_PROTO": "gopher"}, "400 Bad Request"),
        ({"HTTP_X_FORWARDED_HOST": "a b"}, "400 Bad Request"),
        ({"HTTP_FORWARDED": 'for=192.0.2.7;proto=https;host="a.example:8"'}, ("192.0.2.7", "https", "a.example:8")),
        ({"HTTP_FORWARDED": 'For="[2001:db8::1]:80"'}, ("2001:db8::1", "http", "in")),
        (
            {"HTTP_FORWARDED": "for=1.1.1.1;proto=http, for=192.0.2.7;proto=https, for=10.0.0.9;proto=http"},
            ("192.0.2.7", "https", "in"),
        ),
        ({"HTTP_FORWARDED": "for=_hidden;proto=https"}, ("10.0.0.1", "https", "in")),
        ({"HTTP_FORWARDED": "for=192.0.2.7;for=1.1.1.1"}, "400 Bad Request"),
        ({"HTTP_FORWARDED": 'for="192.0.2.7'}, "400 Bad Request"),
        # Of the two kinds the standard's is used.
        ({"HTTP_FORWARDED": "for=192.0.2.7", "HTTP_X_FORWARDED_PROTO": "https"}, ("192.0.2.7", "http", "in")),
        ({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "1.1.1.1"}, ("192.0.2.1", "http", "in")),
        ({"REMOTE_ADDR": "", "HTTP_X_FORWARDED_FOR": "1.1.1.1"}, ("1.1.1.1", "http", "in")),
        ({"REMOTE_ADDR": "::ffff:10.0.0.1", "HTTP_X_FORWARDED_FOR": "1.1.1.1"}, ("1.1.1.1", "http", "in")),
    ],
)
def test_forwarded_fields(environ, expected):
    assert believed(environ) == expected


def test_trusting_everybody():
    assert believed({"REMOTE_ADDR": "192.0.2.1", "HTTP_X_FORWARDED_FOR": "1.1.1.1"}, "*")[0] == "1.1.1.1"
    with pytest.raises(ValueError):
        Trusted("localhost")


# ---------------------------------------------------------------- processes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user():
    """In a process of its own, with all imports done before: the interpreter may be in a folder of root's."""
    nobody = pwd.getpwnam("nobody")
    said = python(
        """
        import os
        from weald.serve.process import become
        become("nobody", None)
        print(os.getresuid(), os.getresgid(), 0 in os.getgroups())
        """
    )
    assert said == f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} False\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another group")
def test_another_group_and_umask(folder):
    group = grp.getgrnam("nogroup")
    with serving(folder, "--group", "nogroup", "--umask", "027", "--workers", "1") as served:
        found = seen(served)
        assert (found["uid"], found["gid"], found["umask"]) == (0, group.gr_gid, 0o027)


def test_a_file_of_the_process_id_is_removed(folder):
    with serving(folder, "--pid", str(folder / "pid"), "--workers", "1") as served:
        assert int((folder / "pid").read_text()) == served.process.pid
        assert served.end() == 0
    assert not (folder / "pid").exists()


@pytest.mark.parametrize("option", [("--user", "no-such-user"), ("--group", "no-such-group"), ("--umask", "9")])
def test_a_bad_user(folder, option):
    done = run_once("site_app:app", "--bind", "127.0.0.1:0", "--check", *option, cwd=folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_the_cores_of_a_container(tmp_path):
    cores = len(os.sched_getaffinity(0))
    assert usable_cores(str(tmp_path)) == cores
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores(str(tmp_path)) == cores
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores(str(tmp_path)) == 1
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert usable_cores(str(tmp_path)) == min(2, cores)


def test_files_that_change_load_the_application_anew(folder):
    with serving(folder, "--workers", "1", "--reload") as served:
        assert seen(served)["PATH_INFO"] == "/"
        (folder / "site_app.py").write_text(APP.replace('"/x"', "") + "\nraise ValueError('half-written')\n")
        served.wait_for("the old one goes on")
        (folder / "site_app.py").write_text(APP.replace("shown.update(", "shown.update(new='yes', "))
        wait_until(lambda: seen(served).get("new") == "yes", PATIENCE)


def test_what_counts_as_a_change(tmp_path, monkeypatch):
    """Also files that change while the application is loaded, but not files that another host's clock dates ahead."""
    monkeypatch.syspath_prepend(str(tmp_path))
    watch, now = changes.Watch(), time.time_ns()
    for name, at in (("watch_old", now - 10**12), ("watch_new", now), ("watch_future", now + 10**14)):
        (tmp_path / f"{name}.py").write_text("")
        os.utime(tmp_path / f"{name}.py", ns=(at, at))
        monkeypatch.setitem(sys.modules, name, importlib.import_module(name))
    assert watch.changed() == str(tmp_path / "watch_new.py")
    assert watch.changed() is None
    os.utime(tmp_path / "watch_old.py")
    assert watch.changed() == str(tmp_path / "watch_old.py")
    assert watch.changed() is None


def test_a_change_loads_the_application_anew_once(folder):
    with serving(folder, "--workers", "2", "--reload") as served:
        (folder / "site_app.py").write_text(APP + "\nCHANGED = True\n")
        served.wait_for("reloaded in")
        assert served.end() == 0
    for said in ("has changed", "reloading"):
        assert sum(said in line for line in served.lines) == 1


def test_more_workers_and_fewer(folder):
    with serving(folder, "--workers", "1", "--metrics", "127.0.0.1:0") as served:
        where = served.wait_for(r"metrics at (http://\S+?)[ ,;)]")[1]

        def starts():
            with urllib.request.urlopen(where, timeout=PATIENCE) as response:
                return int(response.read().decode().count("weald_worker_starts_total{"))

        served.signal(signal.SIGTTIN)
        served.wait_for("2 workers from now on")
        wait_until(lambda: starts() == 2, PATIENCE)
        served.signal(signal.SIGTTOU)
        served.wait_for("1 worker from now on")
        served.signal(signal.SIGTTOU)
        served.wait_for("1 workers it stays")
        assert seen(served)


def test_hooks(folder):
    (folder / "my_hooks.py").write_text(
        "import sys\n"
        "def note(what, slot):\n"
        "    print(f'hook {what} {slot} app loaded:', 'site_app' in sys.modules, file=sys.stderr)\n"
        "def post_fork(slot): note('fork', slot)\n"
        "def worker_ready(slot): note('ready', slot)\n"
        "def worker_exit(slot): note('exit', slot)\n"
    )
    with serving(folder, "--workers", "1", "--hooks", "my_hooks") as served:
        served.wait_for("hook fork 0 app loaded: False")
        served.wait_for("hook ready 0 app loaded: True")
        assert served.end() == 0
        served.wait_for("hook exit 0")
    for module, message in (("none_such", "there is no module 'none_such'"), ("json", "json has none of post_fork")):
        done = run_once("site_app:app", "--bind", "127.0.0.1:0", "--hooks", module, cwd=folder)
        assert done.returncode == 1
        assert message in done.stderr


def test_check_looks_at_hooks(folder):
    done = run_once("site_app:app", "--bind", "127.0.0.1:0", "--check", "--hooks", "none_such", cwd=folder)
    assert done.returncode == 1
    assert "there is no module 'none_such'" in done.stderr


def test_systemd_hears_that_the_service_lives(folder):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.settimeout(PATIENCE)
        env = {"NOTIFY_SOCKET": str(folder / "notify"), "WATCHDOG_USEC": "200000"}
        with serving(folder, "--workers", "1", env=env):
            for _ in range(3):
                while notified.recv(1000) != b"WATCHDOG=1":
                    pass


def test_what_is_told_at_the_start_and_while_reloading(folder):
    with serving(folder, "--workers", "2") as served:
        served.wait_for(
            r"weald: [\d.a-z]+, site_app:app: 2 workers at http://127\.0\.0\.1:\d+ "
            r"\(HTTP/1\.1 and HTTP/2; help: weald serve --help\)"
        )
        served.signal(signal.SIGHUP)
        served.wait_for(r"worker \d+ takes over from \d+", 2)
        served.wait_for(r"reloaded in [\d.]+ s$")
        (folder / "site_app.py").write_text("raise ValueError('broken')")
        served.signal(signal.SIGHUP)
        served.wait_for(r"reloaded in [\d.]+ s; 2 go on with the code of before$")


def test_a_file_for_errors(folder):
    log = folder / "error.log"
    sock = folder / "sock"
    process = subprocess.Popen(
        [*command("site_app:app", "--app-dir", str(folder), "--workers", "1", "--error-log", str(log))]
        + ["--bind", f"unix:{sock}"]
    )
    try:
        wait_until(lambda: log.exists() and "1 worker at" in log.read_text(), PATIENCE)
        log.rename(folder / "error.log.1")
        process.send_signal(signal.SIGUSR1)
        wait_until(log.exists, PATIENCE)

        def is_told():
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(sock))
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                client.recv(100)
            return "Invalid request" in log.read_text()

        wait_until(is_told, PATIENCE)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: "reloaded in" in log.read_text(), PATIENCE)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)


def test_a_format_of_ones_own_for_the_access_log(folder):
    form = '%(h)s "%(r)s" %(m)s %(U)s %(q)s %(H)s %(s)s %({x-own}o)s %({X-Asked}i)s %({SERVER_NAME}e)s %(a)s 5%%'
    with serving(folder, "--workers", "1", "--access-log", form) as served:
        seen(served, "/a?b=c", X_Asked='1"2')
        line = served.process.stdout.readline()
    assert line == '127.0.0.1 "GET /a?b=c HTTP/1.1" GET /a b=c HTTP/1.1 200 app 1\\x222 127.0.0.1 - 5%\n'
    for bad in ("%(h)s %(nothing)s", "%(h)s 5%", "%(h)s %d %(s)s", "nothing", "%({a b}i)s"):
        done = run_once("site_app:app", "--access-log", bad, "--check", "--bind", "127.0.0.1:0", cwd=folder)
        assert done.returncode == 1, bad
        assert "access" in done.stderr


def test_errors_in_json(folder):
    (folder / "site_app.py").write_text(
        "import sys\n"
        "def app(environ, start_response):\n"
        "    print('printed', 1, file=sys.stderr)\n"
        "    print('{\"own\": 1}', file=environ['wsgi.errors'])\n"
        "    raise KeyError('a bug')\n"
    )
    with serving(folder, "--workers", "1", "--error-log-format", "json") as served:
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/", timeout=PATIENCE)
        with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            while sock.recv(1000):
                pass
        served.wait_for("Invalid request")
        served.wait_for("a bug")
    entries = [json.loads(line) for line in served.lines]
    levels = {}
    for entry in entries:
        for text in ("1 worker at", "printed 1", "Traceback", "Invalid request"):
            if text in entry.get("message", ""):
                levels[text] = entry["level"]
    assert levels == {"1 worker at": "info", "printed 1": "error", "Traceback": "error", "Invalid request": "warning"}
    assert {"own": 1} in entries


def test_the_level_of_the_log(folder):
    sock = folder / "sock"
    process = subprocess.Popen(
        [*command("site_app:app", "--app-dir", str(folder), "--workers", "1", "--log-level", "error")]
        + ["--bind", f"unix:{sock}"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            wait_until(lambda: client.connect_ex(str(sock)) == 0, PATIENCE)  # bound first, it listens a little later
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 400")
        (folder / "site_app.py").write_text("raise ValueError('broken')")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        said = ""
        while "the old one goes on" not in said:
            said += process.stderr.readline()
        process.terminate()
        said += process.stderr.read()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert "ValueError: broken" in said
    for text in ("worker at", "Invalid request", "reload"):
        assert text not in said


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_methods(folder, kind):
    if kind == "asgi":
        (folder / "site_app.py").write_text(
            "async def app(scope, receive, send):\n"
            "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
            "    await send({'type': 'http.response.body', 'body': b'yes'})\n"
        )
    with serving(folder, "--workers", "1", "--methods", "GET,POST", "--header", "X-All: yes") as served:
        for method, status in (("GET", 200), ("POST", 200), ("DELETE", 405), ("TRACE", 405)):
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
            connection.request(method, "/")
            response = connection.getresponse()
            assert (response.status, response.headers["X-All"]) == (status, "yes")
            assert response.headers["Allow"] == (None if status == 200 else "GET, POST")
            connection.close()
    for names in ("", "get", "GET,P ST"):
        done = run_once("site_app:app", "--methods", names, "--check", "--bind", "127.0.0.1:0", cwd=folder)
        assert done.returncode == 1
        assert "--methods" in done.stderr


def test_limits_of_http2(folder):
    limits = ("--limit", "http2_streams=7", "--limit", "http2_window=70000")
    with serving(folder, "--workers", "1", *limits) as served:
        client = H2Connection()
        client.initiate_connection()
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as sock:
            sock.sendall(client.data_to_send())
            while client.remote_settings.initial_window_size != 70000:
                client.receive_data(sock.recv(4096))
        assert client.remote_settings.max_concurrent_streams == 7


def test_limits_of_websockets(folder):
    (folder / "site_app.py").write_text(
        "from weald.http import websocket\n"
        "@websocket.application\n"
        "def app(ws):\n"
        "    for message in ws: ws.send(message)\n"
    )
    with serving(folder, "--workers", "1", "--limit", "websocket_max_message=10") as served:
        with connect(f"ws://127.0.0.1:{served.port}/") as client:
            client.send("x" * 10)
            assert client.recv(PATIENCE) == "x" * 10
            client.send("x" * 11)
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009
    for limit, message in (("websocket_nothing=1", "no limit"), ("websocket_max_message=x", "needs a number")):
        done = run_once("site_app:app", "--limit", limit, "--check", "--bind", "127.0.0.1:0", cwd=folder)
        assert done.returncode == 1
        assert message in done.stderr


# ---------------------------------------------------------------- the PROXY protocol


SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 7, 10, 0, 0, 1]) + (4711).to_bytes(2, "big") + (80).to_bytes(2, "big")
SIX = ipaddress.ip_address("2001:db8::7").packed * 2 + (4711).to_bytes(2, "big") + (80).to_bytes(2, "big")


def version_2(data, command=0x21, family=0x11, length=None):
    return SIGNATURE + bytes([command, family]) + (len(data) if length is None else length).to_bytes(2, "big") + data


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n", ("192.0.2.7", 4711)),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n", ("2001:db8::7", 4711)),
        (b"PROXY UNKNOWN\r\n", None),
        (b"PROXY UNKNOWN what ever\r\n", None),
        (version_2(FOUR), ("192.0.2.7", 4711)),
        (version_2(FOUR + b"\x04\0\x02ab"), ("192.0.2.7", 4711)),
        (version_2(SIX, family=0x21), ("2001:db8::7", 4711)),
        (version_2(b"", 0x20, 0), None),
        (version_2(b"x" * 216, family=0x31), None),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n", ValueError),
        (b"PROXY TCP4 2001:db8::7 ::1 4711 80\r\n", ValueError),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 99999\r\n", ValueError),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 -1 80\r\n", ValueError),
        (b"PROXY TCP4 " + b"1" * 200, ValueError),
        (b"PROXY \xff\xff\xff\xff\xff\xff\r\n", ValueError),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", ValueError),
        (b"PROXY TCP4 192.0.2.7", ValueError),
        (version_2(FOUR, 0x11), ValueError),
        (version_2(FOUR, 0x22), ValueError),
        (version_2(FOUR[:8]), ValueError),
        (version_2(FOUR, length=9999), ValueError),
        (version_2(FOUR)[:20], ValueError),
        (b"", ValueError),
    ],
)
def test_proxy_headers(header, expected):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(header + (b"rest" if expected is not ValueError else b""))
        theirs.shutdown(socket.SHUT_WR)
        if expected is ValueError:
            with pytest.raises(ValueError):
                read_address(ours)
        else:
            assert read_address(ours) == expected
            assert ours.recv(100) == b"rest"


@pytest.mark.parametrize("tls", [False, True])
def test_who_a_balancer_says_that_the_client_is(folder, certificate, tls):
    options = ("--certfile", certificate.cert, "--keyfile", certificate.key) if tls else ()
    with serving(folder, "--workers", "1", "--proxy-protocol", "127.0.0.0/8", *options) as served:

        def ask(header):
            with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as plain:
                plain.sendall(header)
                sock = plain
                if tls:
                    sock = certificate.client_context().wrap_socket(plain, server_hostname="localhost")
                with sock:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    with sock.makefile("rb") as file:
                        return file.read()

        answer = ask(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n")
        assert b'"REMOTE_ADDR": "192.0.2.7"' in answer
        assert b'"REMOTE_PORT": "4711"' in answer
        assert b'"REMOTE_ADDR": "127.0.0.1"' in ask(version_2(b"", 0x20, 0))
        with pytest.raises((OSError, AssertionError)):
            assert ask(b"")
        served.wait_for("no PROXY header from 127.0.0.1: there is none")


# ---------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path):
    """Makes certificates signed by an authority: (certificate, key) of a name."""
    openssl = require_program("openssl")

    def call(*arguments):
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=tmp_path)

    key = ("-newkey", "rsa:2048", "-nodes")
    call(
        *("req", "-x509", *key, "-subj", "/CN=authority", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"),
        *("-addext", "keyUsage=critical,keyCertSign"),  # which Python 3.13 and later want of an authority
    )

    def make(name):
        call("req", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (tmp_path / "ext").write_text(f"subjectAltName=DNS:{name}\nauthorityKeyIdentifier=keyid\n")
        call(
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
            *("-days", "2", "-extfile", "ext", "-out", f"{name}.pem"),
        )
        return str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")

    make.file = str(tmp_path / "ca.pem")  # type: ignore[attr-defined]
    return make


def test_certificates_by_name_and_of_clients(folder, certificate, authority):
    other, client = authority("other.example"), authority("client")
    options = (
        *("--certfile", certificate.cert, "--keyfile", certificate.key, "--tls-min", "1.3", "--workers", "1"),
        *("--sni", f"other.example={other[0]}:{other[1]}", "--client-ca", authority.file),
    )
    with serving(folder, *options) as served:

        def connect(name, with_certificate, version=None):
            context = ssl.create_default_context(cafile=authority.file)
            context.load_verify_locations(certificate.cert)
            if with_certificate:
                context.load_cert_chain(*client)
            if version is not None:
                context.maximum_version = version
            with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as plain:
                with context.wrap_socket(plain, server_hostname=name) as sock:
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    return sock.recv(100).decode()

        for name in ("localhost", "other.example"):
            assert connect(name, True).startswith("HTTP/1.1 200")
            with pytest.raises((ssl.SSLError, ConnectionResetError)):  # the alert, or its connection is gone already
                connect(name, False)
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            connect("localhost", True, ssl.TLSVersion.TLSv1_2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--ciphers", "NOTHING"), "--ciphers"),
        (("--client-ca", "/no/file"), "the authorities"),
        (("--sni", "name"), "--sni needs"),
        (("--sni", "name=/no/file"), "cannot be used"),
    ],
)
def test_bad_tls(folder, certificate, option, message):
    options = ("--certfile", certificate.cert, "--keyfile", certificate.key, "--bind", "127.0.0.1:0", "--check")
    done = run_once("site_app:app", *options, *option, cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr


# ---------------------------------------------------------------- preloading


PRELOADED = """
import gc, json, os, sys

PID = os.getpid()
DATA = [[number] for number in range(300_000)]  # some 30 MB that the garbage collector visits

def dirty():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Private_Dirty"))

def app(environ, start_response):
    gc.collect()
    start_response("200 OK", [])
    found = {"pid": os.getpid(), "loaded": PID, "dirty": dirty(), "version": VERSION}
    return [json.dumps(found).encode()]

async def asgi(scope, receive, send):
    body = json.dumps({"pid": os.getpid(), "loaded": PID}).encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})
"""


def test_a_preloaded_application_is_the_parents_memory(tmp_path):
    application = tmp_path / "site_app.py"
    application.write_text(PRELOADED + "VERSION = 1\n")
    with serving(tmp_path, "--workers", "1", "--preload") as served:
        found = seen(served)
        assert (found["loaded"], found["version"]) == (served.process.pid, 1)
        assert found["pid"] != served.process.pid
        assert found["dirty"] < 20_000  # KiB, of what the worker itself has made
        # A reload has new workers, and no new code; a worker that dies is replaced as ever.
        application.write_text(PRELOADED + "VERSION = 2\n")
        served.signal(signal.SIGHUP)
        served.wait_for("new workers, with the application that was preloaded")
        served.wait_for("reloaded in")
        while (again := seen(served))["pid"] == found["pid"]:
            pass  # the old worker may take one more
        assert (again["loaded"], again["version"]) == (served.process.pid, 1)
        os.kill(again["pid"], signal.SIGKILL)
        served.wait_for("died")
        wait_until(lambda: seen(served)["pid"] != again["pid"])
        # Its next program loads what is there then.
        served.signal(signal.SIGUSR2)
        served.wait_for("worker at", 2)
        served.signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE) == 0
        served.wait_for("goes on alone")
        last = seen(served)
        assert (last["version"], last["loaded"] != served.process.pid) == (2, True)
        os.kill(last["loaded"], signal.SIGTERM)


def test_a_preloaded_asgi_application(tmp_path):
    (tmp_path / "site_app.py").write_text(PRELOADED + "VERSION = 1\n")
    with serving(tmp_path, "--workers", "1", "--preload", "--mount", "/asgi=site_app:asgi") as served:
        assert seen(served, "/asgi")["loaded"] == served.process.pid
        assert seen(served)["loaded"] == served.process.pid


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("app = print", ["--reload"], "--preload keeps the application that was loaded at the start"),
        ("1 / 0", [], "ZeroDivisionError"),
        ("", [], "site_app has no 'app'"),
        ("import time\ntime.sleep(1000)", ["--boot-timeout", "0.5"], "Timeout (0:00:00.500000)!"),
    ],
)
def test_what_cannot_be_preloaded(tmp_path, text, arguments, message):
    (tmp_path / "site_app.py").write_text(text)
    path = tmp_path / "sock"
    done = run_once("site_app:app", "--preload", "--bind", f"unix:{path}", *arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert message in done.stderr


def test_threads_of_a_preloaded_application_are_not_the_workers(tmp_path):
    (tmp_path / "site_app.py").write_text(
        "import _thread, ctypes, weald.monkey\nfrom weald.monkey import get_original\n"
        "get_original('_thread', 'start_new_thread')(ctypes.CDLL(None).sleep, (1000,))\n" + APP
    )
    with serving(tmp_path, "--workers", "1", "--preload") as served:
        served.wait_for("the application has started threads as it was loaded: with --preload, no worker has them")
        assert seen(served)["PATH_INFO"] == "/"


# ---------------------------------------------------------------- threads


THREADED = """
import ctypes, json, sqlite3, threading, _thread

libc = ctypes.CDLL(None)
barrier = ctypes.create_string_buffer(64)
libc.pthread_barrier_init(barrier, None, 3)
log = []

def pieces(environ, start_response, database):
    start_response("200 OK", [("X-Late", "yes")])
    thread = _thread.get_ident()
    try:
        for number in range(3):
            assert thread == _thread.get_ident()
            database.execute("select 1")  # sqlite3 minds the thread
            yield b"piece %d\\n" % number
        if environ["QUERY_STRING"] == "fail":
            raise KeyError("in the middle")
        while environ["QUERY_STRING"] == "endless":
            yield bytes(1 << 16)
    finally:
        log.append(f"closed {thread == _thread.get_ident()}")

class Closing:
    def __init__(self, pieces):
        self.pieces = pieces
    def __iter__(self):
        return iter(self.pieces)
    def close(self):
        self.pieces.close()

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/blocks":  # in C, until three requests do
        libc.pthread_barrier_wait(barrier)
    if path == "/pieces":
        return Closing(pieces(environ, start_response, sqlite3.connect(":memory:")))
    if path == "/write":
        write = start_response("200 OK", [])
        write(b"written ")
        write(b"twice ")
        return [b"and returned"]
    if path == "/log":
        start_response("200 OK", [])
        return [json.dumps(log).encode()]
    if path == "/fail":
        raise KeyError("a bug")
    if path == "/bad":
        try:
            start_response("200 OK", [("Bad\\n", "")])
        except ValueError as error:
            start_response("200 OK", [])
            return [b"refused"]
    body = environ["wsgi.input"].read()
    if path == "/replace":
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            import sys
            start_response("503 Later", [], sys.exc_info())
    else:
        start_response("200 OK", [])
    left = [name for name in environ if name.startswith(("weald.", "werkzeug."))]
    found = [environ["wsgi.multithread"], len(body), body[:5].decode(), left]
    return [json.dumps(found).encode()]
"""


@pytest.fixture
def threaded(tmp_path):
    (tmp_path / "site_app.py").write_text(THREADED)
    return tmp_path


def ask(served, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    connection.request("POST" if body else "GET", path, body)
    response = connection.getresponse()
    found = response.status, response.read()
    connection.close()
    return found


def test_an_application_in_threads(threaded):
    with serving(threaded, "--workers", "1", "--threads", "3") as served:
        # Three block at once, and the worker goes on meanwhile.
        with ThreadPoolExecutor(3) as pool:
            assert [status for status, _ in pool.map(ask, [served] * 3, ["/blocks"] * 3)] == [200] * 3
        for body in (None, b"small", b"large" * 100_000, iter([b"chunk", b"ed" * 50_000])):
            size = 100_005 if not isinstance(body, bytes | None) else len(body or b"")
            status, found = ask(served, "/", body)
            assert (status, json.loads(found)[:2]) == (200, [True, size])
        assert json.loads(ask(served, "/")[1])[3] == []
        assert ask(served, "/write") == (200, b"written twice and returned")
        assert ask(served, "/pieces") == (200, b"piece 0\npiece 1\npiece 2\n")
        assert ask(served, "/bad") == (200, b"refused")
        assert ask(served, "/replace")[0] == 503
        assert ask(served, "/fail") == (500, b"Internal Server Error")
        served.wait_for("KeyError: 'a bug'")
        with pytest.raises(http.client.IncompleteRead):
            ask(served, "/pieces?fail")
        served.wait_for("KeyError: 'in the middle'")


def test_a_client_that_leaves_an_application_in_threads(threaded):
    with serving(threaded, "--workers", "1", "--threads", "1") as served:
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as sock:
            sock.sendall(b"GET /pieces?endless HTTP/1.1\r\nHost: a\r\n\r\n")
            assert sock.recv(100)
        with socket.create_connection(("127.0.0.1", served.port), PATIENCE) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        # The only thread is free again, and what it iterated was closed in it.
        wait_until(lambda: json.loads(ask(served, "/log")[1]) == ["closed True"])
        assert not any("Traceback" in line for line in served.lines)


def test_threads_are_for_wsgi(threaded):
    (threaded / "asgi_app.py").write_text("async def app(scope, receive, send): pass\n")
    done = run_once("asgi_app:app", "--threads", "2", "--check", cwd=threaded)
    assert done.returncode == 1
    assert "--threads is for WSGI applications; an ASGI one has asyncio.to_thread" in done.stderr
    with serving(threaded, "--workers", "1", "--threads", "3", "--mount", "/asgi=asgi_app:app") as served:
        assert ask(served, "/write") == (200, b"written twice and returned")


# ---------------------------------------------------------------- syslog


def test_logs_go_to_syslog(folder):
    path = str(folder / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.settimeout(PATIENCE)
        daemon.bind(path)
        options = ("--log-syslog", f"unix:{path}", "--log-syslog-facility", "local3", "--log-syslog-tag", "site")
        process = subprocess.Popen(
            command("site_app:app", "--app-dir", str(folder), "--bind", "127.0.0.1:0", "--workers", "1", *options)
            + ["--access-log", "common"]
        )
        try:
            line = daemon.recv(10_000).decode()
            # local3 is 19, info is 6
            found = re.fullmatch(rf"<{19 * 8 + 6}>\w{{3}} [ \d]\d [\d:]{{8}} site\[{process.pid}\]: (.*)", line)
            assert found is not None, line
            port = int(re.search(r"worker at http://127.0.0.1:(\d+)", found[1])[1])  # type: ignore[index]
            urllib.request.urlopen(f"http://127.0.0.1:{port}/x", timeout=PATIENCE).close()
            assert re.search(r'site\[\d+\]: 127.0.0.1 - - .*"GET /x HTTP/1.1" 200', daemon.recv(10_000).decode())
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
                sock.sendall(b"nonsense\r\n\r\n")
                warned = daemon.recv(10_000).decode()
            assert warned.startswith(f"<{19 * 8 + 4}>")
            assert "Invalid request" in warned
        finally:
            process.terminate()
            assert process.wait(PATIENCE) == 0


def test_syslog_by_udp_with_a_daemon_that_comes_later():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    syslog = Syslog(f"udp:127.0.0.1:{port}", "user", "weald")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", port))
        daemon.settimeout(PATIENCE)
        syslog.send("error", "one\ntwo")
        lines = [daemon.recv(1000).decode() for _ in range(2)]
    for line, text in zip(lines, ("one", "two"), strict=True):
        when = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
        assert re.fullmatch(rf"<11>1 {when} {socket.gethostname()} weald {os.getpid()} - - {text}", line), line


def test_syslog_lines_have_hours_of_two_digits(monkeypatch):
    """RFC 3164 section 4.1.2: of days below ten the first digit is a space, of hours it is none."""
    hour = time.gmtime().tm_hour - 4
    monkeypatch.setenv("TZ", f"XXX{hour:+d}")
    time.tzset()
    try:
        line = Syslog("unix:/nowhere", "daemon", "weald")._datagram("info", "text").decode()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert re.fullmatch(r"<30>\w{3} [ \d]\d 0[45]:\d\d:\d\d weald\[\d+\]: text", line), line


def test_a_syslog_daemon_that_is_away_or_takes_nothing(tmp_path):
    path = str(tmp_path / "log")
    syslog = Syslog(f"unix:{path}", "daemon", "weald", limit=1000)
    syslog.send("info", "early")
    assert syslog.pending()
    for restart in range(2):  # the second time another daemon is there in place of the first
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(path)
            daemon.settimeout(PATIENCE)
            if restart:
                syslog.send("info", "early")
            assert syslog.retry()
            assert daemon.recv(1000).endswith(b": early")
            while not syslog.pending():  # until the system's queue is full
                syslog.send("info", "filling")
            for _ in range(100):
                syslog.send("info", "lost")
            received = []
            while syslog.pending():
                received.append(daemon.recv(1000))
                syslog.retry()
            daemon.setblocking(False)
            try:
                while True:
                    received.append(daemon.recv(1000))
            except BlockingIOError:
                pass
            assert re.search(rb"\d+ lines of this log were lost$", received[-1])
        os.unlink(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--log-syslog", "/dev/log"], "--log-syslog must be like unix:/dev/log or udp:HOST:514"),
        (["--log-syslog", "udp:host"], "--log-syslog must be like unix:/dev/log or udp:HOST:514"),
        (["--log-syslog-facility", "nobody"], "--log-syslog-facility is one of auth"),
        (["--log-syslog-tag", "a b"], "--log-syslog-tag must be a name"),
    ],
)
def test_bad_options_of_syslog(folder, arguments, message):
    done = run_once("site_app:app", "--check", *arguments, cwd=folder)
    assert done.returncode == 1
    assert message in done.stderr


# ---------------------------------------------------------------- --help


def test_help_has_the_signals():
    said = run_once("--help", cwd=Path.cwd()).stdout
    assert "\nSignals to the parent process:\n  TERM, INT " in said
    for name in ("QUIT", "HUP", "USR1", "USR2", "WINCH", "TTIN, TTOU"):
        assert f"\n  {name} " in said
