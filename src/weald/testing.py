"""For tests of programs that use weald: a clock that jumps, and waiting until all other greenlets are parked.

Called by: tests, users' and weald's own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from weald import _core
from weald._base.names import more_names

__all__ = ["blocked", "virtual_clock"]


def blocked() -> None:
    """Wait until all other greenlets of this thread are parked and every event that has arrived has had its effect.

    By then everything that a test has started has gone as far as it can: sent data has been read, greenlets that want
    a lock wait for it.  Use it instead of a `sleep` of a guessed length.  It does not wait for timers that are not due,
    for native threads or for other processes.  A greenlet that never parks for long (`while True: sleep(0)`) keeps
    this from returning.

        reader = weald.spawn(sock.recv, 100)
        blocked()
        assert not reader.ready()  # it waits
        peer.send(b"x")
        blocked()
        assert reader.get(block=False) == b"x"
    """
    _core.get_hub().wait_blocked()


@contextmanager
def virtual_clock() -> Iterator[_core.Hub]:
    """In the block, time jumps: `sleep(1000)` takes no time, and exactly 1000 seconds by `hub.loop.now()`.

    When all greenlets are parked, the clock advances to the next timer at once.  So programs with long waits are tested
    in no time, and run the same way each time.  Descriptors cannot be waited for (OSError): sockets, pipes and children
    need a real loop.  The clocks of module time do not change.

    Yields the thread's hub in the block, a new one.  The previous hub is destroyed, and so is the new one at the end of
    the block: greenlets that are parked then never go on.  Other threads that make their hub in the block get such a
    clock, too, each its own.

        with virtual_clock() as hub:
            begin = hub.loop.now()
            weald.sleep(3600)
            assert hub.loop.now() == begin + 3600
    """
    before = _core.set_loop_factory("virtual")
    try:
        _core.get_hub().destroy()
        yield _core.get_hub()
    finally:
        _core.get_hub().destroy()
        _core.set_loop_factory(before)


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
