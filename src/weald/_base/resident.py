"""Greenlets of weald's own, which programs do not know and still may kill.

Called by: weald.server, weald.subprocess, weald.http.disconnected, weald.serve.

Programs, tests above all, end what they have started by killing every Greenlet that the garbage collector knows.
Accepting connections, waiting for a child or writing a log is none of that.
"""

from collections.abc import Callable

from greenlet import GreenletExit, getcurrent

from weald._core import Greenlet, spawn

__all__ = ["Resident"]


class Resident:
    """Runs `function()` in a greenlet until it returns or `stop` is called: if somebody else kills it, it starts again.

    `function` must be such that it can.  `greenlet` is the one that runs it now, None after `stop`.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self.greenlet: Greenlet | None = None
        self._begin()

    def stop(self) -> None:
        """Kill it for good.  Does not wait; in the greenlet itself, it goes on and will not begin again."""
        greenlet, self.greenlet = self.greenlet, None
        if greenlet is not None and greenlet is not getcurrent():
            greenlet.kill(block=False)

    def _begin(self) -> None:
        self.greenlet = spawn(self._function)
        self.greenlet.rawlink(self._ended)

    def _ended(self, greenlet: Greenlet) -> None:
        if greenlet is self.greenlet and isinstance(greenlet.value, GreenletExit):
            self._begin()
