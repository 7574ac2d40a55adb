# See links.pyx.
from weald._core.hub cimport Hub, Runnable

cdef class Link(Runnable):
    cdef Hub hub
    cdef object source
    cdef object callback
    cdef object home
    cdef bint scheduled
    cdef bint stray  # ManyLinks cannot find it by its callback

cdef object add_link(object links, object source, object callback)
cdef int drop_link(object links, object callback) except -1
cdef int schedule_links(object links) except -1
