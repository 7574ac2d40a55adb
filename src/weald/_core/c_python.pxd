# CPython's C API: what Cython does not declare.

from cpython.object cimport PyObject

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

cdef extern from * nogil:
    """
    /* Changes whenever the object's type or a base of it does (PEP 659's caches rely on it); 0: unknown. */
    static inline unsigned int weald_version(PyObject *object) { return Py_TYPE(object)->tp_version_tag; }
    """
    unsigned int version_of "weald_version"(PyObject *)
