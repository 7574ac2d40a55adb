"""The rows of `files`: lines and blocks through children's pipes, own pipes and regular files, and locals.

`rows(package)` gives batch functions by row name; an operation is a line, a block of 64 KiB, or an access.  Package
`io` is Python itself, whose other end of a pipe is a thread.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from itertools import repeat
from types import SimpleNamespace
from typing import Any

BLOCK = 65536
LINE = "a line of text, as logs have them\n"


def load(package: str) -> SimpleNamespace:
    """The names the rows use, taken from `package`."""
    if package == "io":
        return SimpleNamespace(
            subprocess=import_module("subprocess"),
            open=open,
            posix=open,
            thread=open,
            fdopen=os.fdopen,
            local=threading.local,
            spawn=_thread,
        )
    part = {name: import_module(f"{package}.{name}") for name in ("subprocess", "fileobject", "local")}
    return SimpleNamespace(
        subprocess=part["subprocess"],
        open=part["fileobject"].FileObject,
        posix=part["fileobject"].FileObjectPosix,
        thread=part["fileobject"].FileObjectThread,
        fdopen=import_module(f"{package}.os").fdopen if package == "weald" else None,  # gevent's blocks the loop
        local=part["local"].local,
        spawn=import_module(package).spawn,
    )


def _thread(function: Callable[..., object], *args: object) -> threading.Thread:
    thread = threading.Thread(target=function, args=args)
    thread.start()
    return thread


def rows(package: str) -> dict[str, Callable[[int], object]]:
    """Row name to batch function."""
    api = load(package)
    return {**_children(api), **_pipes(api), **_regular(api), **_locals(api)}


def _children(api: Any) -> dict[str, Callable[[int], object]]:
    def output(n: int, command: str, **options: Any) -> None:
        child = api.subprocess.Popen(f"{command} | head -n {n}", shell=True, stdout=api.subprocess.PIPE, **options)
        count = 0
        for _ in child.stdout:
            count += 1
        assert count == n, (count, n)
        child.wait()

    def lines(n: int, **options: Any) -> None:
        output(n, f"yes {LINE.strip()!r}", **options)

    def blocks(n: int) -> None:
        command = ["head", "-c", str(n * BLOCK), "/dev/zero"]
        child = api.subprocess.Popen(command, stdout=api.subprocess.PIPE)
        size = 0
        while data := child.stdout.read(BLOCK):
            size += len(data)
        assert size == n * BLOCK
        child.wait()

    def whole(n: int) -> None:
        command = ["head", "-c", str(n * BLOCK), "/dev/zero"]
        child = api.subprocess.Popen(command, stdout=api.subprocess.PIPE)
        assert len(child.stdout.read()) == n * BLOCK
        child.wait()

    def read_by_calls(n: int) -> None:
        command = f"yes {LINE.strip() + chr(13)!r} | head -n {n}"
        child = api.subprocess.Popen(command, shell=True, stdout=api.subprocess.PIPE, text=True)
        count = 0
        while child.stdout.readline():
            count += 1
        assert count == n, (count, n)
        child.wait()

    def sink(**options: Any) -> Any:
        pipe, null = api.subprocess.PIPE, api.subprocess.DEVNULL
        return api.subprocess.Popen(["cat"], stdin=pipe, stdout=null, **options)

    def written(n: int, line: Any, **options: Any) -> None:
        child = sink(**options)
        write = child.stdin.write
        for each in repeat(line, n):
            write(each)
        child.stdin.close()
        child.wait()

    def printed(n: int) -> None:
        child = sink(text=True)
        for each in repeat(LINE[:-1], n):
            print(each, file=child.stdin)
        child.stdin.close()
        child.wait()

    def communicated(n: int) -> None:
        pipe = api.subprocess.PIPE
        child = api.subprocess.Popen(["cat"], stdin=pipe, stdout=pipe, stderr=pipe)
        assert len(child.communicate(bytes(n * BLOCK))[0]) == n * BLOCK

    return {
        "child_lines": lines,
        "child_text": lambda n: lines(n, text=True),
        "child_blocks": blocks,
        "child_whole": whole,
        "child_written": lambda n: written(n, LINE, text=True),
        "child_written_at_once": lambda n: written(n, LINE, text=True, bufsize=1),
        "child_readline": read_by_calls,
        "child_printed": printed,
        "child_written_bytes": lambda n: written(n, LINE.encode()),
        "child_byte": lambda n: written(n, b"x", bufsize=0),
        "child_communicate": communicated,
    }


def _pipes(api: Any) -> dict[str, Callable[[int], object]]:
    def through(
        n: int,
        mode: str,
        write: Callable[[Any, int], object],
        count: Callable[[Any], int],
        buffering: int = -1,
        opened: Callable[..., Any] = api.open,
    ) -> None:
        """`write(file, n)` to a pipe, while another greenlet counts what it reads."""
        read_end, write_end = os.pipe()
        reader, writer = opened(read_end, "r" + mode), opened(write_end, "w" + mode, buffering)

        def counting() -> None:
            found = count(reader)
            assert found == n, (found, n)

        reading = api.spawn(counting)
        write(writer, n)
        writer.close()
        reading.join()
        reader.close()

    def writing(what: Any) -> Callable[[Any, int], None]:
        def write(file: Any, n: int) -> None:
            for each in repeat(what, n):
                file.write(each)

        return write

    def printing(file: Any, n: int) -> None:
        for each in repeat(LINE[:-1], n):
            print(each, file=file)

    def lines(reader: Any) -> int:
        return sum(1 for _ in reader)

    def by_calls(reader: Any) -> int:
        found = 0
        while reader.readline():
            found += 1
        return found

    def small(reader: Any) -> int:
        found = 0
        while reader.read(len(LINE)):
            found += 1
        return found

    def into(reader: Any) -> int:
        buffer, found = bytearray(BLOCK), 0
        while count := reader.readinto(buffer):
            found += count
        return found // BLOCK

    def everything(reader: Any) -> int:
        return len(reader.read())

    bytes_line, crlf = LINE.encode(), LINE.replace("\n", "\r\n")
    found: dict[str, Callable[[int], object]] = {
        "pipe_lines": lambda n: through(n, "b", writing(bytes_line), lines),
        "pipe_text": lambda n: through(n, "", writing(LINE), lines),
        "pipe_readline": lambda n: through(n, "", writing(crlf), by_calls),
        "pipe_printed": lambda n: through(n, "", printing, lines),
        "pipe_small": lambda n: through(n, "b", writing(bytes_line), small),
        "pipe_readinto": lambda n: through(n, "b", writing(bytes(BLOCK)), into),
        "pipe_byte": lambda n: through(n, "b", writing(b"x"), everything),
        "pipe_byte_raw": lambda n: through(n, "b", writing(b"x"), everything, 0),
        "pipe_line_buffered": lambda n: through(n, "", writing(LINE), lines, 1),
        "pipe_posix": lambda n: through(n, "", writing(LINE), lines, opened=api.posix),
    }
    if api.fdopen is not None:
        found["fdopen_lines"] = lambda n: through(n, "b", writing(bytes_line), lines, opened=api.fdopen)
        found["fdopen_text"] = lambda n: through(n, "", writing(LINE), lines, opened=api.fdopen)
    return found


@contextmanager
def _file(size: int, content: bytes = b"") -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        while file.tell() < size:
            file.write(content)
        file.flush()
        yield file.name


def _regular(api: Any) -> dict[str, Callable[[int], object]]:
    stack: dict[str, Any] = {}

    def large(content: bytes) -> Any:
        """A file of 8 MB, made once, closed with the process."""
        key = content[:1].decode()
        if key not in stack:
            stack[key] = _file(8_000_000, content)
            stack[key + " name"] = stack[key].__enter__()
        return stack[key + " name"]

    def read(n: int, mode: str, opened: Callable[..., Any] = api.open) -> None:
        name, left = large(LINE.encode() * 100), n
        while left > 0:
            with opened(name, mode) as file:
                for _ in file:
                    left -= 1
                    if not left:
                        break

    def by_calls(n: int, mode: str, call: Callable[[Any], Any], content: bytes = LINE.encode() * 100) -> None:
        name, left = large(content), n
        while left > 0:
            with api.open(name, mode) as file:
                while left > 0 and call(file):
                    left -= 1

    def blocks(n: int) -> None:
        by_calls(n, "rb", lambda file: file.read(BLOCK), bytes(BLOCK))

    def into(n: int) -> None:
        buffer = bytearray(BLOCK)
        by_calls(n, "rb", lambda file: file.readinto(buffer), bytes(BLOCK))

    def written(n: int, buffering: int = -1, line: Any = LINE, opened: Callable[..., Any] = api.open) -> None:
        with _file(0) as name, opened(name, "w" if isinstance(line, str) else "wb", buffering) as file:
            for each in repeat(line, n):
                file.write(each)

    def printed(n: int) -> None:
        with _file(0) as name, api.open(name, "w") as file:
            for each in repeat(LINE[:-1], n):
                print(each, file=file)

    return {
        "file_lines": lambda n: read(n, "rb"),
        "file_text": lambda n: read(n, "r"),
        "file_blocks": blocks,
        "file_written": written,
        "file_readline": lambda n: by_calls(n, "r", lambda file: file.readline()),
        "file_small": lambda n: by_calls(n, "rb", lambda file: file.read(len(LINE))),
        "file_readinto": into,
        "file_printed": printed,
        "file_written_bytes": lambda n: written(n, line=LINE.encode()),
        "posix_text": lambda n: read(n, "r", api.posix),
        "thread_text": lambda n: read(n, "r", api.thread),
        "thread_written": lambda n: written(n, opened=api.thread),
        "thread_byte": lambda n: written(n, 0, b"x", api.thread),
    }


def _locals(api: Any) -> dict[str, Callable[[int], object]]:
    def get(n: int) -> None:
        mine = api.local()
        mine.value = 1
        for _ in repeat(None, n):
            mine.value  # noqa: B018

    def put(n: int) -> None:
        mine = api.local()
        for _ in repeat(None, n):
            mine.value = 1

    def made(n: int) -> None:
        class Mine(api.local):  # type: ignore[name-defined, misc]
            value = 1

        mine = Mine()
        mine.other = 1
        for _ in repeat(None, n):
            mine.value  # noqa: B018

    return {"local_get": get, "local_set": put, "local_class": made}
