# See threads.pyx.
from cpython.object cimport PyObject

from weald._core.hub cimport Hub

cdef Hub current_hub()
cdef Hub current_hub_or_none()
cdef bint has_hub() noexcept
cdef PyObject *hub_here() noexcept
cdef bint in_main_thread() noexcept
cdef bint is_exiting() noexcept
cdef list living_hubs()
cdef list adopt_process()
