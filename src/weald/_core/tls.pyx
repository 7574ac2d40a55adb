# cython: nonecheck=True
"""A TLS socket's hot calls, compiled: one call of OpenSSL, with the wait before it.

Called by: weald.ssl, whose `SSLSocket.read` and `sendall` these are, and http/channel.pyx.

The socket decides what to do about OpenSSL's exceptions (wait, try again, or raise them): `_wait_wanted`, `_write_on`.

Invariants:
- A socket whose last read took all data is drained: the next read parks before it calls OpenSSL, which would
  raise.  OpenSSL reads record by record, so it holds no data then, and new data wakes the loop.
- A call keeps the `_sslobj` that it began with: a `shutdown` meanwhile takes it from the socket.
- A reader that leaves data in OpenSSL wakes those that wait.
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject

from weald._core.c_python cimport version_of
from weald._core.descriptor cimport Descriptor, descriptor_of
from weald._core.loops.contract cimport READ_EVENT, monotonic
from weald._core.yielding cimport give_way

cdef unsigned int usual_version = 0  # of the class that was last found to have weald's `send`; looking takes longer


cdef bint is_futile(object size, object buffer) noexcept:
    """Return whether a `read` of `size` bytes, or into `buffer`, returns or raises at once, with or without data."""
    cdef Py_buffer view
    try:
        if buffer is None:
            return size <= 0
        PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE)
    except Exception:
        return True
    PyBuffer_Release(&view)
    return view.len == 0


cdef object receive(object sock, Descriptor descriptor, object size, object buffer):
    """`SSLSocket.read`: up to `size` bytes; with a `buffer`, how many have been put into it."""
    cdef double limit = descriptor.limit
    cdef bint waits = descriptor.drained and limit != 0.0
    cdef double end
    cdef Py_ssize_t got
    if waits and is_futile(size, buffer):
        waits = False
    if not waits:
        give_way(True)
    sslobj = sock._sslobj
    if sslobj is None:
        return sock._refuse_read(size, buffer)
    try:
        if waits:
            descriptor.drained = False
            if limit < 0.0:
                descriptor.wait(READ_EVENT, -1.0)
            else:
                end = monotonic() + limit
                descriptor.wait(READ_EVENT, limit)
                limit = max(end - monotonic(), 1e-6)  # 0.0 would not wait at all
        result = sslobj.read(size) if buffer is None else sslobj.read(size, buffer)
    except OSError as error:
        result = sock._read_on(sslobj, error, None if limit < 0.0 else limit, size, buffer)
    got = len(result) if buffer is None else result
    descriptor.drained = 0 < got < size and not sslobj.pending()
    if not descriptor.drained and is_awaited(descriptor) and sslobj.pending():
        descriptor.rouse()  # OpenSSL has data for a waiting reader, which the system knows nothing of
    return result


cdef inline bint is_awaited(Descriptor descriptor) noexcept:
    """Whether greenlets may be waiting to read."""
    return descriptor.entry is not None and descriptor.entry.readers.head != NULL or descriptor.others is not None


def tls_read(self, len=1024, buffer=None):
    """Return up to `len` bytes, b"" at the end; with a `buffer`, the number of bytes put into it."""
    return receive(self, descriptor_of(self), len, buffer)


cdef bint is_send_replaced(object sock) except -1:
    """Return whether a class or a program has put another `send` in place of weald's."""
    global usual_version
    cdef unsigned int version = version_of(<PyObject *>sock)
    if version and version == usual_version:
        return False
    cls = type(sock)
    if cls.send is not cls._send:
        return True
    usual_version = version_of(<PyObject *>sock)
    return False


cdef int transmit_all(object sock, object data, int flags) except -1:
    """`SSLSocket.sendall`."""
    cdef Py_ssize_t sent = 0
    sslobj = sock._sslobj
    # As the standard library's, without its views of the data.
    if sslobj is None or flags or type(data) is not bytes or not data or sock._half_sent is not None \
            or is_send_replaced(sock):
        sock._send_on(sslobj, data, flags, 0)
        return 0
    give_way(True)
    if descriptor_of(sock).number >= 0:
        try:
            sent = sslobj.write(data)
        except OSError as error:
            sent = sock._write_on(sslobj, data, error)
        if sent == len(data):
            return 0
    sock._send_on(sslobj, data, flags, sent)
    return 0


def tls_sendall(self, data, int flags=0):
    """Send all of `data`, as ssl.SSLSocket.sendall does; each part of it within the socket's timeout."""
    transmit_all(self, data, flags)
