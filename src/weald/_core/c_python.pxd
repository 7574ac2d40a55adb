# CPython's C API: what Cython does not declare.

cdef extern from * nogil:
    """
    /* Sets the name of a static type, "module.Class", by which pickles find it. */
    static inline void weald_show_as(PyTypeObject *cls, const char *name) { cls->tp_name = name; }
    """
    void show_as "weald_show_as"(type cls, const char *name)

cdef extern from *:
    """
    #include <structmember.h>  /* PyMemberDef, which Python.h has from 3.12 on */
    /* The offset in an object of the slot that a member descriptor stands for; -1 if `member` is no such descriptor. */
    static inline Py_ssize_t weald_slot_offset(PyObject *member)
    {
        if (!Py_IS_TYPE(member, &PyMemberDescr_Type))
            return -1;
        return ((PyMemberDescrObject *)member)->d_member->offset;
    }
    """
    Py_ssize_t slot_offset "weald_slot_offset"(object)
