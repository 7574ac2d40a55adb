"""Transports of connected stream sockets: how a connection begins and how it ends, in C.

Called by: weald.aio.loop, which makes a `SocketTransport` for each connection.
Invariants:
- A SocketTransport is one of asyncio's, and has its attributes.  Its methods here do what asyncio's do; the other ones
  are asyncio's own.  What the hot part uses lies in its Stream (stream.pyx).
- One job calls `connection_made`, then begins to read, then tells who waits for the connection.  asyncio has three jobs
  for that, one behind the other; nothing else can come between them.
- `connection_made` and `connection_lost` are held while another callback of the connection is parked.
"""

from cpython.object cimport PyObject
from libc.errno cimport EAGAIN, ECONNABORTED, EINTR, errno
from libc.stdint cimport uint16_t, uint32_t
from posix.unistd cimport close

from weald._core.loops.contract cimport READ_EVENT, WRITE_EVENT
from weald.aio.core cimport Core, Handle, call_in_context
from weald.aio.stream cimport Stream

import os
from _socket import socket as _base_socket
from asyncio import BufferedProtocol as _BufferedProtocol, base_events
from asyncio.selector_events import _SelectorSocketTransport
from asyncio.sslproto import SSLProtocol as _SSLProtocol
from asyncio.trsock import TransportSocket as _TransportSocket
from collections import deque

from weald._base.originals import get_original
from weald.aio.core import report
from weald.aio.stream import OfStream
from weald.aio.tls import mended

cdef extern from "Python.h":
    object PyContext_CopyCurrent()
    object PyWeakref_NewRef(object, PyObject *)

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/socket.h>
    """
    enum:
        AF_INET
        AF_INET6
        AF_UNIX
        INET6_ADDRSTRLEN
        IPPROTO_TCP
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOCK_STREAM
        TCP_NODELAY
    ctypedef unsigned int socklen_t
    struct sockaddr:
        uint16_t sa_family
    struct in_addr:
        pass
    struct in6_addr:
        pass
    struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    int getpeername(int, sockaddr *, socklen_t *)
    int getsockname(int, sockaddr *, socklen_t *)
    int accept4(int, sockaddr *, socklen_t *, int) nogil
    int setsockopt(int, int, int, const void *, socklen_t)
    const char *inet_ntop(int, const void *, char *, socklen_t)
    uint16_t ntohs(uint16_t)
    uint32_t ntohl(uint32_t)

cdef object Socket = get_original("socket", "socket")
cdef object get_family = _base_socket.family.__get__  # as a plain number
cdef object get_type = _base_socket.type.__get__
cdef object BufferedProtocol = _BufferedProtocol
cdef object SSLProtocol = _SSLProtocol
cdef object TransportSocket = _TransportSocket
cdef object warn_unclosed = _SelectorSocketTransport.__del__
cdef object make_buffer = getattr(_SelectorSocketTransport, "_buffer_factory", deque)
# From Python 3.13 on a server knows its connections, before it only counts them.
cdef bint KNOWS_CONNECTIONS = base_events.Server._attach.__code__.co_argcount == 2


cdef class Transports:
    """Descriptor number to transport, weakly, as asyncio's `loop._transports`.

    An entry whose transport is gone stays until the number is used again, so nothing has to be called when it goes.
    """

    cdef dict references

    def __cinit__(self):
        self.references = {}

    def __setitem__(self, fd, transport):
        self.references[fd] = PyWeakref_NewRef(transport, NULL)

    def get(self, fd, default=None):
        """The transport of descriptor `fd`; `default` if there is none."""
        reference = self.references.get(fd)
        transport = None if reference is None else reference()
        return default if transport is None else transport

    def __getitem__(self, fd):
        transport = self.get(fd)
        if transport is None:
            raise KeyError(fd)
        return transport

    def __delitem__(self, fd):
        del self.references[fd]


cdef class Ends:
    """The addresses of a TCP connection as the kernel has them.  Only for those who ask they are made Python's."""

    cdef sockaddr_in6 own  # either has room for a sockaddr_in
    cdef sockaddr_in6 peer
    cdef bint knows_peer


cdef object address_of(sockaddr_in6 *address):
    """An address of family AF_INET or AF_INET6, in the form of the socket module."""
    cdef char host[INET6_ADDRSTRLEN]
    cdef sockaddr_in *ip = <sockaddr_in *>address
    if (<sockaddr *>address).sa_family == AF_INET:
        inet_ntop(AF_INET, &ip.sin_addr, host, INET6_ADDRSTRLEN)
        return host.decode("ascii"), ntohs(ip.sin_port)
    inet_ntop(AF_INET6, &address.sin6_addr, host, INET6_ADDRSTRLEN)
    return host.decode("ascii"), ntohs(address.sin6_port), ntohl(address.sin6_flowinfo), address.sin6_scope_id


cdef int set_up_tcp(sock, Stream stream, dict extra, Ends ends) except -1:
    """Note the addresses of a connection of TCP, and have small pieces sent at once."""
    cdef int on = 1
    cdef socklen_t length = sizeof(ends.own)
    if ends is None:
        ends = Ends.__new__(Ends)
    stream.ends = ends
    if getsockname(stream.fd, <sockaddr *>&ends.own, &length) < 0:
        extra["sockname"] = None
    if not ends.knows_peer and "peername" not in extra:
        length = sizeof(ends.peer)
        if getpeername(stream.fd, <sockaddr *>&ends.peer, &length) < 0:
            extra["peername"] = None
    if sock.proto == IPPROTO_TCP and setsockopt(stream.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0:
        raise OSError(errno, os.strerror(errno))
    return 0


cdef int set_up(sock, dict extra) except -1:
    """The same for all other sockets."""
    try:
        extra["sockname"] = sock.getsockname()
    except OSError:
        extra["sockname"] = None
    if "peername" not in extra:
        try:
            extra["peername"] = sock.getpeername()
        except OSError:
            extra["peername"] = None
    if not isinstance(sock, _base_socket):
        base_events._set_nodelay(sock)  # it may stand for one of TCP
    return 0


cdef class Made(Handle):
    """Calls `connection_made`, begins to read, and sets the result of `waiter`, a future, if there is one."""

    cdef Stream stream
    cdef object reading  # the context in which data is received
    cdef object waiter

    cdef PyObject *connection(self) noexcept:
        return <PyObject *>self.stream.transport

    cdef int run(self, Core loop) except -1:
        cdef bint held = False
        try:
            held = call_in_context(self, self._callback, self._args, self._context, loop)
        finally:
            if not held:
                self.begin(loop)
        return 0

    cdef int begin(self, Core loop) except -1:
        cdef Stream stream = self.stream
        waiter = self.waiter
        try:
            if not stream.closing and not stream.paused and not loop._closed:
                stream.begin(loop, self.reading)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            report(self, stream.start, (loop, self.reading), loop, error)
        if waiter is not None and not waiter.cancelled():
            waiter.set_result(None)
        return 0


cdef class Lost(Handle):
    """Calls a transport's `_call_connection_lost`."""

    cdef object transport

    cdef PyObject *connection(self) noexcept:
        return <PyObject *>self.transport


cdef int lose(transport, Core loop, error) except -1:
    """Have `connection_lost(error)` called."""
    cdef Lost handle = Lost.__new__(Lost)
    handle.transport = transport
    loop.queue(handle, transport._call_connection_lost, (error,), transport._context)
    return 0


def _get_buffer(transport):
    cdef Stream stream = transport._stream
    if stream.buffer is None:
        stream.buffer = make_buffer()
    return stream.buffer


def _set_buffer(transport, buffer):
    cdef Stream stream = transport._stream
    stream.buffer = buffer


class SocketTransport(_SelectorSocketTransport):
    """asyncio's transport of a connected stream socket, with what each connection and each message needs compiled."""

    _protocol = OfStream("protocol")
    _buffer = property(_get_buffer, _set_buffer)
    _empty_waiter = OfStream("empty_waiter")
    _conn_lost = OfStream("conn_lost")
    _closing = OfStream("closing")
    _paused = OfStream("paused")
    _eof = OfStream("eof")
    # What asyncio sets in each transport, and hardly ever changes.
    _protocol_connected = True
    _read_ready_cb = None
    _context = None
    _buffer_size = 0
    if hasattr(_SelectorSocketTransport, "_write_sendmsg"):  # from Python 3.12 on
        _write_ready = _SelectorSocketTransport._write_sendmsg

    def __init__(
        self, Core loop, sock, protocol, waiter=None, extra=None, server=None, context=None, Ends ends=None
    ):
        cdef Stream stream = Stream.__new__(Stream)
        cdef Made made = Made.__new__(Made)
        fd = sock.fileno()
        self._stream = stream
        stream.transport = self
        stream.fd = fd
        if extra is None:
            extra = {}
        self._extra = extra
        self._loop = loop
        self._protocol_paused = False
        self._high_water = 65536
        self._low_water = 16384
        outer = TransportSocket.__new__(TransportSocket)
        outer._sock = sock
        extra["socket"] = outer
        self._sock = sock
        self._sock_fd = fd
        self._server = server
        if context is not None:  # from Python 3.15 on
            self._context = context
        set_protocol(stream, protocol)
        if server is not None:
            if KNOWS_CONNECTIONS:
                server._attach(self)
            else:
                server._attach()
        loop._transports[fd] = self
        if isinstance(sock, _base_socket) and get_type(sock) == SOCK_STREAM and get_family(sock) in (AF_INET, AF_INET6):
            set_up_tcp(sock, stream, extra, ends)
        else:
            set_up(sock, extra)
        # The stream's methods themselves: no Python frame comes before them.
        self.write = stream.write
        self.writelines = stream.writelines
        self.is_closing = stream.is_closing
        made.stream = stream
        made.waiter = waiter
        made.reading = PyContext_CopyCurrent() if context is None else context
        loop.queue(made, stream.protocol.connection_made, (self,), context)

    def get_extra_info(self, name, default=None):
        """What is known of the connection as `name`: socket, sockname, peername."""
        cdef Ends ends = (<Stream>self._stream).ends
        cdef dict extra = self._extra
        if ends is not None and name not in extra:
            if name == "sockname":
                extra[name] = address_of(&ends.own)
            elif name == "peername":
                extra[name] = address_of(&ends.peer)
        return extra.get(name, default)

    def set_protocol(self, protocol):
        """Pass received data to `protocol` from now on."""
        set_protocol(self._stream, protocol)

    def _read_ready(self):
        if (<Stream>self._stream).buffered:
            self._read_ready__get_buffer()
        else:
            self._read_ready__data_received()

    def _add_reader(self, fd, callback, *args):
        if self.is_reading():
            self._stream.start(self._loop, self._context)

    def writelines(self, list_of_data):
        """As asyncio's, which on Python 3.12 fails when the connection is over."""
        if self._conn_lost:
            self.write(b"".join(list_of_data))  # counted and dropped
        else:
            _SelectorSocketTransport.writelines(self, list_of_data)

    def close(self):
        """Close the connection when what has been written is sent.  Idempotent."""
        cdef Stream stream = self._stream
        cdef Core loop
        if stream.closing:
            return
        stream.closing = True
        loop = self._loop
        if loop is None:
            return
        loop.remove(stream.fd, READ_EVENT)
        if not stream.buffer:
            stream.conn_lost += 1
            loop.remove(stream.fd, WRITE_EVENT)
            lose(self, loop, None)

    def _force_close(self, error):
        cdef Stream stream = self._stream
        cdef Core loop
        if stream.conn_lost or self._loop is None:  # ended: after a `close` that had to send first nothing is counted
            return
        loop = self._loop
        if stream.buffer:
            stream.buffer.clear()
            self._buffer_size = 0
            loop.remove(stream.fd, WRITE_EVENT)
        if not stream.closing:
            stream.closing = True
            loop.remove(stream.fd, READ_EVENT)
        stream.conn_lost += 1
        lose(self, loop, error)

    def _call_connection_lost(self, error):
        cdef Stream stream = self._stream
        if self._loop._is_busy(self):  # asyncio calls this directly when the rest is sent after `close`
            stream.conn_lost += 1  # so that `abort` does not queue another one
            lose(self, self._loop, error)
            return
        # They refer to the transport.  Without that cycle it is freed at once.
        del self.write, self.writelines, self.is_closing
        try:
            stream.protocol.connection_lost(error)
        finally:
            self._sock.close()
            self._sock = None
            stream.protocol = None
            self._loop = None
            server, self._server = self._server, None
            if server is not None:
                if KNOWS_CONNECTIONS:
                    server._detach(self)
                else:
                    server._detach()
            self._write_ready = None  # as asyncio's from Python 3.14 on
            stream.release()
            if stream.empty_waiter is not None:
                stream.empty_waiter.set_exception(ConnectionError("Connection is closed by peer"))

    def __del__(self):
        if self._sock is not None:
            server = self._server
            if server is not None and server._waiters is None:
                # Its last connection has been collected already: asyncio's `_detach` fails for a further one.
                self._server = None
            warn_unclosed(self)


cdef int set_protocol(Stream stream, protocol) except -1:
    if isinstance(protocol, SSLProtocol):
        protocol = mended(protocol)
    stream.buffered = isinstance(protocol, BufferedProtocol)
    stream.protocol = protocol
    return 0


# ------------------------------------------------------------------ accepting

def accepts(sock):
    """Whether `accept` may be used for the listening socket `sock`: it is one of the standard library's."""
    return type(sock) is Socket


def accept(Core loop not None, protocol_factory, sock, server, int limit, context):
    """Accept the connections that wait at `sock`, up to `limit`, and have the transport of each made in the loop.

    Returns False if a connection cannot be accepted, and does not handle the error.  `context`: None, or that of which
    each connection gets a copy.
    """
    cdef Ends ends
    cdef sockaddr_in6 unused
    cdef socklen_t length
    cdef int listening = sock.fileno()
    cdef int fd
    cdef int family = get_family(sock)
    cdef int kind = get_type(sock) | SOCK_NONBLOCK  # so that the socket knows that it does not block
    for _ in range(limit):
        ends = Ends.__new__(Ends) if family in (AF_INET, AF_INET6) else None
        length = sizeof(unused)
        fd = accept4(
            listening, <sockaddr *>(&unused if ends is None else &ends.peer), &length, SOCK_CLOEXEC | SOCK_NONBLOCK)
        if fd < 0:
            if errno == ECONNABORTED:  # the client has left already
                continue
            return errno == EAGAIN or errno == EINTR
        try:
            conn = Socket(family, kind, sock.proto, fd)
        except BaseException:
            close(fd)
            raise
        extra = {}
        if ends is not None:
            ends.knows_peer = True
        elif family == AF_UNIX and length <= sizeof(uint16_t):
            extra["peername"] = ""  # it has no name
        own = None if context is None else context.copy()
        loop.queue(Handle.__new__(Handle), serve, (loop, protocol_factory, conn, server, own, extra, ends), own)
    return True


def serve(loop, protocol_factory, conn, server, context, extra, ends):
    """Make the transport of an accepted connection."""
    try:
        SocketTransport(loop, conn, protocol_factory(), None, extra, server, context, ends)
    except (SystemExit, KeyboardInterrupt):
        raise
    except BaseException:  # asyncio, too, reports it in debug mode only
        conn.close()
