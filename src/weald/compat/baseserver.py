"""gevent.baseserver: the base of the servers, which weald keeps in weald.server."""

from weald.server import BaseServer
from weald.server import parse_address as _parse_address

__all__ = ["BaseServer"]

parse_address = _parse_address
