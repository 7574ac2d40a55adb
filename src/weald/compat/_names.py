"""Names that gevent has in a module where weald has none: where weald keeps them, or what to use instead."""

# Room, then name: "room:name" in weald.
HOMES: dict[str, dict[str, str]] = {
    "baseserver": {"_parse_address": "server:parse_address", "_tcp_listener": "compat._sockets:tcp_listener"},
    "event": {"AbstractLinkable": "_core:Linkable"},
    "greenlet": {
        "FailureSpawnedLink": "_core.greenlet:_FailureLink",
        "SpawnedLink": "_core.greenlet:_SpawnedLink",
        "SuccessSpawnedLink": "_core.greenlet:_SuccessLink",
        "Waiter": "compat._waiter:Waiter",
        "get_hub": "_core:get_hub",
        "config": "_config:config",
    },
    "local": {},
    "lock": {},
    "os": {
        "fork_and_watch": "compat._fork:fork_and_watch",
        "fork_gevent": "compat._fork:fork_gevent",
        "forkpty_and_watch": "compat._fork:forkpty_and_watch",
        "forkpty_gevent": "compat._fork:forkpty_gevent",
    },
    "pool": {"pass_value": "compat._pool:pass_value"},
    "pywsgi": {
        "Input": "compat._pywsgi:Input",
        "MAX_REQUEST_LINE": "compat._pywsgi:MAX_REQUEST_LINE",
        "OldMessage": "http.environ:Headers",
        "_InvalidClientInput": "http.body:InvalidClientInput",
        "_InvalidClientRequest": "compat._pywsgi:InvalidClientRequest",
        "_NoopLog": "http.environ:NoopLog",
        "format_date_time": "compat._pywsgi:format_date_time",
    },
    "queue": {"UnboundQueue": "queue:SimpleQueue", "Waiter": "compat._waiter:Waiter"},
    "selectors": {"GeventSelector": "compat._selectors:GeventSelector"},
    "server": {
        "_parse_address": "server:parse_address",
        "_tcp_listener": "compat._sockets:tcp_listener",
        "_udp_socket": "compat._sockets:udp_socket",
    },
    "socket": {
        "SocketMixin": "socket:socket",
        "Timeout": "_core:Timeout",
        "cancel_wait_ex": "compat._socketcommon:cancel_wait_ex",
        "get_hub": "_core:get_hub",
        "timeout_default": "compat._socketcommon:timeout_default",
        "wait": "compat._socketcommon:wait",
    },
    "ssl": {"get_hub": "_core:get_hub"},
    "subprocess": {"FileObject": "fileobject:FileObjectPosix", "get_hub": "_core:get_hub"},
    "thread": {"LoopExit": "_core:LoopExit"},
    "threading": {},
    "threadpool": {"ThreadResult": "compat._threadresult:ThreadResult", "get_hub": "_core:get_hub"},
    "time": {},
    "timeout": {"get_hub": "_core:get_hub"},
}

# What gevent has and weald does not: what to use instead.
INSTEAD: dict[str, str] = {
    "fileobject.FileObjectClosed": "ValueError, which is raised for closed files as by the standard library's",
    "greenlet.get_my_hub": "weald.get_hub()",
    "lock.atomic": "a with statement over weald.lock.Semaphore: it is atomic",
    "queue.ItemWaiter": "weald.event.AsyncResult",
    "select.PollResult": "weald.select.poll",
    "select.SelectResult": "weald.select.select",
    "socket._closedsocket": "sock.fileno() == -1",
    "threadpool._WorkerGreenlet": "weald.threadpool.ThreadPool",
    "timeout._FakeTimer": "weald.Timeout(None), which never expires",
}


def advice(room: str, name: str) -> str:
    """A hint for an error message, or nothing."""
    instead = INSTEAD.get(f"{room}.{name}")
    return f"; use {instead}" if instead else "; docs/migrating.md lists what weald has of gevent"
