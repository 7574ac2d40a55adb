"""weald.monkey: each case in an interpreter of its own, which must end with status 0 and print no complaint."""

import itertools
import json
import re
import subprocess
import sys
import textwrap

import pytest
from helpers import PATIENCE, python, run_patched

# It answers only when {count} requests wait at the same time.
GATHERING_SERVER = """
import weald
from weald.event import Event
from weald.server import StreamServer

def answer(sock, address):
    global now
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        piece = sock.recv(4096)
        if not piece:
            return
        data += piece
    now += 1
    if now == {count}:
        all_there.set()
    all_there.wait()
    sock.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nConnection: close\\r\\n\\r\\nhello")

now, all_there = 0, Event()
server = StreamServer(("127.0.0.1", 0), answer, backlog=500)
server.start()
url = f"http://127.0.0.1:{{server.server_port}}/"
"""

# ---------------------------------------------------------------- what it is for


def test_two_hundred_downloads_at_once():
    run_patched(
        GATHERING_SERVER.format(count=200) + "import requests\n"
        "downloads = [weald.spawn(lambda: requests.get(url, timeout=100).text) for _ in range(200)]\n"
        "weald.joinall(downloads, raise_error=True)\n"
        "assert {download.value for download in downloads} == {'hello'}\n"
    )


def test_a_program_written_for_threads():
    """Threads, a queue, a pool, a server and logging of the standard library alone."""
    out = run_patched(
        """
        import concurrent.futures, http.server, logging, sys, threading, time, urllib.request, weald

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                time.sleep(0.1)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(self.path.encode())
            def log_message(self, *args):
                logging.info(*args)

        logging.basicConfig(stream=sys.stdout, level=logging.WARNING)
        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 100
        server = Server(("127.0.0.1", 0), Handler)
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        url = "http://127.0.0.1:%d/" % server.server_address[1]
        def fetch(n):
            return int(urllib.request.urlopen(url + str(n), timeout=100).read()[1:])
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            assert list(pool.map(fetch, range(40))) == list(range(40))
        server.shutdown()
        serving.join()
        server.server_close()
        print(threading.active_count())
        """
    )
    assert out == "1\n"


# ---------------------------------------------------------------- names imported before


def test_names_imported_before_become_cooperative():
    out = run_patched(
        """
        import weald.select, weald.socket, weald.thread, weald.time
        print(sleep is weald.time.sleep, socket is weald.socket.socket, select is weald.select.select)
        print(start_new_thread is weald.thread.start_new_thread)
        a, b = socketpair()
        print(type(a) is type(b) is weald.socket.socket)
        order = []
        def other():
            order.append("other")
            b.send(b"x")
        other = weald.spawn(other)
        order.append(a.recv(1))
        sleep(0)
        print(order)
        """,
        before="from time import sleep\nfrom socket import socket, socketpair\nfrom select import select\n"
        "from _thread import start_new_thread",
    )
    assert out.splitlines() == ["True True True", "True", "True", "['other', b'x']"]


def test_sleep_imported_before_lets_others_run():
    out = run_patched(
        """
        import weald
        there = []
        def work():
            there.append(1)
            while len(there) < 50:
                sleep(0.001)
        weald.joinall([weald.spawn(work) for _ in range(50)], raise_error=True)
        print("fine")
        """,
        before="from time import sleep",
    )
    assert out == "fine\n"


def test_the_original_socket_class_makes_ours():
    out = run_patched(
        """
        import weald.socket
        kept = kept[0]
        made = kept()
        print(type(made) is weald.socket.socket, isinstance(made, kept))
        made.close()
        with weald.socket.socket() as ours:
            print(type(ours) is weald.socket.socket)
        class Mine(weald.socket.socket):
            pass
        with Mine() as mine:
            print(type(mine) is Mine)
        with earlier() as instance:
            print(type(instance) is earlier)
        """,
        before="import socket\nkept = [socket.socket]\nclass earlier(socket.socket): pass",
    )
    assert out.split() == ["True"] * 5


# ---------------------------------------------------------------- the order of imports

NAMES = ["ssl", "urllib3", "requests", "logging", "threading", "concurrent.futures"]

USE_THEM = """
    import concurrent.futures, logging, ssl, threading
    import weald, weald.ssl
    # With a place for certificates, so that the system's are not read, which takes longer than all the rest.
    contexts = [ssl.create_default_context(capath="/"), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)]
    for context in contexts:
        # The setters look their base class up by its name in ssl: with a subclass there they never end.
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        context.options |= ssl.OP_NO_COMPRESSION
        assert context.sslsocket_class is weald.ssl.SSLSocket
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        all_at_once = threading.Barrier(20)
        jobs = [pool.submit(all_at_once.wait, 20) for _ in range(20)]
        assert sorted(job.result() for job in concurrent.futures.as_completed(jobs)) == list(range(20))
    logging.getLogger("x").warning("y")
    print("fine")
"""

# A process forks a child for each module that has not been imported yet; each child does the same.
ALL_ORDERS = """
import json, os, sys
names = %r
def grow(done):
    rest = [name for name in names if name not in sys.modules]
    done.append([name for name in names if name in sys.modules])
    if not rest:
        import weald.monkey
        weald.monkey.patch_all()
        exec(check, {})
        os.write(1, json.dumps(done).encode() + b"\\n")  # in one piece: other orders write at the same time
        return 0
    status, running = 0, []
    for name in rest:
        pid = os.fork()
        if not pid:
            failed = 1
            try:
                __import__(name)
                failed = grow([*done, name])
            except BaseException:
                print("order:", done, name, file=sys.stderr)
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stderr.flush()
                os._exit(failed)
        running.append(pid)
        if len(done) > 1:  # the processes of the first modules run at the same time, each with one of its own
            status |= os.waitpid(running.pop(), 0)[1]
    for pid in running:
        status |= os.waitpid(pid, 0)[1]
    return bool(status)
sys.exit(grow([]))
"""


def test_all_import_orders():
    """Each in a process of its own, except orders that differ only in imports without effect."""
    check = textwrap.dedent(USE_THEM).replace('print("fine")', "")
    done = subprocess.run(
        [sys.executable, "-c", f"check = {check!r}\n" + ALL_ORDERS % NAMES],
        capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(done.stderr.splitlines()) == {"y"}
    # The modules at first, an import, the modules then, another import, ...
    histories = [json.loads(line) for line in done.stdout.splitlines()]
    loaded = {tuple(history[1:at:2]): history[at] for history in histories for at in range(0, len(history), 2)}
    for order in itertools.permutations(NAMES):
        imports = ()
        for name in order:
            if name not in loaded[imports]:
                imports += (name,)
        assert set(loaded[imports]) == set(NAMES), order


def test_imports_after():
    assert run_patched("    import urllib3, requests" + USE_THEM, stderr="y\n") == "fine\n"


def test_contexts_and_sessions_made_before_are_cooperative():
    out = run_patched(
        GATHERING_SERVER.format(count=20)
        + "downloads = [weald.spawn(session.get, url, timeout=100) for _ in range(20)]\n"
        "weald.joinall(downloads, raise_error=True)\n"
        "import weald.ssl\n"
        "print(context.sslsocket_class is weald.ssl.SSLSocket)",
        before="import requests, ssl\nsession = requests.Session()\n"
        "session.mount('http://', requests.adapters.HTTPAdapter(pool_maxsize=20))\n"
        "context = ssl.create_default_context()",
    )
    assert out == "True\n"


# ---------------------------------------------------------------- locks made before

HOLD = """
    import time, weald
    holders = []
    def hold(lock):
        with lock:
            holders.append(1)
            time.sleep(0.01)
            assert len(holders) == 1, "two hold the lock"
            holders.pop()
    def check(lock):
        weald.joinall([weald.spawn(hold, lock) for _ in range(5)], raise_error=True)
"""


def test_locks_made_before_still_exclude():
    out = run_patched(
        HOLD
        + """
    for lock in (module_lock, module_rlock, Holder.of_class, holder.lock, holder.condition, holder.rlock, handler.lock,
                 logging._lock, by_key["lock"], queue.mutex, queue.not_full):
        check(lock)
    # One lock in two places is still one.
    from concurrent.futures import thread
    for mine, same in ((module_lock, twice.lock), (queue.mutex, queue.not_empty), (shared, other.lock)):
        with mine:
            assert not same.acquire(False)
    with Holder.of_class:
        assert not holder.of_class.acquire(False)
    queue.put(1)
    print(queue.get(), holder.condition.wait_for(lambda: True))
    """,
        before="""
        import logging, queue, threading, types
        module_lock = threading.Lock()
        module_rlock = threading.RLock()
        shared = threading.Lock()
        twice = types.SimpleNamespace(lock=module_lock)
        class Holder:
            of_class = threading.Lock()
            def __init__(self):
                self.lock = threading.Lock()
                self.condition = threading.Condition(self.lock)
                self.rlock = threading.RLock()
        holder = Holder()
        other = types.ModuleType("other")
        other.lock = shared
        handler = logging.StreamHandler()
        by_key = {"lock": threading.Lock()}
        queue = queue.Queue()
        """,
    )
    assert out == "1 True\n"


def test_rlocks_say_that_they_are_the_threads():
    # trio's loop asserts it before it runs anything.
    run_patched("""
        import _thread, pickle, threading
        assert type(threading.RLock()) is threading.RLock is _thread.RLock
        assert (threading.RLock.__module__, threading.RLock.__qualname__) == ("_thread", "RLock")
        assert pickle.loads(pickle.dumps(threading.RLock)) is threading.RLock
        """)
    python("from weald.lock import RLock; assert RLock.__module__ == 'weald._core.sync'")


def test_locks_that_are_defaults_of_functions():
    out = run_patched(
        """
        import weald.lock
        Lock, RLock = weald.lock.Lock, weald.lock.RLock
        print(type(f.__defaults__[0]) is RLock, f.__defaults__[1] is lock, type(lock) is Lock, f.__defaults__[2])
        print(f.__defaults__ is g.__defaults__, type(h.__defaults__[0]) is Lock, h.__defaults__ is kept)
        print(type(threading._active_limbo_lock) is RLock)  # a default, too, from 3.14 on
        """,
        before="""
        import threading, types
        lock = threading.Lock()
        def f(first=threading.RLock(), second=lock, third=3): ...
        g = types.FunctionType(f.__code__, {}, "g", f.__defaults__)
        def h(x=threading.Lock()): ...
        kept = h.__defaults__
        """,
    )
    assert out.splitlines() == ["True True True 3", "True False True", "True"]


def test_a_lock_that_cannot_be_replaced_everywhere_is_replaced_nowhere():
    out = run_patched(
        """
        del keep
        for mine, theirs in ((in_tuple, pair[0]), (in_closure, closure()), (held, held_too)):
            print(mine is theirs, type(mine).__module__)
        held.release()
        """,
        before="""
        import threading
        in_tuple, in_closure, held = threading.Lock(), threading.Lock(), threading.Lock()
        pair = (in_tuple,)
        def keep(lock=in_closure):
            return lambda: lock
        closure = keep()
        held_too = held
        held.acquire()
        """,
    )
    assert out.splitlines() == ["True _thread"] * 3


def test_a_native_thread_from_before_and_greenlets_share_a_lock():
    out = run_patched(
        HOLD
        + """
    asked.set()  # a native event's lock, replaced under the waiting thread's feet
    for _ in range(200):
        with lock:
            value = shared["count"]
            time.sleep(0)
            shared["count"] = value + 1
    while not done:
        time.sleep(0.001)
    print(shared["count"])
    """,
        before="""
        import threading
        lock, asked, shared, done = threading.Lock(), threading.Event(), {"count": 0}, []
        def work():
            asked.wait()
            for _ in range(200):
                with lock:
                    shared["count"] += 1
            done.append(True)
        threading.Thread(target=work).start()
        """,
    )
    assert out == "400\n"


def test_greenlets_log_through_a_handler_made_before():
    out = run_patched(
        """
        import weald
        class Slow:
            def write(self, text):
                weald.sleep(0.001)
                lines.append(text)
            def flush(self):
                pass
        lines = []
        handler.setStream(Slow())
        log = logging.getLogger()
        weald.joinall([weald.spawn(log.warning, "line %d", n) for n in range(20)], raise_error=True)
        print(lines == [f"line {n}\\n" for n in range(20)])
        """,
        before="import logging\nhandler = logging.StreamHandler()\nlogging.getLogger().addHandler(handler)",
    )
    assert out == "True\n"


def test_a_lock_taken_by_a_finalizer_at_exit():
    """As logging does for a handler that lives as long as its module."""
    run_patched(
        """
        import threading
        class Finalized:
            def __init__(self):
                self.lock = threading.RLock()
            def __del__(self):
                with self.lock:
                    pass
        keep = Finalized()
        """
    )


# ---------------------------------------------------------------- programs of other styles


def test_asyncio_runs_patched():
    out = run_patched(
        """
        import asyncio, socket, weald
        ticks = []
        def tick():
            while True:
                ticks.append(1)
                weald.sleep(0.01)
        ticker = weald.spawn(tick)

        async def main():
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"question")
            print(await reader.read())
            writer.close()
            loop = asyncio.get_running_loop()
            print(await loop.run_in_executor(None, sum, (1, 2)))
            print((await loop.getaddrinfo("127.0.0.1", 80))[0][4])
            print(await asyncio.to_thread(max, 1, 2))
            before = len(ticks)
            while len(ticks) - before < 3:
                await asyncio.sleep(0.01)
            server.close()

        async def serve(reader, writer):
            writer.write((await reader.read(100)).upper())
            writer.close()

        asyncio.run(main())
        ticker.kill()
        """
    )
    assert out.splitlines() == ["b'QUESTION'", "3", "('127.0.0.1', 80)", "2"]


# The child waits for others of the parent.
SUBPROCESS = """
    import os, subprocess, sys, time, weald
    r, w = os.pipe()
    def others():
        for _ in range(5):
            weald.sleep(0.001)
        ran.append(1)
        os.write(w, b"x")
    ran = []
    weald.spawn(others)
    def command(code):
        return [sys.executable, "-S", "-c", f"import os, sys, time; os.read({r}, 1); " + code]
"""


@pytest.mark.parametrize(
    "call",
    [
        "subprocess.run(command(''), pass_fds=[r])",
        "subprocess.run(command(''), timeout=100, pass_fds=[r])",
        "subprocess.run(command('print(1)'), capture_output=True, timeout=100, pass_fds=[r])",
        "subprocess.run(command('print(1)'), capture_output=True, pass_fds=[r])",
        "subprocess.Popen(command(''), pass_fds=[r]).wait()",
        "subprocess.Popen(command(''), pass_fds=[r]).wait(100)",
        "subprocess.Popen(command('sys.stdout.write(sys.stdin.read())'), pass_fds=[r],"
        " stdin=-1, stdout=-1, stderr=-1).communicate(b'x', 100)",
    ],
)
def test_others_run_while_a_child_process_does(call):
    run_patched(SUBPROCESS + f"    {call}\n    assert ran")


def test_a_child_process_that_takes_too_long():
    run_patched(
        """
        import os, subprocess, sys, time, weald
        def tick():
            while True:
                ticks.append(1)
                weald.sleep(0.01)
        ticks = []
        weald.spawn(tick)
        endless = [sys.executable, "-S", "-c", "import os, sys; os.close(1); os.close(2); sys.stdin.read()"]
        stdin, end = os.pipe()
        for call in (subprocess.run, lambda c, timeout, **pipes: subprocess.Popen(c, **pipes).wait(timeout)):
            before = len(ticks)
            begin = time.monotonic()
            try:
                call(endless, timeout=0.3, stdin=stdin)
            except subprocess.TimeoutExpired:
                assert time.monotonic() - begin >= 0.3 and len(ticks) > before
            else:
                raise AssertionError("no TimeoutExpired")
        """
    )


# ---------------------------------------------------------------- asking


def test_what_is_patched_can_be_asked():
    out = run_patched(
        """
        m = weald.monkey
        print(m.is_module_patched("time"), m.is_object_patched("time", "sleep"), m.is_object_patched("time", "time"))
        print(m.get_original("time", "sleep") is native["sleep"], m.get_original("os", ["getpid"]) == [os.getpid])
        print(m.is_module_patched("json"))
        """,
        before="import os, time\nnative = {'sleep': time.sleep}",
    )
    assert out.splitlines() == ["True True False", "True True", "False"]


def test_the_modules_in_c_keep_their_originals():
    """weald needs them: its resolver and its thread pool call them in native threads."""
    out = run_patched(
        """
        import _queue, _signal, _socket, os, posix, queue, signal, socket
        for c, name in ((_socket, "gethostbyname"), (_socket, "socketpair"), (posix, "waitpid"),
                        (_queue, "SimpleQueue"), (_signal, "signal")):
            print(type(getattr(c, name)).__name__, getattr(c, name) is weald.monkey.get_original(c.__name__, name))
        print(socket.gethostbyname("localhost"))
        print(socket.gethostbyname_ex("localhost") == _socket.gethostbyname_ex("localhost"))
        print(queue.SimpleQueue is not _queue.SimpleQueue, os.waitpid is not posix.waitpid)
        """
    )
    builtin = "builtin_function_or_method True"
    assert out.splitlines() == [builtin] * 3 + ["type True", builtin, "127.0.0.1", "True", "True True"]


def test_patching_twice_changes_nothing():
    out = run_patched(
        """
        import socket, threading, weald.socket
        before = {name: dict(items) for name, items in weald.monkey.saved.items()}
        weald.monkey.patch_all()
        for name, items in before.items():
            assert weald.monkey.saved[name] == items, name
        thread = threading.Thread(target=print, args=("fine",))
        thread.start()
        thread.join()
        assert type(socket.socket()) is weald.socket.socket
        """,
        stderr=None,
    )
    assert out == "fine\n"


def test_parts_can_be_left_out():
    out = run_patched(
        """
        import signal, socket, threading, time, weald.resolver
        print(weald.monkey.is_module_patched("time"), weald.monkey.is_module_patched("threading"))
        print(socket.getaddrinfo is weald.socket.getaddrinfo, socket.socket is weald.socket.socket)
        """,
        patch="time=False, thread=False, dns=False",
    )
    assert out.splitlines() == ["False False", "False True"]


# ---------------------------------------------------------------- python -m weald.monkey


def weald_monkey(*arguments):
    command = [sys.executable, "-m", "weald.monkey", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_script_runs_patched(tmp_path):
    (tmp_path / "beside.py").write_text("NAME = 'beside'\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time, weald.time, weald.monkey, beside\n"
        "print(__name__, __file__ == sys.argv[0], sys.argv[1:], beside.NAME, '__main__' in sys.modules)\n"
        "print(time.sleep is weald.time.sleep, weald.monkey.is_module_patched('signal'))\n"
        "import threading\n"
        "threading.Thread(target=lambda: (time.sleep(0.01), print('late'))).start()\n"
        "class Pickled: pass\n"
        "import pickle\n"
        "pickle.loads(pickle.dumps(Pickled()))\n"
    )
    done = weald_monkey("--no-signal", str(script), "a", "--b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["__main__ True ['a', '--b'] beside True", "True False", "late"]


def test_a_module_runs_patched():
    done = weald_monkey("-m", "json.tool", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage" in done.stdout


@pytest.mark.parametrize("program", [["nothing.py"], ["-m", "nothing"], ["-m", "json.nothing"], ["."], ["-m", "email"]])
@pytest.mark.parametrize("options", [[], ["--doctor"]])
def test_a_program_that_is_not_there(tmp_path, monkeypatch, program, options):
    monkeypatch.chdir(tmp_path)
    done = weald_monkey(*options, *program)
    assert done.returncode == 1
    assert re.fullmatch(f"cannot run {re.escape(program[-1])}: .+\n", done.stderr), done.stderr


def test_a_program_that_misses_something_shows_where(tmp_path):
    script = tmp_path / "script.py"
    for line in ("import nothing", "raise ImportError('No module named x')", "open('nothing')"):
        script.write_text(line)
        assert f"    {line}\n" in weald_monkey(str(script)).stderr


def test_the_programs_exit_status_counts(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys; sys.exit(7)")
    assert weald_monkey(str(script)).returncode == 7
    script.write_text("1/0")
    done = weald_monkey(str(script))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("-m",), ("--no-time",)])
def test_no_program_is_an_error(arguments):
    done = weald_monkey(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("usage: python -m weald.monkey")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_its_help_is_no_error(option):
    done = weald_monkey(option)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m weald.monkey") and "parts are: socket, dns, time," in done.stdout


def test_an_unknown_option_is_an_error():
    done = weald_monkey("--nonesuch", "x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unknown option --nonesuch; parts are: socket, dns, time," in done.stderr


def test_nothing_is_patched_by_an_import():
    python(
        """
        import select, socket, threading, time
        before = [dict(vars(module)) for module in (select, socket, threading, time)]
        import weald, weald.monkey, weald.select, weald.server, weald.signal, weald.socket, weald.ssl
        import weald.thread, weald.threading, weald.threadpool, weald.time
        for module, names in zip((select, socket, threading, time), before):
            for name, value in names.items():
                assert name.startswith("__") or getattr(module, name) is value, (module, name)
        """
    )


def test_a_module_imported_afresh_is_patched_again():
    out = run_patched(
        """
        import importlib, sys, time, weald.queue, weald.time
        importlib.reload(time)
        print(time.sleep is weald.time.sleep)
        for name in ("queue", "_queue", "selectors"):
            sys.modules.pop(name, None)
        import queue, selectors, weald.selectors
        print(queue.SimpleQueue is weald.queue.SimpleQueue, queue.Empty is weald.queue.Empty)
        print(selectors.DefaultSelector is weald.selectors.DefaultSelector)
        print(type(selectors.__loader__).__module__, selectors.__spec__.loader is selectors.__loader__)
        """
    )
    assert out.splitlines() == ["True", "True True", "True", "_frozen_importlib_external True"]


def test_a_coroutine_that_blocks_stops_its_own_loop_only():
    out = run_patched(
        """
        import asyncio, threading

        blocks, go = threading.Event(), threading.Event()

        async def first():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            loops.append((loop, task))
            for _ in range(3):
                await asyncio.sleep(0)
            blocks.set()
            assert go.wait(100)
            assert asyncio.Future().get_loop() is loop and asyncio.current_task() is task
            await asyncio.sleep(0)
            assert asyncio.current_task() is task
            print("first")

        async def second():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert blocks.wait(100)
            for _ in range(3):
                await asyncio.sleep(0)
                assert asyncio.Future().get_loop() is loop and asyncio.current_task() is task
            their_loop, their_task = loops[0]
            assert asyncio.current_task(their_loop) is their_task and their_loop is not loop
            print("second")
            go.set()

        loops = []
        threads = [threading.Thread(target=asyncio.run, args=(main(),)) for main in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        """
    )
    assert out == "second\nfirst\n"


def test_a_signal_handler_that_parks_in_a_coroutine():
    """The coroutine goes on meanwhile, as the same task of the same loop."""
    out = run_patched(
        """
        import asyncio, signal, threading

        go, done = threading.Event(), threading.Event()

        def handler(signum, frame):
            go.wait(100)
            print("handled")
            done.set()

        async def main():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            signal.raise_signal(signal.SIGUSR1)
            assert asyncio.Future().get_loop() is loop and asyncio.current_task() is task
            await asyncio.sleep(0)
            print("goes on")
            go.set()
            done.wait(100)
            assert asyncio.Future().get_loop() is loop and asyncio.current_task() is task

        signal.signal(signal.SIGUSR1, handler)
        asyncio.run(main())
        """
    )
    assert out == "goes on\nhandled\n"


def test_a_coroutine_that_patches():
    out = python(
        """
        import asyncio, weald.monkey
        async def main():
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            weald.monkey.patch_all()
            from time import sleep
            sleep(0.001)
            await asyncio.sleep(0.001)
            assert asyncio.get_running_loop() is loop and asyncio.current_task() is task
            print(asyncio.Future().get_loop() is loop)
        asyncio.run(main())
        asyncio.run(asyncio.sleep(0))
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            print(error)
        """
    )
    assert out == "True\nno running event loop\n"


def test_asyncio_loops_in_threads():
    """Each greenlet has its own running loop, also while another's coroutine blocks."""
    out = run_patched(
        """
        import asyncio, threading, time

        async def outer(n):
            task = asyncio.current_task()
            for _ in range(3):
                await asyncio.sleep(0.001)
                future = asyncio.Future()
                asyncio.get_running_loop().call_soon(future.set_result, n)
                assert await future == n
            assert await asyncio.to_thread(lambda: asyncio.run(inner(n))) == n
            thread = threading.Thread(target=lambda: found.append(asyncio.run(inner(n))))
            thread.start()
            thread.join()
            assert asyncio.current_task() is task
            return n

        async def inner(n):
            async with asyncio.timeout(100):
                await asyncio.sleep(0.001)
            return n

        found, results = [], []
        threads = [threading.Thread(target=lambda n=n: results.append(asyncio.run(outer(n)))) for n in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(sorted(results), sorted(found))
        try:
            asyncio.get_running_loop()
        except RuntimeError as error:
            print(error)
        """
    )
    assert out.splitlines() == ["[0, 1, 2, 3, 4] [0, 1, 2, 3, 4]", "no running event loop"]


def test_a_lock_with_fork_handlers_made_before():
    out = run_patched(
        """
        import concurrent.futures.thread, os, weald, weald.lock, weald.os
        lock = concurrent.futures.thread._global_shutdown_lock
        print(type(lock) is weald.lock.Lock)
        weald.spawn_later(0.01, lock.release)
        lock.acquire()
        pid = os.fork()  # waits for the lock, holds it
        if not pid:
            os._exit(lock.locked())
        print(weald.os.waitpid(pid, 0)[1], lock.locked())
        """,
        before="import concurrent.futures.thread",
    )
    assert out.splitlines() == ["True", "0 False"]


def test_attributes_of_classes_and_defaults_of_functions_made_before():
    out = run_patched(
        """
        import weald.threading, weald.time
        print(f.__defaults__[0] is g.__kwdefaults__["pause"] is weald.time.sleep, f.__defaults__[1:])
        print(C().pause is weald.time.sleep, C.events is weald.threading.Event, C.other)
        print(weald.monkey.get_original("time", "sleep") is kept[0])
        """,
        before="""
        import threading, time
        def f(x, pause=time.sleep, y=1): ...
        def g(*, pause=time.sleep): ...
        class C:
            pause = time.sleep
            events = threading.Event
            other = 2
        kept = [time.sleep]
        """,
    )
    assert out.splitlines() == ["True (1,)", "True True 2", "True"]


def test_a_running_loop_stays_behind_in_a_fork():
    out = run_patched(
        """
        import asyncio, os
        async def main():
            pid = os.fork()
            if not pid:
                os._exit(asyncio.run(asyncio.sleep(0, 7)))
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(asyncio.run(main()))
        """,
        stderr=None,
    )
    assert out == "7\n"


def test_asynchronous_generators_of_loops_in_two_threads():
    """Their hooks belong to a thread: a loop that ends must not end another's generators, nor leave its hooks."""
    out = run_patched(
        """
        import asyncio, gc, sys, threading
        ended = []
        async def rows(count, tag=None):
            try:
                for row in range(count):
                    yield row
            finally:
                ended.append((tag, asyncio.get_running_loop()))
        async def read(tag, turns, before):
            got, own = [], asyncio.get_running_loop()
            own.set_debug(tag == "a")
            own.slow_callback_duration = 1000  # seconds: no reports on a slow machine
            for _ in range(before):
                await asyncio.sleep(0.01)
            async for row in rows(turns):
                got.append(row)
                await asyncio.sleep(0.02)
            async for row in rows(5, tag):
                break  # left to the loop's hook, or to its end
            gc.collect()
            await asyncio.sleep(0)
            results[tag] = got
            loops[tag] = own
        results, loops = {}, {}
        threads = [threading.Thread(target=lambda args=args: asyncio.run(read(*args)))
                   for args in (("a", 8, 3), ("b", 2, 0), ("c", 5, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(sorted(results.items()))
        print(all(loop is loops[tag] for tag, loop in ended if tag), len([tag for tag, _ in ended if tag]))
        print(tuple(sys.get_asyncgen_hooks()), sys.get_coroutine_origin_tracking_depth())
        """
    )
    rows = [(tag, list(range(count))) for tag, count in (("a", 8), ("b", 2), ("c", 5))]
    assert out == f"{rows}\nTrue 3\n(None, None) 0\n"


@pytest.mark.parametrize("hub", ["with", "without"])
def test_what_runs_while_the_interpreter_ends_waits_as_ever(hub):
    """Handlers registered before weald's own; finalizers that run when greenlets cannot switch any more."""
    code = """
        import select, socket, threading, queue, os
        class Late:
            def __del__(self):
                for call in (
                    lambda: time.sleep(0.001),
                    lambda: threading.Event().wait(0.001),
                    lambda: self.queue.put(1) or self.queue.get(),
                    lambda: select.select([self.one], [], [], 0.001),
                    lambda: os.read(self.pipe, 1),
                    lambda: self.one.close(),
                    lambda: logging.getLogger("late").warning("late"),
                ):
                    call()
                print("late ends")
        late = Late()
        late.one, late.other = socket.socketpair()
        late.pipe, end = os.pipe()
        late.queue = queue.Queue()
        os.write(end, b"x")
        left = socket.socket(), socket.socketpair()
        weakref.finalize(late.other, lambda: print("finalized", end, time.sleep(0.001)))
        """
    if hub == "with":
        code += "time.sleep(0)\n"
    before = """
        import atexit, logging, time, weakref
        def first():
            time.sleep(0.001)
            print("first ends")
        atexit.register(first)
        logging.basicConfig(level=logging.CRITICAL)
        """
    out = run_patched(code, before=before)
    assert {line.split()[0] for line in out.splitlines()} == {"finalized", "first", "late"}, out


def test_sockets_show_themselves_under_the_standard_librarys_name():
    """Test suites filter warnings by it; a class that a program has derived keeps its own name."""
    out = run_patched(
        """
        import socket, ssl, warnings
        class Derived(socket.socket): pass
        for made in (socket.socket(), ssl.create_default_context().wrap_socket(socket.socket(), server_hostname="x")):
            print(repr(made).partition(" ")[0])
            made.close()
            print(repr(made).partition(" fd=")[0])
        with Derived() as derived: print(repr(derived).partition(" ")[0])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            socket.socket()
        print(str(caught[0].message).partition(" fd=")[0])
        """
    )
    assert out.splitlines() == [
        "<socket.socket", "<socket.socket [closed]", "<ssl.SSLSocket", "<ssl.SSLSocket [closed]", "<__main__.Derived",
        "unclosed <socket.socket",
    ]  # fmt: skip
    code = "import weald.socket; sock = weald.socket.socket(); print(repr(sock)); sock.close()"
    assert python(code).startswith("<weald.socket.socket fd=")


# ---------------------------------------------------------------- builtins stay builtins

BUILTINS = """
import fcntl, os, select, signal, socket, sys, threading, time, _thread
from types import BuiltinFunctionType, ModuleType
before = {
    (module, name): value
    for module in (fcntl, os, select, signal, socket, sys, threading, time, _thread)
    for name, value in vars(module).items()
    if isinstance(value, BuiltinFunctionType)
}
"""
REPLACED = """
replaced = [(module, name) for (module, name), value in before.items() if vars(module)[name] is not value]
assert len(replaced) > 20, replaced
"""


def test_what_replaces_a_builtin_is_no_method_of_a_class():
    """For a class that is made after patching; one made before has been patched."""
    run_patched(
        REPLACED + "assert [where for where in replaced if hasattr(vars(where[0])[where[1]], '__get__')] == []\n"
        "class Lock:\n"
        "    take, pause, ident, wait = fcntl.flock, time.sleep, threading.get_ident, os.waitpid\n"
        "Lock().pause(0)\n"
        "with open('/dev/null') as file:\n"
        "    Lock().take(file, fcntl.LOCK_UN)\n"
        "assert Lock().ident() == threading.get_ident() == threading.current_thread().ident\n"
        "if not (pid := os.fork()):\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(Lock().wait(pid, 0)[1]) == 7\n",
        before=BUILTINS,
    )


def test_what_replaces_a_builtin_can_be_asked_about_and_pickled():
    out = run_patched(
        REPLACED + "import inspect, pickle\n"
        "for module, name in replaced:\n"
        "    if isinstance(vars(module)[name], type):\n"
        "        continue  # poll, locks\n"
        "    value = vars(module)[name]\n"
        "    assert isinstance(value, BuiltinFunctionType) and value.__doc__, name\n"
        "    assert isinstance(value.__self__, ModuleType), name\n"
        "    assert value is pickle.loads(pickle.dumps(value)), name\n"
        "    inspect.signature(value)\n"
        "assert time.sleep is weald.time.sleep and _thread.start_new is _thread.start_new_thread\n"
        "print(time.sleep, inspect.signature(weald.time.sleep), inspect.signature(os.dup2))\n"
        "try:\n"
        "    time.sleep('1')\n"
        "except TypeError as error:\n"
        "    print(error)\n",
        before=BUILTINS,
    )
    assert out.splitlines()[0] == "<built-in function sleep> (seconds, /, ref=True) (fd, fd2, inheritable=True)"
    assert len(out.splitlines()) == 2


def test_what_replaces_a_class_is_found_in_the_module_that_it_names():
    """cloudpickle (loky, joblib, dask) copies classes that it does not find there, and no import is tried."""
    run_patched(
        "import sys\n"
        "found = 0\n"
        "for module, names in monkey.saved.items():\n"
        "    for name in names if module in sys.modules else ():\n"
        "        value = found_at = getattr(sys.modules[module], name, None)\n"
        "        if isinstance(value, type):\n"
        "            found_at = sys.modules[value.__module__]\n"
        "            for part in value.__qualname__.split('.'):\n"
        "                found_at = getattr(found_at, part)\n"
        "            assert found_at is value, (module, name, value)\n"
        "            found += 1\n"
        "assert found > 9, found\n",
        before="import socket, ssl, subprocess, threading, queue, select\nfrom weald import monkey\n",
    )
