"""gevent._imap."""

from typing import TYPE_CHECKING

from weald._missing import gevent_names
from weald.pool import IMap, IMapUnordered

__all__ = ["IMap", "IMapUnordered"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald._imap")
