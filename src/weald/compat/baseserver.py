"""gevent.baseserver: the base of the servers, which weald keeps in weald.server.

Called by: users, as gevent.baseserver.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald.server import BaseServer
from weald.server import parse_address as _parse_address

__all__ = ["BaseServer"]

parse_address = _parse_address


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.baseserver")
