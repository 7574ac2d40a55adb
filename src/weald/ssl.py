"""`ssl` on greenlets: handshakes, reads and writes park the calling greenlet.

Called by: users, weald.monkey, weald.server, http/channel.pyx.

Patching sets `ssl.SSLContext.sslsocket_class`, which a context reads whenever it wraps a socket, so that contexts made
earlier make cooperative sockets as well.  `ssl.SSLContext` itself is not replaced: its setters find their base class by
the module's global of that name, and would recurse without end if that were a subclass.  The subclass here is for
programs that are not patched.

Invariants:
- The descriptor is non-blocking (see socket.py), so OpenSSL reports what it waits for as SSLWantReadError or
  SSLWantWriteError; `_wait_wanted` returns the function that waits for that.
- All other errors of OpenSSL's calls go through `_wait_wanted`, too.  It removes them from the native thread's list of
  errors.  Otherwise the next call, for another connection, would report them as its own.
"""

import ssl as _stdlib
from collections.abc import Callable
from errno import EBADF, ENOTCONN
from functools import cache
from os import strerror
from socket import _GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
from ssl import (
    CERT_NONE,
    CERT_REQUIRED,
    PROTOCOL_TLS_CLIENT,
    PROTOCOL_TLS_SERVER,
    SSL_ERROR_EOF,
    DER_cert_to_PEM_cert,
    MemoryBIO,
    SSLError,
    SSLWantReadError,
    SSLWantWriteError,
    VerifyMode,
)
from ssl import SSLSocket as _BlockingSSLSocket
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from weald import _core
from weald._base.waiting import retry_as_wanted
from weald._core import Lock, asked_in_vain, before_io, monotonic
from weald.socket import create_connection, socket

__implements__ = [
    "SSLContext",
    "SSLSocket",
    "create_connection",
    "create_default_context",
    "get_server_certificate",
    "socket",
]
__extensions__ = ["cooperative"]
(__implements__ if hasattr(_stdlib, "wrap_socket") else __extensions__).append("wrap_socket")  # gone since 3.12
__imports__ = [
    name
    for name, value in vars(_stdlib).items()
    if not name.startswith("_") and not isinstance(value, ModuleType) and name not in __implements__ + __extensions__
]
__all__ = sorted({*__implements__, *__extensions__, *__imports__})

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    globals().update({name: getattr(_stdlib, name) for name in __imports__ if name not in globals()})
    from weald._base.names import more_names

    __getattr__ = more_names(__name__)

_T = TypeVar("_T")
_OWN: Any = object()  # stands for the socket's own timeout

# The standard library's method; patching replaces it for older sockets even in the standard library's class.
_read, _recv_into = _BlockingSSLSocket.read, _BlockingSSLSocket.recv_into
_write, _sendall = _BlockingSSLSocket.write, _BlockingSSLSocket.sendall


def _late(error: TimeoutError, doing: str) -> TimeoutError:
    """Return the exception for `error`: with ssl's text if a wait has timed out, else (from the system) as it is."""
    return TimeoutError(f"The {doing} operation timed out") if error.errno is None else error


@cache
def _scratch() -> _stdlib.SSLContext:
    """A context for `_forget_errors`."""
    context = _stdlib.SSLContext(PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


def _forget_errors() -> None:
    """Empty OpenSSL's list of this native thread's errors.

    An operation that would block looks there (SSL_get_error(3): the list must be empty before).  From Python 3.14 on
    the system's errors (EPIPE, ECONNRESET) stay in it.  The beginning of a connection empties it.
    """
    _scratch().wrap_bio(MemoryBIO(), MemoryBIO())


class _CooperativeSSLSocket(_BlockingSSLSocket, socket):  # type: ignore[misc]
    """The stdlib's SSLSocket, with calls that park instead of blocking."""

    _check_connected: Callable[[], None]
    _sslobj: Any
    do_handshake_on_connect: bool
    suppress_ragged_eofs: bool

    _connected: bool
    _half_sent: Lock | None = None  # held while a record is half sent: OpenSSL must get its rest before anything else
    _given_up = False  # whether a write has ended, by its timeout or a kill, with a record half sent

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        # `_create` calls this through super(), from whichever class is called ssl.SSLSocket by then.
        socket.__init__(self, family, type, proto, fileno)

    @classmethod
    def _create(
        cls, sock: Any, server_side: bool = False, do_handshake_on_connect: bool = True, **options: Any
    ) -> "SSLSocket":
        # The stdlib's closes the socket, to which there is no other reference, when the handshake fails, but not when
        # the greenlet is killed or a Timeout ends it.  So the handshake is made here.
        self: SSLSocket = super()._create(sock, server_side, False, **options)  # type: ignore[misc]
        self.do_handshake_on_connect = do_handshake_on_connect
        if do_handshake_on_connect and self._connected:
            try:
                if self._descriptor.timeout == 0.0:
                    raise ValueError("do_handshake_on_connect should not be specified for non-blocking sockets")
                self.do_handshake()
            except BaseException:
                self.close()
                raise
        return self

    def _cooperate_ssl(self, doing: str, timeout: float | None, call: Callable[..., _T], *args: Any) -> _T:
        """Return `call(*args)`, tried again after waiting for what OpenSSL wants, within `timeout` seconds."""
        try:
            return call(*args)
        except OSError as error:
            wait = self._wait_wanted(error, timeout)
        try:
            return retry_as_wanted(self._wait_wanted, wait, timeout, call, *args)
        except TimeoutError as error:
            raise _late(error, doing) from None

    def _wait_wanted(self, error: Exception, timeout: float | None = None) -> Callable[[float | None], None]:
        """Return the wait for what OpenSSL wants, as `error` says.

        Raises `error` if OpenSSL wants nothing, or if the timeout is 0.
        """
        if isinstance(error, SSLWantReadError):
            if timeout != 0.0:
                return self._descriptor.wait_read
            asked_in_vain()
        elif isinstance(error, SSLWantWriteError):
            if timeout != 0.0:
                return self._descriptor.wait_write
        elif isinstance(error, OSError) and not isinstance(error, SSLError):
            _forget_errors()
        raise error

    def setsockopt(self, level: int, optname: int, *value: Any) -> None:
        """setsockopt(2); TLS ignores SO_RCVTIMEO and SO_SNDTIMEO, as the standard library's does."""
        socket.setsockopt(self, level, optname, *value)
        if self._sslobj is not None:
            self._descriptor.receive_limit = self._descriptor.send_limit = 0.0

    read = _core.tls_read
    sendall = _core.tls_sendall

    def _refuse_read(self, len: int, buffer: Any) -> Any:
        """Raise what the standard library's `read` raises without TLS."""
        return _read(self, len, buffer)

    def _read_on(self, sslobj: Any, error: OSError, timeout: float | None, len: int, buffer: Any) -> Any:
        """Continue a `read` whose first try, or the wait before it, has raised `error`."""
        args = (len,) if buffer is None else (len, buffer)
        try:
            wait = self._wait_wanted(error, timeout)
            return retry_as_wanted(self._wait_wanted, wait, timeout, sslobj.read, *args)
        except SSLError as error:
            if error.args[0] == SSL_ERROR_EOF and self.suppress_ragged_eofs:
                return b"" if buffer is None else 0
            raise
        except TimeoutError as error:
            raise _late(error, "read") from None

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        if nbytes and not flags and self._sslobj is not None:
            count: int = self.read(nbytes, buffer)
            return count
        return _recv_into(self, buffer, nbytes, flags)

    def write(self, data: Any, timeout: Any = _OWN) -> int:
        """Write some of `data`, within `timeout` seconds (None: no limit; by default the socket's); how many bytes."""
        sslobj = self._sslobj
        if sslobj is None:
            return _write(self, data)  # raises
        return self._write(sslobj, data, timeout)

    def _write(self, sslobj: Any, data: Any, timeout: Any = _OWN) -> int:
        """As `write`, with `sslobj`, which a `shutdown` may have removed from the socket."""
        if timeout is _OWN:
            timeout = self._descriptor.timeout
        before_io()
        if self.fileno() < 0:
            raise OSError(EBADF, strerror(EBADF))  # closed meanwhile
        if timeout == 0.0 or self._half_sent is None:
            try:
                sent: int = sslobj.write(data)
                return sent
            except OSError as error:
                return self._write_on(sslobj, data, error, timeout)
        return self._write_in_turn(sslobj, data, timeout)

    def _write_on(self, sslobj: Any, data: Any, error: OSError, timeout: Any = _OWN) -> int:
        """Continue a `_write` whose first try has raised `error`."""
        if timeout is _OWN:
            timeout = self._descriptor.timeout
        self._wait_wanted(error, timeout)
        self._half_sent = self._half_sent or Lock()
        return self._write_in_turn(sslobj, data, timeout)

    def _write_in_turn(self, sslobj: Any, data: Any, timeout: float | None) -> int:
        """Write some of `data` when no other greenlet's record is half sent."""
        assert self._half_sent is not None
        end = monotonic() + (timeout or 0.0)
        if not self._half_sent.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError("The write operation timed out")
        try:
            if self.fileno() < 0:
                raise OSError(EBADF, strerror(EBADF))  # closed meanwhile
            if timeout is not None:
                timeout = max(end - monotonic(), 1e-6)  # 0.0 would not wait at all
                if self._given_up:
                    # As the standard library does before each write.  OpenSSL, given other data than before, would
                    # end the connection; while there is no room it must not be asked.
                    self._wait_for_room(timeout)
                    timeout = max(end - monotonic(), 1e-6)
            self._given_up = True
            sent: int = self._cooperate_ssl("write", timeout, sslobj.write, data)
            self._given_up = False
            return sent
        finally:
            self._half_sent.release()

    def _wait_for_room(self, timeout: float) -> None:
        try:
            self._descriptor.wait_write(timeout)
        except TimeoutError as error:
            raise _late(error, "write") from None

    def send(self, data: Any, flags: int = 0, timeout: Any = _OWN) -> int:
        """As `write`; over plain text as weald.socket.socket.send."""
        if self._sslobj is None:
            return socket.send(self, data, flags) if timeout is _OWN else socket.send(self, data, flags, timeout)
        if flags != 0:
            raise ValueError(f"non-zero flags not allowed in calls to send() on {type(self)}")
        return self._write(self._sslobj, data, timeout)

    _send = send  # a class or a program may replace `send`; `sendall` then calls theirs

    def _send_on(self, sslobj: Any, data: Any, flags: int, sent: int) -> None:
        """Continue a `sendall` of which `sent` bytes are sent."""
        if sslobj is None or flags:
            _sendall(self, data, flags)
            return
        replaced = type(self).send is not type(self)._send
        # The standard library's would send the rest in plain text after a `shutdown` for reading.
        with memoryview(data) as view, view.cast("B") as rest:
            while sent < rest.nbytes:
                sent += self.send(rest[sent:]) if replaced else self._write(sslobj, rest[sent:])

    def do_handshake(self, block: bool = False) -> None:
        """Negotiate; with `block`, a non-blocking socket waits, too."""
        self._check_connected()
        timeout = self._descriptor.timeout
        if block and timeout == 0.0:
            timeout = None
        sslobj = self._sslobj
        if sslobj is None:
            number = EBADF if self.fileno() < 0 else ENOTCONN  # closed, or shut down
            raise OSError(number, strerror(number))
        self._descriptor.receive_limit = self._descriptor.send_limit = 0.0
        self._cooperate_ssl("handshake", timeout, sslobj.do_handshake)

    def unwrap(self) -> socket:
        """End TLS: send close_notify, wait for the peer's, return this socket, now for plain text."""
        if not self._sslobj:
            raise ValueError(f"No SSL wrapper around {self}")
        shutdown, timeout, doing = self._sslobj.shutdown, self._descriptor.timeout, "read"

        def wanted(error: Exception, timeout: float | None = None) -> Callable[[float | None], None]:
            nonlocal doing
            doing = "write" if isinstance(error, SSLWantWriteError) else "read"
            return self._wait_wanted(error, timeout)

        plain: socket
        try:
            try:
                plain = shutdown()
            except OSError as error:
                plain = retry_as_wanted(wanted, wanted(error, timeout), timeout, shutdown)
        except TimeoutError as error:
            raise _late(error, doing) from None
        self._sslobj = None
        self._descriptor.rouse()  # what other calls wait for, this one has read
        return plain

    def accept(self) -> tuple["SSLSocket", Any]:
        sock, address = socket.accept(self)
        wrapped = self._create(
            sock,
            server_side=True,
            do_handshake_on_connect=self.do_handshake_on_connect,
            suppress_ragged_eofs=self.suppress_ragged_eofs,
            context=self.context,
        )
        return wrapped, address


class SSLSocket(_CooperativeSSLSocket):
    """ssl.SSLSocket; `SSLContext.wrap_socket` makes them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(
            f"{type(self).__name__} has no public constructor: SSLContext.wrap_socket() returns its instances"
        )


class SSLContext(_stdlib.SSLContext):
    """ssl.SSLContext whose sockets are cooperative, also in a program that is not patched."""

    sslsocket_class = SSLSocket


def create_default_context(*args: Any, **kwargs: Any) -> _stdlib.SSLContext:
    """ssl.create_default_context(); the context's sockets are cooperative."""
    return cooperative(_stdlib.create_default_context(*args, **kwargs))


def _create_unverified_context(*args: Any, **kwargs: Any) -> _stdlib.SSLContext:
    return cooperative(_stdlib._create_unverified_context(*args, **kwargs))


def cooperative(context: _stdlib.SSLContext) -> _stdlib.SSLContext:
    """Make `context` create cooperative sockets, unless the program has set a socket class of its own."""
    if context.sslsocket_class is _BlockingSSLSocket:
        context.sslsocket_class = SSLSocket
    return context


def _context_for(
    server_side: bool,
    keyfile: str | None,
    certfile: str | None,
    cert_reqs: VerifyMode,
    ssl_version: int | None,
    ca_certs: str | None,
    ciphers: str | None,
) -> SSLContext:
    """A new context, for `wrap_socket`."""
    if certfile is None and (server_side or keyfile):
        raise ValueError("certfile must be specified")
    if ssl_version is None:
        ssl_version = PROTOCOL_TLS_SERVER if server_side else PROTOCOL_TLS_CLIENT
    context = SSLContext(ssl_version)
    context.check_hostname = False
    context.verify_mode = cert_reqs
    if ca_certs:
        context.load_verify_locations(ca_certs)
    if certfile:
        context.load_cert_chain(certfile, keyfile)
    if ciphers:
        context.set_ciphers(ciphers)
    return context


def wrap_socket(
    sock: Any,
    keyfile: str | None = None,
    certfile: str | None = None,
    server_side: bool = False,
    cert_reqs: VerifyMode = CERT_NONE,
    ssl_version: int | None = None,
    ca_certs: str | None = None,
    do_handshake_on_connect: bool = True,
    suppress_ragged_eofs: bool = True,
    ciphers: str | None = None,
) -> Any:
    """ssl.wrap_socket() of Python 3.11: a TLS connection on `sock`, with a context made from the arguments.

    It does not check host names, and certificates only if `cert_reqs` says so: prefer SSLContext.wrap_socket.
    """
    context = _context_for(server_side, keyfile, certfile, cert_reqs, ssl_version, ca_certs, ciphers)
    return context.wrap_socket(
        sock,
        server_side=server_side,
        do_handshake_on_connect=do_handshake_on_connect,
        suppress_ragged_eofs=suppress_ragged_eofs,
    )


def get_server_certificate(
    addr: tuple[str, int],
    ssl_version: int = PROTOCOL_TLS_CLIENT,
    ca_certs: str | None = None,
    timeout: float | None = _GLOBAL_DEFAULT_TIMEOUT,
) -> str:
    """The certificate of the server at `addr`, PEM; validated if there are `ca_certs`."""
    context = SSLContext(ssl_version)
    context.check_hostname = False
    context.verify_mode = CERT_NONE if ca_certs is None else CERT_REQUIRED
    if ca_certs is not None:
        context.load_verify_locations(ca_certs)
    with (
        create_connection(addr, timeout=timeout) as sock,
        context.wrap_socket(sock, server_hostname=addr[0]) as wrapped,
    ):
        certificate = wrapped.getpeercert(True)
    assert certificate is not None  # a server without one fails the handshake
    return DER_cert_to_PEM_cert(certificate)
