"""weald.subprocess: the stdlib's behaviour, while other greenlets run; only the call that waits for a child reaps."""

import gc
import io
import os as stdlib_os
import signal
import subprocess as stdlib
import sys
import tracemalloc
from array import array
from unittest.mock import Mock

import psutil
import pytest
from helpers import PATIENCE, Thread, python, run_patched, settle, wait_until

import weald
from weald import os, socket, subprocess
from weald._base.pipes import read_shared
from weald._core import AsyncResult, spawn
from weald.fileobject import FileObjectPosix
from weald.subprocess import DEVNULL, PIPE, Popen

# The program of a child in these tests: quick to start.
PYTHON = [sys.executable, "-I", "-S", "-c"]


@pytest.fixture(params=["pidfd", "thread"])
def way(request, monkeypatch):
    """The way in which a child's end is noticed."""
    if request.param == "thread":

        def refuse(pid, flags=0):
            raise OSError(38, "Function not implemented")

        monkeypatch.setattr(stdlib_os, "pidfd_open", refuse)
    return str(request.param)


@pytest.fixture(autouse=True)
def leaves_nothing():
    """No child, no descriptor is left behind."""
    weald.sleep(0)
    gc.collect()  # what earlier tests have left is not counted
    before, children = len(stdlib_os.listdir("/proc/self/fd")), set(psutil.Process().children())
    yield
    assert not set(psutil.Process().children()) - children
    weald.sleep(0)
    assert len(stdlib_os.listdir("/proc/self/fd")) <= before


def cat(**options):
    """A child that copies its standard input to its standard output."""
    return Popen(["cat"], stdin=PIPE, stdout=PIPE, **options)


# ---------------------------------------------------------------- the API


def test_names():
    assert set(stdlib.__all__) <= set(subprocess.__all__)
    for name in subprocess.__all__:
        assert hasattr(subprocess, name), name
    assert issubclass(Popen, stdlib.Popen)
    for name in ("CalledProcessError", "CompletedProcess", "SubprocessError", "TimeoutExpired", "PIPE"):
        assert getattr(subprocess, name) is getattr(stdlib, name)
    assert subprocess.MAXFD > 3


def test_functions():
    assert subprocess.call(["sh", "-c", "exit 3"]) == 3
    assert subprocess.check_call(["true"]) == 0
    with pytest.raises(stdlib.CalledProcessError) as caught:
        subprocess.check_call(["sh", "-c", "exit 4"])
    assert caught.value.returncode == 4
    assert subprocess.check_output(["echo", "said"]) == b"said\n"
    assert subprocess.getoutput("echo a; echo b >&2") == "a\nb"
    assert subprocess.getstatusoutput("echo x; exit 5") == (5, "x")
    done = subprocess.run(["cat"], input="äöü\r\n", capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr) == (0, "äöü\n", "")
    with pytest.raises(stdlib.CalledProcessError):
        subprocess.run(["false"], check=True)


def test_functions_use_what_the_stdlibs_module_says_now(monkeypatch):
    seen = []
    fork_exec = stdlib._fork_exec  # type: ignore[attr-defined]

    def spy(*args):
        seen.append(args[0])
        return fork_exec(*args)

    monkeypatch.setattr(stdlib, "_fork_exec", spy)
    subprocess.run(["true"], close_fds=True, cwd="/", check=True)
    assert seen == [["true"]]


def test_functions_that_the_stdlibs_functions_call_do_not_block_either(monkeypatch):
    """From 3.15 on communicate() reads in a function of the module."""
    seen = []

    def spy(fd, size):
        seen.append(fd)
        return read_shared(fd, size)

    said = b"x" * 100_000
    with Popen(["cat"], stdin=PIPE, stdout=PIPE, stderr=PIPE) as child:
        monkeypatch.setitem(subprocess._globals, "os", subprocess._Over(stdlib_os, read=spy))
        assert child.communicate(said) == (said, b"")
    assert seen


def test_pipes_are_of_ios_classes():
    with cat() as child:
        assert isinstance(child.stdin, io.BufferedWriter)
        assert isinstance(child.stdout, io.BufferedReader)
        assert isinstance(child.stdout.raw, io.FileIO)
        assert child.stderr is None
    with cat(bufsize=0) as child:
        assert isinstance(child.stdin, io.FileIO)
        assert isinstance(child.stdout, io.FileIO)
    with cat(text=True, bufsize=1) as child:
        assert isinstance(child.stdin, io.TextIOWrapper) and child.stdin.line_buffering
        assert isinstance(child.stdout, io.TextIOWrapper)
    with pytest.warns(RuntimeWarning, match="line buffering"), cat(bufsize=1):
        pass


@pytest.mark.parametrize("bufsize", [-1, 0, 1, 7])
def test_lines_through_a_child(bufsize):
    with cat(text=bufsize != 0, bufsize=bufsize) as child:
        for line in ["one\n", "two\n"]:
            said = line if bufsize else line.encode()
            child.stdin.write(said)
            child.stdin.flush()
            assert child.stdout.readline() == said
        child.stdin.close()
        assert list(child.stdout) == []
    assert child.returncode == 0


def test_what_cannot_be_started():
    with pytest.raises(FileNotFoundError) as caught:
        subprocess.run(["/no/such/program"], stdout=PIPE)
    assert caught.value.filename == "/no/such/program"
    with pytest.raises(PermissionError):
        subprocess.run(["/etc/passwd"])
    with pytest.raises(NotADirectoryError):
        subprocess.run(["true"], cwd="/etc/passwd")
    with pytest.raises(TypeError, match="bufsize must be an integer"):
        subprocess.run(["true"], bufsize="large")  # type: ignore[call-overload]
    with pytest.raises(stdlib.SubprocessError, match="preexec_fn"):
        subprocess.run(["true"], preexec_fn=lambda: 1 / 0)


def test_stdout_cannot_be_stdout():
    with pytest.raises(ValueError, match="STDOUT can only be used for stderr"):
        subprocess.Popen(["true"], stdout=subprocess.STDOUT)


def test_environment_directory_and_descriptors(tmp_path):
    r, w = stdlib_os.pipe()
    other, _ = unwanted = stdlib_os.pipe()
    stdlib_os.set_inheritable(other, True)
    code = f"""
import os
os.write({w}, os.getcwd().encode())
try: os.fstat({other})
except OSError: pass
else: os._exit(1)
print(os.environ["NAME"], os.getpgrp() == os.getpid(), os.umask(0))
"""
    out = subprocess.check_output(
        [*PYTHON, code], env={"NAME": "value"}, cwd=tmp_path, pass_fds=(w,), process_group=0, umask=0o17, text=True
    )
    assert out == "value True 15\n"
    assert stdlib_os.read(r, 1000) == stdlib_os.fsencode(tmp_path)
    for fd in (r, w, *unwanted):
        stdlib_os.close(fd)


def test_process_group_is_signalled():
    with Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=PIPE, start_new_session=True) as child:
        assert child.stdout is not None
        int(child.stdout.readline())
        stdlib_os.killpg(child.pid, signal.SIGTERM)
        assert child.stdout.read() == b"", "the grandchild lives on"
        assert child.wait() == -signal.SIGTERM


def test_poll_terminate_kill():
    with cat() as child:
        assert child.poll() is None
        child.terminate()
        assert child.wait(PATIENCE) == -signal.SIGTERM
        assert child.poll() == -signal.SIGTERM
        child.kill()  # of what has ended does nothing
    with cat() as child:
        child.kill()
        assert child.wait() == -signal.SIGKILL


# ---------------------------------------------------------------- others run meanwhile


def test_others_run_while_children_do(io_loop, way):
    children = [cat() for _ in range(20)]
    waiters = [spawn(child.wait) for child in children]
    settle()
    assert not any(waiter.ready() for waiter in waiters)
    for child in reversed(children):
        child.stdin.close()
    assert [waiter.get() for waiter in waiters] == [0] * 20
    for child in children:
        child.stdout.close()


def test_reading_and_writing_park():
    amount = 1_000_000  # more than a pipe holds
    with cat() as child:
        reader = spawn(child.stdout.read)

        def write():
            child.stdin.write(bytes(amount))
            child.stdin.close()

        writer = spawn(write)
        assert reader.get() == bytes(amount)
        writer.get()


@pytest.mark.parametrize("text", [False, True])
def test_communicate(text):
    data = "x" * 300_000 if text else b"x" * 300_000
    code = "import sys; d = sys.stdin.buffer.read(); sys.stderr.write(d.decode()); sys.stdout.write(d.decode())"
    child = Popen([*PYTHON, code], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=text)
    assert child.communicate(data) == (data, data)
    assert child.returncode == 0


@pytest.mark.parametrize("options", [{}, {"stdout": PIPE}, {"stdout": PIPE, "stderr": PIPE}], ids=str)
def test_communicate_sends_all_of_a_view(options, tmp_path):
    """Its items may be larger than a byte; the standard library's sends as many bytes as there are items."""
    numbers = array("i", range(50000))
    with Popen(["tee", str(tmp_path / "got")], stdin=PIPE, **{"stdout": DEVNULL, **options}) as child:
        child.communicate(memoryview(numbers))
    assert (tmp_path / "got").read_bytes() == numbers.tobytes()
    with cat() as child:
        assert child.communicate(numbers)[0] == numbers.tobytes()
    with cat() as child, pytest.raises(TypeError):
        child.communicate(5)
    with cat() as child, pytest.raises((TypeError, BufferError)):
        child.communicate(memoryview(b"0123456789")[::2])


def test_communicate_writes_to_whatever_stdin_is():
    child = Popen(["true"])
    child.stdin = Mock()
    child.stdin.write.side_effect = BrokenPipeError
    child.communicate(b"stuff")
    child.stdin.write.assert_called_once_with(b"stuff")
    child.stdin.close.assert_called_once_with()


def test_communicate_with_a_timeout_can_be_called_again():
    child = Popen(["sh", "-c", "echo first; read x; echo $x"], stdin=PIPE, stdout=PIPE, text=True)
    child.stdin.write("second\n")  # written through only when communicate flushes
    stopped = Popen(["cat"], stdin=PIPE, stdout=PIPE)
    with pytest.raises(stdlib.TimeoutExpired) as caught:
        child_sleeping = Popen(["sh", "-c", "echo said; exec sleep 1000"], stdout=PIPE, stderr=PIPE)
        child_sleeping.communicate(timeout=0.05)
    while not caught.value.output:
        with pytest.raises(stdlib.TimeoutExpired) as caught:
            child_sleeping.communicate(timeout=0.05)
    assert caught.value.output == b"said\n"
    child_sleeping.kill()
    assert child_sleeping.communicate() == (b"said\n", b"")
    assert child.communicate(timeout=PATIENCE) == ("first\nsecond\n", None)
    assert stopped.communicate(b"x", timeout=PATIENCE) == (b"x", None)


def test_run_with_a_timeout_kills_the_child():
    with pytest.raises(stdlib.TimeoutExpired):
        subprocess.run(["sleep", "1000"], timeout=0.05)
    with pytest.raises(stdlib.TimeoutExpired):
        subprocess.check_output(["sleep", "1000"], timeout=0.05)
    with pytest.raises(stdlib.TimeoutExpired):
        subprocess.call(["sleep", "1000"], timeout=0.05)


def test_wait_with_a_timeout(way):
    with cat() as child:
        for _ in range(3):
            with pytest.raises(stdlib.TimeoutExpired):
                child.wait(0.01)
        child.stdin.close()
        assert child.wait(PATIENCE) == 0
        assert child.wait(0) == 0


def test_a_weald_timeout_ends_waiting_reading_and_writing():
    with cat() as child:
        with pytest.raises(weald.Timeout), weald.Timeout(0.01):
            child.wait()
        with pytest.raises(weald.Timeout), weald.Timeout(0.01):
            child.stdout.read(1)
        with pytest.raises(weald.Timeout), weald.Timeout(0.01):
            child.stdin.write(bytes(10_000_000))
        child.kill()
    with Popen(["sleep", "60"], stdout=PIPE, stderr=PIPE) as child:
        with pytest.raises(weald.Timeout), weald.Timeout(0.01):
            child.communicate()
        child.kill()


def test_killing_who_waits_leaves_the_child(way):
    with cat() as child:
        waiter = spawn(child.wait)
        settle()
        waiter.kill()
        assert child.poll() is None
        child.stdin.close()
        assert child.wait() == 0


def test_many_wait_for_one_child(way):
    with cat() as child:
        waiters = [spawn(child.wait) for _ in range(5)]
        settle()
        child.stdin.close()
        assert [waiter.get() for waiter in waiters] == [0] * 5


def test_greenlets_use_a_pipe_in_turn():
    with cat() as child:
        readers = [spawn(child.stdout.read, 3) for _ in range(3)]
        settle()
        child.stdin.write(b"aaabbbccc")
        child.stdin.close()
        assert [reader.get() for reader in readers] == [b"aaa", b"bbb", b"ccc"]


def test_greenlets_read_a_text_pipe_in_turn():
    with cat(text=True) as child:
        readers = [spawn(child.stdout.readline) for _ in range(3)]
        settle()
        child.stdin.write("a\nb\nc\n")
        child.stdin.close()
        assert [reader.get() for reader in readers] == ["a\n", "b\n", "c\n"]


def test_preexec_fn_may_take_its_time():
    """The parent's loop runs while the child starts."""
    r, w = stdlib_os.pipe()
    starter = spawn(subprocess.call, ["true"], preexec_fn=lambda: stdlib_os.read(r, 1), pass_fds=(r,))
    settle()
    assert not starter.ready()
    stdlib_os.write(w, b"x")
    assert starter.get() == 0
    stdlib_os.close(r)
    stdlib_os.close(w)


def test_500_children_at_once(way):
    """None of them ends before all have begun."""
    r, w = stdlib_os.pipe()
    begun = []

    def run():
        child = Popen(["cat"], stdin=r)
        begun.append(child)
        return child.wait()

    running = [spawn(run) for _ in range(500)]
    wait_until(lambda: len(begun) == 500)
    stdlib_os.close(r)
    stdlib_os.close(w)
    assert {greenlet.get() for greenlet in running} == {0}


def test_in_a_native_thread():
    assert Thread(subprocess.check_output, ["echo", "x"]).wait() == b"x\n"


# ---------------------------------------------------------------- who reaps whom


def test_only_who_waits_reaps(way):
    """Other code's children, ended long ago, are left to that code."""
    stranger = stdlib_os.posix_spawn("/bin/true", ["true"], {})
    wait_until(lambda: stdlib_os.waitid(stdlib_os.P_PID, stranger, stdlib_os.WEXITED | stdlib_os.WNOWAIT))
    for _ in range(5):
        subprocess.run(["true"], check=True)
    assert stdlib_os.waitpid(stranger, 0) == (stranger, 0)


def test_a_child_that_someone_else_reaps(way):
    with cat() as child:
        waiter = spawn(child.wait)
        settle()
        child.stdin.close()
        assert stdlib_os.waitpid(child.pid, 0)[0] == child.pid
        assert waiter.get() == 0, "as the stdlib has it: the status is not to be known any more"


def test_waiting_for_any_child_and_for_one(way):
    with cat() as child:
        other = stdlib_os.posix_spawnp("sh", ["sh", "-c", "exit 6"], dict(stdlib_os.environ))
        found = os.wait()
        assert (found[0], stdlib_os.waitstatus_to_exitcode(found[1])) == (other, 6)
        child.stdin.close()
        assert child.wait() == 0


def test_forgotten_children_are_reaped_later():
    with pytest.warns(ResourceWarning, match="still running"):
        child = cat()
        pipes = child.stdin, child.stdout
        del child
    for pipe in pipes:
        pipe.close()
    wait_until(lambda: (stdlib._cleanup(), not stdlib._active)[1])  # type: ignore[attr-defined]


# ---------------------------------------------------------------- pipes of others


def test_a_pipe_can_be_given_to_another_child():
    """It is blocking, because every program expects that of its standard input."""
    with Popen(["sh", "-c", "sleep 0.1; echo late"], stdout=PIPE) as first:
        with Popen(["cat"], stdin=first.stdout, stdout=PIPE) as second:
            assert second.communicate() == (b"late\n", None)
        assert first.stdout is not None and stdlib_os.get_blocking(first.stdout.fileno())


def test_devnull_and_files(tmp_path):
    with open(tmp_path / "out", "wb") as out:
        assert subprocess.run(["echo", "x"], stdout=out, stderr=DEVNULL, stdin=DEVNULL).returncode == 0
    assert (tmp_path / "out").read_text() == "x\n"


def test_a_childs_streams_are_blocking_whatever_ours_are():
    code = "import os; print([os.get_blocking(0), os.get_blocking(2)])"
    (ours, theirs), (read, write) = socket.socketpair(), stdlib_os.pipe()
    with FileObjectPosix(write, "wb", 0) as file, FileObjectPosix(read, "rb", 0) as back:
        assert not ours.get_inheritable() and not stdlib_os.get_blocking(ours.fileno())
        done = subprocess.run([*PYTHON, code], stdin=ours, stderr=file, stdout=PIPE)
        assert done.stdout == b"[True, True]\n"
        file.write(b"still ours")
        assert back.read(100) == b"still ours"
    ours.close()
    theirs.close()


# ---------------------------------------------------------------- gevent's extras


def test_rawlink_and_result():
    with cat() as child:
        called = AsyncResult()
        child.rawlink(called.set)
        settle()
        assert not child.result.ready()
        child.stdin.close()
        assert called.get() is child
        assert child.result.get() == 0


# ---------------------------------------------------------------- os.popen, patched


def test_os_popen():
    with os.popen("echo x; exit 3") as stream:
        lines = list(stream)
    assert lines == ["x\n"]
    stream = os.popen("cat >/dev/null; exit 3", "w")
    stream.write("x")
    assert stdlib_os.waitstatus_to_exitcode(stream.close()) == 3
    r, w = stdlib_os.pipe()
    with os.popen(f"cat /proc/{stdlib_os.getpid()}/fd/{r}") as stream:
        reader = spawn(stream.read)
        settle()
        assert not reader.ready()
        stdlib_os.write(w, b"x")
        stdlib_os.close(w)
        assert reader.get() == "x"
    stdlib_os.close(r)
    for bad in [(b"true",), ("true", "x"), ("true", "r", 0)]:
        with pytest.raises((TypeError, ValueError)):
            os.popen(*bad)


def test_patched_whatever_was_imported_before():
    out = run_patched(
        """
        import subprocess
        class Later(subprocess.Popen): pass
        def four(run):
            "What they run ends when a fifth greenlet says so."
            r, w = os.pipe()
            waiting = [weald.spawn(run, f"/proc/{os.getpid()}/fd/{r}") for _ in range(4)]
            weald.spawn(os.close, w)
            print(len([greenlet.get() for greenlet in waiting]))
        four(lambda pipe: Early(["cat", pipe]).wait())
        four(lambda pipe: Later(["cat", pipe]).wait())
        four(lambda pipe: Popen(["cat", pipe]).wait())
        four(lambda pipe: run(["cat", pipe]))
        four(lambda pipe: os.popen("cat " + pipe).close())
        early = Early(["true"])
        print(isinstance(early, subprocess.Popen), isinstance(early, Popen), early.wait())
        """,
        before="""
        import os, weald, subprocess
        from subprocess import Popen, run
        class Early(subprocess.Popen): pass
        """,
    )
    assert out.split() == ["4"] * 5 + ["True"] * 2 + ["0"]


def test_ctrl_c_reaches_parent_and_child():
    out = python(
        """
        import os, signal, weald
        from weald import subprocess
        child = subprocess.Popen(["sleep", "60"])
        weald.spawn_later(0.05, lambda: (child.send_signal(signal.SIGINT), os.kill(os.getpid(), signal.SIGINT)))
        try:
            child.wait()
        except KeyboardInterrupt:
            print("interrupted", child.wait())
        """
    )
    assert out == "interrupted -2\n"


@pytest.mark.parametrize(
    "take",
    [lambda child: child.communicate()[0], lambda child: child.stdout.read(), lambda child: child.stdout.raw.read()],
    ids=["communicate", "read", "raw"],
)
def test_a_childs_output_is_in_memory_once(io_loop, take):
    size = 16 * 2**20
    child = Popen(["head", "-c", str(size), "/dev/zero"], stdin=PIPE, stdout=PIPE)
    tracemalloc.start()
    try:
        assert len(take(child)) == size
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size  # chunks, joined at the end, took 2
    finally:
        tracemalloc.stop()
    child.communicate()


@pytest.mark.parametrize("options", [{}, {"text": True}, {"stderr": subprocess.PIPE}, {"stdin": subprocess.PIPE}])
def test_communicate_cut_short_loses_nothing(options):
    child = Popen(["sh", "-c", "printf abc; exec sleep 60"], stdout=PIPE, **options)
    running = weald.spawn(child.communicate)
    wait_until(lambda: getattr(child, "_fileobj2output", None) and any(child._fileobj2output.values()))
    running.kill()
    child.kill()
    assert child.communicate()[0] == ("abc" if "text" in options else b"abc")
    assert child.wait() == -9


@pytest.mark.parametrize("how", ["kill", "Timeout", "timeout"])
@pytest.mark.parametrize("options", [{}, {"stdout": PIPE}, {"stdout": PIPE, "stderr": PIPE, "text": True}], ids=str)
def test_communicate_cut_short_sends_all_its_input(io_loop, how, options, tmp_path):
    """The next call sends the rest; without it the child would wait for its end for good."""
    (tmp_path / "go").touch()
    stdlib_os.mkfifo(tmp_path / "begin")
    command = f"read x < {tmp_path}/begin; tee {tmp_path}/got"
    said = "z" * 500_000 if "text" in options else b"z" * 500_000
    child = Popen(["sh", "-c", command], stdin=PIPE, **{"stdout": DEVNULL, **options})
    if how == "kill":
        running = weald.spawn(child.communicate, said)
        settle()
        running.kill()
    elif how == "Timeout":
        with weald.Timeout(0.01, False):
            child.communicate(said)
    else:
        with pytest.raises(stdlib.TimeoutExpired):
            child.communicate(said, timeout=0.01)
    (tmp_path / "begin").write_text("\n")
    out = child.communicate(timeout=PATIENCE)[0]
    assert out == (said if "stdout" in options else None)
    assert (tmp_path / "got").stat().st_size == 500_000


def test_communicate_cut_short_while_it_flushes():
    """What the program wrote before is still in the buffer then, and fills the pipe."""
    child = Popen(["sh", "-c", "read x; cat"], stdin=PIPE, stdout=PIPE)
    fill = 65536 - 4096
    assert child.stdin.raw.write(b"-" * fill) == fill
    child.stdin.write(b"+" * 8000)
    running = weald.spawn(child.communicate, b"\nrest")
    settle()
    running.kill()
    assert child.communicate(timeout=PATIENCE)[0] == b"rest"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
@pytest.mark.parametrize("options", [{}, {"text": True}])
def test_communicate_returns_what_is_in_the_buffer_of_the_only_pipe(name, options):
    command = "seq 5" if name == "stdout" else "seq 5 >&2"
    child = Popen(command, shell=True, **{name: PIPE}, **options)
    first = getattr(child, name).readline()
    rest = child.communicate()[name == "stderr"]
    assert (first, rest) == (("1\n", "2\n3\n4\n5\n") if options else (b"1\n", b"2\n3\n4\n5\n"))
    assert child.returncode == 0


def test_communicate_refuses_the_only_pipe_if_it_is_closed():
    child = Popen(["true"], stdout=PIPE)
    child.stdout.close()
    with pytest.raises(ValueError, match="closed file"):
        child.communicate()
    assert child.wait() == 0


def test_an_unbuffered_pipe_refuses_what_it_is_not_open_for():
    with weald.Timeout(PATIENCE), cat(bufsize=0) as child:
        with pytest.raises(io.UnsupportedOperation):
            child.stdin.read(1)
        with pytest.raises(io.UnsupportedOperation):
            child.stdin.readinto(bytearray(1))
        with pytest.raises(io.UnsupportedOperation):
            child.stdout.write(b"x")
        for wrong in (b"x", "x", memoryview(bytearray(6))[::2]):
            with pytest.raises(TypeError):
                child.stdout.readinto(wrong)
        with pytest.raises(TypeError, match="should be integer"):
            child.stdout.read("x")


def test_text_says_that_it_is_written_through():
    with cat(text=True) as child:
        assert child.stdin.write_through and not child.stdout.write_through
        child.stdin.buffer.flush()
        assert child.stdin.write_through


def test_text_and_bytes_reach_the_child_in_the_order_they_were_written():
    with Popen(["cat"], stdin=PIPE, stdout=PIPE, text=True) as child:
        child.stdin.write("1 ")
        buffer = child.stdin.buffer
        buffer.write(b"2 ")
        child.stdin.write("3 ")
        buffer.write(b"4")
        child.stdin.close()
        assert child.stdout.read() == "1 2 3 4"


def test_the_buffer_of_a_child_that_has_gone_can_be_asked_for():
    with Popen(["true"], stdin=PIPE, text=True) as child:
        child.wait()
        child.stdin.write("lost")
        buffer = child.stdin.buffer
        with pytest.raises(BrokenPipeError):
            buffer.flush()
        with pytest.raises(BrokenPipeError):
            child.stdin.close()
    assert child.stdin.closed


def test_a_child_that_was_waited_for_is_ready_at_once():
    child = subprocess.Popen(["false"])
    child.wait()
    assert child.ready() and child.result.get(block=False) == 1
    linked = []
    child.rawlink(linked.append)
    settle()
    assert linked == [child]
