# See links.pyx.
from weald._core.hub cimport Hub, Runnable

cdef class Link(Runnable):
    cdef Hub hub
    cdef object source
    cdef object callback
    cdef list home
    cdef bint scheduled

cdef list add_link(list links, object source, object callback)
cdef int drop_link(list links, object callback) except -1
cdef int schedule_links(list links) except -1
