"""gevent.win32util: error texts of Windows, where weald does not run."""

import os
from typing import TYPE_CHECKING

from weald._missing import gevent_names

__all__ = ["formatError"]


def formatError(code: int) -> str:
    return os.strerror(code)


if not TYPE_CHECKING:
    __getattr__ = gevent_names("weald.win32util")
