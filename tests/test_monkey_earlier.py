"""Things made before patching: registries, dataclasses, objects, classes derived from originals."""

import textwrap

import pytest
from helpers import python


def early(before, after):
    """The output lines of a program that patches between `before` and `after`."""
    return python(
        textwrap.dedent(before)
        + "\nimport weald, weald.monkey\nweald.monkey.patch_all()\n"
        + textwrap.dedent(after)
    ).splitlines()


def test_a_socket_is_sent_through_a_pipe():
    assert early(
        "import multiprocessing.reduction, socket",
        """
        from multiprocessing import Pipe
        a, b = Pipe()
        left, right = socket.socketpair()
        a.send(left)
        got = b.recv()
        right.sendall(b"hello")
        print(got.recv(10), type(got) is socket.socket)
        """,
    ) == ["b'hello' True"]


def test_registries_know_the_new_classes():
    out = early(
        """
        import copyreg, functools, pickle, queue, socket, threading
        LockType = type(threading.Lock())
        for cls in (LockType, threading.Event, threading.local, queue.SimpleQueue):
            copyreg.pickle(cls, lambda found: (str, (type(found).__name__,)))

        @functools.singledispatch
        def kind(found): return "?"
        kind.register(LockType, lambda found: "lock")
        kind.register(threading.Event, lambda found: "event")
        kind.register(queue.SimpleQueue, lambda found: "queue")
        kind.register(socket.socket, lambda found: "socket")

        class Kinds:
            @functools.singledispatchmethod
            def kind(self, found): return "?"
            @kind.register
            def _(self, found: threading.Event): return "event"

        class Pickler(pickle.Pickler):
            dispatch_table = {LockType: lambda found: (str, ("lock",))}
        old = threading.Event()
        """,
        """
        import io
        made = threading.Lock(), threading.Event(), queue.SimpleQueue()
        print([kind(found) for found in made], kind(socket.socket()), kind(old), Kinds().kind(made[1]))
        print([pickle.loads(pickle.dumps(found)) != "" for found in made])
        Pickler(out := io.BytesIO()).dump(made[0])
        print(pickle.loads(out.getvalue()))
        """,
    )
    assert out == ["['lock', 'event', 'queue'] socket event event", "[True, True, True]", "lock"]


def test_dataclasses():
    out = early(
        """
        import dataclasses, threading, time, typing
        @dataclasses.dataclass
        class Data:
            lock: typing.Any = dataclasses.field(default_factory=threading.Lock)
            pause: typing.Any = time.sleep
            ended: threading.Event = None
        @dataclasses.dataclass(slots=True)
        class Derived(Data):
            other: typing.Any = dataclasses.field(default_factory=threading.Event, kw_only=True)
        """,
        """
        fields = {field.name: field for field in dataclasses.fields(Derived)}
        assert type(Data().lock) is type(Derived().lock) is threading.Lock, type(Data().lock)
        assert Data().pause is Data.pause is Derived().pause is fields["pause"].default is time.sleep
        assert type(Derived().other) is fields["other"].default_factory is threading.Event
        assert fields["ended"].type is threading.Event
        assert typing.get_type_hints(Data)["ended"] is threading.Event
        print("all")
        """,
    )
    assert out == ["all"]


def test_what_a_program_keeps_on_purpose_stays():
    out = early(
        """
        import functools, threading, time
        pauses, by_name, both = [time.sleep], {"sleep": time.sleep}, {threading.Event: 1}
        class Holder:
            def __init__(self): self.pause = time.sleep
        holder, partial = Holder(), functools.partial(time.sleep, 0)
        def enclosing():
            pause = time.sleep
            return lambda: pause
        enclosed = enclosing()
        """,
        """
        native = weald.monkey.get_original("time", "sleep")
        found = pauses[0], by_name["sleep"], holder.pause, partial.func, enclosed()
        print(all(one is native for one in found), len(both), threading.Event in both)
        """,
    )
    assert out == ["True 1 False"]


def test_a_class_and_its_methods_that_are_put_back():
    """As pytest-socket does after each test."""
    out = early(
        """
        import socket, ssl
        true_socket, true_connect, true_accept = socket.socket, socket.socket.connect, socket.socket.accept
        tls_read, base_connect = ssl.SSLSocket.read, socket.SocketType.connect
        """,
        """
        socket.socket = true_socket
        socket.socket.connect, socket.socket.accept = true_connect, true_accept
        ssl.SSLSocket.read = tls_read
        import weald.socket, weald.ssl
        print(true_socket is weald.socket.socket, tls_read is weald.ssl.SSLSocket.read)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepting = weald.spawn(listener.accept)
            with socket.create_connection(listener.getsockname(), timeout=100) as sock:
                print(accepting.get()[0].send(b"hello"), sock.recv(5))
        """,
    )
    assert out == ["True True", "5 b'hello'"]


def test_a_function_is_judged_by_where_it_was_defined():
    """Not by the `__module__` that `functools.wraps` has copied."""
    out = early(
        """
        import functools, time, types
        part = types.ModuleType("weald.part")
        part.__dict__.update(functools=functools, time=time)
        exec("@functools.wraps(time.strftime)\\ndef own(native=time.sleep): return native", part.__dict__)
        @functools.wraps(part.own)
        def programs(pause=time.sleep): return pause
        programs.__module__ = "weald.part"
        """,
        """
        native = weald.monkey.get_original("time", "sleep")
        print(part.own.__module__, part.own() is native, programs() is time.sleep)
        """,
    )
    assert out == ["time True True"]


def test_sockets_made_before():
    out = early(
        """
        import socket, threading
        class Derived(socket.socket):
            def recv(self, *args): return b"<" + super().recv(*args) + b">"
        listener = socket.create_server(("127.0.0.1", 0))
        a, b = socket.socketpair()
        late, _peer = socket.socketpair()
        late.settimeout(0.01)
        files = a.makefile("rb")
        def held_by_a_frame():
            held, other = socket.socketpair()
            yield
            other_greenlet = weald.spawn(other.sendall, b"frame")
            yield held.recv(10)
        frame = held_by_a_frame()
        next(frame)
        """,
        """
        def other_first(receive, send):
            greenlet = weald.spawn(receive)
            weald.spawn(send)
            return greenlet.get()
        print(other_first(lambda: a.recv(10), lambda: b.sendall(b"recv")))
        print(other_first(lambda: files.readline(), lambda: b.sendall(b"line\\n")))
        print(next(frame))
        def connect():
            return socket.create_connection(listener.getsockname())
        accepted, _ = other_first(listener.accept, connect)
        print(type(accepted) is socket.socket, a.gettimeout(), a.getblocking(), late.gettimeout())
        try:
            late.recv(1)
        except TimeoutError as error:
            print(error)
        one, two = socket.socketpair()
        derived = Derived(fileno=one.detach())
        print(other_first(lambda: derived.recv(10), lambda: two.sendall(b"derived")))
        big = bytes(4_000_000)
        def drain():
            size = 0
            while size < len(big):
                size += len(b.recv(1 << 20))
            return size
        drained = weald.spawn(drain)
        a.sendall(big)
        print(drained.get() == len(big))
        files.close()
        def receive():
            try:
                a.recv(1)
            except OSError as error:
                return error.errno
        waiting = weald.spawn(receive)
        weald.sleep(0)
        a.close()
        print(waiting.get())
        number = listener.detach()
        import os
        print(os.get_blocking(number), derived.fileno() >= 0)
        """,
    )
    assert out == [
        "b'recv'", "b'line\\n'", "b'frame'", "True None True 0.01", "timed out", "b'<derived>'", "True", "9",
        "True True",
    ]  # fmt: skip


def test_a_derived_class_that_calls_the_saved_one():
    """As PySocks does."""
    out = early(
        """
        import socket
        saved = socket.socket
        class Derived(socket.socket):
            def __init__(self, *args, **kwargs):
                saved.__init__(self, *args, **kwargs)
            def recv(self, *args): return saved.recv(self, *args)
            def send(self, *args): return super().send(*args)
        """,
        """
        listener = socket.create_server(("127.0.0.1", 0))
        with Derived() as sock:
            sock.connect(listener.getsockname())
            peer, _ = listener.accept()
            got = weald.spawn(sock.recv, 10)
            weald.sleep(0)
            peer.send(b"hello")
            print(got.get(), sock.send(b"ab"), peer.recv(2), sock.dup().fileno() > 0)
        """,
    )
    assert out == ["b'hello' 2 b'ab' True"]


def test_a_socket_made_before_and_never_used_stays_as_it_is():
    """Another process may have it, such as a listener that is passed on."""
    out = early(
        "import os, socket\na, b = socket.socketpair(); number = os.dup(a.fileno())",
        "a.close(); print(os.get_blocking(number))\ndel b",
    )
    assert out == ["True"]


@pytest.mark.parametrize("derived", [False, True], ids=["made before", "of a class made before"])
def test_tls_sockets(derived, certificate):
    out = early(
        f"""
        import socket, ssl, threading
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server.load_cert_chain({certificate[0]!r}, {certificate[1]!r})
        client = ssl.create_default_context()
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        class Derived(ssl.SSLSocket):
            pass
        if {derived}:
            server.sslsocket_class = client.sslsocket_class = Derived
        def pair():
            a, b = socket.socketpair()
            made = []
            thread = threading.Thread(target=lambda: made.append(server.wrap_socket(a, server_side=True)))
            thread.start()
            wrapped = client.wrap_socket(b)
            thread.join()
            return made[0], wrapped
        a, b = pair()
        """,
        """
        def talk(a, b):
            reader = weald.spawn(a.recv, 10)
            weald.sleep(0)
            b.sendall(b"hello")
            print(reader.get(), type(a).__name__, a.gettimeout())
            size = 3_000_000
            def drain():
                got = 0
                while got < size:
                    got += len(b.recv(100_000))
                return got
            drained = weald.spawn(drain)
            a.sendall(bytes(size))
            print(drained.get() == size)
            a.settimeout(0.01)
            try:
                a.recv(1)
            except TimeoutError as error:
                print(error)
            a.settimeout(None)
            ends = [weald.spawn(sock.unwrap) for sock in (a, b)]
            print([end.get().fileno() >= 0 for end in ends])
        talk(a, b)
        talk(*pair())
        """,
    )
    first, second = ("Derived", "Derived") if derived else ("SSLSocket", "SSLSocket")
    rest = ["True", "The read operation timed out", "[True, True]"]
    assert out == [f"b'hello' {first} None", *rest, f"b'hello' {second} None", *rest]


def test_thread_locals_and_queues():
    out = early(
        """
        import queue, threading
        data = threading.local()
        data.value = "main"
        class Holder:
            local = threading.local()
            def __init__(self): self.queue = queue.SimpleQueue()
        Holder.local.value = "class"
        holder = Holder()
        holder.queue.put("before")
        class Derived(threading.local):
            number = 0
            def __init__(self, first): self.first = first
        derived = Derived("first")
        derived.number = 7
        """,
        """
        def other():
            data.value = "other"
            derived.number += 1
            weald.sleep(0)
            print(data.value, getattr(Holder.local, "value", None), derived.number, derived.first)
        greenlets = [weald.spawn(other) for _ in range(2)]
        weald.joinall(greenlets, raise_error=True)
        print(data.value, Holder.local.value, derived.number, isinstance(derived, Derived))
        getter = weald.spawn(lambda: [holder.queue.get(), holder.queue.get()])
        weald.sleep(0)
        holder.queue.put("after")
        print(getter.get())
        """,
    )
    assert out == ["other None 1 first", "other None 1 first", "main class 7 True", "['before', 'after']"]


def test_thread_locals_of_a_thread_whose_hub_polls():
    """It has no Python frame then, but values, which another object would not have."""
    out = early(
        """
        import threading
        from weald import joinall, spawn
        from weald.event import Event
        local = threading.local()
        local.value = "main"
        begun, go, done = Event(), Event(), Event()
        got = []
        def work():
            local.value = "other"
            greenlets = [spawn(go.wait, 100) for _ in range(3)]
            begun.set()
            joinall(greenlets)
            got.append(getattr(local, "value", "lost"))
            done.set()
        threading.Thread(target=work).start()
        begun.wait()
        """,
        """
        go.set()
        print(done.wait(100), local.value, got)
        """,
    )
    assert out == ["True main ['other']"]


def test_selectors_and_loops():
    out = early(
        """
        import asyncio, selectors, socket
        found = [selectors.DefaultSelector(), selectors.PollSelector(), selectors.SelectSelector()]
        a, b = socket.socketpair()
        for selector in found:
            selector.register(a, selectors.EVENT_READ, "data")
        loop = asyncio.new_event_loop()
        closed = selectors.EpollSelector()
        closed.close()
        """,
        """
        for selector in found:
            waiting = weald.spawn(selector.select)
            weald.sleep(0)
            b.sendall(b"x")
            print([key.data for key, _ in waiting.get()], a.recv(1), isinstance(selector, selectors.BaseSelector))
            selector.close()
        future = loop.create_future()
        weald.spawn(lambda: loop.call_soon_threadsafe(future.set_result, "done"))
        print(loop.run_until_complete(future))
        loop.close()
        """,
    )
    assert out == ["['data'] b'x' True"] * 3 + ["done"]


def test_children():
    out = early(
        """
        import subprocess
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        other = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        """,
        """
        waiting = weald.spawn(child.wait)
        weald.sleep(0)
        child.stdin.close()
        print(waiting.get(), isinstance(child, subprocess.Popen))
        print(other.communicate(b"text"))
        child.stdout.close()
        """,
    )
    assert out == ["0 True", "(b'text', None)"]


def test_multiprocessings_primitives():
    out = early(
        """
        import multiprocessing
        context = multiprocessing.get_context("fork")
        lock, condition, event, queue = context.Lock(), context.Condition(), context.Event(), context.SimpleQueue()
        """,
        """
        lock.acquire()
        waiting = weald.spawn(lambda: [lock.acquire(), lock.release()])
        weald.sleep(0)
        lock.release()
        print(waiting.get()[0])
        waiting = weald.spawn(event.wait)
        weald.sleep(0)
        event.set()
        print(waiting.get())
        getter = weald.spawn(queue.get)
        weald.sleep(0)
        queue.put("item")
        print(getter.get())
        child = context.Process(target=lambda: [lock.acquire(), lock.release()])
        lock.acquire()
        child.start()
        lock.release()
        child.join()
        print(child.exitcode)
        """,
    )
    assert out == ["True", "True", "item", "0"]


def test_a_loop_that_runs_in_a_native_thread_meanwhile():
    out = early(
        """
        import asyncio, threading
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        async def answer(): return threading.get_native_id() == thread.native_id
        print(asyncio.run_coroutine_threadsafe(answer(), loop).result())
        """,
        """
        async def waits():
            await asyncio.sleep(0.001)
            return await answer()
        print(asyncio.run_coroutine_threadsafe(waits(), loop).result())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        """,
    )
    assert out == ["True", "True"]


def test_a_greenlet_that_a_coroutine_switches_to_runs_in_its_loop():
    out = early(
        "import asyncio, greenlet",
        """
        async def main():
            running = asyncio.get_running_loop()
            return greenlet.greenlet(asyncio.get_running_loop).switch() is running
        print(asyncio.run(main()))
        """,
    )
    assert out == ["True"]
