"""Greenlets of weald's own, which start again when a program kills them.

Called by: weald.server, weald.subprocess, weald.http.disconnected, weald.serve.

Programs, above all tests, clean up by killing every Greenlet that the garbage collector knows.  That must not end
weald's accepting of connections, waiting for children or writing of logs.
"""

from collections.abc import Callable

from greenlet import GreenletExit, getcurrent

from weald._core import Greenlet, spawn

__all__ = ["Resident"]


class Resident:
    """Runs `function()` in a greenlet until it returns or `stop` is called.

    If other code kills the greenlet, `function` is called again in a new one.  It must allow for that.  `greenlet` is
    the one that runs it now, None after `stop`.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.greenlet: Greenlet | None = None
        self._begin()

    def stop(self) -> None:
        """Kill the greenlet for good, without waiting.  If that is the caller, it goes on, but will not start again."""
        greenlet, self.greenlet = self.greenlet, None
        if greenlet is not None and greenlet is not getcurrent():
            greenlet.kill(block=False)

    def _begin(self) -> None:
        self.greenlet = spawn(self._function)
        self.greenlet.rawlink(self._ended)

    def _ended(self, greenlet: Greenlet) -> None:
        if greenlet is self.greenlet and isinstance(greenlet.value, GreenletExit):
            self._begin()
