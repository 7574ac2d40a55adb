"""The rows of `files`: lines and blocks through children's pipes, pipes of one's own and regular files, and locals.

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
        return SimpleNamespace(subprocess=import_module("subprocess"), open=open, local=threading.local, spawn=_thread)
    part = {name: import_module(f"{package}.{name}") for name in ("subprocess", "fileobject", "local")}
    return SimpleNamespace(
        subprocess=part["subprocess"],
        open=part["fileobject"].FileObject,
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

    def written(n: int, line: Any, **options: Any) -> None:
        pipe, null = api.subprocess.PIPE, api.subprocess.DEVNULL
        child = api.subprocess.Popen(["cat"], stdin=pipe, stdout=null, **options)
        write = child.stdin.write
        for each in repeat(line, n):
            write(each)
        child.stdin.close()
        child.wait()

    return {
        "child_lines": lines,
        "child_text": lambda n: lines(n, text=True),
        "child_blocks": blocks,
        "child_written": lambda n: written(n, LINE, text=True),
        "child_written_at_once": lambda n: written(n, LINE, text=True, bufsize=1),
    }


def _pipes(api: Any) -> dict[str, Callable[[int], object]]:
    def through(n: int, mode: str, line: Any) -> None:
        read, write = os.pipe()
        reader, writer = api.open(read, "r" + mode), api.open(write, "w" + mode)

        def count() -> None:
            found = 0
            for _ in reader:
                found += 1
            assert found == n, (found, n)

        reading = api.spawn(count)
        for each in repeat(line, n):
            writer.write(each)
        writer.close()
        reading.join()
        reader.close()

    return {
        "pipe_lines": lambda n: through(n, "b", LINE.encode()),
        "pipe_text": lambda n: through(n, "", LINE),
    }


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

    def read(n: int, mode: str) -> None:
        name, left = large(LINE.encode() * 100), n
        while left > 0:
            with api.open(name, mode) as file:
                for _ in file:
                    left -= 1
                    if not left:
                        break

    def blocks(n: int) -> None:
        name, left = large(bytes(BLOCK)), n
        while left > 0:
            with api.open(name, "rb") as file:
                while left > 0 and file.read(BLOCK):
                    left -= 1

    def written(n: int) -> None:
        with _file(0) as name, api.open(name, "w") as file:
            for each in repeat(LINE, n):
                file.write(each)

    return {
        "file_lines": lambda n: read(n, "rb"),
        "file_text": lambda n: read(n, "r"),
        "file_blocks": blocks,
        "file_written": written,
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
