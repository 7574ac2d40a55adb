# The ready ring: a queue of objects that grows, in an array.
#
# Used by: hub.pyx, forks.pyx, aio/core.pyx.  In a .pxd because each function is a few instructions on the hottest path,
# and Cython inlines into other modules only what is in a .pxd.
# Invariants: `mask + 1` is the array's size, a power of 2; the items, `count` of them, begin at `head` and are owned.
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cdef enum:
    FIRST_SIZE = 64  # items there is room for at first

cdef struct Ring:
    void **items
    Py_ssize_t head
    Py_ssize_t count
    Py_ssize_t mask

cdef inline int ring_init(Ring *ring) except -1:
    ring.items = <void **>calloc(FIRST_SIZE, sizeof(void *))
    if ring.items == NULL:
        raise MemoryError
    ring.mask = FIRST_SIZE - 1
    return 0

cdef inline int ring_free(Ring *ring) except -1:
    cdef Py_ssize_t i
    if ring.items != NULL:
        for i in range(ring.count):
            Py_DECREF(<object>ring.items[(ring.head + i) & ring.mask])
        free(ring.items)
    return 0

cdef inline int ring_grow(Ring *ring) except -1:
    cdef Py_ssize_t size = ring.mask + 1
    cdef Py_ssize_t to_end = size - ring.head
    cdef void **bigger = <void **>calloc(size * 2, sizeof(void *))
    if bigger == NULL:
        raise MemoryError
    memcpy(bigger, ring.items + ring.head, to_end * sizeof(void *))
    memcpy(bigger + to_end, ring.items, ring.head * sizeof(void *))
    free(ring.items)
    ring.items = bigger
    ring.head = 0
    ring.mask = size * 2 - 1
    return 0

cdef inline int ring_append(Ring *ring, object item) except -1:
    if ring.count > ring.mask:
        ring_grow(ring)
    Py_INCREF(item)
    ring.items[(ring.head + ring.count) & ring.mask] = <void *>item
    ring.count += 1
    return 0

cdef inline int ring_prepend(Ring *ring, object item) except -1:
    if ring.count > ring.mask:
        ring_grow(ring)
    Py_INCREF(item)
    ring.head = (ring.head - 1) & ring.mask
    ring.items[ring.head] = <void *>item
    ring.count += 1
    return 0

cdef inline object ring_pop(Ring *ring):
    """The first item, taken off."""
    cdef object item = <object>ring.items[ring.head]
    Py_DECREF(item)
    ring.head = (ring.head + 1) & ring.mask
    ring.count -= 1
    return item
