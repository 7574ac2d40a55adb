"""An environment with programs written for gevent, and with weald's distribution of that name instead of gevent.

Called by: test_gevent_programs.py.  It is made once, under build/, and again when its list of packages changes.

It also sees the packages of the tests' environment, so that only the rest has to be fetched.  pip finds gevent in
it, because weald's distribution of that name is installed, and leaves it alone.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import weald
from weald.compat import _distribution

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ["gunicorn", "pyzmq", "psycopg2-binary", "psycogreen", "sentry-sdk", "gipc", "django", "flask"]
PROGRAMS += ["flask-socketio", "gevent-websocket", "requests", "urllib3", "pyinstaller"]


def python():
    """The environment's interpreter.  Without it the test is skipped, and fails where CI=true."""
    try:
        return str(_make())
    except (subprocess.CalledProcessError, OSError) as error:
        output = getattr(error, "output", None) or ""
        message = f"no environment for programs that use gevent: {error}\n{output}"
        if os.environ.get("CI") in ("true", "1"):
            pytest.fail(message)
        pytest.skip(message)


def _make():
    key = hashlib.sha256(repr([sys.version, sysconfig.get_path("purelib"), PROGRAMS]).encode())
    key.update(Path(_distribution.__file__).read_bytes())
    folder = ROOT / "build" / f"programs-{sys.version_info[0]}.{sys.version_info[1]}-{key.hexdigest()[:12]}"
    interpreter = folder / "bin" / "python"
    folder.parent.mkdir(exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / "complete").exists():
            _fill(folder, interpreter)
    return interpreter


def _fill(folder, interpreter):
    _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
    site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "weald.pth").write_text(f"{ROOT / 'src'}\n{sysconfig.get_path('purelib')}\n")
    # A checkout has no metadata.  Without metadata pip would consider weald missing and look for it.
    metadata = site / f"weald-{weald.__version__}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: weald\nVersion: {weald.__version__}\n")
    _distribution.write(site)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    into = (*pip, "--python", str(interpreter), "install", "-q", "--no-compile")
    # Packages without wheels are built with the setuptools of this environment.
    _run(*into, "--no-build-isolation", *PROGRAMS)
    _run(str(interpreter), "-c", "import gevent, weald.pool, gevent.pool; assert gevent.pool is weald.pool")
    (folder / "complete").touch()


def _run(*command):
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
