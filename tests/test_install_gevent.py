"""`weald install-gevent` and `uninstall-gevent` in an environment of their own, judged by pip; `weald --version`."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import weald
from weald.compat import _distribution

SOURCE = Path(weald.__file__).parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")


class Environment:
    """A virtual environment with weald and its requirements, without pip and gevent."""

    def __init__(self, folder):
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
        self.python = folder / "bin" / "python"
        self.site = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        (self.site / "weald.pth").write_text(f"{SOURCE}\n{sysconfig.get_path('purelib')}\n")

    def run(self, *arguments):
        return subprocess.run([str(self.python), *arguments], capture_output=True, text=True, timeout=300)

    def weald(self, *arguments):
        return self.run("-m", "weald", *arguments)

    def pip(self, *arguments):
        command = [*PIP, "--python", str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    def names(self):
        return sorted(path.name for path in self.site.iterdir() if path.name.startswith("gevent"))

    def add_foreign(self, version):
        """A gevent that is not weald's; without a version, one that pip does not know."""
        (self.site / "gevent").mkdir()
        (self.site / "gevent" / "__init__.py").write_text("real = True\n")
        if version is not None:
            info = self.site / f"gevent-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: gevent\nVersion: {version}\n")


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path / "environment")


def test_pip_lists_it_and_dependants_are_satisfied(environment):
    done = environment.weald("install-gevent")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(environment.site) in done.stdout
    assert re.search(r"^gevent +26\.9\.0\+weald$", environment.pip("list").stdout, re.MULTILINE)
    # pip looks nothing up: the requirement is satisfied.
    done = environment.pip("install", "--no-index", "gevent>=24", "gevent==26.9.0", "gevent[recommended]")
    assert done.returncode == 0 and "extra" not in done.stderr, done.stderr
    assert environment.pip("check").returncode == 0


def test_gevent_is_weald_there(environment):
    environment.weald("install-gevent")
    code = "import gevent, gevent.pool, weald.pool; print(gevent.pool is weald.pool, gevent.spawn is weald.spawn)"
    assert environment.run("-c", code).stdout == "True True\n"
    done = environment.run("-m", "gevent.monkey", "-m", "this")
    assert done.returncode == 0 and "Zen of Python" in done.stdout


def test_without_weald_importing_gevent_says_what_to_do(environment):
    environment.weald("install-gevent")
    (environment.site / "weald.pth").unlink()
    done = environment.run("-c", "import gevent")
    assert done.returncode == 1 and "pip install weald, or pip uninstall gevent" in done.stderr


@pytest.mark.parametrize("by", ["weald", "pip"])
def test_it_can_be_removed(environment, by):
    environment.weald("install-gevent")
    assert environment.run("-c", "import gevent").returncode == 0  # leaves byte code
    if by == "weald":
        done = environment.weald("uninstall-gevent")
    else:
        done = environment.pip("uninstall", "-y", "gevent")
    assert done.returncode == 0, done.stderr
    assert environment.names() == []
    done = environment.weald("uninstall-gevent")
    assert done.returncode == 1 and done.stderr == "Error: weald's gevent is not installed here\n"


def test_installing_again_replaces_an_older_one(environment):
    (environment.site / "gevent").mkdir()
    (environment.site / "gevent" / "__init__.py").write_text("__weald__ = 'old'\n")
    older = environment.site / "gevent-24.1.1+weald.dist-info"
    older.mkdir()
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: gevent\nVersion: 24.1.1+weald\n")
    for _ in range(2):
        assert environment.weald("install-gevent").returncode == 0
        assert environment.names() == ["gevent", "gevent-26.9.0+weald.dist-info"]
    assert "old" not in (environment.site / "gevent" / "__init__.py").read_text()


@pytest.mark.parametrize("version", ["24.2.1", None])
def test_a_gevent_of_its_own_is_left_alone(environment, version):
    environment.add_foreign(version)
    before = environment.names()
    for command in ("install-gevent", "uninstall-gevent"):
        done = environment.weald(command)
        assert done.returncode == 1 and done.stdout == ""
        advice = "pip uninstall gevent" if version else "remove it" if command == "install-gevent" else "not installed"
        assert advice in done.stderr, done.stderr
        assert environment.names() == before
        assert environment.run("-c", "import gevent; print(gevent.real)").stdout == "True\n"


def test_a_folder_that_cannot_be_written_is_named(environment):
    blocker = environment.site / "gevent"
    blocker.write_text("")  # a file where the package has to be: not even root can write into it
    done = environment.weald("install-gevent")
    assert done.returncode == 1 and str(environment.site) in done.stderr and "Traceback" not in done.stderr


def install_weald(site):
    """Into the folder `site`, as far as pip and weald can tell."""
    site.mkdir(parents=True, exist_ok=True)
    (site / "weald").symlink_to(Path(weald.__file__).parent)
    info = site / f"weald-{weald.__version__}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: weald\nVersion: {weald.__version__}\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\n")


def test_beside_a_weald_of_pip_install_target(environment, tmp_path, monkeypatch):
    install_weald(tmp_path / "libraries")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "libraries"))
    done = environment.weald("install-gevent")
    assert done.returncode == 0 and str(tmp_path / "libraries") in done.stdout, done.stderr
    assert environment.names() == [] and (tmp_path / "libraries/gevent/__init__.py").exists()
    assert environment.run("-c", "import gevent, weald; print(gevent.spawn is weald.spawn)").stdout == "True\n"
    assert environment.weald("uninstall-gevent").returncode == 0
    assert not list((tmp_path / "libraries").glob("gevent*"))


def test_an_environment_leaves_the_packages_beneath_alone(environment, tmp_path):
    """As with --system-site-packages; sitecustomize makes a folder the interpreter's."""
    beneath = tmp_path / "usr/lib/python/site-packages"
    install_weald(beneath)
    _distribution.write(beneath)
    customize = f"import sys; sys.base_prefix = {str(tmp_path / 'usr')!r}; sys.path.append({str(beneath)!r})"
    (environment.site / "sitecustomize.py").write_text(customize)
    done = environment.weald("uninstall-gevent")
    assert done.returncode == 1 and "not installed here" in done.stderr, done.stdout
    done = environment.weald("install-gevent")
    assert done.returncode == 0 and str(environment.site) in done.stdout, done.stderr
    assert environment.weald("uninstall-gevent").returncode == 0
    assert environment.names() == []
    assert (beneath / "gevent/__init__.py").exists()


def test_weald_names_its_version_and_loop(environment):
    line = rf"weald {re.escape(weald.__version__)} \(libuv, greenlet \S+, CPython {sys.version.split()[0]}\)\n"
    done = environment.weald("--version")
    assert (done.returncode, done.stderr) == (0, "") and re.fullmatch(line, done.stdout)
    done = environment.weald()
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(line, done.stdout) and "install-gevent" in done.stdout and "serve" in done.stdout
