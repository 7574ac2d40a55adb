"""Attributes and arguments that only gevent's classes have: they behave as gevent's do.

Each case in an interpreter of its own: weald's classes get these once gevent is imported.
"""

import pytest
from helpers import python

PRELUDE = "import weald; weald.install_as_gevent()\nimport gevent\n"


def gevent(code, stderr=""):
    return python(PRELUDE + code, stderr=stderr)


def test_programs_that_do_not_say_gevent_have_none_of_it():
    code = """
        import weald.socket, weald.fileobject, weald.subprocess, weald.exceptions
        for cls, name in [(weald.socket.socket, "hub"), (weald.fileobject.FileObject, "io"),
                          (weald.subprocess.Popen, "pipe_cloexec"), (weald.exceptions.LoopExit, "hub")]:
            assert not hasattr(cls, name), name
        """
    python(code)


# -------------------------------------------------------------------- sockets


def test_sockets_tell_their_hub_and_whether_they_are_closed():
    gevent("""if 1:
        from gevent import socket
        a, b = socket.socketpair()
        assert a.hub is gevent.get_hub() and not a.closed
        assert socket.SocketType is socket.socket and isinstance(a, socket.SocketType)
        a.settimeout(howlong=2.5)
        assert a.gettimeout() == 2.5
        a.close()
        assert a.closed and not b.closed
    """)


def test_sockettype_is_patched():
    gevent("""if 1:
        import socket
        before = [socket.SocketType]  # patching looks for it in the globals of modules
        from gevent import monkey
        monkey.patch_all()
        assert socket.SocketType is socket.socket and monkey.get_original("socket", "SocketType") is before[0]
    """)


def test_cancel_wait_takes_a_socket_or_a_watcher():
    gevent("""if 1:
        import errno
        from gevent import socket
        a, b = socket.socketpair()
        reader = gevent.spawn(a.recv, 1)
        gevent.sleep(0)
        socket.cancel_wait(a)
        reader.join()
        assert reader.exception.errno == errno.EBADF and not a.closed
        b.sendall(b"x")
        assert a.recv(1) == b"x"

        watcher = gevent.get_hub().loop.io(a.fileno(), 1)
        for error in (None, ZeroDivisionError("mine")):
            waiting = gevent.spawn(gevent.get_hub().wait, watcher)
            gevent.sleep(0)
            socket.cancel_wait(watcher, *([] if error is None else [error]))
            waiting.join()
            assert waiting.exception is error or waiting.exception.errno == errno.EBADF
            assert error is not None or type(waiting.exception) is socket.cancel_wait_ex

        waiting = gevent.spawn(gevent.get_hub().wait, watcher)
        gevent.sleep(0)
        gevent.get_hub().cancel_wait(watcher, socket.cancel_wait_ex)  # an exception's class, which `except` takes
        try:
            waiting.get()
        except socket.cancel_wait_ex as error:
            assert error.errno == errno.EBADF
    """, stderr=None)


def test_send_takes_a_timeout_of_its_own():
    gevent("""if 1:
        import errno
        from gevent import socket
        a, b = socket.socketpair()
        a.settimeout(0.0)
        while True:
            try:
                a.send(b"x" * 65536)
            except BlockingIOError:
                break
        for seconds, error in ((0.0, BlockingIOError), (0.01, TimeoutError)):
            try:
                a.send(b"x", timeout=seconds)
            except error:
                pass
            else:
                raise AssertionError
        sender = gevent.spawn(a.send, b"last", timeout=None)
        gevent.sleep(0)
        assert not sender.dead
        received = b""
        while not received.endswith(b"last"):
            received += b.recv(1 << 20)
        assert sender.get() == 4
        a.close()
        try:
            a.send(b"x", timeout=100)
        except OSError as error:
            assert error.errno == errno.EBADF
    """)


def test_waits_take_a_descriptor_by_name():
    gevent("""if 1:
        from gevent import socket
        a, b = socket.socketpair()
        socket.wait_write(fileno=a.fileno(), timeout=100)
        socket.wait_readwrite(fileno=a.fileno(), timeout=100)
        try:
            socket.wait_read(fileno=a.fileno(), timeout=0.001, timeout_exc=ZeroDivisionError)
        except ZeroDivisionError:
            pass
    """)


def test_a_socket_without_ref_keeps_nobody_waiting():
    gevent("""if 1:
        from gevent import socket
        a, b = socket.socketpair()
        assert a.ref is True
        a.ref = False
        reader = gevent.spawn(a.recv, 1)
        assert gevent.wait() is True and not reader.dead
        b.send(b"x")
        assert reader.get(timeout=100) == b"x"
        a.ref = True
        reader = gevent.spawn(a.recv, 1)
        assert gevent.wait(timeout=0.01) is False
        reader.kill()
        a.ref = False
        try:
            a.recv(1)
        except gevent.exceptions.LoopExit:
            print("nobody could send")
    """)


def test_ssl_sockets_have_a_constructor(certificate):
    code = """if 1:
        import ssl as stdlib
        from gevent import socket, ssl
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(CERT, KEY)
        client = stdlib.create_default_context(cafile=CERT)

        def both(here, there):
            made = gevent.spawn(here), gevent.spawn(there)
            gevent.joinall(made, raise_error=True)
            return [one.get() for one in made]

        a, b = socket.socketpair()
        number = a.fileno()
        mine, peer = both(
            lambda: ssl.SSLSocket(a, server_side=True, _context=server),
            lambda: ssl.SSLSocket(sock=b, server_hostname="localhost", _context=client),
        )
        assert type(mine) is type(peer) is ssl.SSLSocket and a.fileno() == b.fileno() == -1
        assert mine.fileno() == number and mine.context is server and peer.server_hostname == "localhost"
        mine.sendall(b"hello")
        assert peer.recv(5) == b"hello" and peer.getpeercert()

        a, b = socket.socketpair()
        mine, peer = both(
            lambda: ssl.SSLSocket(a, KEY, CERT, True),
            lambda: ssl.SSLSocket(b, ca_certs=CERT, cert_reqs=ssl.CERT_REQUIRED),
        )
        peer.sendall(b"hello")
        assert mine.recv(5) == b"hello"

        class Own(ssl.SSLSocket):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                self.mine = True

        a, b = socket.socketpair()
        own = Own(a, _context=client, server_hostname="localhost", do_handshake_on_connect=False)
        assert own.mine and type(own) is Own and own.recv
        for sock, options in (b, {"server_side": True}), (b, {"keyfile": KEY}):
            try:
                ssl.SSLSocket(sock, **options)
            except ValueError as error:
                assert "certfile must be specified" in str(error)
        assert b.fileno() >= 0
    """
    gevent(f"CERT, KEY = {certificate.cert!r}, {certificate.key!r}\n{code}")
    with pytest.raises(AssertionError, match="no public constructor"):
        python("from weald import socket, ssl; ssl.SSLSocket(socket.socket())")


def test_ssl_sockets_send_with_a_timeout(certificate):
    gevent(f"""if 1:
        from gevent import socket, ssl
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain({str(certificate.cert)!r}, {str(certificate.key)!r})
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        a, b = socket.socketpair()
        serving = gevent.spawn(server.wrap_socket, b, server_side=True)
        a = client.wrap_socket(a)
        b = serving.get()
        assert a.hub is gevent.get_hub() and a.ref is True and not a.closed
        assert a.send(b"hello", timeout=100) == 5 and b.read(10) == b"hello"
        try:
            while True:
                a.send(b"x" * 65536, timeout=0.01)
        except TimeoutError as error:
            assert "write" in str(error)
    """)


# ---------------------------------------------------------------- processes


@pytest.mark.parametrize("ignore", ["signal.signal(signal.SIGCHLD, signal.SIG_IGN)", "inherited"])
def test_children_end_as_they_do_though_sigchld_was_ignored(ignore):
    """The system then forgets how they ended.  gevent stops ignoring it once a program starts a child."""
    program = PRELUDE + """if 1:
        import signal
        from gevent import subprocess
        INHERITED
        assert subprocess.Popen(["sh", "-c", "exit 3"]).wait() == 3
        assert subprocess.call(["sh", "-c", "exit 4"]) == 4
    """
    if ignore == "inherited":
        program = program.replace("INHERITED", "assert signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN")
        python(f"""if 1:
            import signal, subprocess, sys
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            command = [sys.executable, "-c", {program!r}]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            said = child.stdout.read()  # its status is forgotten
            assert said == b"", said
        """)
    else:
        python(program.replace("INHERITED", ignore))


# -------------------------------------------------------------------- files


def test_fileobject_is_a_class_of_them_all():
    gevent("""if 1:
        import io, os
        from gevent.fileobject import FileObject, FileObjectBlock, FileObjectPosix, FileObjectThread
        assert FileObject.default_bufsize == io.DEFAULT_BUFFER_SIZE
        r, w = os.pipe()
        with FileObject(r, "rb") as reader, FileObject(w, "wb", bufsize=0) as writer:
            assert type(reader) is FileObjectPosix and isinstance(reader, FileObject)
            writer.write(b"one\\ntwo\\n")
            assert reader.next() == b"one\\n" and next(reader) == b"two\\n"
            assert isinstance(reader.io, io.BufferedReader) and not reader.closed
        assert reader.closed and writer.closed
        with FileObject(__import__("sys").executable, "rb") as file:
            assert type(file) is FileObjectThread and isinstance(file, FileObject) and file.read(4) == b"\\x7fELF"
        assert file.closed
        assert issubclass(FileObjectBlock, FileObject)
    """)


def test_a_file_takes_an_argument_by_one_name():
    gevent("""if 1:
        import os
        from gevent.fileobject import FileObjectPosix
        r, w = os.pipe()
        try:
            FileObjectPosix(r, "rb", bufsize=1, buffering=2)
        except TypeError as error:
            assert "bufsize" in str(error)
        else:
            raise AssertionError
    """)


@pytest.mark.parametrize("kind", ["FileObject", "FileObjectBlock", "FileObjectPosix", "FileObjectThread"])
def test_a_files_arguments_of_old_programs(kind, tmp_path):
    """None for the default, and the mode U, which `open` took up to Python 3.10."""
    (tmp_path / "file").write_bytes(b"one\r\ntwo\r")
    gevent(f"""if 1:
        import os
        from gevent.fileobject import {kind} as Kind
        path = {str(tmp_path / "file")!r}
        def file(*args, **kwargs):
            return Kind(os.open(path, os.O_RDONLY), *args, **kwargs)
        for mode in ("r", "U", "rU", "Ur", "rtU"):
            with file(mode) as one, file(mode=mode) as other:
                assert one.read() == other.read() == "one\\ntwo\\n"
        with file("rbU") as one:
            assert one.read() == b"one\\r\\ntwo\\r"
        names = dict(buffering=None, closefd=None), dict(bufsize=None, close=None)
        for args, kwargs in (("rb", None), {{}}), (("rb", None, None), {{}}), *((("rb",), each) for each in names):
            with file(*args, **kwargs) as one:
                assert one.read(3) == b"one"
        for mode in ("wU", "U+", "xU"):
            try:
                file(mode)
            except ValueError:
                continue
            raise AssertionError(mode)
        try:
            Kind()
        except TypeError as error:
            assert "fobj" in str(error)
        else:
            raise AssertionError
    """)


@pytest.mark.parametrize("kind", ["FileObject", "FileObjectBlock", "FileObjectThread"])
def test_a_file_object_is_wrapped_in_the_mode_that_is_asked_for(kind, tmp_path):
    (tmp_path / "file").write_text("h\u00e9\r\ntwo\n", encoding="utf-8", newline="")
    gevent(f"""if 1:
        import gc, tempfile
        from gevent.fileobject import {kind} as Kind, FileObjectThread
        path = {str(tmp_path / "file")!r}
        for buffering in (-1, 0):  # a buffered file, a raw one
            with Kind(open(path, "rb", buffering), encoding="utf-8") as file:
                assert file.read() == "h\u00e9\\ntwo\\n" and file.name == path
            with Kind(open(path, "rb", buffering), "r", encoding="latin-1", newline="") as file:
                assert file.readline() == "h\u00c3\u00a9\\r\\n"
            with Kind(open(path, "rb", buffering), "rb") as file:
                assert file.readline() == b"h\\xc3\\xa9\\r\\n"
        with Kind(open(path), "r") as file:
            assert file.readline() == "h\u00e9\\n"
        with Kind(open(path, "wb"), "w", encoding="utf-8") as file:
            file.write("\u00e9")
        assert open(path, "rb").read() == b"\\xc3\\xa9"
        text = open(path)
        if Kind is not FileObjectThread.__base__:
            try:
                Kind(text, "rb")
            except ValueError:
                pass
            else:
                raise AssertionError
        else:  # by its descriptor
            file = Kind(text, "rb")
            del text
            gc.collect()
            assert file.read() == b"\\xc3\\xa9"
            file.close()
        kept = open(path, "rb")
        file = Kind(kept, closefd=False)
        assert file.read() == "\u00e9"
        file.close()
        del file
        gc.collect()
        assert not kept.closed
        kept.close()
        try:
            Kind(open(path, "rb"), "rb", encoding="utf-8")
        except ValueError as error:
            assert "encoding" in str(error)
        else:
            raise AssertionError
        with tempfile.TemporaryFile() as spare:
            file = Kind(spare, "w+")
            file.write("x")
            file.seek(0)
            assert file.read() == "x"
    """, stderr=None)


def test_classes_may_derive_from_fileobject():
    gevent("""if 1:
        import os
        from gevent.fileobject import FileObject, FileObjectPosix

        class Lines(FileObject):
            def first(self):
                return self.readline()

        class Longer(Lines):
            pass

        r, w = os.pipe()
        os.write(w, b"hello\\n")
        with Longer(r, "rb") as lines:
            assert isinstance(lines, FileObjectPosix) and lines.first() == b"hello\\n"
        os.close(w)
    """)


# -------------------------------------------------------------------- selectors, children, threads, time


@pytest.mark.parametrize("first", ["weald.install_as_gevent()", "weald.monkey.patch_all()"])
def test_a_child_is_watched_in_a_patched_program(first):
    """Its watcher, too, calls os.waitpid, which is then the one that leaves watched children to their watchers."""
    python(f"import weald.monkey; {first}; weald.install_as_gevent()" + """
if 1:
        import os
        import gevent.os
        from gevent import event, monkey
        monkey.patch_all()

        called = event.AsyncResult()
        pid = gevent.os.fork_and_watch(called.set)
        if not pid:
            os._exit(3)
        assert os.waitstatus_to_exitcode(called.get(timeout=20).rstatus) == 3
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
        """)


def test_a_watched_childs_status_waits_for_waitpid():
    gevent("""if 1:
        import os
        from gevent import event
        from gevent.os import fork_and_watch, forkpty_and_watch, waitpid

        def child(status, **how):
            called = event.AsyncResult()
            pid = fork_and_watch(called.set, **how)
            if not pid:
                os._exit(status)
            return pid, called

        pid, called = child(3)
        watcher = called.get(timeout=100)
        assert (watcher.pid, os.waitstatus_to_exitcode(watcher.rstatus)) == (pid, 3)
        found, status = waitpid(pid, 0)
        assert (found, os.waitstatus_to_exitcode(status)) == (pid, 3)
        try:
            waitpid(pid, 0)
        except ChildProcessError:
            pass
        else:
            raise AssertionError("the status is told once")

        # It waits for one that lives, which counts as something that can wake it, and finds any that has ended.
        go, gone = os.pipe()
        called = event.AsyncResult()
        pid = fork_and_watch(called.set)
        if not pid:
            os.read(go, 1)
            os._exit(4)
        assert waitpid(pid, os.WNOHANG) == (0, 0)
        waiting = gevent.spawn(waitpid, pid, 0)
        gevent.sleep(0)
        os.write(gone, b"x")
        assert os.waitstatus_to_exitcode(waiting.get()[1]) == 4
        first, called = child(5)
        called.get(timeout=100)
        assert waitpid(-1, 0)[0] == first
        pid, called = child(6)
        called.get(timeout=100)
        assert gevent.os.wait()[0] == pid
    """)


def test_selectors_take_a_hub():
    gevent("""if 1:
        from gevent import selectors, socket
        a, b = socket.socketpair()
        hub = gevent.get_hub()
        for made in (selectors.DefaultSelector(), selectors.DefaultSelector(hub), selectors.GeventSelector(hub=hub)):
            with made as selector:
                assert selector.hub is hub and isinstance(selector, selectors.EpollSelector)
                selector.register(a, selectors.EVENT_READ, "a")
                assert selector.select(0) == []
                gevent.spawn(b.send, b"x")
                (key, events), = selector.select()
                assert key.data == "a" and a.recv(1) == b"x"
    """)


def test_popens_returncode_comes_by_itself():
    """Without poll or wait, as from gevent's watcher."""
    gevent("""if 1:
        from gevent.subprocess import PIPE, Popen
        child = Popen(["cat"], stdin=PIPE)
        assert child.returncode is None
        child.stdin.close()
        while child.returncode is None:
            gevent.sleep(0.001)
        assert (child.returncode, child.poll(), child.wait()) == (0, 0, 0)
    """)


def test_popen_takes_no_threadpool_and_makes_pipes():
    gevent("""if 1:
        import os
        from gevent.subprocess import PIPE, Popen
        child = Popen(["cat"], stdin=PIPE, stdout=PIPE, threadpool=None)
        assert child.communicate(b"x") == (b"x", None)
        r, w = child.pipe_cloexec()
        assert not os.get_inheritable(r) and os.write(w, b"y") and os.read(r, 1) == b"y"
        try:
            Popen(["true"], threadpool=gevent.get_hub().threadpool)
        except AssertionError as error:
            print(error)
    """)


def test_a_thread_pool_tells_its_process_and_its_queue():
    gevent("""if 1:
        import os, threading
        from gevent.threadpool import ThreadPool
        pool = ThreadPool(1)
        go = threading.Event()
        first, second = pool.spawn(go.wait), pool.spawn(int)
        assert pool.pid == os.getpid() and pool.manager is None
        assert pool.task_queue.qsize() in (1, 2)  # the first may have begun
        go.set()
        gevent.joinall([first, second])
        assert pool.task_queue.empty()
    """)


def test_a_thread_result_that_is_destroyed_calls_nobody():
    gevent("""if 1:
        from gevent.threadpool import ThreadResult
        calls = []
        results = [ThreadResult(calls.append, gevent.get_hub(), lambda: calls.append("ready")) for _ in range(2)]
        results[0].destroy_in_main_thread()
        for result in results:
            result.set(1)
        while len(calls) < 2:
            gevent.sleep(0.001)
        assert calls == ["ready", results[1]], calls
    """)


def test_a_sleeper_without_ref_keeps_nobody_waiting():
    gevent("""if 1:
        import gevent.time
        sleeper = gevent.spawn(gevent.time.sleep, 1000, ref=False)
        assert gevent.wait() is True
        assert not sleeper.dead
    """)


# -------------------------------------------------------------------- servers, hubs, errors


def test_servers_tell_of_errors_and_tls():
    gevent("""if 1:
        import errno
        from gevent import baseserver, pywsgi, server
        for cls in (baseserver.BaseServer, server.StreamServer, server.DatagramServer, pywsgi.WSGIServer):
            made = cls(("127.0.0.1", 0), lambda *args: None)
            assert made.is_fatal_error(ex=OSError(errno.EBADF, "gone")) and not made.is_fatal_error(ex=OSError(1, "x"))
        assert server.StreamServer.ssl_enabled is False
        assert server.StreamServer(("127.0.0.1", 0), print, certfile="x").ssl_enabled is True
    """)


def test_the_hub_refuses_to_wait_and_loopexit_tells_its_hub():
    gevent("""if 1:
        import gevent.hub
        hub = gevent.get_hub()
        try:
            hub.switch_out()
        except gevent.hub.BlockingSwitchOutError:
            pass
        else:
            raise AssertionError
        assert gevent.hub.Hub.ident_registry is None and hub.ident_registry.get_ident(hub) >= 0
        try:
            gevent.event.Event().wait()
        except gevent.exceptions.LoopExit as error:
            assert error.hub is hub
        assert gevent.exceptions.LoopExit("text", "a hub").hub == "a hub"
    """)


def test_a_hubs_loop_can_be_assigned():
    gevent("""if 1:
        hub = gevent.get_hub()
        own = hub.loop

        class Counting:
            calls = 0

            def __getattr__(self, name):
                self.calls += 1
                return getattr(own, name)

        hub.loop = counting = Counting()
        assert hub.loop is counting
        called = []
        hub.loop.run_callback(called.append, 1)
        gevent.sleep(0.001)
        assert called == [1] and counting.calls == 1
        hub.loop = own
        assert hub.loop is own
    """)


def test_a_hubs_loop_runs_in_its_thread_until_nothing_is_left():
    gevent("""if 1:
        import gevent.core
        loop = gevent.get_hub().loop
        fired = []
        timers = [loop.timer(0.001 * n) for n in (1, 2, 3)]
        for n, timer in enumerate(timers):
            timer.start(fired.append, n)
        loop.run()
        assert fired == [0, 1, 2]
        loop.run()  # nothing is left
        loop.run(nowait=True)
        timers[0].start(fired.append, "once")
        while "once" not in fired:
            loop.run(once=True)
        endless = loop.timer(0.001, 0.001)
        endless.start(lambda: (fired.append("again"), len(fired) > 6 and loop.break_()))
        loop.run()
        assert fired[4:7] == ["again"] * 3
        endless.stop()
        assert (loop.iteration, loop.depth, loop.sigfd, loop.sig_pending) == (-1, -1, -1, False)
    """)


def test_what_can_be_waited_for_counts_who_waits():
    gevent("""if 1:
        import gevent.event, gevent.lock, gevent.queue, gevent.thread
        event, result, semaphore, lock = (
            gevent.event.Event(), gevent.event.AsyncResult(), gevent.lock.Semaphore(0), gevent.thread.allocate_lock())
        lock.acquire()
        hub = gevent.get_hub()
        for thing in (event, result, semaphore, lock):
            assert thing.linkcount() == 0 and thing.hub is hub
            waiting = gevent.spawn(thing.wait)
            gevent.sleep(0)
            assert thing.linkcount() == 1, thing
            thing.rawlink(print)
            assert thing.linkcount() == 2
            thing.unlink(print)
            waiting.kill()
            assert thing.linkcount() == 0
        for kind in (gevent.queue.Queue, gevent.queue.SimpleQueue, gevent.queue.Channel):
            assert kind().hub is hub
    """)


def test_a_lock_can_be_waited_for_like_a_semaphore():
    gevent("""if 1:
        from gevent.thread import LockType, allocate_lock
        assert LockType is allocate_lock
        lock = allocate_lock()
        assert lock.counter == 1 and lock.wait() == 1 and not lock.locked()
        lock.acquire()
        assert lock.counter == 0 and lock.wait(0.001) == 0
        order = []
        waiting = gevent.spawn(lambda: order.append(lock.wait()))
        taking = gevent.spawn(lambda: order.append(lock.acquire()))
        gevent.sleep(0)
        lock.release()
        gevent.joinall([waiting, taking])
        assert order == [1, True] and lock.locked()
        killed = gevent.spawn(lock.wait)
        gevent.sleep(0)
        lock.release()
        killed.kill()
        assert lock.acquire(timeout=100)
    """)


def test_resolvers_that_ask_servers_take_a_family(tmp_path):
    pytest.importorskip("dns")
    pytest.importorskip("pycares")
    hosts = tmp_path / "hosts"
    hosts.write_text("192.0.2.1 both\n2001:db8::1 both alias\n")
    gevent(f"""if 1:
        from socket import AF_INET, AF_INET6, EAI_NONAME, SOCK_STREAM, gaierror
        import gevent.resolver.ares, gevent.resolver.dnspython
        for room in (gevent.resolver.ares, gevent.resolver.dnspython):
            resolver = room.Resolver(hosts={str(hosts)!r})
            assert resolver.gethostbyname("both") == "192.0.2.1"
            assert resolver.gethostbyname("both", family=AF_INET6) == "2001:db8::1"
            assert resolver.gethostbyname_ex("both", family=AF_INET6) == ("both", ["alias"], ["2001:db8::1"])
            assert resolver.gethostbyname_ex("::1", family=AF_INET6) == ("::1", [], ["::1"])
            assert {{info[1] for info in resolver.getaddrinfo("both", 80, socktype=SOCK_STREAM)}} == {{SOCK_STREAM}}
            assert resolver.HOSTNAME_ENCODING == "idna" and resolver.EAI_FAMILY_MSG

            class Mine(room.Resolver):
                @room.Resolver.fixup_gaierror
                def fail(self):
                    raise gaierror(EAI_NONAME)

            try:
                Mine().fail()
            except gaierror as error:
                assert error.args == (EAI_NONAME, resolver.EAI_NONAME_MSG) and error.errno == EAI_NONAME
    """)


@pytest.mark.parametrize(
    "name, same",
    [
        ("threading.main_native_thread()", "__import__('threading').main_thread()"),
        ("threading.LazyOnClass", "_util.LazyOnClass"),
        ("builtins.RLock", "lock.RLock"),
    ],
)
def test_names_that_lie_elsewhere(name, same):
    code = f"import gevent.threading, gevent.builtins, gevent._util, gevent.lock\nassert gevent.{name} is "
    gevent(code + (same if same.startswith("__") else f"gevent.{same}"))


def test_gevents_own_helpers_for_tests_are_found_if_a_program_brings_them():
    gevent("""if 1:
        import sys, types
        from gevent import testing
        import weald.testing
        assert testing is weald.testing and not hasattr(testing, "TestCase")
        sys.modules["gevent.testing"] = brought = types.ModuleType("gevent.testing")
        brought.TestCase = object()
        assert testing.TestCase is brought.TestCase and testing.blocked is weald.testing.blocked
    """)


@pytest.mark.parametrize(
    "wait",
    ["a.recv(1)", "a.recv_into(bytearray(1))", "a.sendall(bytes(1 << 24))", "listener.accept()"],
)
@pytest.mark.parametrize("end", ["close()", "detach()"])
def test_what_a_close_cuts_short_raises_gevents_error(wait, end):
    gevent(
        f"""if 1:
        import gevent, weald, errno
        from gevent import socket
        a, b = socket.socketpair()
        listener = socket.create_server(("127.0.0.1", 0))
        weald.get_hub().exception_stream = None
        waiting = gevent.spawn(lambda: {wait})
        gevent.sleep(0)
        gevent.sleep(0)
        (listener if "listener" in {wait!r} else a).{end}
        waiting.join()
        try:
            waiting.get()
        except socket.cancel_wait_ex as error:
            assert error.errno == errno.EBADF
        else:
            raise AssertionError(waiting)
        try:
            socket.socket(fileno=-1)
        except ValueError:
            pass
    """,
        stderr=None,
    )


# -------------------------------------------------------------------- loops


def test_a_loops_flags_are_checked():
    gevent("""if 1:
        from gevent import core
        for flags in ("epoll", "epoll, nosigmask", ["select", "signalfd"], 0, 4, None, ""):
            core.loop(flags, default=False).destroy()
        for flags in ("nosuch", "epoll,nosuch", ["nosuch"]):
            for default in (None, False):
                try:
                    core.loop(flags, default)
                except ValueError as error:
                    assert "Invalid backend or flag: 'nosuch'" in str(error) and "epoll" in str(error)
                else:
                    raise AssertionError(flags)
    """)


def test_a_destroyed_hub_is_dead_and_has_no_loop():
    gevent("""if 1:
        for used in (False, True):
            hub = gevent.get_hub()
            loop = hub.loop
            if used:
                gevent.sleep(0.001)
            hub.destroy()
            assert hub.dead and hub.loop is None and loop.destroyed, used
            hub.destroy()  # again
            assert gevent.get_hub() is not hub and gevent.get_hub().loop.default
    """)


# -------------------------------------------------------------------- what `import *` brings


def test_all_names_come_with_a_star():
    """Those that gevent's documentation lists, and no `open` of another meaning."""
    gevent("""if 1:
        names = {}
        exec("from gevent import *", names)
        top = "Greenlet GreenletExit Timeout config fork get_hub getcurrent getswitchinterval idle iwait joinall kill "
        top += "killall reinit setswitchinterval signal_handler sleep spawn spawn_later spawn_raw wait with_timeout"
        assert set(top.split()) <= names.keys(), set(top.split()) - names.keys()
        assert "install_as_gevent" not in names
        exec("from gevent.os import *; from gevent.selectors import *", names)
        own = "fork fork_and_watch fork_gevent forkpty forkpty_and_watch forkpty_gevent make_nonblocking nb_read "
        own += "nb_write tp_read tp_write waitpid GeventSelector DefaultSelector"
        assert set(own.split()) <= names.keys(), set(own.split()) - names.keys()
        assert "open" not in names and "listdir" not in names
    """)
