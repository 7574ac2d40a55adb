"""The default resolver: the C library's functions in native threads.

Its answers are exactly those of a program without weald (hosts file, nsswitch, search domains).

Called by: weald._base.config, when the resolver is chosen; weald.compat.

Invariants:
- Numeric addresses never go through a thread.
- Look-ups that may ask a name server, and names that the hosts file has, use threads of their own, so that the second
  never wait behind the first.  Neither uses the hub's pool, which files use.
- A look-up runs in its caller's greenlet, up to the thread: no greenlet and no place in a pool is taken for it, which
  2,000 look-ups at once would pay for.
- A look-up that no caller waits for any more is not begun.
- The threads get no signals, since the program does not know of them.
"""

import _socket
import os
import weakref
from typing import Any

from weald._base.config import config
from weald._base.workers import Workers, hear_no_signals
from weald._core import Hub, get_hub, get_hub_if_exists
from weald.resolver import AddressInfo, Host, HostEntry
from weald.resolver._files import HostsFile
from weald.resolver._lookups import Lookups
from weald.resolver._names import is_numeric, refuse_cut_name, to_name

__all__ = ["Resolver"]


class Resolver:
    """Looks names up with `_socket` in native threads; `config.threadpool_size` says how many at once.

    In another thread than that of `hub` its methods call `_socket`'s functions directly.
    """

    def __init__(self, hub: Hub | None = None, hosts: str = "/etc/hosts") -> None:
        size, idle_timeout = config.threadpool_size, config.threadpool_idle_task_timeout
        self._hub: Hub | None = hub if hub is not None else get_hub()
        self._hosts = HostsFile(hosts)
        self._lookups = Lookups()
        self._asking = Workers(size, idle_timeout, hear_no_signals)  # for look-ups that may wait for a name server
        self._reading = Workers(size, idle_timeout, hear_no_signals)  # for names that the hosts file has
        _all.add(self)
        # The threads know only the `Workers`, so a resolver that is not used any more is freed, and they end.
        for workers in (self._asking, self._reading):
            weakref.finalize(self, workers.stop_all).atexit = False

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__name__} at {id(self):#x} lookups={len(self._lookups)}>"

    def close(self) -> None:
        """End the threads; a look-up that has begun is finished first."""
        self._asking.stop_all()
        self._reading.stop_all()

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
        if self._hub is None:  # after a fork
            self._hub = get_hub()
        if get_hub_if_exists() is not self._hub:
            return getattr(_socket, name)(*args)
        self._lookups.pace.wait()
        return self._call(self._hub, name, family, args)

    def _call(self, hub: Hub, name: str, family: int, args: tuple[Any, ...]) -> Any:
        workers = self._reading if self._is_in_hosts(_host_of(args[0]), family) else self._asking
        try:
            return self._lookups.ask(hub, workers, getattr(_socket, name), args)
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


_all: "weakref.WeakSet[Resolver]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The child has none of the threads; the look-ups under way are the parent's."""
    for resolver in list(_all):
        resolver._asking.reset()
        resolver._reading.reset()
        resolver._lookups = Lookups()
        resolver._hub = None


os.register_at_fork(after_in_child=_after_fork_in_child)
