"""The CPU time of an HTTP server per request, for each side: `benchmarks/run http [options]`.

One server process per side on one core, `wrk` on another with keep-alive connections, rounds interleaved.  The figure
is the server's CPU time (user + system, its children included) divided by the requests that wrk counted.  Nothing here
passes or fails: a missed target is printed as OVER.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from _env import HERE, BenchError, Child, Side, add_options, choose_cores, headline, resolve
from _report import against, number, ratio, table

SIDES = ("weald", "gevent", "granian", "bjoern")
ASGI = ("weald-asgi", "uvicorn", "granian-asgi")  # for --sides
WORKERS = ("weald-1", "weald-2")  # `weald serve` with so many workers, on all cores; for --sides
TLS_APPS = ("tls", "large-tls", "post-tls")  # hello, large and post over TLS
APPS = ("hello", "large", "post", "upload", "flask", *TLS_APPS)
ASGI_APPS = ("hello", "fastapi", "large", "post", "upload", *TLS_APPS, "websocket")
# The largest acceptable ratio to a side: for hello, and for the applications of ASGI.
TARGETS = {"gevent": 0.2, "granian": 1.0, "bjoern": 2.0}
ASGI_TARGETS = {
    "uvicorn": {
        **{"hello": 0.6, "fastapi": 0.85, "websocket": 0.7, "large": 0.8, "post": 0.8},
        **dict.fromkeys(TLS_APPS, 0.8),
    },
    "granian-asgi": {"hello": 0.85, "fastapi": 1.0, "large": 1.0, "post": 1.0, **dict.fromkeys(TLS_APPS, 1.0)},
}
NOT_WITH = {("bjoern", app) for app in TLS_APPS}
TICK = os.sysconf("SC_CLK_TCK")
# What wrk sends to applications that read a body.
SCRIPTS = {
    "post": """wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"numbers": [1, 2, 3, 4, 5], "text": "' .. string.rep("x", 200) .. '"}'
""",
    "upload": """wrk.method = "POST"
wrk.body = string.rep("x", 1000000)
""",
}

Figures = tuple[float, float, float]  # CPU microseconds a request, requests a second, share of one core in use
Results = dict[str, dict[str, list[Figures]]]  # side label, application, one entry a round


def cpu(pid: int) -> float:
    """CPU seconds of a process and those it has started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK + sum(map(cpu, children))


def wait_for(port: int, label: str, tls: bool) -> None:
    """Wait until the server answers; with TLS, until it accepts."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), 20) as sock:
                if tls:
                    return
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if sock.recv(1):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    raise BenchError(f"{label}: nobody answers on its port")


def make_certificate(folder: Path) -> None:
    """Put `cert.pem` and `key.pem` into `folder`."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )


def load(side: Side, app: str, options: argparse.Namespace, folder: Path, cores: tuple[int, int]) -> Figures:
    """One measurement of one side."""
    files = [str(folder / "cert.pem"), str(folder / "key.pem")] if app in TLS_APPS else []
    name = "hello" if app == "tls" else app.removesuffix("-tls")
    with Child(side, "http_servers.py", side.kind, str(cores[0]), name, *files) as server:
        port = int(server.answer(timeout=30))
        wait_for(port, side.label, bool(files))
        command = [
            *("wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "--timeout", "30s"),
            *(("-s", str(folder / f"{name}.lua")) if name in SCRIPTS else ()),
            *(("-H", "Connection: close") if options.close else ()),
            f"{'https' if files else 'http'}://127.0.0.1:{port}/",
        ]
        if app == "websocket":  # which wrk does not speak
            script = str(HERE / "workloads" / "websocket_load.py")
            command = [sys.executable, script, str(port), str(options.connections), str(options.seconds)]
        pin = (lambda: os.sched_setaffinity(0, {cores[1]})) if cores[1] >= 0 else None
        before = cpu(server.process.pid)
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, preexec_fn=pin)
        spent = cpu(server.process.pid) - before
    counted = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if not counted or not rate or not int(counted[1]):
        raise BenchError(f"{side.label}, {app}: no request was answered: {done.stdout}{done.stderr}")
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        print(f"{side.label}, {app}: {done.stdout}", file=sys.stderr)
    return spent / int(counted[1]) * 1e6, float(rate[1]), spent / options.seconds


def report(sides: Sequence[Side], apps: Sequence[str], results: Results) -> str:
    """One table per application."""
    first = sides[0]
    parts = []
    for app in apps:
        ours = [entry[0] for entry in results[first.label][app]]
        body = []
        for side in sides:
            entries = results[side.label][app]
            if not entries:
                continue
            used, rate, share = (statistics.median(column) for column in zip(*entries, strict=True))
            target = TARGETS.get(side.kind) if app == "hello" and first.kind == "weald" else None
            if first.kind == "weald-asgi":
                target = ASGI_TARGETS.get(side.kind, {}).get(app)
            versus = "" if side is first else against(ratio(ours, [entry[0] for entry in entries]), target)
            goal = f"{target:.2f}" if target else ""
            body.append([side.label, f"{used:.1f}", number(rate), f"{share:.0%}", versus, goal])
        header = [app, "CPU us/request", "requests/s", "core busy", f"{first.label} / it", "target"]
        parts.append(table(header, body))
    return "\n\n".join(parts)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run http`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run http", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--asgi", action="store_true", help=f"ASGI instead of WSGI: {', '.join(ASGI)}")
    parser.add_argument("--apps", help=f"(default: {','.join(APPS)}; with --asgi: {','.join(ASGI_APPS)})")
    parser.add_argument("--connections", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="a measurement (default: %(default)s)")
    parser.add_argument("--close", action="store_true", help="a connection for each request")
    options = parser.parse_args(arguments)
    if not shutil.which("wrk"):
        raise BenchError("the load generator is wrk: apt-get install wrk")
    known = ASGI_APPS if options.asgi else APPS
    if options.asgi and options.sides == parser.get_default("sides"):
        options.sides = ",".join(ASGI)
    apps = (options.apps or ",".join(known)).split(",")
    if unknown := set(apps) - set(known):
        raise BenchError(f"no application {', '.join(unknown)}; there are: {', '.join(known)}")
    cores = choose_cores(options.core)
    sides = resolve(options, ASGI if options.asgi else (*SIDES, *WORKERS))
    print(headline(sides) + f"; server on core {cores[0]}, wrk on {cores[1]}", flush=True)
    results: Results = {side.label: {app: [] for app in apps} for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        for name, script in SCRIPTS.items():
            (folder / f"{name}.lua").write_text(script)
        if set(TLS_APPS) & set(apps):
            make_certificate(folder)
        for turn in range(options.rounds):
            for app in apps:
                print(f"round {turn + 1}/{options.rounds}: {app}", file=sys.stderr)
                for side in sides:
                    if (side.kind, app) not in NOT_WITH:
                        results[side.label][app].append(load(side, app, options, folder, cores))
    print(f"\n{report(sides, apps, results)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
