# libuv: the part that uv.pyx calls.
cdef extern from "uv.h" nogil:
    ctypedef struct uv__io_t:
        int fd
    ctypedef struct uv_loop_t:
        void *data
        uv__io_t async_io_watcher
    ctypedef struct uv_handle_t:
        void *data
        uv_loop_t *loop
    ctypedef struct uv_poll_t:
        void *data
    ctypedef struct uv_async_t:
        void *data
    ctypedef struct uv_timer_t:
        void *data

    ctypedef void (*uv_close_cb)(uv_handle_t *) noexcept nogil
    ctypedef void (*uv_poll_cb)(uv_poll_t *, int, int) noexcept nogil
    ctypedef void (*uv_async_cb)(uv_async_t *) noexcept nogil
    ctypedef void (*uv_timer_cb)(uv_timer_t *) noexcept nogil
    ctypedef void (*uv_walk_cb)(uv_handle_t *, void *) noexcept nogil

    ctypedef enum uv_run_mode:
        UV_RUN_DEFAULT
        UV_RUN_ONCE
        UV_RUN_NOWAIT

    enum:
        UV_READABLE
        UV_WRITABLE

    const char *uv_version_string()
    const char *uv_strerror(int)
    int uv_loop_init(uv_loop_t *)
    int uv_loop_close(uv_loop_t *)
    int uv_loop_fork(uv_loop_t *)
    int uv_run(uv_loop_t *, uv_run_mode)
    void uv_stop(uv_loop_t *)
    void uv_walk(uv_loop_t *, uv_walk_cb, void *)
    void uv_update_time(uv_loop_t *)
    int uv_backend_fd(const uv_loop_t *)
    void uv_close(uv_handle_t *, uv_close_cb)
    bint uv_is_closing(const uv_handle_t *)
    int uv_async_init(uv_loop_t *, uv_async_t *, uv_async_cb)
    int uv_async_send(uv_async_t *)
    int uv_timer_init(uv_loop_t *, uv_timer_t *)
    int uv_timer_start(uv_timer_t *, uv_timer_cb, unsigned long long, unsigned long long)
    int uv_timer_stop(uv_timer_t *)
    int uv_poll_init(uv_loop_t *, uv_poll_t *, int)
    int uv_poll_start(uv_poll_t *, int, uv_poll_cb)
    int uv_poll_stop(uv_poll_t *)
