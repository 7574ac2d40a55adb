"""gevent.win32util: error texts of Windows, where weald does not run."""

import os

__all__ = ["formatError"]


def formatError(code: int) -> str:
    return os.strerror(code)
