"""`socket` on greenlets: calls that would block the thread park the calling greenlet.

Called by: users, weald.monkey (which puts `__implements__` into the stdlib's module), weald.ssl, weald.server,
weald.http, weald.serve, weald.resolver.dnspython, weald.aio, weald.compat.

Invariants:
- The OS descriptor is always non-blocking, also for whatever shares its open file description; `detach`
  makes it blocking again where the stdlib's would be.  The timeout of the C-level base class is always 0.0;
  the user's is `_descriptor.timeout`.
- recv, recv_into, send and sendall go straight to compiled code (`_core`); every other method tries the
  stdlib's, parks while that would block, and tries again, all within the timeout (_base/waiting.py).
- `_descriptor` leaves the loop before the number is closed or given away, so greenlets that
  wait on it get OSError(EBADF).
- C code never looks names up: the hub's resolver does it before.

Long because it has every method and function of the stdlib's module that may wait, each short.
"""

import errno
import io
import os
import socket as _stdlib
import sys
from _socket import dup as _dup
from _socket import socket as _Base
from _socket import socketpair as _socketpair
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from socket import (  # type: ignore[attr-defined]
    _GLOBAL_DEFAULT_TIMEOUT,
    AF_INET,
    AF_INET6,
    AF_UNIX,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_ERRQUEUE,
    MSG_FASTOPEN,
    MSG_PEEK,
    MSG_WAITALL,
    SO_ERROR,
    SO_RCVTIMEO,
    SO_SNDTIMEO,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    AddressFamily,
    SocketKind,
    _GiveupOnSendfile,
    getdefaulttimeout,
    gethostname,
    inet_pton,
)
from socket import EAGAIN as EAGAIN
from socket import EBADF as EBADF
from socket import EWOULDBLOCK as EWOULDBLOCK
from struct import calcsize, unpack
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from weald import _core, resolver
from weald._base import buffered
from weald._base.builtin import as_builtins
from weald._base.config import config
from weald._base.originals import is_module_patched
from weald._base.waiting import retry
from weald._core import Descriptor, monotonic, sleep
from weald._core import wait_read as wait_read
from weald._core import wait_readwrite as wait_readwrite
from weald._core import wait_write as wait_write
from weald.time import to_seconds

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any: ...  # whatever is not defined here is the stdlib's

else:
    from socket import *  # noqa: F403

    from weald._base.names import more_names

    __getattr__ = more_names(__name__)

__implements__ = [
    "create_connection",
    "create_server",
    "fromfd",
    "getaddrinfo",
    "getfqdn",
    "gethostbyaddr",
    "gethostbyname",
    "gethostbyname_ex",
    "getnameinfo",
    "socket",
    "socketpair",
]
__dns__ = ["getaddrinfo", "getfqdn", "gethostbyaddr", "gethostbyname", "gethostbyname_ex", "getnameinfo"]
__extensions__ = ["cancel_wait", "wait_read", "wait_readwrite", "wait_write"]
__imports__ = [name for name in _stdlib.__all__ if name not in __implements__]
__all__ = sorted([*__implements__, *__extensions__, *__imports__])

_T = TypeVar("_T")
_Buffer = Any  # an object that supports the buffer protocol
_Address = Any  # as the address family has it: (host, port), a path, …

# With these flags a call on a blocking socket returns at once, whatever the timeout.
_NEVER_WAITS = MSG_DONTWAIT | MSG_ERRQUEUE

# What connect(2) says of an attempt that goes on: a signal does not end it.
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY, errno.EINTR)

_HUNG_UP_PAUSE = 0.01  # seconds between two tries of a call whose descriptor always counts as ready

_NAMES = {"weald.socket", "weald.ssl"}  # modules of the classes whose repr is `<socket.socket …>` once patched

_create_server = _stdlib.create_server
# Taken now, and no `super()`: patched, these methods are also those of the older class (monkey/_earlier.py).
_init, _dup_socket, _repr = _stdlib.socket.__init__, _stdlib.socket.dup, _stdlib.socket.__repr__
_family = cast(Callable[[_Base], int], _Base.__dict__["family"].__get__)
_accept = cast(Callable[[_Base], tuple[int, Any]], _Base.__dict__["_accept"])
_type = cast(Callable[[_Base], int], _Base.__dict__["type"].__get__)


class socket(_stdlib.socket):
    """socket.socket; a call that cannot go on parks the greenlet, for `settimeout()` seconds at most.

    Many greenlets may use one socket.  When it is closed, those that wait on it get OSError(EBADF).
    A descriptor passed as `fileno` is made non-blocking.
    """

    __slots__ = ("_descriptor",)
    _descriptor: Descriptor

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        if fileno is None:
            if type == -1:
                type = SOCK_STREAM
            _init(self, family, type | SOCK_NONBLOCK, proto)
        else:
            _init(self, family, type, proto, fileno)
            _Base.setblocking(self, False)
        timeout = 0.0 if type != -1 and type & SOCK_NONBLOCK else getdefaulttimeout()
        self._descriptor = Descriptor(self.fileno(), timeout)

    def __del__(self, _finalize: Callable[[_Base], None] = _Base.__del__) -> None:  # type: ignore[attr-defined]
        # The base class closes the number here.  The loop must have left it before: it could go on getting events if
        # another process has the same description open.
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None:
            descriptor.close()
        _finalize(self)

    def _real_close(self, _close: Callable[[_Base], None] = _Base.close) -> None:
        self._descriptor.close()
        _close(self)

    def __repr__(self) -> str:
        # Patched, under the name by which test suites filter the warnings about unclosed sockets.
        text, module = _repr(self), type(self).__module__
        return "<" + text[len("<weald.") :] if module in _NAMES and is_module_patched(module[6:]) else text

    def detach(self) -> int:
        """Give the descriptor away, blocking if there is no timeout; greenlets that wait on it get OSError(EBADF)."""
        blocking = self._descriptor.timeout is None
        self._closed = True
        self._descriptor.detach()
        fd = _Base.detach(self)
        if blocking and fd >= 0:
            with suppress(OSError):  # other code has closed it
                os.set_blocking(fd, True)
        return fd

    # ---------------------------------------------------------------- timeouts

    @property
    def timeout(self) -> float | None:
        """Seconds, as `gettimeout` returns them."""
        return self._descriptor.timeout

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds; None: no limit."""
        return self._descriptor.timeout

    def getblocking(self) -> bool:
        """Return whether calls wait: the timeout is not 0.0."""
        return self._descriptor.timeout != 0.0

    def settimeout(self, howlong: float | None) -> None:
        """Calls wait up to `howlong` seconds, then raise TimeoutError; 0.0: not at all; None: for ever."""
        timeout = None if howlong is None else to_seconds(howlong)
        if timeout is not None and timeout < 0.0:
            raise ValueError("Timeout value out of range")
        # Fails for a closed descriptor, and makes one non-blocking that other code has made blocking.
        _Base.setblocking(self, False)
        self._descriptor.timeout = timeout

    def setblocking(self, flag: bool, /) -> None:
        """Wait for ever, or never."""
        self.settimeout(None if flag else 0.0)

    def setsockopt(self, level: int, optname: int, *value: Any) -> None:
        """setsockopt(2); SO_RCVTIMEO and SO_SNDTIMEO limit waits as on a blocking socket (socket(7))."""
        _Base.setsockopt(self, level, optname, *value)
        if level == SOL_SOCKET and optname in (SO_RCVTIMEO, SO_SNDTIMEO):
            seconds, microseconds = unpack("@ll", _Base.getsockopt(self, level, optname, calcsize("@ll")))
            limit = seconds + microseconds / 1e6
            if optname == SO_RCVTIMEO:
                self._descriptor.receive_limit = limit
            else:
                self._descriptor.send_limit = limit

    def _share_limits(self, other: "socket") -> "socket":
        """Return `other`, which has this socket's options."""
        other._descriptor.receive_limit = self._descriptor.receive_limit
        other._descriptor.send_limit = self._descriptor.send_limit
        return other

    def dup(self) -> "socket":
        """Return another socket of the same connection."""
        return self._share_limits(_dup_socket(self))

    # ---------------------------------------------------------------- calls that may wait

    recv = _core.recv
    recv_into = _core.recv_into
    send = _core.send
    sendall = _core.sendall

    def _cooperate(self, wait: Callable[[float | None], None], flags: int, call: Callable[..., _T], *args: Any) -> _T:
        """Return `call(self, *args)`, tried again after each `wait(seconds)` while it would block, by the timeout."""
        _core.before_io()
        try:
            return call(self, *args)
        except BlockingIOError:
            timeout = self._descriptor.timeout
            if timeout == 0.0 or (flags & _NEVER_WAITS and timeout is None):
                _core.asked_in_vain()
                raise
        if wait == self._descriptor.wait_read:
            return retry(wait, timeout, self._read_again, call, *args)  # type: ignore[no-any-return]
        return retry(wait, timeout, call, self, *args)

    def _read_again(self, call: Callable[..., _T], *args: Any) -> _T:
        """`call(self, *args)` after a wait.

        For datagram sockets and listeners that were shut down for reading, the system reports that only to blocking
        calls, so a blocking call is made.  With a timeout the time has to pass, as on an unpatched socket.
        """
        try:
            return call(self, *args)
        except BlockingIOError:
            fd = self.fileno()
            if fd < 0 or not _core.hung_up(fd):
                raise
            if self._descriptor.timeout is not None:
                sleep(_HUNG_UP_PAUSE)
                raise
        os.set_blocking(fd, True)
        try:
            return call(self, *args)
        finally:
            if self.fileno() == fd:
                os.set_blocking(fd, False)

    def shutdown(self, how: int, /) -> None:
        """End one direction or both; greenlets that wait in other calls go on at once."""
        _Base.shutdown(self, how)
        self._descriptor.rouse()

    def _unfinished(self, flags: int) -> bool:
        """Return whether a call that has transferred some bytes must continue, as on a blocking stream."""
        return self._descriptor.timeout is None and not flags & _NEVER_WAITS and _type(self) == SOCK_STREAM

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Receive up to `bufsize` bytes: the data and the sender's address."""
        data, address = self._cooperate(self._descriptor.wait_read, flags, _Base.recvfrom, bufsize, flags)
        if flags & MSG_WAITALL and 0 < len(data) < bufsize and self._unfinished(flags):
            data = self.recv(bufsize, flags) if flags & MSG_PEEK else data + self._rest(bufsize - len(data), flags)
        return data, address

    def _rest(self, size: int, flags: int) -> bytes:
        try:
            return self.recv(size, flags)
        except OSError:
            return b""  # the next call has the error

    def recvfrom_into(self, buffer: _Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive into `buffer`: the number of bytes and the sender's address."""
        count, address = self._cooperate(self._descriptor.wait_read, flags, _Base.recvfrom_into, buffer, nbytes, flags)
        if flags & MSG_WAITALL and count and self._unfinished(flags):
            with memoryview(buffer) as view, view.cast("B") as room:
                begin = 0 if flags & MSG_PEEK else count
                with suppress(OSError), room[begin : nbytes or room.nbytes] as rest:
                    count = begin + (self.recv_into(rest, 0, flags) if rest.nbytes else 0)
        return count, address

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """Receive data and ancillary data: (data, ancillary data, flags, address)."""
        wait = self._descriptor.wait_read
        data, ancillary, told, address = self._cooperate(wait, flags, _Base.recvmsg, bufsize, ancbufsize, flags)
        if flags & MSG_WAITALL and data and self._unfinished(flags):
            parts, size = [data], len(data)
            # Data that came with ancillary data is a message of its own.
            while size < bufsize and not ancillary and not told & MSG_CTRUNC and not flags & MSG_PEEK:
                try:
                    data, ancillary, told, address = self._cooperate(
                        wait, flags, _Base.recvmsg, bufsize - size, ancbufsize, flags
                    )
                except OSError:
                    break  # the next call has the error
                if not data:
                    break
                parts.append(data)
                size += len(data)
            data = b"".join(parts)
        return data, ancillary, told, address

    def recvmsg_into(
        self, buffers: Iterable[_Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Receive into `buffers`: (number of bytes, ancillary data, flags, address)."""
        buffers = _repeatable(buffers)
        wait = self._descriptor.wait_read
        count, ancillary, told, address = self._cooperate(wait, flags, _Base.recvmsg_into, buffers, ancbufsize, flags)
        if flags & MSG_WAITALL and count and self._unfinished(flags):
            while not ancillary and not told & MSG_CTRUNC and not flags & MSG_PEEK and (rest := _after(buffers, count)):
                try:
                    more, ancillary, told, address = self._cooperate(
                        wait, flags, _Base.recvmsg_into, rest, ancbufsize, flags
                    )
                except OSError:
                    break  # the next call has the error
                if not more:
                    break
                count += more
        return count, ancillary, told, address

    def sendto(self, data: _Buffer, *args: Any) -> int:
        """sendto(data, [flags,] address)"""
        flags = args[0] if len(args) == 2 else 0
        if args:
            args = (*args[:-1], self._resolved(args[-1]))
        sent = self._cooperate(self._descriptor.wait_write, flags, _Base.sendto, data, *args)
        return self._send_rest([data], sent, flags)

    def sendmsg(
        self,
        buffers: Iterable[_Buffer],
        ancdata: Iterable[Any] = (),
        flags: int = 0,
        address: _Address = None,
        /,
    ) -> int:
        """Send buffers and ancillary data, without a timeout all of it; the number of bytes sent."""
        buffers, ancdata, address = _repeatable(buffers), _repeatable(ancdata), self._resolved(address)
        sent = self._cooperate(self._descriptor.wait_write, flags, _Base.sendmsg, buffers, ancdata, flags, address)
        return self._send_rest(buffers, sent, flags)

    def _send_rest(self, buffers: Iterable[_Buffer], sent: int, flags: int) -> int:
        """Send the rest after `sent` bytes, as on a blocking stream; return how many bytes were sent in all."""
        if self._unfinished(flags):
            for rest in _after(buffers, sent):
                try:
                    count = self.send(rest, flags & ~MSG_FASTOPEN)
                except OSError:
                    if self.fileno() < 0:
                        raise  # closed meanwhile
                    break  # the next call has the error
                sent += count
                if count < rest.nbytes:
                    break  # a timeout was set meanwhile, so that this call no longer waits for room
        return sent

    if not TYPE_CHECKING:
        # The standard library's, but over files that greenlets may share.
        makefile = FunctionType(
            _stdlib.socket.makefile.__code__,
            {
                **vars(_stdlib),
                "SocketIO": buffered.SocketFile,
                "io": SimpleNamespace(
                    DEFAULT_BUFFER_SIZE=io.DEFAULT_BUFFER_SIZE,
                    BufferedReader=buffered.BufferedReader,
                    BufferedRWPair=buffered.BufferedRWPair,
                    BufferedWriter=buffered.BufferedWriter,
                    TextIOWrapper=buffered.text_wrapper,
                    text_encoding=io.text_encoding,
                ),
            },
            "makefile",
            _stdlib.socket.makefile.__defaults__,
        )
        makefile.__kwdefaults__ = _stdlib.socket.makefile.__kwdefaults__

    def _accept(self) -> tuple[int, Any]:
        return self._cooperate(self._descriptor.wait_read, 0, _accept)

    def accept(self) -> tuple["socket", Any]:
        """Wait for a connection: its socket, with the default timeout, and the peer's address."""
        fd, address = self._accept()
        return self._share_limits(socket(_family(self), _type(self), self.proto, fd)), address

    def bind(self, address: _Address, /) -> None:
        """Bind to `address`, whose host is looked up without blocking the loop."""
        _Base.bind(self, self._resolved(address))

    def connect(self, address: _Address, /) -> None:
        """Raises the OSError of the attempt, TimeoutError after `gettimeout()` seconds."""
        target = self._resolved(address)
        try:
            error = self._connect(target)
        except (TypeError, OverflowError):
            _Base.connect(self, target)  # raises the usual error
            raise
        if error:
            raise OSError(error, os.strerror(error))

    def connect_ex(self, address: _Address, /) -> int:
        """As `connect`, but the error number is returned: 0 for success, EAGAIN after a timeout."""
        try:
            return self._connect(self._resolved(address))
        except TimeoutError as error:
            if error.errno is not None:
                raise
            return errno.EAGAIN

    def _connect(self, address: Any) -> int:
        """The error number of a connection attempt; raises only TimeoutError and what a bad address raises."""
        error = _Base.connect_ex(self, address)
        timeout = self._descriptor.timeout
        if timeout == 0.0:
            return error
        if error == errno.EAGAIN and _family(self) == AF_UNIX:
            error = self._connect_when_room(address)
        if error not in _UNDER_WAY:
            return error
        deadline = None if timeout is None else monotonic() + timeout
        while error in _UNDER_WAY:
            late: TimeoutError | None = None
            try:
                self._descriptor.wait_write(None if deadline is None else max(deadline - monotonic(), 0.0))
            except TimeoutError as timed_out:
                late = timed_out  # perhaps only because other greenlets kept the loop busy
            except BlockingIOError:  # SO_SNDTIMEO has passed
                return errno.EINPROGRESS
            outcome = self.getsockopt(SOL_SOCKET, SO_ERROR)
            if outcome == errno.ECONNRESET:
                return outcome  # shut down meanwhile: asking again would begin another attempt
            # Asking again also tells Linux that the outcome is known: else the next connect would report this
            # attempt's.
            error = _Base.connect_ex(self, address)
            if outcome:
                return outcome
            if late is not None and error in _UNDER_WAY:
                raise late
        return 0 if error == errno.EISCONN else error

    def _connect_when_room(self, address: Any) -> int:
        """`_connect` to a Unix listener with a full backlog: no descriptor becomes ready when there is room."""
        timeout = self._descriptor.timeout
        deadline = None if timeout is None else monotonic() + timeout
        pause = 0.001
        while True:
            sleep(pause if deadline is None else min(pause, max(deadline - monotonic(), 0.0)))
            error = _Base.connect_ex(self, address)
            if error != errno.EAGAIN:
                return error
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError("timed out")
            pause = min(pause * 2, 0.1)

    def _resolved(self, address: Any) -> Any:
        """`address` with a numeric host, for the Internet families; others, and those that C refuses, unchanged."""
        family = _family(self)
        if family not in (AF_INET, AF_INET6) or not isinstance(address, tuple) or len(address) < 2:
            return address
        host = address[0]
        if not host or not isinstance(host, str | bytes | bytearray) or host in ("<broadcast>", b"<broadcast>"):
            return address
        if (0 if isinstance(host, bytes | bytearray) else "\0") in host:
            return address
        if isinstance(host, str):
            try:
                inet_pton(family, host)
            except (OSError, ValueError):
                pass
            else:
                return address
        try:
            name = bytes(host) if isinstance(host, bytearray) else host
            found = resolver.current().getaddrinfo(name, None, family)[0][4]
        except UnicodeError:
            return address  # no valid name: C raises the usual error, without a look-up
        # The caller's flow and scope count; without them a scope in the name ("fe80::1%eth0").
        return (found[0], *address[1:], *found[len(address) :])

    def _sendfile_use_sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """`sendfile` through os.sendfile; raises what makes the base class fall back on `send`."""
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        try:
            source = file.fileno()
            size = os.fstat(source).st_size
        except (AttributeError, io.UnsupportedOperation, OSError) as error:
            raise _GiveupOnSendfile(error) from error
        if not size:
            return 0
        timeout = self._descriptor.timeout
        if timeout == 0.0:
            raise ValueError("non-blocking sockets are not supported")
        fd = self.fileno()
        sent = 0
        try:
            while count is None or sent < count:
                # More than 2 GiB at a time overflows on some systems.
                size = min(2**30, size if count is None else count - sent)
                try:
                    done = os.sendfile(fd, source, offset + sent, size)
                except BlockingIOError:
                    # The timeout is for each part, as the standard library has it.
                    self._descriptor.wait_write(timeout)
                    continue
                except OSError as error:
                    if sent:
                        raise
                    raise _GiveupOnSendfile(error) from error
                if not done:
                    break
                sent += done
            return sent
        finally:
            if sent and hasattr(file, "seek"):
                file.seek(offset + sent)


def _repeatable(items: Iterable[_T]) -> Iterable[_T]:
    return list(items) if isinstance(items, Iterable) and not isinstance(items, list | tuple) else items


def _after(buffers: Iterable[_Buffer], count: int) -> list[memoryview]:
    """The parts of `buffers` behind the first `count` bytes."""
    found = []
    for buffer in buffers:
        view = memoryview(buffer).cast("B")
        if view.nbytes > count:
            found.append(view[count:])
        count = max(count - view.nbytes, 0)
    return found


# -------------------------------------------------------------------- making sockets


def fromfd(fd: int, family: int, type: int, proto: int = 0) -> socket:
    """A socket on a duplicate of `fd`; both become non-blocking, as they share one description."""
    return socket(family, type, proto, _dup(fd))


def socketpair(family: int | None = None, type: int = SOCK_STREAM, proto: int = 0) -> tuple[socket, socket]:
    """socket.socketpair()"""
    a, b = _socketpair(AF_UNIX if family is None else family, type, proto)
    return socket(a.family, type, a.proto, a.detach()), socket(b.family, type, b.proto, b.detach())


def create_connection(
    address: tuple[str | None, int | str | None],
    timeout: float | None = _GLOBAL_DEFAULT_TIMEOUT,
    source_address: tuple[Any, ...] | None = None,
    *,
    all_errors: bool = False,
) -> socket:
    """Connect to `address`, trying what its host resolves to in turn; `timeout` seconds for each try.

    With `weald.config.happy_eyeballs_delay` (RFC 8305 section 5 recommends 0.25) the next address is tried when the one
    before has taken that many seconds.  The first connection wins; the families of addresses alternate.

    Raises the last attempt's OSError, or all of them as an ExceptionGroup with `all_errors`.
    """
    host, port = address
    # Once patched, names that a program has replaced count: a proxy's socket class, a test's look-up.
    where = _stdlib if _stdlib.create_connection is create_connection else sys.modules[__name__]

    def connect(family: int, kind: int, proto: int, _: str, target: _Address) -> socket:
        sock: socket = where.socket(family, kind, proto)
        try:
            if timeout is not _GLOBAL_DEFAULT_TIMEOUT:
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            sock.connect(target)
        except BaseException:
            sock.close()
            raise
        return sock

    tries = [partial(connect, *info) for info in where.getaddrinfo(host, port, 0, SOCK_STREAM)]
    delay = config.happy_eyeballs_delay
    if delay is None:
        errors = _first_of(tries)
    else:
        families = [attempt.args[0] for attempt in tries]
        errors = _race([tries[i] for i in _in_turns(families)], delay)
    if not isinstance(errors, list):
        return errors
    if not errors:
        raise OSError("getaddrinfo returns an empty list")
    try:
        if all_errors:
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[-1]
    finally:
        errors.clear()  # else they and this frame would refer to each other


def _first_of(tries: list[partial[socket]]) -> socket | list[OSError]:
    """The result of the first attempt that succeeds, or the errors of all."""
    errors: list[OSError] = []
    for attempt in tries:
        try:
            return attempt()
        except OSError as error:
            errors.append(error)
    return errors


def _race(tries: list[partial[socket]], delay: float) -> socket | list[OSError]:
    """As `_first_of`, but each attempt begins `delay` seconds after the one before, or as soon as that has failed."""
    outcomes: _core.SimpleQueue[socket | BaseException] = _core.SimpleQueue()
    errors: list[OSError] = []
    running = []

    def run(attempt: partial[socket]) -> None:
        try:
            outcomes.put(attempt())
        except Exception as error:
            outcomes.put(error)

    waiting = iter(tries)
    try:
        while len(errors) < len(tries):
            following = next(waiting, None)
            if following is not None:
                running.append(_core.spawn(run, following))
            try:
                outcome = outcomes.get(timeout=None if following is None else delay)
            except _core.Empty:
                continue
            if not isinstance(outcome, BaseException):
                return outcome
            if not isinstance(outcome, OSError):
                raise outcome
            errors.append(outcome)
        return errors
    finally:
        _core.killall(running)
        while not outcomes.empty():
            late = outcomes.get()
            if not isinstance(late, BaseException):
                late.close()


def _in_turns(families: list[int]) -> list[int]:
    """Positions in `families` so that they alternate, the first of them beginning (RFC 8305 section 4)."""
    numbered: dict[int, int] = {}
    order = []
    for position, family in enumerate(families):
        numbered[family] = numbered.get(family, -1) + 1
        order.append((numbered[family], position))
    return [position for _, position in sorted(order)]


def create_server(
    address: tuple[Any, ...],
    *,
    family: int = AF_INET,
    backlog: int | None = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
) -> socket:
    """socket.create_server()"""
    sock = _create_server(address, family=family, backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=dualstack_ipv6)
    if isinstance(sock, socket):
        return sock
    return socket(sock.family, sock.type, sock.proto, sock.detach())


# -------------------------------------------------------------------- names


_FAMILIES: dict[int, Any] = dict(AddressFamily._value2member_map_)
_KINDS: dict[int, Any] = dict(SocketKind._value2member_map_)


def getaddrinfo(
    host: bytes | str | None,
    port: bytes | str | int | None,
    family: int = 0,
    type: int = 0,
    proto: int = 0,
    flags: int = 0,
) -> list[tuple[AddressFamily, SocketKind, int, str, Any]]:
    """socket.getaddrinfo(), by the hub's resolver."""
    return [
        (_FAMILIES.get(family, family), _KINDS.get(kind, kind), proto, canonname, address)
        for family, kind, proto, canonname, address in resolver.current().getaddrinfo(
            host, port, family, type, proto, flags
        )
    ]


def gethostbyname(hostname: str, /) -> str:
    """socket.gethostbyname(), by the hub's resolver."""
    return resolver.current().gethostbyname(hostname)


def gethostbyname_ex(hostname: str, /) -> tuple[str, list[str], list[str]]:
    """socket.gethostbyname_ex(), by the hub's resolver."""
    return resolver.current().gethostbyname_ex(hostname)


def gethostbyaddr(ip_address: str, /) -> tuple[str, list[str], list[str]]:
    """socket.gethostbyaddr(), by the hub's resolver."""
    return resolver.current().gethostbyaddr(ip_address)


def getnameinfo(sockaddr: tuple[Any, ...], flags: int, /) -> tuple[str, str]:
    """socket.getnameinfo(), by the hub's resolver."""
    return resolver.current().getnameinfo(sockaddr, flags)


def getfqdn(name: str = "") -> str:
    """The first name with a dot that `name` (empty: this host) resolves to; `name` itself if none does."""
    name = name.strip()
    if not name or name in ("0.0.0.0", "::"):
        name = gethostname()
    try:
        hostname, aliases, _ = gethostbyaddr(name)
    except OSError:
        return name
    return next((found for found in (hostname, *aliases) if "." in found), hostname)


# -------------------------------------------------------------------- waiting


def cancel_wait(sock: socket) -> None:
    """Wake the greenlets that wait on `sock` with OSError(EBADF), and leave it open."""
    descriptor = sock._descriptor
    sock._descriptor = Descriptor(sock.fileno(), descriptor.timeout)
    descriptor.close()


as_builtins(globals(), _stdlib)
