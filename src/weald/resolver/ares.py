"""A resolver on c-ares, through pycares (WEALD_RESOLVER=ares; install weald[ares]).

Called by: weald._base.config, when the resolver is chosen; weald.compat.

`_dns` decides which server is asked and for how long.  c-ares has its own sockets, and a cache that obeys the records'
lifetimes.

Invariants:
- No text is passed in c-ares' options (`lookups`, `domains`, `resolvconf_path`), since pycares may free it before
  c-ares reads it.  weald reads the files itself and passes on the values.
- A channel has one server, so that c-ares still accepts that server's replies when the next server is asked.  A channel
  has one UDP socket, whose default buffer holds a few hundred replies.  So a channel takes a limited number of queries,
  and further channels are made as needed (FAST).
- After three replies c-ares gives a fast server only a quarter of a second, and then ignores its reply.  So a query
  that timed out is sent again through a channel that has seen fewer replies (PATIENT).
- After an unreadable reply c-ares repeats all queries of that socket, and fails them all if that does not help.  The
  queries that share a TCP connection fail with it, though some servers close it after one answer, and some do not go on
  before the first query is answered.  So a query that failed so is sent again in its own channel (ALONE).
- c-ares takes no notice of the end of a TCP stream, which stays readable.  So weald ends the queries of that channel.
- When no caller waits for any of a channel's queries, they are cancelled.
- c-ares reports which of its descriptors to watch; for each, a greenlet waits and then calls c-ares.  It also reports
  before it closes a descriptor, and the loop stops watching at that moment.
- While queries are open, a timer lets c-ares check for timeouts.
"""

import fcntl
import socket
import sys
import termios
from collections.abc import Callable, Iterator
from functools import partial
from inspect import signature
from typing import Any

import pycares

from weald._base.config import anything, as_number, as_seconds, config
from weald._core import READ, WRITE, Descriptor, Empty, Hub, SimpleQueue, Timer, get_hub, monotonic, spawn_raw
from weald.resolver._dns import (
    Answer,
    DnsFailure,
    DnsResolver,
    Rejection,
    Server,
    parse_nameservers,
    read_answer,
)
from weald.resolver._files import domains_of

__all__ = ["Resolver"]

_KINDS = {"A": pycares.QUERY_TYPE_A, "AAAA": pycares.QUERY_TYPE_AAAA, "PTR": pycares.QUERY_TYPE_PTR}

# Makes the failure for each error that a server reports.  All other errors count as a Rejection.
_FAILURES: dict[int, Callable[[], DnsFailure]] = {
    pycares.errno.ARES_ENOTFOUND: partial(DnsFailure, DnsFailure.NOT_FOUND),
    pycares.errno.ARES_EBADNAME: partial(DnsFailure, DnsFailure.NOT_FOUND),
    pycares.errno.ARES_ENODATA: partial(DnsFailure, DnsFailure.NO_DATA),
    pycares.errno.ARES_EFORMERR: partial(DnsFailure, DnsFailure.FAILED),
    pycares.errno.ARES_ESERVFAIL: partial(Rejection, servfail=True),
}

# Errors that may be the fault of another query on the same TCP connection.
_CUT_OFF = (pycares.errno.ARES_ECONNREFUSED, pycares.errno.ARES_ECANCELLED, pycares.errno.ARES_ETIMEOUT)

# The options of pycares.Channel that have a setting.
_OPTIONS: dict[str, Callable[[Any], Any]] = {
    "timeout": as_seconds,
    "tries": as_number,
    "ndots": as_number,
    "flags": as_number,
    "udp_port": as_number,
    "tcp_port": as_number,
}

_KNOWN = signature(pycares.Channel).parameters

FAST, PATIENT, ALONE = range(3)  # what a channel is for
_Key = tuple[Server, float, bool, bool, int]  # server, seconds for an answer, TCP only, with EDNS, one of these

_MAX_QUERIES = 100  # that a channel waits for at the same time
_MAX_REPLIES = 2  # after which a PATIENT channel takes no more queries
_PATIENT_TRIES = 4  # of 5, 5, 10 and 20 s by default; resolv.conf's timeout scales them
_CHECK_INTERVAL = 0.25  # seconds between two checks for timeouts; the least that c-ares gives a server

# Server, pycares.DNSResult or None, pycares' error or None; without both it cannot be asked.
_Replies = SimpleQueue[tuple[Server, Any, int | None]]


class Resolver(DnsResolver):
    """Asks the name servers of resolv.conf, or those of `config.ares_servers` or `config.resolver_nameservers`.

    `options` are those of pycares.Channel and override `config`; with `use_environ` false, `config` is ignored.
    `timeout`, `tries`, `ndots`, `domains` and `rotate` override resolv.conf; `lookups` has no effect.
    `servers` is a list, or a text with commas.  ValueError and TypeError for options that are wrong or unknown.
    """

    def __init__(
        self,
        hub: Hub | None = None,
        use_environ: bool = True,
        hosts: str = "/etc/hosts",
        resolv_conf: str = "/etc/resolv.conf",
        **options: Any,
    ) -> None:
        options = {**(_configured() if use_environ else {}), **_checked(options)}
        super().__init__(hub, hosts, options.pop("resolvconf_path", None) or resolv_conf)
        self._servers = parse_nameservers(options.pop("servers", None), options.get("udp_port", 53))
        if not use_environ:
            self._lifetime = None
        self._timeout: float | None = options.pop("timeout", None)
        tries = options.pop("tries", None)
        self._attempts: int | None = None if tries is None else max(tries, 1)
        options.pop("lookups", None)
        self._conf.override(
            ndots=options.pop("ndots", None),
            search=domains_of(options.pop("domains", None)),
            rotate=options.pop("rotate", None),
        )
        self._options = options
        # So that an option that pycares refuses raises here.
        key = self._key(("127.0.0.1", 53), FAST)
        _Channel(key, self._options_for(key)).close()

    def begin(self) -> None:
        """See DnsResolver.  The parent's channels are not closed: pycares does it in a thread, which a child lacks."""
        super().begin()
        self._channels: list[_Channel] = []

    def close(self) -> None:
        """Close the channels; open questions fail."""
        for channel in self._channels:
            channel.close()

    @property
    def patience(self) -> float:
        """Seconds for the first server's answer."""
        return super().patience if self._timeout is None else self._timeout

    @property
    def attempts(self) -> int:
        """How often each server is asked."""
        return super().attempts if self._attempts is None else self._attempts

    def open(self, name: str, kind: str) -> "_Question":
        """Make the query without sending it; see DnsResolver."""
        return _Question(self, name, kind)

    def channel(self, server: Server, purpose: int) -> "_Channel":
        """Return a channel to `server` that can take another query; make one if there is none."""
        key = self._key(server, purpose)
        if purpose != ALONE:
            for channel in reversed(self._channels):
                if channel.key == key and channel.takes_more():
                    return channel
        self._drop_others()
        made = _Channel(key, self._options_for(key))
        self._channels.append(made)
        return made

    def _key(self, server: Server, purpose: int) -> _Key:
        return server, self.patience, self._conf.use_vc, self._conf.edns0, purpose

    def left(self, channel: "_Channel") -> None:
        """Close `channel`, for which no caller waits any more, unless it is to be used again."""
        if (channel.key[-1] != FAST or channel.broken) and channel in self._channels:
            self._channels.remove(channel)
            channel.close()

    def _drop_others(self) -> None:
        """Close the idle channels that no longer match resolv.conf."""
        servers = self.servers()
        for channel in list(self._channels):
            server, *others, _ = channel.key
            current = server in servers and others == [self.patience, self._conf.use_vc, self._conf.edns0]
            if (channel.broken or not current) and not channel.waited_for:
                self._channels.remove(channel)
                channel.close()

    def _options_for(self, key: _Key) -> dict[str, Any]:
        (address, port), patience, use_vc, edns, purpose = key
        flags = self._options.get("flags", pycares.ARES_FLAG_EDNS if edns else 0) | pycares.ARES_FLAG_NOCHECKRESP
        return {
            **self._options,
            "flags": flags | (pycares.ARES_FLAG_USEVC if use_vc else 0),
            "servers": [_server_text(address, port)],
            "timeout": patience,
            "tries": 1 if purpose == FAST else _PATIENT_TRIES,
        }


class _Question:
    """See `weald.resolver._dns.Question`."""

    __slots__ = ("_channels", "_kind", "_name", "_replies", "_resolver")

    def __init__(self, resolver: Resolver, name: str, kind: str) -> None:
        self._resolver, self._name, self._kind = resolver, name, kind
        self._channels: dict[Server, _Channel] = {}
        self._replies: _Replies = SimpleQueue()

    def ask(self, server: Server, patience: float) -> None:
        if server not in self._channels:  # else c-ares itself repeats the query
            self._ask(server, FAST)

    def _ask(self, server: Server, purpose: int) -> None:
        try:
            channel = self._resolver.channel(server, purpose)
        except (OSError, pycares.AresError):  # no such interface, no descriptor
            self._replies.put((server, None, None))
            return
        self._channels[server] = channel
        channel.ask(server, self._name, _KINDS[self._kind], self._replies)

    def next_reply(self, timeout: float) -> tuple[Server, Answer | DnsFailure] | None:
        end = monotonic() + timeout
        while True:
            try:
                server, result, error = self._replies.get(timeout=max(end - monotonic(), 0))
            except Empty:
                return None
            if result is None and error is None:
                return server, Rejection()
            channel = self._channels[server]
            cut_off = channel.streams and error in _CUT_OFF
            channel.broken |= cut_off
            purpose = self._leave(server)
            if error is None:
                if addresses := _addresses(result, self._name, self._kind):
                    return server, Answer([self._name], addresses)
                try:
                    return server, read_answer(self._name, self._kind, _records(result))
                except DnsFailure as failure:
                    return server, failure
            if purpose != ALONE and (cut_off or error == pycares.errno.ARES_EBADRESP):
                self._ask(server, ALONE)
            elif error == pycares.errno.ARES_ETIMEOUT and purpose == FAST:
                self._ask(server, PATIENT)
            else:
                return server, _FAILURES.get(error, Rejection)()

    def close(self) -> None:
        for server in list(self._channels):
            self._leave(server)

    def _leave(self, server: Server) -> int:
        """Stop waiting for this server's reply.  Returns the purpose of the channel that was used."""
        channel = self._channels.pop(server)
        if channel.leave():
            self._resolver.left(channel)
        return channel.key[-1]


def _addresses(result: Any, name: str, kind: str) -> list[str]:
    """The addresses of an answer that holds nothing else, as `read_answer` would find them; [] for any other."""
    found: dict[str, None] = {}
    wanted = _KINDS[kind]
    for record in result.answer:
        if record.type != wanted or kind == "PTR" or record.record_class != pycares.QUERY_CLASS_IN:
            return []
        if record.name.lower() != name.lower():
            return []
        found[record.data.addr] = None
    return list(found)


def _records(result: Any) -> Iterator[tuple[str, str, str]]:
    for record in result.answer:
        if record.record_class != pycares.QUERY_CLASS_IN:
            continue
        if record.type == pycares.QUERY_TYPE_CNAME:
            yield record.name, "CNAME", record.data.cname
        elif record.type == pycares.QUERY_TYPE_PTR:
            yield record.name, "PTR", record.data.dname
        elif record.type in (pycares.QUERY_TYPE_A, pycares.QUERY_TYPE_AAAA):
            yield record.name, "A" if record.type == pycares.QUERY_TYPE_A else "AAAA", record.data.addr


class _Channel:
    """A pycares.Channel in the loop of the hub that makes it."""

    def __init__(self, key: _Key, options: dict[str, Any]) -> None:
        self.key = key
        self.waited_for = 0  # queries that a caller waits for
        self.streams = False  # whether it has used TCP
        self.broken = False  # whether it takes no more queries
        self._open = 0  # queries without a reply yet
        self._answers = 0
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

    def ask(self, server: Server, name: str, kind: int, replies: _Replies) -> None:
        """Send a query; its reply is put in `replies`.  The caller must call `leave` then, or when it stops waiting."""
        came = _Came(self, server, replies)
        self._open += 1
        self.waited_for += 1
        if self._closed:
            came(None, pycares.errno.ARES_EDESTRUCTION)
            return
        try:
            self._inner.query(name, kind, callback=came)
        except pycares.AresError as refused:
            came(None, refused.args[0])
        self._arm()

    def came(self, error: int | None) -> None:
        """A query has got its reply, or has failed."""
        self._open -= 1
        self._answers += error != pycares.errno.ARES_ETIMEOUT

    def takes_more(self) -> bool:
        """Whether it can take another query."""
        few_answers = self.key[-1] == FAST or self._answers < _MAX_REPLIES
        return self.waited_for < _MAX_QUERIES and few_answers and not self.broken

    def leave(self) -> bool:
        """One caller less waits.  Returns True if it was the last, after cancelling what is open."""
        self.waited_for -= 1
        if not self.waited_for and self._open and not self._closed:
            self._inner.cancel()
        return not self.waited_for

    def _watch(self, fd: int, readable: bool, writable: bool) -> None:
        """c-ares wants `fd` watched for reading, for writing, or for neither, because it closes it next."""
        if self._closed:  # called from the thread in which pycares destroys the channel
            return
        wanted = (READ if readable else 0) | (WRITE if writable else 0)
        if not wanted:
            if fd in self._watched:
                self._watched.pop(fd).close()
            return
        watched = self._watched.get(fd)
        if watched is None:
            watched = self._watched[fd] = _Watched(fd, stream=writable)
            self.streams |= writable
        watched.wanted = wanted
        for event in (READ, WRITE):
            if event & wanted & ~watched.served:
                watched.served |= event
                spawn_raw(self._serve, fd, watched, event)

    def _serve(self, fd: int, watched: "_Watched", event: int) -> None:
        descriptor = watched.descriptor
        wait = descriptor.wait_read if event == READ else descriptor.wait_write
        work = self._inner.process_read_fd if event == READ else self._inner.process_write_fd
        try:
            while watched.wanted & event:
                wait()
                if watched.wanted & event:
                    at_end = watched.stream and event == READ and not _unread(fd)
                    work(fd)
                    if at_end and watched.wanted & event:
                        self.broken = True
                        self._inner.cancel()
                        break
        except OSError:
            pass  # closed
        finally:
            watched.served &= ~event

    def _arm(self) -> None:
        if self._open and (self._timer is None or not self._timer.pending):
            pause = min(self._inner.timeout() or _CHECK_INTERVAL, _CHECK_INTERVAL)  # type: ignore[no-untyped-call]
            self._timer = Timer(self._hub, pause, self._look, ref=False)

    def _look(self) -> None:
        self._inner.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
        self._arm()


class _Came:
    """The callback of a query."""

    __slots__ = ("_channel", "_replies", "_server")

    def __init__(self, channel: _Channel, server: Server, replies: _Replies) -> None:
        self._channel: _Channel | None = channel
        self._server, self._replies = server, replies

    def __call__(self, result: Any, error: int | None) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:  # c-ares reports an immediate failure twice: by the callback and by an exception
            channel.came(error)
            self._replies.put((self._server, result, error))


class _Watched:
    """A descriptor of c-ares: the events it wants (`wanted`), and those that have a greenlet waiting (`served`).

    `stream`: it is a TCP socket, the only kind that c-ares waits for to be writable.
    """

    def __init__(self, fd: int, stream: bool) -> None:
        self.descriptor = Descriptor(fd)
        self.stream = stream
        self.wanted = 0
        self.served = 0

    def close(self) -> None:
        self.wanted = 0
        self.descriptor.close()


def _server_text(address: str, port: int) -> str:
    """A server as c-ares wants it, with the interface's name.  OSError if there is no such interface."""
    if ":" not in address:
        return f"{address}:{port}"
    address, _, scope = address.partition("%")
    if scope.isdecimal():
        scope = socket.if_indextoname(int(scope))
    return f"[{address}]:{port}%{scope}" if scope else f"[{address}]:{port}"


def _unread(fd: int) -> int:
    """How many bytes can be read at once from a descriptor."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


def _configured() -> dict[str, Any]:
    """The options of pycares.Channel that `config` sets."""
    found: dict[str, Any] = {"servers": config.ares_servers or config.resolver_nameservers}
    for name in _OPTIONS:
        value = getattr(config, f"ares_{name}")
        if value is not None:
            found[name] = value
    return found


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that are not None, numbers as such.  ValueError and TypeError name the one that is wrong."""
    found = {}
    for name, value in options.items():
        if name not in _KNOWN:
            raise TypeError(f"Resolver() got an unexpected keyword argument {name!r}")
        try:
            value = _OPTIONS.get(name, anything)(value)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name} cannot be {value!r}: {error}") from None
        if value is not None:
            found[name] = value
    return found
