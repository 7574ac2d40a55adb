"""gevent's old name of weald.resolver.thread.

Called by: users, as gevent.resolver_thread.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald.resolver.thread import Resolver

__all__ = ["Resolver"]


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.resolver_thread")
