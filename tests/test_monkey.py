"""Patching: each case in an interpreter of its own, which must end silently."""

import itertools
import subprocess
import sys

import pytest

SERVER = """
from weald.server import StreamServer
def answer(sock, address):
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        piece = sock.recv(4096)
        if not piece:
            return
        data += piece
    weald.sleep(0.5)
    sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello")
server = StreamServer(("127.0.0.1", 0), answer)
server.start()
url = f"http://127.0.0.1:{server.server_port}/"
"""


def run(code, *arguments):
    command = [sys.executable, *(["-c", code] if code else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


PATCH = "import weald, weald.monkey; weald.monkey.patch_all()\n"


def test_two_hundred_downloads_take_about_the_time_of_one():
    seconds = run(
        PATCH + "import time, requests" + SERVER + "begin = time.monotonic()\n"
        "gs = [weald.spawn(lambda: requests.get(url).text) for _ in range(200)]\n"
        "weald.joinall(gs, raise_error=True)\nassert {g.value for g in gs} == {'hello'}\n"
        "print(time.monotonic() - begin)"
    )
    assert float(seconds) < 200 * 0.5 / 4


def test_names_imported_before_become_cooperative():
    out = run(
        "from time import sleep\nfrom socket import socket, socketpair\nimport select\n" + PATCH +
        "import weald.socket, weald.time\n"
        "print(sleep is weald.time.sleep, socket is weald.socket.socket, type(socketpair()[0]) is weald.socket.socket)"
    )
    assert out == "True True True"


def test_the_original_socket_class_makes_ours():
    out = run(
        "import socket\nkept = [socket.socket]\n" + PATCH +
        "import weald.socket\nmade = kept[0]()\nprint(type(made) is weald.socket.socket, isinstance(made, kept[0]))\n"
        "made.close()"
    )
    assert out == "True True"


ORDERS = list(itertools.permutations(["ssl", "urllib3", "requests", "logging", "threading", "concurrent.futures"]))


@pytest.mark.parametrize("order", [ORDERS[n] for n in range(0, 720, 90)], ids=",".join)
def test_import_orders(order):
    out = run(
        f"import {', '.join(order)}\n" + PATCH + "import ssl, time, threading, logging, concurrent.futures\n"
        "context = ssl.create_default_context()\ncontext.minimum_version = ssl.TLSVersion.TLSv1_2\n"
        "import weald.ssl\nassert context.sslsocket_class is weald.ssl.SSLSocket\n"
        "with concurrent.futures.ThreadPoolExecutor(8) as pool:\n"
        "    begin = time.monotonic()\n    list(pool.map(time.sleep, [0.2] * 8))\n"
        "    assert time.monotonic() - begin < 1\n"
        "logging.getLogger('x').debug('y')\nprint('fine')"
    )
    assert out == "fine"


def test_threads_are_greenlets_and_end_before_the_process():
    out = run(
        PATCH + "import threading, time, queue\nseen = []\nq = queue.Queue(1)\n"
        "def work(n):\n    time.sleep(0.05)\n    seen.append(n)\n    q.put(n)\n"
        "ts = [threading.Thread(target=work, args=(n,)) for n in range(5)]\n"
        "[t.start() for t in ts]\nprint(sorted(q.get() for _ in ts))\n[t.join() for t in ts]\n"
        "assert not any(t.is_alive() for t in ts) and threading.active_count() == 1\n"
        "print(threading.current_thread() is threading.main_thread())\n"
        "timer = threading.Timer(0.01, print, ['timer'])\ntimer.start()\ntimer.join()\n"
        "barrier = threading.Barrier(2)\nother = threading.Thread(target=barrier.wait)\nother.start()\nbarrier.wait()\n"
        "other.join()\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()"
    )
    assert out.splitlines() == ["[0, 1, 2, 3, 4]", "True", "timer", "late"]


def test_locks_made_before_still_exclude():
    out = run(
        "import logging, threading\nhandler = logging.StreamHandler()\nlock = threading.RLock()\n" + PATCH +
        "import time, weald\nholders = []\n"
        "def hold():\n    with lock:\n        holders.append(1)\n        time.sleep(0.01)\n"
        "        assert len(holders) == 1\n        holders.pop()\n"
        "gs = [weald.spawn(hold) for _ in range(5)]\nweald.joinall(gs, raise_error=True)\nprint('fine')"
    )
    assert out == "fine"


def test_asyncio_runs_patched():
    out = run(
        PATCH + "import asyncio\nasync def main():\n"
        "    server = await asyncio.start_server(lambda r, w: w.close(), '127.0.0.1', 0)\n"
        "    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())\n"
        "    print(await reader.read())\n    await asyncio.sleep(0.01)\n    writer.close()\n    server.close()\n"
        "asyncio.run(main())"
    )
    assert out == "b''"


def test_what_is_patched_can_be_asked_and_undone_by_hand():
    out = run(
        "import time\nnative = [time.sleep]\n" + PATCH +
        "m = weald.monkey\nprint(m.is_module_patched('time'), m.is_object_patched('time', 'sleep'),"
        " m.get_original('time', 'sleep') is native[0], m.get_original('os', ['getpid', 'getppid']) is not None,"
        " m.is_module_patched('json'))"
    )
    assert out == "True True True True False"


def test_as_a_program(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, weald.time, weald.monkey\n"
        "print(__name__, sys.argv[1:], time.sleep is weald.time.sleep, weald.monkey.is_module_patched('signal'))\n"
    )
    assert run("", "-m", "weald.monkey", "--no-signal", str(script), "a", "b") == "__main__ ['a', 'b'] True False"
    assert "usage" in run("", "-m", "weald.monkey", "-m", "json.tool", "--help")
    done = subprocess.run([sys.executable, "-m", "weald.monkey", "--nonesuch", "x"], capture_output=True, text=True)
    assert done.returncode == 1 and "unknown option --nonesuch" in done.stderr
