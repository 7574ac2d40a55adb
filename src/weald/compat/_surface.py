"""Attributes and arguments that only gevent's classes have, added to weald's classes once gevent is imported.

Called by: _drop_in.py.

Invariants:
- Each module of weald gets its part when it is imported, or at once if it is already; nothing is imported for this.
- Nothing here is on a path that programs without gevent's name take, and nothing replaces a compiled method.
"""

import functools
import io
import itertools
import os
import signal as stdlib_signal
from _socket import EAI_NONAME, gaierror
from collections.abc import Callable
from importlib import import_module
from typing import Any

from weald._base.imports import whenever_imported
from weald._core import get_hub, get_hub_if_exists, is_on_main_thread, set_cut_short
from weald.compat._file_layers import in_mode
from weald.exceptions import LoopExit

__all__: list[str] = []


def _hub(self: object) -> Any:
    """The hub of the calling thread: weald's objects do not belong to one hub."""
    return get_hub()


def _socket(module: Any) -> None:
    cancel_all: Callable[[Any], None] = module.cancel_wait

    def cancel_wait(watcher: Any, error: Any = None) -> None:
        """Raise `error`, by default OSError(EBADF), in the greenlet that waits for the watcher; it stays open.

        `watcher` may be a socket: then that is raised in all that wait on it, whatever the error.
        """
        if isinstance(watcher, module.socket):
            cancel_all(watcher)
        else:
            from weald.compat._socketcommon import cancel_wait_ex

            hub: Any = get_hub()
            hub.cancel_wait(watcher, cancel_wait_ex() if error is None else error)

    module.cancel_wait = cancel_wait
    set_cut_short(_cut_short)
    module.SocketType = module.socket
    module.__imports__.remove("SocketType")  # so patching puts ours into the standard library's module
    module.__implements__.append("SocketType")
    module.socket.hub = property(_hub)
    module.socket.closed = property(_is_closed)
    module.socket.ref = property(
        lambda self: self._descriptor.ref,
        lambda self, value: setattr(self._descriptor, "ref", value),
        doc="Whether a wait for it keeps `gevent.wait()` and `hub.join()` waiting; True unless it is set.",
    )


def _cut_short() -> OSError:
    from weald.compat._socketcommon import cancel_wait_ex

    return cancel_wait_ex()


def _is_closed(sock: Any) -> bool:
    """Whether the socket has no descriptor any more."""
    return bool(sock.fileno() < 0)


def _ssl(module: Any) -> None:
    cls = module.SSLSocket
    refuse = cls.__init__

    def __new__(
        cls: Any,
        sock: Any = None,
        keyfile: str | None = None,
        certfile: str | None = None,
        server_side: bool = False,
        cert_reqs: Any = module.CERT_NONE,
        ssl_version: int | None = None,
        ca_certs: str | None = None,
        do_handshake_on_connect: bool = True,
        family: int = -1,
        type: int = -1,
        proto: int = -1,
        fileno: int | None = None,
        suppress_ragged_eofs: bool = True,
        npn_protocols: None = None,
        ciphers: str | None = None,
        server_hostname: str | None = None,
        _session: Any = None,
        _context: Any = None,
    ) -> Any:
        """TLS on `sock`, which is detached, as its arguments or those of `_context` say; what is -1 is the socket's."""
        if sock is None:  # `_create` begins so
            return super(module.SSLSocket, cls).__new__(cls, family, type, proto, fileno)
        options = server_side, keyfile, certfile, cert_reqs, ssl_version, ca_certs, ciphers
        return cls._create(
            sock,
            server_side,
            do_handshake_on_connect,
            suppress_ragged_eofs=suppress_ragged_eofs,
            server_hostname=server_hostname,
            context=_context or module._context_for(*options),
            session=_session,
        )

    def __init__(self: Any, sock: Any = None, *args: Any, **kwargs: Any) -> None:
        if sock is None:
            refuse(self)

    cls.__new__, cls.__init__ = __new__, __init__


def _without_u(mode: Any) -> Any:
    """`mode` without the letter U, which Python's `open` took up to 3.10, and which meant what text does anyway."""
    if not isinstance(mode, str) or "U" not in mode or set(mode) & set("wax+"):
        return mode
    return mode.replace("U", "" if "r" in mode else "r")


def _fileobject(module: Any) -> None:
    kinds = module.FileObjectPosix.__base__  # FileObject may be another by now: `config.fileobject`
    kinds.io = property(lambda self: self._io, doc="The file of module io that this stands for.")
    kinds.next = kinds.__next__
    kinds.default_bufsize = io.DEFAULT_BUFFER_SIZE
    meta: Any = type(kinds)
    make = meta.__call__

    def __call__(cls: Any, *args: Any, **kwargs: Any) -> Any:
        """`cls(*args, **kwargs)`; for the classes themselves None stands for the default, and mode U for text."""
        if cls.__module__ == module.__name__:
            defaults = None, None, -1, True  # of the first arguments; None: not replaced
            args = tuple(
                default if arg is None else arg for arg, default in itertools.zip_longest(args, defaults[: len(args)])
            )
            for name in ("buffering", "bufsize", "closefd", "close"):
                if kwargs.get(name, name) is None:
                    del kwargs[name]
            if len(args) > 1:
                args = (args[0], _without_u(args[1]), *args[2:])
            elif "mode" in kwargs:
                kwargs["mode"] = _without_u(kwargs["mode"])
        text = None
        if cls is kinds and "b" in (args[1] if len(args) > 1 else kwargs.get("mode", "")):
            given = args[0] if args else kwargs.get("fobj")
            if isinstance(given, io.TextIOBase) and hasattr(given, "buffer"):
                text = given
                args, kwargs = (given.buffer, *args[1:]), {k: v for k, v in kwargs.items() if k != "fobj"}
        file = make(cls, *args, **kwargs)
        if text is not None:
            file._text = text  # freed, it would close the buffer
        return file

    meta.__call__ = __call__
    for kind in (module.FileObjectThread, module.FileObjectBlock):
        kind.__init__ = _wrapping(kind.__init__, module._check_mode)


def _wrapping(init: Callable[..., None], check_mode: Callable[..., None]) -> Callable[..., None]:
    """`init` of a kind of file object, which puts the mode's layers over a file object that it is given."""

    @functools.wraps(init)
    def __init__(
        self: Any,
        fobj: Any,
        mode: str = "r",
        buffering: int = -1,
        closefd: bool = True,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        **options: Any,
    ) -> None:
        if hasattr(fobj, "fileno"):
            check_mode(mode, -1, encoding, errors, newline)
            fobj = in_mode(fobj, mode, buffering, closefd, encoding, errors, newline)
        init(self, fobj, mode, buffering, closefd, encoding, errors, newline, **options)

    return __init__


def _selectors(module: Any) -> None:
    import_module("weald.compat._selectors")  # which gives it another DefaultSelector


def _subprocess(module: Any) -> None:
    Popen = module.Popen
    stdlibs_init = Popen.__init__

    def __init__(self: Any, *args: Any, threadpool: None = None, **kwargs: Any) -> None:
        if threadpool is not None:
            raise AssertionError("threadpool is only for Windows")
        # While SIGCHLD is ignored, the system forgets how children ended, and each seems to have returned 0.
        if is_on_main_thread() and stdlib_signal.getsignal(stdlib_signal.SIGCHLD) is stdlib_signal.SIG_IGN:
            stdlib_signal.signal(stdlib_signal.SIGCHLD, stdlib_signal.SIG_DFL)
        stdlibs_init(self, *args, **kwargs)

    def pipe_cloexec(self: Any) -> tuple[int, int]:
        """Return the two ends of a new pipe, for reading and for writing, which children do not inherit."""
        return os.pipe()

    def returncode(self: Any) -> int | None:
        state = self.__dict__
        if state["returncode"] is None and self.pid is not None and "_looks" not in state:
            state["_looks"] = True
            try:
                self._reap()
            finally:
                del state["_looks"]
        return state["returncode"]  # type: ignore[no-any-return]

    Popen.__init__, Popen.pipe_cloexec = __init__, pipe_cloexec
    Popen.returncode = property(
        returncode,
        lambda self, value: self.__dict__.__setitem__("returncode", value),
        doc="The return code once the child has ended, whether `poll` or `wait` was called or not; else None.",
    )


def _threadpool(module: Any) -> None:
    pool = module.ThreadPool
    pool.pid = property(lambda self: os.getpid(), doc="The process that it works in: in a fork's child, the child.")
    pool.manager = None  # weald adjusts a pool's threads when they are needed, without a greenlet for it
    pool.task_queue = property(lambda self: self._workers._queue, doc="What its threads take their calls from.")


def _dns(module: Any) -> None:
    resolver = module.DnsResolver
    resolver.HOSTNAME_ENCODING = "idna"
    resolver.EAI_NONAME_MSG = "Name or service not known"
    resolver.EAI_FAMILY_MSG = "ai_family not supported"
    resolver.fixup_gaierror = staticmethod(_with_message)


def _with_message(func: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a resolver's method: gaierror(EAI_NONAME) without a text gets EAI_NONAME_MSG."""

    @functools.wraps(func)
    def resolve(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return func(self, *args, **kwargs)
        except gaierror as error:
            if error.args == (EAI_NONAME,):
                error.args = EAI_NONAME, self.EAI_NONAME_MSG
                error.errno = EAI_NONAME
            raise

    return resolve


# "The (optional) hub that raised it"; weald's has no further arguments than its text.
LoopExit.hub = property(  # type: ignore[attr-defined]
    lambda self: self.args[1] if len(self.args) > 1 else get_hub_if_exists(), doc="The hub that ran dry."
)

for _name, _add in {
    "fileobject": _fileobject,
    "resolver._dns": _dns,
    "selectors": _selectors,
    "socket": _socket,
    "ssl": _ssl,
    "subprocess": _subprocess,
    "threadpool": _threadpool,
}.items():
    whenever_imported(f"weald.{_name}", _add)
