"""Where a greenlet was spawned: its callers' frames, without the objects that those keep alive.

Called by: greenlet.pyx.
"""

from cpython.ref cimport Py_DECREF

cdef extern from "Python.h":
    ctypedef struct PyThreadState:
        pass
    ctypedef struct PyFrameObject:
        pass
    PyThreadState *PyThreadState_Get()
    PyFrameObject *PyThreadState_GetFrame(PyThreadState *)  # new, or NULL
    PyFrameObject *PyFrame_GetBack(PyFrameObject *)  # new, or NULL
    ctypedef struct PyCodeObject:
        pass
    PyCodeObject *PyFrame_GetCode(PyFrameObject *)  # new
    int PyFrame_GetLineNumber(PyFrameObject *)


cdef tuple calling_frames(Py_ssize_t limit):
    """(code, line) of the running frame, of its caller, and so on; at most `limit`."""
    cdef PyFrameObject *frame = PyThreadState_GetFrame(PyThreadState_Get())
    cdef PyFrameObject *back
    cdef object code
    cdef list found = []
    while frame != NULL and len(found) < limit:
        code = <object>PyFrame_GetCode(frame)
        Py_DECREF(code)
        found.append((code, PyFrame_GetLineNumber(frame)))
        back = PyFrame_GetBack(frame)
        Py_DECREF(<object>frame)
        frame = back
    if frame != NULL:
        Py_DECREF(<object>frame)
    return tuple(found)


class SpawnFrame:
    """The attributes of a frame that the module traceback reads, without the objects that a frame keeps alive."""

    __slots__ = ("f_back", "f_code", "f_lineno")
    f_globals = {}
    f_locals = {}

    def __init__(self, f_code, f_lineno, f_back):
        self.f_code = f_code
        self.f_lineno = f_lineno
        self.f_back = f_back

    @property
    def f_lasti(self):
        return -1

    def clear(self):
        pass


cdef object as_frames(tuple stack):
    """`stack`, from `calling_frames`, as its innermost frame, linked to the others by `f_back`; None if it is empty."""
    frame = None
    for code, line in reversed(stack or ()):
        frame = SpawnFrame(code, line, frame)
    return frame
