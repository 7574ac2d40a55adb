"""What gevent's classes have besides weald's own: attributes and arguments, and that they do what gevent's do.

Each case in an interpreter of its own: weald's classes get these once gevent is imported.
"""

import pytest
from helpers import python

PRELUDE = "import weald; weald.install_as_gevent()\nimport gevent\n"


def gevent(code: str, stderr: str | None = "") -> str:
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
    """, stderr=None)


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
        gevent.sleep(0.01)
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
