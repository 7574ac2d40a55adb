"""Waiting for a descriptor: the one loop "wait, try again, until a deadline".

Called by: pipes.py, weald.builtins, weald.fileobject, weald.multiprocessing, weald.os, weald.select, weald.signal,
weald.socket, weald.ssl, weald.subprocess.

The hot calls of sockets (recv, send, sendall) have a loop of their own: _core/descriptor.pyx.

Invariants:
- The deadline is for the whole call, however often it is tried.
- Time is read from the system's monotonic clock, not by a Python function, which programs may replace.

Compiled, because a Python frame between a call and its wait costs more than the loop.  The first frames of a parked
greenlet lie in a small chunk of memory, and one more frame would not fit.
"""

__all__ = ["POLLIN", "POLLOUT", "is_ready", "read_file_at_once", "retry", "retry_as_wanted", "until",
           "wait_until_ready"]

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.errno cimport EAGAIN, EINTR, errno
from weald._core.c_poll cimport is_ready_now

from os import SEEK_CUR, fstat, lseek, strerror
from select import POLLIN, POLLOUT

cdef extern from "<time.h>" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    enum:
        CLOCK_MONOTONIC

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len
    ssize_t preadv2(int, const iovec *, int, long, int)
    ssize_t pwritev2(int, const iovec *, int, long, int)
    enum:
        RWF_NOWAIT

cdef object LATE = object()


cdef double now() noexcept:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


cdef object wait_and_try(object choose, object wait, object timeout, object call, tuple args):
    """Wait and `call(*args)`, again and again until the call has a result; LATE after `timeout` seconds.

    Without `choose`, the results None and [] and the exception BlockingIOError mean that the call would still block.
    With `choose`, any exception means that, and `choose(exception)` is the function for the next wait.
    """
    cdef double deadline = 0.0
    cdef bint limited = timeout is not None
    if limited:
        deadline = now() + <double>timeout
    while True:
        if limited and timeout <= 0.0:
            return LATE
        wait(timeout)
        try:
            result = call(*args)
            if choose is not None or not (result is None or type(result) is list and not result):
                return result
        except Exception as error:
            if choose is not None:
                wait = choose(error)
            elif not isinstance(error, BlockingIOError):
                raise
        if limited:
            timeout = deadline - now()


def until(wait, timeout, call, *args):
    """Wait, then return `call(*args)`; for callers whose own first try would have blocked.

    The call is tried again as long as it would block (it raises BlockingIOError, or returns None or []), each time
    after `wait(seconds)`.  The seconds are what is left of `timeout`; None: no limit.  Returns None when `timeout`
    seconds have passed.  Raises what `wait` and `call` raise.
    """
    result = wait_and_try(None, wait, timeout, call, args)
    return None if result is LATE else result


def retry(wait, timeout, call, *args):
    """As `until`, but raises TimeoutError("timed out") when `timeout` seconds have passed."""
    result = wait_and_try(None, wait, timeout, call, args)
    if result is LATE:
        raise TimeoutError("timed out")
    return result


def retry_as_wanted(choose, wait, timeout, call, *args):
    """As `retry`, for a call whose exceptions say what to wait for, such as SSLWantReadError.

    `choose(exception)` returns the function that waits for it, or raises the exception if it means something else.
    `wait` is the function for the first wait: the caller has tried once already.  None is a result like any other here.
    """
    result = wait_and_try(choose, wait, timeout, call, args)
    if result is LATE:
        raise TimeoutError("timed out")
    return result


cpdef bint is_ready(int fd, short event) except -1:
    """Return whether a call on descriptor `fd` would not block; `event` is POLLIN or POLLOUT.

    An error or a hang-up counts as ready, and so does a descriptor that is not open: the call itself will raise.
    OSError if the system cannot tell.
    """
    cdef int found = 1 if fd < 0 else is_ready_now(fd, event)
    if found < 0:
        raise OSError(errno, strerror(errno))
    return found != 0


def wait_until_ready(int fd, short event, wait):
    """Call `wait(None)` until descriptor `fd` is ready for `event` (POLLIN or POLLOUT).

    For blocking descriptors.  It checks again after each wait, because another greenlet may have been faster.
    """
    while not is_ready(fd, event):
        wait(None)


cdef Py_ssize_t at_once(int fd, object data, bint reads, Py_ssize_t *size) except -2:
    """Read into `data`, or write it, as far as possible without waiting; `fd` may be a blocking descriptor.

    Returns the number of bytes, or -1 if the call would wait; `size` is set to the size of `data` in bytes.
    OSError(EOPNOTSUPP) where the system cannot tell.
    """
    cdef Py_buffer view
    cdef iovec part
    cdef ssize_t count
    cdef int error
    PyObject_GetBuffer(data, &view, PyBUF_WRITABLE if reads else PyBUF_SIMPLE)
    size[0] = view.len
    part.iov_base = view.buf
    part.iov_len = view.len
    # Offset -1: at the file's position.
    if view.len <= MOMENT:
        count = preadv2(fd, &part, 1, -1, RWF_NOWAIT) if reads else pwritev2(fd, &part, 1, -1, RWF_NOWAIT)
        error = errno
    else:
        with nogil:
            count = preadv2(fd, &part, 1, -1, RWF_NOWAIT) if reads else pwritev2(fd, &part, 1, -1, RWF_NOWAIT)
            error = errno
    PyBuffer_Release(&view)
    if count < 0 and error != EAGAIN and error != EINTR:
        raise OSError(error, strerror(error))
    return count


cdef Py_ssize_t write_nowait(int fd, void *data, size_t size) noexcept:
    """Write as far as possible without waiting.  Returns the bytes written; -1 after an error, which is in errno.

    EOPNOTSUPP where the system cannot tell, and then nothing is written.
    """
    cdef iovec part
    part.iov_base = data
    part.iov_len = size
    return pwritev2(fd, &part, 1, -1, RWF_NOWAIT)  # offset -1: at the file's position


def read_file_at_once(int fd, buffer):
    """Read into `buffer` what the page cache has of regular file `fd`.  Return the number of bytes, 0 at the end.

    Returns None if the call would wait for the disk.  OSError(EOPNOTSUPP) where the system cannot tell.
    """
    cdef Py_ssize_t size
    cdef Py_ssize_t count = at_once(fd, buffer, True, &size)
    # Linux 5.9 and 5.10 may return 0 although there is more.
    if count == 0 and size and lseek(fd, 0, SEEK_CUR) < fstat(fd).st_size:
        return None
    return None if count < 0 else count
