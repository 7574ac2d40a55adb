# greenlet's C API: the part hub.pyx and greenlet.pyx call.  Importing modules call PyGreenlet_Import() once.
from cpython.object cimport PyObject

cdef extern from "greenlet.h" nogil:
    """
    /* The API's macros with plain object pointers. */
    #define WEALD_G(g) ((PyGreenlet *)(g))
    #define weald_getcurrent() ((PyObject *)PyGreenlet_GetCurrent())
    #define weald_switch(g) PyGreenlet_Switch(WEALD_G(g), NULL, NULL)
    #define weald_throw(g, t, v, tb) PyGreenlet_Throw(WEALD_G(g), t, v, tb)
    #define weald_set_parent(g, p) PyGreenlet_SetParent(WEALD_G(g), WEALD_G(p))
    #define weald_started(g) PyGreenlet_STARTED(WEALD_G(g))
    #define weald_active(g) PyGreenlet_ACTIVE(WEALD_G(g))
    """
    ctypedef class greenlet.greenlet [object PyGreenlet, check_size ignore]:
        pass

    void PyGreenlet_Import()

    # New references; NULL with an exception set on failure.
    PyObject *PyGreenlet_GetCurrent "weald_getcurrent"()
    PyObject *PyGreenlet_Switch "weald_switch"(void *g)
    PyObject *PyGreenlet_Throw "weald_throw"(void *g, PyObject *typ, PyObject *val, PyObject *tb)
    int PyGreenlet_SetParent "weald_set_parent"(void *g, void *parent)
    # Started: has run at least once, dead ones included.  Active: started and not dead.
    bint PyGreenlet_STARTED "weald_started"(void *g)
    bint PyGreenlet_ACTIVE "weald_active"(void *g)
