"""The default resolver: the C library's functions in native threads.

Its answers are exactly those of a program without weald (hosts file, nsswitch, search domains).

Called by: weald._base.config, when the resolver is chosen; weald.compat.

Invariants:
- Numeric addresses never go through a thread.
- Look-ups that may ask a name server, and names that the hosts file has, use two thread pools, so that the second
  never wait behind the first.  Neither is the hub's pool, which files use.
- A look-up that no caller waits for any more is not begun.
- The threads get no signals, since the program does not know of them.
"""

import _socket
from typing import Any

from weald._base.config import config
from weald._base.workers import hear_no_signals
from weald._core import Hub
from weald.resolver import AddressInfo, Host, HostEntry
from weald.resolver._files import HostsFile
from weald.resolver._lookups import Lookups
from weald.resolver._names import is_numeric, refuse_cut_name, to_name
from weald.threadpool import ThreadPool

__all__ = ["Resolver"]


class _Threads(ThreadPool):
    _initializer = staticmethod(hear_no_signals)


class Resolver:
    """Looks names up with `_socket` in native threads; `config.threadpool_size` says how many at once."""

    def __init__(self, hub: Hub | None = None, hosts: str = "/etc/hosts") -> None:
        self._lookups = Lookups()
        self._hosts = HostsFile(hosts)
        size, idle_timeout = config.threadpool_size, config.threadpool_idle_task_timeout
        self._asking = _Threads(size, hub, idle_timeout)  # for look-ups that may wait for a name server
        self._reading = _Threads(size, hub, idle_timeout)  # for names that the hosts file has

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} lookups={len(self._lookups)}>"

    def close(self) -> None:
        """End the threads; a look-up that has begun is finished first."""
        self._asking.kill()
        self._reading.kill()

    def getaddrinfo(
        self,
        host: Host | None,
        port: bytes | str | int | None,
        family: int = 0,
        socktype: int = 0,
        proto: int = 0,
        flags: int = 0,
        *,
        type: int = 0,
    ) -> list[AddressInfo]:
        """_socket.getaddrinfo(), in a thread unless `host` is an address; `type` is its name for `socktype`."""
        socktype = type or socktype
        if host is None or is_numeric(host):
            return _socket.getaddrinfo(host, port, family, socktype, proto, flags)  # type: ignore[arg-type]
        return self._look_up("getaddrinfo", family, host, port, family, socktype, proto, flags)  # type: ignore[no-any-return]

    def gethostbyname(self, hostname: Host) -> str:
        """_socket.gethostbyname(), in a thread unless `hostname` is an address."""
        if is_numeric(hostname):
            return _socket.gethostbyname(hostname)  # type: ignore[arg-type]
        return self._look_up("gethostbyname", _socket.AF_INET, hostname)  # type: ignore[no-any-return]

    def gethostbyname_ex(self, hostname: Host) -> HostEntry:
        """_socket.gethostbyname_ex(), in a thread unless `hostname` is an address."""
        if is_numeric(hostname):
            return _socket.gethostbyname_ex(hostname)  # type: ignore[arg-type]
        return self._look_up("gethostbyname_ex", _socket.AF_INET, hostname)  # type: ignore[no-any-return]

    def gethostbyaddr(self, ip_address: Host) -> HostEntry:
        """_socket.gethostbyaddr(), in a thread."""
        return self._look_up("gethostbyaddr", _socket.AF_UNSPEC, ip_address)  # type: ignore[no-any-return]

    def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int) -> tuple[str, str]:
        """_socket.getnameinfo(), in a thread unless only numbers are wanted."""
        if isinstance(flags, int) and flags & _socket.NI_NUMERICHOST and is_numeric(_host_of(sockaddr)):
            return _socket.getnameinfo(sockaddr, flags)
        return self._look_up("getnameinfo", _socket.AF_UNSPEC, sockaddr, flags)  # type: ignore[no-any-return]

    def _look_up(self, name: str, family: int, *args: Any) -> Any:
        """Call `_socket`'s function `name` in a thread, or share the equal call that is under way."""
        refuse_cut_name(args[0])
        self._lookups.pace.wait()
        return self._lookups.ask(self._call, name, family, *args)

    def _call(self, name: str, family: int, *args: Any) -> Any:
        pool = self._reading if self._is_in_hosts(_host_of(args[0]), family) else self._asking
        try:
            return pool.apply(getattr(_socket, name), args)
        except RuntimeError as error:  # no thread is to be had; the C library's functions do not raise it
            raise _socket.gaierror(_socket.EAI_AGAIN, f"Temporary failure in name resolution: {error}") from error

    def _is_in_hosts(self, host: Any, family: int) -> bool:
        """Does the hosts file have it?  A guess only, since the C library also obeys nsswitch.conf."""
        try:
            if is_numeric(host):
                return self._hosts.by_address(host.partition("%")[0]) is not None
            return bool(self._hosts.by_name(to_name(host), family))
        except (OSError, TypeError, UnicodeError, ValueError):  # the C library will raise the proper error
            return False


def _host_of(sockaddr: Any) -> Any:
    return sockaddr[0] if isinstance(sockaddr, tuple) and sockaddr else sockaddr
