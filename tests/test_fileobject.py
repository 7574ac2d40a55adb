"""weald.fileobject: files, pipes, sockets and terminals as file objects whose calls let others run."""

import _socket
import errno
import gc
import io
import os
import pty
import signal
import sys
import threading
from array import array
from contextlib import closing
from pathlib import Path

import pytest
from helpers import PATIENCE, Thread, is_open, python, recorded_errors, run_patched, settle, wait_until

import weald
from weald import Timeout, socket
from weald._base.pipes import PIPE_BUF, fdopen, open_shared, write_shared
from weald.fileobject import FileObject, FileObjectBlock, FileObjectPosix, FileObjectThread
from weald.threadpool import ThreadPool, default

Ends = tuple[int, int]


@pytest.fixture
def pipe(io_loop):
    """(read, write); whatever the test has not closed is closed."""
    ends = os.pipe()
    identities = [os.fstat(fd) for fd in ends]
    yield ends
    for fd, identity in zip(ends, identities, strict=True):
        if is_open(fd) and os.path.samestat(os.fstat(fd), identity):
            os.close(fd)


def fill(fd):
    """Write until the pipe is full; return the number of bytes written."""
    blocking = os.get_blocking(fd)
    os.set_blocking(fd, False)
    total = 0
    try:
        while True:
            total += os.write(fd, bytes(65536))
    except BlockingIOError:
        return total
    finally:
        os.set_blocking(fd, blocking)


def failure(greenlet):
    greenlet.join(PATIENCE)
    assert greenlet.exception is not None, greenlet
    return greenlet.exception


KINDS = {"posix": FileObjectPosix, "thread": FileObjectThread}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
every_kind = pytest.mark.parametrize("kind", [*KINDS.values(), FileObjectBlock, FileObject])


# -------------------------------------------------------------------- pipes


@kinds
def test_reading_parks_until_something_comes(pipe, kind):
    read, write = pipe
    with kind(read, "rb", 0) as file:
        reading = weald.spawn(file.read, 10)
        settle()
        assert not reading.ready()
        os.write(write, b"x")
        assert reading.get(timeout=PATIENCE) == b"x"
    assert not is_open(read)


@kinds
def test_writing_parks_until_there_is_room(pipe, kind):
    read, write = pipe
    total = fill(write)
    with kind(write, "wb", 0) as file:
        writing = weald.spawn(file.write, b"end")
        settle()
        assert not writing.ready()
        with FileObjectPosix(read, "rb") as other:
            assert other.read(total) == bytes(total)
            assert writing.get(timeout=PATIENCE) == 3
            assert other.read(3) == b"end"


@kinds
def test_more_than_a_pipe_holds(pipe, kind):
    data = os.urandom(1_000_000)

    def write():
        with kind(pipe[1], "wb") as file:
            assert file.write(data) == len(data)

    writing = weald.spawn(write)
    with kind(pipe[0], "rb") as file:
        assert file.read() == data and file.read() == b""
    writing.get(timeout=PATIENCE)


@kinds
def test_every_way_to_read(pipe, kind):
    os.write(pipe[1], b"line 1\nline 2\nabcdefghij\nlast")
    os.close(pipe[1])
    with kind(pipe[0], "rb") as file:
        assert file.readline() == b"line 1\n" and next(file) == b"line 2\n"
        assert file.peek(1)[:1] == b"a" and file.read1(2) == b"ab" and file.read(2) == b"cd"
        buffer = bytearray(3)
        assert file.readinto(buffer) == 3 and buffer == b"efg"
        assert file.readlines() == [b"hij\n", b"last"] and list(file) == [] and file.readline() == b""


@kinds
def test_text(pipe, kind):
    with kind(pipe[1], "w", encoding="latin-1", newline="\r\n") as out:
        out.write("Grüße\n")
        out.writelines(["zwei\n", "drei"])
    with kind(pipe[0], encoding="latin-1") as file:
        assert file.encoding == "latin-1" and file.mode == "r"
        assert file.readline() == "Grüße\n" and list(file) == ["zwei\n", "drei"]


@kinds
def test_undecodable_text(pipe, kind):
    os.write(pipe[1], b"\xff\n\xff\n")
    os.close(pipe[1])
    with kind(pipe[0], "r", encoding="utf-8", errors="replace") as file:
        assert file.readline() == "\ufffd\n"


def test_line_buffering(pipe):
    read, write = pipe
    os.set_blocking(read, False)
    with FileObjectPosix(write, "w", 1) as file:
        file.write("part")
        with pytest.raises(BlockingIOError):
            os.read(read, 100)
        file.write(" and line\n")
        assert os.read(read, 100) == b"part and line\n"


@pytest.mark.parametrize(
    ("mode", "options"),
    [("rbt", {}), ("rb", {"encoding": "utf-8"}), ("rb", {"newline": "\n"}), ("r", {"buffering": 0}), ("x y", {})],
)
def test_modes_that_are_none(pipe, mode, options):
    with pytest.raises(ValueError):
        FileObjectPosix(pipe[0], mode, **options)
    assert is_open(pipe[0]) and os.get_blocking(pipe[0])
    with pytest.raises(ValueError):
        FileObjectThread(os.devnull, mode, **options)


@kinds
def test_greenlets_read_and_write_in_turn(pipe, kind):
    """A buffer entered twice at once would raise."""
    lines = {f"{number:05}\n".encode() for number in range(20_000)}
    with kind(pipe[1], "wb") as out, kind(pipe[0], "rb") as file:
        got = []

        def read():
            while line := file.readline():
                got.append(line)

        def write(some):
            for line in some:
                out.write(line)

        ordered = sorted(lines)
        count = 200 if kind is FileObjectThread else len(ordered)
        readers = [weald.spawn(read) for _ in range(2)]
        writers = [weald.spawn(write, ordered[start:count:3]) for start in range(3)]
        weald.joinall(writers, timeout=PATIENCE, raise_error=True)
        out.close()
        weald.joinall(readers, timeout=PATIENCE, raise_error=True)
    assert sorted(got) == ordered[:count]


def test_reader_and_writer_in_different_threads(pipe):
    def write():
        with FileObjectPosix(pipe[1], "wb") as out:
            for number in range(1000):
                out.write(b"%d\n" % number)
                out.flush()

    thread = Thread(write)
    with FileObjectPosix(pipe[0], "rb") as file:
        assert [int(line) for line in file] == list(range(1000))
    thread.wait()


def test_a_timeout_and_a_kill_leave_the_file_usable(pipe):
    with FileObjectPosix(pipe[0], "rb") as file:
        with pytest.raises(Timeout), Timeout(0.01):
            file.readline()
        reading = weald.spawn(file.read)
        settle()
        reading.kill()
        os.write(pipe[1], b"line\n")
        assert file.readline() == b"line\n"


# -------------------------------------------------------------------- closing


@pytest.mark.parametrize("buffering", [0, -1])
def test_closing_wakes_who_reads(pipe, buffering):
    file = FileObjectPosix(pipe[0], "rb", buffering)
    with recorded_errors():
        reading = weald.spawn(file.read, 1)
        settle()
        file.close()
        error = failure(reading)
    assert isinstance(error, OSError) and error.errno == errno.EBADF
    assert file.closed and not is_open(pipe[0])


def test_closing_wakes_who_writes_without_a_buffer(pipe):
    fill(pipe[1])
    file = FileObjectPosix(pipe[1], "wb", 0)
    with recorded_errors():
        writing = weald.spawn(file.write, b"x")
        settle()
        file.close()
        assert failure(writing).errno == errno.EBADF


@every_kind
@pytest.mark.parametrize("mode", ["rb", "wb"])
def test_closing_twice_and_use_after_it(pipe, kind, mode):
    file = kind(pipe[mode == "wb"], mode)
    assert not file.closed and file.fileno() == pipe[mode == "wb"]
    file.close()
    file.close()
    assert file.closed
    with pytest.raises(ValueError):
        file.read(1) if mode == "rb" else file.write(b"x")
    with pytest.raises(ValueError):
        file.fileno()


@every_kind
def test_closing_writes_what_is_buffered(pipe, kind):
    file = kind(pipe[1], "wb")
    file.write(b"buffered")
    file.close()
    assert os.read(pipe[0], 100) == b"buffered" and os.read(pipe[0], 100) == b""


def test_closing_parks_while_there_is_no_room_for_what_is_buffered(pipe):
    total = fill(pipe[1])
    file = FileObjectPosix(pipe[1], "wb")
    file.write(b"end")
    closing = weald.spawn(file.close)
    settle()
    assert not closing.ready() and is_open(pipe[1])
    with FileObjectPosix(pipe[0], "rb") as other:
        assert other.read() == bytes(total) + b"end"
    closing.get(timeout=PATIENCE)


@kinds
def test_closing_when_what_is_buffered_has_nowhere_to_go(pipe, kind):
    os.close(pipe[0])
    source = open(pipe[1], "wb", 0)
    file = kind(source, "wb") if kind is FileObjectPosix else kind(pipe[1], "wb")
    file.write(b"x")
    with pytest.raises(BrokenPipeError):
        file.close()
    assert file.closed and not is_open(pipe[1])
    file.close()
    if kind is FileObjectThread:
        with pytest.raises(OSError):
            source.close()


@kinds
def test_closefd(pipe, kind):
    with kind(pipe[1], "wb", closefd=False) as file:
        file.write(b"one")
    assert is_open(pipe[1]) and os.get_blocking(pipe[1]) and os.read(pipe[0], 100) == b"one"
    with kind(pipe[1], "wb") as file:
        file.write(b"two")
    assert not is_open(pipe[1]) and os.read(pipe[0], 100) == b"two"


def test_non_blocking_only_while_it_is_open(pipe):
    file = FileObjectPosix(pipe[0], "rb", closefd=False)
    assert not os.get_blocking(pipe[0])
    file.close()
    assert os.get_blocking(pipe[0])
    os.set_blocking(pipe[0], False)
    FileObjectPosix(pipe[0], "rb", closefd=False).close()
    assert not os.get_blocking(pipe[0])


def test_the_object_that_owned_the_descriptor_is_closed_with_it(pipe):
    source = open(pipe[0], "rb")
    with FileObjectPosix(source, "rb") as file:
        os.write(pipe[1], b"x")
        assert file.read(1) == b"x"
    assert source.closed and not is_open(pipe[0])
    source = open(pipe[1], "wb")
    FileObjectPosix(source, "wb", closefd=False).close()
    assert not source.closed and is_open(pipe[1])
    source.close()


def test_files_are_shown_as_those_of_the_standard_library():
    """By their class's name there; unpatched and patched."""
    code = """
        import os, re, socket, subprocess
        def show(file):
            for one in file, getattr(file, "buffer", None), getattr(file, "raw", None):
                print(re.sub(r"0x[0-9a-f]+|name=[0-9]+", "_", repr(one)))
        sock = socket.socket()
        for mode in "rb", "wb", "rwb", "r", "rw":
            show(sock.makefile(mode))
        show(sock.makefile("rwb", 0))
        for options in {}, {"bufsize": 0}, {"text": True}:
            with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as child:
                show(child.stdin)
                show(child.stdout)
            show(child.stdout)
        for end, mode in zip(os.pipe(), ("rb", "w")):
            show(os.fdopen(end, mode))
        nameless = sock.makefile("rb")
        nameless.detach()
        print(repr(nameless))
        """
    assert run_patched(code) == python(code)


def test_its_name_is_that_of_what_it_was_given(pipe):
    class Nameless:
        def fileno(self):
            return pipe[0]

        def close(self): ...

    with FileObjectPosix(pipe[0], "rb", closefd=False) as file:
        assert file.name == pipe[0]
    with open(pipe[0], "rb", closefd=False) as source, FileObjectPosix(source, "rb", closefd=False) as file:
        assert file.name == source.name
    with FileObjectPosix(Nameless(), "rb") as file:
        assert not hasattr(file, "name")


def test_what_may_be_written_without_a_buffer(pipe):
    with FileObjectPosix(pipe[1], "wb", 0) as file:
        data = memoryview(b"abcdef")[::2]
        with pytest.raises(BufferError):
            file.write(data)  # its bytes do not lie side by side
        with pytest.raises(TypeError):
            file.write("text")
        assert file.write(b"") == 0
        assert [file.write(kind(b"ab")) for kind in (bytes, bytearray, memoryview)] == [2, 2, 2]
        assert file.write(array("i", [1, 2])) == 8  # in bytes
        assert os.read(pipe[0], 100) == b"ababab" + array("i", [1, 2]).tobytes()
        assert file.write(bytes(5000)) == 5000  # more than is written with the GIL held


def test_writing_a_part_without_a_buffer(pipe):
    """There is room for one page."""
    total = fill(pipe[1])
    os.read(pipe[0], 4096)
    with FileObjectPosix(pipe[1], "wb", 0) as file:
        assert file.write(bytes(6000)) == 4096
        writing = weald.spawn(file.write, b"x")
        settle()
        assert not writing.ready()
        assert len(os.read(pipe[0], total)) == total
        assert writing.get(timeout=PATIENCE) == 1


@pytest.mark.parametrize("size", [1, 100_000])
def test_errors_of_a_write_without_a_buffer(pipe, size):
    with FileObjectPosix(pipe[1], "wb", 0) as file:
        os.close(pipe[0])
        for _ in range(2):
            with pytest.raises(BrokenPipeError):
                file.write(bytes(size))
    full = os.open("/dev/full", os.O_WRONLY)
    with FileObjectPosix(full, "wb", 0) as file:
        for _ in range(2):
            with pytest.raises(OSError) as caught:
                file.write(bytes(size))
            assert caught.value.errno == errno.ENOSPC
    reader, writer = os.pipe()
    with FileObjectPosix(writer, "wb", 0, closefd=False) as file:
        os.close(writer)
        with pytest.raises(OSError) as caught:
            file.write(bytes(size))
        assert caught.value.errno == errno.EBADF
        os.dup2(reader, writer)  # for `close`
    os.close(reader)
    os.close(writer)


def test_a_write_without_a_buffer_where_the_system_cannot_tell(io_loop):
    """An eventfd knows no RWF_NOWAIT; the kernel adds up the numbers written."""
    counter = os.eventfd(0)
    with FileObjectPosix(counter, "wb", 0) as file:
        for number in (1, 2, 3):
            assert file.write(number.to_bytes(8, sys.byteorder)) == 8
        assert os.eventfd_read(counter) == 6


def test_a_signal_of_a_write_to_a_pipe_without_readers():
    """A program that has SIGPIPE's default action ends by it."""
    python(
        """
        import os, signal
        from weald.fileobject import FileObjectPosix
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        reader, writer = os.pipe()
        os.close(reader)
        FileObjectPosix(writer, "wb", 0).write(b"x")
        """,
        expect=-signal.SIGPIPE,
    )


def test_another_process_makes_a_full_pipe_blocking(pipe):
    """Then a write may wait in the system, but no other thread does: else none could make room."""
    total = fill(pipe[1])
    with FileObjectPosix(pipe[1], "wb", 0) as file:
        os.set_blocking(pipe[1], True)  # the flag belongs to all processes that share the pipe
        writer = threading.get_native_id()

        def read():
            while Path(f"/proc/self/task/{writer}/stat").read_text().rpartition(")")[2].split()[0] != "S":
                pass  # until the writer waits
            return os.read(pipe[0], total)

        reading = Thread(read)
        assert file.write(b"x") == 1
        assert len(reading.result()) == total


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_a_file_without_a_buffer_writes_messages(kind):
    a, b = _socket.socketpair(_socket.AF_UNIX, getattr(_socket, kind))
    with closing(a), closing(b), FileObjectPosix(a.fileno(), "wb", 0, closefd=False) as file:
        for message in (b"one", b"", bytes(10_000)):
            assert file.write(message) == len(message)
            assert b.recv(20_000) == message


def test_a_shared_file_is_blocking_for_others_and_parks_here(pipe):
    reader, writer = FileObjectPosix(pipe[0], "rb", 0), FileObjectPosix(pipe[1], "wb", 0)
    for file in (reader, writer):
        file.share()
        assert os.get_blocking(file.fileno())
    data = os.urandom(300_000)  # more than a pipe holds

    def write():
        rest = memoryview(data)
        while rest:
            rest = rest[writer.write(rest) :]
        writer.close()

    reading = weald.spawn(reader.readall)
    settle()
    assert not reading.ready()
    writing = weald.spawn(write)
    assert reading.get(timeout=PATIENCE) == data
    writing.get(timeout=PATIENCE)
    reader.close()


@pytest.mark.parametrize("kind", [FileObjectPosix, FileObjectThread, FileObjectBlock])
def test_a_derived_class_may_call_supers_methods(tmp_path, kind):
    class Counting(kind):
        calls = 0

        def write(self, data):
            self.calls += 1
            return super().write(data)

    with Counting(str(tmp_path / "x"), "w") as file:
        file.write("one")
        file.write("two")
        assert file.calls == 2
    assert (tmp_path / "x").read_text() == "onetwo"


@pytest.mark.parametrize("kind", [FileObjectPosix, FileObjectThread, FileObjectBlock])
def test_attributes_are_those_of_ios_file(tmp_path, kind):
    with kind(str(tmp_path / "x"), "w", encoding="latin-1") as text, kind(str(tmp_path / "y"), "wb") as binary:
        assert (text.encoding, text.mode, text.line_buffering, text.isatty()) == ("latin-1", "w", False, False)
        assert text.buffer.raw.mode == binary.raw.mode == "wb"
        assert text.name == str(tmp_path / "x")
        assert not hasattr(binary, "encoding") and not hasattr(binary, "_more") and not hasattr(text, "getvalue")
        binary.comment = "its own"
        assert binary.comment == "its own"


@every_kind
def test_a_dropped_file_closes_its_descriptor(pipe, kind):
    file = kind(pipe[1], "wb")
    file.write(b"x")
    with pytest.warns(ResourceWarning):
        del file
        gc.collect()
    assert not is_open(pipe[1]) and os.read(pipe[0], 10) == b"x"


# -------------------------------------------------------------------- sockets, terminals


def test_a_socket(io_loop):
    a, b = socket.socketpair()
    with a, FileObject(b, "rb") as file:
        assert isinstance(file, FileObjectPosix)
        reading = weald.spawn(file.readline)
        settle()
        a.sendall(b"line\n")
        assert reading.get(timeout=PATIENCE) == b"line\n"
    assert b.fileno() == -1


def test_a_terminal(io_loop):
    controller, terminal = pty.openpty()
    with FileObject(controller, "rb", 0) as mine, FileObject(terminal, "w") as file:
        assert isinstance(mine, FileObjectPosix) and isinstance(file, FileObjectPosix) and file.isatty()
        reading = weald.spawn(mine.read, 100)
        settle()
        file.write("line\n")  # line-buffered, as it is a terminal
        assert reading.get(timeout=PATIENCE) == b"line\r\n"


# -------------------------------------------------------------------- regular files


@pytest.mark.parametrize("kind", [FileObject, FileObjectThread, FileObjectBlock])
def test_a_path(tmp_path, kind):
    path = tmp_path / "file"
    with kind(path, "w+", encoding="utf-8") as file:
        assert file.write("Grüße\nzwei\n") == 11
        file.seek(0)
        assert file.readlines() == ["Grüße\n", "zwei\n"] and file.tell() == 13
        file.truncate(7)
    with kind(str(path), "rb") as file:
        assert file.read() == "Grüße".encode() and file.name == str(path)
    with pytest.raises(FileNotFoundError):
        kind(tmp_path / "none")


def test_what_fits():
    read, write = os.pipe()
    files = [FileObject(read, "rb"), FileObject(write, "wb"), FileObject(os.devnull), FileObject(__file__)]
    expected = [FileObjectPosix, FileObjectPosix, FileObjectThread, FileObjectThread]
    assert [type(file) for file in files] == expected
    for file in files:
        file.close()
    with open(__file__) as source:
        assert isinstance(FileObject(source.fileno(), closefd=False), FileObjectThread)


@every_kind
def test_a_regular_files_descriptor(tmp_path, kind):
    fd = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    with kind(fd, "r+b") as file:
        file.write(b"abc")
        file.seek(1)
        assert file.read() == b"bc"
    assert not is_open(fd)


def test_wrapping_an_open_file(tmp_path):
    source = (tmp_path / "file").open("w+")
    with FileObjectThread(source) as file:
        file.write("abc")
        assert file.seek(0) == 0 and file.read() == "abc" and file.seekable() and file.name == source.name
    assert source.closed
    source = (tmp_path / "file").open("a")
    with FileObjectThread(source, closefd=False) as file:
        file.write("def")
    assert not source.closed and (tmp_path / "file").read_text() == "abcdef"
    source.close()


class SlowFile(io.BytesIO):
    """Blocks its thread in `read` until `go` is set, and records the thread."""

    def __init__(self):
        super().__init__(b"data")
        self.go = threading.Event()
        self.entered = 0
        self.thread = None

    def fileno(self):
        raise OSError("none")

    def read(self, size=-1, /):
        self.entered += 1
        self.thread = threading.get_ident()
        assert self.go.wait(PATIENCE), "the loop was blocked"
        return super().read(size)


@pytest.mark.parametrize("kind", [FileObjectThread, FileObjectBlock])
def test_a_given_object_keeps_its_further_attributes(tmp_path, kind):
    class Known(io.FileIO):
        def greet(self, whom):
            return f"Hello {whom}, this is {self.comment}"

    source = Known(tmp_path / "file", "w")
    source.comment = "a file"
    with kind(source) as file:
        assert file.greet("you") == "Hello you, this is a file" and file.comment == "a file"
        assert isinstance(file, kind) and repr(file).startswith(f"<{kind.__name__} ")
        assert type(kind(source, closefd=False)) is type(file)
        with pytest.raises(AttributeError, match="'Known' object has no attribute 'farewell'"):
            file.farewell()
    assert not hasattr(kind(str(tmp_path / "file")), "greet")


def test_others_run_while_a_file_blocks():
    slow = SlowFile()
    file = FileObjectThread(slow)
    weald.spawn(slow.go.set)
    assert file.read() == b"data" and slow.thread != threading.get_ident()


def test_one_call_at_a_time_is_made_on_a_file_in_a_thread():
    slow = SlowFile()
    file = FileObjectThread(slow)
    reading = [weald.spawn(file.read, 2) for _ in range(2)]
    wait_until(lambda: slow.entered)
    settle()
    default().apply(int)  # what was handed to the pool before has begun
    assert slow.entered == 1
    slow.go.set()
    weald.joinall(reading, timeout=PATIENCE, raise_error=True)
    assert [greenlet.value for greenlet in reading] == [b"da", b"ta"]


def test_a_thread_pool_of_ones_own(tmp_path):
    pool = ThreadPool(1)
    with FileObjectThread(tmp_path / "file", "wb", threadpool=pool) as file:
        file.write(b"x")
        assert pool.size == 1
    pool.kill()


# -------------------------------------------------------------------- pipes shared with other processes


def test_shared_ends_stay_blocking(pipe):
    read, write = pipe
    with open_shared(read, "rb") as file:
        reading = weald.spawn(file.readline)
        settle()
        assert not reading.ready() and os.get_blocking(read)
        with open_shared(write, "wb") as out:
            out.write(b"line\n")  # type: ignore[attr-defined]
            out.flush()
            assert reading.get(timeout=PATIENCE) == b"line\n" and os.get_blocking(write)
    assert not is_open(read) and not is_open(write)


WRITES = {
    "buffered": lambda file, data: (file.write(data), file.flush()),
    "raw": lambda file, data: [file.write(data[start : start + 4096]) for start in range(0, len(data), 4096)],
}


@pytest.mark.parametrize("kind", list(WRITES))
def test_more_than_a_shared_pipe_holds(pipe, kind):
    data = os.urandom(4096 * 100)

    def write():
        with open_shared(pipe[1], "wb", 0 if kind == "raw" else -1) as out:
            WRITES[kind](out, data)

    writing = weald.spawn(write)
    with open_shared(pipe[0], "rb", 0 if kind == "raw" else -1) as file:
        assert file.read() == data  # type: ignore[attr-defined]
    writing.get(timeout=PATIENCE)


# -------------------------------------------------------------------- os.fdopen

FDOPEN = """
import os, socket, subprocess, threading
from contextlib import suppress
def later(fd, *parts):
    def run():
        for part in parts:
            threading.Event().wait(0.005)
            os.write(fd, part)
        os.close(fd)
    threading.Thread(target=run).start()
for args in [("rb",), ("rb", 0), ("r",), ("r", 1), ("rt", 100, "utf-8", "replace", "\\n"), ("br", 10)]:
    r, w = os.pipe()
    later(w, b"on", b"e\\ntw\\xc3\\xa9o\\r\\n", b"rest")
    with os.fdopen(r, *args) as file:
        print(args, file.mode, file.name == r, file.readline(), file.read(2), file.read(), file.read(), file.isatty())
    print(file.closed)
for args in [("wb",), ("wb", 0), ("w",), ("w", 1), ("ab",), ("a",), ("a+b", 0)]:
    r, w = os.pipe()
    read = []
    def drain():
        while data := os.read(r, 99999):
            read.append(len(data))
        os.close(r)
    thread = threading.Thread(target=drain)
    thread.start()
    with os.fdopen(w, *args) as file:
        print(args, file.mode, file.write((b"x" if "b" in args[0] else "x") * 300001))
    thread.join()
    print(sum(read))
r, w = os.pipe()
for args in [("x",), ("rw",), ("rbt",), ("rb", -1, "utf-8"), ("r", 0), ("r", -1, None, None, "x")]:
    try:
        os.fdopen(r, *args, closefd=False)
    except Exception as error:
        print(args, type(error).__name__, error)
for fd in ("1", -1, 10**6):
    try:
        os.fdopen(fd)
    except Exception as error:
        print(type(error).__name__, error)
try:
    os.fdopen(r, "r", encoding="no such")
except LookupError as error:
    print(error)
try:
    os.fstat(r)
except OSError as error:
    print(error)
with os.fdopen(w, "wb", 0) as file:
    try:
        file.write(bytes(100000))
    except BrokenPipeError as error:
        print(error)
r, w = os.pipe()
for args in [("rb+",), ("r+",), ("r+", 0), ("a+",), ("r", "x"), ("++",)]:
    try:
        os.fdopen(r, *args, closefd=False)
    except Exception as error:
        print(args, type(error).__name__, error)
os.close(w)
a, b = socket.socketpair()
with os.fdopen(os.dup(a.fileno()), "r+b", 0) as file:
    later(b.detach(), b"to both")
    print(file.mode, file.read(9), file.readable(), file.writable())
child = subprocess.Popen("cat", stdin=-1, stdout=-1, bufsize=0)
read = []
thread = threading.Thread(target=lambda: read.append(child.stdout.read()))
thread.start()
print(child.stdin.write(bytes(200000)))
child.stdin.close()
thread.join()
print(len(read[0]), child.wait())
"""


def test_fdopen_is_the_stdlibs_but_lets_others_run():
    """The result is the same patched and unpatched; if a read blocked everything, the test would hang."""
    assert run_patched(FDOPEN) == python(FDOPEN)


def test_nothing_to_read_or_write_needs_no_waiting(pipe):
    r, w = pipe
    with Timeout(PATIENCE), open_shared(r, "rb", 0, closefd=False) as empty:
        assert empty.read(0) == b""
        assert empty.readinto(bytearray()) == 0
    fill(w)
    with Timeout(PATIENCE), open_shared(w, "wb", 0, closefd=False) as full:
        assert full.write(b"") == 0


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_SEQPACKET"])
def test_a_shared_file_writes_a_message_as_one(kind):
    a, b = _socket.socketpair(_socket.AF_UNIX, getattr(_socket, kind))
    with closing(a), closing(b), open_shared(a.fileno(), "wb", 0, closefd=False) as file:
        assert file.write(bytes(10_000)) == 10_000
        assert b.recv(20_000) == bytes(10_000)


def test_fdopen_of_a_socket():
    out = run_patched(
        """
        import os, socket, threading
        a, b = socket.socketpair()
        with os.fdopen(os.dup(a.fileno()), "rb") as file:
            threading.Timer(0.01, b.sendall, (b"line\\n",)).start()
            print(file.readline())
        """
    )
    assert out == "b'line\\n'\n"


def test_calls_on_a_file_in_a_thread_that_needs_no_lock():
    """They run at the same time."""
    slow = SlowFile()
    file = FileObjectThread(slow, lock=False)
    reading = [weald.spawn(file.read, 2) for _ in range(2)]
    wait_until(lambda: slow.entered == 2)
    slow.go.set()
    weald.joinall(reading, timeout=PATIENCE, raise_error=True)
    assert sorted(greenlet.value for greenlet in reading) == [b"da", b"ta"]


# -------------------------------------------------------------------- regular files: which calls take a thread


class CountingPool(ThreadPool):
    """Counts its calls."""

    calls = 0

    def _spawn(self, *args, **kwargs):
        self.calls += 1
        return super()._spawn(*args, **kwargs)


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_lines_that_the_buffer_has_take_no_thread(tmp_path, mode):
    (tmp_path / "file").write_text("a line\n" * 20_000)
    pool = CountingPool(2)
    with FileObjectThread(tmp_path / "file", mode, threadpool=pool) as file:
        assert sum(1 for _ in file) == 20_000
    assert pool.calls < 10
    pool.kill()


def test_written_lines_take_a_thread_once_a_bufferful(tmp_path):
    pool = CountingPool(2)
    with FileObjectThread(tmp_path / "file", "w", threadpool=pool) as file:
        for _ in range(20_000):
            file.write("a line\n")
    assert (tmp_path / "file").read_text() == "a line\n" * 20_000
    assert pool.calls < 50
    pool.kill()


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_killed_reader_of_a_file_in_a_thread_loses_nothing(pipe, buffering):
    """The thread goes on reading when its caller has gone; the next caller gets the data."""
    with FileObjectThread(pipe[0], "rb", buffering) as file:
        leaving = weald.spawn(file.read, 3)
        settle()
        leaving.kill()
        reading = weald.spawn(file.read, 3)
        os.write(pipe[1], b"abcdef")
        assert reading.get(timeout=PATIENCE) == b"abc"
        os.close(pipe[1])
        assert file.read() == b"def" and file.read() == b""


def test_where_a_file_stands_after_a_killed_read(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(bytes(range(200)))
    with FileObjectThread(tmp_path / "file", "rb", 0) as file:
        monkeypatch.setattr(file._io, "_at_once", False)
        assert file.read(10) == bytes(range(10))
        reading = weald.spawn(file.read, 50)
        weald.sleep(0)  # it waits for the thread
        reading.kill()
        assert file.tell() == 10 and file.read(3) == bytes([10, 11, 12])
        assert file.seek(5, os.SEEK_CUR) == 18 and file.readall() == bytes(range(18, 200))


def test_a_killed_writer_of_a_file_in_a_thread_writes_nothing_twice(pipe):
    total = fill(pipe[1])
    with FileObjectThread(pipe[1], "wb") as file:
        file.write(b"once")
        writing = weald.spawn(file.flush)
        settle()
        writing.kill()  # the thread goes on waiting for room
        file.write(b" and more")
        with FileObjectPosix(pipe[0], "rb") as reader:
            closing = weald.spawn(file.close)
            assert reader.read() == bytes(total) + b"once and more"
            closing.get(timeout=PATIENCE)


def test_a_fast_writer_lets_others_run():
    """A pipe that always has data, or room, does not keep the file's greenlet from letting others run."""
    out = run_patched(
        """
        import subprocess, threading
        child = subprocess.Popen(["yes"], stdout=subprocess.PIPE)
        cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        stop = []
        thread = threading.Thread(target=lambda: stop.append(1))
        thread.start()
        while not stop:
            cat.stdin.write(child.stdout.readline() * 4096)
        child.kill()
        cat.stdin.close()
        child.wait(), cat.wait(), thread.join()
        print("stopped")
        """
    )
    assert out == "stopped\n"


def test_who_writes_text_while_another_waits_for_room_loses_nothing():
    out = run_patched(
        """
        import subprocess, threading
        child = subprocess.Popen(["sh", "-c", "read go; cat"], stdin=-1, stdout=-1, text=True)
        child.stdin.write("go\\n")
        lines = {f"{number:05} {'x' * 80}\\n" for number in range(6000)}
        def write(some):
            for line in some:
                child.stdin.write(line)
        threads = [threading.Thread(target=write, args=(sorted(lines)[start::3],)) for start in range(3)]
        got = []
        threads.append(threading.Thread(target=lambda: got.extend(child.stdout)))
        for thread in threads:
            thread.start()
        for thread in threads[:3]:
            thread.join()
        child.stdin.close()
        threads[3].join()
        print(len(got), set(got) == lines, child.wait())
        """
    )
    assert out == "6000 True 0\n"


def test_a_text_is_closed_when_its_file_is(pipe, tmp_path):
    read, write = pipe
    a, b = socket.socketpair()
    texts = [fdopen(read), FileObject(write, "w")._io, a.makefile("w"), FileObject(tmp_path / "file", "w")._io]
    for text in texts:
        assert not text.closed
        text.buffer.raw.close()
        assert text.closed
        with pytest.raises(ValueError, match="closed file"):
            text.flush()
        with pytest.raises(AttributeError):
            text.closed = False
    a.close()
    b.close()


def test_a_text_without_a_buffer_is_neither_open_nor_closed(tmp_path):
    text = FileObject(tmp_path / "file", "w")._io
    text.write("x")
    with text.detach():
        with pytest.raises(ValueError, match="detached"):
            _ = text.closed
        with pytest.raises(ValueError, match="detached"):
            text.write("y")
    assert (tmp_path / "file").read_text() == "x"


def test_write_shared_writes_what_there_is_room_for(pipe):
    read, write = pipe
    assert write_shared(write, memoryview(bytes(PIPE_BUF * 4))) == PIPE_BUF * 4
    total = PIPE_BUF * 4 + fill(write)
    assert os.get_blocking(write)
    assert write_shared(write, memoryview(b"x")) == 0
    os.read(read, total)
    assert write_shared(write, memoryview(b"x")) == 1
    os.close(read)
    with pytest.raises(BrokenPipeError):
        write_shared(write, memoryview(b"x"))
