# poll(2) of one descriptor, without waiting.

cdef extern from * nogil:
    """
    #include <errno.h>
    #include <poll.h>  /* POLLRDHUP needs _GNU_SOURCE, which Python.h sets */

    /* Those of `events` that are there now, and POLLERR, POLLHUP or POLLNVAL; -1 if poll(2) fails.  Signals interrupt
     * it although it does not wait. */
    static inline int weald_events_now(int fd, short events)
    {
        struct pollfd asked = {fd, events, 0};
        int found;
        do {
            found = poll(&asked, 1, 0);
        } while (found < 0 && errno == EINTR);
        return found < 0 ? -1 : asked.revents;
    }
    """
    int events_now "weald_events_now"(int fd, short events)
    enum:
        POLLHUP
        POLLRDHUP
