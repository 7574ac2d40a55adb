"""gevent's old name of weald.resolver.thread."""

from typing import TYPE_CHECKING

from weald._missing import gevent_names
from weald.resolver.thread import Resolver

__all__ = ["Resolver"]


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald.resolver_thread")
