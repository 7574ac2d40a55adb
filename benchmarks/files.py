"""Lines and blocks through files and pipes, and locals, for each side: `benchmarks/run files [options]`.

Side `io` is Python itself, not patched.  Nothing here passes or fails: a missed target is printed as OVER.
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
    Row("child_whole", "the same, all of it by one read", TARGETS),
    Row("child_written", "a line of text to a child", TARGETS),
    Row("child_written_at_once", "the same, each sent at once", TARGETS),
    Row("child_readline", "a line ending in \\r\\n of a child's output by readline, text", TARGETS),
    Row("child_printed", "a line printed to a child", TARGETS),
    Row("child_written_bytes", "a line of bytes to a child", TARGETS),
    Row("child_byte", "a byte to a child, unbuffered", TARGETS),
    Row("child_communicate", "64 KiB to a child and back by communicate", TARGETS),
    Row("pipe_lines", "a line through FileObjects on a pipe, bytes", TARGETS),
    Row("pipe_text", "the same, text", TARGETS),
    Row("pipe_readline", "a line ending in \\r\\n by readline, text", TARGETS),
    Row("pipe_printed", "a printed line, text", TARGETS),
    Row("pipe_small", "35 bytes by read(35)", TARGETS),
    Row("pipe_readinto", "64 KiB by readinto", TARGETS),
    Row("pipe_byte", "a byte written", TARGETS),
    Row("pipe_byte_raw", "a byte written, unbuffered", TARGETS),
    Row("pipe_line_buffered", "a line of text, each sent at once", TARGETS),
    Row("pipe_posix", "a line of text through FileObjectPosix", TARGETS),
    Row("fdopen_lines", "a line through os.fdopen on a pipe, bytes", TARGETS),
    Row("fdopen_text", "the same, text", TARGETS),
    Row("file_lines", "a line of a regular file, bytes", TARGETS),
    Row("file_text", "the same, text", TARGETS),
    Row("file_blocks", "64 KiB of a regular file", TARGETS),
    Row("file_written", "a line of text to a regular file", TARGETS),
    Row("file_readline", "a line of a regular file by readline, text", TARGETS),
    Row("file_small", "35 bytes of a regular file by read(35)", TARGETS),
    Row("file_readinto", "64 KiB of a regular file by readinto", TARGETS),
    Row("file_printed", "a line printed to a regular file", TARGETS),
    Row("file_written_bytes", "a line of bytes to a regular file", TARGETS),
    Row("posix_text", "a line of a regular file through FileObjectPosix, text", TARGETS),
    Row("thread_text", "the same through FileObjectThread", {"gevent": 1.0}),
    Row("thread_written", "a line of text to a FileObjectThread", {"gevent": 1.0}),
    Row("thread_byte", "a byte to a FileObjectThread, unbuffered", {"gevent": 1.0}),
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
