"""The undocumented parts of CPython that weald relies on, and the versions on which they were checked.

Called by: weald/__init__.py, before anything compiled is loaded.  Importing this raises ImportError on an interpreter
that weald does not know: a newer one may have other structures in memory, and weald would crash.
To admit a new version: go through INTERNALS with its source, run all tests there, then raise NEWEST.
Invariants: a name of Python's in INTERNALS exists in the versions its row gives (tests/test_cpython.py).
"""

import sys
from typing import NamedTuple

__all__ = ["INTERNALS", "NEWEST", "OLDEST", "Internal"]

OLDEST = (3, 11)
NEWEST = (3, 15)


class Internal(NamedTuple):
    """One thing that CPython does not promise.  `first` and `last` are the versions in which weald uses it."""

    name: str  # a Python name with its module before a colon, or a description in words
    used_by: str  # file below src/weald
    why: str
    first: tuple[int, int] = OLDEST
    last: tuple[int, int] = NEWEST


INTERNALS = (
    # In C.
    Internal(
        "PyThreadState.datastack_chunk, _top, _limit; struct _PyStackChunk",
        "_core/arena.pyx",
        "a greenlet's first frames lie in a chunk of 1 KiB instead of 16 KiB",
    ),
    Internal("DATA_STACK_CHUNK_SIZE is 16 KiB", "_core/arena.pyx", "which allocations the arena cache keeps"),
    Internal("PyObject_SetArenaAllocator serves frame stacks", "_core/arena.pyx", "the cache sits behind it"),
    Internal(
        "PyThreadState.async_gen_firstiter, async_gen_finalizer, coroutine_origin_tracking_depth",
        "_core/running_loop.pyx",
        "each greenlet that runs an asyncio loop has its own",
    ),
    Internal("PyMemberDescrObject.d_member->offset", "_core/c_python.pxd", "slots are read at their places"),
    Internal("_PyType_Lookup", "_core/local.pyx", "a local looks up what its class says of an attribute"),
    Internal("PyTypeObject.tp_version_tag", "_core/c_python.pxd", "changes whenever a class or a base of it does"),
    Internal("_Py_IsFinalizing", "_base/builtin.pyx", "Py_IsFinalizing of later versions", last=(3, 12)),
    Internal(
        "the names of a module become None at the end, __name__ among them",
        "_base/builtin.pyx",
        "a finalizer then gets the original function",
    ),
    # In Python.
    Internal("threading:_active", "threading.py", "greenlets are threads to `threading`"),
    Internal("threading:_active", "_base/workers.py", "an executor's threads leave it, and their names, as they end"),
    Internal("threading:_dangling", "threading.py", "threads that began before patching can be joined"),
    Internal("threading:_DummyThread", "threading.py", "the thread object of a greenlet that is not a thread"),
    Internal("threading:_MainThread", "threading.py", "a forked child's main thread"),
    Internal("threading:_newname", "threading.py", "names of greenlets' stand-ins"),
    Internal("threading:_register_atexit", "signal.py", "the program ends after the handlers of signals"),
    Internal("threading:_shutdown_locks", "threading.py", "threads that are joined at exit", last=(3, 12)),
    Internal("threading:_shutdown", "monkey/__init__.py", "threads end before the interpreter does"),
    Internal("threading:_set_name", "threading.py", "greenlets do not name the process", first=(3, 14)),
    Internal("a thread's attributes _started and, to 3.12, _tstate_lock", "threading.py", "which threads have begun"),
    Internal("threading:Thread._reset_internal_locks", "threading.py", "a forked child's threads", last=(3, 12)),
    Internal("threading:Thread._after_fork", "threading.py", "a forked child's threads", first=(3, 13)),
    Internal("importlib._bootstrap:_thread", "monkey/__init__.py", "modules' locks are weald's, and go by greenlet"),
    Internal("_thread:_ThreadHandle", "thread.py", "greenlets are started and joined as threads", first=(3, 13)),
    Internal(
        "asyncio.unix_events:_UnixSelectorEventLoop",
        "aio/loop.py",
        "whose methods call _add_reader, _add_writer, call_soon and what else aio/core.pyx replaces",
    ),
    Internal(
        "asyncio.selector_events:_SelectorSocketTransport",
        "aio/transport.pyx",
        "which sets its attributes; _read_ready__on_eof and _fatal_error are called by aio/stream.pyx",
    ),
    Internal("asyncio.base_events:Server._attach", "aio/transport.pyx", "and _detach: a server's connections"),
    Internal("asyncio.base_events:_ipaddr_info", "aio/loop.py", "what a numeric address stands for; remembered"),
    Internal("asyncio.base_events:BaseEventLoop._ensure_resolved", "aio/loop.py", "which asks that first"),
    Internal("asyncio.trsock:TransportSocket", "aio/transport.pyx", "made without its __init__, which sets _sock"),
    Internal("_PyType_Lookup, _PyObject_GetMethod", "aio/stream.pyx", "whether a reader's methods are asyncio's own"),
    Internal(
        "asyncio.streams:StreamReader._wakeup_waiter",
        "aio/stream.pyx",
        "which fills _buffer and wakes _waiter itself while these and feed_data are asyncio's own",
    ),
    Internal("asyncio.streams:StreamReaderProtocol._stream_reader", "aio/stream.pyx", "the reader that is fed"),
    Internal(
        "asyncio.unix_events:_UnixDefaultEventLoopPolicy._loop_factory",
        "monkey/__init__.py",
        "what asyncio makes loops of by default",
    ),
    Internal(
        "asyncio.selector_events:_SelectorTransport._call_connection_lost",
        "aio/core.pyx",
        "by this name and _read_ready it knows the callbacks of a connection, in pipes' transports, too",
    ),
    Internal("asyncio.unix_events:_UnixSubprocessTransport", "aio/loop.py", "children"),
    Internal(
        "asyncio.base_events:BaseEventLoop._asyncgen_firstiter_hook",
        "aio/bridge.pyx",
        "with _asyncgen_finalizer_hook, closes generators that begin in a greenlet that calls await_",
    ),
    Internal("_asyncio:Task._must_cancel", "aio/uncancel.py", "a cancellation that has not come yet", last=(3, 12)),
    Internal("asyncio.unix_events:waitstatus_to_exitcode", "aio/loop.py", "how a child has ended"),
    Internal("asyncio.base_events:_format_handle", "aio/core.pyx", "the text of a warning"),
    Internal("asyncio.format_helpers:_format_callback_source", "aio/core.pyx", "the text of an error"),
    Internal("_asyncio:_current_tasks", "asyncio.py", "the current task is put aside", last=(3, 13)),
    Internal("asyncio.events:_py_get_event_loop", "asyncio.py", "asyncio's own, over the greenlet's running loop"),
    Internal("_asyncio:_get_running_loop", "asyncio.py", "the native thread's loop is put aside"),
    Internal("_asyncio:_set_running_loop", "asyncio.py", "and taken back"),
    Internal("_asyncio:_swap_current_task", "asyncio.py", "so is the current task", first=(3, 14)),
    Internal("concurrent.futures:ThreadPoolExecutor._adjust_thread_count", "threadpool.py", "patched executors"),
    Internal("concurrent.futures:Future._invoke_callbacks", "threadpool.py", "callbacks run in the caller's loop"),
    Internal("subprocess:Popen._execute_child", "subprocess.py", "runs over other globals"),
    Internal("subprocess:Popen._communicate", "subprocess.py", "runs over other globals"),
    Internal("subprocess:Popen._check_timeout", "subprocess.py", "runs over other globals"),
    Internal("subprocess:Popen._get_handles", "subprocess.py", "pipes that greenlets wait for"),
    Internal("ssl:SSLSocket._create", "ssl.py", "sockets on contexts that the standard library made"),
    Internal("SSLContext.wrap_bio empties OpenSSL's list of errors", "ssl.py", "a failure is not another connection's"),
    Internal("ssl:_create_unverified_context", "ssl.py", "makes cooperative contexts, too"),
    Internal(
        "an object of a class derived from threading.local has a dictionary of its own and refers to its arguments",
        "monkey/_earlier.py",
        "such classes that are older than patching get data for each greenlet",
    ),
    Internal("multiprocessing.synchronize:SemLock._make_methods", "monkey/_earlier.py", "locks older than patching"),
    Internal("_io:FileIO._dealloc_warn", "fileobject.py", "the buffer above is dropped"),
    Internal("_io:FileIO._finalizing", "fileobject.py", "it is dropped itself"),
    Internal("os:_wrap_close", "os.py", "os.popen's result"),
    Internal("multiprocessing.connection:Connection._recv", "multiprocessing.py", "reads of pipes that wait"),
    Internal("multiprocessing.connection:Connection._send", "multiprocessing.py", "writes to pipes that wait"),
)


def _version(pair: tuple[int, int]) -> str:
    return ".".join(map(str, pair))


if sys.implementation.name != "cpython" or not OLDEST <= sys.version_info[:2] <= NEWEST:
    raise ImportError(
        f"weald runs on CPython {_version(OLDEST)} to {_version(NEWEST)}, this is {sys.implementation.name} "
        f"{_version(sys.version_info[:2])}: use one of those, or a weald that knows this one (pip install -U weald)"
    )
if "t" in sys.abiflags:
    raise ImportError("weald needs a CPython with its global lock: this one is free-threaded")
