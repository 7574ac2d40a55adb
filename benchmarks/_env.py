"""The interpreters of the sides: finds weald's, makes the peers', refuses to compare different Pythons.

Called by `primitives`, `scale`, `echo` and `http`.  Invariants: the peers never enter the project's `.venv-X.Y`; all
sides of one run share one CPython build; children are bounded in time and run pinned by the workloads themselves.
"""

import argparse
import os
import platform
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = {
    "gevent": "gevent>=26.9",
    "uvloop": "uvloop",
    "trio": "trio",
    "eventlet": "eventlet",
    "granian": "granian",
    "bjoern": "bjoern",  # needs libev-dev
    "flask": "flask",  # an application for `http`
    "uvicorn": "uvicorn[standard]",
    "hypercorn": "hypercorn",
    "fastapi": "fastapi",  # an application for `http --asgi`
}
OPTIONAL = {"eventlet", "granian", "bjoern", "uvicorn", "hypercorn", "fastapi"}


class BenchError(Exception):
    """The run cannot go on; the text says what to do."""


@dataclass(frozen=True)
class Side:
    """One competitor.  `label` as in --sides (`weald@libev`); `kind` selects the workload (`uvloop-streams`)."""

    label: str
    kind: str
    package: str
    python: str
    environ: Mapping[str, str]


def add_options(parser: argparse.ArgumentParser, sides: Sequence[str], rounds: int) -> None:
    """The options every benchmark shares."""
    parser.add_argument(
        "--sides",
        default=",".join(sides),
        metavar="A,B,...",
        help="sides in the order they run; the first is compared with the others. NAME@LOOP chooses the loop "
        "of weald or gevent, e.g. weald@libev (default: %(default)s)",
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="interleaved rounds (default: %(default)s)")
    parser.add_argument(
        "--weald-python",
        default=os.environ.get("WEALD_PYTHON"),
        help="interpreter that imports weald (default: $WEALD_PYTHON, else the project's .venv-X.Y)",
    )
    parser.add_argument(
        "--peer-python", help="interpreter with the peers installed (default: an environment of its own is made)"
    )
    parser.add_argument("--core", type=int, help="core to pin the measured process to, -1 for none (default: the last)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every single measurement to FILE")


def choose_core(wanted: int | None) -> int:
    """The core to pin to: the given one, the last one this process may use, or -1 if pinning is not supported."""
    if not hasattr(os, "sched_setaffinity"):
        return -1
    allowed = os.sched_getaffinity(0)
    if wanted is None:
        return max(allowed)
    if wanted >= 0 and wanted not in allowed:
        raise BenchError(f"--core {wanted}: this process may only use cores {sorted(allowed)}")
    return wanted


def choose_cores(wanted: int | None) -> tuple[int, int]:
    """`choose_core`, and another one for the other end; -1 where there is none."""
    core = choose_core(wanted)
    others = os.sched_getaffinity(0) - {core} if core >= 0 else set()
    return core, max(others) if others else -1


def resolve(options: argparse.Namespace, kinds: Sequence[str]) -> list[Side]:
    """The requested sides, each with an interpreter that can import its package; BenchError if there is none."""
    labels = [label for label in options.sides.split(",") if label]
    for label in labels:
        if label.partition("@")[0] not in kinds:
            raise BenchError(f"no side {label!r}; there are: {', '.join(kinds)}")
    if not labels or len(set(labels)) != len(labels):
        raise BenchError("--sides wants at least one name, each only once")
    packages = {label: label.partition("@")[0].partition("-")[0] for label in labels}
    needs = set(packages.values())
    if "uvicorn" in needs:
        needs.add("fastapi")
    if "hypercorn" in needs:
        needs.add("uvloop")
    weald_python = _weald_python(options.weald_python) if "weald" in needs else None
    peer_python = None
    if needs - {"weald"}:
        peer_python = options.peer_python or _make_peers(weald_python or sys.executable, needs)
        if not _answer(peer_python, "print(1)"):
            raise BenchError(f"{peer_python} is no working Python interpreter")
    _same_python(weald_python, peer_python)
    sides = []
    for label in labels:
        kind, _, loop = label.partition("@")
        package = packages[label]
        python = weald_python if package == "weald" else peer_python
        assert python is not None
        if not _answer(python, f"import {package}; print(1)"):
            raise BenchError(
                f"{python} cannot import {package}: install it there (pip install {PEERS.get(package, package)}), "
                f"or leave {label} out of --sides"
            )
        sides.append(Side(label, kind, package, python, {f"{package.upper()}_LOOP": loop} if loop else {}))
    return sides


def _weald_python(wanted: str | None) -> str:
    """The given interpreter, else the project's environment of this Python version, else its newest one."""
    if not wanted:
        own = ROOT / ".venv-{}.{}".format(*sys.version_info)
        built = sorted(ROOT.glob(".venv-3.*"), key=lambda venv: int(venv.name.rpartition(".")[2]), reverse=True)
        found = [venv / "bin" / "python" for venv in [own, *built] if (venv / "bin" / "python").exists()]
        if not found:
            raise BenchError(f"weald is not built in {ROOT}: run make build, or pass --weald-python PATH")
        wanted = str(found[0])
    if not _answer(wanted, "import weald; print(1)"):
        raise BenchError(f"{wanted} cannot import weald: run make build, or pass --weald-python PATH")
    return wanted


def _make_peers(python: str, needs: set[str]) -> str:
    """Python of the peers' environment beside the project's, made or completed as needed from PyPI."""
    version = _answer(python, "import sys; print('%d.%d' % sys.version_info[:2])")
    base = _answer(python, "import sys; print(getattr(sys, '_base_executable', sys.executable))")
    if not version or not base:
        raise BenchError(f"{python} is no working Python interpreter")
    venv = ROOT / f".bench-venv-{version}"
    peer = str(venv / "bin" / "python")
    if venv.exists() and _identity(peer) != _identity(python):
        print(f"{venv.name} holds another Python: making it anew", file=sys.stderr)
        shutil.rmtree(venv)
    if not venv.exists():
        print(f"making {venv} for the peers", file=sys.stderr)
        try:
            _command([base, "-m", "venv", str(venv)])
        except BenchError:
            shutil.rmtree(venv, ignore_errors=True)  # half an environment would only fail later and less clearly
            raise
        (venv / ".gitignore").write_text("*\n")
    absent = [
        requirement
        for name, requirement in PEERS.items()
        if (name in needs or name not in OPTIONAL) and not _answer(peer, f"import {name}; print(1)")
    ]
    if absent:
        print(f"installing {', '.join(absent)} into {venv}", file=sys.stderr)
        _command([peer, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *absent])
    return peer


def _command(command: list[str]) -> None:
    done = subprocess.run(command, stdout=sys.stderr, timeout=900)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed with status {done.returncode}; its message stands above")


def _same_python(*pythons: str | None) -> None:
    builds = {python: _identity(python) for python in pythons if python}
    if len(set(builds.values())) > 1:
        listing = "\n".join(f"  {python}: {build}" for python, build in builds.items())
        raise BenchError(
            f"the sides must run on the same CPython build, or the ratios mean nothing:\n{listing}\n"
            "Pass matching --weald-python and --peer-python, or leave --peer-python out."
        )


def _identity(python: str) -> str:
    return _answer(python, "import platform, sys; print(platform.python_implementation(), sys.version)")


def _answer(python: str, code: str) -> str:
    """The output of `code`, on one line; empty if it fails."""
    try:
        done = subprocess.run(
            [python, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, cwd=HERE / "workloads"
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(done.stdout.split()) if done.returncode == 0 else ""


def environment(side: Side) -> dict[str, str]:
    """Environment variables of a child: this process's, the side's loop, a fixed hash seed, no PYTHONPATH of others."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**inherited, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore", **side.environ}


class Child:
    """A script of `workloads/` run by a side's interpreter: one line in, one line out, dead when the block is left.

    Closing its standard input ends it; its standard error is kept for the error message.
    """

    def __init__(self, side: Side, *arguments: str) -> None:
        self.label = side.label
        self.command = [side.python, *arguments]
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by __exit__)
        self.process = subprocess.Popen(
            self.command,
            cwd=HERE / "workloads",
            env=environment(side),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def answer(self, timeout: float, question: str = "") -> str:
        """Send `question`, and return the next line it prints; BenchError if it dies or prints nothing in time."""
        assert self.process.stdin
        assert self.process.stdout
        try:
            if question:
                print(question, file=self.process.stdin, flush=True)
            in_time = bool(select.select([self.process.stdout], [], [], timeout)[0])
            if in_time and (line := self.process.stdout.readline()):
                return line
        except BrokenPipeError:
            in_time = True
        asked = repr(question) if question else "its start"
        why = f"ended without an answer to {asked}" if in_time else f"no answer to {asked} in {timeout:g} s"
        self._end(0 if not in_time else 5)
        self.errors.seek(0)
        said = self.errors.read()[-3000:]
        raise BenchError(f"{self.label}: {why}: {' '.join(self.command)}\n{said}")

    def ready(self) -> None:
        """Wait until its imports are done, so that they do not disturb the measurement of another."""
        self.answer(timeout=60)

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, *exc: object) -> None:
        self._end(5)
        self.errors.close()

    def _end(self, grace: float) -> None:
        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(grace)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def headline(sides: Sequence[Side]) -> str:
    """The environment of the run: versions, kernel, cores, load."""
    parts = [_identity(sides[0].python).partition(" (")[0]]
    for python in dict.fromkeys(side.python for side in sides):
        names = dict.fromkeys(side.package for side in sides if side.python == python and side.package != "asyncio")
        found = _answer(
            python,
            "from importlib.metadata import version, PackageNotFoundError\n"
            f"for name in {[*names, 'greenlet']}:\n"
            "    try: print(name, version(name), end=', ')\n"
            "    except PackageNotFoundError: pass",
        )
        parts.append(found.rstrip(", "))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    parts.append(f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, load {load}")
    return "; ".join(part for part in parts if part)
