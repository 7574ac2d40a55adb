"""gevent.resolver_ares, the old name of gevent.resolver.ares.

Called by: users, as gevent.resolver_ares.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald.resolver.ares import Resolver

__all__ = ["Resolver"]


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.resolver_ares")
