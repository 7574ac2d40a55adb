# cython: nonecheck=True
"""async_: a call of `send()`, from any thread.

Called by: loop.pyx (`EventLoop.async_`).
"""

from weald._core.c_python cimport show_as
from weald._core.watchers.base cimport Watcher, post


cdef class async_(Watcher):
    """Fires after send(), which any thread may call.  Sends that come before the callback are one."""

    cdef bint sent

    def send(self):
        """Have the callback called soon.  Any thread."""
        if self.is_active and not self.sent:
            self.sent = True
            post(self)

    def send_ignoring_arg(self, _ignored):
        """`send`, for use as a link."""
        self.send()

    @property
    def pending(self):
        return self.sent or self.is_pending

    cdef int disarm(self) except -1:
        self.sent = False
        return 0

    cdef int before_call(self) except -1:
        self.sent = False
        return 0


show_as(async_, "weald._core.watchers.async_")
