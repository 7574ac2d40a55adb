"""gevent._imap.

Called by: users, as gevent._imap.
"""

from typing import TYPE_CHECKING

from weald._base.names import more_names
from weald.pool import IMap, IMapUnordered

__all__ = ["IMap", "IMapUnordered"]


if not TYPE_CHECKING:
    __getattr__ = more_names("weald._imap")
