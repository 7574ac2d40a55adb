"""File objects on pipes, terminals and sockets, for descriptors that stay blocking and for non-blocking ones.

Called by: weald.os, weald.fileobject, weald.subprocess.

Processes that share a pipe's end share its flags.  A child expects a blocking pipe, so the flag stays as it is, and
each call checks first whether it would block.

Invariants:
- Only `make_nonblocking`, for LoopIO, makes a descriptor non-blocking.
- The buffers over these files are those of buffered.pyx, in which greenlets take turns.

Compiled, because programs that write line by line call this for each line.
"""

from weald._base.buffered cimport Kind, Turns, kind_of, turns_of
from weald._base.waiting cimport MOMENT, at_once, is_ready, write_nowait
from weald._core.yielding cimport is_others_turn

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EBADF, EINTR, EOPNOTSUPP, EPIPE, errno

import _socket
import io
import os
import stat
import warnings
from functools import partial
from select import PIPE_BUF

from weald._base.buffered import TextIOWrapper, layers, shown_as
from weald._base.gathered import Gathered
from weald._base.originals import get_original
from weald._base.waiting import POLLIN, POLLOUT, retry, wait_until_ready
from weald._core import Descriptor, wait_read

__all__ = [
    "LoopIO",
    "PIPE_BUF",
    "SharedIO",
    "fdopen",
    "is_stream",
    "make_nonblocking",
    "open_shared",
    "read_shared",
    "write_shared",
]

_MODES = {"r", "w", "a", "rt", "tw", "at", "br", "bw", "ab", "+br", "+bw", "+ab"}  # each with its letters sorted
_PIPE_SIZE = 65536  # bytes; what Linux lets a pipe hold

_fdopen = get_original("os", "fdopen")

cdef extern from "<unistd.h>" nogil:
    ssize_t c_write "write"(int, const void *, size_t)

cdef object file_read = io.FileIO.read
cdef object file_readinto = io.FileIO.readinto
cdef object file_write = io.FileIO.write


def is_stream(fd):
    """Return whether `fd` is a pipe, a terminal or a stream socket, to which bytes may be written in parts."""
    mode = os.fstat(fd).st_mode
    if not stat.S_ISSOCK(mode):
        return stat.S_ISFIFO(mode) or os.isatty(fd)
    sock = _socket.socket(-1, _socket.SOCK_NONBLOCK, -1, fd)  # which leaves the descriptor's flags alone
    try:
        return sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_TYPE) == _socket.SOCK_STREAM
    finally:
        sock.detach()


def make_nonblocking(fd):
    """Make `fd` non-blocking, for all that share its description.  Return True if it was blocking before."""
    was_blocking = os.get_blocking(fd)
    if was_blocking:
        os.set_blocking(fd, False)
    return was_blocking


def read_shared(fd, size):
    """os.read(fd, size) of a pipe that may be blocking, or all that it has; parks until there is something to read."""
    size = max(size, _PIPE_SIZE)
    wait_until_ready(fd, POLLIN, partial(wait_read, fd))
    return os.read(fd, size)


def write_shared(fd, data):
    """os.write(fd, data) of as much as there is room for, to a pipe that is ready for writing and may be blocking."""
    cdef Py_ssize_t sent, size = 0
    try:
        sent = at_once(fd, data, False, &size)
    except BrokenPipeError:
        raise
    except OSError:  # the system cannot tell, or there is an error, which writing will raise
        # A pipe that is ready for writing has room for this much (POSIX, "poll" and PIPE_BUF).
        return os.write(fd, data[:PIPE_BUF])
    return sent if sent > 0 else 0  # another process was faster


cdef Py_ssize_t write_at_once(Turns turns, object data, Py_ssize_t *size) except -1:
    """Write as much of `data` as there is room for.  Returns the bytes written; 0 if the system cannot tell.

    `size` is set to the bytes of `data`.
    """
    cdef Py_ssize_t sent = -1
    if turns.quick and turns.fd >= 0:
        try:
            sent = at_once(turns.fd, data, False, size)
        except BrokenPipeError:
            raise
        except OSError:  # the system cannot tell, or there is an error, which the plain write will raise
            turns.quick = False
    return sent if sent > 0 else 0


cdef Py_ssize_t read_into_at_once(Turns turns, buffer) except -3:
    """Read what there is into `buffer`.  Returns the bytes read; -1 if there is nothing yet.

    -2 if the system cannot tell, and for a descriptor that cannot be read from: the plain read raises the right error.
    Any other error is raised here, because a socket tells it only once.
    """
    cdef Py_ssize_t size
    if not turns.quick or turns.fd < 0:
        return -2
    turns.used = True
    try:
        return at_once(turns.fd, buffer, True, &size)
    except OSError as error:
        if error.errno == EOPNOTSUPP:
            turns.quick = False
        elif error.errno != EBADF:
            raise
        return -2


cdef Py_ssize_t write_nonblocking(Turns turns, object data) except -2:
    """Write to a non-blocking descriptor.  Returns the bytes written; -1 if there is no room, or an error.

    A few bytes are written with RWF_NOWAIT, for which the GIL can be kept: releasing it takes longer than the write.  A
    plain write would make all threads wait if another process had made the descriptor blocking.
    """
    cdef Py_buffer view
    cdef Py_ssize_t sent
    cdef int fd = turns.fd
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    if not turns.untold and 0 < view.len <= MOMENT:  # unlike write, pwritev2 sends no empty datagrams
        sent = write_nowait(fd, view.buf, view.len)
        if sent >= 0 or errno == EAGAIN or errno == EPIPE or errno == EINTR:
            PyBuffer_Release(&view)
            return sent
        turns.untold = True  # or there is another error, which the plain write will have as well
    with nogil:
        sent = c_write(fd, view.buf, view.len)
    PyBuffer_Release(&view)
    return sent


cdef bytes read_all(read):
    """What `read(size)` returns until it returns nothing."""
    found = Gathered()
    while chunk := read(_PIPE_SIZE):
        found.append(chunk)
    return found.getvalue()


cdef bint has_room(object buffer) noexcept:
    """Return whether bytes can be read into `buffer`; not if it is of a wrong type, or empty."""
    cdef Py_buffer view
    try:
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except Exception:
        return False
    PyBuffer_Release(&view)
    return view.len > 0


class SharedIO(io.FileIO):
    """FileIO on a pipe's end that stays blocking, or a socket: each call first waits until it would not block."""

    __slots__ = ("_descriptor", "_socket", "_turns", "_write_turns")

    def __init__(self, fd, mode, closefd=True):
        cdef Turns turns = Turns.__new__(Turns)
        super().__init__(fd, mode, closefd)
        self._descriptor = Descriptor(fd)
        self._turns = self._write_turns = turns
        turns.fd, turns.quick = fd, True
        self._socket = stat.S_ISSOCK(os.fstat(fd).st_mode)  # its descriptor is non-blocking, and calls park

    __repr__ = shown_as(io.FileIO)

    def _is_non_blocking(self):
        """Whether the program has made the descriptor non-blocking: then no call waits."""
        return not self._socket and not os.get_blocking(self.fileno())

    def _readable(self, call, argument):
        """Wait, then `call(argument)`.  Try again if another thread was faster."""
        if not self.readable():
            return call(argument)  # which raises
        (<Turns>self._turns).used = True
        wait = self._descriptor.wait_read
        if not is_ready(self.fileno(), POLLIN):
            if self._is_non_blocking():
                return call(argument)
            wait_until_ready(self.fileno(), POLLIN, wait)
        result = call(argument)
        return retry(wait, None, call, argument) if result is None else result

    def readinto(self, buffer):
        """Read into `buffer`, parking until there is something.  Return the number of bytes, 0 at the end."""
        cdef Turns turns = turns_of(self, SHARED)
        cdef bint others_first
        cdef Py_ssize_t count = -2
        if not has_room(buffer):
            return super().readinto(buffer)  # which never waits, or raises
        others_first = is_others_turn(True)
        if not others_first:
            count = read_into_at_once(turns, buffer)
            if count >= 0:
                return count
        current = turns.go_inside(others_first)
        try:
            if count == -1 and not self._is_non_blocking():
                while count == -1:  # again if another greenlet was faster
                    self._descriptor.wait_read(None)
                    count = read_into_at_once(turns, buffer)
                if count >= 0:
                    return count
            return self._readable(super().readinto, buffer)
        finally:
            turns.leave(current)

    def read(self, size=-1):
        """Read up to `size` bytes, parking until there are some; None or -1: all up to the end.  b"" at the end."""
        if size is None or hasattr(size, "__index__") and size < 0:
            return self.readall()
        if not hasattr(size, "__index__") or not size:
            return super().read(size)  # which never waits, or raises
        return self._turns.call(self._readable, super().read, size)

    def readall(self):
        """Read up to the end."""
        return super().readall() if self._is_non_blocking() else read_all(self.read)

    def write(self, data):
        """Write all of `data`, as a blocking write does.

        Returns the bytes written: fewer only if there was an error, which the next call will raise.
        """
        cdef Turns turns = turns_of(self, SHARED)
        cdef Py_ssize_t sent = 0, size = 0
        cdef bint others_first = is_others_turn(True)
        if not others_first:
            sent = write_at_once(turns, data, &size)
            if sent and sent == size:
                return sent
        current = turns.go_inside(others_first)
        try:
            return self._write(data, sent)
        finally:
            turns.leave(current)

    def _write(self, data, Py_ssize_t sent):
        """The rest of `write`, after `sent` bytes."""
        cdef Py_ssize_t size = 0
        fd = self.fileno()
        if not self.writable():
            return super().write(data)  # which raises
        stream = is_stream(fd)
        with memoryview(data) as view, view.cast("B") as rest:
            if stream and not rest.nbytes or self._is_non_blocking():
                return sent or super().write(rest)
            while True:
                try:
                    wait_until_ready(fd, POLLOUT, self._descriptor.wait_write)
                    done = write_at_once(self._turns, rest[sent:], &size)
                    if not done:
                        # A pipe that is ready for writing has room for this much (POSIX, "poll" and PIPE_BUF).
                        done = super().write(rest[sent : sent + PIPE_BUF] if stream else rest)
                except OSError:
                    if not sent:
                        raise
                    return sent
                if not stream and done is not None:
                    return done
                sent += done or 0
                if sent >= rest.nbytes:
                    return sent

    def close(self):
        """Close; greenlets that wait get OSError(EBADF)."""
        if not self.closed:
            self._turns.fd = -1
            self._descriptor.close()
        super().close()


cdef object read_in_turn(object file, object call, object argument):
    """Return `call(file, argument)` for a LoopIO, once the call does not block."""
    cdef Turns turns = file._turns
    current = turns.enter()
    try:
        if file._shared:
            wait_until_ready(file.fileno(), POLLIN, file._descriptor.wait_read)
        result = call(file, argument)
        if result is None:
            result = retry(file._descriptor.wait_read, None, call, file, argument)
        return result
    finally:
        turns.leave(current)


class LoopIO(io.FileIO):
    """FileIO on a descriptor that is non-blocking until `close` or `share`.  Calls park where FileIO's return None."""

    __slots__ = ("_descriptor", "_shared", "_turns", "_was_blocking", "_write_turns")

    def __init__(self, fd, mode, closefd):
        cdef Turns turns = Turns.__new__(Turns)
        super().__init__(fd, mode, closefd)
        self._was_blocking = make_nonblocking(self.fileno())
        self._descriptor = Descriptor(self.fileno())
        self._turns = self._write_turns = turns
        turns.fd, turns.quick = self.fileno(), self.writable()
        self._shared = False

    __repr__ = shown_as(io.FileIO)

    def share(self):
        """Make the descriptor blocking, for another process that gets it.

        Each call here then first checks whether it would block.
        """
        (<Turns>self._turns).quick = False
        os.set_blocking(self.fileno(), True)
        self._shared = True

    def readinto(self, buffer):
        """Read into `buffer`, parking until there is something.  Return the number of bytes, 0 at the end."""
        return read_in_turn(self, file_readinto, buffer)

    def read(self, size=-1):
        """Read up to `size` bytes, parking until there are some; None or -1: up to the end, where it is b""."""
        if size is None or hasattr(size, "__index__") and size < 0:
            return self.readall()
        return read_in_turn(self, file_read, size)

    def readall(self):
        """Read up to the end."""
        return read_all(self.read)

    def write(self, data):
        """Write as much as there is room for, parking until there is some.  Return the number of bytes."""
        cdef Turns turns = turns_of(self, LOOP)
        cdef Py_ssize_t sent
        cdef bint others_first = is_others_turn(True)
        if turns.quick and not others_first:
            sent = write_nonblocking(turns, data)
            if sent >= 0:
                return sent
        current = turns.go_inside(others_first)
        try:
            if self._shared:
                wait_until_ready(self.fileno(), POLLOUT, self._descriptor.wait_write)
                # A pipe that is ready for writing has room for this much (POSIX, "poll" and PIPE_BUF).
                data = memoryview(data).cast("B")[: PIPE_BUF if is_stream(self.fileno()) else None]
            count = file_write(self, data)
            if count is None:
                count = retry(self._descriptor.wait_write, None, file_write, self, data)
            return count
        finally:
            turns.leave(current)

    def close(self):
        """Close; greenlets that wait get OSError(EBADF).  A descriptor that stays open is as blocking as before."""
        if self.closed:
            return
        self._turns.fd = -1
        self._descriptor.close()
        if self._was_blocking:
            os.set_blocking(self.fileno(), True)
        super().close()


cdef Kind SHARED = kind_of(SharedIO), LOOP = kind_of(LoopIO)


def open_shared(fd, mode, buffering=-1, closefd=True):
    """io.open(fd, "rb" or "wb", buffering, closefd=closefd) for a pipe's end, which stays blocking."""
    if buffering == 1:
        warnings.warn(
            "line buffering (buffering=1) isn't supported in binary mode, the default buffer size will be used",
            RuntimeWarning,
            stacklevel=1,
        )
    raw = SharedIO(fd, mode, closefd)
    if buffering == 0:
        return raw
    return layers(raw, mode, buffering)


def fdopen(
    fd,
    mode="r",
    buffering=-1,
    encoding=None,
    errors=None,
    newline=None,
    closefd=True,
    opener=None,
):
    """os.fdopen().  The file of a blocking pipe, socket or terminal parks its caller where it would block."""
    binary = "b" in mode
    plain = partial(_fdopen, fd, mode, buffering, encoding, errors, newline, closefd, opener)
    letters = "".join(sorted(mode))
    if letters not in _MODES or not isinstance(buffering, int) or not _may_block(fd):
        return plain()
    letter = letters.strip("+bt")
    if "+" in letters and buffering:
        return plain()  # which says that a pipe cannot be sought in
    if binary and not encoding and not errors and newline is None:
        return open_shared(fd, letter + "b" + "+" * ("+" in letters), buffering, closefd)
    if binary or buffering == 0:
        return plain()  # which raises the right error
    encoding = io.text_encoding(encoding, 1)
    buffer = open_shared(fd, letter + "b", buffering if buffering > 1 else -1, closefd)
    try:
        text = TextIOWrapper(buffer, encoding, errors, newline, buffering == 1 or (buffering < 0 and os.isatty(fd)))
    except BaseException:
        buffer.close()
        raise
    text.mode = mode  # as `open` does
    return text


def _may_block(fd):
    """Return whether `fd` is a descriptor on which the system may let a read or a write wait."""
    if not isinstance(fd, int) or fd < 0:
        return False
    try:
        kind = os.fstat(fd).st_mode
        if stat.S_ISSOCK(kind):  # weald's sockets have non-blocking descriptors, whatever their timeout
            return True
        return (stat.S_ISFIFO(kind) or os.isatty(fd)) and os.get_blocking(fd)
    except (OSError, OverflowError):
        return False
