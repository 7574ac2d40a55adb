"""gevent.resolver_ares, the old name of gevent.resolver.ares."""

from typing import TYPE_CHECKING

from weald._missing import gevent_names
from weald.resolver.ares import Resolver

__all__ = ["Resolver"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald.resolver_ares")
