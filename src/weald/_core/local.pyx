"""local: an object with separate attributes for each greenlet.

Called by: weald.local, weald.asyncio, weald.thread, which puts it into `threading`.
Invariants:
- `by_id` maps id(greenlet) to (weak reference, dict, link).  A Greenlet's entry is removed when it ends, by the link; a
  plain greenlet's when it is freed.  So neither values nor a recycled id survive.
- Finalizers of values run in a greenlet, where they may wait.
- A local that is freed takes its links back.
- `last` caches the current greenlet's dict.
- `__init__` of a subclass runs once per greenlet, with the arguments that the object was made with.
"""

from cpython.dict cimport PyDict_GetItemWithError
from cpython.object cimport Py_TYPE, PyObject, PyObject_GenericGetAttr, PyTypeObject

from weald._core.c_greenlet cimport greenlet
from weald._core.hub cimport Hub, acting_greenlet, current_greenlet
from weald._core.raw cimport new_raw
from weald._core.threads cimport current_hub_or_none, is_exiting

import weakref

from weald._core import greenlet as _greenlet

cdef extern from "Python.h":
    int PyObject_GenericSetAttr(object, object, PyObject *) except -1  # NULL: delete
    PyObject *_PyType_Lookup(PyTypeObject *, object)  # borrowed; NULL without an exception if there is none

# Kept in C, because locals may still be freed when the interpreter has cleared its modules at exit.
cdef object ref = weakref.ref
cdef object Greenlet = _greenlet.Greenlet
cdef frozenset PLAIN = frozenset((type(None), bool, int, float, str, bytes))


cdef class Spaces:
    """The dicts of one local, by greenlet."""

    cdef object __weakref__
    cdef dict by_id
    cdef void *last  # the greenlet `last_dict` belongs to, borrowed; the weak reference guards it
    cdef dict last_dict
    cdef tuple args
    cdef dict kwargs

    cdef dict find(self, local owner):
        cdef greenlet current = current_greenlet()
        if <void *>current == self.last:
            return self.last_dict
        acting = acting_greenlet()
        if acting is not None:  # None at the interpreter's end, when greenlet cannot say which greenlet runs
            current = acting
        entry = self.by_id.get(id(current))
        if entry is None:
            return self.make(owner, current)
        self.last = <void *>current
        self.last_dict = entry[1]
        return self.last_dict

    cdef dict make(self, local owner, object current):
        cdef dict space = self.add(current)
        cls = type(owner)
        if cls.__init__ is not object.__init__:
            try:
                cls.__init__(owner, *self.args, **self.kwargs)
            except BaseException:
                drop(self, id(current))
                raise
        return space

    cdef dict add(self, object current):
        """A new, empty dict for greenlet `current`."""
        cdef dict space = {}
        key = id(current)
        spaces_ref = ref(self)

        def forget(_, key=key, spaces_ref=spaces_ref):
            drop(spaces_ref(), key)

        if isinstance(current, Greenlet):
            current.rawlink(forget)
        self.by_id[key] = (ref(current, forget), space, forget)
        self.last = <void *>current
        self.last_dict = space
        return space

    def __del__(self):
        for current_ref, _, forget in list(self.by_id.values()):  # greenlets end meanwhile
            current = current_ref()
            if isinstance(current, Greenlet):
                current.unlink(forget)


cdef int drop(Spaces spaces, object key) except -1:
    """Drop the values of a greenlet that has ended."""
    cdef Hub hub
    if spaces is None:
        return 0
    spaces.last = NULL
    spaces.last_dict = None
    entry = spaces.by_id.pop(key, None)
    if entry is None or is_exiting() or not may_finalize(entry[1]):
        return 0
    hub = current_hub_or_none()
    if hub is not None and current_greenlet() is hub:
        # Finalizers run in a greenlet: they may have to wait, which the hub must not.
        spaces_left = [entry]
        entry = None
        # Before the greenlet's other links are called and its joiners go on.
        hub.push_first(new_raw(hub, let_go, (spaces_left,)))
    return 0


cdef bint may_finalize(dict space) noexcept:
    """Whether code may run when the values of `space` are freed."""
    for value in space.values():
        if type(value) not in PLAIN:
            return True
    return False


cdef bint is_set_by_type(object owner, object name):
    """Whether the type has a data descriptor of that name (a property, a slot), which handles setting and deleting."""
    cdef PyObject *found = _PyType_Lookup(Py_TYPE(owner), name)
    return found != NULL and Py_TYPE(<object>found).tp_descr_set != NULL


def let_go(list entries):
    """Drop the values in `entries`, in the calling greenlet."""
    entries.clear()


cdef class local:
    """local(): an object with separate attributes for each greenlet; threading.local's contract.

    A subclass's `__init__` runs once in each greenlet that uses the object; `__slots__` are shared.
    """

    cdef Spaces spaces
    cdef object __weakref__

    def __cinit__(self, *args, **kwargs):
        if (args or kwargs) and type(self).__init__ is object.__init__:
            raise TypeError("Initialization arguments are not supported")
        self.spaces = Spaces.__new__(Spaces)
        self.spaces.by_id = {}
        self.spaces.args = args
        self.spaces.kwargs = kwargs
        # type.__call__ runs __init__ for this greenlet.
        self.spaces.add(current_greenlet())

    def __getattribute__(self, name):
        cdef dict space = self.spaces.find(self)
        cdef PyObject *value = PyDict_GetItemWithError(space, name)
        if value != NULL and not is_set_by_type(self, name):
            return <object>value
        if name == "__dict__":
            return space
        return PyObject_GenericGetAttr(self, name)

    def __setattr__(self, name, value):
        cdef dict space = self.spaces.find(self)
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        if is_set_by_type(self, name):
            PyObject_GenericSetAttr(self, name, <PyObject *>value)
        else:
            space[name] = value

    def __delattr__(self, name):
        cdef dict space = self.spaces.find(self)
        if name == "__dict__":
            raise AttributeError(f"{type(self).__name__!r} object attribute '__dict__' is read-only")
        if is_set_by_type(self, name):
            PyObject_GenericSetAttr(self, name, NULL)
            return
        try:
            del space[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None

    def _peek(self, greenlet owner):
        """The attributes that greenlet `owner` has here: a dict, or None if it has never used this.  For debuggers."""
        entry = self.spaces.by_id.get(id(owner))
        return None if entry is None else entry[1]

    def __dir__(self):
        return sorted({*dir(type(self)), *self.spaces.find(self)})

    def __copy__(self):
        cdef local twin = type(self)(*self.spaces.args, **self.spaces.kwargs)
        twin.spaces.find(twin).update(self.spaces.find(self))
        return twin
