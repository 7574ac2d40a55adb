"""Memory for the Python frames of greenlets: a small first chunk each, and a cache of freed large ones.

Since CPython 3.11 a greenlet's first Python frame takes a 16 KiB "data stack chunk" from the
arena allocator: an mmap when it starts and a munmap when it ends, which costs more than all the
rest of a short greenlet's life.  `install()` puts a cache of such chunks in front of the arena
allocator (`PyObject_SetArenaAllocator`, a public API); every other size goes to the allocator
that was there before.

Most greenlets touch one page of such a chunk, but that page takes more memory than the rest of a parked greenlet.
`begin_stack()` gives a greenlet that has no chunk yet a first one of 1 KiB, enough for half a dozen frames.  When it is
full, the interpreter adds a 16 KiB chunk as it always does.

Called by: hub.pyx (`install` at import, `trim` before it blocks), greenlet.pyx and raw.pyx (`begin_stack`).
Invariants:
- A small chunk is freed together with the greenlet's other chunks: by the arena allocator, hence by `cached_free`,
  which tells it by its size.  No arena has that size.
- A cached chunk is linked through its own first word.
- A try-lock guards the list, because interpreters with a GIL of their own share the process's allocator.  Where the
  list is locked, the previous allocator is used.
- The cache holds at most MAX_CHUNKS and gives back the surplus of a burst (see `trim`).
"""

from libc.stdlib cimport free

cdef extern from "Python.h" nogil:
    ctypedef struct PyObjectArenaAllocator:
        void *ctx
        void *(*alloc)(void *, size_t) noexcept nogil
        void (*free)(void *, void *, size_t) noexcept nogil
    void PyObject_GetArenaAllocator(PyObjectArenaAllocator *)
    void PyObject_SetArenaAllocator(PyObjectArenaAllocator *)

cdef extern from * nogil:
    """
    static char weald_arena_lock;
    static int weald_arena_trylock(void)
    {
        return !__atomic_test_and_set(&weald_arena_lock, __ATOMIC_ACQUIRE);
    }
    static void weald_arena_unlock(void)
    {
        __atomic_clear(&weald_arena_lock, __ATOMIC_RELEASE);
    }
    """
    bint trylock "weald_arena_trylock"()
    void unlock "weald_arena_unlock"()

cdef extern from * nogil:
    """
    enum { WEALD_SMALL_CHUNK = 1024 };
    /* Begin the frame stack of the greenlet that runs with a small chunk, unless it has begun.  GIL held. */
    static void weald_begin_stack(void)
    {
        PyThreadState *t = PyThreadState_Get();
        _PyStackChunk *chunk;
        if (t->datastack_chunk != NULL)
            return;
        chunk = (_PyStackChunk *)malloc(WEALD_SMALL_CHUNK);
        if (chunk == NULL)
            return;  /* the interpreter will allocate a chunk of its own */
        chunk->previous = NULL;
        chunk->size = WEALD_SMALL_CHUNK;
        chunk->top = 0;
        t->datastack_chunk = chunk;
        /* As the interpreter does: a root chunk begins at 1, so that popping its first frame does not free it. */
        t->datastack_top = &chunk->data[1];
        t->datastack_limit = (PyObject **)((char *)chunk + WEALD_SMALL_CHUNK);
    }
    """
    void c_begin_stack "weald_begin_stack"()
    size_t SMALL_CHUNK "WEALD_SMALL_CHUNK"

cdef enum:
    CHUNK = 16 * 1024  # CPython's DATA_STACK_CHUNK_SIZE
    MAX_CHUNKS = 2048  # 32 MiB at most
    KEEP_CHUNKS = 64  # `trim` never goes below this

cdef PyObjectArenaAllocator previous
cdef void **free_list = NULL
cdef Py_ssize_t n_free = 0
cdef Py_ssize_t low_water = 0  # the fewest chunks free since the last trim: that many were not needed
cdef bint installed = False


cdef void *cached_alloc(void *ctx, size_t size) noexcept nogil:
    global free_list, n_free, low_water
    cdef void **chunk
    if size == CHUNK and free_list != NULL and trylock():
        chunk = free_list
        if chunk != NULL:
            free_list = <void **>chunk[0]
            n_free -= 1
            if n_free < low_water:
                low_water = n_free
            unlock()
            return chunk
        unlock()
    return previous.alloc(previous.ctx, size)


cdef void cached_free(void *ctx, void *ptr, size_t size) noexcept nogil:
    global free_list, n_free
    if size == CHUNK and n_free < MAX_CHUNKS and trylock():
        (<void **>ptr)[0] = free_list
        free_list = <void **>ptr
        n_free += 1
        unlock()
        return
    if size == SMALL_CHUNK:
        free(ptr)
        return
    previous.free(previous.ctx, ptr, size)


cdef void begin_stack() noexcept:
    """Begin the running greenlet's frame stack with a small chunk, unless it has begun."""
    if installed:
        c_begin_stack()


cdef bint trim() noexcept nogil:
    """Give back the chunks that were not used since the last call; True while more than KEEP_CHUNKS are left."""
    global free_list, n_free, low_water
    cdef Py_ssize_t surplus
    cdef void **chunk
    cdef void **taken = NULL
    if n_free <= KEEP_CHUNKS:
        return False
    if not trylock():
        return True
    surplus = min(low_water, n_free - KEEP_CHUNKS)
    while surplus > 0:
        chunk = free_list
        free_list = <void **>chunk[0]
        chunk[0] = taken
        taken = chunk
        n_free -= 1
        surplus -= 1
    low_water = n_free
    unlock()
    while taken != NULL:
        chunk = <void **>taken[0]
        previous.free(previous.ctx, taken, CHUNK)
        taken = chunk
    return n_free > KEEP_CHUNKS


def install():
    """Put the cache in front of the arena allocator.  Once per process; later calls do nothing."""
    global installed
    cdef PyObjectArenaAllocator ours
    if installed:
        return
    installed = True
    PyObject_GetArenaAllocator(&previous)
    ours.ctx = NULL
    ours.alloc = cached_alloc
    ours.free = cached_free
    PyObject_SetArenaAllocator(&ours)


def cached_chunks():
    """How many 16 KiB chunks lie in the cache now."""
    return n_free
