# cython: nonecheck=True
"""signal: a signal that arrives.

Called by: loop.pyx (`EventLoop.signal`).
Invariants: when the last watcher of a signal stops, the handler that was set before is set again, unless the program
has set another one meanwhile.
"""

from weald._core.c_python cimport show_as
from weald._core.watchers.base cimport Watcher, WatcherLoop, post

import signal as _signal

# Kept from before `signal.signal` is patched.
cdef object original_signal = _signal.signal
cdef object original_getsignal = _signal.getsignal
# By signal number: its watchers, and the handler that was set before.  Used by the main thread only.
cdef dict signal_watchers = {}
cdef dict signal_handlers = {}


cdef class signal(Watcher):
    """Fires when a signal arrives.  While it is active, the handler set by signal.signal() is not called.

    Only the main thread may start and stop it.
    """

    cdef readonly int signalnum

    def __init__(self, WatcherLoop loop not None, int signalnum, bint ref=True, priority=None):
        Watcher.__init__(self, loop, ref, priority)
        if not 0 < signalnum < _signal.NSIG:
            raise ValueError(f"illegal signal number: {signalnum}")
        self.signalnum = signalnum

    cdef int arm(self) except -1:
        watchers = signal_watchers.setdefault(self.signalnum, [])
        if not watchers:
            signal_handlers[self.signalnum] = original_signal(self.signalnum, on_signal)
        watchers.append(self)
        return 0

    cdef int disarm(self) except -1:
        watchers = signal_watchers[self.signalnum]
        watchers.remove(self)
        if not watchers:
            before = signal_handlers.pop(self.signalnum)
            if original_getsignal(self.signalnum) is on_signal:
                original_signal(self.signalnum, _signal.SIG_DFL if before is None else before)
        return 0

    def _format(self):
        return f" signalnum={self.signalnum}"


def on_signal(signum, frame):
    """The handler of watched signals, which the interpreter calls between any two bytecodes."""
    cdef signal watcher
    for watcher in signal_watchers.get(signum, ()):
        post(watcher)


show_as(signal, "weald._core.watchers.signal")
