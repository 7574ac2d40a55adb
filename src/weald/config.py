"""Settings of the process: read from `WEALD_*` environment variables once, then plain attributes.

`weald.config` is the one instance.  Rooms read it when they need a value, so an assignment counts for
whatever is made after it.
"""

import os
from collections.abc import Mapping

from weald._core import loop_names, set_loop_factory

__all__ = ["Config", "config"]


class Config:
    """`WEALD_LOOP`, `WEALD_RESOLVER`, `WEALD_THREADPOOL_SIZE`, `WEALD_THREADPOOL_IDLE_TIMEOUT`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._loop = ""
        self.resolver = environ.get("WEALD_RESOLVER") or "thread"
        self.threadpool_size = int(_number(environ, "WEALD_THREADPOOL_SIZE", 10))
        # Seconds after which an idle worker thread ends; -1 keeps it for ever.
        self.threadpool_idle_task_timeout = _number(environ, "WEALD_THREADPOOL_IDLE_TIMEOUT", -1)
        if loop := environ.get("WEALD_LOOP"):
            self.loop = loop

    @property
    def loop(self) -> str:
        """Name of the loop backend chosen for hubs made from now on, "" for the default."""
        return self._loop

    @loop.setter
    def loop(self, name: str) -> None:
        if name not in loop_names():
            raise ValueError(f"no loop named {name!r} in this build of weald; there are: {', '.join(loop_names())}")
        set_loop_factory(name)
        self._loop = name


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"environment variable {name} must be a number, not {text!r}") from None


config = Config()
