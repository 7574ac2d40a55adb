"""Environments with packages that the tests' own lacks: releases of Celery, instrumentation, result backends.

Used by: test_integrations_celery_*.py.  Each is made once, under build/, and again when its list of packages changes.
It also sees the packages of the tests' environment, unless it has another version of one.
"""

import fcntl
import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from helpers import PROGRAMS_REASON, PROGRAMS_RUN

ROOT = Path(__file__).resolve().parents[1]


def python(*packages):
    """The interpreter of an environment with `packages`; the test is skipped without it, and fails where CI=true."""
    if not PROGRAMS_RUN:
        pytest.skip(PROGRAMS_REASON)
    try:
        return str(make(packages))
    except (subprocess.CalledProcessError, OSError) as error:
        message = f"no environment with {packages}: {error}\n{getattr(error, 'output', None) or ''}"
        if os.environ.get("CI") in ("true", "1"):
            pytest.fail(message)
        pytest.skip(message)


def make(packages):
    key = hashlib.sha256(repr([sys.version, sysconfig.get_path("purelib"), packages]).encode()).hexdigest()[:12]
    folder = ROOT / "build" / f"celery-{sys.version_info[0]}.{sys.version_info[1]}-{key}"
    interpreter = folder / "bin" / "python"
    folder.parent.mkdir(exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(folder))
            site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
            pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(interpreter))
            run(*pip, "install", "-q", "--no-compile", *packages)
            # Only now, or pip would see what is there and upgrade it.
            (site / "weald.pth").write_text(f"{ROOT / 'src'}\n{sysconfig.get_path('purelib')}\n")
            (folder / "complete").touch()
    return interpreter


def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
