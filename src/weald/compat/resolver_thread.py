"""gevent's old name of weald.resolver.thread."""

from weald.resolver.thread import Resolver

__all__ = ["Resolver"]
