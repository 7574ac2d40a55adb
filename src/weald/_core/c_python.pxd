# CPython's C API: what Cython does not declare.

cdef extern from * nogil:
    """
    /* Static types say by this name, "module.Class", where they are to be found. */
    static inline void weald_show_as(PyTypeObject *cls, const char *name) { cls->tp_name = name; }
    """
    void show_as "weald_show_as"(type cls, const char *name)

cdef extern from *:
    """
    #include <structmember.h>  /* PyMemberDef, which Python.h has from 3.12 on */
    /* Where the slot behind a member descriptor lies in an object; -1: it is no such slot. */
    static inline Py_ssize_t weald_slot_offset(PyObject *member)
    {
        if (!Py_IS_TYPE(member, &PyMemberDescr_Type))
            return -1;
        return ((PyMemberDescrObject *)member)->d_member->offset;
    }
    """
    Py_ssize_t slot_offset "weald_slot_offset"(object)
