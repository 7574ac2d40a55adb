"""gevent.resolver_ares, the old name of gevent.resolver.ares."""

from weald.resolver.ares import Resolver

__all__ = ["Resolver"]
