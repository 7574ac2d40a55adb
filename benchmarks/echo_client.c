/* Load generator of the echo benchmark, started by echo.py:
 *
 *     echo_client PORT CONNECTIONS SECONDS SERVER_PID
 *
 * Opens CONNECTIONS to 127.0.0.1:PORT and keeps one 64-byte message in flight on each.  Once every connection has had
 * an answer, and after a warm-up of a quarter of SECONDS, it counts answers for SECONDS and prints: requests, wall
 * seconds, CPU seconds SERVER_PID spent meanwhile.  Every answer is compared with what was sent.  It reads the answers
 * outstanding before it closes, so the server sees orderly ends.  alarm(2) ends it whatever the server does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, MAX_CONNECTIONS = 20000, BATCH = 256, PATIENCE = 20 /* seconds */ };

struct connection { int fd; int got; char answer[SIZE]; };

static char message[SIZE];

static void die(const char *what)
{
    fprintf(stderr, "echo_client: %s: %s\n", what, errno ? strerror(errno) : "unexpected");
    exit(1);
}

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t)) die("clock_gettime");
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void send_message(struct connection *c)
{
    errno = 0;
    /* One message in flight: the socket's buffer is empty, so a short write means something is broken. */
    if (send(c->fd, message, SIZE, MSG_NOSIGNAL) != SIZE) die("send");
}

static void open_connection(struct connection *c, int port, int epoll)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
    int on = 1;
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) die("socket");
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
}

/* Count complete answers until `end` on the monotonic clock.  With `last`, send nothing more and stop at so many. */
static long run_until(int epoll, double end, long last)
{
    struct epoll_event events[BATCH];
    long answers = 0;
    while (seconds_of(CLOCK_MONOTONIC) < end && (!last || answers < last)) {
        int n = epoll_wait(epoll, events, BATCH, 100);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            struct connection *c = events[i].data.ptr;
            errno = 0;
            ssize_t got = recv(c->fd, c->answer + c->got, SIZE - c->got, MSG_DONTWAIT);
            if (got < 0 && errno == EAGAIN) continue;
            if (got <= 0) die("recv (0 bytes: the server closed the connection)");
            if ((c->got += got) < SIZE) continue;
            errno = 0;
            if (memcmp(c->answer, message, SIZE)) die("wrong answer");
            c->got = 0;
            answers++;
            if (!last) send_message(c);
        }
    }
    return answers;
}

int main(int argc, char **argv)
{
    if (argc != 5) { fprintf(stderr, "usage: echo_client PORT CONNECTIONS SECONDS SERVER_PID\n"); return 2; }
    int port = atoi(argv[1]), connections = atoi(argv[2]), server = atoi(argv[4]);
    double seconds = atof(argv[3]);
    if (connections < 1 || connections > MAX_CONNECTIONS || !(seconds > 0 && seconds <= 60)) die("arguments");
    alarm(60 + 2 * (unsigned)seconds);

    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) { files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
    clockid_t cpu;
    if ((errno = clock_getcpuclockid(server, &cpu))) die("clock_getcpuclockid");
    for (int i = 0; i < SIZE; i++) message[i] = 'a' + i % 26;

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct connection *all = calloc(connections, sizeof *all);
    if (epoll < 0 || !all) die("set-up");
    for (int i = 0; i < connections; i++) open_connection(&all[i], port, epoll);
    for (int i = 0; i < connections; i++) send_message(&all[i]);
    if (run_until(epoll, seconds_of(CLOCK_MONOTONIC) + PATIENCE, connections) < connections) {
        errno = ETIMEDOUT;
        die("not every connection was answered");
    }
    for (int i = 0; i < connections; i++) send_message(&all[i]);
    run_until(epoll, seconds_of(CLOCK_MONOTONIC) + seconds / 4, 0);

    double start = seconds_of(CLOCK_MONOTONIC), spent = seconds_of(cpu);
    long answers = run_until(epoll, start + seconds, 0);
    spent = seconds_of(cpu) - spent;
    double wall = seconds_of(CLOCK_MONOTONIC) - start;
    run_until(epoll, seconds_of(CLOCK_MONOTONIC) + PATIENCE, connections);
    printf("%ld %.9f %.9f\n", answers, wall, spent);
    return 0;
}
