"""Plain greenlets: no result, no links, no join.

Called by: local.pyx, users (`spawn_raw`), signals.pyx, links.pyx, greenlet.pyx.
Invariants: they start from the hub's ring, as all greenlets do.  Uncaught exceptions go to the hub's error handler.
"""

from weald._core cimport arena
from weald._core.c_greenlet cimport *
from weald._core.hub cimport Hub, current_greenlet
from weald._core.threads cimport current_hub

import sys
from greenlet import GreenletExit
from weakref import ref as weak_reference

from weald._core.hub import report_error

PyGreenlet_Import()


cdef class RawGreenlet(greenlet):
    """The lightest greenlet: no result, no links."""

    cdef object function
    cdef tuple args
    cdef dict kwargs
    cdef public object spawning_greenlet
    cdef object tree

    @property
    def spawn_tree_locals(self):
        """A dict shared by all greenlets spawned, directly or not, from the same root."""
        if self.tree is None and self.spawning_greenlet is not None:
            self.tree = {}
        return self.tree

    @spawn_tree_locals.setter
    def spawn_tree_locals(self, value):
        self.tree = value

    @property
    def loop(self):
        """This thread's event loop."""
        return current_hub().loop

    def run(self):
        arena.begin_stack()
        function, args, kwargs = self.function, self.args, self.kwargs
        self.function = None
        self.args = None
        self.kwargs = None
        try:
            if kwargs is None:
                function(*args)
            else:
                function(*args, **kwargs)
        except GreenletExit:
            pass
        except BaseException:
            report_error(current_hub(), self, *sys.exc_info())
        return None


cdef greenlet new_raw(Hub hub, object function, tuple args):
    """A plain greenlet of `hub` that will call `function(*args)`.  It is not on the ring yet."""
    cdef RawGreenlet g = RawGreenlet.__new__(RawGreenlet)
    g.function = function
    g.args = args
    PyGreenlet_SetParent(<void *>g, <void *>hub)
    return g


def spawn_raw(function, /, *args, **kwargs):
    """Have `function(*args, **kwargs)` run in a new plain greenlet soon; returns the greenlet.

    It has no result, no links and no `join`; an uncaught exception goes to the hub's `handle_error`.  TypeError if
    `function` is not callable.
    """
    cdef Hub hub = current_hub()
    cdef RawGreenlet g
    if not callable(function):
        raise TypeError(f"spawn_raw needs a callable, got {function!r}")
    g = <RawGreenlet>new_raw(hub, function, args)
    if kwargs:
        g.kwargs = kwargs
    if track_tree:
        spawner = current_greenlet()
        g.spawning_greenlet = weak_reference(spawner)
        if spawner is not hub.main:
            g.tree = getattr(spawner, "spawn_tree_locals", None)
    hub.push(g)
    return g


def begin_raw(function, argument):
    """Run `function(argument)` in a new plain greenlet: at once if called in the hub, else as `spawn_raw` does."""
    cdef Hub hub = current_hub()
    if current_greenlet() is hub:
        hub.begin(new_raw(hub, function, (argument,)))
    else:
        spawn_raw(function, argument)


cdef bint track_tree = True


def track_spawns(bint tree):
    """Set whether greenlets of `spawn_raw` remember which greenlet has spawned them."""
    global track_tree
    track_tree = tree
