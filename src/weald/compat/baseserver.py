"""gevent.baseserver: the base of the servers, which weald keeps in weald.server."""

from typing import TYPE_CHECKING

from weald._missing import gevent_names
from weald.server import BaseServer
from weald.server import parse_address as _parse_address

__all__ = ["BaseServer"]

parse_address = _parse_address


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald.baseserver")
