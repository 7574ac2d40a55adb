"""gevent.win32util: error texts of Windows, where weald does not run.

Called by: users, as gevent.win32util.
"""

import os
from typing import TYPE_CHECKING

from weald._base.names import more_names

__all__ = ["formatError"]


def formatError(code: int) -> str:
    """Return the system's text for the error number `code`."""
    return os.strerror(code)


if not TYPE_CHECKING:
    __getattr__ = more_names("weald.win32util")
