"""weald.builtins: input waits for its line while others run."""

import contextlib
import os
import pty
import socket
import subprocess
import sys

import pytest
from helpers import PATIENCE

PROGRAM = """
import weald.monkey; weald.monkey.patch_all()
import os, sys, weald
other = weald.spawn(lambda: print("others run; stdin blocks:", os.get_blocking(0), flush=True))
first = {first}
print("first", repr(first), flush=True)
try:
    print("line", repr(input("prompt> ")), flush=True)
    print("line", repr(input()), flush=True)
    print("line", repr(input()), flush=True)
except EOFError as error:
    print("end", error)
"""  # "others run" once the main greenlet parks
OTHERS = "others run; stdin blocks: True\n"


class Program:
    """PROGRAM, with a standard input that the test writes to."""

    def __init__(self, stdin, first="None"):
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(first=first)],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        self.stdout = self.process.stdout

    def reads(self, text):
        assert self.stdout.read(len(text.encode())).decode() == text

    def ends(self, text):
        assert self.stdout.read().decode() == text
        self.stdout.close()
        assert self.process.wait(PATIENCE) == 0


@pytest.fixture
def pipe():
    ends = list(os.pipe())
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass


def test_a_pipe(pipe):
    """Lines in pieces, several at once, and one that the end cuts off; the pipe stays blocking."""
    program = Program(pipe[0])
    program.reads("first None\nprompt> " + OTHERS)
    os.write(pipe[1], b"begin")
    os.write(pipe[1], b"ning and end\nsecond\nthi")
    program.reads("line 'beginning and end'\nline 'second'\n")
    os.write(pipe[1], b"rd")
    os.close(pipe[1])
    program.ends("line 'third'\n")
    assert os.get_blocking(pipe[0])


def test_what_sys_stdin_has_read_already_is_not_waited_for(pipe):
    os.write(pipe[1], b"one\ntwo\nthree\n")
    program = Program(pipe[0], first="sys.stdin.readline()")
    program.reads("first 'one\\n'\nprompt> line 'two'\n")
    program.reads("line 'three'\n" + OTHERS)
    os.close(pipe[1])
    program.ends("end EOF when reading a line\n")


def test_who_shares_the_pipe_does_not_notice(pipe):
    """Its description does not become non-blocking, not even while it is read."""
    os.write(pipe[1], b"one\ntw")
    look = (
        "shared = os.dup(0), sys.stdin.readline\n"
        "sys.stdin = type('', (), {'fileno': lambda self: 0, 'readline': lambda self: "
        "print(os.get_blocking(shared[0]), os.get_blocking(0), flush=True) or shared[1]()})()"
    )
    program = Program(pipe[0], first=f"exec({look!r}, globals())")
    program.reads("first None\nprompt> True False\nline 'one'\nTrue False\n" + OTHERS)
    os.write(pipe[1], b"o\n")
    program.reads("True False\nline 'two'\nTrue False\n")
    os.close(pipe[1])
    program.ends("True False\nend EOF when reading a line\n")


def test_a_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        program = Program(theirs.fileno())
        program.reads("first None\nprompt> " + OTHERS)
        ours.send(b"one\ntwo\n")
        program.reads("line 'one'\nline 'two'\n")
        ours.shutdown(socket.SHUT_WR)
        program.ends("end EOF when reading a line\n")
        assert os.get_blocking(theirs.fileno())


def test_a_file(tmp_path):
    (tmp_path / "lines").write_text("one\ntwo")
    with open(tmp_path / "lines", "rb") as file:
        program = Program(file.fileno())
        program.reads("first None\nprompt> line 'one'\n")
        program.ends("line 'two'\nend EOF when reading a line\n")


def test_a_terminal():
    outer, inner = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", PROGRAM.format(first=None)], stdin=inner, stdout=inner, stderr=2)
    os.close(inner)

    seen = ""

    def reads(text):
        nonlocal seen
        while text not in seen:
            seen += os.read(outer, 1000).decode()
        seen = seen.partition(text)[2]

    reads("prompt> ")
    reads("others run")
    os.write(outer, b"typed\n")
    reads("line 'typed'")
    os.write(outer, b"again\n")
    reads("line 'again'")
    os.write(outer, b"\x04")  # the end
    reads("end")
    assert process.wait(PATIENCE) == 0
    os.close(outer)


def test_what_is_no_file(monkeypatch):
    import io

    from weald import builtins

    monkeypatch.setattr(sys, "stdin", io.StringIO("one\ntwo\n"))
    assert (builtins.input(), builtins.input()) == ("one", "two")
    with pytest.raises(EOFError):
        builtins.input()


def test_a_character_that_comes_in_pieces(pipe):
    """The first of them behind a line's end, too, where sys.stdin's buffer has it already."""
    program = Program(pipe[0])
    program.reads("first None\nprompt> " + OTHERS)
    os.write(pipe[1], b"caf\xc3")
    assert program.process.poll() is None
    os.write(pipe[1], b"\xa9\nna\xc3")
    program.reads("line 'caf\N{LATIN SMALL LETTER E WITH ACUTE}'\n")
    os.write(pipe[1], b"\xafve\r\n")
    program.reads("line 'na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve'\n")
    os.close(pipe[1])
    program.ends("end EOF when reading a line\n")


class Terminal:
    """A program on a terminal."""

    def __init__(self, program):
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.environ.update(TERM="dumb", INPUTRC="/dev/null")
            os.execv(sys.executable, [sys.executable, "-c", program])
        self.unread = ""

    def reads(self, text):
        """Read up to `text`; return the text before it."""
        while text not in self.unread:
            self.unread += os.read(self.fd, 1000).decode()
        before, _, self.unread = self.unread.partition(text)
        return before

    def types(self, keys):
        os.write(self.fd, keys)

    def ends(self, status=0):
        with contextlib.suppress(OSError):  # EIO: no process has the terminal any more
            while more := os.read(self.fd, 1000):
                self.unread += more.decode()
        os.close(self.fd)
        assert os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == status, self.unread
        return self.unread


EDITED = """
import weald.monkey; weald.monkey.patch_all()
import readline, signal, termios, weald
from weald.event import Event

def tell(event):
    event.wait()
    print("others ran", flush=True)

begun = Event()
other = weald.spawn(tell, begun)
weald.spawn_later(0, begun.set)
"""


def test_readline_edits_the_line_while_others_run():
    """Arrows, a line of the history, the end by one Ctrl-D; what is typed is shown once."""
    terminal = Terminal(EDITED + "while True: print('line', repr(input('prompt> ')))\n")
    terminal.reads("prompt> ")
    terminal.reads("others ran")
    terminal.types(b"ac\x1b[Db\n")
    assert terminal.reads("line 'abc'").count("c") < 3
    terminal.reads("prompt> ")
    terminal.types(b"\x1b[A\n")  # the line before
    terminal.reads("line 'abc'")
    terminal.reads("prompt> ")
    terminal.types(b"\x04")
    terminal.reads("EOFError")
    terminal.ends(1)  # otherwise other tests that wait for any child would find this one


def test_what_ends_the_wait_for_readline_leaves_the_terminal_as_it_was():
    """A Timeout, an interrupt, a kill; the line that was begun does not come back."""
    program = """
modes = termios.tcgetattr(0)
for _ in range(2):
    try:
        with weald.Timeout(0.01):
            input("late> ")
    except weald.Timeout:
        print("timed out", termios.tcgetattr(0) == modes)
try:
    input("begun> ")
except KeyboardInterrupt:
    print("interrupted", termios.tcgetattr(0) == modes)
killed = weald.spawn(input, "killed> ")
weald.spawn_later(0.01, killed.kill)
killed.join()
print("killed", termios.tcgetattr(0) == modes)
print("line", repr(input("again> ")), readline.get_current_history_length())
"""
    terminal = Terminal(EDITED + program)
    for _ in range(2):
        terminal.reads("timed out True")
    terminal.reads("begun> ")
    terminal.types(b"lost")
    terminal.reads("lost")
    terminal.types(b"\x03")
    terminal.reads("interrupted True")
    terminal.reads("killed True")
    terminal.reads("again> ")
    terminal.types(b"hee\x1b[Dr\n")
    terminal.reads("line 'here'")
    terminal.ends()


def test_pdb_in_a_greenlet_beside_others():
    program = """
import pdb
def debugged():
    x = 41
    pdb.set_trace()
    return x
weald.spawn(debugged).join()
"""
    terminal = Terminal(EDITED + program)
    terminal.reads("(Pdb) ")
    terminal.types(b"p x +\x1b[D\x1b[C 1\n")
    terminal.reads("42")
    terminal.reads("(Pdb) ")
    terminal.types(b"c\n")
    terminal.ends()
