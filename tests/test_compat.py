"""weald.compat; each case in an interpreter of its own, because importing it sets defaults."""

import pytest
from helpers import python


def test_each_module_is_there_once():
    python(
        """
        import pkgutil, importlib, weald.compat
        for found in pkgutil.iter_modules(weald.compat.__path__):
            if found.name != "__main__":
                one = importlib.import_module(f"weald.{found.name}")
                other = importlib.import_module(f"weald.compat.{found.name}")
                assert one is other, found.name
        """
    )


def test_public_modules_are_found_by_listing():
    """By pkgutil, that is."""
    python(
        """
        import pkgutil, weald.compat
        weald.install_as_gevent()
        import gevent
        public = {found.name for found in pkgutil.iter_modules(weald.compat.__path__) if found.name[0] != "_"}
        assert len(public) > 8 and "hub" in public
        listed = {found.name for found in pkgutil.iter_modules(gevent.__path__)}
        assert public <= listed, public - listed
        assert {"pywsgi", "event", "lock"} <= listed
        """
    )


@pytest.mark.parametrize("package", ["weald", "gevent"])
def test_public_modules_can_be_run(package):
    """`python -m` of what is no program does nothing."""
    python(
        f"""
        import pkgutil, runpy, sys, weald.compat
        weald.install_as_gevent()
        sys.argv = ["-m"]  # so backdoor tells how to use it
        for found in pkgutil.iter_modules(weald.compat.__path__):
            if found.name[0] != "_":
                runpy.run_module(f"{package}.{{found.name}}", run_name="__main__", alter_sys=True)
        assert sys.modules["__main__"].__name__ == "__main__" and weald.hub.Hub
        """
    )


def test_each_module_has_what_it_lists():
    python(
        """
        import pkgutil, importlib, weald.compat
        for found in pkgutil.iter_modules(weald.compat.__path__):
            if found.name != "__main__":
                module = importlib.import_module(f"weald.{found.name}")
                listed = getattr(module, "__all__", [])
                assert len(set(listed)) == len(listed), found.name
                space = {}
                exec(f"from weald.{found.name} import *", space)
                assert set(listed) <= set(space), (found.name, set(listed) - set(space))
        """
    )


def test_ordinary_use_imports_nothing_of_it_but_the_door():
    python(
        """
        import sys, signal, weald
        from weald import monkey
        monkey.patch_all()
        import queue, socket, threading, subprocess, ssl
        from weald import event, lock, pool, local, server, fileobject, resolver, selectors, threadpool
        hub = weald.get_hub()
        hub.loop.timer(0.001).start(int)
        with server.StreamServer(("127.0.0.1", 0), lambda sock, _: sock.sendall(sock.recv(9))) as listening:
            listening.start()
            with socket.create_connection(listening.address) as sock:
                sock.sendall(b"x")
                assert sock.recv(9) == b"x"
        assert pool.Pool(2).map(int, "12") == [1, 2] and threadpool.default().apply(int) == 0
        assert socket.getaddrinfo("localhost", 80) and subprocess.check_output(["echo"]) == b"\\n"
        thread = threading.Thread(target=lambda: queue.Queue().put(1))
        thread.start(); thread.join()
        signal.signal(signal.SIGUSR1, lambda *_: None); signal.raise_signal(signal.SIGUSR1)
        with weald.Timeout(0.001, False):
            weald.sleep(5)
        weald.spawn(weald.sleep, 0).get()
        hub.destroy()
        weald.sleep(0)
        found = {name for name in sys.modules if name.startswith("weald.compat")}
        assert found <= {"weald.compat", *(f"weald.compat.{name}" for name in ("_door", "_plain", "_settings"))}, found
        """
    )


def test_monitoring_makes_hubs_that_can_be_monitored():
    python(
        """
        import weald
        weald.config.monitor_thread = True
        assert weald.get_hub().start_periodic_monitoring_thread() is not None
        """
    )


# -------------------------------------------------------------------- config


@pytest.mark.parametrize("name", ["libuv", "libev", "libev-cext", "libuv-cffi", "nonesuch,libev"])
def test_the_loop_can_be_chosen_by_gevents_names(name):
    chosen = python(f"import os; os.environ['GEVENT_LOOP'] = {name!r}; import weald; print(weald.get_hub().loop.name)")
    assert chosen.strip() in name


def test_gevents_variables_and_settings_are_known():
    python(
        """
        from weald._base.config import Config
        config = Config({"GEVENT_MAX_BLOCKING_TIME": "2.5", "WEALD_THREADPOOL_SIZE": "3", "GEVENT_THREADPOOL_SIZE": "4",
                         "GEVENT_MONITOR_MEMORY_MAX": "2MB", "GEVENT_TRACK_GREENLET_TREE": "off"})
        assert config.max_blocking_time == 2.5
        assert config.threadpool_size == 3
        assert config.max_memory_usage == 2 * 1024**2
        assert config.track_greenlet_tree is False
        """
    )


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("weald.config.max_blocking_time = 0", "positive"),
        ("weald.config.monitor_thread = 'perhaps'", "must be one of 1, true"),
    ],
)
def test_a_wrong_setting_of_gevents_says_what_would_be_right(code, says):
    assert says in python(f"import weald\ntry:\n    {code}\nexcept ValueError as error:\n    print(error)")


@pytest.mark.parametrize("module", ["weald._config", "gevent._config"])
def test_the_settings_are_listed(module):
    run = f"runpy.run_module({module!r}, run_name='__main__')"
    out = python(f"import runpy, weald; weald.install_as_gevent(); {run}", stderr=None)
    for line in ("resolver: the class", "WEALD_RESOLVER, GEVENT_RESOLVER; now <class", "monitor_thread: whether"):
        assert line in out


# -------------------------------------------------------------------- hub


def test_hubs_are_gevents_and_of_the_class_last_chosen():
    python(
        """
        import threading, weald, weald.hub
        assert type(weald.get_hub()) is weald.hub.Hub is weald.hub.get_hub_class()

        class Mine(weald.hub.Hub):
            pass

        weald.hub.set_default_hub_class(Mine)
        found = []
        thread = threading.Thread(target=lambda: found.append(type(weald.get_hub())))
        thread.start()
        thread.join()
        assert found == [Mine]
        """
    )


def test_a_hub_makes_its_pool_and_resolver_when_asked():
    python(
        """
        import weald, weald.hub
        from weald import resolver, threadpool
        hub = weald.get_hub()
        assert hub._threadpool is None and hub._resolver is None
        hub.threadpool_size = 3
        assert hub.threadpool is threadpool.default() and hub.threadpool.maxsize == 3
        assert hub.resolver is resolver.current()
        del hub.threadpool, hub.resolver
        assert hub._threadpool is None and hub._resolver is None
        assert hub.threadpool.apply(sum, ([1, 2],)) == 3
        """
    )


def test_errors_are_printed_to_the_stream_and_what_is_no_error_is_not():
    python(
        """
        import io, weald, weald.hub
        hub = weald.get_hub()
        stream = hub.exception_stream = io.StringIO()
        weald.spawn(lambda: 1 / 0).join()
        text = stream.getvalue()
        assert "ZeroDivisionError" in text and "failed with ZeroDivisionError" in text and "<Greenlet" in text
        before = len(text)
        hub.handle_error("somebody", weald.GreenletExit, weald.GreenletExit(), None)
        assert len(stream.getvalue()) == before
        hub.exception_stream = None
        weald.spawn(lambda: 1 / 0).join()
        del hub.exception_stream
        import sys
        assert hub.exception_stream is sys.stderr
        """
    )


def test_a_system_error_reaches_the_main_greenlet():
    python(
        """
        import weald, weald.hub

        class Halt(Exception):
            pass

        class Mine(weald.hub.Hub):
            SYSTEM_ERROR = (Halt,)
            def print_exception(self, *args):
                pass

        weald.hub.set_default_hub_class(Mine)
        def fail():
            raise Halt
        weald.spawn(fail)
        try:
            weald.sleep(20)
        except Halt:
            print("caught")
        """
    )


def test_waiter_hands_over_values_and_exceptions():
    python(
        """
        import weald
        from weald.hub import Waiter
        hub = weald.get_hub()
        waiter = Waiter()
        assert not waiter.ready() and str(waiter) == "<Waiter greenlet=None>"
        waiter.switch(1)
        assert waiter.ready() and waiter.successful() and waiter.get() == 1
        waiter = Waiter()
        hub.run_callback(waiter.switch, 2)
        assert waiter.get() == 2
        waiter = Waiter()
        hub.run_callback(waiter.throw, KeyError("k"))
        try:
            waiter.get()
        except KeyError:
            pass
        waiter = Waiter()
        other = weald.spawn(waiter.get)
        weald.sleep(0)
        misuses = [(waiter.get, weald.exceptions.ConcurrentObjectUseError), (lambda: waiter.switch(1), AssertionError)]
        for call, error in misuses:
            try:
                call()
            except error:
                pass
            else:
                raise SystemExit(f"{call} was let through")
        hub.run_callback(waiter.switch, 3)
        assert other.get() == 3
        hub.cancel_wait(None, KeyError)
        """
    )


# -------------------------------------------------------------------- events


def test_subscribers_hear_of_patching_and_may_forbid_it():
    python(
        """
        import time, select
        from weald import events, monkey
        originals = [time.sleep, select.select]  # in a list: patching would replace globals
        seen = []

        def subscriber(event):
            seen.append(type(event).__name__)
            if isinstance(event, events.GeventWillPatchModuleEvent) and event.module_name == "time":
                raise events.DoNotPatch

        events.subscribers.append(subscriber)
        assert monkey.patch_all(plugin_argument=1) is True
        assert time.sleep is originals[0] and select.select is not originals[1]
        assert seen[0] == "GeventWillPatchAllEvent" and seen[-1] == "GeventDidPatchAllEvent"
        assert seen[-2] == "GeventDidPatchBuiltinModulesEvent"
        assert seen.count("GeventWillPatchModuleEvent") == seen.count("GeventDidPatchModuleEvent") + 1
        """
    )


def test_patch_all_can_be_forbidden():
    python(
        """
        import socket
        from weald import events, monkey
        originals = [socket.socket]

        def never(event):
            raise events.DoNotPatch

        events.subscribers.append(never)
        assert monkey.patch_all() is False
        assert socket.socket is originals[0] and not monkey.is_anything_patched()
        """
    )


# -------------------------------------------------------------------- util


def test_run_info_tells_of_threads_and_greenlets():
    python(
        """
        import weald, weald.event
        from weald import util
        started = weald.event.Event()

        def waits_here():
            started.set()
            weald.sleep(20)

        waiting = weald.spawn(waits_here)
        waiting.name = "the-waiting-one"
        started.wait()
        text = "\\n".join(util.format_run_info())
        assert "* Threads" in text and "* Greenlets" in text and "MainThread" in text
        assert "the-waiting-one" in text and "in waits_here" in text
        """
    )


def test_the_tree_goes_by_who_spawned_whom():
    python(
        """
        import weald
        from weald.util import GreenletTree

        def parent():
            child = weald.spawn(weald.sleep, 20)
            child.name = "child"
            weald.sleep(20)

        spawned = weald.spawn(parent)
        spawned.name = "parent"
        weald.sleep(0)
        weald.sleep(0)
        lines = str(GreenletTree.current_tree()).splitlines()
        at = {name: next(i for i, line in enumerate(lines) if name in line) for name in ("parent", "child")}
        assert lines[at["parent"]].startswith(" +--- ") and at["child"] == at["parent"] + 1
        assert lines[at["child"]].index("+---") > 1, lines
        """
    )


def test_assert_switches():
    python(
        """
        import time, weald
        from weald.util import assert_switches

        def fails(*args, body=lambda: None, **kwargs):
            try:
                with assert_switches(*args, **kwargs):
                    body()
            except AssertionError as error:
                return str(error)

        assert "To any greenlet" in fails()
        assert fails(body=lambda: weald.sleep(0)) is None
        assert fails(20.0) is None
        assert "max allowed 0.0010" in fails(0.001, body=lambda: time.sleep(0.05))
        assert "To the hub" in fails(0.001, hub_only=True, body=lambda: time.sleep(0.05))
        try:
            with assert_switches():
                raise KeyError
        except KeyError:
            pass
        """
    )


def test_wrap_errors_returns_what_is_raised():
    python(
        """
        from weald.util import wrap_errors
        wrapped = wrap_errors((ValueError, TypeError), int)
        assert wrapped("7") == 7 and isinstance(wrapped("x"), ValueError)
        assert str(wrapped) == str(int)
        try:
            wrap_errors(KeyError, int)("x")
        except ValueError:
            pass
        """
    )


def test_the_monitoring_thread_reports_a_greenlet_that_blocks():
    python(
        """
        import io, threading, time, weald, weald.hub
        from weald import events
        weald.config.monitor_thread = True
        weald.config.max_blocking_time = 0.02
        hub = weald.get_hub()
        hub.exception_stream = io.StringIO()
        told = threading.Event()
        seen = []

        def subscriber(event):
            if isinstance(event, events.EventLoopBlocked):
                seen.append(event)
                told.set()

        events.subscribers.append(subscriber)
        weald.sleep(0.001)
        assert told.wait(100)  # blocks: nothing is patched
        hub.periodic_monitoring_thread.kill()
        assert seen[0].hub is hub and seen[0].greenlet is weald.getcurrent()
        while "appears to be blocked" not in hub.exception_stream.getvalue():
            time.sleep(0.01)
        """
    )


# -------------------------------------------------------------------- backdoor


def test_backdoor_is_a_prompt_with_streams_of_its_own():
    python(
        """
        import sys, weald
        from weald import socket
        from weald.backdoor import BackdoorServer
        stdout = sys.stdout

        def talk(server, code):
            with socket.create_connection(server.address[:2]) as conn:
                heard = b""
                while not heard.endswith(b">>> "):
                    heard += conn.recv(1000)
                conn.sendall(code + b"\\r\\n")
                answer = b""
                while not answer.endswith(b">>> "):
                    answer += conn.recv(1000)
                conn.sendall(b"quit()\\r\\n")
                assert conn.recv(1000) == b""
                return heard, answer

        with BackdoorServer(("127.0.0.1", 0), locals={"answer": 42}, banner="hello") as server:
            server.start()
            codes = b"print(answer)", b"import weald; weald.sleep(0.01); 1 + 1"
            jobs = [weald.spawn(talk, server, code) for code in codes]
            weald.joinall(jobs, raise_error=True)
            print("to the process")
        assert jobs[0].get() == (b"hello\\n>>> ", b"42\\n>>> "), jobs[0].get()
        assert jobs[1].get()[1] == b"2\\n>>> "
        assert sys.stdout is stdout
        """
    )


def test_a_greenlet_that_waits_alone_is_seen_to_switch():
    python(
        """
        import io, time, weald, weald.hub
        from weald.util import assert_switches

        for arguments in ((), (1.0,), (None, True), (1.0, True), (0.05,)):
            for body in (lambda: weald.sleep(0), lambda: weald.sleep(0.1)):
                with assert_switches(*arguments):
                    body()
        assert weald.get_hub().traced == 0
        assert not weald.spawn(weald.sleep, 0).join()

        weald.config.monitor_thread = True
        weald.config.max_blocking_time = 0.05
        hub = weald.get_hub()
        hub.exception_stream = io.StringIO()
        monitor = hub.start_periodic_monitoring_thread()
        asked = []
        monitor.add_monitoring_function(asked.append, 0.05)
        while len(asked) < 4:
            weald.sleep(0.01)
        weald.sleep(0.3)  # alone, and in the loop all the time
        monitor.kill()
        assert not hub.exception_stream.getvalue(), hub.exception_stream.getvalue()
        assert hub.traced == 0
        """
    )


@pytest.mark.parametrize("early", ["", "import gevent.fileobject"])
@pytest.mark.parametrize(
    ("value", "name"),
    [("'thread'", "FileObjectThread"), ("'block'", "FileObjectBlock"), ("['none', 'posix']", "FileObjectPosix")],
)
def test_the_kind_of_files_can_be_chosen(early, value, name):
    python(
        f"""
        import os, weald
        weald.install_as_gevent()
        {early}
        from gevent import config
        config.fileobject = {value}
        from gevent import fileobject
        assert fileobject.FileObject is fileobject.{name} is config.fileobject
        with fileobject.FileObject(os.devnull) as file:
            assert type(file) is fileobject.{name}
        """
    )


def test_the_class_of_loops_can_be_chosen():
    python(
        """
        import weald
        weald.install_as_gevent()
        import gevent, gevent.core

        class Loop(gevent.core.loop):
            pass

        gevent.config.loop = Loop
        assert gevent.config.loop is Loop and type(gevent.get_hub().loop) is Loop
        gevent.sleep(0.001)
        seen = []
        timer = gevent.get_hub().loop.timer(0.001)
        timer.start(seen.append, 1)
        while not seen:
            gevent.sleep(0.001)
        """
    )
