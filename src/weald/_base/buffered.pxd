# See buffered.pyx.

cdef class Kind:
    cdef object cls
    cdef Py_ssize_t offset

cdef Kind kind_of(object cls)
cdef Turns turns_of(object self, Kind kind)

cdef class Turns:
    cdef public int fd  # the raw file's, -1 when it is closed
    cdef public bint used  # whether the raw file has been read; kept by SharedIO alone
    cdef bint quick  # whether the raw file tries its calls without going inside, where they need not wait
    cdef bint untold  # whether the system cannot tell if a write would wait; kept by LoopIO alone
    cdef list inside  # greenlets in a call of the raw file
    cdef Py_ssize_t waiting  # how many greenlets wait until no other is inside
    cdef Py_ssize_t busy  # calls of `in_turn` methods under way, each of which may enter several times
    cdef object left  # an Event, set when a greenlet leaves; None if none waits
    cdef Turns outer  # for a buffer below a text: the text's Turns
    cdef Turns below(self)
    cdef object enter(self)
    cdef object go_inside(self, bint others_first)
    cdef int leave(self, object current) except -1
    cdef int come(self) except -1
