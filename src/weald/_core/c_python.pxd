# CPython's C API: what Cython does not declare.

cdef extern from * nogil:
    """
    /* Static types say by this name, "module.Class", where they are to be found. */
    static inline void weald_show_as(PyTypeObject *cls, const char *name) { cls->tp_name = name; }
    """
    void show_as "weald_show_as"(type cls, const char *name)
