"""Lines and blocks through files and pipes, and locals, side against side: `benchmarks/run files [options]`.

Side `io` is Python itself, not patched.  Nothing here passes or fails: a target that is missed is printed as OVER.
"""

import argparse
from collections.abc import Sequence

import _rows
from _env import BenchError, add_options
from _rows import Row

SIDES = ("weald", "gevent", "io")
TARGETS = {"gevent": 1.0, "io": 2.0}
ROWS = (
    Row("child_lines", "a line of a child's output, bytes", TARGETS),
    Row("child_text", "the same, text", TARGETS),
    Row("child_blocks", "64 KiB of a child's output", TARGETS),
    Row("child_written", "a line of text to a child", TARGETS),
    Row("child_written_at_once", "the same, each sent at once", TARGETS),
    Row("pipe_lines", "a line through FileObjects on a pipe, bytes", TARGETS),
    Row("pipe_text", "the same, text", TARGETS),
    Row("file_lines", "a line of a regular file, bytes", TARGETS),
    Row("file_text", "the same, text", TARGETS),
    Row("file_blocks", "64 KiB of a regular file", TARGETS),
    Row("file_written", "a line of text to a regular file", TARGETS),
    Row("local_get", "reading an attribute of a local", {"gevent": 1.0}),
    Row("local_set", "setting it", {"gevent": 1.0}),
    Row("local_class", "reading one of its class", {"gevent": 1.0}),
)


def main(arguments: Sequence[str]) -> None:
    """Entry of `run files`."""
    parser = argparse.ArgumentParser(prog="benchmarks/run files", description=__doc__)
    add_options(parser, SIDES, rounds=5)
    parser.add_argument("--rows", help="comma-separated rows (default: all): " + ", ".join(row.name for row in ROWS))
    parser.add_argument("--seconds", type=float, default=0.2, help="per row, side and round (default: %(default)s)")
    options = parser.parse_args(arguments)
    names = [row.name for row in ROWS]
    chosen = options.rows.split(",") if options.rows else names
    if unknown := set(chosen) - set(names):
        raise BenchError(f"no such row: {', '.join(sorted(unknown))}; see --help")
    _rows.run(options, SIDES, "files", [row for row in ROWS if row.name in chosen])
