# See tls.pyx.
from weald._core.descriptor cimport Descriptor

cdef object receive(object sock, Descriptor descriptor, object size, object buffer)
cdef int transmit_all(object sock, object data, int flags) except -1
