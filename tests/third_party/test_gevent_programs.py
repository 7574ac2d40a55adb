"""Programs and libraries written for gevent, unchanged, in an environment where weald is gevent (see environment.py).

Celery's `-P gevent` is in test_celery_fetch.py; the calls of uWSGI's loop, which takes minutes to build, are in
test_compat_third_party.py.

In a run over several interpreters they run under one: `.ci/run` sets WEALD_PROGRAMS=no for all but 3.13.
"""

import json
import os
import signal
import socket
import subprocess
import textwrap
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import environment
import pytest
import servers
from helpers import PATIENCE, PROGRAMS_REASON, PROGRAMS_RUN
from test_integrations_gunicorn import APP, Gunicorn
from test_serve import Load
from websockets.sync.client import connect as websocket_connect

import weald

pytestmark = [
    pytest.mark.timeout(300),  # the environment and a server's package may have to be installed first
    pytest.mark.skipif(not PROGRAMS_RUN, reason=PROGRAMS_REASON),
]

COUNT = 50
PRELUDE = f"""
from gevent import monkey
monkey.patch_all()
import gevent, os, sys, weald
assert gevent.spawn is weald.spawn
COUNT = {COUNT}

def at_once(call):
    greenlets = [gevent.spawn(call, number) for number in range(COUNT)]
    return [greenlet.get(timeout=100) for greenlet in greenlets]
"""


@pytest.fixture(scope="module")
def python():
    return environment.python()


def run(python, code, **values):
    """The output of `code`, patched through gevent's name, with `values` as its globals."""
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    done = subprocess.run(
        [python, "-c", PRELUDE + given + textwrap.dedent(code)], capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@contextmanager
def started(python, code, folder, **values):
    """A server that runs as long as the block; `code` prints its port first."""
    given = "".join(f"{name} = {value!r}\n" for name, value in values.items())
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [python, "-c", PRELUDE + given + textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (folder / "errors").read_text()
        yield int(line)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait(PATIENCE)
        if process.stdout is not None:
            process.stdout.close()


def test_checking_packages(python):
    """`python -m weald.compat --check` on real packages: weald has the names that they use, except those that gevent
    has removed, too.
    """
    code = """
    import contextlib, io
    from weald.compat.__main__ import check
    for package in ("gunicorn", "sentry_sdk", "engineio", "flask_socketio", "psycogreen", "gipc", "geventwebsocket",
                    "celery", "zmq"):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            check(package)
        lacks = [line.split()[1] for line in text.getvalue().splitlines() if line.startswith("LACKS")]
        assert "has      gevent" in text.getvalue(), package
        print(package, *lacks)
    """
    found = {line.split()[0]: line.split()[1:] for line in run(python, code).splitlines()}
    assert found.pop("zmq") == ["gevent.core.read_event"]  # tried for releases before 1.0
    assert found and not any(found.values()), found


# -------------------------------------------------------------------- gunicorn


@contextmanager
def gunicorn(python, folder, worker, *arguments):
    (folder / "site_app.py").write_text(APP % 1)
    log = folder / "log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("w") as file:
        process = subprocess.Popen(
            [
                *(python, "-m", "gunicorn", "-k", worker, "--bind", f"fd://{listener.fileno()}"),
                *("--graceful-timeout", "20", "--keep-alive", "20", "--no-control-socket", *arguments, "site_app:app"),
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


@pytest.mark.parametrize("worker", ["gevent", "gevent_pywsgi"])
def test_gunicorn(python, tmp_path, worker):
    """Load, a reload under load that fails no request, and a stop that waits for the request under way."""
    with gunicorn(python, tmp_path, worker, "--workers", "2") as running:
        load = Load(running.port)
        load.wait_for(50, lambda body: body.startswith("1 "))
        slow = 'if environ["PATH_INFO"] == "/slow":\n        open("begun", "w").close(); time.sleep(1)\n    if environ'
        (tmp_path / "site_app.py").write_text("import time\n" + APP.replace("if environ", slow, 1) % 2)
        running.process.send_signal(signal.SIGHUP)
        load.wait_for(50, lambda body: body.startswith("2 "))
        load.end()
        got = []
        begun = tmp_path / "begun"
        while not begun.exists():
            # Again if a worker of before the reload has answered: those accept for up to a second more.
            asking = threading.Thread(target=lambda: got.append(running.get("/slow")))
            asking.start()
            while asking.is_alive() and not begun.exists():
                time.sleep(0.01)
        running.process.send_signal(signal.SIGTERM)
        asking.join(PATIENCE)
        assert got and got[-1].startswith("2 ")


# -------------------------------------------------------------------- frameworks


def get(port, path):
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as response:
        body = response.read()
    return body.decode()


SITES = {
    "flask": """
        import flask
        app = flask.Flask(__name__)

        @app.route("/<int:number>")
        def page(number):
            meet()
            return f"{flask.request.path} {number + 1}"
        """,
    "django": """
        import django.conf, django.urls, django.http, django.core.wsgi
        django.conf.settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])

        def page(request, number):
            meet()
            return django.http.HttpResponse(f"{request.path} {number + 1}")

        urlpatterns = [django.urls.path("<int:number>", page)]
        app = django.core.wsgi.get_wsgi_application()
        """,
}
SERVE = """
import threading
from gevent.pywsgi import WSGIServer
barrier = threading.Barrier(8)

def meet():
    barrier.wait(timeout=100)  # answers when eight requests wait

{site}
server = WSGIServer(("127.0.0.1", 0), app, log=None)
server.start()
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("site", SITES)
def test_frameworks_under_pywsgi(python, tmp_path, site):
    with started(python, SERVE.format(site=textwrap.dedent(SITES[site])), tmp_path) as port:
        answers = {}
        threads = [
            threading.Thread(target=lambda number=number: answers.update({number: get(port, f"/{number}")}))
            for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert answers == {number: f"/{number} {number + 1}" for number in range(8)}


def test_flask_socketio_with_gevent_websocket(python, tmp_path):
    code = """
    import flask, flask_socketio
    from gevent.pywsgi import WSGIServer
    from geventwebsocket.handler import WebSocketHandler
    app = flask.Flask(__name__)
    socketio = flask_socketio.SocketIO(app, async_mode="gevent")

    @socketio.on("add")
    def add(one, two):
        flask_socketio.emit("sum", one + two)
        socketio.start_background_task(socketio.emit, "later", "from a greenlet")

    server = WSGIServer(("127.0.0.1", 0), app, log=None, handler_class=WebSocketHandler)
    server.start()
    print(server.server_port, flush=True)
    server.serve_forever()
    """
    with started(python, code, tmp_path) as port:
        # Long polling, then a WebSocket (https://socket.io/docs/v4/engine-io-protocol/).
        assert get(port, "/socket.io/?EIO=4&transport=polling").startswith('0{"sid":')
        with websocket_connect(f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket") as conn:
            assert str(conn.recv(timeout=PATIENCE)).startswith('0{"sid":')
            conn.send("40")
            assert str(conn.recv(timeout=PATIENCE)).startswith('40{"sid":')
            conn.send('42["add",1,2]')
            assert conn.recv(timeout=PATIENCE) == '42["sum",3]'
            assert conn.recv(timeout=PATIENCE) == '42["later","from a greenlet"]'


# -------------------------------------------------------------------- clients


@pytest.mark.parametrize("client", ["requests", "urllib3"])
def test_http_clients(python, client):
    code = {
        "requests": """
            import requests
            session = requests.Session()
            session.trust_env = False
            session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=COUNT))
            print(*at_once(lambda number: session.get(f"{url}/{number}", timeout=100).text))
            """,
        "urllib3": """
            import urllib3
            pool = urllib3.PoolManager(maxsize=COUNT, block=True, timeout=100, retries=False)
            print(*at_once(lambda number: pool.request("GET", f"{url}/{number}").data.decode()))
            """,
    }[client]
    with servers.GatedHttp(COUNT) as server:
        out = run(python, code, url=f"http://127.0.0.1:{server.port}")
    assert out.split() == [f"/{number}" for number in range(COUNT)]


def test_psycogreen(python, postgresql):
    """All wait for a lock, until its owner lets go: psycopg2's C code waits in a greenlet."""
    code = """
    import psycogreen.gevent, psycopg2
    psycogreen.gevent.patch_psycopg()

    def ask(connection, query, *values):
        with connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchone()[0]

    def connect():
        connection = psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres")
        connection.autocommit = True
        return connection

    def call(number):
        connection = connect()
        ask(connection, "SELECT pg_advisory_lock_shared(1)")
        return ask(connection, "SELECT %s::int", number)

    owner = connect()
    ask(owner, "SELECT pg_advisory_lock(1)")

    def release():
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while ask(owner, waiting) < COUNT:
            gevent.sleep(0.02)
        ask(owner, "SELECT pg_advisory_unlock(1)")

    gevent.spawn(release)
    print(*at_once(call))
    """
    assert run(python, code, port=postgresql).split() == [str(number) for number in range(COUNT)]


def test_zmq_green(python):
    """Requests and replies, a poll, and time limits: sockets that would block let the others run."""
    code = """
    import zmq.green as zmq
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")

    def serve():
        held = [router.recv_multipart() for _ in range(COUNT)]  # answers when all requests have come
        for who, empty, text in reversed(held):
            router.send_multipart([who, empty, text + b"!"])

    def ask(number):
        with context.socket(zmq.REQ) as sock:
            sock.connect(f"tcp://127.0.0.1:{port}")
            sock.send_string(str(number))
            poller = zmq.Poller()
            poller.register(sock, zmq.POLLIN)
            assert poller.poll(40_000) == [(sock, zmq.POLLIN)]
            return sock.recv_string()

    serving = gevent.spawn(serve)
    print(*at_once(ask))
    serving.get(timeout=100)
    with context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        pull.bind("inproc://place")
        push.connect("inproc://place")
        assert pull.poll(1) == 0
        with gevent.Timeout(0.001, False):
            pull.recv()
        got = gevent.spawn(pull.recv_json)
        gevent.sleep(0)
        push.send_json({"a": 1})
        assert got.get(timeout=100) == {"a": 1}
    router.close()
    context.term()
    """
    assert run(python, code).split() == [f"{number}!" for number in range(COUNT)]


def test_zmq_green_sends_without_copying(python):
    """A thread of pyzmq frees messages that libzmq no longer needs, and must not stop the others."""
    code = """
    import threading
    import zmq.green as zmq
    with zmq.Context() as context, context.socket(zmq.PUSH) as push, context.socket(zmq.PULL) as pull:
        push.copy_threshold = 0
        push.bind("inproc://place")
        pull.connect("inproc://place")
        ticks = []
        for number in range(3):
            tracker = push.send(bytes(100_000), copy=False, track=True)
            gevent.spawn(ticks.append, number)
            gevent.sleep(0)
            assert len(pull.recv()) == 100_000
            tracker.wait(timeout=100)
        print(ticks, tracker.done)
    """
    assert run(python, code) == "[0, 1, 2] True\n"


def test_gipc(python, tmp_path):
    """Children of multiprocessing with pipes that greenlets of both processes use."""
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import gevent, gipc

            def child(end):
                results = [gevent.spawn(lambda n: (gevent.sleep(0.001), n * n)[1], n) for n in range(5)]
                assert end.get() == "begin"
                end.put([result.get() for result in results])

            if __name__ == "__main__":
                with gipc.pipe(duplex=True) as (mine, theirs):
                    process = gipc.start_process(child, (theirs,))
                    beats = []
                    beating = gevent.spawn(lambda: [gevent.sleep(0.001) or beats.append(1) for _ in range(3)])
                    mine.put("begin")
                    print(mine.get(timeout=gevent.Timeout(100)))
                    process.join()
                    beating.get()
                    print(process.exitcode, len(beats))
            """
        )
    )
    done = subprocess.run([python, str(program)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("[0, 1, 4, 9, 16]\n0 3\n", "")


class _Envelopes(BaseHTTPRequestHandler):
    """Receives what sentry-sdk sends (https://develop.sentry.dev/sdk/data-model/envelopes/)."""

    received: list[dict[str, Any]]

    def do_POST(self):
        import gzip

        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        _, item, event = body.split(b"\n")[:3]
        if json.loads(item)["type"] == "event":
            self.received.append(json.loads(event))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args): ...


def test_sentry_sdk(python):
    """It detects gevent, keeps greenlets' scopes apart, sends from its worker, profiles in a thread."""
    code = """
    import sentry_sdk, sentry_sdk.utils
    from sentry_sdk.profiler.transaction_profiler import GeventScheduler
    assert sentry_sdk.utils.is_gevent()
    sentry_sdk.init(dsn=f"http://key@127.0.0.1:{port}/1", default_integrations=False, traces_sample_rate=0.0)
    assert sentry_sdk.utils.get_current_thread_meta()[0] == gevent.get_hub().thread_ident

    def fail(number):
        with sentry_sdk.isolation_scope() as scope:
            scope.set_tag("number", str(number))
            gevent.sleep(0.001)
            try:
                raise ValueError(f"number {number}")
            except ValueError as error:
                sentry_sdk.capture_exception(error)

    at_once(fail)
    sentry_sdk.flush(timeout=100)
    scheduler = GeventScheduler(101)
    sampled = []
    scheduler.sampler = lambda *args: sampled.append(1)
    with scheduler:
        scheduler.ensure_running()
        while len(sampled) < 3:
            gevent.sleep(0.001)
    """
    handler = type("Handler", (_Envelopes,), {"received": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            run(python, code, port=server.server_port)
        finally:
            server.shutdown()
    found = [(int(event["tags"]["number"]), event["exception"]["values"][0]["value"]) for event in handler.received]
    assert sorted(found) == [(number, f"number {number}") for number in range(COUNT)]


def test_a_program_frozen_by_pyinstaller(python, tmp_path):
    """A checkout has no entry point by which PyInstaller would find weald's hook."""
    (tmp_path / "frozen.py").write_text(
        textwrap.dedent(
            """
            from gevent import monkey
            monkey.patch_all()
            import socket, sys, threading
            import gevent, gevent.pool
            from gevent.server import StreamServer

            with StreamServer(("127.0.0.1", 0), lambda sock, address: sock.sendall(sock.recv(100).upper())) as server:
                server.start()
                with socket.create_connection(("127.0.0.1", server.server_port)) as sock:
                    sock.sendall(b"served")
                    print(sock.recv(100), sys.frozen, threading.Thread.__module__, gevent.pool.Pool(2).map(abs, [-1]))
            """
        )
    )
    hooks = Path(weald.__file__).parent / "_pyinstaller"
    build = [python, "-m", "PyInstaller", "--noconfirm", "--log-level", "WARN", "--additional-hooks-dir", str(hooks)]
    made = subprocess.run([*build, "frozen.py"], cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr
    program = tmp_path / "dist" / "frozen" / "frozen"
    # The imports of integrations are not frozen with a program that does not use them.
    assert not {"django", "psycopg"} & set(os.listdir(program.parent / "_internal"))
    done = subprocess.run([program], env={}, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("b'SERVED' True gevent.threading [1]\n", "")
