"""`EventLoop`: an asyncio loop whose readiness, timers and threads are the hub's.

Called by: users, through weald.aio.

The queue, the greenlet that empties it, timers and watched descriptors are compiled (core.pyx).  The rest is inherited
from asyncio: servers, datagrams, pipes, TLS, sendfile.
Invariant: the loop has no selector and no self-pipe.  asyncio's code that uses the selector gets a view of the watched
descriptors.
"""

import asyncio
import errno
import inspect
import os
import selectors
import signal
import sys
import warnings
from _socket import inet_pton
from _socket import socket as _BaseSocket
from asyncio import base_events, constants, coroutines, selector_events, sslproto, unix_events
from asyncio.log import logger
from collections.abc import Callable, Coroutine, Generator
from functools import lru_cache
from socket import AF_INET, AF_INET6, AF_UNIX, SOCK_STREAM
from types import MethodType, coroutine
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from weald import socket as _socket
from weald._base.originals import get_original
from weald._core import CancelScope, get_hub, listen_to_signals, spawn_raw, unlisten_to_signals
from weald.aio import guests, uncancel
from weald.aio.core import Core
from weald.aio.transport import SocketTransport, Transports, accept, accepts
from weald.asyncio import _set_running_loop
from weald.resolver._names import is_numeric
from weald.signal import getsignal
from weald.threadpool import ThreadPoolExecutor

_T = TypeVar("_T")
_Transport = TypeVar("_Transport")

__all__ = ["EventLoop", "new_event_loop", "run"]

_get_native_ident = get_original("_thread", "get_ident")
_set_signal = get_original("signal", "signal")

guests.mend()
uncancel.mend()

# Bytes that a pipe or a UDP socket is asked for: what a pipe holds, and more than a packet can have.  For asyncio's
# 256 KiB the C library would map, shrink and unmap memory at each read.
_LARGEST_READ = 65536

_FAMILY = _BaseSocket.family.__get__  # as a plain number
_NOT_YET = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN, errno.EINTR)

_numeric = lru_cache(maxsize=1024, typed=True)(base_events._ipaddr_info)  # type: ignore[attr-defined]

_NO_HANDLERS = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler, None)


class _DatagramTransport(selector_events._SelectorDatagramTransport):  # type: ignore[name-defined,misc]
    """asyncio's, whose `connection_lost` waits for a callback that is parked."""

    def _call_connection_lost(self, error: BaseException | None) -> None:
        if self._loop._is_busy(self):  # asyncio calls this directly when the rest is sent after `close`
            self._conn_lost += 1  # so that `abort` does not queue another one
            self._loop.call_soon(self._call_connection_lost, error)
        else:
            super()._call_connection_lost(error)


class _Key(NamedTuple):
    """The part of selectors.SelectorKey that asyncio looks at."""

    fd: int
    events: int


class _Selector:
    """Stands for the selector where asyncio's code asks for it: a view of what the loop watches."""

    def __init__(self, loop: "EventLoop") -> None:
        self._loop = loop

    def get_key(self, fileobj: Any) -> _Key:
        """The events that `fileobj` is watched for; KeyError if there are none."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        events = self._loop._fd_events(fd)
        if not events:
            raise KeyError(f"{fileobj!r} is not registered")
        return _Key(fd, events)  # EVENT_READ and EVENT_WRITE are 1 and 2, as the core has them

    def get_map(self) -> None:
        """Returns None, as a closed selector does."""

    def select(self, timeout: float | None = None) -> list[Any]:
        """RuntimeError: the hub polls, not the loop."""
        raise RuntimeError(
            "weald's loop has no selector: the hub polls.  Code that makes the loop's turns itself, as nest_asyncio "
            "does, does not work with it; a greenlet can wait for a coroutine in a running loop by weald.aio.await_"
        )

    def close(self) -> None:
        pass


assert (selectors.EVENT_READ, selectors.EVENT_WRITE) == (1, 2)


@coroutine
def _two_turns() -> Generator[None, None, None]:
    """Let the loop make two turns: that many are made when asyncio waits for a descriptor."""
    yield
    yield


def _needs_no_resolver(family: int, address: Any) -> bool:
    """Whether connect(2) can be called with `address`: without a look-up, which would block."""
    if family == AF_UNIX:
        return True
    if address.__class__ is not tuple or len(address) != (4 if family == AF_INET6 else 2):
        return False  # asyncio completes it
    try:
        return address[1].__class__ is int and bool(inet_pton(family, address[0]))
    except (OSError, TypeError, ValueError):
        return False


def _connected(transport: Any, waiter: Any) -> None:
    """Called as a method of `transport`: the loop holds it while another callback of the connection is parked."""
    if not waiter.cancelled():
        waiter.set_result(None)


class EventLoop(Core, asyncio.SelectorEventLoop):
    """EventLoop(*, blocking="alone"): asyncio's event loop, on the hub of the thread that runs it.

    A callback or coroutine that blocks (in `time.sleep` of a patched program, a queue's `get`, a socket's `recv`)
    stalls only itself: the loop goes on.  With `blocking="stall"` it stalls the loop, as with asyncio, and a warning is
    logged if that took longer than `slow_callback_duration` seconds.
    """

    if TYPE_CHECKING:  # attributes of the base classes that are not public
        _default_executor: Any

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, *, blocking: Literal["alone", "stall"] = "alone") -> None:
        if blocking not in ("alone", "stall"):
            self._closed = True
            raise ValueError(f'blocking must be "alone" or "stall", not {blocking!r}')
        super().__init__(_Selector(self))  # type: ignore[arg-type]
        self._transports = Transports()
        self._stalls(blocking == "stall")
        self._signal_hubs: dict[int, Any] = {}

    # ---------------------------------------------------------------- running

    def run_forever(self) -> None:
        """Run until `stop` is called.  RuntimeError if this loop is running or closed, or another one runs here."""
        self._check_closed()
        self._check_running()
        self._bind()
        self._thread_id = _get_native_ident()
        before = sys.get_asyncgen_hooks()
        self._set_coroutine_origin_tracking(self._debug)
        hub = get_hub()
        interruptible = getsignal(signal.SIGINT) not in _NO_HANDLERS  # Runner's handler cancels the main task
        if interruptible:
            hub.ref()
        try:
            _set_running_loop(self)
            asyncio.events._set_running_loop(self)  # in an unpatched program a different function
            self._set_hooks()
            self._drive()
        finally:
            if interruptible:
                hub.unref()
            self._stopping = False
            self._thread_id = None
            asyncio.events._set_running_loop(None)
            _set_running_loop(None)
            self._set_coroutine_origin_tracking(False)
            sys.set_asyncgen_hooks(*before)

    def _run_spare(self) -> None:
        """Drive the loop until another greenlet does.

        Not compiled, because callbacks need a Python frame below them: asyncio's debug mode, warnings and tracebacks
        look for the caller's frame.
        """
        self._drive_as_spare()

    def _set_hooks(self) -> None:
        """Make the loop track the asynchronous generators that begin in this greenlet."""
        sys.set_asyncgen_hooks(firstiter=self._asyncgen_firstiter_hook, finalizer=self._asyncgen_finalizer_hook)
        if self._coroutine_origin_tracking_enabled:
            sys.set_coroutine_origin_tracking_depth(constants.DEBUG_STACK_DEPTH)

    def _unset_hooks(self) -> None:
        sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
        sys.set_coroutine_origin_tracking_depth(0)

    def close(self) -> None:
        """Close the loop: what is still queued will not run.  RuntimeError if the loop is running.  Idempotent."""
        if self.is_closed():
            if not self.is_running():
                return
        elif not self.is_running():
            self._remove_signals()
            self._forget()
        super().close()

    def _make_self_pipe(self) -> None:
        pass

    def _close_self_pipe(self) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _check_thread(self) -> None:
        if self._thread_id is not None and self._thread_id != _get_native_ident():
            raise RuntimeError("Non-thread-safe operation invoked on an event loop other than the current one")

    # ---------------------------------------------------------------- signals

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        """Have `callback(*args)` called in the loop when signal `sig` arrives.  It replaces an earlier callback.

        ValueError for a signal that does not exist; RuntimeError for one that cannot be caught, and in any thread but
        the main one.
        """
        if coroutines.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError("coroutines cannot be used with add_signal_handler()")
        self._check_signal(sig)
        self._check_closed()
        before = self._signal_handlers.get(sig)
        self._signal_handlers[sig] = self._new_handle(callback, args)
        try:
            _set_signal(sig, self._on_signal)
            signal.siginterrupt(sig, False)
        except (OSError, ValueError) as error:
            if before is None:
                del self._signal_handlers[sig]
            else:
                self._signal_handlers[sig] = before
            if isinstance(error, OSError):
                raise RuntimeError(f"sig {sig} cannot be caught") from None
            raise RuntimeError(str(error)) from None
        if not self._hears(sig):
            hub = get_hub()
            hub.ref()  # no deadlock is reported while a signal may wake a greenlet
            if not self._signal_hubs:
                listen_to_signals(self._hear_signal)
            self._signal_hubs[sig] = hub, hub.generation

    def _hears(self, sig: int) -> bool:
        """Whether callbacks of signal `sig` were added in this process.  As with asyncio, a fork's child calls none of
        its parent's.
        """
        hub, generation = self._signal_hubs.get(sig, (None, 0))
        return hub is not None and hub.generation == generation

    def _on_signal(self, sig: int, frame: Any) -> None:
        if self._hears(sig):
            self._handle_signal(sig)

    def _hear_signal(self, sig: int) -> None:
        """Called when signal `sig` has arrived.  As with asyncio, the callback runs even if the program has replaced
        the loop's handler by its own.
        """
        if self._hears(sig):
            handler = getsignal(sig)
            if callable(handler) and handler != self._on_signal:
                self._handle_signal(sig)

    def remove_signal_handler(self, sig: int) -> bool:
        """Set the handling of signal `sig` back to the system's.  False if the loop had no handler of it."""
        self._check_signal(sig)
        if self._signal_handlers.pop(sig, None) is None:
            return False
        hub, generation = self._signal_hubs.pop(sig)
        if not self._signal_hubs:
            unlisten_to_signals(self._hear_signal)
        if hub.generation == generation:  # otherwise a fork's parent has counted it
            hub.unref()
        handler: Any = signal.default_int_handler if sig == signal.SIGINT else signal.SIG_DFL
        try:
            _set_signal(sig, handler)
        except OSError:
            raise RuntimeError(f"sig {sig} cannot be caught") from None
        return True

    def _remove_signals(self) -> None:
        if sys.is_finalizing():
            if self._signal_handlers:
                warnings.warn(
                    f"Closing the loop {self!r} on interpreter shutdown stage, skipping signal handlers removal",
                    ResourceWarning,
                    stacklevel=2,
                    source=self,
                )
                self._signal_handlers.clear()
            return
        for sig in list(self._signal_handlers):
            self.remove_signal_handler(sig)

    # ---------------------------------------------------------------- threads and names

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., _T], *args: Any
    ) -> "asyncio.Future[_T]":
        """Run `func(*args)` in `executor`, by default a pool of native threads; returns a Future."""
        if executor is None and self._default_executor is None:
            self._check_closed()
            self._check_default_executor()
            if self._debug:
                self._check_callback(func, "run_in_executor")
            self._default_executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
        return super().run_in_executor(executor, func, *args)

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        """socket.getaddrinfo(), by weald's resolver."""
        if port.__class__ is int and is_numeric(host):
            self._check_closed()
            return _socket.getaddrinfo(host, port, family, type, proto, flags)  # no resolver has to wait
        return await self._in_greenlet(_socket.getaddrinfo, host, port, family, type, proto, flags)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """socket.getnameinfo(), by weald's resolver."""
        return await self._in_greenlet(_socket.getnameinfo, sockaddr, flags)

    async def _ensure_resolved(
        self, address: Any, *, family: int = 0, type: int = SOCK_STREAM, proto: int = 0, flags: int = 0, loop: Any
    ) -> Any:
        """As asyncio's, which looks at a numeric address anew each time."""
        host, port, *rest = address
        if host.__class__ is str and port.__class__ is int and not rest:
            found = _numeric(host, port, family, type, proto)
            if found is not None:
                return [found]
        resolve = super()._ensure_resolved  # type: ignore[misc]
        return await resolve(address, family=family, type=type, proto=proto, flags=flags, loop=loop)

    async def sock_connect(self, sock: Any, address: Any) -> None:
        """Connect `sock`, which does not block, to `address`.  OSError if that fails.

        A second call of connect(2) tells whether the first one has succeeded meanwhile, as it usually has on the same
        machine.  Otherwise asyncio waits.  As with asyncio, a server in this loop has accepted the connection by then.
        """
        base_events._check_ssl_socket(sock)  # type: ignore[attr-defined]
        if isinstance(sock, _BaseSocket) and sock.gettimeout() == 0 and _needs_no_resolver(_FAMILY(sock), address):
            error = sock.connect_ex(address)
            begun = error == errno.EINPROGRESS
            if begun:
                error = sock.connect_ex(address)
                if error not in _NOT_YET:
                    await _two_turns()
            if not error or error == errno.EISCONN:
                return
            if error not in _NOT_YET:
                raise OSError(error, f"Connect call failed {address}" if begun else os.strerror(error))
        await super().sock_connect(sock, address)

    def _in_greenlet(self, function: Callable[..., _T], *args: Any) -> "asyncio.Future[_T]":
        """Call `function`, which may block, in a greenlet of its own; returns a Future of its result."""
        self._check_closed()
        future = self.create_future()

        def call() -> None:
            try:
                result = function(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        spawn_raw(call)
        return future

    # ---------------------------------------------------------------- transports

    def _accept_connection(
        self,
        protocol_factory: Any,
        sock: Any,
        sslcontext: Any = None,
        server: Any = None,
        backlog: int = 100,
        *rest: Any,
    ) -> None:
        """As asyncio's, but without a task for each connection, and in C.  asyncio's own handles errors and TLS.

        `rest` are the limits of TLS and, from Python 3.15 on, a context.
        """
        if not sslcontext and not self._debug and accepts(sock):
            if accept(self, protocol_factory, sock, server, backlog + 1, rest[2] if len(rest) > 2 else None):
                return
        super()._accept_connection(  # type: ignore[misc]
            protocol_factory, sock, sslcontext, server, backlog, *rest
        )

    def _make_socket_transport(
        self,
        sock: Any,
        protocol: Any,
        waiter: Any = None,
        *,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
    ) -> SocketTransport:
        self._ensure_fd_no_transport(sock)
        return SocketTransport(self, sock, protocol, waiter, extra, server, context)

    def _make_datagram_transport(
        self, sock: Any, protocol: Any, address: Any = None, waiter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        self._ensure_fd_no_transport(sock)
        transport = _DatagramTransport(self, sock, protocol, address, None, *args, **kwargs)
        if sock.family in (AF_INET, AF_INET6):
            transport.max_size = _LARGEST_READ
        return self._tell_when_made(transport, waiter)

    def _make_read_pipe_transport(self, pipe: Any, protocol: Any, waiter: Any = None, *args: Any, **kwargs: Any) -> Any:
        make = super()._make_read_pipe_transport  # type: ignore[misc]
        transport = make(pipe, protocol, None, *args, **kwargs)
        transport.max_size = _LARGEST_READ
        return self._tell_when_made(transport, waiter)

    def _make_write_pipe_transport(
        self, pipe: Any, protocol: Any, waiter: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        make = super()._make_write_pipe_transport  # type: ignore[misc]
        return self._tell_when_made(make(pipe, protocol, None, *args, **kwargs), waiter)

    def _tell_when_made(self, transport: _Transport, waiter: Any) -> _Transport:
        """Set the result of the future `waiter` when `connection_made` has returned, even if it blocks."""
        if waiter is not None:
            self.call_soon(MethodType(_connected, transport), waiter)
        return transport

    def _make_ssl_transport(
        self,
        rawsock: Any,
        protocol: Any,
        sslcontext: Any,
        waiter: Any = None,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        extra: Any = None,
        server: Any = None,
        context: Any = None,
        **timeouts: Any,
    ) -> Any:
        self._ensure_fd_no_transport(rawsock)
        tls = sslproto.SSLProtocol(self, protocol, sslcontext, waiter, server_side, server_hostname, **timeouts)
        SocketTransport(self, rawsock, tls, extra=extra, server=server, context=context)
        return tls._app_transport

    # ---------------------------------------------------------------- children

    async def _make_subprocess_transport(
        self,
        protocol: Any,
        args: Any,
        shell: Any,
        stdin: Any,
        stdout: Any,
        stderr: Any,
        bufsize: int,
        extra: Any = None,
        **kwargs: Any,
    ) -> Any:
        waiter = self.create_future()
        transport = unix_events._UnixSubprocessTransport(  # type: ignore[attr-defined]
            self, protocol, args, shell, stdin, stdout, stderr, bufsize, waiter=waiter, extra=extra, **kwargs
        )
        self._watch_child(transport.get_pid(), transport)
        try:
            await waiter
            if self._is_busy(protocol):  # `connection_made` blocks; asyncio's code does not wait for its end
                made = self.create_future()
                self._tell_when_made(transport, made)
                await made
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException:
            transport.close()
            await transport._wait()
            raise
        return transport

    def _watch_child(self, pid: int, transport: Any) -> None:
        """Call `transport._process_exited` when child `pid` has ended."""
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, AttributeError):  # a Linux before 5.3, or a sandbox that forbids it
            watcher = get_hub().loop.child(pid)
            watcher.start(self._child_reaped, watcher, transport)
        else:
            self._add_reader(pidfd, self._child_ended, pid, pidfd, transport)

    def _child_reaped(self, watcher: Any, transport: Any) -> None:
        watcher.close()
        if not self._closed:
            self.call_soon(transport._process_exited, os.waitstatus_to_exitcode(watcher.rstatus))

    def _child_ended(self, pid: int, pidfd: int, transport: Any) -> None:
        self._remove_reader(pidfd)
        os.close(pidfd)
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:
            returncode = 255  # other code has reaped the child
            logger.warning("child process pid %d exit status already read: will report returncode 255", pid)
        else:
            returncode = unix_events.waitstatus_to_exitcode(status)  # type: ignore[attr-defined]
        transport._process_exited(returncode)


def new_event_loop() -> EventLoop:
    """A new EventLoop: the `loop_factory` for asyncio.Runner, pytest-asyncio and others."""
    return EventLoop()


def run(main: Coroutine[Any, Any, _T], *, debug: bool | None = None) -> _T:
    """asyncio.run() on weald's event loop: run the coroutine `main` to its end, return its result.

    Meanwhile greenlets run as well.  RuntimeError if an asyncio loop is running here.
    """
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("asyncio.run() cannot be called from a running event loop")
    runner = asyncio.Runner(debug=debug, loop_factory=new_event_loop)
    try:
        return runner.run(main)
    finally:
        with CancelScope(shield=True):  # it waits until what it cancels has ended
            runner.close()
