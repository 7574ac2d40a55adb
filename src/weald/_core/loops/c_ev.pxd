# libev: the part that ev.pyx calls.
cdef extern from "ev.h" nogil:
    struct ev_loop:
        pass

    ctypedef struct ev_io:
        void *data
    ctypedef struct ev_timer:
        void *data
        double repeat
    ctypedef struct ev_async:
        void *data

    ctypedef void (*io_cb)(ev_loop *, ev_io *, int) noexcept nogil
    ctypedef void (*timer_cb)(ev_loop *, ev_timer *, int) noexcept nogil
    ctypedef void (*async_cb)(ev_loop *, ev_async *, int) noexcept nogil

    enum:
        EV_READ
        EV_WRITE
        EV_ERROR
        EVRUN_ONCE
        EVRUN_NOWAIT
        EVBACKEND_EPOLL
        EVFLAG_NOENV

    int ev_version_major()
    int ev_version_minor()
    ev_loop *ev_loop_new(unsigned int)
    void ev_loop_destroy(ev_loop *)
    void ev_loop_fork(ev_loop *)
    int ev_run(ev_loop *, int)
    void ev_set_userdata(ev_loop *, void *)
    void *ev_userdata(ev_loop *)
    void ev_now_update(ev_loop *)
    void ev_io_init(ev_io *, io_cb, int, int)
    void ev_io_set(ev_io *, int, int)
    void ev_io_start(ev_loop *, ev_io *)
    void ev_io_stop(ev_loop *, ev_io *)
    void ev_init_timer "ev_init"(ev_timer *, timer_cb)
    void ev_timer_again(ev_loop *, ev_timer *)
    void ev_timer_stop(ev_loop *, ev_timer *)
    void ev_async_init(ev_async *, async_cb)
    void ev_async_start(ev_loop *, ev_async *)
    void ev_async_send(ev_loop *, ev_async *)
    void ev_async_stop(ev_loop *, ev_async *)
