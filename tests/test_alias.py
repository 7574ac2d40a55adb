"""`import gevent` served by weald; each case in an interpreter of its own."""

import subprocess
import sys

import pytest
from helpers import PATIENCE


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments, *(["-c", code] if code else [])], capture_output=True, text=True, timeout=PATIENCE
    )
    return done.returncode, done.stdout, done.stderr


def check(code):
    status, out, err = run("import weald\nweald.install_as_gevent()\n" + code)
    assert (status, err) == (0, ""), err
    return out.strip()


def test_modules_are_the_same_objects():
    assert (
        check(
            "import gevent, gevent.socket, gevent.event, gevent.hub, gevent.monkey\n"
            "from gevent.pool import Pool\nimport weald.pool, weald.hub\n"
            "print(gevent.socket is weald.socket, gevent.hub is weald.hub, Pool is weald.pool.Pool,"
            " gevent.spawn is weald.spawn, gevent.kill.__name__)"
        )
        == "True True True True kill"
    )


def test_names_are_in_the_modules_dict():
    """Programs in C look for them there, such as uWSGI's gevent loop."""
    names = ["spawn", "signal_handler", "sleep", "get_hub", "getcurrent", "version_info", "Greenlet", "fork"]
    assert check(f"import gevent\nprint([name for name in {names} if name not in vars(gevent)])") == "[]"


def test_modules_that_gevent_imports_itself_are_attributes():
    """As after gevent's own import: grpc and zerorpc rely on it."""
    code = (
        "import gevent\nassert gevent.hub.get_hub() is weald.get_hub() and gevent.event.Event().is_set() is False\n"
        "assert gevent.timeout.Timeout is weald.Timeout and gevent.greenlet.Greenlet is weald.Greenlet\n"
        "assert gevent.exceptions.HubDestroyed and gevent.os.fork"
    )
    assert check(code) == ""


def test_modules_that_patching_imports_are_attributes():
    names = (
        "event events exceptions greenlet hub local lock monkey os queue select selectors signal socket ssl subprocess "
        "thread threading time timeout"
    )
    code = f"import gevent.monkey\ngevent.monkey.patch_all()\nfor name in {names!r}.split(): "
    assert check(code + "assert getattr(gevent, name) is __import__('gevent.' + name, fromlist=['x']), name") == ""


def test_other_modules_are_attributes_once_they_are_imported():
    code = "import gevent\nprint(hasattr(gevent, 'server'))\nimport gevent.server\nprint(gevent.server is weald.server)"
    assert check(code) == "False\nTrue"


@pytest.mark.parametrize("name", ["nosuch", "libev", "hub.nosuch", "resolver.nosuch", "monkey.nosuch"])
def test_asking_whether_there_is_a_module_is_no_error(name):
    code = f"from importlib.util import find_spec\nprint(find_spec('gevent.{name}'))"
    if "hub" in name:  # no package, neither here nor there
        code = code.replace("print(", "\ntry: print(") + "\nexcept ModuleNotFoundError: print(None)"
    assert check(code) == "None"


@pytest.mark.parametrize("name", ["", ".server", ".backdoor", ".monkey.api", ".resolver.thread", ".win32util"])
def test_asking_for_a_module_that_there_is_does_not_import_it(name):
    code = "import sys\nfrom importlib.util import find_spec\n"
    code += f"spec = find_spec('gevent{name}')\n"
    code += f"print(spec.name, spec.name in sys.modules, find_spec('weald{name}').name)"
    assert check(code) == f"gevent{name} False weald{name}"


def test_pickles_go_either_way():
    code = (
        "import pickle, gevent.queue, gevent.exceptions\nfrom gevent.hub import LoopExit\n"
        "for thing in (gevent.Timeout, gevent.queue.Empty, LoopExit, gevent.exceptions.HubDestroyed, gevent.kill,"
        " gevent.hub.signal, gevent.events.DoNotPatch, gevent._config.Config):\n"
        "    assert pickle.loads(pickle.dumps(thing)) is thing, thing\n"
        "for name in ('pool Pool', 'hub Hub', 'core loop', 'exceptions LoopExit', 'exceptions HubDestroyed'):\n"
        "    module, name = name.split()\n"
        "    found = pickle.loads(f'cgevent.{module}\\n{name}\\n.'.encode())\n"
        "    assert found is pickle.loads(f'cweald.{module}\\n{name}\\n.'.encode()), name\n"
        "print('same')"
    )
    assert check("import gevent._config, gevent.events\n" + code) == "same"


@pytest.mark.parametrize("module", ["weald.backdoor", "gevent.backdoor"])
def test_a_module_of_compat_runs_by_its_other_names(module):
    status, out, err = run(
        f"import runpy, sys, weald; weald.install_as_gevent(); sys.argv = ['-m']; "
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    )
    assert (status, err) == (0, "") and out.startswith("USAGE: ")


def test_the_interpreter_finds_modules_of_compat_to_run():
    status, out, _ = run("", "-m", "weald.backdoor")
    assert status == 0 and out.startswith("USAGE: ")


def test_version_is_gevents_and_installing_twice_is_fine():
    shown = "print(gevent.__version__, gevent.version_info[:2], gevent.version_info.major)"
    assert check(f"weald.install_as_gevent()\nimport gevent\n{shown}") == "26.9.0 (26, 9) 26"


@pytest.mark.parametrize("statement", ["import gevent.nonesuch", "from gevent import nonesuch", "gevent.nonesuch"])
def test_what_is_missing_says_so(statement):
    status, _, err = run(f"import weald; weald.install_as_gevent(); import gevent\n{statement}")
    assert status == 1 and "nonesuch" in err.splitlines()[-1] and "Error: " in err.splitlines()[-1]


def test_a_real_gevent_is_never_shadowed():
    status, _, err = run(
        "import sys, types; sys.modules['gevent'] = types.ModuleType('gevent')\nimport weald; weald.install_as_gevent()"
    )
    assert status == 1 and "real gevent is imported already" in err


def test_module_runs_under_the_alias(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import socket, sys, weald.socket\nprint(socket.socket is weald.socket.socket, sys.argv[1:])\n")
    out = check(
        f"import sys, runpy\nsys.argv = ['x', {str(program)!r}, 'a']\n"
        "runpy.run_module('gevent.monkey', run_name='__main__', alter_sys=True)"
    )
    assert out == "True ['a']"


HUBS = """
hub, loop = weald.get_hub(), weald.get_hub().loop
assert "weald.compat.hub" not in sys.modules and "weald.compat.core" not in sys.modules
"""


@pytest.mark.parametrize(
    "gevent",
    ["weald.install_as_gevent(); import gevent, gevent.hub", "import weald.hub as gevent; gevent.hub = gevent"],
)
def test_hubs_and_loops_made_before_become_gevents(gevent):
    status, out, err = run(
        f"import sys, weald\n{HUBS}\n{gevent}\n"
        "assert weald.get_hub() is hub and isinstance(hub, gevent.hub.Hub) and type(loop) is weald.config.loop\n"
        "assert hub.main_hub and loop.default and hub.threadpool.apply(sum, ([1, 2],)) == 3 and hub.NOT_ERROR\n"
        "async_ = loop.async_(); weald.spawn_later(0.01, async_.send); hub.wait(async_); print('waited')"
    )
    assert (status, out, err) == (0, "waited\n", "")


def test_a_hub_asked_for_what_only_gevents_have_becomes_one():
    status, out, err = run(
        f"import sys, weald\n{HUBS}\nassert hub.exception_stream is sys.stderr and hub.main_hub\nhub.nonesuch"
    )
    assert status == 1 and "AttributeError" in err and "nonesuch" in err and "RecursionError" not in err


@pytest.mark.parametrize(
    "alias", ["weald.install_as_gevent()", "sys.modules['gevent'] = weald; import weald.monkey; weald.monkey"]
)
def test_patching_through_gevents_name_replaces_fork(alias):
    status, out, err = run(
        f"import os, sys, types, weald\n{alias}\nimport gevent\nfrom weald import monkey\nmonkey.patch_all()\n"
        "assert type(os.fork) is type(os.forkpty) is types.FunctionType and os.fork is weald.os.fork\n"
        "pid = os.fork()\n"
        "if not pid: weald.sleep(0.001); os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    )
    assert (status, out, err) == (0, "7\n", "")


@pytest.mark.parametrize(
    ("code", "module"),
    [
        ("import gevent.monkey\ngevent.monkey.patch_all()\n", "gevent.threading"),
        ("import weald.monkey\nweald.monkey.patch_all()\nimport gevent\n", "gevent.threading"),
        ("import gevent.monkey\ngevent.monkey.patch_all(thread=False)\n", "threading"),
        ("import weald.monkey\nweald.monkey.patch_all()\n", "threading"),
    ],
)
def test_a_patched_thread_says_that_it_is_gevents(code, module):
    """pyzmq checks that."""
    more = "import pickle\nfrom threading import Thread\nassert pickle.loads(pickle.dumps(Thread)) is Thread\n"
    assert check(f"{code}{more}print(Thread.__module__, Thread().__class__ is Thread)") == f"{module} True"


def test_a_handler_of_sigchld_that_fails_is_printed():
    code = (
        "import os, signal, weald\n%s\nfrom weald import event, monkey\nmonkey.patch_all()\n"
        "came = event.Event()\n"
        "def handler(*_): came.set(); raise KeyError('handler')\n"
        "signal.signal(signal.SIGCHLD, handler)\n"
        "weald.spawn_later(0.001, os.kill, os.getpid(), signal.SIGCHLD)\n"
        "came.wait(100); weald.sleep(0.01); print('on')"
    )
    status, out, err = run(code % "weald.install_as_gevent(); import gevent")
    assert (status, out) == (0, "on\n") and "KeyError: 'handler'" in err
    status, out, err = run(code % "")  # without gevent it is as in an unpatched program
    assert (status, out) == (1, "") and "KeyError: 'handler'" in err


def test_only_gevents_top_level_names_come_from_compat():
    assert check("print(weald.kill.__module__, hasattr(weald, 'nonesuch'))") == "weald.compat._top_level False"
