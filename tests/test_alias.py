"""`import gevent` served by weald; each case in an interpreter of its own."""

import subprocess
import sys

import pytest


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, *arguments, *(["-c", code] if code else [])], capture_output=True, text=True, timeout=50
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


def test_version_is_gevents_and_installing_twice_is_fine():
    assert check("weald.install_as_gevent()\nimport gevent\nprint(gevent.__version__, gevent.version_info[:2])") == (
        "26.9.0 (26, 9)"
    )


@pytest.mark.parametrize("statement", ["import gevent.nonesuch", "from gevent import nonesuch", "gevent.nonesuch"])
def test_what_is_missing_says_so(statement):
    status, _, err = run(f"import weald; weald.install_as_gevent(); import gevent\n{statement}")
    assert status == 1 and "gevent.nonesuch" in err or "nonesuch" in err
    assert "Error" in err


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


def test_only_gevents_top_level_names_come_from_compat():
    assert check("print(weald.kill.__module__, hasattr(weald, 'nonesuch'))") == "weald.compat False"
