"""Lines and blocks through files and pipes, and locals, side against side: `benchmarks/run files [options]`.

Side `io` is Python itself, not patched.  Nothing here passes or fails: a target that is missed is printed as OVER.
"""

import argparse
from collections.abc import Sequence

import _rows
from _env import add_options
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
    _rows.add_options(parser, ROWS, seconds=0.2)
    options = parser.parse_args(arguments)
    _rows.run(options, SIDES, "files", _rows.chosen(options, ROWS))
