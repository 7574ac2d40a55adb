"""StreamServer and DatagramServer: accept connections or datagrams, handle each in a greenlet.

Called by: users, weald.http.server, weald.compat.

Invariants:
- One greenlet per server accepts, `max_accept` connections at a time.  It survives kills, and goes on after every error
  of accept except those that mean that the listener is gone; the pause doubles from `min_delay` to `max_delay`.
- A connection's socket is closed when its handler ends, however it ends.
- While the pool is full the server accepts nothing, so that other processes on the same listener can.
"""

import errno
import sys
from _socket import AF_INET, AF_INET6, SO_REUSEADDR, SO_REUSEPORT, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET
from _socket import socket as _Base
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

from greenlet import getcurrent

from weald import ssl
from weald._base.names import more_names
from weald._base.resident import Resident
from weald._core import Event, Greenlet, get_hub, report, sleep, spawn_raw
from weald.pool import Pool
from weald.socket import fromfd, socket

__all__ = ["BaseServer", "DatagramServer", "StreamServer"]

# accept(2): a connection that failed before it was accepted, or the network's trouble.  Try the next.
_TRANSIENT = frozenset(
    (
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EPROTO,
    )
)

_LARGEST_DATAGRAM = 65535  # bytes

_accept: Callable[[_Base], tuple[int, Any]] = _Base._accept  # type: ignore[attr-defined]
_recvfrom = _Base.recvfrom
_bind = _Base.bind


class BaseServer:
    """Base of both servers.

    `listener` is a bound socket, or the address to bind at `start`: ("host", port), "host:port", ":port",
    or a port.  An empty host means every interface, of IPv6 and IPv4.

    `handle` is called for each connection or datagram; a subclass may define it as a method instead.

    `spawn` chooses how it runs.  "default": each in a Greenlet; "raw": each in a plain greenlet; a Pool: in that; a
    number: at most so many at a time; a callable: called with the function and its arguments; None: in the accepting
    greenlet itself, one after the other.
    """

    min_delay = 0.01  # seconds to pause after the first failed accept
    max_delay = 1.0
    max_accept = 100  # how many to accept before other greenlets run
    stop_timeout = 1.0  # seconds `stop` gives the handlers in the pool
    fatal_errors: ClassVar[tuple[int, ...]] = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK)
    reuse_addr: int | None = 1
    reuse_port = False  # whether other sockets of this user may listen there as well; the system spreads the clients

    socket: Any  # absent while the server is closed
    handle: Callable[..., Any]

    def __init__(self, listener: Any, handle: Callable[..., Any] | None = None, spawn: Any = "default") -> None:
        self._stopped = Event()
        self._stopped.set()
        self._accepting: Resident | None = None
        self._acceptor: Any = None  # the listener, as a cooperative socket
        self._unbegun = 0  # handlers that are to run and have not begun
        self.pool: Any = None
        self.delay = self.min_delay
        self.set_listener(listener)
        self.set_spawn(spawn)
        self.set_handle(handle)
        if self.max_accept < 1:
            raise ValueError(f"max_accept must be a positive int: {self.max_accept!r}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = f"fileno={self.socket.fileno()}" if not self.closed else "closed"
        handle = self.__dict__.get("handle")
        shown = ""
        if handle is not None:
            # The repr of this object's own method would contain this object's repr, endlessly.
            own = getattr(handle, "__self__", None) is self
            text = f"<bound method {type(self).__name__}.{handle.__name__} of self>" if own else repr(handle)
            shown = f" handle={text}"
        return f"<{type(self).__name__} at {id(self):#x} {state} address={self.address!r}{shown}>"

    # ---------------------------------------------------------------- set-up

    def set_listener(self, listener: Any) -> None:
        """Take a bound socket, or the address to bind at `start`.  Raises TypeError for a TLS socket."""
        if hasattr(listener, "accept"):
            if hasattr(listener, "do_handshake"):
                raise TypeError(f"a server needs a plain socket and ssl arguments, not {listener!r}")
            self.family = listener.family
            self.address = listener.getsockname()
            self.socket = listener
        else:
            self.family, self.address = parse_address(listener)

    def set_spawn(self, spawn: Any) -> None:
        """Choose what runs handlers; see the class."""
        self.pool = None
        if spawn == "default":
            self._spawn: Callable[..., Any] | None = Greenlet.spawn
        elif spawn == "raw":
            self._spawn = spawn_raw
        elif spawn is None or (callable(spawn) and not hasattr(spawn, "spawn")):
            self._spawn = spawn
        else:
            self.pool = Pool(spawn) if isinstance(spawn, int) else spawn
            self._spawn = self.pool.spawn

    def set_handle(self, handle: Callable[..., Any] | None) -> None:
        """Choose the handler.  Raises TypeError if there is none."""
        if handle is not None:
            self.handle = handle
        if not hasattr(self, "handle"):
            raise TypeError("'handle' must be provided")
        self._handle = self.handle

    def init_socket(self) -> None:
        """Bind to `address` unless there is a socket already; `start` calls it."""
        if self.closed:
            self.socket = self._listen()
            self.address = self.socket.getsockname()

    def _listen(self) -> Any:
        raise NotImplementedError

    # ---------------------------------------------------------------- state

    @property
    def server_host(self) -> str | None:
        """The IP address the server is bound to; None for a Unix socket."""
        return self.address[0] if isinstance(self.address, tuple) else None

    @property
    def server_port(self) -> int | None:
        """The port the server is bound to; None for a Unix socket."""
        return self.address[1] if isinstance(self.address, tuple) else None

    @property
    def loop(self) -> Any:
        """This thread's event loop."""
        return get_hub().loop

    @property
    def started(self) -> bool:
        """Whether it accepts."""
        return not self._stopped.is_set()

    @property
    def closed(self) -> bool:
        """Whether it has no listener."""
        return "socket" not in self.__dict__

    def start(self) -> None:
        """Bind if need be, and accept from now on.  Raises the OSError of binding."""
        self.init_socket()
        self._stopped.clear()
        try:
            self.start_accepting()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop accepting and close the listener; running handlers go on.

        Handlers of connections that were accepted just now begin before that: they may ask the listener for its name.
        """
        self._stopped.set()
        self.stop_accepting()
        try:
            if self._unbegun and getcurrent() is not get_hub():
                sleep(0)
        finally:
            self._close_listener()

    def _close_listener(self) -> None:
        listener = self.__dict__.pop("socket", None)
        if listener is not None:
            listener.close()

    def stop(self, timeout: float | None = None) -> None:
        """`close`, then give the handlers in the pool `timeout` seconds (`stop_timeout`) and kill the rest.

        Handlers that do not run in a pool go on until they end.
        """
        self.close()
        if self.pool:
            self.pool.join(timeout=self.stop_timeout if timeout is None else timeout)
            self.pool.kill(block=True, timeout=1)

    def serve_forever(self, stop_timeout: float | None = None) -> None:
        """Start if need be, and wait until the server is stopped."""
        if not self.started:
            self.start()
        try:
            self._stopped.wait()
        finally:
            Greenlet.spawn(self.stop, timeout=stop_timeout).join()

    # ---------------------------------------------------------------- accepting

    def start_accepting(self) -> None:
        """Accept from now on; `start` calls it."""
        if self._accepting is None:
            listener = self.socket
            if not isinstance(listener, socket):
                listener = fromfd(listener.fileno(), listener.family, listener.type, listener.proto)
            self._acceptor = listener
            # The kind of the accepted sockets, known in advance to save system calls.
            self._kind = (int(listener.family), int(listener.type), listener.proto)
            self._accepting = Resident(self._accept_forever)

    def stop_accepting(self) -> None:
        """Accept no more, and keep the listener."""
        accepting, self._accepting = self._accepting, None
        if accepting is not None:
            accepting.stop()
        acceptor, self._acceptor = self._acceptor, None
        if acceptor is not None and acceptor is not self.__dict__.get("socket"):
            acceptor.close()

    def _accept_forever(self) -> None:
        """The accepting greenlet, as long as it is that of `_accepting`."""
        me = self._accepting
        accepted = 0
        while me is not None and self._accepting is me:
            try:
                if self.full():
                    self._wait_for_room()
                    continue
                args = self.do_read()
                if args is None:
                    accepted = 0
                    self._acceptor._descriptor.wait_read()
                    continue
                self.do_handle(*args)
            except Exception as error:
                if self._accepting is me:
                    self._failed(error)
            else:
                self.delay = self.min_delay
            accepted += 1
            if accepted >= self.max_accept:
                accepted = 0
                sleep(0)

    def _failed(self, error: Exception) -> None:
        """Called when accepting, or starting a handler, has failed."""
        if isinstance(error, OSError) and error.errno in _TRANSIENT:
            return
        get_hub().handle_error(self, *sys.exc_info())
        if self.is_fatal_error(error):
            report(f"ERROR: {self} stops: {error}\n")
            self.close()
        elif self.delay >= 0:
            sleep(self.delay)
            self.delay = min(self.max_delay, self.delay * 2)

    def is_fatal_error(self, ex: BaseException) -> bool:
        """Return whether `ex`, raised while accepting, means that the listener is unusable."""
        return isinstance(ex, OSError) and ex.errno in self.fatal_errors

    def full(self) -> bool:
        """Whether there is no room for another handler."""
        return self.pool is not None and self.pool.full()

    def _wait_for_room(self) -> None:
        if hasattr(self.pool, "wait_available"):
            self.pool.wait_available()
        if self.full():  # no such method, or another greenlet took the room
            sleep(self.min_delay)

    def do_read(self) -> tuple[Any, ...] | None:
        """Accept one connection or datagram: the handler's arguments, None if there is nothing to accept now."""
        raise NotImplementedError

    def do_handle(self, *args: Any) -> None:
        """Start the handler."""
        self._unbegun += 1
        try:
            if self._spawn is None:
                self._run_handler(*args)
            else:
                self._spawn(self._run_handler, *args)
        except BaseException:
            self._unbegun -= self._spawn is not None
            self.do_close(*args)
            raise

    def _run_handler(self, *args: Any) -> None:
        self._unbegun -= 1
        try:
            self._handle(*args)
        finally:
            self.do_close(*args)

    def do_close(self, *args: Any) -> None:
        """Called when the handler that was called with `args` has ended."""


class StreamServer(BaseServer):
    """A TCP or TLS server: `handle(socket, address)` in a greenlet for each connection.

    Any keyword argument besides those of BaseServer and `backlog` makes it a TLS server: `ssl_context` and
    the arguments of `SSLContext.wrap_socket`, or those of `weald.ssl.wrap_socket` (`certfile`, `keyfile`, …).
    The handshake is part of the handler's greenlet.
    """

    backlog = 128
    ssl_enabled = False  # whether it speaks TLS

    def __init__(
        self,
        listener: Any,
        handle: Callable[..., Any] | None = None,
        backlog: int | None = None,
        spawn: Any = "default",
        **ssl_args: Any,
    ) -> None:
        super().__init__(listener, handle, spawn)
        if backlog is not None:
            if not self.closed:
                raise TypeError("backlog must be None when a socket instance is passed")
            self.backlog = backlog
        self.ssl_args = ssl_args
        self.ssl_enabled = bool(ssl_args)
        if ssl_args:
            ssl_args.setdefault("server_side", True)
            context = ssl_args.pop("ssl_context", None)
            self.wrap_socket = ssl.wrap_socket if context is None else ssl.cooperative(context).wrap_socket

    def init_socket(self) -> None:
        """Bind unless there is a socket already, and choose TLS or plain text."""
        super().init_socket()
        self._handle = self.wrap_socket_and_handle if self.ssl_enabled else self.handle

    def set_listener(self, listener: Any) -> None:
        """As the base class's.  Raises TypeError for a socket for datagrams."""
        super().set_listener(listener)
        if not self.closed and listener.type == SOCK_DGRAM:
            raise TypeError(f"a socket for datagrams accepts no connections: {listener!r}")

    def _listen(self) -> Any:
        return self.get_listener(self.address, self.backlog, self.family)

    @classmethod
    def get_listener(cls, address: Any, backlog: int | None = None, family: int | None = None) -> Any:
        """A listening socket for `address`."""
        sock = _bound_socket(address, family, SOCK_STREAM, cls.reuse_addr, cls.reuse_port)
        sock.listen(cls.backlog if backlog is None else backlog)
        return sock

    def do_read(self) -> tuple[Any, Any] | None:
        """Accept one connection: its socket and address, None if there is none."""
        try:
            fd, address = _accept(self._acceptor)
        except BlockingIOError:
            return None
        return socket(*self._kind, fd), address

    def do_close(self, sock: Any, *args: Any) -> None:
        """Close the connection's socket."""
        sock.close()

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> None:
        """Call the handler with a TLS connection on `client_socket`."""
        with self.wrap_socket(client_socket, **self.ssl_args) as wrapped:
            self.handle(wrapped, address)


class DatagramServer(BaseServer):
    """A UDP server: `handle(data, address)` in a greenlet for each datagram; answer with `sendto`."""

    def _listen(self) -> Any:
        return self.get_listener(self.address, self.family)

    @classmethod
    def get_listener(cls, address: Any, family: int | None = None) -> Any:
        """A bound socket for `address`."""
        return _bound_socket(address, family, SOCK_DGRAM, cls.reuse_addr, cls.reuse_port)

    def do_read(self) -> tuple[Any, Any] | None:
        """Receive one datagram: its data and address, None if there is none."""
        try:
            return _recvfrom(self._acceptor, _LARGEST_DATAGRAM)
        except BlockingIOError:
            return None

    def sendto(self, data: Any, *args: Any) -> int:
        """sendto(data, [flags,] address), from the server's socket."""
        # A listener from the standard library is not cooperative, and it is non-blocking by now.
        sock = self.socket if self._acceptor is None else self._acceptor
        sent: int = sock.sendto(data, *args)
        return sent


def _bound_socket(address: Any, family: int | None, type: int, reuse_addr: int | None, reuse_port: bool) -> Any:
    """Raises the OSError of bind, which then names the address."""
    if family is None:
        family = AF_INET
    try:
        sock = socket(family, type)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT or family != AF_INET6 or address[0]:
            raise
        sock = socket(AF_INET, type)  # every interface of a machine without IPv6
    try:
        if reuse_addr is not None:
            sock.setsockopt(SOL_SOCKET, SO_REUSEADDR, reuse_addr)
        if reuse_port:
            sock.setsockopt(SOL_SOCKET, SO_REUSEPORT, 1)
        # localhost is in the hosts file: starting a server need not wait for a resolver.
        (_bind if address[0] == "localhost" else socket.bind)(sock, address)
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.strerror:
            error.strerror += f": {address!r}"
        raise
    return sock


def parse_address(address: Any) -> tuple[int, tuple[Any, ...]]:
    """Family and socket address of ("host", port), "host:port", ":port", "*:port", "[::1]:port", "port" or port.

    An empty host in a tuple, or none at all, means every interface of both families.
    """
    if isinstance(address, tuple):
        return (AF_INET6 if not address[0] or ":" in address[0] else AF_INET), address
    if not isinstance(address, str | int):
        raise TypeError(f"an address is a tuple, a str or a port, not {address!r}")
    host, colon, port = str(address).rpartition(":")
    family = AF_INET if colon else AF_INET6
    if host.startswith("[") and host.endswith("]"):
        family, host = AF_INET6, host[1:-1]
    try:
        return family, ("" if host == "*" else host, int(port))
    except ValueError:
        raise ValueError(f"no port in the address {address!r}; it should be like 'host:port'") from None


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
