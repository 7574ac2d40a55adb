"""The CPU time of an HTTP server per upload, and the memory it takes: `benchmarks/run uploads [options]`.

One server process per side on one core, the client on another, rounds interleaved.  The figures are the server's CPU
time (user + system) divided by the requests, and how much its resident memory grew at most.  The applications read the
body in pieces and answer with its size; `--download`: they answer with a body of that size.  Over HTTP/2 the client is
h2load, otherwise workloads/upload_load.py.  Nothing here passes or fails.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from _env import HERE, BenchError, Child, Side, add_options, choose_cores, headline, resolve
from _report import number, ratio, table
from http_server import cpu, make_certificate, wait_for

WSGI = ("weald", "gevent")
ASGI = ("weald-asgi", "uvicorn", "hypercorn")
SIZES = (1_000, 65_536, 1_000_000, 10_000_000, 100_000_000)
FORMS = ("length", "chunked", "expect", "slow")
BYTES = 400_000_000  # of all bodies of a measurement, about
MOST = 3_000  # requests of a measurement
MOST_HTTP2 = 900  # requests of a connection; hypercorn ends it after 1,000

Figures = tuple[float, float]  # CPU microseconds a request, bytes of memory
Results = dict[str, dict[str, list[Figures]]]  # side label, size, one entry a round


def memory(pid: int, field: str) -> int:
    """Bytes of a process's memory: `VmRSS`, now, or `VmHWM`, the most so far."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


def client(options: argparse.Namespace, folder: Path, port: int, size: int, count: int) -> list[str]:
    """The command that makes `count` requests."""
    if options.http2:
        body = folder / "body"
        body.write_bytes(b"x" * size)
        return [
            *("h2load", "-t1", f"-n{count}", f"-c{options.connections}", f"-m{options.streams}"),
            *(("-w", str(options.window), "-W", str(options.window)) if options.window else ()),
            *(() if options.download else ("-d", str(body))),
            f"{'https' if options.tls else 'http'}://127.0.0.1:{port}/{size}",
        ]
    script = str(HERE / "workloads" / "upload_load.py")
    arguments = (port, options.connections, count, size, options.form)
    return [sys.executable, script, *map(str, arguments), *(("tls",) if options.tls else ())]


def requests(options: argparse.Namespace, size: int) -> int:
    """How many requests a measurement makes: as many on each connection."""
    most = MOST_HTTP2 * options.connections if options.http2 else MOST
    count = 20 if options.form == "slow" else max(min(int(options.bytes) // size, MOST, most), 3)
    return -(-count // options.connections) * options.connections


def load(side: Side, size: int, options: argparse.Namespace, folder: Path, cores: tuple[int, int]) -> Figures:
    """One measurement of one side."""
    files = [str(folder / "cert.pem"), str(folder / "key.pem")] if options.tls else []
    name = "download" if options.download else options.app
    if options.http2:
        side = replace(side, environ={**side.environ, "HTTP2": "1"})
    with Child(side, "http_servers.py", side.kind, str(cores[0]), name, *files) as server:
        port, pid = int(server.answer(timeout=30)), server.process.pid
        wait_for(port, side.label, bool(files))
        count = requests(options, size)
        command = client(options, folder, port, size, count)
        pin = (lambda: os.sched_setaffinity(0, {cores[1]})) if cores[1] >= 0 else None
        before, base = cpu(pid), memory(pid, "VmRSS")
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, preexec_fn=pin)
        spent, grown = cpu(pid) - before, memory(pid, "VmHWM") - base
    if done.returncode or (options.http2 and f"{count} succeeded, 0 failed" not in done.stdout):
        raise BenchError(f"{side.label}, {size} bytes: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return spent / count * 1e6, grown


def report(sides: Sequence[Side], sizes: Sequence[int], results: Results) -> str:
    """One table."""
    first, *others = sides
    body = []
    for size in sizes:
        row = [f"{size:,}"]
        for side in sides:
            used, grown = (statistics.median(column) for column in zip(*results[side.label][str(size)], strict=True))
            row.append(f"{number(used)} ({grown / 1e6:.1f})")
        ours = [entry[0] for entry in results[first.label][str(size)]]
        for side in others:
            found = ratio(ours, [entry[0] for entry in results[side.label][str(size)]])
            row.append(f"{found:.2f}" if found else "-")
        body.append(row)
    labels = [f"{side.label}: us (MB)" for side in sides]
    return table(["bytes", *labels, *(f"{first.label} / {side.label}" for side in others)], body)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run uploads`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run uploads", description=__doc__)
    add_options(parser, WSGI, rounds=3)
    parser.add_argument("--asgi", action="store_true", help=f"ASGI instead of WSGI: {', '.join(ASGI)}")
    parser.add_argument("--http2", action="store_true", help="HTTP/2, which only weald and hypercorn speak")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--download", action="store_true", help="large responses instead of large requests")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="bytes of a body (default: %(default)s)")
    parser.add_argument("--form", default="length", choices=FORMS, help="over HTTP/1.1 (default: %(default)s)")
    parser.add_argument("--app", default="drain", choices=("drain", "upload"), help="upload: joins the pieces")
    parser.add_argument("--connections", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--streams", type=int, default=1, help="requests at once on a connection, with --http2")
    parser.add_argument("--window", type=int, help="h2load's flow-control windows: 2**N - 1 bytes")
    parser.add_argument("--bytes", type=float, default=BYTES, help="of all bodies of a measurement, at most")
    options = parser.parse_args(arguments)
    if options.download and not options.http2:
        raise BenchError("--download needs --http2; `benchmarks/run http --apps large` measures it over HTTP/1.1")
    if options.http2 and not shutil.which("h2load"):
        raise BenchError("the client is h2load: apt-get install nghttp2-client")
    if options.sides == parser.get_default("sides"):
        options.sides = "weald-asgi,hypercorn" if options.http2 else ",".join(ASGI[:2] if options.asgi else WSGI)
    sizes = [int(size) for size in options.sizes.split(",")]
    cores = choose_cores(options.core)
    sides = resolve(options, (*WSGI, *ASGI))
    print(headline(sides) + f"; server on core {cores[0]}, client on {cores[1]}", flush=True)
    results: Results = {side.label: {str(size): [] for size in sizes} for side in sides}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        make_certificate(folder)
        for turn in range(options.rounds):
            for size in sizes:
                print(f"round {turn + 1}/{options.rounds}: {size}", file=sys.stderr)
                for side in sides:
                    results[side.label][str(size)].append(load(side, size, options, folder, cores))
    print(f"\n{report(sides, sizes, results)}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
