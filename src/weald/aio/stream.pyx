"""The hot part of stream transports: receives for the protocol and sends what is written, in C.

Called by: weald.aio.transport, each of whose `SocketTransport`s has a `Stream`.
Invariants:
- The transport derives from asyncio's, which handles the rare cases: buffers, flow control, ends, errors, sendfile.
  The state that both use lies here.
- A Stream is in its loop's queue at most once, and not while it runs.  So a protocol gets data in order, even if it
  blocks.  A Stream that has been paused or closed before it runs does nothing.
- Data that cannot be sent at once is passed to asyncio's `write` or `writelines`, which try again.
- Data for a StreamReader goes straight into its buffer if `data_received` would do no more than that: if none of
  asyncio's functions in between has been replaced, in a class or in an object (`feed`).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject, PyTypeObject, Py_TYPE
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno
from libc.string cimport memcpy

from weald._core.loops.contract cimport READ_EVENT
from weald.aio.core cimport Core, FdWatcher, Job

import os
from asyncio import InvalidStateError as _InvalidStateError
from asyncio.selector_events import _SelectorSocketTransport
from asyncio.streams import StreamReader, StreamReaderProtocol
from weakref import ReferenceType

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
    ssize_t c_recv "recv"(int, void *, size_t, int)
    ssize_t c_send "send"(int, const void *, size_t, int)

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1
    PyObject *_PyType_Lookup(PyTypeObject *, object)  # borrowed; NULL without an exception if there is none

cdef extern from *:
    """
    /* Exported, but from CPython 3.13 on no public header declares it. */
    PyAPI_FUNC(int) _PyObject_GetMethod(PyObject *, PyObject *, PyObject **);
    """
    # Sets its third argument; 1: that is a function of the class, to be called with the object as its first argument.
    int _PyObject_GetMethod(object, object, PyObject **) except? 0

cdef enum:
    LARGEST = 262144  # bytes received in one call; asyncio's limit
    JOINED = 65536  # bytes that are copied rather than sent by sendmsg

cdef char[LARGEST] received  # used only while the GIL is held, and copied before other code runs
cdef object write_slowly = _SelectorSocketTransport.write
cdef object writelines_slowly = _SelectorSocketTransport.writelines
cdef object Reference = ReferenceType
cdef object InvalidStateError = _InvalidStateError

# asyncio's functions between a transport and a StreamReader's buffer.
cdef object data_received = StreamReaderProtocol.data_received
cdef object reader_of = StreamReaderProtocol._stream_reader
cdef object feed_data = StreamReader.feed_data
cdef object wake_waiter = StreamReader._wakeup_waiter


cdef class OfStream:
    """OfStream(name): an attribute of a transport that its Stream keeps."""

    cdef str name

    def __init__(self, str name):
        self.name = name

    def __get__(self, transport, cls):
        return self if transport is None else getattr(transport._stream, self.name)

    def __set__(self, transport, value):
        setattr(transport._stream, self.name, value)


cdef bint has_method(object it, str name, object function) except -1:
    """Whether a call of `it.name` calls `function`: neither a subclass nor the object overrides it."""
    cdef PyObject *method = NULL
    cdef bint unbound = _PyObject_GetMethod(it, name, &method)
    cdef bint same = unbound and method == <PyObject *>function
    Py_DECREF(<object>method)
    return same


cdef bint feed(object protocol, const char *data, Py_ssize_t size) except -1:
    """Put `data` into the buffer of asyncio's reader, if `protocol.data_received` would do no more than that.

    Otherwise returns False and does nothing: if the reader or the protocol is of another class, or has a replaced
    method, if the reader has seen the end, or if its transport may have to pause.
    """
    cdef Py_ssize_t before
    if not has_method(protocol, "data_received", data_received):
        return False
    if _PyType_Lookup(Py_TYPE(protocol), "_stream_reader") != <PyObject *>reader_of:
        return False
    reference = protocol._stream_reader_wr
    if type(reference) is not Reference:
        return False
    reader = reference()
    if reader is None or not has_method(reader, "feed_data", feed_data):
        return False
    if not has_method(reader, "_wakeup_waiter", wake_waiter) or reader._eof is not False:
        return False
    buffer = reader._buffer
    if type(buffer) is not bytearray:
        return False
    before = PyByteArray_GET_SIZE(buffer)
    if before + size > reader._limit:
        return False
    PyByteArray_Resize(buffer, before + size)
    memcpy(PyByteArray_AS_STRING(buffer) + before, data, size)
    waiter = reader._waiter
    if waiter is not None:
        reader._waiter = None
        try:
            waiter.set_result(None)
        except InvalidStateError:
            if not waiter.cancelled():
                raise
    return True


cdef class Stream(Job):
    """Stream(transport, fd): reads and writes for a transport."""

    def __init__(self, transport, int fd):
        self.transport = transport
        self.fd = fd

    def __repr__(self):  # in warnings of a slow callback
        return f"<Stream of {self.transport!r}, received by {self.protocol!r}>"

    def start(self, Core loop not None, context):
        """Pass received data to the protocol, in the contextvars.Context `context` (None: a copy of the current)."""
        self.context = PyContext_CopyCurrent() if context is None else context
        self.watcher = loop.watch_job(self.fd, READ_EVENT, self)

    cdef int begin(self, Core loop, object context) except -1:
        """As `start`, for the first time; if the protocol has had it started meanwhile only the context is set."""
        self.context = context
        if self.watcher is None or self.watcher.reader is not self:
            self.watcher = loop.watch_job(self.fd, READ_EVENT, self)
        return 0

    def release(self):
        """Drop all references: the connection is over."""
        self.transport = None
        self.watcher = None
        self.context = None

    def is_closing(self):
        """Whether the transport is closed or being closed."""
        return self.closing

    cdef PyObject *connection(self) noexcept:
        return <PyObject *>self.transport

    cdef int run(self, Core loop) except -1:
        cdef FdWatcher watcher = self.watcher
        if self.transport is None or watcher is None or watcher.reader is not self:
            self.queued = False
            return 0
        context = self.context
        try:
            PyContext_Enter(context)
        except RuntimeError:  # a greenlet that is parked has entered it
            return loop.wait_for_context(self)
        try:
            if self.buffered:
                self.transport._read_ready()
            else:
                self.receive()
        finally:
            PyContext_Exit(context)
            self.queued = False
            if self.watcher is not None:  # another one, if the protocol has paused reading and resumed it
                self.watcher.ran(self)
        return 0

    cdef int receive(self) except -1:
        cdef ssize_t n
        cdef int error
        if self.conn_lost:
            return 0
        n = c_recv(self.fd, received, LARGEST, MSG_DONTWAIT)
        if n > 0:
            try:
                if not feed(self.protocol, received, n):
                    self.protocol.data_received(PyBytes_FromStringAndSize(received, n))
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as exception:
                if self.transport is not None:
                    self.transport._fatal_error(exception, "Fatal error: protocol.data_received() call failed.")
        elif n == 0:
            self.transport._read_ready__on_eof()
        else:
            error = errno
            if error != EAGAIN and error != EINTR:
                self.fail(error, "Fatal read error on socket transport")
        return 0

    cdef int fail(self, int error, str message) except -1:
        """End the connection: a system call failed with `error`."""
        try:
            raise OSError(error, os.strerror(error))
        except OSError as exception:
            self.transport._fatal_error(exception, message)
        return 0

    def write(self, data):
        """Send `data`, bytes-like; what cannot be sent at once is kept and sent later.

        TypeError for other objects, RuntimeError after `write_eof` and while a file is being sent.
        """
        cdef Py_buffer view
        cdef ssize_t n
        cdef int error
        if self.eof or self.conn_lost or self.empty_waiter is not None or self.buffer:
            write_slowly(self.transport, data)
            return
        if type(data) is bytes:
            if PyBytes_GET_SIZE(data) == 0:
                return
            n = c_send(self.fd, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), MSG_DONTWAIT | MSG_NOSIGNAL)
            if n == PyBytes_GET_SIZE(data):
                return
            error = errno
        elif isinstance(data, (bytes, bytearray, memoryview)):
            PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
            try:
                if view.len == 0:
                    return
                n = c_send(self.fd, view.buf, view.len, MSG_DONTWAIT | MSG_NOSIGNAL)
                if n == view.len:
                    return
                error = errno
            finally:
                PyBuffer_Release(&view)
        else:
            write_slowly(self.transport, data)  # which raises
            return
        if n < 0 and error != EAGAIN and error != EINTR:
            # Not left to a second call: a socket tells once that its peer has reset it.
            self.fail(error, "Fatal write error on socket transport")
            return
        write_slowly(self.transport, memoryview(data).cast("B")[n:] if n > 0 else data)

    def writelines(self, pieces):
        """Send all `pieces`, an iterable of bytes-like objects; what cannot be sent at once is kept and sent later.

        Raises what `write` does.
        """
        cdef Py_ssize_t size = 0
        if type(pieces) is not list and type(pieces) is not tuple:
            pieces = list(pieces)
        for piece in pieces:
            if isinstance(piece, (bytes, bytearray)):
                size += len(piece)
            elif isinstance(piece, memoryview):
                size += piece.nbytes
            else:
                # TypeError for what has no buffer.  asyncio's method on Python 3.15 would keep the pieces before it.
                memoryview(piece)
                size = JOINED + 1
        if not self.conn_lost and (size > JOINED or self.eof or self.empty_waiter is not None or self.buffer):
            writelines_slowly(self.transport, pieces)
        elif size > 0:
            self.write(b"".join(pieces))
