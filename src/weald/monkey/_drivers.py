"""Drivers in C that wait by themselves, and can be made to wait by weald: PostgreSQL's psycopg2 and psycopg, gRPC.

Called by: weald.monkey.

If a Timeout or a kill ends a wait, psycopg2's connection is closed: psycopg2 closes a connection whose wait callback
has raised.
"""

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from weald._base.imports import whenever_imported
from weald._base.originals import get_original
from weald._core import Event, wait_read, wait_write, waits_natively

__all__ = ["mend"]


def mend() -> None:
    """Make these drivers wait so that other greenlets run, whether they are imported already or later."""
    _mend_psycopg()
    whenever_imported("grpc._cython.cygrpc", _use_native_threads)
    whenever_imported("psycopg2.extensions", _set_wait_callback)
    whenever_imported("psycopg2", _allow_copy)


def _mend_psycopg() -> None:
    """Make psycopg wait in Python.  Otherwise its C code waits in poll(2), since it does not know of weald's patching.

    It then waits by its `wait_select`, which every version has; weald's select has no limit of 1024 descriptors.
    """
    os.environ.setdefault("PSYCOPG_WAIT_FUNC", "wait_select")
    waiting = sys.modules.get("psycopg.waiting")
    if waiting is not None and waiting.wait is getattr(waiting, "wait_c", None):
        waiting.wait = waiting.wait_select  # type: ignore[attr-defined]


# ------------------------------------------------------------------ psycopg2

_OK, _READ, _WRITE = range(3)  # psycopg2.extensions.POLL_OK, …


def _set_wait_callback(extensions: Any) -> None:
    if extensions.get_wait_callback() is None:  # a program's own callback stays
        extensions.set_wait_callback(wait)


def wait(connection: Any) -> None:
    """Park until the operation that `connection`, of psycopg2, has begun is done."""
    while (state := connection.poll()) != _OK:
        if state not in (_READ, _WRITE):
            raise sys.modules["psycopg2"].OperationalError(f"unexpected state of the connection: {state!r}")
        fd = connection.fileno()
        if waits_natively():
            poller = get_original("select", "poll")()
            poller.register(fd, select.POLLIN if state == _READ else select.POLLOUT)
            poller.poll()
        elif state == _READ:
            wait_read(fd)
        else:
            wait_write(fd)


_copying = 0


@contextmanager
def _natively(extensions: Any) -> Iterator[None]:
    """In the block psycopg2 waits in libpq."""
    global _copying
    if not _copying and extensions.get_wait_callback() is not wait:
        yield
        return
    _copying += 1
    extensions.set_wait_callback(None)
    try:
        yield
    finally:
        _copying -= 1
        if not _copying:
            extensions.set_wait_callback(wait)


def _allow_copy(psycopg2: Any) -> None:
    """Allow COPY, which psycopg2 refuses while a wait callback is set, in the cursors that it makes by itself.

    They remove the callback meanwhile, so COPY stalls the loop.  Cursors of a program's own class still refuse it.
    """
    extensions, connect = psycopg2.extensions, psycopg2._connect

    class cursor(extensions.cursor):  # type: ignore[misc, name-defined]
        def copy_from(self, *args: Any, **kwargs: Any) -> Any:
            with _natively(extensions):
                return super().copy_from(*args, **kwargs)

        def copy_to(self, *args: Any, **kwargs: Any) -> Any:
            with _natively(extensions):
                return super().copy_to(*args, **kwargs)

        def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
            with _natively(extensions):
                return super().copy_expert(*args, **kwargs)

    def connected(*args: Any, **kwargs: Any) -> Any:
        connection = connect(*args, **kwargs)
        if connection.cursor_factory is None:
            connection.cursor_factory = cursor
        return connection

    psycopg2._connect = connected


# ------------------------------------------------------------------ gRPC


class NativeThread:
    """threading.Thread, as far as gRPC uses it: a native thread also when `threading` is patched."""

    def __init__(
        self,
        group: None = None,
        target: Callable[..., object] | None = None,
        name: str | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        daemon: bool | None = None,
    ) -> None:
        self.name = name or type(self).__name__
        self.daemon = bool(daemon)  # they all are: none keeps the interpreter from exiting
        self._call = target, args, kwargs or {}
        self._began = False
        self._ended = Event()

    def start(self) -> None:
        """Begin.  RuntimeError the second time."""
        if self._began:
            raise RuntimeError("threads can only be started once")
        self._began = True
        get_original("_thread", "start_new_thread")(self._run, ())

    def _run(self) -> None:
        target, args, kwargs = self._call
        try:
            if target is not None:
                target(*args, **kwargs)
        finally:
            self._ended.set()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, `timeout` seconds at most (None: for ever)."""
        self._ended.wait(timeout)

    def is_alive(self) -> bool:
        """Whether it has begun and not ended."""
        return self._began and not self._ended.is_set()


class _Threading(ModuleType):
    """`threading`, with native threads."""

    Thread = NativeThread

    def __getattr__(self, name: str) -> Any:
        return getattr(threading, name)


def _use_native_threads(cygrpc: Any) -> None:
    """Let gRPC start native threads: its C core waits in them for events, and as greenlets they would stop the hub."""
    cygrpc.threading = _Threading("threading")
