"""Names that gevent has in a module where weald has none: where weald keeps them, or what to use instead.

Called by: _door.py, when a program uses a name that a module of weald does not have.
"""

import sys
from contextlib import suppress
from importlib import import_module
from typing import Any

__all__ = ["find", "module_advice"]

# Module, then name: "module:name" in weald.
HOMES: dict[str, dict[str, str]] = {
    "_hub_primitives": {"Waiter": "compat._waiter:Waiter", "getcurrent": "_core:getcurrent"},
    "_imap": {"Greenlet": "_core:Greenlet", "Semaphore": "_core:Semaphore", "UnboundQueue": "queue:SimpleQueue"},
    "_semaphore": {"get_hub": "_core:get_hub"},
    "_socket3": {
        "SocketMixin": "socket:socket",
        "Timeout": "_core:Timeout",
        "cancel_wait_ex": "compat._socketcommon:cancel_wait_ex",
        "get_hub": "_core:get_hub",
        "wait": "compat._socketcommon:wait",
    },
    "baseserver": {
        "Event": "_core:Event",
        "Greenlet": "_core:Greenlet",
        "_parse_address": "server:parse_address",
        "_tcp_listener": "compat._sockets:tcp_listener",
        "get_hub": "_core:get_hub",
    },
    "builtins": {"RLock": "lock:RLock"},
    "core": {"config": "_base.config:config", "getswitchinterval": "compat._top_level:getswitchinterval"},
    "event": {"AbstractLinkable": "_core:Linkable"},
    "greenlet": {
        "FailureSpawnedLink": "_core.greenlet:_FailureLink",
        "SpawnedLink": "_core.greenlet:_SpawnedLink",
        "SuccessSpawnedLink": "_core.greenlet:_SuccessLink",
        "Waiter": "compat._waiter:Waiter",
        "get_hub": "_core:get_hub",
        "get_hub_noargs": "_core:get_hub",
        "config": "_base.config:config",
    },
    "hub": {"RawGreenlet": "_core.hub:greenlet", "get_loop": "compat._hub_local:get_loop"},
    "exceptions": {"GreenletExit": "_core:GreenletExit", "HubDestroyed": "compat.hub:HubDestroyed"},
    "local": {},
    "monkey": {"main": "monkey.__main__:main"},
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
        "_NoopLog": "http.logs:NoopLog",
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
    "threading": {
        "LazyOnClass": "compat._util:LazyOnClass",
        "main_native_thread": "compat._top_level:main_native_thread",
        "start_joinable_thread": "thread:start_joinable_thread",
    },
    "threadpool": {"ThreadResult": "compat._threadresult:ThreadResult", "get_hub": "_core:get_hub"},
    "time": {},
    "timeout": {"get_hub": "_core:get_hub"},
}

# Names that gevent has and weald lacks: what to use instead.
INSTEAD: dict[str, str] = {
    "_hub_local.set_loop": "hub.loop; a hub makes its own",
    "_hub_primitives.wait_on_watcher": "weald.get_hub().wait(watcher)",
    "_socketcommon._resolve_addr": "sock.connect(address), which resolves",
    "core.read_event": "weald.get_hub().loop.io(fd, 1), as gevent's users do since its release 1.0",
    "core.write_event": "weald.get_hub().loop.io(fd, 2), as gevent's users do since its release 1.0",
    "hub.linkproxy": "functools.partial",
    "hub.set_loop": "hub.loop; a hub makes its own",
    "resolver.AbstractResolver": "a class with the methods of weald.resolver.Resolver",
    "server._closing_socket": "sock.close()",
    "signal._child_handler": "weald.os.waitpid and its kin, which need no handler of SIGCHLD",
    "subprocess.fork_and_watch": "weald.os.fork_and_watch",
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


# Modules that gevent has and weald does not.
MODULES: dict[str, str] = {
    "_abstract_linkable": "weald.event",
    "_ffi": "weald.get_hub().loop",
    "_fileobjectcommon": "weald.fileobject",
    "_fileobjectposix": "weald.fileobject",
    "_greenlet_primitives": "weald.greenlet and weald.hub",
    "_patcher": "weald.monkey; nothing has to be imported in a patched copy",
    "_tblib": "traceback.TracebackException",
    "ares": "weald.resolver.ares",
    "corecext": "weald.get_hub().loop",
    "corecffi": "weald.get_hub().loop",
    "libev": "weald.get_hub().loop, on libev if WEALD_LOOP=libev",
    "libuv": "weald.get_hub().loop",
    "testing": "weald's virtual clock, WEALD_LOOP=virtual",
    "tests": "weald's virtual clock, WEALD_LOOP=virtual",
}


def find(module: str, name: str) -> Any:
    """Return the object that gevent has as `name` in its module of the same name as `module` ("weald.x").

    Raises AttributeError, with a hint where there is one.
    """
    room = module.removeprefix("weald.")
    if room == "testing":
        return _find_in_testing(name)
    home = HOMES.get(room, {}).get(name)
    if home is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}{advice(room, name)}")
    where, _, what = home.partition(":")
    return getattr(import_module(f"weald.{where}"), what)


def _find_in_testing(name: str) -> Any:
    """gevent.testing has helpers for gevent's own tests: weald has none of them, but a program may bring them."""
    found = sys.modules.get("gevent.testing")
    if found is None and "gevent" in sys.modules:
        with suppress(ImportError):
            found = import_module("gevent.testing")
    if found is None or found is sys.modules.get("weald.testing") or not hasattr(found, name):
        raise AttributeError(f"module 'weald.testing' has no attribute {name!r}{advice('testing', name)}")
    return getattr(found, name)


def module_advice(name: str) -> str:
    """Return a hint for programs that import gevent's module `name` ("gevent.x.y")."""
    parts = name.split(".")[1:]
    known = MODULES.get(parts[0]) if parts else None
    if known is None and parts[0].startswith("_gevent_c"):
        known = "the module that its name is made of: weald's compiled part is private"
    return f"; use {known}" if known else "; docs/migrating.md lists what weald has of gevent"


def advice(room: str, name: str) -> str:
    """A hint for an error message, or nothing."""
    instead = INSTEAD.get(f"{room}.{name}")
    return f"; use {instead}" if instead else "; docs/migrating.md lists what weald has of gevent"
