"""A resolver on c-ares, through pycares (WEALD_RESOLVER=ares; install weald[ares]).

c-ares keeps its own sockets, retries, timeouts and a cache that obeys the records' lifetimes.

Invariants:
- c-ares says which of its descriptors it wants watched: for each there is a greenlet that waits and then lets
  it work.  It says so, too, before it closes one; the loop has left that one when it does.
- While questions are open, a timer lets c-ares look for those that got no answer in time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pycares

from weald._config import config
from weald._core import AsyncResult, Descriptor, Hub, Timer, get_hub, spawn
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
        resolv_conf: str = "/etc/resolv.conf",
        **options: Any,
    ) -> None:
        super().__init__(hub, hosts, resolv_conf)
        self._hub = get_hub() if hub is None else hub
        self._watched: dict[int, dict[str, Descriptor]] = {}
        self._open = 0  # questions
        self._timer: Timer | None = None
        self._closed = False
        if use_environ:
            options = {**_configured(), **options}
        if servers := parse_nameservers(options.pop("servers", None)):
            options["servers"] = [
                f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address, port in servers
            ]
        self._channel = pycares.Channel(sock_state_cb=self._watch, resolvconf_path=resolv_conf, **options)

    def close(self) -> None:
        for fd in list(self._watched):
            self._watch(fd, False, False)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._channel.close()

    def query(self, name: str, kind: str) -> Answer:
        wanted = _KINDS[kind]
        outcome: AsyncResult[tuple[Any, int | None]] = AsyncResult()
        self._open += 1
        try:
            self._channel.query(name, wanted, callback=lambda result, error: outcome.set((result, error)))
            self._arm()
            result, error = outcome.get()
        except pycares.AresError as refused:
            result, error = None, refused.args[0]
        finally:
            self._open -= 1
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

    def _watch(self, fd: int, readable: bool, writable: bool) -> None:
        """c-ares wants to hear when `fd` is readable, writable; of neither: it closes it next."""
        if self._closed:  # by another thread's doing, which ends the channel
            return
        watched = self._watched.setdefault(fd, {})
        for event, wanted in (("read", readable), ("write", writable)):
            if wanted and event not in watched:
                watched[event] = Descriptor(fd)
                spawn(self._serve, fd, event, watched[event])
            elif not wanted and event in watched:
                watched.pop(event).close()
        if not watched:
            del self._watched[fd]

    def _serve(self, fd: int, event: str, descriptor: Descriptor) -> None:
        wait = descriptor.wait_read if event == "read" else descriptor.wait_write
        work: Callable[[], None] = partial(
            self._channel.process_read_fd if event == "read" else self._channel.process_write_fd, fd
        )
        while True:
            try:
                wait()
            except OSError:
                return  # not wanted any more
            work()

    def _arm(self) -> None:
        if self._open and (self._timer is None or not self._timer.pending):
            pause = min(self._channel.timeout() or _LONGEST_PAUSE, _LONGEST_PAUSE)
            self._timer = Timer(self._hub, pause, self._look, ref=False)

    def _look(self) -> None:
        self._channel.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
        self._arm()


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
