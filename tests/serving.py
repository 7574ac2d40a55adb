"""`weald serve` in a process of its own, an application for it, and clients, shared by its test modules."""

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from helpers import PATIENCE, wait_until

APP = """
import os, time, weald.monkey
VERSION = {version!r}

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/slow":
        time.sleep(0.5)
    if path == "/print":
        for _ in range(100):
            print("printed " * 100, flush=True)
    if path == "/fail":
        raise KeyError("a bug")
    if path == "/stuck":  # until the file is removed
        file = environ["QUERY_STRING"]
        open(file + ".begun", "w").close()
        while os.path.exists(file):
            weald.monkey.get_original("time", "sleep")(0.01)
    if path == "/name":
        start_response("200 OK", [])
        return [environ["SERVER_NAME"].encode()]
    if path == "/hang":
        weald.monkey.get_original("time", "sleep")(100)
    body = f"{{VERSION}} {{os.getpid()}} {{environ['wsgi.url_scheme']}} {{environ['wsgi.multiprocess']}}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def make():
    return app

nothing = None
"""


class Served:
    """A running `weald serve`."""

    def __init__(self, process, lines):
        self.process = process
        self.lines = lines

    def wait_for(self, pattern, count=1, seconds=PATIENCE):
        """The `count`th line of standard error that has `pattern`."""
        deadline = time.monotonic() + seconds
        while True:
            found = [match for line in list(self.lines) if (match := re.search(pattern, line))]
            if len(found) >= count:
                return found[count - 1]
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.lines}"
            time.sleep(0.01)

    @property
    def port(self):
        return int(self.wait_for(r"workers? at https?://[^:]+:(\d+)")[1])

    def get(self, path="/"):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE) as response:
            body = response.read()
        return body.decode()

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        self.signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        return status


PATIENT = ("--limit", "body_timeout=1000")  # for clients that never send a body


def has_ended(pid):
    """Whether the process has ended; a zombie has."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # the latter if it is reaped between opening and reading
        return True
    return state in "ZX"


def command(*arguments):
    return [sys.executable, "-m", "weald", "serve", *arguments]


@contextmanager
def serving(folder, *arguments, bind="127.0.0.1:0", inside=(), **options):
    """`inside`: a command that runs the one after it, in a namespace for example."""
    binds = ("--bind", bind) if bind else ()
    process = subprocess.Popen(
        [*inside] + command("site_app:app", "--app-dir", str(folder), *binds, *arguments),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Two versions of a file written within a second have the same time stamp.
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **options.pop("env", {})},
        **options,
    )
    lines = []
    reader = threading.Thread(target=lambda: [lines.append(line) for line in process.stderr], daemon=True)
    reader.start()
    served = Served(process, lines)
    try:
        served.wait_for(r"workers? at ")
        yield served
        if process.poll() is None:
            assert served.end() == 0
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        reader.join(PATIENCE)
        process.stderr.close()
        process.stdout.close()


class Load:
    """Threads that send requests in a loop, on persistent connections.  A refused connection is not a failure."""

    def __init__(self, port, threads=4, path="/"):
        self.port, self.path = port, path
        self.failures = []
        self.bodies = []
        self.stop = False
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self):
        try:
            while not self.stop:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
                while not self.stop:
                    connection.request("GET", self.path)
                    response = connection.getresponse()
                    assert response.status == 200
                    self.bodies.append(response.read().decode())
                    if response.will_close:
                        break
                connection.close()
        except BaseException as error:
            self.failures.append(error)

    def wait_for(self, number, what=lambda body: True):
        """Wait until `number` more such responses have come."""
        start = len(self.bodies)
        wait_until(lambda: self.failures or sum(map(what, self.bodies[start:])) >= number)

    def end(self):
        self.stop = True
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        assert self.failures == []
