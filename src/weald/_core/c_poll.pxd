# poll(2) of one descriptor, without waiting.

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <poll.h>  /* POLLRDHUP needs _GNU_SOURCE, which Python.h sets */
    #include <sys/select.h>

    /* Those of `events` that are there now, and POLLERR, POLLHUP or POLLNVAL; -1 if poll(2) fails: memory is short, or
     * the program has set RLIMIT_NOFILE to 0.  Signals interrupt it although it does not wait. */
    static inline int weald_events_now(int fd, short events)
    {
        struct pollfd asked = {fd, events, 0};
        int found;
        do {
            found = poll(&asked, 1, 0);
        } while (found < 0 && errno == EINTR);
        return found < 0 ? -1 : asked.revents;
    }

    /* Whether `fd` is readable (POLLIN) or writable (POLLOUT), by select(2), which does not look at that limit; -1 if
     * it fails.  Not inlined: the set would be part of the frame of callers that park. */
    static __attribute__((noinline, unused)) int weald_select_now(int fd, short event)
    {
        fd_set set;
        struct timeval none = {0, 0};
        int found;
        if (fd >= FD_SETSIZE)
            return -1;
        do {
            FD_ZERO(&set);
            FD_SET(fd, &set);
            found = select(fd + 1, event & POLLIN ? &set : NULL, event & POLLIN ? NULL : &set, NULL, &none);
        } while (found < 0 && errno == EINTR);
        return found < 0 && errno == EBADF ? POLLNVAL : found;
    }

    /* As `weald_events_now`, for POLLIN or POLLOUT, and if poll(2) fails. */
    static inline int weald_is_ready_now(int fd, short event)
    {
        int found = weald_events_now(fd, event);
        return found < 0 ? weald_select_now(fd, event) : found;
    }
    """
    int events_now "weald_events_now"(int fd, short events)
    int is_ready_now "weald_is_ready_now"(int fd, short event)
    enum:
        POLLHUP
        POLLRDHUP
