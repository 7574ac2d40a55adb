"""Accepting from listeners that several processes share, so that each gets its share of the connections.

Called by: worker.py, wsgi.py, asgi.py.

The kernel wakes a worker that waits for a listener.  A worker that is busy, hangs or loads does not wait, so it delays
no connection.  But the first to wake could take all connections of a burst, and keep them.  So each worker publishes
how many it has, and a worker that has more than the others waits for a moment before it accepts.
"""

from typing import Any

from weald._core import Timeout, monotonic, sleep
from weald.http.forwarded import Trusted
from weald.http.proxy_protocol import read_address
from weald.http.server import HTTPServer
from weald.pywsgi import WSGIServer
from weald.serve.metrics import BEAT, CONNECTIONS, Metrics

__all__ = ["Fair", "FairServer", "Share"]

_PAUSE = 0.002  # seconds that a worker waits for the others to accept
_AT_ONCE = 16  # after a pause: how many to accept without another one
_RECENT = 2.5  # seconds: a worker whose loop has not turned for longer does not count
_LOOK = 0.005  # seconds between two checks of the others' numbers


class Share:
    """How many of all workers' connections one worker's servers have."""

    def __init__(self, metrics: Metrics, slot: int) -> None:
        self._row = metrics.row(slot)
        self._others = [metrics.row(i) for i in range(metrics.workers) if i != slot]
        self._count = 0
        self._most = 0.0  # with more connections than this, wait for the others
        self._looked = 0.0
        self._free = 0  # how many to accept without a look

    def add(self, change: int) -> None:
        """Add `change` to the number of connections."""
        self._count += change
        self._row[CONNECTIONS] = self._count

    def nothing_left(self) -> None:
        """Note that the listener has no more connections."""
        self._free = 0

    def wait_for_others(self) -> None:
        """Park for a moment if the others have fewer connections."""
        if self._free:
            self._free -= 1
            return
        if not self._others:
            return
        now = monotonic()
        if now - self._looked > _LOOK:
            self._looked = now
            counts = [row[CONNECTIONS] for row in self._others if now - row[BEAT] < _RECENT]
            self._most = sum(counts) / len(counts) * 1.125 + 2 if counts else 1e9
        if self._count > self._most:
            sleep(_PAUSE)
            self._free = _AT_ONCE


class Fair(HTTPServer):
    """A server that accepts its `share` of a listener's connections; those of `balancers` begin with a PROXY header."""

    def __init__(self, share: Share, balancers: Trusted | None, *args: Any, **options: Any) -> None:
        self._share = share
        self._balancers = balancers
        super().__init__(*args, **options)

    def do_read(self) -> tuple[Any, Any] | None:
        """Accept a connection, if there is one, after a pause that lets others take it."""
        if not self.http_state.draining:
            self._share.wait_for_others()
        accepted = super().do_read()
        if accepted is not None:
            self._share.add(1)
        else:
            self._share.nothing_left()
        return accepted

    def init_socket(self) -> None:
        """Bind, and expect the PROXY header from load balancers."""
        super().init_socket()
        balancers = self._balancers
        if balancers is None:
            return
        inner = self._handle

        def handle(sock: Any, address: Any) -> None:
            peer = address[0] if isinstance(address, tuple) else ""
            if peer in balancers:
                limit = Timeout(self.limits.head_timeout, TimeoutError("it comes too slowly"))
                try:
                    with self.beginning(sock), limit:
                        address = read_address(sock) or address
                except (OSError, ValueError) as error:
                    self.error_log.write(f"no PROXY header from {peer or 'a Unix socket'}: {error}\n")
                    return
            inner(sock, address)

        self._handle = handle

    def do_close(self, sock: Any, *args: Any) -> None:
        """Stop counting the connection, which has ended."""
        self._share.add(-1)
        super().do_close(sock, *args)


class FairServer(Fair, WSGIServer):
    """A WSGIServer that accepts its share of a listener's connections."""

    def set_max_accept(self) -> None:
        """Do nothing: the share decides how many connections are left to other processes."""
