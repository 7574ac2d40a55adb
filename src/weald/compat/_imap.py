"""gevent._imap."""

from weald.pool import IMap, IMapUnordered

__all__ = ["IMap", "IMapUnordered"]
