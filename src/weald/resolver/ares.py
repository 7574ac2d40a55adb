"""A resolver on c-ares, through pycares (WEALD_RESOLVER=ares; install weald[ares]).

Called by: weald._base.config, when the resolver is chosen; weald.compat.

c-ares keeps its own sockets, retries, timeouts and a cache that obeys the records' lifetimes.

Invariants:
- A channel asks a server through one UDP socket, whose buffer holds a few hundred answers at most systems'
  default.  So there are as many channels as it takes for none to wait for more.
- c-ares says which of its descriptors it wants watched: for each there is a greenlet that waits and then lets
  it work.  It says so, too, before it closes one; the loop has left that one when it does.
- While questions are open, a timer lets c-ares look for those that got no answer in time.
"""

from typing import Any

import pycares

from weald._base.config import config
from weald._core import READ, WRITE, AsyncResult, Descriptor, Hub, Timer, get_hub, spawn
from weald.resolver._dns import Answer, DnsFailure, DnsResolver, parse_nameservers

__all__ = ["Resolver"]

_KINDS = {"A": pycares.QUERY_TYPE_A, "AAAA": pycares.QUERY_TYPE_AAAA, "PTR": pycares.QUERY_TYPE_PTR}

_REASONS = {
    pycares.errno.ARES_ENOTFOUND: DnsFailure.NOT_FOUND,
    pycares.errno.ARES_EBADNAME: DnsFailure.NOT_FOUND,
    pycares.errno.ARES_ENODATA: DnsFailure.NO_DATA,
    pycares.errno.ARES_EREFUSED: DnsFailure.FAILED,
    pycares.errno.ARES_ENOTIMP: DnsFailure.FAILED,
    pycares.errno.ARES_EFORMERR: DnsFailure.FAILED,
}

# Of pycares.Channel, for which there is a setting.
_OPTIONS = {"timeout": float, "tries": int, "ndots": int, "flags": int, "udp_port": int, "tcp_port": int}

_RESOLV_CONF = "/etc/resolv.conf"
_MOST_QUESTIONS = 100  # a channel waits for at once
_LONGEST_PAUSE = 1.0  # seconds between two looks for questions that got no answer


class Resolver(DnsResolver):
    """Asks the name servers of resolv.conf, or those of `config.ares_servers` or `config.resolver_nameservers`.

    `options` are those of pycares.Channel; they win over `config`, which with `use_environ` false does not count.
    """

    def __init__(
        self,
        hub: Hub | None = None,
        use_environ: bool = True,
        hosts: str = "/etc/hosts",
        resolv_conf: str = _RESOLV_CONF,
        **options: Any,
    ) -> None:
        super().__init__(hub, hosts, resolv_conf)
        options = {**(_configured() if use_environ else {}), **options}
        # pycares may free the path before c-ares reads it, which then asks 127.0.0.1: none for the usual file.
        if resolv_conf != _RESOLV_CONF:
            options["resolvconf_path"] = resolv_conf
        if servers := parse_nameservers(options.pop("servers", None)):
            options["servers"] = [
                f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in servers
            ]
        self._options = options
        self._channels = [_Channel(options)]

    def close(self) -> None:
        """Close the channels; open questions fail."""
        for channel in self._channels:
            channel.close()

    def query(self, name: str, kind: str) -> Answer:
        """Ask c-ares; see DnsResolver."""
        wanted = _KINDS[kind]
        result, error = self._channel().ask(name, wanted)
        if error is not None:
            raise DnsFailure(_REASONS.get(error, DnsFailure.TRY_AGAIN))
        names, values = [name], []
        for record in result.answer:
            if record.type == wanted:
                values.append(record.data.dname if kind == "PTR" else record.data.addr)
            elif record.type == pycares.QUERY_TYPE_CNAME:
                names.append(record.data.cname)
        if not values:
            raise DnsFailure(DnsFailure.NO_DATA)
        return Answer(names, values)

    def _channel(self) -> "_Channel":
        for channel in self._channels:
            if channel.questions < _MOST_QUESTIONS:
                return channel
        self._channels.append(_Channel(self._options))
        return self._channels[-1]


class _Channel:
    """A pycares.Channel in the loop of the hub that makes it."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.questions = 0  # open ones
        self._hub = get_hub()
        self._watched: dict[int, _Watched] = {}
        self._timer: Timer | None = None
        self._closed = False
        self._inner = pycares.Channel(sock_state_cb=self._watch, **options)

    def close(self) -> None:
        self._closed = True
        for watched in self._watched.values():
            watched.close()
        if self._timer is not None:
            self._timer.cancel()
        self._inner.close()

    def ask(self, name: str, kind: int) -> tuple[Any, int | None]:
        """(the DNSResult, None) or (None, an error of pycares.errno)"""
        outcome: AsyncResult[tuple[Any, int | None]] = AsyncResult()
        self.questions += 1
        try:
            self._inner.query(name, kind, callback=lambda result, error: outcome.set((result, error)))
            self._arm()
            return outcome.get()
        except pycares.AresError as refused:
            return None, refused.args[0]
        finally:
            self.questions -= 1

    def _watch(self, fd: int, readable: bool, writable: bool) -> None:
        """Watch `fd` as c-ares asks: for reading, for writing; for neither: c-ares closes it next."""
        if self._closed:  # this is another thread then, which ends the channel
            return
        wanted = (READ if readable else 0) | (WRITE if writable else 0)
        if not wanted:
            if fd in self._watched:
                self._watched.pop(fd).close()
            return
        watched = self._watched.get(fd)
        if watched is None:
            watched = self._watched[fd] = _Watched(fd)
        watched.wanted = wanted
        for event in (READ, WRITE):
            if event & wanted & ~watched.served:
                watched.served |= event
                spawn(self._serve, fd, watched, event)

    def _serve(self, fd: int, watched: "_Watched", event: int) -> None:
        descriptor = watched.descriptor
        wait = descriptor.wait_read if event == READ else descriptor.wait_write
        work = self._inner.process_read_fd if event == READ else self._inner.process_write_fd
        try:
            while watched.wanted & event:
                wait()
                if watched.wanted & event:
                    work(fd)
        except OSError:
            pass  # closed
        finally:
            watched.served &= ~event

    def _arm(self) -> None:
        if self.questions and (self._timer is None or not self._timer.pending):
            pause = min(self._inner.timeout() or _LONGEST_PAUSE, _LONGEST_PAUSE)  # type: ignore[no-untyped-call]
            self._timer = Timer(self._hub, pause, self._look, ref=False)

    def _look(self) -> None:
        self._inner.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
        self._arm()


class _Watched:
    """A descriptor of c-ares's: what it waits for, and for what of that there is a greenlet."""

    def __init__(self, fd: int) -> None:
        self.descriptor = Descriptor(fd)
        self.wanted = 0
        self.served = 0

    def close(self) -> None:
        self.wanted = 0
        self.descriptor.close()


def _configured() -> dict[str, Any]:
    """What `config` says of pycares.Channel's options."""
    found: dict[str, Any] = {"servers": config.ares_servers or config.resolver_nameservers}
    for name, convert in _OPTIONS.items():
        value = getattr(config, f"ares_{name}")
        if value is not None:
            found[name] = convert(value)
    if config.resolver_timeout is not None and "timeout" not in found:
        # Tries are made after one timeout, two and so on: so the second ends in time.
        found |= {"timeout": config.resolver_timeout / 3, "tries": found.get("tries", 2)}
    return found
