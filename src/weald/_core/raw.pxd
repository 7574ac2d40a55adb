# See raw.pyx.
from weald._core.c_greenlet cimport greenlet
from weald._core.hub cimport Hub

cdef greenlet new_raw(Hub hub, object function, tuple args)
