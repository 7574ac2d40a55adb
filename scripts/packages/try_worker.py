#!/usr/bin/env python3
"""README's Celery worker, `celery -A proj worker -P gevent -c 1000`, inside a bare Debian folder.

Called by: scripts/test-packages, as `try_worker.py FOLDER`, where FOLDER's /venv has weald, Celery and gevent's name.
Redis runs outside the folder, on a private port.  A hundred tasks of half a second each must run at the same time; the
worker counts how many did.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

INSIDE = Path(__file__).with_name("inside")
PROJECT = '''
import os, time
from celery import Celery

app = Celery("proj", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
running = most = 0

@app.task
def nap(seconds):
    global running, most
    running += 1
    most = max(most, running)
    time.sleep(seconds)
    running -= 1
    return most
'''
CLIENT = '''
import gevent, weald
from celery import group
from proj import nap

assert gevent.spawn is weald.spawn
most = max(group(nap.s(0.5) for _ in range(100))().get(timeout=120))
print("at once:", most)
assert most > 50
'''


def main(root: Path) -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    project = root / "project"
    project.mkdir(exist_ok=True)
    (project / "proj.py").write_text(PROJECT)
    (project / "client.py").write_text(CLIENT)
    inside = [str(INSIDE), str(root), "/bin/sh", "-c", 'cd /project && exec "$@"', "sh"]
    environ = {
        "PATH": "/venv/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "C_FORCE_ROOT": "1",
        "BROKER": f"redis://127.0.0.1:{port}/0",
    }
    redis = shutil.which("redis-server")
    assert redis, "there is no redis-server: apt-get install redis-server"
    with tempfile.TemporaryDirectory() as data:
        arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", data]
        broker = subprocess.Popen([redis, *arguments], stdout=subprocess.DEVNULL)
        try:
            worker = subprocess.Popen([*inside, *"celery -A proj worker -P gevent -c 1000".split()], env=environ)
            try:
                client = subprocess.run([*inside, "python", "client.py"], env=environ, timeout=240, check=False)
            finally:
                # unshare passes no signal on: the worker is its child.
                children = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
                for child in children:
                    os.kill(int(child), signal.SIGTERM)
                status = worker.wait(60)
        finally:
            broker.terminate()
            broker.wait()
    print(f"worker ended with {status}")
    return client.returncode or status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
