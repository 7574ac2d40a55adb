"""Undocumented names of gevent that tracers, profilers and plug-ins use; each case in an interpreter of
its own.  The programs themselves run in third_party/test_gevent_programs.py.
"""

import textwrap

import pytest
from helpers import python

PRELUDE = "import weald; weald.install_as_gevent()\nimport gevent, gevent.hub, gevent.pool\n"


def gevent(code):
    return python(PRELUDE + textwrap.dedent(code))


def test_tracers_swap_the_classes_of_greenlets():
    """As ddtrace does: it replaces the class, and code that makes greenlets looks it up where gevent has it."""
    gevent(
        """
        import gevent._imap, gevent.greenlet
        seen = []

        class Traced(gevent.Greenlet):
            def __init__(self, *args, **kwargs):
                seen.append("made")
                super().__init__(*args, **kwargs)

            def run(self):
                seen.append("ran")
                super().run()

        class TracedIMapUnordered(gevent.pool.IMapUnordered):
            def __init__(self, *args, **kwargs):
                seen.append("imap")
                super().__init__(*args, **kwargs)

        class TracedIMap(TracedIMapUnordered, gevent.pool.IMap):
            pass

        def replace(greenlet, imap, unordered):
            gevent.greenlet.Greenlet = gevent.pool.Group.greenlet_class = gevent.pool.Greenlet = greenlet
            gevent._imap.Greenlet = gevent.Greenlet = greenlet
            gevent.spawn, gevent.spawn_later = greenlet.spawn, greenlet.spawn_later
            gevent._imap.IMap = gevent.pool.IMap = imap
            gevent._imap.IMapUnordered = gevent.pool.IMapUnordered = unordered

        def did(call):
            del seen[:]
            call()
            return sorted(seen)

        before = gevent.Greenlet, gevent.pool.IMap, gevent.pool.IMapUnordered
        calls = {
            "spawn": lambda: gevent.spawn(int).get(),
            "later": lambda: gevent.spawn_later(0, int).get(),
            "group": lambda: gevent.pool.Group().spawn(int).get(),
            "pool": lambda: gevent.pool.Pool(1).spawn(int).get(),
            "map": lambda: gevent.pool.Pool(1).map(int, "1"),
        }
        mapping = {
            "imap": lambda: list(gevent.pool.Pool(1).imap(int, "1")),
            "unordered": lambda: list(gevent.pool.Pool(1).imap_unordered(int, "1")),
        }
        replace(Traced, TracedIMap, TracedIMapUnordered)
        for name, call in calls.items():
            assert did(call) == ["made", "ran"], name
        for name, call in mapping.items():
            assert did(call) == ["imap", "made", "ran"], name
        replace(*before)
        for name, call in {**calls, **mapping}.items():
            assert did(call) == [], name
        """
    )


def test_profilers_wrap_functions_and_trace_switches():
    """As ddtrace's profiler does; it identifies greenlets by their id and links them to their joiners."""
    gevent(
        """
        import gevent.thread, greenlet
        calls, switches = [], []

        def wrapped(function):
            def wrapper(*args, **kwargs):
                calls.append(function.__name__)
                return function(*args, **kwargs)
            return wrapper

        for name in ("joinall", "wait", "iwait"):
            setattr(gevent, name, wrapped(getattr(gevent, name)))
        gevent.hub.spawn_raw = wrapped(gevent.hub.spawn_raw)
        previous = greenlet.settrace(lambda event, args: switches.append(args))
        job = gevent.spawn(gevent.sleep, 0)
        assert gevent.thread.get_ident(job) == id(job) != gevent.thread.get_ident(gevent.getcurrent())
        assert gevent.joinall([job]) == [job] and gevent.wait([job]) == [job] and list(gevent.iwait([job])) == [job]
        raw = gevent.hub.spawn_raw(int)
        gevent.sleep(0)
        greenlet.settrace(previous)
        assert calls == ["joinall", "wait", "iwait", "spawn_raw"]
        assert any(to is job for _, to in switches) and any(to is raw for _, to in switches)
        assert job.name and job.gr_frame is None
        """
    )


def test_a_hubs_switch_can_be_wrapped():
    gevent(
        """
        calls, original = [], gevent.hub.Hub.switch
        gevent.hub.Hub.switch = lambda hub: (calls.append(1), original(hub))[1]
        hub = gevent.get_hub()
        hub.loop.run_callback(gevent.getcurrent().switch, "back")
        assert hub.switch() == "back" and calls == [1]
        """
    )


def test_attributes_of_ones_own_and_marks_on_modules():
    gevent(
        """
        job, raw = gevent.spawn(int), gevent.spawn_raw(int)
        job.request, raw.request = 1, 2
        gevent.__some_tracers_mark = True
        assert (job.request, raw.request, getattr(gevent, "__some_tracers_mark")) == (1, 2, True)
        assert getattr(gevent, "__another_mark", False) is False
        import greenlet
        assert gevent.GreenletExit is gevent.hub.GreenletExit is greenlet.GreenletExit
        """
    )


def test_a_pools_semaphore():
    gevent(
        """
        pool = gevent.pool.Pool(2)
        job = pool.spawn(gevent.sleep, 20)
        assert pool._semaphore.counter == 1
        pool._semaphore.release()  # geventhttpclient and its like lend a slot so
        assert pool._semaphore.counter == 2
        job.kill()
        """
    )


def test_a_hub_class_of_ones_own():
    """As gunicorn's users and test suites have them."""
    gevent(
        """
        import threading
        errors = []

        class Mine(gevent.hub.Hub):
            SYSTEM_ERROR = gevent.hub.Hub.SYSTEM_ERROR + (MemoryError,)
            NOT_ERROR = gevent.hub.Hub.NOT_ERROR + (KeyError,)

            def handle_error(self, context, type, value, tb):
                errors.append(type)
                super().handle_error(context, type, value, tb)

            def print_exception(self, context, type, value, tb):
                errors.append(("printed", type))

        gevent.hub.set_default_hub_class(Mine)
        hub = gevent.get_hub()
        assert type(hub) is Mine and gevent.hub.get_hub_class() is Mine

        def fail(error):
            raise error

        gevent.spawn(fail, KeyError()).join()
        gevent.spawn(fail, ValueError()).join()
        assert errors == [KeyError, ValueError, ("printed", ValueError)]
        watcher = hub.loop.timer(0.001)
        hub.wait(watcher)
        assert hub.join(timeout=100) and hub.threadpool.apply(sum, ([1],)) == 1
        assert hub.resolver.getaddrinfo("127.0.0.1", 80)
        hub.destroy(destroy_loop=True)
        assert gevent.get_hub() is not hub
        """
    )


def test_a_child_puts_its_hub_away_as_gipc_does():
    gevent(
        """
        import os, signal, warnings
        from gevent import event
        hub = gevent.get_hub()
        assert hub.threadpool.apply(int) == 0
        warnings.simplefilter("ignore")  # of the forking itself
        pid = os.fork()
        if not pid:
            gevent.reinit()
            hub = gevent.get_hub()
            del hub.threadpool
            hub._threadpool = None
            gevent.hub.set_hub(None)
            hub.loop.destroy()
            fresh = gevent.get_hub()
            assert fresh is not hub and fresh.loop.default
            came = event.Event()
            signal.signal(signal.SIGALRM, lambda *_: came.set())
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            os._exit(0 if came.wait(100) and gevent.spawn(int).get() == 0 else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        """
    )


def test_hubs_are_put_away_and_back():
    gevent(
        """
        import signal, threading, gevent.event
        first = gevent.get_hub()
        gevent.hub.set_hub(None)
        second = gevent.get_hub()
        assert second is not first
        gevent.sleep(0.001)
        gevent.hub.set_hub(first)
        second.destroy()
        assert gevent.get_hub() is first
        came = gevent.event.Event()
        signal.signal(signal.SIGALRM, lambda *_: came.set())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        assert came.wait(100)
        refused = []

        def other():
            try:
                gevent.hub.set_hub(first)
            except ValueError as error:
                refused.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert "of this thread" in refused[0], refused
        """
    )


def test_watchers_as_servers_in_c_use_them():
    """The calls of uWSGI's gevent loop and of zmq.green."""
    gevent(
        """
        import os, signal, socket
        hub = gevent.get_hub()
        one, two = socket.socketpair()
        seen = []
        watcher = hub.loop.io(one.fileno(), 1)
        watcher.start(lambda *args: (seen.append(args), one.recv(9)), "argument")
        two.send(b"x")
        timer = hub.loop.timer(0.001)
        timer.start(seen.append, "timer")
        sig = hub.loop.signal(signal.SIGUSR1)
        sig.start(seen.append, "signal")
        os.kill(os.getpid(), signal.SIGUSR1)
        while len(seen) < 3:
            gevent.sleep(0.001)
        assert sorted(map(str, seen)) == ["('argument',)", "signal", "timer"]
        watcher.stop(); timer.stop(); sig.stop()
        waits = gevent.spawn(hub.wait, hub.loop.io(one.fileno(), 1))
        gevent.sleep(0)
        two.send(b"y")
        waits.get(timeout=100)
        """
    )


def test_private_modules_that_are_imported():
    gevent(
        """
        from gevent import _hub_local, _hub_primitives, _ident, _imap, _semaphore, _socket3, _socketcommon, _threading
        from gevent import _util, _waiter, baseserver, monkey
        from gevent.baseserver import _parse_address, _tcp_listener
        assert _parse_address("127.0.0.1:80")[1] == ("127.0.0.1", 80)
        with _tcp_listener(("127.0.0.1", 0)) as listener:
            assert isinstance(listener, _socket3.socket)
        assert _threading.Lock and _threading.Queue and _socketcommon.wait_read
        assert _hub_local.get_hub() is gevent.get_hub() and _hub_local.get_loop() is gevent.get_hub().loop
        assert monkey.saved == {}
        monkey.patch_time()
        assert set(monkey.saved["time"]) == {"sleep"}
        """
    )


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("gevent.core.read_event", "loop.io"),
        ("gevent.hub.set_loop", "hub.loop"),
        ("gevent.hub.nonesuch", "docs/migrating.md"),
        ("gevent.util.nonesuch", "docs/migrating.md"),
        ("gevent.nonesuch", "docs/migrating.md"),
        ("gevent.fileobject.FileObjectClosed", "ValueError"),
        ("gevent.resolver.AbstractResolver", "weald.resolver.Resolver"),
    ],
)
def test_a_name_that_is_not_there_says_what_is(code, says):
    out = gevent(
        f"""
        import gevent.core, gevent.fileobject, gevent.resolver, gevent.util
        try:
            {code}
        except AttributeError as error:
            print(error)
        """
    )
    assert says in out


@pytest.mark.parametrize(
    ("module", "says"),
    [("_fileobjectposix", "weald.fileobject"), ("libev.corecext", "WEALD_LOOP=libev"), ("nonesuch", "migrating.md")],
)
def test_a_module_that_is_not_there_says_what_is(module, says):
    out = gevent(
        f"""
        try:
            import gevent.{module}
        except ModuleNotFoundError as error:
            print(error)
        """
    )
    assert says in out


def test_modules_that_others_bring_are_attributes_of_gevent():
    """ddtrace replaces `gevent._imap.Greenlet` after it has imported gevent.pool."""
    gevent(
        """
        import gevent.threadpool, gevent.server
        names = "_config _hub_local _imap _semaphore _socketcommon _threading _util _waiter baseserver monkey"
        for name in names.split():
            module = getattr(gevent, name)
            assert module is __import__(f"gevent.{name}", fromlist=[name]), name
        gevent.pool.Greenlet = gevent._imap.Greenlet = type("Traced", (gevent.Greenlet,), {})
        gevent.pool.Group.greenlet_class = gevent._imap.Greenlet
        assert gevent.pool.Pool(2).map(abs, [-1, -2]) == [1, 2]
        """
    )


@pytest.mark.parametrize("first", [True, False])
def test_an_import_hook_that_asks_the_other_finders(first):
    """So do those of wrapt (newrelic) and ddtrace; while they ask, they are not asked again."""
    python(
        textwrap.dedent(
            """
            import importlib.util, sys

            class Hooks:
                looking = set()
                seen = []

                def find_spec(self, name, path=None, target=None):
                    if name in self.looking:
                        return None
                    self.looking.add(name)
                    try:
                        spec = importlib.util.find_spec(name)
                    finally:
                        self.looking.discard(name)
                    if spec is not None:
                        self.seen.append(name)
                    return spec

            if FIRST:
                sys.meta_path.insert(0, Hooks())
            import weald
            weald.install_as_gevent()
            import gevent
            if not FIRST:
                sys.meta_path.insert(0, Hooks())
            from gevent import socket, pywsgi, subprocess, monkey
            monkey.patch_all()
            assert "weald.socket" in Hooks.seen
            import socket as patched
            assert patched.SocketType is socket.socket and gevent.spawn(int).get() == 0
            """
        ).replace("FIRST", repr(first))
    )


INTERFACES = """
    import typing
    import gevent._interfaces as interfaces
    loop = gevent.get_hub().loop
    objects = [loop, loop.timer(1), loop.run_callback(print)]
    for interface, thing in zip([interfaces.ILoop, interfaces.IWatcher, interfaces.ICallback], objects):
        typing.Optional[typing.Union[interface, int]]  # as in the signatures of pika's adapter for gevent
        named = [name for name in vars(interface) if not name.startswith("_")]
        assert named and all(hasattr(thing, name) for name in named), (interface, named)
"""


def test_the_interfaces_of_loops_and_watchers():
    gevent(INTERFACES)


def test_the_classes_provide_the_interfaces_where_zope_has_them():
    zope = """
        import sys, types
        package, module = types.ModuleType("zope"), types.ModuleType("zope.interface")
        provided = []
        module.Interface = type("Interface", (), {})
        module.Attribute = str
        module.implementer = lambda *interfaces: lambda cls: cls
        module.classImplements = lambda cls, *interfaces: provided.append((cls, *interfaces))
        package.__path__ = []
        sys.modules["zope"], sys.modules["zope.interface"] = package, module
        """
    told = """
    classes = {interface.__name__: cls for cls, interface in provided}
    for name, thing in zip(["ILoop", "IWatcher", "ICallback"], objects):
        assert isinstance(thing, classes[name]), (name, classes)
    """
    python(textwrap.dedent(zope) + PRELUDE + textwrap.dedent(INTERFACES) + textwrap.dedent(told))
