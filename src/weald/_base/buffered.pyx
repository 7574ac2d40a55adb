"""io's buffers and text files for several greenlets: they take turns where io's own would raise or mix lines up.

Called by: pipes.py, weald.fileobject, weald.socket (for `makefile`), weald.subprocess.

io's buffers have a lock that a native thread owns.  Two threads take turns, but two greenlets of one thread count as
the same owner, and the second call is refused ("reentrant call").  io's text files have no lock.  Other greenlets can
run only during a call of the raw file below.  So the raw file records which greenlets are inside (`Turns.call`), and
others wait until those have left.  A lock around each call would cost more than reading a line from the buffer.

Invariants:
- A raw file makes all calls that may park through its Turns: `_turns`, and `_write_turns` for writes (the same object,
  or another one if reading and writing need not wait for each other).
- A greenlet that calls again while others wait lets them go first, but not in the middle of a call (`busy`).
- A raw file keeps its descriptor in its Turns (`fd`) for as long as it is open.
- For a greenlet that calls again while it is inside, io raises its own error, as for a thread.

Compiled, because io reads a line from its buffer in 30 ns, and a Python frame takes longer than that.
"""

from cpython.object cimport Py_TYPE, PyObject, PyTypeObject

import io
from contextlib import suppress
from io import DEFAULT_BUFFER_SIZE
from socket import SocketIO

from weald._core.c_greenlet cimport greenlet
from weald._core.c_python cimport slot_offset
from weald._core.hub cimport current_greenlet
from weald._core.yielding cimport is_others_turn, let_others_run

from weald._core import Event, sleep

__all__ = ["OPERATIONS", "BufferedRWPair", "BufferedRandom", "BufferedReader", "BufferedWriter", "SocketFile",
           "TextIOWrapper", "Turns", "layers", "shown_as", "text_wrapper"]

# Methods of io's files that read, write or seek.  The others neither block nor use the buffer.
OPERATIONS = frozenset((
    "detach", "flush", "peek", "read", "read1", "readall", "readinto", "readinto1", "readline", "readlines",
    "reconfigure", "seek", "tell", "truncate", "write", "writelines",
))
WRITING = frozenset(("flush", "write", "writelines"))

cdef object reader_readline = io.BufferedReader.readline
cdef object reader_read = io.BufferedReader.read
cdef object writer_write = io.BufferedWriter.write
cdef object writer_flush = io.BufferedWriter.flush
cdef object text_flush = io.TextIOWrapper.flush
cdef object text_readline = io.TextIOWrapper.readline
cdef object text_read = io.TextIOWrapper.read
cdef object text_write = io.TextIOWrapper.write
cdef object text_buffer = io.TextIOWrapper.buffer
cdef object text_closed = io.TextIOWrapper.closed
cdef object text_write_through = io.TextIOWrapper.write_through
cdef object text_detach = io.TextIOWrapper.detach
cdef object pair_flush = io.BufferedRWPair.flush
cdef object pair_close = io.BufferedRWPair.close


cdef class Turns:
    """The greenlets inside a call of a raw file, and those that wait for their turn."""

    def __cinit__(self):
        self.inside = []
        self.fd = -1

    cdef Turns below(self):
        """Turns for the buffer below a text file: the same greenlets are inside, but none lets others go first."""
        cdef Turns inner = Turns.__new__(Turns)
        inner.inside = self.inside
        inner.outer = self
        return inner

    def call(self, function, *args):
        """Return `function(*args)`, a call of the raw file in which greenlets may park."""
        current = self.enter()
        try:
            return function(*args)
        finally:
            self.leave(current)

    cdef object enter(self):
        """Go inside.  Returns the greenlet, for `leave`."""
        return self.go_inside(is_others_turn(True))  # if the other end is fast, no call ever parks

    cdef object go_inside(self, bint others_first):
        """As `enter`; `others_first` is the result of `is_others_turn`."""
        cdef greenlet current = current_greenlet()
        self.inside.append(current)
        if others_first:
            try:
                let_others_run()
            except BaseException:
                self.leave(current)
                raise
        return current

    cdef int leave(self, object current) except -1:
        if self.inside[-1] is current:
            self.inside.pop()
        else:
            self.inside.remove(current)
        if self.left is not None:
            self.left.set()
            self.left = None
        return 0

    cdef int come(self) except -1:
        """Wait until no other greenlet is inside."""
        cdef Turns turns = self if self.outer is None else self.outer
        if self.waiting and not self.inside and not self.busy:
            sleep(0)
        while self.inside and current_greenlet() not in self.inside:
            if turns.left is None:
                turns.left = Event()
            turns.waiting += 1
            try:
                turns.left.wait()
            finally:
                turns.waiting -= 1
        return 0


cdef class Kind:
    """A class, and the offset of `_turns` in its objects."""


cdef Kind kind_of(object cls):
    cdef Kind kind = Kind.__new__(Kind)
    kind.cls, kind.offset = cls, slot_offset(cls._turns)
    return kind


cdef class Lines:
    """Iterates over the lines of a file; `readline` is that of io's class."""

    cdef object file
    cdef object readline
    cdef Turns turns

    def __iter__(self):
        return self

    def __next__(self):
        if self.turns.inside or self.turns.waiting:
            self.turns.come()
        line = self.readline(self.file)
        if not line:
            raise StopIteration
        return line


cdef object lines_of(object file, object readline):
    cdef Lines lines
    if file.closed:
        raise ValueError("I/O operation on closed file.")
    lines = Lines.__new__(Lines)
    lines.file, lines.readline, lines.turns = file, readline, file._turns
    return lines


cdef object NOTHING = object()


cdef Turns turns_of(object self, Kind kind):
    """`self._turns`; for objects of exactly `kind.cls` it is read from its slot."""
    cdef PyObject *turns
    if Py_TYPE(self) == <PyTypeObject *>kind.cls:
        turns = (<PyObject **>(<char *><PyObject *>self + kind.offset))[0]
        if turns != NULL:
            return <Turns?>turns
    return self._turns


cdef inline object called(object self, Kind kind, object method, object argument):
    """Return `method(self, argument)`, called when no other greenlet is inside."""
    cdef Turns turns = turns_of(self, kind)
    if turns.inside or turns.waiting:
        turns.come()
    return method(self) if argument is NOTHING else method(self, argument)


cdef class Closed:
    """`closed` of a text file.  io reads it at each call; its own looks at the buffer, and that at the raw file."""

    def __get__(self, file, cls):
        if file is None:
            return self
        return False if turns_of(file, TEXT).fd >= 0 else text_closed.__get__(file, cls)

    def __set__(self, file, value):
        raise AttributeError("attribute 'closed' is not writable")


def in_turn(method, bint writes=False):
    """Return a function that calls `method` when no other greenlet is inside."""
    def call(self, /, *args, **kwargs):
        cdef Turns turns = self._write_turns if writes else self._turns
        turns.come()
        turns.busy += 1
        try:
            return method(self, *args, **kwargs)
        finally:
            turns.busy -= 1

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


def shown_as(kind):
    """Return a `__repr__` that shows a file as `kind`, io's class that its own is derived from, shows one."""
    show, name = kind.__repr__, f"<{kind.__module__}.{kind.__qualname__}"

    def __repr__(self):
        text = show(self)
        return name + text[text.find(" ") :]  # all but the class; of a file without a name, ">"

    return __repr__


cdef object socket_readinto = SocketIO.readinto
cdef object socket_write = SocketIO.write


class SocketFile(SocketIO):
    """socket.SocketIO, the raw file of `makefile`."""

    def __init__(self, *args):
        self._turns = Turns()
        self._write_turns = Turns()
        super().__init__(*args)
        (<Turns>self._turns).fd = self.fileno()

    __repr__ = shown_as(SocketIO)

    def close(self):
        """Close this file; the socket stays open while other files use it."""
        (<Turns>self._turns).fd = -1
        super().close()

    def readinto(self, buffer, /):
        """Receive into `buffer`.  Return the number of bytes; None if a non-blocking socket has received nothing."""
        return (<Turns>self._turns).call(socket_readinto, self, buffer)

    def write(self, data, /):
        """Send some of `data`.  Return the number of bytes; None if a non-blocking socket has no room."""
        return (<Turns>self._write_turns).call(socket_write, self, data)


class BufferedReader(io.BufferedReader):
    """io.BufferedReader whose callers take turns."""

    __slots__ = ("_turns",)

    def __init__(self, raw, buffer_size=DEFAULT_BUFFER_SIZE):
        self._turns = raw._turns
        super().__init__(raw, buffer_size)

    __repr__ = shown_as(io.BufferedReader)

    def __iter__(self):
        return lines_of(self, reader_readline)

    def readline(self, size=-1, /):
        """Read up to the end of a line, of `size` bytes at most."""
        return called(self, READER, reader_readline, NOTHING if size == -1 else size)

    def read(self, size=-1, /):
        """Read `size` bytes, fewer at the end of the file; None or -1: up to the end."""
        return called(self, READER, reader_read, NOTHING if size == -1 else size)


class BufferedWriter(io.BufferedWriter):
    """io.BufferedWriter whose callers take turns."""

    __slots__ = ("_turns",)

    def __init__(self, raw, buffer_size=DEFAULT_BUFFER_SIZE):
        self._turns = raw._write_turns
        super().__init__(raw, buffer_size)

    __repr__ = shown_as(io.BufferedWriter)

    def write(self, data, /):
        """Write `data`, to the buffer if it has room.  Return the number of bytes."""
        return called(self, WRITER, writer_write, data)

    def flush(self):
        """Write what is in the buffer."""
        return called(self, WRITER, writer_flush, NOTHING)


class BufferedRandom(io.BufferedRandom):
    """io.BufferedRandom whose callers take turns."""

    __slots__ = ("_turns",)

    def __init__(self, raw, buffer_size=DEFAULT_BUFFER_SIZE):
        self._turns = raw._turns
        super().__init__(raw, buffer_size)

    __repr__ = shown_as(io.BufferedRandom)


class BufferedRWPair(io.BufferedRWPair):
    """io.BufferedRWPair; its readers take turns, and so do its writers."""

    __slots__ = ("_turns", "_write_turns")

    def __init__(self, reader, writer, buffer_size=DEFAULT_BUFFER_SIZE):
        self._turns, self._write_turns = reader._turns, writer._write_turns
        super().__init__(reader, writer, buffer_size)

    __repr__ = shown_as(io.BufferedRWPair)

    def close(self):
        """Write what is buffered, wait until no greenlet reads, and close."""
        cdef Turns reading = self._turns, writing = self._write_turns
        writing.come()
        if not self.closed:
            with suppress(Exception):  # `pair_close` will raise it
                pair_flush(self)
        writing.come()
        reading.come()
        pair_close(self)


class TextIOWrapper(io.TextIOWrapper):
    """io.TextIOWrapper whose callers take turns.

    `write_through`, which subprocess sets, takes effect when `buffer` is first used.  Before that it makes no visible
    difference, and without it a line costs half as much.
    """

    __slots__ = ("_through", "_turns")

    def __init__(self, buffer, *args, write_through=False, **kwargs):
        super().__init__(buffer, *args, **kwargs)
        self._through = write_through
        cdef Turns turns = buffer._turns
        self._turns = turns
        if isinstance(buffer, (BufferedReader, BufferedWriter, BufferedRandom)):
            buffer._turns = turns.below()

    closed = Closed()
    __repr__ = shown_as(io.TextIOWrapper)

    @property
    def write_through(self):
        """Whether text goes to the buffer at once, or appears to (see the class)."""
        return bool(self._through) or text_write_through.__get__(self)

    @property
    def buffer(self):
        """The buffer below.  Text that was written before is passed to it first."""
        if self._through and (<Turns>self._turns).fd >= 0:
            with suppress(OSError):  # the buffer keeps what it could not write; its next call raises the error
                self.reconfigure(write_through=True)
                self._through = False
        return text_buffer.__get__(self)

    def __iter__(self):
        return lines_of(self, text_readline)

    def detach(self):
        """Write what is buffered, separate the buffer from this file, and return it."""
        cdef Turns turns = self._turns
        turns.come()
        buffer = text_detach(self)
        self._turns = Turns()
        return buffer

    def readline(self, size=-1, /):
        """Read up to the end of a line, of `size` characters at most."""
        return called(self, TEXT, text_readline, NOTHING if size == -1 else size)

    def read(self, size=-1, /):
        """Read `size` characters, fewer at the end of the file; None or -1: up to the end."""
        return called(self, TEXT, text_read, NOTHING if size == -1 else size)

    def write(self, text, /):
        """Write `text`, to the buffer if it has room.  Return the number of characters."""
        return called(self, TEXT, text_write, text)

    def flush(self):
        """Write what is in the buffers."""
        return called(self, TEXT, text_flush, NOTHING)


def complete(cls):
    """Add to `cls` the methods of its base that it does not define itself, with callers that take turns."""
    for name in [*OPERATIONS, "close"]:
        if name not in vars(cls) and hasattr(cls, name):
            setattr(cls, name, in_turn(getattr(cls, name), cls is BufferedRWPair and name in WRITING))


for each in (BufferedReader, BufferedWriter, BufferedRandom, BufferedRWPair, TextIOWrapper):
    complete(each)


cdef Kind READER = kind_of(BufferedReader), WRITER = kind_of(BufferedWriter), TEXT = kind_of(TextIOWrapper)


def text_wrapper(buffer, *args, **kwargs):
    """Return io.TextIOWrapper(buffer, …) for several greenlets; writers of a pair do not wait for its readers."""
    return (io.TextIOWrapper if isinstance(buffer, io.BufferedRWPair) else TextIOWrapper)(buffer, *args, **kwargs)


def layers(raw, mode, buffering=-1, encoding=None, errors=None, newline=None, size=DEFAULT_BUFFER_SIZE):
    """Return what `open` builds over raw file `raw`, for several greenlets; `size`: default size of the buffer."""
    if buffering == 0:
        return raw
    if buffering > 1:
        size = buffering
    kind = BufferedRandom if "+" in mode else BufferedReader if raw.readable() else BufferedWriter
    buffer = kind(raw, size)
    if "b" in mode:
        return buffer
    line_buffering = buffering == 1 or (buffering < 0 and raw.isatty())
    text = TextIOWrapper(buffer, encoding, errors, newline, line_buffering)
    text.mode = mode  # as `open` does
    return text
