"""Links: callbacks that are called when an object is ready, or a greenlet has ended.

Called by: waiters.pyx, greenlet.pyx.
Invariants:
- A link is called once, in the hub of the thread that made it.  Until it is called it can be taken back.
- An object has no links (None), a list of a few, or ManyLinks.
- Callbacks are hashed and compared only to take one back.  That may run Python code, and so let other greenlets and
  threads run; the order of the links does not depend on it.
"""

from weald._core.hub cimport Hub, Runnable
from weald._core.threads cimport current_hub

import sys

from weald._core.hub import report_error
from weald._core.raw import begin_raw

cdef enum:
    FEW = 16  # links among which `unlink` looks one by one


cdef class Link(Runnable):
    """One `rawlink`: a call of `callback(source)` in `hub`, as soon as `source` is ready.

    `home` is what it is in until it is called: a list or ManyLinks.
    """

    cdef int run(self, Hub hub) except -1:
        callback, self.callback = self.callback, None
        source, self.source = self.source, None
        if callback is None:
            return 0
        if type(self.home) is list:
            (<list>self.home).remove(self)
        else:
            (<ManyLinks>self.home).drop(self)
        try:
            callback(source)
        except BaseException:
            report_error(hub, (callback, source), *sys.exc_info())
        return 0


cdef class ManyLinks:
    """The links of an object that has had more than FEW at once."""

    cdef dict order  # the links, in the order in which they were made: its keys
    # The first link to each callback; those that have been called have None as their callback.  None: it is made when
    # a link is taken back.
    cdef dict by_callback
    cdef Py_ssize_t strays  # links that `by_callback` lacks, as their callback cannot be hashed or is not the first
    cdef Py_ssize_t added  # how many links have been added

    def __cinit__(self, list links):
        cdef Link link
        self.order = dict.fromkeys(links)
        for link in links:
            link.home = self

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        return iter(list(self.order))

    cdef int add(self, Link link) except -1:
        link.home = self
        self.order[link] = None
        self.added += 1
        if self.by_callback is not None and not noted(self.by_callback, link):
            self.strays += 1
        return 0

    cdef int drop(self, Link link) except -1:
        self.order.pop(link, None)
        if not self.order:
            self.by_callback = None
        return 0

    cdef Link find(self, object callback):
        """The link that `unlink(callback)` takes back; None if there is none."""
        cdef Link link
        if self.by_callback is None:
            self.make_index()
        if self.by_callback is not None and self.strays == 0:
            try:
                link = self.by_callback.get(callback)
            except TypeError:  # it cannot be hashed
                pass
            else:
                return link if link is not None and link.callback is not None else None
        return find_among(list(self.order), callback)

    cdef int make_index(self) except -1:
        cdef dict index = {}
        cdef Py_ssize_t strays = 0
        cdef Py_ssize_t added = self.added
        for link in list(self.order):
            if not noted(index, link):
                strays += 1
        if self.added == added:  # else others have come in between: the next call tries again
            self.by_callback = index
            self.strays = strays
        return 0

    cdef int take_back(self, Link link, object callback) except -1:
        self.drop(link)
        if self.by_callback is not None:
            if link.stray:
                self.strays -= 1
            else:
                self.by_callback.pop(callback, None)
        return 0


cdef bint noted(dict index, Link link) except -1:
    """Enter `link` into the index by callbacks, if it is the first to its callback; returns whether it is."""
    cdef Link first
    cdef object callback = link.callback
    link.stray = False
    if callback is None:  # called meanwhile
        return True
    try:
        first = index.get(callback)
        if first is None or first.callback is None:
            index[callback] = link
            return True
    except TypeError:  # it cannot be hashed
        pass
    link.stray = True
    return False


cdef object add_link(object links, object source, object callback):
    """`links` with one more."""
    cdef Link link
    if not callable(callback):
        raise TypeError(f"a link must be callable, got {callback!r}")
    link = Link.__new__(Link)
    link.hub = current_hub()
    link.source = source
    link.callback = callback
    if links is None:
        links = []
    elif type(links) is list and len(<list>links) == FEW:
        links = ManyLinks(links)
    if type(links) is list:
        link.home = links
        (<list>links).append(link)
    else:
        (<ManyLinks>links).add(link)
    return links


cdef Link find_among(list links, object callback):
    """The first link to `callback`, or else to what is equal to it; None if there is none."""
    cdef Link link
    # Look for the object itself first: comparing costs more.
    for link in links:
        if link.callback is callback or isinstance(link.callback, SpawnedLink) \
                and (<SpawnedLink>link.callback).callback is callback:
            return link
    for link in links:
        if link.callback == callback:
            return link
    return None


cdef int drop_link(object links, object callback) except -1:
    """Take back one link to `callback`, if there is one."""
    cdef Link link
    if links is None:
        return 0
    link = find_among(<list>links, callback) if type(links) is list else (<ManyLinks>links).find(callback)
    if link is None or link.callback is None:
        return 0
    callback, link.callback = link.callback, None
    link.source = None
    if type(link.home) is list:
        (<list>link.home).remove(link)
    else:
        (<ManyLinks>link.home).take_back(link, callback)
    return 0


cdef int schedule_links(object links) except -1:
    """Have every link called.  Until it is called, each can still be taken back."""
    cdef Link link
    if type(links) is ManyLinks:
        (<ManyLinks>links).by_callback = None  # it would keep the callbacks
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
