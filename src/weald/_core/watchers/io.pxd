# See io.pyx.
from weald._core.descriptor cimport FdEntry, Listener
from weald._core.watchers.base cimport Watcher

cdef class IoListener(Listener):
    cdef io watcher

cdef class io(Watcher):
    cdef int number
    cdef int wanted
    cdef FdEntry entry
    cdef IoListener listener
    cdef int rearm(self) except -1
