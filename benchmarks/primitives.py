"""Cost of each primitive, for each side: `benchmarks/run primitives [options]`.

Every side runs in child processes of its own, in interleaved rounds; the tables show medians.  The work itself is in
`workloads/`.  Nothing here passes or fails: a missed target is printed as OVER.
"""

import argparse
from collections.abc import Sequence

import _rows
import scale
from _env import add_options
from _rows import Row

SIDES = ("weald", "gevent", "asyncio", "uvloop", "trio", "eventlet")
DEFAULT = ("weald", "gevent", "asyncio", "uvloop", "trio")


# The target "no slower than uvloop" is about time.  A task has no C stack, so its memory cannot be compared.
ROWS = (
    Row("spawn_join", "spawn + join, one at a time", {"gevent": 0.25, "uvloop": 1.0}),
    Row("spawn_joinall", "spawn + joinall, 1,000 at a time", {"gevent": 0.25, "uvloop": 1.0}),
    Row("spawn_raw", "spawn_raw, 100 at a time", {"gevent": 0.25, "uvloop": 1.0}),
    Row("switch", "switch by sleep(0), 10 greenlets", {"gevent": 0.30, "uvloop": 1.0}),
    Row("queue1", "Queue(1) ping-pong, per item", {"gevent": 0.35, "uvloop": 1.0}),
    Row("queue_unbounded", "unbounded Queue, put + get", {"gevent": 1.0, "uvloop": 1.0}),
    Row("asyncresult", "AsyncResult round trip", {"gevent": 0.40, "uvloop": 1.0}),
    Row("semaphore_contended", "Semaphore, contended by 10", {"gevent": 0.45, "uvloop": 1.0}),
    Row("semaphore_free", "Semaphore, free", {"gevent": 0.60, "uvloop": 1.0}),
    Row("timeout", "with Timeout(10), not firing", {"gevent": 0.25, "uvloop": 1.0}),
    Row("scope", "with move_on_after(10), not firing", {"gevent": 0.25, "uvloop": 1.0}),  # gevent: Timeout
    Row("task_group", "TaskGroup, 1,000 tasks at a time", {"gevent": 0.25, "uvloop": 1.0}),  # gevent: spawn + joinall
    Row("pool_spawn", "Pool(100).spawn", {"gevent": 0.30, "uvloop": 1.0}),
    Row("sleepers", "10,000 short sleepers, each", {"gevent": 0.40, "uvloop": 1.0}),
    Row("resident", "resident bytes a parked greenlet", {"gevent": 0.80}),
)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run primitives`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run primitives", description=__doc__)
    add_options(parser, DEFAULT, rounds=5)
    _rows.add_options(parser, ROWS, seconds=0.3)
    scale.add_options(parser)
    options = parser.parse_args(arguments)
    chosen = _rows.chosen(options, ROWS)
    if options.scale or options.waiters:
        scale.main(options)
        return
    _rows.run(options, SIDES, "rows", chosen)
