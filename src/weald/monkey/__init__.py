"""Monkey patching: make the standard library, and what is built on it, cooperative.

Called by: users; weald.monkey.__main__ (`python -m weald.monkey` patches first); weald.serve, weald.integrations,
weald.compat.

Programs may patch at any time: names and objects that already hold an original (`from time import sleep`, a lock in a
module) are found and replaced.  The originals and the listeners are in _base/originals.py, so that every module may ask
for originals.

Invariants:
- `saved[module][name]` is the original of each name that was replaced.  It is saved once and stays.
- No class is half patched: the original `socket.socket` makes weald's, and every SSLContext, also one made before,
  wraps sockets with weald's SSLSocket.
- In other modules' globals only the originals themselves are replaced; weald's own modules are left alone.
- Each of the `listeners` is called before and after; they are independent of each other.
"""

import gc
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from weald import _core
from weald._base import imports as _imports
from weald._base import originals
from weald._base.names import more_names
from weald._base.originals import (
    Listener,
    MonkeyPatchWarning,
    get_original,
    is_anything_patched,
    is_module_patched,
    is_object_patched,
    listeners,
    saved,
    warn,
)
from weald.monkey import _drivers, _earlier, _locks, _names, _registries

__all__ = [
    "Listener",
    "MonkeyPatchWarning",
    "get_original",
    "is_anything_patched",
    "is_module_patched",
    "is_object_patched",
    "listeners",
    "patch_all",
    "patch_asyncio",
    "patch_builtins",
    "patch_contextvars",
    "patch_dns",
    "patch_item",
    "patch_module",
    "patch_os",
    "patch_queue",
    "patch_select",
    "patch_selectors",
    "patch_signal",
    "patch_socket",
    "patch_ssl",
    "patch_subprocess",
    "patch_sys",
    "patch_thread",
    "patch_time",
    "remove_item",
    "saved",
]

_MISSING = object()
_mended: list[tuple[str, Any]] = []  # replaced outside of modules' globals: the place, and the original
_to_mend: list[tuple[Any, Any]] | None = None  # gathered while patch_all runs: one search instead of many


def patch_item(module: ModuleType, attr: str, newitem: object) -> None:
    """Set `module.attr` to `newitem`, and keep the original."""
    old = getattr(module, attr, _MISSING)
    if old is newitem:
        return
    if old is not _MISSING:
        saved.setdefault(module.__name__, {}).setdefault(attr, old)
    setattr(module, attr, newitem)


def remove_item(module: ModuleType, attr: str) -> None:
    """Delete `module.attr`, if it exists, and keep the original."""
    if hasattr(module, attr):
        saved.setdefault(module.__name__, {}).setdefault(attr, getattr(module, attr))
        delattr(module, attr)


def patch_module(target_module: ModuleType, source_module: Any, items: Iterable[str] | None = None) -> bool:
    """Replace `items` of `target_module` with those of `source_module`; False if a listener forbids it.

    Without `items`, `source_module.__implements__` names them; raises AttributeError if it has no such list.
    Modules that imported an original by name get the new one too.
    """
    if items is None:
        items = getattr(source_module, "__implements__", None)
        if items is None:
            raise AttributeError(f"{source_module!r} has no list __implements__ of the names to replace")
    names = list(items)
    if not all([listener.will_patch_module(source_module, target_module, names) for listener in listeners]):
        return False
    replaced = []
    for attr in names:
        old = getattr(target_module, attr, _MISSING)
        new = getattr(source_module, attr)
        if old is not new:
            patch_item(target_module, attr, new)
            replaced.append((old, new))
    _mend(replaced)
    for listener in listeners:
        listener.did_patch_module(source_module, target_module)
    return True


def _begin() -> None:
    """Call the functions that must run before the replacements are looked up."""
    for prepare in originals.before_patching:
        prepare()


def _patch_module(name: str, items: Iterable[str] | None = None) -> bool:
    """Put weald's versions of `items` (all it implements, if None) into the stdlib's module `name`.

    Names that this Python's module lacks are left out.
    """
    _begin()
    source = import_module(f"weald.{name.lstrip('_')}")
    target = import_module(name)
    names = source.__implements__ if items is None else items
    names = [attr for attr in names if hasattr(target, attr)]

    def again(module: ModuleType) -> None:
        if module is not target or getattr(module, names[0]) is not getattr(source, names[0]):
            for attr in names:
                setattr(module, attr, getattr(source, attr))

    if not patch_module(target, source, names):
        return False
    if names:
        _imports.whenever_imported(name, again)
    return True


def _mend(replaced: list[tuple[Any, Any]]) -> None:
    """Replace originals that other modules, classes and functions hold."""
    _names.mend_modules([*replaced, *_names.methods(replaced)], patch_item)
    if _to_mend is None:
        _mend_others(replaced)
    else:
        _to_mend.extend(replaced)


def _mend_others(replaced: list[tuple[Any, Any]]) -> None:
    _mended.extend(_names.mend_classes_and_defaults(replaced))
    _mended.extend(_registries.mend(replaced))


# ------------------------------------------------------------------ module by module


def patch_time() -> None:
    """time.sleep."""
    _patch_module("time")


def patch_os() -> None:
    """os.read, os.write, os.popen, os.wait and their relatives, and fcntl.flock and lockf.

    os.fork is not replaced: a child's hub starts afresh by itself.
    """
    _patch_module("os")
    _patch_module("fcntl")


def patch_queue() -> None:
    """queue.SimpleQueue, which is written in C and would block the loop.

    queue.Queue and its relatives stay: written in Python over `threading`, they become cooperative with it and keep
    their whole protocol for subclasses (`mutex`, `not_empty`, …).  A copy of the module imported afresh also needs the
    exceptions that SimpleQueue raises.
    """
    _patch_module("queue", ["SimpleQueue", "Empty", "Full"])
    _locks.replace_queues()


def patch_select(aggressive: bool = True) -> None:
    """select and selectors.  `aggressive` is taken for compatibility: nothing is removed here."""
    import_module("selectors")  # first: as it is imported it tries its functions, which must be the originals
    _patch_module("select")
    _locks.replace_epolls()
    patch_selectors(aggressive)
    _drivers.mend()


def patch_selectors(aggressive: bool = True) -> None:
    """selectors.  `aggressive` is taken for compatibility: nothing is removed here."""
    if _patch_module("selectors"):
        _earlier.mend_selectors()


def patch_signal() -> None:
    """signal.signal: handlers run in a greenlet and may block.

    The handler of Ctrl-C is replaced, too, if it is still Python's own: KeyboardInterrupt then reaches the main
    greenlet, not the greenlet that happens to run.
    """
    import signal as stdlib

    if not _patch_module("signal"):
        return
    _core.prepare_hub()  # for handlers that are there already
    if stdlib.getsignal(stdlib.SIGINT) is stdlib.default_int_handler and _in_main_thread():
        stdlib.signal(stdlib.SIGINT, stdlib.default_int_handler)


def _in_main_thread() -> bool:
    return get_original("_thread", "get_ident")() == threading.main_thread().ident  # type: ignore[no-any-return]


def patch_socket(dns: bool = True, aggressive: bool = True) -> None:
    """socket; with `dns` also its look-ups."""
    import socket as stdlib

    from weald import socket as ours

    original = get_original("socket", "socket")
    names = [name for name in ours.__implements__ if dns or name not in ours.__dns__]
    if not _patch_module("socket", names):
        return
    if "SocketType" in vars(stdlib) and stdlib.SocketType is original:
        patch_item(stdlib, "SocketType", ours.socket)

    def produce(cls: type, *args: object, **kwargs: object) -> Any:
        return super(original, cls).__new__(ours.socket if cls is original else cls)

    original.__new__ = produce
    _earlier.mend_sockets()
    with suppress(ImportError):  # a Python built without multiprocessing
        from weald.multiprocessing import connections_wait

        _imports.whenever_imported("multiprocessing.connection", connections_wait)


def patch_dns() -> None:
    """The look-ups of socket only."""
    from weald import socket as ours

    _patch_module("socket", ours.__dns__)


def patch_ssl(_warn_imports: bool = True) -> None:
    """ssl: every SSLContext makes cooperative sockets, those that exist already included."""
    import ssl as stdlib

    from weald import ssl as ours

    if not _patch_module("ssl", ["SSLSocket", "get_server_certificate"]):
        return
    stdlib.SSLContext.sslsocket_class = ours.SSLSocket
    _earlier.mend_ssl()


def patch_thread(
    threading: bool = True,
    _threading_local: bool = True,
    Event: bool = True,
    logging: bool = True,
    existing_locks: bool = True,
) -> None:
    """_thread and threading: threads are greenlets, locks are weald's; multiprocessing's let others run.

    So do calls of other interpreters (`concurrent.interpreters`).

    With `existing_locks`, locks made earlier are replaced, too, those of `logging` among them: `logging` is
    taken for compatibility.
    """
    import threading as stdlib

    from weald import thread as ours

    if is_module_patched("_thread"):
        return
    ours._known_native_idents.update(stdlib._active)  # type: ignore[attr-defined]
    if not _patch_module("_thread"):
        return
    _core.name_rlock_as_patched()
    # Modules that keep by ident what they are in the middle of: an import, an object's repr.
    patch_item(import_module("importlib._bootstrap"), "_thread", ours.for_imports)
    _imports.whenever_imported("reprlib", lambda module: patch_item(module, "get_ident", ours.get_owner_ident))
    if sys.version_info < (3, 13):
        _imports.whenever_imported("dataclasses", lambda module: patch_item(module, "_thread", ours.for_imports))
    if not threading:
        return
    from weald import threading as ours_threading

    skip = set() if Event else {"Event"}
    if not _patch_module("threading", [name for name in ours_threading.__implements__ if name not in skip]):
        return
    ours_threading.adopt_threads()
    patch_item(sys, "_current_frames", ours._current_frames)
    if _threading_local:
        patch_item(import_module("_threading_local"), "local", _core.local)
    with suppress(ImportError):  # a Python built without it
        _patch_module("_multiprocessing")
    with suppress(ImportError):  # Python before 3.13
        _patch_module("_interpreters")
    if existing_locks:
        _locks.replace_locks()
        if _threading_local:
            _earlier.mend_locals()
        _imports.whenever_imported("multiprocessing.synchronize", _earlier.mend_process_locks)
    _mend_executors()
    _imports.whenever_imported("asyncio", _separate_loops)


def _mend_executors() -> None:
    """Repair ThreadPoolExecutors made before: each has a native queue, on which a greenlet would block the loop.

    An executor with native threads keeps these and starts no more; one without threads gets weald's queue.
    """
    from weald.threadpool import ThreadPoolExecutor as ours

    stdlib = sys.modules.get("concurrent.futures.thread")
    if stdlib is None:
        return
    for executor in gc.get_objects():
        if isinstance(executor, stdlib.ThreadPoolExecutor) and not isinstance(executor, ours):
            if executor._threads:
                executor._max_workers = len(executor._threads)
            elif executor._work_queue.empty():
                executor._work_queue = _core.SimpleQueue()


def _separate_loops(asyncio: Any) -> None:
    """Give each greenlet that stands for a thread its own running loop and current task."""
    from weald import asyncio as ours

    patch_module(asyncio.events, ours)
    patch_module(asyncio.tasks, ours, ["current_task"])


def patch_asyncio() -> None:
    """asyncio.run, asyncio.Runner, asyncio.new_event_loop and asyncio.EventLoop: loops are weald's.

    A policy that the program sets (`uvloop.install()`) and a `loop_factory` take precedence; asyncio.SelectorEventLoop
    stays asyncio's own.
    """
    # Importing weald.aio imports asyncio, so asyncio gets its loop when both have been imported, whichever comes first.
    _imports.whenever_imported("asyncio", lambda _: import_module("weald.aio"))
    _imports.whenever_imported("weald.aio", _use_loop)


def _use_loop(aio: Any) -> None:
    asyncio = sys.modules["asyncio"]
    # asyncio keeps the default in the class of its policy, on Pythons without public policies, too.
    asyncio.unix_events._UnixDefaultEventLoopPolicy._loop_factory = aio.EventLoop
    for module in (asyncio, asyncio.unix_events):
        if hasattr(module, "EventLoop"):  # from Python 3.13 on
            patch_item(module, "EventLoop", aio.EventLoop)


def patch_subprocess() -> None:
    """subprocess.Popen, and with it all of subprocess and os.popen.

    Classes that were derived from the original before get weald's as their base instead.
    """
    import subprocess as stdlib

    original = get_original("subprocess", "Popen")
    _patch_module("subprocess", ["Popen"])
    _earlier.mend_children()
    for derived in original.__subclasses__():
        if derived is not stdlib.Popen:
            derived.__bases__ = tuple(stdlib.Popen if base is original else base for base in derived.__bases__)


def patch_sys(stdin: bool = True, stdout: bool = True, stderr: bool = True) -> None:
    """Taken for compatibility: the standard streams stay as they are."""


def patch_builtins() -> None:
    """builtins.input."""
    _patch_module("builtins")


def patch_contextvars() -> None:
    """Does nothing: greenlets have contexts of their own."""


def patch_all(
    socket: bool = True,
    dns: bool = True,
    time: bool = True,
    select: bool = True,
    thread: bool = True,
    os: bool = True,
    ssl: bool = True,
    subprocess: bool = True,
    sys: bool = False,
    aggressive: bool = True,
    Event: bool = True,
    builtins: bool = True,
    signal: bool = True,
    queue: bool = True,
    contextvars: bool = True,
    asyncio: bool = True,
    **kwargs: Any,
) -> bool:
    """Patch all of the standard library that blocks; each argument switches one part.

    Further arguments are for `listeners`.  False if one of them forbids it.
    """
    arguments = {name: value for name, value in locals().items() if name != "kwargs"}
    before = saved.get(originals.arguments_key)
    if before and before != arguments:
        warn("patch_all was called more than once, with other arguments: all that was true in either call is patched")
    if before and not any(value and not before[name] for name, value in arguments.items()):
        return True
    _begin()
    if not all([listener.will_patch_all(arguments, kwargs) for listener in listeners]):
        return False
    saved[originals.arguments_key] = {name: value or bool(before and before[name]) for name, value in arguments.items()}
    global _to_mend
    _to_mend = []
    try:
        for wanted, patch in (
            (os, patch_os),
            (time, patch_time),
            (thread, partial(patch_thread, Event=Event)),
            (sys, patch_sys),
            (socket, partial(patch_socket, dns=dns, aggressive=aggressive)),
            (dns and not socket, patch_dns),
            (select, partial(patch_select, aggressive=aggressive)),
            (ssl, patch_ssl),
            (subprocess, patch_subprocess),
            (signal, patch_signal),
            (queue, patch_queue),
            (builtins, patch_builtins),
            (contextvars, patch_contextvars),
            (asyncio, patch_asyncio),
        ):
            if wanted:
                patch()
    finally:
        gathered, _to_mend = _to_mend, None
        _mend_others(gathered)
    for listener in listeners:
        listener.did_patch_all(arguments, kwargs)
    return True


if not TYPE_CHECKING:
    __getattr__ = more_names(__name__)
