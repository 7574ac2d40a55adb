"""Links: callbacks that are called when an object is ready, or a greenlet has ended.

Called by: waiters.pyx, greenlet.pyx.
Invariants: a link is called once, in the hub of the thread that made it.  Until it is called it can be taken back.
"""

from weald._core.hub cimport Hub, Runnable
from weald._core.threads cimport current_hub

import sys

from weald._core.hub import report_error
from weald._core.raw import begin_raw


cdef class Link(Runnable):
    """One `rawlink`: a call of `callback(source)` in `hub`, as soon as `source` is ready.

    `home` is the list it is in until it is called.
    """

    cdef int run(self, Hub hub) except -1:
        callback, self.callback = self.callback, None
        source, self.source = self.source, None
        if callback is None:
            return 0
        self.home.remove(self)
        try:
            callback(source)
        except BaseException:
            report_error(hub, (callback, source), *sys.exc_info())
        return 0


cdef list add_link(list links, object source, object callback):
    """`links` (None: a new list) with one more."""
    cdef Link link
    if not callable(callback):
        raise TypeError(f"a link must be callable, got {callback!r}")
    if links is None:
        links = []
    link = Link.__new__(Link)
    link.hub = current_hub()
    link.source = source
    link.callback = callback
    link.home = links
    links.append(link)
    return links


cdef int drop_link(list links, object callback) except -1:
    """Take back one link to `callback`, if there is one."""
    cdef Link link
    cdef Py_ssize_t i
    if links is None:
        return 0
    # Look for the object itself first: comparing costs more, and there may be thousands of links.
    for i in range(len(links)):
        link = <Link>links[i]
        if link.callback is callback or isinstance(link.callback, SpawnedLink) \
                and (<SpawnedLink>link.callback).callback is callback:
            return take_out(links, i)
    for i, link in enumerate(links):
        if link.callback == callback:
            return take_out(links, i)
    return 0


cdef int take_out(list links, Py_ssize_t i) except -1:
    cdef Link link = links.pop(i)
    link.callback = link.source = None
    return 0


cdef int schedule_links(list links) except -1:
    """Have every link called.  Until it is called, each can still be taken back."""
    cdef Link link
    for link in links:
        if not link.scheduled:
            link.scheduled = True
            link.hub.push(link)
    return 0


# ------------------------------------------------------------------ Greenlet's

cdef class SpawnedLink:
    """A link that runs its callback in a greenlet of its own."""

    cdef readonly object callback

    def __cinit__(self, callback):
        if not callable(callback):
            raise TypeError(f"a link must be callable, got {callback!r}")
        self.callback = callback

    def wanted(self, source):
        return True

    def __call__(self, source):
        if self.wanted(source):
            begin_raw(self.callback, source)

    def __eq__(self, other):
        return self.callback == ((<SpawnedLink>other).callback if isinstance(other, SpawnedLink) else other)

    def __hash__(self):
        return hash(self.callback)


cdef class SuccessLink(SpawnedLink):
    def wanted(self, source):
        return source.successful()


cdef class FailureLink(SpawnedLink):
    def wanted(self, source):
        return not source.successful()
