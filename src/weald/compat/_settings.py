"""gevent's settings, and its environment variables for weald's.

Called by: _door.py, as weald is imported.
"""

from weald._base.config import (
    Setting,
    add_settings,
    add_variables,
    anything,
    as_bool,
    as_bytes,
    as_importable,
    as_seconds,
    loop_names,
)

__all__ = ["add"]

_SETTINGS = {
    "monitor_thread": Setting(False, as_bool, "WEALD_MONITOR_THREAD", "whether a native thread watches each hub"),
    "max_blocking_time": Setting(
        0.1,
        as_seconds,
        "WEALD_MAX_BLOCKING_TIME",
        "seconds that a greenlet may run without a switch before that thread reports it",
    ),
    "print_blocking_reports": Setting(
        True, as_bool, "WEALD_PRINT_BLOCKING_REPORTS", "whether that thread prints its reports"
    ),
    "memory_monitor_period": Setting(5, as_seconds, "WEALD_MONITOR_MEMORY_PERIOD", "seconds between looks at memory"),
    "max_memory_usage": Setting(None, as_bytes, "WEALD_MONITOR_MEMORY_MAX", "bytes above which that is reported"),
    "format_context": Setting(
        "pprint.saferepr",
        as_importable(),
        "WEALD_FORMAT_CONTEXT",
        "how the context of an uncaught exception is written",
    ),
    # Taken and kept, without effect here.
    "libev_backend": Setting(None, anything, "WEALD_LIBEV_BACKEND", "without effect: epoll is used"),
    "disable_watch_children": Setting(
        False, as_bool, "WEALD_NOWAITPID", "without effect: weald never takes a child's status"
    ),
    "trace_malloc": Setting(False, anything, "PYTHONTRACEMALLOC", "without effect"),
}

_VARIABLES = {
    "ares_flags": "GEVENTARES_FLAGS",
    "ares_ndots": "GEVENTARES_NDOTS",
    "ares_servers": "GEVENTARES_SERVERS",
    "ares_tcp_port": "GEVENTARES_TCP_PORT",
    "ares_timeout": "GEVENTARES_TIMEOUT",
    "ares_tries": "GEVENTARES_TRIES",
    "ares_udp_port": "GEVENTARES_UDP_PORT",
    "disable_watch_children": "GEVENT_NOWAITPID",
    "fileobject": "GEVENT_FILE",
    "format_context": "GEVENT_FORMAT_CONTEXT",
    "libev_backend": "GEVENT_BACKEND",
    "loop": "GEVENT_LOOP",
    "max_blocking_time": "GEVENT_MAX_BLOCKING_TIME",
    "max_memory_usage": "GEVENT_MONITOR_MEMORY_MAX",
    "memory_monitor_period": "GEVENT_MONITOR_MEMORY_PERIOD",
    "monitor_thread": "GEVENT_MONITOR_THREAD_ENABLE",
    "print_blocking_reports": "GEVENT_MONITOR_PRINT_BLOCKING_REPORTS",
    "resolver": "GEVENT_RESOLVER",
    "resolver_nameservers": "GEVENT_RESOLVER_NAMESERVERS",
    "resolver_timeout": "GEVENT_RESOLVER_TIMEOUT",
    "threadpool": "GEVENT_THREADPOOL",
    "threadpool_idle_task_timeout": "GEVENT_THREADPOOL_IDLE_TASK_TIMEOUT",
    "threadpool_size": "GEVENT_THREADPOOL_SIZE",
    "track_greenlet_tree": "GEVENT_TRACK_GREENLET_TREE",
}

_LOOPS = {"libev-cext": "libev", "libev-cffi": "libev", "libuv-cffi": "libuv"}


def add() -> None:
    """Add them to `weald.config`."""
    loop_names.update(_LOOPS)
    add_settings(_SETTINGS)
    add_variables(_VARIABLES)
