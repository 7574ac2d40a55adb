"""What a program has made before it patches: registries, containers, objects, classes derived from originals."""

import textwrap

import pytest
from helpers import python


def early(before: str, after: str) -> list[str]:
    """The lines that a program prints which patches between `before` and `after`."""
    return python(
        textwrap.dedent(before)
        + "\nimport weald, weald.monkey\nweald.monkey.patch_all()\n"
        + textwrap.dedent(after)
    ).splitlines()


def test_a_socket_is_sent_through_a_pipe() -> None:
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


def test_registries_know_the_new_classes() -> None:
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

        classes = {threading.Event: 1, LockType: 2}
        known = {threading.Event, LockType}
        kinds = (threading.Event, LockType)
        names = [threading.Event, (LockType, "lock")]
        frozen = frozenset({threading.Event})
        class Kinds:
            kinds = (threading.Event, LockType)
        def default(kinds=(threading.Event, LockType)): return kinds
        """,
        """
        made = threading.Lock(), threading.Event(), queue.SimpleQueue()
        print([kind(found) for found in made], kind(socket.socket()))
        print([pickle.loads(pickle.dumps(found)) != "" for found in made])
        print([classes[type(found)] for found in made[1::-1]], {type(found) for found in made[:2]} <= known)
        print([isinstance(found, kinds) for found in made[:2]], isinstance(made[1], names[0]))
        print(Kinds.kinds == kinds == default())
        print(isinstance(made[0], names[1][0]), type(made[1]) in frozen)
        """,
    )
    assert out == [
        "['lock', 'event', 'queue'] socket", "[True, True, True]", "[1, 2] True", "[True, True] True", "True",
        "True True",
    ]  # fmt: skip


def test_functions_held_by_objects() -> None:
    out = early(
        """
        import collections, dataclasses, functools, threading, time, typing

        def enclosing():
            pause = time.sleep
            return lambda: pause

        class Holder:
            def __init__(self): self.pause = time.sleep
        class Slots:
            __slots__ = ("pause",)
            static = staticmethod(time.sleep)
        @dataclasses.dataclass
        class Data:
            lock: typing.Any = dataclasses.field(default_factory=threading.Lock)
            pause: typing.Any = time.sleep
            ended: typing.Optional[threading.Event] = None

        holder, slots, enclosed = Holder(), Slots(), enclosing()
        slots.pause = time.sleep
        partial = functools.partial(time.sleep, 0)
        by_name = collections.defaultdict(threading.Lock)
        pauses = {"sleep": time.sleep, "all": [time.sleep, (time.sleep,)]}
        queue = collections.deque([time.sleep])
        """,
        """
        for found in (
            holder.pause, slots.pause, Slots.static, enclosed(), partial.func, pauses["sleep"], pauses["all"][0],
            pauses["all"][1][0], queue[0], Data().pause, Data.pause,
        ):
            assert found is time.sleep, found
        assert type(by_name[1]) is threading.Lock is type(Data().lock)
        assert dataclasses.fields(Data)[0].default_factory is threading.Lock
        assert typing.get_type_hints(Data)["ended"] == typing.Optional[threading.Event]
        from weald.monkey import get_original
        assert get_original("time", "sleep") is not time.sleep
        print("all")
        """,
    )
    assert out == ["all"]


def test_sockets_made_before() -> None:
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


def test_a_socket_made_before_and_never_used_stays_as_it_is() -> None:
    """Another process may have it: a listener that is passed on, say."""
    out = early(
        "import os, socket\na, b = socket.socketpair(); number = os.dup(a.fileno())",
        "a.close(); print(os.get_blocking(number))\ndel b",
    )
    assert out == ["True"]


@pytest.mark.parametrize("derived", [False, True], ids=["made before", "of a class made before"])
def test_tls_sockets(derived: bool, certificate: object) -> None:
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


def test_thread_locals_and_queues() -> None:
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


def test_selectors_and_loops() -> None:
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


def test_children() -> None:
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


def test_multiprocessings_primitives() -> None:
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
