"""asyncio on weald's loop, uvloop and asyncio's own: `benchmarks/run aio [options]`.

CPU nanoseconds for each operation of a loop, then the measurements of `echo` with a Protocol, with streams and with
TLS.  One process per side, rounds interleaved.  Nothing here passes or fails: a missed target is printed as OVER.
"""

import argparse
from collections.abc import Sequence

import _rows
import echo
from _env import BenchError, add_options
from _rows import Row

SIDES = ("weald", "uvloop", "asyncio")
ROWS = (
    Row("call_soon", "call_soon", {"uvloop": 1.0}),
    Row("call_later", "call_later and cancel", {"uvloop": 1.0}),
    Row("sleep0", "await asyncio.sleep(0)", {"uvloop": 1.0}),
    Row("switch", "switch between two tasks", {"uvloop": 1.0}),
    Row("future", "future, set by a callback, awaited", {"uvloop": 1.0}),
    Row("task", "create_task and await it", {"uvloop": 1.0}),
    Row("writelines", "echo of 10 x 64 bytes by writelines", {"uvloop": 1.0}),
    Row("large", "echo of 64 KiB", {"uvloop": 1.0}),
    Row("datagram", "datagram and answer", {"uvloop": 1.0}),
    Row("pipe", "64 bytes through a pipe", {"uvloop": 1.0}),
    Row("sock", "sock_sendall, sock_recv and answer", {"uvloop": 1.0}),
    Row("connect", "connect, accept, close", {"uvloop": 1.0}),
    Row("executor", "to_thread", {"uvloop": 1.0}),
    Row("await_done", "await_ of a coroutine that does not wait, to sleep(0)", {"uvloop": 3.0}, "sleep0"),
    Row("await_once", "await_ of a coroutine that waits once, to sleep(0)", {"uvloop": 6.0}, "sleep0"),
)
STYLES = {"protocol": 1.0, "streams": 0.9, "tls": 1.0}


def main(arguments: Sequence[str]) -> None:
    """Entry of `run aio`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run aio", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    _rows.add_options(parser, ROWS, seconds=0.2)
    parser.add_argument("--connections", default="1,100,1000", help="of echo; empty: no echo (default: %(default)s)")
    options = parser.parse_args(arguments)
    if any("@" in label and not label.startswith("weald") for label in options.sides.split(",")):
        raise BenchError("only weald has a choice of loops here")
    _rows.run(options, SIDES, "loops", _rows.chosen(options, ROWS))
    print(flush=True)
    kinds = [label.partition("@")[0] for label in options.sides.split(",")]
    shared = [f"--rounds={options.rounds}", f"--connections={options.connections}"]
    for name in ("weald_python", "peer_python", "core"):
        if getattr(options, name) is not None:
            shared.append(f"--{name.replace('_', '-')}={getattr(options, name)}")
    for style in STYLES if options.connections else ():
        echo.main([*shared, f"--sides={','.join(f'{kind}-{style}' for kind in kinds)}"])
        print(f"target of weald / uvloop: {STYLES[style]:.2f}\n", flush=True)
